"""Whether a picture looks like a chest radiograph seen in the negative.

The picture, made 8 x 8, is compared with the mean of chest radiographs. Measured by
``python -m tests.images.inversion`` on Open-i and NIH ChestX-ray14: ``docs/images.md``.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from core.types import FloatImage

# Mean of NIH's 2,462 frontal images in the development set, each of mean 0 and length 1, left and right averaged.
_HALF = [
    [-9, -8, -5, 0],
    [-2, -1, -3, -1],
    [1, 0, -4, -1],
    [0, 0, -4, 1],
    [-1, 0, -1, 4],
    [-3, 1, 2, 5],
    [-4, 3, 6, 7],
    [-4, 4, 7, 8],
]
_MEAN_CHEST = np.hstack([_HALF, np.fliplr(_HALF)])
_INVERTED = -0.1  # ours: correlation; upright frontal images have 0.8 in the middle, lateral ones 0.4


def likeness(pixels: FloatImage) -> float:
    """Correlation, -1 to 1, of an image (H, W) with the mean chest radiograph; 0 where the image is flat."""
    height, width = pixels.shape
    step = max(1, min(height, width) // 256)  # enough for means over an eighth
    small = np.ascontiguousarray(pixels[::step, ::step], dtype=np.float32)
    cells = np.asarray(Image.fromarray(small).resize((8, 8), Image.Resampling.BOX), dtype=np.float64)
    if cells.std() < 1e-3:
        return 0.0
    return float(np.corrcoef(cells.ravel(), _MEAN_CHEST.ravel())[0, 1])


def looks_inverted(pixels: FloatImage) -> bool:
    """Whether an image (H, W) looks like the negative of a chest radiograph, or upside down."""
    return likeness(pixels) < _INVERTED
