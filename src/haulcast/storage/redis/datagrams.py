"""Datagrams between nodes, over PUBLISH and SUBSCRIBE: one channel per node.

1. What is posted waits in one queue for one task, which publishes all that has gathered in one write: so what one node
   sends arrives in order. The queue is bounded by number and by size; what finds it full is dropped and counted.
2. A write that fails may have happened or not. Nothing is sent again, and what waited behind it is dropped too: it is
   late, and whoever receives numbered datagrams notices the gap.
3. Whoever listens has a connection of its own. It says PING every second; if nothing at all has come for
   `_SILENCE_S` the connection is given up, as if it were cut. Then and whenever else it ends a new one is made, and
   once that has subscribed `missed` is called.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from haulcast.errors import ClusterUnavailable

from .client import Count, RedisClient, answer_in_time
from .keys import DATAGRAMS
from .writer import Writer

_MOST_WAITING = 10_000
_MOST_WAITING_BYTES = 32 << 20
_AT_ONCE = 200
_PING_EVERY_S = 1.0
_SILENCE_S = 3.0
_SHORTEST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0

log = structlog.get_logger()


class Sender:
    """Publishes datagrams. `dropped` counts those that it could not, as far as it knows."""

    def __init__(self, client: RedisClient, dropped: Count) -> None:
        self._client = client
        self._dropped = dropped
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._writer = Writer("datagrams", self._write, 0.0)

    def post(self, to: int, datagram: bytes) -> None:
        """See `Cluster`."""
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes + len(datagram) > _MOST_WAITING_BYTES:
            self._dropped(1)
            return
        self._waiting.append((DATAGRAMS(self._client.database, to), datagram))
        self._waiting_bytes += len(datagram)
        self._writer.wake()

    async def close(self) -> None:
        """Send what waits."""
        await self._writer.close()

    async def _write(self) -> bool:
        written = bool(self._waiting)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            self._waiting_bytes -= sum(len(datagram) for _, datagram in batch)
            try:
                await self._client.execute([("PUBLISH", *each) for each in batch], again=False)
            except ClusterUnavailable:
                self._dropped(len(batch) + len(self._waiting))
                self._waiting.clear()
                self._waiting_bytes = 0
                raise
        return written


class Listener:
    """Receives the datagrams to one node at a time."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None

    async def listen(self, incarnation: int, receive: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """See `Cluster`. When it raises, subscribing is tried further, and `missed` tells that it has come about."""
        await self.close()
        subscribed = asyncio.Event()
        channel = DATAGRAMS(self._client.database, incarnation)
        self._task = asyncio.create_task(self._run(channel, receive, missed, subscribed), name="redis_listener")
        async with answer_in_time():
            await subscribed.wait()

    async def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(
        self,
        channel: str,
        receive: Callable[[bytes], None],
        missed: Callable[[], None],
        subscribed: asyncio.Event,
    ) -> None:
        failures = 0
        interrupted = False

        def on_subscribed() -> None:
            nonlocal failures
            if interrupted:
                log.info("redis_listening_again", failures=failures)
                _guarded(missed)
            failures = 0
            subscribed.set()

        while True:
            try:
                await self._receive(channel, receive, on_subscribed)
            except (RedisError, OSError, TimeoutError) as error:
                if not failures:
                    log.warning("redis_listener_failed", error=str(error) or type(error).__name__)
                failures += 1
            interrupted = True
            await asyncio.sleep(min(_SHORTEST_PAUSE_S * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_S))

    async def _receive(self, channel: str, receive: Callable[[bytes], None], on_subscribed: Callable[[], None]) -> None:
        """One connection, until it fails."""
        loop = asyncio.get_running_loop()
        connection = self._client.connection()
        pinging: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(_SILENCE_S) as silence:
                await connection.connect()  # type: ignore[no-untyped-call]
                self._client.count_commands(1)
                await connection.send_command("SUBSCRIBE", channel, check_health=False)
                pinging = asyncio.create_task(self._ping(connection))
                while True:
                    message = await connection.read_response()
                    silence.reschedule(loop.time() + _SILENCE_S)
                    match message[0]:
                        case b"message":
                            _guarded(receive, message[2])
                        case b"subscribe":
                            on_subscribed()
        finally:
            if pinging is not None:
                pinging.cancel()
            await connection.disconnect(nowait=True)

    async def _ping(self, connection: AbstractConnection) -> None:
        with suppress(RedisError, OSError):  # which the one who reads sees too
            while True:
                await asyncio.sleep(_PING_EVERY_S)
                if not connection.is_connected:  # or else sending would connect it anew
                    return
                self._client.count_commands(1)
                await connection.send_command("PING", check_health=False)


def _guarded(call: Callable[..., None], *arguments: bytes) -> None:
    """What listeners do wrong must not end the listening."""
    try:
        call(*arguments)
    except Exception:
        log.exception("redis_listener_raised")
