"""Reports leave for other programs: what these read is what was written, who wrote it stands beside it."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file

from core.bundles.library import BundleLibrary
from core.evaluation import results
from core.evaluation.own import ask, evaluate_source
from core.evaluation.writing import Work, write_source
from core.exports.folder import MARK, LeftOut
from core.exports.reports import file_names, plain, read
from core.exports.writers import RESEARCH
from core.files import hash_of
from core.studies.columns import Columns
from core.studies.sources import open_source
from core.studies.table import index_table
from core.systems.added import add_file, system
from core.systems.report_files import read_report_file
from core.types import CXRLensError
from tests import needs
from tests.conftest import BUNDLES
from tests.openi_tree import png
from tests.systems_files import write_csv, write_jsonl
from tests.test_systems import run

needs_bundles = needs.BUNDLES.unless(BUNDLES.is_dir())
METRICS = needs.METRICS.packages("pycocotools", "pycocoevalcap")
PHANTOM = "phantom:40:0"
PAIR = "phantom-dve-cnn_rnn_rnn"
SEPARATED = "No effusion.\u2028Clear\x85lungs.\r\nHeart\x0bnormal."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of this test alone."""
    monkeypatch.setenv("CXR_SYSTEMS", str(tmp_path / "systems"))
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.java, "missing", lambda: "METEOR is left out here.")
    return tmp_path


def written(folder: Path, **systems: list[str]) -> Path:
    """Reports of the first phantoms, with their references."""
    studies = open_source(PHANTOM).studies("test")
    rows = [
        {"study_id": study.study_id, "reference": study.findings} | {name: each[at] for name, each in systems.items()}
        for at, study in enumerate(studies[: len(next(iter(systems.values())))])
    ]
    return write_jsonl(folder / "reports.jsonl", rows)


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def of_ward(folder: Path) -> str:
    """An index of three films with reports, one of them without findings, and boxes on the first film."""
    images = folder / "images"
    images.mkdir()
    rows = [("a1", "p1", "The heart is large."), ("a2", "p2", SEPARATED), ("a3", "p3", "")]
    for number, (name, _, _) in enumerate(rows):
        (images / f"{name}.png").write_bytes(png(number))
    write_csv(folder / "table.csv", ("id", "patient", "findings", "impression"), [[*each, "Seen."] for each in rows])
    write_csv(
        images / "boxes.csv",
        ("image", "finding", "x", "y", "w", "h"),
        [["a1.png", "Cardiomegaly", "10", "12", "20", "24"], ["a1.png", "Cardiomegaly", "12", "14", "20", "24"]],
    )
    fields = {name: name for name in ("id", "patient", "findings", "impression")}
    columns = Columns(title="Ward films").named(fields, {}, {}, boxes=str(images / "boxes.csv"))
    return str(index_table(images, folder / "table.csv", folder / "index", columns).folder)


# ------------------------------------------------------------------------------------------------------------- lists


def test_radeval_gets_two_lists_in_one_order_with_ids_and_who_wrote(here: Path) -> None:
    path = written(here, A=["Clear.", "", SEPARATED], B=["x", "y", "z"])
    assert "2 files in out" in run("export", "radeval", str(path), "--out", "out")
    source = open_source(PHANTOM)
    found = load(here / "out" / "A.json")
    assert found["ids"] == list(source.ids("test")[:3])
    assert found["refs"] == [source.study(each).findings for each in found["ids"]]
    assert found["hyps"] == ["Clear.", "", "No effusion.\nClear\nlungs.\nHeart\nnormal."]
    assert found["about"]["use"] == RESEARCH and "Not a medical device" in RESEARCH
    assert "system A" in found["about"]["system"]
    assert load(here / "out" / "B.json")["hyps"] == ["x", "y", "z"]
    mark = load(here / "out" / MARK)
    assert [each["name"] for each in mark["systems"]] == ["A", "B"] and mark["left_out"] == {}
    run("export", "radeval", str(path), "--system", "B", "--study", found["ids"][1], "--out", "one")
    assert load(here / "one" / "B.json")["hyps"] == ["y"] and not (here / "one" / "A.json").exists()


