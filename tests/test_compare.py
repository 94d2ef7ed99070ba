"""Two reports compared by the states of their labels."""

from core.labels.compare import Outcome, compare
from core.labels.rules import label_report
from core.observations import NO_FINDING, OBSERVATIONS, LabelState

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
