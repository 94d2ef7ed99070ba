"""What was changed in a session after it was made: by whom, when, from what to what, and why.

The events are the record. A session's rubric, studies, reports and seed cannot be changed: answers rest on them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.config import to_dict
from core.reviews.cover import cover_of
from core.reviews.database import Database, check_text
from core.reviews.design import Design, plan, practice_screens, read_design
from core.reviews.rubrics import COMMENT_LIMIT, ReviewError
from core.reviews.schema import AnyRow, events, screens, sessions, users
from core.reviews.store.actors import NO_ROLE, Actor
from core.reviews.store.sessions import insert_screens, owned_session, stored_cases
from core.reviews.verification import check_session

CHANGEABLE: Mapping[str, str] = {
    "title": "Title",
    "instructions": "Instructions",
    "minutes": "Time limit, minutes",
    "readers": "Readers",
}
"""What may be changed, with its name in words."""
_TOLD = ("create", "amend", "adjudicate", "close", "invite", "redeem", "uninvite")


@dataclass(frozen=True, slots=True)
class Amendment:
    """One change of a session.

    Attributes:
        at: UTC, ISO.
        by: who changed it.
        what: in words.
        before: as it was; empty where there was nothing.
        after: as it is since then.
        reason: as given; may be empty.
    """

    at: str
    by: str
    what: str
    before: str
    after: str
    reason: str = ""


def amend(
    database: Database,
    who: Actor,
    session_id: str,
    *,
    title: str | None = None,
    instructions: str | None = None,
    minutes: int | None = None,
    add_readers: Sequence[str] = (),
    reason: str = "",
) -> list[str]:
    """Change what may be changed of an open session, and keep a record of it.

    Args:
        title: for lists; readers see it.
        instructions: for readers.
        minutes: time limit of a reader; 0 is none.
        add_readers: who read it too, from now on: the same studies, in an order and with names of their own.
        reason: for the record.

    Returns:
        What was changed, in words; empty if everything is so already.

    Raises:
        NotAllowedError: it is not the actor's session.
        ReviewError: the session is closed or not what its events say, the new design contradicts itself, or a reader is
            no user or reads already.
    """
    check_text("reason", reason, COMMENT_LIMIT)
    check_session(database, session_id)  # what was edited beside the events must not be bound to them now
    with database.write() as connection:
        session = owned_session(connection, who, session_id)
        if session.state != "open":
            raise ReviewError("This session is closed; its design cannot be changed any more.")
        design = read_design(session.design)
        readers = (*design.readers, *add_readers)
        wanted: dict[str, Any] = {"title": title, "instructions": instructions, "minutes": minutes, "readers": readers}
        changed = replace(design, **{name: value for name, value in wanted.items() if value is not None})
        check_text("instructions", changed.instructions, COMMENT_LIMIT)
        before, after = to_dict(design), to_dict(changed)
        names = [name for name in CHANGEABLE if before[name] != after[name]]
        if not names:
            return []
        if add_readers:
            _add_readers(connection, session, changed, add_readers)
        connection.execute(
            sessions.update().where(sessions.c.id == session_id).values(design=after, title=changed.title)
        )
        of_added = (screens.c.session_id == session_id) & screens.c.reader.in_(add_readers)
        covered = cover_of(connection, (sessions, sessions.c.id == session_id), (screens, of_added))
        database.record(
            connection,
            who.name,
            f"amend/{session_id}/{uuid.uuid4().hex}",
            "amend",
            session_id=session_id,
            before={name: before[name] for name in names},
            after={**{name: after[name] for name in names}, "reason": reason, **covered},
        )
    return [CHANGEABLE[name] for name in names]


def _add_readers(connection: Connection, session: AnyRow, design: Design, added: Sequence[str]) -> None:
    may_read = users.c.name.in_(added) & (users.c.role != NO_ROLE)
    known = set(connection.scalars(sa.select(users.c.name).where(may_read)))
    if missing := [name for name in added if name not in known]:
        raise ReviewError(f"readers: {', '.join(missing)} are no users. An admin can add them.")
    has_screens = (screens.c.session_id == session.id) & screens.c.reader.in_(added)
    if there := sorted(set(connection.scalars(sa.select(screens.c.reader).where(has_screens)))):
        raise ReviewError(f"readers: {', '.join(there)} has screens in this session already.")
    stored = stored_cases(connection, session.id)
    own = replace(design, readers=tuple(added))
    by_id = {case.study_id: case for case in stored}
    read = [case for case in stored if case.study_id not in design.practice_studies]
    for reader, laid_out in plan(own, read, session.secret).items():
        insert_screens(connection, session.id, reader, laid_out, by_id, practice_screens(design))


def amendments(database: Database, who: Actor, session_id: str) -> tuple[Amendment, ...]:
    """The record of a session's changes, from its making on.

    Raises:
        NotAllowedError: it is not the actor's.
    """
    with database.read() as connection:
        owned_session(connection, who, session_id)
        return amendments_of(connection, session_id)


def amendments_of(connection: Connection, session_id: str) -> tuple[Amendment, ...]:
    """The same, for whoever has asked whether the actor may see it."""
    query = sa.select(events.c.at, events.c.actor, events.c.action, events.c.before, events.c.after)
    told = events.c.action.in_(_TOLD)
    rows = connection.execute(query.where(events.c.session_id == session_id, told).order_by(events.c.sequence))
    return tuple(each for row in rows for each in _told(row))


def _told(row: AnyRow) -> list[Amendment]:
    after: Mapping[str, Any] = row.after or {}
    about = (row.at, row.actor)
    if row.action == "amend":
        reason = after.get("reason", "")
        return [
            Amendment(*about, CHANGEABLE[name], _in_words(row.before[name]), _in_words(after[name]), reason)
            for name in CHANGEABLE
            if name in after
        ]
    if row.action == "create":
        laid_out = "; ".join(f"{reader}: {count} screens" for reader, count in after.get("screens", {}).items())
        return [Amendment(*about, "Session made", "", laid_out)]
    if row.action == "adjudicate":
        return [Amendment(*about, "Third reader", "", f"{after['adjudicator']}: {len(after['screens'])} screens")]
    if row.action == "close":
        return [Amendment(*about, "State", "open", "closed", after.get("reason", ""))]
    words = {"invite": "Invitation made", "redeem": "Invitation used", "uninvite": "Invitation withdrawn"}
    return [Amendment(*about, words[row.action], "", str(after.get("reader", "")))]


def _in_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
