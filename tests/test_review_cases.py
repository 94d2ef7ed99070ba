"""Sessions of reports that exist already: every reader sees the image, or the session is not made."""

from __future__ import annotations

import csv
import json
import re
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.observations import LabelState
from core.reviews.analysis import analyse
from core.reviews.answers import load_results
from core.reviews.case_files import read_cases
from core.reviews.database import Database
from core.reviews.design import Case, Choice
from core.reviews.export import export
from core.reviews.rubrics import ReviewError
from core.reviews.sources import find_images, name_images, name_phantoms, name_source, open_source
from core.reviews.store import Actor, close_session, create_session, read_screen
from core.studies.folder import FolderSource
from core.studies.model_image import grey_levels
from core.studies.phantom import PhantomSource, write_phantom
from core.types import CXRLensError
from dashboard.reviews import pictures
from dashboard.reviews.pictures import draw
from tests import needs
from tests.commands import cxr_lens
from tests.conftest import BUNDLES, ROOT
from tests.images import making
from tests.images.ramps import windowed
from tests.review_cases import design, fill, screens_of

REPORTS = BUNDLES / "phantom-reports.jsonl"
TEXTS = {"one": "There is edema.", "two": "The lungs are clear.", "reference": "The heart is large."}
DESIGN = 'title = "Trial"\nrubric = "report-quality"\nreaders = ["anna"]\n'


