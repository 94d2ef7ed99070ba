"""The layouts of known releases, written with invented content; and a part of ChestX-ray14 itself."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from core.observations import LabelState
from core.studies.columns import release_columns, releases
from core.studies.index import draw_split
from core.studies.indexed import IndexedSource
from core.studies.sources import open_source
from core.studies.table import index_table
from core.types import SPLITS, CXRLensError
from tests import needs
from tests.table_tree import (
    notes,
    pixels,
    write_images,
    write_rows,
)

NIH = needs.SHARED / "nih"
needs_nih = needs.NIH.unless(NIH.is_dir())

CHEXPERT_PLUS = (
    ",path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,"
    "section_narrative,section_clinical_history,section_history,section_comparison,section_technique,"
    "section_procedure_comments,section_findings,section_impression,section_end_of_impression,section_summary,"
    "section_accession_number,age,sex,race,ethnicity,interpreter_needed,insurance_type,recent_bmi,deceased,split"
)


def test_chexpert_pluss_layout_is_read(tmp_path: Path) -> None:
    header = CHEXPERT_PLUS.split(",")
    rows = [
        {
            "path_to_image": f"{part}/{patient}/{study}/{view}.jpg",
            "path_to_dcm": f"{part}/{patient}/{study}/{view}.dcm",
            "frontal_lateral": "Lateral" if "lateral" in view else "Frontal",
            "ap_pa": "" if "lateral" in view else "AP",
            "deid_patient_id": patient,
            "patient_report_date_order": order,
            "section_findings": findings,
            "section_impression": "1. None.",
            "section_history": "61 years of age, cough.",
            "age": "61.0",
            "sex": "Male",
            "race": "White",
            "ethnicity": "Unknown",
            "split": part,
            "report": "NARRATIVE:\nRadiograph",
        }
        for part, patient, study, view, order, findings in (
            ("train", "patient42142", "study5", "view1_frontal", 2, "Small effusion."),
            ("train", "patient42142", "study5", "view2_lateral", 2, "Small effusion."),
            ("train", "patient42142", "study3", "view1_frontal", 1, "Clear."),
            ("valid", "patient64541", "study1", "view1_frontal", 1, "Edema."),
        )
    ]
    table = write_rows(
        tmp_path / "df_chexpert_plus_240401.csv", [{name: row.get(name, "") for name in header} for row in rows]
    )
    images = write_images(tmp_path / "PNG", *(row["path_to_image"].replace(".jpg", ".png") for row in rows))
    source = open_source(str(index_table(images, table, tmp_path / "index", release_columns("chexpert-plus")).folder))
    assert isinstance(source, IndexedSource) and source.title == "CheXpert Plus"
    study = source.study("patient42142-study5")
    assert (study.subject_id, study.split, study.view, study.findings) == (
        "patient42142",
        "train",
        "AP",
        "Small effusion.",
    )
    assert study.context["history"] == "61 years of age, cough."
    assert source.traits(study) == {
        "View": "AP", "Sex": "male", "Age": "50 and over", "Race": "White", "Ethnicity": "Unknown",
    }  # fmt: skip
    assert [(image.view, image.earlier) for image in source.images(study.study_id)] == [
        ("AP", False), ("LATERAL", False), ("AP", True),
    ]  # fmt: skip
    assert source.study("patient64541-study1").split == "validate"


def test_rexgradients_layout_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "ReXGradient-160K"
    for part, number in (("train", 1), ("valid", 2), ("test", 3)):
        path = f"GRDN{number}/GRDN{number}X/studies/1.2.{number}/series/1/instances"
        entry = {
            "StudyInstanceUid": f"1.2.{number}",
            "SeriesInstanceUid": ["1.1", "1.2"],
            "AccessionNumber": f"GRDNA{number}",
            "PatientID": f"GRDN{number}X",
            "PatientSex": "F",
            "PatientAge": "045Y",
            "EthnicGroup": None,
            "StudyDate": f"2019010{number}",
            "Indication": "Cough.",
            "Comparison": "None.",
            "Findings": "Clear lungs.",
            "Impression": "Normal.",
            "ImageViewPosition": ["LATERAL", "POSTERO_ANTERIOR"],
            "ImagePath": [f"../deid_png/{path}/9.png", f"../deid_png/{path}/8.png"],
        }
        (folder / "metadata").mkdir(parents=True, exist_ok=True)
        name = folder / "metadata" / f"{part}_metadata_view_position.json"
        name.write_text(json.dumps({f"GRDN{number}_{part}": entry}), encoding="utf-8")
        write_images(folder / "deid_png", f"{path}/9.png", f"{path}/8.png")
    out = index_table(folder / "deid_png", folder, tmp_path / "index", release_columns("rexgradient-160k")).folder
    source = open_source(str(out))
    assert [source.ids(split) for split in SPLITS] == [["1.2.1"], ["1.2.2"], ["1.2.3"]]
    study = source.study("1.2.3")
    assert (study.subject_id, study.view, study.impression) == ("GRDN3X", "PA", "Normal.")
    assert source.traits(study) == {"View": "PA", "Sex": "female", "Age": "under 50"}
    assert [(image.view, image.read) for image in source.images("1.2.3")] == [("PA", True), ("LATERAL", False)]
    assert np.array_equal(source.original("1.2.3").pixels, pixels(1))


def test_padchest_grs_layout_is_read_with_its_boxes(tmp_path: Path) -> None:
    folder = tmp_path / "PadChest-GR"
    found = [
        {
            "sentence_en": "Enlarged cardiac silhouette.",
            "sentence_es": "Silueta.",
            "abnormal": True,
            "boxes": [[0.25, 0.5, 0.75, 0.9]],
            "extra_boxes": [],
            "labels": ["cardiomegaly"],
            "locations": ["cardiac"],
        },
        {
            "sentence_en": "Bilateral effusion.",
            "sentence_es": "Derrame.",
            "abnormal": True,
            "progression": None,
            "boxes": [[0.0, 0.8, 0.2, 1.0], [0.8, 0.8, 1.0, 1.0]],
            "extra_boxes": [],
            "labels": ["pleural effusion"],
            "locations": [],
        },
        {"sentence_en": "No pneumothorax.", "sentence_es": "Sin.", "abnormal": False},
    ]
    rows = [
        {"StudyID": "216_1", "ImageID": "216_1_x.png", "findings": found},
        {"StudyID": "216_2", "ImageID": "216_2_x.png", "findings": [{"sentence_en": "Normal.", "labels": ["Normal"]}]},
    ]
    write_rows(folder / "grounded_reports_20240819.json", rows)
    master = [
        {
            "StudyID": study,
            "ImageID": f"{study}_x.png",
            "PatientID": f"9{study}",
            "label": label,
            "label_group": label,
            "split": split,
        }
        for study, label, split in (
            ("216_1", "cardiomegaly", "train"),
            ("216_1", "pleural effusion", "train"),
            ("216_2", "Normal", "test"),
        )
    ]
    write_rows(folder / "master_table.csv", master)
    write_images(folder / "PadChest_GR", "216_1_x.png", "216_2_x.png")
    source = open_source(
        str(index_table(folder / "PadChest_GR", folder, tmp_path / "index", release_columns("padchest-gr")).folder)
    )
    study = source.study("216_1")
    assert study.findings == "Enlarged cardiac silhouette. Bilateral effusion. No pneumothorax."
    assert (study.subject_id, study.split, source.study("216_2").split) == ("9216_1", "train", "test")
    heart, effusion = source.masks("216_1", (20, 40))
    assert (heart.name, heart.observations) == ("cardiomegaly", ("Cardiomegaly",))
    rows_of, columns_of = np.nonzero(heart.mask)
    assert (rows_of.min(), rows_of.max(), columns_of.min(), columns_of.max()) == (10, 17, 10, 29)
    assert effusion.observations == ("Pleural Effusion",) and effusion.mask.sum() == 2 * 4 * 8
    assert source.truth == "boxes that radiologists drew" and source.masks("216_2", (20, 40)) == ()


def test_chestx_ray14s_layout_is_read_with_its_boxes(tmp_path: Path) -> None:
    folder = tmp_path / "CXR8"
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    lines = (
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,57,M,PA,2682,2749,0.143,0.143",
        "00000001_001.png,No Finding,1,1,58,M,AP,2682,2749,0.143,0.143",
        "00000002_000.png,Infiltration,0,2,80,F,PA,2500,2048,0.171,0.171",
    )
    folder.mkdir()
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join((header, *lines)) + "\n")
    (folder / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000001_000.png,Cardiomegaly,256.0,512.0,512.0,256.0,,,\n"
        "00000002_000.png,Infiltrate,0,0,102.4,102.4,,,\n00000009_000.png,Mass,1,1,9,9,,,\n00000002_000.png,Mass,1000,1,99,9,,,\n"
    )
    (folder / "train_val_list.txt").write_text("00000002_000.png\n")
    (folder / "test_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    images = (
        "images_001/images/00000001_000.png",
        "images_001/images/00000001_001.png",
        "images_002/images/00000002_000.png",
    )
    write_images(folder, *images)
    source = open_source(str(index_table(folder, folder, tmp_path / "index", release_columns("chestx-ray14")).folder))
    assert isinstance(source, IndexedSource)
    assert [list(source.ids(split)) for split in SPLITS] == [["00000002_000"], [], ["00000001_000", "00000001_001"]]
    study = source.study("00000001_000")
    assert study.labels["Cardiomegaly"] is LabelState.POSITIVE and study.labels["Edema"] is LabelState.BLANK
    assert source.study("00000002_000").labels["Lung Opacity"] is LabelState.POSITIVE
    assert source.study("00000001_001").labels["No Finding"] is LabelState.POSITIVE
    (heart,) = source.masks("00000001_000", (48, 40))
    assert heart.name == "Cardiomegaly" and heart.mask[24:36, 10:30].all() and heart.mask.sum() == 12 * 20
    assert [(image.study_id, image.earlier) for image in source.images("00000001_001")][1] == ("00000001_000", True)
    assert notes(source)["box of an image that is not there"] == ["00000009_000.png"]
    assert notes(source)["box that lies outside its image, left out"] == ["00000002_000.png"]
    assert "NIH Clinical Center" in source.credit


def test_every_release_has_a_map() -> None:
    assert set(releases()) == {"chestx-ray14", "chexpert-plus", "padchest-gr", "rexgradient-160k"}
    for name in releases():
        assert release_columns(name).tables
    with pytest.raises(CXRLensError, match="no map of columns 'chexpert'. Did you mean 'chexpert-plus'"):
        release_columns("chexpert")


@needs_nih
def test_chestx_ray14_is_read_with_what_radiologists_drew(tmp_path: Path) -> None:
    source = open_source(
        str(index_table(NIH / "images", NIH, tmp_path / "index", release_columns("chestx-ray14")).folder)
    )
    assert isinstance(source, IndexedSource)
    ids = [study_id for split in SPLITS for study_id in source.ids(split)]
    assert len(ids) == 2462 and len(source.index.boxes) == 827 and source.index.boxes["image_id"].nunique() == 741
    patients = {split: {source.study(each).subject_id for each in source.ids(split)} for split in ("validate", "test")}
    assert not patients["validate"] & patients["test"]
    with (NIH / "boxes.csv").open() as file:
        box = next(csv.DictReader(file))
    study_id = box["image"].removesuffix(".jpg")
    film = source.original(study_id)
    found = {each.name: each.mask for each in source.masks(study_id, film.pixels.shape)}
    left, top, width, height = (float(box[name]) * 512 for name in ("x", "y", "w", "h"))
    rows_of, columns_of = np.nonzero(found[box["finding"]])
    assert abs(rows_of.min() - top) <= 1 and abs(columns_of.max() + 1 - left - width) <= 1
    assert abs(found[box["finding"]].sum() - width * height) < 0.05 * width * height


def test_example_radiographs_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.paths.cache", lambda: tmp_path / "cache")
    source = open_source("example")
    assert (source.key, len(source.ids("test")), source.splits()) == ("example", 16, ("test",))
    assert not source.synthetic and "NIH Clinical Center" in source.credit
    # The Open-i models learned labels of this release's training split, drawn with the command's own seed.
    assert {draw_split(source.study(each).subject_id or "", 0) for each in source.ids("test")} == {"test"}
    boxed = [each for each in source.ids("test") if source.masks(each, (64, 64))]
    assert len(boxed) == 11
    for study_id in boxed:
        labels = source.study(study_id).labels
        assert any(
            labels[name] is LabelState.POSITIVE
            for each in source.masks(study_id, (64, 64))
            for name in each.observations
        )
    assert open_source("example").fingerprint() == source.fingerprint()
