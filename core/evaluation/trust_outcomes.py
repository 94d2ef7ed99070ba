"""What a rule of `core.evaluation.trust` does on sentences that it was not made of: counts, curves, draws anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.evaluation.finds import Share
from core.evaluation.trust import Flags, Judged, Kind, Rule, calibrate, numbers, wrong_by_patient
from core.types import CXRLensError

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule did on sentences that it was not made of.

    Attributes:
        sentences: that state an observation.
        all_wrong: of them.
        marked: of them.
        wrong: of those marked.
        by_patient: mean over patients of the share of wrong ones among their marked sentences; NaN where none is.
        low: lower end of the 95 % interval of the share of wrong ones among the marked, over patients; NaN of none.
        high: upper end.
    """

    sentences: int
    all_wrong: int
    marked: int
    wrong: int
    by_patient: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Share of wrong ones among the marked; NaN where none is marked."""
        return self.wrong / self.marked if self.marked else math.nan


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a curve of risk: of sentences ordered by what speaks for them, the first.

    Attributes:
        share: of all sentences that are kept, 0 to 1.
        error: share of wrong ones among those kept.
        low: lower end of its 95 % interval, over patients.
        high: upper end.
    """

    share: float
    error: float
    low: float
    high: float


def outcome(rule: Rule, judged: Judged, kind: Kind | None = None) -> Found:
    """What a rule does on held-out sentences, of one kind or of both."""
    own = np.ones(len(judged.wrong), dtype=np.bool_) if kind is None else judged.kinds == kind
    marks = rule.marks_of(judged)
    wrong = int(judged.wrong[marks & own].sum())
    ends = _interval(judged.patients, judged.wrong, marks & own)
    count, all_wrong, marked = int(own.sum()), int(judged.wrong[own].sum()), int((marks & own).sum())
    return Found(count, all_wrong, marked, wrong, by_patient(judged, marks & own), *ends)


def by_patient(judged: Judged, chosen: Flags) -> float:
    """Mean over patients of the share of wrong ones among their chosen sentences; NaN where none is chosen."""
    shares, some = wrong_by_patient(judged, chosen)
    return float(shares[some].mean()) if some.any() else math.nan


def curve(rule: Rule, judged: Judged, kind: Kind | None = None, points: int = 12) -> list[Point]:
    """How the share of wrong sentences grows with the share that is kept, the best first; empty of no sentences.

    Sentences that lack a score come last.
    """
    own = judged if kind is None else judged.of(judged.kinds == kind)
    count = len(own.wrong)
    order = np.argsort(-rule.values_of(own), kind="stable")
    found = []
    for kept in sorted({math.ceil(count * place / points) for place in range(1, points + 1)} - {0}):
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[order[:kept]] = True
        ends = _interval(own.patients, own.wrong, chosen)
        found.append(Point(kept / count, float(own.wrong[chosen].mean()), *ends))
    return found


def _interval(patients: npt.NDArray[Any], wrong: Flags, chosen: Flags) -> tuple[float, float]:
    """95 % interval of the share of wrong ones among chosen sentences: bootstrap over patients, seeded.

    Where none or all are wrong, a bootstrap has no width: Wilson's interval, as if a patient were one sentence.
    """
    if not chosen.any():
        return math.nan, math.nan
    number = numbers(patients[chosen])
    right, count = np.bincount(number, ~wrong[chosen]), np.bincount(number)
    if right.sum() in (0, count.sum()):
        failed = len(count) if not right.any() else 0
        return Share(failed, len(count)).interval or (math.nan, math.nan)
    weights = np.random.default_rng(0).multinomial(len(count), np.full(len(count), 1 / len(count)), RESAMPLES)
    low, high = np.quantile(1 - (weights @ right) / (weights @ count), (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Draw:
    """What a rule did on the patients that did not calibrate it, with sentences of one kind or of both.

    Attributes:
        by_patient: mean over patients of the share of wrong ones among their marked sentences; 0 where none is marked.
        error: share of wrong ones among all marked sentences; likewise.
        marked: share of the sentences that are marked.
    """

    by_patient: float
    error: float
    marked: float


def redraw(
    judged: Judged,
    scores: Sequence[str],
    patients: int,
    *,
    draws: int = 100,
    alpha: float = 0.1,
    confidence: float = 0.9,
    seed: int = 0,
) -> list[Mapping[Kind | None, Draw]]:
    """Calibrate with patients drawn anew each time, and see what the rule does on all others, by kind; None is both.

    Args:
        judged: sentences of all films that the pair did not learn from.
        scores: names of those to use.
        patients: who calibrate, each time.
        draws: how many times.
        alpha: see `calibrate`.
        confidence: see `calibrate`.
        seed: of all draws.

    Raises:
        CXRLensError: as `calibrate`; or no patient is left to try the rule on.
    """
    known = np.unique(judged.patients)
    if not 0 < patients < len(known):
        raise CXRLensError(f"Of {len(known)} patients {patients} cannot calibrate and leave some to try the rule on.")
    random, found = np.random.default_rng(seed), list[Mapping[Kind | None, Draw]]()
    for number in range(draws):
        order = random.permutation(known)
        with_, rest = judged.of_patients(order[:patients]), judged.of_patients(order[patients:])
        rule = calibrate(with_, scores, alpha=alpha, confidence=confidence, seed=seed + number)
        marks = rule.marks_of(rest)
        found.append({kind: _draw(rest, marks, kind) for kind in (None, *Kind)})
    return found


def _draw(judged: Judged, marks: Flags, kind: Kind | None) -> Draw:
    own = np.ones(len(marks), dtype=np.bool_) if kind is None else judged.kinds == kind
    chosen = marks & own
    if not chosen.any():
        return Draw(0.0, 0.0, 0.0)
    return Draw(by_patient(judged, chosen), float(judged.wrong[chosen].mean()), float(chosen.sum() / own.sum()))
