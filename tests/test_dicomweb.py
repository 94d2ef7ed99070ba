"""DICOMweb: against a small server of our own with planted faults, and against Orthanc where it is installed."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from core.studies.dicomweb import DicomWebError, DicomWebSource
from core.studies.images import ImageError
from core.studies.source import UnknownStudyError
from core.studies.sources import Catalogue, open_source
from core.types import CXRLensError
from tests import needs, orthanc
from tests.app_pages import open_page, words_on
from tests.table_tree import dicom, pixels

needs_orthanc = needs.ORTHANC.unless(orthanc.program() is not None)

STUDY, OTHER = "1.2.840.99.1", "1.2.840.99.2"


def files(folder: Path) -> dict[tuple[str, str], bytes]:
    """(study, instance) -> file: a study of a lateral, a frontal and a CT image, and another patient's."""
    found = {}
    for number, (study, tags) in enumerate(
        (
            (STUDY, {"ViewPosition": "LL"}),
            (STUDY, {"ViewPosition": "PA"}),
            (STUDY, {"Modality": "CT"}),
            (OTHER, {"ViewPosition": "AP", "PatientID": "other", "AccessionNumber": "A-2"}),
        )
    ):
        tags = {"AccessionNumber": "A-1", "SeriesInstanceUID": f"{study}.{number}", "InstanceNumber": number, **tags}
        dicom(folder / f"{number}.dcm", number, StudyInstanceUID=study, **tags)
        found[(study, f"1.2.3.{number}")] = (folder / f"{number}.dcm").read_bytes()
    return found


