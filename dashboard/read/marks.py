"""In: a case and its readings. Out: which sentences get the mark of what was measured, and what to say of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import streamlit as st

from core.types import CXRLensError
from dashboard.read.others import OutsideReading
from dashboard.services import bundles, sentence_trust, turns
from dashboard.services.reports import Reading
from dashboard.services.sentence_trust import Marks
from dashboard.services.studies import Case

UNLIKE = (
    "No sentence is marked as reliable here: this film is unlike those that the models learned from, and how often "
    "marked sentences are wrong was measured on films like those."
)
SOME_UNLIKE = "Some reports have no marks: this film is unlike those that their models learned from."
FAILED = "sentence_trust_failed"
"""Why a report could not be measured in this session, by name: it is not tried again at every click."""


@dataclass(frozen=True)
class Marked:
    """What is marked on the page.

    Attributes:
        firsts: by name of the pair, places of the first words of marked sentences; pairs that were not measured are
            left out.
        told: a sentence of what the mark means, or why there is none; "" where nothing was measured.
        waiting: readings whose sentences are still to be measured.
    """

    firsts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    told: str = ""
    waiting: list[Reading] = field(default_factory=list)


def mark(case: Case, readings: Sequence[Reading | OutsideReading]) -> Marked:
    """Find what to mark."""
    found: dict[str, Marks] = {}
    waiting = []
    failed: dict[str, str] = st.session_state.setdefault(FAILED, {})
    for reading in readings:
        try:
            if not isinstance(reading, Reading) or not sentence_trust.can_be_marked(case, reading):
                continue
            marks = sentence_trust.marks(case, reading)
        except CXRLensError as error:
            return Marked(told=_failed(str(error)))
        if marks is not None:
            found[reading.card.name] = marks
        elif (why := failed.get(_name(case, reading))) is None:
            waiting.append(reading)
        else:
            return Marked(told=_failed(why))
    return Marked({name: each.firsts for name, each in found.items()}, _told(list(found.values())), waiting)


def _failed(why: str) -> str:
    return f"No sentence is marked as reliable: {bundles.without_folder(why)}"


def _told(marks: Sequence[Marks]) -> str:
    """What the mark means, once for all reports, and where it is not given."""
    unlike = any(each.unlike for each in marks)
    shown = [each for each in marks if each.firsts]
    if not shown:
        return UNLIKE if unlike else ""
    counts = sorted({sentence_trust.calibrated_on(each.trust) for each in shown})
    of = f"{counts[0]:,} sentences" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} sentences a model"
    share = max(each.trust.rule.alpha for each in shown)
    return (
        f"● before a sentence: at most {_in_words(share)} sentences marked so was wrong on films like those it was "
        f"measured on (validation: {of}). Not marked does not mean wrong." + (f" {SOME_UNLIKE}" if unlike else "")
    )


def _in_words(share: float) -> str:
    return f"1 in {1 / share:.0f}" if abs(1 / share - round(1 / share)) < 0.01 else f"{100 * share:.0f} in 100"


def measure_some(case: Case, waiting: Sequence[Reading]) -> None:
    """Measure sentences for a moment, then draw the page again with their marks."""
    end = time.monotonic() + turns.slice_of()
    for reading in waiting:
        try:
            sentence_trust.measure(case, reading)
        except CXRLensError as error:
            st.session_state[FAILED][_name(case, reading)] = str(error)
        if time.monotonic() > end:
            break
    st.rerun()


def _name(case: Case, reading: Reading) -> str:
    return f"{case.key} {reading.card.name}"
