"""Connections to the database, and how they are shared out.

1. A connection acts under one role for its whole life, and never holds a transaction open while it waits for anything
   but the database: whatever is sent is one statement, which the server commits by itself.
2. Every statement has a limit on the server and a longer one here. When the latter passes, or the connection breaks,
   the connection is thrown away with all that wait idle beside it: a network that swallows packets says nothing.
3. What was asked for is carried through even if the caller is cancelled while it waits: no statement is cancelled
   half-way, and no connection is given back in the middle of one.
4. New connections are made when they are needed. After one could not be made, the next try waits, twice as long each
   time up to a second; whoever asks meanwhile is told at once that the journal is unavailable.
5. A connection for requests acts for one tenant at a time, and is told which only when it changes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import uniform
from typing import Any, TypeAlias, TypeVar

import asyncpg

from haulcast.domain.ids import TenantId
from haulcast.errors import ConfigError, JournalUnavailable
from haulcast.store_url import StoreUrl

from .faults import translated

T = TypeVar("T")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SCHEMA = "haulcast"
NODE_ROLE = "haulcast_node"
TENANT_ROLE = "haulcast_tenant"

_FIRST_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 1.0

_ACT_FOR = "SELECT set_config('haulcast.tenant', $1, false)"

# While a table is small its indexes seem equally good, and a plan that took the wrong one is kept until statistics have
# been gathered, minutes later. So plans are made anew as tables grow, which costs some milliseconds each time: after so
# many statements, and then whenever there were as many times more.
_REPLAN_FACTOR = 4

# A database may have been told to acknowledge before the disk has it, which is not what a journal promises.
_KEEP_PROMISES = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""

_COMMON_SETTINGS = {
    "application_name": "haulcast",
    "search_path": SCHEMA,
    "default_transaction_isolation": "read committed",
    "jit": "off",  # compiling takes longer than any of these statements
}

# All that is done under this role is looking up keys. A plan made while the tables were small must do when they are
# large, and to plan the commit anew for each batch would take as long as to run it.
_NODE_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a node takes, and how long it waits for what."""

    requests: int = 8
    """Connections for what requests read and write."""
    connect_s: float = 3.0
    statement_s: float = 3.0
    """After this the server gives a statement up."""
    answer_s: float = 4.0
    """After this without an answer to a statement the connection is held to be dead."""


class Database:
    """An address, and how to connect to it. Says the address without its password."""

    def __init__(self, url: str, limits: Limits) -> None:
        """Raises `ConfigError` for what is not the address of a Postgres."""
        try:
            address = StoreUrl.parse(url)
        except ValueError as error:
            raise ConfigError(f"HAULCAST_DATABASE_URL: {error}") from None
        if address.scheme not in ("postgres", "postgresql"):
            raise ConfigError("HAULCAST_DATABASE_URL: give postgresql://user:password@host:port/database")
        self._url = url
        self._shown = address.shown
        self.limits = limits

    def __str__(self) -> str:
        return self._shown

    async def connect(self, role: str | None = None) -> Connection:
        """A connection that acts under the role; without one it is the login user's, and nothing limits its statements.

        Raises the driver's errors, `OSError` and `ValueError`.
        """
        settings = dict(_COMMON_SETTINGS)
        if role is not None:
            limit_ms = str(int(self.limits.statement_s * 1_000))
            settings |= {"role": role, "statement_timeout": limit_ms, "idle_in_transaction_session_timeout": limit_ms}
        if role == NODE_ROLE:
            settings |= _NODE_SETTINGS
        connection: Connection = await asyncpg.connect(
            self._url,
            timeout=self.limits.connect_s,
            server_settings=settings,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
        )
        try:
            await connection.execute(_KEEP_PROMISES, timeout=self.limits.connect_s)
        except BaseException:
            connection.terminate()
            raise
        return connection