def test_studies_without_a_reference_are_left_out_and_counted(here: Path) -> None:
    rows = [{"study_id": f"s{at}", "reference": text, "A": "x"} for at, text in enumerate(("There.", " ", ""))]
    path = write_jsonl(here / "reports.jsonl", rows)
    for kind, name in (("radeval", "A.json"), ("coco", "annotations.json")):
        told = run("export", kind, str(path), "--out", kind)
        assert "study without a reference report, left out: 2" in told
        assert "s1" not in (here / kind / name).read_text()
        assert load(here / kind / MARK)["left_out"]["study without a reference report, left out"]["first"] == [
            "s1",
            "s2",
        ]
    run("export", "rexrank", str(path), "--out", "rexrank")  # it compares nothing: they stay
    assert load(here / "rexrank" / "A.json")["s1"]["section_findings"] is None


def test_rexrank_reads_what_its_script_takes_and_so_do_we(here: Path) -> None:
    path = written(here, A=["Clear.", "", SEPARATED])
    run("export", "rexrank", str(path), "--source", PHANTOM, "--images", "--out", "out")
    source, found = open_source(PHANTOM), load(here / "out" / "A.json")
    for study_id, case in found.items():
        study = source.study(study_id)
        assert case["section_findings"] == study.findings and case["section_impression"] == (study.impression or None)
        assert case["report"].startswith(f"Findings: {study.findings}")
        with Image.open(here / "out" / "images" / case["key_image_path"]) as image:
            assert np.abs(np.asarray(image) / 255 - source.original(study_id).pixels).max() < 0.5 / 255 + 1e-6
            assert not image.info
    again = read_report_file(here / "out" / "A.json")
    assert {row.ids[0]: row.text for row in again.rows} == {
        name: each["model_prediction"] for name, each in found.items()
    }


@METRICS
def test_coco_reads_annotations_and_results(here: Path) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocotools.coco import COCO

    source = open_source(PHANTOM)
    references = [each.findings for each in source.studies("test")[:3]]
    path = written(here, **{"Exact copy": references, "Odd": ["", SEPARATED, "The heart is large."]})
    run("export", "coco", str(path), "--source", PHANTOM, "--images", "--out", "out")
    coco = COCO(str(here / "out" / "annotations.json"))
    assert RESEARCH in coco.dataset["info"]["description"] and len(coco.dataset["info"]["systems"]) == 2
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(here / "out" / "images" / image["file_name"]) as film:
            assert film.size == (image["width"], image["height"])
    scores = {}
    for name in ("Exact_copy", "Odd"):
        found = coco.loadRes(str(here / "out" / f"results-{name}.json"))
        captions = {each: [a["caption"] for a in found.imgToAnns[each]] for each in coco.getImgIds()}
        truth = {each: [a["caption"] for a in coco.imgToAnns[each]] for each in coco.getImgIds()}
        assert not any(len(text.splitlines()) > 1 for texts in captions.values() for text in texts)
        scores[name] = Bleu(4).compute_score(truth, captions, verbose=0)[0][3]
    assert scores["Exact_copy"] == pytest.approx(1) and scores["Odd"] < 0.1


# ------------------------------------------------------------------------------------------------- images with boxes


