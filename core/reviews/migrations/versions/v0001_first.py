"""The first released schema (CXR Lens 0.1)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make all tables, and the triggers that keep events as they were written."""
    _make_tables()
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        for what in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER events_no_{what.lower()} BEFORE {what} ON events "
                "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
            )
        # INSERT OR REPLACE deletes without asking the trigger above.
        op.execute(
            "CREATE TRIGGER events_no_replace BEFORE INSERT ON events "
            "WHEN EXISTS (SELECT 1 FROM events WHERE sequence = NEW.sequence OR key = NEW.key) "
            "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
        )


def _make_tables() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("design", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("software", sa.String(50), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.ForeignKeyConstraint(["owner"], ["users.name"], name="fk_sessions_owner"),
    )
    op.create_table(
        "cases",
        sa.Column("session_id", sa.String(32), nullable=False),
        sa.Column("study_id", sa.String(200), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("reports", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "study_id", name="pk_cases"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_cases_session_id"),
    )
    op.create_table(
        "screens",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("session_id", sa.String(32), nullable=False),
        sa.Column("reader", sa.String(200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.String(200), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("repeats", sa.String(32)),
        sa.Column("disputed", sa.JSON()),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("bundles", sa.JSON(), nullable=False),
        sa.Column("software", sa.String(50), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("skip_reason", sa.Text(), nullable=False),
        sa.Column("flagged", sa.Boolean(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("opened", sa.Boolean(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_screens"),
        sa.UniqueConstraint("session_id", "reader", "position", name="uq_screens_session_id_reader_position"),
        sa.ForeignKeyConstraint(["reader"], ["users.name"], name="fk_screens_reader"),
        sa.ForeignKeyConstraint(["repeats"], ["screens.id"], name="fk_screens_repeats"),
        sa.ForeignKeyConstraint(
            ["session_id", "study_id"], ["cases.session_id", "cases.study_id"], name="fk_screens_session_id_study_id"
        ),
    )
    op.create_table(
        "marks",
        sa.Column("screen_id", sa.String(32), nullable=False),
        sa.Column("slot", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("report", sa.String(20), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("screen_id", "slot", name="pk_marks"),
        sa.ForeignKeyConstraint(["screen_id"], ["screens.id"], name="fk_marks_screen_id"),
    )
    op.create_table(
        "events",
        sa.Column("sequence", _BIG, autoincrement=False, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("session_id", sa.String(32)),
        sa.Column("screen_id", sa.String(32)),
        sa.Column("slot", sa.String(200)),
        sa.Column("key", sa.String(500), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("asked", sa.JSON()),
        sa.Column("before", sa.JSON()),
        sa.Column("after", sa.JSON()),
        sa.Column("undoes", _BIG),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_events"),
        sa.UniqueConstraint("key", name="uq_events_key"),
    )
    op.create_index("ix_events_session_id", "events", ["session_id"])
    op.create_index("ix_events_screen_id", "events", ["screen_id"])
