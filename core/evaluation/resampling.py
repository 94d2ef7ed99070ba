"""What each study adds to a score, and from that: intervals, paired tests, the mean over seeds.

BLEU, CIDEr, METEOR and macro F1 are functions of sums over studies. Who keeps what each study adds to the sums need not
score a resampled test set anew: a thousand resamples are one matrix product.

``python -m training.bench.intervals`` measures how often the intervals hold the truth, and how often the tests claim a
difference where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy  # its parts are read when they are first used: stats takes half a second

from core.evaluation.f1_interval import MeanOfF1, macro_interval
from core.types import CXRLensError

FloatArray = npt.NDArray[np.float64]

BLOCK_VALUES = 4_000_000
"""Resampling weights held at a time: 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class StudyStatistics:
    """The scores of one system, as functions of sums over its studies.

    Attributes:
        names: of the scores, K of them.
        values: (studies, S), what each study adds to each of S sums.
        from_sums: (..., S) sums -> (..., K) scores.
        means: those of the scores that are means of F1 over observations, and the sums behind them: resampling alone
            gives them no right interval where an observation is rare.
    """

    names: tuple[str, ...]
    values: FloatArray
    from_sums: Callable[[FloatArray], FloatArray]
    means: Mapping[str, MeanOfF1] = field(default_factory=dict)

    def scores(self) -> dict[str, float]:
        """The scores over all studies, by name."""
        return dict(zip(self.names, self.from_sums(self.values.sum(0)).tolist(), strict=True))

    def select(self, *names: str) -> StudyStatistics:
        """Keep only some of the scores.

        Raises:
            KeyError: there is no such score.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise KeyError(f"No score {missing}; there are {', '.join(self.names)}.")
        columns = [self.names.index(name) for name in names]
        means = {name: self.means[name] for name in names if name in self.means}
        return StudyStatistics(names, self.values, lambda sums: self.from_sums(sums)[..., columns], means)

    def by_unit(self, groups: npt.NDArray[np.int64]) -> FloatArray:
        """(units, S): the sums of each unit's studies; ``groups`` (studies,) are the units' numbers."""
        sums = np.zeros((int(groups.max()) + 1, self.values.shape[1]))
        np.add.at(sums, groups, self.values)
        return sums


def join(*parts: StudyStatistics) -> StudyStatistics:
    """All scores of one system in one value.

    Raises:
        ValueError: the parts are of unequal numbers of studies, or two scores have one name.
    """
    names = tuple(name for part in parts for name in part.names)
    if len(set(names)) != len(names):
        raise ValueError(f"Two scores have the same name: {names}.")
    means = {
        name: mean.shifted(start)
        for part, start in zip(parts, _starts(parts), strict=True)
        for name, mean in part.means.items()
    }
    return StudyStatistics(names, *_side_by_side(parts, lambda scores: np.concatenate(scores, -1)), means)


def mean_of_seeds(systems: Sequence[StudyStatistics]) -> StudyStatistics:
    """One system trained from several seeds: each score is the mean of the seeds' scores on the same studies.

    Its intervals are about the studies, given these seeds; :func:`spread` is about the seeds.

    Raises:
        ValueError: no system, or they differ in studies or scores.
    """
    if not systems or any(system.names != systems[0].names for system in systems):
        raise ValueError("The mean over seeds needs at least one system, and the same scores of each.")
    starts = _starts(systems)
    means = {
        name: MeanOfF1.together(
            system.means[name].shifted(start) for system, start in zip(systems, starts, strict=True)
        )
        for name in systems[0].means
    }
    return StudyStatistics(systems[0].names, *_side_by_side(systems, lambda scores: np.mean(scores, 0)), means)


def _starts(parts: Sequence[StudyStatistics]) -> list[int]:
    """The first column of each part's sums, side by side."""
    return np.cumsum([0, *(part.values.shape[1] for part in parts)]).tolist()[:-1]


def _side_by_side(
    parts: Sequence[StudyStatistics], combine: Callable[[list[FloatArray]], FloatArray]
) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
    ends = np.cumsum([0, *(part.values.shape[1] for part in parts)]).tolist()

    def from_sums(sums: FloatArray) -> FloatArray:
        pieces = [sums[..., start:end] for start, end in pairwise(ends)]
        return combine([part.from_sums(piece) for part, piece in zip(parts, pieces, strict=True)])

    return np.hstack([part.values for part in parts]), from_sums


