"""Clinical precision, recall and F1 over the observations (Nazarov et al. 2022, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from core.evaluation.f1_interval import MeanOfF1
from core.evaluation.metrics import FREQUENT
from core.evaluation.resampling import FloatArray, StudyStatistics
from core.observations import OBSERVATIONS, LabelState
from core.types import CXRLensError

Uncertain = Literal["negative", "positive"]

FIVE_OBSERVATIONS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The subset that CheXpert's competition scored (Irvin et al. 2019), and many report papers since."""


@dataclass(frozen=True, slots=True)
class ClinicalProtocol:
    """How clinical scores were computed; print it with them.

    Attributes:
        reference_labels: where the references' labels come from, as "CheXbert on the reference findings".
        generated_labels: which labeler read the generated reports.
        uncertain: whether an uncertain mention counts as positive, on both sides.
    """

    reference_labels: str
    generated_labels: str
    uncertain: Uncertain = "negative"

    @property
    def name(self) -> str:
        """Short name for a column or a file."""
        return f"{self.generated_labels}, uncertain {self.uncertain}"

    def describe(self) -> str:
        """Sentences for the foot of a table."""
        counts = "counts" if self.uncertain == "positive" else "does not count"
        return (
            f"Reference labels: {self.reference_labels}. Generated reports: {self.generated_labels}. An uncertain "
            f"mention {counts} as positive; blank and negative do not. Precision, recall and F1 are the means of those "
            "of the observations, so F1 is not the harmonic mean of the other two; an observation that is absent from "
            "references and reports counts as 0. Micro: over all decisions together. At least "
            f"{FREQUENT} positives: over the observations that so many of the scored references have. Five: over "
            f"{', '.join(FIVE_OBSERVATIONS)}. Example: the mean over studies of each study's own score over the "
            "observations, 0 where nothing is positive on either side."
        )


@dataclass(frozen=True, slots=True)
class ClinicalScores:
    """Scores in [0, 1].

    Attributes:
        precision: macro mean over the observations, as ``recall`` and ``f1``; F1 is the mean of the F1 of each, so it
            is not the harmonic mean of the other two.
        recall: see above.
        f1: see above.
        micro_precision: over all decisions together, as ``micro_recall`` and ``micro_f1``.
        micro_recall: see above.
        micro_f1: see above.
        f1_frequent: macro F1 over the observations with at least `FREQUENT` positive references; NaN without any.
        f1_5: macro F1 over :data:`FIVE_OBSERVATIONS`; NaN if not all five are scored.
        micro_f1_5: likewise, over all their decisions together.
        example_f1: mean over the studies of the F1 of each study's observations.
        by_observation: observation -> (precision, recall, F1, references that are positive).
    """

    precision: float
    recall: float
    f1: float
    micro_precision: float
    micro_recall: float
    micro_f1: float
    f1_frequent: float
    f1_5: float
    micro_f1_5: float
    example_f1: float
    by_observation: Mapping[str, tuple[float, float, float, int]]

    @property
    def without_positives(self) -> tuple[str, ...]:
        """Observations that no reference has: their F1 is 0 whatever is written, and pulls the macro mean down."""
        return tuple(name for name, (*_, positive) in self.by_observation.items() if not positive)

    @property
    def frequent(self) -> tuple[str, ...]:
        """Observations that at least `FREQUENT` references have."""
        return tuple(name for name, (*_, positive) in self.by_observation.items() if positive >= FREQUENT)


_SCORES = ("precision", "recall", "f1")
_AVERAGES = tuple(f"{kind}{score}{subset}" for subset in ("", "_5") for kind in ("", "micro_") for score in _SCORES)


def clinical_statistics(
    references: Sequence[Mapping[str, LabelState]],
    generated: Sequence[Mapping[str, LabelState]],
    uncertain: Uncertain = "negative",
    observations: Sequence[str] = OBSERVATIONS,
) -> StudyStatistics:
    """What each study adds to the clinical scores.

    The scores are ``precision``, ``recall``, ``f1`` (macro), each also as ``micro_``, both also over five observations
    (``_5``, NaN if not all five are among ``observations``), ``example_precision`` and so on, ``f1_frequent``, the
    macro mean over the observations with at least `FREQUENT` positive references among these studies (NaN without any;
    a resample keeps the observations), and ``f1[Edema]`` and so on of each observation. All equal scikit-learn's with
    ``zero_division=0``.

    Args:
        references: states by observation name, one mapping a study.
        generated: likewise, in the same order.
        uncertain: whether an uncertain mention counts as positive (paper-notes 6.2: precedents conflict).
        observations: over which to average. One that is absent from both sides counts as F1 0, as in scikit-learn.

    Raises:
        ValueError: not one reference for each generated report, or none at all.
        CXRLensError: a study lacks the state of an observation.
    """
    if len(references) != len(generated) or not generated:
        raise ValueError(f"{len(references)} references for {len(generated)} generated reports.")
    return decision_statistics(
        positives(references, uncertain, observations, "reference"),
        positives(generated, uncertain, observations, "generated report"),
        observations,
    )


