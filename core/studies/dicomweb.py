"""A DICOMweb server as a source: found by accession number or study UID, loaded into memory, nothing kept on disk.

QIDO-RS to search, WADO-RS to load (DICOM PS3.18 8.3 and 10.4). Who the user is comes from the environment only:
CXR_DICOMWEB_USER with CXR_DICOMWEB_PASSWORD, or CXR_DICOMWEB_TOKEN.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import requests
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.studies.images import MAX_FILE_BYTES, ImageError, Radiograph, read_image
from core.studies.images.dicom import check_uids
from core.studies.images.dicom_header import DamagedHeaderError, NotDicomError, read_identity
from core.studies.source import DicomReference, Source, StudyImage, UnknownStudyError, bare_study, hashed
from core.types import CXRLensError, Split, Study
from core.views import plain_view

ADDRESS = "CXR_DICOMWEB"
"""In the environment: the server's address, as http://pacs.example.org/dicom-web."""

_USER, _PASSWORD, _TOKEN = (f"{ADDRESS}_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
_WAIT = (5, 20)  # ours: seconds for a connection, and for each part of an answer
_LONGEST = 60  # ours: seconds for a whole answer
_MAX_JSON = 8 * 2**20  # ours: bytes; a study of 1,000 instances has about 1 MB
_FRESH = 30  # ours: seconds for which what a study has is not asked again
_KEPT = 2  # ours: images kept in memory
_RADIOGRAPHY = ("CR", "DX", "DR", "RG", "XR", "RF", "OT", "")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_FIRST = ("PA", "AP", "")

# Tags that are asked for; no name is.
_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_MODALITY, _VIEW, _SEX, _AGE = "00080060", "00185101", "00100040", "00101010"


class DicomWebError(CXRLensError):
    """A server that does not answer as it should."""


@dataclass(frozen=True, slots=True)
class _Instance:
    """An image on the server."""

    series: str
    uid: str
    view: str
    sop_class: str


class DicomWebSource(Source):
    """Studies on a DICOMweb server. It cannot be listed: `find` asks the server."""

    name = "dicomweb"
    has_reports = False
    has_labels = False
    listed = False

    def __init__(self, url: str) -> None:
        """Name a server; it is not asked yet.

        Args:
            url: of its DICOMweb service; without a user or a password.

        Raises:
            DicomWebError: it is no address.
        """
        parts = urlsplit(url.strip())
        if parts.username or parts.password:
            raise DicomWebError(
                f"A password in an address would be seen by others. Put it into {_USER} and {_PASSWORD} instead."
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DicomWebError("The address of a DICOMweb server begins with http:// or https://, then its name.")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self.host = parts.netloc
        self.key = f"{self.name}:{self.url}"
        self.title = f"DICOMweb server {self.host}"
        self._session = requests.Session()
        self._known = lru_cache(maxsize=64)(self._ask_instances)
        self._film = lru_cache(maxsize=_KEPT)(self._load)

    def fingerprint(self) -> str:
        """Hash the address: what is on a server cannot be hashed."""
        return hashed([self.url])

    def ids(self, split: Split) -> Sequence[str]:
        """None: a server is not listed."""
        return ()

    def find(self, text: str, limit: int = 20, split: Split | None = None) -> list[str]:
        """Find studies by their whole accession number, or their study UID.

        Raises:
            DicomWebError: the server does not answer as it should.
        """
        wanted = text.strip()
        if not wanted or split not in (None, "test"):
            return []
        which = "StudyInstanceUID" if _UID.fullmatch(wanted) else "AccessionNumber"
        rows = self._json("/studies", {which: wanted, "limit": str(limit)})
        found = dict.fromkeys(uid for row in rows if _UID.fullmatch(uid := _first(row, _STUDY)))
        return list(found)[:limit]

    def study(self, study_id: str) -> Study:
        """A study: view, age and sex are known.

        Raises:
            UnknownStudyError: the server has no such study, or no radiograph of it.
            DicomWebError: it does not answer as it should.
        """
        instances, context = self._of(study_id)
        study = bare_study(study_id, instances[0].view)
        return replace(study, context=context)

    def images(self, study_id: str) -> tuple[StudyImage, ...]:
        """The radiographs of a study, a frontal one first.

        Raises:
            UnknownStudyError: as `study`.
            DicomWebError: as `study`.
        """
        instances, _ = self._of(study_id)
        return tuple(StudyImage(study_id, each.uid, each.view, read=place == 0) for place, each in enumerate(instances))

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """Load an image into memory.

        Raises:
            UnknownStudyError: there is no such study or image.
            DicomWebError: the server does not answer as it should, or sends another image than was asked for.
            ImageError: the image cannot be read.
        """
        instances, _ = self._of(study_id)
        wanted = next((each for each in instances if image_id in ("", each.uid)), None)
        if wanted is None:
            raise UnknownStudyError(f"The study has no image {image_id[:64]!r} on {self.host}.")
        return self._film(study_id, wanted)

    def dicom_reference(self, study_id: str) -> DicomReference | None:
        """As the server says, without the image; see `Source.dicom_reference`."""
        instances, _ = self._of(study_id)
        first = instances[0]
        return DicomReference(*check_uids((study_id, first.series, first.sop_class, first.uid), study_id))

    def unknown(self, study_id: str) -> UnknownStudyError:
        """The error of a study that the server does not have."""
        return UnknownStudyError(
            f"{self.host} has no radiograph of a study {study_id[:64]!r}. Search by its accession number or study UID."
        )

    def _of(self, study_id: str) -> tuple[tuple[_Instance, ...], Mapping[str, str]]:
        if not _UID.fullmatch(study_id) or len(study_id) > 64:  # it becomes part of an address
            raise self.unknown(study_id)
        return self._known(study_id, int(time.monotonic() / _FRESH))

    def _ask_instances(self, study_id: str, _when: int) -> tuple[tuple[_Instance, ...], Mapping[str, str]]:
        rows = self._json(f"/studies/{study_id}/instances", {"includefield": [_MODALITY, _VIEW, _SEX, _AGE]})
        found: list[_Instance] = []
        context: dict[str, str] = {}
        for row in rows:
            series, uid = _first(row, _SERIES), _first(row, _INSTANCE)
            if not (_UID.fullmatch(series) and _UID.fullmatch(uid)) or _first(row, _STUDY) not in ("", study_id):
                continue
            if _first(row, _MODALITY).upper() in _RADIOGRAPHY:
                found.append(_Instance(series, uid, plain_view(_first(row, _VIEW)), _first(row, _CLASS)))
                context |= {"age": _first(row, _AGE).removesuffix("Y").lstrip("0"), "sex": _first(row, _SEX)[:1]}
        if not found:
            raise self.unknown(study_id)
        found.sort(key=lambda each: (*_FIRST, each.view).index(each.view))
        return tuple(found), {name: text for name, text in context.items() if text}

    def _load(self, study_id: str, instance: _Instance) -> Radiograph:
        path = f"/studies/{study_id}/series/{instance.series}/instances/{instance.uid}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        answer, body = self._get(path, {}, accept, MAX_FILE_BYTES + 2**16)
        data = self._part(answer, body)
        try:
            told = read_identity(data)
        except (NotDicomError, DamagedHeaderError):
            told = {}
        if told and (told["StudyInstanceUID"], told["SOPInstanceUID"]) != (study_id, instance.uid):
            raise DicomWebError(f"{self.host} sent another image than was asked for. It is not shown.")
        try:
            return read_image(data, name="The image")
        except ImageError as error:
            raise ImageError(f"{error} It comes from {self.host}.") from error

    def _part(self, answer: requests.Response, body: bytes) -> bytes:
        """The first part of an answer in parts; the whole of one that has none."""
        kind, options = parse_options_header(answer.headers.get("Content-Type", ""))
        if not kind.startswith(b"multipart/"):
            return body
        parts: list[bytearray] = []

        def begin() -> None:
            parts.append(bytearray())

        def data(piece: bytes, start: int, end: int) -> None:
            if len(parts) == 1:
                parts[0].extend(piece[start:end])

        try:
            parser = MultipartParser(options[b"boundary"], {"on_part_begin": begin, "on_part_data": data})
            parser.write(body.lstrip(b"\r\n"))
        except (KeyError, MultipartParseError) as error:
            raise DicomWebError(f"{self.host} sent an image in a form that is no DICOMweb.") from error
        if not parts:
            raise DicomWebError(f"{self.host} sent an answer without an image in it.")
        return bytes(parts[0])

    def _json(self, path: str, query: Mapping[str, str | list[str]]) -> list[dict[str, Any]]:
        answer, body = self._get(path, query, "application/dicom+json", _MAX_JSON)
        if answer.status_code == 204 or not body:
            return []
        try:
            rows = json.loads(body)
        except ValueError:
            rows = None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DicomWebError(
                f"{self.host} answers, but not as a DICOMweb server does. Is the path in {ADDRESS} right?"
            )
        return rows

    def _get(
        self, path: str, query: Mapping[str, str | list[str]], accept: str, most: int
    ) -> tuple[requests.Response, bytes]:
        """Ask the server: its answer, and the whole of its body.

        Raises:
            DicomWebError: it does not answer, refuses, or sends too much.
        """
        began = time.monotonic()
        try:
            answer = self._session.get(
                self.url + path,
                params=dict(query),
                headers={"Accept": accept},
                auth=_sign,
                timeout=_WAIT,
                allow_redirects=False,  # the password must not go elsewhere
                stream=True,
            )
            with answer:
                self._check(answer)
                body = bytearray()
                for piece in answer.iter_content(2**16):
                    body += piece
                    if len(body) > most:
                        raise DicomWebError(f"{self.host} sends more than {most // 2**20} MiB, the limit.")
                    if time.monotonic() - began > _LONGEST:
                        raise requests.Timeout
        except requests.exceptions.SSLError as error:
            raise DicomWebError(
                f"The certificate of {self.host} is not trusted. Name its authority's file in REQUESTS_CA_BUNDLE."
            ) from error
        except requests.Timeout as error:
            raise DicomWebError(f"{self.host} does not answer in time. Try again later.") from error
        except requests.RequestException as error:
            raise DicomWebError(
                f"{self.host} does not answer. Is the address in {ADDRESS} right, and the server running?"
            ) from error
        return answer, bytes(body)

    def _check(self, answer: requests.Response) -> None:
        status = answer.status_code
        if status == 401:
            signed = any(os.environ.get(name) for name in (_USER, _TOKEN))
            what = "does not accept the password" if signed else "asks for a password"
            raise DicomWebError(f"{self.host} {what}. Set {_USER} and {_PASSWORD}, or {_TOKEN}, and start again.")
        if status == 403:
            raise DicomWebError(f"{self.host} does not allow this user to see it.")
        if 300 <= status < 400:
            raise DicomWebError(f"{self.host} sends on to another address. Put that one into {ADDRESS}.")
        if status == 404:
            raise DicomWebError(
                f"{self.host} has nothing there: no such study, or no DICOMweb at the path in {ADDRESS}."
            )
        if status not in (200, 204, 206):
            raise DicomWebError(f"{self.host} answers with the error {status}. Try again later.")


def open_dicomweb(url: str) -> DicomWebSource:
    """Open a server by its address, or by that in the environment.

    Raises:
        DicomWebError: there is none.
    """
    found = url or os.environ.get(ADDRESS, "")
    if not found:
        raise DicomWebError(f"Which DICOMweb server? Put its address into {ADDRESS}, or write dicomweb:ADDRESS.")
    return DicomWebSource(found)


def _sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Say who asks; from the environment, never from a .netrc file that was made for something else."""
    user, token = os.environ.get(_USER), os.environ.get(_TOKEN)
    if token:
        request.headers["Authorization"] = f"Bearer {token}"
    elif user:
        signed: requests.PreparedRequest = requests.auth.HTTPBasicAuth(user, os.environ.get(_PASSWORD, ""))(request)
        return signed
    return request


def _first(row: Mapping[str, Any], tag: str) -> str:
    """The first value of a tag in DICOM's JSON; "" where there is none."""
    element = row.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]).strip() if isinstance(values, list) and values and isinstance(values[0], str | int) else ""
