"""Stored values of a gray DICOM image -> what is shown: bright = dense, in [0, 1].

Order: modality table or rescale, then VOI table, window or the picture's own range, then polarity (DICOM PS3.4 N.2).
What a file says of it is advice: each step is checked, one that cannot be right is left out, and a note tells so.
All steps map one stored value to one shown value, so they are worked out once for each level, not for each pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.studies.images.dicom_header import Header
from core.studies.images.radiograph import Grey, row_bands, unit
from core.types import FloatImage

Levels = npt.NDArray[np.float64]
Window = tuple[float, float]
"""Centre and width, in modality units."""

_MOST_LEVELS = 2**16
_MOST_CLIPPED = 0.5  # a window or table that makes more than this black or white is not for this picture
_FEWEST_LEVELS = 0.15  # ours: share of [0, 1] that a window or table must use; 12-bit values shown as 16 bits use 1/16
_FEW = 0.1  # ours: share of the picture
_MOST_PADDING = 0.75  # ours: share of the picture
_OWN_RANGE = "its darkest and brightest values are taken as black and white."


@dataclass(frozen=True, slots=True)
class _Histogram:
    """The stored values that may occur.

    Attributes:
        stored: (L,) values, rising.
        counts: (L,) pixels of each, without padding.
    """

    stored: Levels
    counts: npt.NDArray[np.int64]

    def inner(self) -> npt.NDArray[np.bool_]:
        """Levels of the picture without its background, which is all black or white and may well be large."""
        low, high = self.stored[self.places_of([0.01, 0.99])]
        margin = (high - low) / 64
        inner = (self.stored > low + margin) & (self.stored < high - margin)
        return inner if self.share(inner) > _FEW else self.counts > 0

    def places_of(self, shares: list[float]) -> npt.NDArray[np.intp]:
        """Levels below which such shares of the pixels lie."""
        return np.searchsorted(np.cumsum(self.counts), np.array(shares) * self.counts.sum())

    def share(self, which: npt.NDArray[np.bool_]) -> float:
        """Of the pixels, those with such a value."""
        return float(self.counts[which].sum() / max(int(self.counts.sum()), 1))


@dataclass(frozen=True, slots=True)
class _Table:
    """A lookup table.

    Attributes:
        first: the value that the first entry stands for, and all below it.
        entries: (N,) numbers.
        bits: of an entry, as the file says.
        whole: whether there are as many entries as the file says.
    """

    first: int
    entries: npt.NDArray[Any]
    bits: int
    whole: bool

    @property
    def fits(self) -> bool:
        """Whether the entries are as wide as the file says: they use more than a quarter of their levels."""
        return self.bits - 1 <= int(self.entries.max()).bit_length() <= self.bits <= 16

    @property
    def white(self) -> float:
        """The entry that stands for white."""
        return float(2**self.bits - 1 if self.fits else self.entries.max())

    def at(self, values: Levels) -> npt.NDArray[Any]:
        """Entries for values (L,)."""
        entries: npt.NDArray[Any] = self.entries[
            np.clip(values - self.first, 0, len(self.entries) - 1).astype(np.int64)
        ]
        return entries


def show(
    values: npt.NDArray[Any], bits: int, header: Header, photometric: str, notes: list[str]
) -> tuple[FloatImage, Grey | None]:
    """Map stored values to what is shown.

    Args:
        values: (H, W) whole numbers.
        bits: that count.
        header: what the file says.
        photometric: "MONOCHROME1" or "MONOCHROME2".
        notes: sentences for the reader are added here.

    Returns:
        (H, W) in [0, 1]; and the values that a reader chooses a window of, None where the file shows them by a table or
        an S-shaped curve, which no window is.
    """
    places, stored, counts = _levels(values)
    padding = _padding(stored, counts, bits, header, notes)
    histogram = _Histogram(stored, np.where(padding, 0, counts))
    modality = _modality(stored, header, notes)
    shown, window = _shown(histogram, modality, header, notes)
    inverse = _inverse(header, photometric, notes)
    if inverse:
        shown = 1 - shown
    shown[padding] = 0  # padding is black, whatever its number
    found = None if window is None else _numbered(modality, padding, inverse)
    pixels = np.empty(values.shape, np.float32)
    levels = np.empty(values.shape if found else (0, 0), np.uint16)
    for rows in row_bands(values.shape):
        at = places(values[rows])
        np.take(shown, at, out=pixels[rows])
        if found:
            np.take(found[0], at, out=levels[rows])
    if found is None or window is None:
        return pixels, None
    levels.flags.writeable = False
    return pixels, Grey(levels, found[1], found[2], window, inverse)


def _numbered(
    modality: Levels, padding: npt.NDArray[np.bool_], inverse: bool
) -> tuple[npt.NDArray[np.uint16], float, float] | None:
    """Number values (L,) in modality units: (L,) numbers, the value of number 0, and the step from one to the next.

    Whole values keep themselves where they fit into 16 bits, others are rounded. None where all values are padding.
    """
    there = modality[~padding]
    if not there.size or not there.min() < there.max():
        return None
    low, high = float(there.min()), float(there.max())
    whole = high - low < _MOST_LEVELS and bool((there == np.round(there)).all())
    step = 1.0 if whole else (high - low) / (_MOST_LEVELS - 1)
    numbers = np.round((np.clip(modality, low, high) - low) / step).astype(np.uint16)
    numbers[padding] = numbers[~padding].max() if inverse else 0
    return numbers, low, step


def palette(values: npt.NDArray[Any], header: Header, notes: list[str]) -> npt.NDArray[np.uint8] | None:
    """Colours (H, W, 3) of indices (H, W), None where the file's palette cannot be read (DICOM PS3.3 C.7.6.3.1.5)."""
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = [_table(header, f"{name}Descriptor", f"{name}Data") for name in names]
    picture = np.empty((*values.shape, 3), np.uint8)
    white = 255 if all(table is not None and table.entries.max() < 256 for table in tables) else 2**16 - 1
    for channel, table in enumerate(tables):
        if table is None or not table.whole:
            return None
        levels = np.round(table.entries * (255 / white)).astype(np.uint8)
        for rows in row_bands(values.shape):
            picture[rows, :, channel] = levels[np.clip(values[rows].astype(np.int64) - table.first, 0, len(levels) - 1)]
    notes.append("The file is in palette colours; it is read as gray.")
    return picture