def test_label_studio_gets_tasks_that_its_configuration_shows(here: Path) -> None:
    index = of_ward(here)
    rows = [{"study_id": "a1", "reference": "The heart is large.", "A": "No effusion.", 'B "2"': ""}]
    rows += [{"study_id": "a3", "reference": "", "A": "Clear.", 'B "2"': "x"}]
    path = write_jsonl(here / "reports.jsonl", rows)
    told = run("export", "label-studio", str(path), "--source", index, "--out", "out")
    assert "study without a reference report: 1" in told
    tree = ET.fromstring((here / "out" / "configuration.xml").read_text())
    controls = {each.get("name"): (each.tag.lower(), each.get("toName")) for each in tree.iter() if each.get("toName")}
    objects = {each.get("name"): each.get("value") for each in tree.iter() if (each.get("value") or "").startswith("$")}
    labels = [each.get("value") for each in tree.iter("Label")]
    tasks = load(here / "out" / "tasks.json")
    assert [each["data"]["study_id"] for each in tasks] == ["a1", "a3"]
    for task in tasks:
        assert all(task["data"][value[1:]] for value in objects.values())
        assert task["data"]["image"] == f"/data/local-files/?d=out/images/{task['data']['study_id']}.png"
        for each in (region for prediction in task["predictions"] for region in prediction["result"]):
            assert controls[each["from_name"]] == (each["type"], each["to_name"]) and each["to_name"] in objects
    first, second, boxes = tasks[0]["predictions"]
    assert first["result"][0]["value"]["text"] == ["No effusion."] and "system A" in first["model_version"]
    assert second["result"] == []
    values = [each["value"] for each in boxes["result"]]
    assert [each["rectanglelabels"] for each in values] == [["Cardiomegaly"]] * 2 and labels == ["Cardiomegaly"]
    # Of a film of 40 x 48 pixels, two boxes that overlap stay two.
    assert [values[0][name] for name in ("x", "y", "width", "height")] == pytest.approx([25, 25, 50, 50])
    assert [values[1][name] for name in ("x", "y")] == pytest.approx([30, 100 * 14 / 48])


def test_fiftyone_gets_samples_of_the_fields_that_it_is_told(here: Path) -> None:
    index = of_ward(here)
    rows = [{"study_id": "a1", "reference": "", "a.b": "One.", "A-b": "Two."}]
    path = write_jsonl(here / "reports.jsonl", rows)
    run("export", "fiftyone", str(path), "--source", index, "--out", "out")
    metadata, (sample,) = load(here / "out" / "metadata.json"), load(here / "out" / "samples.json")["samples"]
    fields = {each["db_field"]: each for each in metadata["sample_fields"]}
    assert set(sample) - set(fields) == {"_media_type", "_rand"}
    assert {"created_at", "last_modified_at"} == set(fields) - set(sample)  # which it adds itself
    assert (sample["report_a_b"], sample["report_A_b_2"]) == ("One.", "Two.")
    assert metadata["info"]["use"] == metadata["description"] == RESEARCH
    with Image.open(here / "out" / sample["filepath"]) as image:
        assert image.size == (sample["metadata"]["width"], sample["metadata"]["height"]) == (40, 48)
    detections = sample["boxes"]["detections"]
    assert detections[0]["bounding_box"] == pytest.approx([0.25, 0.25, 0.5, 0.5])
    inner = {each["db_field"] for each in fields["boxes"]["fields"][0]["fields"]}
    assert set(detections[0]) - {"_cls"} <= inner and len({each["_id"]["$oid"] for each in detections}) == 2


def test_boxes_of_drawn_findings_lie_around_their_masks() -> None:
    source, shape = open_source(PHANTOM), (160, 160)
    checked = 0
    for study_id in source.ids("test")[:3]:
        boxes = source.boxes(study_id, shape)
        for finding in source.masks(study_id, shape):
            inside = np.zeros(shape, bool)
            for box in (each for each in boxes if each.name == finding.name):
                rows = slice(round(box.top * shape[0]), round((box.top + box.height) * shape[0]))
                inside[rows, round(box.left * shape[1]) : round((box.left + box.width) * shape[1])] = True
            assert inside[finding.mask].all()
            assert inside.sum() < inside.size
            checked += 1
    assert checked


# -------------------------------------------------------------------------------------------------------- who wrote it


