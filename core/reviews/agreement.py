"""Agreement of readers, and strengths from comparisons: the formulas. `analysis` brings them the readers' answers.

Cohen's kappa is scikit-learn's, rank correlations are SciPy's. Fleiss' kappa and Krippendorff's alpha are here, because
statsmodels is a large dependency for one and the package krippendorff is under the GPL; tests compare with both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from core.evaluation.resampling import FloatArray, Interval, StudyStatistics, intervals
from core.types import CXRLensError

Scale = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its bootstrap interval over studies; NaN where it is not defined."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def estimates(
    statistics: StudyStatistics, subjects: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """All scores of some sums over units, with percentile bootstrap intervals that draw studies.

    Args:
        statistics: a row a unit.
        subjects: the study of each unit; a study is drawn with all its units.

    Returns:
        by name; intervals are NaN with fewer than two studies, or where a tenth of the resamples has no value.
    """
    values = statistics.scores()
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            found = intervals(statistics, subjects=subjects, resamples=resamples, seed=seed)
    except CXRLensError:  # one study: nothing to draw from
        return {name: Estimate(value) for name, value in values.items()}
    if any(np.isnan(each.low) for each in found.values()):  # some resamples have no value: leave those out

        def score(drawn: npt.NDArray[np.int64]) -> FloatArray:
            return statistics.from_sums(statistics.values[drawn].sum(0))

        ends = np.stack(bootstrap(score, subjects, resamples=resamples, seed=seed)).T
        found = {name: Interval(*pair) for name, pair in zip(values, ends.tolist(), strict=True)}
    return {name: Estimate(value, found[name].low, found[name].high) for name, value in values.items()}


def fleiss_kappa(table: npt.NDArray[np.int64]) -> float:
    """Agreement of a fixed number of raters beyond chance (Fleiss 1971, doi:10.1037/h0031619).

    Args:
        table: (units, categories) how many raters gave each unit each category; all rows have one sum, at least 2.

    Returns:
        kappa; NaN where all ratings are of one category.

    Raises:
        ValueError: rows of unequal sums, or fewer than two raters.
    """
    raters = table.sum(1)
    if not len(table) or raters[0] < 2 or (raters != raters[0]).any():
        raise ValueError("Fleiss' kappa needs the same number of ratings, two or more, of each unit.")
    observed = float(((table**2).sum(1) - raters).mean() / (raters[0] * (raters[0] - 1)))
    expected = float(((table.sum(0) / table.sum()) ** 2).sum())
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def coincidences(ratings: FloatArray, scale: Scale) -> StudyStatistics:
    """Krippendorff's alpha as a function of sums over units (Krippendorff 2011, "Computing ... alpha-reliability").

    Args:
        ratings: (units, raters), NaN where a rater did not rate; nominal values are any numbers.
        scale: of the values.

    Returns:
        with the one score "alpha"; NaN where the ratings do not vary, or no unit has two of them.
    """
    levels = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == levels).sum(1).astype(np.float64)  # (units, levels)
    raters = counts.sum(1)
    each = counts[:, :, None] * counts[:, None, :] - np.eye(len(levels)) * counts[:, :, None]
    each /= np.maximum(raters - 1, 1)[:, None, None]  # a unit with one rating has no pair: all its entries are 0
    size = len(levels)

    def alpha(sums: FloatArray) -> FloatArray:
        table = sums.reshape(*sums.shape[:-1], size, size)
        totals = table.sum(-1)
        distance = _distance(levels, totals, scale)
        total = totals.sum(-1)
        observed = (table * distance).sum((-2, -1))
        expected = (totals[..., :, None] * totals[..., None, :] * distance).sum((-2, -1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(expected > 0, 1 - (total - 1) * observed / expected, np.nan)[..., None]

    return StudyStatistics(("alpha",), each.reshape(len(ratings), size * size), alpha)


def _distance(levels: FloatArray, totals: FloatArray, scale: Scale) -> FloatArray:
    if scale == "nominal":
        return 1 - np.eye(len(levels))
    if scale == "interval":
        return np.asarray((levels[:, None] - levels[None, :]) ** 2, np.float64)
    below = np.cumsum(totals, -1) - totals / 2  # the ratings up to the middle of each level
    return np.asarray((below[..., :, None] - below[..., None, :]) ** 2, np.float64)


def bradley_terry(wins: FloatArray, prior: float = 0.5) -> FloatArray:
    """Strengths of models from pairwise comparisons (Bradley and Terry 1952; Hunter 2004, doi:10.1214/aos/1079120141).

    Args:
        wins: (..., models, models) how often the row won against the column; a tie is half a win for each.
        prior: wins, and as many losses, of each model against one average opponent. Keeps the strength of a model that
            never lost finite; 0 is plain maximum likelihood.

    Returns:
        (..., models) log strengths with mean 0.
    """
    played = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(-1) + prior
    strength = np.ones(wins.shape[:-1])
    for _ in range(10_000):
        both = strength[..., :, None] + strength[..., None, :]
        updated = won / np.maximum((played / both).sum(-1) + 2 * prior / (strength + 1), 1e-300)
        if not prior:
            updated = updated / np.exp(np.log(np.maximum(updated, 1e-300)).mean(-1, keepdims=True))
        done = np.abs(np.log(np.maximum(updated, 1e-300) / np.maximum(strength, 1e-300))).max(initial=0) < 1e-9
        strength = updated
        if done:
            break
    logs = np.log(np.maximum(strength, 1e-300))
    return np.asarray(logs - logs.mean(-1, keepdims=True), np.float64)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], FloatArray],
    subjects: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Percentile interval (95 %) of a statistic that is no function of sums, such as a rank correlation.

    Args:
        statistic: of the indices of the drawn rows, (values,).
        subjects: the study of each row; a study is drawn with all its rows.

    Returns:
        lower and upper ends, (values,) each; NaN where a tenth of the resamples has no value.
    """
    groups = np.unique(np.asarray(subjects), return_inverse=True)[1]
    rows = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    random = np.random.default_rng([seed, 0])
    draws = np.stack(
        [
            statistic(np.concatenate([rows[group] for group in random.integers(len(rows), size=len(rows))]))
            for _ in range(resamples)
        ]
    )
    undefined = np.isnan(draws).mean(0) > 0.1
    kept = np.where(undefined, 0, draws)  # a column of NaN alone would be warned of
    low, high = np.where(undefined, np.nan, np.nanquantile(kept, [0.025, 0.975], axis=0))
    return low, high
