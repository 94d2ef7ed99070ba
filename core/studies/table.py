"""Anybody's data: an index of a folder of images and a table of reports, labels or both.

The table is CSV, JSON lines, JSON or Parquet, a row a study or a row an image. `core.studies.columns` says which column
is what. Images are found by what the table writes of them, or by the studies' ids where no column names them.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from core.files import read_json_lines
from core.observations import NO_FINDING, OBSERVATIONS, LabelState, stronger
from core.studies.columns import Columns, read_split
from core.studies.files import ImageTree, without_suffix
from core.studies.images import dicom_view
from core.studies.index import (
    BOXES,
    ImageEntry,
    Notes,
    ReleaseError,
    StudyEntry,
    StudyIndex,
    Told,
    draw_split,
    make_folder,
    text_fault,
    write_index,
)
from core.tables import TableError, open_table, plain_id, read_rows
from core.types import CXRLensError
from core.views import plain_view

_EMPTY = frozenset(("nan", "none", "null", "n/a", "<na>"))
_STATES = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "positive"), LabelState.POSITIVE),
    **dict.fromkeys(("0", "0.0", "false", "no", "negative"), LabelState.NEGATIVE),
    **dict.fromkeys(("-1", "-1.0", "uncertain"), LabelState.UNCERTAIN),
    **dict.fromkeys(("", "blank"), LabelState.BLANK),
}
_KINDS = (".csv", ".csv.gz", ".jsonl", ".json", ".parquet")
_FIRST = ("PA", "AP", "FRONTAL", "")
"""Order of a study's images: the first that a model may read comes first."""

_BOX_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "finding", "observations")),
        *((name, pa.float32()) for name in ("left", "top", "width", "height")),
    ]
)


@dataclass(slots=True)
class _Study:
    """A study as the rows of a table tell it; the first row has the report."""

    patient: str
    findings: str
    impression: str
    split: str
    order: str
    context: dict[str, str]
    images: dict[str, str] = field(default_factory=dict)
    """What is written of an image -> its view."""
    labels: dict[str, LabelState] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Box:
    """A box: image as the table writes it, finding, observations, and left, top, width, height."""

    image: str
    finding: str
    observations: tuple[str, ...]
    corner: tuple[float, float, float, float]


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
    boxes: list[_Box] = []
    tables = _tables(reports, columns)
    for path, split in tables:
        _read_table(path, split, columns, studies, boxes, notes)
    if not studies:
        raise TableError(f"{reports} has no row with an id.")
    _read_lists(tables[0][0].parent, columns, studies)
    boxes += _read_boxes(tables[0][0].parent, columns, notes)
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
    there = _write_boxes(out / BOXES, boxes, tree, images, columns.boxes.side, entries, notes)
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


def read_records(path: Path, columns: Columns) -> tuple[Columns, Iterator[dict[str, Any]]]:
    """Read the columns of a table that count.

    Returns:
        which column is what in this table; and its rows, by column.

    Raises:
        TableError: it is of another kind, damaged, or has no such column; of CSV also while rows are read.
    """
    kind = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind not in _KINDS:
        raise TableError(f"{path}: a table is {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.")
    more = _read_more(path.parent, columns)
    if kind in (".csv", ".csv.gz"):
        names = _csv_header(path)
        chosen = columns.chosen(path, [*names, *more[0]])
        wanted = [name for name in dict.fromkeys((*chosen.columns(), columns.key)) if name in names]
        rows: Iterable[dict[str, Any]] = (dict(zip(wanted, row, strict=True)) for row in read_rows(path, wanted))
    elif kind == ".parquet":
        try:
            names = list(pq.read_schema(path).names)
            chosen = columns.chosen(path, [*names, *more[0]])
            wanted = [name for name in dict.fromkeys((*chosen.columns(), columns.key)) if name in names]
            rows = pq.read_table(path, columns=wanted, use_threads=False).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise TableError(f"{path} is not a Parquet file, or was cut off. Get it again.") from error
    else:
        rows = _json_rows(path)
        chosen = columns.chosen(path, [*dict.fromkeys(name for row in rows for name in row), *more[0]])
    return chosen, (_joined(row, more[1], columns.key) for row in rows)


def _joined(row: dict[str, Any], more: Mapping[str, Mapping[str, str]], key: str) -> dict[str, Any]:
    return {**more.get(_text(row.get(key)), {}), **row} if more else row