def decision_statistics(
    true: npt.NDArray[np.bool_], guessed: npt.NDArray[np.bool_], observations: Sequence[str] = OBSERVATIONS
) -> StudyStatistics:
    """The same of what references and reports have, both (studies, observations)."""
    hits = true & guessed
    example = _precision_recall_f1(hits.sum(1), guessed.sum(1), true.sum(1))
    count = len(observations)
    five = [observations.index(name) for name in FIVE_OBSERVATIONS if name in observations]
    frequent = np.flatnonzero(true.sum(0) >= FREQUENT).tolist()

    def from_sums(sums: FloatArray) -> FloatArray:
        counts = sums[..., : 3 * count].reshape(*sums.shape[:-1], 3, count)
        each = _precision_recall_f1(*np.moveaxis(counts, -2, 0))  # (..., count, 3)
        averages: list[FloatArray] = []
        for columns in (list(range(count)), five):
            micro = _precision_recall_f1(*np.moveaxis(counts[..., columns].sum(-1), -1, 0))
            macro = each[..., columns, :].mean(-2) if columns else micro
            whole = columns is not five or len(five) == len(FIVE_OBSERVATIONS)
            averages += [macro, micro] if whole else [np.full_like(micro, np.nan)] * 2
        examples = sums[..., 3 * count : 3 * count + 3] / sums[..., -1:]
        of_frequent = each[..., frequent, 2].mean(-1) if frequent else np.full(each.shape[:-2], np.nan)
        return np.concatenate([*averages, examples, of_frequent[..., None], each[..., 2]], -1)

    values = np.hstack([hits, guessed, true, example, np.ones((len(true), 1))]).astype(np.float64)
    names = (
        *_AVERAGES,
        *(f"example_{score}" for score in _SCORES),
        "f1_frequent",
        *(f"f1[{name}]" for name in observations),
    )
    means = {
        "f1": list(range(count)),
        "f1_frequent": frequent,
        "f1_5": five if len(five) == len(FIVE_OBSERVATIONS) else [],
    }
    return StudyStatistics(
        names, values, from_sums, {name: MeanOfF1.of(columns, count) for name, columns in means.items() if columns}
    )


def clinical_scores(
    references: Sequence[Mapping[str, LabelState]],
    generated: Sequence[Mapping[str, LabelState]],
    uncertain: Uncertain = "negative",
    observations: Sequence[str] = OBSERVATIONS,
) -> ClinicalScores:
    """Compare the labels of generated reports with those of their references; see :func:`clinical_statistics`."""
    statistics = clinical_statistics(references, generated, uncertain, observations)
    scores = statistics.scores()
    sums = statistics.values.sum(0)
    counts = sums[: 3 * len(observations)].reshape(3, -1)
    each = _precision_recall_f1(*counts).tolist()
    return ClinicalScores(
        **{name: scores[name] for name in ClinicalScores.__dataclass_fields__ if name in scores},
        by_observation={
            name: (precision, recall, f1, int(positive))
            for name, (precision, recall, f1), positive in zip(observations, each, counts[2], strict=True)
        },
    )


def positives(
    studies: Sequence[Mapping[str, LabelState]],
    uncertain: Uncertain = "negative",
    observations: Sequence[str] = OBSERVATIONS,
    what: str = "report",
) -> npt.NDArray[np.bool_]:
    """(studies, observations), True where a state counts as positive.

    Args:
        studies: states by observation name, one mapping a study.
        uncertain: whether an uncertain mention counts as positive.
        observations: the columns.
        what: what the studies' labels are of, for the message.

    Raises:
        CXRLensError: a study lacks the state of an observation.
    """
    counted = {LabelState.POSITIVE} | ({LabelState.UNCERTAIN} if uncertain == "positive" else set())
    try:
        rows = [[states[name] in counted for name in observations] for states in studies]
    except KeyError as error:
        index = next(i for i, states in enumerate(studies) if error.args[0] not in states)
        raise CXRLensError(
            f"The labels of {what} {index} have no state for {error}. Give all observations that are scored: "
            f"{', '.join(observations)}."
        ) from error
    return np.array(rows, dtype=bool).reshape(len(studies), len(observations))


def _precision_recall_f1(hits: FloatArray, guessed: FloatArray, true: FloatArray) -> FloatArray:
    """(...) counts -> (..., 3); 0 where the divisor is 0."""
    tops = np.stack([hits, hits, 2 * hits], -1).astype(np.float64)
    bottoms = np.stack([guessed, true, guessed + true], -1).astype(np.float64)
    return np.divide(tops, bottoms, out=np.zeros_like(tops), where=bottoms > 0)
