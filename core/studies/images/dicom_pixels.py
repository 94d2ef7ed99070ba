"""Stored values of a DICOM file's first frame, whole or not at all (DICOM PS3.5 8 and annex A)."""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from imagecodecs import packbits_decode
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.uid import HTJ2K, JPEG2000, UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless

from core.studies.dicom_codecs import DECODERS
from core.studies.images import jpeg, jpeg2000
from core.studies.images.dicom_header import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, DamagedHeaderError, Header
from core.studies.images.png import DamagedPictureError
from core.studies.images.radiograph import check_size

_RLE = "1.2.840.10008.1.2.5"
_IN_FRAGMENTS = "1.2.840.10008.1.2.1.98"  # uncompressed, but written as if it were not
_UNCOMPRESSED = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_KNOWN = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", *_COLOURS)
_MAX_FRAGMENTS = 50_000  # ours
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_TORN = 0.3  # ours: `_rough` from row to row; a picture of the wrong width has more
_NOISE = 0.5  # ours: `_rough`; a picture of noise rather than of a body has more
_JUMPS = 1e-3  # ours: share of neighbours that differ by more than half of all levels; sharp edges make fewer


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file says that its pixels are stored; `read_pixels` mends what cannot be.

    Attributes:
        rows: of a frame.
        columns: of a frame.
        samples: numbers of a pixel.
        frames: pictures.
        allocated: bits of a number in memory.
        stored: bits of a number that count.
        high: the highest of them, from 0.
        signed: whether numbers are two's complements.
        planar: whether colours lie one after another.
        photometric: what the numbers mean.
    """

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: bool
    photometric: str


def read_layout(header: Header, name: str, notes: list[str]) -> Layout:
    """Read and check what a file says of its pixels.

    Raises:
        DamagedHeaderError: something is missing or of a kind that is not read.
        ImageError: a size that is not read.
    """

    def needed(tag: str) -> int:
        value = header.integer(tag)
        if value is None:
            raise DamagedHeaderError(f"is damaged: it does not say its {tag}")
        return value

    rows, columns, allocated = needed("Rows"), needed("Columns"), needed("BitsAllocated")
    stored, signed = needed("BitsStored"), needed("PixelRepresentation")
    frames = _frames(header, notes)
    photometric = " ".join(header.text("PhotometricInterpretation").split())
    if not photometric:
        raise DamagedHeaderError("is damaged: it does not say its PhotometricInterpretation")
    if photometric not in _KNOWN:
        raise DamagedHeaderError(f"has colours of a kind that is not read; known are {', '.join(_KNOWN)}")
    samples = header.integer("SamplesPerPixel")
    if samples is None:
        samples = 3 if photometric in _COLOURS else 1
        notes.append("The file does not say its SamplesPerPixel; they are taken from its kind of colours.")
    if samples not in (1, 3):
        raise DamagedHeaderError("is of a kind that is not read: its pixels have neither one value nor three colours")
    if (samples == 3) != (photometric in _COLOURS):
        raise DamagedHeaderError("contradicts itself: SamplesPerPixel do not fit its PhotometricInterpretation")
    if allocated not in (1, 8, 16, 32):
        raise DamagedHeaderError("packs its values in an unusual way: BitsAllocated is none of 1, 8, 16 and 32")
    if not 1 <= stored <= allocated:
        stored = allocated
        notes.append("The file says a BitsStored that cannot be; all bits are read.")
    if signed not in (0, 1):
        notes.append("The file says a PixelRepresentation that cannot be; its values are read without a sign.")
    high = header.integer("HighBit")
    if high is None:
        high = stored - 1
        notes.append("The file does not say its HighBit; it is taken as BitsStored - 1.")
    check_size(name, columns, rows, frames=frames, samples=samples)
    if frames > 1:
        notes.append(f"The file has {frames} frames; only the first is read.")
    planar = header.integer("PlanarConfiguration") == 1
    return Layout(
        rows, columns, samples, frames, allocated, stored, high, signed == 1, planar and samples == 3, photometric
    )


def _frames(header: Header, notes: list[str]) -> int:
    if header.get("NumberOfFrames") is None:
        return 1
    frames = header.integer("NumberOfFrames")
    if frames is None or frames < 1:
        notes.append("The file says a NumberOfFrames that cannot be; it is taken as 1.")
        return 1
    return frames


def read_pixels(header: Header, syntax: str, layout: Layout, notes: list[str]) -> tuple[npt.NDArray[Any], int]:
    """Decode the first frame.

    Returns:
        whole numbers (H, W), or RGB (H, W, 3) of unsigned ones, and how many bits they have.

    Raises:
        DamagedHeaderError: the pixels are not those that the header announces.
        DamagedPictureError: the same of a compressed picture.
    """
    element = header.get("PixelData")
    assert element is not None, "checked by the caller"
    if element.sized:
        if not element.whole:
            raise DamagedHeaderError("is cut off: it holds fewer pixels than its header says")
        if syntax and syntax not in _UNCOMPRESSED:
            notes.append("The file's transfer syntax says that its pixels are compressed, but they are not.")
        raw = _uncompressed(element.value, element.vr, header.little, layout, notes)
        return _settled(raw, layout, notes)
    if syntax in _UNCOMPRESSED:
        notes.append("The file's transfer syntax says that its pixels are not compressed, but they are.")
    stream = _first_frame(element.value, header.little, layout)
    if stream.startswith(jpeg.START):
        return _of_codestream(*_from_jpeg(stream, layout), layout, notes)
    if stream.startswith(jpeg2000.STARTS):
        return _of_codestream(*_from_jpeg2000(stream, layout), layout, notes)
    if syntax == _IN_FRAGMENTS:
        return _settled(
            _uncompressed(memoryview(stream), "OB", header.little, replace(layout, frames=1), notes), layout, notes
        )
    if syntax == _RLE:
        return _settled(_from_rle(stream, layout), layout, notes)
    raise DamagedHeaderError("is damaged, cut off, or compressed in an unknown way")


# --- uncompressed, and packed runs ---


def _uncompressed(value: memoryview, vr: str, little: bool, layout: Layout, notes: list[str]) -> npt.NDArray[Any]:
    """Unsigned numbers (H, W) or RGB (H, W, 3) of the first frame."""
    pixels = layout.rows * layout.columns
    halved = layout.photometric == "YBR_FULL_422"
    bits = pixels * (2 if halved else layout.samples) * layout.allocated
    frame = -(-bits // 8)
    expected, there = -(-bits * layout.frames // 8), len(value)
    if there < expected:
        raise DamagedHeaderError("is damaged or cut off: it holds fewer pixels than its header says")
    # Fewer bytes than a row or a column has are padding, and so are equal ones; with others, the size must be wrong.
    if there - expected >= max(2, min(layout.rows, layout.columns) * layout.samples * layout.allocated // 8):
        if value[expected:].tobytes().strip(value[expected : expected + 1]):
            raise DamagedHeaderError(
                "contradicts itself: it holds more pixels than its header says, so its size is wrong"
            )
        notes.append(
            "The file holds more data than its header says, all alike; if the picture looks torn, its size is wrong."
        )
    if layout.allocated == 1:
        flags = np.unpackbits(np.frombuffer(value[:frame], np.uint8), bitorder="little", count=pixels * layout.samples)
        return flags.reshape(layout.rows, layout.columns)
    if layout.allocated == 8 and vr == "OW" and not little:  # bytes were swapped two by two
        whole = np.frombuffer(value[: there // 2 * 2], ">u2")
        value = memoryview(whole.astype("<u2").tobytes())
    kind = np.dtype(f"{'<' if little else '>'}u{layout.allocated // 8}")
    numbers = np.frombuffer(value, kind, count=frame // kind.itemsize)
    numbers = numbers.astype(kind.newbyteorder("="), copy=False)
    if layout.samples == 1:
        return numbers.reshape(layout.rows, layout.columns)
    if halved:
        quads = numbers.reshape(layout.rows, -1, 4)
        colours = np.repeat(quads[..., 2:], 2, axis=1)
        numbers = np.dstack([quads[..., :2].reshape(layout.rows, -1), colours])
    elif layout.planar:
        numbers = np.moveaxis(numbers.reshape(3, layout.rows, layout.columns), 0, 2)
    return _rgb(numbers.reshape(layout.rows, layout.columns, 3), layout.photometric)


def _rgb(numbers: npt.NDArray[Any], photometric: str) -> npt.NDArray[Any]:
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        if numbers.dtype != np.uint8:
            raise DamagedHeaderError("has colours of a kind that is not read: brightness and hue in more than 8 bits")
        return np.asarray(convert_color_space(numbers, photometric, "RGB"))
    return np.ascontiguousarray(numbers)


def _from_rle(stream: bytes, layout: Layout) -> npt.NDArray[Any]:
    """PS3.5 annex G: each byte of a number is a segment of its own, the highest first."""
    width = layout.allocated // 8
    count = layout.samples * width
    if len(stream) < 64 or width == 0:
        raise DamagedPictureError("is damaged")
    segments, *offsets = struct.unpack("<16I", stream[:64])
    if segments != count:
        raise DamagedPictureError("is damaged: its layers are not as many as its header says")
    stops = [*offsets[1:count], len(stream)]
    size = layout.rows * layout.columns
    planes = np.empty((layout.samples, size, width), np.uint8)
    room = bytearray(size + 128)  # the last run may be longer than the row
    for place, (start, stop) in enumerate(zip(offsets[:count], stops, strict=True)):
        if not 64 <= start <= stop <= len(stream):
            raise DamagedPictureError("is damaged")
        try:
            plane = packbits_decode(stream[start:stop], out=room)
        except Exception as error:
            raise DamagedPictureError("is damaged, or has more pixels than its header says") from error
        if len(plane) < size:
            raise DamagedPictureError("is cut off: it has fewer pixels than its header says")
        if len(plane) - size >= min(layout.rows, layout.columns):
            raise DamagedPictureError("has more pixels than its header says")
        planes[place // width, :, width - 1 - place % width] = np.frombuffer(plane, np.uint8, count=size)
    numbers = planes.view(f"<u{width}")[..., 0].reshape(layout.samples, layout.rows, layout.columns)
    return numbers[0] if layout.samples == 1 else _rgb(np.moveaxis(numbers, 0, 2), layout.photometric)


# --- compressed ---


def _first_frame(value: memoryview, little: bool, layout: Layout) -> bytes:
    """Join the fragments of the first frame (PS3.5 A.4)."""
    fragments: list[memoryview] = []
    starts: list[int] = []
    at, order = 0, "<" if little else ">"
    while at + 8 <= len(value):
        group, low, length = struct.unpack_from(order + "HHI", value, at)
        tag = group << 16 | low
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or at + 8 + length > len(value) or len(fragments) == _MAX_FRAGMENTS:
            raise DamagedHeaderError("is damaged, cut off, or compressed in an unknown way")
        starts.append(at)
        fragments.append(value[at + 8 : at + 8 + length])
        at += 8 + length
    if len(fragments) < 2:
        raise DamagedHeaderError("is damaged, cut off, or compressed in an unknown way")
    table, *fragments = fragments
    first = len(fragments)
    if layout.frames > 1:
        if len(fragments) < layout.frames:
            raise DamagedHeaderError("is cut off: it has fewer frames than it says")
        if len(table) >= 8:
            (second,) = struct.unpack_from(order + "I", table, 4)
            first = next((i for i in range(1, first) if starts[i + 1] - starts[1] >= second), 1)
        else:
            opening = (jpeg.START, *jpeg2000.STARTS)
            first = next((i for i in range(1, first) if bytes(fragments[i][:12]).startswith(opening)), 1)
    return b"".join(fragments[:first])


def _from_jpeg(stream: bytes, layout: Layout) -> tuple[npt.NDArray[Any], int]:
    parsed = jpeg.bare(jpeg.parse_jpeg(stream))
    jpeg.check_scans(parsed)
    _check_same(parsed.width, parsed.height, len(parsed.components), layout)
    if parsed.process in jpeg.JPEG_LS:
        return _decoded(JPEGLSLossless, parsed.data, parsed.precision, layout), parsed.precision
    if parsed.process in jpeg.LOSSLESS:
        syntax = JPEGLosslessSV1
    else:
        syntax = JPEGBaseline8Bit if parsed.precision == 8 else JPEGExtended12Bit
    stream = jpeg.repaired(parsed)
    pixels = _decoded(syntax, stream, parsed.precision, layout)
    last_block = pixels[(layout.rows - 1) // 8 * 8 :, (layout.columns - 1) // 8 * 8 :]
    if jpeg.may_be_cut(parsed, last_block):
        again = _decoded(syntax, jpeg.continued(parsed, stream), parsed.precision, layout)
        if not np.array_equal(pixels, again):
            raise DamagedPictureError("is cut off: it has fewer pixels than its header says")
    return pixels, parsed.precision


def _from_jpeg2000(stream: bytes, layout: Layout) -> tuple[npt.NDArray[Any], int]:
    parsed = jpeg2000.parse_jpeg2000(stream)
    _check_same(parsed.width, parsed.height, parsed.samples, layout)
    syntax = HTJ2K if parsed.high_throughput else JPEG2000
    return _decoded(syntax, parsed.data, parsed.precision, layout, signed=parsed.signed), parsed.precision


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's account of what a decoder did not like out of the log: the message to the reader says it."""
    log, nothing = logging.getLogger("pydicom.pixels.decoders.base"), lambda _: False
    log.addFilter(nothing)
    try:
        yield
    finally:
        log.removeFilter(nothing)


