"""Anybody's data: an index of a folder of images and a table of reports, labels or both.

The table is CSV, JSON lines, JSON or Parquet, a row a study or a row an image. `core.studies.columns` says which column
is what. Images are found by what the table writes of them, or by the studies' ids where no column names them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.files import whole_file
from core.observations import OBSERVATIONS, LabelState, stronger
from core.studies.boxes import Box, read_boxes, row_boxes, write_boxes
from core.studies.census import Notes
from core.studies.columns import Columns, read_split
from core.studies.files import ImageTree, without_suffix
from core.studies.images.dicom import dicom_view
from core.studies.index import (
    BOXES,
    ImageEntry,
    ReleaseError,
    StudyEntry,
    StudyIndex,
    Told,
    draw_split,
    make_folder,
    text_fault,
    write_index,
)
from core.studies.records import cell_of, plain_text, read_records
from core.tables import TableError, plain_id
from core.views import plain_view
from core.wording import counted

_STATES = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "positive"), LabelState.POSITIVE),
    **dict.fromkeys(("0", "0.0", "false", "no", "negative"), LabelState.NEGATIVE),
    **dict.fromkeys(("-1", "-1.0", "uncertain"), LabelState.UNCERTAIN),
    **dict.fromkeys(("", "blank"), LabelState.BLANK),
}
_FIRST = ("PA", "AP", "FRONTAL", "")
"""Order of a study's images: the first that a model may read comes first."""


@dataclass(slots=True)
class _Study:
    """A study as the rows of a table tell it; the first row has the report."""

    patient: str
    findings: str
    impression: str
    split: str
    order: str
    view: str
    """Of its image, where the table has no column of images."""
    context: dict[str, str]
    images: dict[str, str] = field(default_factory=dict)
    """What is written of an image -> its view."""
    labels: dict[str, LabelState] = field(default_factory=dict)
    fault: str = ""


