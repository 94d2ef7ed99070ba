"""A report's text in, what it says of each observation out, for a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.api import drawing
from core.labels.rules import Mention, label_report
from core.observations import LabelState
from core.types import CXRLensError


@dataclass(frozen=True)
class LabeledText:
    """A text and what it says of CheXpert's 14 observations. A notebook shows it with the words marked that say it.

    Attributes:
        text: as given.
        states: by observation; all 14 are there.
        mentions: the words that speak of an observation, with what decided, by their place in the text.
    """

    text: str
    states: Mapping[str, LabelState] = field(repr=False)
    mentions: tuple[Mention, ...] = field(repr=False)

    @property
    def labels(self) -> dict[str, str]:
        """State of each observation that the text speaks of: "positive", "negative" or "uncertain"."""
        return {name: str(state) for name, state in self.states.items() if state is not LabelState.BLANK}

    @property
    def summary(self) -> str:
        """The labels in a line."""
        return ", ".join(f"{name}: {state}" for name, state in self.labels.items()) or "nothing is mentioned"

    def __repr__(self) -> str:
        """The text, and its labels."""
        return f"{self.text}\n  [{self.summary}]"

    def _repr_html_(self) -> str:
        return drawing.text_html(self.text, self.mentions, [self.summary])


def label(text: str) -> LabeledText:
    """Label a report by the rules: what it says of the 14 observations, and with which words.

    Args:
        text: a whole report, or a section of one.

    Raises:
        CXRLensError: it is not a string.
    """
    if not isinstance(text, str):
        raise CXRLensError(f"A report is a text, not a value of type {type(text).__name__}.")
    labeled = label_report(text)
    return LabeledText(text, labeled.states, labeled.mentions)