# --- intervals ---


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``."""

    low: float
    high: float


def intervals(
    system: StudyStatistics,
    *,
    subjects: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of all scores of a system: percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

    A mean of F1 over observations has the interval of `f1_interval.macro_interval`. CIDEr keeps the document
    frequencies of the whole test set, which are part of its definition.

    Args:
        system: what its studies add.
        subjects: the patient of each study. If given, patients are drawn, each with all its studies.
        seed: equal seeds draw the same studies for every system.
        level: share of resamples inside.

    Raises:
        CXRLensError: fewer than two studies (patients), or a study whose score is no number.
        ValueError: not one subject for each study.
    """
    _refuse_what_is_no_number(system)
    draws = [system.from_sums(weights @ system.values) for weights in _draws(system, subjects, resamples, seed)]
    low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2], axis=0).tolist()
    found = {name: Interval(*ends) for name, *ends in zip(system.names, low, high, strict=True)}
    if system.means:
        sums = system.by_unit(_groups(system, subjects))
        found |= {name: Interval(*macro_interval(sums, mean, level)) for name, mean in system.means.items()}
    return found


# --- two systems on the same studies ---


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against another on the same studies, by one score.

    Attributes:
        difference: score of the first less score of the second.
        low: lower end of the interval of the difference, see `compare`; NaN where none would be right.
        high: its upper end.
        p_bootstrap: two-sided, how often the resampled difference changes its sign (Koehn 2004).
        p_permutation: two-sided, how often the difference is as large when each study's (patient's) two reports change
            sides by a coin (approximate randomisation, Noreen 1989; Riezler and Maxwell 2005).
    """

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_permutation: float


def compare(
    first: StudyStatistics,
    second: StudyStatistics,
    *,
    subjects: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Comparison]:
    """Paired intervals, bootstrap and permutation tests of all scores of two systems.

    The interval is Student's, with the jackknife's standard error: each study (patient) is left out once (Efron and
    Tibshirani 1993, chapter 11). In simulations it holds the truth more often than bootstrap intervals if F1 is
    averaged over few positives. A mean of F1 over observations that are rarer than `f1_interval.FREQUENT` has no
    interval of its difference: none that was tried holds the truth in 93 to 97 % (docs/metrics.md); its permutation
    test is right.

    Both p-values count the observed outcome as one of the resamples, so none is below 1 / (resamples + 1).

    Args:
        second: another, on the same studies in the same order.
        subjects: as in :func:`intervals`; patients are drawn, and change sides, with all their studies.
        resamples: how often to draw, and how often to permute.
        level: of the interval.

    Raises:
        CXRLensError: fewer than two studies (patients), or a study whose score is no number.
        ValueError: the systems differ in studies or scores, or there is not one subject for each study.
    """
    if first.names != second.names or first.values.shape != second.values.shape:
        raise ValueError("Two systems can be compared only by the same scores on the same studies.")
    for system in (first, second):
        _refuse_what_is_no_number(system)
    observed = first.from_sums(first.values.sum(0)) - second.from_sums(second.values.sum(0))
    sums, total = first.values.sum(0), first.values.sum(0) + second.values.sum(0)
    drawn = (
        first.from_sums(weights @ first.values) - second.from_sums(weights @ second.values)
        for weights in _draws(first, subjects, resamples, seed)
    )
    exchanged = (sums + sides @ (second.values - first.values) for sides in _coins(first, subjects, resamples, seed))
    swapped = (first.from_sums(ours) - second.from_sums(total - ours) for ours in exchanged)
    differences, permuted = np.concatenate(list(drawn)), np.concatenate(list(swapped))
    half = _jackknife(first, second, subjects) * scipy.stats.t.ppf((1 + level) / 2, _units(first, subjects) - 1)
    half[[name in first.means and not first.means[name].frequent(first.values) for name in first.names]] = np.nan
    low, high = observed - half, observed + half
    # Sums in another order may differ in the last digit; what is equal must count as equal.
    slack = 1e-12
    other_side = np.minimum((differences <= slack).sum(0), (differences >= -slack).sum(0))
    p_bootstrap = np.minimum(1, 2 * (1 + other_side) / (resamples + 1))
    p_permutation = (1 + (np.abs(permuted) >= np.abs(observed) - slack).sum(0)) / (resamples + 1)
    p_bootstrap[np.isnan(observed)] = p_permutation[np.isnan(observed)] = 1  # a score that these studies do not have
    columns = (column.tolist() for column in (observed, low, high, p_bootstrap, p_permutation))
    return {name: Comparison(*values) for name, *values in zip(first.names, *columns, strict=True)}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust the p-values of several tests (Holm 1979), in the order given.

    An adjusted value below 0.05 keeps the chance of any false claim among all tests below 5 %.

    Raises:
        ValueError: a value outside 0 to 1.
    """
    if not all(0 <= p <= 1 for p in p_values.values()):
        raise ValueError(f"p-values lie between 0 and 1: {dict(p_values)}.")
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _refuse_what_is_no_number(system: StudyStatistics) -> None:
    bad = np.flatnonzero(~np.isfinite(system.values).all(1))
    if len(bad):
        raise CXRLensError(
            f"Study {bad[0] + 1} of {len(system.values)} has a score that is no number, as {len(bad) - 1} more have: "
            "there is no mean and no interval. Score these reports again."
        )


