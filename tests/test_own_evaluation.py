"""Evaluations of one's own studies: the scores of the command, kept through a kill, on the pages, with bad input."""

from __future__ import annotations

import json
import signal
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.bundles.library import BundleLibrary
from core.config import load_config
from core.evaluation import own, results
from core.evaluation.own import Asked, EvaluationJob, ask, evaluate_source, known_of, read_facts
from core.evaluation.results import NEAREST
from core.evaluation.scored import FILE, read_scored
from core.observations import LabelState
from core.studies.columns import Columns
from core.studies.openi import index_openi
from core.studies.sources import open_source
from core.studies.table import index_table
from core.types import CXRLensError, Split
from dashboard.services import cases, evaluations
from dashboard.services import own as jobs
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.conftest import BUNDLES
from tests.openi_tree import write_kaggle
from training.data import StudyData
from training.evaluate import evaluate
from training.options import PRESETS

pytestmark = [needs_bundles, pytest.mark.numeric]

PAIRS = ("phantom-dve-cnn_rnn_rnn", "phantom-cve-cnn_rnn_rnn")
COLUMNS = Columns(title="Ward films").named(
    {"id": "study", "findings": "report", "patient": "patient", "sex": "sex"}, {}, {"scanner": "scanner"}
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user folder, a cache, and two bundles, of this test alone."""
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", *PAIRS, "shared")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.java, "missing", lambda: "METEOR is left out here.")
    jobs._jobs().clear()
    return tmp_path


def asked(spec: str, split: Split | None = None, pairs: tuple[str, ...] = PAIRS) -> Asked:
    cards = [card for card in BundleLibrary(BUNDLES).cards() if card.name in pairs]
    return ask(open_source(spec), cards, BUNDLES, split)


def films(folder: Path, count: int, *, reports: bool = True) -> Path:
    """An index of films of grey noise with phantoms' reports, as a table that somebody has; returns its folder."""
    drawn = open_source(f"phantom:{count}:9")
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, study_id in enumerate(each for split in drawn.splits() for each in drawn.ids(split)):
        noise = np.random.default_rng(number).integers(0, 255, (60, 48), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "images" / f"F{number}.png")
        study = drawn.study(study_id)
        row = {"study": f"F{number}", "patient": study.subject_id, "sex": study.context.get("sex", "")}
        rows.append(row | {"report": study.findings, "scanner": "AB"[number % 2]})
    if not reports:
        return folder / "images"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "table.jsonl").write_text(text, encoding="utf-8")
    index_table(folder / "images", folder / "table.jsonl", folder / "index", COLUMNS, only_test=True)
    return folder / "index"


def ignore(share: float, what: str) -> None:
    assert 0 <= share <= 1
    assert what


def test_scores_are_those_of_the_command_and_facts_are_kept(here: Path) -> None:
    config = load_config(PRESETS, "phantom", ["data.count=40", "evaluate_studies=0"])
    theirs = evaluate(config, StudyData(config.data, here / "images"), here / "bundles", here / "theirs")
    labels = read_scored(here / "theirs" / FILE)
    for each in [*theirs["rows"], *(each for each in theirs["baselines"] if each["name"] in labels.reports)]:
        assert labels.statistics(each["name"]).scores()["f1"] == pytest.approx(each["f1"], abs=1e-12)
    compared = {NEAREST, *(each["differences_own"]["from"] for each in theirs["rows"])}
    assert compared <= set(labels.reports)
    mine = asked("phantom:40:0", "test")
    evaluate_source(mine, ignore)
    content = json.loads((mine.folder / "results.json").read_text(encoding="utf-8"))
    theirs = json.loads(json.dumps(theirs))
    assert content["protocol"] == theirs["protocol"]
    assert content["studies"] == theirs["studies"] > 2
    for kind in ("rows", "baselines"):
        assert {each["name"] for each in content[kind]} == {each["name"] for each in theirs[kind]}
        for row in theirs[kind]:
            assert next(each for each in content[kind] if each["name"] == row["name"]) == row
    assert stat.S_IMODE(mine.folder.stat().st_mode) & 0o077 == 0  # reports are for their owner alone
    source = open_source("phantom:40:0")
    for study_id, known in read_facts(mine.folder / "studies.jsonl").items():
        there = known_of(source)[study_id]
        assert known.states == there.states
        assert (dict(known.traits), known.details) == (dict(there.traits), there.details)
    assert [each.whole for each in own.evaluations()] == [True]
    before = (mine.folder / "results.json").stat().st_mtime_ns
    evaluate_source(mine, ignore)
    assert (mine.folder / "results.json").stat().st_mtime_ns == before  # done before


