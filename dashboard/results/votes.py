"""What a vote is worth: how often references say a finding, by how many of the models say it."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.evaluation.votes import FEW, bands, in_words, right, votes_of
from core.types import CXRLensError
from dashboard.components.score_table import export
from dashboard.plain import code, plain_message
from dashboard.results.parts import score_table
from dashboard.services.evaluations import ResultSet

TITLE = "How often the reference says a finding, by how many models say it"


def show_votes(results: ResultSet) -> None:
    """Draw the view."""
    try:
        names, counts = votes_of(results.content)
    except CXRLensError as error:
        st.error(plain_message(error), icon=":material/error:")
        return
    of = len(names)
    if of < 2:
        command = results.content.get("command", "cxr-lens evaluate")
        what = "One model alone has no votes." if of else f"This evaluation did not count votes. {code(command)} does."
        st.info(what)
        return
    shown = []
    for name, each in counts.items():
        for first, last in bands(of):
            share = right(each, first, last)
            low, high = share.interval or (None, None)
            told = share.among >= FEW
            shown.append(
                {
                    "Finding": name,
                    "Models that say it": in_words(first, last),
                    "Studies": share.among,
                    "Reference too": share.count,
                    "Share": share.value if told else None,
                    "Share, from": low if told else None,
                    "Share, to": high if told else None,
                    "Share of all studies": right(each, 0, of).value,
                }
            )
    content = pd.DataFrame(shown)
    st.markdown(f"**{TITLE}**")
    score_table(content, TITLE, digits=2, wide="Finding")
    st.caption(
        f"Of {of} models, whose reports say a finding as present or uncertain. Share: of the studies with so many "
        f"votes, those whose reference says it too; of fewer than {FEW} studies none is told. Share, from and to: 95 % "
        "interval (Wilson), over studies. On films of another hospital, or where a finding is rarer, a vote may be "
        "worth less."
    )
    export(content, f"{TITLE}, {results.title}", name="votes")
