"""An interval for a mean of F1 over observations, right also where some observations are rare.

A bootstrap of such a mean is too narrow: an observation that was never found is never found in a resample either, and a
resample without a positive scores 0. Here each observation has an interval of its own, and these are put together.

F1 is 2 J / (1 + J) of the Jaccard index J, the share of right ones among all studies that have the observation in the
reference or in the report. J is a binomial share, so it has an interval however few these studies are (Jeffreys';
Brown, Cai and DasGupta 2001). The distances from each F1 to its ends are then added as those of independent or
correlated estimates are (MOVER; Zou and Donner 2008).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts are read when they are first used: stats takes half a second

from core.evaluation.metrics import FREQUENT

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeanOfF1:
    """Which sums stand behind a mean of F1, one of each kind for each F1.

    Attributes:
        found: columns of the studies where reference and report both have the observation.
        written: of those where the report has it.
        there: of those where the reference has it.
    """

    found: tuple[int, ...]
    written: tuple[int, ...]
    there: tuple[int, ...]

    @classmethod
    def of(cls, observations: Sequence[int], count: int) -> MeanOfF1:
        """Of some of ``count`` observations, whose sums stand kind by kind."""
        found, written, there = (tuple(start + each for each in observations) for start in (0, count, 2 * count))
        return cls(found, written, there)

    @classmethod
    def together(cls, parts: Iterable[MeanOfF1]) -> MeanOfF1:
        """The mean of several such means."""
        kinds = zip(*((part.found, part.written, part.there) for part in parts), strict=True)
        return cls(*(tuple(column for columns in kind for column in columns) for kind in kinds))

    def shifted(self, start: int) -> MeanOfF1:
        """The same where other sums stand before these."""
        return MeanOfF1(*(tuple(start + each for each in kind) for kind in (self.found, self.written, self.there)))

    def frequent(self, values: FloatArray) -> bool:
        """Whether at least `FREQUENT` of the studies (studies, S) have each observation."""
        return bool((values[:, list(self.there)].sum(0) >= FREQUENT).all())


def macro_interval(sums: FloatArray, mean: MeanOfF1, level: float = 0.95) -> tuple[float, float]:
    """Interval of a mean of F1.

    An observation that nobody has, reference or report, may have any F1: it widens the interval by its whole weight.

    Args:
        sums: (patients, S), what each patient's studies add.
        mean: which of these sums.
        level: of the interval.
    """
    found = sums[:, list(mean.found)]
    either = sums[:, list(mean.written)] + sums[:, list(mean.there)] - found
    count, hits = either.sum(0), found.sum(0)
    share = np.divide(hits, count, out=np.zeros_like(hits), where=count > 0)
    off = found - share * either
    sure = (share == 0) | (share == 1)  # no spread is seen: the studies of a patient count once
    times = np.where(
        sure,
        np.divide(count, (either > 0).sum(0), out=np.ones_like(count), where=count > 0),
        np.divide((off**2).sum(0), count * share * (1 - share), out=np.ones_like(count), where=~sure),
    )
    studies = count / np.maximum(times, 1)  # that are worth as much, if all were independent
    ends = (1 - level) / 2
    low = np.where(share == 0, 0, scipy.stats.beta.ppf(ends, share * studies + 0.5, (1 - share) * studies + 0.5))
    high = np.where(share == 1, 1, scipy.stats.beta.ppf(1 - ends, share * studies + 0.5, (1 - share) * studies + 0.5))
    low, high = np.where(count > 0, low, 0), np.where(count > 0, high, 1)
    together = _correlation(np.where(sure, either, off))
    below, above = _f1(share) - _f1(low), _f1(high) - _f1(share)
    middle = float(_f1(share).mean())
    parts = [max(0.0, float(side @ together @ side)) ** 0.5 / len(share) for side in (below, above)]
    return middle - parts[0], middle + parts[1]


def _f1(jaccard: FloatArray) -> FloatArray:
    return 2 * jaccard / (1 + jaccard)


def _correlation(columns: FloatArray) -> FloatArray:
    """(K, K) of columns (patients, K); 0 beside 1 where a column is constant."""
    centred = columns - columns.mean(0)
    norms = np.sqrt((centred**2).sum(0))
    found: FloatArray = (centred.T @ centred) / np.outer(norms, norms).clip(1e-30)
    np.fill_diagonal(found, 1)
    return found
