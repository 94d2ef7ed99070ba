"""What decides a result cannot be edited unnoticed: every value of every table, and with a seal the record itself."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.reviews.amendments import amend
from core.reviews.answers import load_results
from core.reviews.backup import backup, restore
from core.reviews.cover import ROWS, fixed, seal_of, told
from core.reviews.database import Database
from core.reviews.export import export
from core.reviews.record import load_record
from core.reviews.rubrics import ReviewError, StorageError
from core.reviews.schema import TABLES, cases, events, marks, screens, sessions
from core.reviews.store import close_session, list_sessions, save_mark
from core.reviews.store.changes import Change, write_change
from core.reviews.verification import check_session, verify
from core.types import CXRLensError
from tests import needs
from tests.attacks import Tally, databases, dumps
from tests.attacks.reviews import world
from tests.commands import refused, run
from tests.review_cases import ANNA, RITA, ROOT, ROOT_USER, error, finish, name_on, open_file, screens_of, session
from tests.test_review_at_once import on_postgres as on_postgres
from tests.test_review_at_once import postgres as postgres


def right(tally: Tally) -> None:
    assert tally.tried >= 5 and not tally.wrong, "\n".join(tally.wrong)


# -------------------------------------------------------------------------------------------------------------- cover


def test_every_value_of_every_table_is_covered(tmp_path: Path) -> None:
    """A column or a table that is added is edited here too. It fails where nothing tells: see `core.reviews.cover`."""
    tally = Tally("rows")
    kept = world(tmp_path / "reviews.sqlite")
    databases.attack_rows(tally, tmp_path / "reviews.sqlite", kept, without=("first row", "exchanged"))
    right(tally)
    assert tally.refused > sum(len(table.c) for table in TABLES)


def test_each_column_is_told_or_fixed() -> None:
    for table in TABLES:
        if table is not events:
            assert fixed(table) | set(told(table)) | {each.name for each in table.primary_key} == set(table.c.keys())


def test_doctored_dumps_are_refused(tmp_path: Path) -> None:
    right(dumps.run(tmp_path, 5))


def test_a_session_made_before_opens_and_is_covered_from_its_closing_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "reviews.sqlite")) as old:
        old.executescript((ROOT / "tests" / "data" / "reviews-0001.sql").read_text(encoding="utf-8"))
    database = open_file(tmp_path)
    (info,) = list_sessions(database, RITA)
    assert verify(database).uncovered == (info.id,)
    with database.write() as connection:  # its title is in the event that made it, its times and roles are told
        connection.execute(sessions.update().values(title="Another"))
    with pytest.raises(CXRLensError, match="title differs"):
        verify(database)
    with database.write() as connection:
        connection.execute(sessions.update().values(title=info.title))
        connection.execute(screens.update().values(seconds=9.0))
    with pytest.raises(CXRLensError, match="seconds differs"):
        verify(database)
    with database.write() as connection:
        connection.execute(screens.update().values(seconds=0.0))
    verify(database)
    close_session(database, RITA, info.id)
    assert verify(database).uncovered == ()
    with database.write() as connection:
        connection.execute(cases.update().values(reports={"reference": "x", "pair-one": "y", "pair-two": "z"}))
    with pytest.raises(CXRLensError, match="cases .* is not as it was written"):
        verify(database)
    database.close()


def test_a_column_of_a_later_schema_holds_what_its_migration_put_there(database: Database, trial: str) -> None:
    made = sa.select(events.c.after).where(events.c.action == "create")
    with database.read() as connection:
        after = connection.scalar(made)
    assert after is not None and "secret" in after[ROWS]["sessions"]["columns"]

    def forget(event: dict[str, object]) -> bool:
        """As a version wrote it whose sessions had no secret."""
        if event["action"] == "create":
            part = event["after"][ROWS]["sessions"]  # type: ignore[index]
            part["columns"].remove("secret")
            part["rows"] = {key: _hash(database, part["columns"]) for key in part["rows"]}
        return True

    with database.write() as connection:
        connection.execute(sessions.update().values(secret=""))
    with database.write() as connection:
        databases.rewrite(connection, forget)
    verify(database)
    with database.write() as connection:
        connection.execute(sessions.update().values(secret="known"))
    with pytest.raises(CXRLensError, match="secret differs"):
        verify(database)


def _hash(database: Database, columns: list[str]) -> str:
    from core.reviews.cover import row_hash

    with database.read() as connection:
        return row_hash(connection.execute(sa.select(sessions)).one(), columns)


def test_a_change_of_a_new_kind_is_told_by_its_event(database: Database, screen: str) -> None:
    mark = {"kind": "error", "report": "A", "value": {}, "version": 1, "deleted": False}
    with database.write() as connection:
        row = connection.execute(sa.select(screens).where(screens.c.id == screen)).one()
        asked = {"key": "1", "action": "rewrite", "request": "0" * 64, "content": {}}
        write_change(database, connection, ANNA, row, Change("a slot", None, mark), **asked)  # type: ignore[arg-type]
    assert verify(database).marks == 1
    with database.write() as connection:
        connection.execute(marks.update().values(report="B"))
    with pytest.raises(CXRLensError, match="report differs"):
        verify(database)


# -------------------------------------------------------------------------------------------------------------- seals


@pytest.fixture
def closed(database: Database, trial: str) -> Iterator[tuple[str, str]]:
    """A closed session, and its seal."""
    finish(database, ANNA, screens_of(database, "anna", trial)[0], errors=1)
    yield trial, close_session(database, RITA, trial)


def test_a_seal_shows_a_record_that_was_written_anew(database: Database, closed: tuple[str, str]) -> None:
    trial, seal = closed
    assert close_session(database, RITA, trial) == seal == load_record(database, RITA, trial).seal
    verify(database, [seal, seal[:16].upper(), f"{seal[:32]} {seal[32:]}"])
    with pytest.raises(CXRLensError, match="is no seal"):
        verify(database, ["abc"])
    with database.write() as connection:
        databases.OF_CHAINS["all marks turned round, and the chain written anew"](connection)
    verify(database)  # by itself it is sound
    with pytest.raises(CXRLensError, match=f"no event has the seal {seal[:16]}"):
        verify(database, [seal])


def test_an_open_session_has_no_seal(database: Database, trial: str) -> None:
    with pytest.raises(CXRLensError, match="once it is closed"), database.read() as connection:
        seal_of(connection, trial)


def test_the_seal_is_told_in_the_files_and_taken_by_the_commands(
    tmp_path: Path, database: Database, closed: tuple[str, str]
) -> None:
    from core.reviews.analysis import analyse

    trial, seal = closed
    results, record = load_results(database, RITA, trial), load_record(database, RITA, trial)
    export(results, analyse(results, resamples=100), tmp_path / "out", record=record)
    assert seal in (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["seal"] == seal
    place = ("--database", database.name)
    assert "checked" in run("review", "verify", "--seal", seal, *place, "--as", "root").output
    assert "no event has the seal" in refused("review", "verify", "--seal", "0" * 64, *place, "--as", "root")
    backup(database, ROOT_USER, tmp_path / "copy.jsonl.gz")
    for name in ("one", "two"):
        there = ("--database", tmp_path / f"{name}.sqlite")
        if name == "one":
            run("review", "restore", tmp_path / "copy.jsonl.gz", "--seal", seal, *there)
        else:
            assert "no event has the seal" in refused(
                "review", "restore", tmp_path / "copy.jsonl.gz", "--seal", "1" * 64, *there
            )


def test_results_of_an_edited_session_are_refused_and_others_are_not(
    database: Database, closed: tuple[str, str]
) -> None:
    trial, _ = closed
    other = session(database, count=2)
    close_session(database, RITA, other)
    shown = screens.update().where(screens.c.session_id == trial)
    with database.write() as connection:
        connection.execute(shown.values(shown=[["A", "pair-two"], ["B", "pair-one"], ["C", "reference"]]))
    with pytest.raises(CXRLensError, match="is not as it was written"):
        load_record(database, RITA, trial)
    load_record(database, RITA, other)
    check_session(database, other)


# ------------------------------------------------------------------------------------------------- named for what it is


def test_what_is_no_database_is_named(tmp_path: Path, database: Database, trial: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CXRLensError, match="is a folder, and no file"):
        Database(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CXRLensError, match="is a pipe or a device"):
        Database(tmp_path / "pipe")
    screen = screens_of(database, "anna", trial)[0]
    report = name_on(database, screen)
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE marks")
    with pytest.raises(CXRLensError, match="has lost a table"):
        save_mark(database, ANNA, screen, error(report), key="1")
    with pytest.raises(CXRLensError, match="has lost its marks. Restore a backup"):
        Database(database.name)


def test_a_value_that_is_none_of_its_kind_is_told(database: Database, trial: str) -> None:
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE cases SET reports = '{\"x'")
    with pytest.raises(StorageError, match="a value that cannot be read"):
        name_on(database, screens_of(database, "anna", trial)[0])
    with pytest.raises(CXRLensError, match="did not write"):
        verify(database)


def test_a_disk_that_cannot_be_written_is_named(database: Database, screen: str) -> None:
    @sa.event.listens_for(database.engine, "begin")
    def lock(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA query_only = 1")  # SQLite then behaves as on a read-only disk

    with pytest.raises(CXRLensError, match="cannot be written to"):
        save_mark(database, ANNA, screen, error("A"), key="1")


READ_ONLY = """
import os, sys
from core.reviews.database import Database
from core.types import CXRLensError
Database(sys.argv[2])  # brings all modules, which the other user may not be able to read
os.setgid(65534); os.setuid(65534)
try:
    Database(sys.argv[1])
