"""Evaluations on disk, beside the bundles and below CXR_RUNS: which there are, and what is computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.evaluation.reports import Evaluation, Slice
from core.evaluation.resampling import Comparison, Interval, intervals
from core.registry import DECODERS, ENCODERS, pair_title, table_order
from core.types import CXRLensError
from dashboard import evaluation, services, settings

FEWEST = 10
"""Studies of a slice, to be listed among all slices; of fewer, a score says nothing."""

Ways = Mapping[str, Mapping[str, npt.NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation on disk.

    Attributes:
        name: in the address and for the reader: the family of the bundles, or the folder below CXR_RUNS.
        family: of its bundles.
        results: its scores.
        reports: its reports; need not exist.
        content: of ``results``.
        seed: of the training, as text; "not recorded" where it is not known.
    """

    name: str
    family: str
    results: Path
    reports: Path
    content: Mapping[str, Any]
    seed: str

    @property
    def rows(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """The scores by pair, in the order of the paper's Table 1."""
        found = {(row["encoder"], row["decoder"]): row for row in self.content["rows"]}
        return {pair: found[pair] for pair in table_order() if pair in found}

    @property
    def titles(self) -> Mapping[str, str]:
        """Name of each pair's bundle -> "FVE + M2"."""
        return {row["name"]: pair_title(*pair) for pair, row in self.rows.items()}

    @property
    def data(self) -> tuple[str, int]:
        """Names the held-out studies: scores of runs that differ in it are of different studies."""
        return str(self.content.get("fingerprint", "")), int(self.content.get("studies", 0))


def runs() -> tuple[dict[str, Run], dict[str, str]]:
    """Evaluations beside the bundles, the phantom's first, and below CXR_RUNS; messages of those that are damaged.

    Raises:
        CXRLensError: there is none at all.
    """
    beside = sorted(settings.bundles().glob("*-results.json"))
    beside.sort(key=lambda path: path.name != f"{services.PHANTOM}-results.json")
    places = {
        path.name.removesuffix("-results.json"): (
            path,
            path.with_name(path.name.replace("results.json", "reports.jsonl")),
        )
        for path in beside
    }
    folder = settings.runs()
    if folder is not None:
        for pattern in ("results.json", "*/results.json", "*/*/results.json", "*/*/*/results.json"):
            for path in sorted(folder.glob(pattern)):
                name = path.parent.relative_to(folder).as_posix().removesuffix("/evaluate")
                places[f"{folder.name}/{name}".removesuffix("/.")] = path, path.with_name("reports.jsonl")
    found, damaged = {}, {}
    for name, (path, reports) in places.items():
        try:
            found[name] = _run(name, str(path), str(reports), path.stat().st_mtime_ns)
        except _ForeignError:
            continue
        except CXRLensError as error:
            damaged[name] = str(error)
    if not found and not damaged:
        raise CXRLensError(
            f"No evaluation yet: {settings.bundles() / f'{services.PHANTOM}-results.json'} is missing. "
            f"`cxr-lens train --preset {services.PHANTOM}` writes it."
        )
    return found, damaged


class _ForeignError(Exception):
    """A results.json of something else, as of `cxr-lens explain-benchmark`."""


@st.cache_data(max_entries=64, show_spinner=False)
def _run(name: str, path: str, reports: str, stamp: int) -> Run:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if "rows" not in content and "family" not in content:
            raise _ForeignError
        for row in content["rows"]:
            if not isinstance(row["name"], str) or row["encoder"] not in ENCODERS or row["decoder"] not in DECODERS:
                raise ValueError(f"a row is of no known pair: {row['name']!r}")
            if not isinstance(row["f1"], float):
                raise ValueError(f"{row['name']} has no F1")
        family = str(content.get("family", name))
        int(content.get("studies", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise CXRLensError(
            f"{path} is damaged ({what}). Write it again with `cxr-lens train` or `cxr-lens evaluate --out DIR`."
        ) from error
    return Run(name, family, Path(path), Path(reports), content, _seed(content, family, Path(path)))


def _seed(content: Mapping[str, Any], family: str, path: Path) -> str:
    """Of the training: as the evaluation says, or the cards of the bundles that lie beside it."""
    if "seed" in content:
        return str(content["seed"])
    if path.parent == settings.bundles():
        for card in services.cards(family).values():
            if "seed" in card.content.get("config", {}):
                return str(card.content["config"]["seed"])
    return "not recorded"


def reports(run: Run) -> Evaluation:
    """The reports of an evaluation, with their labels.

    Raises:
        CXRLensError: they are not there, damaged, or of other bundles.
    """
    found = evaluation.evaluation(run.family, run.reports)
    missing = [name for name in run.titles if name not in found.texts]
    if missing:
        raise CXRLensError(
            f"{run.reports} has no reports of {', '.join(missing)}: it is of other bundles. Evaluate again."
        )
    return found


def ways_to_divide(run: Run) -> Ways:
    """What by -> group -> (n,) which studies; see `evaluation.slices`."""
    found: Ways = _ways(*_stamp(run), reports(run))
    return found


@st.cache_resource(max_entries=4, show_spinner=False)
def _ways(path: str, stamp: int, _found: Evaluation) -> Ways:
    return evaluation.slices(_found)


def _stamp(run: Run) -> tuple[str, int]:
    return str(run.reports), run.reports.stat().st_mtime_ns


def slices(run: Run, system: str, score: str, by: str | None) -> Sequence[tuple[str, Slice]]:
    """(way, slice) of a pair's reports, the worst first.

    Args:
        run: whose reports.
        system: name of a pair's bundle.
        score: a name of `Evaluation.scored`.
        by: one of `ways_to_divide`; None for the slices of all with at least ``FEWEST`` studies.
    """
    found: Sequence[tuple[str, Slice]]
    found = _slices(*_stamp(run), system, score, by, reports(run), ways_to_divide(run))
    return found


@st.cache_resource(max_entries=200, show_spinner="Scoring the slices …")
def _slices(
    path: str, stamp: int, system: str, score: str, by: str | None, _found: Evaluation, _ways: Ways
) -> Sequence[tuple[str, Slice]]:
    scored = []
    for way, groups in _ways.items():
        if by is None:
            groups = {name: chosen for name, chosen in groups.items() if FEWEST <= chosen.sum() < len(chosen)}
        if by in (None, way):
            scored += [(way, each) for each in _found.slices(system, groups, score)]
    return sorted(scored, key=lambda each: (each[1].score, each[1].name))


def comparison(run: Run, first: str, second: str, scores: Sequence[str]) -> Mapping[str, Comparison]:
    """The paired tests of two pairs."""
    found: Mapping[str, Comparison] = _comparison(*_stamp(run), first, second, tuple(scores), reports(run))
    return found


@st.cache_resource(max_entries=200, show_spinner="Comparing the two …")
def _comparison(
    path: str, stamp: int, first: str, second: str, scores: tuple[str, ...], _found: Evaluation
) -> Mapping[str, Comparison]:
    return _found.against(first, second, scores)


def interval(run: Run, system: str, score: str) -> tuple[float, float] | None:
    """95 % interval of a score: the evaluation's own, or computed alike from its reports; None without them."""
    row = next(row for row in run.content["rows"] if row["name"] == system)
    if score in row.get("intervals", {}):
        low, high = row["intervals"][score]
        return low, high
    if not run.reports.is_file():
        return None
    if score == "meteor":  # takes Java and seconds a pair
        return None
    found = reports(run)
    ends: Interval = _interval(*_stamp(run), system, score, found)
    return ends.low, ends.high


@st.cache_resource(max_entries=400, show_spinner=False)
def _interval(path: str, stamp: int, system: str, score: str, _found: Evaluation) -> Interval:
    return intervals(_found.scored(system, score), subjects=_found.subjects)[score]
