"""In: results.json and reports.jsonl of evaluations on disk. Out: scores, labelled reports, slices, comparisons.

They lie beside the bundles and below CXR_RUNS. Reports are read and labelled once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import read_card
from core.evaluation.reports import Evaluation, Slice, read_evaluation
from core.evaluation.resampling import Comparison, Interval, intervals
from core.labels.compare import Outcome
from core.observations import ASSERTED, NO_FINDING, OBSERVATIONS
from core.projection.job import cache_folder
from core.registry import DECODERS, ENCODERS, pair_title, table_order
from core.types import CXRLensError
from dashboard import settings
from dashboard.services import bundles, studies

BY_FINDING = "Finding"
FEWEST_NAMED = 10
"""Studies of a finding in detail, as "mild edema", to be a slice."""
FEWEST = 10
"""Studies of a slice, to be listed among all slices; of fewer, a score says nothing."""
RESULTS, REPORTS = "-results.json", "-reports.jsonl"
"""How the files of a family's evaluation end, beside the bundles."""

Ways = Mapping[str, Mapping[str, npt.NDArray[np.bool_]]]
"""Ways to divide the studies: what by -> group -> (n,) which studies."""


# ------------------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class ResultSet:
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
        """Names the held-out studies: scores of evaluations that differ in it are of different studies."""
        return str(self.content.get("fingerprint", "")), int(self.content.get("studies", 0))


def families() -> list[str]:
    """Families whose scores lie beside the bundles, the synthetic one's first."""
    found = sorted(path.name.removesuffix(RESULTS) for path in settings.bundles().glob(f"*{RESULTS}"))
    return sorted(found, key=lambda name: (not bundles.synthetic(name), name))


def result_sets() -> tuple[dict[str, ResultSet], dict[str, str]]:
    """Evaluations beside the bundles and below CXR_RUNS, by name; messages of those that are damaged.

    Raises:
        CXRLensError: there is none at all.
    """
    beside = settings.bundles()
    files = {name: (beside / f"{name}{RESULTS}", beside / f"{name}{REPORTS}") for name in families()}
    folder = settings.runs()
    if folder is not None:
        for pattern in ("results.json", "*/results.json", "*/*/results.json", "*/*/*/results.json"):
            for path in sorted(folder.glob(pattern)):
                name = path.parent.relative_to(folder).as_posix().removesuffix("/evaluate")
                files[f"{folder.name}/{name}".removesuffix("/.")] = path, path.with_name("reports.jsonl")
    found, damaged = {}, {}
    for name, (path, reports) in files.items():
        try:
            found[name] = _result_set(name, str(path), str(reports), path.stat().st_mtime_ns)
        except _ForeignError:
            continue
        except CXRLensError as error:
            damaged[name] = str(error)
    if not found and not damaged:
        raise CXRLensError(
            f"No evaluation yet: {beside / f'{bundles.PHANTOM}{RESULTS}'} is missing. "
            f"`cxr-lens train --preset {bundles.PHANTOM}` writes it."
        )
    return found, damaged


class _ForeignError(Exception):
    """A results.json of something else, as of `cxr-lens explain-benchmark`."""


@st.cache_data(max_entries=64, show_spinner=False)
def _result_set(name: str, path: str, reports: str, stamp: int) -> ResultSet:
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
    return ResultSet(name, family, Path(path), Path(reports), content, _seed(content, family, Path(path)))


def _seed(content: Mapping[str, Any], family: str, path: Path) -> str:
    """Of the training: as the evaluation says, or the cards of the bundles that lie beside it."""
    if "seed" in content:
        return str(content["seed"])
    if path.parent == settings.bundles():
        for card in bundles.cards(family).values():
            if "seed" in card.content.get("config", {}):
                return str(card.content["config"]["seed"])
    return "not recorded"