@needs_bundles
@pytest.mark.numeric
def test_whoever_wrote_goes_with_the_reports_from_whatever_file(here: Path) -> None:
    library = BundleLibrary(BUNDLES)
    card = library.card(PAIR)
    source, content = open_source("phantom:6:3"), hash_of(card.made_of)
    write_source(Work(source.key, None, BUNDLES, (PAIR,), beam_size=1), here / "w.jsonl")
    theirs = write_csv(here / "theirs.csv", ("id", "report"), [[each, "Clear."] for each in source.all_ids()])
    add_file("Theirs", theirs)
    asked = ask(source, [card], BUNDLES, None, [system("Theirs")])
    evaluate_source(asked, lambda share, what: None)
    assert read(str(here / "w.jsonl"), BUNDLES).writers[PAIR].settings["beam_size"] == 1
    for where in (str(here / "w.jsonl"), asked.folder.name, str(asked.folder)):
        found = read(where, BUNDLES)
        assert found.source is not None and found.source.key == source.key
        assert found.fingerprint == source.fingerprint()
        writer = found.writers[PAIR]
        assert (writer.kind, writer.content, writer.seed) == ("pair", content, str(card.content["config"]["seed"]))
        assert writer.settings["fit"] == card.content["fit"]
    assert found.writers["Theirs"].content == system("Theirs").content_hash()
    assert found.writers["Theirs"].kind == "file of reports"
    preset = read("phantom", BUNDLES).writers[PAIR]
    assert (preset.content, preset.seed) == (content, "1")
    # Systems on a source write the same.
    run("export", "radeval", "--source", source.key, "--system", PAIR, "--system", "Theirs", "--out", "now")
    assert load(here / "now" / "Theirs.json")["hyps"] == ["Clear."] * len(found.study_ids)
    assert tuple(load(here / "now" / f"{PAIR}.json")["hyps"]) == found.texts[PAIR]
    for each in load(here / "now" / MARK)["systems"]:
        assert each["content"] == found.writers[each["name"]].content


def test_of_other_phantoms_with_the_same_ids_no_image_goes_out(here: Path) -> None:
    path = written(here, A=["x", "y"])
    told = run("export", "fiftyone", str(path), "--source", "phantom:40:7", "--out", "out", code=1)
    assert "does not have as these reports do" in told and not (here / "out").exists()


def test_the_same_reports_give_the_same_bytes(here: Path) -> None:
    index = of_ward(here)
    path = write_jsonl(here / "reports.jsonl", [{"study_id": "a1", "reference": "The heart is large.", "A": "x"}])
    for kind in ("radeval", "rexrank", "coco", "label-studio", "fiftyone"):
        for name in ("one", "two"):
            run("export", kind, str(path), "--source", index, "--out", f"{name}/{kind}")
        one, two = (
            {each.name: each.read_bytes() for each in (here / name / kind).rglob("*") if each.is_file()}
            for name in ("one", "two")
        )
        assert one == two and len(one) > 1


@given(st.lists(st.text(max_size=100), min_size=1, max_size=8, unique=True))
def test_names_of_files_are_unique_and_no_paths(names: list[str]) -> None:
    found = list(file_names(names).values())
    assert len({each.casefold() for each in found}) == len(names)
    assert all(each == Path(each).name and not each.startswith((".", "-")) and len(each) < 100 for each in found)
    assert all(each.isascii() for each in found)


@given(st.text(alphabet=st.characters(codec=None), max_size=40))
def test_a_text_that_leaves_can_be_read_by_every_format(text: str) -> None:
    found = plain(text)
    assert plain(found) == found
    assert ET.fromstring(f"<a>{found.translate({38: '', 60: '', 62: ''})}</a>").tag == "a"
    found.encode("utf-8")
    assert (
        "".join(found.split()) == "".join(found.split("\n")).replace("\t", "").replace(" ", "") or not found.isascii()
    )


# ----------------------------------------------------------------------------------------------------------- bad input


