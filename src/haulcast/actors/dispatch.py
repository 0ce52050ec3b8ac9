"""A node's actors as one thing: started from the journal, drained into it, or handed over."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

from haulcast.ports import Clock, Cluster, ControlListener, Journal, Presence, Publisher
from haulcast.tasks import TaskSet, running

from .broadcast_actor import ActorContext
from .bus import NodeBus
from .committer import Committer
from .control import Control
from .failover import Failover
from .handover import Handover
from .live_index import LiveIndex
from .membership import Membership
from .metrics import ActorMetrics
from .placement import Placement
from .registry import Registry
from .roster import Roster
from .tenants import Tenants
from .timers import Deadlines


class Dispatch:
    """Wires the actor runtime. `dispatcher` and `availability` are what transport asks.

    `on_missed` is called when clients of this node may not have been told something that other nodes had to say;
    `on_given_up` when the others have given this node up while it cannot reach them; `on_drain` when an admin wants it
    to stop. `listener` is told what operators change.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        cluster: Cluster,
        bus: NodeBus,
        presence: Presence,
        publisher: Publisher,
        clock: Clock,
        metrics: ActorMetrics,
        tenants: Tenants,
        on_missed: Callable[[], None],
        on_given_up: Callable[[], None],
        listener: ControlListener,
        on_drain: Callable[[], None],
        idle_s: float = 5.0,
    ) -> None:
        self._journal = journal
        self._presence = presence
        self._on_given_up = on_given_up
        self._committer = Committer(journal, clock, metrics)
        self._tasks = TaskSet()
        self._running = AsyncExitStack()
        self.deadlines = Deadlines(clock, lambda late_ms: metrics.timer_lateness_s.observe(late_ms / 1000))
        self.membership = Membership(
            cluster,
            journal,
            clock,
            bus,
            on_rejoin=lambda: self.controller.catch_up(),
            on_joined=on_missed,
            on_lost=self._lost,
            on_drain=on_drain,
        )
        self.live_index = LiveIndex()
        self.availability = Roster(
            presence,
            self.live_index,
            tenants.control_of,
            lambda tenant_id, broadcast_id, command: self.registry.appear(tenant_id, broadcast_id, command),
            bus,
            self._tasks,
        )
        context = ActorContext(
            clock=clock,
            committer=self._committer,
            presence=presence,
            publisher=publisher,
            live_index=self.live_index,
            cluster=cluster,
            on_trip=self.availability.trip_changed,
            replace=lambda tenant_id, message, former: self.dispatcher.replace(tenant_id, message, former),
            tasks=self._tasks,
            metrics=metrics,
        )
        self.registry = Registry(
            context,
            journal,
            self.membership,
            tenants.control_of,
            self.deadlines,
            lambda cell, message: self.dispatcher.reroute(cell, message),
            idle_s,
        )
        self.dispatcher = Placement(self.registry, self.membership, cluster, journal, bus, clock, metrics)
        self._handover = Handover(self.registry, self.dispatcher, self.membership, cluster, journal, bus, metrics)
        self._failover = Failover(
            self.membership, cluster, journal, self.registry, self.dispatcher, bus, clock, metrics, on_missed
        )
        self.controller = Control(
            journal,
            tenants,
            self.membership,
            cluster,
            bus,
            clock,
            self.registry.configure,
            listener,
            metrics,
        )
        bus.on_missed(on_missed)

    async def start(self) -> Self:
        """Join the other nodes and take over what nobody owns; deadlines that have passed ring at once. Raises
        `StoreUnavailable`."""
        await self._presence.sync_engaged(await self._journal.engaged_vehicles())
        self._committer.start()
        await self.membership.join()
        await self._running.enter_async_context(running(self.membership.run(), "membership"))
        await self._failover.recover()
        await self._running.enter_async_context(running(self._failover.run(), "failover"))
        await self._running.enter_async_context(running(self.controller.run(), "control"))
        return self

    async def finish(self, timeout_s: float) -> None:
        """Hand over what others can take, take no more commands, finish and make durable what was taken; within three
        times `timeout_s`."""
        await self._handover.run(timeout_s)
        await self.registry.finish(timeout_s)
        await self._committer.finish(timeout_s)

    async def close(self) -> None:
        """Stop. Live broadcasts stay in the journal as they are; whoever still waits is told that nothing is known."""
        await self._running.aclose()
        await self.controller.close()
        await self.registry.close()
        await self.dispatcher.close()
        await self._handover.close()
        await self._tasks.close()
        await self._committer.close()
        await self.membership.leave()

    def _lost(self, reachable: bool) -> None:
        self.registry.abandon()
        if not reachable:
            self._on_given_up()
