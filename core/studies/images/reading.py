"""A file's bytes to a radiograph. A file is known by its first bytes, never by its name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from core.studies.images import dicom_header, jpeg, picture, png
from core.studies.images.radiograph import ACCEPTED, MAX_FILE_BYTES, ImageError, Radiograph

_OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"RIFF": "a WebP",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
}


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
        raise ImageError(f"{name}: the file is empty. Choose {ACCEPTED}.")
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(name)
    if data.startswith(png.START):
        return picture.read_png(data, name)
    if data.startswith(jpeg.START):
        return picture.read_jpeg(data, name)
    if dicom_header.looks_like_dicom(data):
        from core.studies.images import dicom  # brings pydicom, which takes a while

        try:
            return dicom.read_dicom(data, name)
        except dicom_header.NotDicomError:
            pass  # said below
    kind = next((f"{kind} file, " for start, kind in _OTHER_KINDS.items() if data.startswith(start)), "")
    raise ImageError(
        f"{name}: this is {kind}not {ACCEPTED}; its content, not its name, decides. Export it as one of these."
    )


def _file_bytes(path: Path, name: str) -> bytes:
    """Read a regular file, never more of it than may be; a pipe or a device is not even waited for."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(
                    f"{name}: the file cannot be read: this is a folder, a device or a pipe. Choose a file."
                )
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{name}: the file cannot be read ({error.strerror}). Check its path and rights.") from error
    if len(data) > MAX_FILE_BYTES:
        raise _too_large(name)
    return data


def _too_large(name: str) -> ImageError:
    return ImageError(
        f"{name}: the file has more than {MAX_FILE_BYTES // 2**20} MiB, the limit. "
        "Choose a single radiograph, not a series or an archive."
    )
