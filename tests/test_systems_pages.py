"""Systems on the pages: a file given there, evaluated with pairs and a program, in Cases, Results, Read and Review."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from core.evaluation import own, results
from core.reviews.database import Database
from core.reviews.store import Actor, list_screens, list_sessions, open_screen
from core.studies.sources import open_source
from core.systems import added
from core.systems.pairs import pairs
from core.systems.program import read_command
from core.types import CXRLensError
from dashboard.services import cases, evaluations, outside, systems
from dashboard.services import own as jobs
from dashboard.services.studies import open_study
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.conftest import ROOT
from tests.review_cases import ANNA, open_app_page
from tests.systems_files import program, write_csv
from training.cli import app

pytestmark = [needs_bundles, pytest.mark.numeric]

PAIR = "phantom-dve-cnn_rnn_rnn"
SOURCE = "phantom:4000:0"
NORMAL = "The lungs are clear. The heart is normal in size."


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of this test alone, with one bundle and few phantoms beside those that it learned from."""
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.setenv("CXR_SYSTEMS", str(tmp_path / "systems"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", PAIR)))
    monkeypatch.setenv("CXR_SOURCES", "phantom:60:5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.java, "missing", lambda: "METEOR is left out here.")
    jobs._jobs().clear()
    return tmp_path


def few() -> str:
    """Short name of the source of few phantoms."""
    return next(name for name in evaluations.sources.names() if name not in ("phantom", "example", "upload"))


def reports_of(path: Path, spec: str, *, every: int = 1) -> Path:
    source = open_source(spec)
    rows = [[study.findings, study.study_id] for study in source.studies("test")[::every]]
    return write_csv(path, ("report", "dicom_id"), rows)


def test_a_file_that_is_given_on_a_page_is_added_and_counted(here: Path) -> None:
    name = few()
    path = reports_of(here / "theirs.csv", "phantom:60:5", every=2)
    system, found = systems.add_upload("Theirs", "theirs.csv", path.read_bytes())
    assert (system.title, found.text_column) == ("Theirs", "report")
    (told,) = systems.reports_of(system, name).told
    assert told.startswith(f"Theirs: {len(found.rows)} reports, of {len(found.rows)} of the 60 studies.")
    with pytest.raises(CXRLensError, match="which column holds the reports"):
        systems.add_upload("Other", "other.csv", b"id,one,two\n1,x,y\n")
    with pytest.raises(CXRLensError, match="is taken"):
        systems.add_upload(PAIR, "other.csv", b"id,report\n1,x\n")
    app = open_page("cases", source=name)
    assert "Column of reports" in [each.label for each in app.text_input]
    assert ["Theirs"] in [each.options for each in app.multiselect]


def test_a_file_and_a_program_stand_beside_a_pair_on_every_page(here: Path) -> None:
    name = few()
    added.add_file("Exact", reports_of(here / "exact.csv", "phantom:60:5"))
    added.add_program("Prog", read_command(program(here, f'"{NORMAL}"'), here))
    source = evaluations.sources.source(name)
    count = len(source.ids("test"))

    app = open_page("cases", source=name)
    app.multiselect(key=f"own_others_{name}_Reports from elsewhere").set_value(["Exact", "Prog"]).run()
    assert "Prog is a program that has not run yet" in words_on(app)
    (button,) = [each for each in app.button if each.key == "own_start"]
    assert button.label.endswith("with this model and Exact and Prog")
    # What the button begins, in this process: another one would load everything anew.
    chosen = [added.system(each) for each in ("Exact", "Prog")]
    cards = list(evaluations.bundles.cards("phantom").values())
    split = jobs.studies.shown_split(source)
    own.evaluate_source(own.ask(source, cards, here / "bundles", split, chosen), lambda share, what: None)

    app = open_page("cases", source=name)
    (found,) = evaluations.with_reports(name)[0]
    assert set(found.rows) == {PAIR, "Exact", "Prog"}
    assert list(evaluations.groups_of(found, found.rows)) == ["Models for synthetic X-rays", "Reports from elsewhere"]
    assert f"**{count} studies**" in words_on(app)
    assert app.multiselect(key=cases.group_key(cases.KEYS["pairs"], 1)).value == ["Exact", "Prog"]
    read = evaluations.read_reports(found)
    assert set(read.texts["Prog"]) == {NORMAL}
    shown = cases.rows(read, ["Exact", "Prog"], range(3), name)
    assert not any(cell.missed for cell in (row.cells[0] for row in shown))

    address = cases.address(found, ["Exact"])
    app = open_page("cases", **address)
    assert app.multiselect(key=cases.group_key(cases.KEYS["pairs"], 1)).value == ["Exact"]
    assert app.multiselect(key=cases.KEYS["pairs"]).value == []

    scores = write_csv(
        here / "green.csv",
        ("study", "system", "GREEN"),
        [[each, who, str(value)] for each in read.study_ids for who, value in (("Exact", 1), ("Prog", 0.5), ("?", 1))],
    )
    outside.add(found, "green.csv", scores.read_bytes())
    with pytest.raises(CXRLensError, match="no column 'study'"):
        outside.add(found, "wrong.csv", b"a,b\n1,2\n")
    other = open_page("results", source=name, view="Other metrics")
    assert "there is no system '?' here" in words_on(other)
    assert next(list(each.value.iloc[:, 0]) for each in other.dataframe) == ["Exact", "Prog"]
    assert [each.value["Difference"].tolist() for each in other.dataframe if "Difference" in each.value] == [[0.5]]
    for view in ("By observation", "Slices", "Runs and seeds"):
        result = open_page("results", source=name, view=view)
        assert not result.error, view
    result = open_page("results", source=name, view="Two models", first="Exact", second="Prog")
    assert ": **Exact +" in words_on(result)
    assert "Highest Macro F1: **Exact**" in words_on(open_page("results", source=name))

    study = source.ids("test")[0]
    page = open_page("read", source=name, study=study, beside_pairs=["Exact", "Prog"])
    assert page.session_state["beside_pairs"] == ["Exact", "Prog"]
    assert not page.error
    assert not [each for each in page.button if each.label == "Write with Prog"]  # it was written before
    other = source.ids("train")[0]
    assert systems.text_of(added.system("Prog"), open_study(other, name)) is None


def test_a_program_writes_on_the_read_page_when_it_is_asked_to(here: Path) -> None:
    name = few()
    added.add_program("Prog", read_command(program(here, f'"{NORMAL}"'), here))
    app = open_page("read", source=name, beside_pairs=["Prog"])
    (button,) = [each for each in app.button if each.label == "Write with Prog"]
    assert "nobody knows how long it takes" in words_on(app)
    button.click().run()
    assert not app.exception
    assert not [each for each in app.button if each.label == "Write with Prog"]
    case = open_study(app.session_state["study"], name)
    assert systems.text_of(added.system("Prog"), case) == NORMAL

    # Of a region too: by the image's size on disk it tells the covered one from the other.
    sized = 'f"Clear. {size}"'
    added.add_program("Sized", read_command(program(here / "sized", sized), here))
    region = "0.2,0.2,0.8,0.8"
    app = open_page("read", source=name, study=case.title, beside_pairs=["Sized"], region=region)
    press = {each.label: each for each in app.button}
    press["Write with Sized"].click().run()
    press = {each.label: each for each in app.button}
    press["Write again with the area covered: Sized"].click().run()
    assert not app.exception
    assert "Write again with the area covered: Sized" not in {each.label for each in app.button}
    changed = systems.known_without(added.system("Sized"), case, (0.2, 0.2, 0.8, 0.8), "blank")
    assert [kind for kind, _ in changed["difference"]] == ["same", "removed", "added"]


def test_a_finding_of_a_program_is_asked_for_its_place_at_a_price_that_is_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = few()
    # It reports an effusion unless most of a place in the lower right, of rows 5 and columns 6 of 8, has one grey.
    looks = """
import numpy as np
from PIL import Image

def report(path):
    pixels = np.asarray(Image.open(path))
    height, width = pixels.shape
    place = pixels[5 * height // 8 : 6 * height // 8, 6 * width // 8 : 7 * width // 8]
    covered = np.bincount(place.ravel()).max() > place.size / 2
    return "No pleural effusion." if covered else "There is a left pleural effusion."
"""
    uneven = "report(os.path.join(images, case['image_path'][0]))"
    added.add_program("Looks", read_command(program(here, uneven, looks), here))
    drawn: list[dict[str, object]] = []
    monkeypatch.setattr(
        "dashboard.components.report.report_cards", lambda cards, **more: drawn.append({**more, "cards": cards})
    )
    app = open_page("read", source=name, beside_pairs=["Looks"])
    {each.label: each for each in app.button}["Write with Looks"].click().run()
    study = app.session_state["study"]
    assert [each["asked"] for each in drawn[-1]["cards"] if each["name"] == "Looks"] == [True]

    asked = {"source": name, "study": study, "beside_pairs": ["Looks"], "asked": "Looks"}
    app = open_page("read", **asked, mention="Pleural Effusion")
    assert drawn[-1]["asked"] == {"pair": "Looks", "kind": "finding", "which": "Pleural Effusion"}
    assert "Where **Pleural Effusion** comes from · Looks" in words_on(app)
    assert "so those copies take about" in words_on(app)
    (method,) = [each for each in app.selectbox if each.label == "Method"]
    assert method.options == ["Occlusion", "Random masks (RISE)"]
    {each.label: each for each in app.button}["Write 49 reports and compare"].click().run()
    assert not app.exception and not app.error
    found = systems.known_place(added.system("Looks"), open_study(study, name), "Pleural Effusion", "occlusion")
    assert found is not None
    assert found[5, 6] == 1.0 and found[:, :5].max() == found[:4].max() == 0.0
    assert "Write 49 reports and compare" not in [each.label for each in app.button]

    for observation in ("Edema", "nonsense"):  # it does not speak of these
        assert "The address asks where a finding of Looks comes from" in words_on(
            open_page("read", **asked, mention=observation)
        )
    {each.label: each for each in app.button if each.key == "close"}["Close"].click().run()
    assert "Where **Pleural Effusion** comes from" not in words_on(app)


def test_an_evaluation_of_a_system_that_is_no_pair_is_not_damaged(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "runs" / "theirs"
    folder.mkdir(parents=True)
    row = {"name": "Theirs", "title": "Their model", "kind": "file of reports", "group": "Elsewhere", "f1": 0.5}
    (folder / "results.json").write_text(json.dumps({"family": "phantom", "rows": [row]}), encoding="utf-8")
    monkeypatch.setenv("CXR_RUNS", str(here / "runs"))
    found, damaged = evaluations.result_sets()
    assert not damaged
    assert found["runs/theirs"].titles == {"Theirs": "Their model"}


def test_a_blinded_session_of_three_files_and_the_reference_is_made_on_the_page(here: Path, database: Database) -> None:
    source = open_source("phantom:60:5")
    studies = source.studies("test")
    for number, name in enumerate(("Alpha", "Beta", "Gamma")):
        rows = [[each.study_id, f"{NORMAL} {number}"] for each in studies[number:]]  # each lacks others' first studies
        added.add_file(name, write_csv(here / f"{name}.csv", ("study_id", "report"), rows))
    app = open_app_page("review", reader="root")
    app.segmented_control(key="review_view").set_value("New session").run()
    app.text_input(key="design-title").input("Outside").run()
    app.multiselect(key="design-readers").set_value(["anna"]).run()
    app.selectbox(key="design-source").set_value(source.key).run()
    app.number_input(key="design-count").set_value(2).run()
    models = next(each for each in app.multiselect if str(each.key).startswith("design-models"))
    models.set_value(["reference"]).run()
    others = next(each for each in app.multiselect if str(each.key).startswith("design-others"))
    assert others.options == ["Alpha", "Beta", "Gamma"]
    others.set_value(["Alpha", "Beta", "Gamma"]).run()
    next(each for each in app.button if each.label == "Make the session").click().run()
    assert not app.exception
    assert not app.error, [each.value for each in app.error]
    (info,) = list_sessions(database, Actor("root", "admin"))
    assert info.screens == 2 * 4
    seen = set()
    for screen, _, _ in list_screens(database, ANNA, info.id):
        shown = open_screen(database, ANNA, screen)
        assert not any(name in str(shown) for name in ("Alpha", "Beta", "Gamma", "reference"))
        seen |= {(shown.study_id, text) for _, text in shown.reports}
    read = {study for study, _ in seen}
    assert len(read) == 2
    assert not read & {each.study_id for each in studies[:2]}  # of these one has no report
    for study in read:
        assert {text for each, text in seen if each == study} == {
            *(f"{NORMAL} {number}" for number in range(3)),
            source.study(study).findings,
        }


def write_films(folder: Path, count: int) -> Path:
    """Images of grey noise, as files named by study."""
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 255, (96, 80), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"F{number}.png")
    return folder


def test_a_pair_answers_as_the_leaderboard_asks(here: Path) -> None:
    films = write_films(here / "films", 2)
    asked = {
        "one": {"image_path": ["/F0.png"], "key_image_path": "F0.png", "context": "Age: 60."},
        "two": {"image_path": ["F1.png", "F0.png"]},
        "gone": {"image_path": ["F9.png"]},
        "none": {"image_path": []},
    }
    (here / "cases.json").write_text(json.dumps(asked), encoding="utf-8")
    words = ["rexrank", "cases.json", "out.json", "films", "--bundle", PAIR, "--bundles", str(here / "bundles")]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert "case gone has no report" in told.output
    assert "case none has no report: it names no image" in told.output
    answer = json.loads((here / "out.json").read_text(encoding="utf-8"))
    assert answer.keys() == asked.keys()
    assert answer["one"]["context"] == "Age: 60."
    pair = next(each for each in pairs(here / "bundles") if each.name == PAIR)
    own_words = pair.reports(open_source(str(films)), ["F0", "F1"]).texts
    assert [answer[name]["model_prediction"] for name in asked] == [own_words["F0"], own_words["F1"], "", ""]
    for content, message in (("[]", "holds no cases"), ("{", "cannot be read as JSON"), ('{"a": 1}', "holds no cases")):
        (here / "cases.json").write_text(content, encoding="utf-8")
        assert message in str(CliRunner().invoke(app, words).exception)


@pytest.mark.slow  # a process that loads a model; both halves are tested above and in tests/test_systems.py
def test_a_pair_as_a_program_writes_what_it_writes_as_a_pair(here: Path) -> None:
    films = open_source(str(write_films(here / "films", 3)))
    run = f'"{sys.executable}" -m training.cli rexrank {{input}} {{output}} {{images}} --bundle {PAIR}'
    system = added.add_program("Ours", read_command(f"{run} --bundles {here / 'bundles'}", ROOT))
    pair = next(each for each in pairs(here / "bundles") if each.name == PAIR)
    assert dict(system.reports(films, films.ids("test")).texts) == dict(pair.reports(films, films.ids("test")).texts)
