"""What the living do for the dead.

1. Each node looks at the members a few times a second. One whose lease has run out is condemned: a tombstone keeps it
   from coming back under that incarnation, and the journal notes it for good. Until then it counts as living: it is
   asked, told and not robbed.
2. One that is no member any more has left, or was condemned by another, or the store was emptied. The journal tells
   the second; otherwise it is given the time of a lease to register again. One that had said it would leave has left.
   After the store was out of reach nobody is condemned for the time of a lease: the others could not renew either.
3. The broadcasts of the dead are split among the living by rendezvous hashing, and each claims its share, those due
   soonest first. The claim is the fence: whoever was thought dead and is not cannot write any more.
4. A slow sweep claims what all of this has missed, and what is overdue although its owner seems to live. A claim that
   failed may have landed all the same: then what the journal says is this node's, and has no actor, is claimed again.
5. Clients of this node may have missed what the dead had no time to say, or could not say: one that is only cut off
   goes on until it learns that it was given up, or its broadcasts are claimed. So when all of these are others', and
   nothing more can be added to them, `on_death` has every view read again, and of what they said before and is still on
   its way no notice is taken any more.
6. What is to be done for a dead node is remembered until all of it is done; a store that fails meanwhile delays it.
7. A node that is not sure of its own lease does nothing of this.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from math import inf

import structlog

from haulcast.errors import HaulcastError, JournalFault
from haulcast.ports import Clock, Cluster, Journal, Member

from .bus import NodeBus
from .membership import LEASE_TTL_S, Membership
from .metrics import ActorMetrics
from .placement import Placement
from .registry import Registry

LOOK_EVERY_S = 0.2
SWEEP_EVERY_S = 5.0
OVERDUE_MS = 10_000
CLAIMED_AT_ONCE = 200
SETTLED_WITHIN_S = 5.0
"""How long is waited at most until all that a dead node owned is others'."""
_TIP_EVERY_S = 1.0

log = structlog.get_logger()


