"""The tags of a DICOM file that are read at all: a keep-list, and bounds on everything else.

No identifying tag is stored, shown or logged, because none is read, but by `read_identity`, for indexing, which has a
list of its own. The walk is ours, for pydicom reads sequences
whole, to any depth and number, and quotes irregular values in its log. Source: DICOM PS3.5 7.1 and 7.5, PS3.10 7.1.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from core.studies.images.radiograph import MAX_PIXELS

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

_MAX_ELEMENTS = 200_000  # ours: radiographs have a few hundred
_MAX_DEPTH = 24  # ours: sequences in sequences
_MAX_INFLATED = 2 * MAX_PIXELS + 2**24  # ours: the largest image of 16 bits, and its header
_SHORT = "AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US"  # their length has 16 bits
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

PIXELS = 0x7FE00010

KEPT: dict[str, tuple[int, str]] = {
    "TransferSyntaxUID": (0x00020010, "UI"),
    "SOPClassUID": (0x00080016, "UI"),
    "Modality": (0x00080060, "CS"),
    "PresentationIntentType": (0x00080068, "CS"),
    "BodyPartExamined": (0x00180015, "CS"),
    "ImagerPixelSpacing": (0x00181164, "DS"),
    "ViewPosition": (0x00185101, "CS"),
    "SamplesPerPixel": (0x00280002, "US"),
    "PhotometricInterpretation": (0x00280004, "CS"),
    "PlanarConfiguration": (0x00280006, "US"),
    "NumberOfFrames": (0x00280008, "IS"),
    "Rows": (0x00280010, "US"),
    "Columns": (0x00280011, "US"),
    "PixelSpacing": (0x00280030, "DS"),
    "BitsAllocated": (0x00280100, "US"),
    "BitsStored": (0x00280101, "US"),
    "HighBit": (0x00280102, "US"),
    "PixelRepresentation": (0x00280103, "US"),
    "PixelPaddingValue": (0x00280120, "US"),
    "PixelPaddingRangeLimit": (0x00280121, "US"),
    "BurnedInAnnotation": (0x00280301, "CS"),
    "WindowCenter": (0x00281050, "DS"),
    "WindowWidth": (0x00281051, "DS"),
    "RescaleIntercept": (0x00281052, "DS"),
    "RescaleSlope": (0x00281053, "DS"),
    "VOILUTFunction": (0x00281056, "CS"),
    "RedPaletteColorLookupTableDescriptor": (0x00281101, "US"),
    "GreenPaletteColorLookupTableDescriptor": (0x00281102, "US"),
    "BluePaletteColorLookupTableDescriptor": (0x00281103, "US"),
    "RedPaletteColorLookupTableData": (0x00281201, "OW"),
    "GreenPaletteColorLookupTableData": (0x00281202, "OW"),
    "BluePaletteColorLookupTableData": (0x00281203, "OW"),
    "ModalityLUTSequence": (0x00283000, "SQ"),
    "LUTDescriptor": (0x00283002, "US"),
    "LUTData": (0x00283006, "OW"),
    "VOILUTSequence": (0x00283010, "SQ"),
    "NominalScannedPixelSpacing": (0x00182010, "DS"),
    "PresentationLUTShape": (0x20500020, "CS"),
    "FloatPixelData": (0x7FE00008, "OF"),
    "DoubleFloatPixelData": (0x7FE00009, "OD"),
    "PixelData": (PIXELS, "OW"),
}
_KEPT_TAGS = dict(KEPT.values())
IDENTITY: dict[str, tuple[int, str]] = {
    "StudyDate": (0x00080020, "DA"),
    "StudyTime": (0x00080030, "TM"),
    "PatientID": (0x00100020, "LO"),
    "PatientSex": (0x00100040, "CS"),
    "PatientAge": (0x00101010, "AS"),
    "StudyInstanceUID": (0x0020000D, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
}
"""Tags that tell whose image it is, and when it was made."""
REFERENCE: dict[str, tuple[int, str]] = {
    "StudyInstanceUID": (0x0020000D, "UI"),
    "SeriesInstanceUID": (0x0020000E, "UI"),
    "SOPClassUID": (0x00080016, "UI"),
    "SOPInstanceUID": (0x00080018, "UI"),
}
"""Tags by which another DICOM object refers to an image; they tell nothing else."""
WITH_REFERENCE: Mapping[int, str] = {**_KEPT_TAGS, **dict(REFERENCE.values())}
"""What `read_header` keeps for `reference_of` beside the tags of `KEPT`."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORMATS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


class NotDicomError(ValueError):
    """The data are of another kind."""


class DamagedHeaderError(ValueError):
    """The message goes on after "the DICOM file"."""


@dataclass(slots=True)
class Element:
    """One tag.

    Attributes:
        vr: two letters of its kind; that of the standard where the file says none, or "UN".
        value: its bytes; of `PixelData` without a length, all that follows.
        whole: whether as many bytes are there as it says.
        sized: whether it says its length: pixels without one are in fragments.
        items: of a sequence.
    """

    vr: str
    value: memoryview
    whole: bool = True
    sized: bool = True
    items: list[Header] = field(default_factory=list)


