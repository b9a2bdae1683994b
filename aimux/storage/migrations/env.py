"""Alembic's way in. `migrations.upgrade` gives the connection; there is no alembic.ini."""

from alembic import context

from aimux.storage.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite can change a schema in a transaction; Alembic leaves that off for drivers that commit by themselves.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