class Server(ThreadingHTTPServer):
    """Answers QIDO-RS and WADO-RS, as far as the source asks; `fault` says what is wrong with it."""

    fault = ""
    asked: list[str]

    def __init__(self, held: dict[tuple[str, str], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.held, self.asked = held, []

    def rows(self) -> list[dict[str, str]]:
        from io import BytesIO

        import pydicom

        return [
            {
                "0020000D": data.StudyInstanceUID, "0020000E": data.SeriesInstanceUID, "00080018": data.SOPInstanceUID,
                "00080050": data.AccessionNumber, "00080060": data.Modality, "00185101": data.get("ViewPosition", ""),
                "00100010": str(data.PatientName), "00100040": data.PatientSex, "00101010": data.PatientAge,
            }
            for data in (pydicom.dcmread(BytesIO(content)) for content in self.held.values())
        ]  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append(self.path)
        fault, words = self.server.fault, parts.path.removeprefix("/dicom-web/").split("/")
        signed = self.headers.get("Authorization", "")
        if (
            fault == "password"
            and signed != "Basic " + base64.b64encode(b"me:secret").decode()
            and signed != "Bearer t"
        ):
            return self.send(401, b"")
        if fault == "elsewhere":
            return self.send(302, b"", location="http://127.0.0.1:9/")
        if fault == "slow":
            time.sleep(1)
        if fault.isdecimal():
            return self.send(int(fault), b"no")
        if fault == "page":
            return self.send(200, b"<html>", kind="text/html")
        if not parts.path.startswith("/dicom-web/"):
            return self.send(404, b"")
        if len(words) == 6:
            return self.instance(words[1], words[5])
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        tags = {"StudyInstanceUID": "0020000D", "AccessionNumber": "00080050"}
        rows = [
            row
            for row in self.server.rows()
            if all(row[tag] == asked[name] for name, tag in tags.items() if name in asked)
            and (len(words) == 1 or row["0020000D"] == words[1])
        ]
        if len(words) == 1:
            rows = list({row["0020000D"]: row for row in rows}.values())
        answer = [{tag: {"vr": "LO", "Value": [value]} for tag, value in row.items() if value} for row in rows]
        body = json.dumps(answer).encode() if answer else b""
        return self.send(200 if answer else 204, body, kind="application/dicom+json")

    def instance(self, study: str, uid: str) -> None:
        held = self.server.held
        content = held[(study, uid)]
        if self.server.fault == "another":
            content = next(other for (_, name), other in held.items() if name != uid)
        if self.server.fault == "endless":
            content = b"\0" * (80 * 2**20)
        if self.server.fault == "cut":
            content = content[: len(content) // 2]
        if self.server.fault == "no part":
            return self.send(200, b"--x--\r\n", kind='multipart/related; type="application/dicom"; boundary=x')
        if self.server.fault == "no boundary":
            return self.send(200, content, kind='multipart/related; type="application/dicom"')
        if self.server.fault == "whole":
            return self.send(200, content, kind="application/dicom")
        head = b"\r\n--x\r\nContent-Type: application/dicom\r\nMIME-Version: 1.0\r\n\r\n"
        return self.send(
            200, head + content + b"\r\n--x--\r\n", kind='multipart/related; type="application/dicom"; boundary="x"'
        )

    def send(self, status: int, body: bytes, kind: str = "text/plain", location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        with suppress(OSError):  # who asked may have heard enough
            self.wfile.write(body)


@contextmanager
def serving(held: dict[tuple[str, str], bytes]) -> Iterator[tuple[Server, str]]:
    server = Server(held)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, DicomWebSource]]:
    for name in ("", "_USER", "_PASSWORD", "_TOKEN"):
        monkeypatch.delenv(f"CXR_DICOMWEB{name}", raising=False)
    with serving(files(tmp_path)) as (server, url):
        yield server, DicomWebSource(url)


def check(source: DicomWebSource) -> None:
    """What is held is found, read and told, by whatever server."""
    assert source.find("A-1") == source.find(f" {STUDY} ") == [STUDY]
    assert source.find("A-2") == [OTHER]
    assert source.find("A-3") == source.find("") == []
    assert not source.listed and source.splits() == ()
    frontal, lateral = source.images(STUDY)
    assert [(each.view, each.read) for each in (frontal, lateral)] == [("PA", True), ("LATERAL", False)]
    film = source.original(STUDY)
    assert film.view == "PA" and film.pixel_spacing == (0.2, 0.2)
    assert np.corrcoef(film.pixels.ravel(), pixels(1).ravel())[0, 1] > 0.9999
    assert np.corrcoef(source.original(STUDY, lateral.image_id).pixels.ravel(), pixels(0).ravel())[0, 1] > 0.9999
    assert source.image(STUDY, 32).shape == (32, 32)
    study = source.study(STUDY)
    assert (study.view, study.findings, study.context) == ("PA", "", {"age": "93", "sex": "F"})
    assert source.traits(study) == {"View": "PA", "Sex": "female", "Age": "50 and over"}
    for wrong in ("1.2.3.999", "not one", "../instances", "1" * 70):
        with pytest.raises(UnknownStudyError, match="Search by its accession number"):
            source.study(wrong)
    with pytest.raises(UnknownStudyError, match="no image"):
        source.original(STUDY, source.images(OTHER)[0].image_id)


def test_studies_are_found_and_loaded(served: tuple[Server, DicomWebSource]) -> None:
    server, source = served
    check(source)
    again = open_source(source.key)
    assert (again.key, again.fingerprint()) == (source.key, source.fingerprint())
    assert list(Catalogue([source.key]).specs) == ["dicomweb"]
    server.fault = "whole"  # some servers send one file without parts
    assert again.original(STUDY).view == "PA"


def test_an_image_is_loaded_once_for_all_models(served: tuple[Server, DicomWebSource]) -> None:
    server, source = served
    for size in (32, 64, 96):
        source.image(STUDY, size)
    assert sum("/series/" in path for path in server.asked) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("password", "asks for a password. Set CXR_DICOMWEB_USER and CXR_DICOMWEB_PASSWORD, or CXR_DICOMWEB_TOKEN"),
        ("elsewhere", "sends on to another address"),
        ("500", "answers with the error 500"),
        ("403", "does not allow this user"),
        ("404", "has nothing there"),
        ("page", "not as a DICOMweb server does"),
        ("another", "sent another image than was asked for. It is not shown"),
        ("endless", "sends more than 64 MiB"),
        ("cut", "The image: .* It comes from 127.0.0.1"),
        ("no part", "without an image in it"),
        ("no boundary", "in a form that is no DICOMweb"),
    ],
)
def test_a_server_that_does_not_answer_as_it_should_is_one_sentence(
    served: tuple[Server, DicomWebSource], fault: str, said: str
) -> None:
    server, source = served
    server.fault = fault
    with pytest.raises((DicomWebError, ImageError), match=said) as error:
        source.original(STUDY)
    assert "Doe" not in str(error.value) and "MRN" not in str(error.value)
    server.fault = ""
    assert source.original(OTHER).view == "AP"  # the rest goes on


