"""What a closed session says: figures and tables, names revealed, and files to take away."""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.reviews.agreement import Estimate
from core.reviews.analysis import Analysis, MetricCorrelation, analyse, correlate, settle
from core.reviews.answers import ANY_ERROR, Results, load_results
from core.reviews.cover import seal_of
from core.reviews.export import export
from core.reviews.metrics import automatic_metrics
from core.reviews.record import Record, load_record
from core.reviews.rubrics import SUPPORT, answer_in_words, question_in_words
from core.reviews.store import Actor, unblind
from core.reviews.verification import check_session
from core.types import CXRLensError
from core.wording import counted
from dashboard import access
from dashboard.plain import plain_message
from dashboard.reviews import figures, pool
from dashboard.reviews.comparisons import compared, show_differences
from dashboard.reviews.editing import show_editing

RESAMPLES = 1000


def show_results(who: Actor, session_id: str) -> None:
    """Draw the results of a closed session."""
    results = load_results(access.database(), who, session_id)  # asks each time whether this user may
    seal = _checked(session_id)
    analysis = _analysed(session_id, results)
    for warning in results.warnings:
        st.warning(plain_message(warning), icon=":material/info:")
    if results.answers.empty and not analysis.editing:
        st.info("No case was finished in this session, so there is nothing to count.")
    show_editing(analysis)
    _show_errors(analysis)
    _show_strengths(analysis)
    _show_support(analysis)
    _show_answers(results, analysis)
    show_differences(session_id, results)
    _show_agreement(analysis)
    _show_settled(results, analysis)
    _show_drift(results, analysis)
    analysis = _show_metrics(results, analysis)
    _show_names(who, session_id)
    st.caption(
        f"Seal of this session: `{seal}`. Keep it outside of this server: it shows if the record is rewritten later."
    )
    _show_files(who, results, analysis)


@st.cache_data(ttl=600, max_entries=100, show_spinner=False)
def _checked(session_id: str) -> str:
    """The seal of a session that is what its events say.

    Raises:
        ReviewError: it is not.
    """
    check_session(access.database(), session_id)
    with access.database().read() as connection:
        return seal_of(connection, session_id)


@st.cache_resource(max_entries=8, show_spinner="Working out the figures …")
def _analysed(session_id: str, _results: Results) -> Analysis:
    """A closed session does not change any more, so its id is key enough."""
    return analyse(_results, resamples=RESAMPLES)


@st.cache_resource(max_entries=8, show_spinner="Scoring the reports and comparing …")
def _correlated(session_id: str, _results: Results) -> tuple[MetricCorrelation, ...]:
    first = _results.answers[~_results.answers["repeat"] & ~_results.answers["adjudication"]]
    return correlate(first, automatic_metrics(_results), resamples=RESAMPLES)


def number(value: Any) -> str:
    """A number, or a number with its interval, in words of a table."""
    if isinstance(value, Estimate):
        if math.isnan(value.low):
            return number(value.value)
        return f"{number(value.value)} ({number(value.low)} to {number(value.high)})"
    return "–" if math.isnan(value) else f"{value:.2f}"


def _plain_table(rows: Iterable[dict[str, Any]], alt: str) -> None:
    st.dataframe(pd.DataFrame(list(rows)), hide_index=True, height="content", alt=alt)


def _plot(figure: Any, key: str, alt: str) -> None:
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, alt=alt)


def _show_errors(analysis: Analysis) -> None:
    if not analysis.errors:
        return
    st.header("Errors")
    total = {row.model: row for row in analysis.errors if row.error == ANY_ERROR and row.significant}
    ranked = sorted(total.values(), key=lambda row: row.per_report.value)
    _plot(
        figures.forest([(row.model, row.per_report) for row in ranked], "Clinically significant errors per report"),
        "errors",
        "Clinically significant errors per report, by model, with 95 % intervals",
    )
    st.caption("Fewest first. Mean of all readings, with the 95 % interval over studies (bootstrap).")
    counts = {(row.model, row.error, row.significant): row.errors for row in analysis.errors}
    kinds = list(dict.fromkeys(row.error for row in analysis.errors))
    _plain_table(
        (
            {"Model": row.model, "Readings": row.readings, "Significant errors per report": number(row.per_report)}
            | {
                kind.capitalize(): f"{counts[row.model, kind, True]} of {counts[row.model, kind, False]}"
                for kind in kinds
            }
            for row in ranked
        ),
        "Errors by model and kind",
    )
    st.caption("“3 of 5” means: five errors marked, three of them clinically significant.")


