"""Connections to the database file, and the threads that they live in.

1. A connection belongs to one thread, which does one thing at a time: a commit needs no lock of ours.
2. The connection that writes and the one that reads are different. In WAL mode a reader sees the last commit and
   waits for nobody.
3. `synchronous=FULL`: COMMIT returns once the write-ahead log is on the disk.
4. What a caller asked for is carried through even if the caller is cancelled while it waits.
5. No error of the driver leaves this package. What may pass (a full disk, a lock) becomes `JournalUnavailable`, what
   trying again cannot mend becomes `JournalFault`, and at the start either is a `ConfigError`.
"""

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from haulcast.errors import ConfigError, JournalFault, JournalUnavailable
from haulcast.storage.documents import Unreadable

T = TypeVar("T")

_FAULTS = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    Unreadable,
)

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables."""


def connect(path: Path, *, busy_timeout_s: float, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the pragmas that the guarantees rest on. Transactions are begun and ended by hand."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(
            f"SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed, not {sqlite3.sqlite_version}"
        )
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise ConfigError(f"{path}: its file system does not support SQLite's write-ahead log; use a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves data in the drive's cache
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything inside or nothing. Takes the write lock at once, so that what is read inside stays true."""
    connection.execute("BEGIN IMMEDIATE")
    with _ending(connection):
        yield


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All reads inside see the same commit."""
    connection.execute("BEGIN")
    with _ending(connection):
        yield


@contextmanager
def _ending(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (disk full, I/O).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything inside or nothing, within a transaction that goes on either way."""
    connection.execute("SAVEPOINT step")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO step")
            connection.execute("RELEASE step")
        raise
    connection.execute("RELEASE step")


class ConnectionThread:
    """A thread and the connection that lives in it."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None  # touched in the thread only

    async def start(self, opening: Callable[[], sqlite3.Connection]) -> None:
        """Open the connection. Raises whatever `opening` raises."""

        def job() -> None:
            self._connection = opening()

        await self._submit(job)

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """What `job` returns; its turn comes after those before it. Raises `JournalUnavailable`."""

        def translated() -> T:
            if self._connection is None:
                raise JournalUnavailable("the journal is closed")
            try:
                return job(self._connection)
            except _FAULTS as error:
                raise JournalFault(f"{type(error).__name__}: {error}") from error
            except sqlite3.Error as error:
                raise JournalUnavailable(f"{type(error).__name__}: {error}") from error

        return await self._submit(translated)

    async def stop(self) -> None:
        """Finish what is under way or waiting, close the connection and end the thread."""

        def job() -> None:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

        try:
            await self._submit(job)
        except JournalUnavailable:
            pass  # stopped before
        finally:
            self._executor.shutdown(wait=False)

    async def _submit(self, job: Callable[[], T]) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, job)
        except RuntimeError as error:
            raise JournalUnavailable("the journal is closed") from error
        # Shielded: without it, cancelling would take a job back that has not begun.
        return await asyncio.shield(future)


class LockFile:
    """Held by the one process that serves a database; the kernel lets go of it when that process dies."""

    def __init__(self, database: Path) -> None:
        """Take it, or raise `ConfigError`."""
        self.path = database.with_name(database.name + ".lock")
        self._file: IO[str] | None = self.path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise ConfigError(
                f"{database} is served by another process, which holds {self.path}; stop it or use another directory"
            ) from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go. The file stays: whoever opened it in the meantime must find the same one locked or free."""
        if self._file is not None:
            self._file.close()
            self._file = None