def _csv_header(path: Path) -> list[str]:
    try:
        with open_table(path) as file:
            if "\0" in file.read(64):
                raise TableError(f"{path} is in UTF-16, or no text at all. Save it as CSV in UTF-8.")
            file.seek(0)
            return [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, EOFError, csv.Error) as error:
        raise TableError(f"{path} cannot be read: {error}. Get it again.") from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".jsonl":
            rows: Any = [row for _, row in read_json_lines(path)]
        else:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except CXRLensError as error:
        raise TableError(str(error)) from error
    except (OSError, ValueError) as error:
        raise TableError(f"{path} is damaged: it is no JSON in UTF-8. Get it again.") from error
    rows = list(rows.values()) if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TableError(f"{path} should be a list of objects, one a study or one an image.")
    return rows


def _read_more(folder: Path, columns: Columns) -> tuple[list[str], dict[str, dict[str, str]]]:
    """A second table: its columns, and its first row of each key."""
    path = folder / columns.more
    if not columns.more or not path.is_file():
        return [], {}
    names = _csv_header(path)
    wanted = [name for name in dict.fromkeys((columns.key, *columns.columns())) if name in names]
    found: dict[str, dict[str, str]] = {}
    for row in read_rows(path, [columns.key, *wanted]):
        found.setdefault(plain_id(row[0]), dict(zip(wanted, row[1:], strict=True)))
    return names, found


def _read_table(
    path: Path, split: str, columns: Columns, studies: dict[str, _Study], boxes: list[_Box], notes: Notes
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
    boxes: list[_Box],
    notes: Notes,
) -> None:
    """Add what a row tells."""

    def told(name: str) -> str:
        return next((_text(_value(row, column)) for column in columns.of.get(name, ())), "")

    study_id = _id(told("id"), columns.pattern)
    if not study_id:
        notes.add("row without an id, left out", "")
        return
    texts = {name: _text(_value(row, column)) for name, (column, *_) in columns.texts.items()}
    traits = {name: _text(_value(row, column)) for name, (column, *_) in columns.traits.items()}
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
    boxes += _row_boxes(row, columns, next(iter(study.images), ""))


def _compare(study_id: str, study: _Study, new: _Study, notes: Notes) -> None:
    """Note what two rows of one study say differently; the first one counts."""
    if (new.findings, new.impression) != (study.findings, study.impression):
        notes.add("two reports for one study, the first one counts", study_id)
    if new.patient != study.patient:
        study.fault = "listed under two patients"
    elif new.split != study.split:
        study.fault = "listed in two splits"


def _images(row: Mapping[str, Any], columns: Columns) -> Iterator[tuple[str, str]]:
    """What a row writes of images, with their views."""
    written = next((value for column in columns.of.get("image", ()) if (value := _value(row, column))), None)
    if written is None or _text(written) == "":
        return
    names = written if isinstance(written, list) else [written]
    views = [_value(row, column) for column in columns.of.get("view", ())]
    for place, name in enumerate(names):
        of_image = (each[place] if isinstance(each, list) and place < len(each) else each for each in views)
        found = (plain_view(_text(each)) for each in of_image if not isinstance(each, list))
        yield _text(name), next((view for view in found if view), "")


def _labels(row: Mapping[str, Any], columns: Columns, study_id: str) -> dict[str, LabelState]:
    found: dict[str, LabelState] = {}
    for name, (column, *_) in columns.labels.items():
        written = _text(_value(row, column))
        state = _STATES.get(written.lower())
        if state is None:
            raise TableError(
                f"Column {column} is {written[:20]!r} for study {study_id[:40]}; a label is 1, 0, -1 or blank."
            )
        found[name] = state
    for column in columns.listed:
        value = _value(row, column)
        names = value if isinstance(value, list) else _text(value).split(columns.between)
        for finding in names:
            for name in columns.observations.get(str(finding).strip(), ()):
                found[name] = LabelState.POSITIVE
    return found


def _row_boxes(row: Mapping[str, Any], columns: Columns, image: str) -> Iterator[_Box]:
    """Boxes that stand in a row: each part of a list has names, and boxes as left, top, right, bottom."""
    if columns.boxes.file or not columns.boxes.corner:
        return
    outer, _, names = columns.boxes.finding[0].partition("[].")
    corners = columns.boxes.corner[0][0].partition("[].")[2]
    for part in row.get(outer) or ():
        labels = [str(name) for name in part.get(names) or ()]
        for left, top, right, bottom in part.get(corners) or ():
            counted = tuple(dict.fromkeys(each for name in labels for each in columns.observations.get(name, ())))
            yield _Box(image, ", ".join(labels), counted, (left, top, right - left, bottom - top))


