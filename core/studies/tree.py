"""A tree of image files without a table: an index by what DICOM headers say, and by names where there are none.

Nothing of a header is kept that tells whose image it is: patients and studies get names from a keyed hash, whose key
lies in the user's own folder, and dates only put a patient's studies in order. The files' paths are kept, for images
are read where they are: a path that names a patient stands in the index.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from core import paths
from core.files import own_folder, whole_file
from core.studies.census import Notes
from core.studies.files import image_files, without_suffix
from core.studies.images.dicom import dicom_view, header_bytes, is_radiograph
from core.studies.images.dicom_header import DamagedHeaderError, NotDicomError, read_header, read_identity
from core.studies.index import (
    ImageEntry,
    ReleaseError,
    StudyEntry,
    StudyIndex,
    Told,
    write_index,
)

_PICTURES = (".png", ".jpg", ".jpeg")
_OLDEST = 89  # years; HIPAA counts a higher age as identifying, 45 CFR 164.514(b)(2)
_FIRST = ("PA", "AP", "")
_LETTERS = 12  # ours: of a hash, 48 bits


@dataclass(slots=True)
class _Found:
    """A study whose files were found."""

    patient: str
    date: str = ""
    context: dict[str, str] = field(default_factory=dict)
    images: list[ImageEntry] = field(default_factory=list)


def index_tree(
    root: Path, out: Path, *, key: bytes | None = None, progress: Callable[[int], None] | None = None
) -> StudyIndex:
    """Index a tree of DICOM, PNG and JPEG files.

    DICOM files are known by their content, whatever their names; they are of one study where their study UIDs are
    equal. A PNG or JPEG file is a study of its own. All are test studies: nothing can learn from them.

    Args:
        root: of the tree.
        out: folder of the index.
        key: of the hashes; the user's own unless given.
        progress: called with the number of files looked at.

    Raises:
        ReleaseError: there is no radiograph.
    """
    if not root.is_dir():
        raise ReleaseError(f"{root} is not a folder.")
    notes = Notes()
    studies: dict[str, _Found] = {}
    key = own_key() if key is None else key
    for done, (path, size) in enumerate(image_files(root, suffixes=None), start=1):
        _add(path, path.relative_to(root).as_posix(), size, key, studies, notes)
        if progress is not None:
            progress(done)
    if not studies:
        seen = ", ".join(notes.counts) or "it is empty"
        raise ReleaseError(f"{root} holds no radiograph, in none of its folders: {seen}.")
    ordered = _number_visits(studies)
    told = Told(f"Images in {root.name}", reports=False, visits=ordered)
    return write_index(out, "folder", root, {}, _entries(studies), notes, told)


def own_key() -> bytes:
    """The key of this user's hashes, made when it is first asked for; with another key the names would be others."""
    path = paths.own_data() / "patients-key"
    try:
        own_folder(path.parent)
        if not path.is_file():
            with suppress(FileExistsError), whole_file(path, replace=False) as fresh:
                fresh.write_bytes(secrets.token_bytes(32))
        key = path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"The key of patients' names, {path}, cannot be read or made: {error.strerror}.") from error
    if len(key) != 32:
        raise ReleaseError(f"The key of patients' names in {path} is damaged. Delete it to have another one.")
    return key


def _add(path: Path, where: str, size: int, key: bytes, studies: dict[str, _Found], notes: Notes) -> None:
    if path.suffix.lower() in _PICTURES:
        name = _name(key, "study", where)
        studies[name] = _Found(name, images=[ImageEntry.of_file(without_suffix(where), "", where, size)])
        return
    try:
        data = header_bytes(path)
        header, _ = read_header(data)
        identity = read_identity(data)
    except NotDicomError:
        notes.add("file that is no image", where)
        return
    except (OSError, DamagedHeaderError):
        notes.add("DICOM file that cannot be read", where)
        return
    if not is_radiograph(header):
        notes.add("DICOM file without a radiograph", where)
        return
    if not identity["StudyInstanceUID"]:
        notes.add("DICOM file without a study, a study of its own", where)
    study_id = _name(key, "study", identity["StudyInstanceUID"] or where)
    patient = _name(key, "patient", identity["PatientID"]) if identity["PatientID"] else study_id
    study = studies.setdefault(study_id, _Found(patient))
    if study.patient != patient:
        notes.add("DICOM file of a study that is another patient's, left out", where)
        return
    study.date = study.date or identity["StudyDate"] + identity["StudyTime"]
    study.context |= {name: text for name, text in _facts(identity).items() if text}
    study.images.append(ImageEntry.of_file(where, dicom_view(path), where, size))


def _facts(identity: dict[str, str]) -> dict[str, str]:
    age = identity["PatientAge"].upper()
    years = age.removesuffix("Y")
    if years.isdecimal():
        age = str(min(int(years), _OLDEST + 1))
    sex = identity["PatientSex"].upper()
    return {"age": age if age[:-1].isdecimal() or age.isdecimal() else "", "sex": sex if sex in ("F", "M", "O") else ""}


def _name(key: bytes, kind: str, value: str) -> str:
    """A name from which nobody without the key finds the value back."""
    return kind[0].upper() + hmac.new(key, f"{kind} {value}".encode(), hashlib.sha256).hexdigest()[:_LETTERS]


def _number_visits(studies: dict[str, _Found]) -> bool:
    by_patient: dict[str, list[_Found]] = defaultdict(list)
    for study in studies.values():
        if study.date:
            by_patient[study.patient].append(study)
    for visits in by_patient.values():
        ranks = {date: place for place, date in enumerate(sorted({study.date for study in visits}), start=1)}
        for study in visits:
            study.context["visit"] = str(ranks[study.date])
    return bool(by_patient)


def _entries(studies: dict[str, _Found]) -> Iterator[StudyEntry]:
    for study_id, study in studies.items():
        images = sorted(study.images, key=lambda image: (*_FIRST, image.view).index(image.view))
        yield StudyEntry(
            study_id=study_id,
            subject_id=study.patient,
            split="test",
            findings="",
            impression="",
            context=study.context,
            images=images,
            with_text=False,
        )
