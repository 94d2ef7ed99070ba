"""Radiographs in, geometry back out: the one place where images are read.

PNG and JPEG are decoded by Pillow, DICOM by pydicom and the libraries in `core.studies.dicom_codecs`. What a file says
is read here first, by parsers that take bounded time and memory; a decoder gets nothing whose size, cost and
completeness are not known. How a file is read, and what is said about it, is described in ``docs/images.md``.
"""

from core.studies.images.borders import trim_borders
from core.studies.images.geometry import fit_square, to_original, to_square
from core.studies.images.radiograph import (
    MAX_ASPECT,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    MIN_SIDE,
    Grey,
    ImageError,
    Radiograph,
)
from core.studies.images.reading import read_image

__all__ = [
    "MAX_ASPECT",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "Grey",
    "ImageError",
    "Radiograph",
    "fit_square",
    "read_image",
    "to_original",
    "to_square",
    "trim_borders",
]
