"""Review sessions in a database: marks, undo, who sees what, what goes wrong, copies."""

from __future__ import annotations

import csv
import gzip
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.observations import OBSERVATIONS
from core.reviews import backup as reviews_backup
from core.reviews.adjudication import adjudicate
from core.reviews.answers import load_results
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.importing import import_marks
from core.reviews.rubrics import Mark
from core.reviews.schema import events, marks, metadata, users
from core.reviews.store import (
    Actor,
    ConflictError,
    NotAllowedError,
    actor,
    annotate,
    check_image,
    close_session,
    create_session,
    first_admin,
    list_sessions,
    next_screen,
    open_screen,
    read_screen,
    remove_mark,
    save_mark,
    set_role,
    spend,
    unblind,
    undo,
)
from core.types import CXRLensError
from tests import needs
from tests.review_cases import (
    ROOT,
    TEXTS,
    at_a_pace,
    cases,
    design,
    error,
    fill,
    open_file,
    screens_of,
    session,
    twenty_readers,
)

ANNA, BORIS, RITA, RALF, ROOT_USER = (
    Actor("anna", "reader"),
    Actor("boris", "reader"),
    Actor("rita", "researcher"),
    Actor("ralf", "researcher"),
    Actor("root", "admin"),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_file(tmp_path)
    fill(opened)
    yield opened
    opened.close()


@pytest.fixture
def trial(database: Database) -> str:
    return session(database)


@pytest.fixture
def screen(database: Database, trial: str) -> str:
    return screens_of(database, "anna", trial)[0]


def name_on(database: Database, screen: str, who: Actor = ANNA) -> str:
    return read_screen(database, who, screen).reports[0][0]


def all_events(database: Database) -> list[sa.Row]:
    with database.read() as connection:
        return list(connection.execute(sa.select(events).order_by(events.c.sequence)))


# ----------------------------------------------------------------------------------------------------------- schema


def test_migrations_make_the_tables_that_queries_use(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_database_of_the_first_release_is_read_and_goes_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "reviews.sqlite")) as old:
        old.executescript((ROOT / "tests" / "data" / "reviews-0001.sql").read_text(encoding="utf-8"))
    opened = open_file(tmp_path)
    found = verify(opened)
    assert (found.sessions, found.screens, found.marks) == (1, 4, 2)
    (info,) = list_sessions(opened, RITA)
    screen = next_screen(opened, ANNA, info.id)
    assert screen is not None
    save_mark(opened, ANNA, screen, error(name_on(opened, screen)), key="new")
    assert verify(opened).marks == 3
    opened.close()


def test_sqlite_is_in_wal_mode_and_for_its_owner_only(database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert Path(database.name).stat().st_mode & 0o077 == 0


def test_another_database_and_a_newer_one_are_refused(tmp_path: Path, database: Database) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE patients (name TEXT)")
    with pytest.raises(CXRLensError, match="holds other tables"):
        Database(tmp_path / "other.sqlite")
    (tmp_path / "text.sqlite").write_text("no database " * 100)
    with pytest.raises(CXRLensError, match="not a sound database"):
        Database(tmp_path / "text.sqlite")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(CXRLensError, match="newer CXR Lens"):
        Database(database.name)


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite://", "not a url://", "oracle://x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(CXRLensError) as raised:
        Database(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'boris'",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events SELECT * FROM events WHERE sequence = 1",
    ],
)
def test_events_cannot_be_changed(database: Database, trial: str, statement: str) -> None:
    before = all_events(database)
    with pytest.raises(CXRLensError, match="cannot be changed"), database.write() as connection:
        connection.exec_driver_sql(statement)
    assert all_events(database) == before


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


# ------------------------------------------------------------------------------------------------------- who is who