def title_of(name: str) -> str:
    """Of a pair's bundle, for a reader: "FVE + M2"."""
    if card := bundles.card_named(name):
        return bundles.title_of(card)
    parts = name.split("-")
    if len(parts) == 3 and parts[1] in ENCODERS and parts[2] in DECODERS:
        return pair_title(*parts[1:])
    return name


# ------------------------------------------------------------------------------------------------------------ reports


def read_reports(family: str, path: Path | None = None) -> Evaluation:
    """The reports of a family's evaluation, with their labels.

    Args:
        family: of the bundles that wrote them.
        path: of the reports; None for those beside the bundles.

    Raises:
        CXRLensError: they are not there; those of patients' studies stay with who has the data.
    """
    path = path or settings.bundles() / f"{family}{REPORTS}"
    if not path.is_file() and not bundles.synthetic(family):
        raise CXRLensError(
            "The reports of these studies are not here: they contain patients' reports, so they do not come with the "
            f"program. `cxr-lens evaluate --preset {family} --out DIR` writes them from your copy of the data; copy "
            f"DIR/reports.jsonl to {path}."
        )
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _read_reports(family, str(path), stamp)


@st.cache_resource(max_entries=4, show_spinner="Reading what the reports say …")
def _read_reports(family: str, path: str, stamp: int) -> Evaluation:
    truth = None
    if bundles.synthetic(family):
        truth = {study.study_id: (study.subject_id, study.labels) for study in studies.all_studies().values()}
    return read_evaluation(Path(path), truth, cache_folder().parent / "labels")


def reports_of(results: ResultSet) -> Evaluation:
    """The reports of an evaluation, with their labels.

    Raises:
        CXRLensError: they are not there, damaged, or of other bundles.
    """
    found = read_reports(results.family, results.reports)
    missing = [name for name in results.titles if name not in found.texts]
    if missing:
        raise CXRLensError(
            f"{results.reports} has no reports of {', '.join(missing)}: it is of other bundles. Evaluate again."
        )
    return found


def pair_outcomes(name: str) -> Mapping[str, Mapping[str, Outcome]]:
    """What became of each observation in a bundle's evaluated reports: study id -> observation -> outcome.

    Raises:
        CXRLensError: the reports of the evaluation are not there, damaged, or lack this bundle.
    """
    found = read_reports(read_card(settings.bundles() / name).family)
    if name not in found.outcomes:
        raise CXRLensError(f"The evaluation has no reports of {name}: it is of other bundles. Evaluate again.")
    return dict(zip(found.study_ids, found.outcomes[name], strict=True))


# ------------------------------------------------------------------------------------------------------------- slices


def divide(found: Evaluation) -> Ways:
    """Ways to divide the studies.

    By finding, studies are in as many groups as they have findings; otherwise each is in one.
    """
    positive: dict[str, npt.NDArray[np.bool_]] = {
        name: np.array([truth[name] in ASSERTED for truth in found.truth]) for name in OBSERVATIONS
    }
    words = np.array([len(text.split()) for text in found.references])
    shorter, longer = np.quantile(words, [1 / 3, 2 / 3])
    count = np.sum([positive[name] for name in OBSERVATIONS if name != NO_FINDING], axis=0)
    ways: dict[str, dict[str, npt.NDArray[np.bool_]]] = {
        BY_FINDING: positive,
        "Number of findings": {
            "none": count == 0, "one": count == 1, "two": count == 2, "three or more": count > 2
        },
        "Length of the reference": {
            f"up to {shorter:.0f} words": words <= shorter,
            f"up to {longer:.0f} words": (words > shorter) & (words <= longer),
            f"more than {longer:.0f} words": words > longer,
        },
    }  # fmt: skip
    known = studies.all_studies()
    if all(study_id in known for study_id in found.study_ids):
        there = [known[study_id] for study_id in found.study_ids]
        ways["View"] = _grouped([study.view or "unknown" for study in there])
        ways["Split"] = _grouped([study.split for study in there])
        ways["Sex"] = _grouped([study.context.get("sex", "") or "unknown" for study in there])
        ages = [int(age) if (age := study.context.get("age", "")).isdigit() else -1 for study in there]
        ways["Age"] = _grouped(["unknown" if age < 0 else "under 50" if age < 50 else "50 and over" for age in ages])
        ways["Worst severity"] = _grouped([studies.worst_severity(study.study_id) for study in there])
        fine = {label for study in there for label in study.fine_labels}
        named = {label: np.array([label in study.fine_labels for study in there]) for label in sorted(fine)}
        ways["Finding in detail"] = {label: chosen for label, chosen in named.items() if chosen.sum() >= FEWEST_NAMED}
    return ways


