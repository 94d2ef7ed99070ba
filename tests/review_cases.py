"""Sessions to test reviews with: invented cases, a database with its users, and the pages without a browser."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.observations import OBSERVATIONS, LabelState
from core.reviews import local_key
from core.reviews.database import Database
from core.reviews.design import Case, Design, image_sha256
from core.reviews.rubrics import Mark
from core.reviews.schema import events
from core.reviews.sources import name_phantoms, open_source, session_image
from core.reviews.store import (
    Actor,
    annotate,
    create_session,
    first_admin,
    list_screens,
    open_screen,
    read_screen,
    save_mark,
    set_role,
)
from tests.mimic_tree import write_csv

ROOT = Path(__file__).resolve().parent.parent
ANNA, BORIS, RITA, RALF, ROOT_USER = (
    Actor("anna", "reader"),
    Actor("boris", "reader"),
    Actor("rita", "researcher"),
    Actor("ralf", "researcher"),
    Actor("root", "admin"),
)
MODELS = ("reference", "pair-one", "pair-two")
TEXTS = {
    "reference": "The heart is enlarged. There is a small left pleural effusion.",
    "pair-one": "The heart is normal in size. The lungs are clear.",
    "pair-two": "The heart is enlarged. No pneumothorax.",
}


OWN_RUBRIC = """
name = "own"
title = "Mine"
about = "For tests."
question = "What do you say?"
reports = 1

[[questions]]
id = "score"
ask = "How good is it?"
kind = "scale"
of = "report"
key = "r"
[questions.anchors]
1 = "bad"
2 = "middling"
3 = "good"

[[questions]]
id = "why"
ask = "Why?"
kind = "choices"
of = "report"
key = "w"
when = { question = "score", is = [1] }
alone = ["nothing"]
[questions.options]
wrong = "wrong"
long = "too long"
nothing = "no reason"

[[contradictions]]
words = "What is good is not wrong."
one = { question = "score", is = [3] }
other = { question = "why", is = ["wrong"] }
"""
"""A file of a user's own."""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database with its users, which the pages use too; the login name is its admin."""
    monkeypatch.setenv("CXR_REVIEWS", str(tmp_path / "reviews.sqlite"))
    monkeypatch.setenv("LOGNAME", "root")
    opened = open_file(tmp_path)
    fill(opened)
    yield opened
    opened.close()


@pytest.fixture
def trial(database: Database) -> str:
    """Id of a session of anna and boris."""
    return session(database)


@pytest.fixture
def screen(database: Database, trial: str) -> str:
    """Id of anna's first screen in it."""
    return screens_of(database, "anna", trial)[0]


def cases(count: int = 6, models: Sequence[str] = MODELS) -> list[Case]:
    found = []
    for number in range(count):
        labels = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
        labels["Cardiomegaly" if number % 3 else "Edema"] = LabelState.POSITIVE
        reports = {model: TEXTS.get(model, "The lungs are clear.") for model in models}
        bundles = {model: "b" * 64 for model in models if model != "reference"}
        found.append(Case(f"s{number:03}", f"{number:064x}", reports, bundles, labels, {"age": "60"}))
    return found


def design(**changes: Any) -> Design:
    values: dict[str, Any] = {"title": "Trial", "rubric": "report-quality", "readers": ("anna", "boris")}
    return Design(**{**values, **changes})


def fill(database: Database, readers: Sequence[str] = ("anna", "boris", "carla")) -> Actor:
    admin = first_admin(database, "root")
    for name in readers:
        set_role(database, admin, name, "reader")
    set_role(database, admin, "rita", "researcher")
    set_role(database, admin, "ralf", "researcher")
    return RITA


def session(database: Database, count: int = 6, **changes: Any) -> str:
    return create_session(database, RITA, design(**changes), cases(count))


def screens_of(database: Database, reader: str, session_id: str) -> list[str]:
    return [screen for screen, _, _ in list_screens(database, Actor(reader, "reader"), session_id)]


def name_on(database: Database, screen: str, who: Actor = ANNA) -> str:
    """The letter of the first report on a screen."""
    return read_screen(database, who, screen).reports[0][0]


def all_events(database: Database) -> list[sa.Row]:
    with database.read() as connection:
        return list(connection.execute(sa.select(events).order_by(events.c.sequence)))


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)


def csv_of_marks(database: Database, rows: list[list[str]], columns: str = "screen,report,kind,value") -> Path:
    """A file to import marks from, beside the database."""
    path = Path(database.name).with_name("import.csv")
    write_csv(path, columns.split(","), rows)
    return path


