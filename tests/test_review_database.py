"""The database of review sessions: its tables, a full disk, locks, damage, copies."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.reviews import backup as reviews_backup
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.schema import events, marks, metadata, users
from core.reviews.store import (
    NotAllowedError,
    annotate,
    list_sessions,
    next_screen,
    read_screen,
    save_mark,
)
from core.types import CXRLensError
from tests.review_cases import (
    ANNA,
    RITA,
    ROOT,
    ROOT_USER,
    all_events,
    error,
    name_on,
    open_file,
)

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
