"""Which sentences of a report to mark as reliable, so that few of those marked are wrong: a limit with a guarantee.

A sentence has scores, a rule makes one number of them, and marks the sentences above a limit. Of the patients of a
validation split, a fifth decides how scores are combined and which limits come into question; the others test these.
The share of wrong ones among marked sentences does not fall evenly as the limit rises, so conformal risk control
(Angelopoulos et al. 2022, arXiv:2208.02814), whose risk has to, does not apply; nor is the question that of Mohri and
Hashimoto (2024, arXiv:2402.10978), whether a whole report is left without any wrong sentence. We use Learn then Test
(Angelopoulos et al. 2021, arXiv:2110.01052), with tests in a fixed order. The sentences of a patient are not
independent of each other, so a binomial bound over sentences would be too sure of itself: each test is a bet, a patient
a round (Waudby-Smith and Ramdas 2024, arXiv:2010.09686), which holds for any dependence among a patient's sentences.

What is held is the mean, over patients with marked sentences, of the share of these that are wrong: each patient counts
alike, whatever the number of films and sentences.

Sentences that state a finding as present, and those that state absences alone, have limits of their own: the many
absences, mostly right, would else pay for wrong findings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from core.types import CXRLensError

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SCORES = ("likelihood", "fall", "distance", "agreement")
"""Of a sentence: mean log-probability of its words; how far that falls with other films in place; how unlike the
training films the film is (`core.gate`), 1 is where the warning begins; share of other systems that say the same."""
_DIRECTIONS = {"likelihood": 1.0, "fall": 1.0, "distance": -1.0, "agreement": 1.0}
"""Which way each speaks for a sentence; used where all or none of the sentences that teach are wrong."""
FITTED = 0.2
"""Ours: share of the patients who decide how scores are combined and which limits are tested."""
LIMITS = 24
"""Ours: limits that come into question, from one that marks all to one that marks few."""
FEWEST_PATIENTS = 12
"""Ours: patients whose sentences have all scores; of fewer nothing is learned."""
EXPECTED = 1 / 5
"""Ours: bets are the best ones where so much of alpha is wrong in truth; the guarantee does not depend on it."""
_FOLDS = 5
"""Ours: parts of the patients who teach; limits are chosen by sentences whose patient did not teach their values."""
_MOST = 0.8
"""Ours: share of the most evidence that is promised, from which on a limit may be the first that is tested."""


class Kind(StrEnum):
    """What a sentence states."""

    PRESENT = "present"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Judged:
    """n sentences of which it is known whether they are wrong.

    Attributes:
        patients: (n,), of each sentence, as a text or number.
        films: (n,), likewise.
        kinds: (n,), values of `Kind`.
        scores: (n, K), K as `SCORES`; NaN where one is not known.
        wrong: (n,), whether it contradicts what is known of the film.
    """

    patients: npt.NDArray[Any]
    films: npt.NDArray[Any]
    kinds: npt.NDArray[Any]
    scores: Values
    wrong: Flags

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        count = len(self.wrong)
        lengths = {len(each) for each in (self.patients, self.films, self.kinds, self.scores)}
        if lengths != {count} or self.scores.shape != (count, len(SCORES)):
            raise ValueError(f"{count} sentences, but {self.scores.shape} scores and parts of {lengths} sentences")

    def of(self, chosen: Flags) -> Judged:
        """Some of them."""
        patients, films, kinds = (each[chosen] for each in (self.patients, self.films, self.kinds))
        return Judged(patients, films, kinds, self.scores[chosen], self.wrong[chosen])

    def of_patients(self, patients: npt.NDArray[Any]) -> Judged:
        """Those of some patients."""
        return self.of(np.isin(self.patients, patients))


@dataclass(frozen=True, slots=True)
class Limit:
    """When sentences of one kind are marked, and what that rests on.

    Attributes:
        centre: of each score, its mean.
        scale: its standard deviation.
        weights: of each, divided by its scale.
        offset: added to their sum.
        least: value from which on a sentence is marked; infinite where none is.
        films: of the patients who tested it.
        sentences: of these films, of this kind.
        marked: of them.
        wrong: of those marked.
        evidence: natural logarithm of what the bet came to; it had to reach log(1 / level).
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    offset: float
    least: float = math.inf
    films: int = 0
    sentences: int = 0
    marked: int = 0
    wrong: int = 0
    evidence: float = -math.inf

    def values(self, scores: Values) -> Values:
        """One number for each sentence, the higher the likelier right: (n,) of scores (n, K); -inf where one is NaN."""
        found: Values = ((scores - np.array(self.centre)) / np.array(self.scale)) @ np.array(self.weights) + self.offset
        return np.where(np.isfinite(found), found, -np.inf)

    def marks(self, scores: Values) -> Flags:
        """Which sentences, all of this kind, are marked: (n,) of scores (n, K)."""
        return _from(self.values(scores), self.least)


