"""Hashes of what is written once and kept: texts, names behind letters, readers, designs, hashes of images.

The event that makes such rows holds a hash of each, and events are a chain of hashes; so what is edited later is seen
by `core.reviews.verification`. Which columns are meant is asked of the schema: all that no event tells of
(`schema.TOLD`). Whoever adds a table or a column of that kind writes its rows with an event that covers them:
``database.record(..., after={..., **cover_of(connection, (table, condition))})``, and again whenever they change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.files import hash_of
from core.reviews.rubrics import ReviewError
from core.reviews.schema import TABLES, AnyRow, events, screens, sessions

ROWS = "rows"
"""Key of ``after`` of an event that covers rows: table -> the columns hashed, and hash by key of a row."""


def cover(connection: Connection, session_id: str, *only: sa.ColumnElement[bool]) -> dict[str, Any]:
    """Hashes of all rows of a session, or of those of its screens that conditions choose."""
    if only:
        return cover_of(connection, (screens, sa.and_(screens.c.session_id == session_id, *only)))
    own = [(table, table.c.session_id == session_id) for table in TABLES if has_session(table)]
    return cover_of(connection, (sessions, sessions.c.id == session_id), *own)


def cover_of(connection: Connection, *chosen: tuple[sa.Table, sa.ColumnElement[bool]]) -> dict[str, Any]:
    """Hashes of rows as they are now, for ``after`` of the event that made or changed them.

    Args:
        connection: of the transaction in which that event is written.
        chosen: tables, and which of their rows.
    """
    found: dict[str, Any] = {}
    for table, condition in chosen:
        columns = sorted(fixed(table))
        rows = connection.execute(sa.select(table).where(condition))
        found[table.name] = {"columns": columns, "rows": {key_of(table, row): row_hash(row, columns) for row in rows}}
    return {ROWS: found}


def has_session(table: sa.Table) -> bool:
    """Whether the rows of a table are of one session each, and an event holds their hashes."""
    return "session_id" in table.c and table is not events


def fixed(table: sa.Table) -> frozenset[str]:
    """The columns of a table that never change without a new hash; none where events tell all but the key."""
    names = frozenset(column.name for column in table.c if "told" not in column.info)
    by_events_alone = names == {column.name for column in table.primary_key} and names != set(table.c.keys())
    return frozenset() if by_events_alone else names


def told(table: sa.Table) -> dict[str, Any]:
    """The columns of a table that events tell, each with the value that it begins with."""
    return {column.name: column.info["told"] for column in table.c if "told" in column.info}


def key_of(table: sa.Table, row: AnyRow | Sequence[Any]) -> str:
    """The key of a row in one text."""
    values = [row._mapping[each.name] for each in table.primary_key] if isinstance(row, sa.Row) else list(row)
    return json.dumps(values)


def row_hash(row: AnyRow, columns: Sequence[str]) -> str:
    """Hash of some columns of a row."""
    return hash_of([row._mapping[name] for name in columns])


def is_covered(connection: Connection, session_id: str) -> bool:
    """Whether an event holds the hashes of a session's rows; not so of one that an earlier version made."""
    created = sa.select(events.c.after).where(events.c.session_id == session_id, events.c.action == "create")
    made = connection.scalar(created)
    return isinstance(made, dict) and ROWS in made


def seal_of(connection: Connection, session_id: str) -> str:
    """The seal of a closed session: the hash of the event that closed it, and so of all that came before.

    Who has it on paper sees whether the record was written anew, also with all hashes: ``verify`` takes it.

    Raises:
        ReviewError: the session is not closed.
    """
    closed = sa.select(events.c.hash).where(events.c.session_id == session_id, events.c.action == "close")
    found = connection.scalar(closed.order_by(events.c.sequence.desc()).limit(1))
    if found is None:
        raise ReviewError("A session has a seal once it is closed: cxr-lens review close.")
    return str(found)
