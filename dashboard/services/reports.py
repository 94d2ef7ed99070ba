"""In: a case and bundles. Out: the reports that they write, what these say, and what is right of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from core.bundles.card import Card
from core.bundles.helpers import images_for
from core.cache import BoundedCache
from core.labels.compare import Outcome, compare
from core.labels.rules import LabeledReport, label_report
from core.text import is_removed, word_spans
from core.types import CXRLensError, Report
from dashboard import session
from dashboard.services import batches, bundles, studies, turns
from dashboard.services.studies import Case

MAX_REPORTS = 5_000  # kept in memory; a few kilobytes each
REMOVED = "XXXX or ___ in a text stands for words that were taken out so that no patient can be recognised."


@dataclass(frozen=True, slots=True)
class Reading:
    """A generated report with what it says.

    Attributes:
        card: of the bundle that wrote it.
        report: text, words and attention.
        labels: of the text.
        outcomes: by observation, against the reference; None without one.
    """

    card: Card
    report: Report
    labels: LabeledReport
    outcomes: Mapping[str, Outcome] | None


@st.cache_resource(show_spinner=False)
def _written() -> BoundedCache[tuple[str, str], Report]:
    """Reports by (image, bundle with its content)."""
    return BoundedCache(MAX_REPORTS)


def written(case: Case, chosen: Sequence[Card]) -> dict[str, Reading | str]:
    """Readings that are there already, stored ones too, and messages of broken bundles, by the bundle's name."""
    from dashboard.services import stored  # it asks evaluations, which ask systems, which ask this

    reports, broken = _written(), bundles.broken()
    found: dict[str, Reading | str] = {}
    written = {card.name: reports.get((case.key, bundles.bundle_key(card))) for card in chosen}
    kept = stored.stored_reports(case, [card for card in chosen if written[card.name] is None])
    for card in chosen:
        report = written[card.name] or kept.get(card.name)
        if report is not None:
            found[card.name] = _reading(case, card, report)
        elif card.name in broken:
            found[card.name] = broken[card.name]
    return found


def read(case: Case, chosen: Sequence[Card]) -> Iterator[tuple[str, Reading | str]]:
    """Write the reports of the chosen bundles, of any families, those already written first.

    Yields:
        bundle name and its reading, or a message if the bundle is broken.
    """
    kept, missing = _written(), []
    for card in chosen:
        report = kept.get((case.key, bundles.bundle_key(card)))
        if report is None:
            missing.append(card)
        else:
            yield card.name, _reading(case, card, report)
    if not missing:
        return

    by_name = {card.name: card for card in missing}

    def keep(name: str, report: Report) -> None:
        kept.put((case.key, bundles.bundle_key(by_name[name])), report)

    for name, report in _write(case, missing, keep):
        if isinstance(report, Report):
            yield name, _reading(case, by_name[name], report)
        else:
            yield name, bundles.note_broken(name, report)


def _write(
    case: Case, missing: Sequence[Card], keep: Callable[[str, Report], None]
) -> Iterator[tuple[str, Report | CXRLensError]]:
    """Write reports, one after another; what others wait for too may be left to a helper, or written with theirs."""
    line, waiting = turns.line(), {card.name: card for card in missing}
    others, spent = line.others(), 0.0
    inputs = [(card.image_side, card.fit) for card in missing]
    images, all_batches = images_for(studies.pixels(case), inputs), batches.batches()
    with all_batches.request(case.key, missing, images, keep) as request:
        while waiting:
            began = time.monotonic()  # at each step: between two the reader may be away
            if not request.answered:
                with line.turn():
                    all_batches.wait(request)
            spent += time.monotonic() - began
            found = request.take()
            for name, report in found.items():
                waiting.pop(name)
                yield name, report
            if not found:  # others were served first; a click need not wait for them
                session.listen()
    line.took(spent, others)


def report_of(case: Case, card: Card) -> Report:
    """The pair's report of a case.

    Raises:
        CXRLensError: the bundle is broken.
    """
    for _, reading in read(case, [card]):
        if isinstance(reading, str):
            raise CXRLensError(reading)
        return reading.report
    raise AssertionError("a report is asked for and none comes")


def _reading(case: Case, card: Card, report: Report) -> Reading:
    labels = label(report.text)
    outcomes = None if case.labels is None else compare(case.labels, labels.states)
    return Reading(card=card, report=report, labels=labels, outcomes=outcomes)


@st.cache_resource(max_entries=MAX_REPORTS, show_spinner=False)
def label(text: str) -> LabeledReport:
    """What a report says, by rules."""
    return label_report(text)


def note_on_removed(texts: Iterable[str]) -> str:
    """What to say beside texts of which a de-identification removed words; "" where none did."""
    return REMOVED if any(map(is_removed, texts)) else ""


def segments(text: str, labels: LabeledReport, outcomes: Mapping[str, Outcome] | None = None) -> list[dict[str, Any]]:
    """Cut a text into plain and marked pieces, in order; joined they are the text.

    A mark carries its observation, what the text says of it, and the outcome against the reference where there is one.
    Of mentions that overlap, the first counts.
    """
    pieces: list[dict[str, Any]] = []
    end = 0
    for mention in sorted(labels.mentions, key=lambda mention: (mention.start, -mention.end)):
        if mention.start < end:
            continue
        if mention.start > end:
            pieces.append({"text": text[end : mention.start]})
        piece = {
            "text": text[mention.start : mention.end],
            "observation": mention.observation,
            "state": mention.state.value,
        }
        outcome = (outcomes or {}).get(mention.observation)
        # An agreed "no effusion" beside a later positive mention must not be marked as the finding itself.
        if outcome is not None and mention.state is labels.states[mention.observation]:
            piece["outcome"] = outcome.value
        pieces.append(piece)
        end = mention.end
    if end < len(text):
        pieces.append({"text": text[end:]})
    return pieces


def in_words(pieces: Sequence[dict[str, Any]], words: Sequence[str]) -> list[dict[str, Any]]:
    """Cut pieces of a report into its words; a word belongs to the piece in which it starts.

    Returns:
        pieces with "words", each (space before, word), and "first", the index of its first word in the report.
    """
    text = "".join(piece["text"] for piece in pieces)
    spans = word_spans(words, text)
    cut: list[dict[str, Any]] = []
    at = end = stop = 0
    for piece in pieces:
        stop += len(piece["text"])
        own: list[tuple[str, str]] = []
        while at < len(spans) and spans[at][0] < stop:
            start = spans[at][0]
            own.append((text[end:start], text[slice(*spans[at])]))
            end, at = spans[at][1], at + 1
        if own:
            kept = {key: value for key, value in piece.items() if key != "text"}
            cut.append({**kept, "first": at - len(own), "words": own})
    return cut
