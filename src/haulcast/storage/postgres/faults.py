"""What the driver's errors mean to whoever uses the journal.

1. An error tells whether the same call may work later (`JournalUnavailable`): the server is away, full, overloaded,
   starting, or a standby; a statement took too long or ran into another's locks.
2. Whatever else goes wrong would go wrong again (`JournalFault`).
3. No error of the driver leaves this package, and no message has the password of the database in it: the server and
   the driver never repeat it, and the address that haulcast prints is written without.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from haulcast.errors import JournalFault, JournalUnavailable
from haulcast.storage.documents import Unreadable

PASSING_CLASSES = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Of SQLSTATE, its first two characters: connection, transaction state (read-only: a standby), rollback, resources,
object in use, operator's intervention, system."""

CONTENDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""The statement was taken back whole because of others; it may be sent again at once."""

COLLISION = asyncpg.IntegrityConstraintViolationError
"""A row of the statement was refused for what is there already, and the others with it."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise `JournalUnavailable` or `JournalFault` for what the driver raises inside."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        said = f"{type(error).__name__}: {error}"
        raise (JournalUnavailable(said) if passes(error) else JournalFault(said)) from error
    except Unreadable as error:
        raise JournalFault(f"{type(error).__name__}: {error}") from error


def passes(error: Exception) -> bool:
    """Whether the same may work later."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in PASSING_CLASSES
    # Of the driver's own errors: a value that it cannot encode will not be encoded later either. The rest are about
    # the connection, which is not used again.
    return not isinstance(error, ValueError)
