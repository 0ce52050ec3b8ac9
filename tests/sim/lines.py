"""What lies between a node and the stores: calls that take their time, get lost, or land when nobody waits any more.

1. A call travels to the store, has its effect there in one instant, and its answer travels back. The caller is a
   process, the store is not: what has been sent lands although the caller was stopped, killed or has given up.
2. A call that is not answered within the line's patience raises, as the ports say. Its effect may have been, may come
   yet, or never; the caller cannot know.
3. Datagrams are lost, doubled and late, but those of one sender to one receiver never overtake each other.
4. When a line is cut, what is sent is lost, and so is half of what was on its way, in either direction.
5. Fates are drawn from the line's own generator when something is sent, so a schedule replays from its seed.
6. Unrealistic in this: reads are as late as writes but never stale at the moment of their effect; `record`, `forget`
   and `listen` take no time.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from math import inf
from random import Random
from typing import Any, TypeVar, cast

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.errors import StoreUnavailable
from haulcast.ports import Journal, Member, Ownership, Standing
from haulcast.storage.memory.cluster import MemoryCluster, MemoryStore
from tests.sim.processes import Process, ProcessLoop
from tests.sim.virtual_time import VirtualClock

T = TypeVar("T")

LATEST_S = 5.0
"""By how much a late call misses its caller's patience, at most."""


@dataclass(slots=True)
class Weather:
    """How likely what is, for every line of a schedule. All chances are per call or datagram."""

    latency_s: float = 0.0  # the mean of each way
    refused: float = 0.0  # never arrives
    unanswered: float = 0.0  # has its effect, and the caller is told that the store cannot be reached
    late: float = 0.0  # has its effect after the caller has given up
    lost: float = 0.0  # of datagrams, as the next two
    doubled: float = 0.0
    delayed: float = 0.0  # by up to a second


class Line:
    """One node's way to one store. `trace` is told of everything that is sent, with its fate."""

    def __init__(
        self,
        name: str,
        seed: str,
        weather: Weather,
        trace: list[tuple[object, ...]],
        patience_s: float,
        error: type[StoreUnavailable],
        loop: ProcessLoop,
    ) -> None:
        self.name = name
        self._random = Random(seed)
        self._weather = weather
        self._trace = trace
        self._patience_s = patience_s
        self._error = error
        self._loop = loop
        self._last_arrival_s: dict[int, float] = {}  # by receiver
        self.calm_from_s = inf
        """From then on nothing takes time or goes wrong, and nothing is still to land."""
        self.cut_until_s = -inf
        self.slow_until_s = -inf

    @property
    def cut(self) -> bool:
        """Whether nothing comes through now."""
        now_s: float = self._loop.time()
        return now_s < self.cut_until_s

    async def call(self, what: str, effect: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask the store, from within the node's process. Raises the line's error."""
        now_s = self._loop.time()
        if now_s >= self.calm_from_s:
            return await effect()
        weather, chance = self._weather, self._random.random()
        before_s, after_s = self._way_s(), self._way_s()
        lands = not self.cut
        if chance < weather.refused:
            lands = False
        elif chance < weather.refused + weather.late:
            before_s = self._patience_s + self._random.uniform(0, LATEST_S)
        before_s = min(before_s, self.calm_from_s - now_s)
        unanswered = self._random.random() < weather.unanswered
        lost_if_cut = self._random.random() < 0.5
        self._trace.append((now_s, self.name, what, lands, before_s, after_s, unanswered))
        answer: asyncio.Future[T] = self._loop.create_future()

        def arrive() -> None:
            if not lands or (self.cut and lost_if_cut):
                _tell(answer, self._error(f"{what}: refused"))
                return
            try:
                result = _at_once(effect())
            except Exception as error:
                _tell(answer, error)
            else:
                self._loop.call_at(self._loop.time() + after_s, come_back, result, context=self._loop.outside)

        def come_back(result: T) -> None:
            if unanswered or self.cut:
                _tell(answer, self._error(f"{what}: the answer was lost"))
            elif not answer.done():
                answer.set_result(result)

        self._loop.call_at(now_s + before_s, arrive, context=self._loop.outside)
        patience = self._loop.call_at(now_s + self._patience_s, _tell, answer, self._error(f"{what}: no answer"))
        try:
            return await answer
        finally:
            patience.cancel()

    def post(self, to: int, deliver: Callable[[], None]) -> None:
        """Send a datagram."""
        now_s = self._loop.time()
        if now_s >= self.calm_from_s:
            self._loop.call_soon(deliver, context=self._loop.outside)
            return
        weather = self._weather
        lost = self._random.random() < weather.lost or self.cut
        doubled = self._random.random() < weather.doubled
        after_s = self._way_s()
        if self._random.random() < weather.delayed:
            after_s += self._random.random()
        self._trace.append((now_s, self.name, "post", to, lost, doubled, after_s))
        for _ in range(0 if lost else 2 if doubled else 1):
            arrival_s = min(max(now_s + after_s, self._last_arrival_s.get(to, 0.0)), self.calm_from_s)
            self._last_arrival_s[to] = arrival_s
            self._loop.call_at(arrival_s, deliver, context=self._loop.outside)

    def _way_s(self) -> float:
        slow = 20.0 if self._loop.time() < self.slow_until_s else 1.0
        mean_s = self._weather.latency_s * slow
        return min(self._random.expovariate(1 / mean_s), 20 * mean_s) if mean_s else 0.0


def _at_once(effect: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing, as those of the stores in memory do."""
    try:
        effect.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a store in memory has waited")


def _tell(answer: "asyncio.Future[T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class _RemoteJournal:
    def __init__(self, journal: Journal, line: Line) -> None:
        self._journal = journal
        self._line = line

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, object]]:
        method: Callable[..., Coroutine[Any, Any, object]] = getattr(self._journal, name)

        def call(*args: object, **options: object) -> Coroutine[Any, Any, object]:
            return self._line.call(name, partial(method, *args, **options))

        return call