class Link:
    """A connection while it is lent."""

    def __init__(self, connection: Connection, answer_s: float) -> None:
        self.connection = connection
        self.silent = False  # it was given up for want of an answer
        self.tenant_id: TenantId | None = None  # whom it acts for, if that is known
        self._answer_s = answer_s
        self._statements = 0
        self._replan_at = _REPLAN_FACTOR

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows that the statement gives. Raises the driver's errors."""
        watch = asyncio.get_running_loop().call_later(self._answer_s, self._give_up)
        try:
            self._statements += 1
            if self._statements == self._replan_at:
                self._replan_at *= _REPLAN_FACTOR
                await self.connection.execute("DISCARD PLANS")
            rows: list[asyncpg.Record] = await self.connection.fetch(query, *arguments)
            return rows
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            if self.silent:
                raise TimeoutError(f"no answer from the database within {self._answer_s:g} s") from error
            raise
        finally:
            watch.cancel()

    async def act_for(self, tenant_id: TenantId) -> None:
        """From now on only that tenant's rows exist."""
        if self.tenant_id != tenant_id:
            self.tenant_id = None
            await self.fetch(_ACT_FOR, tenant_id)
            self.tenant_id = tenant_id

    def _give_up(self) -> None:
        # Not cancelled: the driver would ask the server, which does not answer, to cancel the statement.
        self.silent = True
        self.connection.terminate()


class Pool:
    """At most `size` connections under one role. Who finds all of them lent waits in line, but not for ever."""

    def __init__(self, database: Database, role: str, size: int) -> None:
        self._database = database
        self._role = role
        self._free = asyncio.Semaphore(size)
        self._idle: list[Link] = []  # the one used last is last
        self._under_way: set[asyncio.Task[Any]] = set()  # at most as many as callers wait
        self._closed = False
        self._next_try_s = 0.0  # by the loop's clock; before it no connection is made
        self._backoff_s = _FIRST_BACKOFF_S

    async def run(self, job: Callable[[Link], Awaitable[T]], tenant_id: TenantId | None = None) -> T:
        """What `job` returns. Raises `JournalUnavailable`, `JournalFault`, and whatever of its own the job raises."""
        if self._closed:
            raise JournalUnavailable("the journal is closed")
        task = asyncio.get_running_loop().create_task(self._run(job, tenant_id))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Finish what is under way, then let go of the connections. Again: nothing."""
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        for link in self._idle:
            try:
                await link.connection.close(timeout=self._database.limits.connect_s)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                link.connection.terminate()
        self._idle.clear()

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _run(self, job: Callable[[Link], Awaitable[T]], tenant_id: TenantId | None) -> T:
        try:
            async with asyncio.timeout(self._database.limits.answer_s):
                await self._free.acquire()
        except TimeoutError:
            raise JournalUnavailable("all connections to the database are in use") from None
        try:
            with translated():
                link = self._take(tenant_id) or await self._connect()
                try:
                    if tenant_id is not None:
                        await link.act_for(tenant_id)
                    return await job(link)
                finally:
                    self._give_back(link)
        finally:
            self._free.release()

    def _take(self, tenant_id: TenantId | None) -> Link | None:
        """An idle connection, rather one that acts for the tenant already; None if there is none."""
        self._idle = [link for link in self._idle if not link.connection.is_closed()]
        if not self._idle:
            return None
        index = next((n for n, link in enumerate(self._idle) if link.tenant_id == tenant_id), -1)
        return self._idle.pop(index)

    def _give_back(self, link: Link) -> None:
        if link.silent:
            for other in self._idle:
                other.connection.terminate()
            self._idle.clear()
        if not link.connection.is_closed():
            self._idle.append(link)

    async def _connect(self) -> Link:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_try_s:
            raise JournalUnavailable(f"{self._database} could not be reached a moment ago")
        try:
            connection = await self._database.connect(self._role)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            self._next_try_s = asyncio.get_running_loop().time() + uniform(0.5, 1.0) * self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)
            raise JournalUnavailable(f"{self._database}: {type(error).__name__}: {error}") from error
        self._backoff_s = _FIRST_BACKOFF_S
        return Link(connection, self._database.limits.answer_s)
