"""Two pairs on the same studies: the paired test, and the studies in which they differ most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.metrics import METRICS, titles
from core.evaluation.resampling import holm
from dashboard import cases, figures, runs
from dashboard.components.score_table import export
from dashboard.results.parts import by_f1, cases_link, pick_pair, show_studies, table
from dashboard.runs import Run

TESTED = titles(*(metric.name for metric in METRICS.values() if metric.tested))
METEOR = "METEOR"


def show(run: Run) -> None:
    """Draw the view."""
    found = runs.reports(run)
    if len(run.rows) < 2:
        st.info("This evaluation has one pair; there is nothing to compare it with.")
        return
    best = by_f1(run)
    with st.container(horizontal=True):
        first = pick_pair(run, "First pair", "first", best[0])
        second = pick_pair(run, "Second pair", "second", best[1])
    if first == second:
        st.info("Choose two different pairs.")
        return
    one, other = run.titles[first], run.titles[second]
    tests = runs.comparison(run, first, second, list(TESTED))
    ours, theirs = (found.scored(name, *TESTED).scores() for name in (first, second))
    adjusted = holm({score: each.p_permutation for score, each in tests.items()})
    meteor = _meteor(run, first, second)
    content = pd.DataFrame(
        [
            {
                "Score": title,
                one: ours[score],
                other: theirs[score],
                "Difference": tests[score].difference,
                "From": tests[score].low,
                "To": tests[score].high,
                "p": tests[score].p_permutation,
                "p (Holm)": adjusted[score],
                "Beyond chance": "yes" if adjusted[score] < 0.05 else "no",
            }
            for score, title in TESTED.items()
        ]
        + meteor
    )
    main = tests["f1"]
    st.markdown(
        f"Macro F1: **{one} {main.difference:+.3f}** against {other} (95 % interval {main.low:+.3f} to "
        f"{main.high:+.3f}; p = {main.p_permutation:.3f}, {adjusted['f1']:.3f} corrected for {len(TESTED)} scores)."
    )
    dots = figures.Dots(
        f"{one} less {other}",
        *([getattr(tests[score], end) for score in TESTED] for end in ("difference", "low", "high")),
    )
    st.plotly_chart(
        figures.score_dots(
            list(TESTED.values()), list(TESTED), [dots], axis="difference", line=0.0, line_name="no difference"
        ),
        key="two_chart",
        config={"displayModeBar": False},
        alt=f"Differences between {one} and {other}; the table below has the same numbers",
    )
    table(content, f"{one} against {other}", wide="Score")
    st.caption(
        "Both on the same studies. Interval: paired bootstrap over patients. p: paired permutation test; Holm: "
        f"corrected for these {len(TESTED)} scores, not for looking at several pairs. About these two trained models."
        + (f" {METEOR} is the evaluation's; its program does not run here, so it has no test." if meteor else "")
    )
    export(content, f"{one} against {other}, {run.name}", name="two-pairs")
    cases_link("Where they disagree, on the Cases page", run, [first, second], agreement=cases.DISAGREE)
    gap = found.errors[second] - found.errors[first]
    for better, worse, sign in ((first, second, 1), (second, first, -1)):
        order = np.argsort(-sign * gap, kind="stable")
        places = [int(place) for place in order if sign * gap[place] > 0]
        st.markdown(f"**{run.titles[better]} has fewer errors than {run.titles[worse]} in {len(places)} studies**")
        notes = [f"{found.errors[better][place]} against {found.errors[worse][place]} errors" for place in places]
        show_studies(run, found, places, notes, [first, second], "In none.")


def _meteor(run: Run, first: str, second: str) -> list[dict[str, Any]]:
    """METEOR's row, from the evaluation's own scores; none where it was not scored."""
    scores = {row["name"]: row.get("meteor") for row in run.rows.values()}
    ours, theirs = scores[first], scores[second]
    if ours is None or theirs is None:
        return []
    values = {run.titles[first]: ours, run.titles[second]: theirs, "Difference": ours - theirs}
    return [{"Score": METEOR} | values | {"Beyond chance": "not tested"}]