def remote_journal(journal: Journal, line: Line) -> Journal:
    """A journal at the other end of a line: all of its methods."""
    return cast(Journal, _RemoteJournal(journal, line))


class RemoteCluster:
    """A process's `Cluster` at the other end of a line."""

    def __init__(self, store: MemoryStore, clock: VirtualClock, line: Line, process: Process) -> None:
        self._cluster = MemoryCluster(store, clock)
        self._store = store
        self._line = line
        self._process = process
        self._missed: Callable[[], None] = lambda: None

    async def register(self, incarnation: int, ttl_ms: int) -> bool:
        """See `Cluster`."""
        return await self._line.call("register", lambda: self._cluster.register(incarnation, ttl_ms))

    async def renew(self, incarnation: int, ttl_ms: int) -> Standing:
        """See `Cluster`."""
        return await self._line.call("renew", lambda: self._cluster.renew(incarnation, ttl_ms))

    async def drain(self, incarnation: int, *, not_last: bool = False) -> bool:
        """See `Cluster`."""
        return await self._line.call("drain", lambda: self._cluster.drain(incarnation, not_last=not_last))

    async def leave(self, incarnation: int) -> None:
        """See `Cluster`."""
        await self._line.call("leave", lambda: self._cluster.leave(incarnation))

    async def members(self) -> list[Member]:
        """See `Cluster`."""
        return await self._line.call("members", self._cluster.members)

    async def condemn(self, incarnation: int) -> bool:
        """See `Cluster`."""
        return await self._line.call("condemn", lambda: self._cluster.condemn(incarnation))

    def record(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership, ttl_ms: int) -> None:
        """See `Cluster`."""
        if not self._line.cut:
            self._cluster.record(tenant_id, broadcast_id, owner, ttl_ms)

    def forget(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership) -> None:
        """See `Cluster`."""
        if not self._line.cut:
            self._cluster.forget(tenant_id, broadcast_id, owner)

    async def locate(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """See `Cluster`."""
        return await self._line.call("locate", lambda: self._cluster.locate(tenant_id, broadcast_id))

    def post(self, to: int, datagram: bytes) -> None:
        """See `Cluster`."""
        self._line.post(to, lambda: self._store.deliver(to, datagram))

    async def listen(self, incarnation: int, receive: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """See `Cluster`."""

        def arrive(datagram: bytes) -> None:
            if not self._line.cut:
                self._process.call(receive, datagram)

        self._missed = missed
        await self._cluster.listen(incarnation, arrive, missed)

    def back(self) -> None:
        """The store is in reach again: what was sent to the node meanwhile is lost."""
        self._process.call(self._missed)

    async def close(self) -> None:
        """See `Cluster`."""
        await self._cluster.close()
