"""Sessions read by synthetic readers, and what is exported of them: files that can be read alone, and a codebook."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pandas as pd
import pyarrow.parquet as pq
import pytest

from core.reviews import codebook
from core.reviews.analysis import analyse
from core.reviews.answers import Results, load_results
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.editing_design import NO_EDITING, Editing
from core.reviews.effects import differences
from core.reviews.export import export
from core.reviews.long_table import outcomes
from core.reviews.record import Record, load_record
from core.reviews.rehearsal import (
    OWNER,
    SYNTHETIC,
    Clock,
    World,
    copied,
    invented_cases,
    read_session,
    rehearse,
    world_of,
)
from core.reviews.rubrics import RUBRICS
from core.reviews.store import Actor, close_session, first_admin
from core.reviews.study_tables import tables_as_markdown
from core.types import CXRLensError
from tests.commands import refused, run
from tests.review_cases import (
    ANNA,
    RITA,
    ROOT_USER,
    all_events,
    cases,
    design,
    finish,
    screens_of,
    session,
    statements,
)

SIZES = {"report-quality": 5, "preference": 4, "explanation-helpfulness": 3, "observation-labels": 3}
SIZES |= dict.fromkeys(("acceptability", "preference-by-finding"), 3)
OTHERS = ("draft-editing", "error-correction", "image-quality", "radpeer", "turing-test")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Results, Record, Path]]:
    """By rubric: a rehearsal of two readers, when it happened, and its folder of files. Each is made once."""

    @cache
    def of(rubric: str) -> tuple[Results, Record, Path]:
        folder = tmp_path_factory.mktemp(rubric)
        results, record, _ = rehearsal(folder, rubric)
        export(results, analyse(results, resamples=100), folder / "out", record=record)
        return results, record, folder / "out"

    return of


def _items(rubric: str, question: str) -> tuple[str, ...]:
    return RUBRICS[rubric].find(question).items


def rehearsal(folder: Path, rubric: str, seed: int = 5) -> tuple[Results, Record, World]:
    clock = Clock()
    database = Database(folder / f"{seed}.sqlite", clock=clock)
    wanted = design(
        rubric=rubric,
        models=("system one", "system two") if RUBRICS[rubric].reports_per_screen else (),
        editing=Editing(("system one",)) if RUBRICS[rubric].edits else NO_EDITING,
    )
    wanted = replace(wanted, studies=replace(wanted.studies, count=SIZES.get(rubric, 3)), washout=2)
    wanted = wanted if RUBRICS[rubric].edits else replace(wanted, repeats=1)
    try:
        made, world = rehearse(database, clock, wanted, invented_cases(wanted, seed), 2, seed)
        owner = first_admin(database, OWNER)
        verify(database)
        return load_results(database, owner, made), load_record(database, owner, made), world
    finally:
        database.close()


def rows_of(folder: Path, name: str) -> list[dict[str, object]]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))[name]


class Tables(HTMLParser):
    """The tables of a page, as rows of texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data


# ------------------------------------------------------------------------------------------------------ the codebook


@pytest.mark.parametrize("rubric", SIZES)
def test_every_file_is_read_with_its_codebook(
    rubric: str, rehearsed: Callable[[str], tuple[Results, Record, Path]]
) -> None:
    folder = rehearsed(rubric)[2]
    schema = json.loads((folder / "codebook.schema.json").read_text(encoding="utf-8"))
    words = (folder / "codebook.md").read_text(encoding="utf-8")
    jsonschema.Draft202012Validator.check_schema(schema)
    names = {path.stem for path in folder.glob("*.parquet")}
    absent = set() if RUBRICS[rubric].edits else {"edits"}  # a table of what other sessions do not have
    assert names == set(schema["$defs"]) == set(codebook.TABLES) - absent
    for name in names:
        content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.validate(content, {**schema, "oneOf": [{"$ref": f"#/$defs/{name}"}]})
        columns = schema["$defs"][name]["properties"][name]["items"]["properties"]
        assert list(pd.read_csv(folder / f"{name}.csv", skiprows=1, nrows=0)) == list(columns)
        assert pq.read_schema(folder / f"{name}.parquet").names == list(columns)
        part = words.split(f"## {name}\n")[1].split("\n## ")[0]
        told = dict(re.findall(r"^\| `(\w+)` \| [\w ]+ \| (.+) \|$", part, re.MULTILINE))
        assert list(told) == list(columns)
        assert all(len(meaning) > 10 and columns[name]["description"] for name, meaning in told.items())
    figures = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))["analysis"]
    assert set(figures) == set(codebook.FIGURES)
    assert all(f"`{part}`" in words for part in figures)


