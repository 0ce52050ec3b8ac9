"""Connections to Redis, and commands over them.

1. At most so many connections; whoever finds all of them busy waits. A connection carries one exchange at a time: all
   commands in one write, then all replies. Whatever goes wrong in between, it is closed: no reply can be taken for
   that of another command.
2. An exchange ends within `ANSWER_WITHIN_S`, the wait for a free connection included unless its caller has patience:
   many at once that gave up while they queue would all come back at once, and again, and none would ever be done. It
   ends in `ClusterUnavailable` if need be, with what the driver said as its cause. No other error comes out of here;
   error replies of Redis are one too.
3. A connection that was used before may have been closed from the other side meanwhile. If that shows, the exchange is
   tried once more on a new one: it may then happen twice, and callers for whom that matters say so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

from haulcast.errors import ClusterUnavailable

from .scripts import Call, Command

ANSWER_WITHIN_S = 0.9
"""Leaves the caller, whom the port promises an end after a second, some time for itself."""

Count = Callable[[float], None]
"""Counts: so many more."""

Reply = Any
"""What Redis answered: bytes, int, None or a list of these."""


def uncounted(_more: float) -> None:
    """A `Count` for whoever wants none."""


@asynccontextmanager
async def answer_in_time(more_s: float = 0.0) -> AsyncIterator[None]:
    """What is awaited within ends in time, or `more_s` later, or in `ClusterUnavailable`."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S + more_s):
            yield
    except TimeoutError as error:
        raise ClusterUnavailable(f"Redis has not answered within {ANSWER_WITHIN_S + more_s:g} s") from error


class RedisClient:
    """`commands` counts what is sent."""

    def __init__(self, url: str, *, connections: int, commands: Count = uncounted, patience_s: float = 0.0) -> None:
        # Replies are awaited under a timeout of our own, hence none in the driver.
        self._maker = ConnectionPool.from_url(url, protocol=2, socket_timeout=None, socket_connect_timeout=1.0)
        self._patience_s = patience_s  # how much longer to wait for a free connection
        self._connections = connections
        self._free = asyncio.Semaphore(connections)
        self._idle: list[AbstractConnection] = []  # not in use; connected or not
        self._closed = False
        self.count_commands = commands

    @property
    def database(self) -> int:
        """The number of the database that the address names."""
        return int(self._maker.connection_kwargs.get("db", 0))

    def connection(self) -> AbstractConnection:
        """A connection apart from the pool, not yet connected, for whoever closes it."""
        made: AbstractConnection = self._maker.make_connection()  # type: ignore[no-untyped-call]
        return made

    async def run(self, *calls: Call) -> list[Reply]:
        """Run scripts, in order, in one round trip; in two if Redis has not seen all of them."""
        replies = await self._exchange([call.by_digest() for call in calls], again=True)
        unseen = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unseen:
            in_full = await self._exchange([calls[number].in_full() for number in unseen], again=True)
            for number, reply in zip(unseen, in_full, strict=True):
                replies[number] = reply
        return _without_errors(replies)

    async def execute(self, commands: Sequence[Command], *, again: bool = True) -> list[Reply]:
        """Send commands, in order, in one round trip. `again` False: never may any of them happen twice."""
        return _without_errors(await self._exchange(commands, again=again))

    async def close(self) -> None:
        """Let what is under way end, and close all connections."""
        if self._closed:
            return
        self._closed = True
        for _ in range(self._connections):
            await self._free.acquire()
        for connection in self._idle:
            await connection.disconnect(nowait=True)

    async def _exchange(self, commands: Sequence[Command], *, again: bool) -> list[Reply]:
        """The replies, those that are errors as exceptions."""
        try:
            async with answer_in_time(self._patience_s), self._free:
                if self._closed:
                    raise ClusterUnavailable("Redis: closed")
                connection = self._idle.pop() if self._idle else self.connection()
                try:
                    async with answer_in_time():
                        if connection.is_connected and again:
                            try:
                                return await self._exchange_over(connection, commands)
                            except RedisConnectionError:
                                pass
                        return await self._exchange_over(connection, commands)
                finally:
                    self._idle.append(connection)
        except (RedisError, OSError) as error:
            raise ClusterUnavailable(f"Redis: {error}") from error

    async def _exchange_over(self, connection: AbstractConnection, commands: Sequence[Command]) -> list[Reply]:
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            self.count_commands(len(commands))
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [await _reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _without_errors(replies: list[Reply]) -> list[Reply]:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise ClusterUnavailable(f"Redis: {reply}") from reply
    return replies
