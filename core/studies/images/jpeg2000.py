"""What a JPEG 2000 codestream says, before it is decoded (ITU-T T.800 annex A).

A decoder builds its tables by these numbers: a few bytes can ask for gigabytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from core.studies.images.png import DamagedPictureError

STARTS = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \r\n\x87\n")
_CODESTREAM = b"\xff\x4f\xff\x51"

MAX_PIXELS = 24_000_000  # ours: some 10 million are decoded a second; the largest detectors have about 18 million
_MAX_TILES = 4_096  # ours: 18 million pixels in tiles of 128 x 128 are 1,100
_MAX_LAYERS = 256  # ours: programs write up to some 20
_MAX_BLOCKS = 2_000_000  # ours: code blocks and precincts, each some hundred bytes in a decoder
_MOST_PIXELS_A_BYTE = 2_000  # ours: a lossy picture that is mostly black has up to some 500
_MAX_PARTS = 100_000  # ours: marker segments and parts of tiles


@dataclass(frozen=True, slots=True)
class Jpeg2000:
    """A codestream.

    Attributes:
        width: pixels.
        height: pixels.
        samples: components.
        precision: bits of a number.
        signed: whether numbers have a sign.
        high_throughput: coded by part 15.
        data: the codestream, without a file's boxes around it.
    """

    width: int
    height: int
    samples: int
    precision: int
    signed: bool
    high_throughput: bool
    data: bytes


def parse_jpeg2000(data: bytes) -> Jpeg2000:
    """Read the headers.

    Raises:
        DamagedPictureError: it is cut off, against the standard, or would take too much time or memory.
    """
    start = data.find(_CODESTREAM, 0, 4096)  # boxes of a JP2 file may come before
    if start < 0:
        raise DamagedPictureError("is damaged")
    stream = data[start:] if start else data
    try:
        found = _size(stream)
        _check_parts(stream, found)
        if found.width * found.height > _MOST_PIXELS_A_BYTE * len(stream):
            raise DamagedPictureError("has too few data for as many pixels as it announces")
    except (struct.error, IndexError):
        raise DamagedPictureError("is cut off") from None
    return found


def _size(stream: bytes) -> Jpeg2000:
    length, capabilities, right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, samples = (
        struct.unpack_from(">HHIIIIIIIIH", stream, 4)
    )
    if length != 38 + 3 * samples or not 1 <= samples <= 4:
        raise DamagedPictureError("is damaged, or has more colours than a picture")
    width, height = right - left, bottom - top
    kinds = {stream[42 + 3 * i : 45 + 3 * i] for i in range(samples)}
    depth, across, down = kinds.pop()
    if kinds or (across, down) != (1, 1) or (depth & 127) + 1 > 16:
        raise DamagedPictureError("has an unusual layout of its colours, or more than 16 bits")
    if width <= 0 or height <= 0 or not tile_width or not tile_height or tiles_left > left or tiles_top > top:
        raise DamagedPictureError("is damaged")
    tiles = -(-(right - tiles_left) // tile_width) * -(-(bottom - tiles_top) // tile_height)
    if tiles > _MAX_TILES or width * height * samples > 3 * MAX_PIXELS or width * height > MAX_PIXELS:
        raise DamagedPictureError(
            f"announces {width} x {height} pixels in {tiles} tiles as JPEG 2000, more than can be decoded in seconds"
        )
    return Jpeg2000(width, height, samples, (depth & 127) + 1, depth > 127, bool(capabilities & 0x4000), stream)


def _check_parts(stream: bytes, found: Jpeg2000) -> None:
    """Walk through the main header and the headers of all parts of tiles."""
    at, tile, coded = 2, 0, False
    for _ in range(_MAX_PARTS):
        marker = stream[at : at + 2]
        if marker == b"\xff\xd9" or (not marker and coded):
            if not coded:
                raise DamagedPictureError("has no pixels")
            return
        if len(marker) < 2 or marker[0] != 0xFF:
            raise DamagedPictureError("is damaged")
        if marker == b"\xff\x93":  # data follow, to the end of the part
            at, coded = tile, True
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        if length < 2 or at + 2 + length > len(stream):
            raise DamagedPictureError("is cut off")
        if marker == b"\xff\x90":
            (part,) = struct.unpack_from(">I", stream, at + 6)
            tile = at + part if part else len(stream)
            if tile > len(stream) + 2 or 0 < part < 14:  # the end mark may be missing
                raise DamagedPictureError("is cut off")
        elif marker == b"\xff\x52":
            _check_coding(stream[at + 4 : at + 2 + length], 5, found)
        elif marker == b"\xff\x53":
            _check_coding(stream[at + 4 : at + 2 + length], 1 + (1 if found.samples < 257 else 2), found)
        at += 2 + length
    raise DamagedPictureError("consists of too many parts to be a radiograph")


def _check_coding(body: bytes, skipped: int, found: Jpeg2000) -> None:
    """Check a COD or COC segment: layers, and blocks and precincts of each resolution."""
    if skipped == 5 and not 1 <= struct.unpack_from(">H", body, 2)[0] <= _MAX_LAYERS:
        raise DamagedPictureError("is coded in more layers than can be decoded in a few seconds")
    levels, block_width, block_height = body[skipped], (body[skipped + 1] & 15) + 2, (body[skipped + 2] & 15) + 2
    if levels > 32 or block_width + block_height > 12 or max(block_width, block_height) > 10:
        raise DamagedPictureError("is damaged")
    precincts = body[skipped + 5 : skipped + 6 + levels] if body[0] & 1 else b"\xff" * (levels + 1)
    blocks = 0
    for level, size in enumerate(precincts):
        reduced = levels - level
        width, height = (side + (1 << reduced) - 1 >> reduced for side in (found.width, found.height))
        columns = (width >> (size & 15)) + 2
        rows = (height >> (size >> 4)) + 2
        inside = (width >> min(block_width, size & 15)) * (height >> min(block_height, size >> 4))
        blocks += found.samples * (columns * rows + inside)
    if blocks > _MAX_BLOCKS:
        raise DamagedPictureError("is coded in too many small blocks to be decoded in a few seconds")
