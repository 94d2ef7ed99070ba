"""Dumps of review sessions that somebody doctored, with the hash of the whole that belongs to them and without."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.reviews.backup import backup, restore
from core.reviews.database import Database, event_hash
from core.reviews.schema import TABLES
from tests.attacks import Tally
from tests.attacks.damage import OF_ANY
from tests.attacks.databases import _significance, other_value
from tests.attacks.reviews import rows_in, world
from tests.review_cases import ROOT_USER

Lines = list[Any]
"""Of a dump: what each line says, without the last, which is the hash of the others."""


def read(path: Path) -> Lines:
    """The lines of a dump."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()[:-1]]


def sealed(lines: Lines) -> bytes:
    """A dump of these lines, with the hash that belongs to them."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return gzip.compress(f"{text}{json.dumps({'sha256': hashlib.sha256(text.encode()).hexdigest()})}\n".encode(), 1)


def _rows(lines: Lines, table: str) -> list[dict[str, Any]]:
    return [line[1] for line in lines[1:] if line[0] == table]


def attacks(whole: Lines) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(name, the content of the doctored file)."""
    for table in TABLES:
        for column in table.c:
            for place, which in ((0, "first"), (-1, "last")):

                def edited(table: Any = table, column: Any = column, place: int = place) -> bytes:
                    lines = copy.deepcopy(whole)
                    row = _rows(lines, table.name)[place]
                    row[column.name] = other_value(row[column.name], column)
                    return sealed(lines)

                yield f"{table.name}.{column.name} of the {which} row", edited
            for of, value in (("nothing", None), ("a list", [[]]), ("2^80", 2**80), ("half a character", "\ud800")):

                def of_kind(table: Any = table, column: Any = column, value: Any = value) -> bytes:
                    lines = copy.deepcopy(whole)
                    _rows(lines, table.name)[0][column.name] = value
                    return sealed(lines)

                yield f"{table.name}.{column.name} is {of}", of_kind

            def without(table: Any = table, column: Any = column) -> bytes:
                lines = copy.deepcopy(whole)
                del _rows(lines, table.name)[0][column.name]
                return sealed(lines)

            yield f"{table.name} without {column.name}", without
        name = table.name
        yield f"no {name}", lambda name=name: sealed([x for x in whole if isinstance(x, dict) or x[0] != name])  # type: ignore[misc]
        yield f"a row of {name} twice", lambda name=name: sealed([*whole, [name, _rows(whole, name)[0]]])  # type: ignore[misc]
        yield f"the last row of {name} cut", lambda name=name: sealed(_without_last(whole, name))  # type: ignore[misc]
    head = whole[0]
    yield "no schema", lambda: sealed([{"format": head["format"]}, *whole[1:]])
    yield "a schema of tomorrow", lambda: sealed([head | {"schema": "9999"}, *whole[1:]])
    yield "a schema that is a list", lambda: sealed([head | {"schema": [1]}, *whole[1:]])
    yield "the schema before", lambda: sealed([head | {"schema": "0001"}, *whole[1:]])
    yield "another format", lambda: sealed([head | {"format": "x"}, *whole[1:]])
    yield "no head", lambda: sealed(whole[1:])
    yield "an unknown table", lambda: sealed([*whole, ["sqlite_master", {"name": "x"}]])
    yield "a table more", lambda: sealed([*whole, ["alembic_version", {"version_num": "0001"}]])
    yield "a row that is none", lambda: sealed([*whole, ["users", 5]])
    yield "a row of three parts", lambda: sealed([*whole, ["users", {}, {}]])
    yield "a table that is a list", lambda: sealed([*whole, [["users"], {}]])
    yield "SQL in a name", lambda: sealed([*whole, ["users", {"name": "'; DROP TABLE users;--", "role": "admin"}]])
    yield "rows turned round", lambda: sealed([head, *reversed(whole[1:])])
    yield "only the head", lambda: sealed([head])
    yield "nothing", lambda: gzip.compress(b"")
    yield "another hash", lambda: gzip.compress(gzip.decompress(sealed(whole))[:-10] + b'00000000"}')
    yield "no hash", lambda: gzip.compress("".join(json.dumps(line) + "\n" for line in whole).encode())
    yield "more after the hash", lambda: gzip.compress(gzip.decompress(sealed(whole)) + b'["users", {}]\n')
    yield "a line of 600 MB", lambda: gzip.compress(json.dumps(head).encode() + b'\n"' + b"A" * 600_000_000, 1)
    yield "100,000 brackets", lambda: gzip.compress(json.dumps(head).encode() + b"\n" + b"[" * 100_000 + b"\n")
    yield "all marks turned round, and the chain written anew", lambda: sealed(_rewritten(whole, _significance))
    yield "all comments changed, and the chain written anew", lambda: sealed(_rewritten(whole, _commented))
    yield "the last event and its mark cut", lambda: sealed(_without_last(_without_last(whole, "events"), "marks"))


def _without_last(lines: Lines, table: str) -> Lines:
    last = max(index for index, line in enumerate(lines) if isinstance(line, list) and line[0] == table)
    return [line for index, line in enumerate(lines) if index != last]


def _commented(value: Any) -> Any:
    return value | {"comment": "Nothing here."} if isinstance(value, dict) and value.get("comment") else value


def _rewritten(whole: Lines, change: Callable[[Any], Any]) -> Lines:
    lines, before = copy.deepcopy(whole), ""
    for row in _rows(lines, "events"):
        row["before"], row["after"] = change(row["before"]), change(row["after"])
        row["hash"] = before = event_hash(row, before)
    for name in ("marks", "screens"):
        for row in _rows(lines, name):
            row.update(change(row))
    return lines


def run(folder: Path, most: int) -> Tally:
    """Attack dumps: each is restored, and what came of it compared."""
    tally = Tally("dumps of review sessions")
    whole, good = folder / "whole.sqlite", folder / "good.jsonl.gz"
    kept = world(whole)
    database = Database(whole)
    with database.read() as connection:
        expected = rows_in(connection)
    backup(database, ROOT_USER, good)
    database.close()
    every = list(attacks(read(good)))
    files = {f"the file: {name}": damage for name, damage in OF_ANY.items()}
    step = max(1, (len(every) + len(files)) // most) if most else 1
    place = folder / "restored"

    def use(path: Path) -> bool:
        restore(place / "reviews.sqlite", path, kept)
        database = Database(place / "reviews.sqlite")
        try:
            with database.read() as connection:
                return rows_in(connection) == expected
        finally:
            database.close()

    for name, content in [*every, *files.items()][::step]:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = place / "doctored.jsonl.gz"
        if name in files:
            shutil.copyfile(good, path)
            files[name](path)
        else:
            path.write_bytes(content())  # type: ignore[call-arg, arg-type]
        tally.attempt(name, lambda path=path: use(path))  # type: ignore[misc]
    return tally