@dataclass(frozen=True, slots=True)
class Rule:
    """How sentences of a pair are marked, with some of the scores.

    Attributes:
        scores: names of those it needs, in the order of its limits' numbers.
        alpha: share of wrong ones among marked sentences, at most.
        confidence: probability that this holds, over the patients that the limits were tested with.
        limits: of each kind.
    """

    scores: tuple[str, ...]
    alpha: float
    confidence: float
    limits: Mapping[Kind, Limit]

    @property
    def marks_some(self) -> bool:
        """Whether it can mark any sentence: a limit of at least one kind was shown to hold."""
        return any(math.isfinite(limit.least) for limit in self.limits.values())

    def marks(self, kinds: Sequence[Kind | None], scores: Mapping[str, Sequence[float]]) -> list[bool]:
        """Which sentences of one film are marked; those that state nothing (None) never are.

        Args:
            kinds: n.
            scores: by name, n each.
        """
        table = np.array([scores[name] for name in self.scores], dtype=np.float64).reshape(len(self.scores), -1).T
        found = np.zeros(len(kinds), dtype=np.bool_)
        for kind, limit in self.limits.items():
            own = np.array([each is kind for each in kinds], dtype=np.bool_)
            if own.any():
                found[own] = limit.marks(table[own])
        return [bool(each) for each in found]

    def marks_of(self, judged: Judged) -> Flags:
        """Which sentences of many films are marked, (n,)."""
        found = np.zeros(len(judged.wrong), dtype=np.bool_)
        for kind, limit in self.limits.items():
            own = judged.kinds == kind
            found[own] = limit.marks(_table(judged, self.scores)[own])
        return found

    def values_of(self, judged: Judged) -> Values:
        """One number a sentence, (n,), by which sentences of both kinds are ordered."""
        found = np.full(len(judged.wrong), -np.inf)
        for kind, limit in self.limits.items():
            own = judged.kinds == kind
            found[own] = limit.values(_table(judged, self.scores)[own])
        return found


# ---------------------------------------------------------------------------------------------------------- calibration


def calibrate(
    judged: Judged, scores: Sequence[str], *, alpha: float = 0.1, confidence: float = 0.9, seed: int = 0
) -> Rule:
    """Learn when to mark a sentence.

    With probability ``confidence`` over the patients, at most ``alpha`` of the marked sentences of either kind are
    wrong, each patient counted alike. A kind for which no limit shows that stays without marks.

    Args:
        judged: sentences of validation films, none of which the pair learned from.
        scores: names of those to use.
        alpha: between 0 and 1.
        confidence: between 0 and 1.
        seed: of the division of patients.

    Raises:
        CXRLensError: no such score, numbers out of range, or too few sentences that have all the scores.
    """
    _check(scores, alpha, confidence)
    usable = judged.of(np.all(np.isfinite(_table(judged, scores)), axis=1))
    patients = np.unique(usable.patients)
    if len(patients) < FEWEST_PATIENTS:
        raise CXRLensError(
            f"{len(usable.wrong)} validation sentences of {len(patients)} patients state an observation and have the "
            f"scores {', '.join(scores)}: too few to say which to trust; {FEWEST_PATIENTS} patients are needed at "
            "least. Take more studies, and see that the bundles have their gate (cxr-lens gate)."
        )
    order = np.random.default_rng(seed).permutation(patients)
    cut = round(FITTED * len(order))
    teach, test = usable.of_patients(order[:cut]), usable.of_patients(order[cut:])
    parts = {kind: (teach.of(teach.kinds == kind), test.of(test.kinds == kind)) for kind in Kind}

    def tested(kind: Kind, level: float) -> tuple[Limit, bool]:
        return _limit(*parts[kind], scores, alpha, level)

    risk = 1 - confidence
    limits = {kind: tested(kind, risk / len(Kind)) for kind in Kind}
    # A kind whose limits have all passed hands its half of the risk on (Bretz et al. 2009, doi:10.1002/sim.3495).
    passed = [kind for kind, (_, all_passed) in limits.items() if all_passed]
    limits |= {kind: tested(kind, risk) for kind in Kind if len(passed) == 1 and kind not in passed}
    return Rule(tuple(scores), alpha, confidence, {kind: limit for kind, (limit, _) in limits.items()})


def _check(scores: Sequence[str], alpha: float, confidence: float) -> None:
    if unknown := [name for name in scores if name not in SCORES]:
        raise CXRLensError(f"There is no score '{unknown[0]}' of a sentence. There are: {', '.join(SCORES)}.")
    if not scores:
        raise CXRLensError(f"Which scores of a sentence? There are: {', '.join(SCORES)}.")
    for name, value in (("alpha", alpha), ("confidence", confidence)):
        if not 0 < value < 1:
            raise CXRLensError(f"{name} lies between 0 and 1, both excluded, not at {value:g}.")