def finish(database: Database, who: Actor, screen: str, errors: int = 0) -> None:
    """Read a screen: open it, mark omissions in its first report, and end it."""
    shown = open_screen(database, who, screen)
    for number in range(errors):
        save_mark(database, who, screen, error(shown.reports[0][0]), key=f"{screen}-{number}")
    version = read_screen(database, who, screen).version
    annotate(database, who, screen, key=f"{screen}-done", version=version, state="done")


def phantom_cases(
    texts: Mapping[str, str] = TEXTS, bundles: Mapping[str, str] | None = None, count: int = 2
) -> tuple[str, list[Case]]:
    """The name of a source of phantoms, and cases of its first test studies with these reports."""
    name = name_phantoms(40, 3)
    source = open_source(name)
    ids = [study.study_id for study in source.studies("test")[:count]]
    return name, [Case(each, image_sha256(session_image(source, each)), texts, bundles or {}) for each in ids]


def error(report: str, kind: str = "omission", significant: bool = True) -> Mark:
    return Mark("error", report, {"error": kind, "significant": significant})


def answer(question: str, value: Any, report: str = "A", **place: Any) -> Mark:
    return Mark("answer", report, {"question": question, "answer": value, **place})


def twenty_readers(database: Database) -> tuple[str, list[Actor], list[list[str]]]:
    """A session of twenty readers: its id, who they are, and the screens of each."""
    names = tuple(f"reader {number}" for number in range(20))
    fill(database, names)
    trial = session(database, readers=names)
    return trial, [Actor(name, "reader") for name in names], [screens_of(database, name, trial) for name in names]


def at_a_pace(
    readers: int, marks: int, mark: Callable[[int, int], object], what: str = "a mark", share: int = 95
) -> str:
    """Let each reader mark once a second, faster than anybody reads: ``share`` % within 100 ms; the times in words."""

    def read(reader: int) -> list[float]:
        seconds = []
        time.sleep(reader / readers)
        for number in range(marks):
            started = time.perf_counter()
            mark(reader, number)
            seconds.append(time.perf_counter() - started)
            time.sleep(max(0.0, 1 - seconds[-1]))
        return seconds

    with ThreadPoolExecutor(readers) as pool:
        seconds = sorted(each * 1e3 for took in pool.map(read, range(readers)) for each in took)
    most = seconds[len(seconds) * 95 // 100]
    words = f"median {seconds[len(seconds) // 2]:.1f} ms, 95 % {most:.1f} ms, largest {seconds[-1]:.0f} ms"
    assert seconds[len(seconds) * share // 100] <= 100, words
    return f"\n{readers} readers, {what} a second each: {words}\n"


def open_file(folder: Path, **options: Any) -> Database:
    return Database(folder / "reviews.sqlite", **options)


def page(path: str) -> None:
    """The frame of dashboard/app.py without its first page, which writes reports."""
    import runpy

    import streamlit as st

    from core.types import CXRLensError
    from dashboard import session

    session.start()
    try:
        runpy.run_path(path)
    except CXRLensError as error:
        st.error(str(error))


def open_app_page(name: str, **address: str) -> AppTest:
    """Open a page as the owner of this machine does."""
    address = {local_key.TOKEN: local_key.token_of(st.get_option("server.port")), **address}
    app = AppTest.from_function(page, args=(str(ROOT / "dashboard" / "app_pages" / f"{name}.py"),), default_timeout=120)
    app.query_params.update(address)
    return app.run()


def killed(
    write: Callable[..., None], arguments: Callable[[int], tuple[Any, ...]], waits: Iterable[float], start: str
) -> Iterator[set[str]]:
    """Let a writer of changes be killed again and again; yields the keys that it acknowledged, all so far.

    Args:
        write: in a process of its own, writes changes with the keys k0, k1, ... from the last but one of its arguments
            on, and sends each number down the last one once it is stored.
        arguments: of ``write`` before these two, by turn.
        waits: seconds that each writer has from its first change on.
        start: how its process is started.
    """
    acknowledged: set[str] = set()
    for turn, wait in enumerate(waits):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        given = (*arguments(turn), turn * 1_000_000, sender)
        process = multiprocessing.get_context(start).Process(target=write, args=given)  # type: ignore[attr-defined]
        process.start()
        sender.close()
        acknowledged.add(f"k{receiver.recv()}")  # it is at work
        process.join(wait)
        process.kill()
        process.join()
        with suppress(EOFError):
            while True:
                acknowledged.add(f"k{receiver.recv()}")
        receiver.close()
        yield acknowledged