def test_a_reader_reaches_nothing_of_another_reader(database: Database, trial: str) -> None:
    theirs = screens_of(database, "boris", trial)[0]
    saved = save_mark(database, BORIS, theirs, error(name_on(database, theirs, BORIS)), key="1")
    mark = error("A")
    before = all_events(database)
    for attempt in (
        lambda: read_screen(database, ANNA, theirs),
        lambda: open_screen(database, ANNA, theirs),
        lambda: save_mark(database, ANNA, theirs, mark, key="x"),
        lambda: save_mark(database, ANNA, theirs, mark, key="x", slot=saved.slot, version=1),
        lambda: remove_mark(database, ANNA, theirs, saved.slot, key="x", version=1),
        lambda: annotate(database, ANNA, theirs, key="x", version=1, comment="x"),
        lambda: spend(database, ANNA, theirs, 1, key="x"),
        lambda: undo(database, ANNA, theirs, key="x"),
        lambda: load_results(database, ANNA, trial),
        lambda: close_session(database, ANNA, trial),
        lambda: create_session(database, ANNA, design(), cases()),
        lambda: set_role(database, ANNA, "anna", "admin"),
        lambda: adjudicate(database, ANNA, trial, "carla"),
        lambda: import_marks(database, ANNA, trial, _csv_file(database, [])),
        lambda: backup(database, ANNA, Path(database.name + ".jsonl.gz")),
    ):
        with pytest.raises(NotAllowedError):
            attempt()
    assert all_events(database) == before
    assert list_sessions(database, Actor("carla", "reader")) == []


def test_a_role_is_what_the_database_says(database: Database, trial: str) -> None:
    with pytest.raises(NotAllowedError):
        close_session(database, Actor("anna", "admin"), trial)
    with pytest.raises(NotAllowedError):
        list_sessions(database, Actor("nobody", "admin"))
    with pytest.raises(NotAllowedError):
        actor(database, "nobody")
    with pytest.raises(NotAllowedError):
        first_admin(database, "second")
    set_role(database, ROOT_USER, "rita", "reader")  # takes effect at once
    with pytest.raises(NotAllowedError):
        close_session(database, RITA, trial)
    with pytest.raises(CXRLensError, match="last admin"):
        set_role(database, ROOT_USER, "root", "reader")


def test_a_researcher_reaches_own_sessions_and_an_admin_all(database: Database, trial: str) -> None:
    assert [info.id for info in list_sessions(database, RITA)] == [trial]
    assert list_sessions(database, RALF) == []
    assert [info.id for info in list_sessions(database, ROOT_USER)] == [trial]
    for attempt in (close_session, load_results, unblind):
        with pytest.raises(NotAllowedError):
            attempt(database, RALF, trial)
    unread = screens_of(database, "anna", trial)[0]
    with pytest.raises(NotAllowedError):
        read_screen(database, RITA, unread)


def test_nothing_of_models_is_seen_before_closing_and_nothing_changes_after(database: Database, trial: str) -> None:
    own = screens_of(database, "anna", trial)
    seen = "".join(map(repr, (read_screen(database, ANNA, screen) for screen in own)))
    assert not any(f"{model!r}" in seen for model in TEXTS)
    assert "b" * 64 not in seen
    for who in (ANNA, RITA, ROOT_USER):
        with pytest.raises(CXRLensError, match="closed"):
            unblind(database, who, trial)
    with pytest.raises(CXRLensError, match="closed"):
        load_results(database, RITA, trial)
    close_session(database, RITA, trial)
    names = unblind(database, ANNA, trial)
    assert set(names) == {"anna"}
    assert set(names["anna"].values()) == set(TEXTS)
    assert set(unblind(database, RITA, trial)) == {"anna", "boris"}
    with pytest.raises(NotAllowedError):
        unblind(database, Actor("carla", "reader"), trial)
    with pytest.raises(CXRLensError, match="closed"):
        save_mark(database, ANNA, own[0], error("A"), key="late")


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


