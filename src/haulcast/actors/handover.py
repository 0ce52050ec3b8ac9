"""A planned stop: every broadcast goes to another node before this one goes.

1. The node says that it is about to leave. It claims nothing any more, and new broadcasts are created elsewhere.
2. It asks others to adopt its broadcasts, some at a time, split among them by rendezvous hashing. Those are frozen: the
   message that is being handled is finished, the next has to wait. Adopting is claiming: from that moment on this
   node's writes are fenced, so there is no state in which both or none can decide.
3. What is adopted leaves here; whatever waits or still comes is carried after it. What is not goes on here, and is
   offered again.
4. What nobody adopts in time stays in the journal, and falls to the others once this node has left.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from itertools import count

import structlog

from haulcast.domain.rendezvous import heir
from haulcast.errors import ClusterUnavailable, StoreUnavailable
from haulcast.ports import Claim, Cluster, Journal, Kind, Ownership
from haulcast.tasks import TaskSet

from . import envelopes
from .bus import NodeBus
from .failover import LOOK_EVERY_S
from .membership import Membership
from .metrics import ActorMetrics
from .placement import Placement
from .registry import Registry

AT_ONCE = 16
"""To one heir. A broadcast is out of reach while those asked for with it are claimed and loaded."""
_ANSWER_WITHIN_S = 1.0
_ROUND_PAUSE_S = 0.05

log = structlog.get_logger()


class Handover:
    """Hands broadcasts over, and adopts those of others."""

    def __init__(
        self,
        registry: Registry,
        placement: Placement,
        membership: Membership,
        cluster: Cluster,
        journal: Journal,
        bus: NodeBus,
        metrics: ActorMetrics,
    ) -> None:
        self._registry = registry
        self._placement = placement
        self._membership = membership
        self._cluster = cluster
        self._journal = journal
        self._bus = bus
        self._metrics = metrics
        self._tasks = TaskSet()
        self._announced = False
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Sequence[Claim]]] = {}
        bus.handle(Kind.ADOPT, self._on_adopt)
        bus.handle(Kind.ADOPTED, self._on_adopted)

    async def run(self, timeout_s: float) -> None:
        """Give away every live broadcast, within `timeout_s`. At once if there is nobody to take them."""
        self._placement.leaving = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._announce()
                while self._membership.heirs and (owned := self._registry.owned()):
                    await self._give(owned)
                    await asyncio.sleep(_ROUND_PAUSE_S)
                    self._membership.see(await self._cluster.members())
        except ClusterUnavailable as error:
            log.warning("handover_impossible", error=str(error))
        except TimeoutError:
            log.warning("handover_timed_out", left=len(self._registry.owned()))

    async def close(self) -> None:
        """End what is under way, and let the others know that this is no death."""
        await self._tasks.close()
        if not self._announced and self._membership.held:
            try:
                await self._announce()
            except ClusterUnavailable as error:
                log.warning("departure_not_announced", error=str(error))

    async def _announce(self) -> None:
        """Say that this node is about to leave, and wait until all have seen it. Raises `ClusterUnavailable`."""
        await self._cluster.drain(self._membership.incarnation)
        self._announced = True
        self._membership.see(await self._cluster.members())
        if self._membership.heirs:
            await asyncio.sleep(2 * LOOK_EVERY_S)

    async def _give(self, owned: Sequence[Claim]) -> None:
        """Offer each to its heir, to all heirs side by side."""
        shares: defaultdict[int, list[Claim]] = defaultdict(list)
        for claim in owned:
            shares[heir(claim.broadcast_id, self._membership.heirs)].append(claim)
        await asyncio.gather(*(self._give_to(to, share) for to, share in shares.items()))

    async def _give_to(self, to: int, claims: Sequence[Claim]) -> None:
        for start in range(0, len(claims), AT_ONCE):
            asked = list(claims[start : start + AT_ONCE])
            self._registry.freeze(asked)
            adopted = None
            try:
                adopted = await self._request(to, asked)
            finally:
                if adopted is None:
                    self._registry.thaw(asked)
            if adopted is None:
                return
            for claim in adopted:
                self._placement.remember(claim.tenant_id, claim.broadcast_id, Ownership(claim.epoch, to))
            self._registry.leave(asked)  # what was not adopted had been claimed by somebody else before
            self._metrics.handed_over.inc(len(adopted))

    async def _request(self, to: int, claims: list[Claim]) -> Sequence[Claim] | None:
        """What was adopted; None if there is no answer."""
        number = next(self._numbers)
        future: asyncio.Future[Sequence[Claim]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._bus.send(to, Kind.ADOPT, envelopes.encode(envelopes.Adopt(number, claims)))
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                return await future
        except TimeoutError:
            log.warning("adoption_not_answered", heir=to, broadcasts=len(claims))
            return None
        finally:
            del self._asked[number]

    def _on_adopted(self, sender: int, payload: bytes) -> None:
        adopted = envelopes.decode_adopted(payload)
        future = self._asked.get(adopted.number)
        if future is not None and not future.done():
            future.set_result(adopted.claims)

    def _on_adopt(self, sender: int, payload: bytes) -> None:
        self._tasks.start(self._adopt(sender, envelopes.decode_adopt(payload)), "adopt")

    async def _adopt(self, sender: int, adopt: envelopes.Adopt) -> None:
        if not self._membership.held or self._placement.leaving:
            return  # whoever asked will ask again, or another
        try:
            claimed = await self._journal.claim(adopt.claims, self._membership.incarnation)
        except StoreUnavailable as error:
            self._membership.claims_unsure = True
            log.warning("adoption_failed", sender=sender, error=str(error))
            return
        for stored in claimed:
            self._registry.adopt(stored)
        claims = [Claim(one.state.tenant_id, one.state.broadcast_id, one.epoch) for one in claimed]
        self._bus.send(sender, Kind.ADOPTED, envelopes.encode(envelopes.Adopted(adopt.number, claims)))