def test_a_column_that_the_codebook_does_not_know_or_a_wrong_value_is_noticed(
    rehearsed: Callable[[str], tuple[Results, Record, Path]],
) -> None:
    results, _, folder = rehearsed("report-quality")
    with pytest.raises(KeyError, match="colour"):
        codebook.columns_of("marks", results.marks.assign(colour="red"))
    schema = json.loads((folder / "codebook.schema.json").read_text(encoding="utf-8"))
    content = json.loads((folder / "screens.json").read_text(encoding="utf-8"))
    for planted in ({"seconds": "ten"}, {"opened_at": "yesterday"}, {"more": 1}):
        wrong = {**content, "screens": [{**content["screens"][0], **planted}]}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, {**schema, "oneOf": [{"$ref": "#/$defs/screens"}]})


# ------------------------------------------------------------------------------------------------ files read alone


@pytest.mark.parametrize("rubric", ["report-quality", "explanation-helpfulness"])
def test_marks_have_their_words_and_every_text_that_was_shown_is_there(
    rubric: str, rehearsed: Callable[[str], tuple[Results, Record, Path]]
) -> None:
    _, _, folder = rehearsed(rubric)
    text_of = {(row["study"], row["model"]): str(row["text"]) for row in rows_of(folder, "reports")}
    screens, marks = rows_of(folder, "screens"), rows_of(folder, "marks")
    assert all((row["study"], model) in text_of for row in screens for _, model in row["shown"])  # type: ignore[attr-defined]
    spans = 0
    for mark in marks:
        start, end = mark["value"].get("span", (0, 0))  # type: ignore[attr-defined]
        assert mark["words"] == text_of[mark["study"], mark["model"]][start:end]
        spans += end > start
    assert spans > 3
    answers = rows_of(folder, "answers")
    if rubric == "explanation-helpfulness":
        assert all(row["asked"][1:-1] in text_of[row["study"], row["model"]] for row in answers)  # type: ignore[index]
        assert {row["answered"] for row in answers} <= {"supports", "partly supports", "does not support"}
    assert all(row["number"] == row["value"] and row["seconds"] > 0 for row in answers)  # type: ignore[operator]


def test_dates_are_those_of_the_events_and_rise_as_it_was_read(
    rehearsed: Callable[[str], tuple[Results, Record, Path]],
) -> None:
    _, record, folder = rehearsed("report-quality")
    screens = {row["screen"]: row for row in rows_of(folder, "screens")}
    assert record.created[:10] == record.closed[:10] == "2026-01-05"
    for row in screens.values():
        assert str(record.created) <= str(row["opened_at"]) <= str(row["finished_at"]) <= record.closed
    for mark in rows_of(folder, "marks"):
        screen = screens[mark["screen"]]
        assert str(screen["opened_at"]) <= str(mark["date"]) <= str(screen["finished_at"])
    done = sorted(screens.values(), key=lambda row: int(str(row["finished"])))
    assert [row["finished_at"] for row in done] == sorted(str(row["finished_at"]) for row in done)


def test_a_screen_that_is_taken_up_again_has_no_date_of_finishing(database: Database, trial: str) -> None:
    from core.reviews.store import annotate, open_screen

    one, other = screens_of(database, "anna", trial)[:2]
    for screen in (one, other):
        open_screen(database, ANNA, screen)
        annotate(database, ANNA, screen, key=f"{screen}1", version=1, state="done")
    annotate(database, ANNA, other, key="again", version=2, state="pending")
    with pytest.raises(CXRLensError, match="closed"):  # nobody learns before what is being marked
        load_record(database, RITA, trial)
    with pytest.raises(CXRLensError, match="for: researcher, admin"):
        load_record(database, ANNA, trial)
    close_session(database, RITA, trial)
    record = load_record(database, RITA, trial)
    assert set(record.opened) == {one, other}
    assert set(record.finished) == {one}


