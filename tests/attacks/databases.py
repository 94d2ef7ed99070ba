"""Databases of review sessions, edited behind the program's back: columns, rows and tables, and the file itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core.reviews.database import Database, event_hash
from core.reviews.schema import TABLES, events
from core.reviews.verification import verified_in, verify
from core.types import CXRLensError
from tests.attacks import Tally
from tests.attacks.damage import OF_ANY, flip
from tests.attacks.reviews import rows_in, world

Edit = Callable[[sa.Connection], None]
_NAMES = {table.name: table for table in TABLES}


def other_value(value: Any, column: sa.Column[Any]) -> Any:
    """A value of a column's kind that is another."""
    if isinstance(column.type, sa.JSON):
        return {"x": 1} if value is None else [*value, ["A", "x"]] if isinstance(value, list) else {**value, "x": 1}
    if isinstance(column.type, sa.Boolean):
        return not value
    if isinstance(column.type, sa.Integer | sa.Float):
        return (value or 0) + 10_000
    text = value or " "
    return f"{'0' if text[0] != '0' else '1'}{text[1:]}"


def edits(connection: sa.Connection) -> Iterator[tuple[str, Edit]]:
    """(name, what it does in a transaction), of all columns and rows that the schema knows of."""
    for table in TABLES:
        rows = connection.execute(sa.select(table).order_by(*table.primary_key)).all()
        if len(rows) < 2:
            raise AssertionError(f"'{table.name}' has no rows to edit: let tests/attacks/reviews.py make two or more.")
        for column in table.c:
            for row in (rows[0], rows[-1]):
                yield (
                    f"{table.name}.{column.name} of {'the first' if row is rows[0] else 'the last'} row",
                    _update(table, row, {column.name: other_value(row._mapping[column.name], column)}),
                )
            if column.name not in table.primary_key:
                yield f"{table.name}.{column.name} of two rows exchanged", _exchange(table, column)
        yield f"a row of {table.name} removed", _delete(table, rows[-1])
        yield f"the first row of {table.name} removed", _delete(table, rows[0])
        yield f"all rows of {table.name} removed", _guarded(table, lambda c, t=table: c.execute(t.delete()) and None)  # type: ignore[misc]
        yield f"a row of {table.name} more", _insert(table, rows[-1])


