"""Reads what a journal kept, for the checker, with nothing but SQL: the same tables in SQLite and in PostgreSQL.

The order of writing is the order of the rows in SQLite, which has one writer. In PostgreSQL many write at once, and it
is the order in which their transactions were committed, which the server tells if it runs with
`track_commit_timestamp`: whoever takes what another has let go of commits after it. In one transaction nobody does.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Self

import asyncpg

from .evidence import Event, Kept, Row

_EVENTS = "SELECT broadcast_id, seq, name, body FROM events WHERE tenant_id = ? ORDER BY rowid"
_EVENTS_COMMITTED = """
SELECT broadcast_id, seq, name, body FROM events WHERE tenant_id = $1
ORDER BY pg_xact_commit_timestamp(xmin), xmin::text::bigint, broadcast_id, seq
"""
_BROADCASTS = """
SELECT broadcast_id, customer_id, status, seq, expires_at_ms, ended_at_ms, state FROM broadcasts WHERE tenant_id = ?
"""
_ASSIGNMENTS = """
SELECT request_id, broadcast_id, assignment_id, trip_id, transporter_id, vehicle_id, driver_id
FROM assignments WHERE tenant_id = ?
"""
_OFFERS = "SELECT broadcast_id, transporter_id, offered_at_ms, declined FROM offers WHERE tenant_id = ?"
_REPLIES = "SELECT user_id, request_id, reply FROM request_log WHERE tenant_id = ? AND role = 'transporter'"
_CONTROL_LOG = """
SELECT number, request_id, command, at_ms, version, outcome FROM control_log WHERE tenant_id = ? ORDER BY number
"""

_OWNERS = "SELECT broadcast_id, owner FROM broadcasts WHERE tenant_id = $1 AND ended_at_ms IS NULL"


def kept_in_sqlite(path: Path, tenant: str) -> Kept:
    """What the embedded journal kept of a tenant."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA query_only = ON")

        def read(query: str) -> list[Row]:
            return [dict(row) for row in db.execute(query, (tenant,))]

        return _kept(_EVENTS, read)


class PostgresTables:
    """The journal of a cluster, over one connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Self]:
        """While the block lasts; `url` is of a user whom row-level security does not bind."""
        connection = await asyncpg.connect(url, server_settings={"search_path": "haulcast", "row_security": "off"})
        try:
            yield cls(connection)
        finally:
            await connection.close()

    async def kept(self, tenant: str) -> Kept:
        """All that it kept of a tenant."""
        rows = {}
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            for query in (_EVENTS_COMMITTED, _BROADCASTS, _ASSIGNMENTS, _OFFERS, _REPLIES, _CONTROL_LOG):
                found = await self._connection.fetch(query.replace("?", "$1"), tenant)
                rows[query] = [dict(row) for row in found]
        return _kept(_EVENTS_COMMITTED, rows.__getitem__)

    async def owners(self, tenant: str) -> dict[str, int]:
        """The incarnation that owns each live broadcast."""
        return {row["broadcast_id"]: row["owner"] for row in await self._connection.fetch(_OWNERS, tenant)}


def _kept(events: str, read: Callable[[str], Iterable[Row]]) -> Kept:
    return Kept(
        events=[Event(**{**row, "body": json.loads(row["body"])}) for row in read(events)],
        broadcasts=[{**row, "end_reason": json.loads(row["state"]).get("end_reason")} for row in read(_BROADCASTS)],
        assignments=list(read(_ASSIGNMENTS)),
        offers=list(read(_OFFERS)),
        replies=[{**row, "reply": json.loads(row["reply"])} for row in read(_REPLIES)],
        control_log=[{**row, "outcome": json.loads(row["outcome"] or "null")} for row in read(_CONTROL_LOG)],
    )
