"""Runs inside the transaction that `tables.prepare` opened; reads no ini file and sets up no logging."""

from alembic import context

from auditgap.evidence.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
