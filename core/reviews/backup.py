"""Copies of the whole database, checked when made and when read back.

A dump (``.jsonl.gz``) holds every row of every table as a line of JSON and fits both databases; of SQLite there is also
the exact copy of the file (``.sqlite``) by SQLite's own online backup, while readers go on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core.files import DiskError, own_folder, whole_file
from core.reviews.database import Database
from core.reviews.rubrics import ReviewError
from core.reviews.schema import TABLES, screens
from core.reviews.store.actors import Actor, require_role
from core.reviews.verification import Verified as Verified
from core.reviews.verification import verified_in
from core.reviews.verification import verify as verify

FORMAT = "cxr-lens-reviews"
SCHEMA = "0002"
"""Schema of the rows of a dump."""
_LONGEST_LINE = 2**28
"""Characters of a line of a dump; a longer one is none of ours."""
_LACKING: Mapping[str, Mapping[str, Mapping[str, Any]]] = {"0001": {"sessions": {"secret": ""}}, SCHEMA: {}}
"""By schema of a dump that can be read: what its rows lack, by table."""


def backup(database: Database, who: Actor, path: Path) -> Verified:
    """Copy the whole database to a file, and check the copy.

    Args:
        database: to copy; readers go on.
        who: an admin.
        path: ``.sqlite`` or ``.jsonl.gz``; must not exist.

    Raises:
        NotAllowedError: by anybody but an admin.
        ReviewError: the file exists, cannot be written, or the copy is not sound.
    """
    with database.read() as connection:
        require_role(connection, who, "admin")
    with _new_file(path, "No backup was made; choose another folder.") as fresh:
        if path.name.endswith(".jsonl.gz"):
            return _dump(database, fresh)
        if path.suffix != ".sqlite":
            raise ReviewError(f"{path}: a backup is a .jsonl.gz, or of a SQLite database also a .sqlite.")
        if not database.is_sqlite:
            raise ReviewError(f"{path}: a PostgreSQL database is backed up as .jsonl.gz.")
        return _copy(Path(str(database.url.database)), fresh)


def restore(location: str | Path, path: Path, seals: Sequence[str] = ()) -> Verified:
    """Read a backup into a new or empty database, and check it. An existing one is never written over.

    Args:
        location: file or URL to restore into.
        path: of the backup.
        seals: as of `verification.verify`.

    Raises:
        ReviewError: the backup is damaged, or the database already holds something.
    """
    if not path.is_file():
        raise ReviewError(f"There is no backup {path}.")
    if path.name.endswith(".jsonl.gz"):
        return _load(location, path, seals)
    if "://" in str(location):
        raise ReviewError(f"{path}: a copy of a SQLite file is restored to a file. For PostgreSQL make a .jsonl.gz.")
    with _new_file(Path(location), f"{path} was not restored.") as fresh:
        return _copy(path, fresh, seals)


@contextmanager
def _new_file(path: Path, otherwise: str) -> Iterator[Path]:
    """A private file that gets its name when it is whole, and never replaces another."""
    exists = ReviewError(f"{path} exists and is not written over. Move it away, or choose another name.")
    if path.exists():
        raise exists
    try:
        own_folder(path.parent)
    except OSError as error:
        raise ReviewError(f"{path.parent} cannot be made ({error.strerror}). {otherwise}") from error
    try:
        with whole_file(path, replace=False) as fresh:
            yield fresh
    except FileExistsError:
        raise exists from None
    except (DiskError, sqlite3.Error) as error:
        raise ReviewError(f"{path}: {error} {otherwise}") from error


def _copy(source: Path, target: Path, seals: Sequence[str] = ()) -> Verified:
    address = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
        other.execute("PRAGMA journal_mode=DELETE")  # all in one file
    copied = Database(target)
    try:
        verified = verify(copied, seals)
    finally:
        copied.close()
    with closing(sqlite3.connect(target)) as other:
        other.execute("PRAGMA journal_mode=DELETE")
    return verified


def _dump(database: Database, target: Path) -> Verified:
    with database.read() as connection:
        verified = verified_in(connection, database.name)  # in the same view as the rows below
        hashed = hashlib.sha256()
        with gzip.open(target, "wt", encoding="utf-8") as file:

            def write(content: Any) -> None:
                line = json.dumps(content, ensure_ascii=True) + "\n"
                hashed.update(line.encode())
                file.write(line)

            write({"format": FORMAT, "schema": SCHEMA})
            for table in TABLES:
                # By position: a repeat comes after the screen that it repeats.
                ordered = (table.c.position,) if table is screens else tuple(table.primary_key.columns)
                for row in connection.execute(sa.select(table).order_by(*ordered)):
                    write([table.name, dict(row._mapping)])
            file.write(json.dumps({"sha256": hashed.hexdigest()}) + "\n")
    with _lines(target) as lines:  # read it back to the end
        for _ in lines:
            pass
    return verified


def _load(location: str | Path, path: Path, seals: Sequence[str]) -> Verified:
    with _lines(path):  # before anything is made
        pass
    database = Database(location)
    try:
        with database.write() as connection:
            filled = [t.name for t in TABLES if connection.scalar(sa.select(sa.func.count()).select_from(t))]
            if filled:
                raise ReviewError(f"{database.name} already holds {', '.join(filled)}; restore into an empty database.")
            by_name = {table.name: table for table in TABLES}
            with _lines(path) as lines:
                for number, content in enumerate(lines, 2):
                    is_row = isinstance(content, list) and len(content) == 2 and isinstance(content[1], dict)
                    table = by_name.get(str(content[0])) if is_row else None
                    if table is None or set(content[1]) != set(table.c.keys()):
                        raise ReviewError(f"{path}, line {number}: not a row of a review. Nothing was restored.")
                    try:
                        connection.execute(table.insert().values(content[1]))
                    except (sa.exc.StatementError, TypeError, ValueError, OverflowError) as error:
                        # One that the database refuses, or a value that is none of its column's kind.
                        raise ReviewError(
                            f"{path}, line {number}: not a row of a review. Nothing was restored."
                        ) from error
            return verified_in(connection, database.name, seals)  # raises before anything is committed
    finally:
        database.close()


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[Any]]:
    """Rows of a dump; at their end the hash is compared."""
    damaged = f"{path} is no backup, or is damaged or cut short. Use another."
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            head = file.readline(_LONGEST_LINE)
            about = json.loads(head)
            if not isinstance(about, dict) or about.get("format") != FORMAT:
                raise ReviewError(damaged)
            if str(about.get("schema")) not in _LACKING:
                known = ", ".join(_LACKING)
                has = f"schema {str(about['schema'])[:40]}" if "schema" in about else "no schema"
                raise ReviewError(f"{path} has {has}; this CXR Lens reads {known}. Update CXR Lens.")
            lacking = _LACKING[str(about["schema"])]
            hashed = hashlib.sha256(head.encode())

            def rows() -> Iterator[Any]:
                while line := file.readline(_LONGEST_LINE):
                    content = json.loads(line)
                    if isinstance(content, dict):
                        if content.get("sha256") == hashed.hexdigest() and not file.readline(1):
                            return
                        break
                    hashed.update(line.encode())
                    if isinstance(content, list) and len(content) == 2 and isinstance(content[1], dict):
                        content[1] = dict(lacking.get(str(content[0]), {})) | content[1]
                    yield content
                raise ReviewError(damaged)

            yield rows()
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise ReviewError(damaged) from error
