"""Mixed models with crossed random effects: readers and cases both vary, and every reader reads every case.

Linear models are fitted by restricted maximum likelihood, with the algebra of lme4 (Bates et al. 2015,
doi:10.18637/jss.v067.i01); counts by a Poisson model with Laplace's approximation. Degrees of freedom are
Satterthwaite's, as few readers make a normal interval too narrow; statsmodels has none, which is why the fit is here.
Tests compare the estimates with statsmodels and with published values of lme4.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, special, stats

from core.evaluation.resampling import FloatArray
from core.reviews.rubrics import ReviewError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A sum of fixed effects, with what is known of it.

    Attributes:
        value: the estimate, on the scale of the model (of counts: a logarithm).
        error: its standard error.
        degrees: of freedom, Satterthwaite's.
        low: lower end of the interval.
        high: its upper end.
        p: two-sided, of the hypothesis that it is 0.
    """

    value: float
    error: float
    degrees: float
    low: float
    high: float
    p: float

    def below(self, limit: float) -> float:
        """One-sided p of the hypothesis that the truth is ``limit`` or more: small where it is shown to be less."""
        return float(stats.t.cdf((self.value - limit) / self.error, self.degrees))


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted model.

    Attributes:
        effects: (fixed effects,) estimates.
        covariance: (fixed effects, fixed effects) of the estimates.
        spread: standard deviation of each random effect by its name; of a linear model also "residual".
        dispersion: of counts, how much more they scatter than Poisson's law says; 1 or more. 1 of a linear model.
        rows: how many values went in.
    """

    effects: FloatArray
    covariance: FloatArray
    spread: Mapping[str, float]
    dispersion: float
    rows: int
    _sizes: Sequence[int]
    _pulls: FloatArray
    _variances: FloatArray
    _uncertainty: FloatArray

    def contrast(self, weights: Sequence[float] | FloatArray, level: float = 0.95) -> Contrast:
        """Estimate a sum of fixed effects.

        Args:
            weights: (fixed effects,).
            level: of the interval.
        """
        weight = np.asarray(weights, np.float64)
        # A perfect fit leaves no variance; p is 0 then, or 1 where there is no difference.
        value, variance = float(weight @ self.effects), max(float(weight @ self.covariance @ weight), 1e-300)
        plain = variance / self.dispersion
        # By how much the variance of the sum rises with the variance of each random effect.
        slope = np.add.reduceat((self._pulls @ weight) ** 2, _starts(self._sizes))
        if "residual" in self.spread:
            slope = np.append(slope, (plain - slope @ self._variances[:-1]) / self._variances[-1])
        wobble = float(slope @ self._uncertainty @ slope)
        at_most = self.rows - len(self.effects)
        degrees = min(2 * plain**2 / wobble, at_most) if wobble > 0 else at_most
        degrees = max(float(degrees), 1.0)
        error = math.sqrt(variance)
        half = float(stats.t.ppf((1 + level) / 2, degrees)) * error
        p = float(2 * stats.t.sf(abs(value) / error, degrees))
        return Contrast(value, error, degrees, value - half, value + half, p)


def fit_linear(
    values: FloatArray,
    fixed: FloatArray,
    random: Mapping[str, Sequence[Hashable]],
    below_zero: Collection[str] = (),
) -> Fit:
    """Fit a linear mixed model with normal random effects, crossed or nested, by restricted maximum likelihood.

    Args:
        values: (rows,).
        fixed: (rows, fixed effects), of full rank.
        random: by name, the group of each row; each group has an effect of its own.
        below_zero: effects whose variance may be found to be below 0, as chance can make it. Held at 0 instead, an
            effect of few groups makes intervals too wide or, left out where it is 0, too narrow; see Hillis 2007
            (doi:10.1002/sim.2532). Its spread is told as 0 then.

    Raises:
        ReviewError: the values do not vary, or there are too few of them for the effects.
    """
    centre, scale = float(values.mean()), float(values.std())
    rows, columns = fixed.shape
    _require(fixed, scale)
    groups = _Groups.of(random)
    y, sizes = (values - centre) / scale, groups.sizes
    products = (groups.squares(np.ones(rows)), groups.sums(fixed), groups.sums(y), fixed.T @ fixed, fixed.T @ y)
    yy = float(y @ y)

    def deviance(ratios: FloatArray) -> tuple[float, FloatArray]:
        """Of relative variances: minus twice the restricted log likelihood, less a constant, and its slope."""
        found = _Solved.of(*products, yy, np.repeat(ratios, sizes))
        value = found.log_determinant + (rows - columns) * math.log(found.rest)
        trace, squares = np.diag(found.between), found.with_rest**2
        return value, np.add.reduceat(trace - (rows - columns) * squares / found.rest, _starts(sizes))

    # Of variances, not of deviations: those have no slope at 0, where a search would stay.
    least = [-0.999 / max(Counter(members).values()) if name in below_zero else 0.0 for name, members in random.items()]
    ratios = _minimum(deviance, np.ones(len(sizes)), least, slope=True)
    found = _Solved.of(*products, yy, np.repeat(ratios, sizes))
    residual = found.rest / (rows - columns) * scale**2
    deviations = np.sqrt(np.maximum(ratios, 0) * residual)
    # The intercept, or what adds up to it, takes the centre back.
    restored = found.effects * scale + np.linalg.lstsq(fixed, np.full(rows, centre), rcond=None)[0]
    inside = np.append(ratios > np.array(least) + 1e-8, True)
    return Fit(
        restored,
        found.covariance * residual,
        {**dict(zip(random, deviations.tolist(), strict=True)), "residual": math.sqrt(residual)},
        1.0,
        rows,
        sizes,
        found.with_fixed @ found.covariance,
        np.append(ratios, 1.0) * residual,
        _inverse(_with_residual(found.squares(sizes), found.traces(sizes), ratios, rows - columns), inside)
        * residual**2,
    )


def _with_residual(squares: FloatArray, traces: FloatArray, ratios: FloatArray, degrees: int) -> FloatArray:
    """Traces of P V_k P V_l with those of the residual, whose V is 1; in units of the residual variance.

    With P the projection and V the covariance of the values, P V P = P gives them from those of the groups.
    """
    residual = degrees - float(traces @ ratios)  # trace of P
    both = traces - squares @ ratios  # of P P with each random effect
    return np.block([[squares, both[:, None]], [both[None], np.array([[residual - float(both @ ratios)]])]])


def _inverse(squares: FloatArray, inside: BoolArray) -> FloatArray:
    """Covariance of the variances by expected information; those that are held at their least have none."""
    found = np.zeros_like(squares)
    kept = np.ix_(inside, inside)
    found[kept] = 2 * np.linalg.pinv(squares[kept], hermitian=True)
    return found


def fit_counts(values: FloatArray, fixed: FloatArray, random: Mapping[str, Sequence[Hashable]]) -> Fit:
    """Fit a Poisson mixed model, with a logarithm between the fixed effects and the mean, by Laplace's approximation.

    Where counts scatter more than Poisson's law says, standard errors are widened by the square root of the dispersion
    (Pearson's statistic by its degrees of freedom).

    Args:
        values: (rows,) 0, 1, 2, ...
        fixed: as in `fit_linear`.
        random: as in `fit_linear`.

    Raises:
        ReviewError: as `fit_linear`; or a value is no count.
    """
    if (values < 0).any() or (values != np.round(values)).any():
        raise ReviewError("A model of counts needs whole numbers, 0 or more.")
    _require(fixed, float(values.std()))
    rows, columns = fixed.shape
    groups = _Groups.of(random)
    sizes, count = groups.sizes, len(groups.sizes)
    one = np.eye(sum(sizes))
    last = {"mode": np.zeros(len(one))}
    constant = float(special.gammaln(values + 1).sum())

    def mode(relative: FloatArray, effects: FloatArray) -> tuple[float, FloatArray, FloatArray, FloatArray]:
        """Laplace's deviance; at the most likely random effects the rows' means, the deviations, and the curvature."""
        each, base = np.repeat(relative, sizes), fixed @ effects
        found = last["mode"]

        def objective(effect: FloatArray) -> tuple[float, FloatArray]:
            linear = np.clip(base + groups.spread(each * effect), -30, 30)
            mean = np.exp(linear)
            return float(mean.sum() - values @ linear + effect @ effect / 2), mean

        def curve(mean: FloatArray) -> FloatArray:
            return each[:, None] * groups.squares(mean) * each + one

        now, mean = objective(found)
        for _ in range(50):
            gradient = each * groups.sums(values - mean) - found
            step = linalg.solve(curve(mean), gradient, assume_a="pos", check_finite=False)
            length = 1.0
            while (after := objective(found + length * step))[0] > now + 1e-12 and length > 1e-6:
                length /= 2
            found, done = found + length * step, abs(now - after[0]) < 1e-10
            now, mean = after
            if done:
                break
        last["mode"] = found
        curvature = curve(mean)
        deviance = 2 * (now + constant) + float(np.linalg.slogdet(curvature)[1])
        return deviance, mean, each, curvature

    start = np.linalg.lstsq(fixed, np.full(rows, math.log(max(float(values.mean()), 1e-3))), rcond=None)[0]
    best = _minimum(
        lambda both: mode(np.sqrt(both[:count]), both[count:])[0],
        np.concatenate([np.full(count, 0.1), start]),
        [0.0] * count,
    )
    relative, effects = np.sqrt(best[:count]), best[count:]

    _, mean, each, curvature = mode(relative, effects)
    used = float(np.trace(np.linalg.solve(curvature, curvature - one)))
    dispersion = max(1.0, float(((values - mean) ** 2 / mean).sum()) / max(rows - columns - used, 1.0))
    weighted = fixed * mean[:, None]
    found = _Solved.of(
        groups.squares(mean),
        groups.sums(weighted),
        np.zeros(len(each)),
        fixed.T @ weighted,
        np.zeros(columns),
        1.0,
        each**2,
    )
    return Fit(
        effects,
        found.covariance * dispersion,
        dict(zip(random, relative.tolist(), strict=True)),
        dispersion,
        rows,
        sizes,
        found.with_fixed @ found.covariance,
        relative**2,
        _inverse(found.squares(sizes), relative > 1e-4),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    """What a covariance of the values, V, makes of groups Z, fixed effects X and values y; P projects X out.

    Attributes:
        log_determinant: of V, and of X' V^-1 X.
        covariance: inverse of X' V^-1 X.
        effects: of the fixed effects, estimated.
        rest: sum of squares that is left, y' P y.
        with_fixed: Z' V^-1 X.
        with_rest: Z' P y.
        between: Z' P Z.
    """

    log_determinant: float
    covariance: FloatArray
    effects: FloatArray
    rest: float
    with_fixed: FloatArray
    with_rest: FloatArray
    between: FloatArray

    @classmethod
    def of(
        cls,
        zz: FloatArray,
        zx: FloatArray,
        zy: FloatArray,
        xx: FloatArray,
        xy: FloatArray,
        yy: float,
        ratios: FloatArray,
    ) -> _Solved:
        """Work it out from cross products and the variance of each group relative to the residual."""
        size = len(zz)
        factors = linalg.lu_factor(np.eye(size) + zz * ratios, check_finite=False)
        solved = linalg.lu_solve(factors, np.column_stack([zz, zx, zy]), check_finite=False)
        with_groups, with_fixed, with_values = solved[:, :size], solved[:, size:-1], solved[:, -1]
        scaled = zx.T * ratios
        information, right = xx - scaled @ with_fixed, xy - scaled @ with_values
        covariance = np.linalg.inv(information)
        effects = covariance @ right
        rest = yy - float(zy * ratios @ with_values) - float(effects @ right)
        logs = float(np.log(np.abs(np.diag(factors[0]))).sum()) + float(np.linalg.slogdet(information)[1])
        return cls(
            logs,
            covariance,
            effects,
            max(rest, 1e-12),
            with_fixed,
            with_values - with_fixed @ effects,
            with_groups - with_fixed @ covariance @ with_fixed.T,
        )

    def squares(self, sizes: Sequence[int]) -> FloatArray:
        """(random effects, random effects) traces of P V_k P V_l, where V_k is 1 within the groups of an effect."""
        starts = _starts(sizes)
        return np.asarray(np.add.reduceat(np.add.reduceat(self.between**2, starts, 0), starts, 1), np.float64)

    def traces(self, sizes: Sequence[int]) -> FloatArray:
        """(random effects,) traces of P V_k."""
        return np.asarray(np.add.reduceat(np.diag(self.between), _starts(sizes)), np.float64)


def _starts(sizes: Sequence[int]) -> IntArray:
    return np.cumsum([0, *sizes])[:-1]


def _require(fixed: FloatArray, scale: float) -> None:
    rows, columns = fixed.shape
    if not scale > 0:
        raise ReviewError("All values are equal, so there is nothing to compare.")
    if rows <= columns + 1 or np.linalg.matrix_rank(fixed) < columns:
        raise ReviewError(f"{rows} values are too few for a model of {columns} effects.")


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Which group of each random effect a row is of: (effects, rows) numbers of groups, and how many each has."""

    index: IntArray
    sizes: list[int]

    @classmethod
    def of(cls, random: Mapping[str, Sequence[Hashable]]) -> _Groups:
        parts: list[IntArray] = []
        sizes: list[int] = []
        for members in random.values():
            known = {group: number for number, group in enumerate(dict.fromkeys(members))}
            parts.append(np.array([known[group] for group in members]) + sum(sizes))
            sizes.append(len(known))
        return cls(np.stack(parts), sizes)

    def sums(self, values: FloatArray) -> FloatArray:
        """(groups, ...) sums over the rows of each group."""
        found = np.zeros((sum(self.sizes), *values.shape[1:]))
        for index in self.index:
            np.add.at(found, index, values)
        return found

    def squares(self, weights: FloatArray) -> FloatArray:
        """(groups, groups) summed weights of the rows that are of both groups."""
        size = sum(self.sizes)
        both = (self.index[:, None] * size + self.index[None]).reshape(-1, len(weights))
        flat = np.bincount(both.ravel(), np.tile(weights, len(both)), minlength=size * size)
        return np.asarray(flat.reshape(size, size), np.float64)

    def spread(self, effects: FloatArray) -> FloatArray:
        """(rows,) sum of the effects of a row's groups."""
        return np.asarray(effects[self.index].sum(0), np.float64)


def _minimum(
    function: Callable[[FloatArray], Any], start: FloatArray, least: Sequence[float], slope: bool = False
) -> FloatArray:
    """Where a function is least; its first arguments have a least value, and the others have none."""
    bounds = [*((low, None) for low in least), *([(None, None)] * (len(start) - len(least)))]
    found = optimize.minimize(
        function, start, method="L-BFGS-B", bounds=bounds, jac=slope or None, options={"ftol": 1e-13, "gtol": 1e-7}
    )
    return np.asarray(found.x, np.float64)
