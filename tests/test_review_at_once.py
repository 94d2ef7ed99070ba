"""Many readers at once, programs that are killed, and the same on PostgreSQL: no mark is lost, none doubled."""

from __future__ import annotations

import multiprocessing.connection
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.reviews.answers import load_results
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.editing_design import Editing
from core.reviews.rubrics import Mark
from core.reviews.schema import metadata
from core.reviews.store import (
    Actor,
    ConflictError,
    NotAllowedError,
    annotate,
    close_session,
    list_sessions,
    read_screen,
    save_edit,
    save_mark,
    undo,
)
from core.types import CXRLensError
from tests import needs
from tests.review_cases import (
    ANNA,
    BORIS,
    RITA,
    ROOT_USER,
    all_events,
    at_a_pace,
    error,
    fill,
    killed,
    name_on,
    open_file,
    screens_of,
    session,
    twenty_readers,
)

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


def _edit_until_killed(location: str, trial: str, start: int, sender: multiprocessing.connection.Connection) -> None:
    database = Database(location)
    screen = screens_of(database, "anna", trial)[0]
    ((name, _),) = read_screen(database, ANNA, screen).reports
    slot = f"answer/report/{name}/"
    version = next((each.version for each in read_screen(database, ANNA, screen).marks), 0)
    for number in range(start, start + 1_000_000):
        mark = Mark("answer", name, {"question": "report", "answer": f"The heart is enlarged. {number}"})
        saved = save_edit(database, ANNA, screen, mark, key=f"k{number}", slot=slot if version else "", version=version)
        version = saved.mark.version
        sender.send(number)


def kill_ten_times(location: str, write: Callable[..., None] = _write_until_killed, **changes: Any) -> None:
    """Kill a program that writes; ``changes`` are of the session's design."""
    database = Database(location)
    fill(database)
    trial = session(database, **changes)
    database.close()
    waits = [0.05, 0.31, 0.12, 0.44, 0.2, 0.08, 0.37, 0.16, 0.27, 0.5]
    acknowledged = set[str]().union(*killed(write, lambda turn: (location, trial), waits, "spawn"))
    database = Database(location)
    with database.write():
        pass  # waits for a server that still ends what the killed program asked for
    written = {event.key.removeprefix("anna/") for event in all_events(database) if event.action in ("mark", "edit")}
    assert acknowledged <= written
    assert len(written - acknowledged) <= len(waits)  # at most the one each time that was written and not yet told
    assert verify(database).marks == (1 if changes else len(written))  # an edited report is one mark
    assert len(acknowledged) > len(waits)
    sys.stdout.write(f"\nkilled {len(waits)} times: {len(acknowledged)} acknowledged, {len(written)} written\n")
    database.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_every_acknowledged_mark_is_there(tmp_path: Path) -> None:
    kill_ten_times(str(tmp_path / "reviews.sqlite"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_while_reports_are_typed(tmp_path: Path) -> None:
    editing = Editing(("pair-one",))
    kill_ten_times(str(tmp_path / "reviews.sqlite"), _edit_until_killed, rubric="draft-editing", editing=editing)


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
