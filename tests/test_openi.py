"""Open-i from folders of its three forms with invented content, whole and with planted faults; and the real one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.config import DataConfig, from_dict
from core.observations import OBSERVATIONS
from core.studies.image_cache import write_image_cache
from core.studies.index import StudyIndex, move_index, open_index
from core.studies.indexed import IndexedSource
from core.studies.openi import index_openi
from core.types import SPLITS, CXRLensError, Split
from tests import needs
from tests.commands import in_its_own_process, run
from tests.mimic_tree import write_csv
from tests.openi_tree import R2GEN, png, r2gen_id, write_annotation, write_kaggle, write_projections, write_xml, xml
from tests.test_mimic_cxr import drops, notes
from training.data import StudyData

needs_data = needs.OPENI.unless((needs.SHARED / "openi").is_dir())


def all_studies(index: StudyIndex, views: str = "frontal") -> dict[str, tuple[str, str, str, str, dict[str, str]]]:
    source = IndexedSource(index.folder, views)
    return {
        study.study_id: (study.split, study.view, study.findings, study.impression, dict(study.context))
        for split in SPLITS
        for study in source.studies(split)
    }


def test_the_kaggle_tables_are_read(tmp_path: Path) -> None:
    index = index_openi(write_kaggle(tmp_path / "release"), tmp_path / "index")
    studies = all_studies(index)
    assert set(studies) == {"CXR1", "CXR2", "CXR6"}  # 3, 4 without findings; 5 without a frontal image
    assert studies["CXR1"][1:] == (
        "FRONTAL",
        "The heart is large.",
        "Large heart.",
        {"indication": "Cough.", "comparison": "None.", "title": "PA and lateral", "mesh": "Cardiomegaly/mild"},
    )
    assert drops(index) == {"neither findings nor impression": 1}
    assert drops(index, "images") == notes(index) == {}
    both = IndexedSource(index.folder, "both")
    ids = {study.study_id: study.view for split in SPLITS for study in both.studies(split)}
    assert ids == {
        "CXR1": "FRONTAL", "CXR1.2": "LATERAL", "CXR2": "FRONTAL", "CXR2.2": "FRONTAL", "CXR2.3": "LATERAL",
        "CXR5": "LATERAL", "CXR6": "FRONTAL",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".dcm.jpg", ".png", ".dcm.JPG"])
def test_images_are_matched_by_stem(suffix: str, tmp_path: Path) -> None:
    index = index_openi(write_kaggle(tmp_path / "release", suffix), tmp_path / "index")
    assert drops(index, "images") == {}
    image = IndexedSource(index.folder, "frontal").image("CXR1", 48)
    expected = np.asarray(Image.open(io.BytesIO(png(0))), dtype=np.float32) / 255
    np.testing.assert_allclose(image[:, 4:44], expected, atol=1e-6)


def test_xml_and_tables_say_the_same(tmp_path: Path) -> None:
    tables = index_openi(write_kaggle(tmp_path / "kaggle"), tmp_path / "from-tables")
    release = write_xml(tmp_path / "xml")
    write_projections(release)
    assert all_studies(index_openi(release, tmp_path / "from-xml")) == all_studies(tables)


def test_xml_alone_does_not_guess_at_views(tmp_path: Path) -> None:
    release = write_xml(tmp_path / "xml")
    index = index_openi(release, tmp_path / "index")
    views = dict(zip(index.images["image_id"], index.images["view"], strict=True))
    assert views["1_IM-0001-4001"] == views["1_IM-0001-3001"] == ""  # "PA and lateral", and which is which?
    assert views["3_IM-1384-1001"] == "FRONTAL"  # one image, and a title of one view
    assert notes(index)["view unknown"] == 8
    assert len(all_studies(index, "both")) == 7
    with pytest.raises(CXRLensError, match="no study with findings and an image for views=frontal"):
        all_studies(index)


def test_r2gens_ids_and_split_are_taken(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    write_annotation(release)
    index = index_openi(release, tmp_path / "index")
    studies = all_studies(index)
    assert {study_id: values[0] for study_id, values in studies.items()} == {
        "CXR1_IM-0001": "train", "CXR2_IM-0652": "train", "CXR6_IM-2192": "test",
    }  # fmt: skip
    assert drops(index) == {"not in annotation.json": 2}
    seeded = index_openi(release, tmp_path / "seeded", split="seeded")
    assert set(all_studies(seeded)) == {"CXR1", "CXR2", "CXR6"}
    (release / "annotation.json").unlink()
    with pytest.raises(CXRLensError, match="no annotation.json, which the split 'r2gen' needs"):
        index_openi(release, tmp_path / "index", split="r2gen")


def test_studies_that_r2gen_left_out_can_be_kept_for_training(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    write_annotation(release)
    index = index_openi(release, tmp_path / "index", split="r2gen+")
    split = dict(zip(index.studies["study_id"], index.studies["split"], strict=True))
    assert split["CXR3"] == "train" and split["CXR6_IM-2192"] == "test"
    assert drops(index) == {"neither findings nor impression": 1}
    kept = IndexedSource(tmp_path / "index", "frontal", findings_only=False)
    assert kept.study("CXR3").impression == "Left-sided effusion." and list(kept.ids("test")) == ["CXR6_IM-2192"]
    assert "CXR3" not in IndexedSource(tmp_path / "index", "frontal").ids("train")
    (release / "annotation.json").unlink()
    with pytest.raises(CXRLensError, match="no annotation.json, which the split 'r2gen\\+' needs"):
        index_openi(release, tmp_path / "index", split="r2gen+")


def test_r2gens_own_images_are_read_without_other_tables(tmp_path: Path) -> None:
    release = tmp_path / "iu_xray"
    for uids in R2GEN.values():
        for uid in uids:
            folder = release / "images" / r2gen_id(uid)
            folder.mkdir(parents=True)
            for place in range(2):
                (folder / f"{place}.png").write_bytes(png(uid * 10 + place))
    write_annotation(release)
    index = index_openi(release, tmp_path / "index")
    studies = all_studies(index, "both")
    assert studies["CXR1_IM-0001"][:3] == studies["CXR1_IM-0001.2"][:3] == ("train", "", "The heart is large.")
    assert len(studies) == 8


def test_the_drawn_split_is_by_patient_and_by_seed_alone(tmp_path: Path) -> None:
    write_kaggle(tmp_path / "release")
    first = index_openi(tmp_path / "release", tmp_path / "a").studies.set_index("study_id")["split"]
    write_csv(
        tmp_path / "release" / "indiana_reports.csv",
        ("uid", "image", "indication", "comparison", "findings", "impression", "MeSH"),
        [(6, "", "", "", "Clear.", "", ""), (1, "", "", "", "Clear.", "", "")],
    )
    fewer = index_openi(tmp_path / "release", tmp_path / "b").studies.set_index("study_id")["split"]
    assert fewer.to_dict() == {"CXR6": first["CXR6"], "CXR1": first["CXR1"]}


@pytest.mark.parametrize(
    ("choice", "findings", "impression"),
    [("keep", "Lungs are XXXX, and XXXX XXXX clear.", "No XXXX."), ("drop", "Lungs are, and clear.", "No.")],
)
def test_removed_words_are_kept_or_dropped(choice: str, findings: str, impression: str, tmp_path: Path) -> None:
    index = index_openi(write_kaggle(tmp_path / "r"), tmp_path / "index", removed_words=choice)  # type: ignore[arg-type]
    assert all_studies(index)["CXR2"][2:4] == (findings, impression)


def test_two_choices_have_two_fingerprints(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    indexes = [
        index_openi(release, tmp_path / "a"),
        index_openi(release, tmp_path / "b", removed_words="drop"),
        index_openi(release, tmp_path / "c", seed=5),
    ]
    prints = [IndexedSource(index.folder, "frontal").fingerprint() for index in indexes]
    prints.append(IndexedSource(indexes[0].folder, "both").fingerprint())
    assert len(set(prints)) == 4
    index_openi(release, tmp_path / "a")
    assert IndexedSource(tmp_path / "a", "frontal").fingerprint() == prints[0]


# --- faults ---


def test_faults_are_named_and_counted(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    table = release / "indiana_reports.csv"
    long = "x " * 500_000
    extra = [
        b'1,normal,,PA,,,"Another report.",""',  # a uid twice
        f'7,normal,,PA,,,"{long}",""'.encode(),  # 1 MB
        '8,normal,,PA,,,"The tube is near the côté.",""'.encode("latin-1"),
        b'nine,normal,,PA,,,"Clear.",""',
        b'10,normal,,PA,,,"Clear.",""',  # no image listed
        b'11,normal,,PA,,,"Clear.",""',  # image not there
        b'12,normal,,PA,,,"Clear.",""',  # image empty
    ]
    table.write_bytes(table.read_bytes() + b"\n".join(extra) + b"\n")
    projections = release / "indiana_projections.csv"
    rows = ["7,7_IM-1.dcm.png,Frontal", "8,8_IM-1.dcm.png,Frontal", "11,11_IM-1.dcm.png,Frontal"]
    rows += ["12,12_IM-1.dcm.png,Frontal", "2,1_IM-0001-4001.dcm.png,Frontal"]
    projections.write_text(projections.read_text() + "\n".join(rows) + "\n")
    images = release / "images" / "images_normalized"
    (images / "12_IM-1.dcm.png").write_bytes(b"")
    (images / "99_IM-1.dcm.png").write_bytes(png(99))
    (images / "1_IM-0001-4001.jpg").write_bytes(b"another copy")
    (images / "13_IM-1.png").symlink_to(tmp_path / "nowhere")
    index = index_openi(release, tmp_path / "index")
    assert drops(index) == {
        "no usable image": 3,
        "neither findings nor impression": 1,
        "report longer than 100,000 characters": 1,
        "report is not UTF-8": 1,
    }
    assert drops(index, "images") == {"file missing": 3, "file empty": 1}
    assert notes(index) == {
        "report listed twice, the first one counts": 1,
        "report without a number, left out": 1,
        "image listed twice, the first one counts": 1,
        "image there in several files, one is used": 1,
        "image file of no report": 1,
    }
    assert all_studies(index)["CXR1"][2] == "The heart is large."


def test_a_damaged_xml_file_costs_only_its_own_study(tmp_path: Path) -> None:
    release = write_xml(tmp_path / "release")
    write_projections(release)
    folder = release / "ecgen-radiology"
    (folder / "1.xml").write_text(xml(1)[:200], encoding="utf-8")
    (folder / "6.xml").write_bytes(xml(6).replace("Left rib", "Côté").encode("latin-1"))
    (folder / "20.xml").write_bytes(b"")
    (folder / "21.xml").write_text(f"<eCitation>{'x' * 5_000_000}</eCitation>")
    (folder / "22.xml").write_text("<html>not a record</html>")
    names = [f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10)]  # 10 to the 9th "lol"
    bomb = f"<!DOCTYPE e [<!ENTITY a0 'lol'>{''.join(names)}]><eCitation><uId id='CXR23'/>&a9;</eCitation>"
    (folder / "23.xml").write_text(bomb)
    index = index_openi(release, tmp_path / "index")
    assert drops(index) == {
        "XML file damaged": 5,
        "neither findings nor impression": 1,
        "report longer than 100,000 characters": 1,
    }
    assert set(all_studies(index)) == {"CXR2"}


def empty(root: Path) -> None:
    (root / "indiana_reports.csv").unlink()
    (root / "indiana_projections.csv").unlink()


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        pytest.param(empty, "holds no Open-i release: .* but images. See docs/data.md", id="wrong folder"),
        pytest.param(lambda root: (root / "indiana_projections.csv").unlink(), "indiana_projections.csv is missing",
                     id="half the tables"),
        pytest.param(lambda root: [path.unlink() for path in root.glob("images/*/*")],
                     "No study .* can be used: 5 no usable image; 1 neither", id="no images"),
        pytest.param(lambda root: write_csv(root / "indiana_reports.csv", ("uid", "text"), [(1, "a")]),
                     "has no column image, indication.*Its header has: uid, text", id="column"),
        pytest.param(lambda root: (root / "indiana_reports.csv").write_bytes(
            (root / "indiana_reports.csv").read_bytes()[:-20]), "cut off|fields where", id="cut off"),
        pytest.param(lambda root: (root / "annotation.json").write_text('{"train": []}'), "is not R2Gen's annotation",
                     id="annotation"),
        pytest.param(lambda root: (root / "annotation.json").write_text('{"train": [{"id":'),
                     "is not R2Gen's annotation", id="annotation cut off"),
    ],
)  # fmt: skip
def test_half_a_release_is_refused(plant: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    plant(release)
    with pytest.raises(CXRLensError, match=message):
        index_openi(release, tmp_path / "index")
    with pytest.raises(CXRLensError, match="holds no index"):
        open_index(tmp_path / "index")


def test_a_folder_that_cannot_be_written_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = write_kaggle(tmp_path / "release")
    (tmp_path / "file").write_text("")
    with pytest.raises(CXRLensError, match="cannot be written into.*Choose another with --out"):
        index_openi(release, tmp_path / "file" / "index")
    index = index_openi(release, tmp_path / "index")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(CXRLensError, match="9 images need 0.0 GiB .* where 0.0 GiB are free"):
        write_image_cache(index, (64,), range(9))
    assert not list(index.folder.glob("images-*.npy"))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CXRLensError, match="is not a folder"):
        index_openi(tmp_path / "none", tmp_path / "index")


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda folder: (folder / "index.json").write_text("{"), "index.json is damaged"),
        (lambda folder: (folder / "index.json").write_text('{"version": "0"}'), "of version 0, this program needs"),
        (lambda folder: (folder / "images.parquet").unlink(), "has lost its images.parquet"),
    ],
)
def test_a_damaged_index_is_refused(plant: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    index = index_openi(write_kaggle(tmp_path / "release"), tmp_path / "index")
    plant(index.folder)
    with pytest.raises(CXRLensError, match=message):
        IndexedSource(index.folder, "frontal")


def test_an_unknown_choice_of_views_is_refused(tmp_path: Path) -> None:
    index = index_openi(write_kaggle(tmp_path / "release"), tmp_path / "index")
    with pytest.raises(CXRLensError, match="'ap' is not a choice for openi. Known: frontal, both"):
        IndexedSource(index.folder, "ap")


def test_labels_are_kept_and_made_anew_with_other_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.studies import label_table

    index = index_openi(write_kaggle(tmp_path / "release"), tmp_path / "index")
    monkeypatch.setattr(label_table, "_ROWS", 2)
    made: list[int] = []
    real = label_table._label
    monkeypatch.setattr(
        label_table, "_label", lambda batch, *a, **k: (made.append(len(batch)), real(batch, *a, **k))[1]
    )
    first = label_table.label_index(index)
    assert made == [2, 2, 2]
    assert first.rows["study_id"].to_pylist() == ["CXR1", "CXR2", "CXR3", "CXR5", "CXR6"]
    (index.folder / "labels-rules" / "part-00001.parquet").unlink()  # as an interruption leaves it
    assert label_table.label_index(index).rows.equals(first.rows)
    assert made == [2, 2, 2, 2]
    monkeypatch.setattr(label_table, "RULES_VERSION", "other")
    label_table.label_index(index)
    assert made == [2, 2, 2, 2, 2, 2, 2]


@pytest.mark.filterwarnings("default::UserWarning")
def test_without_the_parser_fine_labels_are_empty_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.labels.fine_parser import ParserError
    from core.studies import label_table

    def missing() -> None:
        raise ParserError("spaCy is not there.")

    index = index_openi(write_kaggle(tmp_path / "release"), tmp_path / "index")
    monkeypatch.setattr(label_table, "load_parser", missing)
    with pytest.warns(UserWarning, match="Fine labels are left empty. spaCy is not there."):
        table = label_table.label_index(index)
    assert table.versions["fine"] == ""
    assert table.rows["fine_labels"].to_pylist() == [[]] * 5


def test_a_release_that_was_moved_is_said_and_its_new_place_offered(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    index = index_openi(release, tmp_path / "index")
    before = IndexedSource(index.folder, "frontal")
    image = before.image("CXR1", 32)
    moved = release.rename(tmp_path / "elsewhere")
    source = IndexedSource(index.folder, "frontal")
    for read in (lambda: source.image("CXR1", 32), lambda: source.original("CXR1"),
                 lambda: write_image_cache(open_index(index.folder), [32], [0])):  # fmt: skip
        with pytest.raises(CXRLensError, match=f"read from {release}, which is not there.*data move .* --to {moved}"):
            read()
    assert not (index.folder / "unreadable.jsonl").exists()
    (tmp_path / "other").mkdir()
    with pytest.raises(CXRLensError, match="is not the release"):
        move_index(index.folder, tmp_path / "other")
    result = run("data", "move", index.folder, "--to", moved)
    assert result.exit_code == 0, result.output
    again = IndexedSource(index.folder, "frontal")
    assert np.array_equal(again.image("CXR1", 32), image)
    assert again.fingerprint() == before.fingerprint()


def test_ids_and_cells_that_pandas_wrote(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    first = index_openi(release, tmp_path / "first").texts.to_pylist()
    for name in ("indiana_reports.csv", "indiana_projections.csv"):
        table = pd.read_csv(release / name)
        table["uid"] = table["uid"].astype(float)
        table.to_csv(release / name, index=False, na_rep="nan")
    assert index_openi(release, tmp_path / "second").texts.to_pylist() == first


def test_training_reads_an_index(tmp_path: Path) -> None:
    release = write_kaggle(tmp_path / "release")
    write_annotation(release)
    index = index_openi(release, tmp_path / "index")
    values = {"source": "openi", "folder": str(index.folder), "views": "both", "min_word_count": 1, "max_words": 60}
    data = StudyData(from_dict(DataConfig, values | {"min_fine_label_count": 1}), tmp_path / "images")
    assert [study.study_id for study in data.studies["train"]] == [
        "CXR1_IM-0001", "CXR1_IM-0001.2", "CXR2_IM-0652", "CXR2_IM-0652.2", "CXR2_IM-0652.3",
    ]  # fmt: skip
    rendered = data.images("train", 48)
    source = IndexedSource(index.folder, "both")
    for place, study in enumerate(data.studies["train"]):
        np.testing.assert_array_equal(rendered[place], np.round(source.image(study.study_id, 48) * 255))
    assert "heart" in data.vocabulary.words
    assert data.coarse_targets("test")[0, OBSERVATIONS.index("Fracture")] == 1
    moved = tmp_path / "moved"
    index.folder.rename(moved)
    again = StudyData(from_dict(DataConfig, {**values, "folder": str(moved), "min_fine_label_count": 1}), tmp_path)
    assert again.fingerprint() == data.fingerprint()


# --- the real one ---


@needs_data
def test_the_shared_copys_other_studies_are_impressions(tmp_path: Path) -> None:
    source = IndexedSource(
        index_openi(needs.SHARED, tmp_path / "index", split="r2gen+").folder, "frontal", findings_only=False
    )
    assert len(source.ids("test")) == 590 and len(source.ids("validate")) == 294
    others = [study_id for study_id in source.ids("train") if "IM" not in study_id]
    assert len(others) == 467 and all(source.study(study_id).impression for study_id in others[:50])


@needs_data
def test_the_shared_copy_has_r2gens_studies(tmp_path: Path) -> None:
    index = index_openi(needs.SHARED, tmp_path / "index")
    rows = {(row["views"], row["split"]): row for row in index.census()["views"]}
    splits: tuple[Split, ...] = SPLITS
    assert [rows["both", split]["studies"] for split in splits] == [2069, 296, 590]  # R2Gen's counts
    assert sum(rows["frontal", split]["studies"] for split in splits) == 2955 - 8  # 8 have no frontal image here
    assert drops(index, "images") == {}
    studies = index.samples("frontal")
    assert not set(studies[studies["split"] == "train"]["subject_id"]) & set(
        studies[studies["split"] == "test"]["subject_id"]
    )
    annotation = json.loads((needs.SHARED / "openi" / "annotation.json").read_text())
    texts = index.texts["findings"].to_pylist()
    ours = {study_id: texts[row] for study_id, row in zip(studies["study_id"], studies["study"], strict=True)}
    theirs = {item["id"]: " ".join(item["report"].split()) for items in annotation.values() for item in items}
    assert ours == {study_id: theirs[study_id] for study_id in ours}
    images = studies["image"].tolist()[:20]
    assert write_image_cache(index, (64,), images) == 20


@needs_data
def test_the_command_prints_the_census(tmp_path: Path) -> None:
    done = in_its_own_process("data", "openi", "--from", needs.SHARED, "--out", tmp_path / "index", "--no-images")
    assert done.returncode == 0, done.stderr
    assert "3,599 listed" in done.stdout
    assert in_its_own_process("data", "census", tmp_path / "index").stdout == done.stdout
    wrong = in_its_own_process("data", "openi", "--from", tmp_path, "--out", tmp_path / "other")
    assert wrong.returncode == 2
    assert "holds no Open-i release" in wrong.stderr
    assert "Traceback" not in wrong.stderr