@pytest.mark.slow  # two processes that load models; what is kept through an interruption is in tests/test_writing.py
def test_a_killed_job_goes_on_and_its_end_is_the_same(here: Path) -> None:
    mine = asked(str(films(here / "many", 66, reports=False)), pairs=PAIRS[:1])
    job = EvaluationJob(mine)
    until = time.monotonic() + 120
    while not (parts := list(mine.folder.glob(".reports.jsonl.*.parts/*.jsonl"))):
        assert time.monotonic() < until
        assert not job.done(), (job.folder / "log.txt").read_text()
        time.sleep(0.01)
    job._process.send_signal(signal.SIGKILL)
    with pytest.raises(CXRLensError, match=r"ended before its time .*What is written is kept: go on with it"):
        job.wait()
    assert not mine.whole
    (first,) = parts
    written = first.stat().st_mtime_ns, first.read_bytes()
    heard: list[tuple[float, str]] = []
    evaluate_source(mine, lambda share, what: heard.append((share, what)))
    assert any("Writing: 64 of 66 studies" in what for _, what in heard)
    assert mine.whole
    lines = (mine.folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["study_id"] for line in lines[:64]] == [
        json.loads(line)["study_id"] for line in written[1].decode().splitlines()
    ]
    told = json.loads((mine.folder / "results.json").read_text(encoding="utf-8"))["told"]
    assert "These studies have no reference reports, so there is nothing to score against." in told
    assert any("unlike the films" in each for each in told)  # grey noise is no chest film
    assert any(each.startswith("66 of 66 studies have a warning.") for each in told)


def wait_for(name: str) -> None:
    until = time.monotonic() + 180
    while jobs.under_way(name) is not None:
        assert time.monotonic() < until
        time.sleep(0.05)


def start(page: str, source: str) -> AppTest:
    """Press the button of a source, and come back when it is done."""
    app = open_page(page, source=source)
    app.button(key="own_start").click().run()
    assert not app.exception
    wait_for(source)
    app = open_page(page, source=source)
    assert "Cancel" not in [each.label for each in app.button]
    return app


def test_a_table_of_ones_own_from_the_button_to_cases_results_and_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = films(here / "ward", 12)
    monkeypatch.setenv("CXR_SOURCES", str(index))
    first = open_page("cases", source="index")
    assert "No model has written the reports of Ward films yet" in words_on(first)
    assert "learned from synthetic X-rays: on these studies their reports mean little" in words_on(first)
    (button,) = [each for each in first.button if each.key == "own_start"]
    assert button.label == "Write and score the reports of these 12 studies with these 2 models"
    app = start("cases", "index")
    assert "**12 studies**" in words_on(app)
    (found,), _ = evaluations.with_reports("index")
    assert any("no constant and no nearest training report" in each for each in found.content["told"])
    assert [each["name"] for each in found.content["baselines"]] == ["shuffled images"]
    assert found.name == "Ward films, models for synthetic X-rays"
    ways = evaluations.divide(evaluations.read_reports(found))
    assert {name: int(mask.sum()) for name, mask in ways["Scanner"].items()} == {"A": 6, "B": 6}
    assert set(ways["Sex"]) == {"female", "male"}
    address = cases.address(found, [PAIRS[0]], slice="Scanner: A")
    part = open_page("cases", **address)
    assert "**6 studies**" in words_on(part)
    shown = cases.rows(evaluations.read_reports(found), PAIRS, range(8), "index")
    assert all(row.here and row.picture for row in shown)
    assert open_page("read", study=shown[3].study_id, source="index").session_state["study"] == shown[3].study_id

    result = open_page("results", source="index")
    assert "Evaluated on **Ward films**: 12 studies." in words_on(result)
    assert not any(each.key == "own_start" for each in result.button)
    assert "Scanner" in open_page("results", source="index", view="Slices").selectbox(key="by_what").options

    (here / "ward" / "images" / "F2.png").unlink()
    evaluations.st.cache_data.clear()
    assert [row.study_id for row in cases.rows(evaluations.read_reports(found), PAIRS, range(8), "index")
            if row.picture is None] == ["F2"]  # fmt: skip
    assert "The image is gone, or cannot be read: F2." in words_on(open_page("cases", source="index"))

    about = found.reports.parent / "about.json"
    content = json.loads(about.read_text(encoding="utf-8"))
    content["pairs"][PAIRS[0]]["model.safetensors"] = "0" * 64  # as if the bundle had been trained anew since
    other = Asked(**content)
    found.reports.parent.rename(other.folder)
    (other.folder / "about.json").write_text(json.dumps(content), encoding="utf-8")
    told = words_on(open_page("cases", source="index"))
    assert "of other bundles than those that are here now: DVE + CNN-RNN-RNN" in told

    monkeypatch.setenv("CXR_SOURCES", "")
    assert "The radiographs of these studies are not here" in words_on(open_page("cases", case_run=found.name))
    (results_of,) = [each for each in evaluations.result_sets()[0].values() if each.own]
    assert evaluations.source_of(results_of) is None
    assert all(not row.here for row in cases.rows(evaluations.read_reports(results_of), PAIRS, range(8), None))