def _show_strengths(analysis: Analysis) -> None:
    if not analysis.strengths:
        return
    st.header("Preference")
    _plot(
        figures.forest(
            [(row.model, row.log_strength) for row in analysis.strengths], "Strength (Bradley-Terry, log)", neutral=0
        ),
        "strengths",
        "Bradley-Terry strength by model",
    )
    _plain_table(
        (
            {
                "Model": row.model,
                "Won": row.wins,
                "Lost": row.losses,
                "Ties": row.ties,
                "Strength": number(row.log_strength),
            }
            for row in analysis.strengths
        ),
        "Comparisons by model",
    )
    st.caption(
        "A strength higher by 1 means: preferred 2.7 times as often as the other. Intervals: 95 %, over studies."
    )


def _show_support(analysis: Analysis) -> None:
    if not analysis.support:
        return
    st.header("Do explanations support their sentences?")
    _plain_table(
        (
            {"Model": row.model}
            | dict(zip((name.capitalize() for name in SUPPORT), row.counts, strict=True))
            | {"Mean, 0 to 2": number(row.mean)}
            for row in analysis.support
        ),
        "Support by model",
    )


def _show_answers(results: Results, analysis: Analysis) -> None:
    if not analysis.answers:
        return
    st.header("Answers")
    rows = []
    for row in analysis.answers:
        words = results.rubric.of_label(row.question).in_words
        counts = {words(int(each) if each.isdigit() else each): often for each, often in row.counts.items()}
        rows.append(
            {
                "Question": question_in_words(results.rubric, row.question, ""),
                "Model": row.model or "the image",
                "Answers": row.answers,
                "How often": "; ".join(f"{each}: {often}" for each, often in counts.items()),
                "Cannot judge": row.cannot_judge,
                "Mean": number(row.mean),
            }
        )
    _plain_table(rows, "Answers by question and model")
    st.caption("First readings; repeats and settled answers are not counted. Mean with its 95 % interval over studies.")


def _show_agreement(analysis: Analysis) -> None:
    if analysis.agreement:
        st.header("Agreement between readers")
        _plain_table(
            (
                {
                    "Question": row.question.capitalize(),
                    "Compared": row.units,
                    "Krippendorff's alpha": number(row.alpha),
                    "Fleiss' kappa": number(row.fleiss),
                    "Cohen's kappa, mean": number(row.cohen),
                    "By pair": ", ".join(f"{pair} {number(value)}" for pair, value in row.cohen_pairs.items()),
                }
                for row in analysis.agreement
            ),
            "Agreement by question",
        )
        st.caption(
            "1: full agreement; 0: no more than by chance; –: all gave the same answer, or there are too few answers."
        )
    if analysis.self_agreement:
        st.header("Agreement of each reader with themselves")
        _plain_table(
            (
                {
                    "Reader": row.reader,
                    **({"Question": row.question} if row.question else {}),
                    "Answers given twice": row.answers,
                    "Same answer": f"{row.equal:.0%}",
                    "Cohen's kappa": number(row.kappa),
                }
                for row in analysis.self_agreement
            ),
            "Agreement with oneself",
        )


def _show_settled(results: Results, analysis: Analysis) -> None:
    if not analysis.disputed:
        return
    st.header("Disagreements")
    st.markdown(
        f"{counted(analysis.disputed, 'question was', 'questions were')} answered differently; "
        f"{counted(analysis.settled, 'was', 'were')} settled by a third reader."
    )
    table = settle(results)
    with st.expander("The questions"):
        _plain_table(
            (
                {
                    "Study": row["study"],
                    "Model": row["model"],
                    "Question": question_in_words(
                        results.rubric, row["question"], results.reports[row["study"]].get(row["model"], "")
                    ),
                    "Settled as": "not settled"
                    if row["value"] is None
                    else answer_in_words(results.rubric, row["value"], row["question"]),
                }
                for row in table[table["disputed"]].to_dict("records")
            ),
            "Questions that were answered differently",
        )


