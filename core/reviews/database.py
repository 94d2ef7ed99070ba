"""One database of reviews: connection, migration, short transactions, and errors in words.

SQLite in WAL mode by default, PostgreSQL by URL. Writers take turns on both (SQLite by BEGIN IMMEDIATE, PostgreSQL by
an advisory lock), so events are numbered without gaps and each holds the hash of the one before.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core import paths
from core.files import hash_of, own_folder
from core.reviews.rubrics import ReviewError, StorageError
from core.reviews.schema import TABLES, events

if TYPE_CHECKING:
    from alembic.config import Config

WAIT_SECONDS = 15
"""How long a writer waits for its turn before it says that the database is locked."""

_LAST_EVENT = sa.select(events.c.sequence, events.c.hash).order_by(events.c.sequence.desc()).limit(1)
_NEW_EVENT = events.insert()
_LOCK = 7_207_915  # any number, the same for all writers of a PostgreSQL database


_RESTORE = "Restore a backup: cxr-lens review restore."

_QUEUES: dict[str, deque[threading.Lock]] = {}  # writers of a file that wait their turn, each at a lock of its own
_QUEUES_LOCK = threading.Lock()


def default_location() -> str:
    """CXR_REVIEWS (a file or a database URL), or ``reviews.sqlite`` in the user's data folder."""
    return os.environ.get("CXR_REVIEWS") or str(paths.own_data() / "reviews.sqlite")


