"""Sessions in which drafts are edited: what their design asks for beside the rest, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.reviews.analysis import Analysis
from core.reviews.design import REFERENCE
from core.reviews.editing_design import NO_DRAFT, PLANTED_KINDS, TEMPLATE
from core.reviews.editing_words import ABOUT, HEAD, rows_in_words

CROSSOVERS = {
    "every arm": "each case in every arm, an arm a sitting",
    "one arm": "each case once, arms by turns over readers",
}
SQUARES = {"williams": "also by what came before (Williams)", "latin": "each arm equally often (Latin square)"}
KINDS = {
    "negated": "said to be absent, or there",
    "side": "other side",
    "severity": "other severity",
    "omitted": "left out",
    "invented": "invented",
}
NORMAL = "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax."


def ask_editing(models: Sequence[str]) -> dict[str, Any]:
    """Draw what an editing session's design asks for, and give what `Editing` takes."""
    values: dict[str, Any] = {}
    left, middle, right = st.columns([3, 2, 2], gap="medium")
    values["arms"] = tuple(
        left.multiselect(
            "Readers begin from",
            [NO_DRAFT, TEMPLATE, *models],
            default=[NO_DRAFT, *[name for name in models if name != REFERENCE][:1]],
            key=f"design-arms-{hash(tuple(models))}",
            help="No draft: an empty page. Readers are not told which system wrote a draft.",
        )
    )
    values["crossover"] = middle.selectbox(
        "Each reader edits", list(CROSSOVERS), format_func=CROSSOVERS.__getitem__, key="design-crossover"
    )
    if values["crossover"] == "every arm":
        values["square"] = right.selectbox(
            "Orders are balanced", list(SQUARES), format_func=SQUARES.__getitem__, key="design-square"
        )
    if TEMPLATE in values["arms"]:
        values["template"] = st.text_area("The template", NORMAL, key="design-template", max_chars=10_000)
    one, two, three = st.columns([1, 1, 2], gap="medium")
    values["washout_days"] = one.number_input(
        "Days between sittings", 0, 3650, 14, key="design-days", disabled=values["crossover"] == "one arm"
    )
    share = two.number_input(
        "Drafts with a planted error, %", 0, 100, 0, key="design-planted", help="Of each system; readers do not know"
    )
    values["planted"] = share / 100
    if share:
        kinds = three.multiselect(
            "Planted errors",
            list(PLANTED_KINDS),
            list(PLANTED_KINDS),
            format_func=KINDS.__getitem__,
            key="design-kinds",
        )
        values["kinds"] = tuple(kinds)
    values["findings"] = st.toggle("Show readers what their text says, while they write", True, key="design-findings")
    return values


def show_editing(analysis: Analysis) -> None:
    """Draw what came of the drafts, where there were any."""
    if not analysis.editing:
        return
    st.header("Editing")
    table = pd.DataFrame(rows_in_words(analysis.editing), columns=pd.Index(HEAD))
    st.dataframe(table, hide_index=True, height="content", alt="What came of the drafts")
    st.caption(ABOUT)
