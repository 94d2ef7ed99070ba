"""The 14 observations of CheXpert, their four states, and the 13 clusters of CCVE.

Labels are keyed by observation *name*. CheXpert, MIMIC-CXR and CheXbert have three orders and three number codes;
no index and no bare integer crosses a module border here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class LabelState(StrEnum):
    """What a report says of an observation."""

    BLANK = "blank"
    NEGATIVE = "negative"
    UNCERTAIN = "uncertain"
    POSITIVE = "positive"


_STRENGTH = {LabelState.BLANK: 0, LabelState.NEGATIVE: 1, LabelState.UNCERTAIN: 2, LabelState.POSITIVE: 3}


ASSERTED = (LabelState.POSITIVE, LabelState.UNCERTAIN)
"""States of what a report says is or may be there."""


def stronger(first: LabelState, second: LabelState) -> LabelState:
    """Return the state that outweighs the other: positive over uncertain over negative over blank, as in CheXpert."""
    return first if _STRENGTH[first] >= _STRENGTH[second] else second


NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"

# CheXpert's 14 (Irvin et al. 2019, arXiv:1901.07031), in CheXbert's order. The order is for display only.
OBSERVATIONS: tuple[str, ...] = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    SUPPORT_DEVICES,
    NO_FINDING,
)

# Pleural Other joins Pleural Effusion: the paper says the two named nearly the same sentences (section 3.1);
# that these are the ones merged is our choice (paper-notes 1.4).
CLUSTER_OF: dict[str, str] = {name: name for name in OBSERVATIONS} | {"Pleural Other": "Pleural Effusion"}

CLUSTERS: tuple[str, ...] = tuple(name for name in OBSERVATIONS if name != "Pleural Other")

CLUSTER_PARTS: dict[str, frozenset[str]] = {
    cluster: frozenset(name for name, own in CLUSTER_OF.items() if own == cluster) for cluster in CLUSTERS
}
"""The observations of each cluster."""


def findings(states: Mapping[str, LabelState]) -> list[str]:
    """Observations that are asserted, No Finding left out, in the order of ``states``."""
    return [name for name, state in states.items() if state in ASSERTED and name != NO_FINDING]


def no_finding_state(states: dict[str, LabelState]) -> LabelState:
    """Work out No Finding from the other states, as CheXpert does.

    Args:
        states: by observation name; No Finding itself is ignored, Support Devices never block it.

    Returns:
        POSITIVE if nothing else is positive or uncertain, otherwise BLANK.
    """
    found = any(state in ASSERTED for name, state in states.items() if name not in (NO_FINDING, SUPPORT_DEVICES))
    return LabelState.BLANK if found else LabelState.POSITIVE