def packed(content: bytes) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Header and pixels of what the browser gets."""
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    pixels = np.frombuffer(
        content, "u1" if header["levels"] <= 255 else "<u2", header["width"] * header["height"], 4 + length
    )
    return header, pixels.reshape(header["height"], header["width"])


def seen(where: Path, session_id: str, reader: str = "anna") -> dict[str, tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    """Header and pixels of each study, as the reading page draws it for its reader."""
    database = Database(where)
    try:
        screens = [
            read_screen(database, Actor(reader, "reader"), screen)  # type: ignore[arg-type]
            for screen in screens_of(database, reader, session_id)
        ]
    finally:
        database.close()
    return {screen.study_id: packed(draw(screen, {})) for screen in {each.study_id: each for each in screens}.values()}


def create(tmp_path: Path, *arguments: str) -> Any:
    return cxr_lens("review", "create", *arguments, "--database", str(tmp_path / "r.sqlite"), "--as", "rita")


def write_design(tmp_path: Path, more: str = "") -> str:
    path = tmp_path / "design.toml"
    path.write_text(DESIGN + more, encoding="utf-8")
    return str(path)


def write_pictures(folder: Path, *ids: str) -> Path:
    folder.mkdir()
    for number, study_id in enumerate(ids):
        pixels = np.random.default_rng(number).integers(0, 255, (90, 70), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{study_id}.png")
    return folder


def write_lines(tmp_path: Path, *ids: str) -> str:
    path = tmp_path / "cases.jsonl"
    path.write_text("".join(json.dumps({"study_id": each, **TEXTS}) + "\n" for each in ids), encoding="utf-8")
    return str(path)


@needs.BUNDLES.unless(REPORTS.is_file())
def test_the_documented_design_and_command_make_a_session_whose_readers_see_the_image(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reviews.md").read_text(encoding="utf-8")
    block = re.findall(r"```toml\n(title = .*?)```", text, re.DOTALL)[0]
    design = tmp_path / "design.toml"
    design.write_text(block.replace("count = 20", "count = 5"), encoding="utf-8")
    (line,) = re.findall(r"^cxr-lens review (create design.toml --cases reports.jsonl --preset .*?)\s+#", text, re.M)
    arguments = {"design.toml": str(design), "reports.jsonl": str(REPORTS)}
    made = create(tmp_path, *[arguments.get(word, word) for word in line.split()[1:]])
    assert made.returncode == 0, made.stderr
    screens = 5 * len(tomllib.loads(block)["models"]) + tomllib.loads(block)["repeats"]
    assert f"{2 * screens} screens for 2 readers" in made.stdout
    source = PhantomSource(4000, 0)
    shown = seen(tmp_path / "r.sqlite", made.stdout[:32])
    assert len(shown) == 5
    for study_id, (header, pixels) in shown.items():
        expected = source.image(study_id, pixels.shape[0])
        np.testing.assert_allclose(pixels / header["levels"], expected, atol=1 / header["levels"])


def test_images_of_a_folder_are_those_that_readers_see(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", "s1", "s2")
    (folder / "s3.dcm").write_bytes(windowed(PixelSpacing=[0.2, 0.1], ViewPosition="LL"))
    cases = write_lines(tmp_path, "s1", "s2", "s3")
    made = create(tmp_path, write_design(tmp_path), "--cases", cases, "--images", str(folder))
    assert made.returncode == 0, made.stderr
    shown = seen(tmp_path / "r.sqlite", made.stdout[:32])
    assert set(shown) == {"s1", "s2", "s3"}
    header, pixels = shown["s2"]
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(folder / "s2.png")))
    assert (header["spacing"], header["shrunk"]) == (None, [1, 1])
    assert shown["s3"][0]["spacing"] == [0.2, 0.1]
    database = Database(tmp_path / "r.sqlite")
    anna = Actor("anna", "reader")
    told = [read_screen(database, anna, each) for each in screens_of(database, "anna", made.stdout[:32])]
    views = {screen.study_id: screen.context.get("view") for screen in told}
    assert views == {"s1": None, "s2": None, "s3": "lateral view"}
    database.close()
    # An image that is exchanged afterwards is not shown.
    Image.fromarray(255 - np.asarray(Image.open(folder / "s1.png"))).save(folder / "s1.png")
    with pytest.raises(ReviewError, match="not the one this session was made with"):
        seen(tmp_path / "r.sqlite", made.stdout[:32])


def test_a_large_film_is_made_smaller_and_measured_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LONGEST_SIDE", 128)
    film = np.tile(np.linspace(0, 4095, 256, dtype=np.uint16), (200, 1))
    (tmp_path / "told.dcm").write_bytes(windowed(film, PixelSpacing=[0.25, 0.1]))
    Image.fromarray((film // 16).astype(np.uint8)).save(tmp_path / "untold.png")
    for study_id, spacing in (("told", [0.5, 0.2]), ("untold", None)):
        screen = SimpleNamespace(
            id="1", source=name_images(tmp_path), study_id=study_id, image_sha256="", reports=(), explanation=""
        )
        header, pixels = packed(draw(screen, {}))  # type: ignore[arg-type]
        assert pixels.shape == (100, 128)
        assert (header["spacing"], header["shrunk"]) == (spacing, [2, 2])


def test_the_design_can_say_where_the_images_are(tmp_path: Path) -> None:
    write_phantom(tmp_path / "phantoms", 3, 7, 64)
    ids = PhantomSource(3, 7).study_ids
    for source in ("phantom:3:7", str(tmp_path / "phantoms" / "images"), f"images:{tmp_path / 'phantoms' / 'images'}"):
        design = write_design(tmp_path, f"source = {json.dumps(source)}\n")
        made = create(tmp_path, design, "--cases", write_lines(tmp_path, *ids))
        assert made.returncode == 0, made.stderr
        assert set(seen(tmp_path / "r.sqlite", made.stdout[:32])) == set(ids)


def test_a_session_without_images_is_refused_with_what_to_write(tmp_path: Path) -> None:
    done = create(tmp_path, write_design(tmp_path), "--cases", write_lines(tmp_path, "s1"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Readers would see no image" in done.stderr
    for way in ("--images WHERE", 'source = "WHERE"', "phantom:COUNT:SEED", "--preset NAME"):
        assert way in done.stderr
    assert not (tmp_path / "r.sqlite").exists()


def test_cases_without_an_image_are_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", "s1", "s2")
    (folder / "s3.png").write_bytes(b"not a picture")
    cases = write_lines(tmp_path, "s1", "s2", "s3", "s4")
    done = create(tmp_path, write_design(tmp_path), "--cases", cases, "--images", str(folder))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    message = re.search(r"2 of 4 cases have no image to show: (.*?)\. ", done.stderr)
    assert message is not None and sorted(message.group(1).split(", ")) == ["s3", "s4"]
    chosen = '\n[studies]\nhow = "listed"\nids = ["s2", "s1"]\n'
    assert create(tmp_path, write_design(tmp_path, chosen), "--cases", cases, "--images", str(folder)).returncode == 0


@pytest.mark.parametrize("where", ["nowhere", "empty", "phantom:many:0", "index:frontal:nowhere", "images:nowhere"])
def test_images_that_are_not_there_are_one_line(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = create(tmp_path, write_design(tmp_path), "--cases", write_lines(tmp_path, "s1"), "--images", where)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_images_of_one_study_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", "s1")
    (folder / "s1.dcm").write_bytes(windowed())
    with pytest.raises(CXRLensError, match=r"several images of study s1\."):
        open_source(name_images(folder))


def test_bundles_do_not_write_about_other_studies_than_are_shown(tmp_path: Path) -> None:
    design = write_design(tmp_path, 'source = "phantom:9:1"\n')
    done = create(tmp_path, design, "--preset", "phantom")
    assert done.returncode == 2 and "Leave 'source' out" in done.stderr
    done = create(tmp_path, write_design(tmp_path), "--preset", "phantom", "--images", "phantom:9:1")
    assert done.returncode == 2 and "--images goes with --cases" in done.stderr


def test_lines_a_list_and_a_table_say_the_same(tmp_path: Path) -> None:
    rows = [{"study_id": f"s{number}", **TEXTS, "one": f'Line "{number}",\nthen more.'} for number in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    with (tmp_path / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    whole = [{"study_id": row["study_id"], "reports": {name: row[name] for name in TEXTS}} for row in rows]
    (tmp_path / "b.json").write_text(json.dumps(whole), encoding="utf-8")
    expected = [Case(str(each["study_id"]), "", each["reports"]) for each in whole]  # type: ignore[arg-type]
    for name in ("a.jsonl", "a.json", "a.csv", "b.json"):
        assert read_cases(tmp_path / name) == expected, name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"study_id": "s1", "one": "text"}\n{"study_id"', "line 2 is no JSON"),
        ("a.jsonl", '{"one": "text"}', "line 1: 'study_id' is missing"),
        ("a.jsonl", '{"study_id": "s1", "one": 3}', "line 1: reports, bundles and context hold texts"),
        ("a.jsonl", '{"study_id": "s1", "reports": {}, "colour": 1}', "foreign keys .'colour'."),
        ("a.json", '[{"study_id": "s1", "one": "text"}, 3]', "case 2: a case is an object"),
        ("a.json", '[{"study_id": ', "not JSON"),
        ("a.csv", "study,one\ns1,text\n", "columns should be study_id and one a model"),
        ("a.csv", "study_id,one\ns1,text,more\n", "line 2: not 2 cells"),
        ("a.csv", "study_id,one\n", "has no case"),
        ("a.jsonl", "\n", "has no case"),
    ],
)
def test_a_bad_file_of_cases_is_a_sentence(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ReviewError, match=message):
        read_cases(tmp_path / name)


def test_what_the_source_knows_is_taken_from_it() -> None:
    source = PhantomSource(12, 3)
    cases = [Case(study_id, "", {"one": "text"}) for study_id in source.study_ids]
    found = find_images(source, cases, Choice("stratified", 2), 0)
    for case in found:
        study = source.study(case.study_id)
        assert case.labels == study.labels and len(case.image_sha256) == 64
        assert case.context["indication"] == study.context["indication"]
        assert case.context["view"] == f"{study.view} view"
    told = [Case(source.study_ids[0], "", {"one": "text"}, context={"age": "1"})]
    assert find_images(source, told, Choice(), 0)[0].context == {"age": "1"}
    wrong = [Case(source.study_ids[0], "0" * 64, {"one": "text"})]
    with pytest.raises(ReviewError, match=f"another image_sha256 than their image: {source.study_ids[0]}"):
        find_images(source, wrong, Choice(), 0)


def test_a_folders_cases_are_stratified_by_their_references(tmp_path: Path) -> None:
    source = FolderSource(write_pictures(tmp_path / "pictures", "s1", "s2"))
    cases = [Case("s1", "", {"reference": "The lungs are clear."}), Case("s2", "", {"reference": "There is edema."})]
    (found,) = find_images(source, cases, Choice("stratified", 1), 0)
    assert (found.study_id, found.labels["Edema"]) == ("s2", LabelState.POSITIVE)


def test_what_a_person_writes_names_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_pictures(tmp_path / "pictures", "s1")
    for text in ("pictures", "images:pictures", str(folder), f"images:{folder}"):
        assert name_source(text) == name_images(folder)
    assert name_source("phantom:3:7") == name_phantoms(3, 7)
    image = open_source(name_source("pictures")).image("s1", 32)
    assert image.shape == (32, 32)
    np.testing.assert_array_equal(image, grey_levels(image) / np.float32(255))
    with pytest.raises(CXRLensError, match="no study 's2' in Images in pictures"):
        open_source(name_source("pictures")).image("s2", 32)


def test_what_the_reader_of_a_file_knows_reaches_readers_and_the_export(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", "s1", "s2")
    (folder / "s2.png").unlink()
    (folder / "s2.dcm").write_bytes(
        making.dicom(making.CHEST12, ViewPosition="LL", PresentationIntentType="FOR PROCESSING")
    )
    found = find_images(
        FolderSource(folder), read_cases(Path(write_lines(tmp_path, "s1", "s2"))), Choice("random", 2), 0
    )
    told = {case.study_id: case.context for case in found}
    assert "view" not in told["s1"]
    assert told["s2"]["view"] == "lateral view"
    assert "lateral view" in told["s2"]["image"] and "raw" in told["s2"]["image"].lower()
    database = Database(str(tmp_path / "r.sqlite"))
    try:
        rita = fill(database)
        made = create_session(database, rita, design(), found)
        close_session(database, rita, made)
        results = load_results(database, rita, made)
    finally:
        database.close()
    export(results, analyse(results, resamples=10), tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "studies.json").read_text(encoding="utf-8"))["studies"]
    assert "lateral view" in next(row["image"] for row in rows if row["study"] == "s2")


def test_what_several_ask_for_at_once_is_drawn_once_and_a_failure_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    def draw(screen: SimpleNamespace, by: object) -> bytes:
        begun.append(screen.study_id)
        time.sleep(0.1)
        if begun == ["lost"]:
            raise ReviewError("it is not there yet")
        return screen.study_id.encode()

    monkeypatch.setattr(pictures, "draw", draw)
    ask = pictures.Plates().ask
    lost, found = (
        SimpleNamespace(source="s", study_id=name, image_sha256="", explanation="", reports=())
        for name in ("lost", "found")
    )
    with pytest.raises(ReviewError):
        ask(lost, {}).result()  # type: ignore[arg-type]
    assert ask(lost, {}).result() == b"lost"  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda _: ask(found, {}), range(8)))  # type: ignore[arg-type]
    assert {job.result() for job in jobs} == {b"found"}
    assert begun == ["lost", "lost", "found"]
