"""Pieces of image files: a formula chest, PNG chunks, JPEG streams, DICOM elements written byte by byte.

DICOM files are written here, not by pydicom, for most of them say what no library would write.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from core.studies.images.dicom_header import KEPT

HEIGHT, WIDTH = 144, 120

EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
SYNTAXES = {
    "rle": "1.2.840.10008.1.2.5",
    "jpeg8": "1.2.840.10008.1.2.4.50",
    "jpeg12": "1.2.840.10008.1.2.4.51",
    "lossless": "1.2.840.10008.1.2.4.70",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
}


def chest(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A formula that looks like a chest from afar: (H, W) in [0, 1], dark lungs, fine ribs."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = (y + 0.5) / height, (x + 0.5) / width

    def spot(cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return np.asarray(np.exp(-(((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2)))

    image = 0.55 + 0.25 * y - 0.5 * (spot(0.27, 0.45, 0.16, 0.3) + spot(0.73, 0.45, 0.16, 0.3))
    image += (
        0.2 * spot(0.5, 0.6, 0.1, 0.3) + 0.04 * np.sin(60 * y) - 0.35 * (spot(0, 0, 0.2, 0.2) + spot(1, 0, 0.2, 0.2))
    )
    image += 0.01 * np.sin(7919 * x * y)  # a little grain
    image = (image - image.min()) / np.ptp(image)
    return np.asarray(image)


CHEST = chest()
CHEST8 = np.round(CHEST * 255).astype(np.uint8)
CHEST12 = np.round(CHEST * 4095).astype(np.uint16)
CHEST16 = np.round(CHEST * 65535).astype(np.uint16)


# --- PNG ---


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    values: np.ndarray = CHEST8,
    *,
    size: tuple[int, int] | None = None,
    depth: int | None = None,
    colour: int = 0,
    interlace: int = 0,
    rows: bytes | None = None,
    extra: bytes = b"",
    flags: tuple[int, int] = (0, 0),
) -> bytes:
    """A PNG file of values (H, W) or (H, W, samples); what it says may be overridden."""
    width, height = size or (values.shape[1], values.shape[0])
    depth = depth or values.dtype.itemsize * 8
    if rows is None:
        big = values.astype(values.dtype.newbyteorder(">"))
        rows = b"".join(b"\0" + row.tobytes() for row in big)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, *flags, interlace)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- JPEG ---


def jpeg(values: np.ndarray = CHEST8, **options: Any) -> bytes:
    """An 8-bit JPEG by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG", **({"quality": 97} | options))
    return buffer.getvalue()


def jpeg12(values: np.ndarray = CHEST12, *, lossless: bool = False) -> bytes:
    """A 12-bit JPEG by libjpeg-turbo."""
    if lossless:
        return bytes(imagecodecs.jpeg8_encode(values, bitspersample=12, lossless=True))
    return bytes(imagecodecs.jpeg8_encode(values, level=97, bitspersample=12))


def jpeg_ls(values: np.ndarray = CHEST12) -> bytes:
    """A JPEG-LS stream by CharLS."""
    return bytes(imagecodecs.jpegls_encode(values))


def jpeg2000(values: np.ndarray = CHEST12) -> bytes:
    """A reversible JPEG 2000 codestream by OpenJPEG."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
    return buffer.getvalue()


def rle(values: np.ndarray = CHEST12) -> bytes:
    """A frame in DICOM's RLE (PS3.5 annex G)."""
    planes = values.astype(values.dtype.newbyteorder(">")).reshape(-1, 1).view(np.uint8)
    segments = []
    for place in range(values.dtype.itemsize):
        rows = np.ascontiguousarray(planes[:, place]).reshape(values.shape)
        segment = b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    starts = np.cumsum([64, *(len(segment) for segment in segments[:-1])])
    header = struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


# --- DICOM ---

LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")


class Raw:
    """A value written as it is, of a kind of our choice."""

    def __init__(self, vr: str, body: bytes) -> None:
        self.vr, self.body = vr, body


def element(
    tag: int, vr: str, body: bytes, *, implicit: bool = False, order: str = "<", length: int | None = None
) -> bytes:
    """A DICOM element."""
    body += b"\0" * (len(body) % 2) if vr in (*LONG, "UI", "US", "SS") else b" " * (len(body) % 2)
    length = len(body) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack(order + "I", length) + body
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", length) + body
    return head + vr.encode() + struct.pack(order + "H", length & 0xFFFF) + body


