"""The tables of reviews as queries see them. What makes them is in ``migrations/``; a test compares the two.

No value can be edited unnoticed: a column marked `TOLD`, or `begins`, holds what the last event about it says; all
others never change once their row is there, and an event holds the hash of that row (`core.reviews.cover`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
)

AnyRow: TypeAlias = "Row[*tuple[Any, ...]]"
"""Of any query."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
_JSON = JSON(none_as_null=True)

TOLD: dict[str, Any] = {"told": None}
"""``info`` of a column whose value an event tells, from the first on."""


def begins(value: Any) -> dict[str, Any]:
    """``info`` of a column that begins with a value; each change of it is told by an event."""
    return {"told": value}


users = Table(
    "users",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("role", String(20), nullable=False, info=TOLD),  # reader, researcher, admin
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("title", String(200), nullable=False),
    Column("design", _JSON, nullable=False),
    Column("state", String(20), nullable=False, info=begins("open")),  # open, closed
    Column("owner", String(200), ForeignKey("users.name"), nullable=False),
    Column("created", String(32), nullable=False),
    Column("software", String(50), nullable=False),
    # Decides names of reports and all orders, beside the seed; empty in sessions that were made before there was one.
    Column("secret", String(64), nullable=False, server_default=""),
)

cases = Table(
    "cases",
    metadata,
    Column("session_id", String(32), ForeignKey("sessions.id"), primary_key=True),
    Column("study_id", String(200), primary_key=True),
    Column("context", _JSON, nullable=False),
    Column("reports", _JSON, nullable=False),  # text by model, kept here so that a removed bundle takes nothing away
)

screens = Table(
    "screens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("session_id", String(32), nullable=False),
    Column("reader", String(200), ForeignKey("users.name"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("study_id", String(200), nullable=False),
    Column("shown", _JSON, nullable=False),  # [blinded name, model] in the order shown
    Column("repeats", String(32), ForeignKey("screens.id")),
    Column("disputed", _JSON),  # of an adjudicator's screen: the questions that readers answered differently
    Column("image_sha256", String(64), nullable=False),
    Column("bundles", _JSON, nullable=False),  # hash by model
    Column("software", String(50), nullable=False),
    Column("state", String(20), nullable=False, info=begins("pending")),  # pending, done, skipped
    Column("skip_reason", Text, nullable=False, info=begins("")),
    Column("flagged", Boolean, nullable=False, info=begins(False)),
    Column("comment", Text, nullable=False, info=begins("")),
    Column("version", Integer, nullable=False, info=begins(1)),
    Column("opened", Boolean, nullable=False, info=begins(False)),
    Column("seconds", Float, nullable=False, info=begins(0.0)),  # of active reading
    UniqueConstraint("session_id", "reader", "position"),
    ForeignKeyConstraint(["session_id", "study_id"], ["cases.session_id", "cases.study_id"]),
)

marks = Table(
    "marks",
    metadata,
    Column("screen_id", String(32), ForeignKey("screens.id"), primary_key=True),
    Column("slot", String(200), primary_key=True),  # the question answered: see core.reviews.rubrics
    Column("kind", String(20), nullable=False, info=TOLD),
    Column("report", String(20), nullable=False, info=TOLD),  # blinded name
    Column("value", _JSON, nullable=False, info=TOLD),
    Column("version", Integer, nullable=False, info=TOLD),
    Column("deleted", Boolean, nullable=False, info=TOLD),
)

events = Table(
    "events",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),  # UTC, as the clock said; the order is that of the sequence
    Column("actor", String(200), nullable=False),
    Column("action", String(20), nullable=False),
    Column("session_id", String(32), index=True),
    Column("screen_id", String(32), index=True),
    Column("slot", String(200)),
    Column("key", String(500), nullable=False, unique=True),  # idempotency: a repeated request is done once
    Column("request", String(64), nullable=False),  # hash of what was asked with that key
    Column("asked", _JSON),  # of a refused change: what it was, so that it is not lost
    Column("before", _JSON),
    Column("after", _JSON),
    Column("undoes", BigInteger().with_variant(Integer, "sqlite")),
    Column("hash", String(64), nullable=False),  # of this event and the hash before it
)

is_practice = screens.c.position < 0
"""Practice screens stand before a reader's first, and count nowhere."""

TABLES = (users, sessions, cases, screens, marks, events)
"""In an order that foreign keys allow to fill."""
