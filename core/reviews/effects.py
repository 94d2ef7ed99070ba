"""Tests between systems: mixed models of what readers counted, rated and needed, and preferences by permutation."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Literal

import numpy as np
import pandas as pd

from core.evaluation.resampling import FloatArray, StudyStatistics, compare, holm
from core.reviews.agreement import Estimate
from core.reviews.answers import Results
from core.reviews.long_table import Outcome, OutcomeKind, first_readings, outcomes
from core.reviews.mixed import Contrast, Fit, fit_counts, fit_linear
from core.reviews.rubrics import ReviewError, question_in_words
from core.types import CXRLensError

ANY_READERS, THESE_READERS = "readers like these", "these readers"
FEWEST_READERS = 3
"""From so many on, the difference may differ from reader to reader, and the result holds for readers like these."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One system against another by one quantity.

    Attributes:
        outcome: name of the quantity.
        title: what one value of it is.
        first: a system.
        second: the other.
        scale: "difference" of first less second, or "ratio" of first to second.
        estimate: with its interval, 95 %.
        p: two-sided, of the hypothesis that they are equal.
        p_adjusted: by Holm's method, over all pairs of systems of this quantity.
        degrees: of freedom; NaN where the test has none.
        readings: values that went in.
        readers: how many.
        cases: how many.
        holds_for: readers like these, or these readers alone.
        method: how it was worked out.
    """

    outcome: str
    title: str
    first: str
    second: str
    scale: Literal["difference", "ratio"]
    estimate: Estimate
    p: float
    p_adjusted: float
    degrees: float
    readings: int
    readers: int
    cases: int
    holds_for: str
    method: str


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether a system is shown to be worse by less than a margin.

    Attributes:
        margin: the most that would be accepted, above 0; of a ratio a factor above 1.
        limit: the end of the 95 % interval that is compared with it.
        p: one-sided.
        shown: p is below 0.025, which is the same as the interval keeping clear of the margin.
    """

    margin: float
    limit: float
    p: float
    shown: bool


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A mixed model of one quantity.

    Attributes:
        kind: of the quantity.
        systems: in the order of the fixed effects; each has its own mean. Sittings follow, if there are several.
        fit: the fitted model.
        readers: how many.
        cases: how many.
        holds_for: as in `Difference`.
    """

    kind: OutcomeKind
    systems: tuple[str, ...]
    fit: Fit
    readers: int
    cases: int
    holds_for: str

    def contrast(self, first: str, second: str) -> Contrast:
        """First less second, on the scale of the model."""
        weights = np.zeros(len(self.fit.effects))
        weights[self.systems.index(first)] += 1
        weights[self.systems.index(second)] -= 1
        return self.fit.contrast(weights)


def fit_model(table: pd.DataFrame, kind: OutcomeKind) -> Model:
    """Fit the mixed model of a quantity: systems are fixed, readers and cases are random and crossed.

    A report is a random effect too, as all readers read the same one, and so is a reader's leaning to a system where
    there are `FEWEST_READERS`. An effect that the rows cannot tell from another, or from chance, is left out.
    Sittings are fixed, so that readers who get faster from one to the next make no difference between systems.

    Args:
        table: `long_table.LONG_COLUMNS`, and "sitting" where there are any; times above 0.

    Raises:
        ReviewError: fewer than two cases, or nothing varies.
    """
    readers, cases, systems = (table[name].tolist() for name in ("reader", "case", "system"))
    if len(set(cases)) < 2:
        raise ReviewError("A comparison needs two cases at least: with one, nobody knows what another would show.")
    names = tuple(sorted(set(systems)))
    fixed = np.array([[float(system == name) for name in names] for system in systems])
    if "sitting" in table:
        later = sorted(set(table["sitting"]))[1:]
        effects = np.array([[float(each == sitting) for sitting in later] for each in table["sitting"]])
        fixed = np.column_stack([fixed, effects - effects.mean(0)]) if later else fixed
    random: dict[str, Sequence[Hashable]] = {"case": cases}
    if len(set(readers)) > 1:
        random["reader"] = readers
        random["report"] = list(zip(cases, systems, strict=True))
    if general := len(set(readers)) >= FEWEST_READERS and len(names) > 1:
        random["reader's leaning"] = list(zip(readers, systems, strict=True))
    random = {name: members for name, members in random.items() if 1 < len(set(members)) < len(members)}
    if len(names) == 1:
        random.pop("report", None)  # the same as its case
    if not random:
        raise ReviewError("Every case was read once, by one reader, with one system: there is nothing to compare.")
    values = table["value"].to_numpy(np.float64)
    fitted = (
        fit_counts(values, fixed, random)
        if kind == "count"
        else fit_linear(np.log(values) if kind == "time" else values, fixed, random, below_zero=("reader's leaning",))
    )
    holds_for = ANY_READERS if general else THESE_READERS
    return Model(kind, names, fitted, len(set(readers)), len(set(cases)), holds_for)


def non_inferior(contrast: Contrast, margin: float, *, less_is_better: bool, ratio: bool = False) -> NonInferiority:
    """Test whether the first system of a contrast is worse than the second by less than a margin.

    Args:
        contrast: of the first less the second.
        margin: above 0, in the unit of the quantity; of a ratio a factor above 1, as 1.1 for at most 10 % more.
        less_is_better: as of errors and seconds.
        ratio: the contrast is of logarithms.

    Raises:
        ReviewError: a margin that forbids or allows everything.
    """
    if not (math.isfinite(margin) and margin > (1 if ratio else 0)):
        raise ReviewError(
            "A margin is above 0, and above 1 where it is a factor: it says how much worse is acceptable."
        )
    sign = 1 if less_is_better else -1
    worse = replace(
        contrast,
        value=sign * contrast.value,
        low=min(sign * contrast.low, sign * contrast.high),
        high=max(sign * contrast.low, sign * contrast.high),
    )
    p = worse.below(math.log(margin) if ratio else margin)
    limit = sign * worse.high
    return NonInferiority(margin, math.exp(limit) if ratio else limit, p, p < 0.025)


def model_of(outcome: Outcome) -> Model:
    """Fit the mixed model of a quantity of a session.

    Of a system without any errors there is no ratio to others: means are compared then, by a model of a scale.

    Raises:
        ReviewError: as `fit_model`.
    """
    table, kind = outcome.table, outcome.kind
    if kind == "count" and (table.groupby("system")["value"].sum() == 0).any():
        kind = "scale"
    return fit_model(table, kind)


def non_inferiorities(
    outcome: Outcome, margin: float, *, less_is_better: bool
) -> list[tuple[str, str, NonInferiority]]:
    """Whether each system is shown to be worse than each other one by less than a margin: (it, the other, what).

    Args:
        margin: as in `non_inferior`: a factor for seconds and counts.

    Raises:
        ReviewError: as `fit_model` and `non_inferior`; or a factor is given and there are no ratios.
    """
    model = model_of(outcome)
    ratio = outcome.kind != "scale"
    if ratio and model.kind == "scale":
        raise ReviewError(
            f"A system has none of the {outcome.name} at all, so there is no ratio to compare a margin with."
        )
    return [
        (one, other, non_inferior(model.contrast(one, other), margin, less_is_better=less_is_better, ratio=ratio))
        for one, other in permutations(model.systems, 2)
    ]


def differences(results: Results, *, resamples: int = 1000, seed: int = 0) -> tuple[Difference, ...]:
    """Compare all pairs of systems of a session by all quantities that it has; empty where nothing can be compared."""
    found: list[Difference] = []
    for outcome in outcomes(results):
        found += _compared(outcome)
    return (*found, *_preferred(results, resamples=resamples, seed=seed))


def _compared(outcome: Outcome) -> list[Difference]:
    if outcome.table["system"].nunique() < 2:
        return []
    try:
        model = model_of(outcome)
    except ReviewError:  # nothing varies, or too little was read
        return []
    ratio = model.kind != "scale"
    rows = []
    for first, second in combinations(model.systems, 2):
        contrast = model.contrast(first, second)
        ends = (contrast.value, contrast.low, contrast.high)
        estimate = Estimate(*(math.exp(end) for end in ends)) if ratio else Estimate(*ends)
        rows.append(
            Difference(
                outcome.name,
                outcome.title,
                first,
                second,
                "ratio" if ratio else "difference",
                estimate,
                contrast.p,
                contrast.p,
                contrast.degrees,
                model.fit.rows,
                model.readers,
                model.cases,
                model.holds_for,
                _METHODS[model.kind],
            )
        )
    return _adjusted(rows)


_METHODS = {
    "count": "Poisson mixed model",
    "scale": "linear mixed model",
    "time": "linear mixed model of logarithms",
}


def _preferred(results: Results, *, resamples: int, seed: int) -> list[Difference]:
    """Share of comparisons won, less share lost, of each two systems that were compared; ties count for neither."""
    answers = first_readings(results)
    if results.rubric.mark == "answer":
        kinds = [results.rubric.of_label(asked).kind for asked in answers["asked"]]
        answers = answers[np.array([kind == "preference" for kind in kinds], bool)]
        pairs = answers["model"]
    elif results.rubric.mark == "preference":
        pairs = answers["question"]
    else:
        return []
    answers = answers[np.array([pair.count(" / ") == 1 for pair in pairs], bool)]
    found: list[Difference] = []
    for asked, of_question in answers.groupby("asked", sort=True):
        several = results.rubric.mark == "answer"
        name = question_in_words(results.rubric, str(asked), "").rstrip("?.") + ": " if several else ""
        title = f"{name}share of comparisons won, less share lost"
        found += _won(str(asked), title, of_question, pairs[of_question.index], resamples, seed)
    return found


def _won(
    outcome: str, title: str, answers: pd.DataFrame, pairs: pd.Series, resamples: int, seed: int
) -> list[Difference]:
    """Compare each two systems by one question."""
    rows = []
    for pair, group in answers.groupby(pairs, sort=True):
        first, second = str(pair).split(" / ")
        won, lost = (np.array(group["value"] == name, np.float64) for name in (first, second))
        try:
            found = compare(
                _share(won), _share(lost), subjects=group["study"].tolist(), resamples=resamples, seed=seed
            )["share"]
        except CXRLensError:  # one study
            continue
        rows.append(
            Difference(
                outcome,
                title,
                first,
                second,
                "difference",
                Estimate(found.difference, found.low, found.high),
                found.p_permutation,
                found.p_permutation,
                math.nan,
                len(group),
                group["reader"].nunique(),
                group["study"].nunique(),
                THESE_READERS,
                "permutation of whole studies",
            )
        )
    return _adjusted(rows)


def _share(values: FloatArray) -> StudyStatistics:
    return StudyStatistics(
        ("share",), np.column_stack([values, np.ones(len(values))]), lambda sums: sums[..., :1] / sums[..., 1:]
    )


def _adjusted(rows: list[Difference]) -> list[Difference]:
    adjusted = holm({str(index): row.p for index, row in enumerate(rows)})
    return [replace(row, p_adjusted=adjusted[str(index)]) for index, row in enumerate(rows)]
