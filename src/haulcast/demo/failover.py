"""How long broadcasts are out of reach when their node dies or stops: measured from outside, on a thousand of them.

1. A thousand customers of a tenant of its own each have a live broadcast, far from any vehicle, so that nothing happens
   to it by itself. They are created at all nodes.
2. A node is killed: until the first of its broadcasts answers (`failover_first_s`), and until all of them have an owner
   that lives, by the journal, and have answered (`failover_all_s`).
3. A node is stopped: for some of its broadcasts, the longest that a question had to wait meanwhile (`handover_ms`).
4. Probes ask at other nodes; what clients of the node itself lose is their connection besides.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from math import ceil
from time import monotonic
from typing import TypeAlias, TypeVar

import aiohttp

from haulcast.ports import Role

from .city import NOWHERE
from .kept import PostgresTables
from .probe import Probe, longest_wait_s
from .process import Process, ServerFailed
from .server import SERVICE, Cluster

Figures: TypeAlias = Mapping[str, float | None]
T = TypeVar("T")

BROADCASTS = 1_000
EXPIRES_IN_S = 3_600
AT_ONCE = 16
PROBES = 20
ASK_THE_DEAD_EVERY_S = 0.1
ASK_THE_LEAVING_EVERY_S = 0.025
"""A connection may ask 50 times a second."""
ASK_AGAIN_AFTER_S = 2.0
LOOK_EVERY_S = 0.025
REPLACED_WITHIN_S = 60.0
SETTLE_S = 0.5
"""How long probes ask before it begins, and go on after it is over."""


class Failover:
    """Measures what `kill` and `stop` do to the standing broadcasts. Each may raise `ServerFailed`."""

    def __init__(self, server: Cluster) -> None:
        self._server = server
        self._tenant = f"{server.tenant}-standing"
        self._tables: PostgresTables  # from `standing` on
        self._first_s: list[float] = []
        self._all_s: list[float] = []
        self._handover_ms: list[float] = []

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """While it lasts there are the broadcasts; afterwards they have been cancelled."""
        await self._server.create_tenant({"wave_radii_km": [1.0]}, self._tenant)
        customers = [f"s{number}" for number in range(1, BROADCASTS + 1)]
        async with self._server.session() as http, self._server.tables() as self._tables:
            broadcasts = await _some_at_once(self._create(http, customer) for customer in customers)
            yield
            await _some_at_once(map(self._cancel, [http] * BROADCASTS, customers, broadcasts))

    async def busiest(self) -> Process:
        """The node with the most standing broadcasts."""
        owned = Counter((await self._owners()).values())
        by_count = [(owned[await _incarnation(node)], number) for number, node in enumerate(self._server.nodes)]
        return self._server.nodes[max(by_count)[1]]

    async def kill(self, node: Process) -> None:
        """Kill it, and wait until the others have all of its broadcasts and answer for them."""
        dead = await _incarnation(node)
        orphans = await self._owned_by(dead)
        async with self._probes(node) as probes:
            async with _asking(probes, orphans, ASK_THE_DEAD_EVERY_S):
                await asyncio.sleep(SETTLE_S)
                killed_s = monotonic()
                await node.kill()
                try:
                    async with asyncio.timeout(REPLACED_WITHIN_S):
                        while dead in (await self._owners()).values():
                            await asyncio.sleep(LOOK_EVERY_S)
                except TimeoutError:
                    left = len(await self._owned_by(dead))
                    raise node.failed(
                        f"{left} of {len(orphans)} broadcasts of a dead node had no owner after {REPLACED_WITHIN_S:g} s"
                    ) from None
            try:
                async with asyncio.timeout(REPLACED_WITHIN_S), asyncio.TaskGroup() as asking:
                    asked = [
                        asking.create_task(probe.until_answered(broadcast_id, ASK_AGAIN_AFTER_S))
                        for probe, broadcast_id in zip(cycle(probes), orphans, strict=False)
                    ]
            except TimeoutError:
                raise node.failed(f"a dead node's broadcast did not answer within {REPLACED_WITHIN_S:g} s") from None
        answers = [answer for probe in probes for answers in probe.answers.values() for answer in answers]
        self._first_s.append(min(answer.answered_s for answer in answers if answer.asked_s >= killed_s) - killed_s)
        self._all_s.append(max(task.result() for task in asked) - killed_s)

    async def stop(self, node: Process) -> int:
        """Stop it; its exit code."""
        broadcasts = await self._owned_by(await _incarnation(node))
        async with self._probes(node) as probes, _asking(probes, broadcasts, ASK_THE_LEAVING_EVERY_S):
            await asyncio.sleep(SETTLE_S)
            began_s = monotonic()
            code = await node.stop()
            await asyncio.sleep(SETTLE_S)
            over_s = monotonic()
            try:
                async with asyncio.timeout(REPLACED_WITHIN_S):
                    while not all(probe.answered_since(over_s) for probe in probes):
                        await asyncio.sleep(LOOK_EVERY_S)
            except TimeoutError:
                raise node.failed(f"a stopped node's broadcast did not answer within {REPLACED_WITHIN_S:g} s") from None
        for probe in probes:
            for broadcast_id, asked in probe.asked.items():
                waited_s = longest_wait_s(asked, probe.answers[broadcast_id], began_s)
                assert waited_s is not None
                self._handover_ms.append(waited_s * 1000)
        return code

    def figures(self) -> Mapping[str, Figures]:
        """What was measured so far."""
        return {
            "failover_first_s": _percentiles(self._first_s),
            "failover_all_s": _percentiles(self._all_s),
            "handover_ms": _percentiles(self._handover_ms),
        }

    # --- Broadcasts ---

    async def _create(self, http: aiohttp.ClientSession, customer: str) -> str:
        place = {"lat": NOWHERE.lat, "lng": NOWHERE.lng}
        trucks = [{"vehicle_type": "mini", "count": 1}]
        haul = {"pickup": place, "drop": place, "trucks": trucks, "expires_in_s": EXPIRES_IN_S}
        reply = await self._post(http, "/v1/broadcasts", customer, haul)
        return reply["broadcast_id"]

    async def _cancel(self, http: aiohttp.ClientSession, customer: str, broadcast_id: str) -> None:
        await self._post(http, f"/v1/broadcasts/{broadcast_id}/cancel", customer, {})

    async def _post(
        self, http: aiohttp.ClientSession, path: str, customer: str, body: Mapping[str, object]
    ) -> Mapping[str, str]:
        """Until there is an answer: what may yet succeed is sent again, under the same key."""
        token = self._server.token(Role.CUSTOMER, customer, self._tenant)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"{customer}{path}"}
        async with asyncio.timeout(REPLACED_WITHIN_S):
            while True:
                async with http.post(f"{SERVICE}{path}", json=body, headers=headers) as response:
                    reply: Mapping[str, str] = await response.json()
                    if response.status < 300:
                        return reply
                    if response.status not in (429, 503):
                        raise ServerFailed(f"POST {path} was answered {reply}; the log is {self._server.log_path}")
                await asyncio.sleep(LOOK_EVERY_S)

    async def _owners(self) -> Mapping[str, int]:
        """The incarnation that owns each live broadcast, by the journal."""
        return await self._tables.owners(self._tenant)

    async def _owned_by(self, incarnation: int) -> list[str]:
        return [broadcast_id for broadcast_id, owner in (await self._owners()).items() if owner == incarnation]

    # --- Probes ---

    @asynccontextmanager
    async def _probes(self, but: Process) -> AsyncIterator[Sequence[Probe]]:
        """Probes at all nodes but one."""
        others = cycle(node for node in self._server.nodes if node is not but)
        async with AsyncExitStack() as open_probes, aiohttp.ClientSession() as http:
            probes = []
            for number in range(1, PROBES + 1):
                token = self._server.token(Role.TRANSPORTER, f"probe{number}", self._tenant)
                probe = Probe.connected(http, next(others).url, token)
                probes.append(await open_probes.enter_async_context(probe))
            yield probes


@asynccontextmanager
async def _asking(probes: Sequence[Probe], broadcasts: Sequence[str], every_s: float) -> AsyncIterator[None]:
    """While it lasts each probe keeps asking after one of the broadcasts, which are enough for all or too few."""
    async with asyncio.TaskGroup() as tasks:
        asking = [
            tasks.create_task(probe.keep_asking(broadcast_id, every_s))
            for probe, broadcast_id in zip(probes, broadcasts, strict=False)
        ]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()


async def _some_at_once(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all jobs, in their order."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(job: Awaitable[T]) -> T:
        async with limit:
            return await job

    return await asyncio.gather(*map(one, jobs))


async def _incarnation(node: Process) -> int:
    incarnation: int = (await node.detailed())["incarnation"]
    return incarnation


def _percentiles(values: Sequence[float]) -> Figures:
    ordered = sorted(values)
    return {
        name: round(ordered[ceil(share * len(ordered)) - 1], 3) if ordered else None
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }
