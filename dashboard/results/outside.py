"""Metrics that other programs computed: their means beside ours, with intervals, and the paired test of two systems."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.outside import OutsideScores
from core.evaluation.resampling import holm
from core.types import CXRLensError
from dashboard import figures
from dashboard.components.score_table import export
from dashboard.plain import plain, plain_message
from dashboard.results.parts import pick, score_table
from dashboard.services import evaluations, outside
from dashboard.services.evaluations import ResultSet

_TOLD = "scores_told"


def show_outside(results: ResultSet) -> None:
    """Draw the view."""
    try:
        evaluations.reports_of(results)
        found = outside.scores(results)
    except CXRLensError as error:
        st.info(plain_message(error), icon=":material/info:")
        found = None
    _offer(results)
    if found is None:
        st.caption(
            "RadEval, GREEN, RadGraph, RaTEScore and others run in environments of their own: docs/metrics.md has the "
            "recipe of each. Their scores of single reports are shown here from a table with the columns study and "
            "system, and one a metric."
        )
        return
    metric = pick("Metric", found.metrics, "outside", found.metrics[0], width=240)
    names = [name for name in results.rows if name in found.values and found.mean(name, metric)[1]]
    if not names:
        st.info(f"No system has a score of {plain(metric)}.")
        return
    content = pd.DataFrame([_row(results, found, name, metric) for name in names])
    dots = figures.Dots(f"{metric}, with 95 % interval", *(content[each].tolist() for each in (metric, "From", "To")))
    st.plotly_chart(
        figures.score_dots(content["System"].tolist(), names, [dots], axis=metric),
        key="outside_chart",
        config={"displayModeBar": False},
        alt=f"{metric} of each system; the table below has the same numbers",
    )
    score_table(content, f"{metric} of each system", wide="System")
    st.caption(
        "Computed elsewhere, a score a report; here are the means over the studies that have one. From, To: 95 % "
        "interval, bootstrap over patients. Our scores are those of the rule labeler and the language metrics."
        + "".join(f" {each}" for each in found.told)
    )
    export(content, f"{metric} of {results.title}, computed elsewhere", name="outside")
    if len(names) > 1:
        _compare(results, found, metric, names)


def _row(results: ResultSet, found: OutsideScores, name: str, metric: str) -> dict[str, object]:
    mean, studies = found.mean(name, metric)
    ends = outside.interval(results, name, metric)
    low, high = (ends.low, ends.high) if ends else (np.nan, np.nan)
    ours = results.rows[name]
    besides = {title: ours[key] for key, title in (("f1", "Macro F1"), ("bleu_4", "BLEU-4")) if key in ours}
    return {"System": results.titles[name], metric: mean, "From": low, "To": high, "Studies": studies, **besides}


def _compare(results: ResultSet, found: OutsideScores, metric: str, names: list[str]) -> None:
    """The paired tests of two systems, in all metrics."""
    titles = results.titles
    with st.container(horizontal=True):
        first = pick("First system", names, "outside_first", names[0], format_func=titles.__getitem__, width=240)
        second = pick("Second system", names, "outside_second", names[1], format_func=titles.__getitem__, width=240)
    if first == second:
        st.info("Choose two different systems.")
        return
    tests = {each: outside.against(results, first, second, each) for each in found.metrics}
    known = {each: test for each, test in tests.items() if test is not None}
    if not known:
        st.info("These two have no score of the same studies.")
        return
    adjusted = holm({each: test.p_permutation for each, test in known.items()})
    rows = [
        {
            "Metric": each,
            "Difference": test.difference,
            "From": test.low,
            "To": test.high,
            "p": test.p_permutation,
            "p (Holm)": adjusted[each],
        }
        for each, test in known.items()
    ]
    content = pd.DataFrame(rows)
    score_table(content, f"{titles[first]} against {titles[second]}, metrics of other programs", wide="Metric")
    st.caption(
        f"{titles[first]} less {titles[second]}, on the studies that have the score of both. Interval: paired "
        "bootstrap over patients. p: paired permutation test; Holm's correction is for these metrics. Whether a higher "
        "value is better, the metric's authors say."
    )


def _offer(results: ResultSet) -> None:
    """The way to give a table, and what came of it."""
    told = st.session_state.pop(_TOLD, "")
    if told:
        st.error(plain_message(told), icon=":material/error:")
    refused = outside.why_not_add(results)
    if refused:
        st.caption(f":material/info: {plain_message(refused)}")
        return
    with st.popover("Add scores of other programs", icon=":material/upload_file:", width="content"):
        file = st.file_uploader(
            "Table (CSV) with study, system, and a column a metric", type=["csv", "gz"], key="scores"
        )
        given = ("", b"") if file is None else (file.name, file.getvalue())
        st.button("Add", key="scores_add", type="primary", disabled=file is None, on_click=_add, args=(results, *given))


def _add(results: ResultSet, name: str, content: bytes) -> None:
    """Callback: put it beside the evaluation, or say on the next run why not."""
    try:
        outside.add(results, name, content)
    except CXRLensError as error:
        st.session_state[_TOLD] = str(error)
