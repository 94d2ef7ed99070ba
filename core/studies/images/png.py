"""What a PNG file says, before it is decoded (PNG, third edition, 2025)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from core.studies.images.orientation import EXIF, PNG_EXIF, PNG_XMP

START = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 500_000  # ours: 64 MiB in IDAT chunks of 8 KiB are 8,192
_MAX_NOTE = 2**16  # ours: bytes of a text that may say how to turn the picture
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7


class DamagedPictureError(ValueError):
    """A file whose content contradicts itself. The message goes on after "the picture"."""


@dataclass(frozen=True, slots=True)
class Png:
    """A PNG file without what is not needed to see it: texts, profiles, further pictures.

    Attributes:
        width: pixels.
        height: pixels.
        samples: numbers of a pixel.
        depth: bits of a number.
        pictures: how many the file says it has.
        data: the file.
        pixels: its compressed pixels.
        turning: notes that may say how to turn the picture.
        interlaced: Adam7.
    """

    width: int
    height: int
    samples: int
    depth: int
    pictures: int
    data: bytes
    pixels: tuple[memoryview, ...]
    turning: tuple[bytes, ...]
    interlaced: bool


def parse_png(data: bytes) -> Png:
    """Walk through the chunks.

    Raises:
        DamagedPictureError: it is cut off, or against the standard.
    """
    view = memoryview(data)
    at, header, pictures = len(START), None, 1
    kept: list[memoryview] = [view[:at]]
    pixels: list[memoryview] = []
    turning: list[bytes] = []
    for _ in range(_MAX_CHUNKS):
        if at == len(data) and pixels:
            break  # the last chunk says nothing: all pixels are there, or `check_pixels` tells
        if at + 12 > len(data):
            raise DamagedPictureError("is cut off")
        length, kind = struct.unpack_from(">I4s", view, at)
        stop = at + 12 + length
        if stop > len(data):
            raise DamagedPictureError("is cut off")
        body = view[at + 8 : stop - 4]
        if header is None:
            if kind != b"IHDR" or length != 13:
                raise DamagedPictureError("is damaged: it does not begin with its size")
            header = struct.unpack(">IIBBBBB", body)
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(body)
        elif kind == b"acTL" and length >= 4:
            pictures = max(1, *struct.unpack_from(">I", body))
        elif length <= _MAX_NOTE and kind in (b"eXIf", b"iTXt", b"zTXt"):
            note = (EXIF if kind == b"eXIf" else b"") + bytes(body)
            if note.startswith((EXIF, PNG_XMP, PNG_EXIF)):
                turning.append(note)
        if kind[0] & 32 == 0 or kind == b"tRNS":  # a chunk in capitals is needed to see the picture
            kept.append(view[at:stop])
        at = stop
    else:
        raise DamagedPictureError("consists of too many parts to be a radiograph")
    if header is None or not pixels:
        raise DamagedPictureError("has no pixels")
    width, height, depth, colour, compression, filtering, interlace = header
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise DamagedPictureError("has a header against the standard")
    end = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
    return Png(
        width=width,
        height=height,
        samples=_SAMPLES[colour],
        depth=depth,
        pictures=pictures,
        data=b"".join([*kept, end]),
        pixels=tuple(pixels),
        turning=tuple(turning[:4]),
        interlaced=interlace == 1,
    )


def check_pixels(png: Png) -> None:
    """Inflate the pixels without keeping them: there must be as many as the header says.

    Raises:
        DamagedPictureError: there are fewer or more, or their check sum is wrong.
    """
    expected = _bytes_of(png)
    inflater, there = zlib.decompressobj(), 0
    try:
        for part in png.pixels:
            rest: bytes | memoryview = part
            while rest and there <= expected:
                there += len(inflater.decompress(rest, 2**20))
                rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise DamagedPictureError("is damaged") from error
    if there < expected:
        raise DamagedPictureError("is cut off: it has fewer rows than its header says")
    if there > expected:
        raise DamagedPictureError("has more pixels than its header says")


def _bytes_of(png: Png) -> int:
    """How many bytes the pixels have when inflated, with one byte a row for its filter."""

    def of(width: int, height: int) -> int:
        return height * (1 + -(-width * png.samples * png.depth // 8)) if width and height else 0

    if not png.interlaced:
        return of(png.width, png.height)
    return sum(of(-(-(png.width - x) // dx), -(-(png.height - y) // dy)) for x, y, dx, dy in _PASSES)
