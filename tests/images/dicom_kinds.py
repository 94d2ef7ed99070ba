"""DICOM files that say odd things of a sound picture."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

from tests.images.kinds import ANY, REFUSED, RIGHT, TOLD, Odd
from tests.images.making import (
    BIG_ENDIAN,
    CHEST,
    CHEST8,
    CHEST12,
    CHEST16,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    STREAMS,
    SYNTAXES,
    Raw,
    compressed,
    dicom,
    element,
    table,
)


def display() -> Iterator[Odd]:
    """What a DICOM file says about its display."""
    group = "what DICOM says of its display"

    def odd(name: str, says: str = "", *, window: bool = True, values: np.ndarray = CHEST12, **tags: object) -> Odd:
        return Odd(f"display-{name}", group, lambda: dicom(values, window=window, **tags), RIGHT, says)

    own = "darkest and brightest"
    yield odd("none", own, window=False)
    for name, center, width in (
        ("8-bit", 127, 255),
        ("missing-the-values", 60_000, 10),
        ("below-the-values", -5_000, 100),
        ("zero", 0, 0),
        ("zero-width", 2048, 0),
        ("negative", 2048, -4096),
        ("nan", "nan", "nan"),
        ("half-nan", "nan", "4096"),
        ("inf", "0", "inf"),
        ("text", "SECRET", "SECRET"),
        ("far-too-wide", 32768, 65536),
        ("tiny", "1e-300", "1e-300"),
        ("huge", "1e308", "1e308"),
        ("threshold", 2048, 1),
        ("underscore", "2_048", "4_096"),
        ("blank", " ", " "),
        ("center-only", 2048, None),
        ("empty", b"", b""),
    ):
        yield odd(f"window-{name}", own, WindowCenter=center, WindowWidth=width)
    yield odd("window-comma", WindowCenter="2048,0", WindowWidth="4096,0")
    yield odd("window-blanks", WindowCenter="  2048 ", WindowWidth=" +4.096E3")
    yield odd("window-second", "Another display window", WindowCenter="60000\\2048", WindowWidth="10\\4096")
    yield odd("window-first", WindowCenter="2048\\60000", WindowWidth="4096\\10")
    yield odd("window-more-centers", WindowCenter="2048\\1\\2", WindowWidth="4096")
    yield odd(
        "window-as-integers",
        WindowCenter=Raw("US", struct.pack("<H", 2048)),
        WindowWidth=Raw("US", struct.pack("<H", 4096)),
    )
    yield odd("window-of-fractions", RescaleSlope="0.0002442", WindowCenter="0.5", WindowWidth="1")
    marker = CHEST12.copy()
    marker[2:4, 2:12] = 65535
    outlying = "far from all others"
    yield Odd("display-marker", group, lambda: dicom(marker, bits=16, window=False), TOLD, outlying)
    yield odd("linear-exact", WindowCenter="2047.5", WindowWidth="4095", VOILUTFunction="LINEAR_EXACT")
    yield odd("unknown-function", VOILUTFunction="SECRET")
    yield Odd("display-sigmoid", group, lambda: dicom(VOILUTFunction="SIGMOID"), ANY)

    for name, slope, intercept in (
        ("empty", b"", b""),
        ("blank", " ", " "),
        ("one", "1", "0"),
        ("slope-only", "1", None),
    ):
        yield odd(f"rescale-{name}", RescaleSlope=slope, RescaleIntercept=intercept)
    for name, slope, intercept in (
        ("zero", "0", "0"),
        ("nan", "nan", "0"),
        ("inf", "inf", "0"),
        ("overflow", "1e308", "1e308"),
        ("text", "SECRET", "0"),
    ):
        yield odd(f"rescale-{name}", "cannot be right", RescaleSlope=slope, RescaleIntercept=intercept)
    yield odd("rescale-double", RescaleSlope="2", RescaleIntercept="-1000", WindowCenter=3096, WindowWidth=8192)
    yield odd("rescale-comma", RescaleSlope="0,5", RescaleIntercept="0", WindowCenter=1024, WindowWidth=2048)
    yield odd("rescale-negative", values=(4095 - CHEST12).astype(np.uint16), RescaleSlope="-1", RescaleIntercept="4095")

    ramp12, ramp8 = np.arange(4096, dtype="<u2"), (np.arange(4096) >> 4).astype(np.uint8)

    def voi(
        name: str, item: bytes, says: str = "", *, window: bool = False, implicit: bool = False, **tags: object
    ) -> Odd:
        extra = element(0x00283010, "SQ", item, implicit=implicit)
        syntax = IMPLICIT if implicit else EXPLICIT
        return Odd(
            f"display-{name}", group, lambda: dicom(window=window, syntax=syntax, extra=extra, **tags), RIGHT, says
        )

    yield voi("table", table(ramp12, 0, 12))
    yield voi("table-16-bit", table((ramp12 * 16 + 15).astype("<u2"), 0, 16))
    yield voi("table-below-zero", table(ramp12, -1024, 12), RescaleSlope="1", RescaleIntercept="-1024")
    yield voi(
        "table-below-zero-implicit",
        table(ramp12, -1024, 12, implicit=True),
        implicit=True,
        RescaleSlope="1",
        RescaleIntercept="-1024",
    )
    yield voi("table-packed-8-bit", table(ramp8, 0, 8))
    yield voi("table-8-bit-in-words", table(ramp8.astype("<u2"), 0, 8))
    yield voi(
        "table-shorter",
        table(ramp12[:2000], 0, 12, count=4096),
        "shorter than it says. Another display window",
        window=True,
    )
    yield voi("table-shorter-alone", table(ramp12[:2000], 0, 12, count=4096), "shorter than it says. Instead")
    yield voi("table-longer", table(np.append(ramp12, [9, 9]).astype("<u2"), 0, 12, count=4096))
    yield voi("table-says-16-holds-12", table(ramp12, 0, 16), "other bits than it says")
    yield voi("table-says-8-holds-12", table(ramp12, 0, 8), "other bits than it says")
    yield voi("table-says-0-bits", table(ramp12, 0, 0), "other bits than it says")
    yield voi("table-constant", table(ramp12 * 0 + 7, 0, 12), own)
    yield voi("table-empty", table(ramp12[:0], 0, 12, count=4096), own)
    yield voi("table-of-other-values", table(ramp12, 30_000, 12), own)
    yield voi("table-without-items", b"", own)
    yield voi("tables-second", table(ramp12 * 0, 0, 12) + table(ramp12, 0, 12), "Another display table")
    modality = element(0x00283000, "SQ", table(ramp12[:9], 0, 12, count=4096))
    yield Odd("display-modality-short", group, lambda: dicom(extra=modality), RIGHT, "detector values")
    both = element(0x00283000, "SQ", table(ramp12, 50_000, 12)) + element(0x00283010, "SQ", table(ramp12, 50_000, 12))
    yield Odd("display-both-tables-wrong", group, lambda: dicom(extra=both), RIGHT, "detector values")
    right = element(0x00283000, "SQ", table(ramp12[::-1].copy(), 0, 12))
    yield Odd("display-modality", group, lambda: dicom((4095 - CHEST12).astype(np.uint16), extra=right), RIGHT)

    negative = (4095 - CHEST12).astype(np.uint16)
    yield odd("monochrome1", values=negative, PhotometricInterpretation="MONOCHROME1")
    yield odd(
        "monochrome1-inverse", values=negative, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"
    )
    yield odd("identity", PresentationLUTShape="IDENTITY")
    yield odd("monochrome2-inverse", "contradict", values=negative, PresentationLUTShape="INVERSE")
    yield odd(
        "monochrome1-identity",
        "contradict",
        values=negative,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="IDENTITY",
    )
    yield odd("small-letters", PhotometricInterpretation="monochrome2")
    yield Odd("display-inverted", group, lambda: dicom(negative), TOLD, "looks inverted", 0.005, True)
    yield odd("for-processing", "FOR PROCESSING", PresentationIntentType="FOR PROCESSING")
    yield odd("class-for-processing", "FOR PROCESSING", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1")

    signed = CHEST12.astype(np.int16) - 2048
    padded = signed.copy()
    padded[:4] = -2000 - 2048
    for name, value in {
        "ss": Raw("SS", struct.pack("<h", -4048)),
        "us": Raw("US", struct.pack("<H", 2**16 - 4048)),
        "two": Raw("SS", struct.pack("<hh", -4048, -4048)),
        "text": Raw("IS", b"-4048"),
    }.items():
        yield Odd(
            f"display-padding-{name}",
            group,
            lambda v=value: dicom(padded, bits=16, window=False, PixelPaddingValue=v),
            TOLD,
            own,
        )
    yield odd("padding-everything", "most of the picture", PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    yield odd("padding-nonsense", PixelPaddingValue=Raw("LO", b"SECRET"))


def codes() -> Iterator[Odd]:
    """Codes and names as makers write them."""
    group = "codes and names in DICOM"

    def odd(name: str, says: str = "", allowed: frozenset[str] = RIGHT, **tags: object) -> Odd:
        return Odd(f"code-{name}", group, lambda: dicom(**tags), allowed, says)

    for modality in ("CR", "DX", "RG", "dx", "DX "):
        yield odd(f"modality-{modality.strip()}{len(modality)}", Modality=modality)
    for modality in ("DR", "XR", "RF", "OT"):
        yield odd(f"modality-{modality}", f"modality is {modality}", Modality=modality)
    for modality in ("CT", "MR", "US", "MG"):
        yield odd(f"modality-{modality}", f"modality is {modality}", REFUSED, Modality=modality)
    yield odd("modality-other", "another one", REFUSED, Modality="SECRET")
    yield odd("modality-none", "does not say its modality", Modality=None)
    for part in (
        "CHEST",
        "CHEST PA",
        "PORT CHEST",
        "TORAX",
        "Thorax",
        "T\xd3RAX",
        "LUNG",
        "CHEST_AP",
        "W033 Chest PA",
        "",
    ):
        yield odd(f"part-{part}", BodyPartExamined=part.encode("latin-1"))
    for part in ("KNEE", "HAND", "T SPINE", "THORACIC SPINE", "SECRET"):
        yield odd(f"part-{part}", "another body part", BodyPartExamined=part)
    for view in ("LL", "RL", "LATERAL", "LAT", "L LAT", "Lateral"):
        yield odd(f"view-{view}", "lateral view", ViewPosition=view)
    for view in ("PA", "AP", "POSTERO_ANTERIOR", "SECRET", ""):
        yield odd(f"view-{view}", ViewPosition=view)
    yield odd("view-LAO", "oblique", ViewPosition="LAO")
    yield odd("writing", "look for names", BurnedInAnnotation="YES")
    for tag in ("SamplesPerPixel", "HighBit"):
        yield odd(f"no-{tag}", tag, **{tag: None})
        yield odd(f"empty-{tag}", tag, **{tag: b""})
    for tag in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation"):
        yield odd(f"no-{tag}", tag, REFUSED, **{tag: None})
        yield odd(f"empty-{tag}", tag, REFUSED, **{tag: b""})
    for frames in ("0", "-1", "abc", "1.5", "SECRET"):
        yield odd(f"frames-{frames}", "NumberOfFrames", NumberOfFrames=frames)
    for frames in ("1", " 1 ", "1.0", b""):
        yield odd(f"frames-{frames!r}", NumberOfFrames=frames)
    for kind in ("HSV", "ARGB", "CMYK", "SECRET"):
        yield odd(f"colours-{kind}", "colours of a kind", REFUSED, PhotometricInterpretation=kind)
    yield odd("colours-of-one", "contradicts itself", REFUSED, PhotometricInterpretation="RGB")
    starts = {
        "no-preamble": lambda: dicom(preamble=False),
        "no-preamble-implicit": lambda: dicom(preamble=False, syntax=IMPLICIT),
        "no-preamble-big-endian": lambda: dicom(preamble=False, syntax=BIG_ENDIAN),
        "no-preamble-but-prefix": lambda: dicom()[128:],
        "no-preamble-but-meta": lambda: dicom()[132:],
        "no-syntax": lambda: dicom(syntax=None),
        "implicit": lambda: dicom(syntax=IMPLICIT),
        "big-endian": lambda: dicom(syntax=BIG_ENDIAN),
        "deflated": lambda: dicom(syntax=DEFLATED),
        "explicit-called-implicit": lambda: dicom().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0", 1),
        "implicit-called-explicit": lambda: said(dicom(syntax=IMPLICIT), IMPLICIT, EXPLICIT),
        "tiff-in-preamble": lambda: b"II*\0" + dicom()[4:],
        "program-in-preamble": lambda: b"MZ" + dicom()[2:],
        "nonsense-syntax": lambda: said(dicom(), EXPLICIT, "1.2.3.4"),
        "after-the-end": lambda: dicom() + element(0xFFFCFFFC, "OB", bytes(500)),
        "twice-rows": lambda: dicom(extra=element(0x00280010, "US", b"\0\x20")),
        "private": lambda: dicom(extra=element(0x00290010, "LO", b"SECRET") + element(0x00291001, "UN", bytes(900))),
    }
    for name, make in starts.items():
        yield Odd(f"start-{name}", group, make, RIGHT)
    sequence = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(0x00080100, "SH", b"x")
    sequence += struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    open_ended = struct.pack("<HH", 0x0029, 0x1010) + b"SQ\0\0\xff\xff\xff\xff" + sequence
    yield Odd("start-open-sequence", group, lambda: dicom(extra=open_ended), RIGHT)
    icon = element(0x7FE00010, "OW", bytes(32))
    icon = element(0x00880200, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(icon)) + icon)
    yield Odd("start-icon", group, lambda: dicom(extra=icon), RIGHT)
    yield Odd("start-no-image", group, lambda: dicom(pixels=b""), REFUSED, "no image in it")
    floats = element(0x7FE00008, "OF", CHEST.astype("<f4").tobytes())
    yield Odd("start-floats", group, lambda: dicom(extra=floats), REFUSED, "computed numbers")


def said(data: bytes, before: str, after: str) -> bytes:
    """A file with another transfer syntax."""
    return data.replace(element(0x00020010, "UI", before.encode()), element(0x00020010, "UI", after.encode()), 1)


def layout() -> Iterator[Odd]:
    """How pixels are said to be stored, and how they are."""
    group = "how DICOM stores pixels"

    def odd(
        name: str, make: Callable[[], bytes], says: str = "", allowed: frozenset[str] = RIGHT, tolerance: float = 0.005
    ) -> Odd:
        return Odd(f"layout-{name}", group, make, allowed, says, tolerance)

    signed = CHEST12.astype(np.int16) - 2048
    whole = {"WindowCenter": 2048, "WindowWidth": 4096}
    middle = {"WindowCenter": 0, "WindowWidth": 4096}
    yield odd("8", lambda: dicom(CHEST8), "")
    yield odd("8-signed", lambda: dicom((CHEST8.astype(int) - 128).astype(np.int8), WindowCenter=0, WindowWidth=256))
    yield odd("16", lambda: dicom(CHEST16, bits=16))
    yield odd("signed", lambda: dicom(signed, **middle))
    yield odd("signed-not-extended", lambda: dicom((signed & 0x0FFF).astype(np.int16), **middle))
    yield odd("other-things-above", lambda: dicom((CHEST12 | 0xA000).astype(np.uint16)))
    overlay = np.zeros_like(CHEST12)
    overlay[20:60, 30:50] = 0x1000
    yield odd("overlay-above", lambda: dicom(CHEST12 | overlay))
    for bits in (1, 4, 8, 10):
        yield odd(f"bits-{bits}", lambda bits=bits: dicom(bits=bits, **whole), "but they have more")
    yield odd("bits-0", lambda: dicom(BitsStored=0, HighBit=11), "BitsStored that cannot be")
    yield odd("bits-17", lambda: dicom(BitsStored=17, HighBit=16), "BitsStored that cannot be")
    yield odd("bits-13", lambda: dicom(bits=13, **whole))
    for high in (0, 7, 15, 65535):
        yield odd(f"high-bit-{high}", lambda high=high: dicom(HighBit=high), "HighBit")
    yield odd("upper-bits", lambda: dicom((CHEST12 << 4).astype(np.uint16), bits=12, HighBit=15), "upper bits")
    yield odd("called-signed", lambda: dicom(PixelRepresentation=1), "PixelRepresentation")
    yield odd("called-unsigned", lambda: dicom(signed.view(np.uint16), bits=16, **middle), "PixelRepresentation")
    yield odd("sign-65535", lambda: dicom(PixelRepresentation=65535), "PixelRepresentation")
    yield odd("swapped-bytes", lambda: dicom(CHEST12.byteswap()), "byte order")
    yield odd("32-bit", lambda: dicom(pixels=CHEST12.astype("<u4").tobytes(), BitsAllocated=32))
    for allocated in (7, 12, 24, 65535):
        yield odd(f"allocated-{allocated}", lambda a=allocated: dicom(BitsAllocated=a), "BitsAllocated", REFUSED)
    rgb8 = np.repeat(CHEST8[..., None], 3, axis=2)
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "window": False}
    yield odd("rgb", lambda: dicom(CHEST8, pixels=rgb8.tobytes(), PlanarConfiguration=0, **colours))
    planes = np.moveaxis(rgb8, 2, 0).tobytes()
    yield odd("rgb-planes", lambda: dicom(CHEST8, pixels=planes, PlanarConfiguration=1, **colours))
    rgb16 = np.repeat(CHEST16[..., None], 3, axis=2)
    yield odd("rgb-16", lambda: dicom(CHEST16, bits=16, pixels=rgb16.tobytes(), **colours), "colours of 16 bits")
    gray = np.full_like(CHEST8, 128)
    ybr = colours | {"PhotometricInterpretation": "YBR_FULL"}
    yield odd("ybr", lambda: dicom(CHEST8, pixels=np.dstack([CHEST8, gray, gray]).tobytes(), **ybr), "", RIGHT, 0.01)
    half = np.dstack([CHEST8[:, ::2], CHEST8[:, 1::2], gray[:, ::2], gray[:, ::2]]).tobytes()
    ybr_422 = colours | {"PhotometricInterpretation": "YBR_FULL_422"}
    yield odd("ybr-422", lambda: dicom(CHEST8, pixels=half, **ybr_422), "", RIGHT, 0.01)
    ramp = np.arange(256, dtype="<u2")
    for name, entries in {"palette": ramp * 257, "palette-8-bit": ramp}.items():
        bits = 16
        extra = b"".join(element(0x00281101 + i, "US", struct.pack("<3H", 256, 0, bits)) for i in range(3))
        extra += b"".join(element(0x00281201 + i, "OW", entries.astype("<u2").tobytes()) for i in range(3))
        yield odd(
            name,
            lambda extra=extra: dicom(CHEST8, window=False, PhotometricInterpretation="PALETTE COLOR", extra=extra),
            "palette colours",
        )
    yield odd(
        "palette-missing", lambda: dicom(CHEST8, PhotometricInterpretation="PALETTE COLOR"), "palette colours", REFUSED
    )
    two = CHEST12.tobytes() + (4095 - CHEST12).astype(np.uint16).tobytes()
    yield odd("two-frames", lambda: dicom(pixels=two, NumberOfFrames="2"), "2 frames")
    for kind in SYNTAXES:
        close = 0.06 if kind == "jpeg8" else 0.01
        yield odd(f"coded-{kind}", lambda kind=kind: compressed(kind), "", RIGHT, close)
        yield odd(
            f"coded-{kind}-called-rle",
            lambda kind=kind: said(compressed(kind), SYNTAXES[kind], SYNTAXES["rle"]),
            "",
            RIGHT,
            close,
        )
        if kind != "rle":
            wrong = lambda kind=kind: said(compressed(kind), SYNTAXES[kind], EXPLICIT)  # noqa: E731
            yield odd(f"coded-{kind}-called-uncompressed", wrong, "but they are", RIGHT, close)
    yield odd("fragments-called-jpeg", lambda: said(dicom(), EXPLICIT, SYNTAXES["jpeg8"]), "but they are not")
    zero_end = bytearray(STREAMS["jpeg12"])
    scan = zero_end.index(b"\xff\xda")
    zero_end[scan + 2 + struct.unpack(">H", zero_end[scan + 2 : scan + 4])[0] - 2] = 0
    yield odd("scan-ends-at-0", lambda: compressed("jpeg12", bytes(zero_end)))
    yield odd(
        "scan-ends-at-0-8",
        lambda: compressed("jpeg8", STREAMS["jpeg8"].replace(b"\0\x3f\0", b"\0\0\0")),
        "",
        RIGHT,
        0.06,
    )
