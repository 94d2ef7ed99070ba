"""Area under the ROC curve over several classes, with bootstrap intervals on the same draws for several systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from core.types import CXRLensError

Floats = npt.NDArray[np.floating]


def both_kinds(targets: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """(K,) classes of targets (n, K) in {0, 1} that have positives and negatives; the others have no AUC."""
    positives = targets.sum(0)
    return (positives > 0) & (positives < len(targets))


def weighted_aucs(targets: Floats, scores: Floats, weights: Floats) -> Floats:
    """AUC by resample and class.

    Args:
        targets: (n, K) in {0, 1}.
        scores: (n, K); ties count half.
        weights: (R, n), how often each study is in each resample.

    Returns:
        (R, K); NaN where a resample has only one kind of a class.
    """
    result = np.empty((len(weights), targets.shape[1]))
    for k in range(targets.shape[1]):
        values, group = np.unique(scores[:, k], return_inverse=True)
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(values)))
        positive = np.add.reduceat((weights * targets[:, k])[:, order], starts, axis=1)
        negative = np.add.reduceat((weights * (1 - targets[:, k]))[:, order], starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2  # negatives with a lower score, and half of those that tie
        pairs = positive.sum(1) * negative.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[:, k] = (positive * below).sum(1) / pairs
    return result


def resample_weights(subjects: Sequence[str], resamples: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """(1 + R, n): all studies once, then how often each is in each resample, in which patients are drawn.

    Args:
        subjects: (n,) the patient of each study.
        resamples: R.
    """
    groups = np.unique(np.asarray(subjects), return_inverse=True)[1]
    units = int(groups.max()) + 1
    drawn = np.random.default_rng(seed).integers(units, size=(resamples, units))
    times = np.stack([np.bincount(row, minlength=units) for row in drawn])[:, groups]
    return np.vstack([np.ones(len(groups)), times])


def macro_aucs(
    targets: Floats,
    systems: Mapping[str, Floats],
    *,
    subjects: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, npt.NDArray[np.float64]]]:
    """Mean AUC over classes of each system, and its bootstrap draws.

    All systems are drawn alike, so differences of draws are paired. A class that a resample leaves with one kind is
    not in that resample's mean; a resample that leaves none with both is no draw.

    Args:
        targets: (n, K) in {0, 1}; each class has both kinds.
        systems: by name, scores (n, K).
        subjects: (n,) the patient of each study; patients are drawn.
        resamples: R.

    Returns:
        name -> (mean AUC, draws (at most R,)).

    Raises:
        CXRLensError: a class has one kind only, or a score is no number.
    """
    if lacking := np.flatnonzero(~both_kinds(targets)).tolist():
        raise CXRLensError(
            f"Class {', '.join(str(each + 1) for each in lacking)} of {targets.shape[1]} has no positive, or no "
            "negative, study here: it has no AUC. Leave it out, or take more studies."
        )
    for name, scores in systems.items():
        if bad := int((~np.isfinite(scores).all(1)).sum()):
            raise CXRLensError(f"{name} scored {bad} of {len(scores)} studies with what is no number: train it again.")
    weights = resample_weights(subjects, resamples, seed)
    result = {}
    for name, scores in systems.items():
        aucs = weighted_aucs(targets, scores, weights)
        means = np.nanmean(aucs[np.isfinite(aucs).any(1)], axis=1)  # the same resamples for all: targets decide
        result[name] = (float(means[0]), means[1:])
    return result
