"""Systems on the pages: a file given there, evaluated with pairs and a program, in Cases, Results, Read and Review."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.evaluation import results
from core.studies.sources import open_source
from core.systems import added
from core.systems.program import read_command
from core.types import CXRLensError
from dashboard.services import cases, evaluations, systems
from dashboard.services import own as jobs
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.systems_files import program, write_csv

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


def wait_for(name: str) -> None:
    until = time.monotonic() + 180
    while jobs.under_way(name) is not None:
        assert time.monotonic() < until
        time.sleep(0.05)


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
    assert "Add a file of reports" in [each.label for each in app.get("popover")] or "Theirs" in words_on(app) + str(
        [each.options for each in app.multiselect]
    )


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
    button.click().run()
    assert not app.exception
    wait_for(name)
    assert jobs.failures(name) == []

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

    for view in ("Table 1", "By observation", "Slices", "Two models", "Runs and seeds"):
        result = open_page("results", source=name, view=view)
        assert not result.error, view
    result = open_page("results", source=name, view="Two models", first="Exact", second="Prog")
    assert "Difference in macro F1: **Exact +" in words_on(result)
    assert "Best by Macro F1: **Exact**" in words_on(open_page("results", source=name))

    study = source.ids("test")[0]
    page = open_page("read", source=name, study=study, beside_pairs=["Exact", "Prog"])
    assert page.session_state["beside_pairs"] == ["Exact", "Prog"]
    assert not page.error
    assert not [each for each in page.button if each.label == "Write with Prog"]  # it was written before
    other = source.ids("train")[0]
    assert systems.text_of(added.system("Prog"), evaluations.sources.st and _case(name, other)) is None


def _case(name: str, study_id: str):  # type: ignore[no-untyped-def]
    from dashboard.services.studies import open_study

    return open_study(study_id, name)


def test_a_program_writes_on_the_read_page_when_it_is_asked_to(here: Path) -> None:
    name = few()
    added.add_program("Prog", read_command(program(here, f'"{NORMAL}"'), here))
    app = open_page("read", source=name, beside_pairs=["Prog"])
    (button,) = [each for each in app.button if each.label == "Write with Prog"]
    assert "nobody knows how long it takes" in words_on(app)
    button.click().run()
    assert not app.exception
    assert not [each for each in app.button if each.label == "Write with Prog"]
    assert systems.text_of(added.system("Prog"), _case(name, app.session_state["study"])) == NORMAL


def test_an_evaluation_with_a_system_that_was_not_written_by_a_pair_is_not_damaged(here: Path) -> None:
    folder = here / "runs" / "theirs"
    folder.mkdir(parents=True)
    row = {"name": "Theirs", "title": "Their model", "kind": "file of reports", "group": "Elsewhere", "f1": 0.5}
    (folder / "results.json").write_text(json.dumps({"family": "phantom", "rows": [row]}), encoding="utf-8")
    import os

    os.environ["CXR_RUNS"] = str(here / "runs")
    try:
        found, damaged = evaluations.result_sets()
    finally:
        del os.environ["CXR_RUNS"]
    assert not damaged
    assert found["runs/theirs"].titles == {"Theirs": "Their model"}
