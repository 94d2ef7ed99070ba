"""DICOM Structured Reports: a Comprehensive SR (TID 2000) a report, of the image that it was written from.

Only four UIDs are taken from the image's file, those by which a report refers to it: name, number and dates of the
patient stay empty, and whoever files the report fills them from the study. It is partial, preliminary and unverified,
its observer is a device. Needs highdicom, of the extra ``dicom-export``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from core import __version__
from core.exports.folder import LeftOut, need_some
from core.exports.reports import NO_REPORT, Reports, file_names
from core.exports.writers import RESEARCH, SOFTWARE, UNKNOWN, Writer
from core.studies.source import DicomReference
from core.types import CXRLensError

if TYPE_CHECKING:
    from highdicom.sr import ComprehensiveSR
    from pydicom.dataset import Dataset

_NOT_DICOM = "study whose image is no DICOM file, left out"
_FIRST_SERIES = 9000  # ours: numbers of series that nobody's device gives
_LONGEST = 64  # characters of a DICOM "LO"
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def check_packages() -> None:
    """See whether highdicom is there, before any work.

    Raises:
        CXRLensError: it is not; the message says how to have it.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise CXRLensError(
            "DICOM reports are written with highdicom, which is not installed. Install it: pip install "
            "'cxr-lens[dicom-export]'."
        ) from error


def files(reports: Reports, notes: LeftOut) -> Iterator[tuple[str, bytes]]:
    """A file a report, in a folder a study. Studies without a DICOM file and empty reports are left out, and counted.

    Raises:
        CXRLensError: highdicom or the source is not at hand, or no report has a DICOM image.
    """
    check_packages()
    source = reports.opened("the DICOM files")
    studies, systems = file_names(reports.study_ids), file_names(list(reports.texts))
    count = 0
    for place, study_id in enumerate(reports.study_ids):
        if not reports.is_there(place, notes):
            continue
        try:
            image = source.dicom_reference(study_id)
        except CXRLensError as error:
            notes.add(_NOT_DICOM, study_id, error)
            continue
        if image is None:
            notes.add(_NOT_DICOM, study_id)
            continue
        for number, (system, writer) in enumerate(reports.writers.items()):
            text = reports.texts[system][place]
            if not text.strip():
                notes.add(NO_REPORT, f"{study_id}, {system}")
                continue
            count += 1
            yield f"{studies[study_id]}/{systems[system]}.dcm", as_bytes(document(image, writer, text, number))
    need_some(count, notes, "report of a DICOM image")


def document(image: DicomReference, writer: Writer, text: str, number: int = 0) -> ComprehensiveSR:
    """A report as a DICOM object.

    Args:
        image: that it was written from.
        writer: of the report.
        text: of the report.
        number: of the system among those that are exported; each has a series of its own in a study.
    """
    import highdicom as hd

    found = hd.sr.ComprehensiveSR(
        evidence=[_evidence(image)],
        content=_content(image, writer, text),
        series_instance_uid=hd.UID(),
        series_number=_FIRST_SERIES + number,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=_short(writer.name),
        series_description=_short(f"Research, unverified: {writer.name}"),
        is_complete=False,
        is_final=False,
        is_verified=False,
        specific_character_set="ISO_IR 192",
    )
    found.SoftwareVersions = [__version__, f"hash {writer.hash}"]
    if writer.content != UNKNOWN:
        found.DeviceSerialNumber = writer.content[:_LONGEST]
    return found


def _short(text: str) -> str:
    """A text as DICOM's "LO" has it: of one line, without the sign that divides values, not longer than it may be."""
    return " ".join(text.replace("\\", "/").split())[:_LONGEST].strip()


def as_bytes(found: ComprehensiveSR) -> bytes:
    """A DICOM file."""
    out = io.BytesIO()
    found.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _evidence(image: DicomReference) -> Dataset:
    """What a report takes over from its image: the study that it belongs to, and nothing of the patient."""
    from pydicom.dataset import Dataset

    found = Dataset()
    found.StudyInstanceUID, found.SeriesInstanceUID = image.study, image.series
    found.SOPClassUID, found.SOPInstanceUID = image.sop_class, image.instance
    for name in _EMPTY:
        setattr(found, name, "")
    return found


def _content(image: DicomReference, writer: Writer, text: str) -> Any:
    """The tree: language, the device as observer, what the report is, then the findings, inferred from the image."""
    from highdicom.sr import (
        CodedConcept,
        ContainerContentItem,
        ContentSequence,
        DeviceObserverIdentifyingAttributes,
        ImageContentItem,
        LanguageOfContentItemAndDescendants,
        ObserverContext,
        RelationshipTypeValues,
        TextContentItem,
    )
    from pydicom.uid import generate_uid

    def section(value: str, meaning: str, item: TextContentItem) -> ContainerContentItem:
        found = ContainerContentItem(_dcm(value, meaning), relationship_type=RelationshipTypeValues.CONTAINS)
        found.ContentSequence = ContentSequence([item])
        return found

    def _dcm(value: str, meaning: str) -> CodedConcept:
        return CodedConcept(value, "DCM", meaning)

    observer = ObserverContext(
        _dcm("121007", "Device"),
        DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=[SOFTWARE, __version__, writer.name, writer.content]),
            name=writer.name,
            manufacturer_name=SOFTWARE,
            model_name=f"{SOFTWARE} {__version__}",
            serial_number=writer.content,
        ),
    )
    what = TextContentItem(_dcm("121106", "Comment"), f"{RESEARCH} {writer}.", RelationshipTypeValues.CONTAINS)
    finding = TextContentItem(_dcm("121071", "Finding"), text, RelationshipTypeValues.CONTAINS)
    finding.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                _dcm("121324", "Source image"), image.sop_class, image.instance, None, None,
                RelationshipTypeValues.INFERRED_FROM,
            )
        ]
    )  # fmt: skip
    root = ContainerContentItem(
        CodedConcept("18748-4", "LN", "Diagnostic imaging report"), is_content_continuous=False, template_id="2000"
    )
    root.ContentSequence = ContentSequence(
        [
            *LanguageOfContentItemAndDescendants(CodedConcept("en", "RFC5646", "English")),
            *observer,
            section("121111", "Summary", what),
            section("121070", "Findings", finding),
        ]
    )
    return root
