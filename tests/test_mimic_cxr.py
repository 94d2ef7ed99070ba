"""MIMIC-CXR from folders of its real layout with invented content, whole and with planted faults."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from core.evaluation.results import label_texts, references_of, truth_of
from core.observations import OBSERVATIONS, LabelState
from core.studies.census import format_census
from core.studies.columns import Columns
from core.studies.image_cache import unreadable_images, write_image_cache
from core.studies.index import StudyIndex, open_index
from core.studies.indexed import IndexedSource, Labels
from core.studies.mimic_cxr import index_mimic_cxr, read_shipped_labels, write_annotation
from core.types import SPLITS, CXRLensError
from tests import needs, table_tree
from tests.commands import in_its_own_process
from tests.memory import PEAK_IS_TOLD, run_measured
from tests.mimic_tree import ALPHABETICAL, METADATA, Exam, dicom_id, jpeg, report, write_csv, write_tables, write_tree

EXAMS = (
    Exam(10000001, 50000001, "train", ("AP", "LATERAL"), labels={"Pleural Effusion": "1.0", "Edema": "-1.0"}),
    Exam(10000001, 50000002, "train", ("AP", "AP"), report("The lungs are clear.", "No acute process.")),
    Exam(10000002, 50000003, "train", ("PA", "LL")),
    Exam(11000003, 50000004, "validate", ("PA",), labels={"No Finding": "1.0", "Fracture": "0.0"}),
    Exam(19999999, 50000005, "test", ("AP", "")),
    Exam(19999999, 50000006, "test", ("LATERAL",)),
)


def drops(index: StudyIndex, table: str = "studies") -> dict[str, int]:
    return {reason: each["count"] for reason, each in index.census()[table]["dropped"].items()}


def notes(index: StudyIndex) -> dict[str, int]:
    return {what: each["count"] for what, each in index.census()["notes"].items()}


def counts(index: StudyIndex) -> dict[tuple[str, str], int]:
    return {(row["views"], row["split"]): row["images"] for row in index.census()["views"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyIndex:
    folder = tmp_path_factory.mktemp("mimic")
    return index_mimic_cxr(write_tree(folder / "release", EXAMS), folder / "index")


@pytest.mark.parametrize("labels", ["rules", "chexpert", "negbio"])
def test_references_are_labelled_as_generated_reports_are(labels: Labels, whole: StudyIndex) -> None:
    """A report that equals its reference is right in all 14, whatever table the classifiers learn from."""
    source = IndexedSource(whole.folder, "ap", labels=labels)
    studies = source.studies("train")
    references = references_of(source, studies)
    assert references == label_texts([study.findings for study in studies])
    assert truth_of(source) == "rule labeler"
    clear = next(study for study in studies if study.study_id == "s50000002")
    shipped = clear.labels["Pleural Effusion"] is LabelState.POSITIVE  # which its findings do not say
    assert shipped == (labels != "rules")


def test_labels_without_reports_are_all_that_is_known(tmp_path: Path) -> None:
    source = table_tree.index(tmp_path, [{"accession": "a1", "mrn": "p1", "edema": "1"}], Columns().named(
        {"id": "accession", "patient": "mrn"}, {"Edema": "edema"}, {}), only_test=True)  # fmt: skip
    (study,) = source.studies("test")
    assert references_of(source, [study]).states[0]["Edema"] is LabelState.POSITIVE
    assert truth_of(source) == "given as shipped"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_both_forms_of_tables_give_one_index(suffix: str, whole: StudyIndex, tmp_path: Path) -> None:
    index = index_mimic_cxr(write_tree(tmp_path / "release", EXAMS, suffix), tmp_path / "index")
    assert index.fingerprint == whole.fingerprint == open_index(tmp_path / "index").fingerprint


def test_views_and_official_split_are_counted(whole: StudyIndex) -> None:
    assert counts(whole) == {
        ("ap", "train"): 3, ("ap", "validate"): 0, ("ap", "test"): 1,
        ("frontal", "train"): 4, ("frontal", "validate"): 1, ("frontal", "test"): 1,
        ("all", "train"): 6, ("all", "validate"): 1, ("all", "test"): 3,
    }  # fmt: skip
    assert drops(whole) == drops(whole, "images") == notes(whole) == {}
    text = format_census(whole.census())
    assert "6 listed         6 kept         0 dropped" in text


def test_a_study_is_an_image_with_its_report(whole: StudyIndex) -> None:
    source = IndexedSource(whole.folder, "ap")
    first, second, third = source.studies("train")
    assert [each.study_id for each in (first, second, third)] == ["s50000001", "s50000002", "s50000002.2"]
    assert first.subject_id == "p10000001"
    assert first.view == "AP"
    assert first.findings == "There is a small left pleural effusion. The heart is normal in size."
    assert first.impression == "Small left pleural effusion."
    assert first.context["indication"] == "___ year old patient with cough."
    assert first.labels["Pleural Effusion"] is LabelState.POSITIVE
    assert first.labels["Cardiomegaly"] is LabelState.NEGATIVE
    assert set(first.labels) == set(OBSERVATIONS)
    assert first.cluster_texts == {"Pleural Effusion": "Small left pleural effusion."}
    assert second.findings == third.findings == "The lungs are clear."
    assert second == source.study("s50000002") == source.studies("train")[:2][1]
    assert [each.view for each in IndexedSource(whole.folder, "all").studies("test")] == ["AP", "", "LATERAL"]
    with pytest.raises(CXRLensError, match="There is no study 's5' in MIMIC-CXR"):
        source.image("s5", 64)


def test_shipped_labels_are_read_by_name(whole: StudyIndex) -> None:
    source = IndexedSource(whole.folder, "ap", labels="chexpert")
    labels = source.study("s50000001").labels
    assert labels["Pleural Effusion"] is LabelState.POSITIVE
    assert labels["Edema"] is LabelState.UNCERTAIN
    assert {labels[name] for name in OBSERVATIONS} - {LabelState.POSITIVE, LabelState.UNCERTAIN} == {LabelState.BLANK}
    states = IndexedSource(whole.folder, "frontal", labels="negbio").study("s50000004").labels
    assert states["No Finding"] is LabelState.POSITIVE
    assert states["Fracture"] is LabelState.NEGATIVE


def test_images_are_the_files(whole: StudyIndex) -> None:
    source = IndexedSource(whole.folder, "ap")
    image = source.image("s50000001", 40)
    assert image.shape == (40, 40)
    assert image[:, :3].max() == 0  # 80 x 64 is padded left and right
    assert source.original("s50000001").pixels.shape == (80, 64)


def test_fingerprints_tell_content_apart(whole: StudyIndex, tmp_path: Path) -> None:
    other = list(EXAMS)
    other[0] = Exam(10000001, 50000001, "train", ("AP", "LATERAL"), report("Clear."))
    index = index_mimic_cxr(write_tree(tmp_path / "release", other), tmp_path / "index")
    prints = {
        IndexedSource(whole.folder, "ap").fingerprint(),
        IndexedSource(whole.folder, "all").fingerprint(),
        IndexedSource(whole.folder, "ap", labels="chexpert").fingerprint(),
        IndexedSource(index.folder, "ap").fingerprint(),
    }
    assert len(prints) == 4
    assert IndexedSource(whole.folder, "ap").fingerprint() in prints


def test_annotation_for_other_tools(whole: StudyIndex, tmp_path: Path) -> None:
    assert write_annotation(whole, "ap", tmp_path / "annotation.json") == 4
    content = json.loads((tmp_path / "annotation.json").read_text())
    assert {name: len(items) for name, items in content.items()} == {"train": 3, "val": 0, "test": 1}
    assert content["train"][0] == {
        "id": EXAMS[0].dicoms()[0],
        "study_id": 50000001,
        "subject_id": 10000001,
        "report": "There is a small left pleural effusion. The heart is normal in size.",
        "image_path": [f"p10/p10000001/s50000001/{EXAMS[0].dicoms()[0]}.jpg"],
        "split": "train",
    }


def test_physionets_own_folders_and_zipped_reports(whole: StudyIndex, tmp_path: Path) -> None:
    jpg = write_tree(tmp_path / "physionet.org/files/mimic-cxr-jpg/2.1.0", EXAMS)
    archive = tmp_path / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(jpg.glob("files/*/*/*.txt")):
            file.write(path, path.relative_to(jpg))
            path.unlink()
    with pytest.raises(CXRLensError, match="has no reports.*name their folder with --reports"):
        index_mimic_cxr(tmp_path, tmp_path / "index")
    for reports in (archive, tmp_path):
        assert index_mimic_cxr(tmp_path, tmp_path / "index", reports=reports).fingerprint == whole.fingerprint
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(CXRLensError, match="reports.zip is damaged or was cut off"):
        index_mimic_cxr(tmp_path, tmp_path / "index", reports=archive)


def test_zipped_reports_one_folder_deeper_and_ids_that_pandas_wrote(whole: StudyIndex, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", EXAMS)
    with zipfile.ZipFile(tree / "mimic-cxr-reports.zip", "w") as file:
        for path in sorted((tree / "files").glob("p1*/p1*/s*.txt")):
            file.write(path, f"mimic-cxr-reports/{path.relative_to(tree).as_posix()}")
            path.unlink()
    for table in tree.glob("mimic-cxr-2.0.0-*.csv.gz"):
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        for name in {"study_id", "subject_id"} & set(rows.columns):
            rows[name] += ".0"
        rows.to_csv(table, index=False, na_rep="nan", compression=None, encoding="utf-8-sig")  # plain, named .gz
    index = index_mimic_cxr(tree, tmp_path / "index")
    assert index.fingerprint == whole.fingerprint
    assert read_shipped_labels(index, "chexpert").equals(read_shipped_labels(whole, "chexpert"))


def test_hand_set_exceptions_are_used_where_their_file_is(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "release", EXAMS)
    rules = "custom_section_names = {'s50000001': 'indication'}\ncustom_indices = {'s50000002': [0, 0]}\n"
    (root / "section_parser.py").write_text(rules)
    index = index_mimic_cxr(root, tmp_path / "index")
    assert IndexedSource(index.folder, "ap").study("s50000001").findings == "___ year old patient with cough."
    assert drops(index) == {"neither findings nor impression": 1}


# --- faults ---


def faulty_tree(root: Path) -> Path:
    """Every fault once, beside studies that are whole."""
    exams = [
        *EXAMS,
        Exam(12000001, 50000010, text="\n \n"),  # blank report
        Exam(12000001, 50000011, text=None),  # report missing
        Exam(12000001, 50000012, text=report("x" * 1_000_000)),  # 1 MB
        Exam(12000001, 50000013, text=report("The c\xf4t\xe9.").encode("latin-1")),  # broken encoding
        Exam(12000001, 50000014, text="FINAL REPORT\n EXAMINATION: CHEST\n \n Recorded without a reading.\n"),
        Exam(12000001, 50000015, views=("AP", "AP", "AP")),  # first image missing, second empty
        Exam(12000001, 50000016),  # only image missing
        Exam(12000001, 50000017),  # JPEG cut off
        Exam(12000001, 50000018, text=report("The lungs are clear.", "")),  # no impression
        Exam(13000001, 50000020, "train"),  # one patient in two splits
        Exam(13000001, 50000021, "test"),
    ]
    write_tree(root, exams)
    (root / exams[11].image(0)).unlink()
    (root / exams[11].image(1)).write_bytes(b"")
    (root / exams[12].image()).unlink()
    (root / exams[12].image()).parent.rmdir()
    path = root / exams[13].image()
    path.write_bytes(path.read_bytes()[:300])

    def add(table: str, line: str) -> None:
        path = root / f"{table}.csv.gz"
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + (line + "\n").encode()))

    again = EXAMS[0].dicoms()[0]
    add("mimic-cxr-2.0.0-split", f"{again},50000001,10000001,test")  # a duplicate that contradicts
    add("mimic-cxr-2.0.0-metadata", f"{again},10000001,50000001,CHEST,LATERAL" + "," * (len(METADATA) - 5))
    add("mimic-cxr-2.0.0-chexpert", f"10000001,50000001,{'0.0,' * 13}0.0")
    add("mimic-cxr-2.0.0-split", f"{dicom_id(1)},50000001,10000002,train")  # a study of two patients
    add("mimic-cxr-2.0.0-split", f"{dicom_id(2)},fifty,10000002,train")  # a malformed id
    add("mimic-cxr-2.0.0-split", f"{dicom_id(3)},50000031,14000001,train")  # missing from metadata and labels
    add("mimic-cxr-2.0.0-metadata", f"{dicom_id(4)},14000002,50000032,CHEST,AP" + "," * (len(METADATA) - 5))  # no split
    add("cxr-study-list", "14000003,50000033,files/p14/p14000003/s50000033.txt")
    return root


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> StudyIndex:
    folder = tmp_path_factory.mktemp("faulty")
    return index_mimic_cxr(faulty_tree(folder / "release"), folder / "index")


def test_faults_are_named_and_counted(faulty: StudyIndex) -> None:
    assert drops(faulty) == {
        "report missing": 3,  # one planted, and the two studies that only tables have
        "patient in several splits": 2,
        "report blank": 1,
        "report longer than 100,000 characters": 1,
        "report is not UTF-8": 1,
        "neither findings nor impression": 1,
        "no usable image": 1,
    }
    assert drops(faulty, "images") == {"file missing": 4, "file empty": 1}
    assert notes(faulty) == {
        "image listed twice in the split table, the first one counts": 1,
        "image listed twice in the metadata table, the first one counts": 1,
        "study listed twice in the chexpert table, the first one counts": 1,
        "image of a study that is listed under two patients, left out": 1,
        "row of the split table with a malformed id, left out": 1,
        "image of the split table that the metadata table misses, view unknown": 2,
        "image of the metadata table that the split table misses": 1,
        "study missing from the chexpert table": 2,
        "study missing from the negbio table": 2,
        "study_id of cxr-study-list that no other table has": 1,
    }
    text = format_census(faulty.census())
    assert "1  report blank: s50000010" in text
    assert "1  report is not UTF-8: s50000013" in text


def test_faults_cost_only_their_own_study(faulty: StudyIndex, whole: StudyIndex) -> None:
    ids = {study.study_id for study in IndexedSource(whole.folder, "all").studies("train")}
    found = {study.study_id: study for study in IndexedSource(faulty.folder, "all").studies("train")}
    assert set(found) - ids == {"s50000015", "s50000017", "s50000018"}
    assert found["s50000018"].impression == ""
    assert found["s50000001"].view == "AP"  # the first of two rows
    assert found["s50000001"].labels["Pleural Effusion"] is LabelState.POSITIVE
    source = IndexedSource(faulty.folder, "all", labels="chexpert")
    assert source.study("s50000001").labels["Pleural Effusion"] is LabelState.POSITIVE  # the first of two rows


def test_an_unreadable_image_is_left_out_and_read_again_when_it_was_mended(tmp_path: Path) -> None:
    index = index_mimic_cxr(faulty_tree(tmp_path / "release"), tmp_path / "index")
    before = IndexedSource(index.folder, "ap").fingerprint()
    images = index.samples("ap")["image"].tolist()
    assert write_image_cache(index, (32, 48), images) == len(images)
    (message,) = unreadable_images(index).values()
    assert "cut off" in message
    source = IndexedSource(index.folder, "ap")
    assert "s50000017" not in {study.study_id for study in source.studies("train")}
    assert source.fingerprint() != before
    assert write_image_cache(index, (32, 48), images) == 0  # nothing is read twice

    (tmp_path / "release" / Exam(12000001, 50000017).image()).write_bytes(jpeg(7))
    index = index_mimic_cxr(tmp_path / "release", tmp_path / "index")
    assert unreadable_images(index) == {}
    assert write_image_cache(index, (32, 48), images) == 1
    assert IndexedSource(index.folder, "ap").image("s50000017", 48).max() > 0


def test_a_cached_image_equals_the_file_and_needs_it_no_more(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "release", EXAMS)
    index = index_mimic_cxr(root, tmp_path / "index")
    source = IndexedSource(index.folder, "all")
    ids = [study.study_id for split in SPLITS for study in source.studies(split)]
    direct = [source.image(study_id, 48) for study_id in ids]
    told: list[tuple[int, int]] = []
    write_image_cache(index, (48,), range(9), progress=lambda *done: told.append(done))
    assert told[-1] == (9, 9)
    for path in root.glob("files/*/*/*/*.jpg"):
        path.unlink()
    cached = IndexedSource(index.folder, "all")
    for study_id, image in zip(ids[:9], direct, strict=False):
        assert (cached.image(study_id, 48) == image).all()
    with pytest.raises(CXRLensError, match=f"{ids[9]}: the file cannot be read"):
        cached.image(ids[9], 48)  # was not asked for


@pytest.mark.parametrize("name", ["images-32.npy", "images-32.read.npy", "images-32.json"])
def test_a_damaged_cache_is_made_anew(name: str, tmp_path: Path) -> None:
    index = index_mimic_cxr(write_tree(tmp_path / "release", EXAMS), tmp_path / "index")
    assert write_image_cache(index, (32,), range(5)) == 5
    path = index.folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert IndexedSource(index.folder, "ap").image("s50000001", 32).max() > 0  # read from its file
    assert write_image_cache(index, (32,), range(5)) == 5
    assert write_image_cache(index, (32,), range(5)) == 0


def test_an_interrupted_cache_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from core.studies import image_cache

    index = index_mimic_cxr(write_tree(tmp_path / "release", EXAMS), tmp_path / "index")
    monkeypatch.setattr(image_cache, "_CHUNK", 4)

    def stop(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_image_cache(index, (32,), range(10), progress=stop)
    assert write_image_cache(index, (32,), range(10)) == 2


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        pytest.param(lambda root: (root / "mimic-cxr-2.0.0-split.csv.gz").unlink(), "has no mimic-cxr-2.0.0-split",
                     id="split"),
        pytest.param(lambda root: (root / "mimic-cxr-2.0.0-metadata.csv.gz").unlink(), "no mimic-cxr-2.0.0-metadata",
                     id="metadata"),
        pytest.param(lambda root: (root / "files").rename(root / "elsewhere"), "has no folder files/", id="files"),
        pytest.param(lambda root: [path.unlink() for path in root.glob("files/*/*/*/*.jpg")],
                     "No study .* can be used: .*no usable image", id="no image"),
        pytest.param(lambda root: write_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", ("dicom_id", "study_id"), ()),
                     "metadata.csv.gz has no column subject_id, ViewPosition", id="column"),
        pytest.param(lambda root: write_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ("study_id", *ALPHABETICAL),
                                            [(50000001, *["yes"] * 14)]), "is 'yes', not 1, 0, -1", id="label"),
        pytest.param(lambda root: write_csv(root / "mimic-cxr-2.0.0-split.csv.gz",
                                            ("dicom_id", "study_id", "subject_id", "split"),
                                            [(dicom_id(1), 50000001, 10000001, "dev")]), "is 'dev', not train",
                     id="split name"),
        pytest.param(lambda root: (root / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(
            (root / "mimic-cxr-2.0.0-split.csv.gz").read_bytes()[:80]), "cut off; get it again", id="half a table"),
    ],
)  # fmt: skip
def test_half_a_release_is_refused(plant: object, message: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "release", EXAMS)
    plant(root)  # type: ignore[operator]
    with pytest.raises(CXRLensError, match=message):
        index_mimic_cxr(root, tmp_path / "index")
    with pytest.raises(CXRLensError, match="holds no index"):
        open_index(tmp_path / "index")


def test_missing_shipped_labels_are_an_error_only_where_they_are_wanted(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "release", EXAMS)
    (root / "mimic-cxr-2.0.0-negbio.csv.gz").unlink()
    index = index_mimic_cxr(root, tmp_path / "index")
    assert notes(index) == {"table of labels missing": 1}
    assert len(IndexedSource(index.folder, "ap").studies("train")) == 3
    with pytest.raises(CXRLensError, match="no labels of negbio.*set data.labels=rules"):
        IndexedSource(index.folder, "ap", labels="negbio").studies("train")


def test_the_command_prints_the_census(tmp_path: Path) -> None:
    root = faulty_tree(tmp_path / "release")
    index = tmp_path / "index"
    done = in_its_own_process("data", "mimic", "--from", root, "--out", index, "--size", "32", "--processes", "1")
    assert done.returncode == 0, done.stderr
    assert "report is not UTF-8: s50000013" in done.stdout
    assert "1 image files cannot be read" in done.stdout
    assert "6 images in" in done.stderr
    annotation = (index / "annotation.json").read_text()
    assert "50000015" in annotation
    assert "50000017" not in annotation  # cannot be read
    wrong = in_its_own_process("data", "mimic", "--from", index, "--out", tmp_path / "other")
    assert wrong.returncode == 2
    assert "has no mimic-cxr-2.0.0-split.csv[.gz]" in wrong.stderr
    assert "Traceback" not in wrong.stderr


# --- scale ---

PATIENTS, STUDIES, IMAGES = 65_379, 227_835, 377_110  # of the release (paper-notes 5.1)

MEASURE = """
import sys, time
from pathlib import Path
from core.studies.mimic_cxr import index_mimic_cxr
began = time.perf_counter()
index = index_mimic_cxr(Path(sys.argv[1]), Path(sys.argv[2]))
print(len(index.studies), len(index.images), time.perf_counter() - began)
"""


@pytest.mark.slow
@needs.PROC.unless(PEAK_IS_TOLD)
@pytest.mark.timeout(1800)
def test_the_whole_release_is_indexed_in_under_five_minutes_and_two_gigabytes(tmp_path: Path) -> None:
    """Run it with -s to see the numbers; it needs 700,000 inodes and about 3 GB of disk."""
    root = tmp_path / "release"
    root.mkdir()
    exams = []
    for number in range(STUDIES):
        patient = number * PATIENTS // STUDIES
        split = "test" if patient % 223 == 0 else "validate" if patient % 131 == 0 else "train"
        views = ("AP", "LATERAL")[: 1 + (number * (IMAGES - STUDIES) % STUDIES < IMAGES - STUDIES)]
        exams.append(Exam(10_000_000 + patient * 150, 50_000_000 + number * 40, split, views, None))
    write_tables(root, exams)
    image = root / "image.jpg"
    for number, exam in enumerate(exams):
        if number % 30_000 == 0:  # a file can have 65,000 names
            image = root / f"image-{number}.jpg"
            image.write_bytes(jpeg())
        folder = root / exam.folder / f"s{exam.study}"
        folder.mkdir(parents=True)
        for place in range(len(exam.views)):
            os.link(image, root / exam.image(place))
        sentence = f"Study {number}: the lungs are clear, there is no effusion, the heart is of normal size. "
        folder.with_suffix(".txt").write_text(report(sentence * 6, sentence), encoding="ascii")
    said, most = run_measured(MEASURE, str(root), str(tmp_path / "index"))
    studies, images, seconds = map(float, said.split())
    gigabytes = most / 2**30
    sys.stdout.write(f"\n{studies:,.0f} studies, {images:,.0f} images: {seconds:.0f} s, {gigabytes:.2f} GB at most\n")
    assert (studies, images) == (STUDIES, sum(len(exam.views) for exam in exams))
    assert seconds < 300
    assert gigabytes < 2
