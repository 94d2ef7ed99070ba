"""MIMIC-CXR and MIMIC-CXR-JPG 2.x: an index of the release as PhysioNet lays it out.

Johnson et al. 2019, doi:10.1038/s41597-019-0322-0; credentialed data, never to be passed on. Layout and column names:
paper-notes 5.1. What is read:

- `mimic-cxr-2.*-split.csv[.gz]` and `-metadata.csv[.gz]`: which images there are, the official split, the views;
- `mimic-cxr-2.*-chexpert.csv[.gz]`, `-negbio.csv[.gz]`: labels, where they are there;
- `cxr-study-list.csv[.gz]`, `cxr-record-list.csv[.gz]`: to count what the other tables leave out, where they are there;
- `files/p10/p10000032/s50414267.txt` or `mimic-cxr-reports.zip`: the reports;
- `files/p10/p10000032/s50414267/<dicom_id>.jpg` (or .dcm, .png): the images.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from core.files import whole_file
from core.observations import OBSERVATIONS, LabelState
from core.studies.census import Notes
from core.studies.image_cache import unreadable_images
from core.studies.index import (
    MAX_REPORT_CHARS,
    ImageEntry,
    ReleaseError,
    StudyEntry,
    StudyIndex,
    make_folder,
    read_parquet,
    text_fault,
    write_index,
)
from core.studies.sections import Exceptions, read_exceptions, read_report
from core.tables import TableError, plain_id, read_rows, says_nothing
from core.types import Split

Labeler = Literal["chexpert", "negbio"]
LABELERS: tuple[Labeler, ...] = ("chexpert", "negbio")

_SPLITS: dict[str, Split] = {"train": "train", "validate": "validate", "test": "test"}
_STATES = {"": LabelState.BLANK, "1": LabelState.POSITIVE, "0": LabelState.NEGATIVE, "-1": LabelState.UNCERTAIN}
_VIEWS = {"LL": "LATERAL"}  # the release's two names of one view; all others stay as they are
_SUFFIXES = (".dcm", ".jpg", ".jpeg", ".png")  # in this order where one image is there twice
_NUMBER = re.compile(r"\d+")
_DICOM_ID = re.compile(r"[\w.-]+", re.ASCII)
_CONTEXT = ("indication", "history", "comparison", "technique", "examination", "last_paragraph")
_ROOTS = (".", "*", "mimic-cxr-jpg/2.*", "mimic-cxr/2.*", "physionet.org/files/mimic-cxr*/2.*")


@dataclass(slots=True)
class _Listed:
    """A study as the tables list it."""

    subject: str
    split: Split | None = None
    images: list[tuple[str, str]] = field(default_factory=list)
    """(dicom_id, view)"""


def index_mimic_cxr(
    folder: Path,
    out: Path,
    *,
    reports: Path | None = None,
    exceptions: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StudyIndex:
    """Index a MIMIC-CXR release.

    Args:
        folder: that holds the tables and `files/` with the images, or PhysioNet's folders above it.
        out: folder of the index.
        reports: folder that holds `files/` with the reports, or `mimic-cxr-reports.zip`; default: `folder`.
        exceptions: MIT-LCP's `section_parser.py`, whose hand-set exceptions are used; default: the one beside tables or
            reports, if any.
        progress: called with (studies done, all studies).

    Raises:
        ReleaseError: the folder holds no release, or half of one.
        TableError: a table is damaged.
    """
    root = _root(folder, "mimic-cxr-2.*-split.csv*", "mimic-cxr-2.0.0-split.csv[.gz], a table of MIMIC-CXR-JPG")
    if not (root / "files").is_dir():
        raise ReleaseError(f"{root} has no folder files/ with the images. Get MIMIC-CXR-JPG's images into it.")
    texts = _open_reports(reports or root)
    beside = [path for path in (root, texts.folder) if (path / "section_parser.py").is_file()]
    if exceptions is None and beside:
        exceptions = beside[0] / "section_parser.py"
    rules = read_exceptions(exceptions) if exceptions else Exceptions()
    notes = Notes()
    make_folder(out)
    studies, split_of_patient = _read_tables(root, notes)
    for name in LABELERS:
        _write_labels(root, out, name, studies, notes)
    options = {"reports": str(texts.folder), "exceptions": len(rules.sections) + len(rules.ranges)}
    entries = _entries(root, texts, rules, studies, split_of_patient, notes, progress)
    return write_index(out, "mimic_cxr", root, options, entries, notes)


_WHERE_LABELS = {name: f"mimic-cxr-2.*-{name}.csv.gz was not there" for name in LABELERS} | {
    "given": "no column of labels was named"
}


def read_shipped_labels(index: StudyIndex, labeler: str) -> pa.Table:
    """Labels that the release ships: study_id, and a column of states an observation.

    Raises:
        ReleaseError: the release came without this table.
    """
    path = index.folder / f"labels-{labeler}.parquet"
    if not path.is_file():
        raise ReleaseError(
            f"{index.folder} has no labels of {labeler}: {_WHERE_LABELS[labeler]} for it. Make the index again with "
            "them, or set data.labels=rules."
        )
    return read_parquet(path)


def write_annotation(index: StudyIndex, views: str, path: Path) -> int:
    """Write R2Gen's `annotation.json` for other tools: an item an image that can be read, of studies with findings.

    Returns:
        How many items there are.
    """
    samples = index.samples(views, list(unreadable_images(index)))
    samples = samples[samples["has_findings"]]
    findings = index.texts["findings"]
    count = 0
    with whole_file(path, private=False) as fresh, fresh.open("w", encoding="utf-8") as file:
        for place, (name, split) in enumerate((("train", "train"), ("val", "validate"), ("test", "test"))):
            file.write(f'{", " if place else "{"}"{name}": [')
            part = samples[samples["split"] == split]
            rows = zip(*(part[column].tolist() for column in ("path", "study", "study_id", "subject_id")), strict=True)
            for number, (image, study, study_id, subject_id) in enumerate(rows):
                item = {
                    "id": Path(image).stem,
                    "study_id": int(study_id[1:]),
                    "subject_id": int(subject_id[1:]),
                    "report": findings[study].as_py(),
                    "image_path": [image.removeprefix("files/")],
                    "split": name,
                }
                file.write((",\n" if number else "\n") + json.dumps(item))
                count += 1
            file.write("]")
        file.write("}\n")
    return count


def _root(folder: Path, pattern: str, what: str) -> Path:
    """Find the folder of a release: the one given, or below it as `wget` leaves PhysioNet's."""
    if not folder.is_dir():
        raise ReleaseError(f"{folder} is not a folder.")
    for place in _ROOTS:
        for root in sorted((folder,) if place == "." else folder.glob(place), reverse=True):
            if any(root.glob(pattern)):
                return root
    names = ", ".join(sorted(each.name for each in folder.iterdir())[:8]) or "nothing"
    raise ReleaseError(f"{folder} has no {what}, but {names}. See docs/data.md for the layout.")


