"""The `Cluster` of nodes that share one process: a server on its own, or several on virtual time.

1. `MemoryStore` is what the nodes share; each has a `MemoryCluster` of its own, with the clock that all of them share.
   Whatever is asked is answered within the call: nothing here waits.
2. A lease is a moment, and holds before it. A node stays a member when its lease runs out; being condemned ends that.
3. A tombstone is for ever: a number for each node that was given up in this process.
4. Whoever listens is looked up when a datagram is delivered, in a later turn of the loop: those still on their way to
   a node that has gone, or listens as somebody else by then, are lost.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.ports import Clock, Member, Ownership, Standing

_SWEEP_ABOVE = 10_000
"""With so many entries in the directory, or twice as many as the last time, those that ran out are dropped."""


@dataclass(slots=True, eq=False)
class _Lease:
    """A member's. It may have run out."""

    until_s: float
    draining: bool = False


@dataclass(slots=True)
class MemoryStore:
    """What the nodes of one process share. `members`, `tombstones` and `listeners` are by incarnation."""

    members: dict[int, _Lease] = field(default_factory=dict)
    tombstones: set[int] = field(default_factory=set)  # none of a member
    directory: dict[tuple[TenantId, BroadcastId], tuple[Ownership, float]] = field(default_factory=dict)
    """The owner, and until when (in `monotonic_s`) that is noted."""
    listeners: dict[int, Callable[[bytes], None]] = field(default_factory=dict)
    sweep_above: int = _SWEEP_ABOVE

    def deliver(self, to: int, datagram: bytes) -> None:
        """Hand a datagram to whoever listens for that node now, if anybody does."""
        receive = self.listeners.get(to)
        if receive is not None:
            receive(datagram)


class MemoryCluster:
    """One node's `Cluster`."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._listening: int | None = None  # the incarnation whose listener in the store is this node's

    async def register(self, incarnation: int, ttl_ms: int) -> bool:
        """See `Cluster`. A member that registers again keeps draining."""
        if incarnation in self._store.tombstones:
            return False
        self._store.members.setdefault(incarnation, _Lease(0.0)).until_s = self._until_s(ttl_ms)
        return True

    async def renew(self, incarnation: int, ttl_ms: int) -> Standing:
        """See `Cluster`."""
        if incarnation in self._store.tombstones:
            return Standing.LOST
        if not self._alive(incarnation):
            return Standing.EXPIRED
        self._store.members[incarnation].until_s = self._until_s(ttl_ms)
        return Standing.HELD

    async def drain(self, incarnation: int, *, not_last: bool = False) -> bool:
        """See `Cluster`."""
        lease = self._store.members.get(incarnation)
        others = [one for one in self._store.members if one != incarnation and self._alive(one)]
        if lease is not None and (not not_last or any(not self._store.members[other].draining for other in others)):
            lease.draining = True
        return lease is not None and lease.draining

    async def leave(self, incarnation: int) -> None:
        """See `Cluster`."""
        self._store.members.pop(incarnation, None)

    async def members(self) -> list[Member]:
        """See `Cluster`."""
        return [
            Member(incarnation, alive=self._alive(incarnation), draining=lease.draining)
            for incarnation, lease in sorted(self._store.members.items(), key=lambda item: item[0])
        ]

    async def condemn(self, incarnation: int) -> bool:
        """See `Cluster`."""
        if self._alive(incarnation):
            return False
        self._store.members.pop(incarnation, None)
        self._store.tombstones.add(incarnation)
        return True

    def record(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership, ttl_ms: int) -> None:
        """See `Cluster`. At once; the same owner again prolongs the time."""
        noted = self._noted(tenant_id, broadcast_id)
        if noted is None or noted.epoch < owner.epoch or noted == owner:
            self._store.directory[tenant_id, broadcast_id] = (owner, self._until_s(ttl_ms))
            if len(self._store.directory) > self._store.sweep_above:
                self._sweep()

    def forget(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership) -> None:
        """See `Cluster`. At once."""
        noted = self._noted(tenant_id, broadcast_id)
        if noted is not None and noted.epoch <= owner.epoch:
            del self._store.directory[tenant_id, broadcast_id]

    async def locate(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """See `Cluster`."""
        return self._noted(tenant_id, broadcast_id)

    def post(self, to: int, datagram: bytes) -> None:
        """See `Cluster`. Delivered when the loop comes round next."""
        asyncio.get_running_loop().call_soon(self._store.deliver, to, datagram)

    async def listen(self, incarnation: int, receive: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """See `Cluster`. Nothing is ever lost on the way here, so `missed` is never called."""
        await self.close()
        self._listening = incarnation
        self._store.listeners[incarnation] = receive

    async def close(self) -> None:
        """See `Cluster`. Also what becomes of a node that dies: its lease is left to run out."""
        if self._listening is not None:
            self._store.listeners.pop(self._listening, None)
            self._listening = None

    def _until_s(self, ttl_ms: int) -> float:
        return self._clock.monotonic_s() + ttl_ms / 1000

    def _alive(self, incarnation: int) -> bool:
        lease = self._store.members.get(incarnation)
        return lease is not None and lease.until_s > self._clock.monotonic_s()

    def _noted(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        owner, until_s = self._store.directory.get((tenant_id, broadcast_id), (None, 0.0))
        return owner if until_s > self._clock.monotonic_s() else None

    def _sweep(self) -> None:
        now_s = self._clock.monotonic_s()
        self._store.directory = {key: entry for key, entry in self._store.directory.items() if entry[1] > now_s}
        self._store.sweep_above = max(_SWEEP_ABOVE, 2 * len(self._store.directory))
