"""One user's connection, as a series of WebSockets that replace each other.

1. One task (`_run`) owns the socket and everything that runs beside it. `stop` ends it, and it ends by itself when the
   server does not want this client back; either way every waiter is answered and nothing is left behind.
2. A request waits in `_waiting` until its reply comes, on whichever socket that is: after each hello all that wait are
   sent again under their ids. A refusal that says `retry` is asked again until the request's time is over.
3. On a new socket the topics held are subscribed to again (hello's `resume`); the rest is the owner's `restore`.
4. The server says at every hello what is announced: what was told before is known again by its id.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from itertools import count
from typing import Any, TypeAlias

import aiohttp

from .errors import ConnectionClosed, ProtocolError, RequestTimeout, ServerError
from .events import EventQueue
from .helpers import Helpers
from .protocol import (
    SUBPROTOCOL,
    Announcement,
    Ending,
    GiveUp,
    JsonObject,
    Reconnect,
    Reply,
    Snapshot,
    decode,
    encode,
    refused_hello,
    retry_delay_s,
)
from .topics import Subscriptions

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A token, or what gives one: asked at the start, and once more when the server refuses the last."""

HELLO_TIMEOUT_S = 10.0
HEARTBEAT_S = 25.0
"""How often an idle connection is tried with a ping; without a pong for half as long it counts as lost."""
ACK_DELAY_S = 0.2
"""How long a version waits to be acknowledged, so that a burst of deltas costs one ack."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
ANNOUNCEMENTS_KNOWN = 256
"""How many announcements are known again. At most 100 are valid at a time, and no others are said again."""

log = logging.getLogger("haulcast.client")


class Connection:
    """Requests go in, replies come back; events go to `events`, states to `subscriptions`.

    `restore` is awaited on every socket but the first, beside the reading, and cancelled if that socket breaks.
    """

    def __init__(self, url: str, token: Token, events: EventQueue, restore: Callable[[], Awaitable[None]]) -> None:
        self.greeting: JsonObject = {}
        self.greetings = 0
        self.subscriptions = Subscriptions()
        self._url = url
        self._token_source = token
        self._token = ""
        self._events = events
        self._restore = restore
        self._policy = Reconnect(renewable=callable(token), random=random.random)
        self._waiting: dict[str, tuple[str, asyncio.Future[JsonObject]]] = {}  # id -> frame and reply
        self._arrivals: dict[str, list[asyncio.Future[None]]] = {}  # topic -> who waits for its next snapshot
        self._numbers = count(1)
        self._announced: deque[str] = deque(maxlen=ANNOUNCEMENTS_KNOWN)  # the ids of those that the user has been told
        self._ack_due = asyncio.Event()
        self._clock: tuple[float, int] | None = None  # loop time and the server's time then
        self._ws: aiohttp.ClientWebSocketResponse | None = None  # set exactly while there is a greeted socket
        self._greeted_at = 0.0  # loop time of the last hello
        self._helpers: Helpers | None = None  # tasks that end with the present socket
        self._task: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._ended: ConnectionClosed | None = None  # set for good

    def start(self, session: aiohttp.ClientSession) -> "asyncio.Future[None]":
        """Begin to connect, once. What it returns is done with the first hello, or when there will be none."""
        if self._task is not None or self._ended is not None:
            raise RuntimeError("a client is opened once")
        self._opened = _future()
        self._task = asyncio.create_task(self._run(session), name="haulcast-client")
        return self._opened

    async def stop(self) -> None:
        """End it. Whoever waits gets `ConnectionClosed`."""
        self._end(ConnectionClosed(1000, "closed by this client"), None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def connected(self) -> bool:
        """Whether there is a greeted socket."""
        return self._ws is not None

    def server_now_ms(self) -> int:
        """The server's time; 0 before the first word from it."""
        if self._clock is None:
            return 0
        at, server_ms = self._clock
        return server_ms + round((asyncio.get_running_loop().time() - at) * 1000)

    async def request(self, request_type: str, data: JsonObject, request_id: str, timeout_s: float) -> JsonObject:
        """The answer's data, through reconnects and refusals that say `retry`."""
        frame = encode(request_type, data, request_id)
        refusal: ServerError | None = None
        try:
            async with asyncio.timeout(timeout_s):
                for attempt in count():
                    refusal = None
                    try:
                        return await self._ask(request_id, frame)
                    except ServerError as error:
                        if not error.retry:
                            raise
                        refusal = error
                    await asyncio.sleep(retry_delay_s(refusal, attempt, random.random))
        except TimeoutError:
            raise refusal or RequestTimeout(request_type, request_id, timeout_s) from None
        raise AssertionError("count() has no end")

    def next_snapshot(self, topic: str) -> "asyncio.Future[None]":
        """Done when the topic's next snapshot has been taken. To be cancelled by who does not wait any longer."""
        arrival: asyncio.Future[None] = _future()
        waiting = self._arrivals[topic] = [f for f in self._arrivals.get(topic, []) if not f.done()]
        waiting.append(arrival)
        return arrival

    async def _ask(self, request_id: str, frame: str) -> JsonObject:
        """Send and wait for the reply. Without a socket only wait: the next one sends it."""
        if self._ended is not None:
            raise ConnectionClosed(self._ended.code, self._ended.reason)
        if self._task is None:
            raise RuntimeError("the client is not open")
        if request_id in self._waiting:
            raise ValueError(f"a request with the id {request_id} is waiting already")
        reply: asyncio.Future[JsonObject] = _future()
        self._waiting[request_id] = (frame, reply)
        try:
            if self._ws is not None:
                await _send(self._ws, frame)
            return await reply
        finally:
            del self._waiting[request_id]

    # --- sockets -----------------------------------------------------------------------------------------------------

    async def _run(self, session: aiohttp.ClientSession) -> None:
        """One socket after the other, until there is no coming back."""
        loop = asyncio.get_running_loop()
        try:
            self._token = await self._new_token()
            while True:
                greetings = self.greetings
                ending = await self._connect(session)
                lasted_s = loop.time() - self._greeted_at if self.greetings > greetings else 0.0
                decision = self._policy.after(ending, lasted_s)
                if isinstance(decision, GiveUp):
                    self._end(decision.error, decision.error)
                    return
                log.info("connection lost (%s %s), next in %.2f s", ending.code, ending.reason, decision.delay_s)
                await asyncio.sleep(decision.delay_s)
                if decision.renew_token:
                    self._token = await self._new_token()
        except Exception as error:
            failed = ConnectionClosed(None, f"the client has failed: {error!r}")
            failed.__cause__ = error
            self._end(failed, failed)

    async def _new_token(self) -> str:
        token = self._token_source if isinstance(self._token_source, str) else self._token_source()
        return token if isinstance(token, str) else await token

    async def _connect(self, session: aiohttp.ClientSession) -> Ending:
        """One socket, from its handshake to its end."""
        try:
            async with (
                asyncio.timeout(HELLO_TIMEOUT_S) as handshake,  # a server that stands still takes connections
                session.ws_connect(
                    self._url,
                    protocols=(SUBPROTOCOL,),
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                ) as ws,
                Helpers() as self._helpers,
            ):
                handshake.reschedule(None)
                return await self._converse(ws, self._helpers)
        except aiohttp.WSServerHandshakeError as error:
            fatal = 400 <= error.status < 500 and error.status not in (408, 425, 429)
            return Ending(None, f"the server answered {error.status} to the handshake", fatal)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Ending(None, f"{type(error).__name__}: {error}")
        finally:
            self._ws = self._helpers = None

    async def _converse(self, ws: aiohttp.ClientWebSocketResponse, helpers: Helpers) -> Ending:
        hello_id = f"hello-{self.greetings + 1}"
        hello: asyncio.Future[Reply] = _future()
        resume = self.subscriptions.resume()
        await _send(ws, encode("hello", {"token": self._token, "resume": resume}, hello_id))
        reading = helpers.start(self._read(ws, hello_id, hello))
        waiting: list[asyncio.Future[Any]] = [hello, reading]
        await asyncio.wait(waiting, timeout=HELLO_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if hello.done():
            reply = hello.result()
            if reply.error is not None:
                return refused_hello(reply.error)
            self._greeted(ws, helpers, reply.data, resume)
        elif not reading.done():
            return Ending(None, "hello was not answered")
        return await reading

    def _greeted(
        self, ws: aiohttp.ClientWebSocketResponse, helpers: Helpers, greeting: JsonObject, resumed: Collection[str]
    ) -> None:
        self.greeting = greeting
        self.greetings += 1
        self._greeted_at = asyncio.get_running_loop().time()
        self._policy.greeted()
        self._hear_time(greeting.get("server_time"))
        subscribed = [name for name in greeting.get("topics", []) if isinstance(name, str)]
        self.subscriptions.want(subscribed)
        self._ws = ws
        frames = [frame for frame, reply in self._waiting.values() if not reply.done()]
        helpers.start(self._acknowledge(ws))
        helpers.start(self._take_up(ws, frames, {*resumed, *subscribed}))
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)

    async def _take_up(self, ws: aiohttp.ClientWebSocketResponse, frames: list[str], subscribed: set[str]) -> None:
        """Go on where the socket before broke off."""
        for frame in frames:
            await _send(ws, frame)
        if self.greetings > 1:
            for name in self.subscriptions.missing(subscribed):
                await self._subscribe_again(name)
            await self._restore()

    async def _subscribe_again(self, name: str) -> None:
        """Ask for a topic until there is an answer, or no socket to ask on."""
        while True:
            request_id = f"again-{self.greetings}-{next(self._numbers)}"
            try:
                await self.request("subscribe", {"topic": name}, request_id, HELLO_TIMEOUT_S)
                return
            except RequestTimeout:
                log.warning("topic %s is stale: subscribing was not answered", name)
            except ServerError as error:
                log.warning("topic %s is lost: %s", name, error.code)
                self.subscriptions.leave(name)
                return

    async def _acknowledge(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Tell the server how far this client has come."""
        while True:
            await self._ack_due.wait()
            await asyncio.sleep(ACK_DELAY_S)
            self._ack_due.clear()
            for topic, version in self.subscriptions.take_unacked().items():
                await _send(ws, encode("ack", {"topic": topic, "version": [*version]}))

    async def _read(self, ws: aiohttp.ClientWebSocketResponse, hello_id: str, hello: "asyncio.Future[Reply]") -> Ending:
        while True:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                reply = self._take(message.data)
                if reply is not None and reply.to == hello_id and not hello.done():
                    hello.set_result(reply)
            elif message.type is not aiohttp.WSMsgType.BINARY:
                return Ending(ws.close_code, message.extra if isinstance(message.extra, str) else "")

    def _take(self, text: str) -> Reply | None:
        """Handle a frame; returns it if it is a reply that no request waits for."""
        try:
            frame = decode(text)
        except ProtocolError as error:
            log.warning("frame ignored: %s", error)
            return None
        if frame is None:
            return None
        if isinstance(frame, Reply):
            if frame.to not in self._waiting:
                return frame
            reply = self._waiting[frame.to][1]
            if not reply.done():
                reply.set_result(frame.data) if frame.error is None else reply.set_exception(frame.error)
            return None
        self._hear_time(frame.server_time_ms)
        if isinstance(frame, Announcement):
            if frame.announcement_id not in self._announced:
                self._announced.append(frame.announcement_id)
                self._events.put(frame.event())
            return None
        events, gap = self.subscriptions.take(frame)
        for event in events:
            self._events.put(event)
        if gap and self._helpers is not None:
            log.warning("topic %s has a gap, subscribing again", frame.topic)
            self._helpers.start(self._subscribe_again(frame.topic))
        if isinstance(frame, Snapshot):
            for arrival in self._arrivals.pop(frame.topic, []):
                if not arrival.done():
                    arrival.set_result(None)
        self.subscriptions.drop_closed(frame.topic, self.server_now_ms())
        self._ack_due.set()
        return None

    def _hear_time(self, server_time_ms: Any) -> None:
        if isinstance(server_time_ms, int) and server_time_ms > 0:
            self._clock = (asyncio.get_running_loop().time(), server_time_ms)

    def _end(self, answer: ConnectionClosed, for_events: ConnectionClosed | None) -> None:
        """Answer everybody who waits. The first call counts."""
        if self._ended is not None:
            return
        self._ended = answer
        self._events.end(for_events)
        waiters: list[asyncio.Future[Any]] = [reply for _, reply in self._waiting.values()]
        waiters += [arrival for arrivals in self._arrivals.values() for arrival in arrivals]
        if self._opened is not None:
            waiters.append(self._opened)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(answer)


def _future() -> "asyncio.Future[Any]":
    """A future whose error counts as seen even if whoever waited has gone."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


async def _send(ws: aiohttp.ClientWebSocketResponse, frame: str) -> None:
    """Send; on a socket that is breaking nothing happens, since its reader will notice."""
    try:
        await ws.send_str(frame)
    except (aiohttp.ClientError, OSError):
        log.debug("sending on a broken connection")