def test_a_full_disk_loses_nothing(database: Database, screen: str) -> None:
    name = name_on(database, screen)
    acknowledged = 0

    @sa.event.listens_for(database.engine, "begin")
    def limit(connection: sa.Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        if acknowledged >= 3:  # SQLite then behaves as on a disk without room
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(CXRLensError, match="disk of .* is full"):
        for number in range(500):
            save_mark(database, ANNA, screen, error(name), key=str(number))
            acknowledged += 1
    sa.event.remove(database.engine, "begin", limit)
    assert acknowledged >= 3
    database.engine.dispose()
    assert len(read_screen(database, ANNA, screen).marks) == acknowledged
    save_mark(database, ANNA, screen, error(name), key=str(acknowledged))  # there is room again
    assert verify(database).marks == acknowledged + 1


def test_a_locked_database_says_so_and_goes_on_afterwards(tmp_path: Path, database: Database, screen: str) -> None:
    name = name_on(database, screen)
    hurried = open_file(tmp_path, wait_seconds=0.2)
    with closing(sqlite3.connect(database.name, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CXRLensError, match="locked by another program"):
            save_mark(hurried, ANNA, screen, error(name), key="1")
        assert read_screen(hurried, ANNA, screen).marks == ()  # reading goes on
        other.execute("ROLLBACK")
    save_mark(hurried, ANNA, screen, error(name), key="1")
    assert verify(hurried).marks == 1
    hurried.close()


def test_a_changed_image_is_refused_and_reports_need_no_bundle(database: Database, screen: str) -> None:
    shown = read_screen(database, ANNA, screen)
    check_image(shown, shown.image_sha256)
    with pytest.raises(CXRLensError, match="not the one this session was made with"):
        check_image(shown, "f" * 64)
    assert shown.reports[0][1] in TEXTS.values()  # stored with the session: no bundle is read


def test_a_tampered_database_is_noticed(database: Database, screen: str) -> None:
    save_mark(database, ANNA, screen, error(name_on(database, screen)), key="1")
    with database.write() as connection:
        connection.execute(marks.update().values(value={"error": "omission", "significant": False}))
    with pytest.raises(CXRLensError, match="not what its events say"):
        verify(database)
    with database.write() as connection:
        connection.execute(marks.update().values(value={"error": "omission", "significant": True}))
    verify(database)
    with database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER events_no_update")
        connection.execute(events.update().where(events.c.action == "mark").values(actor="boris"))
    with pytest.raises(CXRLensError, match="not as it was written"):
        verify(database)


# ---------------------------------------------------------------------------------------------------------- import


def _csv_file(database: Database, rows: list[list[str]], columns: str = "screen,report,kind,value") -> Path:
    path = Path(database.name).with_name("import.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


def test_import_adds_all_once(database: Database, trial: str, screen: str) -> None:
    value = json.dumps({"error": "omission", "significant": True})
    row = [screen, name_on(database, screen), "error", value]
    path = _csv_file(database, [row, row])
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
    path = _csv_file(database, [good + cells, bad + cells], columns)
    with pytest.raises(CXRLensError, match=message or "line 3: 'error' is one of .* Nothing was added"):
        import_marks(database, RITA, trial, path)
    assert read_screen(database, ANNA, screen).marks == ()


# ----------------------------------------------------------------------------------------------------- adjudication


def test_a_third_reader_settles_what_differs_and_sees_no_names(database: Database, trial: str) -> None:
    for who in (ANNA, BORIS):
        for own in screens_of(database, who.name, trial)[:18]:
            shown = read_screen(database, who, own)
            if who is ANNA and shown.study_id == "s002":
                save_mark(database, who, own, error(shown.reports[0][0]), key=own)
            annotate(database, who, own, key=f"done {own}", version=1, state="done")
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


# ----------------------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("name", ["copy.sqlite", "copy.jsonl.gz"])
def test_backup_and_restore_give_the_same_database(
    tmp_path: Path, database: Database, trial: str, screen: str, name: str
) -> None:
    save_mark(database, ANNA, screen, error(name_on(database, screen)), key="1")
    annotate(database, ANNA, screen, key="2", version=1, comment="☢ '; DROP TABLE marks", state="done")
    copied = backup(database, ROOT_USER, tmp_path / name)
    save_mark(database, ANNA, screen, error(name_on(database, screen)), key="later")
    target = tmp_path / "new" / "restored.sqlite"
    assert restore(target, tmp_path / name) == copied
    other = Database(target)
    assert read_screen(other, ANNA, screen).comment == "☢ '; DROP TABLE marks"
    assert all_events(other) == all_events(database)[:-1]
    save_mark(other, ANNA, screen, error(name_on(other, screen)), key="goes on")
    verify(other)
    other.close()
    with pytest.raises(CXRLensError, match="exists|already holds"):
        restore(target, tmp_path / name)
    with pytest.raises(CXRLensError, match="exists"):
        backup(database, ROOT_USER, tmp_path / name)
    with pytest.raises(NotAllowedError):
        backup(database, RITA, tmp_path / f"x{name}")


@pytest.mark.parametrize("name", ["copy.sqlite", "copy.jsonl.gz"])
def test_a_backup_does_not_replace_a_file_that_came_while_it_was_made(
    tmp_path: Path, database: Database, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "backups" / name
    real = reviews_backup._copy if path.suffix == ".sqlite" else reviews_backup._dump

    def slow(*arguments: object) -> reviews_backup.Verified:
        verified = real(*arguments)  # type: ignore[operator]
        path.write_text("somebody else's")
        return verified

    monkeypatch.setattr(reviews_backup, real.__name__, slow)
    with pytest.raises(CXRLensError, match="exists and is not written over"):
        backup(database, ROOT_USER, path)
    assert path.read_text() == "somebody else's"
    assert [each.name for each in path.parent.iterdir()] == [name]


def test_a_damaged_backup_restores_nothing(tmp_path: Path, database: Database, screen: str) -> None:
    path = tmp_path / "copy.jsonl.gz"
    save_mark(database, ANNA, screen, error(name_on(database, screen)), key="1")
    backup(database, ROOT_USER, path)
    text = gzip.decompress(path.read_bytes())
    lines = text.splitlines(keepends=True)
    damaged = {
        "cut": path.read_bytes()[:-200],
        "changed": gzip.compress(text.replace(b'"significant": true', b'"significant": false')),
        "shorter": gzip.compress(b"".join([*lines[:-3], *lines[-2:]])),
        "text": b"no backup",
    }
    for name, content in damaged.items():
        bad = tmp_path / f"{name}.jsonl.gz"
        bad.write_bytes(content)
        with pytest.raises(CXRLensError, match="damaged"):
            restore(tmp_path / f"{name}.sqlite", bad)
        opened = Database(tmp_path / f"{name}.sqlite")
        with opened.read() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(users)) == 0
        opened.close()
    (tmp_path / "bad.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(CXRLensError):
        restore(tmp_path / "never.sqlite", tmp_path / "bad.sqlite")
    assert not (tmp_path / "never.sqlite").exists()


# ------------------------------------------------------------------------------------------------ many at once, kills


def many_at_once(location: str, readers: int, per_reader: int) -> None:
    """Readers of two tabs each, both tabs send every mark: none is lost, none doubled. Prints how long it took."""
    names = tuple(f"reader {number}" for number in range(readers))
    database = Database(location, wait_seconds=120)
    fill(database, names)
    trial = session(database, readers=names)
    own = {name: screens_of(database, name, trial) for name in names}
    blinded = {s: name_on(database, s, Actor(name, "reader")) for name in names for s in own[name]}

    def send(name: str, number: int) -> float:
        screen = own[name][number % len(own[name])]
        started = time.perf_counter()
        save_mark(database, Actor(name, "reader"), screen, error(blinded[screen]), key=f"{number}")
        return time.perf_counter() - started

    def tab(name: str) -> list[float]:
        return [send(name, number) for number in range(per_reader)]

    begun = time.perf_counter()
    with ThreadPoolExecutor(2 * readers) as pool:
        seconds = sorted(each for took in pool.map(tab, names * 2) for each in took)
    whole = time.perf_counter() - begun
    alone = sorted(send(names[0], per_reader + number) for number in range(20))
    assert verify(database).marks == readers * per_reader + 20
    written = [event.key for event in all_events(database) if event.action == "mark"]
    assert sorted(written) == sorted(
        [f"{name}/{number}" for name in names for number in range(per_reader)]
        + [f"{names[0]}/{per_reader + number}" for number in range(20)]
    )
    for name in names[1:]:
        assert sum(len(read_screen(database, Actor(name, "reader"), s).marks) for s in own[name]) == per_reader
    database.close()
    times = f"median {seconds[len(seconds) // 2] * 1e3:.0f} ms, 95 % {seconds[len(seconds) * 95 // 100] * 1e3:.0f} ms"
    sys.stdout.write(
        f"\n{readers} readers, {len(seconds)} requests in {whole:.0f} s: {times}, largest {seconds[-1]:.1f} s"
    )
    sys.stdout.write(f"; one reader alone: median {alone[10] * 1e3:.0f} ms, largest {alone[-1] * 1e3:.0f} ms\n")


def test_readers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    many_at_once(str(tmp_path / "reviews.sqlite"), readers=4, per_reader=10)


def test_two_programs_open_a_fresh_database_at_once(tmp_path: Path) -> None:
    problems: list[BaseException] = []

    def open_it() -> None:
        try:
            open_file(tmp_path).close()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_readers_and_two_thousand_marks(tmp_path: Path) -> None:
    many_at_once(str(tmp_path / "reviews.sqlite"), readers=20, per_reader=100)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_readers_at_a_readers_pace(tmp_path: Path) -> None:
    database = open_file(tmp_path)
    _, who, screens = twenty_readers(database)
    own = [first for first, *_ in screens]
    blinded = [name_on(database, screen, reader) for screen, reader in zip(own, who, strict=True)]

    def mark(reader: int, number: int) -> None:
        save_mark(database, who[reader], own[reader], error(blinded[reader]), key=f"{number}")

    sys.stdout.write(at_a_pace(20, 25, mark))
    assert verify(database).marks == 500
    database.close()


def _write_until_killed(location: str, trial: str, start: int, sender: multiprocessing.connection.Connection) -> None:
    database = Database(location)
    screen = screens_of(database, "anna", trial)[0]
    name = name_on(database, screen)
    for number in range(start, start + 1_000_000):
        save_mark(database, ANNA, screen, error(name), key=f"k{number}")
        sender.send(number)


def kill_ten_times(location: str) -> None:
    database = Database(location)
    fill(database)
    trial = session(database)
    database.close()
    waits = [0.05, 0.31, 0.12, 0.44, 0.2, 0.08, 0.37, 0.16, 0.27, 0.5]
    acknowledged: set[str] = set()
    for turn, wait in enumerate(waits):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (location, trial, turn * 1_000_000, sender)
        process = multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=arguments)
        process.start()
        sender.close()
        acknowledged.add(f"k{receiver.recv()}")  # it is at work
        process.join(wait)
        process.kill()
        process.join()
        try:
            while True:
                acknowledged.add(f"k{receiver.recv()}")
        except EOFError:
            pass
    database = Database(location)
    with database.write():
        pass  # waits for a server that still ends what the killed program asked for
    written = {event.key.removeprefix("anna/") for event in all_events(database) if event.action == "mark"}
    assert acknowledged <= written
    assert len(written - acknowledged) <= len(waits)  # at most the one each time that was written and not yet told
    assert verify(database).marks == len(written)
    assert len(acknowledged) > len(waits)
    sys.stdout.write(f"\nkilled {len(waits)} times: {len(acknowledged)} acknowledged, {len(written)} written\n")
    database.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_every_acknowledged_mark_is_there(tmp_path: Path) -> None:
    kill_ten_times(str(tmp_path / "reviews.sqlite"))


# ------------------------------------------------------------------------------------------------------- PostgreSQL


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private cluster on a socket in a temporary folder, of a user that is not root; its URL, without a database."""
    needs.DEVELOPER.package("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        needs.POSTGRES.skip()
    folder = tmp_path_factory.mktemp("postgres")
    as_user: dict[str, str] = {}
    if os.geteuid() == 0:
        import pwd
        import tempfile

        try:
            pwd.getpwnam("postgres")
        except KeyError:
            needs.POSTGRES.skip()
        folder = Path(tempfile.mkdtemp(prefix="reviews-pg-"))  # pytest's own folder is closed to other users
        subprocess.run(["chown", "postgres", str(folder)], check=True)
        as_user = {"user": "postgres", "group": "postgres"}
    control, data = found[-1].with_name("pg_ctl"), folder / "data"
    made = [str(found[-1]), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **as_user)  # type: ignore[call-overload]
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=80"
    start = [str(control), "-D", str(data), "-w", "-t", "120", "-l", str(folder / "log"), "-o", options, "start"]
    subprocess.run(start, check=True, capture_output=True, cwd=folder, **as_user)  # type: ignore[call-overload]
    yield f"postgresql://postgres@/NAME?host={folder}"
    stop = [str(control), "-D", str(data), "-m", "immediate", "stop"]
    subprocess.run(stop, check=True, capture_output=True, cwd=folder, **as_user)  # type: ignore[call-overload]
    shutil.rmtree(folder)


@pytest.fixture
def on_postgres(postgres: str, request: pytest.FixtureRequest) -> str:
    """URL of a fresh database."""
    import psycopg

    name = f"t{abs(hash(request.node.name))}"
    address = postgres.replace("NAME", "postgres").replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return postgres.replace("NAME", name)


@pytest.mark.slow
def test_postgres_whole_session(on_postgres: str, tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database(on_postgres)
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    fill(database)
    trial = session(database, repeats=2, washout=2)
    screen = screens_of(database, "anna", trial)[0]
    name = name_on(database, screen)
    saved = save_mark(database, ANNA, screen, error(name), key="1")
    with pytest.raises(ConflictError):
        save_mark(database, ANNA, screen, error(name, "false finding"), key="2", slot=saved.slot, version=7)
    annotate(database, ANNA, screen, key="3", version=1, comment="'); DROP TABLE marks; -- ☢")
    assert undo(database, ANNA, screen, key="4").comment == ""
    with pytest.raises(NotAllowedError):
        read_screen(database, BORIS, screen)
    for statement in ("UPDATE events SET actor = 'x'", "DELETE FROM events", "TRUNCATE events"):
        with pytest.raises(CXRLensError, match="cannot be changed"), database.write() as connection:
            connection.exec_driver_sql(statement)
    assert [info.screens for info in list_sessions(database, RITA)] == [40]
    copied = backup(database, ROOT_USER, tmp_path / "copy.jsonl.gz")
    assert restore(tmp_path / "moved.sqlite", tmp_path / "copy.jsonl.gz") == copied  # to the other kind
    close_session(database, RITA, trial)
    assert len(load_results(database, RITA, trial).marks) == 1
    database.close()


@pytest.mark.slow
def test_postgres_restores_from_sqlite(on_postgres: str, tmp_path: Path) -> None:
    database = open_file(tmp_path)
    fill(database)
    screen = screens_of(database, "anna", session(database))[0]
    save_mark(database, ANNA, screen, error(name_on(database, screen)), key="1")
    copied = backup(database, ROOT_USER, tmp_path / "copy.jsonl.gz")
    database.close()
    assert restore(on_postgres, tmp_path / "copy.jsonl.gz") == copied
    with pytest.raises(CXRLensError, match="already holds"):
        restore(on_postgres, tmp_path / "copy.jsonl.gz")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_postgres_twenty_readers_and_two_thousand_marks(on_postgres: str) -> None:
    many_at_once(on_postgres, readers=20, per_reader=100)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_postgres_writer_killed_ten_times(on_postgres: str) -> None:
    kill_ten_times(on_postgres)


@pytest.mark.slow
def test_postgres_that_is_not_there_says_so(tmp_path: Path) -> None:
    needs.DEVELOPER.package("psycopg")
    with pytest.raises(CXRLensError) as raised:
        Database(f"postgresql://someone:secret@/none?host={tmp_path}")
    assert "secret" not in str(raised.value)