class Database:
    """Connection and transactions. Safe to share by threads; `close` it at the end."""

    def __init__(
        self,
        location: str | Path | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Open, or make, a database and bring its schema up to date.

        Args:
            location: file or URL; `default_location` where it is None.
            clock: gives the time of events.
            wait_seconds: patience with other writers.

        Raises:
            ReviewError: it cannot be reached, is not a database of reviews, or is newer than this software.
        """
        self.url = _url(str(location or default_location()))
        self.clock = clock
        self.wait_seconds = wait_seconds
        self.engine = self._connect()
        self._migrate()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def name(self) -> str:
        """For messages; without a password."""
        return str(self.url.database) if self.is_sqlite else self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Give connections back."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the database."""
        with self._told(), self.engine.connect().execution_options(**self._snapshot()) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction; it is on the disk when the block ends, and undone where the block raises."""
        with self._turn(), self._told(), self.engine.begin() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{int(self.wait_seconds * 1000)}ms'")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield connection

    def append(self, connection: Connection, **fields: Any) -> int:
        """Write the next event and return its number; ``fields`` are columns of `schema.events`."""
        last = connection.execute(_LAST_EVENT).first()
        row = {name: None for name in events.c.keys()} | fields  # noqa: C420, SIM118
        row["sequence"] = last.sequence + 1 if last else 1
        row["at"] = self.clock().astimezone(UTC).isoformat(timespec="microseconds")
        row["hash"] = event_hash(row, last.hash if last else "")
        connection.execute(_NEW_EVENT, row)
        return int(row["sequence"])

    def record(self, connection: Connection, by: str, key: str, action: str, **fields: Any) -> None:
        """Write an event that is no change of a mark or a screen; its key names what was done and who did it."""
        asked = hash_of([action, fields.get("after")])
        # Names hold no slash, so no key that a caller makes up is one of these.
        self.append(connection, actor=by, action=action, key=f"/{by}/{key}", request=asked, **fields)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let the writers of this process go one after another, as they came.

        SQLite has no queue: a writer that finds the file locked sleeps, and others overtake it.
        """
        if not self.is_sqlite:
            yield
            return
        mine = threading.Lock()
        mine.acquire()
        with _QUEUES_LOCK:
            queue = _QUEUES.setdefault(self.name, deque())
            queue.append(mine)
            if len(queue) == 1:
                mine.release()
        try:
            if not mine.acquire(timeout=self.wait_seconds):
                raise StorageError(self._in_words("locked"))
            yield
        finally:
            with _QUEUES_LOCK:
                first = queue[0] is mine
                queue.remove(mine)
                if first and queue:
                    queue[0].release()

    def _snapshot(self) -> dict[str, Any]:
        return {"reads_only": True} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}

    def _connect(self) -> Engine:
        if not self.is_sqlite:
            try:
                engine = sa.create_engine(self.url, pool_pre_ping=True, pool_size=10, max_overflow=30)
            except (ImportError, NoSuchModuleError) as error:
                raise ReviewError(
                    f"{self.name} needs a driver that is not installed ({error}). For PostgreSQL install "
                    "cxr-lens[postgres] and write the URL as postgresql+psycopg://user@host/database."
                ) from error
            return engine
        file = Path(str(self.url.database))
        if file.exists() and not file.is_file():
            what = "a folder" if file.is_dir() else "a pipe or a device"
            raise ReviewError(f"{file} is {what}, and no file. Choose another with CXR_REVIEWS.")
        try:
            own_folder(file.parent)
            if not file.exists():
                file.touch(mode=0o600)  # marks and reports are for their owner only
        except OSError as error:
            raise ReviewError(
                f"{file} cannot be made ({error.strerror}). Choose another file with CXR_REVIEWS."
            ) from error
        self._use_wal(file)
        engine = sa.create_engine(self.url, connect_args={"timeout": self.wait_seconds}, pool_size=10, max_overflow=30)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # transactions begin where we say so, below
            connection.execute("PRAGMA synchronous=FULL")  # an acknowledged mark survives a power cut
            connection.execute("PRAGMA foreign_keys=ON")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            reads = connection.get_execution_options().get("reads_only")
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return engine

    def _use_wal(self, file: Path) -> None:
        """Switch the file to WAL, which stays so; SQLite does not wait its turn here, so we do."""
        until = time.monotonic() + self.wait_seconds
        while True:
            try:
                with closing(sqlite3.connect(file)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.Error as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise ReviewError(self._in_words(str(error))) from error
                time.sleep(0.05)

    def _migrate(self) -> None:
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        config = _migrations()
        newest = ScriptDirectory.from_config(config).get_current_head()
        with self.read() as connection:
            heads = MigrationContext.configure(connection).get_current_heads()
            tables = set(sa.inspect(connection).get_table_names())
        if len(heads) > 1:
            raise ReviewError(f"{self.name} says that it has {len(heads)} schemas. {_RESTORE}")
        found = heads[0] if heads else None
        if found == newest:
            self._check_tables(tables)
            return
        if found is None and tables:
            raise ReviewError(
                f"{self.name} holds other tables ({', '.join(sorted(tables)[:5])}); it is not of reviews."
            )
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise ReviewError(f"{self.name} has schema {found}, made by a newer CXR Lens. Update CXR Lens.")
        with self.write() as connection:
            migrate(connection)  # does nothing if another process was faster

    def _check_tables(self, there: Set[str]) -> None:
        if lost := [table.name for table in TABLES if table.name not in there]:
            raise ReviewError(f"{self.name} has lost its {', '.join(lost)}. {_RESTORE}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in words what the database refused."""
        try:
            yield
        except DBAPIError as error:
            raise StorageError(self._in_words(str(error.orig))) from error
        except json.JSONDecodeError as error:  # of a column
            raise StorageError(f"{self.name} holds a value that cannot be read ({error}). {_RESTORE}") from error
        except PoolTimeoutError as error:
            raise StorageError(f"{self.name} has too many readers at this moment. Try again.") from error

    def _in_words(self, message: str) -> str:
        lower = message.lower()
        nothing = "Nothing of this change was written; what was acknowledged before is safe."
        if "locked" in lower or "lock timeout" in lower:
            return f"{self.name} is locked by another program for over {self.wait_seconds:g} s. {nothing} Try again."
        if "full" in lower or "no space" in lower or "disk i/o" in lower:
            return f"The disk of {self.name} is full or failing ({message}). {nothing} Free space, then try again."
        if "readonly" in lower or "read-only" in lower:
            return f"{self.name} cannot be written to. {nothing} Check its permissions and those of its folder."
        if "not a database" in lower or "malformed" in lower:
            return f"{self.name} is not a sound database ({message}). {_RESTORE}"
        if any(each in lower for each in ("no such table", "no such column", "undefinedtable", "does not exist")):
            return f"{self.name} has lost a table, or a part of one ({message.strip().splitlines()[0]}). {_RESTORE}"
        if "unable to open" in lower:
            return f"{self.name} cannot be opened. Check that it is a file, and the permissions of it and its folder."
        if "append-only" in lower:
            return f"{self.name}: the events of a review cannot be changed. {nothing}"
        return f"{self.name}: {message.strip().splitlines()[0]}. {nothing}"


def _migrations() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def migrate(connection: Connection) -> None:
    """Bring a schema up to date, in an open transaction."""
    from alembic import command

    config = _migrations()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def event_hash(row: Mapping[str, Any], before: str) -> str:
    """Hash of an event and of the hash before it, which makes a later change of any event visible."""
    fields = {name: value for name, value in row.items() if name != "hash"}
    return hash_of([before, fields])


def check_text(name: str, text: str, limit: int, *, empty: bool = True) -> None:
    """Refuse a text that is too long, or that no database can keep.

    Raises:
        ReviewError: what is wrong with it.
    """
    if not isinstance(text, str) or len(text) > limit or (not empty and not text.strip()):
        raise ReviewError(f"{name}: a text of {'0' if empty else '1'} to {limit:,} characters is needed.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ReviewError(
            f"{name}: the text holds half a character at position {error.start}. Type it again."
        ) from error
    if "\0" in text:
        raise ReviewError(f"{name}: the text holds a zero character. Type it again.")


def _url(location: str) -> URL:
    if "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser().absolute()))
    try:
        url = sa.make_url(location)
    except ArgumentError as error:
        raise ReviewError(
            "The database URL cannot be read; PostgreSQL's is postgresql+psycopg://user@host/name."
        ) from error
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ReviewError(f"Reviews are kept in SQLite or PostgreSQL, not in {url.get_backend_name()}.")
    if url.get_backend_name() == "sqlite" and not url.database:
        raise ReviewError("Reviews in memory would be lost; name a file.")
    return url
