"""Clinical precision, recall and F1 over the observations (Nazarov et al. 2022, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.labels.observations import OBSERVATIONS, LabelState

Uncertain = Literal["negative", "positive"]


@dataclass(frozen=True, slots=True)
class ClinicalScores:
    """Scores in [0, 1].

    Attributes:
        precision: macro mean over the observations, as ``recall`` and ``f1``; F1 is the mean of the F1 of each, so it
            is not the harmonic mean of the other two.
        recall: see above.
        f1: see above.
        micro_f1: over all decisions together.
        by_observation: observation -> (precision, recall, F1, references that are positive).
    """

    precision: float
    recall: float
    f1: float
    micro_f1: float
    by_observation: Mapping[str, tuple[float, float, float, int]]


def clinical_scores(
    references: Sequence[Mapping[str, LabelState]],
    generated: Sequence[Mapping[str, LabelState]],
    uncertain: Uncertain = "negative",
    observations: Sequence[str] = OBSERVATIONS,
) -> ClinicalScores:
    """Compare the labels of generated reports with those of their references.

    Args:
        references: states by observation name, one mapping a study.
        generated: likewise, in the same order.
        uncertain: whether an uncertain mention counts as positive (paper-spec 6.2: precedents conflict).
        observations: over which to average. One that is absent from both sides counts as F1 0, as in scikit-learn.

    Raises:
        ValueError: not one reference for each generated report.
    """
    if len(references) != len(generated):
        raise ValueError(f"{len(references)} references for {len(generated)} generated reports.")
    counted = {LabelState.POSITIVE} | ({LabelState.UNCERTAIN} if uncertain == "positive" else set())
    by_observation: dict[str, tuple[float, float, float, int]] = {}
    totals = [0, 0, 0]
    for name in observations:
        truth = [states[name] in counted for states in references]
        guess = [states[name] in counted for states in generated]
        hits = sum(t and g for t, g in zip(truth, guess, strict=True))
        by_observation[name] = (*_precision_recall_f1(hits, sum(guess), sum(truth)), sum(truth))
        totals = [total + value for total, value in zip(totals, (hits, sum(guess), sum(truth)), strict=True)]
    columns = list(zip(*by_observation.values(), strict=True))
    precision, recall, f1 = (sum(column) / len(column) for column in columns[:3])
    return ClinicalScores(precision, recall, f1, _precision_recall_f1(*totals)[2], by_observation)


def _precision_recall_f1(hits: int, guessed: int, true: int) -> tuple[float, float, float]:
    precision = hits / guessed if guessed else 0.0
    recall = hits / true if true else 0.0
    return precision, recall, 2 * hits / (guessed + true) if guessed + true else 0.0
