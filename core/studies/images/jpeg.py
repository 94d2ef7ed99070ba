"""What a JPEG or JPEG-LS stream says, before it is decoded (ITU-T T.81 annex B, T.87 annex C)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.studies.images.png import DamagedPictureError

START = b"\xff\xd8\xff"

SEQUENTIAL, PROGRESSIVE, LOSSLESS, JPEG_LS = (0xC0, 0xC1), (0xC2,), (0xC3,), (0xF7,)
_KINDS = {0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical", 0xDE: "hierarchical"} | dict.fromkeys(
    (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xCC), "arithmetically coded"
)
_FRAMES = (*SEQUENTIAL, *PROGRESSIVE, *LOSSLESS, *JPEG_LS)
MAX_SCANS = 40  # ours: programs write up to 14; each costs time over the whole picture
_MAX_PARTS = 20_000  # ours: segments
_KEPT = (0xE0, 0xEE)  # JFIF and Adobe say what the colours mean
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not a stuffed zero, a fill byte or a restart
_END_OF_LS_SCAN = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")  # JPEG-LS stuffs one bit
NOISE = np.random.default_rng(0).integers(1, 255, 512, dtype=np.uint8).tobytes()
_ENDING = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Scan:
    """One pass over the picture.

    Attributes:
        components: which colours.
        band: first and last coefficient, and the bits of the coefficients before and after the scan.
        header: where the four bytes of the band are: the last three bytes of the scan's header.
        stop: where its data end.
        restarts: marks in its data from which a decoder can go on.
    """

    components: tuple[int, ...]
    band: tuple[int, int, int, int]
    header: int
    stop: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A stream.

    Attributes:
        process: the frame's marker.
        precision: bits of a number.
        width: pixels.
        height: pixels.
        components: (id, samples across, samples down) of each colour.
        interval: units between two restarts in the last scan; 0 is none.
        scans: in their order.
        segments: (marker, start, stop) of all others; fill bytes have the marker 0xFF.
        ended: whether it says where it ends.
        data: the stream up to its end, with an ending.
    """

    process: int
    precision: int
    width: int
    height: int
    components: tuple[tuple[int, int, int], ...]
    interval: int
    scans: tuple[Scan, ...]
    segments: tuple[tuple[int, int, int], ...]
    ended: bool
    data: bytes


def parse_jpeg(data: bytes) -> Jpeg:
    """Walk through the segments.

    Raises:
        DamagedPictureError: it is cut off, against the standard, of a kind that is not read, or too slow to decode.
    """
    at, interval, ended = 2, 0, False
    frame: tuple[int, int, int, int, tuple[tuple[int, int, int], ...]] | None = None
    scans: list[Scan] = []
    segments: list[tuple[int, int, int]] = []
    while True:
        filled, at = at, _marker(data, at)
        if at > filled:
            segments.append((0xFF, filled, at))
        if at < 0:
            if not scans:
                raise DamagedPictureError("is cut off")
            break  # without an ending: whether all pixels are there is measured
        marker = data[at + 1]
        if marker == 0xD9:
            ended = True
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        stop = at + 2 + length
        body = data[at + 4 : stop]
        if marker in _KINDS:
            raise DamagedPictureError(f"is a JPEG of a kind that hardly any program reads ({_KINDS[marker]})")
        if length < 2 or marker in (0x01, 0xD8, 0xDC) or 0xD0 <= marker <= 0xD7:
            raise DamagedPictureError("is damaged")
        if stop > len(data):
            raise DamagedPictureError("is cut off")
        if len(segments) + len(scans) > _MAX_PARTS:
            raise DamagedPictureError("consists of too many parts to be a radiograph")
        if marker in _FRAMES:
            if frame is not None or scans:
                raise DamagedPictureError("is damaged: it says its size twice")
            frame = _frame(marker, body)
        if marker == 0xDD and length == 4:
            interval = int.from_bytes(body, "big")
        if marker != 0xDA:
            segments.append((marker, at, stop))
            at = stop
            continue
        if frame is None:
            raise DamagedPictureError("is damaged: its pixels come before its size")
        if len(scans) == MAX_SCANS:
            raise DamagedPictureError(f"is made of more than {MAX_SCANS} layers, which no camera or archive writes")
        ending = (_END_OF_LS_SCAN if marker_is_ls(frame[0]) else _END_OF_SCAN).search(data, stop)
        end = ending.start() if ending else len(data)
        scans.append(_scan(body, stop, end, data, interval))
        at = end
    if frame is None or not scans:
        raise DamagedPictureError("has no pixels")
    whole = (data[:at] if ended else data) + _ENDING
    return Jpeg(*frame, interval, tuple(scans), tuple(segments), ended, whole)


def marker_is_ls(process: int) -> bool:
    """Whether a frame is JPEG-LS."""
    return process in JPEG_LS