# --- tables ---


def _table(root: Path, name: str) -> Path | None:
    """Find a table, plain or gzipped."""
    found = sorted((*root.glob(f"{name}.csv"), *root.glob(f"{name}.csv.gz")))
    return found[0] if found else None


def _read_tables(root: Path, notes: Notes) -> tuple[dict[str, _Listed], dict[str, set[Split]]]:
    """Read split and metadata: study number -> what is listed of it, and patient -> splits."""
    split_table, metadata = _table(root, "mimic-cxr-2.*-split"), _table(root, "mimic-cxr-2.*-metadata")
    assert split_table is not None
    if metadata is None:
        raise ReleaseError(
            f"{root} has no mimic-cxr-2.0.0-metadata.csv[.gz], which tells the views. Get it from MIMIC-CXR-JPG."
        )
    views: dict[str, str] = {}
    studies: dict[str, _Listed] = {}
    splits: dict[str, set[Split]] = {}
    unsplit: dict[str, tuple[str, str]] = {}
    for dicom, *ids, view in read_rows(metadata, ("dicom_id", "study_id", "subject_id", "ViewPosition")):
        study, subject = map(plain_id, ids)
        if dicom in views:
            notes.add("image listed twice in the metadata table, the first one counts", ascii(dicom))
        elif _proper(dicom, study, subject, "metadata", notes):
            views[dicom] = _VIEWS.get(view.upper(), view.upper())
            unsplit[dicom] = (study, subject)
    seen: set[str] = set()
    for dicom, *ids, split in read_rows(split_table, ("dicom_id", "study_id", "subject_id", "split")):
        study, subject = map(plain_id, ids)
        if dicom in seen:
            notes.add("image listed twice in the split table, the first one counts", ascii(dicom))
            continue
        if not _proper(dicom, study, subject, "split", notes):
            continue
        seen.add(dicom)
        unsplit.pop(dicom, None)
        if split not in _SPLITS:
            raise TableError(f"{split_table}: the split of {dicom} is {split[:20]!r}, not train, validate or test.")
        if dicom not in views:
            notes.add("image of the split table that the metadata table misses, view unknown", dicom)
        listed = studies.setdefault(study, _Listed(subject, _SPLITS[split]))
        if listed.subject != subject:
            notes.add("image of a study that is listed under two patients, left out", dicom)
            continue
        splits.setdefault(subject, set()).add(_SPLITS[split])
        listed.images.append((dicom, views.get(dicom, "")))
    for dicom, (study, subject) in unsplit.items():
        notes.add("image of the metadata table that the split table misses", dicom)
        studies.setdefault(study, _Listed(subject)).images.append((dicom, views[dicom]))
    for name, what, known in (("cxr-study-list", "study_id", studies), ("cxr-record-list", "dicom_id", views)):
        path = _table(root, name)
        for (key,) in read_rows(path, (what,)) if path else ():
            if plain_id(key) not in known and key not in seen:
                notes.add(f"{what} of {name} that no other table has", ascii(key))
    return studies, splits