def encoded(vr: str, value: Any, order: str) -> bytes:
    """A value's bytes."""
    if isinstance(value, bytes):
        return value
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if vr in ("US", "SS"):
        return struct.pack(order + ("H" if vr == "US" else "h") * len(values), *values)
    return "\\".join(str(each) for each in values).encode("latin-1")


def table(
    entries: np.ndarray, first: int, bits: int, *, count: int | None = None, vr: str = "US", implicit: bool = False
) -> bytes:
    """The item of a lookup table's sequence."""
    descriptor = struct.pack("<H", (len(entries) if count is None else count) % 2**16)
    descriptor += struct.pack("<h" if first < 0 else "<H", first) + struct.pack("<H", bits)
    body = element(0x00283002, vr, descriptor, implicit=implicit)
    body += element(0x00283006, "OW", entries.tobytes(), implicit=implicit)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def fragments(stream: bytes, parts: int = 1, *, ending: bool = True) -> bytes:
    """A compressed frame as pixel data."""
    stream += b"\0" * (len(stream) % 2)
    step = -(-len(stream) // parts)
    step += step % 2
    pieces = [b"", *(stream[at : at + step] for at in range(0, len(stream), step))]
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece for piece in pieces)
    return body + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if ending else b"")


def dicom(
    values: np.ndarray = CHEST12,
    *,
    bits: int | None = None,
    syntax: str | None = EXPLICIT,
    pixels: bytes | None = None,
    stream: bytes | None = None,
    preamble: bool = True,
    window: bool = True,
    extra: bytes = b"",
    **tags: Any,
) -> bytes:
    """A DICOM file of values (H, W), compressed where a stream is given; a tag of None is left out."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    implicit = syntax in (IMPLICIT, None)
    bits = bits or {1: 8, 2: 12}[values.dtype.itemsize]
    said: dict[str, Any] = {
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": values.dtype.itemsize * 8,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
    }
    if window:
        said |= {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    said |= tags
    parts: dict[int, bytes] = {}
    for name, value in said.items():
        if value is not None:
            tag, vr = KEPT[name]
            vr = value.vr if isinstance(value, Raw) else vr
            body = value.body if isinstance(value, Raw) else encoded(vr, value, order)
            parts[tag] = element(tag, vr, body, implicit=implicit, order=order)
    name = element(0x00100010, "PN", b"SECRET^NAME", implicit=implicit, order=order)
    parts[0x00100010] = name
    if stream is not None:
        pixel_data = struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0\xff\xff\xff\xff" + fragments(stream)
    else:
        raw = values.astype(values.dtype.newbyteorder(order)).tobytes() if pixels is None else pixels
        pixel_data = element(0x7FE00010, "OW", raw, implicit=implicit, order=order)
    body = b"".join(parts[tag] for tag in sorted(parts)) + extra + pixel_data
    meta = element(0x00020002, "UI", b"1.2.840.10008.5.1.4.1.1.1.1")
    if syntax is not None:
        meta += element(0x00020010, "UI", syntax.encode())
    if syntax == DEFLATED:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(body) + packer.flush()
    return (bytes(128) + b"DICM" + meta if preamble else b"") + body


STREAMS = {
    "rle": rle(),
    "jpeg8": jpeg(),
    "jpeg12": jpeg12(),
    "lossless": jpeg12(lossless=True),
    "jpegls": jpeg_ls(),
    "jpeg2000": jpeg2000(),
}


def compressed(kind: str, stream: bytes | None = None, **tags: Any) -> bytes:
    """The chest in one of the codings of `SYNTAXES`, or another stream in its place."""
    stream = STREAMS[kind] if stream is None else stream
    return dicom(CHEST8 if kind == "jpeg8" else CHEST12, syntax=SYNTAXES[kind], stream=stream, **tags)


def said_size(stream: bytes, width: int, height: int) -> bytes:
    """A JPEG that says another size."""
    frame = next(at for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7) if (at := stream.find(bytes([0xFF, marker]))) > 0)
    return stream[: frame + 5] + struct.pack(">HH", height, width) + stream[frame + 9 :]
