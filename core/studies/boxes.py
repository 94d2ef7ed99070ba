"""Boxes of findings: from a table of their own or from rows of reports, to fractions of the images of an index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from core.files import whole_file
from core.observations import NO_FINDING
from core.studies.census import Notes
from core.studies.columns import Columns
from core.studies.files import ImageTree, without_suffix
from core.studies.images import read_image
from core.studies.index import StudyEntry
from core.studies.records import csv_header
from core.tables import TableError, read_rows
from core.types import CXRLensError

_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "finding", "observations")),
        *((name, pa.float32()) for name in ("left", "top", "width", "height")),
    ]
)


@dataclass(frozen=True, slots=True)
class Box:
    """A box: image as the table writes it, finding, observations, and left, top, width, height."""

    image: str
    finding: str
    observations: tuple[str, ...]
    corner: tuple[float, float, float, float]


def row_boxes(row: Mapping[str, Any], columns: Columns, image: str) -> Iterator[Box]:
    """Boxes that stand in a row: each part of a list has names, and boxes as left, top, right, bottom."""
    if columns.boxes.file or not columns.boxes.corner:
        return
    outer, _, names = columns.boxes.finding[0].partition("[].")
    corners = columns.boxes.corner[0][0].partition("[].")[2]
    for part in row.get(outer) or ():
        labels = [str(name) for name in part.get(names) or ()]
        for left, top, right, bottom in part.get(corners) or ():
            counted = tuple(dict.fromkeys(each for name in labels for each in columns.observations.get(name, ())))
            yield Box(image, ", ".join(labels), counted, (left, top, right - left, bottom - top))


def read_boxes(folder: Path, columns: Columns, notes: Notes) -> list[Box]:
    """Boxes of a table of their own; the release's table, or one with the plain name beside the labels."""
    boxes = columns.boxes
    named = [Path(boxes.file), folder / boxes.file, folder / "boxes.csv"] if boxes.file else []
    path = next((each for each in named if each.is_file()), None)
    if path is None:
        if boxes.file and not columns.tables:
            raise TableError(f"{boxes.file} is not there. --boxes names a table of boxes.")
        return []
    header = csv_header(path)
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
        found.append(Box(image, finding, columns.observations.get(finding, ()), (left, top, width, height)))
    return found


def write_boxes(
    path: Path,
    boxes: Sequence[Box],
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
        with whole_file(path, private=False) as fresh:
            pq.write_table(pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA), fresh)
    return bool(rows)


def _size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image; (1, 1) where it cannot be read, so that its boxes lie outside."""
    try:
        if path.suffix.lower() == ".dcm":
            height, width = read_image(path).pixels.shape
            return width, height
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, CXRLensError):
        return 1, 1
