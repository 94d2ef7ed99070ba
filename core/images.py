"""Radiographs in, geometry back out: the one place where images are read.

PNG and JPEG are read with Pillow, DICOM with pydicom. A file is known by its first bytes, never by its name. Nothing
is decoded before its size is known to be harmless. Of a DICOM file only the tags in `_DICOM_TAGS` are read at all: a
keep-list, so that no identifying tag can be stored, shown or logged.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image, ImageOps
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from core.dicom_codecs import DECODERS
from core.types import CXRLensError, FloatImage, Geometry

MAX_FILE_BYTES = 64 * 2**20  # ours: a 16-bit detector image of 4k x 4k is 32 MiB
MAX_PIXELS = 64_000_000  # ours: the largest detectors have about 18 million
MIN_SIDE = 32  # ours: pixels; the coarsest input of a `tiny` model is 64
_MAX_ASPECT = 2.0  # ours: chest radiographs lie between 0.7 and 1.4
_COLOUR_SHARE = 0.1  # ours: share of clearly coloured pixels that a radiograph with a coloured mark does not reach
_NARROW_RANGE = 1 / 12  # ours: 12-bit values stored in 16 bits use 1/16 of the grey levels

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"

_RADIOGRAPHY = ("CR", "DX", "RG")  # computed, digital and film radiography; DICOM PS3.3 C.7.3.1.1.1
_CHEST = ("", "CHEST", "THORAX")
_VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "LATERAL", "LL": "LATERAL", "RL": "LATERAL"}

_DICOM_TAGS: list[str] = [
    "BitsAllocated",
    "BitsStored",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "Columns",
    "HighBit",
    "ImagerPixelSpacing",
    "Modality",
    "ModalityLUTSequence",
    "NominalScannedPixelSpacing",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "PlanarConfiguration",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "VOILUTFunction",
    "VOILUTSequence",
    "ViewPosition",
    "WindowCenter",
    "WindowWidth",
]

_ACCEPTED = "a PNG, JPEG or DICOM file"


class ImageError(CXRLensError):
    """An image that cannot be used. The message says what is wrong, where, and what to do; it repeats no tag value."""


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A decoded image, ready for `fit_square`.

    Attributes:
        pixels: (H, W) float32 in [0, 1], bright = dense (MONOCHROME2).
        pixel_spacing: (row, column) distance of pixel centres in millimetres, if the file tells it.
        bits: grey levels are 2 to this power.
        format: "PNG", "JPEG" or "DICOM".
        sha256: of the decoded pixels and their shape: the same picture in two formats has one hash.
        warnings: sentences for the reader; empty if all is well.
        view: "PA", "AP" or "LATERAL" if the file says so, otherwise "".
    """

    pixels: FloatImage
    pixel_spacing: tuple[float, float] | None
    bits: int
    format: str
    sha256: str
    warnings: tuple[str, ...]
    view: str


def read_image(data: bytes | Path, *, name: str = "image") -> Radiograph:
    """Read a radiograph.

    Args:
        data: the file, or its path.
        name: how messages call the image. Do not pass an uploaded file's name: it may name the patient.

    Raises:
        ImageError: the file is missing, empty, damaged, too large, too small, of another kind or modality, or blank.
    """
    if isinstance(data, Path):
        data = _file_bytes(data, name)
    if not data:
        raise ImageError(f"{name}: the file is empty. Choose {_ACCEPTED}.")
    if len(data) > MAX_FILE_BYTES:
        raise _too_large_file(name, len(data))
    if data.startswith((_PNG_START, _JPEG_START)):
        return _read_picture(data, name)
    if data[128:132] == b"DICM":
        return _read_dicom(data, name)
    raise ImageError(f"{name}: this is not {_ACCEPTED}; its content, not its name, decides. Export it as one of these.")


def fit_square(
    image: FloatImage, size: int, *, pixel_spacing: tuple[float, float] | None = None
) -> tuple[FloatImage, Geometry]:
    """Pad an image to a square with black and resize it.

    A triangle filter as wide as the reduction is used: it is antialiased and cannot overshoot [0, 1].

    Args:
        image: (H, W), values in [0, 1].
        size: side of the result, pixels.
        pixel_spacing: of the image, (row, column) in millimetres; kept in the geometry.

    Returns:
        the square (size, size) in [0, 1], and the way back for `to_original`.
    """
    height, width = image.shape
    side = max(height, width)
    # Whole pixels are padded, at least enough; the fractional box below makes both margins exactly equal.
    top, left = (side - height + 1) // 2, (side - width + 1) // 2
    padded = np.pad(image.astype(np.float32, copy=False), ((top, top), (left, left)))
    x, y = left - (side - width) / 2, top - (side - height) / 2
    square = Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
    return np.asarray(square, dtype=np.float32).clip(0, 1), Geometry(height, width, size, pixel_spacing)


