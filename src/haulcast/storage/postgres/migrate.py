"""Bringing a database to the schema of this code.

1. The revisions are the files of `storage/migrations/postgres/versions`, in the order of their names. Each begins with
   its number; the database says in `alembic_version` which it has. Everything is in a schema of its own, `haulcast`.
2. Several nodes may start at once: who migrates holds an advisory lock, and the others find nothing left to do.
3. The previous version goes on serving while the database is migrated and after that. So a revision only adds: tables,
   indexes, columns that may be NULL or have a constant default. It takes nothing away, renames nothing and forbids
   nothing that the code before it does; what is not used any more goes one version later. A column that gets its
   default, an index on a table that is large: both hold locks only as long as they are built, so such an index is worth
   a revision that waits for a quiet hour.
4. A lock that cannot be had within `LOCK_TIMEOUT_MS` is given up and asked for again later: behind whoever waits for a
   table, all commits wait.
5. Code meets a schema that is newer than itself whenever a cluster is upgraded node by node. It works with it if the
   schema says so: `compatibility.min_version` is the oldest revision whose code may still serve, and a revision that
   breaks the rule above raises it.
6. All pending revisions are one transaction: a migration that fails leaves the database as it was. Alembic writes them
   down as one script, which is run here; it has no part in the connection. Whether anything is to be done is found out
   without it, as importing it takes 0.2 s. It writes a percent sign twice, so no revision has one.
7. The login user needs no more than to own the database, if the roles `haulcast_node` and `haulcast_tenant` have been
   made and granted to it by an administrator; else it makes them itself, for which it needs CREATEROLE. A node that
   finds nothing to migrate needs no more than to be granted the two.
"""

import asyncio
import io
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from haulcast.errors import ConfigError

from .connections import NODE_ROLE, SCHEMA, TENANT_ROLE, Connection, Database, Limits

MIGRATIONS = Path(__file__).parent.parent / "migrations" / "postgres"

OLDEST_POSTGRES = 14

LOCK_TIMEOUT_MS = 1_000
RETRY_IN_S = 0.5
ATTEMPTS = 20
"""With the above, what keeps a table locked is waited for half a minute."""

_MIGRATING = 4_712_085_311
"""The key of the advisory lock; chance has chosen it."""

# Somebody was in the way, or made one of the roles in this moment from another database of the server.
_TRY_AGAIN = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
    asyncpg.DuplicateObjectError,
    asyncpg.InternalServerError,
)

_HAS_SCHEMA = "SELECT to_regclass('haulcast.alembic_version') IS NOT NULL"
_REVISION = "SELECT version_num FROM haulcast.alembic_version"
_MIN_VERSION = "SELECT min_version FROM haulcast.compatibility"
_HAS_ROLE = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
_MAY_TAKE_ROLE = "SELECT pg_has_role(current_user, $1, 'MEMBER')"


def revisions() -> list[str]:
    """All revisions that this code has, oldest first."""
    return sorted(path.name.split("_", 1)[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


async def pending(url: str) -> list[str]:
    """The revisions that the database lacks, oldest first. Raises `ConfigError` if this code cannot work with it."""
    database = Database(url, Limits())
    async with _connected(database) as connection:
        return await _pending(connection, database)


async def migrate(url: str) -> list[str]:
    """Bring the database up to date; the revisions applied. Raises `ConfigError`."""
    return await bring_up_to_date(Database(url, Limits()))


async def bring_up_to_date(database: Database) -> list[str]:
    """Apply what is pending and say what it was. Raises `ConfigError`."""
    async with _connected(database) as connection:
        for attempt in range(ATTEMPTS):
            if not await _pending(connection, database):
                return []
            try:
                return await _upgrade(connection, database)
            except _TRY_AGAIN:
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(RETRY_IN_S)
        raise AssertionError("the last attempt returns or raises")


@asynccontextmanager
async def _connected(database: Database) -> AsyncIterator[Connection]:
    """A connection as the login user. What goes wrong with it is a matter of configuration."""
    try:
        connection = await database.connect()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError) as error:
        # Not the driver's words alone: of what it says about an address it does not understand, this is the gist.
        said = "the address is not understood" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{database} cannot be reached: {said}; check HAULCAST_DATABASE_URL") from None
    try:
        if connection.get_server_version().major < OLDEST_POSTGRES:
            raise ConfigError(f"{database} is too old; PostgreSQL {OLDEST_POSTGRES} or newer is needed")
        yield connection
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise ConfigError(f"{database} cannot be migrated: {type(error).__name__}: {error}") from error
    finally:
        connection.terminate()


async def _pending(connection: Connection, database: Database) -> list[str]:
    known = revisions()
    revision = await connection.fetchval(_REVISION) if await connection.fetchval(_HAS_SCHEMA) else None
    if revision is None:
        return known
    if revision in known:
        return known[known.index(revision) + 1 :]
    min_version = await connection.fetchval(_MIN_VERSION)
    if int(min_version) > int(known[-1]):
        raise ConfigError(
            f"{database} has schema {revision}, which only versions of haulcast with schema {min_version} or newer"
            " can work with; upgrade haulcast"
        )
    return []


async def _upgrade(connection: Connection, database: Database) -> list[str]:
    await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATING)
    try:
        # Begun only now: the server would not look again for tables that it did not find before it waited.
        async with connection.transaction():
            # Again: another node may have migrated before the lock was taken.
            todo = await _pending(connection, database)
            if todo:
                await connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                for role in (NODE_ROLE, TENANT_ROLE):
                    await _ensure_role(connection, role)
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                known = revisions()
                begin = known.index(todo[0])
                await connection.execute(_script("base" if begin == 0 else known[begin - 1]))
            return todo
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATING)


async def _ensure_role(connection: Connection, role: str) -> None:
    """Roles belong to the server, not to the database: they may be there, made by an administrator or for another
    database. Raises `ConfigError`."""
    user = await connection.fetchval("SELECT quote_ident(current_user)")
    try:
        if not await connection.fetchval(_HAS_ROLE, role):
            await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        if not await connection.fetchval(_MAY_TAKE_ROLE, role):
            await connection.execute(f"GRANT {role} TO CURRENT_USER")
    except asyncpg.InsufficientPrivilegeError:
        raise ConfigError(
            f"{user} may not make or take the role {role}; let an administrator of the database run"
            f" CREATE ROLE {role} NOLOGIN; GRANT {role} TO {user}"
        ) from None


def _script(revision: str) -> str:
    """The SQL that leads from a revision to the newest one."""
    # Before the import, which logs already.
    logging.getLogger("alembic").setLevel(logging.WARNING)

    from alembic import command
    from alembic.config import Config

    script = io.StringIO()
    config = Config(output_buffer=script)
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, f"{revision}:head", sql=True)
    return script.getvalue()
