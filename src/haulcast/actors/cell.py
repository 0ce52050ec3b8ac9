"""The supervisor of one actor: it starts the actor from the journal, feeds it, and starts it anew when it dies.

1. The mailbox outlives the actor: whatever waits is handled by the next one.
2. An exception discards the actor with all that it held in memory. The journal knows what is true, so the message
   that was being handled is simply handled again; if it had become durable, the journal recognises it.
3. A message that has killed three actors is quarantined: logged, counted, answered INTERNAL, and not tried again.
4. An actor without a broadcast leaves at once; one whose broadcast has ended leaves after `idle_s` without a message.
5. What is in force for the tenant changes for an actor between two messages (`configure`). The newest counts.
6. Before each turn the node's lease has to be held; while that is not known, the actor is parked.
7. A broadcast that has another owner is left to that owner, be it that the journal says so, that the node was given
   up or that the broadcast was handed over (`leave`): what waits in the mailbox is sent after it.
8. When the cell ends otherwise, whoever still waits is told that the outcome is not known; nobody waits for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from haulcast.domain.commands import Tick
from haulcast.domain.control import TenantControl
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.errors import ErrorCode, JournalUnavailable
from haulcast.ports import Clock, Stored

from .broadcast_actor import BroadcastActor
from .mailbox import Mailbox
from .membership import Membership, OwnershipLost
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
"""Builds the actor of a cell, from what is known or else from the journal. Raises `OwnershipLost` if the broadcast is
another node's."""
Reroute = Callable[["Cell", Message], None]
"""Sends a client's command to where the broadcast is now."""


class Cell:
    """One broadcast's place on this node. It is an `Alarm` of the deadline heap."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_configured",
        "_control",
        "_crashes",
        "_deadlines",
        "_ended",
        "_frozen",
        "_idle_ms",
        "_known",
        "_leaving",
        "_membership",
        "_metrics",
        "_on_end",
        "_reroute",
        "_start",
        "_tick_waits",
        "actor",
        "armed_at_ms",
        "broadcast_id",
        "busy",
        "mailbox",
        "tenant_id",
    )

    def __init__(
        self,
        tenant_id: TenantId,
        broadcast_id: BroadcastId,
        start: StartActor,
        reroute: Reroute,
        on_end: "Callable[[Cell], None]",
        known: Known | None,
        membership: Membership,
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
        self.actor: BroadcastActor | None = None
        self._start = start
        self._reroute = reroute
        self._on_end = on_end
        self._known = known
        self._membership = membership
        self._leaving = False
        self._frozen: asyncio.Event | None = None  # set by `thaw` or `leave`, if there is one
        self._ended = False
        self._clock = clock
        self._deadlines = deadlines
        self._metrics = metrics
        self._idle_ms = round(idle_s * 1000)
        self._tick_waits = False  # there is at most one Tick in the mailbox
        self._control: TenantControl | None = None  # what the actor is to be told before its next message
        self._configured: list[Callable[[], None]] = []  # who waits for that
        self._crashes = 0  # in a row, without a message handled in between

    def ring(self) -> None:
        """The deadline has come."""
        if not self._tick_waits:
            self._tick_waits = self.mailbox.offer_control(Message(Tick()))

    def post(self, message: Message) -> bool:
        """Take a message of the actor's own, or one that it must not answer any more: should the cell have ended by
        then, that one is sent after the broadcast. False if there is no room."""
        if not self._ended:
            return self.mailbox.offer_control(message)
        self._reroute(self, message)
        return True

    def configure(self, control: TenantControl, configured: Callable[[], None]) -> None:
        """Have the actor know `control` before it is handed another message, and then call `configured`."""
        if self._ended:
            configured()
            return
        self._control = control
        self._configured.append(configured)
        self.ring()  # if there is no room for that, there is something to wake up for anyway

    def freeze(self) -> None:
        """Another node is asked to take the broadcast: begin no further message until `thaw` or `leave`."""
        self._frozen = self._frozen or asyncio.Event()

    def thaw(self) -> None:
        """It did not: go on."""
        if self._frozen is not None:
            self._frozen.set()
            self._frozen = None

    def leave(self) -> None:
        """Another node has the broadcast: end after the message that is being handled."""
        self._leaving = True
        self.thaw()
        self.mailbox.offer_control(Message(Tick()))  # if it is full, there is something to wake up for anyway

    async def run(self) -> None:
        """Supervise until the actor has nothing more to do. Cancelling it ends the actor between two awaits."""
        try:
            while not await self._live_once():
                await asyncio.sleep(min(_FIRST_BACKOFF_S * 2 ** min(self._crashes, 10), _MAX_BACKOFF_S))
            if self._leaving:
                for message in self.mailbox.drain():
                    self._reroute(self, message)
        finally:
            self._ended = True
            self._tell_configured()
            self._deadlines.arm(self, None)
            self._fail_waiting(ErrorCode.UNAVAILABLE)
            self._on_end(self)

    async def _live_once(self) -> bool:
        """The life of one actor. Whether the cell has nothing more to do."""
        if self._leaving:
            return True
        try:
            actor = await self._start(self, self._known)
        except OwnershipLost as error:
            log.info("ownership_lost", tenant=self.tenant_id, broadcast=self.broadcast_id, reason=str(error))
            self._leaving = True
            return True
        except Exception as error:
            self._crashed("actor_start_failed", error)
            if self._crashes >= MAX_KILLS and not isinstance(error, JournalUnavailable):
                self._fail_waiting(ErrorCode.INTERNAL)
            self._tell_configured()  # there is no actor that has not; the next one begins with what is in force then
            return False
        self._known = None
        self.actor = actor
        try:
            return await self._feed(actor)
        finally:
            self.actor = None
            actor.discard()

    async def _feed(self, actor: BroadcastActor) -> bool:
        """Hand the actor one message after another. True when it may leave, False when it died."""
        while True:
            if actor.state is None and not self.mailbox:
                return True
            self._arm(actor)
            message = await self.mailbox.get()
            if self._frozen is not None:
                self.mailbox.give_back(message)
                await self._frozen.wait()
                continue
            if self._leaving:
                self.mailbox.give_back(message)
                return True
            if self._control is not None:
                actor.configure(self._control)
                self._tell_configured()
            self._metrics.mailbox_depth.observe(len(self.mailbox))
            if isinstance(message.command, Tick):
                self._tick_waits = False
                if actor.state is not None and not actor.state.live and not self.mailbox:
                    return True
            if not await self._handle(actor, message):
                return False

    async def _handle(self, actor: BroadcastActor, message: Message) -> bool:
        """One turn. Whether the actor has survived it."""
        self.busy = True
        try:
            if not self._membership.held or self._membership.incarnation != actor.incarnation:
                await self._membership.hold(actor.incarnation)
            await actor.handle(message)
        except asyncio.CancelledError:
            message.fail(ErrorCode.UNAVAILABLE)
            raise
        except OwnershipLost as error:
            self._crashes += 1
            log.info("fenced", tenant=self.tenant_id, broadcast=self.broadcast_id, reason=str(error))
            self.mailbox.give_back(message)  # it is not to blame
            return False
        except Exception as error:
            self._crashed("actor_died", error)
            self._strike(message)
            return False
        finally:
            self.busy = False
        self._crashes = 0
        return True

    def _tell_configured(self) -> None:
        self._control = None
        waiting, self._configured = self._configured, []
        for configured in waiting:
            configured()

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
