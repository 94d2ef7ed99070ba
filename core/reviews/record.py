"""When things happened in a closed session: what the append-only events say, for files that can be read alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from core.reviews.amendments import Amendment, amendments_of
from core.reviews.cover import seal_of
from core.reviews.database import Database
from core.reviews.rubrics import ReviewError
from core.reviews.schema import events, marks, screens
from core.reviews.store.actors import Actor
from core.reviews.store.sessions import owned_session
from core.reviews.verification import check_session


@dataclass(frozen=True, slots=True)
class Record:
    """Times of a session, UTC, as ISO 8601; empty where something did not happen.

    Attributes:
        created: when the session was made.
        closed: when it was closed.
        opened: by screen, when its reader first opened it.
        finished: by screen, when it was done or skipped, the last time.
        marked: by screen, when each of its marks was last changed, in the order of `answers.Results.marks`.
        amendments: what was changed of the session, from its making on.
        seal: `cover.seal_of` the session.
    """

    created: str = ""
    closed: str = ""
    opened: Mapping[str, str] = field(default_factory=dict)
    finished: Mapping[str, str] = field(default_factory=dict)
    marked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    amendments: tuple[Amendment, ...] = ()
    seal: str = ""


def load_record(database: Database, who: Actor, session_id: str) -> Record:
    """Read the times of a closed session.

    Raises:
        NotAllowedError: it is not the actor's session, or the actor is a reader.
        ReviewError: it is not closed: times of single marks would tell what is being marked; or it is not what its
            events say.
    """
    with database.read() as connection:
        session = owned_session(connection, who, session_id)
        if session.state != "closed":
            raise ReviewError("What happened when is shown when the session is closed: cxr-lens review close.")
        log = connection.execute(
            sa.select(events.c.at, events.c.action, events.c.screen_id, events.c.slot, events.c.before, events.c.after)
            .where(events.c.session_id == session_id)
            .order_by(events.c.sequence)
        ).all()
        standing = connection.execute(
            sa.select(marks.c.screen_id, marks.c.slot)
            .join(screens, screens.c.id == marks.c.screen_id)
            .where(screens.c.session_id == session_id, ~marks.c.deleted)
            .order_by(marks.c.slot)
        ).all()
        amended = amendments_of(connection, session_id)
        seal = seal_of(connection, session_id)
    check_session(database, session_id)
    opened: dict[str, str] = {}
    finished: dict[str, str] = {}
    changed: dict[tuple[str, str], str] = {}
    closed = ""
    for row in log:
        if row.action == "open":
            opened.setdefault(row.screen_id, row.at)
        elif row.action == "close":
            closed = row.at
        elif row.slot is not None and row.after is not None:
            changed[row.screen_id, row.slot] = row.at
        elif row.screen_id is not None and row.after is not None and "state" in row.after:
            if row.after["state"] == "pending":
                finished.pop(row.screen_id, None)
            elif (row.before or {}).get("state") != row.after["state"]:
                finished[row.screen_id] = row.at
    marked: dict[str, list[str]] = {}
    for screen_id, slot in standing:
        marked.setdefault(screen_id, []).append(changed.get((screen_id, slot), ""))
    times = {screen: tuple(of_screen) for screen, of_screen in marked.items()}
    return Record(session.created, closed, opened, finished, times, amended, seal)
