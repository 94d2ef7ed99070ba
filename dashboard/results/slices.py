"""One model's score on parts of the studies, the worst first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.metrics import METRICS, titles
from core.observations import OBSERVATIONS
from core.wording import counted
from dashboard import figures
from dashboard.components.score_table import export
from dashboard.results.parts import by_f1, cases_link, pick, pick_pair, score_table, show_studies
from dashboard.services import cases, evaluations
from dashboard.services.evaluations import FEWEST, ResultSet

SLICED = titles(*(metric.name for metric in METRICS.values() if metric.of_slices)) | {
    f"f1[{name}]": f"F1 of {name}" for name in OBSERVATIONS
}
EVERYTHING = "everything"
CHART, ROWS, GROUP = "slices_chart", "slices_table", "group"
MOST_DRAWN = 16


def show_slices(results: ResultSet) -> None:
    """Draw the view."""
    found = evaluations.reports_of(results)
    ways = evaluations.ways_to_divide(results)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pair = pick_pair(results, "Model", "of", by_f1(results)[0])
        by = pick("Divide the studies by", [EVERYTHING, *ways], "by_what", EVERYTHING, width=240)
        score = pick("Score", list(SLICED), "slice_score", "micro_f1", format_func=SLICED.__getitem__, width=220)
    parts = evaluations.scored_slices(results, pair, score, None if by == EVERYTHING else by)
    if not parts:
        st.info(
            f"No part of these {len(found.study_ids)} studies has {FEWEST} of them: divide them by one thing above."
        )
        return
    whole = found.scored(pair, score).scores()[score]
    names = [f"{way}: {each.name}" for way, each in parts]
    content = pd.DataFrame(
        [
            {
                "Slice": name,
                "Studies": each.count,
                SLICED[score]: each.score,
                "From": each.low,
                "To": each.high,
                "Difference from all studies": each.score - whole,
                "Errors per study": float(found.errors[pair][ways[way][each.name]].mean()),
            }
            for name, (way, each) in zip(names, parts, strict=True)
        ]
    )
    drawn = [(name, each) for name, (_, each) in zip(names, parts, strict=True)][:MOST_DRAWN]
    st.markdown(
        f"Worst for {results.titles[pair]}: **{names[0]}** ({parts[0][1].score:.3f}, "
        f"{counted(parts[0][1].count, 'study', 'studies')}); "
        f"all {len(found.study_ids)} studies: **{whole:.3f}**."
    )
    labels = [name for name, _ in drawn]
    dots = figures.Dots(
        f"{results.titles[pair]}, with 95 % interval",
        [each.score for _, each in drawn],
        [each.low for _, each in drawn],
        [each.high for _, each in drawn],
    )
    st.plotly_chart(
        figures.score_dots(labels, labels, [dots], axis=SLICED[score], line=whole, line_name="all studies"),
        key=CHART,
        on_select=_follow_chart,
        selection_mode="points",
        config={"displayModeBar": False},
        alt=f"The {len(drawn)} worst slices by {SLICED[score]}; the table below has the same numbers",
    )

    def follow_table() -> None:
        marked = st.session_state[ROWS].selection.rows
        if marked:
            st.session_state[GROUP] = names[marked[0]]

    score_table(
        content,
        f"{SLICED[score]} of {results.titles[pair]} by {by}",
        shaded=[] if score in METRICS and not METRICS[score].bounded else [SLICED[score]],
        wide="Slice",
        height=420,
        key=ROWS,
        on_select=follow_table,
        selection_mode="single-row",
    )
    few = f" Only slices of at least {FEWEST} studies." if by == EVERYTHING else ""
    st.caption(
        f"The worst first.{few} From, To: 95 % interval, bootstrap over patients. Micro F1 counts all decisions "
        "together; a macro mean would count a finding that a slice does not have as a failure. Errors: observations "
        "missed, invented or opposite. With so many slices some are low by chance: take them as a hint to look."
    )
    export(content, f"{SLICED[score]} of {results.titles[pair]} by {by}, {results.title}", name="slices")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = pick("Show studies of", names, GROUP, names[0], width=340)
        way, group = next((way, each.name) for name, (way, each) in zip(names, parts, strict=True) if name == chosen)
        asked = {"observation": group} if way == evaluations.BY_FINDING else {"slice": chosen}
        cases_link("All of them on the Cases page", results, [pair], order=cases.MOST_ERRORS, **asked)
    errors = found.errors[pair]
    indices = [int(index) for index in np.flatnonzero(ways[way][group]) if errors[index]]
    indices.sort(key=lambda index: -errors[index])
    notes = [counted(int(errors[index]), "error", "errors") for index in indices]
    show_studies(results, found, indices, notes, [pair], "No report of these studies has an error.")


def _follow_chart() -> None:
    points = st.session_state[CHART].selection.points
    if points:
        st.session_state[GROUP] = points[0]["customdata"]
