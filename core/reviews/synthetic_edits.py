"""How a synthetic reader of a rehearsal edits a draft: towards the reference, with some errors missed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.files import hash_of
from core.labels.rules import label_report
from core.observations import ASSERTED, NO_FINDING
from core.reviews.editing_design import PlantedError
from core.reviews.planted_errors import mend
from core.text import count_words, sentence_spans, tokenize

_READ, _PER_WORD, _LOOK = 14.0, 0.9, 12.0
"""Seconds: of reading a draft's 20 words, of a word that is written or taken out, and of looking at the image."""
_MENDED, _CAUGHT, _FORGOTTEN = 0.75, 0.7, 0.08
"""Shares: of a draft's errors that are mended, of planted ones, of what a reader forgets who begins from nothing."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A report as a synthetic reader leaves it.

    Attributes:
        text: of the report.
        bout: of typing, as `store.save_edit` takes it; None where nothing was changed.
        seconds: on the screen.
    """

    text: str
    bout: Mapping[str, Any] | None
    seconds: float


def edit_as_reader(
    draft: str,
    reference: str,
    planted: PlantedError | None,
    pace: float,
    random: np.random.Generator,
    takes: float | None = None,
) -> Edited:
    """Edit a draft.

    Args:
        draft: as it is shown; empty where the reader begins from nothing.
        reference: of the study; where there is none, the draft is taken for right.
        planted: the error in the draft.
        pace: how many times as long as usual this reader takes.
        random: of this reader and screen.
        takes: median seconds on the screen at the usual pace; None: as many as the words need.
    """
    text = draft
    if planted is not None and random.random() < _CAUGHT:
        text = mend(planted, text)
    spared = () if planted is None or text != draft else (planted.observation,)
    text = _towards(text, reference or draft, 1 - _FORGOTTEN if not draft else _MENDED, random, spared)
    words = abs(count_words(tokenize(text)) - count_words(tokenize(draft))) + (text != draft) * 3
    shared = math.exp(random.normal(0, 0.3)) * pace
    typing, reading = _PER_WORD * words, _LOOK + _READ * count_words(tokenize(draft)) / 20
    shared *= 1 if takes is None else takes / (typing + reading)
    typing, reading = round(typing * shared, 1), reading * shared
    if text == draft:
        return Edited(text, None, round(reading, 1))
    pauses = [[round(typing / 2, 1), round(typing / 4, 1)]] if typing > 12 else []
    bout = {
        "id": hash_of([draft, text, typing])[:32],
        "before": round(reading * 0.6, 1),
        "seconds": typing,
        "inserted": max(len(text) - len(draft), 0) + 10,
        "deleted": max(len(draft) - len(text), 0) + 10 * bool(draft),
        "pauses": pauses,
    }
    return Edited(text, bout, round(reading + typing, 1))


def _towards(text: str, reference: str, share: float, random: np.random.Generator, spared: tuple[str, ...] = ()) -> str:
    """Take out sentences that claim what the reference does not, and add those that it has beside; most of them."""
    if not text:
        return " ".join(reference[start:end] for start, end in sentence_spans(reference) if random.random() < share)
    mine, theirs = label_report(text), label_report(reference)

    def wrong(observation: str) -> bool:
        states = mine.states[observation] in ASSERTED, theirs.states[observation] in ASSERTED
        return states[0] is not states[1] and observation not in (NO_FINDING, *spared)

    kept = [
        text[start:end]
        for start, end in sentence_spans(text)
        if not any(start <= each.start < end and wrong(each.observation) for each in mine.mentions)
        or random.random() >= share
    ]
    added = [
        reference[start:end]
        for start, end in sentence_spans(reference)
        if any(
            start <= each.start < end and each.state in ASSERTED and wrong(each.observation) for each in theirs.mentions
        )
        and random.random() < share
    ]
    return " ".join([*kept, *added]) or text
