"""What happens to nodes in the world, in a hurry: they are killed, stopped, and come back.

Rounds of one node killed, one stopped, and one of each at the same time, if another one is left to live on. A round is
over when all nodes run again.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from itertools import cycle
from random import Random

from .failover import Failover, Figures
from .process import Process, ServerFailed
from .server import Server

FIRST_AFTER_S = 4.0
QUIET_S = (3.0, 6.0)
DOWN_S = (0.5, 4.0)
MEASURED_KINDS = 2


class Chaos:
    """Ends and restarts the nodes of a cluster. With `failover`, that measures each round of one node."""

    def __init__(self, server: Server, rng: Random, failover: Failover | None) -> None:
        self._server = server
        self._rng = rng
        self._failover = failover

    async def rage(self, stopping: asyncio.Event) -> Mapping[str, Figures]:
        """Until `stopping` is set, but if it measures, not before every kind was measured once. What was measured.

        Raises `ServerFailed` if a node does not come back, does not stop as it should, or is not replaced in time.
        """
        if self._failover is None:
            await self._rage(stopping, rounds_at_least=0)
            return {}
        async with self._failover.standing():
            await self._rage(stopping, rounds_at_least=MEASURED_KINDS)
        return self._failover.figures()

    async def _rage(self, stopping: asyncio.Event, rounds_at_least: int) -> None:
        await self._quiet(stopping, FIRST_AFTER_S)
        for number, one_round in enumerate(cycle((self._kill_one, self._stop_one, self._end_two))):
            if stopping.is_set() and number >= rounds_at_least:
                return
            await one_round()
            await self._quiet(stopping, self._rng.uniform(*QUIET_S))

    async def _kill_one(self) -> None:
        node = await self._victim()
        await (node.kill() if self._failover is None else self._failover.kill(node))
        await self._bring_back(node)

    async def _stop_one(self) -> None:
        node = await self._victim()
        _check(node, await (node.stop() if self._failover is None else self._failover.stop(node)))
        await self._bring_back(node)

    async def _end_two(self) -> None:
        if len(self._server.nodes) < 3:
            return
        killed, stopped = self._rng.sample(self._server.nodes, 2)
        _, code = await asyncio.gather(killed.kill(), stopped.stop())
        _check(stopped, code)
        await asyncio.gather(self._bring_back(killed), self._bring_back(stopped))

    async def _victim(self) -> Process:
        return self._rng.choice(self._server.nodes) if self._failover is None else await self._failover.busiest()

    async def _bring_back(self, node: Process) -> None:
        await asyncio.sleep(self._rng.uniform(*DOWN_S))
        await node.start()

    async def _quiet(self, stopping: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await stopping.wait()


def _check(node: Process, code: int) -> None:
    if code:
        raise ServerFailed(f"a node has stopped with {code} instead of 0; its log is {node.log_path}")
