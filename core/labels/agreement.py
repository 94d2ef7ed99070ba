"""How far two labelers agree, observation by observation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sklearn.metrics import cohen_kappa_score

from core.observations import OBSERVATIONS, LabelState


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two labelers on the same reports.

    Attributes:
        observation: its name.
        reports: how many both labeled.
        equal: fraction of reports with the same state.
        kappa: Cohen's, over the four states; None where both give all reports one and the same state.
        both: reports that both call positive.
        first_only: reports that only the first calls positive.
        second_only: reports that only the second calls positive.
    """

    observation: str
    reports: int
    equal: float
    kappa: float | None
    both: int
    first_only: int
    second_only: int


def agreement(
    first: Sequence[Mapping[str, LabelState]], second: Sequence[Mapping[str, LabelState]]
) -> tuple[Agreement, ...]:
    """Compare the labels that two labelers give to the same reports.

    Args:
        first: states by observation name, a report each.
        second: likewise, in the same order.

    Returns:
        in the order of `OBSERVATIONS`.

    Raises:
        ValueError: not the same number of reports, or none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} reports cannot be compared")
    return tuple(_compare(name, [row[name] for row in first], [row[name] for row in second]) for name in OBSERVATIONS)


def _compare(name: str, first: Sequence[LabelState], second: Sequence[LabelState]) -> Agreement:
    pairs = list(zip(first, second, strict=True))
    positive = [(a is LabelState.POSITIVE, b is LabelState.POSITIVE) for a, b in pairs]
    kappa = math.nan
    if len({*first, *second}) > 1:
        kappa = float(cohen_kappa_score([str(state) for state in first], [str(state) for state in second]))
    return Agreement(
        observation=name,
        reports=len(pairs),
        equal=sum(a is b for a, b in pairs) / len(pairs),
        kappa=None if math.isnan(kappa) else kappa,
        both=positive.count((True, True)),
        first_only=positive.count((True, False)),
        second_only=positive.count((False, True)),
    )
