"""Builds folders in the layout of MIMIC-CXR-JPG 2.x, with invented patients, reports and images."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

# The release's own order of columns.
ALPHABETICAL = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture"),
    *("Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia"),
    *("Pneumothorax", "Support Devices"),
)
METADATA = (
    *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns"),
    *("StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning"),
    "PatientOrientationCodeSequence_CodeMeaning",
)

# MIMIC-CXR's lines begin with a space, empty ones too.
REPORT = (
    " "
    * 33
    + "FINAL REPORT\n EXAMINATION:  CHEST (PORTABLE AP)\n \n INDICATION:  ___ year old patient with {complaint}."
    "\n \n COMPARISON:  None.\n \n FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n"
)


def report(
    findings: str = "There is a small left\n pleural effusion. The heart is normal in size.",
    impression: str = "Small left pleural effusion.",
    complaint: str = "cough",
) -> str:
    return REPORT.format(findings=findings, impression=impression, complaint=complaint)


def dicom_id(number: int) -> str:
    digits = hashlib.sha256(str(number).encode()).hexdigest()
    return "-".join(digits[start : start + 8] for start in range(0, 40, 8))


def jpeg(number: int = 0, height: int = 80, width: int = 64) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (height // 8, width // 8), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "JPEG", quality=90)
    return file.getvalue()


@dataclass
class Exam:
    """A study; `views` has one image each."""

    subject: int
    study: int
    split: str = "train"
    views: Sequence[str] = ("AP",)
    text: str | bytes | None = field(default_factory=report)
    labels: dict[str, str] = field(default_factory=lambda: {"Pleural Effusion": "1.0"})

    @property
    def folder(self) -> str:
        return f"files/p{str(self.subject)[:2]}/p{self.subject}"

    def dicoms(self) -> list[str]:
        return [dicom_id(self.study * 10 + place) for place in range(len(self.views))]

    def image(self, place: int = 0) -> str:
        return f"{self.folder}/s{self.study}/{self.dicoms()[place]}.jpg"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_tables(root: Path, exams: Sequence[Exam], suffix: str = ".csv.gz") -> None:
    images = [(exam, dicom, view) for exam in exams for dicom, view in zip(exam.dicoms(), exam.views, strict=True)]
    write_csv(
        root / f"mimic-cxr-2.0.0-split{suffix}",
        ("dicom_id", "study_id", "subject_id", "split"),
        ((dicom, exam.study, exam.subject, exam.split) for exam, dicom, _ in images),
    )
    write_csv(
        root / f"mimic-cxr-2.0.0-metadata{suffix}",
        METADATA,
        (
            (dicom, exam.subject, exam.study, "CHEST", view, 80, 64, 21800506, "213014.531", "CHEST", view, "Erect")
            for exam, dicom, view in images
        ),
    )
    for name in ("chexpert", "negbio"):
        write_csv(
            root / f"mimic-cxr-2.0.0-{name}{suffix}",
            ("subject_id", "study_id", *ALPHABETICAL),
            ((exam.subject, exam.study, *(exam.labels.get(each, "") for each in ALPHABETICAL)) for exam in exams),
        )
    write_csv(
        root / f"cxr-study-list{suffix}",
        ("subject_id", "study_id", "path"),
        ((exam.subject, exam.study, f"{exam.folder}/s{exam.study}.txt") for exam in exams),
    )
    write_csv(
        root / f"cxr-record-list{suffix}",
        ("subject_id", "study_id", "dicom_id", "path"),
        ((exam.subject, exam.study, dicom, f"{exam.folder}/s{exam.study}/{dicom}.dcm") for exam, dicom, _ in images),
    )


def write_files(root: Path, exams: Iterable[Exam]) -> None:
    for exam in exams:
        (root / exam.folder / f"s{exam.study}").mkdir(parents=True, exist_ok=True)
        for place in range(len(exam.views)):
            (root / exam.image(place)).write_bytes(jpeg(exam.study * 10 + place))
        if exam.text is not None:
            data = exam.text.encode() if isinstance(exam.text, str) else exam.text
            (root / exam.folder / f"s{exam.study}.txt").write_bytes(data)


def write_tree(root: Path, exams: Sequence[Exam], suffix: str = ".csv.gz") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    write_tables(root, exams, suffix)
    write_files(root, exams)
    return root
