"""Builds tables of reports with their images, and DICOM files, with invented patients."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from core.studies.columns import Columns
from core.studies.indexed import IndexedSource
from core.studies.sources import open_source
from core.studies.table import index_table
from core.types import SPLITS, Study
from tests.openi_tree import png

ROWS: list[dict[str, Any]] = [
    {
        "accession": "a1",
        "mrn": "p1",
        "text": "The heart is large.",
        "opinion": "Cardiomegaly.",
        "ward": "A",
        "edema": "0",
    },
    {"accession": "a2", "mrn": "p1", "text": "There is edema.", "opinion": "", "ward": "B", "edema": "1"},
    {"accession": "a3", "mrn": "p2", "text": "The lungs are clear.", "opinion": "Normal.", "ward": "A", "edema": ""},
]
HEADER = "accession,mrn,text,opinion,edema,ward\n"
FIELDS = {"id": "accession", "patient": "mrn", "findings": "text", "impression": "opinion"}
PLAIN = Columns().named(FIELDS, {"Edema": "edema"}, {"ward": "ward"})


def write_images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def index(folder: Path, rows: Sequence[Mapping[str, Any]], columns: Columns = PLAIN, **more: Any) -> IndexedSource:
    """An index of a table, with an image of each study unless there are others in the folder."""
    images = folder / "images"
    if not images.is_dir():
        write_images(images, *(f"{row['accession']}.png" for row in rows))
    table = write_rows(folder / "table.csv", rows)
    source = open_source(str(index_table(images, table, folder / "index", columns, **more).folder))
    assert isinstance(source, IndexedSource)
    return source


def studies(source: IndexedSource) -> dict[str, Study]:
    return {study.study_id: study for split in SPLITS for study in source.studies(split)}


def notes(source: IndexedSource) -> dict[str, list[str]]:
    return {what: each["examples"] for what, each in source.index.census()["notes"].items()}


def dropped(source: IndexedSource) -> dict[str, list[str]]:
    return {why: each["examples"] for why, each in source.index.census()["studies"]["dropped"].items()}


def pixels(number: int) -> Any:
    return np.asarray(Image.open(io.BytesIO(png(number))), dtype=np.float32) / 255


def dicom(path: Path, number: int, **tags: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = f"1.2.3.{number}"
    data.Modality = "CR"
    data.PatientName, data.PatientID, data.PatientSex, data.PatientAge = "Doe^Jane", "MRN-4711", "F", "093Y"
    data.StudyInstanceUID, data.StudyDate, data.StudyTime = "1.2.840.99.1", "20240229", "101112"
    data.Rows, data.Columns, data.SamplesPerPixel, data.PixelRepresentation = 48, 40, 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PhotometricInterpretation = 8, 8, 7, "MONOCHROME2"
    data.PixelSpacing = [0.2, 0.2]
    data.PixelData = np.asarray(Image.open(io.BytesIO(png(number)))).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
