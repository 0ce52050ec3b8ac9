"""What the journal says, read with nothing but SQL: the tests' own view of what is durable.

The tables are the same in SQLite and in Postgres, and so are the questions. Everything here blocks.
"""

import asyncio
import json
import sqlite3
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncpg

from haulcast.ports import Journal
from haulcast.storage.postgres import PostgresJournal
from haulcast.storage.sqlite import SqliteJournal

T = TypeVar("T")


class Tables(Protocol):
    """The tables of a journal, which may be read whether a server runs on it or not."""

    def rows(self, query: str, tenant: str) -> list[Any]:
        """The answer to a question with one `?`, for the tenant."""
        ...

    async def open(self) -> Journal:
        """The journal itself, beside a server that runs; whoever opens it closes it."""
        ...


@dataclass(frozen=True, slots=True)
class SqliteTables:
    """Those of the embedded journal. Opens the file each time."""

    path: Path

    def rows(self, query: str, tenant: str) -> list[Any]:
        """See `Tables`."""
        with closing(sqlite3.connect(self.path, timeout=10.0)) as connection:
            return connection.execute(query, (tenant,)).fetchall()

    async def open(self) -> Journal:
        """See `Tables`."""
        return await SqliteJournal.open(self.path, exclusive=False)


class PostgresTables:
    """Those of a cluster, over one connection until `close`, in a thread: stories ask from within their event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="books")
        self._runner = asyncio.Runner()
        self._connection = self._run(asyncpg.connect(url, server_settings={"search_path": "haulcast"}))

    def rows(self, query: str, tenant: str) -> list[Any]:
        """See `Tables`."""
        return [tuple(row) for row in self._run(self._connection.fetch(query.replace("?", "$1"), tenant))]

    async def open(self) -> Journal:
        """See `Tables`."""
        return await PostgresJournal.open(self._url)

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._run(self._connection.close())
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _run(self, work: "Coroutine[Any, Any, T]") -> T:
        return self._thread.submit(self._runner.run, work).result()


@dataclass(frozen=True, slots=True)
class Assignment:
    """A truck request that was won."""

    broadcast_id: str
    request_id: str
    trip_id: str
    transporter_id: str
    vehicle_id: str
    driver_id: str
    trip_status: str


class Books:
    """The journal of one tenant. Reads it anew each time, whether a server runs on it or not."""

    def __init__(self, journal: Tables, tenant: str) -> None:
        self._journal = journal
        self._tenant = tenant

    def assignments(self) -> list[Assignment]:
        """Every truck that was ever won."""
        return [
            Assignment(*row)
            for row in self._rows(
                "SELECT broadcast_id, request_id, trip_id, transporter_id, vehicle_id, driver_id, trip_status"
                " FROM assignments WHERE tenant_id = ?"
            )
        ]

    def statuses(self) -> dict[str, str]:
        """The status of every broadcast."""
        return dict(self._rows("SELECT broadcast_id, status FROM broadcasts WHERE tenant_id = ?"))

    def replies(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every logged reply, by user and request id."""
        return {
            (user, request): json.loads(reply)
            for user, request, reply in self._rows(
                "SELECT user_id, request_id, reply FROM request_log WHERE tenant_id = ?"
            )
        }

    def event_names(self, broadcast_id: str) -> list[str]:
        """What has happened to a broadcast, in order."""
        rows = self._rows("SELECT name, broadcast_id FROM events WHERE tenant_id = ? ORDER BY seq")
        return [name for name, of in rows if of == broadcast_id]

    def _rows(self, query: str) -> list[Any]:
        return self._journal.rows(query, self._tenant)
