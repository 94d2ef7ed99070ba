"""What the report of a film says of the finding that was drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.labels.rules import LabeledReport, label_report
from core.observations import LabelState

_SIDES = {"right": re.compile(r"\bright\b", re.IGNORECASE), "left": re.compile(r"\bleft\b", re.IGNORECASE)}
_BOTH = re.compile(r"\b(?:bilateral|bilaterally|both|bibasilar|biapical)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mentioned:
    """What one report says of one finding.

    Attributes:
        present: it is called present, with or without doubt.
        hedged: it is called possible only.
        other_side: it is called present, and every sentence that does so names the other side alone.
        words: of the first such mention, with its place (start, end) in the text; None where there is none.
    """

    present: bool
    hedged: bool
    other_side: bool
    words: tuple[int, int] | None


def mentioned(text: str, finding: str, side: str = "", labelled: LabeledReport | None = None) -> Mentioned:
    """Read a report.

    Args:
        text: the report.
        finding: one of the 14 observations.
        side: of the patient where it was drawn, "right", "left"; "" and "bilateral" are on no one side.
        labelled: its labels, where they are known already.
    """
    found = labelled or label_report(text)
    state = found.states[finding]
    if state not in (LabelState.POSITIVE, LabelState.UNCERTAIN):
        return Mentioned(present=False, hedged=False, other_side=False, words=None)
    said = [mention for mention in found.mentions if mention.observation == finding and mention.state is state]
    sentences = [text[mention.sentence_start : mention.sentence_end] for mention in said]
    wrong = side in _SIDES and bool(sentences) and all(_names_only_other(each, side) for each in sentences)
    words = (said[0].start, said[0].end) if said else None
    return Mentioned(present=True, hedged=state is LabelState.UNCERTAIN, other_side=wrong, words=words)


def _names_only_other(sentence: str, side: str) -> bool:
    other = "left" if side == "right" else "right"
    named = {name for name, words in _SIDES.items() if words.search(sentence)}
    return named == {other} and not _BOTH.search(sentence)
