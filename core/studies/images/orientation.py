"""How a picture's own notes say that it must be turned (EXIF 2.32 4.6.4, XMP part 2).

Read here in a few lines, for a library reads all notes, and logs them: they may name the patient.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable

from PIL import Image

EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
PNG_XMP, PNG_EXIF = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"

_ORIENTATION = 0x0112
_MAX_TAGS = 1_000  # ours
_MAX_TEXT = 2**20  # ours: bytes of a compressed note
_XMP_TAG = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNREADABLE = "The file's note on how to turn the picture cannot be read; it is shown as stored."


def upright(picture: Image.Image, segments: Iterable[bytes], notes: list[str]) -> Image.Image:
    """Turn a picture as the first of its notes that speaks of it says.

    A note that cannot be read is no reason to refuse the picture.

    Args:
        picture: decoded.
        segments: bodies of a JPEG's APP1 segments, or of a PNG's chunks, each with the name that it begins with.
        notes: sentences for the reader are added here.
    """
    for segment in segments:
        try:
            found = _orientation(segment)
        except (struct.error, ValueError, zlib.error):
            notes.append(UNREADABLE)
            continue
        if found is not None:
            if found not in range(1, 9):
                notes.append(UNREADABLE)
            return picture.transpose(_TURNS[found]) if found in _TURNS else picture
    return picture


def _orientation(segment: bytes) -> int | None:
    if segment.startswith(EXIF):
        return _of_exif(segment[len(EXIF) :])
    if segment.startswith(PNG_EXIF):
        inflated = zlib.decompressobj().decompress(segment[len(PNG_EXIF) + 1 :], _MAX_TEXT)
        exif = bytes.fromhex("".join(inflated.decode("latin-1").split("\n")[3:]))
        return _of_exif(exif.removeprefix(EXIF))
    match = _XMP_TAG.search(segment)
    return int(match[1]) if match else None


def _of_exif(exif: bytes) -> int | None:
    """Read the tag of the first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise ValueError("no directory")
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    for place in range(min(count, _MAX_TAGS)):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, start + 2 + 12 * place)
        if tag == _ORIENTATION:
            if kind != 3 or values != 1:
                raise ValueError("no short number")
            return int(struct.unpack_from(order + "H", exif, start + 10 + 12 * place)[0])
    return None
