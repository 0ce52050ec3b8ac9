"""Looks at the database of a cluster, as the user whom the address names."""

import asyncio
from collections.abc import AsyncIterator
from statistics import median
from time import perf_counter

import asyncpg

from haulcast.errors import ConfigError
from haulcast.storage.postgres import pending
from haulcast.storage.postgres.connections import NODE_ROLE, TENANT_ROLE
from haulcast.storage.postgres.migrate import OLDEST_POSTGRES
from haulcast.store_url import StoreUrl

from .finding import Finding

SUBJECT = "database"
ANSWER_WITHIN_S = 5.0
SLOW_MS = 20.0
"""A confirmation waits for the database twice or so."""
_ASKED_TIMES = 5

_VERSION = "SELECT split_part(current_setting('server_version'), ' ', 1)"
_ROLES = """
SELECT wanted.role, pg_roles.rolname IS NOT NULL AS exists,
    pg_roles.rolname IS NOT NULL AND pg_has_role(current_user, pg_roles.oid, 'MEMBER') AS taken
FROM unnest($1::text[]) AS wanted (role) LEFT JOIN pg_roles ON pg_roles.rolname = wanted.role
"""
_MAY_MAKE_ROLES = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
_RISKY = """
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'
"""
_CONNECTIONS = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most
"""
_LIVE = "SELECT count(*) FROM haulcast.broadcasts WHERE ended_at_ms IS NULL"


async def look_at_postgres(url: str) -> list[Finding]:
    """What there is to say about it; ends with the first thing that keeps the server from starting."""
    findings = []
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            connection = await asyncpg.connect(url)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                async for finding in _look(connection, url):
                    findings.append(finding)
                    if finding.fatal:
                        break
        finally:
            connection.terminate()
    except TimeoutError:
        findings.append(_broken(url, f"has not answered within {ANSWER_WITHIN_S:g} s"))
    except ConfigError as error:
        findings.append(_broken(url, str(error)))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, ValueError) as error:
        # An address that the driver does not understand is not repeated: there may be a password in it.
        said = "the address is not understood" if isinstance(error, ValueError) else str(error) or type(error).__name__
        findings.append(_broken(url, f"cannot be used: {said}"))
    return findings


async def _look(connection: asyncpg.Connection, url: str) -> AsyncIterator[Finding]:
    address = StoreUrl.parse(url)
    took_ms = await _latency_ms(connection)
    shown = f"PostgreSQL {await connection.fetchval(_VERSION)} at {address.shown}, answers in {took_ms:.1f} ms"
    if connection.get_server_version().major < OLDEST_POSTGRES:
        yield Finding(SUBJECT, shown, f"too old: PostgreSQL {OLDEST_POSTGRES} or newer is needed", fatal=True)
        return
    if took_ms > SLOW_MS:
        yield Finding(SUBJECT, shown, "slow: every confirmation waits for it; put the nodes nearer to it")
    elif address.exposed:
        yield Finding(SUBJECT, shown, "reached over a network without TLS: add sslmode=verify-full to the address")
    else:
        yield Finding(SUBJECT, shown)
    for row in await connection.fetch(_RISKY):
        yield Finding(
            SUBJECT, f"{row['name']} is off", "what was confirmed is lost when its machine crashes: turn it on"
        )
    used, most = await connection.fetchrow(_CONNECTIONS)
    yield Finding(SUBJECT, f"{used} of {most} connections in use")
    yield await _roles(connection)
    missing = await pending(url)
    if missing:
        yield Finding("schema", f"revisions {', '.join(missing)} are missing", "the next node that starts applies them")
        return
    await connection.execute(f"SET ROLE {NODE_ROLE}")
    yield Finding("schema", f"up to date; {await connection.fetchval(_LIVE)} live broadcasts")


async def _latency_ms(connection: asyncpg.Connection) -> float:
    times_s = []
    for _ in range(_ASKED_TIMES):
        began_s = perf_counter()
        await connection.fetchval("SELECT 1")
        times_s.append(perf_counter() - began_s)
    return median(times_s) * 1000


async def _roles(connection: asyncpg.Connection) -> Finding:
    roles = await connection.fetch(_ROLES, [NODE_ROLE, TENANT_ROLE])
    lacking = [row["role"] for row in roles if not row["taken"]]
    user = await connection.fetchval("SELECT current_user")
    if not lacking:
        return Finding("roles", f"{user} may act as {NODE_ROLE} and {TENANT_ROLE}")
    if await connection.fetchval(_MAY_MAKE_ROLES):
        return Finding(
            "roles", f"{user} may not yet act as {', '.join(lacking)}", "the next node that starts sees to it"
        )
    statements = [f"CREATE ROLE {row['role']} NOLOGIN;" for row in roles if not row["exists"]]
    statements += [f"GRANT {role} TO {user};" for role in lacking]
    return Finding(
        "roles",
        f"{user} may neither act as {', '.join(lacking)} nor change that",
        f"let an administrator of the database run: {' '.join(statements)}",
        fatal=True,
    )


def _broken(url: str, what: str) -> Finding:
    return Finding(SUBJECT, StoreUrl.parse(url).shown, f"{what}; check HAULCAST_DATABASE_URL", fatal=True)
