"""Choices of views, by source: which images of a study are used. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
_IN_WORDS = {"FRONTAL": "frontal view", "LATERAL": "lateral view"}

VIEW_CHOICES: dict[str, dict[str, ViewChoice]] = {
    # R2Gen counts Open-i by study, MIMIC-CXR by image (paper-notes 5.1, 5.3).
    "openi": {"frontal": ViewChoice(_FRONTAL, first_only=True), "both": ViewChoice(None)},
    "mimic_cxr": {"ap": ViewChoice(frozenset({"AP"})), "frontal": ViewChoice(_FRONTAL), "all": ViewChoice(None)},
}


def view_in_words(view: str) -> str:
    """How a view is called on a page: "PA view", "lateral view"; "" where it is not known."""
    return _IN_WORDS.get(view, f"{view} view" if view else "")


def lateral_note(view: str, data: Mapping[str, Any]) -> str:
    """What to say where a pair reads a lateral view and learned from none; "" where there is nothing to say.

    Args:
        view: of the image, as in `core.types.Study`.
        data: of the pair's configuration: "source" and "views".
    """
    choice = VIEW_CHOICES.get(str(data.get("source", "")), {}).get(str(data.get("views", "")))
    if view != "LATERAL" or (choice is not None and (choice.views is None or view in choice.views)):
        return ""
    return (
        "This is a lateral view; the models know frontal views. What they write of it, and what is shown to explain "
        "it, means nothing."
    )
