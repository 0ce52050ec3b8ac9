"""Writes the revisions down as SQL, which the caller runs on its own connection and in its own transaction."""

from alembic import context

context.configure(dialect_name="postgresql", version_table_schema="haulcast", transactional_ddl=False)
context.run_migrations()
