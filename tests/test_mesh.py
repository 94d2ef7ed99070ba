"""Open-i's human codes as states of the observations."""

import pytest

from core.labels.mesh import Code, read_code, states_of_codes
from core.observations import OBSERVATIONS


def states(*codes: str) -> dict[str, str]:
    found = states_of_codes(codes)
    assert found is not None
    assert tuple(found) == OBSERVATIONS
    return {name: str(state) for name, state in found.items() if state != "blank"}


def test_a_code_has_a_heading_and_qualifiers() -> None:
    assert read_code("Pulmonary Atelectasis/base/left") == Code("pulmonary atelectasis", ("base", "left"))
    assert read_code("Technical Quality of Image Unsatisfactory ") == Code(
        "technical quality of image unsatisfactory", ()
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("Cardiomegaly/mild", {"Cardiomegaly": "positive"}),
        ("Cardiomegaly/borderline", {"Cardiomegaly": "uncertain"}),
        ("Cardiac Shadow/obscured/severe", {}),
        ("Opacity/lung/base/left/streaky", {"Lung Opacity": "positive"}),
        ("Opacity/lung/upper lobe/right/round", {"Lung Opacity": "positive", "Lung Lesion": "positive"}),
        ("Opacity/pleura/right", {}),
        ("Cicatrix/lung/lingula", {"Lung Opacity": "positive"}),
        ("Cicatrix/pleura/apex/bilateral", {"Pleural Other": "positive"}),
        ("Markings/bronchovascular", {}),
        ("Markings/lung/interstitial", {"Lung Opacity": "positive"}),
        ("Calcified Granuloma/lung/lingula", {}),
        ("Mediastinum/lymph nodes/enlarged", {}),
        ("Mediastinum/prominent", {"Enlarged Cardiomediastinum": "positive"}),
        ("Pulmonary Congestion/mild", {"Edema": "uncertain"}),
        ("Hydropneumothorax/left/large", {"Pneumothorax": "positive", "Pleural Effusion": "positive"}),
        ("Costophrenic Angle/right/blunted", {}),
        ("Deformity/ribs/left", {}),
        ("Fractures, Bone/ribs/right/healed", {"Fracture": "positive"}),
        ("Surgical Instruments/abdomen/right", {"Support Devices": "positive"}),
        ("normal", {}),
    ],
)
def test_what_a_code_means(code: str, expected: dict[str, str]) -> None:
    devices_or_nothing = set(expected) <= {"Support Devices"}
    assert states(code) == expected | ({"No Finding": "positive"} if devices_or_nothing else {})


def test_the_strongest_code_of_an_observation_counts() -> None:
    assert states("Cardiomegaly/borderline", "Cardiac Shadow/enlarged")["Cardiomegaly"] == "positive"
    assert states("Pulmonary Congestion", "Pulmonary Edema", "Pulmonary Congestion")["Edema"] == "positive"


def test_a_report_that_no_one_coded_says_nothing() -> None:
    assert states_of_codes(["No Indexing"]) is None
