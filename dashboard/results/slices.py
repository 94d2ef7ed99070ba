"""One pair's score on parts of the studies, the worst first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.metrics import METRICS, titles
from core.observations import OBSERVATIONS
from dashboard import cases, evaluation, figures, runs
from dashboard.components.score_table import export
from dashboard.results.parts import by_f1, cases_link, pick, pick_pair, show_studies, table
from dashboard.runs import FEWEST, Run

SLICED = titles(*(metric.name for metric in METRICS.values() if metric.of_slices)) | {
    f"f1[{name}]": f"F1 of {name}" for name in OBSERVATIONS
}
EVERYTHING = "everything"
CHART, ROWS, GROUP = "slices_chart", "slices_table", "group"
MOST_DRAWN = 16


def show(run: Run) -> None:
    """Draw the view."""
    found = runs.reports(run)
    ways = runs.ways_to_divide(run)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pair = pick_pair(run, "Pair", "of", by_f1(run)[0])
        by = pick("Divide the studies by", [EVERYTHING, *ways], "by_what", EVERYTHING, width=240)
        score = pick("Score", list(SLICED), "slice_score", "micro_f1", format_func=SLICED.__getitem__, width=220)
    parts = runs.slices(run, pair, score, None if by == EVERYTHING else by)
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
                "Less all studies'": each.score - whole,
                "Errors a study": float(found.errors[pair][ways[way][each.name]].mean()),
            }
            for name, (way, each) in zip(names, parts, strict=True)
        ]
    )
    drawn = [(name, each) for name, (_, each) in zip(names, parts, strict=True)][:MOST_DRAWN]
    st.markdown(
        f"Worst for {run.titles[pair]}: **{names[0]}** ({parts[0][1].score:.3f}, {parts[0][1].count} studies); "
        f"all {len(found.study_ids)} studies: **{whole:.3f}**."
    )
    labels = [name for name, _ in drawn]
    dots = figures.Dots(
        f"{run.titles[pair]}, with 95 % interval",
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

    table(
        content,
        f"{SLICED[score]} of {run.titles[pair]} by {by}",
        shaded=[] if score in METRICS and not METRICS[score].bounded else [SLICED[score]],
        wide="Slice",
        height=420,
        key=ROWS,
        on_select=follow_table,
        selection_mode="single-row",
    )
    few = f" Here are the slices of at least {FEWEST} studies." if by == EVERYTHING else ""
    st.caption(
        f"The worst first.{few} From, To: 95 % interval, bootstrap over patients. Micro F1 counts all decisions "
        "together: a macro mean would count findings that a slice cannot have as failures. Errors: observations "
        "missed, invented or opposite. With so many slices some are low by chance: a question, not a "
        "finding."
    )
    export(content, f"{SLICED[score]} of {run.titles[pair]} by {by}, {run.name}", name="slices")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = pick("Studies of", names, GROUP, names[0], width=340)
        way, group = next((way, each.name) for name, (way, each) in zip(names, parts, strict=True) if name == chosen)
        asked = {"observation": group} if way == evaluation.BY_FINDING else {"slice": chosen}
        cases_link("All of them on the Cases page", run, [pair], order=cases.MOST_ERRORS, **asked)
    errors = found.errors[pair]
    places = [int(place) for place in np.flatnonzero(ways[way][group]) if errors[place]]
    places.sort(key=lambda place: -errors[place])
    notes = [f"{errors[place]} errors" for place in places]
    show_studies(run, found, places, notes, [pair], "No report of these studies has an error.")


def _follow_chart() -> None:
    points = st.session_state[CHART].selection.points
    if points:
        st.session_state[GROUP] = points[0]["customdata"]
