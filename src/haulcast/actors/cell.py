"""The supervisor of one actor: it starts the actor from the journal, feeds it, and starts it anew when it dies.

1. The mailbox outlives the actor: whatever waits is handled by the next one.
2. An exception discards the actor with all that it held in memory. The journal knows what is true, so the message
   that was being handled is simply handled again; if it had become durable, the journal recognises it.
3. A message that has killed three actors is quarantined: logged, counted, answered INTERNAL, and not tried again.
4. An actor without a broadcast leaves at once; one whose broadcast has ended leaves after `idle_s` without a message.
5. A broadcast that another owner has claimed meanwhile is left to that owner: its actor is not started again here.
6. When the cell ends, whoever still waits is told that the outcome is not known; nobody waits for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from haulcast.domain.commands import Tick
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.errors import ErrorCode, JournalUnavailable
from haulcast.ports import Clock, Stored

from .broadcast_actor import BroadcastActor, OwnershipLost
from .mailbox import Mailbox
from .messages import Message
from .metrics import ActorMetrics
from .timers import Deadlines

MAX_KILLS = 3
_FIRST_BACKOFF_S = 0.01
_MAX_BACKOFF_S = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal is known to have of a broadcast, so that its first actor need not ask."""

    stored: Stored | None


StartActor = Callable[["Cell", Known | None], Awaitable[BroadcastActor]]
"""Builds the actor of a cell, from what is known or else from the journal. Raises `OwnershipLost` if the broadcast has
another owner since the cell's last actor."""


class Cell:
    """One broadcast's place on this node. It is an `Alarm` of the deadline heap."""

    def __init__(
        self,
        tenant_id: TenantId,
        broadcast_id: BroadcastId,
        start: StartActor,
        known: Known | None,
        clock: Clock,
        deadlines: Deadlines,
        metrics: ActorMetrics,
        idle_s: float,
    ) -> None:
        self.tenant_id = tenant_id
        self.broadcast_id = broadcast_id
        self.mailbox: Mailbox[Message] = Mailbox()
        self.armed_at_ms: int | None = None
        self.busy = False  # a message is being handled
        self.owned_epoch: int | None = None  # under which the last actor owned the broadcast, if that is known
        self._start = start
        self._known = known
        self._clock = clock
        self._deadlines = deadlines
        self._metrics = metrics
        self._idle_ms = round(idle_s * 1000)
        self._tick_waits = False  # there is at most one Tick in the mailbox
        self._crashes = 0  # in a row, without a message handled in between

    def ring(self) -> None:
        """The deadline has come."""
        if not self._tick_waits:
            self._tick_waits = self.mailbox.offer_control(Message(Tick()))

    async def run(self) -> None:
        """Supervise until the actor has nothing more to do. Cancelling it ends the actor between two awaits."""
        try:
            while not await self._live_once():
                await asyncio.sleep(min(_FIRST_BACKOFF_S * 2 ** min(self._crashes, 10), _MAX_BACKOFF_S))
        finally:
            self._deadlines.arm(self, None)
            self._fail_waiting(ErrorCode.UNAVAILABLE)

    async def _live_once(self) -> bool:
        """The life of one actor. Whether it ended in peace."""
        try:
            actor = await self._start(self, self._known)
        except OwnershipLost:
            log.warning("ownership_lost", tenant=self.tenant_id, broadcast=self.broadcast_id)
            return True
        except Exception as error:
            self._crashed("actor_start_failed", error)
            if self._crashes >= MAX_KILLS and not isinstance(error, JournalUnavailable):
                self._fail_waiting(ErrorCode.INTERNAL)
            return False
        self._known = None
        self.owned_epoch = actor.epoch
        try:
            return await self._feed(actor)
        finally:
            actor.discard()

    async def _feed(self, actor: BroadcastActor) -> bool:
        """Hand the actor one message after another. True when it may leave, False when it died."""
        while True:
            if actor.state is None and not self.mailbox:
                return True
            self._arm(actor)
            message = await self.mailbox.get()
            self._metrics.mailbox_depth.observe(len(self.mailbox))
            if isinstance(message.command, Tick):
                self._tick_waits = False
                if actor.state is not None and not actor.state.live and not self.mailbox:
                    return True
            self.busy = True
            try:
                await actor.handle(message)
            except asyncio.CancelledError:
                message.fail(ErrorCode.UNAVAILABLE)
                raise
            except Exception as error:
                self._crashed("actor_died", error)
                self._strike(message)
                return False
            finally:
                self.busy = False
            self._crashes = 0

    def _arm(self, actor: BroadcastActor) -> None:
        """Have the state's next deadline rung; a broadcast that has ended is given its idle time."""
        if actor.state is not None and not actor.state.live:
            self._deadlines.arm(self, self._clock.now_ms() + self._idle_ms)
        else:
            self._deadlines.arm(self, actor.next_deadline_ms())

    def _crashed(self, event: str, error: Exception) -> None:
        self._crashes += 1
        self._metrics.actor_restarts.inc()
        log.error(event, tenant=self.tenant_id, broadcast=self.broadcast_id, in_a_row=self._crashes, exc_info=error)

    def _strike(self, message: Message) -> None:
        """Try the message again, unless it has done enough harm."""
        message.kills += 1
        if message.kills < MAX_KILLS:
            self.mailbox.give_back(message)
            return
        self._metrics.quarantined.inc()
        log.error(
            "message_quarantined",
            tenant=self.tenant_id,
            broadcast=self.broadcast_id,
            command=type(message.command).__name__,
            request=None if message.origin is None else message.origin.key.request_id,
        )
        message.fail(ErrorCode.INTERNAL)

    def _fail_waiting(self, code: ErrorCode) -> None:
        for message in self.mailbox.drain():
            message.fail(code)
        self._tick_waits = False