def _proper(dicom: str, study: str, subject: str, table: str, notes: Notes) -> bool:
    proper = bool(_DICOM_ID.fullmatch(dicom) and _NUMBER.fullmatch(study) and _NUMBER.fullmatch(subject))
    if not proper:
        notes.add(f"row of the {table} table with a malformed id, left out", ascii(f"{dicom} {study} {subject}"[:60]))
    return proper


def _write_labels(root: Path, out: Path, labeler: Labeler, studies: dict[str, _Listed], notes: Notes) -> None:
    """Keep a table of shipped labels beside the index."""
    target = out / f"labels-{labeler}.parquet"
    path = _table(root, f"mimic-cxr-2.*-{labeler}")
    if path is None:
        target.unlink(missing_ok=True)
        notes.add("table of labels missing", labeler)
        return
    columns: dict[str, list[str]] = {name: [] for name in ("study_id", *OBSERVATIONS)}
    seen: set[str] = set()
    for number, *values in read_rows(path, ("study_id", *OBSERVATIONS)):
        study = plain_id(number)
        if study in seen:
            notes.add(f"study listed twice in the {labeler} table, the first one counts", ascii(study))
            continue
        seen.add(study)
        columns["study_id"].append(f"s{study}")
        for name, value in zip(OBSERVATIONS, values, strict=True):
            state = _STATES.get("" if says_nothing(value) else value.removesuffix(".0"))
            if state is None:
                raise TableError(f"{path}: {name} of study {study} is {value[:20]!r}, not 1, 0, -1 or blank.")
            columns[name].append(str(state))
    for study in studies:
        if study not in seen:
            notes.add(f"study missing from the {labeler} table", f"s{study}")
    table = pa.table(
        {
            name: pa.array(each) if name == "study_id" else pa.array(each).dictionary_encode()
            for name, each in columns.items()
        }
    )
    pq.write_table(table, target, compression="zstd")


# --- reports and images ---


