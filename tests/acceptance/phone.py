"""One user's WebSocket, raw: every frame is kept, and the server is held to the protocol by each of them.

1. Nothing is done behind the test's back: no reconnect, no retry, no acknowledgement. What is sent leaves in the same
   turn of the loop, so that many phones can be made to send at once.
2. Topics are applied strictly: a delta builds on the very version held, versions never go back, an event belongs to the
   version held. Whatever is not so is a fault, and `check` raises it.
3. A request that has no reply when the connection ends raises `Gone`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self, TypeAlias

import aiohttp
import orjson

from haulcast.client.pointer import PatchError, patch

Json: TypeAlias = dict[str, Any]
Version: TypeAlias = tuple[int, int]

WITHIN_S = 10.0
"""How long a test waits for what has to happen. Long, as it says nothing about speed."""
_POLL_S = 0.002
_ids = count(1)


class Gone(Exception):
    """The connection has ended, so there will be no reply."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Heard:
    """An event, and when it came (wall time of the listener)."""

    at_ms: float
    topic: str
    event: str
    data: Json
    version: Version
    server_time: int


@dataclass(slots=True)
class View:
    """A topic as the phone shows it."""

    version: Version
    state: Json
    snapshots: int = 1


@dataclass(eq=False)
class Phone:
    """A greeted connection. Made by `open`; whoever opens it closes it."""

    role: str
    user: str
    ws: aiohttp.ClientWebSocketResponse
    greeting: Json = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    events: list[Heard] = field(default_factory=list)
    announcements: dict[str, Json] = field(default_factory=dict)
    """By their ids; one may come twice."""
    frames: list[Json] = field(default_factory=list)
    """Whatever came unasked, as it came."""
    faults: list[str] = field(default_factory=list)
    unasked: list[Json] = field(default_factory=list)
    """Errors in answer to what had no id; none is expected unless the test takes it out."""
    close_code: int | None = None
    close_reason: str = ""
    _replies: "dict[str, asyncio.Future[Json]]" = field(default_factory=dict)
    _reader: "asyncio.Task[None] | None" = None

    @classmethod
    async def open(
        cls,
        session: aiohttp.ClientSession,
        url: str,
        role: str,
        user: str,
        token: str,
        held: Mapping[str, View] | None = None,
        claims: Mapping[str, Version] | None = None,
    ) -> Self:
        """Connect and say hello, with what is `held` from a connection before. `claims`: versions that are not."""
        ws = await session.ws_connect(f"{url}/v1/ws", protocols=("haulcast.v1.json",), max_msg_size=16 * 1024 * 1024)
        phone = cls(role, user, ws)
        phone.hold(held or {})
        phone._reader = asyncio.create_task(phone._read())
        resume = {**{topic: view.version for topic, view in phone.views.items()}, **(claims or {})}
        try:
            phone.greeting = await phone.do("hello", {"token": token, "resume": resume})
        except BaseException:
            await phone.close()
            raise
        return phone

    def hold(self, views: Mapping[str, View]) -> None:
        """Show what a connection before was shown."""
        self.views = {topic: View(view.version, view.state, snapshots=0) for topic, view in views.items()}

    async def close(self) -> None:
        """Hang up."""
        await self.ws.close()
        if self._reader is not None:
            await self._reader

    def check(self) -> None:
        """The server has kept to the protocol."""
        assert not self.faults, f"{self.role} {self.user}: {self.faults}"
        assert not self.unasked, f"{self.role} {self.user}: {self.unasked}"

    # --- Asking ---

    async def post(self, request_type: str, data: Json | None = None, id: str | None = None) -> "asyncio.Future[Json]":
        """Send a request without waiting; returns its reply to come, the whole frame."""
        request_id = id or f"r{next(_ids)}"
        reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        assert request_id not in self._replies, f"{request_id} waits for a reply already"
        if self.close_code is not None:
            reply.set_exception(Gone(self.close_code))
            return reply
        self._replies[request_id] = reply
        frame = orjson.dumps({"id": request_id, "type": request_type, "data": data or {}}).decode()
        with suppress(aiohttp.ClientError, OSError):  # the reader finds out why, and answers
            await self.ws.send_str(frame)
        return reply

    async def ask(self, request_type: str, data: Json | None = None, id: str | None = None) -> Json:
        """A request and its reply, the whole frame. Raises `Gone`."""
        async with asyncio.timeout(WITHIN_S):
            return await (await self.post(request_type, data, id))

    async def do(self, request_type: str, data: Json | None = None, id: str | None = None) -> Json:
        """The data of a reply that has to be good."""
        reply = await self.ask(request_type, data, id)
        assert reply["ok"], f"{request_type} of {self.user}: {reply['error']}"
        answer: Json = reply["data"]
        return answer

    async def refused(self, request_type: str, data: Json | None = None, id: str | None = None) -> Json:
        """The error of a reply that has to be a refusal."""
        reply = await self.ask(request_type, data, id)
        assert not reply["ok"], f"{request_type} of {self.user} went through: {reply['data']}"
        error: Json = reply["error"]
        return error

    async def acknowledge(self, topic: str, version: Version) -> None:
        """Say that the topic is shown, and wait until the server has read that."""
        await self.ws.send_json({"type": "ack", "data": {"topic": topic, "version": version}})
        await self.do("ping")

    # --- Listening ---

    def heard(self, *names: str, **data: Any) -> list[Heard]:
        """The events so far of these names (none: of any), with these values in their data."""
        return [
            heard
            for heard in self.events
            if (not names or heard.event in names) and all(heard.data.get(key) == data[key] for key in data)
        ]

    async def hears(self, *names: str, **data: Any) -> Heard:
        """The first such event, as soon as there is one."""
        await eventually(lambda: self.heard(*names, **data), f"{self.user} hears {names} {data}")
        return self.heard(*names, **data)[0]

    async def follows(self, topic: str) -> None:
        """Wait until the topic is there."""
        await eventually(lambda: topic in self.views, f"{self.user} is shown {topic}")

    async def comes_to(self, topic: str, state: Json, version: Version | None = None) -> None:
        """Wait until the topic is shown like this, and under this version if one is given."""

        def shown() -> bool:  # to be taken over by another node raises the epoch, and changes nothing that is shown
            return self.state(topic) == state and (version is None or self.views[topic].version[1] == version[1])

        await eventually(shown, f"{self.user} sees {topic} as {state}, version {version}")

    async def loses_offers(self) -> None:
        """Wait until a transporter's feed has no offer, open or closed."""
        await eventually(lambda: not self.offers, f"the offers of {self.user} are gone")

    def state(self, topic: str) -> Json:
        """What the phone shows of a topic."""
        return self.views[topic].state

    @property
    def feed(self) -> Json:
        """A transporter's own feed."""
        return self.state(f"feed:{self.user}")

    @property
    def offers(self) -> Json:
        """The offers on a transporter's feed, open and closed."""
        offers: Json = self.feed["offers"]
        return offers

    @property
    def trips(self) -> Json:
        """The trips on a transporter's feed or a driver's topic."""
        topic = f"feed:{self.user}" if self.role == "transporter" else f"driver:{self.user}"
        trips: Json = self.state(topic)["trips"]
        return trips

    def has_offer(self, broadcast_id: str) -> bool:
        """Whether an offer is open on a transporter's feed."""
        return bool(self.offers.get(broadcast_id, {}).get("status") == "open")

    async def closed(self) -> tuple[int | None, str]:
        """The code and the reason of the end, when it has come."""
        assert self._reader is not None
        async with asyncio.timeout(WITHIN_S):
            await asyncio.shield(self._reader)
        return self.close_code, self.close_reason

    # --- Reading ---

    async def _read(self) -> None:
        try:
            while (message := await self.ws.receive()).type is aiohttp.WSMsgType.TEXT:
                frame = orjson.loads(message.data)
                if "re" in frame:
                    self._take_reply(frame)
                else:
                    self.frames.append(frame)
                    if frame["type"] == "announcement":
                        self.announcements[frame["data"]["announcement_id"]] = frame["data"]
                    else:
                        self._take_topic(frame)
            if message.type is aiohttp.WSMsgType.CLOSE:
                self.close_reason = message.extra or ""
        finally:
            self.close_code = self.ws.close_code or 1006
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(Gone(self.close_code))

    def _take_reply(self, frame: Json) -> None:
        reply = self._replies.pop(frame["re"] or "", None)
        if frame["re"] is None:
            self.unasked.append(frame)
        elif reply is None:
            self.faults.append(f"a reply that nobody waits for: {frame}")
        elif not reply.done():
            reply.set_result(frame)

    def _take_topic(self, frame: Json) -> None:
        topic, version = frame["topic"], (frame["version"][0], frame["version"][1])
        view = self.views.get(topic)
        match frame["type"]:
            case "snapshot":
                if view is None:
                    self.views[topic] = View(version, frame["data"])
                    return
                if version < view.version:
                    self.faults.append(f"{topic} went back from {view.version} to {version}")
                view.version, view.state, view.snapshots = version, frame["data"], view.snapshots + 1
            case "delta":
                base = (frame["from"][0], frame["from"][1])
                if view is None or base != view.version or version <= base:
                    self.faults.append(f"{topic} is at {view and view.version}, a delta goes from {base} to {version}")
                    return
                try:
                    view.state = patch(view.state, frame["data"].get("set", {}), frame["data"].get("del", ()))
                except PatchError as error:
                    self.faults.append(f"{topic} {version}: {error}")
                view.version = version
            case "event":
                if view is None or version != view.version:
                    self.faults.append(f"{topic} is at {view and view.version}, an event at {version}: {frame}")
                self.events.append(
                    Heard(time.time() * 1000, topic, frame["event"], frame["data"], version, frame["server_time"])
                )
            case other:
                self.faults.append(f"a frame of type {other!r}")


async def eventually(
    condition: Callable[[], object], what: str = "the condition holds", within_s: float = WITHIN_S
) -> None:
    """Wait until `condition` gives something true. There is no event to wait for: the server is another process."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        await asyncio.sleep(_POLL_S)


async def eventually_answered(question: Callable[[], Awaitable[bool]], what: str, within_s: float = WITHIN_S) -> None:
    """Ask until the answer is yes."""
    give_up_at = time.monotonic() + within_s
    while not await question():
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        await asyncio.sleep(_POLL_S)
