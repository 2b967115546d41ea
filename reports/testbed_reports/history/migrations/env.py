"""Runs migrations on the connection that :mod:`testbed_reports.history.database` hands over."""

from __future__ import annotations

from alembic import context

from testbed_reports.history.tables import Base

connection = context.config.attributes["connection"]
# SQLite changes tables by copying them, which alembic's batches do; elsewhere they are plain statements.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
