"""Borders of one grey around a radiograph: digital padding, a scanner's frame, what a collimator left dark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.types import FloatImage

SAME = 4 / 255
"""Ours: grey levels that noise and JPEG leave a border's pixels apart at most. An Open-i film that was padded, and kept
as JPEG, keeps to it; anatomy has more contrast along a whole side."""
SHARE = 0.995
"""Ours: share of a line's pixels that must be so: a speck of dust is no anatomy."""
LEAST = 0.1
"""Ours: share of the area that must remain; else the image is mostly even, and nothing tells a border from it."""


def trim_borders(image: FloatImage) -> tuple[int, int, int, int]:
    """Find what is left of an image without its borders.

    A border is made of whole rows or columns at an edge, all of the grey of the outermost one. Rows or columns with
    anything in them, a marker too, are kept, and so is all that lies within. The grey of an edge is taken once, so a
    slope from black to white is not eaten line by line. The air around a patient is a border only where its grey is
    as even as that.

    Args:
        image: (H, W), values in [0, 1].

    Returns:
        (top, left, height, width), pixels; all of the image where it has no border, or is even in nearly all of it.
    """
    height, width = image.shape
    top, bottom, left, right = 0, height, 0, width
    grey = [float(np.median(line)) for line in (image[0], image[-1], image[:, 0], image[:, -1])]
    while True:
        before = (top, bottom, left, right)
        while top < bottom and _even(image[top, left:right], grey[0]):
            top += 1
        while top < bottom and _even(image[bottom - 1, left:right], grey[1]):
            bottom -= 1
        if top == bottom:
            return 0, 0, height, width
        while left < right and _even(image[top:bottom, left], grey[2]):
            left += 1
        while left < right and _even(image[top:bottom, right - 1], grey[3]):
            right -= 1
        if (bottom - top) * (right - left) < LEAST * height * width:
            return 0, 0, height, width
        if (top, bottom, left, right) == before:  # without its sides a corner's rows may be even now
            return top, left, bottom - top, right - left


def _even(line: npt.NDArray[np.float32], grey: float) -> bool:
    return bool(np.mean(np.abs(line - grey) <= SAME) >= SHARE)
