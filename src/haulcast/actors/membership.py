"""This node's lease, and which other nodes there are.

1. A node has one lease, renewed in one step however many actors it has. It is reckoned from when the renewal was sent,
   on a clock that goes on while the process is suspended, so the node never believes longer than the others.
2. The lease keeps owners from flapping; it is not what keeps them from harm. Every write is fenced by the journal, so
   a node that is wrong about its lease is refused there.
3. While it is not known to be held, actors are parked (`hold`). If the store of leases cannot be reached, the journal
   is asked whether the others have given this node up: if not, it goes on for as long as a lease.
4. A lease that has run out but was not given up is taken again under the same incarnation. One that was given up is
   lost: `on_lost` drops the actors without writing, and the node joins anew under a higher incarnation.
5. A renewal is a task of the event loop: a loop that stands still for longer than the lease is as dead as a process
   that does. `LEASE_TTL_S` leaves room for five renewals, so a busy loop is not mistaken for a dead one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from math import inf

import structlog

from haulcast.errors import ClusterUnavailable, HaulcastError
from haulcast.ports import Clock, Cluster, Journal, Member, Ownership, Standing

from .bus import NodeBus

LEASE_TTL_S = 1.5
RENEW_EVERY_S = 0.3
MET_WITHIN_S = 0.6
"""How long a node that joins waits for the others to meet it: they look every 0.2 s (`failover.LOOK_EVERY_S`)."""
_MET_POLL_S = 0.01

log = structlog.get_logger()


class OwnershipLost(Exception):
    """The broadcast is another node's, or its state is not what was thought, or this node was given up."""


