"""Whatever holds a radiograph in a notebook, read as a file is read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.studies.images import ImageError, Radiograph, read_image

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image.Image | Any"
"""A path, a file's bytes, an array (H, W) or (H, W, 3), a PIL image, a pydicom dataset, or a `Radiograph`."""


def read(image: ImageLike) -> Radiograph:
    """Read a radiograph.

    Args:
        image: a path; the bytes of a file; an array (H, W) of uint8, of uint16 or of numbers in [0, 1]; a PIL image; a
            pydicom dataset; or what this function returned.

    Raises:
        ImageError: it is none of these, or cannot be used; the message says why and what to do.
    """
    if isinstance(image, Radiograph):
        return image
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return read_image(path, name=path.name)
    if isinstance(image, bytes | bytearray | memoryview):
        return read_image(bytes(image))
    if isinstance(image, Image.Image):
        return read_image(_png(image))
    if isinstance(image, np.ndarray):
        return read_image(_png(_picture(image)))
    if hasattr(image, "save_as") and hasattr(image, "PixelData"):
        return read_image(_dicom(image))
    raise ImageError(
        f"A radiograph is a path, a file's bytes, an array, a PIL image or a pydicom dataset, not {_kind(image)}."
    )


def _kind(value: object) -> str:
    if hasattr(value, "save_as"):
        return "a DICOM dataset without pixels"
    return f"a value of type {type(value).__name__}"


def _picture(array: npt.NDArray[Any]) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise ImageError(f"An array is (height, width) or (height, width, 3), not {array.shape}.")
    if array.dtype == np.bool_ or array.dtype.kind not in "uif":
        raise ImageError(f"An array holds uint8, uint16 or numbers from 0 to 1, not {array.dtype}.")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ImageError("An array of floating-point numbers must lie between 0 and 1. Divide it by its maximum.")
        array = np.round(array * 65535).astype(np.uint16) if array.ndim == 2 else np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 65535:
            raise ImageError("An array of integers must lie between 0 and 65535. Subtract its minimum.")
        array = array.astype(np.uint16)
    if array.ndim == 3 and array.dtype != np.uint8:
        raise ImageError("A coloured array holds uint8 or numbers from 0 to 1.")
    return Image.fromarray(np.ascontiguousarray(array))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    try:
        image.save(out, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise ImageError(f"A PIL image of mode {image.mode} cannot be read. Convert it: image.convert('L').") from error
    return out.getvalue()


def _dicom(dataset: Any) -> bytes:
    for whole in (True, False):  # a dataset that lacks identifiers makes a file without a head, which is read too
        out = io.BytesIO()
        try:
            dataset.save_as(out, enforce_file_format=whole)
        except Exception as error:  # pydicom's checks raise many kinds; all mean the same here
            reason = type(error).__name__
        else:
            return out.getvalue()
    raise ImageError(f"This DICOM dataset cannot be written as a file ({reason}). Pass the file's path instead.")