except CXRLensError as error:
    print(error)
"""


@pytest.mark.slow
@needs.ROOT.unless(hasattr(os, "geteuid") and os.geteuid() == 0)
def test_a_file_of_another_user_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="reviews-read-only-"))
    world(folder / "reviews.sqlite")
    databases.settled(folder / "reviews.sqlite")
    folder.chmod(0o755)
    for mode, message in ((0o444, "cannot be written to"), (0o000, "cannot be opened")):
        (folder / "reviews.sqlite").chmod(mode)
        found = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(folder / "reviews.sqlite"), str(folder / f"own-{mode}.sqlite")],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert message in found.stdout, found.stdout + found.stderr


@pytest.mark.slow
def test_every_value_of_every_table_is_covered_on_postgres(on_postgres: str, tmp_path: Path) -> None:
    tally = Tally("rows")
    kept = world(on_postgres)
    databases.attack_rows(tally, on_postgres, kept)
    right(tally)
    opened = Database(on_postgres)
    copied = backup(opened, ROOT_USER, tmp_path / "copy.jsonl.gz")
    opened.close()
    assert restore(tmp_path / "moved.sqlite", tmp_path / "copy.jsonl.gz", kept) == copied


def test_what_is_amended_is_bound_anew_and_what_was_edited_is_not_amended(database: Database, trial: str) -> None:
    assert amend(database, RITA, trial, title="Another", reason="a better name") == ["Title"]
    verify(database)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE sessions SET title = 'A third'")
    with pytest.raises(ReviewError, match="sessions.*is not as it was written"):
        amend(database, RITA, trial, title="Another still")
