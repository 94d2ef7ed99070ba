"""An image into a model's square, and a map over the square back onto the image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.studies.images.borders import trim_borders
from core.types import PAD, Fit, FloatImage, Geometry

_BAND = 2**24  # ours: pixels that are padded at a time, 64 MiB
_NARROW = 3  # ours: radiographs are wider; what is narrower is not padded all the way


def fit_square(
    image: FloatImage, size: int, *, pixel_spacing: tuple[float, float] | None = None, fit: Fit = PAD
) -> tuple[FloatImage, Geometry]:
    """Fit an image into a square: trim its borders, stretch it, pad it with black and resize it, as ``fit`` says.

    A triangle filter as wide as the reduction is used: it is antialiased and cannot overshoot [0, 1]. What has the
    square's size already is that square: it comes back as it is.

    Args:
        image: (H, W), values in [0, 1].
        size: side of the result, pixels.
        pixel_spacing: of the image, (row, column) in millimetres; kept in the geometry.
        fit: how.

    Returns:
        the square (size, size) in [0, 1], and the way back for `to_original`.
    """
    height, width = image.shape
    geometry = Geometry(height, width, size, pixel_spacing)
    if (height, width) != (size, size):
        part = trim_borders(image) if fit.trim else (0, 0, height, width)
        geometry = replace(
            geometry,
            part=None if part == geometry.read else part,
            aspect=fit.aspect if fit.how == "stretch" else None,
        )
    return to_square(image, geometry), geometry


def to_square(values: FloatImage, geometry: Geometry) -> FloatImage:
    """Put an image, or a mask over it, into the square in the way that a geometry tells.

    Rows are fitted first, columns then, as Pillow does with a whole square; so the padded image never exists, and no
    shape takes much more memory than its pixels.

    Args:
        values: (H, W) of the geometry, in [0, 1].
        geometry: what `fit_square` returned.

    Returns:
        (size, size) in [0, 1]; what lies outside the part that is read is left out.
    """
    top, left, height, width = geometry.read
    image, (side, across_side), size = (
        values[top : top + height, left : left + width],
        geometry.sides,
        geometry.size,
    )
    across = np.zeros((height, size), np.float32)
    rows = max(1, int(_BAND // across_side))
    for start in range(0, height, rows):
        _fit_rows(image[start : start + rows], across_side, across[start : start + rows])
    # Whole pixels are padded, at least enough; the fractional box makes both margins exactly equal.
    margin = (side - height) / 2
    above = int(np.ceil(margin))
    y = above - margin
    square = _resize(np.pad(across, ((above, above), (0, 0))), (size, size), (0, y, size, y + side))
    return square.clip(0, 1)


def _fit_rows(band: FloatImage, side: float, out: FloatImage) -> None:
    """Pad rows (h, W) to a side and resize them to (h, size); of a narrow band only where it reaches is worked out."""
    height, width = band.shape
    size, scale = out.shape[1], side / out.shape[1]
    margin = (side - width) / 2
    left, first, cut = int(np.ceil(margin)), 0, 0
    x = left - margin
    if width < side / _NARROW:
        reach = max(scale, 1)  # of the filter, to each side of a pixel's middle
        first = max(0, int((margin - reach) / scale - 0.5))
        cut = max(0, int(x + (first + 0.5) * scale - reach) - 1)
    left, x, last = left - cut, x - cut, size - first
    padded = np.zeros((height, width + 2 * left), np.float32)
    padded[:, left : left + width] = band
    box = (x + first * scale, 0, x + last * scale, height)
    out[:, first:last] = _resize(padded, (last - first, height), box)


def to_original(values: npt.NDArray[Any], geometry: Geometry) -> FloatImage:
    """Put a map over the model's square back onto the original image: the inverse of `to_square`.

    Args:
        values: (h, w) finite numbers of any range, a grid that covers the whole square, padding included.
        geometry: what `fit_square` returned.

    Returns:
        (H, W) float32, interpolated between the centres of cells; what lay on the padding is cropped, and what was not
        read of the image is 0.
    """
    h, w = values.shape
    top, left, height, width = geometry.content
    box = (left * w, top * h, min((left + width) * w, w), min((top + height) * h, h))
    first, start, rows, columns = geometry.read
    read = np.array(_resize(values, (columns, rows), box))
    if geometry.part is None:
        return read
    whole = np.zeros((geometry.height, geometry.width), np.float32)
    whole[first : first + rows, start : start + columns] = read
    return whole


def _resize(values: npt.NDArray[Any], size: tuple[int, int], box: tuple[float, float, float, float]) -> FloatImage:
    """Resize a part of an image: size is (width, height), box is (left, top, right, bottom)."""
    height, width = values.shape
    whole = np.ascontiguousarray(values, dtype=np.float32)
    picture = Image.frombuffer("F", (width, height), whole, "raw", "F", 0, 1)  # without a copy, unlike fromarray
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box), dtype=np.float32)