# ---------------------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize("rubric", SIZES)
def test_the_page_has_charts_titles_and_no_rows_of_zeros(
    rubric: str, rehearsed: Callable[[str], tuple[Results, Record, Path]]
) -> None:
    results, _, folder = rehearsed(rubric)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    tables = Tables(page).tables
    assert tables and all(len(row) == len(table[0]) for table in tables for row in table)
    for table in tables:
        for row in table[1:]:
            told = [cell for cell in row[1:] if cell not in ("–", "")]
            assert any(re.search(r"[1-9a-z]", cell) for cell in told), row
    if results.rubric.mark != "label":
        assert page.count("<svg") >= 2
        assert "Tests between systems" in page
    compared = differences(results)
    assert {row.outcome for row in compared} == {
        "report-quality": {"errors", "seconds"},
        "preference": {"preference"},
        "explanation-helpfulness": {"support", "seconds"},
        "observation-labels": set(),
        "acceptability": {"acceptable", "clarity", "invented", "seconds"},
        "preference-by-finding": {
            "overall",
            *(f"better: {item}" for item in _items("preference-by-finding", "better")),
        },
    }[rubric]
    assert all(0 < row.p <= row.p_adjusted <= 1 for row in compared)
    assert all(row.estimate.low <= row.estimate.value <= row.estimate.high for row in compared)


