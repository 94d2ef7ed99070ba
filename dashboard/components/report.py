"""Reports as a reader wants them: findings marked in the text, what was missed below, every word to be asked about.

One component draws the reference, the table of findings and all cards: many small ones would cost the browser half a
second at every page switch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from core.labels.compare import Outcome
from core.labels.rules import LabeledReport
from core.observations import NO_FINDING, LabelState
from core.text import split_sentences, word_spans
from core.types import Report
from dashboard.components.source import script, source

_COMPONENT = st.components.v2.component(
    "cxr_reports",
    html="<div class='reports'>\n</div>",
    css=source("marks.css", "report.css"),
    js=script("report.js"),
)


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
        pieces with "words", each (space before, word), and "first", the place of its first word in the report.
    """
    text = "".join(piece["text"] for piece in pieces)
    spans = word_spans(words, text)
    cut: list[dict[str, Any]] = []
    place = end = stop = 0
    for piece in pieces:
        stop += len(piece["text"])
        own: list[tuple[str, str]] = []
        while place < len(spans) and spans[place][0] < stop:
            start = spans[place][0]
            own.append((text[end:start], text[slice(*spans[place])]))
            end, place = spans[place][1], place + 1
        if own:
            kept = {key: value for key, value in piece.items() if key != "text"}
            cut.append({**kept, "first": place - len(own), "words": own})
    return cut


def card(
    name: str,
    title: str,
    report: Report,
    labels: LabeledReport,
    outcomes: Mapping[str, Outcome] | None,
) -> dict[str, Any]:
    """One generated report for `reports`.

    Args:
        name: of the bundle; what a click tells.
        title: of the pair.
        report: text and words.
        labels: what it says.
        outcomes: by observation, against the reference; None without one.
    """
    # No Finding follows from the others: counting it would count them twice.
    findings = {finding: outcome for finding, outcome in (outcomes or {}).items() if finding != NO_FINDING}
    starts, start = [], 0
    for sentence in split_sentences(report.words):
        starts.append(start)
        start += len(sentence)
    return {
        "name": name,
        "title": title,
        "pieces": in_words(segments(report.text, labels, outcomes), report.words),
        "sentences": starts,
        "missed": [finding for finding, outcome in findings.items() if outcome is Outcome.MISSED],
        "counts": None
        if outcomes is None
        else {kind.value: sum(outcome is kind for outcome in findings.values()) for kind in Outcome},
        "note": "" if report.finished else "Cut at the length limit.",
    }


def reference_card(sections: Sequence[tuple[str, str, LabeledReport]]) -> dict[str, Any]:
    """The reference report for `reports`: (name, text, labels) of each section."""
    return {
        "title": "Reference report",
        "sections": [{"name": name, "pieces": segments(text, labels)} for name, text, labels in sections if text],
    }


def overview(
    rows: Sequence[str],
    columns: Sequence[tuple[str, str]],
    cells: Sequence[Mapping[str, str]],
    reference: Mapping[str, LabelState] | None,
) -> dict[str, Any]:
    """Who says what, for `reports`: observations down, pairs across.

    Args:
        rows: observations.
        columns: (group, name) of each pair; neighbours of a group share a heading.
        cells: of each column, observation -> outcome, or state where there is no reference.
        reference: state of each observation in the reference; None without one.
    """
    return {
        "columns": [{"group": group, "name": name} for group, name in columns],
        "rows": [
            {
                "observation": observation,
                "reference": None if reference is None else reference[observation].value,
                "cells": [column.get(observation, "") for column in cells],
            }
            for observation in rows
        ],
        "compared": reference is not None,
    }


def reports(
    cards: Sequence[dict[str, Any]],
    *,
    reference: dict[str, Any] | None,
    table: dict[str, Any] | None,
    asked: Mapping[str, Any] | None = None,
    on_ask: Callable[[], None] = lambda: None,
    key: str = "reports",
) -> Mapping[str, Any] | None:
    """Show the reports.

    Args:
        cards: each of `card`; or "name" and "title" with "error", a message, or with "waiting", while it is written.
        reference: of `reference_card`.
        table: of `overview`; None until all reports are there.
        asked: what is explained now: "pair", a bundle's name, "kind" and "which"; see the result.
        on_ask: called before the next run, when a reader asks.
        key: unique on the page.

    Returns:
        What the reader asked about in this run: "pair", and "kind" with "which": "word" or "sentence" with its place,
        "finding" with the observation.
    """
    data = {"cards": list(cards), "reference": reference, "overview": table, "asked": asked}
    result = _COMPONENT(key=key, data=data, on_ask_change=on_ask)
    asked_now: Mapping[str, Any] | None = result.ask
    return asked_now
