"""Runs the revisions on the connection, and within the transaction, that the caller has begun."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