def test_the_page_calls_systems_by_their_titles(tmp_path: Path, database: Database) -> None:
    names = ("phantom-fve-m2", "reference")
    pool = [replace(case, reports=dict.fromkeys(names, "The lungs are clear.")) for case in cases(2)]
    from core.reviews.store import create_session

    made = create_session(database, RITA, design(), pool)
    close_session(database, RITA, made)
    results = load_results(database, RITA, made)
    export(results, analyse(results, resamples=100), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert ["FVE + M2", "phantom-fve-m2"] in Tables(page).tables[0]
    assert ["Reference report", "reference"] in Tables(page).tables[0]
    assert page.count("phantom-fve-m2") == 1  # nowhere else


def test_readers_who_always_mark_the_same_have_files_too(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = session(database, 2)
    for who, errors in ((ANNA, 1), (Actor("boris", "reader"), 2)):
        for screen in screens_of(database, who.name, trial):
            finish(database, who, screen, errors)
    close_session(database, RITA, trial)
    results = load_results(database, RITA, trial)
    analysis, compared = analyse(results, resamples=100), differences(results)
    files = export(results, analysis, tmp_path / "fitted")
    ratios = [row.estimate.value for row in compared]
    assert ratios == pytest.approx([1, 1, 1], abs=1e-3)  # no system has more errors than another
    monkeypatch.setattr("core.reviews.effects.model_of", lambda outcome: pytest.fail("fitted once more"))
    again = export(results, analysis, tmp_path / "given", compared=compared)
    assert {each.name: each.read_bytes() for each in again} == {each.name: each.read_bytes() for each in files}
    tables = tables_as_markdown(results, analysis, compared, Record())
    assert all(row.first in tables and "Tests between systems" in tables for row in compared)


# --------------------------------------------------------------------------------------------------------- rehearsal


def told(results: Results) -> tuple[list[object], list[object]]:
    """What was answered and shown, without the ids of the session, which are new each time."""
    screens = results.screens.drop(columns=["screen"])
    return results.answers.drop(columns=["screen"]).values.tolist(), screens.values.tolist()


def test_a_rehearsal_is_the_same_with_the_same_seed_and_knows_what_is_true(
    tmp_path: Path, rehearsed: Callable[[str], tuple[Results, Record, Path]]
) -> None:
    results, record, _ = rehearsed("report-quality")
    again, other_record, world = rehearsal(tmp_path, "report-quality")
    assert told(again) == told(results)
    assert (record.created, record.closed) == (other_record.created, other_record.closed)
    assert repr(analyse(again, resamples=100)) == repr(analyse(results, resamples=100))
    other = world_of(design(), invented_cases(design(), 6), ("anna",), 6)
    assert world.systems != other.systems
    # Readers agree as they see the same errors, and differ as each misses some.
    errors = next(row for row in analyse(results, resamples=100).agreement if row.question == "all kinds")
    assert 0.2 < errors.alpha.value < 1
    assert {each.name for each in outcomes(results)} == {"errors", "seconds"}


def test_a_rehearsal_shows_every_table(rehearsed: Callable[[str], tuple[Results, Record, Path]]) -> None:
    results, _, _ = rehearsed("report-quality")
    found = analyse(results, resamples=100)
    assert found.errors and found.agreement and found.self_agreement and found.drift and found.disputed
    assert all(reader.startswith(SYNTHETIC) for reader in results.screens["reader"])
    assert results.screens["adjudication"].any()


@pytest.mark.parametrize("rubric", OTHERS)
def test_every_rubric_can_be_rehearsed_and_its_files_read(
    rubric: str, rehearsed: Callable[[str], tuple[Results, Record, Path]]
) -> None:
    results, _, folder = rehearsed(rubric)
    test_every_file_is_read_with_its_codebook(rubric, rehearsed)
    asked = {label.split(":")[0].split(" ")[0] for label in results.answers["question"]}
    wanted = {
        each.id
        for each in RUBRICS[rubric].questions
        if each.kind not in ("text", "replacement", "edit") and each.of != "finding"
    }
    assert asked == wanted
    assert set(OTHERS) | set(SIZES) == set(RUBRICS)
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_time_limit_leaves_screens_unread(tmp_path: Path) -> None:
    clock = Clock()
    database = Database(tmp_path / "r.sqlite", clock=clock)
    wanted = design(minutes=1)
    try:
        made, _ = rehearse(database, clock, wanted, cases(4), 1, 0)
        results = load_results(database, first_admin(database, OWNER), made)
    finally:
        database.close()
    assert 0 < (results.screens["state"] == "pending").sum() < len(results.screens)
    assert "were not finished" in results.warnings[0]


def test_screens_that_are_read_already_are_not_asked_for_one_by_one(tmp_path: Path) -> None:
    def asked(size: int) -> int:
        clock = Clock()
        database = Database(tmp_path / f"{size}.sqlite", clock=clock)
        pool = cases(size, ("pair-one", "pair-two"))
        made, world = rehearse(database, clock, design(rubric="preference"), pool, 1, 0)
        with statements(database) as found:
            read_session(database, first_admin(database, OWNER), made, world, clock)
        database.close()
        return len(found)

    assert asked(1) == asked(20)


def test_nothing_is_written_into_a_session_of_people(database: Database, trial: str) -> None:
    before = all_events(database)
    with pytest.raises(CXRLensError, match="2 readers of this session are people"):
        read_session(database, RITA, trial, World(0, {}, {}), Clock())
    assert all_events(database) == before


def test_a_copy_is_read_elsewhere_and_the_session_stays_as_it_is(database: Database, tmp_path: Path) -> None:
    trial = session(database, 4)
    before = all_events(database)
    wanted, pool = copied(database, RITA, trial)
    clock = Clock()
    other = Database(tmp_path / "copy.sqlite", clock=clock)
    try:
        made, _ = rehearse(other, clock, wanted, pool, 3, 0)
        results = load_results(other, first_admin(other, OWNER), made)
    finally:
        other.close()
    assert all_events(database) == before
    assert set(results.screens["study"]) == {case.study_id for case in cases(4)}
    assert results.reports == {case.study_id: case.reports for case in cases(4)}
    assert results.screens[~results.screens["adjudication"]]["reader"].nunique() == 3


def test_who_reads_a_session_learns_nothing_by_rehearsing_it(database: Database) -> None:
    trial = session(database, 2, readers=("anna", "root"))
    with pytest.raises(CXRLensError, match="You read these studies"):
        copied(database, ROOT_USER, trial)
    with pytest.raises(CXRLensError, match="for: researcher, admin"):
        copied(database, ANNA, trial)
    with pytest.raises(CXRLensError, match="There is no session"):
        copied(database, Actor("ralf", "researcher"), trial)
    close_session(database, RITA, trial)
    assert copied(database, ROOT_USER, trial)[0].title == "Trial"


# --------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with a database of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXR_REVIEWS", str(tmp_path / "reviews.sqlite"))
    yield tmp_path


def write_design(folder: Path, **values: object) -> Path:
    about: Mapping[str, object] = {"title": "T", "rubric": "report-quality", "readers": ["anna", "boris"], **values}
    lines = [f"{name} = {json.dumps(value)}" for name, value in about.items()]
    (folder / "design.toml").write_text("\n".join([*lines, "[studies]", "count = 4"]), encoding="utf-8")
    return folder / "design.toml"


def test_a_design_is_rehearsed_and_its_power_told_by_command(here: Path) -> None:
    made = run("review", "simulate", write_design(here, models=["a", "b"]), "--readers", 2, "--out", "out")
    assert made.exit_code == 0, made.output
    world = json.loads((here / "out" / "rehearsal.json").read_text(encoding="utf-8"))
    assert len(world["readers"]) == 3 and set(world["systems"]) == {"a", "b"}
    assert not (here / "reviews.sqlite").exists()
    again = refused("review", "simulate", here / "design.toml", "--out", "out")
    assert "is there already" in again
    planned = ("review", "power", world["session"], "--database", "out/rehearsal.sqlite", "--as", OWNER)
    found = run(*planned, "--change", "-30%", "--simulations", 20, "--readers", 2, "--cases", 4, "--cases", 8)
    assert found.exit_code == 0, found.output
    rows = re.findall(
        r"With 2 readers and (\d) cases it is found in (\d+)% of studies \((\d+)% to (\d+)%\)", found.stdout
    )
    assert [row[0] for row in rows] == ["4", "8"]
    assert all(int(low) <= int(share) <= int(high) for _, share, low, high in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--change", "ten"), "is no number"),
        (("--change", "0.1"), "is a percentage, as -10%"),
        (("--change", "-100%"), "above -100 %"),
        (("--change", "-10%", "--of", "beauty"), "no numbers called 'beauty'. It has: errors, seconds"),
        (("--change", "-10%", "--margin", "-5%"), "A margin is above 0"),
        (("--change", "-10%", "--readers", "1"), "at least 2 readers"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(
    options: tuple[str, ...], message: str, rehearsed: Callable[[str], tuple[Results, Record, Path]]
) -> None:
    results, _, folder = rehearsed("report-quality")
    database = next(folder.parent.glob("*.sqlite"))
    said = refused(
        "review", "power", results.session_id, "--database", database, "--as", OWNER, *options, "--simulations", 20
    )
    assert message in said


def test_systems_are_compared_by_command_as_on_the_page(
    rehearsed: Callable[[str], tuple[Results, Record, Path]],
) -> None:
    results, _, folder = rehearsed("report-quality")
    options = ("--database", next(folder.parent.glob("*.sqlite")), "--as", OWNER)
    rows = json.loads(run("review", "compare", results.session_id, *options, "--json").stdout)
    page = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))["analysis"]["differences"]
    assert rows == page and len(rows) == 2
    (seconds,) = (row for row in rows if row["outcome"] == "seconds")
    wide = run("review", "compare", results.session_id, *options, "--of", "seconds", "--margin", "900%")
    narrow = run("review", "compare", results.session_id, *options, "--of", "seconds", "--margin", "0.1%", "--json")
    assert wide.stdout.count(": shown") == 2
    shown = json.loads(narrow.stdout)
    assert [row["shown"] for row in shown] == [
        seconds["estimate"]["high"] < 1.001,
        1 / seconds["estimate"]["low"] < 1.001,
    ]
    assert shown[0]["limit"] == pytest.approx(seconds["estimate"]["high"])
    for wrong, message in (
        (("--margin", "10%"), "goes with --of"),
        (("--of", "errors", "--margin", "0.1"), "is a percentage"),
        (("--of", "beauty", "--margin", "1%"), "no numbers called"),
    ):
        assert message in refused("review", "compare", results.session_id, *options, *wrong)


def test_a_design_that_does_not_fit_leaves_nothing_behind(here: Path) -> None:
    said = refused("review", "simulate", write_design(here, repeats=9, models=["a"]), "--out", "out")
    assert "repeats: 9 are asked" in said
    assert not list((here / "out").iterdir())
