"""Review sessions to attack: a database in which every table has rows, and every kind of event was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core.reviews.adjudication import adjudicate
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.schema import TABLES
from core.reviews.store import (
    Actor,
    annotate,
    close_session,
    open_screen,
    read_screen,
    remove_mark,
    save_mark,
    spend,
    undo,
)
from tests.review_cases import ANNA, BORIS, RITA, error, fill, finish, name_on, screens_of, session

Rows = dict[str, list[dict[str, Any]]]


def world(location: str | Path) -> tuple[str, ...]:
    """Make a closed session, settled by a third reader, and an open one.

    Whoever adds a table to `core.reviews.schema` fills it here.

    Returns:
        What was kept elsewhere: the closed session's seal, and that of the last event.
    """
    database = Database(location)
    fill(database)
    trial = session(database, count=3, repeats=1, washout=1)
    for who in (ANNA, BORIS):
        own = screens_of(database, who.name, trial)
        for number, screen in enumerate(own[:-1]):
            finish(database, who, screen, int(who is ANNA and number % 2 == 0))
            spend(database, who, screen, 12.5, key=f"time-{screen}")
        annotate(database, who, own[-1], key="x", version=1, state="skipped", skip_reason="blurred")
    _change(database, screens_of(database, "anna", trial)[0])
    adjudicate(database, RITA, trial, "carla")
    carla = Actor("carla", "reader")
    for screen in screens_of(database, "carla", trial):
        open_screen(database, carla, screen)
    close_session(database, RITA, trial)
    seal = verify(database).seal
    other = session(database, count=2, title="Second")
    _change(database, screens_of(database, "anna", other)[0])
    kept = (seal, verify(database).seal)
    database.close()
    return kept


def _change(database: Database, screen: str) -> None:
    """All that a reader can do on a screen."""
    name = name_on(database, screen)
    saved = save_mark(database, ANNA, screen, error(name), key=f"a-{screen}")
    changed = save_mark(
        database, ANNA, screen, error(name, "wrong location"), key=f"b-{screen}", slot=saved.slot, version=1
    )
    remove_mark(database, ANNA, screen, changed.slot, key=f"c-{screen}", version=changed.version)
    save_mark(database, ANNA, screen, error(name, "false finding", significant=False), key=f"d-{screen}")
    undo(database, ANNA, screen, key=f"e-{screen}")
    save_mark(database, ANNA, screen, error(name, "omission"), key=f"f-{screen}")
    version = read_screen(database, ANNA, screen).version
    annotate(database, ANNA, screen, key=f"g-{screen}", version=version, flagged=True, comment="Look at this.")


def rows_in(connection: sa.Connection) -> Rows:
    """All that is in a database, by table."""
    return {
        table.name: [dict(row._mapping) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
        for table in TABLES
    }
