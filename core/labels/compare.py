"""How a generated report's labels differ from the reference's."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from core.observations import ASSERTED, NO_FINDING, OBSERVATIONS, LabelState


class Outcome(StrEnum):
    """What became of an observation on the way from the reference to the generated report."""

    FOUND = "found"
    MISSED = "missed"
    INVENTED = "invented"
    OPPOSITE = "opposite"


def compare(reference: Mapping[str, LabelState], generated: Mapping[str, LabelState]) -> dict[str, Outcome]:
    """Compare two reports, observation by observation.

    An uncertain observation is asserted, as a positive one is. What neither report asserts is left out.

    Args:
        reference: the radiologist's states by observation name, all 14.
        generated: the model's, likewise.

    Returns:
        by observation name, in the order of `OBSERVATIONS`. No Finding is never OPPOSITE: a report either has findings
        or not.
    """
    outcomes = {name: _outcome(reference[name], generated[name]) for name in OBSERVATIONS}
    if outcomes[NO_FINDING] is Outcome.OPPOSITE:
        asserted = reference[NO_FINDING] in ASSERTED
        outcomes[NO_FINDING] = Outcome.MISSED if asserted else Outcome.INVENTED
    return {name: outcome for name, outcome in outcomes.items() if outcome is not None}


def _outcome(reference: LabelState, generated: LabelState) -> Outcome | None:
    if reference in ASSERTED:
        if generated in ASSERTED:
            return Outcome.FOUND
        return Outcome.OPPOSITE if generated is LabelState.NEGATIVE else Outcome.MISSED
    if generated in ASSERTED:
        return Outcome.OPPOSITE if reference is LabelState.NEGATIVE else Outcome.INVENTED
    return None