def _units(system: StudyStatistics, subjects: Sequence[str] | None) -> int:
    return int(_groups(system, subjects).max()) + 1


def _jackknife(first: StudyStatistics, second: StudyStatistics, subjects: Sequence[str] | None) -> FloatArray:
    """(K,) standard error of the difference: each unit is left out once."""
    groups = _groups(first, subjects)
    ours, theirs = first.by_unit(groups), second.by_unit(groups)
    left = first.from_sums(ours.sum(0) - ours) - second.from_sums(theirs.sum(0) - theirs)
    squares: FloatArray = ((left - left.mean(0)) ** 2).sum(0)
    return np.sqrt(squares * (len(left) - 1) / len(left))


def _groups(system: StudyStatistics, subjects: Sequence[str] | None) -> npt.NDArray[np.int64]:
    """(studies,) the number of the unit that each study is drawn with."""
    count = len(system.values)
    if subjects is not None and len(subjects) != count:
        raise ValueError(f"{len(subjects)} subjects for {count} studies.")
    groups = np.arange(count) if subjects is None else np.unique(np.asarray(subjects), return_inverse=True)[1]
    if len(np.unique(groups)) < 2:
        what = "study" if subjects is None else "patient"
        raise CXRLensError(
            f"Intervals and tests need at least two of what is drawn; here is {len(np.unique(groups))} {what}. "
            "Evaluate on more, or without intervals."
        )
    return groups


def _blocks(count: int, resamples: int) -> Iterator[int]:
    most = max(1, BLOCK_VALUES // count)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def _draws(system: StudyStatistics, subjects: Sequence[str] | None, resamples: int, seed: int) -> Iterator[FloatArray]:
    """(rows, studies) how often each study is in each resample, some rows at a time."""
    groups = _groups(system, subjects)
    units = int(groups.max()) + 1
    random = np.random.default_rng([seed, 0])
    for rows in _blocks(len(groups), resamples):
        drawn = random.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        yield times[:, groups].astype(np.float64)


def _coins(system: StudyStatistics, subjects: Sequence[str] | None, resamples: int, seed: int) -> Iterator[FloatArray]:
    """(rows, studies) 1 where a study's two reports change sides, some rows at a time."""
    groups = _groups(system, subjects)
    random = np.random.default_rng([seed, 1])
    for rows in _blocks(len(groups), resamples):
        yield random.integers(2, size=(rows, int(groups.max()) + 1))[:, groups].astype(np.float64)


# --- several seeds ---


@dataclass(frozen=True, slots=True)
class Spread:
    """A score over training seeds.

    Attributes:
        mean: over the seeds.
        sd: standard deviation with n - 1 below; NaN with one seed.
        low: the worst seed's.
        high: the best seed's.
        seeds: how many.
    """

    mean: float
    sd: float
    low: float
    high: float
    seeds: int


def spread(seeds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Mean and spread of each score over the same system trained from several seeds.

    Args:
        seeds: the scores of each seed, by name.

    Raises:
        ValueError: no seed, or not the same scores of each.
    """
    if not seeds or any(scores.keys() != seeds[0].keys() for scores in seeds):
        raise ValueError("A spread needs at least one seed, and the same scores of each.")
    result = {}
    for name in seeds[0]:
        values = np.array([scores[name] for scores in seeds])
        sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        result[name] = Spread(float(values.mean()), sd, float(values.min()), float(values.max()), len(values))
    return result
