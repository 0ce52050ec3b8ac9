"""The client that users hold: requests by name, topics, events, and what has to be said again after a reconnect."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from itertools import count
from types import MappingProxyType, TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from .connection import Connection, Token
from .errors import ConnectionClosed, RequestTimeout, ServerError
from .events import EventQueue
from .protocol import Event, JsonObject
from .requests import Requests
from .topics import Topic

POSITION_TRUE_S = 60.0
"""How long the server believes a reported position."""

log = logging.getLogger("haulcast.client")


class Client(Requests):
    """One user's connection to haulcast, for the time of an `async with`:

        async with Client("http://localhost:8080", token) as client:
            await client.go_online()
            async for event in client.events():
                ...

    Opening raises `ConnectionClosed` if the server refuses the token or there is no connection within `open_timeout_s`.
    From then on connections are replaced as they break, with every topic and whatever was in flight; only when the
    server does not want the client back do requests and `events()` raise `ConnectionClosed`. A request gives up after
    `timeout_s`, its own or this one. A `session` that is given is used and left open.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        session: aiohttp.ClientSession | None = None,
        timeout_s: float = 30.0,
        open_timeout_s: float = 10.0,
        max_events: int = 1000,
    ) -> None:
        self._url = websocket_url(url)
        self._session = session
        self._own_session: aiohttp.ClientSession | None = None
        self._timeout_s = timeout_s
        self._open_timeout_s = open_timeout_s
        self._events = EventQueue(max_events)
        self._connection = Connection(self._url, token, self._events, self._restore)
        self._id_prefix = secrets.token_hex(6)
        self._id_numbers = count(1)
        self._online = False  # what the user wants
        self._positions: dict[str, tuple[float, JsonObject]] = {}  # vehicle -> loop time and last location

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect and say hello; `async with` does it. Once."""
        if self._session is None:
            self._session = self._own_session = aiohttp.ClientSession()
        opened = self._connection.start(self._session)
        try:
            async with asyncio.timeout(self._open_timeout_s):
                await opened
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise ConnectionClosed(None, f"no connection to {self._url} in {self._open_timeout_s:g} s") from None
            raise

    async def close(self) -> None:
        """Close the connection. Requests that wait raise `ConnectionClosed`; `events()` ends after the last event."""
        try:
            await self._connection.stop()
        finally:
            if self._own_session is not None:
                await self._own_session.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now; requests wait for one if not."""
        return self._connection.connected

    @property
    def connections(self) -> int:
        """How many connections there were so far; above 1 there were reconnects."""
        return self._connection.greetings

    @property
    def greeting(self) -> JsonObject:
        """What the last hello was answered: session, role, user, tenant, server_time, heartbeat_s, topics."""
        return self._connection.greeting

    @property
    def topics(self) -> Mapping[str, Topic]:
        """Every topic whose state is there, by name; each has `state` and `version`."""
        return MappingProxyType(self._connection.subscriptions.topics)

    @property
    def events_dropped(self) -> int:
        """Events that nobody took before the queue was full."""
        return self._events.dropped

    def events(self) -> AsyncIterator[Event]:
        """All events since the client was opened, in order. What is announced is among them, each once: `announcement`
        with `announcement_id`, `text`, `at` and `expires_at`. At most `max_events` wait; when there are more, the
        oldest are dropped (states in `topics` stay right). It is one queue: several consumers share it out among
        them."""
        return self._events

    def server_now_ms(self) -> int:
        """The server's time, for countdowns to an `expires_at`. 0 before the first hello."""
        return self._connection.server_now_ms()

    async def request(
        self,
        request_type: str,
        data: Mapping[str, Any] | None = None,
        id: str | None = None,
        timeout_s: float | None = None,
    ) -> JsonObject:
        """Ask and wait for the answer's data, through reconnects and refusals that say `retry`."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        return await self._connection.request(request_type, dict(data or {}), id or self._new_id(), timeout_s)

    async def subscribe(self, topic: str, timeout_s: float | None = None) -> Topic:
        """Follow a topic, over reconnects too; returns it when its state is there."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        subscriptions, request_id = self._connection.subscriptions, self._new_id()
        subscriptions.want([topic])
        arrived = self._connection.next_snapshot(topic)
        try:
            async with asyncio.timeout(timeout_s):
                await self.request("subscribe", {"topic": topic}, request_id, timeout_s)
                await arrived
        except ServerError:
            subscriptions.leave(topic)
            raise
        except TimeoutError:
            raise RequestTimeout("subscribe", request_id, timeout_s) from None
        finally:
            arrived.cancel()
        return subscriptions.topics[topic]

    async def unsubscribe(self, topic: str, timeout_s: float | None = None) -> None:
        """Stop following a topic and forget its state."""
        self._connection.subscriptions.leave(topic)
        await self.request("unsubscribe", {"topic": topic}, timeout_s=timeout_s)

    async def go_online(self, timeout_s: float | None = None) -> JsonObject:
        """As transporter: get offers, from now on and after every reconnect. Answers `online` and `changed`."""
        reply = await super().go_online(timeout_s)
        self._online = True
        return reply

    async def go_offline(self, timeout_s: float | None = None) -> JsonObject:
        """As transporter: get no more offers. Answers `online` and `changed`."""
        self._online = False
        return await super().go_offline(timeout_s)

    async def location(self, vehicle_id: str, lat: float, lng: float, timeout_s: float | None = None) -> None:
        """As transporter or driver: say where a vehicle is. It is believed for 60 s, so report every 30 s or so."""
        position = {"vehicle_id": vehicle_id, "lat": lat, "lng": lng}
        self._positions[vehicle_id] = (asyncio.get_running_loop().time(), position)
        await super().location(vehicle_id, lat, lng, timeout_s)

    def _new_id(self) -> str:
        return f"{self._id_prefix}-{next(self._id_numbers)}"

    async def _restore(self) -> None:
        """Tell a server that may know nothing of this client what it was told before."""
        try:
            if self._online:
                await self.request("transporter.online")
            for at, position in [*self._positions.values()]:
                if asyncio.get_running_loop().time() - at < POSITION_TRUE_S:
                    await self.request("location", position)
        except (ServerError, RequestTimeout) as error:
            log.warning("not everything could be said again after a reconnect: %s", error)


def websocket_url(url: str) -> str:
    """Where to connect: `url` may be the server's address, with http or ws, or that of the WebSocket itself."""
    parsed = URL(url)
    if parsed.scheme not in ("http", "https", "ws", "wss") or not parsed.host:
        raise ValueError(f"not an address of a server: {url!r}; give one like http://localhost:8080")
    if parsed.path in ("", "/"):
        parsed = parsed.with_path("/v1/ws")
    return str(parsed.with_scheme(parsed.scheme.replace("http", "ws")))
