"""Whether a database of reviews is what its events say, to the last value of every table.

Events are a chain of hashes. Played again they give what readers changed; of all else they hold the hashes
(`core.reviews.cover`). A seal that was kept elsewhere binds the chain itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.reviews.cover import ROWS, fixed, key_of, row_hash, told
from core.reviews.database import Database, event_hash, migrate
from core.reviews.rubrics import ReviewError
from core.reviews.schema import TABLES, AnyRow, cases, events, marks, screens, sessions, users

_SHORTEST_SEAL = 16
"""Signs of a seal that are enough."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` counted.

    Attributes:
        sessions: in the database.
        screens: of all sessions.
        marks: on them, removed ones too.
        events: in the chain.
        seal: hash of the last event; empty where there is none.
        uncovered: ids of open sessions that an earlier version made: no event holds hashes of their texts, of the names
            behind letters and of images. They are covered from their closing on.
    """

    sessions: int
    screens: int
    marks: int
    events: int
    seal: str = ""
    uncovered: tuple[str, ...] = ()


def verify(database: Database, seals: Sequence[str] = ()) -> Verified:
    """Check that events are complete and unchanged, and that every value of every table is what they say.

    Args:
        seals: `cover.seal_of` of sessions as they were kept elsewhere, or their first 16 signs or more.

    Raises:
        ReviewError: what differs, and where.
    """
    with database.read() as connection:
        return verified_in(connection, database.name, seals)


def verified_in(connection: Connection, name: str, seals: Sequence[str] = ()) -> Verified:
    """The same in an open transaction.

    Args:
        name: of the database, for messages.
    """
    replay = _replayed(connection, name)
    for seal in seals:
        _check_seal(replay, name, seal)
    for _, fault in _faults(connection, replay):
        raise ReviewError(f"{name}: {fault} Restore a backup.")
    count = {table: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in TABLES}
    uncovered = tuple(sorted(replay.without_cover))
    seal = replay.hashes[-1] if replay.hashes else ""
    return Verified(count[sessions], count[screens], count[marks], len(replay.hashes), seal, uncovered)


def check_session(database: Database, session_id: str) -> None:
    """Check the events, and what belongs to a session; what is wrong with another's rows is not looked at.

    Raises:
        ReviewError: what differs, and where.
    """
    with database.read() as connection:
        for of, fault in _faults(connection, _replayed(connection, database.name)):
            if of in (None, session_id):
                raise ReviewError(f"{database.name}: {fault} Restore a backup.")


# ------------------------------------------------------------------------------------------------------------- events


@dataclass
class _Replay:
    """What the events say: by table, and key of a row.

    Attributes:
        values: of the columns that events tell.
        covered: columns hashed, and their hash.
        said: values of other columns that an event holds.
        of: the session of a row.
        without_cover: sessions of which no event holds the hashes of rows.
        hashes: of all events, in order.
    """

    values: dict[sa.Table, dict[str, dict[str, Any]]] = field(default_factory=lambda: {each: {} for each in TABLES})
    covered: dict[sa.Table, dict[str, tuple[list[str], str]]] = field(
        default_factory=lambda: {each: {} for each in TABLES}
    )
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    of: dict[str, str | None] = field(default_factory=dict)
    without_cover: set[str] = field(default_factory=set)
    hashes: list[str] = field(default_factory=list)

    def note(self, event: Mapping[str, Any]) -> None:
        """Take an event in."""
        after, action, session_id = event["after"], event["action"], event["session_id"]
        if after is None or action == "refused":
            return
        if action == "user":
            self._tell(users, [after["name"]], after, None)
        elif event["slot"] is not None:
            if told(marks).keys() <= after.keys():  # whatever the change is called
                self._tell(marks, [event["screen_id"], event["slot"]], after, session_id)
        elif event["screen_id"] is not None:
            self._tell(screens, [event["screen_id"]], after, session_id)
        elif session_id is not None:
            self._tell(sessions, [session_id], after, session_id)
        if action == "create":
            self.said[session_id] = dict(after["session"])
            self.without_cover.add(session_id)
        self._cover(after.get(ROWS, {}), session_id)

    def _tell(self, table: sa.Table, key: Sequence[Any], after: Mapping[str, Any], session_id: str | None) -> None:
        names = told(table)
        row = key_of(table, key)
        self.of[row] = session_id
        self.values[table].setdefault(row, {}).update({name: after[name] for name in names if name in after})

    def _cover(self, rows: Mapping[str, Any], session_id: str | None) -> None:
        by_name = {table.name: table for table in TABLES}
        for name, part in rows.items():
            for key, value in part["rows"].items():
                self.of[key] = session_id
                self.covered[by_name[name]][key] = (list(part["columns"]), value)
        if cases.name in rows:  # all of the session
            self.without_cover.discard(str(session_id))


def _replayed(connection: Connection, name: str) -> _Replay:
    """Play all events; refuse where they are no chain."""
    replay, before = _Replay(), ""
    for row in _rows(connection, sa.select(events).order_by(events.c.sequence), name):
        event, expected = dict(row._mapping), len(replay.hashes) + 1
        if event["sequence"] != expected:
            raise ReviewError(f"{name}: event {expected} is missing. Restore a backup.")
        try:
            whole = event["hash"] == event_hash(event, before)
            if whole:
                replay.note(event)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ReviewError(f"{name}: event {expected} is none that CXR Lens writes. Restore a backup.") from error
        if not whole:
            raise ReviewError(f"{name}: event {expected} is not as it was written. Restore a backup.")
        before = event["hash"]
        replay.hashes.append(before)
    return replay


def _check_seal(replay: _Replay, name: str, seal: str) -> None:
    kept = "".join(seal.split()).lower()
    if len(kept) < _SHORTEST_SEAL:
        raise ReviewError(f"'{seal[:100]}' is no seal: it has 64 signs, of which {_SHORTEST_SEAL} are enough.")
    if not any(each.startswith(kept) for each in replay.hashes):
        raise ReviewError(
            f"{name}: no event has the seal {kept[:_SHORTEST_SEAL]}…: it is of another database, or what happened "
            "before that seal was written anew. Restore a backup."
        )


# --------------------------------------------------------------------------------------------------------------- rows


def _faults(connection: Connection, replay: _Replay) -> Iterator[tuple[str | None, str]]:
    """(session or None, what is wrong), of all that is not what the events say."""
    for fault in _guards_lost(connection):
        yield None, fault
    for table in TABLES:
        if table is not events:
            yield from _faults_of(connection, replay, table)


def _faults_of(connection: Connection, replay: _Replay, table: sa.Table) -> Iterator[tuple[str | None, str]]:
    values, covered = replay.values[table], replay.covered[table]
    for row in _rows(connection, sa.select(table).order_by(*table.primary_key), table.name):
        key = key_of(table, row)
        session_id = _session_of(replay, table, row, key)
        replay.of[key] = session_id
        fault = _fault_of(replay, table, row, values.pop(key, None), covered.pop(key, None), session_id)
        if fault:
            yield session_id, f"{_named(table, key)} {fault}"
    for key in values.keys() | covered.keys():
        yield replay.of.get(key), f"{_named(table, key)}, of which events tell, is gone."


def _fault_of(
    replay: _Replay,
    table: sa.Table,
    row: AnyRow,
    said: Mapping[str, Any] | None,
    covered: tuple[list[str], str] | None,
    session_id: str | None,
) -> str:
    """What is wrong with a row; "" where nothing is."""
    first, kept = told(table), fixed(table)
    if not kept and said is None:
        return "is told of by no event."
    for name in first:
        if row._mapping[name] != (said or {}).get(name, first[name] if kept else _made_with(table.c[name])):
            return f"is not what its events say: {name} differs."
    if not kept:
        return ""
    if covered is None:
        if session_id not in replay.without_cover:
            return "is covered by no event."
        if table is sessions:
            for name, value in replay.said[str(session_id)].items():
                if name in kept and row._mapping.get(name) != value:
                    return f"is not what its events say: {name} differs."
        return ""
    columns, right = covered
    if unknown := set(columns) - kept:
        return f"was written with columns that are no more: {', '.join(sorted(unknown))}."
    if row_hash(row, columns) != right:
        return "is not as it was written."
    for name in sorted(kept - set(columns)):  # of a later schema: as the migration made it
        if row._mapping[name] != _made_with(table.c[name]):
            return f"is not as it was written: {name} differs."
    return ""


def _session_of(replay: _Replay, table: sa.Table, row: AnyRow, key: str) -> str | None:
    if table is sessions:
        return str(row.id)
    if "session_id" in table.c:
        return str(row.session_id)
    if "screen_id" in table.c:
        return replay.of.get(key_of(screens, [row.screen_id]))
    return replay.of.get(key)


def _made_with(column: sa.Column[Any]) -> Any:
    """What a migration puts into rows that are there."""
    given = getattr(column.server_default, "arg", None)
    if given is None:
        return None
    kind = column.type.python_type
    text = str(getattr(given, "text", given)).strip("'")
    return text.lower() in ("1", "true") if kind is bool else kind(text) if kind in (int, float) else text


def _named(table: sa.Table, key: str) -> str:
    return f"{table.name} {key}"


def _rows(connection: Connection, query: Any, name: str) -> Iterator[AnyRow]:
    """Rows of a query; a value that is none of its column's kind is told."""
    found = connection.execute(query)
    while True:
        try:
            row = found.fetchone()
        except (TypeError, ValueError) as error:
            raise ReviewError(f"{name} holds a value that CXR Lens did not write. Restore a backup.") from error
        if row is None:
            return
        yield row


# ------------------------------------------------------------------------------------------------------------- guards


def _guards_lost(connection: Connection) -> Iterator[str]:
    """Triggers that refuse changes of events and are no more, and any that are not ours."""
    if connection.dialect.name == "postgresql":
        of_events = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'events'::regclass AND tgenabled = 'O'"
        if "events_append_only" not in connection.scalars(sa.text(of_events)).all():
            yield "the guard that refuses changes of events is gone."
        return
    there = dict(tuple(row) for row in connection.exec_driver_sql(_GUARDS))
    for name, text in _guards().items():
        if there.pop(name, None) != text:
            yield f"'{name}', which refuses changes of events, is gone or is another."
    for name in there:
        yield f"there is a trigger or a view '{name}' that CXR Lens did not make."


_GUARDS = "SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'view')"


@cache
def _guards() -> dict[str, str]:
    """What the migrations make: name -> SQL."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            migrate(connection)
            return dict(tuple(row) for row in connection.exec_driver_sql(_GUARDS))
    finally:
        engine.dispose()
