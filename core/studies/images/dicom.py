"""DICOM files: whose picture it is, what is to be said of it, and the picture itself."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from core.studies.images import dicom_pixels, display
from core.studies.images.dicom_header import (
    REFERENCE,
    WITH_REFERENCE,
    DamagedHeaderError,
    Header,
    NotDicomError,
    looks_like_dicom,
    read_header,
    reference_of,
)
from core.studies.images.picture import damaged, gray_of_deep_colours, grayscale
from core.studies.images.png import DamagedPictureError
from core.studies.images.radiograph import MAX_FILE_BYTES, Grey, ImageError, Radiograph, finish
from core.types import FloatImage

_RADIOGRAPHY = ("CR", "DX", "RG")  # computed, digital and film radiography; DICOM PS3.3 C.7.3.1.1.1
_OTHERS = ("DR", "XR", "RF", "OT")  # what makers write for a radiograph besides
_KINDS = ("CT", "MR", "US", "MG", "XA", "NM", "PT", "SR", "SC", "ES", "XC", "PX", "IO", "SM", "OP", "SEG", "PR", "KO")
_RAW_CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"  # Digital X-Ray Image Storage - For Processing

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_HEADER = 2**18  # ours: bytes; a radiograph's header is some kilobytes

_CHEST = re.compile(r"CHEST|THORA[XC]|TORA[XC]|LUNG|PULM|POUMON|BRUSTKORB")
_SPINE = re.compile(r"SPINE|COLUMN|WIRBEL|RACHIS")
_LATERAL = {"LATERAL", "LAT", "LL", "RL", "LLAT", "RLAT", "LEFTLATERAL", "RIGHTLATERAL", "LATERO"}
_FRONTAL = {"PA": "PA", "POSTEROANTERIOR": "PA", "AP": "AP", "ANTEROPOSTERIOR": "AP"}
_OBLIQUE = {"LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBL", "OBLIQUE"}


def read_dicom(data: bytes, name: str) -> Radiograph:
    """Read the first frame of a DICOM file.

    Raises:
        ImageError: it is no radiograph, damaged, cut off, too large, too small, blank, or coded in an unknown way.
        NotDicomError: it is of another kind, without a DICOM file's beginning.
    """
    notes: list[str] = []
    try:
        header, syntax = read_header(data, WITH_REFERENCE)
        _check_kind(header, name, notes)
        view = _view(header, notes)
        layout = dicom_pixels.read_layout(header, name, notes)
        pixels, bits, grey = _pixels(header, syntax, layout, notes)
    except DamagedHeaderError as error:
        raise ImageError(
            f"{name}: the DICOM file {error}. Export it again, best as 'explicit VR little endian'."
        ) from None
    except DamagedPictureError as error:
        raise damaged(name, error) from None
    spacing = _pixel_spacing(header)
    film = finish(pixels, name, bits=bits, kind="DICOM", notes=notes, pixel_spacing=spacing, view=view, grey=grey)
    return replace(film, study=_study_of(header))


def _study_of(header: Header) -> str:
    """A hash of the Study Instance UID; "" of a file that has none."""
    uid = next(iter(reference_of(header).values()))
    return hashlib.sha256(uid.encode()).hexdigest()[:16] if uid else ""


def dicom_view(path: Path) -> str:
    """A DICOM file's view, as its header has it: "PA", "AP" or "LATERAL"; "" where it says none, or cannot be read."""
    try:
        return _view(read_header(header_bytes(path))[0], [])
    except (OSError, DamagedHeaderError, NotDicomError):
        return ""