class Membership:
    """Who this node is, and whom it knows. `run` keeps the lease."""

    def __init__(
        self,
        cluster: Cluster,
        journal: Journal,
        clock: Clock,
        bus: NodeBus,
        *,
        on_rejoin: Callable[[], Awaitable[None]],
        on_joined: Callable[[], None],
        on_lost: Callable[[bool], None],
        on_drain: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._journal = journal
        self._clock = clock
        self._bus = bus
        self._on_rejoin = on_rejoin  # awaited before this node, which was given up, has a lease again
        self._on_drain = on_drain  # called when this node is first seen to be marked as about to leave
        self._on_joined = on_joined  # called each time this node has become a member again after it was given up
        self._on_lost = on_lost  # told whether the store of leases can be reached
        self._until_s = -inf
        self._extended = asyncio.Event()
        self.incarnation = 0
        self.lost = True
        """Given up by the others, and not joined anew yet."""
        self.claims_unsure = False
        """A claim has failed, and may have landed all the same."""
        self.leaving = False
        """This node is marked as about to leave."""
        self.heirs: frozenset[int] = frozenset()
        """Those of `peers` that are not about to leave."""

    @property
    def peers(self) -> frozenset[int]:
        """The live nodes but this one."""
        return self._bus.peers

    @property
    def held(self) -> bool:
        """Whether this node is known not to have been given up."""
        return self._clock.monotonic_s() < self._until_s

    @property
    def left_s(self) -> float:
        """For how long it is."""
        return max(0.0, self._until_s - self._clock.monotonic_s())

    @property
    def age_s(self) -> float:
        """How long ago the lease was renewed; its time to live if it is not held."""
        return LEASE_TTL_S - self.left_s

    @property
    def alive(self) -> frozenset[int]:
        """All live nodes, this one included."""
        return self.peers | {self.incarnation}

    def may_claim_from(self, owner: Ownership) -> bool:
        """Whether a broadcast may be taken over from its owner: this node itself, or one that is dead or leaves."""
        return owner.incarnation not in self.heirs

    async def hold(self, incarnation: int) -> None:
        """Wait until the lease is held. Raises `OwnershipLost` if `incarnation`, which this node was, is given up."""
        while not self.held or self.incarnation != incarnation:
            if self.lost or self.incarnation != incarnation:
                raise OwnershipLost(f"node {incarnation} was given up")
            self._extended.clear()
            await self._extended.wait()

    def see(self, members: Iterable[Member], *, joining: bool = False) -> None:
        """Note who is there. A node that is joining has had nothing to tell them yet."""
        members = list(members)
        others = [member for member in members if member.alive and member.incarnation != self.incarnation]
        peers = frozenset(member.incarnation for member in others)
        if joining:
            self._bus.peers = peers
        else:
            self._bus.meet(peers)
        self.heirs = frozenset(member.incarnation for member in others if not member.draining)
        if not self.leaving and any(one.draining and one.incarnation == self.incarnation for one in members):
            self.leaving = True
            self._on_drain()

    async def join(self) -> None:
        """Become a member under a new incarnation. One that was before has missed what was said meanwhile: it is met by
        the others and has caught up before it has a lease. Raises `StoreUnavailable`."""
        again = bool(self.incarnation)
        if again:  # it has a lease again if the store of leases had forgotten its tombstone
            await self._cluster.leave(self.incarnation)
        incarnation = await self._journal.next_incarnation()
        await self._bus.listen(incarnation)  # first: a member that nobody can reach would have to be given up
        sent_s = self._clock.monotonic_s()
        if not await self._cluster.register(incarnation, round(LEASE_TTL_S * 1000)):
            raise ClusterUnavailable(f"node {incarnation} was given up before it began")
        self.incarnation = incarnation
        self.see(await self._cluster.members(), joining=True)
        if again:
            await self.introduced()
            await self._on_rejoin()
            sent_s = self._clock.monotonic_s()
            if await self._cluster.renew(incarnation, round(LEASE_TTL_S * 1000)) is not Standing.HELD:
                raise ClusterUnavailable(f"node {incarnation} lost its lease before it began")
        self.lost = False
        self._extend(sent_s)

    async def introduced(self) -> None:
        """Wait until all others have met this node: from then on it is told what happens. Not for long: who is dead,
        but has a lease, never will."""
        with suppress(TimeoutError):
            async with asyncio.timeout(MET_WITHIN_S):
                while self._bus.strangers:
                    await asyncio.sleep(_MET_POLL_S)

    async def check(self) -> None:
        """Ask the journal whether this node was given up, although it has a lease: the store of leases may have
        forgotten its tombstone. Raises `JournalUnavailable`."""
        incarnation = self.incarnation
        if await self._journal.is_lost(incarnation) and not self.lost and self.incarnation == incarnation:
            self._give_up(reachable=True)

    async def leave(self) -> None:
        """Give the lease up."""
        self._until_s = -inf
        if self.lost:
            return
        try:
            await self._cluster.leave(self.incarnation)
        except ClusterUnavailable as error:
            log.warning("leave_failed", incarnation=self.incarnation, error=str(error))

    async def run(self) -> None:
        """Keep the lease until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await self._keep()
            except HaulcastError as error:
                log.warning("lease_not_renewed", incarnation=self.incarnation, left_s=self.left_s, error=str(error))

    async def _keep(self) -> None:
        if self.lost:
            await self.join()
            log.info("joined_anew", incarnation=self.incarnation)
            self._on_joined()
            return
        sent_s = self._clock.monotonic_s()
        try:
            standing = await self._cluster.renew(self.incarnation, round(LEASE_TTL_S * 1000))
            if standing is Standing.EXPIRED:
                standing = await self._register_again()
        except ClusterUnavailable:
            await self._keep_by_journal()
            return
        if standing is Standing.HELD:
            self._extend(sent_s)
        else:
            self._give_up(reachable=True)

    async def _register_again(self) -> Standing:
        """The lease has run out, or the store has forgotten it. The tombstone may be forgotten as well: the journal
        knows."""
        if await self._journal.is_lost(self.incarnation):
            return Standing.LOST
        log.warning("lease_expired", incarnation=self.incarnation)
        taken = await self._cluster.register(self.incarnation, round(LEASE_TTL_S * 1000))
        return Standing.HELD if taken else Standing.LOST

    async def _keep_by_journal(self) -> None:
        asked_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(RENEW_EVERY_S):  # not longer: the store may be back, and the lease runs
                lost = await self._journal.is_lost(self.incarnation)
        except TimeoutError:
            return
        if lost:
            self._give_up(reachable=False)
        else:
            self._extend(asked_s)

    def _extend(self, since_s: float) -> None:
        self._until_s = since_s + LEASE_TTL_S
        self._extended.set()

    def _give_up(self, *, reachable: bool) -> None:
        log.error("node_was_given_up", incarnation=self.incarnation, cluster_reachable=reachable)
        self._until_s = -inf
        self.lost = True
        self._extended.set()
        self._on_lost(reachable)
