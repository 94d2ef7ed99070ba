"""FHIR R4: a ``Bundle`` of ``DiagnosticReport`` resources, the ``Device`` that wrote them, and their ``Provenance``.

A report is preliminary, is marked as asserted by an artificial intelligence (``AIAST``) and as unverified research, and
names no patient. R4 lets no device be the performer of a report (hl7.org/fhir/R4/diagnosticreport.html), so the
performer is told in words, and the device stands in the provenance.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from core import __version__
from core.exports.folder import LeftOut, as_json, need_some
from core.exports.reports import NO_REPORT, Reports
from core.exports.writers import RESEARCH, SOFTWARE, UNKNOWN, Writer
from core.types import CXRLensError
from core.wording import counted

_OURS = "urn:cxr-lens"
_SPACE = uuid.UUID("6ad0a4d0-3c3b-5d2a-9a55-0a4a3f1f6f0e")  # ours: names of resources are made in it
_META = {
    "security": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
            "code": "AIAST",
            "display": "Artificial Intelligence asserted",
        }
    ],
    "tag": [{"system": f"{_OURS}:use", "code": "research-unverified", "display": "Research, unverified"}],
}
_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}
_CODE = {"system": "http://loinc.org", "code": "30745-4", "display": "XR Chest Views"}


def files(reports: Reports, notes: LeftOut) -> Iterator[tuple[str, bytes]]:
    """``reports.json``. Empty reports are left out, and counted: a conclusion is never empty.

    Raises:
        CXRLensError: every report is empty.
    """
    studies = [_study_uid(reports, place, notes) for place in range(len(reports.study_ids))]
    entries: list[dict[str, Any]] = []
    count = 0
    for system, writer in reports.writers.items():
        device = _device(writer)
        written: list[dict[str, Any]] = []
        for place, text in enumerate(reports.texts[system]):
            if not text.strip():
                notes.add(NO_REPORT, f"{reports.study_ids[place]}, {system}")
                continue
            written.append(_report(reports, place, writer, text, studies[place]))
        if written:
            entries += [device, *written, _provenance(writer, device, written)]
            count += len(written)
    need_some(count, notes, "report")
    bundle = {
        "resourceType": "Bundle",
        "meta": _META,
        "type": "collection",
        "timestamp": _now(),
        "entry": [{"fullUrl": _url(each), "resource": each} for each in entries],
    }
    yield "reports.json", as_json(bundle)


def _study_uid(reports: Reports, place: int, notes: LeftOut) -> str:
    """Of the study in DICOM; "" where it has none, or it is not known."""
    if reports.source is None:
        return ""
    study_id = reports.study_ids[place]
    try:
        reports.study(place)
        found = reports.source.dicom_reference(study_id)
    except CXRLensError as error:
        notes.add("study whose DICOM study is not known, so its report refers to none", study_id, error)
        return ""
    return found.study if found else ""


def _report(reports: Reports, place: int, writer: Writer, text: str, study_uid: str) -> dict[str, Any]:
    study_id = reports.study_ids[place]
    found: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": _name(reports.fingerprint, study_id, writer.name, writer.content, text),
        "meta": _META,
        "text": _narrative(RESEARCH, text),
        "identifier": [{"system": f"{_OURS}:study:{reports.fingerprint.replace(' ', '-')}", "value": study_id}],
        "status": "preliminary",
        "category": [{"coding": [_CATEGORY]}],
        "code": {"coding": [_CODE], "text": "Findings of a chest radiograph"},
        "performer": [{"display": f"{writer}. {RESEARCH}"}],
        "conclusion": text,
    }
    if study_uid:
        dicom = {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid}"}
        found["imagingStudy"] = [{"type": "ImagingStudy", "identifier": dicom}]
    return found


def _device(writer: Writer) -> dict[str, Any]:
    content = [{"text": writer.content}]
    return {
        "resourceType": "Device",
        "id": _name("device", writer.name, writer.content),
        "meta": {"tag": _META["tag"]},
        "text": _narrative(str(writer)),
        "identifier": [{"system": f"{_OURS}:system", "value": writer.name}],
        "manufacturer": SOFTWARE,
        "deviceName": [{"name": writer.name, "type": "model-name"}],
        "version": [{"type": {"text": SOFTWARE}, "value": __version__}],
        "property": [
            *([{"type": {"text": "SHA-256 of the bundle"}, "valueCode": content}] * (writer.content != UNKNOWN)),
            {"type": {"text": "seed"}, "valueCode": [{"text": writer.seed}]},
        ],
        "note": [{"text": f"{writer}. {RESEARCH}"}],
    }


def _provenance(writer: Writer, device: dict[str, Any], written: Sequence[dict[str, Any]]) -> dict[str, Any]:
    author = {
        "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
        "code": "author",
        "display": "Author",
    }
    return {
        "resourceType": "Provenance",
        "id": _name("provenance", writer.name, writer.content, *(each["id"] for each in written)),
        "meta": _META,
        "text": _narrative(f"{writer} wrote {counted(len(written), 'report', 'reports')}.", RESEARCH),
        "target": [{"reference": _url(each)} for each in written],
        "recorded": _now(),
        "agent": [{"type": {"coding": [author]}, "who": {"reference": _url(device)}}],
    }


def _narrative(*paragraphs: str) -> dict[str, str]:
    inner = "".join(f"<p>{html.escape(each)}</p>" for each in paragraphs)
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'}


def _name(*parts: str) -> str:
    """Of a resource: the same for the same content."""
    return str(uuid.uuid5(_SPACE, "\n".join(parts)))


def _url(resource: dict[str, Any]) -> str:
    return f"urn:uuid:{resource['id']}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