def to_original(values: npt.NDArray[Any], geometry: Geometry) -> FloatImage:
    """Put a map over the model's square back onto the original image: the inverse of `fit_square`.

    Args:
        values: (h, w) finite numbers of any range, a grid that covers the whole square, padding included.
        geometry: what `fit_square` returned.

    Returns:
        (H, W) float32, interpolated between the centres of cells; what lay on the padding is cropped.
    """
    h, w = values.shape
    top, left, height, width = geometry.content
    box = (left * w, top * h, min((left + width) * w, w), min((top + height) * h, h))
    cells = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    original = cells.resize((geometry.width, geometry.height), Image.Resampling.BILINEAR, box)
    return np.array(original, dtype=np.float32)


def _file_bytes(path: Path, name: str) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise _too_large_file(name, size)
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: the file cannot be read ({error.strerror}). Check its path and rights.") from error


def _too_large_file(name: str, size: int) -> ImageError:
    return ImageError(
        f"{name}: the file has {size / 2**20:.0f} MiB, the limit is {MAX_FILE_BYTES // 2**20} MiB. "
        "Choose a single radiograph, not a series or an archive."
    )


def _check_size(name: str, width: int, height: int, frames: int = 1) -> None:
    if width * height * frames > MAX_PIXELS:
        of_frames = f" in {frames} frames" if frames > 1 else ""
        raise ImageError(
            f"{name}: the file announces {width} x {height} pixels{of_frames}, the limit is "
            f"{MAX_PIXELS // 1_000_000} million. Make the image smaller and try again."
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name}: the image has only {width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} are needed. "
            "Choose the full image, not a thumbnail."
        )


def _radiograph(
    pixels: FloatImage,
    name: str,
    *,
    bits: int,
    kind: str,
    warnings: Sequence[str],
    pixel_spacing: tuple[float, float] | None = None,
    view: str = "",
) -> Radiograph:
    """Check what all formats must fulfil, and hash the pixels."""
    low, high = float(pixels.min()), float(pixels.max())
    if not low < high:  # also true of NaN
        raise ImageError(f"{name}: all pixels have the same value, there is nothing to see. Export the image again.")
    notes = list(warnings)
    height, width = pixels.shape
    if max(height, width) > _MAX_ASPECT * min(height, width):
        notes.append(f"The image is {width} x {height} pixels: an unusual shape for a chest radiograph.")
    if high - low < _NARROW_RANGE:
        notes.append(f"The image uses only {high - low:.1%} of its grey levels; it may be almost invisible.")
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    pixels.flags.writeable = False  # the hash must stay true
    digest = hashlib.sha256(f"{height}x{width}:".encode() + pixels.tobytes()).hexdigest()
    return Radiograph(pixels, pixel_spacing, bits, kind, digest, tuple(notes), view)


# --- PNG and JPEG ---


def _read_picture(data: bytes, name: str) -> Radiograph:
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            kind = "PNG" if picture.format == "PNG" else "JPEG"
            _check_size(name, *picture.size)
            if getattr(picture, "n_frames", 1) > 1:
                notes.append("The file has several pictures; only the first is read.")
            picture.load()
            upright = _upright(picture, notes)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name}: the file announces more than {MAX_PIXELS // 1_000_000} million pixels. "
            "Make the image smaller and try again."
        ) from error
    except Exception as error:  # a damaged file can raise anything in a decoder
        raise ImageError(f"{name}: the picture is damaged or cut off. Copy or export it again.") from error
    if upright.mode.startswith("I"):  # 16-bit gray; Pillow keeps the file's values
        return _radiograph(_unit(np.asarray(upright), 0, 2**16 - 1), name, bits=16, kind=kind, warnings=notes)
    bits = 1 if upright.mode == "1" else 8
    return _radiograph(_grayscale(upright, notes), name, bits=bits, kind=kind, warnings=notes)


