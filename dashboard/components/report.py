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
from core.observations import ASSERTED, NO_FINDING, LabelState
from core.text import split_sentences
from core.types import Report
from dashboard.components.source import script, source
from dashboard.services.reports import in_words, segments

_COMPONENT = st.components.v2.component(
    "cxr_reports",
    html="<div class='reports'>\n</div>",
    css=source("marks.css", "report.css", "print.css"),
    js=script("report.js"),
)


def card(
    name: str,
    title: str,
    report: Report,
    labels: LabeledReport,
    outcomes: Mapping[str, Outcome] | None,
) -> dict[str, Any]:
    """One generated report for `report_cards`.

    Args:
        name: of the bundle; what a click tells.
        title: of the pair.
        report: text and words.
        labels: what it says.
        outcomes: by observation, against the reference; None without one.
    """
    starts, start = [], 0
    for sentence in split_sentences(report.words):
        starts.append(start)
        start += len(sentence)
    return {
        **_judged(outcomes),
        "name": name,
        "title": title,
        "pieces": in_words(segments(report.text, labels, outcomes), report.words),
        "sentences": starts,
        "note": " ".join([*report.warnings, *([] if report.finished else ["Ends here: longest length reached."])]),
        "found": found_first(report, labels),
        "contradicted": " ".join(report.contradicted),
    }


def found_first(report: Report, labels: LabeledReport) -> list[dict[str, Any]] | None:
    """What the pair found in the image before it wrote, whether and why the report says it, and whether it has a place.

    None where it is not known.
    """
    if report.found_first is None:
        return None
    return [
        {
            "name": name,
            "written": labels.states[name] in ASSERTED,
            "added": name in report.added,
            "somewhere": name != NO_FINDING,
        }
        for name in report.found_first
    ]


def outside_card(
    name: str,
    title: str,
    text: str,
    labels: LabeledReport,
    outcomes: Mapping[str, Outcome] | None,
    note: str = "",
    *,
    asked: bool = False,
) -> dict[str, Any]:
    """A report that is only a text, for `report_cards`: its words cannot be asked about.

    Args:
        name: of the system.
        title: of the system.
        text: the report.
        labels: what it says.
        outcomes: by observation, against the reference; None without one.
        note: what to say below it.
        asked: its findings can be.
    """
    pieces = segments(text, labels, outcomes)
    return {**_judged(outcomes), "name": name, "title": title, "pieces": pieces, "note": note, "asked": asked}


def _judged(outcomes: Mapping[str, Outcome] | None) -> dict[str, Any]:
    """What a report lacks, and how many findings are found, missed, invented or opposite."""
    # No Finding follows from the others: counting it would count them twice.
    findings = {finding: outcome for finding, outcome in (outcomes or {}).items() if finding != NO_FINDING}
    return {
        "missed": [finding for finding, outcome in findings.items() if outcome is Outcome.MISSED],
        "counts": None
        if outcomes is None
        else {kind.value: sum(outcome is kind for outcome in findings.values()) for kind in Outcome},
    }


def reference_card(sections: Sequence[tuple[str, str, LabeledReport]]) -> dict[str, Any]:
    """The reference report for `report_cards`: (name, text, labels) of each section."""
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
    """Who says what, for `report_cards`: observations down, pairs across.

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


def report_cards(
    cards: Sequence[dict[str, Any]],
    *,
    reference: dict[str, Any] | None,
    table: dict[str, Any] | None,
    asked: Mapping[str, Any] | None = None,
    folded: bool = False,
    on_ask: Callable[[], None] = lambda: None,
    key: str = "reports",
) -> Mapping[str, Any] | None:
    """Show the reports.

    Args:
        cards: each of `card`; or "name" and "title" with "error", a message, or with "waiting", while it is written.
        reference: of `reference_card`.
        table: of `overview`; None until all reports are there.
        folded: show the first report only, until the reader unfolds the others.
        asked: what is explained now: "pair", a bundle's name, "kind" and "which"; see the result.
        on_ask: called before the next run, when a reader asks.
        key: unique on the page.

    Returns:
        What the reader asked about in this run: "pair", and "kind" with "which": "word" or "sentence" with its place,
        "finding" with the observation.
    """
    data = {"cards": list(cards), "reference": reference, "overview": table, "asked": asked, "folded": folded}
    # In a list: in a dictionary Streamlit looks for tables, and reads pandas to know them.
    result = _COMPONENT(key=key, data=[data], on_ask_change=on_ask)
    return result.ask
