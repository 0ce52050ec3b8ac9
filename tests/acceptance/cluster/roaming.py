"""A user who gets an answer to every request, whatever becomes of the nodes.

1. The user is on one node at a time, and goes to the next that is ready when the socket ends or a reply does not come.
   The versions held are told to the next node, and must not go back there.
2. A request keeps its id over all tries: on the socket, and by REST at the other nodes in between. Every answer that
   says what has been decided is noted; there may be several to one id, and they have to be the same.
3. Some requests are sent twice on purpose: at two nodes at once, or again when they have been answered.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from time import monotonic
from typing import Any, Self

import aiohttp

from haulcast.demo.record import Asked, Outcome, Recorder
from tests.acceptance.cluster.nodes import ClusterNode
from tests.acceptance.network import sign
from tests.acceptance.phone import Gone, Json, Phone, View

DIAL_S = 4.0
TRY_S = 3.0
MAX_RESUMED = 32
"""Topics that a hello may name."""
ANSWERED_WITHIN_S = 45.0
TWICE_AT_ONCE = 0.15
TWICE_LATER = 0.15
_phones = count(1)
REPEATED = frozenset({"broadcast.create", "broadcast.cancel", "offer.accept"})
"""Requests that are sent by REST too."""


class HelloRefused(Exception):
    """The node does not want this user now."""


@dataclass(eq=False)
class RoamingPhone(Phone):
    """One connection of a user who has had others before. `shown` is what all of them were shown, what moved last at
    the end."""

    shown: dict[str, View] = field(default_factory=dict)
    retired: bool = False
    """The user has gone elsewhere; what still comes is not looked at."""

    @classmethod
    async def dial(
        cls, session: aiohttp.ClientSession, url: str, role: str, user: str, token: str, shown: dict[str, View]
    ) -> Self:
        """Connect, and say hello with what is held."""
        ws = await session.ws_connect(
            f"{url}/v1/ws",
            protocols=("haulcast.v1.json",),
            max_msg_size=16 * 1024 * 1024,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
        )
        phone = cls(role, user, ws, shown=shown)
        phone.hold(dict([*shown.items()][-MAX_RESUMED:]))
        phone._reader = asyncio.create_task(phone._read())
        resume = {topic: view.version for topic, view in phone.views.items()}
        try:
            reply = await phone.ask("hello", {"token": token, "resume": resume})
            if not reply["ok"]:
                assert reply["error"]["retry"], f"hello of {user}: {reply['error']}"
                raise HelloRefused(reply["error"]["code"])
            phone.greeting = reply["data"]
        except BaseException:
            phone.retired = True
            await phone.close()
            raise
        return phone

    def _take_topic(self, frame: Json) -> None:
        if self.retired:
            return
        topic, version = frame["topic"], (frame["version"][0], frame["version"][1])
        before = self.shown.pop(topic, None)
        if before is not None and version < before.version:
            self.faults.append(f"{topic} went back from {before.version} to {version} on another connection")
        super()._take_topic(frame)
        if topic in self.views:
            self.shown[topic] = replace(self.views[topic])


@dataclass(frozen=True, slots=True)
class Answer:
    """What was decided, and where that was heard."""

    node: int
    by: str
    ok: bool
    body: Mapping[str, Any]
    """The data, or the code of the error and its data."""


class User:
    """One user. `number` is the node to begin with."""

    def __init__(
        self,
        nodes: Sequence[ClusterNode],
        number: int,
        session: aiohttp.ClientSession,
        tenant: str,
        role: str,
        name: str,
        recorder: Recorder,
    ) -> None:
        self.role = role
        self.name = name
        self.rng = Random(f"{tenant}/{name}")
        self.phones: list[tuple[ClusterNode, RoamingPhone]] = []
        """All connections, the present one last."""
        self.answers: dict[str, list[Answer]] = {}
        self.requests: dict[str, tuple[str, Json]] = {}
        self.waiting: set[str] = set()
        """The ids that are not answered yet."""
        self.nodes = nodes
        self._at = number
        self._session = session
        self._token = sign(tenant, role, name)
        self._recorder = recorder
        self._prefix = f"{name}-{next(_phones)}"  # a user may have several phones
        self._numbers = count(1)
        self._shown: dict[str, View] = {}
        self._dialing = asyncio.Lock()
        self._hanging_up: set[asyncio.Task[None]] = set()

    @property
    def phone(self) -> RoamingPhone:
        """The present connection."""
        return self.phones[-1][1]

    @property
    def node(self) -> ClusterNode:
        """Where that leads."""
        return self.phones[-1][0]

    def holds(self, topic: str) -> None:
        """Ask each node for the topic from the beginning, as nothing of it has been shown yet."""
        self._shown.setdefault(topic, View((0, 0), {}, snapshots=0))

    async def connected(self) -> RoamingPhone:
        """A connection, a new one if there is none."""
        async with self._dialing:
            if self.phones and (self.phone.retired or self.phone.close_code is not None):
                self._at += 1
            while not self.phones or self.phone.retired or self.phone.close_code is not None:
                node = self.nodes[self._at % len(self.nodes)]
                try:
                    async with asyncio.timeout(DIAL_S):
                        if await self._is_ready(node):
                            phone = await RoamingPhone.dial(
                                self._session, node.url, self.role, self.name, self._token, self._shown
                            )
                            self.phones.append((node, phone))
                            break
                except (aiohttp.ClientError, OSError, TimeoutError, Gone, HelloRefused):
                    pass
                self._at += 1
                await asyncio.sleep(0.05)
            return self.phone

    async def ask(self, request_type: str, data: Json) -> Answer | None:
        """Ask until it is answered; None if that took too long."""
        request_id = f"{self._prefix}-{next(self._numbers)}"
        self.requests[request_id] = (request_type, data)
        self.waiting.add(request_id)
        repeated, answer = request_type in REPEATED, None
        began_s = monotonic()
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_S), asyncio.TaskGroup() as tries:
                if repeated and self.rng.random() < TWICE_AT_ONCE:
                    tries.create_task(self.call(self._another(), request_id))
                answer = await self._until_answered(request_id)
                if repeated and self.rng.random() < TWICE_LATER:
                    tries.create_task(self.call(self._another(), request_id))
        except TimeoutError:
            pass
        self.waiting.discard(request_id)
        outcome = Outcome.LOST if answer is None else Outcome.OK if answer.ok else Outcome.REFUSED
        reply, code = (answer.body, None) if answer is not None else ({}, None)
        if outcome is Outcome.REFUSED:
            reply, code = reply["data"], reply["code"]
        latency_ms = (monotonic() - began_s) * 1000
        asked = Asked(self.name, self.role, request_type, request_id, data, outcome, reply, code, latency_ms)
        self._recorder.add(asked)
        return answer

    async def call(self, node: ClusterNode, request_id: str) -> Answer | None:
        """The same request at a node by REST, once. None if nothing was decided, or nobody said so."""
        request_type, data = self.requests[request_id]
        path, body = _as_rest(request_type, data)
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": request_id}
        try:
            async with (
                asyncio.timeout(TRY_S),
                self._session.post(f"{node.url}{path}", json=body, headers=headers) as response,
            ):
                answer: Json = await response.json()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        return self._take(request_id, node, "REST", "error" not in answer, answer.get("error", answer))

    async def hang_up(self) -> None:
        """End the connection."""
        if self.phones:
            await self.phone.close()
        await asyncio.gather(*self._hanging_up)

    async def _until_answered(self, request_id: str) -> Answer:
        request_type, data = self.requests[request_id]
        while True:
            phone, node = await self.connected(), self.node
            answer = None
            try:
                async with asyncio.timeout(TRY_S):
                    reply = await (await phone.post(request_type, data, request_id))
                answer = self._take(request_id, node, "socket", reply["ok"], reply["data" if reply["ok"] else "error"])
            except Gone:
                pass
            except TimeoutError:
                self._leave(phone)
            if answer is None and request_type in REPEATED:
                answer = await self.call(self._another(), request_id)
            if answer is not None:
                return answer
            await asyncio.sleep(0.05)

    def _take(self, request_id: str, node: ClusterNode, by: str, ok: bool, body: Json) -> Answer | None:
        """Note an answer; None if it says that the same request may succeed later."""
        if not ok:
            if body["retry"]:
                return None
            body = {"code": body["code"], "data": body["data"]}
        answer = Answer(node.number, by, ok, body)
        self.answers.setdefault(request_id, []).append(answer)
        return answer

    def _leave(self, phone: RoamingPhone) -> None:
        """The node does not answer: hang up without waiting for it."""
        if not phone.retired:
            phone.retired = True
            task = asyncio.create_task(phone.close())
            self._hanging_up.add(task)
            task.add_done_callback(self._hanging_up.discard)

    def _another(self) -> ClusterNode:
        others = [node for node in self.nodes if not self.phones or node is not self.node]
        return self.rng.choice(others)

    async def _is_ready(self, node: ClusterNode) -> bool:
        with suppress(aiohttp.ClientError, OSError):
            async with self._session.get(f"{node.url}/health/ready") as response:
                return response.status == 200
        return False


def _as_rest(request_type: str, data: Json) -> tuple[str, Json]:
    if request_type == "broadcast.create":
        return "/v1/broadcasts", data
    path = f"/v1/broadcasts/{data['broadcast_id']}/{request_type.partition('.')[2]}"
    return path, {key: value for key, value in data.items() if key != "broadcast_id"}