@dataclass(frozen=True, slots=True)
class _Reports:
    """Where the reports are: a folder, or a ZIP file in it, there perhaps in a folder."""

    folder: Path
    archive: zipfile.ZipFile | None
    inside: str = ""

    def read(self, name: str) -> tuple[str, str]:
        """Read (text, why it cannot be used)."""
        too_long = f"report longer than {MAX_REPORT_CHARS:,} characters"
        try:
            if self.archive is None:
                path = self.folder / name
                if path.stat().st_size > 4 * MAX_REPORT_CHARS:  # bytes of as many characters, at most
                    return "", too_long
                data = path.read_bytes()
            else:
                if self.archive.getinfo(self.inside + name).file_size > 4 * MAX_REPORT_CHARS:
                    return "", too_long
                data = self.archive.read(self.inside + name)
        except (KeyError, FileNotFoundError):
            return "", "report missing"
        except (OSError, zipfile.BadZipFile):
            return "", "report cannot be read"
        text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
        return text, "report blank" if not text.strip() else text_fault(text)


_IN_ARCHIVE = re.compile(r"(?:^|/)files/p1\d/p1\d+/s\d+\.txt$")


def _open_reports(folder: Path) -> _Reports:
    archive = folder if folder.suffix == ".zip" else folder / "mimic-cxr-reports.zip"
    if archive.is_file():
        try:
            opened = zipfile.ZipFile(archive)
            first = next((name for name in opened.namelist() if _IN_ARCHIVE.search(name)), "files/")
            return _Reports(archive.parent, opened, first[: first.rindex("files/")])
        except (OSError, zipfile.BadZipFile) as error:
            raise ReleaseError(f"{archive} is damaged or was cut off ({error}). Get it again.") from error
    what = (
        "reports: neither files/p10/p10000032/s50414267.txt and the like nor mimic-cxr-reports.zip (they come with "
        "MIMIC-CXR, not with MIMIC-CXR-JPG; name their folder with --reports)"
    )
    return _Reports(_root(folder, "files/p1*/p1*/s*.txt", what), None)


def _entries(
    root: Path,
    reports: _Reports,
    rules: Exceptions,
    studies: dict[str, _Listed],
    split_of_patient: dict[str, set[Split]],
    notes: Notes,
    progress: Callable[[int, int], None] | None,
) -> Iterator[StudyEntry]:
    order = sorted(studies, key=lambda study: (studies[study].subject, study))
    for count, study in enumerate(order, start=1):
        listed = studies[study]
        study_id, subject_id = f"s{study}", f"p{listed.subject}"
        folder = f"files/{subject_id[:3]}/{subject_id}"
        text, fault = reports.read(f"{folder}/{study_id}.txt")
        sections = {} if fault else read_report(text, study_id, rules)
        if len(split_of_patient.get(listed.subject, ())) > 1:
            fault = "patient in several splits"
        yield StudyEntry(
            study_id=study_id,
            subject_id=subject_id,
            split=listed.split or "",
            findings=sections.get("findings", ""),
            impression=sections.get("impression", ""),
            context={name: sections.get(name, "") for name in _CONTEXT},
            images=_images(root, f"{folder}/{study_id}", listed.images),
            dropped=fault,
        )
        if progress is not None and (count % 100 == 0 or count == len(order)):
            progress(count, len(order))


def _images(root: Path, folder: str, listed: Sequence[tuple[str, str]]) -> list[ImageEntry]:
    """Find a study's images: one look into its folder."""
    sizes: dict[str, int] = {}
    try:
        with os.scandir(root / folder) as files:
            sizes = {file.name: file.stat().st_size for file in files if file.is_file()}
    except OSError:  # no folder: all its images are missing
        pass
    entries = []
    for dicom, view in listed:
        name = next((name for suffix in _SUFFIXES if (name := dicom + suffix) in sizes), None)
        path = f"{folder}/{name}" if name else None
        entries.append(ImageEntry.of_file(dicom, view, path, sizes.get(name or "", 0)))
    return entries
