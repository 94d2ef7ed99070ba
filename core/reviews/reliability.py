"""How well readers agree on scales: weighted kappa of two readers, intraclass correlation of more; with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from core.evaluation.resampling import FloatArray
from core.reviews.agreement import Estimate
from core.reviews.answers import Results
from core.reviews.long_table import first_readings, scale_of

Weights = Literal["linear", "quadratic"]


@dataclass(frozen=True, slots=True)
class ScaleAgreement:
    """Agreement on one question with a scale or a count.

    Attributes:
        question: which.
        units: reports or sentences that all readers answered.
        linear: weighted kappa by "reader and reader", weights by distance.
        quadratic: the same, weights by its square.
        agreement: ICC(2,1).
        consistency: ICC(3,1).
    """

    question: str
    units: int
    linear: Mapping[str, Estimate]
    quadratic: Mapping[str, Estimate]
    agreement: Estimate
    consistency: Estimate


def scale_agreement(results: Results) -> tuple[ScaleAgreement, ...]:
    """Agreement on all questions of a session whose answers are steps or counts; empty with fewer than two readers."""
    answers = first_readings(results)
    ordered = [scale_of(results, asked) != "nominal" for asked in answers["asked"]]
    answers = answers[answers["number"].notna() & np.array(ordered, bool)]
    if answers["reader"].nunique() < 2:
        return ()
    rows = []
    for asked, group in answers.groupby("asked", sort=False):
        table = group.pivot_table(
            index=["study", "model", "question"], columns="reader", values="number", aggfunc="last"
        ).dropna()
        if len(table) < 2 or table.shape[1] < 2:
            continue
        subjects = table.index.get_level_values("study").tolist()
        kappas: dict[Weights, dict[str, Estimate]] = {"linear": {}, "quadratic": {}}
        for weights, found in kappas.items():
            for one, other in combinations(table.columns, 2):
                first, second = table[one].astype(int).tolist(), table[other].astype(int).tolist()
                found[f"{one} and {other}"] = weighted_kappa(first, second, weights, subjects)
        pair = intraclass(table.to_numpy(np.float64))
        rows.append(ScaleAgreement(str(asked), len(table), kappas["linear"], kappas["quadratic"], *pair))
    return tuple(rows)


def weighted_kappa(
    first: Sequence[int], second: Sequence[int], weights: Weights, subjects: Sequence[str] | None = None
) -> Estimate:
    """Cohen's kappa of two readers of a scale, by the distance of their answers or its square (Cohen 1968).

    The interval leaves out each subject in turn (jackknife) and is Student's on the scale of Fisher's z, so that it
    does not pass 1.

    Args:
        first: answers of one reader, steps of a scale.
        second: of the other, of the same things in the same order.
        weights: how the distance of two answers counts.
        subjects: the study of each answer; several answers of a study are left out together.

    Returns:
        NaN where both give one and the same answer to all.
    """
    one, other = np.asarray(first, int), np.asarray(second, int)
    if not len(one) or len(np.unique(np.concatenate([one, other]))) < 2:
        return Estimate(math.nan)
    # Every step between is a level, also one that nobody chose: the weights are distances.
    levels = np.arange(min(one.min(), other.min()), max(one.max(), other.max()) + 1)
    value = float(cohen_kappa_score(one, other, labels=levels, weights=weights))
    groups = np.unique(np.arange(len(one)) if subjects is None else np.asarray(subjects), return_inverse=True)[1]
    size, units = len(levels), int(groups.max()) + 1
    tables = np.zeros((units, size, size))
    np.add.at(tables, (groups, one - levels[0], other - levels[0]), 1)
    cost = np.abs(levels[:, None] - levels[None]) ** (1 if weights == "linear" else 2)
    left = tables.sum(0) - tables
    total = left.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.einsum("ui,uj,ij->u", left.sum(2), left.sum(1), cost) / total
        z = np.arctanh(np.clip(1 - np.einsum("uij,ij->u", left, cost) / expected, -0.9999, 0.9999))
    if units < 3 or np.isnan(z).any() or abs(value) >= 0.9999:
        return Estimate(value)
    error = math.sqrt(float(((z - z.mean()) ** 2).sum()) * (units - 1) / units)
    half = float(stats.t.ppf(0.975, units - 1)) * error
    return Estimate(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half))


def intraclass(ratings: FloatArray) -> tuple[Estimate, Estimate]:
    """Intraclass correlations of single ratings by Shrout and Fleiss 1979 (doi:10.1037/0033-2909.86.2.420).

    Args:
        ratings: (things, readers), every reader of everything.

    Returns:
        ICC(2,1), agreement of readers drawn from many; ICC(3,1), consistency of just these, who may differ in level.
        Intervals (95 %) are theirs, from the F distribution. NaN for fewer than two things or readers, where all
        ratings are equal, and where a divisor is 0.
    """
    things, readers = ratings.shape
    if things < 2 or readers < 2 or np.ptp(ratings) == 0:
        return Estimate(math.nan), Estimate(math.nan)
    mean = ratings.mean()
    between = readers * float(((ratings.mean(1) - mean) ** 2).sum()) / (things - 1)
    of_readers = things * float(((ratings.mean(0) - mean) ** 2).sum()) / (readers - 1)
    degrees = (things - 1) * (readers - 1)
    rest = ratings - ratings.mean(1, keepdims=True) - ratings.mean(0, keepdims=True) + mean
    error = float((rest**2).sum()) / degrees
    whole = between + (readers - 1) * error + readers * (of_readers - error) / things
    # Two readers who contradict each other on two things: no variance is left to divide.
    agreement = (between - error) / whole if whole > 1e-12 * (between + error + of_readers) else math.nan
    if between + error < 1e-12 * of_readers:  # readers differ in level, and in nothing else
        return Estimate(agreement), Estimate(math.nan)
    consistency = (between - error) / (between + (readers - 1) * error)
    if error < 1e-12 * (between + of_readers):
        return Estimate(agreement), Estimate(consistency)
    ratio = between / error
    low = ratio / float(stats.f.ppf(0.975, things - 1, degrees))
    high = ratio * float(stats.f.ppf(0.975, degrees, things - 1))
    of_these = Estimate(consistency, (low - 1) / (low + readers - 1), (high - 1) / (high + readers - 1))
    level, share = readers * agreement * of_readers / error, things * (1 + (readers - 1) * agreement)
    share -= readers * agreement
    weight = (things - 1) * level**2 + share**2
    if not weight > 1e-12:  # also where there is no agreement to be sure of
        return Estimate(agreement), of_these
    freedom = degrees * (level + share) ** 2 / weight
    upper, lower = float(stats.f.ppf(0.975, things - 1, freedom)), float(stats.f.ppf(0.975, freedom, things - 1))
    spread = readers * of_readers + (readers * things - readers - things) * error
    return (
        Estimate(
            agreement,
            things * (between - upper * error) / (upper * spread + things * between),
            things * (lower * between - error) / (spread + things * lower * between),
        ),
        of_these,
    )