def test_what_cannot_be_exported_is_told_in_a_sentence(here: Path) -> None:
    path = written(here, A=["x", "y"])
    (here / "no-reference.jsonl").write_text('{"study_id": "s", "A": "x"}\n')
    (here / "reference-only.jsonl").write_text('{"study_id": "s", "reference": "x"}\n')
    (here / "r.csv").write_text("study_id,A\ns,x\n")
    moved = here / "moved"
    moved.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(moved / "s.png")
    write_jsonl(here / "m.jsonl", [{"study_id": "s", "A": "x"}])
    about = {"source": open_source(str(moved)).key, "fingerprint": "f", "pairs": {}, "write": {}, "fit": {}}
    (here / "m.jsonl.about.json").write_text(json.dumps(about | {"beam_size": None, "precision": "fp32"}))
    moved.rename(here / "elsewhere")
    for words, message in (
        (["radeval", "nowhere"], "There are no reports at 'nowhere'"),
        (["radeval", "r.csv"], "ends in .jsonl"),
        (["radeval", "no-reference.jsonl"], "no reference reports"),
        (["radeval", "reference-only.jsonl"], "none that a system wrote"),
        (["radeval", str(path), "--system", "B"], "no reports of a system 'B'. There are: A."),
        (["radeval", str(path), "--study", "P9"], "no reports of a study 'P9'"),
        (["radeval", "--source", PHANTOM], "at least one --system"),
        (["radeval", "--source", PHANTOM, "--system", "B"], "There is no system 'B'. There are: openi-"),
        (["radeval", str(path), "--split", "test"], "--split"),
        (["fiftyone", str(path)], "Name their source, with --source"),
        (["fiftyone", "m.jsonl"], "moved cannot be read .* Name their source, with --source"),
        (["fiftyone", "no-reference.jsonl", "--source", "elsewhere"], "There is no study to export"),
        (["hf", "nope"], "There is no bundle 'nope'"),
    ):
        told = run("export", *words, "--out", "out", code=1)
        assert re.search(message, told), (words, told)
        assert "\n" not in told and not (here / "out").exists()
    assert "1 file in out" in run("export", "rexrank", "m.jsonl", "--out", "out")  # it needs no image
    assert [each.name for each in here.iterdir() if each.name.endswith(".part")] == []


def test_nothing_that_is_there_is_written_over(here: Path) -> None:
    path = written(here, A=["x"])
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").write_text("years of work")
    for more in ([], ["--force"]):
        assert "is no export of CXR Lens" in run("export", "radeval", str(path), "--out", "mine", *more, code=1)
    assert (here / "mine" / "thesis.tex").read_text() == "years of work"
    run("export", "radeval", str(path), "--out", "out")
    assert "replace it, with --force" in run("export", "coco", str(path), "--out", "out", code=1)
    run("export", "coco", str(path), "--out", "out", "--force")
    assert (here / "out" / "annotations.json").is_file() and not (here / "out" / "A.json").exists()


@needs.PROC.unless(Path("/proc").is_dir())
def test_a_folder_that_cannot_be_written_is_a_sentence(here: Path) -> None:
    path = written(here, A=["x"])
    assert "/proc/in cannot be made" in run("export", "radeval", str(path), "--out", "/proc/in/it", code=1)
    assert "/proc/it could not be written" in run("export", "radeval", str(path), "--out", "/proc/it", code=1)


def test_a_file_in_the_way_is_a_sentence(here: Path) -> None:
    path = written(here, A=["x"])
    assert "cannot be made" in run("export", "radeval", str(path), "--out", f"{path.name}/below", code=1)


# -------------------------------------------------------------------------------------------------------------- bundles


