"""What can go wrong around an actor and in it. Each injector says where it is unrealistic."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from unittest.mock import patch

from haulcast.actors import broadcast_actor
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Command
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.decision import Decision
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TenantId, TransporterId, VehicleId
from haulcast.errors import ClusterUnavailable, JournalUnavailable
from haulcast.ports import (
    Claim,
    Duplicate,
    Landed,
    Member,
    Nearby,
    Outcome,
    Ownership,
    RequestKey,
    Standing,
    Stored,
    Write,
)
from haulcast.storage.memory.cluster import MemoryCluster
from haulcast.storage.memory.journal import MemoryJournal
from haulcast.storage.memory.presence import MemoryPresence
from tests.sim.virtual_time import VirtualClock


class FaultyJournal(MemoryJournal):
    """The journal in memory, made to fail on purpose.

    Unrealistic in this: a fault hits a whole commit, before its first write or after its last; reads fail only where
    a test asks for it; a slow commit is as slow for one write as for many, and lands in one instant in its middle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Write]] = []  # every attempt to commit
        self.landed: list[Write] = []  # what is durable, in the order in which it became so
        self.reported_seq: dict[BroadcastId, int] = {}  # the newest state of which a commit's answer has told
        self.reported_replies: set[RequestKey] = set()  # replies of which a commit's answer has told
        self.failing: float = 0  # so many of the next commits write nothing and raise
        self.losing: float = 0  # so many of the next commits write everything and raise
        self.claims_losing: float = 0  # so many of the next claims take the broadcast and raise
        self.takeovers_losing = 0  # so many of the next claims of orphans take some and raise
        self.claims_take_s = 0.0  # what it takes to claim some orphans
        self.claims_failing: float = 0  # so many of the next claims take nothing and raise `claim_error`
        self.claim_error: Exception = JournalUnavailable("out of reach")
        self.silent = False  # `is_lost` raises
        self.before_s = 0.0  # what a commit takes until it lands
        self.after_s = 0.0  # and from then until it is reported
        self._poisonous: Callable[[Write], bool] = lambda _write: False
        self._landed_ids: set[str] = set()

    @contextmanager
    def unavailable(self, times: float = inf) -> Iterator[None]:
        """The next `times` commits write nothing and raise `JournalUnavailable`."""
        self.failing = times
        try:
            yield
        finally:
            self.failing = 0

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Nobody is told who was given up. Unrealistic in that everything else can be asked and written."""
        self.silent = True
        try:
            yield
        finally:
            self.silent = False

    @contextmanager
    def failing_once(self, call: str) -> Iterator[None]:
        """The next call of that name does nothing and raises `JournalUnavailable`."""
        real = getattr(self, call)
        calls = 0

        async def once(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise JournalUnavailable("out of reach")
            return await real(*args, **kwargs)

        with patch.object(self, call, once):
            yield
        assert calls, f"nobody called {call}"

    async def is_lost(self, incarnation: int) -> bool:
        """See `Journal`."""
        if self.silent:
            raise JournalUnavailable("out of reach")
        return await super().is_lost(incarnation)

    @contextmanager
    def losing_answers(self, times: float) -> Iterator[None]:
        """The next `times` commits are durable, but their callers get `JournalUnavailable`."""
        self.losing = times
        try:
            yield
        finally:
            self.losing = 0

    @contextmanager
    def slow(self, before_s: float = 0.0, after_s: float = 0.0) -> Iterator[None]:
        """Commits take `before_s` until they land and `after_s` more until they return."""
        self.before_s, self.after_s = before_s, after_s
        try:
            yield
        finally:
            self.before_s = self.after_s = 0.0

    @contextmanager
    def poisoned(self, poisonous: Callable[[Write], bool]) -> Iterator[None]:
        """A commit with such a write in it writes nothing and raises something that is nobody's fault but its own."""
        self._poisonous = poisonous
        try:
            yield
        finally:
            self._poisonous = lambda _write: False

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `Journal`."""
        self.batches.append(list(writes))
        if self.before_s:
            await asyncio.sleep(self.before_s)
        if self.failing:
            self.failing -= 1
            raise JournalUnavailable("out of reach")
        if any(self._poisonous(write) for write in writes):
            raise RuntimeError("a write that the journal chokes on")
        outcomes = await super().commit(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Landed) and write.write_id not in self._landed_ids:
                self._landed_ids.add(write.write_id)
                self.landed.append(write)
        if self.after_s:
            await asyncio.sleep(self.after_s)
        if self.losing:
            self.losing -= 1
            raise JournalUnavailable("the answer was lost")
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Landed) and write.state is not None:
                seq = max(write.state.seq, self.reported_seq.get(write.broadcast_id, 0))
                self.reported_seq[write.broadcast_id] = seq
            if isinstance(outcome, Landed | Duplicate) and write.logged is not None:
                self.reported_replies.add(write.logged.origin.key)
        return outcomes

    async def claim_orphans(
        self,
        incarnation: int,
        alive: Collection[int],
        limit: int,
        *,
        share: bool = False,
        overdue_before_ms: int | None = None,
    ) -> list[Stored]:
        """See `Journal`."""
        if self.claims_take_s:
            await asyncio.sleep(self.claims_take_s)
        claimed = await super().claim_orphans(
            incarnation, alive, limit, share=share, overdue_before_ms=overdue_before_ms
        )
        if claimed and self.takeovers_losing:
            self.takeovers_losing -= 1
            raise JournalUnavailable("the answer was lost")
        return claimed

    async def claim(self, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
        """See `Journal`."""
        if self.claims_failing:
            self.claims_failing -= 1
            raise self.claim_error
        claimed = await super().claim(claims, incarnation)
        if self.claims_losing:
            self.claims_losing -= 1
            raise JournalUnavailable("the answer was lost")
        return claimed


class FlakyCluster(MemoryCluster):
    """A node's cluster. `dead`: the node's process is gone, and does not even leave; `cut`: the store cannot be
    reached by this node alone."""

    dead = False
    cut = False
    calls = 0
    """How often it was asked or told anything but datagrams."""

    async def leave(self, incarnation: int) -> None:
        """See `Cluster`."""
        if not self.dead:
            self._reach()
            await super().leave(incarnation)

    async def register(self, incarnation: int, ttl_ms: int) -> bool:
        """See `Cluster`."""
        self._reach()
        return await super().register(incarnation, ttl_ms)

    async def renew(self, incarnation: int, ttl_ms: int) -> Standing:
        """See `Cluster`."""
        self._reach()
        return await super().renew(incarnation, ttl_ms)

    async def members(self) -> list[Member]:
        """See `Cluster`."""
        if self.dead:
            return []
        self._reach()
        return await super().members()

    async def condemn(self, incarnation: int) -> bool:
        """See `Cluster`."""
        self._reach()
        return await super().condemn(incarnation)

    async def drain(self, incarnation: int, *, not_last: bool = False) -> bool:
        """See `Cluster`."""
        if self.dead:
            return False
        self._reach()
        return await super().drain(incarnation, not_last=not_last)

    async def locate(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """See `Cluster`."""
        self._reach()
        return await super().locate(tenant_id, broadcast_id)

    def record(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership, ttl_ms: int) -> None:
        """See `Cluster`."""
        if not (self.cut or self.dead):
            super().record(tenant_id, broadcast_id, owner, ttl_ms)

    def forget(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership) -> None:
        """See `Cluster`."""
        if not (self.cut or self.dead):
            super().forget(tenant_id, broadcast_id, owner)

    def post(self, to: int, datagram: bytes) -> None:
        """See `Cluster`."""
        if not (self.cut or self.dead):
            super().post(to, datagram)

    def _reach(self) -> None:
        self.calls += 1
        if self.cut or self.dead:
            raise ClusterUnavailable("cut off")


class FlakyPresence(MemoryPresence):
    """Presence whose positions never grow old, and whose lookups can be made to fail or to take long."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock, vehicle_ttl_s=inf, transporter_ttl_s=inf)
        self.failing = 0  # so many of the next lookups raise
        self.lookup_s = 0.0

    def engaged(self, tenant_id: TenantId) -> set[VehicleId]:
        """The vehicles that are taken to be on a trip."""
        tenant = self._tenants.get(tenant_id)
        return set() if tenant is None else set(tenant.engaged)

    async def nearest(
        self,
        tenant_id: TenantId,
        center: Point,
        *,
        vehicle_types: Collection[str],
        radius_m: float | None,
        exclude: Collection[TransporterId],
        limit: int,
        left_out_limit: int,
    ) -> Nearby:
        """See `Presence`."""
        await self._reach()
        return await super().nearest(
            tenant_id,
            center,
            vehicle_types=vehicle_types,
            radius_m=radius_m,
            exclude=exclude,
            limit=limit,
            left_out_limit=left_out_limit,
        )

    async def positions(self, tenant_id: TenantId, vehicle_ids: Collection[VehicleId]) -> dict[VehicleId, Point]:
        """See `Presence`."""
        await self._reach()
        return await super().positions(tenant_id, vehicle_ids)

    async def _reach(self) -> None:
        if self.lookup_s:
            await asyncio.sleep(self.lookup_s)
        if self.failing:
            self.failing -= 1
            raise ConnectionError("presence is out of reach")


@contextmanager
def bug(strikes: Callable[[Command], bool], times: float = inf) -> Iterator[list[Command]]:
    """Deciding such a command raises, the next `times` times; yields those that did.

    Unrealistic in that it raises before anything is decided, and in every actor of the process.
    """
    struck: list[Command] = []

    def broken(state: Broadcast | None, command: Command, control: TenantControl, now_ms: int) -> Decision:
        if strikes(command) and len(struck) < times:
            struck.append(command)
            raise ZeroDivisionError("a bug")
        return decide(state, command, control, now_ms)

    with patch.object(broadcast_actor, "decide", broken):
        yield struck


@contextmanager
def decided() -> Iterator[list[Command]]:
    """Every command that an actor comes to decide, in order."""
    seen: list[Command] = []

    def see(command: Command) -> bool:
        seen.append(command)
        return False

    with bug(see):
        yield seen
