"""PNG and JPEG files, and how colours become gray."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.studies.images import jpeg, png
from core.studies.images.orientation import EXIF, XMP, upright
from core.studies.images.png import DamagedPictureError
from core.studies.images.radiograph import ImageError, Radiograph, check_size, finish, row_bands, unit
from core.types import FloatImage

_COLOUR_SHARE = 0.1  # ours: share of clearly coloured pixels that a radiograph with a coloured mark does not reach
_CHROMA = 40  # ours: of 255, above the colour noise of JPEG
_HALF_USED = 14  # ours: bits; 16-bit files hold the values of detectors of 10 to 14 bits as they are


def read_png(data: bytes, name: str) -> Radiograph:
    """Read a PNG file.

    Raises:
        ImageError: it is damaged, cut off, too large, too small or blank.
    """
    notes: list[str] = []
    try:
        parsed = png.parse_png(data)
        check_size(name, parsed.width, parsed.height, samples=parsed.samples)
        png.check_pixels(parsed)
        picture = _decoded(parsed.data)
    except DamagedPictureError as error:
        raise damaged(name, error) from error
    if parsed.pictures > 1:
        notes.append("The file has several pictures; only the first is read.")
    if parsed.depth == 16 and parsed.samples > 1:
        notes.append("The picture is in 16-bit colours or has a mask; 8 of its 16 bits are read.")
    picture = upright(picture, parsed.turning, notes)
    if picture.mode.startswith("I"):  # 16-bit gray; Pillow keeps the file's values
        values = np.asarray(picture)
        used = max(int(values.max()).bit_length(), 8)
        bits = used if used <= _HALF_USED else 16
        if bits < 16:
            notes.append(
                f"The file uses only the grey levels of {bits} of its 16 bits; they are spread over all levels."
            )
        return finish(unit(values, 0, 2**bits - 1), name, bits=bits, kind="PNG", notes=notes)
    bits = 1 if picture.mode == "1" else 8
    return finish(grayscale(picture, notes), name, bits=bits, kind="PNG", notes=notes)


def read_jpeg(data: bytes, name: str) -> Radiograph:
    """Read a JPEG file.

    Raises:
        ImageError: it is damaged, cut off, too large, too small, blank, or of a kind that is not read.
    """
    notes: list[str] = []
    try:
        parsed = jpeg.parse_jpeg(data)
        if parsed.process not in (*jpeg.SEQUENTIAL, *jpeg.PROGRESSIVE) or parsed.precision != 8:
            raise DamagedPictureError(
                "is a JPEG of a kind that is read in DICOM files only (lossless, or of more than 8 bits)"
            )
        check_size(name, parsed.width, parsed.height, samples=len(parsed.components))
        turning = [body for body in jpeg.bodies(parsed, 0xE1) if body.startswith((EXIF, XMP))][:4]
        if any(body.startswith(b"MPF\0") for body in jpeg.bodies(parsed, 0xE2)):
            notes.append("The file has several pictures; only the first is read.")
        parsed = jpeg.bare(parsed)
        jpeg.check_scans(parsed)
        stream = jpeg.repaired(parsed)
        picture = _decoded(stream)
        if jpeg.may_be_cut(parsed, _last_block(picture)):
            again = _decoded(jpeg.continued(parsed, stream))
            if not _same(picture, again):
                raise DamagedPictureError("is cut off: it has fewer rows than its header says")
    except DamagedPictureError as error:
        raise damaged(name, error) from error
    return finish(grayscale(upright(picture, turning, notes), notes), name, bits=8, kind="JPEG", notes=notes)


def damaged(name: str, error: Exception) -> ImageError:
    """Say what is wrong with a picture."""
    return ImageError(f"{name}: the picture {error}. Copy or export it again.")


def grayscale(picture: Image.Image, notes: list[str]) -> FloatImage:
    """Return (H, W) in [0, 1] of an 8-bit picture in any mode; what is transparent becomes black."""
    if picture.mode == "L" and "transparency" not in picture.info:  # as most radiographs: nothing to convert
        levels: FloatImage = np.divide(np.asarray(picture), np.float32(255), dtype=np.float32)
        return levels
    width, height = picture.size
    gray = np.empty((height, width), np.float32)
    plain = picture.mode == "1" and "transparency" not in picture.info
    coloured = seen = 0
    for rows in row_bands(gray.shape):
        band = picture.crop((0, rows.start, width, rows.stop))
        if not plain:
            rgba = band.convert("RGBA")
            band = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
            few = np.asarray(band)[::4, ::4].astype(np.int16)  # every fourth pixel is enough to see colour
            chroma = few.max(axis=2) - few.min(axis=2)
            coloured, seen = coloured + int((chroma > _CHROMA).sum()), seen + chroma.size
        gray[rows] = unit(np.asarray(band.convert("L")), 0, 255)
    if coloured > _COLOUR_SHARE * seen:
        notes.append("The picture is coloured: it may be a photograph, not a radiograph. It is read as gray.")
    return gray


def gray_of_deep_colours(pixels: npt.NDArray[Any], bits: int) -> FloatImage:
    """Return (H, W) in [0, 1] of RGB (H, W, 3) of more than 8 bits: brightness as of ITU-R 601, as Pillow has it."""
    gray = np.empty(pixels.shape[:2], np.float32)
    for rows in row_bands(pixels.shape):
        gray[rows] = unit(pixels[rows] @ np.array([0.299, 0.587, 0.114]), 0, 2**bits - 1)
    return gray


def _decoded(stream: bytes) -> Image.Image:
    """Decode a checked PNG or JPEG.

    Raises:
        DamagedPictureError: the decoder does not accept it.
    """
    try:
        picture = Image.open(io.BytesIO(stream), formats=("PNG", "JPEG"))
        picture.load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything in a decoder
        raise DamagedPictureError("is damaged or cut off") from error
    return picture


def _last_block(picture: Image.Image) -> npt.NDArray[Any]:
    """The pixels of the last block of 8 x 8."""
    width, height = picture.size
    return np.asarray(picture.crop(((width - 1) // 8 * 8, (height - 1) // 8 * 8, width, height)))


def _same(one: Image.Image, other: Image.Image) -> bool:
    """Compare by bands: copies of a large picture take memory."""
    width, height = one.size
    boxes = [(0, rows.start, width, rows.stop) for rows in row_bands((height, width))]
    return all(one.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes)
