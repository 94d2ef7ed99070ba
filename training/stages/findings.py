"""The linear reading of tokens that decoders read first: tokens and labels in, a filled `FindingsFirst` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from core.decoders.findings import NEVER, FindingsFirst
from core.encoders.token_cache import TokenCache
from core.observations import OBSERVATIONS
from core.types import Split
from training.data import StudyData
from training.stages.clip import LEARNING
from training.stages.run import Run

FINDINGS = "findings.json"
"""Beside a decoder's weights: what its reading finds, and how well."""
FEWEST = 10
"""Training studies that must have an observation: with fewer, no threshold can be told."""
FOLDS = 5
WORTH_SAYING = 0.2
"""F1 from which reports may say an observation because it was found; ours, chosen on validation."""
STUDIES = 128
"""Whose tokens are in memory at once."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Reading:
    """A linear reading of the mean token.

    Attributes:
        weight: (14, D).
        bias: (14,), less the threshold: an observation is found where the logit is not below 0.
        found: by observation, "studies" of the training split that have it, and the "f1" at its threshold, 0 to 1; 0
            where it is never found.
    """

    weight: Floats
    bias: Floats
    found: dict[str, dict[str, float]]

    def logits(self, tokens: Floats) -> Floats:
        """(studies, 14) of mean tokens (studies, D)."""
        return tokens @ self.weight.T + self.bias


def fit_findings(run: Run, head: FindingsFirst, caches: Mapping[Split, TokenCache]) -> Reading:
    """Fill what a decoder reads first with a reading of the tokens of the training and validation splits."""
    tokens = {split: _mean_tokens(cache) for split, cache in caches.items()}
    reading = fitted(run.data, tokens, run.config.report.findings_penalty, run.config.seed)
    head.set(torch.tensor(reading.weight), torch.tensor(reading.bias), float(tokens["train"].std(0).mean()))
    return reading


def fitted(data: StudyData, tokens: Mapping[Split, Floats], penalty: float, seed: int) -> Reading:
    """Logistic regressions on the training split, thresholds by F1.

    The threshold of an observation has the highest F1 over the training studies, each read by a regression that
    learned from other patients, and the validation studies together.

    Args:
        data: labels and patients.
        tokens: mean tokens (studies, D) of "train" and "validate".
        penalty: of the weights of standardised tokens, the inverse of scikit-learn's C.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    truth = {split: data.coarse_targets(split).numpy().astype(np.int64) for split in LEARNING}
    patients = np.unique([study.subject_id for study in data.studies["train"]], return_inverse=True)[1]
    mean, spread = tokens["train"].mean(0), tokens["train"].std(0)
    spread[spread == 0] = 1.0
    train, validate = ((tokens[split] - mean) / spread for split in LEARNING)
    # As frequent in every fold, or the regressions' intercepts would differ by more than what they see.
    folding = StratifiedGroupKFold(max(2, min(FOLDS, patients.max() + 1)), shuffle=True, random_state=seed)
    regression = LogisticRegression(C=1 / penalty, max_iter=1000)
    weight, bias = np.zeros((len(OBSERVATIONS), len(mean))), np.full(len(OBSERVATIONS), NEVER)
    found = {}
    for index, name in enumerate(OBSERVATIONS):
        has, f1 = truth["train"][:, index], 0.0
        folds = list(folding.split(train, has, patients)) if has.sum() >= FEWEST else []
        if folds and all(0 < has[seen].sum() < len(seen) for seen, _ in folds):
            logits = np.zeros(len(has))
            for seen, others in folds:
                logits[others] = regression.fit(train[seen], has[seen]).decision_function(train[others])
            regression.fit(train, has)
            logits = np.concatenate([logits, regression.decision_function(validate)])
            threshold, f1 = _best_threshold(np.concatenate([has, truth["validate"][:, index]]), logits)
            weight[index] = regression.coef_[0] / spread
            bias[index] = regression.intercept_[0] - weight[index] @ mean - threshold
        found[name] = {"studies": int(has.sum()), "f1": round(f1, 4)}
    return Reading(weight, bias, found)


def worth_saying(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The observations of `Reading.found` that are found well enough for reports to say them."""
    return [name for name, each in found.items() if each["f1"] >= WORTH_SAYING]


def _best_threshold(has: Integers, logits: Floats) -> tuple[float, float]:
    """The threshold of the highest F1, and that F1; it lies between two studies, so that none is on it."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(has, logits)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1[:-1].argmax())
    below = logits[logits < thresholds[best]]
    return float((thresholds[best] + below.max(initial=logits.min() - 1)) / 2), float(f1[best])


def _mean_tokens(cache: TokenCache) -> Floats:
    """(studies, D)."""
    parts = [range(start, min(start + STUDIES, len(cache))) for start in range(0, len(cache), STUDIES)]
    return np.concatenate([cache.tokens(list(part)).double().mean(1).numpy() for part in parts])
