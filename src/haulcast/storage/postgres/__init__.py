"""The journal of a cluster: one PostgreSQL database, shared by all nodes."""

from .connections import Limits
from .journal import PostgresJournal
from .migrate import migrate, pending

__all__ = ["Limits", "PostgresJournal", "migrate", "pending"]
