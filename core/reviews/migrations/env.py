"""Run by Alembic: migrate over the connection, and in the transaction, that `core.reviews.database` opened."""

from __future__ import annotations

from alembic import context

from core.reviews.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
context.run_migrations()
