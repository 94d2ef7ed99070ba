"""Reports as a reader wants them: findings marked in the text, what was missed below, each followed through all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core.labels.compare import Outcome
from core.labels.observations import NO_FINDING, LabelState
from core.labels.rules import LabeledReport

_FOLDER = Path(__file__).parent
_COMPONENT = st.components.v2.component(
    "cxr_report",
    html="<div class='report'>\n</div>",
    css=(_FOLDER / "report.css").read_text(encoding="utf-8"),
    js=(_FOLDER / "report.js").read_text(encoding="utf-8"),
)


def segments(text: str, labels: LabeledReport, outcomes: Mapping[str, Outcome] | None = None) -> list[dict[str, str]]:
    """Cut a text into plain and marked pieces, in order; joined they are the text.

    A mark carries its observation, what the text says of it, and the outcome against the reference where there is one.
    Of mentions that overlap, the first counts.
    """
    pieces: list[dict[str, str]] = []
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


def report_card(
    title: str,
    text: str,
    labels: LabeledReport,
    *,
    key: str,
    outcomes: Mapping[str, Outcome] | None = None,
    note: str = "",
    heading: str = "",
) -> None:
    """Show one generated report.

    Args:
        title: of the pair.
        text: the report.
        labels: what it says.
        key: unique on the page.
        outcomes: by observation, against the reference; None without one.
        note: a warning under the text, as "cut at the length limit".
        heading: small text beside the title.
    """
    # No Finding follows from the others: counting it would count them twice.
    findings = {name: outcome for name, outcome in (outcomes or {}).items() if name != NO_FINDING}
    missed = [name for name, outcome in findings.items() if outcome is Outcome.MISSED]
    counts = {kind.value: sum(outcome is kind for outcome in findings.values()) for kind in Outcome}
    _COMPONENT(
        key=key,
        data={
            "kind": "card",
            "title": title,
            "heading": heading,
            "sections": [{"name": "", "pieces": segments(text, labels, outcomes)}],
            "missed": missed,
            "counts": None if outcomes is None else counts,
            "note": note,
        },
    )


def reference_card(sections: Sequence[tuple[str, str, LabeledReport]], *, key: str) -> None:
    """Show the reference report: (name, text, labels) of each section."""
    _COMPONENT(
        key=key,
        data={
            "kind": "reference",
            "title": "Reference report",
            "heading": "",
            "sections": [{"name": name, "pieces": segments(text, labels)} for name, text, labels in sections if text],
            "missed": [],
            "counts": None,
            "note": "",
        },
    )


def overview(
    rows: Sequence[str],
    columns: Sequence[tuple[str, str]],
    cells: Sequence[Mapping[str, str]],
    *,
    reference: Mapping[str, LabelState] | None,
    key: str,
) -> None:
    """Show who says what: observations down, pairs across.

    Args:
        rows: observations.
        columns: (group, name) of each pair; neighbours of a group share a heading.
        cells: of each column, observation -> outcome, or state where there is no reference.
        reference: state of each observation in the reference; None without one.
        key: unique on the page.
    """
    data: dict[str, Any] = {
        "kind": "overview",
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
    _COMPONENT(key=key, data=data)
