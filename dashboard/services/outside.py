"""In: a table of scores that other programs computed, beside an evaluation. Out: means, intervals and paired tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

from core.evaluation.outside import OutsideScores, read_scores
from core.evaluation.resampling import Comparison, Interval
from core.files import write_whole
from core.types import CXRLensError
from dashboard import access
from dashboard.services import evaluations
from dashboard.services.evaluations import ResultSet


def place(results: ResultSet) -> Path:
    """Where the table of an evaluation lies: beside its scores, as ``scores.csv`` or FAMILY-scores.csv."""
    name = results.results.name.removesuffix("results.json")
    return results.results.with_name(f"{name}scores.csv")


def scores(results: ResultSet) -> OutsideScores | None:
    """The scores; None where there is no table.

    Raises:
        CXRLensError: the table is damaged or of something else, or the reports are not here.
    """
    path = place(results)
    if not path.is_file():
        return None
    found: OutsideScores = _scores(str(path), path.stat().st_mtime_ns, results.name, results)
    return found


@st.cache_resource(max_entries=8, show_spinner="Reading the scores …")
def _scores(path: str, stamp: int, name: str, _results: ResultSet) -> OutsideScores:
    return read_scores(Path(path), evaluations.reports_of(_results).study_ids, list(_results.rows))


def why_not_add(results: ResultSet) -> str:
    """Why a table cannot be put beside an evaluation here; "" where it can."""
    if results.own is None:
        return (
            "To see scores of other programs here, put their table into the folder of these scores, as "
            f"{place(results).name}, or name it with "
            "`cxr-lens evaluate --scores FILE --out DIR`."
        )
    if access.has_login() and access.identify().role == "reader":
        return "On this server researchers and administrators add scores."
    return ""


def add(results: ResultSet, name: str, content: bytes) -> OutsideScores:
    """Put a table beside an evaluation of one's own, in place of one that is there.

    Raises:
        CXRLensError: it cannot be put there, or is no table of these systems and studies; nothing is changed then.
    """
    if refused := why_not_add(results):
        raise CXRLensError(refused)
    found = evaluations.reports_of(results)
    with tempfile.TemporaryDirectory(prefix="cxr-lens-") as folder:
        path = Path(folder, f"scores{Path(name).suffix}")
        path.write_bytes(content)
        read = read_scores(path, found.study_ids, list(results.rows))
    write_whole(place(results), content)
    return read


def interval(results: ResultSet, system: str, metric: str) -> Interval | None:
    """95 % interval of a mean; None of fewer than two patients."""
    path = place(results)
    found: Interval | None = _interval(str(path), path.stat().st_mtime_ns, results.name, system, metric, results)
    return found


@st.cache_resource(max_entries=400, show_spinner=False)
def _interval(path: str, stamp: int, name: str, system: str, metric: str, _results: ResultSet) -> Interval | None:
    known = scores(_results)
    return None if known is None else known.interval(system, metric, evaluations.reports_of(_results).subjects)


def against(results: ResultSet, first: str, second: str, metric: str) -> Comparison | None:
    """The paired tests of two systems; None where they share fewer than two patients with this score."""
    path = place(results)
    found: Comparison | None = _against(
        str(path), path.stat().st_mtime_ns, results.name, first, second, metric, results
    )
    return found


@st.cache_resource(max_entries=400, show_spinner=False)
def _against(
    path: str, stamp: int, name: str, first: str, second: str, metric: str, _results: ResultSet
) -> Comparison | None:
    known = scores(_results)
    return None if known is None else known.against(first, second, metric, evaluations.reports_of(_results).subjects)
