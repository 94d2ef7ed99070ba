"""From counts of reports to a detection curve: how the share that mentions a finding rises with its extent.

The curve is a Weibull function between a floor, the share of false alarms, and a ceiling (Wichmann and Hill 2001,
doi:10.3758/BF03194544):

    share(x) = floor + (ceiling - floor) * (1 - exp(-(x / scale) ** shape))

Films of one chest are alike, so resamples for intervals draw chests, each with all of its films.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student_t
from threadpoolctl import threadpool_limits

from core.types import CXRLensError

Shares = npt.NDArray[np.float64]

HALF = 0.5
"""The share of reports at which an extent counts as reported half the time."""
_EDGE = 1e-4
_SHAPES = (0.5, 12.0)  # ours: from a curve that bends at once to one that is nearly a step


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve; shares are of reports, 0 to 1, extents as of `core.studies.phantom.findings.Fact`.

    Attributes:
        floor: share at extent 0.
        ceiling: share that is never passed.
        scale: extent at which 63 % of the way from floor to ceiling is done.
        shape: steepness.
    """

    floor: float
    ceiling: float
    scale: float
    shape: float

    def share(self, extents: npt.ArrayLike) -> Shares:
        """Shares at extents, of their shape."""
        rise = 1 - np.exp(-((np.asarray(extents, dtype=float) / self.scale) ** self.shape))
        shares: Shares = self.floor + (self.ceiling - self.floor) * rise
        return shares

    def reaches(self, share: float = HALF) -> float | None:
        """The extent at which a share is reached; None if the floor is above it, or no extent up to 1 does."""
        if self.floor >= share or self.ceiling <= share:
            return None
        rise = (share - self.floor) / (self.ceiling - self.floor)
        extent = self.scale * (-math.log1p(-rise)) ** (1 / self.shape)
        return extent if extent <= 1 else None


@dataclass(frozen=True, slots=True)
class Threshold:
    """The extent that is reported half the time, with its interval.

    Attributes:
        extent: None where half the reports never mention the finding.
        low: end of the interval; None: above the largest extent.
        high: as ``low``.
    """

    extent: float | None
    low: float | None
    high: float | None


def fit_curve(extents: Shares, hits: Shares, of: Shares, near: Curve | None = None) -> Curve:
    """Fit a curve by maximum likelihood.

    Args:
        extents: (J,), 0 among them for the floor.
        hits: (J,) reports that mention the finding.
        of: (J,) reports.
        near: where the search begins, of counts like these; searched for unless given.

    Raises:
        CXRLensError: fewer than two extents with reports.
    """
    counted = of > 0
    extents, hits, of = extents[counted], hits[counted], of[counted]
    if len(extents) < 2:
        raise CXRLensError("A curve needs the reports of at least two extents.")
    found = [_search(_begin(near), extents, hits, of)] if near else _search_anew(extents, hits, of)
    best = min(found, key=lambda each: each[1])[0]
    floor = _sigmoid(best[0])
    return Curve(floor, floor + (1 - floor) * _sigmoid(best[1]), math.exp(best[2]), math.exp(best[3]))


def _begin(curve: Curve) -> Shares:
    way = (curve.ceiling - curve.floor) / max(1 - curve.floor, _EDGE)
    return np.array([_logit(curve.floor), _logit(way), math.log(curve.scale), math.log(curve.shape)])


def _search_anew(extents: Shares, hits: Shares, of: Shares) -> list[tuple[Shares, float]]:
    """Searches from a gentle and from a steep curve through the counts."""
    shares = hits / of
    low, high = float(shares[extents.argmin()]), float(shares.max())
    middle = float(np.median(extents[extents > 0])) if (extents > 0).any() else 0.5
    crossed = extents[shares >= (low + high) / 2]
    start = float(crossed.min()) if len(crossed) and crossed.min() > 0 else middle
    way = (high - low) / max(1 - low, _EDGE)
    begins = [np.array([_logit(low), _logit(way), math.log(max(start, 0.02)), math.log(shape)]) for shape in (1.5, 4.0)]
    return [_search(begin, extents, hits, of) for begin in begins]