def test_a_password_comes_from_the_environment_and_is_never_told(
    served: tuple[Server, DicomWebSource], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, source = served
    server.fault = "password"
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(DicomWebError, match="asks for a password"):
        source.find("A-1")
    monkeypatch.setenv("CXR_DICOMWEB_USER", "me")
    monkeypatch.setenv("CXR_DICOMWEB_PASSWORD", "wrong-secret")
    with pytest.raises(DicomWebError, match="does not accept the password") as error:
        source.find("A-1")
    assert "wrong-secret" not in str(error.value)
    monkeypatch.setenv("CXR_DICOMWEB_PASSWORD", "secret")
    assert source.find("A-1") == [STUDY]
    monkeypatch.setenv("CXR_DICOMWEB_TOKEN", "t")
    assert source.find("A-2") == [OTHER]
    with pytest.raises(DicomWebError, match="would be seen by others") as error:
        open_source("dicomweb:http://me:secret@127.0.0.1/dicom-web")
    assert "secret@" not in str(error.value)


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DicomWebError, match=f"127.0.0.1:{port} does not answer. Is the address in CXR_DICOMWEB right"):
        DicomWebSource(f"http://127.0.0.1:{port}/dicom-web").find("A-1")
    monkeypatch.delenv("CXR_DICOMWEB", raising=False)
    with pytest.raises(CXRLensError, match="Put its address into CXR_DICOMWEB"):
        open_source("dicomweb")
    monkeypatch.setenv("CXR_DICOMWEB", f"http://127.0.0.1:{port}/dicom-web/")
    assert open_source("dicomweb").key == f"dicomweb:http://127.0.0.1:{port}/dicom-web"
    for wrong in ("ftp://a", "pacs.example.org", "http://", "file:///etc"):
        with pytest.raises(DicomWebError, match="begins with http"):
            DicomWebSource(wrong)


def test_a_server_that_hangs_is_left(served: tuple[Server, DicomWebSource], monkeypatch: pytest.MonkeyPatch) -> None:
    server, source = served
    monkeypatch.setattr("core.studies.dicomweb._WAIT", (0.2, 0.2))
    server.fault = "slow"
    with pytest.raises(DicomWebError, match="does not answer in time"):
        source.find("A-1")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[str]:
    """Orthanc with the same files."""
    with orthanc.serving(tmp_path / "orthanc", files(tmp_path / "files").values()) as url:
        yield url


@needs_orthanc
def test_orthanc_is_read_as_it_is(real: str) -> None:
    check(DicomWebSource(real))


@needs_orthanc
def test_a_study_of_orthanc_is_found_on_the_page_and_has_an_address(real: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_DICOMWEB", real)
    monkeypatch.setenv("CXR_BUNDLES", "/nowhere")
    app = open_page("read", source="dicomweb")
    app.text_input(key="find").set_value("A-1").run()
    assert f"**{STUDY}** · woman · 93 years · PA view" in words_on(app)
    assert f"**{OTHER}** · " in words_on(open_page("read", source="dicomweb", study=OTHER))
