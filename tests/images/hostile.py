"""Files that ask for more memory or time than any radiograph needs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.images.making import (
    CHEST8,
    CHEST12,
    DEFLATED,
    HEIGHT,
    STREAMS,
    SYNTAXES,
    WIDTH,
    chunk,
    compressed,
    dicom,
    element,
    jpeg,
    jpeg2000,
    png,
    said_size,
)

MILLION = 1_000_000


def files() -> dict[str, tuple[Callable[[], bytes], bool]]:
    """Name -> (bytes, whether it must be refused)."""
    zeros = zlib.compress(bytes(200 * MILLION), 9)
    side = 8000
    made: dict[str, tuple[Callable[[], bytes], bool]] = {
        "png-text-bomb": (lambda: png(extra=chunk(b"zTXt", b"k\0\0" + zeros)), False),
        "png-exif-bomb": (lambda: png(extra=chunk(b"zTXt", b"Raw profile type exif\0\0" + zeros)), False),
        "png-profile-bomb": (lambda: png(extra=chunk(b"iCCP", b"k\0\0" + zeros)), False),
        "png-pixel-bomb": (lambda: png(rows=bytes(500 * MILLION)), True),
        "png-300000-chunks": (lambda: png(extra=chunk(b"tEXt", b"k\0v") * 300_000), False),
        "png-5-million-chunks": (lambda: png(extra=chunk(b"tEXt", b"") * 5 * MILLION), True),
        "png-60000": (lambda: png(size=(60_000, 60_000), rows=bytes(999)), True),
        "png-strip": (lambda: png(size=(30_000, 32), rows=(b"\0" + bytes(range(250)) * 120) * 32), True),
        "png-long-strip": (lambda: png(size=(2 * MILLION, 32), rows=(b"\0" + b"\x10\xf0" * MILLION) * 32), True),
        "png-64-million": (
            lambda: png(size=(side, side), depth=16, rows=(b"\0" + b"\x10\x20\xf0\xf0" * 4000) * side),
            False,
        ),
        "png-64-million-rgba": (lambda: png(size=(side, side), colour=6, rows=(b"\0" + b"abcd" * side) * side), True),
        "png-32-million-rgba": (
            lambda: png(size=(5600, 5600), colour=6, rows=(b"\0" + b"abc\xff\xff\xff\xff\xff" * 2800) * 5600),
            False,
        ),
        "png-64-million-bits": (lambda: png(size=(side, side), depth=1, rows=(b"\0" + b"\xaa" * 1000) * side), False),
        "png-many-small-idat": (lambda: many_idats(), False),
        "jpeg-64-million": (lambda: jpeg(np.tile(CHEST8, (55, 66))[:7900, :7900], quality=40), False),
        "jpeg-64-million-colours": (lambda: big("RGB", 7900), True),
        "jpeg-42-million-colours": (lambda: big("RGB", 6400), False),
        "jpeg-32-million-cmyk": (lambda: big("CMYK", 5600), False),
        "jpeg-64-million-progressive": (
            lambda: jpeg(np.tile(CHEST8, (55, 66))[:7900, :7900], quality=40, progressive=True),
            False,
        ),
        "jpeg-400-scans": (lambda: scans(400), True),
        "jpeg-38-scans": (lambda: scans(28), False),
        "jpeg-65500": (lambda: said_size(jpeg(), 65_500, 65_500), True),
        "jpeg-fill-bytes": (lambda: jpeg()[:2] + b"\xff" * 60 * MILLION + jpeg()[2:], False),
        "jpeg-only-stuffing": (lambda: jpeg()[:-2] + b"\xff\0" * 30 * MILLION + b"\xff\xd9", False),
        "jpeg-only-restarts": (
            lambda: jpeg(restart_marker_blocks=1)[:-2] + b"\xff\xd0" * 30 * MILLION + b"\xff\xd9",
            False,
        ),
        "jpeg-many-segments": (lambda: jpeg()[:2] + b"\xff\xfe\0\x02" * 10 * MILLION + jpeg()[2:], True),
        "dicom-deflated-bomb": (lambda: deflated_bomb(), True),
        "dicom-many-elements": (lambda: dicom(extra=element(0x00290011, "LO", b"") * 7 * MILLION), True),
        "dicom-many-items": (
            lambda: dicom(extra=open_sequence(struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 7 * MILLION)),
            True,
        ),
        "dicom-deep-items": (lambda: dicom(extra=deep(100_000)), True),
        "dicom-deep-kept-items": (lambda: dicom(extra=deep(100_000, tag=0x00283010)), True),
        "dicom-open-sequence": (lambda: dicom(extra=open_sequence(b"")[:-8]), True),
        "dicom-long-window": (
            lambda: dicom(WindowCenter="1\\" * 30_000 + "1", WindowWidth="1\\" * 30_000 + "1"),
            False,
        ),
        "dicom-many-fragments": (lambda: many_fragments(), True),
        "dicom-1000-tables": (
            lambda: dicom(extra=element(0x00283010, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 50_000)),
            False,
        ),
        "dicom-60000": (lambda: dicom(Rows=60_000, Columns=60_000), True),
        "dicom-inner-65500": (lambda: compressed("jpeg8", said_size(jpeg(), 65_500, 65_500)), True),
        "dicom-rle-bomb": (lambda: rle_bomb(), True),
        "dicom-runs-of-one": (lambda: rle_runs(), False),
        "dicom-j2k-24-million": (lambda: j2k_large(), False),
    }
    for kind, start in {
        "jpeg8": b"\xff\xd8",
        "jpeg12": b"\xff\xd8",
        "lossless": b"\xff\xd8",
        "jpegls": b"\xff\xd8",
    }.items():
        made[f"dicom-{kind}-fake-j2k"] = (lambda kind=kind, start=start: compressed(kind, fake(STREAMS[kind])), True)  # type: ignore[misc]
    for name, changes in {
        "components": {"samples": 1000},
        "16384-components": {"samples": 16_384},
        "tiles": {"tile": (1, 1)},
        "depth": {"depth": 37},
        "offset": {"offset": 2**31},
    }.items():
        made[f"dicom-j2k-{name}"] = (lambda changes=changes: compressed("jpeg2000", j2k(**changes)), True)  # type: ignore[misc]
    big_tags = {"Rows": 4800, "Columns": 4800}
    made["dicom-j2k-tiles-large"] = (
        lambda: compressed("jpeg2000", j2k(size=(4800, 4800), tile=(1, 1)), **big_tags),
        True,
    )
    made["dicom-j2k-announced"] = (lambda: compressed("jpeg2000", j2k(size=(4800, 4800)), **big_tags), False)
    made["dicom-j2k-precincts"] = (
        lambda: compressed("jpeg2000", j2k(size=(4800, 4800), precincts=b"\0"), **big_tags),
        True,
    )
    made["dicom-j2k-layers"] = (lambda: compressed("jpeg2000", j2k(layers=65_535)), True)
    return made


def many_idats() -> bytes:
    """A PNG whose pixels come in chunks of one byte."""
    data = png()
    at = data.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", data[at : at + 4])
    body = data[at + 8 : at + 8 + length]
    return data[:at] + b"".join(chunk(b"IDAT", body[i : i + 1]) for i in range(length)) + data[at + 12 + length :]


def big(mode: str, side: int) -> bytes:
    """A large JPEG in colours."""
    picture = Image.fromarray(np.tile(CHEST8, (side // HEIGHT + 1, side // WIDTH + 1))[:side, :side])
    picture = Image.merge(mode, [picture] * len(mode))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return buffer.getvalue()


def scans(count: int) -> bytes:
    """A progressive JPEG of 62 million pixels with more scans than it needs."""
    stream = jpeg(np.full((7900, 7900), 128, np.uint8), progressive=True)
    last = stream[stream.rindex(b"\xff\xda") : -2]
    return stream[:-2] + last * count + b"\xff\xd9"


def deflated_bomb() -> bytes:
    """2 GB of zeros in 2 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(dicom()[132 + 60 :])
    for _ in range(20):
        body += packer.compress(bytes(100 * MILLION))
    meta = element(0x00020010, "UI", DEFLATED.encode())
    return bytes(128) + b"DICM" + meta + body + packer.flush()


