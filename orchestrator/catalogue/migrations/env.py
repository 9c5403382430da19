"""Alembic's entry: the connection is handed in by `orchestrator.catalogue.database.upgrade`."""

from __future__ import annotations

from alembic import context

from orchestrator.catalogue.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
