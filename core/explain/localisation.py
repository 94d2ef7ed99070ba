"""Whether a map lies where the finding is; on the phantom the true place is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import average_precision_score

from core.types import CXRLensError, Mask

TOLERANCE = 0.03
"""How far outside the mask a hit may lie, share of the side (Zhang et al. 2018: 15 of about 500 pixels)."""


@dataclass(frozen=True, slots=True)
class Localisation:
    """How well a map fits a mask; each in [0, 1], 1 is best.

    Attributes:
        pointing: the highest pixel lies in the mask, or within the tolerance; where several are highest, the share of
            them (Zhang et al. 2018, doi:10.1007/s11263-017-1059-x).
        energy: share of the map inside the mask (Wang et al. 2020, arXiv:1910.01279).
        iou: intersection over union of the mask and the map above the threshold that fits best.
        average_precision: of the pixels, ranked by the map.
    """

    pointing: float
    energy: float
    iou: float
    average_precision: float


def localise(values: npt.NDArray[np.float32], mask: Mask) -> Localisation:
    """Compare a map with the true place.

    Args:
        values: (H, W); what is negative speaks against the target and counts as 0. A map without anything positive
            counts as even: it points nowhere.
        mask: (H, W), True inside.

    Raises:
        CXRLensError: shapes differ, or the mask is empty.
    """
    if values.shape != mask.shape:
        raise CXRLensError(f"The map is {values.shape} and the mask {mask.shape}; bring both to one size.")
    if not mask.any():
        raise CXRLensError("The mask is empty: this finding cannot be seen, so no map can point at it.")
    evidence = values.clip(0).astype(np.float64)
    if evidence.max() <= 0:
        evidence = np.ones_like(evidence)
    near = distance_transform_edt(~mask) <= TOLERANCE * max(mask.shape)
    return Localisation(
        pointing=float(near[evidence == evidence.max()].mean()),
        energy=float(evidence[mask].sum() / evidence.sum()),
        iou=_best_iou(evidence, mask),
        average_precision=float(average_precision_score(mask.ravel(), evidence.ravel())),
    )


def _best_iou(evidence: npt.NDArray[np.float64], mask: Mask) -> float:
    """Highest intersection over union over all thresholds; pixels of equal value go together."""
    order = np.argsort(-evidence, axis=None, kind="stable")
    ranked = evidence.ravel()[order]
    inside = mask.ravel()[order].cumsum()
    chosen = np.arange(1, len(order) + 1)
    last = np.append(ranked[1:] != ranked[:-1], True)  # the last pixel of each value
    return float((inside / (chosen + mask.sum() - inside))[last].max())


def centre_prior(size: int) -> npt.NDArray[np.float32]:
    """A Gaussian in the middle, a quarter of the side wide: what a map is worth that does not look at the image."""
    offset = (np.arange(size) + 0.5) / size - 0.5
    profile = np.exp(-0.5 * (offset / 0.25) ** 2)
    prior: npt.NDArray[np.float32] = np.outer(profile, profile).astype(np.float32)
    return prior
