"""Migrations of the stores, run by Alembic: a directory for each technology."""