def _search(begin: Shares, extents: Shares, hits: Shares, of: Shares) -> tuple[Shares, float]:
    """The likeliest parameters near some, and the negative logarithm of their likelihood."""
    found = minimize(
        _negative_log_likelihood,
        begin,
        args=(extents, hits, of),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-9.0, 9.0), (-9.0, 9.0), (math.log(0.01), math.log(4.0)), tuple(map(math.log, _SHAPES))],
    )
    return found.x, float(found.fun)


def _negative_log_likelihood(
    parameters: Shares, extents: Shares, hits: Shares, of: Shares
) -> tuple[float, npt.NDArray[np.float64]]:
    """Of a binomial, up to a constant, and its gradient.

    Args:
        parameters: logit of the floor; logit of how much of the way from it to 1 the ceiling is, so that no curve
            falls; logarithms of scale and shape.
    """
    floor, way = _sigmoid(parameters[0]), _sigmoid(parameters[1])
    ceiling = floor + (1 - floor) * way
    scale, shape = math.exp(parameters[2]), math.exp(parameters[3])
    with np.errstate(divide="ignore"):
        log_ratio = np.where(extents > 0, np.log(np.maximum(extents, 1e-12) / scale), -60.0)
    power = np.exp(np.clip(shape * log_ratio, -60, 20))
    left = np.exp(-power)
    rise = 1 - left
    share = np.clip(floor + (ceiling - floor) * rise, _EDGE, 1 - _EDGE)
    value = -float((hits * np.log(share) + (of - hits) * np.log1p(-share)).sum())
    slope = -(hits / share - (of - hits) / (1 - share))  # of the value by the share
    by_power = (ceiling - floor) * left
    gradient = np.array(
        [
            (slope * (1 - rise * way)).sum() * floor * (1 - floor),
            (slope * rise).sum() * (1 - floor) * way * (1 - way),
            (slope * by_power * power * -shape).sum(),
            (slope * by_power * power * log_ratio * shape).sum(),
        ]
    )
    return value, gradient


def threshold(
    extents: Shares, answers: npt.NDArray[np.bool_], *, resamples: int = 400, seed: int = 0, level: float = 0.95
) -> tuple[Curve, Threshold]:
    """Fit a curve, and the interval of the extent that half the reports mention, by a bootstrap over chests.

    Percentiles of few chests lie too close together, so they are taken further out, as Student's t does (Hesterberg
    2015, "expanded percentiles", doi:10.1080/00031305.2015.1089789).

    Args:
        extents: (J,), 0 among them.
        answers: (chests, J), whether the report mentions the finding.
        resamples: of the chests.
        seed: of the resamples.
        level: share of measurements like this one whose interval is to hold the truth.

    Raises:
        CXRLensError: fewer than two chests or extents.
    """
    chests = len(answers)
    if chests < 2:
        raise CXRLensError("An interval needs the films of at least two chests.")
    counts = answers.astype(float)
    curve = fit_curve(extents, counts.sum(0), np.full(len(extents), float(chests)))
    weights = np.random.default_rng(seed).multinomial(chests, np.full(chests, 1 / chests), size=resamples)
    of = np.full(len(extents), float(chests))
    with threadpool_limits(1, "blas"):  # threads would wait for each other at every step of so small a search
        drawn = np.array([_or_beyond(fit_curve(extents, hits, of, curve).reaches()) for hits in weights @ counts])
    tail = float(norm.cdf(math.sqrt(chests / (chests - 1)) * student_t.ppf((1 - level) / 2, chests - 1)))
    low, high = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf").tolist()
    return curve, Threshold(curve.reaches(), _or_none(low), _or_none(high))


def _or_beyond(extent: float | None) -> float:
    return math.inf if extent is None else extent


def _or_none(extent: float) -> float | None:
    return None if math.isinf(extent) else extent


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _logit(share: float) -> float:
    kept = min(max(share, 0.005), 0.995)
    return math.log(kept / (1 - kept))