def dicom_uids(path: Path, name: str) -> tuple[str, str, str, str] | None:
    """UIDs of a file's study, series, SOP class and instance; None where it is no DICOM file.

    Args:
        path: of the file.
        name: of the image, for messages.

    Raises:
        ImageError: it cannot be read, or lacks one of them.
    """
    try:
        uids = tuple(reference_of(read_header(header_bytes(path), WITH_REFERENCE)[0]).values())
    except NotDicomError:
        return None
    except (OSError, DamagedHeaderError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: the DICOM file cannot be read ({why}).") from error
    return check_uids(uids, name)


def check_uids(uids: Sequence[str], name: str) -> tuple[str, str, str, str]:
    """UIDs of a study, a series, an SOP class and an instance, as DICOM has them (PS3.5 9.1).

    Raises:
        ImageError: one of them is missing, or is none.
    """
    for what, uid in zip(REFERENCE, uids, strict=True):
        if not _UID.fullmatch(uid) or len(uid) > 64:
            raise ImageError(f"{name}: the DICOM file has no valid {what}, so nothing can refer to its image.")
    study, series, sop_class, instance = uids
    return study, series, sop_class, instance


def header_bytes(path: Path) -> bytes:
    """So much of a DICOM file that its header is in it, at most what `core.studies.images.read_image` reads.

    Raises:
        OSError: it cannot be read.
        NotDicomError: it is of another kind.
        DamagedHeaderError: its header is damaged, or it is too large.
    """
    with path.open("rb") as file:
        data = file.read(_HEADER)
        if not looks_like_dicom(data):
            raise NotDicomError
        try:
            read_header(data)
        except (DamagedHeaderError, NotDicomError):  # it may go on
            data += file.read(MAX_FILE_BYTES + 1 - len(data))
            if len(data) > MAX_FILE_BYTES:
                raise DamagedHeaderError("is too large to be a radiograph") from None
            read_header(data)
    return data


def is_radiograph(header: Header) -> bool:
    """Whether a header is of a kind that `read_dicom` reads."""
    modality = header.text("Modality")
    return header.get("PixelData") is not None and (not modality or modality in (*_RADIOGRAPHY, *_OTHERS))


def _pixels(
    header: Header, syntax: str, layout: dicom_pixels.Layout, notes: list[str]
) -> tuple[FloatImage, int, Grey | None]:
    values, bits = dicom_pixels.read_pixels(header, syntax, layout, notes)
    if layout.photometric == "PALETTE COLOR":
        colours = display.palette(values, header, notes)
        if colours is None:
            raise DamagedHeaderError("is in palette colours, and its palette is missing, damaged or segmented")
        return grayscale(Image.fromarray(colours), notes), 8, None
    if values.ndim == 2:
        pixels, grey = display.show(values, bits, header, layout.photometric, notes)
        return pixels, bits, grey
    if values.dtype == np.uint8:
        return grayscale(Image.fromarray(values), notes), 8, None
    notes.append(f"The picture is in colours of {bits} bits; it is read as gray.")
    return gray_of_deep_colours(values, bits), bits, None


def _check_kind(header: Header, name: str, notes: list[str]) -> None:
    """Refuse what is no radiograph; warn of what may be none, and of writing in the picture."""
    modality = header.text("Modality")
    if not modality:
        notes.append("The file does not say its modality; it is taken for a radiograph.")
    elif modality in _OTHERS:
        notes.append(f"The file's modality is {modality}, which may be a radiograph or not; it is taken for one.")
    elif modality not in _RADIOGRAPHY:
        shown = modality if modality in _KINDS else "another one"
        raise ImageError(
            f"{name}: the DICOM modality is {shown}. Only radiographs ({', '.join(_RADIOGRAPHY)}) can be read."
        )
    if header.get("FloatPixelData") or header.get("DoubleFloatPixelData"):
        raise ImageError(
            f"{name}: the DICOM file holds computed numbers, not a radiograph. Choose the radiograph's file."
        )
    if header.get("PixelData") is None:
        raise ImageError(f"{name}: the DICOM file has no image in it. Choose the file that holds the radiograph.")
    part = _letters(header.text("BodyPartExamined"))
    if part and (not _CHEST.search(part) or _SPINE.search(part)):
        notes.append("The file names another body part than the chest.")
    if header.text("BurnedInAnnotation") == "YES":
        notes.append("Writing is burned into the image: look for names before you share it.")
    raw = header.text("PresentationIntentType") == "FOR PROCESSING"
    if raw or (header.text("SOPClassUID") == _RAW_CLASS and not header.text("PresentationIntentType")):
        notes.append(
            "The file holds raw values of the detector, not meant for viewing (FOR PROCESSING): "
            "contrast and polarity may be wrong."
        )


def _letters(text: str) -> str:
    """Letters without accents, and blanks: makers write these codes in many ways."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Z]+", " ", plain).strip()


def _view(header: Header, notes: list[str]) -> str:
    """Return "PA", "AP", "LATERAL" or "", and say what models are not made for."""
    words = _letters(header.text("ViewPosition")).split()
    if _LATERAL & {*words, "".join(words)}:
        notes.append(
            "The file says that this is a lateral view; the models know frontal views: what they write of it means "
            "nothing."
        )
        return "LATERAL"
    if _OBLIQUE & {*words}:
        notes.append("The file says that this is an oblique view; the models know frontal ones.")
        return ""
    views = [_FRONTAL[word] for word in (*words, "".join(words)) if word in _FRONTAL]
    return views[0] if views else ""


def _pixel_spacing(header: Header) -> tuple[float, float] | None:
    """Return the spacing in the patient if known, otherwise at the detector or on the film (some 5 % larger)."""
    for tag in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        numbers = header.numbers(tag)
        if len(numbers) == 2 and all(number is not None and 0 < number < np.inf for number in numbers):
            return numbers[0], numbers[1]  # type: ignore[return-value]
    return None
