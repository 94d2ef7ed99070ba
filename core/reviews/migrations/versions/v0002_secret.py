"""A secret of each session, which decides the names of its reports; sessions that are there keep theirs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add it, empty."""
    op.add_column("sessions", sa.Column("secret", sa.String(64), nullable=False, server_default=""))
