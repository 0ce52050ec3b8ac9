"""Bringing a database to the schema of this code.

1. The revisions are the files of `storage/migrations/sqlite/versions`, in the order of their names. Each begins with
   its number; the database says in `alembic_version` which it has.
2. Whether anything is to be done is found out with plain SQLite. Alembic and SQLAlchemy take 0.2 s to import and are
   only imported when it is.
3. All pending revisions are one transaction: a migration that fails leaves the database as it was.
4. A schema changes only while nobody serves the database.
5. A database with a revision that this code does not have is refused: there is no way back.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from haulcast.errors import ConfigError

from .database import LockFile, connect

MIGRATIONS = Path(__file__).parent.parent / "migrations" / "sqlite"

BUSY_TIMEOUT_S = 5.0


def revisions() -> list[str]:
    """All revisions that this code has, oldest first."""
    return sorted(path.name.split("_", 1)[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def pending(path: Path) -> list[str]:
    """The revisions that the database at `path` lacks, oldest first. Raises `ConfigError` if it has one too many."""
    if not path.exists():
        return revisions()
    try:
        with closing(connect(path, busy_timeout_s=BUSY_TIMEOUT_S)) as connection:
            return _pending(connection, path)
    except sqlite3.Error as error:
        raise ConfigError(f"{path} cannot be opened as a database: {error}") from error


def migrate(path: Path) -> list[str]:
    """Bring the database at `path` up to date, creating it if need be; the revisions applied. Raises `ConfigError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(connect(path, busy_timeout_s=BUSY_TIMEOUT_S)) as connection:
            return bring_up_to_date(connection, path, locked=False)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{path} cannot be opened as a database: {error}") from error


def bring_up_to_date(connection: sqlite3.Connection, path: Path, *, locked: bool) -> list[str]:
    """Apply what is pending and say what it was. `locked`: the caller holds the lock file of `path`."""
    if not _pending(connection, path):
        return []
    lock = None if locked else LockFile(path)
    try:
        # Again: another process may have migrated before the lock was taken.
        todo = _pending(connection, path)
        if todo:
            _upgrade(connection, path)
        return todo
    finally:
        if lock is not None:
            lock.release()


def _pending(connection: sqlite3.Connection, path: Path) -> list[str]:
    known = revisions()
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if found else None
    if row is None:
        return known
    if row[0] not in known:
        raise ConfigError(f"{path} has schema {row[0]}, which is newer than this version of haulcast; upgrade haulcast")
    return known[known.index(row[0]) + 1 :]


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    # Before the import, which logs already.
    logging.getLogger("alembic").setLevel(logging.WARNING)

    from alembic import command
    from alembic.config import Config
    from sqlalchemy import Connection, create_engine, event
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    # The driver would begin a transaction for data only, not for DDL.
    @event.listens_for(engine, "begin")
    def begin(started: Connection) -> None:
        started.exec_driver_sql("BEGIN IMMEDIATE")

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with engine.begin() as begun:
            config.attributes["connection"] = begun
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise ConfigError(f"{path} cannot be migrated: {error.orig}") from error
