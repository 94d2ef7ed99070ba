"""Two models on the same studies: the paired test, and the studies in which they differ most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.metrics import METRICS, titles
from core.evaluation.resampling import holm
from dashboard import figures
from dashboard.components.score_table import export
from dashboard.results.parts import by_f1, cases_link, pick_pair, score_table, show_studies
from dashboard.services import cases, evaluations
from dashboard.services.evaluations import ResultSet

TESTED = titles(*(metric.name for metric in METRICS.values() if metric.tested))
METEOR = "METEOR"


def show_two(results: ResultSet) -> None:
    """Draw the view."""
    found = evaluations.reports_of(results)
    if len(results.rows) < 2:
        st.info("This evaluation has one model; there is nothing to compare it with.")
        return
    best = by_f1(results)
    with st.container(horizontal=True):
        first = pick_pair(results, "First model", "first", best[0])
        second = pick_pair(results, "Second model", "second", best[1])
    if first == second:
        st.info("Choose two different models.")
        return
    one, other = results.titles[first], results.titles[second]
    tests = evaluations.comparison(results, first, second, list(TESTED))
    ours, theirs = (found.scored(name, *TESTED).scores() for name in (first, second))
    adjusted = holm({score: each.p_permutation for score, each in tests.items()})
    meteor = _meteor(results, first, second)
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
                "Significant after correction": "yes" if adjusted[score] < 0.05 else "no",
            }
            for score, title in TESTED.items()
        ]
        + meteor
    )
    main = tests["f1"]
    st.markdown(
        f"Difference in macro F1: **{one} {main.difference:+.3f}** against {other} (95 % interval {main.low:+.3f} to "
        f"{main.high:+.3f}; p = {main.p_permutation:.3f}, {adjusted['f1']:.3f} corrected for {len(TESTED)} scores)."
    )
    dots = figures.Dots(
        f"{one} minus {other}",
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
    score_table(content, f"{one} against {other}", wide="Score")
    st.caption(
        "Both on the same studies. Interval: paired bootstrap over patients. p: paired permutation test; Holm's "
        f"correction is for these {len(TESTED)} scores, not for comparing several models. This is about "
        "these two trained models, not about their designs."
        + (f" {METEOR} is taken from the evaluation and not tested: its program does not run here." if meteor else "")
    )
    export(content, f"{one} against {other}, {results.name}", name="two-pairs")
    cases_link("Where they disagree, on the Cases page", results, [first, second], agreement=cases.DISAGREE)
    gap = found.errors[second] - found.errors[first]
    for better, worse, sign in ((first, second, 1), (second, first, -1)):
        order = np.argsort(-sign * gap, kind="stable")
        indices = [int(index) for index in order if sign * gap[index] > 0]
        st.markdown(
            f"**{results.titles[better]} has fewer errors than {results.titles[worse]} in {len(indices)} studies**"
        )
        notes = [f"{found.errors[better][index]} against {found.errors[worse][index]} errors" for index in indices]
        show_studies(results, found, indices, notes, [first, second], "There is no such study.")


def _meteor(results: ResultSet, first: str, second: str) -> list[dict[str, Any]]:
    """METEOR's row, from the evaluation's own scores; none where it was not scored."""
    scores = {row["name"]: row.get("meteor") for row in results.rows.values()}
    ours, theirs = scores[first], scores[second]
    if ours is None or theirs is None:
        return []
    values = {results.titles[first]: ours, results.titles[second]: theirs, "Difference": ours - theirs}
    return [{"Score": METEOR} | values | {"Significant after correction": "not tested"}]
