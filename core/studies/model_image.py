"""The one image of a study that a pair sees: a square of its own size in 256 grey levels, as training kept it.

How an image becomes that square, padded or stretched, is the pair's own: `core.types.Fit`, on its card.

Whatever a page or a command shows, what a model reads comes from here: training, evaluation, reports, explanations,
filters, embeddings. So a study has one report of a pair, wherever it is written.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.studies.images import fit_square
from core.types import PAD, CXRLensError, Fit, FloatImage, Geometry, StudySource


class Pixels(Protocol):
    """The image that is given to a pair."""

    def __call__(self, size: int, fit: Fit = PAD) -> FloatImage:
        """For a pair whose input has this side, fitted in this way: (H, W), values in [0, 1]; fitted already or not."""
        ...


def of_study(source: StudySource, study_id: str) -> Pixels:
    """A study's image: a phantom is drawn at the pair's size, a file of an index is fitted to it."""
    return lambda size, fit=PAD: model_image(source.image(study_id, size, fit), size, fit)[0]


def of_image(image: FloatImage) -> Pixels:
    """An image (H, W) of any shape, as `core.studies.images.read_image` gives it; `model_image` fits it."""
    return lambda size, fit=PAD: image


def model_image(image: FloatImage, size: int, fit: Fit = PAD) -> tuple[FloatImage, Geometry]:
    """Fit an image into the square that a pair reads, in one step from its own size, and round to 8 bits.

    Args:
        image: (H, W), values in [0, 1]. What this function returned comes back unchanged.
        size: side of the pair's input, pixels.
        fit: how the pair's images are fitted.

    Returns:
        the square (size, size), values in [0, 1] in steps of 1/255, and the way back to the image.

    Raises:
        CXRLensError: a value of the image is no number.
    """
    square, geometry = fit_square(image, size, fit=fit)
    if not np.isfinite(square).all():
        raise CXRLensError("The image holds NaN or infinity, and no model can read it. Export it again.")
    return grey_levels(square).astype(np.float32) / np.float32(255), geometry


def grey_levels(image: FloatImage) -> npt.NDArray[np.uint8]:
    """Round values in [0, 1] to 256 grey levels; of any shape."""
    levels: npt.NDArray[np.uint8] = np.round(image * 255).astype(np.uint8)
    return levels
