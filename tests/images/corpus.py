"""A corpus of sound, strange, broken and hostile image files, the same on every machine.

Each file says what must become of it. Most show one formula chest, so that "right" is a number, not an opinion.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.images import hostile
from tests.images.dicom_kinds import codes, display, layout
from tests.images.kinds import ANY, HONEST, NOTED, REFUSED, RIGHT, RIGHT_OR_REFUSED, TOLD, Odd
from tests.images.making import (
    CHEST,
    CHEST8,
    CHEST12,
    CHEST16,
    DEFLATED,
    HEIGHT,
    IMPLICIT,
    STREAMS,
    SYNTAXES,
    WIDTH,
    chunk,
    compressed,
    dicom,
    jpeg,
    png,
)


def corpus() -> list[Odd]:
    """All files."""
    made = [*pictures(), *display(), *codes(), *layout(), *short(), *damage(), *hostile_files()]
    assert len({odd.name for odd in made}) == len(made)
    return made


def pictures() -> Iterator[Odd]:
    """PNG and JPEG in their kinds."""
    group = "PNG and JPEG"
    deep = np.repeat(CHEST16[..., None], 3, axis=2)
    rgb = np.repeat(CHEST8[..., None], 3, axis=2)
    opaque = np.full_like(CHEST8, 255)
    text = chunk(b"tEXt", b"Author\0SECRET")
    yield Odd("png-8", group, png, RIGHT)
    yield Odd("png-16", group, lambda: png(CHEST16), RIGHT)
    for bits in (9, 10, 12, 13, 14):
        values = np.round(CHEST * (2**bits - 1)).astype(np.uint16)
        yield Odd(f"png-{bits}-of-16", group, lambda values=values: png(values), RIGHT, "grey levels")
    yield Odd("png-12-shifted", group, lambda: png((CHEST12 << 4).astype(np.uint16)), RIGHT)
    yield Odd("png-rgb", group, lambda: png(rgb, colour=2), RIGHT)
    yield Odd("png-rgb16", group, lambda: png(deep, colour=2), RIGHT, "16-bit colours", 0.01)
    yield Odd("png-la", group, lambda: png(np.dstack([CHEST8, opaque]), colour=4), RIGHT)
    yield Odd("png-rgba", group, lambda: png(np.dstack([rgb, opaque]), colour=6), RIGHT)
    yield Odd("png-text", group, lambda: png(extra=text), RIGHT)
    yield Odd("png-profile", group, lambda: png(extra=chunk(b"iCCP", b"k\0\0" + zlib.compress(b"x" * 9000))), RIGHT)
    yield Odd("png-after-the-end", group, lambda: png() + b"PK\x03\x04" + bytes(99), RIGHT)
    yield Odd("png-inverted", group, lambda: png(255 - CHEST8), TOLD, "looks inverted", 0.005, True)
    yield Odd("png-upside-down", group, lambda: png(CHEST8[::-1]), TOLD, "turned")
    yield Odd("png-thin", group, lambda: png(np.tile(CHEST8[:40], (1, 9))), REFUSED, "no radiograph has this shape")
    yield Odd("png-small", group, lambda: png(CHEST8[:31, :31]), REFUSED, "at least 32")
    yield Odd("png-blank", group, lambda: png(CHEST8 * 0), REFUSED, "nothing to see")
    for depth in (1, 2, 4):
        levels = np.round(CHEST * (2**depth - 1)).astype(np.uint8)
        rows = levels.reshape(HEIGHT, -1, 8 // depth)
        packed = sum(rows[..., i].astype(int) << (8 - depth * (i + 1)) for i in range(8 // depth)).astype(np.uint8)
        data = b"".join(b"\0" + row.tobytes() for row in packed)
        yield Odd(
            f"png-{depth}-bit",
            group,
            lambda data=data, depth=depth: png(depth=depth, rows=data),
            RIGHT,
            "",
            0.6 / (2**depth - 1),
        )
    notes = {2: CHEST8[:, ::-1], 3: CHEST8[::-1, ::-1], 4: CHEST8[::-1], 6: np.rot90(CHEST8), 8: np.rot90(CHEST8, -1)}
    for number, turned in notes.items():
        for order in ("<", ">"):
            exif = exif_of(number, order)
            whole = np.ascontiguousarray(turned)
            yield Odd(
                f"jpeg-turned-{number}{'le' if order == '<' else 'be'}",
                group,
                lambda w=whole, e=exif: jpeg(w, exif=b"Exif\0\0" + e),
                RIGHT,
                "",
                0.06,
            )
            yield Odd(
                f"png-turned-{number}{'le' if order == '<' else 'be'}",
                group,
                lambda w=whole, e=exif: png(w, extra=chunk(b"eXIf", e)),
                RIGHT,
            )
    loop = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    for name, exif in {
        "loop": b"II*\0\x08\0\0\0" + loop,
        "huge-count": b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 1, 3, 2**32 - 1, 8) * 90,
        "99": exif_of(99, "<"),
        "cut": b"II*\0\xff\xff\xff\x7f",
    }.items():
        yield Odd(f"jpeg-exif-{name}", group, lambda e=exif: jpeg(exif=b"Exif\0\0" + e), RIGHT, "", 0.06)
    yield Odd("jpeg-gray", group, jpeg, RIGHT, "", 0.06)
    yield Odd("jpeg-progressive", group, lambda: jpeg(progressive=True), RIGHT, "", 0.06)
    yield Odd("jpeg-colours", group, lambda: jpeg(rgb), RIGHT, "", 0.06)
    yield Odd("jpeg-restarts", group, lambda: jpeg(restart_marker_blocks=7), RIGHT, "", 0.06)
    yield Odd("jpeg-fill-bytes", group, lambda: jpeg()[:2] + b"\xff" * 50_000 + jpeg()[2:], RIGHT, "", 0.06)
    yield Odd("jpeg-comment", group, lambda: jpeg()[:2] + b"\xff\xfe\0\x08SECRET" + jpeg()[2:], RIGHT, "", 0.06)
    yield Odd("jpeg-without-ending", group, lambda: jpeg()[:-2], RIGHT, "", 0.06)
    yield Odd("jpeg-12-bit", group, lambda: STREAMS["jpeg12"], REFUSED, "in DICOM files only")
    yield Odd("jpeg-lossless", group, lambda: STREAMS["lossless"], REFUSED, "in DICOM files only")
    yield Odd("jpeg-ls", group, lambda: STREAMS["jpegls"], REFUSED, "in DICOM files only")
    yield Odd("jpeg-2000", group, lambda: STREAMS["jpeg2000"], REFUSED, "JPEG 2000 file, not")


def exif_of(orientation: int, order: str) -> bytes:
    """An EXIF note that says how to turn a picture."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    tag = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return start + struct.pack(order + "IH", 8, 1) + tag + bytes(4)