def _grouped(values: list[str]) -> dict[str, npt.NDArray[np.bool_]]:
    named = np.array(values)
    return {value: named == value for value in dict.fromkeys(values)}


def ways_to_divide(results: ResultSet) -> Ways:
    """Ways to divide the studies of an evaluation; see `divide`."""
    return _ways(*_stamp(results), reports_of(results))


@st.cache_resource(max_entries=4, show_spinner=False)
def _ways(path: str, stamp: int, _found: Evaluation) -> Ways:
    return divide(_found)


def _stamp(results: ResultSet) -> tuple[str, int]:
    return str(results.reports), results.reports.stat().st_mtime_ns


def scored_slices(results: ResultSet, system: str, score: str, by: str | None) -> Sequence[tuple[str, Slice]]:
    """(way, slice) of a pair's reports, the worst first.

    Args:
        results: whose reports.
        system: name of a pair's bundle.
        score: a name of `Evaluation.scored`.
        by: one of `ways_to_divide`; None for the slices of all with at least ``FEWEST`` studies.
    """
    found: Sequence[tuple[str, Slice]]
    found = _scored_slices(*_stamp(results), system, score, by, reports_of(results), ways_to_divide(results))
    return found


@st.cache_resource(max_entries=200, show_spinner="Scoring the slices …")
def _scored_slices(
    path: str, stamp: int, system: str, score: str, by: str | None, _found: Evaluation, _ways: Ways
) -> Sequence[tuple[str, Slice]]:
    scored = []
    for way, groups in _ways.items():
        if by is None:
            groups = {name: chosen for name, chosen in groups.items() if FEWEST <= chosen.sum() < len(chosen)}
        if by in (None, way):
            scored += [(way, each) for each in _found.slices(system, groups, score)]
    return sorted(scored, key=lambda each: (each[1].score, each[1].name))


# --------------------------------------------------------------------------------------------------------- comparisons


def comparison(results: ResultSet, first: str, second: str, scores: Sequence[str]) -> Mapping[str, Comparison]:
    """The paired tests of two pairs."""
    return _comparison(*_stamp(results), first, second, tuple(scores), reports_of(results))


@st.cache_resource(max_entries=200, show_spinner="Comparing the two …")
def _comparison(
    path: str, stamp: int, first: str, second: str, scores: tuple[str, ...], _found: Evaluation
) -> Mapping[str, Comparison]:
    return _found.against(first, second, scores)


def interval(results: ResultSet, system: str, score: str) -> tuple[float, float] | None:
    """95 % interval of a score: the evaluation's own, or computed alike from its reports; None without them."""
    row = next(row for row in results.content["rows"] if row["name"] == system)
    if score in row.get("intervals", {}):
        low, high = row["intervals"][score]
        return low, high
    if not results.reports.is_file() or score == "meteor":  # METEOR takes Java and seconds a pair
        return None
    ends: Interval = _interval(*_stamp(results), system, score, reports_of(results))
    return ends.low, ends.high


@st.cache_resource(max_entries=400, show_spinner=False)
def _interval(path: str, stamp: int, system: str, score: str, _found: Evaluation) -> Interval:
    return intervals(_found.scored(system, score), subjects=_found.subjects)[score]
