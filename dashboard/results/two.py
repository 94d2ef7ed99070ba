"""Two models on the same studies: the paired test, and the studies in which they differ most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.metrics import FREQUENT, METRICS, titles
from core.evaluation.resampling import Comparison, holm
from core.wording import counted
from dashboard import figures
from dashboard.components.score_table import export
from dashboard.results.parts import by_f1, cases_link, pick_pair, score_table, show_studies
from dashboard.services import cases, evaluations
from dashboard.services.evaluations import ResultSet

TESTED = titles(*(metric.name for metric in METRICS.values() if metric.tested))
METEOR = "METEOR"
_MACRO = ("f1", "f1_frequent")


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
    ours, theirs = (found.scored(name, *TESTED).scores() for name in (first, second))
    tested = {score: title for score, title in TESTED.items() if np.isfinite(ours[score])}  # no observation is frequent
    tests = evaluations.comparison(results, first, second, list(tested))
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
            for score, title in tested.items()
        ]
        + meteor
    )
    st.markdown(" ".join(_difference(tests, adjusted, score, one, other) for score in _MACRO if score in tests))
    dots = figures.Dots(
        f"{one} minus {other}",
        *([getattr(tests[score], end) for score in tested] for end in ("difference", "low", "high")),
    )
    st.plotly_chart(
        figures.score_dots(
            list(tested.values()), list(tested), [dots], axis="difference", line=0.0, line_name="no difference"
        ),
        key="two_chart",
        config={"displayModeBar": False},
        alt=f"Differences between {one} and {other}; the table below has the same numbers",
    )
    score_table(content, f"{one} against {other}", wide="Score")
    st.caption(
        "Both on the same studies. Interval: paired, jackknife over patients; a mean over observations has none where "
        f"one has fewer than {FREQUENT} positives, since it would be wrong. p: paired permutation test; Holm's "
        f"correction is for these {len(tested)} scores, not for comparing several models. This is about these two "
        "trained models, not about their designs."
        + (f" {METEOR} is taken from the evaluation and not tested: its program does not run here." if meteor else "")
    )
    export(content, f"{one} against {other}, {results.title}", name="two-pairs")
    cases_link("Where they disagree, on the Cases page", results, [first, second], agreement=cases.DISAGREE)
    gap = found.errors[second] - found.errors[first]
    for better, worse, sign in ((first, second, 1), (second, first, -1)):
        order = np.argsort(-sign * gap, kind="stable")
        indices = [int(index) for index in order if sign * gap[index] > 0]
        st.markdown(
            f"**{results.titles[better]} has fewer errors than {results.titles[worse]} in "
            f"{counted(len(indices), 'study', 'studies')}**"
        )
        notes = [
            f"{found.errors[better][index]} against {counted(int(found.errors[worse][index]), 'error', 'errors')}"
            for index in indices
        ]
        empty = "There is no such study."
        show_studies(results, found, indices, notes, [first, second], empty, key=f"fewer_errors_{better}")


def _difference(
    tests: Mapping[str, Comparison], adjusted: Mapping[str, float], score: str, one: str, other: str
) -> str:
    found = tests[score]
    told = "" if np.isnan(found.low) else f"95 % interval {found.low:+.3f} to {found.high:+.3f}; "
    return (
        f"{METRICS[score].title}: **{one} {found.difference:+.3f}** against {other} ({told}p = "
        f"{found.p_permutation:.3f}, {adjusted[score]:.3f} corrected for {len(tests)} scores)."
    )


def _meteor(results: ResultSet, first: str, second: str) -> list[dict[str, Any]]:
    """METEOR's row, from the evaluation's own scores; none where it was not scored."""
    scores = {row["name"]: row.get("meteor") for row in results.rows.values()}
    ours, theirs = scores[first], scores[second]
    if ours is None or theirs is None:
        return []
    values = {results.titles[first]: ours, results.titles[second]: theirs, "Difference": ours - theirs}
    return [{"Score": METEOR} | values | {"Significant after correction": "not tested"}]
