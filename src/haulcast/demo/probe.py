"""Asks after broadcasts, again and again, and notes when it was answered.

The question is to decline an offer that was never made. Only the broadcast's actor can answer that, wherever it lives,
and its refusal is written to the journal before it leaves: who is answered has seen the broadcast fully alive. A probe
never repeats a question; it asks the next one, whether the last was answered or not.
"""

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import count
from time import monotonic
from typing import NamedTuple, Self

import aiohttp

ANSWERED = frozenset({"NOT_OFFERED"})
"""The codes that a broadcast's actor answers with; others come from whoever could not reach it."""
HELLO_WITHIN_S = 10.0
REFUSED_PAUSE_S = 0.1


class Answer(NamedTuple):
    """A question that was answered; times are of the monotonic clock."""

    asked_s: float
    answered_s: float


class Probe:
    """One connection to one node."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.asked: defaultdict[str, list[float]] = defaultdict(list)
        """When each broadcast was asked after."""
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        """By broadcast, in the order of the answers."""
        self._socket = socket
        self._name = secrets.token_hex(4)  # a question of an earlier probe would be answered from the log
        self._numbers = count(1)
        self._waiting: dict[str, tuple[str, float, asyncio.Future[float | None]]] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, http: aiohttp.ClientSession, url: str, token: str) -> AsyncIterator[Self]:
        """A probe that has been greeted."""
        async with http.ws_connect(f"{url}/v1/ws", protocols=("haulcast.v1.json",)) as socket:
            probe = cls(socket)
            await socket.send_json({"id": "hello", "type": "hello", "data": {"token": token}})
            await socket.receive(timeout=HELLO_WITHIN_S)
            reading = asyncio.create_task(probe._read())
            try:
                yield probe
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    async def ask(self, broadcast_id: str) -> "asyncio.Future[float | None]":
        """Ask once; done when it is answered, with the time, or None if somebody else said that it cannot be. On a
        socket that has broken it is never done."""
        answered: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        question, now_s = f"{self._name}-{next(self._numbers)}", monotonic()
        self._waiting[question] = (broadcast_id, now_s, answered)
        self.asked[broadcast_id].append(now_s)
        request = {"id": question, "type": "offer.decline", "data": {"broadcast_id": broadcast_id}}
        with suppress(OSError):
            await self._socket.send_json(request)
        return answered

    async def keep_asking(self, broadcast_id: str, every_s: float) -> None:
        """Ask until cancelled."""
        while True:
            await self.ask(broadcast_id)
            await asyncio.sleep(every_s)

    async def until_answered(self, broadcast_id: str, again_after_s: float) -> float:
        """Ask until it is answered; when that was."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(again_after_s):
                    answered_s = await (await self.ask(broadcast_id))
                    if answered_s is not None:
                        return answered_s
            await asyncio.sleep(REFUSED_PAUSE_S)

    def answered_since(self, since_s: float) -> bool:
        """Whether a question asked at `since_s` or later was answered, for every broadcast that it asked after."""
        return all(any(answer.asked_s >= since_s for answer in self.answers[each]) for each in self.asked)

    async def _read(self) -> None:
        async for message in self._socket:
            frame = json.loads(message.data)
            waiting = self._waiting.pop(frame.get("re"), None)
            if waiting is None:
                continue
            broadcast_id, asked_s, answered = waiting
            now_s = monotonic() if frame.get("error", {}).get("code") in ANSWERED else None
            if now_s is not None:
                self.answers[broadcast_id].append(Answer(asked_s, now_s))
            if not answered.done():
                answered.set_result(now_s)


def longest_wait_s(asked: Iterable[float], answers: Iterable[Answer], since_s: float) -> float | None:
    """The longest time from a question asked at `since_s` or later until it, or one asked after it, was answered.

    None if nothing was answered. Questions after the last one that was answered are not counted: they are still open.
    """
    in_order = sorted(answers)
    waits = []
    for asked_s in asked:
        later = [answer.answered_s for answer in in_order if answer.asked_s >= asked_s >= since_s]
        if later:
            waits.append(min(later) - asked_s)
    return max(waits, default=None)
