"""Tests between the systems of a closed session, on the page of its results."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.reviews.answers import Results
from core.reviews.effects import ANY_READERS, Difference, differences
from core.reviews.report_page import estimate, probability


@st.cache_resource(max_entries=8, show_spinner="Comparing the models …")
def compared(session_id: str, _results: Results) -> tuple[Difference, ...]:
    """Tests between systems of a closed session, which does not change any more: its id is key enough."""
    return differences(_results)


def show_differences(session_id: str, results: Results) -> None:
    """Draw a table for each quantity by which the models can be compared; nothing where there is none."""
    rows = compared(session_id, results)
    if not rows:
        return
    st.header("Tests between models")
    for outcome in dict.fromkeys(row.outcome for row in rows):
        chosen = [row for row in rows if row.outcome == outcome]
        first, ratio = chosen[0], chosen[0].scale == "ratio"
        st.dataframe(
            pd.DataFrame(
                {
                    "First": row.first,
                    "Second": row.second,
                    f"{first.title.capitalize()}: {'ratio' if ratio else 'difference'}": estimate(row.estimate),
                    "p": probability(row.p),
                    "p, adjusted": probability(row.p_adjusted),
                }
                for row in chosen
            ),
            hide_index=True,
            height="content",
            alt=f"Tests between models: {first.title}",
        )
        holds = "readers and cases like these" if first.holds_for == ANY_READERS else "cases like these, these readers"
        st.caption(
            f"{'First to second; 1 is no difference' if ratio else 'First less second; 0 is no difference'}. "
            f"{first.method.capitalize()}, {first.readings} readings; holds for {holds}. Adjusted: Holm's method."
        )
