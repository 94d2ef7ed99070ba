"""Choices of views, by source: which images of a study are used. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ViewChoice:
    """Which images of a study are used.

    Attributes:
        views: that count; None is all, unknown ones too.
        first_only: one image a study, the first.
    """

    views: frozenset[str] | None
    first_only: bool = False


_FRONTAL = frozenset({"AP", "PA", "FRONTAL"})

VIEW_CHOICES: dict[str, dict[str, ViewChoice]] = {
    # R2Gen counts Open-i by study, MIMIC-CXR by image (paper-notes 5.1, 5.3).
    "openi": {"frontal": ViewChoice(_FRONTAL, first_only=True), "both": ViewChoice(None)},
    "mimic_cxr": {"ap": ViewChoice(frozenset({"AP"})), "frontal": ViewChoice(_FRONTAL), "all": ViewChoice(None)},
}
