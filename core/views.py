"""Names of views, and which images of a study are used, by source. Imports nothing heavy."""

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

_CHOICES: dict[str, dict[str, ViewChoice]] = {
    # R2Gen counts Open-i by study, MIMIC-CXR by image (paper-notes 5.1, 5.3).
    "openi": {"frontal": ViewChoice(_FRONTAL, first_only=True), "both": ViewChoice(None)},
    "mimic_cxr": {"ap": ViewChoice(frozenset({"AP"})), "frontal": ViewChoice(_FRONTAL), "all": ViewChoice(None)},
}
# Of data that nobody here has seen: an image whose view nothing tells is taken for a frontal one.
_OTHERS = {
    "frontal": ViewChoice(_FRONTAL | {""}, first_only=True),
    "any": ViewChoice(None, first_only=True),
    "all": ViewChoice(None),
}

_SPELLED = {
    "PA": ("PA", "POSTEROANTERIOR", "POSTERIORANTERIOR"),
    "AP": (
        "AP",
        "ANTEROPOSTERIOR",
        "ANTERIORPOSTERIOR",
        "APSUPINE",
        "APHORIZONTAL",
        "APERECT",
        "APPORTABLE",
        "PORTABLE",
        "APVERTICAL",
    ),
    "FRONTAL": ("FRONTAL", "FRONT"),
    "LATERAL": ("LATERAL", "LAT", "L", "LL", "RL", "LLAT", "RLAT", "LEFTLATERAL", "RIGHTLATERAL", "LATERO"),
}
_VIEWS = {spelling: view for view, spellings in _SPELLED.items() for spelling in spellings}


def view_choices(source: str) -> dict[str, ViewChoice]:
    """Choices of views of a kind of source; of one that has none of its own, those of any data. All have "frontal"."""
    return _CHOICES.get(source, _OTHERS)


def plain_view(text: str) -> str:
    """A view as `core.types.Study.view` has it, from the many ways in which tables and makers write it.

    What is none of these names stays, in upper case ("OBLIQUE"): it is neither frontal nor lateral.
    """
    words = "".join(each for each in text.upper() if each.isalpha())
    return "" if words in _SAYS_NONE else _VIEWS.get(words, text.strip().upper())


_SAYS_NONE = ("", "NAN", "NONE", "NULL", "NA", "UNKNOWN", "UNK")


def view_in_words(view: str) -> str:
    """How a view is called on a page: "PA view", "lateral view"; "" where it is not known."""
    return _IN_WORDS.get(view, f"{view} view" if view else "")


def lateral_note(view: str, data: Mapping[str, Any]) -> str:
    """What to say where a pair reads a lateral view and learned from none; "" where there is nothing to say.

    Args:
        view: of the image, as in `core.types.Study`.
        data: of the pair's configuration: "source" and "views".
    """
    choice = view_choices(str(data.get("source", ""))).get(str(data.get("views", "")))
    if view != "LATERAL" or (choice is not None and (choice.views is None or view in choice.views)):
        return ""
    return (
        "This is a lateral view; the models know frontal views. What they write of it, and what is shown to explain "
        "it, means nothing."
    )