def _levels(values: npt.NDArray[Any]) -> tuple[Any, Levels, npt.NDArray[np.int64]]:
    """Return a function from values to places, the value at each place, and how many pixels have it."""
    low, high = int(values.min()), int(values.max())
    step = -(-(high - low + 1) // _MOST_LEVELS)  # 1, but for 32-bit values

    def places(part: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        return (part.astype(np.int64) - low) // step

    count = (high - low) // step + 1
    counts = np.zeros(count, np.int64)
    for rows in row_bands(values.shape):
        counts += np.bincount(places(values[rows]).ravel(), minlength=count)
    return places, (low + step * np.arange(count)).astype(np.float64), counts


def _padding(
    stored: Levels, counts: npt.NDArray[np.int64], bits: int, header: Header, notes: list[str]
) -> npt.NDArray[np.bool_]:
    """Where the file says that there is no image: values, or a range of them (DICOM PS3.3 C.7.5.1.1.2).

    The number may be written with the other sign: bits are compared.
    """
    nowhere = np.zeros(stored.shape, np.bool_)
    said = [int(value) for value in header.numbers("PixelPaddingValue") if value is not None and value == value // 1]
    if not said:
        return nowhere
    around = 2 ** (16 if bits <= 16 else 32)
    below = around // 2 if stored[0] < 0 else 0
    limit = header.integer("PixelPaddingRangeLimit")
    if limit is None:
        found = np.isin(stored % around, [value % around for value in said])
    else:
        low, high = sorted((value + below) % around - below for value in (said[0], limit))
        found = (stored >= low) & (stored <= high)
    if counts[found].sum() > _MOST_PADDING * counts.sum():
        notes.append("What the file calls padding is most of the picture; it is shown as picture.")
        return nowhere
    return found


def _modality(stored: Levels, header: Header, notes: list[str]) -> Levels:
    """Modality table, else slope and intercept; what cannot be right is left out."""
    for item in header.items("ModalityLUTSequence")[:1]:
        for table in _tables(item, signed=bool(stored[0] < 0)):
            if table.whole and table.first <= stored[-1] and stored[0] < table.first + len(table.entries):
                return table.at(stored).astype(np.float64)
        notes.append("The file's table of detector values cannot be right; it is ignored.")
        return stored
    if not header.text("RescaleSlope") and not header.text("RescaleIntercept"):
        return stored
    factor = header.numbers("RescaleSlope")[0] if header.text("RescaleSlope") else 1.0
    offset = header.numbers("RescaleIntercept")[0] if header.text("RescaleIntercept") else 0.0
    if factor and offset is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            values = stored * factor + offset
        if np.isfinite(values).all() and np.ptp(values) < 1e12 and (len(values) == 1 or np.ptp(values) > 0):
            return values
    notes.append("The file's rescaling of its values cannot be right; it is ignored.")
    return stored


def _shown(
    histogram: _Histogram, modality: Levels, header: Header, notes: list[str]
) -> tuple[FloatImage, Window | None]:
    """VOI table, window, or own range: the first that suits the picture; and what it is as a window, if it is one."""
    faults: dict[str, None] = {}  # each said once
    for what, table, fault, window in _advice(histogram, modality, header, notes):
        if table is not None:
            fault = _fault(histogram, table)
            if not fault:
                if faults:
                    notes.append(f"{' '.join(faults)} Another display {what} in the file is used.")
                return table, window
        faults[f"The file's display {what} {fault}."] = None
    if faults:
        notes.append(f"{' '.join(faults)} Instead, {_OWN_RANGE}")
    else:
        notes.append(f"The file has no display window; {_OWN_RANGE}")
    there = modality[histogram.counts > 0]
    low, high = float(there.min()), float(there.max())
    most = np.sort(modality[histogram.places_of([0.005, 0.995])])
    if most[0] < most[1] and most[1] - most[0] < (high - low) / 4:
        notes.append("A few values far from all others, as of a marker, are shown black or white.")
        low, high = float(most[0]), float(most[1])
    high = max(high, low + 1e-6)
    return unit(modality, low, high), ((low + high) / 2, high - low)


def _fault(histogram: _Histogram, table: FloatImage) -> str:
    """What is wrong with shown values (L,) for this picture; "" if nothing is."""
    there = table[histogram.counts > 0]
    inner = histogram.inner()
    clipped = inner & ((table <= there.min()) | (table >= there.max()))
    if np.ptp(there) == 0 or histogram.share(clipped) > _MOST_CLIPPED * histogram.share(inner):
        return "hides most of the picture"
    return "leaves the picture almost invisible" if np.ptp(there) < _FEWEST_LEVELS else ""


def _advice(
    histogram: _Histogram, modality: Levels, header: Header, notes: list[str]
) -> Iterator[tuple[str, FloatImage | None, str, Window | None]]:
    """What the file says of its display, in DICOM's order.

    Yields:
        kind, shown values (L,) or None, what is wrong with it, and the window where it is a straight one.
    """
    for item in header.items("VOILUTSequence"):
        readings = list(_tables(item, signed=bool(modality.min() < 0)))
        if not readings:
            yield "table", None, "is empty or damaged", None
        elif not readings[0].whole:
            yield "table", None, "is shorter than it says", None
        else:
            tables = [unit(reading.at(np.trunc(modality)), 0, reading.white) for reading in readings]
            good = [table for table in tables if not _fault(histogram, table)]
            if good and not readings[0].fits:
                notes.append(
                    "The file's display table has other bits than it says; its largest entry is taken as white."
                )
            yield "table", (good or tables)[0], "", None
    function = header.text("VOILUTFunction")
    if not header.text("WindowCenter") and not header.text("WindowWidth"):
        return
    for center, width in zip(header.numbers("WindowCenter"), header.numbers("WindowWidth"), strict=False):
        if center is None or width is None or width <= 0:
            yield "window", None, "has numbers that cannot be right", None
        else:
            straight = None if function == "SIGMOID" else (center, width)
            yield "window", _windowed(modality, center, width, function=function), "", straight


def _windowed(values: Levels, center: float, width: float, *, function: str) -> FloatImage:
    """Map values to [0, 1] as DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 say.

    Args:
        values: (L,) in modality units.
        center: in modality units.
        width: in modality units, > 0.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID"; anything else counts as LINEAR, the default; so
            does LINEAR of a width up to 1 as LINEAR_EXACT, for rescaled values may be fractions.
    """
    if function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -80, 80)
        return (1 / (1 + np.exp(exponent))).astype(np.float32)
    if function != "LINEAR_EXACT" and width > 1:  # LINEAR counts whole steps, and knows no smaller widths
        center, width = center - 0.5, width - 1
    return ((values - center) / width + 0.5).clip(0, 1).astype(np.float32)


def _tables(item: Header, *, signed: bool) -> Iterator[_Table]:
    """Ways to read a lookup table in an item: its first value may be written with the wrong sign."""
    table = _table(item, "LUTDescriptor", "LUTData")
    if table is None or table.entries.min() == table.entries.max():
        return
    first = table.first
    other = first - 2**16 if first >= 2**15 else first + 2**16 if first < 0 else first
    for start in dict.fromkeys(sorted((first, other), reverse=not signed)):
        yield replace(table, first=start)


def _table(header: Header, descriptor: str, data: str) -> _Table | None:
    """Read a lookup table (DICOM PS3.3 C.11.1.1); None if it is none."""
    numbers, element = header.numbers(descriptor), header.get(data)
    if element is None or len(numbers) != 3 or any(number is None or number != number // 1 for number in numbers):
        return None
    count, first, bits = (int(number) for number in numbers if number is not None)
    count = count % 2**16 or 2**16
    length = len(element.value)
    words = np.frombuffer(element.value, "<u2" if header.little else ">u2", count=length // 2)
    if bits <= 8 and count <= length < 2 * count:  # two entries in a word
        entries = np.frombuffer(words.astype("<u2").tobytes(), np.uint8)[:count]
    else:
        entries = words[:count].astype(np.uint16)
    return _Table(first, entries, bits, len(entries) == count) if len(entries) else None


def _inverse(header: Header, photometric: str, notes: list[str]) -> bool:
    """Whether small values are bright; MONOCHROME1 and the shape INVERSE say the same thing once."""
    shape = header.text("PresentationLUTShape")
    inverse = photometric == "MONOCHROME1"
    if shape == "INVERSE" and not inverse:
        notes.append("The file says MONOCHROME2 and INVERSE, which contradict each other; it is shown inverted.")
        return True
    if shape == "IDENTITY" and inverse:
        notes.append("The file says MONOCHROME1 and IDENTITY, which contradict each other; it is shown inverted.")
    return inverse
