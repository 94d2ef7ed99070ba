"""Rows of trainings that differ in seed in; each score over them out, and how far it is above the nearest report's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.evaluation.claims import Row, is_above
from core.evaluation.resampling import Comparison, compare, holm, mean_of_seeds
from core.evaluation.results import NEAREST
from core.evaluation.scored import FILE, Scored
from core.types import CXRLensError

_AGAIN = "Evaluate again: cxr-lens evaluate --out DIR."


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A score of a system over trainings that differ in their seed, and how far it is above what it is compared with.

    Attributes:
        values: of each training.
        difference: mean over the trainings; None where one of them was not compared.
        low: lower end of its 95 % interval; None where there is none that is right.
        high: upper end.
        p_holm: of the permutation test of the mean, after Holm's correction for all systems; None without labels.
        above: of each training, `is_above`.
    """

    values: tuple[float, ...]
    difference: float | None
    low: float | None
    high: float | None
    p_holm: float | None
    above: tuple[bool, ...]


def over_seeds(
    seeds: Sequence[Mapping[str, Row]],
    score: str,
    against: str = "differences",
    labels: Sequence[Scored] | None = None,
) -> dict[str, OverSeeds]:
    """A score of every system that all trainings have; all on the same held-out studies.

    With the trainings' labels, the interval and the test of the mean difference are `core.evaluation.resampling`'s
    `compare`, in which a patient is left out, or changes sides, in all trainings at once. Without, the ends of the
    interval are the means of the trainings' ends. That is never too narrow: a mean of differences varies at most as the
    mean of their standard deviations, however much the trainings have in common.

    Args:
        seeds: as of `core.evaluation.claims.above`.
        score: likewise.
        against: likewise.
        labels: of each training; None where one of them has none.

    Raises:
        KeyError: a row does not have this score.
        CXRLensError: the labels are not those of these rows.
    """
    names = [name for name in seeds[0] if all(name in each for each in seeds)]
    told = {name: [each[name].get(against, {}).get(score) for each in seeds] for name in names}
    compared = [name for name in names if None not in told[name]]
    means: dict[str, Comparison] = {}
    if labels is not None:
        _refuse_other_labels(seeds, names, score, labels)
        for name in compared:
            others = [str(each[name][against].get("from", NEAREST)) for each in seeds]
            means[name] = _mean_difference(labels, name, others, score)
    p_values = holm({name: each.p_permutation for name, each in means.items()})
    found = {}
    for name in names:
        known = asdict(means[name]) if name in means else {}
        difference, low, high = (
            _number(known[what]) if known else _mean_of(told[name], what) for what in ("difference", "low", "high")
        )
        found[name] = OverSeeds(
            values=tuple(float(each[name][score]) for each in seeds),
            difference=difference,
            low=low,
            high=high,
            p_holm=p_values.get(name),
            above=tuple(map(is_above, told[name])),
        )
    return found


def _refuse_other_labels(
    seeds: Sequence[Mapping[str, Row]], names: Sequence[str], score: str, labels: Sequence[Scored]
) -> None:
    first = labels[0]
    for number, (rows, each) in enumerate(zip(seeds, labels, strict=True), 1):
        same = (each.study_ids, each.subjects) == (first.study_ids, first.subjects)
        if not same or not np.array_equal(each.references, first.references):
            raise CXRLensError(f"{FILE} of evaluation {number} is of other studies than that of the first. {_AGAIN}")
        for name in names:
            known = each.statistics(name).scores()[score] if name in each.reports else math.nan
            if not math.isclose(known, rows[name][score], abs_tol=1e-9):
                raise CXRLensError(f"{FILE} of evaluation {number} has not the labels of {name}'s reports. {_AGAIN}")


def _mean_difference(labels: Sequence[Scored], name: str, others: Sequence[str], score: str) -> Comparison:
    for number, (each, other) in enumerate(zip(labels, others, strict=True), 1):
        if other not in each.reports:
            raise CXRLensError(f"{FILE} of evaluation {number} has no labels of the {other}. {_AGAIN}")
    ours = [each.statistics(name).select(score) for each in labels]
    theirs = [each.statistics(other).select(score) for each, other in zip(labels, others, strict=True)]
    return compare(mean_of_seeds(ours), mean_of_seeds(theirs), subjects=labels[0].subjects)[score]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean_of(differences: Sequence[Mapping[str, Any] | None], what: str) -> float | None:
    values = [None if each is None else each[what] for each in differences]
    known = [float(each) for each in values if each is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