def _show_drift(results: Results, analysis: Analysis) -> None:
    if not analysis.drift:
        return
    st.header("Change over the session")
    done = results.screens[(results.screens["state"] == "done") & ~results.screens["repeat"]]
    done = done[~done["adjudication"]].sort_values("finished")
    seconds = {str(reader): group["seconds"].tolist() for reader, group in done.groupby("reader", sort=True)}
    _plot(figures.drift(seconds, "Seconds per case"), "drift", "Seconds per case over the session, by reader")
    _plain_table(
        (
            {
                "Reader": row.reader,
                "What": row.quantity.capitalize(),
                "First half": number(row.first_half),
                "Second half": number(row.second_half),
                "Spearman's rho": number(row.rho),
                "p": "–" if math.isnan(row.p) else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
            }
            for row in analysis.drift
        ),
        "Drift by reader",
    )


def _show_metrics(results: Results, analysis: Analysis) -> Analysis:
    """Compare metrics with readers where that is asked for, as it takes a while; the analysis with what was found."""
    if results.rubric.mark != "error":
        return analysis
    st.header("Automatic metrics against readers")
    if not st.toggle("Score the reports and compare (up to a minute)", key="metrics-wanted"):
        return analysis
    try:
        analysis = replace(analysis, correlations=_correlated(results.session_id, results))
    except CXRLensError as error:
        st.info(f"There is nothing to compare: {plain_message(error)}", icon=":material/info:")
        return analysis
    _plot(
        figures.forest(
            [(row.metric, row.kendall) for row in analysis.correlations], "Kendall's tau-b with errors", neutral=0
        ),
        "metrics",
        "Kendall's tau of each metric with the readers' number of errors",
    )
    st.caption("A good metric falls as readers count more significant errors: the further left of 0, the better.")
    _plain_table(
        (
            {
                "Metric": row.metric,
                "Reports": row.reports,
                "Kendall's tau-b": number(row.kendall),
                "Spearman's rho": number(row.spearman),
            }
            for row in analysis.correlations
        ),
        "Correlation of metrics with readers",
    )
    return analysis


def _show_names(who: Actor, session_id: str) -> None:
    with st.expander("Which model each name stood for"):
        names = unblind(access.database(), who, session_id)
        _plain_table(
            (
                {"Reader": reader, "Name": name, "Model": model}
                for reader, of_reader in names.items()
                for name, model in sorted(of_reader.items())
            ),
            "Models by reader and name",
        )


def _show_files(who: Actor, results: Results, analysis: Analysis) -> None:
    st.header("Download")
    title, session_id = results.design["title"], results.session_id
    source = str(results.design["source"])
    pictures = source != "" and st.checkbox(
        "Put pictures of the discussed cases into the report", value=True, key="pictures"
    )
    key = f"{access.OF_ONE_USER}files-{session_id}-{pictures}"
    if st.button("Prepare the files", icon=":material/inventory_2:", key="prepare"):
        with st.spinner("Writing the files …"):
            try:
                record = load_record(access.database(), who, session_id)
                st.session_state[key] = files_of(results, analysis, source if pictures else "", record)
            except CXRLensError as error:
                st.error(plain_message(error), icon=":material/error:")
    found: dict[str, bytes] | None = st.session_state.get(key)
    if found is None:
        st.caption(
            "Marks with their words, screens, answers, settled answers, reports and studies as CSV, JSON and Parquet; "
            "figures and tests between systems as JSON; a report as HTML; and a codebook that explains every column."
        )
        return
    stem = "".join(sign if sign.isalnum() else "-" for sign in title).strip("-").lower() or "session"
    with st.container(horizontal=True):
        st.download_button("All files (zip)", _zip(found), f"{stem}.zip", icon=":material/download:", key="zip")
        st.download_button("Report (HTML)", found["report.html"], f"{stem}.html", "text/html", key="html")
        st.download_button("Marks (CSV)", found["marks.csv"], f"{stem}-marks.csv", "text/csv", key="csv")
    st.caption("For a PDF, open the report and print it to a file. Each file says that it is for research only.")


def files_of(results: Results, analysis: Analysis, source: str, record: Record) -> dict[str, bytes]:
    """The exported files by name.

    Args:
        results: of a closed session.
        analysis: of the same.
        source: of the pictures; empty for none.
        record: of the same session: when it happened.
    """
    with tempfile.TemporaryDirectory() as folder:
        picture, tests = pool.picture(source) if source else None, compared(results.session_id, results)
        paths = export(results, analysis, Path(folder), picture, record=record, compared=tests)
        return {path.name: path.read_bytes() for path in paths}


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()