def open_sequence(items: bytes, tag: int = 0x00291010) -> bytes:
    """A sequence without a length."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"SQ\0\0\xff\xff\xff\xff"
    return head + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def deep(levels: int, tag: int = 0x00291010) -> bytes:
    """Sequences in sequences."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"SQ\0\0\xff\xff\xff\xff"
    return (head + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * levels


def many_fragments() -> bytes:
    """Millions of empty fragments."""
    head = dicom(syntax=SYNTAXES["jpeg8"], pixels=b"")
    head = head[: -len(element(0x7FE00010, "OW", b""))]
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 7 * MILLION
    return head + struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0\xff\xff\xff\xff" + items


def rle_bomb() -> bytes:
    """Runs that would fill gigabytes."""
    stream = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\xff" * 20 * MILLION
    return compressed("rle", stream, BitsAllocated=8, BitsStored=8, HighBit=7)


def rle_runs() -> bytes:
    """16 million pixels in runs of one byte each."""
    plane = b"\0\x07\0\x08" * (4000 * 4000 // 2)
    stream = struct.pack("<16I", 1, 64, *[0] * 14) + plane
    return compressed("rle", stream, Rows=4000, Columns=4000, BitsAllocated=8, BitsStored=8, HighBit=7)


def fake(stream: bytes) -> bytes:
    """A JPEG of 65,500 x 65,500 whose comment looks like the header of a JPEG 2000 of the right size."""
    size = struct.pack(">HH", 47, 0) + struct.pack(">IIII", WIDTH, HEIGHT, 0, 0) + bytes(30)
    comment = b"\xff\x4f\xff\x51" + size
    large = said_size(stream, 65_500, 65_500)
    return large[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + large[2:]


def j2k(
    size: tuple[int, int] = (WIDTH, HEIGHT),
    *,
    samples: int = 1,
    tile: tuple[int, int] | None = None,
    depth: int = 11,
    offset: int = 0,
    precincts: bytes = b"",
    layers: int = 1,
) -> bytes:
    """A JPEG 2000 codestream that says other things of itself."""
    stream = STREAMS["jpeg2000"]
    width, height = size
    said = struct.pack(
        ">HHIIIIIIIIH",
        38 + 3 * samples,
        0,
        width + offset,
        height + offset,
        offset,
        offset,
        *(tile or size),
        0,
        0,
        samples,
    )
    said += bytes([depth, 1, 1]) * samples
    (length,) = struct.unpack(">H", stream[4:6])
    stream = stream[:4] + said + stream[4 + length :]
    at = stream.index(b"\xff\x52")
    (length,) = struct.unpack(">H", stream[at + 2 : at + 4])
    coding = bytearray(stream[at + 4 : at + 2 + length])
    coding[2:4] = struct.pack(">H", layers)
    if precincts:
        coding[0] |= 1
        coding = coding[:10] + precincts * (coding[5] + 1)
    return stream[:at] + b"\xff\x52" + struct.pack(">H", len(coding) + 2) + bytes(coding) + stream[at + 2 + length :]


def j2k_large() -> bytes:
    """The largest JPEG 2000 that is read."""
    values = np.tile(CHEST12, (34, 41))[:4800, :4800]
    return dicom(np.zeros((4800, 4800), np.uint16), syntax=SYNTAXES["jpeg2000"], stream=jpeg2000(values))