def index_table(
    images: Path,
    reports: Path,
    out: Path,
    columns: Columns,
    *,
    seed: int = 0,
    only_test: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> StudyIndex:
    """Index a folder of images with a table.

    Args:
        images: folder of the images, in whatever folders below it.
        reports: the table, or the folder of a release that `columns` knows the tables of.
        out: folder of the index.
        columns: which column is what.
        seed: of the split, 70 / 10 / 20 by patient, where the table has none.
        only_test: whether all studies are test studies instead, for nothing is to learn from them.
        progress: called with (studies done, all).

    Raises:
        ReleaseError: no image is there, or none that the table means.
        TableError: a table is missing, damaged, or has no such column.
    """
    if not images.is_dir():
        raise ReleaseError(f"{images} is not a folder. --images names the folder that holds the images.")
    tree, notes = ImageTree(images), Notes()
    if not tree.sizes:
        raise ReleaseError(f"{images} holds no image: no .png, .jpg or .dcm file, in none of its folders.")
    studies: dict[str, _Study] = {}
    boxes: list[Box] = []
    tables = _tables(reports, columns)
    for path, split in tables:
        _read_table(path, split, columns, studies, boxes, notes)
    if not studies:
        raise TableError(f"{reports} has no row with an id.")
    _read_lists(tables[0][0].parent, columns, studies)
    boxes += read_boxes(tables[0][0].parent, columns, notes)
    with_text = any(study.findings or study.impression for study in studies.values())
    with_labels = any(study.labels for study in studies.values())
    ordered = _number_visits(studies)
    if only_test:
        for study in studies.values():
            study.split = "test"
    entries = list(_entries(studies, tree, images, with_text, seed, notes, progress))
    _check_matched(entries, tree, images, reports)
    make_folder(out)
    (out / "index.json").unlink(missing_ok=True)
    there = write_boxes(out / BOXES, boxes, tree, images, columns.boxes.side, entries, notes)
    _write_labels(out / "labels-given.parquet", studies if with_labels else {})
    told = Told(
        title=columns.title,
        reports=with_text,
        labels="rules" if with_text or not with_labels else "given",
        traits=tuple(columns.traits),
        visits=ordered,
        truth=columns.boxes.truth if there else "",
        credit=columns.credit,
    )
    options = {"reports": str(reports), "seed": seed, "only_test": only_test}
    return write_index(out, "table", images, options, entries, notes, told)


# --- tables ---


def _tables(reports: Path, columns: Columns) -> list[tuple[Path, str]]:
    """The tables to read, with the split that all of each is in."""
    if reports.is_file():
        return [(reports, columns.tables.get(reports.name, ""))]
    if not reports.is_dir():
        raise TableError(f"{reports} is not there. --reports names the table of the reports.")
    if not columns.tables:
        raise TableError(f"{reports} is a folder. Name the table in it: {_names(reports)}.")
    places = (reports, *sorted(each for each in reports.iterdir() if each.is_dir()))
    found = [
        (place / name, split) for name, split in columns.tables.items() for place in places if (place / name).is_file()
    ]
    if not found:
        wanted = " or ".join(columns.tables)
        raise TableError(f"{reports} has no {wanted}, in none of its folders. It has: {_names(reports)}.")
    return found if any(split for _, split in found) else found[:1]


def _names(folder: Path) -> str:
    return ", ".join(sorted(each.name for each in folder.iterdir())[:8]) or "nothing"


def _read_table(
    path: Path, split: str, columns: Columns, studies: dict[str, _Study], boxes: list[Box], notes: Notes
) -> None:
    chosen, rows = read_records(path, columns)
    if "patient" not in chosen.of:
        notes.add("no column of patients: each study counts as a patient of its own", path.name)
    for row in rows:
        _add(row, split, chosen, studies, boxes, notes)


def _add(
    row: Mapping[str, Any],
    split: str,
    columns: Columns,
    studies: dict[str, _Study],
    boxes: list[Box],
    notes: Notes,
) -> None:
    """Add what a row tells."""

    def told(name: str) -> str:
        return next((plain_text(cell_of(row, column)) for column in columns.of.get(name, ())), "")

    study_id = _id(told("id"), columns.pattern)
    if not study_id:
        notes.add("row without an id, left out", "")
        return
    texts = {name: plain_text(cell_of(row, column)) for name, (column, *_) in columns.texts.items()}
    traits = {name: plain_text(cell_of(row, column)) for name, (column, *_) in columns.traits.items()}
    context = {**texts, **traits, "age": _age(told("age")), "sex": told("sex")[:1].upper()}
    written = read_split(told("split")) if told("split") else split
    if written is None:
        notes.add("split that is none of train, validate and test", study_id)
    patient = plain_id(told("patient")) or study_id
    new = _Study(
        patient=patient,
        findings=told("findings"),
        impression=told("impression"),
        split="?" if written is None else written,
        order=told("order"),
        view=_view(row, columns),
        context={name: text for name, text in context.items() if text},
    )
    study = studies.setdefault(study_id, new)
    if study is not new:
        _compare(study_id, study, new, notes)
    for name, view in _images(row, columns):
        if name in study.images:
            notes.add("image listed twice, the first one counts", name)
        study.images.setdefault(name, view)
    for name, state in _labels(row, columns, study_id).items():
        study.labels[name] = stronger(study.labels.get(name, LabelState.BLANK), state)
    boxes += row_boxes(row, columns, next(iter(study.images), ""))


def _compare(study_id: str, study: _Study, new: _Study, notes: Notes) -> None:
    """Note what two rows of one study say differently; the first one counts."""
    if (new.findings, new.impression) != (study.findings, study.impression):
        notes.add("two reports for one study, the first one counts", study_id)
    if new.view != study.view:
        study.view = ""
    if new.patient != study.patient:
        study.fault = "listed under two patients"
    elif new.split != study.split:
        study.fault = "listed in two splits"


def _images(row: Mapping[str, Any], columns: Columns) -> Iterator[tuple[str, str]]:
    """What a row writes of images, with their views."""
    written = next((value for column in columns.of.get("image", ()) if (value := cell_of(row, column))), None)
    if written is None or plain_text(written) == "":
        return
    names = written if isinstance(written, list) else [written]
    views = [cell_of(row, column) for column in columns.of.get("view", ())]
    for place, name in enumerate(names):
        of_image = (each[place] if isinstance(each, list) and place < len(each) else each for each in views)
        found = (plain_view(plain_text(each)) for each in of_image if not isinstance(each, list))
        yield plain_text(name), next((view for view in found if view), "")


def _view(row: Mapping[str, Any], columns: Columns) -> str:
    """The view that a row tells of its study; "" where it tells none, or one of each of several images."""
    written = (cell_of(row, column) for column in columns.of.get("view", ()))
    return next((view for each in written if not isinstance(each, list) and (view := plain_view(plain_text(each)))), "")


def _labels(row: Mapping[str, Any], columns: Columns, study_id: str) -> dict[str, LabelState]:
    found: dict[str, LabelState] = {}
    for name, (column, *_) in columns.labels.items():
        written = plain_text(cell_of(row, column))
        state = _STATES.get(written.lower())
        if state is None:
            raise TableError(
                f"Column {column} is {written[:20]!r} for study {study_id[:40]}; a label is 1, 0, -1 or blank."
            )
        found[name] = state
    for column in columns.listed:
        value = cell_of(row, column)
        names = value if isinstance(value, list) else plain_text(value).split(columns.between)
        for finding in names:
            for name in columns.observations.get(str(finding).strip(), ()):
                found[name] = LabelState.POSITIVE
    return found


def _read_lists(folder: Path, columns: Columns, studies: dict[str, _Study]) -> None:
    """Take splits from lists of ids beside the table."""
    for name, split in columns.lists.items():
        path = folder / name
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split():
                study = studies.get(_id(line, columns.pattern))
                if study is not None:
                    study.split = split


# --- values ---


def _id(written: str, pattern: str) -> str:
    match = re.fullmatch(pattern, written) if pattern else None
    return "-".join(match.groups()) if match and all(match.groups()) else plain_id(written)


def _age(written: str) -> str:
    """Years as "63", from "063Y" or "63.0"; what is no number stays as it is."""
    text = written.upper().removesuffix("Y").removesuffix(".0")
    return str(int(text)) if text.isdecimal() else written


def _number_visits(studies: Mapping[str, _Study]) -> bool:
    """Count each patient's studies in the order of time; the times themselves are not kept."""
    by_patient: dict[str, list[_Study]] = defaultdict(list)
    for study in studies.values():
        if study.order:
            by_patient[study.patient].append(study)
    for visits in by_patient.values():
        try:
            keys: list[Any] = [float(study.order) for study in visits]
        except ValueError:
            keys = [study.order for study in visits]
        ranks = {key: place + 1 for place, key in enumerate(sorted(set(keys)))}
        for key, study in zip(keys, visits, strict=True):
            study.context["visit"] = str(ranks[key])
    return bool(by_patient)


# --- entries ---


def _entries(
    studies: Mapping[str, _Study],
    tree: ImageTree,
    root: Path,
    with_text: bool,
    seed: int,
    notes: Notes,
    progress: Callable[[int, int], None] | None,
) -> Iterator[StudyEntry]:
    named = any(study.images for study in studies.values())
    by_id = {} if named else tree.of_study(studies)
    drawn = not any(study.split for study in studies.values())
    splits: dict[str, set[str]] = defaultdict(set)
    for study in studies.values():
        splits[study.patient].add(study.split)
    used: dict[str, str] = {}
    for done, (study_id, study) in enumerate(studies.items(), start=1):
        of_id = by_id.get(study_id, [])
        written = study.images or dict.fromkeys(of_id, study.view if len(of_id) == 1 else "")
        found = [_image(name, view, tree, root) for name, view in written.items()]
        kept = []
        for image in sorted(found, key=lambda image: _FIRST.index(image.view) if image.view in _FIRST else len(_FIRST)):
            if used.setdefault(image.image_id, study_id) != study_id:
                notes.add("image of two studies, the first one has it", image.image_id)
            else:
                kept.append(image)
        if not any(image.path for image in kept):
            near = tree.look_like(next(iter(written), study_id)) if notes.counts[_NO_IMAGE] < _HINTS else []
            notes.add(_NO_IMAGE, f"{study_id}, perhaps {' or '.join(near)}" if near else study_id)
        fault = study.fault or text_fault(study.findings, study.impression, *study.context.values())
        if not fault and len(splits[study.patient] - {""}) > 1:
            fault = "of a patient in two splits"
        yield StudyEntry(
            study_id=study_id,
            subject_id=study.patient,
            split=draw_split(study.patient, seed) if drawn else study.split.strip("?"),
            findings="" if fault else study.findings,
            impression="" if fault else study.impression,
            context={} if fault else study.context,
            images=kept,
            dropped=fault,
            with_text=with_text,
        )
        if progress is not None:
            progress(done, len(studies))
    for key in sorted({without_suffix(path) for path in tree.sizes} - used.keys()):
        notes.add("image file of no study", key)


_NO_IMAGE = "study without an image of its name"
_HINTS = 5


def _image(written: str, view: str, tree: ImageTree, root: Path) -> ImageEntry:
    """An image that a table means; never one of several that it may mean."""
    paths = tree.find(written)
    if len(paths) != 1:
        return ImageEntry(written, "", view, 0, "its name fits several files" if paths else "file missing")
    path = paths[0]
    told = view or _view_of_name(path) or (dicom_view(root / path) if path.lower().endswith(".dcm") else "")
    return ImageEntry.of_file(without_suffix(path), told, path, tree.sizes[path])


def _view_of_name(path: str) -> str:
    """A view that a file's name tells: `s1_lateral.png`."""
    words = re.split(r"[^a-z]+", without_suffix(path).rsplit("/", 1)[-1].lower())
    found = {plain_view(word) for word in words if word in ("pa", "ap", "frontal", "lat", "lateral")}
    return found.pop() if len(found) == 1 else ""


def _check_matched(entries: Sequence[StudyEntry], tree: ImageTree, images: Path, reports: Path) -> None:
    """Refuse a table of which nothing fits the images: then the wrong column, or folder, was named."""
    if any(image.path for entry in entries for image in entry.images):
        return
    first = entries[0]
    written = first.images[0].image_id if first.images else first.study_id
    near = tree.look_like(written)
    looks = f"; {' and '.join(near)} look like it" if near else ""
    raise ReleaseError(
        f"Of {counted(len(entries), 'study', 'studies')} in {reports} none has an image in {images}: the first is "
        f"{written!r}, files "
        f"there are called {', '.join(tree.some())}{looks}. Name the column of the images with --image, or another "
        "folder."
    )


# --- what stands beside an index ---


def _write_labels(path: Path, studies: Mapping[str, _Study]) -> None:
    path.unlink(missing_ok=True)
    if not studies:
        return
    columns: dict[str, Any] = {"study_id": pa.array(list(studies))}
    for name in OBSERVATIONS:
        states = [str(study.labels.get(name, LabelState.BLANK)) for study in studies.values()]
        columns[name] = pa.array(states).dictionary_encode()
    with whole_file(path, private=False) as fresh:
        pq.write_table(pa.table(columns), fresh, compression="zstd")
