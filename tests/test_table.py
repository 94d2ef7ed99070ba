"""Anybody's data: tables in four forms, trees of files, and what is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from core.config import DataConfig, from_dict
from core.observations import LabelState
from core.studies.columns import Columns
from core.studies.files import ImageTree
from core.studies.index import ReleaseError, draw_split
from core.studies.indexed import IndexedSource
from core.studies.sources import open_source
from core.studies.table import index_table
from core.studies.tree import index_tree
from core.tables import TableError
from core.types import SPLITS, CXRLensError
from tests.table_tree import (
    FIELDS,
    HEADER,
    PLAIN,
    ROWS,
    dicom,
    dropped,
    index,
    notes,
    pixels,
    studies,
    write_images,
    write_rows,
)
from training.cli import app
from training.data import StudyData

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
    index(tmp_path, rows, Columns().named({"id": "accession"}, {}, {}))
    with pytest.raises(CXRLensError, match="has images without reports: nothing could be learned"):
        StudyData(data.config, tmp_path / "images").source  # noqa: B018


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
        (lambda here: (here / "table.csv").write_text(HEADER.replace(",", ";")), "has semicolons between its columns"),
        (lambda here: (here / "table.csv").write_text(HEADER + "a1,p,t,o,maybe,w\n"),
         "Column edema is 'maybe' for study a1; a label is 1, 0, -1 or blank"),
        (lambda here: [path.rename(path.with_name("z" + path.name)) for path in (here / "images").iterdir()],
         "Of 3 studies in .* none has an image in .* the first is 'a1', files there are called za1.png, .*; za1"),
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


# --- a tree of files ---


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
        "--processes",
        "1",
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
    code, said = run(
        "folder", str(tmp_path / "root"), "--out", str(tmp_path / "index"), "--size", "32", "--processes", "1"
    )
    assert code == 0 and "MRN" not in said and "Doe" not in said
    assert len(open_source(str(tmp_path / "index")).ids("test")) == 1
    code, said = run("folder", str(tmp_path / "nothing"), "--out", str(tmp_path / "other"))
    assert code != 0 and "is not a folder" in said


def test_a_table_of_which_no_image_is_frontal_opens_and_says_so(tmp_path: Path) -> None:
    columns = Columns().named({**FIELDS, "view": "side"}, {}, {})
    sides = [row | {"side": "LL"} for row in ROWS]
    source = index(tmp_path / "sides", sides, columns)
    assert source.key.startswith("index:any:") and open_source(source.key).key == source.key
    assert {each.view for each in studies(source).values()} == {"LATERAL"} and len(studies(source)) == 3
    assert "None of these images is a frontal view" in source.caution
    one = index(tmp_path / "one", [*sides[:2], ROWS[2] | {"side": ""}], columns)  # what tells no view may be frontal
    assert list(studies(one)) == ["a3"] and one.caution == ""
    with pytest.raises(CXRLensError, match="it has no image for views=frontal"):
        one.study("a1")