def short() -> Iterator[Odd]:
    """Less or more data than a file says, in ways that decoders do not mind."""
    group = "cut, or of another size"
    rows = b"".join(b"\0" + row.tobytes() for row in CHEST8)
    line = WIDTH + 1
    for left in (0, 1, HEIGHT // 2, HEIGHT - 1):
        yield Odd(f"short-png-{left}-rows", group, lambda left=left: png(rows=rows[: left * line]), REFUSED)
    yield Odd("short-png-tall", group, lambda: png(rows=rows, size=(WIDTH, 3 * HEIGHT)), REFUSED, "fewer rows")
    yield Odd("short-png-narrow", group, lambda: png(rows=rows, size=(WIDTH - 1, HEIGHT)), REFUSED, "more pixels")
    yield Odd("short-png-wide", group, lambda: png(rows=rows, size=(WIDTH + 1, HEIGHT)), REFUSED)
    yield Odd("short-png-interlaced", group, lambda: png(rows=rows, interlace=1), REFUSED)
    lossy = {
        "gray": jpeg(),
        "progressive": jpeg(progressive=True),
        "restarts": jpeg(restart_marker_blocks=5),
        "colours": jpeg(np.repeat(CHEST8[..., None], 3, 2)),
    }
    black = CHEST8.copy()
    black[:, -24:] = 0  # a cut picture goes on like this
    lossy["black-edge"] = jpeg(black)
    for name, stream in lossy.items():
        start = stream.rindex(b"\xff\xda") + 14
        for share in (0.02, 0.3, 0.6, 0.9, 0.97):
            at = start + int((len(stream) - start) * share)
            for end, tail in {"cut": b"", "forged": b"\xff\xd9"}.items():
                cut = stream[:at].removesuffix(b"\xff") + tail
                yield Odd(f"short-jpeg-{name}-{end}-{share}", group, lambda cut=cut: cut, REFUSED)
                if name != "colours":
                    yield Odd(
                        f"short-dicom-jpeg8-{name}-{end}-{share}",
                        group,
                        lambda cut=cut: compressed("jpeg8", cut),
                        REFUSED,
                    )
    frame = jpeg().index(b"\xff\xc0")
    for name, size in {"taller": (2 * HEIGHT, WIDTH), "wider": (HEIGHT, WIDTH + 64), "0": (0, WIDTH)}.items():
        data = jpeg()[: frame + 5] + struct.pack(">HH", *size) + jpeg()[frame + 9 :]
        yield Odd(f"short-jpeg-{name}", group, lambda data=data: data, REFUSED)
    for kind in ("rle", "jpeg12", "lossless", "jpegls", "jpeg2000"):
        stream = STREAMS[kind]
        for share in (0.1, 0.5, 0.9, 0.97):
            cut = stream[: int(len(stream) * share)].removesuffix(b"\xff")
            for end, tail in {"cut": b"", "forged": b"\xff\xd9"}.items():
                yield Odd(
                    f"short-dicom-{kind}-{end}-{share}", group, lambda k=kind, s=cut + tail: compressed(k, s), REFUSED
                )
        for rows_, columns in ((HEIGHT + 1, WIDTH), (HEIGHT - 1, WIDTH), (HEIGHT, WIDTH // 2), (WIDTH, HEIGHT)):
            yield Odd(
                f"short-dicom-{kind}-as-{rows_}x{columns}",
                group,
                lambda k=kind, r=rows_, c=columns: compressed(k, Rows=r, Columns=c),
                HONEST if kind == "rle" else REFUSED,
            )
    for rows_, columns in (
        (HEIGHT + 1, WIDTH),
        (HEIGHT - 1, WIDTH),
        (HEIGHT // 2, WIDTH),
        (HEIGHT, WIDTH // 2),
        (HEIGHT, WIDTH - 1),
        (HEIGHT, WIDTH + 1),
        (0, WIDTH),
        (65535, WIDTH),
        (60000, 60000),
    ):
        yield Odd(
            f"short-dicom-as-{rows_}x{columns}", group, lambda r=rows_, c=columns: dicom(Rows=r, Columns=c), REFUSED
        )
    yield Odd("short-dicom-swapped", group, lambda: dicom(Rows=WIDTH, Columns=HEIGHT), HONEST)
    for missing in (2, 4, WIDTH * 2, HEIGHT * WIDTH):
        yield Odd(f"short-dicom-by-{missing}", group, lambda m=missing: dicom(pixels=CHEST12.tobytes()[:-m]), REFUSED)
    for more, allowed in ((1, RIGHT), (2, RIGHT), (100, RIGHT), (5000, NOTED)):
        yield Odd(
            f"short-dicom-padded-{more}", group, lambda m=more: dicom(pixels=CHEST12.tobytes() + bytes(m)), allowed
        )
    yield Odd("short-dicom-more-rows", group, lambda: dicom(pixels=CHEST12.tobytes() * 2), REFUSED, "more pixels")
    yield Odd("short-dicom-3-frames", group, lambda: dicom(NumberOfFrames="3"), REFUSED)
    yield Odd("short-dicom-jpeg-3-frames", group, lambda: compressed("jpeg8", NumberOfFrames="3"), REFUSED)


def damage() -> Iterator[Odd]:
    """Sound files, cut anywhere, or with bytes changed anywhere: seeds are fixed."""
    files = {
        "png": png(),
        "png16": png(CHEST16),
        "jpeg": jpeg(),
        "progressive": jpeg(progressive=True),
        "explicit": dicom(),
        "implicit": dicom(syntax=IMPLICIT),
        "deflated": dicom(syntax=DEFLATED),
        **{kind: compressed(kind) for kind in SYNTAXES},
    }
    for name, data in files.items():
        chance = random.Random(name)
        for n in range(12):
            at = chance.randrange(len(data) - 2)
            allowed = REFUSED if at < len(data) - 24 else RIGHT_OR_REFUSED
            yield Odd(f"damage-{name}-cut-{n}", "cut anywhere", lambda d=data, at=at: d[:at], allowed, "", 0.06)
        for n in range(16):
            changed = bytearray(data)
            head = 700 if n % 2 else len(data)
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(min(head, len(data)))] = chance.randrange(256)
            checked = name in ("png", "png16")  # their check sums tell
            allowed = HONEST if checked else ANY
            yield Odd(
                f"damage-{name}-bytes-{n}", "bytes changed anywhere", lambda c=bytes(changed): c, allowed, "", 0.06
            )


def hostile_files() -> Iterator[Odd]:
    """Small files that ask for much."""
    for name, (make, refused) in hostile.files().items():
        yield Odd(f"hostile-{name}", "asking for much", make, REFUSED if refused else ANY)
