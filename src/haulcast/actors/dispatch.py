"""A node's actors as one thing: started from the journal, drained into it."""

from typing import Self

from haulcast.ports import Clock, Journal, Presence, Publisher
from haulcast.tasks import TaskSet

from .broadcast_actor import ActorContext
from .committer import Committer
from .live_index import LiveIndex
from .metrics import ActorMetrics
from .registry import Registry
from .roster import Roster
from .tenants import Tenants
from .timers import Deadlines


class Dispatch:
    """Wires the actor runtime. `dispatcher` and `availability` are what transport asks."""

    def __init__(
        self,
        *,
        journal: Journal,
        presence: Presence,
        publisher: Publisher,
        clock: Clock,
        metrics: ActorMetrics,
        tenants: Tenants,
        incarnation: int,
        idle_s: float = 5.0,
    ) -> None:
        self._journal = journal
        self._presence = presence
        self._committer = Committer(journal, clock, metrics)
        self._tasks = TaskSet()
        self.deadlines = Deadlines(clock, lambda late_ms: metrics.timer_lateness_s.observe(late_ms / 1000))
        live_index = LiveIndex()
        self.availability = Roster(
            clock,
            presence,
            live_index,
            tenants.settings_of,
            lambda tenant_id, broadcast_id, command: self.dispatcher.appear(tenant_id, broadcast_id, command),
            self._tasks,
        )
        context = ActorContext(
            clock=clock,
            committer=self._committer,
            presence=presence,
            publisher=publisher,
            live_index=live_index,
            on_trip=self.availability.trip_changed,
            tasks=self._tasks,
            metrics=metrics,
            incarnation=incarnation,
        )
        self.dispatcher = Registry(context, journal, tenants.settings_of, self.deadlines, idle_s)

    async def start(self) -> Self:
        """Take over every live broadcast; deadlines that have passed ring at once."""
        for tenant_id, vehicle_id in await self._journal.engaged_vehicles():
            self._presence.engage(tenant_id, vehicle_id)
        self._committer.start()
        await self.dispatcher.recover()
        return self

    async def finish(self, timeout_s: float) -> None:
        """Take no more commands; finish and make durable what was taken, within twice `timeout_s`."""
        await self.dispatcher.finish(timeout_s)
        await self._committer.finish(timeout_s)

    async def close(self) -> None:
        """Stop. Live broadcasts stay in the journal as they are; whoever still waits is told that nothing is known."""
        await self.dispatcher.close()
        await self._tasks.close()
        await self._committer.close()
