"""Alembic's folder: one file in ``versions/`` for each released schema, never changed afterwards."""