def _read_lists(folder: Path, columns: Columns, studies: dict[str, _Study]) -> None:
    """Take splits from lists of ids beside the table."""
    for name, split in columns.lists.items():
        path = folder / name
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split():
                study = studies.get(_id(line, columns.pattern))
                if study is not None:
                    study.split = split


def _read_boxes(folder: Path, columns: Columns, notes: Notes) -> list[_Box]:
    """Boxes of a table of their own; the release's table, or one with the plain name beside the labels."""
    boxes = columns.boxes
    named = [Path(boxes.file), folder / boxes.file, folder / "boxes.csv"] if boxes.file else []
    path = next((each for each in named if each.is_file()), None)
    if path is None:
        if boxes.file and not columns.tables:
            raise TableError(f"{boxes.file} is not there. --boxes names a table of boxes.")
        return []
    header = _csv_header(path)
    usual = ("image",), ("finding",), *((name,) for name in ("x", "y", "w", "h"))
    wanted = (boxes.image, boxes.finding, *boxes.corner) if boxes.corner else usual
    names = [next((name for name in each if name in header), each[0]) for each in wanted]
    found = []
    for image, finding, *numbers in read_rows(path, names):
        try:
            left, top, width, height = (float(number) for number in numbers)
        except ValueError:
            notes.add("box that is no four numbers, left out", image)
            continue
        if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
            notes.add("box that is no four numbers, left out", image)
            continue
        found.append(_Box(image, finding, columns.observations.get(finding, ()), (left, top, width, height)))
    return found


# --- values ---


def _value(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of each of a list: "findings[].labels"."""
    outer, nested, rest = column.partition("[].")
    value = row.get(outer)
    if not nested:
        return value.tolist() if hasattr(value, "tolist") else value
    found: list[Any] = []
    for part in value or ():
        each = part.get(rest) if isinstance(part, Mapping) else None
        found += each if isinstance(each, list) else [] if each is None else [each]
    return found


def _text(value: Any) -> str:
    """A cell on one line; "" where it says nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return " ".join(filter(None, map(_text, value)))
    text = " ".join(str(value).split())
    return "" if text.lower() in _EMPTY else text


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
        written = study.images or dict.fromkeys(by_id.get(study_id, []), "")
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
        f"None of the {len(entries):,} studies in {reports} has an image in {images}: the first is {written!r}, files "
        f"there are called {', '.join(tree.some())}{looks}. Name the column of the images with --image, or another "
        "folder."
    )


# --- what stands beside an index ---


def _write_boxes(
    path: Path,
    boxes: Sequence[_Box],
    tree: ImageTree,
    root: Path,
    side: int,
    entries: Sequence[StudyEntry],
    notes: Notes,
) -> bool:
    """Write boxes as fractions of their images; whether there are any."""
    known = {image.image_id: image for entry in entries for image in entry.images if image.path}
    sizes: dict[str, tuple[int, int]] = {}
    rows = []
    for box in boxes:
        paths = tree.find(box.image)
        image = known.get(without_suffix(paths[0])) if len(paths) == 1 else None
        if image is None:
            notes.add("box of an image that is not there", box.image)
            continue
        left, top, width, height = box.corner
        if max(box.corner) > 1:  # pixels
            if image.path not in sizes:
                sizes[image.path] = (side, side) if side else _size_of(root / image.path)
            across, down = sizes[image.path]
            left, top, width, height = left / across, top / down, width / across, height / down
        if not (0 <= left < 1 and 0 <= top < 1 and left + width < 1.02 and top + height < 1.02):
            notes.add("box that lies outside its image, left out", box.image)
            continue
        observations = "|".join(name for name in box.observations if name != NO_FINDING)
        rows.append((image.image_id, box.finding, observations, left, top, width, height))
    path.unlink(missing_ok=True)
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        pq.write_table(pa.table(dict(zip(_BOX_SCHEMA.names, columns, strict=True)), schema=_BOX_SCHEMA), path)
    return bool(rows)


def _size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image; (1, 1) where it cannot be read, so that its boxes lie outside."""
    try:
        if path.suffix.lower() == ".dcm":
            from core.studies.images import read_image

            height, width = read_image(path).pixels.shape
            return width, height
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, CXRLensError):
        return 1, 1


def _write_labels(path: Path, studies: Mapping[str, _Study]) -> None:
    path.unlink(missing_ok=True)
    if not studies:
        return
    columns: dict[str, Any] = {"study_id": pa.array(list(studies))}
    for name in OBSERVATIONS:
        states = [str(study.labels.get(name, LabelState.BLANK)) for study in studies.values()]
        columns[name] = pa.array(states).dictionary_encode()
    pq.write_table(pa.table(columns), path, compression="zstd")
