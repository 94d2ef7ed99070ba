"""Review sessions in a database: marks, undo, bad input, imports, and a third reader."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.observations import OBSERVATIONS
from core.reviews.adjudication import adjudicate
from core.reviews.answers import load_results
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.importing import import_marks
from core.reviews.rubrics import Mark
from core.reviews.store import (
    Actor,
    ConflictError,
    annotate,
    check_image,
    close_session,
    list_sessions,
    next_screen,
    open_screen,
    read_screen,
    remove_mark,
    save_mark,
    spend,
    undo,
)
from core.types import CXRLensError
from tests.review_cases import (
    ANNA,
    BORIS,
    RITA,
    TEXTS,
    all_events,
    csv_of_marks,
    error,
    fill,
    finish,
    name_on,
    open_file,
    screens_of,
    session,
)

# ------------------------------------------------------------------------------------------------------------ marks


def test_a_mark_is_saved_changed_removed_and_all_is_told(database: Database, screen: str) -> None:
    name = name_on(database, screen)
    saved = save_mark(database, ANNA, screen, error(name), key="1")
    changed = save_mark(
        database, ANNA, screen, error(name, significant=False), key="2", slot=saved.slot, version=saved.version
    )
    assert read_screen(database, ANNA, screen).marks == (changed,)
    remove_mark(database, ANNA, screen, changed.slot, key="3", version=changed.version)
    assert read_screen(database, ANNA, screen).marks == ()
    told = [event for event in all_events(database) if event.screen_id == screen]
    assert [event.action for event in told] == ["open", "mark", "mark", "unmark"]
    assert [(e.before or {}).get("value", {}).get("significant") for e in told] == [None, None, True, False]
    assert [event.after.get("deleted") for event in told] == [None, False, False, True]
    assert all(event.actor == "anna" and event.at.endswith("+00:00") for event in told)
    verify(database)


def test_a_repeated_request_is_done_once(database: Database, screen: str) -> None:
    name = name_on(database, screen)
    first = save_mark(database, ANNA, screen, error(name), key="same")
    assert save_mark(database, ANNA, screen, error(name), key="same") == first
    assert len(read_screen(database, ANNA, screen).marks) == 1
    with pytest.raises(CXRLensError, match="used for another change"):
        save_mark(database, ANNA, screen, error(name, "false finding"), key="same")
    save_mark(database, ANNA, screen, error(name), key="other")  # a second omission
    assert len(read_screen(database, ANNA, screen).marks) == 2


def test_keys_of_readers_do_not_meet(database: Database, trial: str) -> None:
    for who in (ANNA, BORIS):
        own = screens_of(database, who.name, trial)[0]
        save_mark(database, who, own, error(name_on(database, own, who)), key="1")
    assert verify(database).marks == 2


def test_two_edits_of_one_mark_lose_nothing(database: Database, screen: str) -> None:
    name = name_on(database, screen)
    saved = save_mark(database, ANNA, screen, error(name), key="1")
    save_mark(database, ANNA, screen, error(name, "wrong severity"), key="tab 1", slot=saved.slot, version=1)
    for _ in range(2):  # repeated, it is refused again and recorded once
        with pytest.raises(ConflictError, match="another tab") as raised:
            save_mark(database, ANNA, screen, error(name, "false finding"), key="tab 2", slot=saved.slot, version=1)
        assert raised.value.current is not None
        assert raised.value.current["value"]["error"] == "wrong severity"
    (kept,) = read_screen(database, ANNA, screen).marks
    assert kept.mark.value["error"] == "wrong severity"
    (refused,) = [event for event in all_events(database) if event.action == "refused"]
    assert refused.asked["mark"]["value"]["error"] == "false finding"


def test_two_tabs_cannot_answer_one_question_twice(database: Database) -> None:
    trial = session(database, rubric="preference")
    screen = screens_of(database, "anna", trial)[0]
    save_mark(database, ANNA, screen, Mark("preference", "", {"prefer": "first"}), key="tab 1")
    with pytest.raises(ConflictError):
        save_mark(database, ANNA, screen, Mark("preference", "", {"prefer": "second"}), key="tab 2")
    (only,) = read_screen(database, ANNA, screen).marks
    assert only.mark.value == {"prefer": "first"}
    with pytest.raises(CXRLensError, match="no mark"):
        save_mark(database, ANNA, screen, only.mark, key="x", slot="preference/other", version=1)


def test_a_removed_answer_can_be_given_again(database: Database) -> None:
    screen = screens_of(database, "anna", session(database, rubric="preference"))[0]
    first = Mark("preference", "", {"prefer": "first"})
    saved = save_mark(database, ANNA, screen, first, key="1")
    remove_mark(database, ANNA, screen, saved.slot, key="2", version=saved.version)
    again = save_mark(database, ANNA, screen, Mark("preference", "", {"prefer": "tie"}), key="3")
    assert read_screen(database, ANNA, screen).marks == (again,)
    verify(database)


def test_undo_goes_back_step_by_step_and_stops(database: Database, screen: str) -> None:
    name = name_on(database, screen)
    saved = save_mark(database, ANNA, screen, error(name), key="1")
    save_mark(database, ANNA, screen, error(name, "wrong location"), key="2", slot=saved.slot, version=1)
    annotate(database, ANNA, screen, key="3", version=1, flagged=True, comment="odd")
    one = undo(database, ANNA, screen, key="u1")
    assert (one.flagged, one.comment) == (False, "")
    assert undo(database, ANNA, screen, key="u1") == one  # the same request
    two = undo(database, ANNA, screen, key="u2")
    assert two.marks[0].mark.value["error"] == "omission"
    assert undo(database, ANNA, screen, key="u3").marks == ()
    with pytest.raises(CXRLensError, match="nothing to undo"):
        undo(database, ANNA, screen, key="u4")
    assert [event.action for event in all_events(database)].count("undo") == 3
    verify(database)


def test_a_reader_goes_on_where_it_stopped_on_another_machine(tmp_path: Path, database: Database, trial: str) -> None:
    first, second, *_ = screens_of(database, "anna", trial)
    assert next_screen(database, ANNA, trial) == first
    save_mark(database, ANNA, first, error(name_on(database, first)), key="1")
    annotate(database, ANNA, first, key="2", version=1, state="done")
    database.close()
    other = open_file(tmp_path)
    assert next_screen(other, ANNA, trial) == second
    assert len(read_screen(other, ANNA, first).marks) == 1
    (info,) = list_sessions(other, ANNA)
    assert (info.done, info.screens) == (1, 18)
    other.close()


def test_skipping_needs_a_reason_and_finishing_needs_answers(database: Database, screen: str) -> None:
    with pytest.raises(CXRLensError, match="why this screen is skipped"):
        annotate(database, ANNA, screen, key="1", version=1, state="skipped")
    assert annotate(database, ANNA, screen, key="2", version=1, state="skipped", skip_reason="blurred") == 2
    trial = session(database, rubric="observation-labels")
    labelled = screens_of(database, "anna", trial)[0]
    for name in OBSERVATIONS[:-1]:
        save_mark(database, ANNA, labelled, Mark("label", "", {"observation": name, "state": "blank"}), key=name)
    with pytest.raises(CXRLensError, match="Not answered yet: No Finding"):
        annotate(database, ANNA, labelled, key="d", version=1, state="done")
    assert read_screen(database, ANNA, labelled).state == "pending"


def test_time_is_added_once_and_the_limit_ends_the_session_not_the_screen(database: Database) -> None:
    first, second, *_ = screens_of(database, "anna", session(database, minutes=1))
    open_screen(database, ANNA, first)
    assert spend(database, ANNA, first, 30, key="t1") == 30
    assert spend(database, ANNA, first, 30, key="t1") == 30
    assert spend(database, ANNA, first, 35, key="t2") == 65
    save_mark(database, ANNA, first, error(name_on(database, first)), key="m")  # what is open can be finished
    with pytest.raises(CXRLensError, match="time for this session is over"):
        open_screen(database, ANNA, second)
    for seconds in (-1, 3600.0, float("nan")):
        with pytest.raises(CXRLensError, match="clock jumped"):
            spend(database, ANNA, first, seconds, key="t3")


def test_a_clock_that_goes_back_changes_no_order(tmp_path: Path) -> None:
    times = iter([datetime(2026, 5, 1, tzinfo=UTC) - timedelta(minutes=minute) for minute in range(200)])
    database = open_file(tmp_path, clock=lambda: next(times))
    fill(database)
    trial = session(database)
    screen = screens_of(database, "anna", trial)[0]
    name = name_on(database, screen)
    for key in ("1", "2"):
        save_mark(database, ANNA, screen, error(name), key=key)
    assert len(undo(database, ANNA, screen, key="u").marks) == 1
    verify(database)
    close_session(database, RITA, trial)
    assert "clock went back" in load_results(database, RITA, trial).warnings[0]
    database.close()


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "text", ["'); DROP TABLE marks; --", "<script>alert(1)</script>", '=HYPERLINK("http://x")', "ünï ☢ 𝛼"]
)
def test_comments_are_kept_as_typed_and_run_nothing(database: Database, screen: str, text: str) -> None:
    annotate(database, ANNA, screen, key=text, version=1, comment=text)
    assert read_screen(database, ANNA, screen).comment == text
    verify(database)


@pytest.mark.parametrize("text", ["half \ud800 character", "zero \0 sign", "x" * 10_001])
def test_text_that_no_database_keeps_is_refused(database: Database, screen: str, text: str) -> None:
    with pytest.raises(CXRLensError, match="comment"):
        annotate(database, ANNA, screen, key="1", version=1, comment=text)


def test_a_changed_image_is_refused_and_reports_need_no_bundle(database: Database, screen: str) -> None:
    shown = read_screen(database, ANNA, screen)
    check_image(shown, shown.image_sha256)
    with pytest.raises(CXRLensError, match="not the one this session was made with"):
        check_image(shown, "f" * 64)
    assert shown.reports[0][1] in TEXTS.values()  # stored with the session: no bundle is read


# ---------------------------------------------------------------------------------------------------------- import


def test_import_adds_all_once(database: Database, trial: str, screen: str) -> None:
    value = json.dumps({"error": "omission", "significant": True})
    row = [screen, name_on(database, screen), "error", value]
    path = csv_of_marks(database, [row, row])
    assert import_marks(database, RITA, trial, path) == (2, 0)
    assert import_marks(database, RITA, trial, path) == (0, 2)
    assert len(read_screen(database, ANNA, screen).marks) == 2
    verify(database)


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("screen,report,kind,value,role", ["admin"], "foreign .*role"),
        ("screen,report,kind", [], "missing .*value"),
        ("screen,report,kind,value", ["too many"], "not 4 cells"),
        ("screen,report,kind,value", [], None),
    ],
)
def test_import_with_foreign_columns_adds_nothing(
    database: Database, trial: str, screen: str, columns: str, cells: list[str], message: str | None
) -> None:
    good = [screen, name_on(database, screen), "error", json.dumps({"error": "omission", "significant": True})]
    bad = [*good[:3], '{"error": "__import__(\'os\')", "significant": true}']
    path = csv_of_marks(database, [good + cells, bad + cells], columns)
    with pytest.raises(CXRLensError, match=message or "line 3: 'error' is one of .* Nothing was added"):
        import_marks(database, RITA, trial, path)
    assert read_screen(database, ANNA, screen).marks == ()


# ----------------------------------------------------------------------------------------------------- adjudication


def test_a_third_reader_settles_what_differs_and_sees_no_names(database: Database, trial: str) -> None:
    for who in (ANNA, BORIS):
        for own in screens_of(database, who.name, trial)[:18]:
            finish(database, who, own, who is ANNA and read_screen(database, who, own).study_id == "s002")
    with pytest.raises(CXRLensError, match="Choose a third reader"):
        adjudicate(database, RITA, trial, "boris")
    assert adjudicate(database, RITA, trial, "carla") == 3  # the three reports of one study
    with pytest.raises(CXRLensError, match="nothing new to settle"):
        adjudicate(database, RITA, trial, "carla")
    carla = Actor("carla", "reader")
    for own in screens_of(database, "carla", trial):
        shown = read_screen(database, carla, own)
        ((name, _),) = shown.reports
        assert shown.disputed == ({"report": name, "question": "omission", "answers": [0, 1]},)
        assert "anna" not in repr(shown)
        assert not any(model in repr(shown.disputed) for model in TEXTS)