@dataclass(slots=True)
class Header:
    """The kept tags of a file, or of an item of a sequence.

    Attributes:
        little: byte order.
        elements: by tag; of one that comes twice, the first.
        kept: tags that are kept, with their kinds.
    """

    little: bool
    elements: dict[int, Element] = field(default_factory=dict)
    kept: Mapping[int, str] = field(default_factory=lambda: _KEPT_TAGS)

    def get(self, name: str) -> Element | None:
        """A tag's element; None where it is missing or empty."""
        element = self.elements.get(KEPT[name][0])
        return element if element is not None and (element.value or element.items) else None

    def items(self, name: str) -> list[Header]:
        """Items of a sequence."""
        element = self.get(name)
        return element.items if element else []

    def text(self, name: str) -> str:
        """A coded string in upper case, without blanks around it; "" if there is none."""
        element = self.get(name)
        return bytes(element.value[:1024]).decode("latin-1").strip(" \0\r\n\t").upper() if element else ""

    def numbers(self, name: str) -> list[float | None]:
        """All numbers of a tag, None for each that is none; a decimal comma is read as a point."""
        element = self.get(name)
        if element is None:
            return []
        kind = element.vr if element.vr in _FORMATS else KEPT[name][1]
        if element.vr in ("DS", "IS", "LO", "SH", "CS", "UT", "LT", "ST") or kind not in _FORMATS:
            parts = bytes(element.value[:65536]).decode("latin-1").split("\\")
            return [_number(part) for part in parts]
        size = struct.calcsize(_FORMATS[kind])
        count = min(len(element.value) // size, 65536)
        return list(struct.unpack_from(("<" if self.little else ">") + _FORMATS[kind] * count, element.value))

    def integer(self, name: str) -> int | None:
        """The first number of a tag, if it is a whole one."""
        first = next(iter(self.numbers(name)), None)
        return int(first) if first is not None and abs(first) < 2**40 and first == int(first) else None


def _number(text: str) -> float | None:
    text = text.strip(" \0\r\n\t").replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if abs(value) < 1e300 else None


def looks_like_dicom(data: bytes) -> bool:
    """Whether it may be worth a try: the prefix where it belongs, or a first tag as older files have it."""
    return data[128:132] == b"DICM" or data[:4] == b"DICM" or data[:2] in (b"\x08\0", b"\0\x08", b"\x02\0", b"\0\x02")


def read_identity(data: bytes) -> dict[str, str]:
    """Read the tags of `IDENTITY`. Whoever asks keeps none of them as it is.

    Returns:
        values without blanks around them, by name; "" where there is none.

    Raises:
        NotDicomError, DamagedHeaderError: as `read_header`.
    """
    return _texts(read_header(data, {**_KEPT_TAGS, **dict(IDENTITY.values())})[0], IDENTITY)


def reference_of(header: Header) -> dict[str, str]:
    """The tags of `REFERENCE`, as `read_identity` gives those of `IDENTITY`, of a header that kept them."""
    return _texts(header, REFERENCE)


def _texts(header: Header, tags: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    found = {name: header.elements.get(tag) for name, (tag, _) in tags.items()}
    return {
        name: bytes(element.value[:256]).decode("latin-1").strip(" \0\r\n\t") if element else ""
        for name, element in found.items()
    }


def read_header(data: bytes, kept: Mapping[int, str] | None = None) -> tuple[Header, str]:
    """Read the kept tags up to the pixels.

    Args:
        data: the file, or as much of its beginning as holds the header.
        kept: tags that are kept, with their kinds; those of `KEPT` unless given.

    Returns:
        the tags, and the transfer syntax's UID, "" where the file says none.

    Raises:
        NotDicomError: it is something else.
        DamagedHeaderError: it is cut off, contradicts itself, or is too large.
    """
    prefixed = data[128:132] == b"DICM"
    start = 132 if prefixed else 4 if data[:4] == b"DICM" else 0
    view = memoryview(data)
    budget = iter(range(_MAX_ELEMENTS))
    meta = Header(little=True)
    try:
        start = _walk(view, start, meta, explicit=True, budget=budget, group=0x0002)
        syntax = meta.text("TransferSyntaxUID").strip()
        if syntax == DEFLATED:
            view, start = memoryview(_inflate(view[start:])), 0
        little, explicit = _order(view, start, syntax)
        header = Header(little, kept=_KEPT_TAGS if kept is None else kept)
        _walk(view, start, header, explicit=explicit, budget=budget)
    except DamagedHeaderError:
        if prefixed:
            raise
        raise NotDicomError from None
    if not prefixed and not (header.get("PixelData") and header.get("Rows")):
        raise NotDicomError
    return header, syntax


def _order(view: memoryview, start: int, syntax: str) -> tuple[bool, bool]:
    """Byte order and whether kinds are written, by the first tag rather than by the syntax: they may contradict."""
    head = bytes(view[start : start + 8])
    if len(head) < 8:
        return True, syntax != IMPLICIT
    # Groups are small numbers that rise: 8 read in the wrong order is 2048.
    little = int.from_bytes(head[:2], "little") <= int.from_bytes(head[:2], "big")
    return little, head[4:6].isalpha() and head[4:6].isupper()


def _inflate(data: memoryview) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, _MAX_INFLATED)
    except zlib.error:
        raise DamagedHeaderError("is damaged: it cannot be inflated") from None
    if not inflater.eof:
        reason = "is inflated to more than any radiograph has" if inflater.unconsumed_tail else "is cut off"
        raise DamagedHeaderError(reason)
    return inflated


def _walk(
    view: memoryview,
    at: int,
    header: Header,
    *,
    explicit: bool,
    budget: Iterator[int],
    depth: int = 0,
    group: int | None = None,
    end: int | None = None,
    keep: bool = True,
) -> int:
    """Read elements into a header, until the pixels, the end, the end of the item, or another group.

    Returns:
        where the walk ended.
    """
    end = len(view) if end is None else end
    order = "<" if header.little else ">"
    while at + 8 <= end:
        number, low = struct.unpack_from(order + "HH", view, at)
        tag = number << 16 | low
        if group is not None and number != group:
            return at
        if tag in (_ITEM_END, _SEQUENCE_END):
            return at + 8
        if next(budget, None) is None:
            raise DamagedHeaderError("has a header of too many parts to be a radiograph")
        vr, start, length = _element(view, at, order, explicit)
        if length == _UNDEFINED:
            if tag == PIXELS and keep:
                header.elements.setdefault(tag, Element("OB", view[start:end], sized=False))
                return end
            # A sequence; without a known kind its items are implicit (PS3.5 6.2.2).
            wanted = keep and header.kept.get(tag, "UI") != "UI"  # a UID has no items
            items, at = _items(view, start, end, header.little, explicit and vr != "UN", budget, depth + 1, wanted)
            if wanted:
                header.elements.setdefault(tag, Element("SQ", view[:0], items=items))
            continue
        stop = start + length
        if tag == PIXELS and keep:
            header.elements.setdefault(tag, Element(vr, view[start : min(stop, end)], whole=stop <= end))
            return min(stop, end)
        if stop > end:
            raise DamagedHeaderError("is damaged or cut off")
        if keep and tag in header.kept and tag not in header.elements:
            standard = header.kept[tag]
            element = Element(standard if vr in ("", "UN") else vr, view[start:stop])
            if standard == "SQ":
                element = Element("SQ", view[:0])
                element.items, _ = _items(
                    view, start, stop, header.little, explicit and vr != "UN", budget, depth + 1, keep
                )
            header.elements[tag] = element
        at = stop
    return at


def _element(view: memoryview, at: int, order: str, explicit: bool) -> tuple[str, int, int]:
    """Return (VR, start, length) of the element at a place; the VR is "" where none is written."""
    letters = bytes(view[at + 4 : at + 6])
    if explicit and letters.isalpha() and letters.isupper():
        vr = letters.decode()
        if vr in _SHORT:
            return vr, at + 8, struct.unpack_from(order + "H", view, at + 6)[0]
        if at + 12 > len(view):
            raise DamagedHeaderError("is cut off")
        return vr, at + 12, struct.unpack_from(order + "I", view, at + 8)[0]
    return "", at + 8, struct.unpack_from(order + "I", view, at + 4)[0]


def _items(
    view: memoryview, at: int, end: int, little: bool, explicit: bool, budget: Iterator[int], depth: int, keep: bool
) -> tuple[list[Header], int]:
    """Read the items of a sequence up to its end."""
    if depth > _MAX_DEPTH:
        raise DamagedHeaderError("has sequences nested too deeply")
    items: list[Header] = []
    order = "<" if little else ">"
    while at + 8 <= end:
        number, low, length = struct.unpack_from(order + "HHI", view, at)
        tag = number << 16 | low
        if tag == _SEQUENCE_END:
            return items, at + 8
        if tag != _ITEM:
            raise DamagedHeaderError("is damaged: a sequence in its header has no end")
        if next(budget, None) is None:
            raise DamagedHeaderError("has a header of too many parts to be a radiograph")
        item = Header(little)
        if length == _UNDEFINED:
            at = _walk(view, at + 8, item, explicit=explicit, budget=budget, depth=depth, end=end, keep=keep)
        else:
            stop = at + 8 + length
            if stop > end:
                raise DamagedHeaderError("is damaged or cut off")
            if keep:
                _walk(view, at + 8, item, explicit=explicit, budget=budget, depth=depth, end=stop, keep=keep)
            at = stop
        if keep:
            items.append(item)
    return items, at