def _marker(data: bytes, at: int) -> int:
    """Where the next marker is, -1 at the end of the data; before it only fill bytes may come."""
    if at >= len(data) - 1:
        return -1
    if data[at] != 0xFF:
        raise DamagedPictureError("is damaged")
    while data[at + 1] == 0xFF:
        run = re.compile(rb"\xff*").match(data, at)
        at = run.end() - 1  # type: ignore[union-attr]  # it matches
        if at >= len(data) - 1:
            return -1
    return at


def _frame(marker: int, body: bytes) -> tuple[int, int, int, int, tuple[tuple[int, int, int], ...]]:
    if len(body) < 6 or len(body) != 6 + 3 * body[5] or not 1 <= body[5] <= 4:
        raise DamagedPictureError("is damaged: its size cannot be read")
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    components = tuple((body[i], body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, len(body), 3))
    if not all(1 <= across <= 4 and 1 <= down <= 4 for _, across, down in components):
        raise DamagedPictureError("is damaged: its size cannot be read")
    return marker, body[0], width, height, components


def _scan(body: bytes, start: int, stop: int, data: bytes, interval: int) -> Scan:
    if len(body) < 4 or len(body) != 4 + 2 * body[0]:
        raise DamagedPictureError("is damaged")
    components = tuple(body[1 + 2 * i] for i in range(body[0]))
    band = (body[-3], body[-2], body[-1] >> 4, body[-1] & 15)
    restarts = sum(data.count(bytes([0xFF, 0xD0 + i]), start, stop) for i in range(8)) if interval else 0
    return Scan(components, band, start - 3, stop, restarts)


def bodies(jpeg: Jpeg, marker: int) -> list[bytes]:
    """What stands in the segments of a kind."""
    return [jpeg.data[start + 4 : stop] for each, start, stop in jpeg.segments if each == marker]


def bare(jpeg: Jpeg) -> Jpeg:
    """The same picture without notes, colour profiles, thumbnails, comments and fill bytes."""
    parts, at = [], 0
    for marker, start, stop in jpeg.segments:
        if marker not in _KEPT and (0xE0 <= marker <= 0xEF or marker in (0xFE, 0xFF)):
            parts.append(jpeg.data[at:start])
            at = stop
    return replace(parse_jpeg(b"".join([*parts, jpeg.data[at:]])), ended=jpeg.ended) if parts else jpeg


def repaired(jpeg: Jpeg) -> bytes:
    """The stream with what a sequential JPEG's scan must say: all 64 coefficients at once (T.81 table B.3).

    Encoders exist that write 0 as the last coefficient, among them that of the test images of DICOM's working group 4.
    """
    if jpeg.process not in SEQUENTIAL or all(scan.band == (0, 63, 0, 0) for scan in jpeg.scans):
        return jpeg.data
    stream = bytearray(jpeg.data)
    for scan in jpeg.scans:
        stream[scan.header : scan.header + 3] = b"\x00\x3f\x00"
    return bytes(stream)


def check_scans(jpeg: Jpeg) -> None:
    """Check that the scans together hold the whole picture, as far as headers tell.

    Raises:
        DamagedPictureError: a colour, some coefficients, or a restart is missing.
    """
    known = {component for component, _, _ in jpeg.components}
    if jpeg.process in PROGRESSIVE:
        bits = {(component, k): 99 for component in known for k in range(64)}
        for scan in jpeg.scans:
            for component in scan.components:
                for k in range(scan.band[0], min(scan.band[1], 63) + 1):
                    bits[component, k] = scan.band[3]
        if any(bits.values()):
            raise DamagedPictureError("is cut off: its last layers are missing")
    elif {component for scan in jpeg.scans for component in scan.components} != known:
        raise DamagedPictureError("is cut off: a part of its colours is missing")
    if jpeg.interval and len(jpeg.scans) == 1 and jpeg.process in SEQUENTIAL:
        across = max(x for _, x, _ in jpeg.components) if len(jpeg.components) > 1 else 1
        down = max(y for _, _, y in jpeg.components) if len(jpeg.components) > 1 else 1
        units = -(-jpeg.width // (8 * across)) * -(-jpeg.height // (8 * down))
        if jpeg.scans[0].restarts < -(-units // jpeg.interval) - 1:
            raise DamagedPictureError("is cut off: it has fewer rows than its header says")


def continued(jpeg: Jpeg, stream: bytes) -> bytes:
    """The stream with noise after the data of each scan: a whole picture does not change by it, a cut one does.

    A decoder that runs out of data fills up with gray and says nothing; so whether all data are there is seen only so.
    """
    parts, at = [], 0
    for scan in jpeg.scans:
        parts += [stream[at : scan.stop], NOISE]
        at = scan.stop
    return b"".join([*parts, stream[at:]])


def may_be_cut(jpeg: Jpeg, last_block: npt.NDArray[Any]) -> bool:
    """Whether `continued` must be decoded as well: not if the last block of a sequential picture holds something.

    Args:
        jpeg: the stream.
        last_block: (h, w) or (h, w, colours), the decoded pixels of its last block of 8 x 8.
    """
    if not jpeg.ended or jpeg.process not in SEQUENTIAL or len(jpeg.scans) > 1:
        return True
    return bool((last_block == last_block[:1, :1]).all())
