"""The journal of a single process: one SQLite file, nothing to install."""

from .journal import SqliteJournal
from .migrate import migrate, pending

__all__ = ["SqliteJournal", "migrate", "pending"]