@needs_bundles
@pytest.mark.parametrize("name", ["phantom-fve-m2", "openi-ccve-m2"])
def test_a_bundle_leaves_with_all_its_tensors_and_a_card_that_the_hub_reads(here: Path, name: str) -> None:
    from huggingface_hub import ModelCard

    run("export", "hf", name, "--out", "out")
    card = BundleLibrary(BUNDLES).card(name)
    tensors = load_file(here / "out" / "model.safetensors")
    kept = load_file(BUNDLES / name / "model.safetensors")
    for shared in card.content["encoder"]["shared"]:
        kept |= load_file(BUNDLES / "shared" / shared / "model.safetensors")
    assert set(tensors) == set(kept)
    assert all(tensors[key].dtype == kept[key].dtype and np.array_equal(tensors[key], kept[key]) for key in kept)
    config = load(here / "out" / "config.json")
    assert config["model_type"] == "cxr-lens" and config["sha256"] == card.content["sha256"]
    read_card = ModelCard.load(here / "out" / "README.md")
    assert card.intended_use in read_card.text and "## Limitations" in read_card.text
    assert read_card.data.license == ("apache-2.0" if card.family == "phantom" else "cc-by-nc-4.0")
    rows = {each["name"]: each for each in load(BUNDLES / f"{card.family}-results.json")["rows"]}
    scores = {each.metric_type: each for each in read_card.data.eval_results}
    assert scores["micro_f1"].metric_value == rows[name]["micro_f1"]
    assert scores["micro_f1"].metric_args["interval_95"] == rows[name]["intervals"]["micro_f1"]
    assert load(here / "out" / MARK)["bundle"]["content"] == hash_of(card.made_of)


@needs_bundles
def test_scores_of_other_weights_do_not_go_with_a_bundle(here: Path) -> None:
    from huggingface_hub import ModelCard

    bundles = here / "bundles"
    bundles.mkdir()
    for each in ("shared", PAIR):
        (bundles / each).symlink_to(BUNDLES / each)
    content = load(BUNDLES / "phantom-results.json")
    content["made_of"][PAIR] = "0" * 64
    (bundles / "phantom-results.json").write_text(json.dumps(content))
    told = run("export", "hf", PAIR, "--bundles", str(bundles), "--out", "out")
    assert "there are none of these weights" in told
    found = ModelCard.load(here / "out" / "README.md")
    assert found.data.eval_results is None and "None are recorded" in found.text
    with pytest.raises(CXRLensError, match="differs from the hash"):
        damaged = bundles / "damaged"
        damaged.mkdir()
        for file in (BUNDLES / PAIR).iterdir():
            (damaged / file.name).write_bytes(file.read_bytes().replace(f'"{PAIR}"'.encode(), b'"damaged"'))
        (damaged / "vocab.json").write_text("{}")
        from core.exports.hugging_face import files

        list(files("damaged", bundles, LeftOut()))


# ------------------------------------------------------------------------------------------------------------ the page


@needs_bundles
@pytest.mark.numeric
def test_results_offer_downloads_without_studies_of_an_open_session(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dashboard.services import evaluations, exports
    from tests.app_pages import open_page

    app = open_page("results", run="phantom")
    offered = [each.proto.label for each in app.get("download_button") if each.proto.label in exports.KINDS]
    assert offered == ["RadEval", "COCO captions", "ReXrank"]
    found = evaluations.result_sets()[0]["phantom"]
    everything = read("phantom", BUNDLES)
    hidden = set(everything.study_ids[:3])
    for kind in exports.KINDS:
        with zipfile.ZipFile(io.BytesIO(exports.packed(found, kind, hidden))) as archive:
            assert archive.testzip() is None and MARK in archive.namelist()
            assert len(archive.namelist()) >= 1 + len(everything.texts)
            texts = [archive.read(name).decode() for name in archive.namelist()]
            assert not [each for each in texts for study_id in hidden if f'"{study_id}"' in each]
            assert any(f'"{everything.study_ids[3]}"' in each for each in texts)
    with pytest.raises(CXRLensError):
        exports.packed(found, "RadEval", set(everything.study_ids))