def _check_same(width: int, height: int, samples: int, layout: Layout) -> None:
    if (width, height) != (layout.columns, layout.rows):
        raise DamagedPictureError("is of another size than the file's header says")
    if samples != layout.samples:
        raise DamagedPictureError("has other colours than the file's header says")


def _decoded(syntax: UID, stream: bytes, precision: int, layout: Layout, *, signed: bool = False) -> npt.NDArray[Any]:
    """Numbers (H, W) or RGB (H, W, 3) of a codestream, unsigned: two's complements stay as they are."""
    options = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": layout.samples,
        "bits_allocated": 8 if precision <= 8 else 16,
        "bits_stored": precision,
        "pixel_representation": int(signed),
        "photometric_interpretation": layout.photometric if layout.samples == 3 else "MONOCHROME2",
        "planar_configuration": 0,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OB",
    }
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the codestream says otherwise than the header; it was checked
            pixels, _ = get_decoder(syntax).as_array(
                encapsulate([stream]), index=0, decoding_plugin=DECODERS[syntax], **options
            )
    except MemoryError:
        raise
    except Exception:
        raise DamagedPictureError("is damaged or cut off") from None
    return np.asarray(pixels).view(f"u{pixels.itemsize}")


# --- what the header says of bits and signs ---


def _settled(raw: npt.NDArray[Any], layout: Layout, notes: list[str]) -> tuple[npt.NDArray[Any], int]:
    """Values of unsigned numbers that may hold other things above, below or among the bits that count."""
    bits = layout.stored
    if raw.ndim == 3 or layout.allocated == 1:
        return raw, bits
    if _rough(raw.T) > _TORN and _rough(raw.reshape(raw.shape[::-1]).T) < _rough(raw.T) / 2:
        raise DamagedHeaderError("contradicts itself: its Rows and Columns are swapped")
    if raw.itemsize == 2 and _rough(raw) > _NOISE and _rough(swapped := raw.byteswap()) < _rough(raw) / 2:
        raw = swapped
        notes.append("The file's values are written in another byte order than it says; they are read so.")
    shift = layout.high + 1 - bits
    if shift:
        shifted = 0 < shift <= layout.allocated - bits and int(raw.max()) >> bits
        notes.append(
            "The file keeps its grey levels in the upper bits, an outdated layout."
            if shifted
            else "The file says a HighBit that does not fit its values; it is ignored."
        )
        if shifted:
            raw = raw >> shift
    if bits < layout.allocated and int(raw.max()) >> bits:
        wide = _sign_extended(raw, layout.allocated) if layout.signed else raw
        if _goes_on(wide, bits):
            notes.append(f"The file says that its values have {bits} bits, but they have more; all are read.")
            largest = max(int(wide.max()), -1 - int(wide.min()))
            return wide, min(layout.allocated, largest.bit_length() + layout.signed)
        raw = raw & np.array((1 << bits) - 1, raw.dtype)
    return _signed(raw, bits, layout, notes)


