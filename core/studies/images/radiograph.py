"""What a read image is, and what every format must fulfil."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from core.studies.images.inversion import looks_inverted
from core.types import CXRLensError, FloatImage

MAX_FILE_BYTES = 64 * 2**20  # ours: a 16-bit detector image of 4k x 4k is 32 MiB
MAX_PIXELS = 64_000_000  # ours: the largest detectors have about 18 million
MAX_SAMPLES = 2 * MAX_PIXELS  # ours: numbers of all colours together; keeps memory under 1 GB
MIN_SIDE = 32  # ours: pixels; the coarsest input of a `tiny` model is 64
MAX_ASPECT = 8.0  # ours: a stitched image of a whole leg or spine has up to 4
_UNUSUAL_ASPECT = 2.0  # ours: chest radiographs lie between 0.7 and 1.4
_FEW_LEVELS = 0.26  # ours: of the grey levels; 14-bit values shown as 16 bits use a quarter
_BAND = 2**22  # ours: pixels worked on at a time

ACCEPTED = "a PNG, JPEG or DICOM file"


class ImageError(CXRLensError):
    """An image that cannot be used. The message says what is wrong, where, and what to do; it repeats no tag value."""


@dataclass(frozen=True, slots=True)
class Grey:
    """A file's own grey values, which a window is chosen of: nothing is cut off.

    Attributes:
        levels: (H, W) uint16. A pixel's value in the file's units is ``first + step * level``. What the file calls
            padding has the blackest level.
        first: value of level 0.
        step: of a level, > 0.
        window: (centre, width) of the window that the image is shown with at first, in the file's units.
        inverse: small values are bright (MONOCHROME1).
    """

    levels: npt.NDArray[np.uint16]
    first: float
    step: float
    window: tuple[float, float]
    inverse: bool


@dataclass(frozen=True)
class Radiograph:
    """A decoded image, ready for `fit_square`.

    Attributes:
        pixels: (H, W) float32 in [0, 1], bright = dense (MONOCHROME2).
        pixel_spacing: (row, column) distance of pixel centres in millimetres, if the file tells it.
        bits: grey levels are 2 to this power.
        format: "PNG", "JPEG" or "DICOM".
        warnings: sentences for the reader; empty if all is well.
        view: "PA", "AP" or "LATERAL" if the file says so, otherwise "".
        grey: the file's own values; None where ``pixels`` are all there is, as of a PNG or JPEG file, or where the file
            maps them by a curve.
        study: what the images of one study have in common, a hash of what their files call it; "" if they do not.
    """

    pixels: FloatImage
    pixel_spacing: tuple[float, float] | None
    bits: int
    format: str
    warnings: tuple[str, ...]
    view: str
    grey: Grey | None = None
    study: str = ""

    @cached_property
    def sha256(self) -> str:
        """Hash of the decoded pixels and their shape: the same picture in two formats has one.

        Worked out when it is first asked for: of a large film it takes a quarter of the time that reading takes.
        """
        height, width = self.pixels.shape
        digest = hashlib.sha256(f"{height}x{width}:".encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()


def finish(
    pixels: FloatImage,
    name: str,
    *,
    bits: int,
    kind: str,
    notes: Sequence[str],
    pixel_spacing: tuple[float, float] | None = None,
    view: str = "",
    grey: Grey | None = None,
) -> Radiograph:
    """Check what all formats must fulfil.

    Raises:
        ImageError: all pixels are equal.
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not low < high:  # also true of NaN
        raise ImageError(f"{name}: all pixels have the same value, there is nothing to see. Export the image again.")
    notes = list(notes)
    height, width = pixels.shape
    if max(height, width) > _UNUSUAL_ASPECT * min(height, width):
        notes.append(f"The image is {width} x {height} pixels: an unusual shape for a chest radiograph.")
    if high - low < _FEW_LEVELS:
        notes.append(f"The image uses only {high - low:.1%} of its grey levels; it may be too dark or too pale.")
    if looks_inverted(pixels):
        notes.append(
            "The picture looks inverted (lungs bright, bones dark) or turned. "
            "The models expect dark lungs in an upright picture: check it."
        )
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    pixels.flags.writeable = False  # the hash must stay true
    return Radiograph(pixels, pixel_spacing, bits, kind, tuple(dict.fromkeys(notes)), view, grey)


def check_size(name: str, width: int, height: int, *, frames: int = 1, samples: int = 1) -> None:
    """Refuse sizes before anything is decoded.

    Args:
        name: how messages call the image.
        width: columns.
        height: rows.
        frames: pictures in the file.
        samples: numbers that a decoder makes for each pixel.

    Raises:
        ImageError: too large, too small, or a shape that no radiograph has.
    """
    if width * height * frames > MAX_PIXELS or width * height * samples > MAX_SAMPLES:
        of_frames = f" in {frames} frames" if frames > 1 else ""
        in_colours = f" of {samples} colours" if samples > 1 else ""
        limit = MAX_PIXELS if samples == 1 else MAX_SAMPLES // samples
        raise ImageError(
            f"{name}: the file announces {width} x {height} pixels{of_frames}{in_colours}, the limit is "
            f"{min(limit, MAX_PIXELS) // 1_000_000} million. Make the image smaller and try again."
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name}: the image has only {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed. "
            "Choose the full image, not a thumbnail."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{name}: the image is {width} x {height} pixels, more than {MAX_ASPECT:.0f} times as long as wide: "
            "no radiograph has this shape. Choose the full image, not a strip of it."
        )


def unit(values: npt.NDArray[Any], low: float, high: float) -> FloatImage:
    """Map [low, high] to [0, 1] and clip."""
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    return scaled.clip(0, 1, out=scaled)


def row_bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of an image (H, W, ...) by bands of a few million pixels, each of a multiple of four rows."""
    height, width = shape[:2]
    rows = max(4, _BAND // max(width, 1) // 4 * 4)
    return (slice(start, min(start + rows, height)) for start in range(0, height, rows))
