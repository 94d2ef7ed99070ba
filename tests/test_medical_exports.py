"""Reports as DICOM objects and FHIR resources: valid for others' readers, of nobody by name, verified by nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from core.exports.writers import RESEARCH
from core.studies.dicomweb import DicomWebSource
from core.studies.sources import open_source
from core.studies.tree import index_tree
from core.types import CXRLensError
from tests import needs, orthanc
from tests.systems_files import write_jsonl
from tests.table_tree import dicom
from tests.test_systems import run

HIGHDICOM = needs.DICOM_EXPORT.packages("highdicom")
FHIR = needs.FHIR.packages("fhir")
SECRETS = ("Doe", "Jane", "MRN-4711", "A-1", "20240229", "101112")
TEXT = "No effusion.\u2028Clear — Ünïcode & <b>lungs</b>."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def films(folder: Path, **tags: Any) -> str:
    """An index of three DICOM films of patients with names."""
    for number in range(3):
        uids = {"StudyInstanceUID": f"1.2.840.99.{number}", "SeriesInstanceUID": f"1.2.840.99.{number}.1"}
        dicom(folder / "films" / f"{number}.dcm", number, **uids, ViewPosition="PA", AccessionNumber="A-1", **tags)
    return str(index_tree(folder / "films", folder / "index", key=b"k" * 32).folder)


def reports(folder: Path, spec: str, *texts: str) -> tuple[str, list[str]]:
    ids = open_source(spec).all_ids()
    rows = [{"study_id": name, "Theirs": text, "Other": "x"} for name, text in zip(ids, texts, strict=False)]
    return str(write_jsonl(folder / "reports.jsonl", rows)), ids


def strings(item: pydicom.Dataset) -> Iterator[str]:
    for each in item.iterall():
        if each.VR != "SQ":
            yield str(each.value)


# -------------------------------------------------------------------------------------------------------------- DICOM


@HIGHDICOM
def test_a_structured_report_says_what_it_is_of_and_who_wrote_it(here: Path) -> None:
    from highdicom.sr import ComprehensiveSR

    spec = films(here)
    path, ids = reports(here, spec, TEXT, "", "Clear.")
    told = run("export", "dicom-sr", path, "--source", spec, "--system", "Theirs", "--out", "out")
    assert "2 files in out" in told and "empty report, left out: 1" in told
    assert not (here / "out" / ids[1]).exists()
    data = pydicom.dcmread(here / "out" / ids[0] / "Theirs.dcm")
    film = open_source(spec).dicom_reference(ids[0])
    assert film is not None
    assert (data.VerificationFlag, data.CompletionFlag, data.PreliminaryFlag) == (
        "UNVERIFIED",
        "PARTIAL",
        "PRELIMINARY",
    )
    assert (data.StudyInstanceUID, data.Modality, data.Manufacturer) == (film.study, "SR", "CXR Lens")
    assert not data.PatientName and not data.PatientID and not data.StudyDate and not data.AccessionNumber
    assert not [each for each in strings(data) for secret in SECRETS if secret in each]
    (study,) = data.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    found = (
        study.StudyInstanceUID,
        series.SeriesInstanceUID,
        image.ReferencedSOPClassUID,
        image.ReferencedSOPInstanceUID,
    )
    assert found == (film.study, film.series, film.sop_class, film.instance)
    report = ComprehensiveSR.from_dataset(data)  # highdicom's reader checks the tree
    texts = {
        each.ConceptNameCodeSequence[0].CodeMeaning: each
        for each in walk(report)
        if each.ValueType in ("TEXT", "CODE", "IMAGE")
    }
    assert texts["Finding"].TextValue == "No effusion.\nClear — Ünïcode & <b>lungs</b>."
    assert RESEARCH in texts["Comment"].TextValue and "system Theirs" in texts["Comment"].TextValue
    assert texts["Observer Type"].ConceptCodeSequence[0].CodeMeaning == "Device"
    (source,) = texts["Finding"].ContentSequence
    assert source.RelationshipType == "INFERRED FROM"
    assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == film.instance


def walk(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    for each in item.get("ContentSequence", ()):
        yield each
        yield from walk(each)


@HIGHDICOM
def test_each_system_has_a_series_of_its_own_and_every_report_a_uid(here: Path) -> None:
    spec = films(here)
    path, _ = reports(here, spec, "a", "b", "c")
    content = Path(path).read_text().replace('"Other"', json.dumps("O\\th\ner" * 20))
    Path(path).write_text(content)
    run("export", "dicom-sr", path, "--source", spec, "--out", "out")
    found = [pydicom.dcmread(each) for each in sorted((here / "out").rglob("*.dcm"))]
    assert len({each.SOPInstanceUID for each in found}) == len({each.SeriesInstanceUID for each in found}) == 6
    assert {(each.SeriesNumber, each.ManufacturerModelName) for each in found} == {
        (9000, "Theirs"),
        (9001, ("O/th er" * 20)[:64].strip()),
    }


@HIGHDICOM
def test_films_that_nothing_can_refer_to_are_counted_or_told(here: Path) -> None:
    spec = films(here)
    path, ids = reports(here, spec, "a", "b", "c")
    dicom(here / "films" / "0.dcm", 0, StudyInstanceUID="1.2.840.99.0")  # no series any more
    (here / "films" / "1.dcm").unlink()
    told = run("export", "dicom-sr", path, "--source", spec, "--out", "out")
    assert "2 files in out" in told and "study whose image is no DICOM file, left out: 2" in told
    assert "0.dcm" not in told and "SeriesInstanceUID" in told
    mark = (here / "out" / "cxr-lens-export.json").read_text()
    assert json.loads(mark)["left_out"]["study whose image is no DICOM file, left out"] == {
        "count": 2,
        "first": ids[:2],
    }
    assert not [secret for secret in (*SECRETS, str(here)) if secret in told + mark]
    path, _ = reports(here, "phantom:12:0", "a")
    assert "There is no report of a DICOM image to export" in run(
        "export", "dicom-sr", path, "--source", "phantom:12:0", "--out", "none", code=1
    )


def test_without_highdicom_one_sentence_says_how_to_have_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "highdicom", None)
    told = run("export", "dicom-sr", "reports.jsonl", "--out", "out", code=1)
    assert told.endswith("Install it: pip install 'cxr-lens[dicom-export]'.") and "\n" not in told


@HIGHDICOM
@needs.ORTHANC.unless(orthanc.program() is not None)
def test_an_archive_keeps_reports_with_the_study_that_they_are_of(here: Path) -> None:
    spec = films(here)
    path, ids = reports(here, spec, TEXT, "b", "c")
    run("export", "dicom-sr", path, "--source", spec, "--system", "Theirs", "--out", "out")
    kept = [each.read_bytes() for folder in ("films", "out") for each in sorted((here / folder).rglob("*.dcm"))]
    with orthanc.serving(here / "server", kept) as url:
        source, film = DicomWebSource(url), open_source(spec).dicom_reference(ids[0])
        assert film is not None
        assert source.dicom_reference(film.study) == film  # without the image
        rows = requests.get(f"{url}/studies/{film.study}/instances", {"Modality": "SR"}, timeout=20).json()
        (row,) = rows
        uid, where = (row[tag]["Value"][0] for tag in ("00080018", "0020000E"))
        answer = requests.get(
            f"{url}/studies/{film.study}/series/{where}/instances/{uid}",
            headers={"Accept": 'multipart/related; type="application/dicom"'},
            timeout=20,
        )
        body = answer.content.split(b"\r\n\r\n", 1)[1]
        back = pydicom.dcmread(BytesIO(body), force=True)
        assert (back.VerificationFlag, back.StudyInstanceUID) == ("UNVERIFIED", film.study)
        (finding,) = [each for each in walk(back) if each.ConceptNameCodeSequence[0].CodeMeaning == "Finding"]
        assert finding.TextValue.startswith("No effusion.")
        with pytest.raises(CXRLensError):
            source.dicom_reference("1.2.3.999")


# --------------------------------------------------------------------------------------------------------------- FHIR


@FHIR
def test_fhir_reads_preliminary_reports_their_device_and_provenance(here: Path) -> None:
    from fhir.resources.R4B.bundle import Bundle

    spec = films(here)
    path, ids = reports(here, spec, TEXT, "", "Clear.")
    told = run("export", "fhir", path, "--source", spec, "--out", "out")
    assert "empty report, left out: 1" in told
    text = (here / "out" / "reports.json").read_text()
    bundle = Bundle.model_validate_json(text)
    assert json.loads(bundle.model_dump_json()) is not None
    found: dict[str, list[Any]] = {}
    for entry in bundle.entry:
        found.setdefault(entry.resource.get_resource_type(), []).append(entry.resource)
        assert entry.fullUrl == f"urn:uuid:{entry.resource.id}"
    assert {name: len(each) for name, each in found.items()} == {"Device": 2, "DiagnosticReport": 5, "Provenance": 2}
    first = found["DiagnosticReport"][0]
    assert (first.status, first.conclusion) == ("preliminary", "No effusion.\nClear — Ünïcode & <b>lungs</b>.")
    assert first.code.coding[0].system == "http://loinc.org" and first.category[0].coding[0].code == "RAD"
    assert first.imagingStudy[0].identifier.value == "urn:oid:1.2.840.99.0"
    assert first.identifier[0].value == ids[0] and first.subject is None
    assert "&lt;b&gt;lungs" in first.text.div and RESEARCH in first.performer[0].display
    for each in found["DiagnosticReport"]:
        assert each.meta.security[0].code == "AIAST" and each.meta.tag[0].code == "research-unverified"
    targets = {each.reference for resource in found["Provenance"] for each in resource.target}
    assert targets == {f"urn:uuid:{each.id}" for each in found["DiagnosticReport"]}
    agents = {each.who.reference for resource in found["Provenance"] for each in resource.agent}
    assert agents == {f"urn:uuid:{each.id}" for each in found["Device"]}
    assert not [secret for secret in SECRETS if secret in text]


@FHIR
def test_reports_of_studies_that_are_not_at_hand_refer_to_none(here: Path) -> None:
    path = str(write_jsonl(here / "reports.jsonl", [{"study_id": "s1", "A": "Clear."}]))
    run("export", "fhir", path, "--out", "out")
    entries = json.loads((here / "out" / "reports.json").read_text())["entry"]
    (report,) = [each["resource"] for each in entries if each["resource"]["resourceType"] == "DiagnosticReport"]
    assert "imagingStudy" not in report and report["identifier"][0]["value"] == "s1"
    (here / "empty.jsonl").write_text('{"study_id": "s1", "A": ""}\n')
    assert "There is no report to export" in run("export", "fhir", "empty.jsonl", "--out", "none", code=1)