def _signed(raw: npt.NDArray[Any], bits: int, layout: Layout, notes: list[str]) -> tuple[npt.NDArray[Any], int]:
    """Numbers with the sign that the file says, or with the other where only that one makes a picture."""
    if raw.ndim == 3 or bits < 2 or not int(raw.max()) >> (bits - 1):
        return raw, bits  # no number has the bit of the sign
    readings = {True: _sign_extended(raw, bits), False: raw}
    said, other = (_jumps(readings[signed], raw, bits) for signed in (layout.signed, not layout.signed))
    signed = layout.signed
    if said > _JUMPS and other < said / 4:
        signed = not signed
        notes.append("The file's PixelRepresentation does not fit its values; they are read with the other sign.")
    return readings[signed], bits


def _of_codestream(
    raw: npt.NDArray[Any], precision: int, layout: Layout, notes: list[str]
) -> tuple[npt.NDArray[Any], int]:
    """Values of a codestream's numbers, which may be coded with more bits than count, but are in the usual layout."""
    if layout.stored < precision:
        return _settled(raw, replace(layout, allocated=8 * raw.itemsize, high=layout.stored - 1), notes)
    return _signed(raw, precision, layout, notes)


def _sign_extended(raw: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    shift = np.array(raw.itemsize * 8 - bits, raw.dtype)
    return (raw << shift).view(f"i{raw.itemsize}") >> shift.astype(f"i{raw.itemsize}")


def _rows(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Some rows, enough to see how smooth a picture is."""
    return values[:: max(1, len(values) // 256)].astype(np.int64)


def _goes_on(wide: npt.NDArray[Any], bits: int) -> bool:
    """Whether the bits above those that count belong to the values: without them the picture jumps or is noise."""
    full = _rows(wide)
    kept = full & ((1 << bits) - 1)
    if full.min() < 0:
        kept -= (kept >> (bits - 1)) << bits
    steps, kept_steps = np.abs(np.diff(full, axis=1)), np.abs(np.diff(kept, axis=1))
    half = 1 << (bits - 1)
    wraps = float(((kept_steps >= half) & (steps < half)).mean())
    broken = float(((steps >= half) & (kept_steps < half)).mean())
    return wraps > broken or (_rough(kept) > _NOISE and _rough(full) < _rough(kept) / 2)


def _rough(values: npt.NDArray[Any]) -> float:
    """Mean step between neighbours in standard deviations: 1.1 of noise, some 0.1 of a radiograph."""
    few = _rows(values)
    return float(np.abs(np.diff(few, axis=1)).mean() / (few.std() + 1e-9))


def _jumps(values: npt.NDArray[Any], raw: npt.NDArray[Any], bits: int) -> float:
    """Share of neighbours that differ by half of all levels or more; what is all black or white is left out."""
    ends = _rows(raw)
    inside = (ends > 0) & (ends < (1 << bits) - 1)
    far = np.abs(np.diff(_rows(values), axis=1)) >= 1 << (bits - 1)
    return float((far & inside[:, 1:] & inside[:, :-1]).mean())