def _guarded(table: sa.Table, edit: Edit) -> Edit:
    """The same without what the database itself refuses, which is put back afterwards."""

    def do(connection: sa.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            edit(connection)
            connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
            return
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        guards: list[Any] = []
        if table is events:
            guards = list(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        for name, _ in guards:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        edit(connection)
        for _, text in guards:
            connection.exec_driver_sql(text)

    return do


def _is(table: sa.Table, row: Any) -> sa.ColumnElement[bool]:
    return sa.and_(*(column == row._mapping[column.name] for column in table.primary_key))


def _update(table: sa.Table, row: Any, values: Mapping[str, Any]) -> Edit:
    return _guarded(table, lambda c: c.execute(table.update().where(_is(table, row)).values(values)) and None)


def _delete(table: sa.Table, row: Any) -> Edit:
    return _guarded(table, lambda c: c.execute(table.delete().where(_is(table, row))) and None)


def _insert(table: sa.Table, row: Any) -> Edit:
    values = dict(row._mapping)
    for column in table.primary_key:
        values[column.name] = other_value(values[column.name], column)
    for name in ("key", "position"):
        if name in values:
            values[name] = other_value(values[name], table.c[name])
    return _guarded(table, lambda c: c.execute(table.insert().values(values)) and None)


def _exchange(table: sa.Table, column: sa.Column[Any]) -> Edit:
    def do(connection: sa.Connection) -> None:
        rows = connection.execute(sa.select(table).order_by(*table.primary_key)).all()
        one = rows[0]
        other = next((row for row in rows if row._mapping[column.name] != one._mapping[column.name]), None)
        if other is None:
            return
        mine, theirs = one._mapping[column.name], other._mapping[column.name]
        if any(column.name in {each.name for each in unique.columns} for unique in _unique(table)):
            connection.execute(table.update().where(_is(table, one)).values({column.name: other_value(mine, column)}))
        connection.execute(table.update().where(_is(table, other)).values({column.name: mine}))
        connection.execute(table.update().where(_is(table, one)).values({column.name: theirs}))

    return _guarded(table, do)


def _unique(table: sa.Table) -> list[sa.UniqueConstraint]:
    found = [each for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
    return [*found, *(sa.UniqueConstraint(column) for column in table.c if column.unique)]


def rewrite(connection: sa.Connection, change: Callable[[dict[str, Any]], bool]) -> None:
    """Change events, and write all hashes anew, as somebody does who knows how they are made."""

    def do(connection: sa.Connection) -> None:
        before = ""
        for row in connection.execute(sa.select(events).order_by(events.c.sequence)).all():
            event = dict(row._mapping)
            change(event)
            event["hash"] = before = event_hash(event, before)
            connection.execute(events.update().where(events.c.sequence == event["sequence"]).values(event))

    _guarded(events, do)(connection)


def _significance(value: Any) -> Any:
    """A mark with its significance turned round."""
    if isinstance(value, dict) and isinstance(value.get("value"), dict) and "significant" in value["value"]:
        return {**value, "value": {**value["value"], "significant": not value["value"]["significant"]}}
    return value


def _turn_marks(connection: sa.Connection) -> None:
    def change(event: dict[str, Any]) -> bool:
        event["before"], event["after"] = _significance(event["before"]), _significance(event["after"])
        return True

    rewrite(connection, change)
    marks = _NAMES["marks"]
    for row in connection.execute(sa.select(marks)).all():
        turned = _significance({"value": row.value})["value"]
        connection.execute(marks.update().where(_is(marks, row)).values(value=turned))


def _later(connection: sa.Connection) -> None:
    rewrite(connection, lambda event: event.update(at=event["at"].replace("20", "21", 1)) is None)


def _by_another(connection: sa.Connection) -> None:
    rewrite(
        connection, lambda event: event.update(actor="boris" if event["actor"] == "anna" else event["actor"]) is None
    )


def _cut(count: int) -> Edit:
    def do(connection: sa.Connection) -> None:
        last = connection.scalar(sa.select(sa.func.max(events.c.sequence)))
        connection.execute(events.delete().where(events.c.sequence > (last or 0) - count))

    return _guarded(events, do)


OF_CHAINS: Mapping[str, Edit] = {
    "all marks turned round, and the chain written anew": _turn_marks,
    "all times changed, and the chain written anew": _later,
    "all events by another reader, and the chain written anew": _by_another,
    "the last event cut": _cut(1),
    "the last ten events cut": _cut(10),
    "all events cut": _cut(10**6),
}


def attack_rows(tally: Tally, location: str | Path, kept: tuple[str, ...], without: Sequence[str] = ()) -> None:
    """Edit rows, each in a transaction that is taken back.

    Args:
        without: edits that have one of these in their name are left out.
    """
    database = Database(location)
    with database.read() as connection:
        expected = rows_in(connection)
        every = [*edits(connection), *OF_CHAINS.items()]
    for name, edit in [each for each in every if not any(part in each[0] for part in without)]:

        def use(edit: Edit = edit) -> bool:
            with database.engine.connect() as connection:
                try:
                    edit(connection)
                    verified_in(connection, "it", kept)
                    return rows_in(connection) == expected
                except sa.exc.IntegrityError as error:
                    raise CXRLensError("The database itself refuses it.") from error
                finally:
                    connection.rollback()

        tally.attempt(name, use)
    database.close()


# ----------------------------------------------------------------------------------------------------- SQLite's files


def _sql(*statements: str) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            for statement in statements:
                with suppress(sqlite3.IntegrityError):  # the database itself refuses it
                    connection.execute(statement)

    return do


def _flipped(place: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(flip(path.read_bytes(), place)) and None


def of_files() -> Iterator[tuple[str, Callable[[Path], None]]]:
    """(name, what it does to a file of SQLite)."""
    yield from OF_ANY.items()
    for place in range(40):
        yield f"one bit at {place} of 40", _flipped((place + 0.37) / 40)
    for table in TABLES:
        yield f"{table.name} is no more", _sql(f"DROP TABLE {table.name}")
        yield (
            f"{table.name} is a view",
            _sql(
                f"CREATE TABLE hidden AS SELECT * FROM {table.name}",
                f"DROP TABLE {table.name}",
                f"CREATE VIEW {table.name} AS SELECT * FROM hidden",
            ),
        )
        yield (
            f"{table.name} has a column of another name",
            _sql(f"ALTER TABLE {table.name} RENAME COLUMN {list(table.c)[-1].name} TO other"),
        )
        yield f"{table.name} is empty", _sql(*_without_guards(), f"DELETE FROM {table.name}")
        for column in table.c:
            quoted = f'"{column.name}"'
            yield (
                f"{table.name}.{column.name} is a value of another kind",
                _sql(*_without_guards(), f"UPDATE OR IGNORE {table.name} SET {quoted} = x'00ff' WHERE rowid = 1"),
            )
            yield (
                f"{table.name}.{column.name} is half a JSON",
                _sql(*_without_guards(), f"UPDATE OR IGNORE {table.name} SET {quoted} = '{{\"x' WHERE rowid = 1"),
            )
    yield "no guards of events", _sql(*_without_guards())
    yield (
        "a trigger that changes marks",
        _sql("CREATE TRIGGER x AFTER INSERT ON marks BEGIN UPDATE marks SET report = 'B' WHERE slot = NEW.slot; END"),
    )
    yield "a schema of tomorrow", _sql("UPDATE alembic_version SET version_num = '9999'")
    yield "an empty schema", _sql("DELETE FROM alembic_version")
    yield "two schemas", _sql("INSERT INTO alembic_version VALUES ('0001')")
    yield "no schema", _sql("DROP TABLE alembic_version")
    yield (
        "another's database",
        _sql(
            *(f"DROP TABLE {table.name}" for table in reversed(TABLES)),
            "DROP TABLE alembic_version",
            "CREATE TABLE patients (name TEXT)",
        ),
    )


def _without_guards() -> tuple[str, ...]:
    return tuple(f"DROP TRIGGER events_no_{what}" for what in ("update", "delete", "replace"))


def attack_files(tally: Tally, folder: Path, whole: Path, kept: tuple[str, ...], most: int = 0) -> None:
    """Damage copies of a file of SQLite, and use each as `verify` does."""
    database = Database(whole)
    with database.read() as connection:
        expected = rows_in(connection)
    database.close()
    every = list(of_files())
    step = max(1, len(every) // most) if most else 1
    for name, damage in every[::step]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path = folder / "reviews.sqlite"
        shutil.copyfile(whole, path)
        damage(path)

        def use(path: Path = path) -> bool:
            database = Database(path)
            try:
                verify(database, kept)
                with database.read() as connection:
                    return rows_in(connection) == expected
            finally:
                database.close()

        tally.attempt(name, use)


def settled(path: Path) -> None:
    """Bring all of a file of SQLite into the one file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    for ending in ("-wal", "-shm"):
        if os.path.exists(f"{path}{ending}"):  # noqa: PTH110
            raise AssertionError("Somebody still has it open.")


def run(folder: Path, most: int) -> Tally:
    """Attack databases; SQLite here, and `tests/test_review_evidence.py` the rows of PostgreSQL too."""
    tally = Tally("databases of review sessions")
    whole = folder / "whole.sqlite"
    kept = world(whole)
    attack_rows(tally, whole, kept)
    settled(whole)
    attack_files(tally, folder / "damaged", whole, kept, most)
    return tally