def test_without_reference_reports_the_models_stand_beside_each_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = films(here / "plain", 3, reports=False)
    monkeypatch.setenv("CXR_SOURCES", str(folder))
    first = open_page("cases", source="images")
    assert "so there will be no scores" in words_on(first)
    evaluate_source(asked(str(folder)), ignore)
    app = open_page("cases", source="images")
    assert "These studies have no reference reports, so there is nothing to score against." in words_on(app)
    assert "**3 studies**" in words_on(app)
    assert not [each for each in app.selectbox if each.label == "What a model made of it"]
    (found,), _ = evaluations.with_reports("images")
    read = evaluations.read_reports(found)
    assert not read.referenced
    for row in cases.rows(read, PAIRS, range(3), "images"):
        assert row.reference is None
        assert row.picture
        assert not any(piece.get("outcome") for cell in row.cells for piece in cell.pieces)
        assert not any(cell.missed or any(cell.counts.values()) for cell in row.cells)
    result = words_on(open_page("results", source="images"))
    assert "no reference reports, so there is nothing to score against" in result


def test_reports_of_studies_that_the_source_lacks_are_counted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("phantom:4000:0")
    known = list(source.ids("test")[:3])
    rows = [{"study_id": each, "reference": source.study(each).findings, PAIRS[0]: "Clear."} for each in known]
    rows.append({"study_id": "P999999-1", "reference": "Clear.", PAIRS[0]: "Clear."})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (here / "bundles" / "phantom-reports.jsonl").write_text(text, encoding="utf-8")
    (here / "bundles" / "phantom-results.json").write_text('{"family": "phantom", "rows": []}', encoding="utf-8")
    app = open_page("cases", source="phantom")
    assert "1 of the 4 studies in these reports is not among Synthetic X-rays with known truth" in words_on(app)
    assert "**3 studies**" in words_on(app)


def test_results_follow_the_source_and_offer_the_reports_that_do_not_come_along(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_openi(write_kaggle(here / "release"), here / "openi").folder
    monkeypatch.setenv("CXR_BUNDLES", str(BUNDLES))
    monkeypatch.setenv("CXR_SOURCES", str(index))
    app = open_page("results")
    assert "Evaluated on **Synthetic X-rays with known truth**: 400 studies." in words_on(app)
    assert not [each for each in app.button if each.key == "own_start"]
    app.pills(key="source_choice").set_value("openi").run()
    assert not app.exception
    assert "Evaluated on **Open-i**: 590 studies." in words_on(app)
    assert app.selectbox(key="run").value == "openi"
    (button,) = [each for each in app.button if each.key == "own_start"]
    assert "Write and score the reports of" in button.label
    assert "press the button there" in words_on(app)  # where the studies would be
    app.pills(key="source_choice").set_value("phantom").run()
    assert "Evaluated on **Synthetic X-rays with known truth**" in words_on(app)
    app.selectbox(key="run").set_value("openi").run()  # any evaluation can be looked at
    assert "Evaluated on **Open-i**" in words_on(app)
    assert [each.key for each in open_page("cases", source="openi").button if each.key == "own_start"]


@pytest.mark.parametrize("damage", ["{", '{"source": 1}', "[]", ""])
def test_a_damaged_evaluation_is_passed_over(here: Path, damage: str) -> None:
    folder = own.home() / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(damage, encoding="utf-8")
    assert own.evaluations() == []


def test_what_cannot_be_evaluated_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CXRLensError, match="Choose at least one model, file of reports or program"):
        ask(open_source("phantom:5:1"), [], BUNDLES)
    assert ask(open_source("phantom:5:1"), BundleLibrary(BUNDLES).cards(), BUNDLES).family == "openi, phantom"
    mine = asked("phantom:5:1")
    other = Asked(mine.source, mine.title, None, mine.bundles, mine.family, {PAIRS[0]: {"card.json": "0"}})
    with pytest.raises(CXRLensError, match="The bundles were changed meanwhile"):
        evaluate_source(other, ignore)
    index = films(here / "lost", 5)
    for path in (here / "lost" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CXRLensError, match="Of 5 studies none has an image that can be read"):
        evaluate_source(asked(str(index), pairs=PAIRS[:1]), ignore)
    (here / "file").write_text("x")
    monkeypatch.setenv("CXR_EVALUATIONS", str(here / "file" / "evaluations"))
    with pytest.raises(CXRLensError, match="Set CXR_EVALUATIONS to a folder"):
        EvaluationJob(mine)


def test_a_trait_of_everybody_alike_or_of_nobody_twice_divides_nothing() -> None:
    blank = dict.fromkeys(evaluations.OBSERVATIONS, LabelState.BLANK)
    ids = tuple(map(str, range(60)))
    found = evaluations.Evaluation(
        ids, ids, ("Clear.",) * 60, (blank,) * 60, {}, {},
        tuple({"Site": "one", "Number": each, "Ward": "AB"[int(each) % 2]} for each in ids),
    )  # fmt: skip
    ways = evaluations.divide(found)
    assert np.array_equal(ways["Ward"]["A"], np.arange(60) % 2 == 0)
    assert not {"Site", "Number"} & set(ways)
