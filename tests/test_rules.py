"""The rule labeler against hand-written sentences, its own contract, and the phantom's known truth."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.labels.compare import Outcome, compare
from core.labels.observations import NO_FINDING, OBSERVATIONS, LabelState, no_finding_state
from core.labels.rules import RULES_VERSION, label_report, label_reports

STATES = {"+": LabelState.POSITIVE, "-": LabelState.NEGATIVE, "?": LabelState.UNCERTAIN}
SHORT = {
    "ECM": "Enlarged Cardiomediastinum",
    "CM": "Cardiomegaly",
    "LO": "Lung Opacity",
    "LL": "Lung Lesion",
    "ED": "Edema",
    "CO": "Consolidation",
    "PN": "Pneumonia",
    "AT": "Atelectasis",
    "PX": "Pneumothorax",
    "PE": "Pleural Effusion",
    "PO": "Pleural Other",
    "FX": "Fracture",
    "SD": "Support Devices",
}

# sentence -> every observation it speaks of, with its state; what is not named is blank
SENTENCES = [
    # plain statements
    ("There is a large right pleural effusion.", "PE+"),
    ("Small left apical pneumothorax.", "PX+"),
    ("Dense consolidation of the lingula with air bronchograms.", "CO+"),
    ("Bibasilar atelectatic change.", "AT+"),
    ("Partial collapse of the right upper lobe.", "AT+"),
    ("Two nodules project over the left mid lung.", "LL+"),
    ("Lobulated mass in the right hilum.", "LL+"),
    ("Multifocal pneumonia.", "PN+"),
    ("Old fractures of the left seventh and eighth ribs.", "FX+"),
    ("Moderate interstitial pulmonary edema.", "ED+"),
    ("Patchy airspace disease at both bases.", "LO+"),
    ("Hazy infiltrate at the right base.", "LO+"),
    ("Biapical pleural thickening.", "PO+"),
    ("The tip of the endotracheal tube lies above the carina.", "SD+"),
    ("Left chest wall pacemaker with intact leads.", "SD+"),
    ("Median sternotomy wires are aligned.", "SD+"),
    ("Right internal jugular line ends in the upper atrium.", "SD+"),
    ("Consolidative opacity in the left lower lobe.", "CO+ LO+"),
    # structures: judged, or not mentioned
    ("Heart size is normal.", "CM-"),
    ("Normal heart size.", "CM-"),
    ("The heart is normal in size.", "CM-"),
    ("The cardiac silhouette is within normal limits.", "CM-"),
    ("Heart size is at the upper limits of normal.", "CM-"),
    ("The heart is not enlarged.", "CM-"),
    ("The heart is enlarged.", "CM+"),
    ("The cardiac silhouette is moderately enlarged but stable.", "CM+"),
    ("Stable, mildly enlarged heart.", "CM+"),
    ("The heart is stable and mildly enlarged.", "CM+"),
    ("The heart may be enlarged.", "CM?"),
    ("Stable heart size.", "CM?"),
    ("Borderline heart size.", "CM?"),
    ("Heart size is unchanged.", "CM?"),
    ("A catheter projects over the heart.", "SD+"),
    ("The left heart border is sharp.", ""),
    ("Mediastinal contours are normal.", "ECM-"),
    ("The cardiomediastinal silhouette is unremarkable.", "ECM-"),
    ("The mediastinum is widened.", "ECM+"),
    ("Mild mediastinal widening.", "ECM+"),
    ("Stable cardiomediastinal silhouette.", "ECM?"),
    ("Normal and stable cardiomediastinal contours.", "ECM-"),
    ("Calcified mediastinal lymph nodes.", ""),
    ("Heart and mediastinum are normal.", "CM- ECM-"),
    ("Normal heart size, mediastinal contours and vessels.", "CM- ECM-"),
    ("Heart size normal, mediastinum widened.", "CM- ECM+"),
    ("Heart size is enlarged, stable mediastinal contours.", "CM+ ECM?"),
    ("Stable mediastinal contour with normal heart size.", "ECM? CM-"),
    ("The heart is normal in size with small bilateral effusions.", "CM- PE+"),
    ("Normal lungs, heart is enlarged.", "CM+"),
    ("Increased interstitial markings throughout.", "LO+"),
    # negation
    ("No pneumothorax.", "PX-"),
    ("There is no evidence of pulmonary edema.", "ED-"),
    ("No focal consolidation, pleural effusion, or pneumothorax.", "CO- PE- PX-"),
    ("No pneumonia, effusions, edema, nodules or masses.", "PN- PE- ED- LL-"),
    ("The lungs are expanded without focal airspace disease, effusion or pneumothorax.", "LO- PE- PX-"),
    ("The lungs are free of infiltrates.", "LO-"),
    ("The lungs are clear of consolidation or edema.", "CO- ED-"),
    ("The study is negative for pneumonia or effusion.", "PN- PE-"),
    ("Neither consolidation nor effusion is seen.", "CO- PE-"),
    ("No acute rib fracture is identified.", "FX-"),
    ("No definite pleural fluid.", "PE-"),
    ("No new focal opacity.", "LO-"),
    ("No opacity to suggest pneumonia.", "LO- PN-"),
    ("A pneumothorax is not seen.", "PX-"),
    ("Pleural effusion is absent.", "PE-"),
    ("The effusion has resolved.", "PE-"),
    ("Interval resolution of the left effusion.", "PE-"),
    ("Resolved edema.", "ED-"),
    ("The right base consolidation is no longer seen.", "CO-"),
    ("Consolidation and effusion in the left base have cleared.", "CO- PE-"),
    ("The chest tube has been removed.", "SD-"),
    ("Interval removal of the PICC line.", "SD-"),
    ("Scarring rather than pneumonia.", "LO+ PN-"),
    ("Atelectasis without pneumonia.", "AT+ PN-"),
    ("Emphysema without superimposed pneumonia.", "PN-"),
    # where negation ends
    ("No pneumothorax, but there is a small effusion.", "PX- PE+"),
    ("No effusion; mild edema.", "PE- ED+"),
    ("No pneumothorax is seen, small left effusion is present.", "PX- PE+"),
    ("No pneumothorax. Small effusion.", "PX- PE+"),
    ("No effusion is seen and mild edema persists.", "PE- ED+"),
    ("No pneumothorax after placement of a chest tube.", "PX- SD+"),
    ("No pneumothorax, sternotomy wires intact.", "PX- SD+"),
    ("Aside from atelectasis, no abnormality.", "AT+"),
    ("No abnormality apart from atelectasis.", "AT+"),
    # what only looks like negation
    ("No change in moderate effusion.", "PE+"),
    ("Effusion without significant change.", "PE+"),
    ("No significant interval change in the right pneumothorax.", "PX+"),
    ("Edema has not improved.", "ED+"),
    ("The effusion has nearly completely resolved.", "PE+"),
    ("Not only atelectasis but also effusion.", "AT+ PE+"),
    # uncertainty that looks like negation
    ("Small effusion cannot be excluded.", "PE?"),
    ("Cannot exclude a small pneumothorax.", "PX?"),
    ("Superimposed pneumonia is not excluded.", "PN?"),
    ("Underlying consolidation cannot be entirely ruled out.", "CO?"),
    ("It is difficult to exclude a nodule.", "LL?"),
    ("Nondisplaced fractures may not be seen.", "FX?"),
    # uncertainty
    ("Opacity which may represent pneumonia.", "LO+ PN?"),
    ("Bibasilar opacities could reflect atelectasis or pneumonia.", "LO+ AT? PN?"),
    ("Possible small pleural effusion.", "PE?"),
    ("Possible nodule, no effusion.", "LL? PE-"),
    ("Atelectasis versus pneumonia.", "AT? PN?"),
    ("Atelectasis vs. pneumonia at the left base.", "AT? PN?"),
    ("Atelectasis or consolidation.", "AT? CO?"),
    ("Atelectasis/consolidation at the base.", "AT? CO?"),
    ("Question of a left apical pneumothorax.", "PX?"),
    ("Findings are concerning for pneumonia.", "PN?"),
    ("Suspicious for malignancy.", "LL?"),
    ("Suspected rib fracture.", "FX?"),
    ("A small effusion is suspected.", "PE?"),
    ("A trace effusion may be present.", "PE?"),
    ("There may be minimal edema.", "ED?"),
    ("Probable atelectasis and a definite effusion.", "AT? PE+"),
    ("Small effusion is present, pneumonia cannot be excluded.", "PE+ PN?"),
    ("Pulmonary vascular congestion.", "ED?"),
    ("No vascular congestion.", "ED-"),
    # not meant, or two at once
    ("Calcified nodule in the left lung.", ""),
    ("Pericardial effusion.", ""),
    ("No pleural or pericardial effusion.", "PE-"),
    ("Pleural scarring on the left.", "PO+"),
    ("Soft tissue edema.", ""),
    ("Prior granulomatous infection.", ""),
    ("Findings of heart failure.", "ED+ CM?"),
    ("No heart failure.", "ED-"),
    ("Vertebral body collapse.", ""),
    # no-finding phrases name no observation
    ("The lungs are clear.", ""),
    ("No acute cardiopulmonary process.", ""),
    ("Normal chest radiograph.", ""),
    # a number's point ends no sentence
    ("No nodule larger than 0.5 cm or effusion.", "LL- PE-"),
]


def expected_states(code: str) -> dict[str, LabelState]:
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    states |= {SHORT[item[:-1]]: STATES[item[-1]] for item in code.split()}
    return states | {NO_FINDING: no_finding_state(states)}


def said(states: dict[str, LabelState]) -> dict[str, str]:
    return {name: str(state) for name, state in states.items() if state is not LabelState.BLANK}


@pytest.mark.parametrize(("sentence", "code"), SENTENCES, ids=[sentence for sentence, _ in SENTENCES])
def test_sentence(sentence: str, code: str) -> None:
    assert said(label_report(sentence).states) == said(expected_states(code))


@pytest.mark.parametrize(("sentence", "code"), SENTENCES, ids=[sentence for sentence, _ in SENTENCES])
def test_a_decoders_spelling_is_read_like_prose(sentence: str, code: str) -> None:
    spaced = sentence.lower()
    for mark in ".,;/":
        spaced = spaced.replace(mark, f" {mark} ")
    spaced = spaced.replace("vs .", "vs.").replace("0 . 5", "0.5")
    assert said(label_report(" ".join(spaced.split())).states) == said(expected_states(code))


# --- aggregation ---


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No effusion. Possible effusion.", LabelState.UNCERTAIN),
        ("Possible effusion. Small effusion. No effusion.", LabelState.POSITIVE),
        ("No effusion. Small effusion.", LabelState.POSITIVE),
        ("No effusion. No effusion.", LabelState.NEGATIVE),
        ("The lungs are clear.", LabelState.BLANK),
    ],
)
def test_positive_outweighs_uncertain_outweighs_negative(text: str, state: LabelState) -> None:
    assert label_report(text).states["Pleural Effusion"] is state


def test_no_finding_is_blocked_by_findings_and_doubts_but_not_by_devices_and_denials() -> None:
    for text in ("", "No pneumothorax. Pacemaker in place.", "Normal heart size."):
        assert label_report(text).states[NO_FINDING] is LabelState.POSITIVE
    for text in ("Possible nodule.", "Small effusion. Pacemaker in place."):
        assert label_report(text).states[NO_FINDING] is LabelState.BLANK


def test_evidence_is_where_the_text_says_it() -> None:
    text = "Heart size is normal. İ  No effusion or\npneumothorax; nodule may represent a mass."
    report = label_report(text)
    found = [(m.observation, str(m.state), text[m.start : m.end], m.reason) for m in report.mentions]
    assert found == [
        ("Cardiomegaly", "negative", "Heart size", "normal"),
        ("Pleural Effusion", "negative", "effusion", "no"),
        ("Pneumothorax", "negative", "pneumothorax", "no"),
        ("Lung Lesion", "positive", "nodule", ""),
        ("Lung Lesion", "uncertain", "mass", "may represent"),
    ]
    first = report.mentions[0]
    assert text[first.sentence_start : first.sentence_end] == "Heart size is normal."


# --- properties ---

WORDS = """no not cannot exclude may represent or and , . ; with effusion pneumothorax heart size is normal enlarged
mediastinum edema nodule tube removed resolved stable calcified possible versus without change in / ( ) 1.5 ?"""
words = st.sampled_from([*WORDS.split(), "\n", ""])
texts = st.one_of(st.text(max_size=300), st.lists(words, max_size=60).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(texts)
def test_any_text_is_labeled_with_evidence_for_every_state(text: str) -> None:
    report = label_report(text)
    assert tuple(report.states) == OBSERVATIONS
    assert label_report(text) == report
    assert report.states[NO_FINDING] is no_finding_state(dict(report.states))
    for name in OBSERVATIONS[:-1]:
        states = {mention.state for mention in report.mentions if mention.observation == name}
        strongest = [state for state in ("positive", "uncertain", "negative") if state in states]
        assert report.states[name] == (strongest[0] if strongest else "blank")
    for mention in report.mentions:
        assert 0 <= mention.sentence_start <= mention.start < mention.end <= mention.sentence_end <= len(text)
        assert mention.state is not LabelState.BLANK
        assert mention.observation in OBSERVATIONS[:-1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([sentence for sentence, _ in SENTENCES]), min_size=1, max_size=6))
def test_sentences_do_not_influence_each_other(sentences: list[str]) -> None:
    apart = [m.state for sentence in sentences for m in label_report(sentence).mentions]
    together = [m.state for m in label_report(" ".join(sentences)).mentions]
    assert together == apart


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", ["no effusion, ", "effusion or ", "heart normal, ", "central venous ", "1 . ", "\n "])
def test_endless_sentences_take_no_endless_time(part: str) -> None:
    label_report(part * (20_000 // len(part)))


def test_many_reports_in_processes_equal_one_by_one() -> None:
    reports = [sentence for sentence, _ in SENTENCES[:20]]
    assert label_reports(reports, processes=2) == label_reports(reports) == [label_report(text) for text in reports]
    assert label_reports([]) == label_reports([], processes=2) == []


def test_rules_have_a_version() -> None:
    assert RULES_VERSION


# --- the phantom knows its truth ---


def test_agrees_with_the_phantoms_truth() -> None:
    phantom = pytest.importorskip("core.studies.phantom")
    studies = phantom.PhantomSource(count=400, seed=1).studies("train")[:300]
    assert len(studies) >= 250
    reports = label_reports([study.findings for study in studies])
    scores = []
    for name in OBSERVATIONS:
        true = [study.labels[name] == "positive" for study in studies]
        read = [report.states[name] == "positive" for report in reports]
        both = sum(a and b for a, b in zip(true, read, strict=True))
        scores.append(2 * both / (sum(true) + sum(read)))
    assert sum(scores) / len(scores) >= 0.97, dict(zip(OBSERVATIONS, scores, strict=True))


# --- comparison of two reports ---


def test_compares_every_pair_of_states() -> None:
    positive, negative, uncertain, blank = (LabelState(s) for s in ("positive", "negative", "uncertain", "blank"))
    found, missed, invented, opposite = Outcome.FOUND, Outcome.MISSED, Outcome.INVENTED, Outcome.OPPOSITE
    table = {
        (positive, positive): found,
        (positive, uncertain): found,
        (positive, negative): opposite,
        (positive, blank): missed,
        (uncertain, positive): found,
        (uncertain, uncertain): found,
        (uncertain, negative): opposite,
        (uncertain, blank): missed,
        (negative, positive): opposite,
        (negative, uncertain): opposite,
        (negative, negative): None,
        (negative, blank): None,
        (blank, positive): invented,
        (blank, uncertain): invented,
        (blank, negative): None,
        (blank, blank): None,
    }
    nothing = dict.fromkeys(OBSERVATIONS, blank)
    for (reference, generated), outcome in table.items():
        result = compare(nothing | {"Edema": reference}, nothing | {"Edema": generated})
        assert result == ({} if outcome is None else {"Edema": outcome})


def test_no_finding_is_found_missed_or_invented() -> None:
    sick, well = label_report("Small effusion.").states, label_report("No effusion.").states
    assert compare(well, well) == {NO_FINDING: Outcome.FOUND}
    assert compare(well, sick) == {"Pleural Effusion": Outcome.OPPOSITE, NO_FINDING: Outcome.MISSED}
    assert compare(sick, well) == {"Pleural Effusion": Outcome.OPPOSITE, NO_FINDING: Outcome.INVENTED}
