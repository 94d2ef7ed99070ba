"""Anybody's data: tables in four forms, the layouts of four releases, a tree of files, and what is wrong with them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from typer.testing import CliRunner

from core.config import DataConfig, from_dict
from core.observations import LabelState
from core.studies.columns import Columns, release_columns, releases
from core.studies.files import ImageTree
from core.studies.index import ReleaseError, draw_split
from core.studies.indexed import IndexedSource
from core.studies.sources import open_source
from core.studies.table import index_table
from core.studies.tree import index_tree
from core.tables import TableError
from core.types import SPLITS, CXRLensError, Study
from tests import needs
from tests.openi_tree import png
from training.cli import app
from training.data import StudyData

NIH = needs.SHARED / "nih"
needs_nih = needs.NIH.unless(NIH.is_dir())

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


# --- tables ---


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_a_table_of_any_kind_is_one_index(tmp_path: Path, kind: str) -> None:
    images = write_images(tmp_path / "images", "north/a1.png", "south/a2_1.png", "south/a2_lateral.png", "a3/x.png")
    table = write_rows(tmp_path / f"reports.{kind}", ROWS)
    source = open_source(str(index_table(images, table, tmp_path / "index", PLAIN).folder))
    assert isinstance(source, IndexedSource)
    found = studies(source)
    assert {name: (each.findings, each.impression, each.subject_id) for name, each in found.items()} == {
        row["accession"]: (row["text"], row["opinion"], row["mrn"]) for row in ROWS
    }
    assert {each.split for each in found.values() if each.subject_id == "p1"} == {draw_split("p1", 0)}
    assert source.traits(found["a2"]) == {"Ward": "B"}
    assert [(image.view, image.read) for image in source.images("a2")] == [("", True), ("LATERAL", False)]
    for number, name in enumerate(("a1", "a2")):
        assert np.array_equal(source.original(name).pixels, pixels(number))
    assert found["a1"].labels["Cardiomegaly"] is LabelState.POSITIVE  # by our rules, of the text
    given = IndexedSource(tmp_path / "index", "frontal", "given")
    assert [given.study(name).labels["Edema"] for name in ("a1", "a2", "a3")] == ["negative", "positive", "blank"]


def test_a_drawn_split_is_of_the_patient_and_the_seed_alone(tmp_path: Path) -> None:
    rows = [{"accession": f"a{n}", "mrn": f"p{n // 2}", "text": "Clear."} for n in range(60)]
    columns = Columns().named({"id": "accession", "patient": "mrn", "findings": "text"}, {}, {})
    first = {name: each.split for name, each in studies(index(tmp_path / "a", rows, columns)).items()}
    again = {name: each.split for name, each in studies(index(tmp_path / "b", rows[::-1][:30], columns)).items()}
    other = {name: each.split for name, each in studies(index(tmp_path / "c", rows, columns, seed=1)).items()}
    assert set(first.values()) == set(SPLITS) and first != other
    assert all(first[name] == split for name, split in again.items())
    assert all(first[f"a{n}"] == first[f"a{n + 1}"] for n in range(0, 60, 2))
    tested = index(tmp_path / "d", rows, columns, only_test=True)
    assert len(tested.ids("test")) == 60 and tested.splits() == ("test",)


def test_a_tables_own_split_and_views_count(tmp_path: Path) -> None:
    rows = [
        {
            "accession": "a",
            "file": "one.png",
            "where": "Training",
            "projection": "LL",
            "text": "Clear.",
            "date": "2020-05",
        },
        {"accession": "a", "file": "two.png", "where": "Training", "projection": "AP supine", "text": "Clear."},
        {"accession": "b", "file": "x/three.jpg", "where": "val", "projection": "Frontal", "text": "Clear."},
        {"accession": "c", "file": "four", "where": "later", "projection": "", "text": "Clear."},
        {"accession": "d", "file": "five.png", "where": "test", "projection": "OBLIQUE", "text": "Clear."},
    ]
    write_images(tmp_path / "images", "one.png", "deep/two.png", "x/three.png", "four.png", "five.png")
    fields = {"id": "accession", "image": "file", "split": "where", "view": "projection", "findings": "text"}
    source = index(tmp_path, rows, Columns().named(fields, {}, {}))
    assert {name: (each.split, each.view) for name, each in studies(source).items()} == {
        "a": ("train", "AP"),
        "b": ("validate", "FRONTAL"),
    }
    assert [image.view for image in source.images("a")] == ["AP", "LATERAL"]
    assert np.array_equal(source.original("a").pixels, pixels(1))
    assert dropped(source) == {"in no split": ["c"]}
    with pytest.raises(CXRLensError, match="'d' of Your table is left out: it has no image for views=frontal"):
        source.study("d")
    assert "d" in studies(IndexedSource(tmp_path / "index", "all"))


def test_earlier_studies_are_found_by_a_columns_order(tmp_path: Path) -> None:
    rows = [
        {"accession": name, "mrn": patient, "text": "Clear.", "date": date}
        for name, patient, date in (
            ("a", "p", "2021-03-01"),
            ("b", "p", "2019-12-24"),
            ("c", "p", "2020-01-01"),
            ("d", "q", ""),
        )
    ]
    columns = Columns().named({"id": "accession", "patient": "mrn", "findings": "text", "order": "date"}, {}, {})
    source = index(tmp_path, rows, columns)
    earlier = {name: [image.study_id for image in source.images(name) if image.earlier] for name in "abcd"}
    assert earlier == {"a": ["c"], "b": [], "c": ["b"], "d": []}
    assert np.array_equal(source.original("a", source.images("a")[1].image_id).pixels, pixels(2))
    assert "2021" not in (tmp_path / "index" / "studies.parquet").read_bytes().decode("latin-1")


def test_labels_alone_are_enough(tmp_path: Path) -> None:
    columns = Columns().named({"id": "accession"}, {"Edema": "edema"}, {})
    source = index(tmp_path, ROWS, columns)
    assert (source.has_reports, source.has_labels, source.labels) == (False, True, "given")
    assert {name: each.labels["Edema"] for name, each in studies(source).items()} == {
        "a1": "negative",
        "a2": "positive",
        "a3": "blank",
    }
    assert source.fingerprint() and not list((tmp_path / "index").glob("labels-rules"))


def test_training_reads_a_table(tmp_path: Path) -> None:
    rows = [{"accession": f"a{n}", "text": "Clear lungs."} for n in range(30)]
    index(tmp_path, rows, Columns().named({"id": "accession", "findings": "text"}, {}, {}))
    config = {"source": "table", "folder": str(tmp_path / "index"), "views": "frontal", "labels": "rules"}
    numbers = {"min_word_count": 1, "min_fine_label_count": 1, "max_words": 9}
    data = StudyData(from_dict(DataConfig, config | numbers, "data"), tmp_path / "images")
    assert len(data.studies["train"]) > 10 and data.images("validate", 32).shape[1:] == (32, 32)
    with pytest.raises(CXRLensError, match="of table it is rules or given, not 'chexpert'"):
        from_dict(DataConfig, config | numbers | {"labels": "chexpert"}, "data")


# --- what is wrong with a table ---


def test_two_reports_for_one_study_are_counted_and_the_first_is_kept(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "text": "No, it is small."}, {**ROWS[1], "mrn": "p9"}]
    source = index(tmp_path, rows)
    assert notes(source)["two reports for one study, the first one counts"] == ["a1"]
    assert source.study("a1").findings == "The heart is large."
    assert dropped(source) == {"listed under two patients": ["a2"]}


def test_a_patient_in_two_splits_is_left_out(tmp_path: Path) -> None:
    rows = [{**row, "split": split} for row, split in zip(ROWS, ("train", "test", "test"), strict=True)]
    source = index(tmp_path, rows, Columns().named({**FIELDS, "split": "split"}, {}, {}))
    assert dropped(source) == {"of a patient in two splits": ["a1", "a2"]} and list(studies(source)) == ["a3"]


def test_ids_that_match_nothing_are_named_with_what_looks_like_them(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "a1.png", "A-2.png", "other.png")
    source = index(tmp_path, ROWS)
    assert notes(source)["study without an image of its name"] == ["a2, perhaps a1", "a3, perhaps a1"]
    assert notes(source)["image file of no study"] == ["A-2", "other"]
    assert dropped(source) == {"no usable image": ["a2", "a3"]} and list(studies(source)) == ["a1"]


def test_no_study_has_anothers_picture(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "12.png", "12_1.png", "12_1_2.png", "1.png", "x/9.png", "y/9.png", "1/2/z.png")
    rows = [{"accession": name, "text": "Clear."} for name in ("12_1", "12", "1", "9", "2")]
    source = index(tmp_path, rows, Columns().named({"id": "accession", "findings": "text"}, {}, {}))
    shown = {name: [image.image_id for image in source.images(name)] for name in studies(source)}
    assert shown == {"12_1": ["12_1", "12_1_2"], "12": ["12"], "1": ["1"], "9": ["x/9", "y/9"], "2": ["1/2/z"]}


def test_a_name_that_fits_two_files_is_neither(tmp_path: Path) -> None:
    write_images(tmp_path / "images", "p1/view1.png", "p2/view1.png", "p2/view2.png")
    rows = [
        {"accession": n, "file": f, "text": "Clear."}
        for n, f in (("a", "view1.png"), ("b", "p2/view2"), ("c", "p2/view1"))
    ]
    fields = {"id": "accession", "image": "file", "findings": "text"}
    source = index(tmp_path, rows, Columns().named(fields, {}, {}))
    assert list(studies(source)) == ["b", "c"] and dropped(source) == {"no usable image": ["a"]}
    assert source.index.census()["images"]["dropped"] == {
        "its name fits several files": {"count": 1, "examples": ["view1.png"]}
    }
    again = [*rows, {"accession": "d", "file": "p2/view2", "text": "Other."}]
    second = index(tmp_path, again, Columns().named(fields, {}, {}))
    assert notes(second)["image of two studies, the first one has it"] == ["p2/view2"]
    assert list(studies(second)) == ["b", "c"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda here: shutil.rmtree(here / "images"), "is not a folder. --images names"),
        (lambda here: [path.unlink() for path in (here / "images").iterdir()], "holds no image"),
        (lambda here: (here / "table.csv").unlink(), "table.csv is not there. --reports"),
        (lambda here: (here / "table.csv").write_text(""), "has no column accession. It has: nothing"),
        (lambda here: (here / "table.csv").write_text("Accession,mrn\n1,2\n"), "Did you mean Accession"),
        (lambda here: (here / "table.csv").write_text("accession,mrn,text\n"), "has no column opinion"),
        (lambda here: (here / "table.csv").write_text(HEADER), "no row with an id"),
        (lambda here: (here / "table.csv").write_text(HEADER + "a1,p\n"), "2 fields where"),
        (lambda here: (here / "table.csv").write_bytes("accession,mrn".encode("utf-16")), "UTF-16"),
        (lambda here: (here / "table.csv").write_text(HEADER + "a1,p,t,o,maybe,w\n"),
         "Column edema is 'maybe' for study a1; a label is 1, 0, -1 or blank"),
        (lambda here: [path.rename(path.with_name("z" + path.name)) for path in (here / "images").iterdir()],
         "None of the 3 studies in .* the first is 'a1', files there are called za1.png, .*; za1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path: Path, break_it: Any, said: str) -> None:
    index(tmp_path, ROWS)
    break_it(tmp_path)
    with pytest.raises((TableError, ReleaseError), match=said):
        index_table(tmp_path / "images", tmp_path / "table.csv", tmp_path / "again", PLAIN)
    assert not (tmp_path / "again" / "index.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"accession": 1}\n[', "line 2 is no JSON"),
        ("a.jsonl", "[1]\n", "a list of objects"),
        ("a.json", "{", "no JSON in UTF-8"),
        ("a.json", "3", "a list of objects"),
        ("a.parquet", "no", "not a Parquet file"),
        ("a.xlsx", "no", "a table is .csv"),
    ],
)
def test_a_damaged_table_is_one_sentence(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TableError, match=said):
        index_table(write_images(tmp_path / "images", "a.png"), tmp_path / name, tmp_path / "index", PLAIN)


def test_a_label_that_is_none_of_the_14_is_said() -> None:
    with pytest.raises(CXRLensError, match="--label:oedema is none of the 14 observations. Did you mean 'Edema'"):
        Columns().named({"id": "a"}, {"oedema": "b"}, {})
    with pytest.raises(CXRLensError, match="They are: Enlarged Cardiomediastinum"):
        Columns().named({"id": "a"}, {"xyz": "b"}, {})


def test_files_are_found_by_what_a_table_writes(tmp_path: Path) -> None:
    tree = ImageTree(write_images(tmp_path, "PNG/train/p1/s1/v1.png", "PNG/train/p2/s1/v1.png", "other/name.dcm.png"))
    assert tree.find("train/p1/s1/v1.jpg") == ["PNG/train/p1/s1/v1.png"]
    assert tree.find("/data/somewhere/PNG/train/p2/s1/v1.png") == ["PNG/train/p2/s1/v1.png"]
    assert tree.find("../files/PNG/train/p2/s1/v1.dcm") == ["PNG/train/p2/s1/v1.png"]
    assert tree.find("name.dcm") == tree.find("name") == tree.find("other\\name.png") == ["other/name.dcm.png"]
    flat = ImageTree(tmp_path / "other")
    assert flat.find("images_001/name.png") == flat.find("name.jpg") == ["name.dcm.png"]
    assert len(tree.find("v1.png")) == 2
    for wrong in ("", "v2.png", "x/name.png", "train/p3/s1/v1.png", "s2/v1.png", "..", "/"):
        assert tree.find(wrong) == []
    assert tree.look_like("naame.png") == ["name"]


# --- releases ---


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


# --- a tree of files ---


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


def test_a_tree_of_dicom_files_is_indexed_by_headers_and_keeps_no_name(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    dicom(root / "A" / "IM0001", 0, ViewPosition="LL")
    dicom(root / "A" / "IM0002", 1, ViewPosition="PA")
    dicom(root / "B" / "x.dcm", 2, StudyInstanceUID="1.2.840.99.2", StudyDate="20230101", ViewPosition="AP")
    dicom(root / "B" / "ct.dcm", 3, Modality="CT", StudyInstanceUID="1.2.840.99.3")
    dicom(root / "C" / "other.dcm", 4, StudyInstanceUID="1.2.840.99.4", PatientID="MRN-1")
    write_images(root, "D/photo.png")
    (root / "notes.txt").write_text("nothing")
    (root / "B" / "broken.dcm").write_bytes((root / "B" / "x.dcm").read_bytes()[:300])
    source = open_source(str(index_tree(root, tmp_path / "index", key=b"k" * 32).folder))
    assert isinstance(source, IndexedSource) and not source.has_reports and source.splits() == ("test",)
    by_count = {len([image for image in source.images(each) if not image.earlier]): each for each in source.ids("test")}
    both = by_count[2]
    first, second, earlier = source.images(both)
    assert [(first.view, first.read), (second.view, second.read), (earlier.view, earlier.earlier)] == [
        ("PA", True), ("LATERAL", False), ("AP", True),
    ]  # fmt: skip
    film = source.original(both)
    assert np.corrcoef(film.pixels.ravel(), pixels(1).ravel())[0, 1] > 0.9999 and film.pixel_spacing == (0.2, 0.2)
    assert source.traits(source.study(both)) == {"View": "PA", "Sex": "female", "Age": "50 and over"}
    assert source.study(both).context["age"] == "90"
    assert len(source.ids("test")) == 4
    assert len({source.study(each).subject_id for each in source.ids("test")}) == 3
    assert notes(source) == {
        "DICOM file without a radiograph": ["B/broken.dcm", "B/ct.dcm"],
        "file that is no image": ["notes.txt"],
    }
    kept = b"".join(path.read_bytes() for path in (tmp_path / "index").iterdir())
    kept += json.dumps([list(study.context.items()) for study in studies(source).values()]).encode()
    for secret in (b"Doe", b"4711", b"20240229", b"1.2.840.99", b"093", b"101112"):
        assert secret not in kept
    again = index_tree(root, tmp_path / "again", key=b"k" * 32)
    other = index_tree(root, tmp_path / "other", key=b"q" * 32)
    assert again.studies["subject_id"].tolist() == source.index.studies["subject_id"].tolist()
    assert not set(other.studies["subject_id"]) & set(source.index.studies["subject_id"])


def test_the_key_of_patients_names_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.paths.own_data", lambda: tmp_path / "own")
    dicom(tmp_path / "root" / "a", 0)
    first = index_tree(tmp_path / "root", tmp_path / "index").studies
    second = index_tree(tmp_path / "root", tmp_path / "index").studies
    assert first["study_id"].tolist() == second["study_id"].tolist()
    assert (tmp_path / "own" / "patients-key").stat().st_mode & 0o077 == 0
    (tmp_path / "own" / "patients-key").write_bytes(b"short")
    with pytest.raises(ReleaseError, match="is damaged. Delete it"):
        index_tree(tmp_path / "root", tmp_path / "index")


def test_a_folder_without_images_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ReleaseError, match="holds no radiograph, in none of its folders: it is empty"):
        index_tree(tmp_path / "a", tmp_path / "index", key=b"k" * 32)
    (tmp_path / "a" / "notes.txt").write_text("x" * 400)
    with pytest.raises(ReleaseError, match="holds no radiograph.*: file that is no image"):
        index_tree(tmp_path / "a", tmp_path / "index", key=b"k" * 32)
    with pytest.raises(ReleaseError, match="is not a folder"):
        index_tree(tmp_path / "b", tmp_path / "index", key=b"k" * 32)


# --- commands ---


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *words])
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


def test_the_command_takes_columns_labels_and_traits(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", "a1.png", "a2.png", "a3.png")
    table = write_rows(tmp_path / "reports.csv", ROWS)
    start = (
        "table",
        "--images",
        str(images),
        "--reports",
        str(table),
        "--out",
        str(tmp_path / "index"),
        "--size",
        "32",
    )
    code, said = run(
        *start, "--id", "accession", "--patient", "mrn", "--findings", "text", "--impression", "opinion",
        "--label:Edema", "edema", "--trait:ward=ward", "--only-test", "--title", "Our chest clinic",
    )  # fmt: skip
    assert code == 0 and "3 kept" in " ".join(said.split())
    source = open_source(str(tmp_path / "index"))
    assert source.title == "Our chest clinic" and source.traits(source.study("a2")) == {"Ward": "B"}
    assert (tmp_path / "index" / "images-32.npy").is_file()
    for words, message in (
        ((), "Which column names the study? Say --id COLUMN"),
        (("--id", "acession"), "has no column acession. Did you mean accession? It has: accession, mrn"),
        (("--id", "accession", "--finding", "text"), "There is no option --finding. Did you mean --findings?"),
        (("--id", "accession", "--label:Edema"), "--label:Edema needs the name of a column"),
        (("--id", "accession", "--label:Edema", "oedema"), "has no column oedema. Did you mean edema?"),
        (("--columns", "nih"), "There is no map of columns 'nih'"),
        (("--columns", "chexpert-plus"), "has no column path_to_image"),
    ):
        code, said = run(*start, *words)
        assert code != 0 and message in said, said


def test_the_command_indexes_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.paths.own_data", lambda: tmp_path / "own")
    dicom(tmp_path / "root" / "a", 0)
    code, said = run("folder", str(tmp_path / "root"), "--out", str(tmp_path / "index"), "--size", "32")
    assert code == 0 and "MRN" not in said and "Doe" not in said
    assert len(open_source(str(tmp_path / "index")).ids("test")) == 1
    code, said = run("folder", str(tmp_path / "nothing"), "--out", str(tmp_path / "other"))
    assert code != 0 and "is not a folder" in said