def _upright(picture: Image.Image, notes: list[str]) -> Image.Image:
    """Turn a picture as its EXIF note says; a note that cannot be read is no reason to refuse the picture."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        notes.append("The file's note on how to turn the picture cannot be read; it is shown as stored.")
        return picture.copy()


def _grayscale(picture: Image.Image, notes: list[str]) -> FloatImage:
    """Return (H, W) in [0, 1] of an 8-bit picture in any mode; what is transparent becomes black."""
    if picture.mode in ("1", "L") and "transparency" not in picture.info:
        return _unit(np.asarray(picture.convert("L")), 0, 255)
    rgba = picture.convert("RGBA")
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    rgb = Image.alpha_composite(black, rgba).convert("RGB")
    channels = np.asarray(rgb)[::4, ::4].astype(np.int16)  # every fourth pixel is enough to see colour
    chroma = channels.max(axis=2) - channels.min(axis=2)
    if float((chroma > 40).mean()) > _COLOUR_SHARE:  # ours: 40 of 255, above the colour noise of JPEG
        notes.append("The picture is coloured: it may be a photograph, not a radiograph. It is read as gray.")
    return _unit(np.asarray(rgb.convert("L")), 0, 255)


def _unit(values: npt.NDArray[Any], low: float, high: float) -> FloatImage:
    """Map [low, high] to [0, 1] and clip."""
    return ((values.astype(np.float32) - low) / (high - low)).clip(0, 1)


# --- DICOM ---


def _read_dicom(data: bytes, name: str) -> Radiograph:
    if DeflatedExplicitVRLittleEndian.encode() in data:  # it would be inflated, to any size, before any tag is known
        raise ImageError(f"{name}: deflated DICOM files are not accepted. Export it without 'deflated' compression.")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), specific_tags=_DICOM_TAGS)
    except Exception:
        raise _damaged_dicom(name) from None  # the cause may quote a tag
    notes: list[str] = []
    _check_kind(dataset, name, notes)
    try:
        _check_dicom_size(dataset, len(data), name, notes)
        pixels = _dicom_pixels(dataset, notes)
        bits = int(dataset.BitsStored)
    except ImageError:
        raise
    except Exception:
        raise _damaged_dicom(name) from None
    return _radiograph(
        pixels,
        name,
        bits=bits,
        kind="DICOM",
        warnings=notes,
        pixel_spacing=_pixel_spacing(dataset),
        view=_VIEWS.get(_code(dataset, "ViewPosition"), ""),
    )


def _damaged_dicom(name: str) -> ImageError:
    return ImageError(
        f"{name}: the DICOM file is damaged, cut off, or compressed in an unknown way. "
        "Export it again, best as 'explicit VR little endian'."
    )


def _code(dataset: pydicom.Dataset, keyword: str) -> str:
    """Return a coded string in upper case, "" if there is none.

    Read raw: pydicom would check the value, and quote an irregular one in its log.
    """
    value = dataset.get_item(keyword).value if keyword in dataset else None
    return value.decode("ascii", "replace").strip(" \0").upper() if isinstance(value, bytes) else ""


def _check_kind(dataset: pydicom.Dataset, name: str, notes: list[str]) -> None:
    """Refuse what is no radiograph; warn of what may be none, and of writing in the picture."""
    modality = _code(dataset, "Modality")
    if not modality:
        notes.append("The file does not say its modality; it is taken for a radiograph.")
    elif modality not in _RADIOGRAPHY:
        shown = modality if len(modality) == 2 and modality.isalpha() else "another one"
        raise ImageError(
            f"{name}: the DICOM modality is {shown}. Only radiographs ({', '.join(_RADIOGRAPHY)}) can be read."
        )
    if "PixelData" not in dataset:
        raise ImageError(f"{name}: the DICOM file has no image in it. Choose the file that holds the radiograph.")
    if _code(dataset, "BodyPartExamined") not in _CHEST:
        notes.append("The file names another body part than the chest.")
    if _code(dataset, "BurnedInAnnotation") == "YES":
        notes.append("Writing is burned into the image: look for names before you share it.")


def _check_dicom_size(dataset: pydicom.Dataset, file_bytes: int, name: str, notes: list[str]) -> None:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    _check_size(name, columns, rows, frames)
    if int(dataset.HighBit) + 1 != int(dataset.BitsStored):  # retired from the standard; read as usual it is noise
        raise ImageError(
            f"{name}: the DICOM file keeps its grey levels in an outdated layout of bits. Export it again."
        )
    if frames > 1:
        notes.append(f"The file has {frames} frames; only the first is read.")
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        stream = get_frame(dataset.PixelData, 0, number_of_frames=frames)
        if _codestream_size(stream) not in (None, (columns, rows)):
            raise ImageError(f"{name}: the compressed image is of another size than its header says. Export it again.")
    elif rows * columns * frames * int(dataset.SamplesPerPixel) * int(dataset.BitsAllocated) // 8 > file_bytes:
        raise _damaged_dicom(name)


def _codestream_size(stream: bytes) -> tuple[int, int] | None:
    """Return (width, height) that a JPEG, JPEG-LS or JPEG 2000 codestream announces, None for RLE.

    Source: ITU-T T.81 B.2.2, T.87 C.2.2 (frame header) and T.800 A.5.1 (SIZ). A decoder allocates by these numbers,
    not by Rows and Columns.
    """

    def number(at: int, length: int) -> int:
        return int.from_bytes(stream[at : at + length], "big")

    if (siz := stream.find(b"\xff\x4f\xff\x51", 0, 256)) >= 0:  # a JP2 box may come before
        return number(siz + 8, 4) - number(siz + 16, 4), number(siz + 12, 4) - number(siz + 20, 4)
    if not stream.startswith(b"\xff\xd8"):
        return None
    position = 2
    while stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # not DHT, JPG, DAC
            return number(position + 7, 2), number(position + 5, 2)
        position += 1 if marker == 0xFF else 2 + number(position + 2, 2)
    raise ValueError("no frame header")


def _dicom_pixels(dataset: pydicom.Dataset, notes: list[str]) -> FloatImage:
    """Stored values -> modality LUT or rescale -> VOI LUT or window -> bright = dense (DICOM PS3.4 N.2)."""
    stored = pixel_array(dataset, index=0, decoding_plugin=DECODERS.get(dataset.file_meta.TransferSyntaxUID, ""))
    photometric = str(dataset.PhotometricInterpretation).strip()
    if stored.ndim == 3:
        return _grayscale(Image.fromarray(stored), notes)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError("not a gray image")
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    image = ~_padding(stored, dataset)
    window = _window(dataset)
    if dataset.get("VOILUTSequence"):
        table_bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        pixels = _unit(apply_voi(values.astype(np.int64), dataset, index=0), 0, 2**table_bits - 1)
    elif window is not None:
        pixels = _apply_window(values, *window, function=_code(dataset, "VOILUTFunction"))
    else:
        notes.append("The file has no display window; its darkest and brightest values are taken as black and white.")
        shown = values[image] if image.any() else values
        pixels = _unit(values, float(shown.min()), max(float(shown.max()), float(shown.min()) + 1e-6))
    if photometric == "MONOCHROME1":
        pixels = 1 - pixels
    pixels[~image] = 0  # padding is black, whatever its number
    return pixels


def _padding(stored: npt.NDArray[Any], dataset: pydicom.Dataset) -> npt.NDArray[np.bool_]:
    """Where the file says that there is no image: one value, or a range of them (DICOM PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _window(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the first (center, width), in modality units, or None if there is no usable one."""

    def first(tag: str) -> float | None:
        value = dataset.get(tag)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = value[0] if value else None
        return float(value) if value not in (None, "") else None

    center, width = first("WindowCenter"), first("WindowWidth")
    return (center, width) if center is not None and width is not None and width > 0 else None


def _apply_window(values: npt.NDArray[np.float64], center: float, width: float, *, function: str) -> FloatImage:
    """Map values to [0, 1] as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 say.

    Args:
        values: (H, W) in modality units.
        center: in modality units.
        width: in modality units, > 0.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID"; anything else counts as LINEAR, the default.
    """
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -80, 80)
        return (1 / (1 + np.exp(exponent))).astype(np.float32)
    if function != "LINEAR_EXACT":  # LINEAR counts whole steps: width 1 is a threshold
        center, width = center - 0.5, max(width - 1, 1e-6)
    return ((values - center) / width + 0.5).clip(0, 1).astype(np.float32)


def _pixel_spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Return the spacing in the patient if known, otherwise at the detector or on the film (some 5 % larger)."""
    for tag in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        try:
            row, column = (float(value) for value in dataset.get(tag) or ())
        except (TypeError, ValueError):
            continue
        if 0 < row < np.inf and 0 < column < np.inf:
            return row, column
    return None