class Failover:
    """Watches the other nodes and inherits from them."""

    def __init__(
        self,
        membership: Membership,
        cluster: Cluster,
        journal: Journal,
        registry: Registry,
        placement: Placement,
        bus: NodeBus,
        clock: Clock,
        metrics: ActorMetrics,
        on_death: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._cluster = cluster
        self._journal = journal
        self._registry = registry
        self._placement = placement
        self._bus = bus
        self._clock = clock
        self._metrics = metrics
        self._on_death = on_death
        self._missing_since_s: dict[int, float] = {}  # peers that are not members any more
        self._leaving: set[int] = set()  # those that said so
        self._bequests: dict[int, bool] = {}  # given up, and not inherited from yet; whether by death
        self._settled_by_s: dict[int, float] = {}  # when those count as inherited from in any case
        self._condemn_not_before_s = -inf

    async def recover(self) -> None:
        """Claim this node's share of what nobody who lives owns. Raises `StoreUnavailable`."""
        await self._claim(share=True)

    async def run(self) -> None:
        """Watch until cancelled."""
        next_tip_s = next_sweep_s = self._clock.monotonic_s()
        next_sweep_s += SWEEP_EVERY_S
        failing = False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._clock.monotonic_s()
            try:
                await self._look(now_s)
                if now_s >= next_tip_s:
                    next_tip_s = now_s + _TIP_EVERY_S
                    self._bus.tip()
                if now_s >= next_sweep_s:
                    next_sweep_s = now_s + SWEEP_EVERY_S
                    await self._sweep()
            except HaulcastError as error:
                self._condemn_not_before_s = now_s + LEASE_TTL_S
                if not failing:  # not again: a store that comes and goes must not keep the sweep from its turn for ever
                    log.warning("look_failed", error=str(error))
                    # Whatever is overdue now is so because nobody could write: its owners shall have the first try.
                    next_sweep_s = now_s + SWEEP_EVERY_S + OVERDUE_MS / 1000
                failing = True
            else:
                failing = False

    async def _look(self, now_s: float) -> None:
        if not self._membership.held:
            return
        before = self._membership.peers
        members = await self._cluster.members()
        self._leaving.update(member.incarnation for member in members if member.draining)
        suspects = self._suspects(members, before, now_s)
        self._see(members)
        for one in suspects:
            left = one in self._leaving and one in self._missing_since_s
            if await self._is_lost(one, now_s):
                self._bequests[one] = not left
        self._see(members)
        if self._membership.peers != before:
            self._placement.peers_changed()
        if self._bequests:
            await self._inherit(now_s)
        if self._membership.claims_unsure:
            await self._find_own()

    def _see(self, members: Iterable[Member]) -> None:
        """All count as living that are not given up; those that have vanished without a word as well. They own what
        they own: had the store forgotten everybody, each would rob each otherwise."""
        vanished = (Member(one, alive=True, draining=False) for one in self._missing_since_s.keys() - self._leaving)
        self._membership.see(
            replace(member, alive=True) for member in (*members, *vanished) if member.incarnation not in self._bequests
        )

    async def _inherit(self, now_s: float) -> None:
        """Do for those that were given up what is to be done."""
        lost = dict(self._bequests)
        for one in lost:
            await self._journal.mark_lost(one)
        await self._claim(share=True)
        if not self._membership.held:
            return
        self._leaving.difference_update(lost)
        settled = [one for one in lost if await self._is_settled(one, now_s)]
        for one in settled:
            del self._bequests[one], self._settled_by_s[one]
        if dead := sorted(one for one in settled if lost[one]):
            log.warning("nodes_lost", incarnations=dead, alive=sorted(self._membership.alive))
            self._metrics.nodes_lost.inc(len(dead))
            for one in dead:
                self._bus.silence(one)
            self._on_death()

    async def _is_settled(self, incarnation: int, now_s: float) -> bool:
        """Whether all that it owned is others', who claim their shares as this node does."""
        by_s = self._settled_by_s.setdefault(incarnation, now_s + SETTLED_WITHIN_S)
        return now_s >= by_s or not await self._journal.list_owned(incarnation)

    def _suspects(self, members: Collection[Member], before: Collection[int], now_s: float) -> list[int]:
        """Those without a lease, and those that were there and are not members any more."""
        present = {member.incarnation for member in members}
        for peer in before:
            if peer not in present:
                self._missing_since_s.setdefault(peer, now_s)
        for peer in self._missing_since_s.keys() & present:
            del self._missing_since_s[peer]
        lapsed = [
            member.incarnation
            for member in members
            if not member.alive and member.incarnation != self._membership.incarnation
        ]
        return lapsed + list(self._missing_since_s)

    async def _is_lost(self, incarnation: int, now_s: float) -> bool:
        """Whether a suspect is given up now."""
        since_s = self._missing_since_s.get(incarnation)
        if since_s is not None and now_s - since_s < LEASE_TTL_S:
            lost = await self._journal.is_lost(incarnation)
        elif now_s < self._condemn_not_before_s:
            lost = False
        else:
            lost = await self._cluster.condemn(incarnation)
        if lost:
            self._missing_since_s.pop(incarnation, None)
        return lost

    async def _find_own(self) -> None:
        """Go on with what this node owns without knowing it."""
        incarnation = self._membership.incarnation
        owned = await self._journal.list_owned(incarnation)
        forgotten = [one for one in owned if (one.tenant_id, one.broadcast_id) not in self._registry]
        for start in range(0, len(forgotten), CLAIMED_AT_ONCE):
            try:
                claimed = await self._journal.claim(forgotten[start : start + CLAIMED_AT_ONCE], incarnation)
            except JournalFault as error:  # it is answered INTERNAL when somebody asks for it
                log.error("broadcast_not_recovered", error=str(error))
                continue
            for stored in claimed:
                self._registry.adopt(stored)
        self._membership.claims_unsure = False

    async def _claim(self, *, share: bool, overdue_before_ms: int | None = None) -> None:
        """Claim and go on with orphans until there are none."""
        while self._membership.held and not self._placement.leaving:
            try:
                claimed = await self._journal.claim_orphans(
                    self._membership.incarnation,
                    self._membership.alive,
                    CLAIMED_AT_ONCE,
                    share=share,
                    overdue_before_ms=overdue_before_ms,
                )
            except HaulcastError:
                self._membership.claims_unsure = True
                raise
            for stored in claimed:
                self._registry.adopt(stored)
            if claimed:
                self._metrics.taken_over.inc(len(claimed))
                log.info("taken_over", broadcasts=len(claimed), share=share)
            if len(claimed) < CLAIMED_AT_ONCE:
                return

    async def _sweep(self) -> None:
        await self._membership.check()
        if self._membership.held:
            await self._claim(share=False, overdue_before_ms=self._clock.now_ms() - OVERDUE_MS)
