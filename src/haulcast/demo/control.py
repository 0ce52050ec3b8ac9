"""An operator in a hurry: pauses dispatch, switches to the next mode and resumes, twenty times a minute.

1. A round is three commands, each at another node than the one before; dispatch is paused for a third of the time.
2. A command has a key of its own. If no answer came, or one that it may yet succeed, the next node is given the same
   command under the same key, until it is answered or `PATIENCE_S` is over.
3. A round that has begun is finished: at the end dispatch is resumed.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import count, cycle, islice
from time import perf_counter
from typing import Any

import aiohttp

from haulcast.ports import Role

from .record import Commanded, Outcome, Recorder
from .server import Server

FIRST_AFTER_S = 0.5
ROUND_S = 3.0
STEP_S = 0.5
PATIENCE_S = 30.0
ANSWER_WITHIN_S = 10.0
"""Longer than the server waits for its nodes."""
ASK_AGAIN_AFTER_S = 0.1
MAY_YET_SUCCEED = frozenset({429, 500, 502, 503, 504})


class Operator:
    """Gives commands to the demo's tenant, and writes down how they were answered."""

    def __init__(self, server: Server, recorder: Recorder, http: aiohttp.ClientSession) -> None:
        self._server = server
        self._recorder = recorder
        self._http = http
        self._token = server.token(Role.OPERATOR, "operator")
        self._keys = (f"command-{number}" for number in count(1))

    async def work(self, begun: asyncio.Event, stopping: asyncio.Event) -> None:
        """From `begun` on, one round after the other until `stopping` is set."""
        await begun.wait()
        began_s = asyncio.get_running_loop().time() + FIRST_AFTER_S
        modes = cycle(await self._modes())
        for number in count():
            if await _until(began_s + number * ROUND_S, stopping):
                return
            round_s = asyncio.get_running_loop().time()
            await self._command("pause", number)
            await _until(round_s + STEP_S, stopping)
            await self._command("switch_mode", number + 1, mode=next(modes))
            await _until(round_s + 2 * STEP_S, stopping)
            await self._command("resume", number + 2)

    async def _modes(self) -> list[str]:
        """All that the server has, the one in force last. Raises `ServerFailed`."""
        outcome, _, answer = await self._ask("GET", "/v1/settings", 0)
        if outcome is not Outcome.OK:
            raise self._server.nodes[0].failed(f"GET /v1/settings was answered {answer}")
        modes: list[str] = answer["modes"]
        after = modes.index(answer["settings"]["dispatch_mode"]) + 1
        return [*islice(cycle(modes), after, after + len(modes))]

    async def _command(self, command: str, turn: int, **data: str) -> None:
        key = next(self._keys)
        asked_s = perf_counter()  # uvloop's own time has whole milliseconds only
        outcome, node, answer = await self._ask("POST", f"/v1/control/{command}", turn, key, data)
        latency_ms = (perf_counter() - asked_s) * 1000
        answered_ms = time.time_ns() // 1_000_000
        self._recorder.add(Commanded(key, command, node, outcome, answer, answered_ms, latency_ms))

    async def _ask(
        self, method: str, path: str, turn: int, key: str | None = None, body: Mapping[str, str] | None = None
    ) -> tuple[Outcome, str, Mapping[str, Any]]:
        """What came of it, who answered, and what."""
        headers = {"Authorization": f"Bearer {self._token}", **({} if key is None else {"Idempotency-Key": key})}
        timeout = aiohttp.ClientTimeout(ANSWER_WITHIN_S)
        give_up_s = perf_counter() + PATIENCE_S
        nodes = islice(cycle(node.url for node in self._server.nodes), turn % len(self._server.nodes), None)
        while True:
            node = next(nodes)
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self._http.request(
                    method, f"{node}{path}", json=body, headers=headers, timeout=timeout
                ) as response:
                    answer: Mapping[str, Any] = await response.json()
                    if response.status < 300:
                        return Outcome.OK, node, answer
                    if response.status not in MAY_YET_SUCCEED:
                        return Outcome.REFUSED, node, answer
            if perf_counter() >= give_up_s:
                return Outcome.LOST, node, {}
            await asyncio.sleep(ASK_AGAIN_AFTER_S)


async def _until(time_s: float, stopping: asyncio.Event) -> bool:
    """Wait for that time of the loop, or until `stopping` is set; whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout_at(time_s):
            await stopping.wait()
    return stopping.is_set()
