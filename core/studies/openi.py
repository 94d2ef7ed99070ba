"""Open-i, the Indiana University chest X-rays: an index of a release as people have it on disk.

Demner-Fushman et al. 2016, doi:10.1093/jamia/ocv080; the records carry the licence CC BY-NC-ND 4.0. Three forms are
read:

- the XML release: `ecgen-radiology/*.xml`, images (PNG or DICOM) anywhere below the folder;
- the Kaggle tables: `indiana_reports.csv`, `indiana_projections.csv`, images anywhere below, matched by stem;
- R2Gen's `annotation.json`: its study ids and its split, beside one of the other two; alone with R2Gen's own `images/`
  it is read too, but then nothing tells a frontal from a lateral image.

DICOM headers do not decide on the view: many laterals of this collection are marked PA in theirs.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.studies.census import Notes
from core.studies.files import SUFFIXES, image_files, without_suffix
from core.studies.index import (
    MAX_REPORT_CHARS,
    ImageEntry,
    ReleaseError,
    StudyEntry,
    StudyIndex,
    draw_split,
    text_fault,
    write_index,
)
from core.tables import is_broken, plain_id, read_rows
from core.text import without_removed
from core.types import Split

SplitChoice = Literal["auto", "r2gen", "r2gen+", "seeded"]
Removed = Literal["keep", "drop"]

_XML_ID = re.compile(r"CXR(\d+)_(?:\1_)?(IM-.*)")
_R2GEN_ID = re.compile(r"CXR(\d+)_(?:\1_)?IM-.*")
_R2GEN_SPLITS: dict[str, Split] = {"train": "train", "val": "validate", "test": "test"}
_MAX_XML_BYTES = 4 * 2**20  # ours; the largest record has about 20 kB


@dataclass(frozen=True, slots=True)
class _Layout:
    root: Path
    xml: Path | None
    reports: Path | None
    projections: Path | None
    annotation: Path | None


@dataclass(frozen=True, slots=True)
class _Record:
    """A report before its images are found."""

    uid: str
    title: str = ""
    findings: str = ""
    impression: str = ""
    context: dict[str, str] = field(default_factory=dict)
    images: Sequence[str] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Annotated:
    study_id: str
    split: Split
    report: str
    images: tuple[str, ...]


def index_openi(
    folder: Path,
    out: Path,
    *,
    split: SplitChoice = "auto",
    seed: int = 0,
    removed_words: Removed = "keep",
    progress: Callable[[int], None] | None = None,
) -> StudyIndex:
    """Index an Open-i release.

    Args:
        folder: that holds the release, or whose subfolders do.
        out: folder of the index.
        split: "r2gen" takes the studies, ids and split of `annotation.json` and drops the rest; "r2gen+" keeps the rest
            too, for training, so that the studies of validation and test stay R2Gen's; "seeded" draws a split by
            patient, 70 / 10 / 20; "auto" is "r2gen" where the file is there.
        seed: of the drawn split.
        removed_words: "keep" leaves the collection's XXXX in the text, as published references have it; "drop" takes
            the words with XXXX out, see `core.text.without_removed`.
        progress: called with the number of studies read.

    Raises:
        ReleaseError: the folder holds no release, or half of one.
        TableError: a table is damaged.
    """
    layout = _find(folder)
    annotated = _read_annotation(layout.annotation) if layout.annotation else {}
    if split == "auto":
        split = "r2gen" if annotated else "seeded"
    if split != "seeded" and not annotated:
        raise ReleaseError(f"{layout.root} holds no annotation.json, which the split '{split}' needs. Choose 'seeded'.")
    options = {"split": split, "seed": seed if split == "seeded" else None, "removed_words": removed_words}
    notes = Notes()
    known = {} if split == "seeded" else annotated
    entries = _entries(layout, known, split == "r2gen+", seed, removed_words, notes, progress)
    return write_index(out, "openi", layout.root, options, entries, notes)


def _find(folder: Path) -> _Layout:
    """Find the parts of a release in a folder or one level below; images may be anywhere below."""
    if not folder.is_dir():
        raise ReleaseError(f"{folder} is not a folder.")
    places = (folder, *sorted(each for each in folder.iterdir() if each.is_dir()))

    def find(name: str) -> Path | None:
        return next((path for place in places if (path := place / name).exists()), None)

    xml = folder if folder.name == "ecgen-radiology" else find("ecgen-radiology")
    reports, projections = find("indiana_reports.csv"), find("indiana_projections.csv")
    layout = _Layout(folder, xml, reports, projections, find("annotation.json"))
    if not (layout.xml or layout.reports or layout.annotation):
        names = ", ".join(sorted(each.name for each in folder.iterdir())[:8]) or "nothing"
        raise ReleaseError(
            f"{folder} holds no Open-i release: there is no ecgen-radiology/, no indiana_reports.csv and no "
            f"annotation.json in it or in a folder of it, but {names}. See docs/data.md for where to get it."
        )
    if reports and not projections and not xml:
        raise ReleaseError(f"{reports} does not name its images: indiana_projections.csv is missing. Get both tables.")
    return layout


def _entries(
    layout: _Layout,
    annotated: dict[str, _Annotated],
    with_others: bool,
    seed: int,
    removed_words: Removed,
    notes: Notes,
    progress: Callable[[int], None] | None,
) -> Iterator[StudyEntry]:
    projections = _read_projections(layout.projections, notes) if layout.projections else {}
    files = _image_files(layout.root, notes)
    used: set[str] = set()
    seen: set[str] = set()
    for count, record in enumerate(_records(layout, projections, notes), start=1):
        if record.uid in seen:
            notes.add("report listed twice, the first one counts", f"CXR{record.uid}")
            continue
        seen.add(record.uid)
        images = []
        for key in dict.fromkeys(record.images):
            if key in used:
                notes.add("image of two reports, the first one has it", key)
                continue
            used.add(key)
            view = _view(projections.get(key, ("", ""))[1], record)
            if not view:
                notes.add("view unknown", key)
            path, size = files.pop(key, (None, 0))
            images.append(ImageEntry.of_file(key, view, path, size))
        yield _entry(record, images, annotated, with_others, seed, removed_words)
        if progress is not None:
            progress(count)
    for key in files:
        notes.add("image file of no report", key)
    for uid in sorted(annotated.keys() - seen):
        notes.add("in annotation.json, but without a report", annotated[uid].study_id)


def _entry(
    record: _Record,
    images: Sequence[ImageEntry],
    annotated: dict[str, _Annotated],
    with_others: bool,
    seed: int,
    removed_words: Removed,
) -> StudyEntry:
    texts = {"findings": record.findings, "impression": record.impression, **record.context}
    fault = record.fault or text_fault(*texts.values())
    if fault:
        texts = dict.fromkeys(texts, "")
    if removed_words == "drop":
        texts = {name: without_removed(text) for name, text in texts.items()}
    known = annotated.get(record.uid)
    if annotated and known is None and not with_others and not fault:
        fault = "not in annotation.json"
    subject = f"CXR{record.uid}"
    return StudyEntry(
        study_id=known.study_id if known else subject,
        subject_id=subject,
        split=known.split if known else "train" if annotated else draw_split(subject, seed),
        findings=texts.pop("findings"),
        impression=texts.pop("impression"),
        context=texts,
        images=images,
        dropped=fault,
    )


def _view(projection: str, record: _Record) -> str:
    """Read a view from the tables; where they are missing, from a title that speaks of one view of a single image.

    PA and AP are not told apart: titles say "PA and lateral" of images that are marked AP.
    """
    if projection:
        return projection.upper()
    title = record.title.lower()
    single = len(record.images) == 1 and not re.search(r"lat|2v|two|2 ?view", title)
    return "FRONTAL" if single and re.search(r"\b(pa|ap|portable|frontal)\b", title) else ""


# --- reports ---


def _records(layout: _Layout, projections: dict[str, tuple[str, str]], notes: Notes) -> Iterator[_Record]:
    if layout.xml is not None:
        yield from _xml_records(layout.xml)
    elif layout.reports is not None:
        yield from _csv_records(layout.reports, projections, notes)
    else:
        assert layout.annotation is not None
        for uid, each in _read_annotation(layout.annotation).items():
            yield _Record(uid, findings=each.report, images=each.images)


def _xml_records(folder: Path) -> Iterator[_Record]:
    paths = sorted(folder.glob("*.xml"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise ReleaseError(f"{folder} holds no XML file. Unpack NLMCXR_reports.tgz again.")
    for path in paths:
        if path.stat().st_size > _MAX_XML_BYTES:
            yield _Record(path.stem, fault=f"report longer than {MAX_REPORT_CHARS:,} characters")
            continue
        try:
            root = ElementTree.fromstring(path.read_bytes())  # noqa: S314 - short, and expat bounds what entities add
            uid = root.find("uId").attrib["id"].removeprefix("CXR")  # type: ignore[union-attr]
        except (ElementTree.ParseError, AttributeError, KeyError, ValueError, LookupError):
            yield _Record(path.stem, fault="XML file damaged")
            continue
        sections = {
            (part.get("Label") or "").lower(): " ".join("".join(part.itertext()).split())
            for part in root.iter("AbstractText")
        }
        images = list(root.iter("parentImage"))
        title = next((text for image in images if (text := image.findtext("caption"))), "")
        mesh = [code.text.strip() for code in root.iterfind("MeSH/major") if code.text]
        yield _Record(
            uid,
            title=title,
            findings=sections.get("findings", ""),
            impression=sections.get("impression", ""),
            context={
                "indication": sections.get("indication", ""),
                "comparison": sections.get("comparison", ""),
                "title": " ".join(title.split()),
                "mesh": ";".join(mesh),
            },
            images=[_key(image.get("id") or "") for image in images],
        )


def _csv_records(path: Path, projections: dict[str, tuple[str, str]], notes: Notes) -> Iterator[_Record]:
    images: dict[str, list[str]] = {}
    for key, (uid, _) in projections.items():
        images.setdefault(uid, []).append(key)
    columns = ("uid", "image", "indication", "comparison", "findings", "impression", "MeSH")
    for number, *texts in read_rows(path, columns):
        uid = plain_id(number)
        if not uid.isdecimal():
            notes.add("report without a number, left out", ascii(uid[:20]))
            continue
        title, indication, comparison, findings, impression, mesh = (
            "" if text.lower() in ("nan", "none", "null", "n/a") else " ".join(text.split()) for text in texts
        )
        yield _Record(
            uid,
            title=title,
            findings=findings,
            impression=impression,
            context={"indication": indication, "comparison": comparison, "title": title, "mesh": mesh},
            images=images.pop(uid, []),
        )


def _read_projections(path: Path, notes: Notes) -> dict[str, tuple[str, str]]:
    """Image key -> (uid, projection)."""
    found: dict[str, tuple[str, str]] = {}
    for uid, filename, projection in read_rows(path, ("uid", "filename", "projection")):
        key = _key(filename)
        if is_broken(filename) or not key:
            notes.add("projection of a file without a proper name, left out", ascii(filename[:40]))
        elif key in found:
            notes.add("image listed twice, the first one counts", key)
        else:
            found[key] = (plain_id(uid), projection)
    return found


def _read_annotation(path: Path) -> dict[str, _Annotated]:
    """Patient number -> what R2Gen's file says of the study."""
    found: dict[str, _Annotated] = {}
    try:
        content: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8-sig"))
        for name, split in _R2GEN_SPLITS.items():
            for item in content[name]:
                study_id, report = item["id"], " ".join(item["report"].split())
                uid = _uid(study_id)
                if uid in found:
                    raise ValueError(f"{study_id} and {found[uid].study_id} are of one patient")
                images = tuple(f"{study_id}/{Path(each).stem}" for each in item["image_path"])
                found[uid] = _Annotated(study_id, split, report, images)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(
            f"{path} is not R2Gen's annotation of Open-i ('train', 'val' and 'test', each a list of id, report, "
            f"image_path): {error!r}. Get it again, or take it away to use a seeded split."
        ) from error
    return found


def _uid(study_id: str) -> str:
    match = _R2GEN_ID.fullmatch(study_id)
    if match is None:
        raise ValueError(f"study id {study_id!r}")
    return match[1]


# --- images ---


def _key(name: str) -> str:
    """Name an image alike in all forms: `CXR1_1_IM-0001-3001`, `1_IM-0001-3001.dcm.png` -> `1_IM-0001-3001`."""
    stem = without_suffix(name)
    match = _XML_ID.fullmatch(stem)
    return f"{match[1]}_{match[2]}" if match else stem


def _image_files(root: Path, notes: Notes) -> dict[str, tuple[str, int]]:
    """Image key -> (path below root, bytes). R2Gen's own images are keyed by their folder too."""
    found: dict[str, tuple[str, int]] = {}
    for path, size in sorted(image_files(root), key=lambda file: (SUFFIXES.index(file[0].suffix.lower()), file[0])):
        key = _key(path.name)
        if _R2GEN_ID.fullmatch(path.parent.name):
            key = f"{path.parent.name}/{key}"
        if key in found:
            notes.add("image there in several files, one is used", str(path.relative_to(root)))
        else:
            found[key] = (str(path.relative_to(root)), size)
    return found