def _limit(teach: Judged, test: Judged, scores: Sequence[str], alpha: float, level: float) -> tuple[Limit, bool]:
    """The lowest limit of one kind that passes its test, after all that were tested before it; whether all passed."""
    fitted = _combine(_table(teach, scores), teach.wrong, scores)
    fitted = replace(fitted, films=len(np.unique(test.films)), sentences=len(test.wrong))
    if not len(teach.wrong) or not len(test.wrong):
        return fitted, False
    needed, found, values = -math.log(level), fitted, fitted.values(_table(test, scores))
    limits = _limits(teach, _held_out_values(teach, scores), alpha)
    for least in limits:  # the test films do not decide their order: no correction for several tests is due
        chosen = _from(values, least)
        evidence = _evidence(test, chosen, alpha)
        if evidence < needed:
            return found, False
        marked, wrong = int(chosen.sum()), int(test.wrong[chosen].sum())
        found = replace(fitted, least=least, marked=marked, wrong=wrong, evidence=evidence)
    return found, bool(limits)


def _combine(scores: Values, wrong: Flags, names: Sequence[str]) -> Limit:
    """A logistic regression of right on scores; all alike in their usual direction where it has nothing to learn."""
    if not len(wrong):
        return Limit((0.0,) * len(names), (1.0,) * len(names), (0.0,) * len(names), 0.0)
    centre, spread = scores.mean(0), scores.std(0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    weights, offset = [_DIRECTIONS[name] for name in names], 0.0
    if wrong.any() and not wrong.all():
        from sklearn.linear_model import LogisticRegression

        learned = LogisticRegression().fit((scores - centre) / scale, ~wrong)
        weights, offset = learned.coef_[0].tolist(), float(learned.intercept_[0])
    return Limit(tuple(centre.tolist()), tuple(scale.tolist()), tuple(weights), offset)


def _held_out_values(teach: Judged, scores: Sequence[str]) -> Values:
    """Values of sentences, (n,), each by a regression that did not see its patient's."""
    found, fold = np.empty(len(teach.wrong)), numbers(teach.patients) % _FOLDS
    table = _table(teach, scores)
    for own in (fold == each for each in range(_FOLDS)):
        found[own] = _combine(table[~own], teach.wrong[~own], scores).values(table[own])
    return found


def _limits(teach: Judged, values: Values, alpha: float) -> list[float]:
    """Limits to test, one after another, from high to low.

    The first is the highest that promises most of the evidence that any of them does, by those who teach.
    """
    ordered = np.sort(values)[::-1]
    places = [math.ceil(len(ordered) * place / LIMITS) - 1 for place in range(1, LIMITS + 1)]
    limits = sorted({float(each) for each in ordered[places] if math.isfinite(each)}, reverse=True)
    promised = [_evidence(teach, _from(values, each), alpha) for each in limits]
    first = next((place for place, each in enumerate(promised) if each >= _MOST * max(promised)), len(limits))
    return limits[first:]


def _stake(alpha: float) -> float:
    """Share of all there is that is bet: Kelly's for one sentence a patient, of which `EXPECTED` * alpha are wrong."""
    return (1 - EXPECTED) / (1 - alpha)


def _evidence(judged: Judged, chosen: Flags, alpha: float) -> float:
    """Natural logarithm of what comes of 1 that is bet on at most alpha of the chosen sentences being wrong.

    Each patient is a round, which multiplies what there is by 1 - stake * excess; the stake is below 1 / (1 - alpha),
    so that no round loses all. If in truth alpha or more are wrong, no round wins on average, and by Markov's
    inequality 1 / level is reached with a probability of at most level.
    """
    return float(np.log1p(-_stake(alpha) * _excess(judged, chosen, alpha)).sum())


def _excess(judged: Judged, chosen: Flags, alpha: float) -> Values:
    """Of each patient, the share of wrong ones among marked sentences less alpha; 0 of one without any."""
    shares, marked = wrong_by_patient(judged, chosen)
    return np.where(marked, shares - alpha, 0.0)


def wrong_by_patient(judged: Judged, chosen: Flags) -> tuple[Values, Flags]:
    """Of each patient, the share of wrong ones among chosen sentences, 0 where none is chosen; and whether one is."""
    patients = numbers(judged.patients)
    counts = np.bincount(patients, chosen)
    shares: Values = np.bincount(patients, chosen & judged.wrong) / np.maximum(counts, 1)
    return shares, counts > 0


def _from(values: Values, least: float) -> Flags:
    found: Flags = (values >= least) & np.isfinite(values)
    return found


def numbers(names: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Names as numbers from 0."""
    found: npt.NDArray[np.int64] = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return found


def _table(judged: Judged, names: Sequence[str]) -> Values:
    """Some of the scores, (n, names)."""
    found: Values = judged.scores[:, [SCORES.index(name) for name in names]]
    return found
