"""Studies down, reports across: what each pair wrote, marked against the reference, to page through by keyboard."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Sequence
from typing import Any

import streamlit as st

from dashboard import session
from dashboard.components.source import script, source
from dashboard.services.cases import Row

_COMPONENT = st.components.v2.component(
    "cxr_cases",
    html="<div class='cases'>\n</div>",
    css=source("marks.css", "case_table.css", "print.css"),
    js=script("case_table.js"),
)


def case_table(
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    chosen: Collection[str],
    referenced: bool,
    query: str,
    ends: tuple[bool, bool],
    key: str,
    on_choose: Callable[[], None],
    on_turn: Callable[[], None],
) -> None:
    """Show studies.

    In session state, under ``key``: "choose" is the id of a study that was put into the figure or taken out of it,
    "turn" is +1 or -1 where a reader went past the last or the first row.

    Args:
        columns: titles of the pairs.
        rows: one a study.
        chosen: ids of the studies that are in the figure.
        referenced: whether there is a column of references.
        query: more for the Read page's address, as "source=openi".
        ends: whether this is the first, and the last page.
        key: unique on the page.
        on_choose: called when "choose" is set.
        on_turn: called when "turn" is set.
    """
    data: dict[str, Any] = {
        "columns": list(columns),
        "referenced": referenced,
        "query": query,
        "first": ends[0],
        "last": ends[1],
        "rows": [
            {
                "id": row.study_id,
                "about": row.about,
                "picture": row.picture and base64.b64encode(row.picture).decode(),
                "chosen": row.study_id in chosen,
                "here": row.here,
                "reference": row.reference,
                "cells": [{"pieces": c.pieces, "missed": c.missed, "counts": c.counts} for c in row.cells],
            }
            for row in rows
        ],
    }
    result = _COMPONENT(
        key=key, data=data, on_choose_change=on_choose, on_turn_change=on_turn, on_open_change=lambda: None
    )
    if result.open:
        session.follow(result.open)
