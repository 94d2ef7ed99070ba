"""Practice cases, changes on the record, the sheet for pre-registration, the size of a session, tabs that agree."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.config import to_dict
from core.registry import ENCODERS, encoder_parts
from core.reviews.adjudication import adjudicate
from core.reviews.amendments import amend, amendments
from core.reviews.analysis import analyse
from core.reviews.answers import load_results
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.design import Case, Choice, Design, image_sha256, read_design
from core.reviews.export import export
from core.reviews.practice import Practice
from core.reviews.progress import session_progress
from core.reviews.record import load_record
from core.reviews.registration import design_hash, sheet
from core.reviews.rehearsal import copied
from core.reviews.rubrics import Mark, ReviewError
from core.reviews.size import screens_each, size_in_words, usual_seconds
from core.reviews.sources import name_phantoms, open_source, session_image
from core.reviews.store import (
    ConflictError,
    NotAllowedError,
    annotate,
    close_session,
    create_session,
    list_screens,
    list_sessions,
    next_screen,
    progress,
    read_screen,
    remove_mark,
    save_mark,
    spend,
    unblind,
    undo,
)
from dashboard.reviews import pictures
from dashboard.reviews.reading import respond
from dashboard.services.bundles import card_named
from tests.app_pages import needs_bundles, words_on
from tests.commands import refused, run
from tests.review_cases import (
    ANNA,
    BORIS,
    RALF,
    RITA,
    ROOT_USER,
    TEXTS,
    all_events,
    answer,
    cases,
    design,
    error,
    finish,
    name_on,
    open_app_page,
    screens_of,
    session,
)

# --------------------------------------------------------------------------------------------------------- practice

PRACTICE = (
    Practice("s001", ("pair-one",), ("omission = 1", "all kinds = 1"), "The effusion on the left is missing."),
    Practice("s004", ("reference",), ("all kinds = 0",)),
)


@pytest.fixture
def practised(database: Database) -> str:
    """A session of five cases, two of them for practice."""
    return session(database, 5, practice=PRACTICE)


def done(database: Database, screen: str, who: Any = ANNA) -> None:
    version = read_screen(database, who, screen).version
    annotate(database, who, screen, key=f"{screen}-done", version=version, state="done")


def test_practice_comes_first_and_is_told_what_was_expected(database: Database, practised: str) -> None:
    screens = [each for each, _, _ in list_screens(database, ANNA, practised)]
    assert len(screens) == 2 + 3 * 3
    assert next_screen(database, ANNA, practised) == screens[0]
    first = respond(database, ANNA, practised, None)
    view = first["screens"][first["at"]]
    assert first["practice"] == 2 and view["practice"] and view["feedback"] is None and view["why"] == ""
    assert "effusion on the left is missing" not in json.dumps(first)  # not before the answers
    assert [report["name"] for report in view["reports"]] == ["P"]
    save_mark(database, ANNA, screens[0], error("P", "false finding"), key="wrong")
    done(database, screens[0])
    told = respond(database, ANNA, practised, {"tick": "1", "at": screens[0]})["screens"][screens[0]]
    assert [(row["asked"].split(":")[0], row["expected"], row["given"], row["right"]) for row in told["feedback"]] == [
        ("Omission", "1", "0", False),
        ("All kinds", "1", "1", True),
    ]
    assert told["why"] == "The effusion on the left is missing."
    assert read_screen(database, ANNA, screens[2]).position == 0
    assert "pair-one" not in json.dumps(told) and "s001" not in json.dumps(told)


def test_practice_counts_nowhere(database: Database, practised: str, tmp_path: Path) -> None:
    for who in (ANNA, BORIS):
        for place, (screen, _, _) in enumerate(list_screens(database, who, practised)):
            spend(database, who, screen, 500.0 if place < 2 else 10.0, key=f"{screen}-t")
            finish(database, who, screen, errors=5 if place < 2 else (who is ANNA))
    (mine,) = list_sessions(database, ANNA)
    about = session_progress(database, RITA, practised)
    known = progress(database, ANNA, practised)
    assert (mine.done, mine.screens, about.studies) == (9, 9, 3)
    assert [(each.screens, each.done, each.marks, each.seconds) for each in about.readers] == [
        (9, 9, 9, 90.0),
        (9, 9, 0, 90.0),
    ]
    assert (known.practice, known.seconds, known.usual) == (2, 90.0, 10.0)
    assert usual_seconds(database, RITA, "report-quality") == 10.0
    assert adjudicate(database, RITA, practised, "carla") == 9
    close_session(database, RITA, practised)
    results = load_results(database, RITA, practised)
    assert set(results.screens["study"]) == {"s000", "s002", "s003"} == set(results.reports) == set(results.contexts)
    assert (results.screens["position"] >= 0).all() and results.marks["position"].min() >= 0
    export(results, analyse(results, resamples=100), tmp_path, record=load_record(database, RITA, practised))
    for file in tmp_path.glob("*.csv"):
        assert "s001" not in file.read_text(encoding="utf-8"), file
    assert "P" not in unblind(database, RITA, practised)["anna"]
    wanted, pool = copied(database, RITA, practised)
    assert set(wanted.studies.ids) == {"s000", "s002", "s003"} and len(pool) == 5
    verify(database)
    backup(database, ROOT_USER, tmp_path / "copy.jsonl.gz")
    restore(tmp_path / "new.sqlite", tmp_path / "copy.jsonl.gz")


def test_practice_takes_nothing_from_a_time_limit(database: Database) -> None:
    trial = session(database, 3, minutes=1, practice=PRACTICE[:1])
    screens = screens_of(database, "anna", trial)
    spend(database, ANNA, screens[0], 500, key="t")
    assert read_screen(database, ANNA, screens[1]).seconds_left == 60


@pytest.mark.parametrize(
    ("rubric", "models", "line", "mark"),
    [
        (
            "observation-labels",
            (),
            "Edema = positive",
            Mark("label", "", {"observation": "Edema", "state": "positive"}),
        ),
        ("radpeer", ("reference",), "score = 1", answer("score", 1, "P")),
        ("preference", ("pair-one", "reference"), "prefer = reference", Mark("preference", "", {"prefer": "second"})),
        ("turing-test", ("reference",), "writer = radiologist", answer("writer", "radiologist", "P")),
    ],
)
def test_every_kind_of_rubric_can_be_practised(
    rubric: str, models: tuple[str, ...], line: str, mark: Mark, database: Database
) -> None:
    practice = (Practice("s001", models, (line,)),)
    if rubric == "observation-labels":
        practice = (Practice("s001", models, (line, "Pneumonia = negative")),)
    shown = () if not models else ("pair-one", "reference")
    trial = session(database, 3, rubric=rubric, models=shown, practice=practice)
    screen = screens_of(database, "anna", trial)[0]
    save_mark(database, ANNA, screen, mark, key="1")
    if rubric == "observation-labels":
        from core.observations import OBSERVATIONS

        for name in OBSERVATIONS:
            if name != "Edema":
                value = {"observation": name, "state": "negative" if name != "Pneumonia" else "uncertain"}
                save_mark(database, ANNA, screen, Mark("label", "", value), key=name)
    if rubric == "turing-test":
        save_mark(database, ANNA, screen, answer("sure", 70, "P"), key="2")
    done(database, screen)
    told = read_screen(database, ANNA, screen).feedback or ()
    assert [each.right for each in told] == [True, False][: len(practice[0].expected)]
    assert told[0].expected == told[0].given and all(each.asked for each in told)
    assert not [each for each in told if "reference" in each.expected]


@pytest.mark.parametrize(
    ("practice", "message"),
    [
        ((Practice("s001"),), "shows 1 reports; name them"),
        ((Practice("s001", ("reference",)), Practice("s001", ("reference",))), "named twice"),
        ((Practice("s001", ("reference",), ("omission: 1",)),), "is not written as question = answer"),
        ((Practice("s001", ("reference",), ("beauty = 1",)),), "nothing is called 'beauty'"),
        ((Practice("s999", ("reference",)),), "s999 are not among the cases"),
        ((Practice("s001", ("nobody",)),), "no report of nobody"),
    ],
)
def test_practice_that_cannot_be_is_refused(practice: tuple[Practice, ...], message: str, database: Database) -> None:
    with pytest.raises(ReviewError, match=message):
        session(database, 3, practice=practice)
    with pytest.raises(ReviewError, match=r"s001 is in studies\.ids too"):
        design(studies=Choice("listed", ids=("s001",)), practice=PRACTICE[:1])


def test_a_design_with_practice_is_written_and_read_again() -> None:
    wanted = design(practice=PRACTICE)
    assert read_design(json.loads(json.dumps(to_dict(wanted)))) == wanted


# ---------------------------------------------------------------------------------------------------------- changes


def test_every_change_is_on_the_record(database: Database, tmp_path: Path) -> None:
    trial = session(database, 3, practice=PRACTICE[:1])
    changed = amend(database, RITA, trial, minutes=30, instructions="Window as you like.", reason="Pilot was too slow")
    assert changed == ["Instructions", "Time limit, minutes"]
    assert amend(database, RITA, trial, minutes=30) == []
    assert amend(database, RITA, trial, title="Better title", add_readers=("carla",)) == ["Title", "Readers"]
    about = session_progress(database, RITA, trial)
    assert {each.reader: each.screens for each in about.readers} == {"anna": 6, "boris": 6, "carla": 6}
    assert about.design.minutes == 30 and list_sessions(database, RITA)[0].title == "Better title"
    carla = replace(ANNA, name="carla")
    assert read_screen(database, carla, screens_of(database, "carla", trial)[0]).position == -1
    own = {read_screen(database, carla, each).study_id for each in screens_of(database, "carla", trial)[1:]}
    assert own == {"s000", "s002"}
    close_session(database, RITA, trial, reason="Enough readers")
    found = amendments(database, RITA, trial)
    assert [(each.what, each.before, each.after, each.reason) for each in found][1:] == [
        ("Instructions", "", "Window as you like.", "Pilot was too slow"),
        ("Time limit, minutes", "0", "30", "Pilot was too slow"),
        ("Title", "Trial", "Better title", ""),
        ("Readers", "anna, boris", "anna, boris, carla", ""),
        ("State", "open", "closed", "Enough readers"),
    ]
    assert {each.by for each in found} == {"rita"}
    results, record = load_results(database, RITA, trial), load_record(database, RITA, trial)
    export(results, analyse(results, resamples=100), tmp_path, record=record)
    kept = pd.read_csv(tmp_path / "amendments.csv", skiprows=1, keep_default_na=False)
    assert kept["what"].tolist() == [each.what for each in found]
    assert "Pilot was too slow" in (tmp_path / "report.html").read_text(encoding="utf-8")
    verify(database)


def test_changes_are_made_by_the_owner_while_it_is_open(database: Database) -> None:
    trial = session(database, 3)
    for who in (ANNA, RALF):
        with pytest.raises(NotAllowedError):
            amend(database, who, trial, minutes=5)
        with pytest.raises(NotAllowedError):
            amendments(database, who, trial)
    for changes, words in (
        ({"add_readers": ("nobody",)}, "no users"),
        ({"add_readers": ("anna",)}, "named twice"),
        ({"title": " "}, "needs a title"),
        ({"minutes": -1}, "cannot be negative"),
    ):
        with pytest.raises(ReviewError, match=words):
            amend(database, RITA, trial, **changes)  # type: ignore[arg-type]
    assert len(amendments(database, RITA, trial)) == 1
    close_session(database, RITA, trial)
    with pytest.raises(ReviewError, match="closed"):
        amend(database, RITA, trial, minutes=5)


def test_changes_by_command(database: Database) -> None:
    trial = session(database, 3)
    who = ("--as", "root")
    assert "Time limit" in run("review", "amend", trial, "--minutes", 20, "--reason", "slow", *who).stdout
    told = run("review", "amend", trial, *who).stdout
    assert "root: Time limit, minutes: 0 -> 20 (slow)" in told
    assert "--reason goes with" in refused("review", "amend", trial, "--reason", "x", *who)


# -------------------------------------------------------------------------------------------------- pre-registration


def test_the_sheet_says_what_the_design_says() -> None:
    wanted = Design(
        "RADPEER of two", "radpeer", ("a", "b", "c"), ("system one", "reference"), Choice("random", 40), 7, 4, 12
    )
    text = sheet(wanted)
    for words in ("RADPEER of two", "- system one", "radiologist's report", "3, each reads", "40 studies", "Seed 7"):
        assert words in text
    assert "at least 12 screens" in text and "linear mixed model" in text and "Poisson" not in text
    assert design_hash(wanted) in text and design_hash(replace(wanted, seed=8)) not in text
    assert "Not worked out here" in text
    assert "found in 62%" in sheet(wanted, sample_size=["It is found in 62% of studies."])
    labels = sheet(Design("L", "observation-labels", ("a",), (), Choice("random", 5)))
    assert "the image alone" in labels and "Seconds:" not in labels


def test_the_sheet_by_command_has_the_sample_size_of_a_pilot(database: Database, tmp_path: Path) -> None:
    trial = session(database, 4)
    for who in (ANNA, BORIS):
        for place, screen in enumerate(screens_of(database, who.name, trial)):
            spend(database, who, screen, 20.0 + 3 * place % 7, key=f"{screen}-t")
            finish(database, who, screen, place % 3)
    close_session(database, RITA, trial)
    path = tmp_path / "plan.toml"
    path.write_text(
        'title = "Plan"\nrubric = "report-quality"\nreaders = ["x", "y"]\nmodels = ["a", "b"]\n[studies]\ncount = 6\n',
        encoding="utf-8",
    )
    made = run(
        "review", "sheet", path, "--pilot", trial, "--simulations", 20, "--as", "root", "--out", tmp_path / "s.md"
    )
    assert made.exit_code == 0, (made.output, made.exception)
    text = (tmp_path / "s.md").read_text(encoding="utf-8")
    assert re.search(r"With 2 readers and 6 cases it is found in \d+% of studies", text)
    assert "is there already" in refused("review", "sheet", path, "--out", tmp_path / "s.md")
    assert "# Pre-registration: Trial" in run("review", "sheet", trial, "--as", "root").stdout


# ------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(
    ("changes", "studies", "models"),
    [
        ({}, 4, 3),
        ({"repeats": 2, "washout": 1}, 4, 3),
        ({"reports_per_screen": 2}, 4, 3),
        ({"rubric": "preference"}, 4, 3),
        ({"rubric": "preference", "comparisons": 2}, 4, 3),
        ({"rubric": "observation-labels"}, 4, 0),
    ],
)
def test_the_size_that_is_told_is_that_of_the_session(
    changes: dict[str, Any], studies: int, models: int, database: Database
) -> None:
    wanted = design(**changes)
    trial = create_session(database, RITA, wanted, cases(studies))
    assert screens_each(wanted, studies, models) == len(screens_of(database, "anna", trial))


def test_minutes_are_those_of_earlier_sessions_where_there_are_any(database: Database) -> None:
    assert (
        size_in_words(design(), 10, 3, None) == "30 screens for each of 2 readers: about 30 min, at a minute a screen."
    )
    trial = session(database, 6)
    for screen in screens_of(database, "anna", trial)[:5]:
        spend(database, ANNA, screen, 20, key=screen)
        finish(database, ANNA, screen)
    assert usual_seconds(database, RITA, "report-quality") == 20
    assert usual_seconds(database, RALF, "report-quality") is None  # of others nothing is told
    assert usual_seconds(database, RITA, "radpeer") is None
    assert "about 10 min, at 20 s a screen" in size_in_words(design(), 10, 3, 20.0)


# -------------------------------------------------------------------------------------------------------- two tabs


def test_two_tabs_that_answer_alike_are_no_conflict(database: Database) -> None:
    trial = session(database, rubric="observation-labels", models=())
    screen = screens_of(database, "anna", trial)[0]
    edema = Mark("label", "", {"observation": "Edema", "state": "positive"})
    other = Mark("label", "", {"observation": "Edema", "state": "negative"})
    one = save_mark(database, ANNA, screen, edema, key="one")
    assert save_mark(database, ANNA, screen, edema, key="two") == one
    with pytest.raises(ConflictError):
        save_mark(database, ANNA, screen, other, key="three")
    version = annotate(database, ANNA, screen, key="a", version=1, flagged=True)
    assert annotate(database, ANNA, screen, key="b", version=1, flagged=True) == version
    with pytest.raises(ConflictError):
        annotate(database, ANNA, screen, key="c", version=1, flagged=False)
    remove_mark(database, ANNA, screen, one.slot, key="d", version=one.version)
    remove_mark(database, ANNA, screen, one.slot, key="e", version=one.version)
    assert [each.action for each in all_events(database)][-8:] == [
        "mark", "agreed", "refused", "annotate", "agreed", "refused", "unmark", "agreed"
    ]  # fmt: skip
    verify(database)
    assert [each.mark for each in undo(database, ANNA, screen, key="u").marks] == [edema]  # what agreed is not undone


def test_an_error_changed_alike_in_two_tabs_is_no_conflict(database: Database, trial: str, screen: str) -> None:
    name = name_on(database, screen)
    made = save_mark(database, ANNA, screen, error(name), key="1")
    lighter = error(name, significant=False)
    changed = save_mark(database, ANNA, screen, lighter, key="2", slot=made.slot, version=made.version)
    assert save_mark(database, ANNA, screen, lighter, key="3", slot=made.slot, version=made.version) == changed


# ------------------------------------------------------------------------------------------------------------ pages


def test_the_owner_sees_changes_and_state_is_right_after_closing(database: Database) -> None:
    trial = session(database, 3, title="Mine")
    app = open_app_page("review", reader="rita", session=trial)
    assert "Session made" in " ".join(each.value.to_string() for each in app.dataframe)
    app.checkbox(key="close-sure").check().run()
    app.button(key="close").click().run()
    assert not app.exception
    (choice,) = [each for each in app.selectbox if each.label == "Session"]
    assert "closed" in choice.options[0] and "open" not in choice.options[0].split(" · ")
    assert "closed" in next(each.value for each in app.dataframe if "After" in each.value)["After"].tolist()
    assert "Invitations" not in words_on(app)


@needs_bundles
def test_explanations_begin_with_pairs_that_have_a_map(database: Database) -> None:
    app = open_app_page("review", reader="root")
    app.segmented_control(key="review_view").set_value("New session").run()
    app.selectbox(key="design-rubric").select("explanation-helpfulness").run()
    assert not app.exception
    models = next(each for each in app.multiselect if str(each.key).startswith("design-models"))
    assert models.value and all(any(not ENCODERS[part].token_names for part in parts_of(each)) for each in models.value)
    assert any("ccve" in each.lower() for each in models.options)  # they can be chosen


def parts_of(name: str) -> tuple[str, ...]:
    card = card_named(name)
    assert card is not None
    return encoder_parts(card.encoder)


# ------------------------------------------------------------------------------------------------- the study before


def test_the_study_before_is_shown_where_the_session_says_so_and_there_is_one(database: Database) -> None:
    name = name_phantoms(200, 3)
    source = open_source(name)
    by_count = {len(source.images(each.study_id)): each.study_id for each in source.studies("test")}
    pool = [Case(each, image_sha256(session_image(source, each)), TEXTS) for each in by_count.values()]
    assert set(by_count) == {1, 2}
    for priors in (True, False):
        trial = create_session(database, RITA, design(source=name, priors=priors, models=("reference",)), pool)
        screens = [read_screen(database, ANNA, each) for each in screens_of(database, "anna", trial)]
        found = pictures.plates(database, ANNA, screens, 60)
        while None in found.values():
            found = pictures.plates(database, ANNA, screens, 60)
        wanted = {each.id for each in screens}
        if priors:
            wanted |= {each.id + pictures.PRIOR for each in screens if each.study_id == by_count[2]}
        assert set(found) == wanted and all(isinstance(each, bytes) for each in found.values())
        if priors:
            (screen,) = [each for each in screens if each.study_id == by_count[2]]
            prior = found[screen.id + pictures.PRIOR]
            assert isinstance(prior, bytes) and prior != found[screen.id]
            assert not any(each.encode() in prior for each in by_count.values())  # no name goes to the browser
