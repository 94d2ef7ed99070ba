"""Scores that other programs computed, read from a table: study, system and a column a metric; means, intervals, tests.

RadEval, GREEN, RadGraph or RaTEScore run in environments of their own; their scores of single reports come here as a
file (docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.evaluation.resampling import Comparison, FloatArray, Interval, StudyStatistics, compare, intervals
from core.registry import did_you_mean
from core.studies.records import csv_header
from core.systems.matching import id_variants
from core.tables import read_rows, says_nothing
from core.types import CXRLensError
from core.wording import counted

STUDY, SYSTEM = ("study", "study_id"), ("system", "model")
"""Names of the columns that say of which report a row is."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class OutsideScores:
    """Scores of single reports.

    Attributes:
        metrics: their names, as the table has them.
        values: system -> (studies, metrics), NaN where the table has none.
        told: what is to be said of the table, a sentence each.
    """

    metrics: tuple[str, ...]
    values: Mapping[str, FloatArray]
    told: tuple[str, ...]

    def mean(self, system: str, metric: str) -> tuple[float, int]:
        """The mean over the studies that have this score, and how many these are; NaN of none."""
        column = self._column(system, metric)
        there = column[~np.isnan(column)]
        return (float(there.mean()) if len(there) else math.nan), len(there)

    def interval(self, system: str, metric: str, subjects: Sequence[str]) -> Interval | None:
        """95 % interval of the mean, bootstrap over patients; None with fewer than two.

        Args:
            system: of `values`.
            metric: of `metrics`.
            subjects: the patient of each study.
        """
        column = self._column(system, metric)
        there = ~np.isnan(column)
        kept = [subject for subject, has in zip(subjects, there, strict=True) if has]
        if len(set(kept)) < 2:
            return None
        return intervals(_mean(column[there]), subjects=kept)[_SCORE]

    def against(self, first: str, second: str, metric: str, subjects: Sequence[str]) -> Comparison | None:
        """The paired tests of two systems, on studies with this score of both; None with fewer than two patients.

        Args:
            first: a system of `values`.
            second: another.
            metric: of `metrics`.
            subjects: the patient of each study.
        """
        one, other = self._column(first, metric), self._column(second, metric)
        both = ~np.isnan(one) & ~np.isnan(other)
        kept = [subject for subject, has in zip(subjects, both, strict=True) if has]
        if len(set(kept)) < 2:
            return None
        return compare(_mean(one[both]), _mean(other[both]), subjects=kept)[_SCORE]

    def _column(self, system: str, metric: str) -> FloatArray:
        column: FloatArray = self.values[system][:, self.metrics.index(metric)]
        return column


_SCORE = "score"


def _mean(values: FloatArray) -> StudyStatistics:
    """A mean over studies as a function of sums."""
    rows = np.stack([values, np.ones_like(values)], axis=1)
    return StudyStatistics((_SCORE,), rows, lambda sums: sums[..., :1] / sums[..., 1:])


def read_scores(path: Path, study_ids: Sequence[str], systems: Sequence[str]) -> OutsideScores:
    """Read a table of scores.

    Args:
        path: CSV, plain or gzipped, with a column "study" (or "study_id"), "system" (or "model"), and one a metric.
        study_ids: the studies of the evaluation that the scores stand beside.
        systems: the names of its systems.

    Raises:
        CXRLensError: the table is not there, damaged, lacks a column, or has no score of these systems and studies.
    """
    study, system, *metrics = score_columns(path)
    places = {study_id: place for place, study_id in enumerate(study_ids)}
    values = {name: np.full((len(study_ids), len(metrics)), np.nan) for name in systems}
    unknown: set[str] = set()
    elsewhere, no_numbers, first = 0, [], dict[tuple[str, int], int]()
    twice: set[tuple[str, int]] = set()
    for line, (study_id, name, *cells) in enumerate(read_rows(path, [study, system, *metrics]), 2):
        if name not in values:
            unknown.add(name)
            continue
        place = next((places[each] for each in id_variants((study_id,)) if each in places), None)
        if place is None:
            elsewhere += 1
            continue
        row = np.array([_number(cell) for cell in cells])
        no_numbers += [
            f"line {line}, {metric}" for metric, value in zip(metrics, row, strict=True) if math.isinf(value)
        ]
        row[np.isinf(row)] = np.nan
        if first.setdefault((name, place), line) != line and not np.array_equal(
            row, values[name][place], equal_nan=True
        ):
            twice.add((name, place))
        values[name][place] = row
    for name, place in twice:
        values[name][place] = np.nan
    kept = {name: each for name, each in values.items() if not np.isnan(each).all()}
    told = [
        f"{path.name}: there is no system '{name[:64]}' here, so its scores are left out.{did_you_mean(name, systems)}"
        for name in sorted(unknown)
    ]
    if elsewhere:
        told.append(
            counted(elsewhere, "row is of a study that is", "rows are of studies that are") + " not evaluated here."
        )
    if twice:
        has = counted(len(twice), "report has", "reports have")
        told.append(f"{has} two different rows of scores, so neither is taken.")
    if no_numbers:
        what = counted(len(no_numbers), "cell is no number", "cells are no numbers")
        told.append(f"{what} ({'; '.join(no_numbers[:_NAMED])}): left out.")
    if not kept:
        raise CXRLensError(f"{path.name} has no score of these systems and studies. {' '.join(told)}".strip())
    for name, each in kept.items():
        if lacking := int(np.isnan(each).any(1).sum()):
            told.append(f"{name}: {lacking:,} of {len(study_ids):,} studies lack a score.")
    return OutsideScores(tuple(metrics), kept, tuple(told))


def score_columns(path: Path) -> tuple[str, ...]:
    """The columns of a table of scores: of the study, of the system, and one a metric; no score is read.

    Raises:
        CXRLensError: the table is not there, or lacks one of them.
    """
    header = _header(path)
    study, system = (_named(path, header, usual) for usual in (STUDY, SYSTEM))
    metrics = tuple(name for name in header if name not in (study, system) and name)
    if not metrics:
        raise CXRLensError(f"{path.name} has no column of a metric beside '{study}' and '{system}'.")
    return study, system, *metrics


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise CXRLensError(f"There is no file {path}.")
    names = csv_header(path)
    if len(set(names)) != len(names):
        raise CXRLensError(f"{path.name} has two columns of one name. Name each column once.")
    return names


def _named(path: Path, header: Sequence[str], usual: Sequence[str]) -> str:
    found = next((name for name in usual if name in header), None)
    if found is None:
        there = ", ".join(header[:20]) or "none"
        raise CXRLensError(
            f"{path.name} has no column '{usual[0]}'. It needs study, system, and one a metric; it has: {there}."
        )
    return found


def _number(cell: str) -> float:
    """A number; NaN of an empty cell, infinity of what is no number."""
    if says_nothing(cell):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        return math.inf
    return value if math.isfinite(value) else math.inf
