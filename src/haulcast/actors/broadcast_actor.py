"""The actor that owns one broadcast.

1. It alone holds the broadcast's state; every other part sees what it publishes.
2. It handles one message at a time, from decision to durability: while a checkpoint is under way, the next message
   waits. What it decides on is therefore always durable state, and a race inside a broadcast cannot be written.
3. The output gate: state, reply, offers and news come after the checkpoint has landed, and not at all if it has not.
   A refusal changes no state, so its logging does not hold up the next message; only its own reply waits for it. It is
   fenced as well: whoever is no longer the owner must not refuse on the strength of an old state.
4. A request that was answered before is recognised by the journal in the same write, whatever the actor remembers.
5. Any exception ends the actor; its supervisor starts another one from the journal.
6. What is in force for the tenant changes between two messages, and each decision is given all of it as it is then.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex

import structlog

from haulcast.domain import effects as fx
from haulcast.domain.broadcast import Broadcast, Trip
from haulcast.domain.commands import Create, DropAccept, Match, SendWave, Tick
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.decision import Decision
from haulcast.domain.events import Created, Event, TruckAssigned
from haulcast.domain.evolve import evolve
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TenantId, VehicleId
from haulcast.domain.replies import Done, Refusal, Refused, Reply
from haulcast.domain.settings import ActiveBroadcastPolicy
from haulcast.domain.waves import MAX_LEFT_OUT, farther, radius_m, wave_due_at
from haulcast.errors import ErrorCode
from haulcast.ports import (
    Change,
    Clock,
    Cluster,
    Conflict,
    Duplicate,
    Fence,
    Fenced,
    LoggedReply,
    Origin,
    Outcome,
    Ownership,
    Presence,
    Publisher,
    Stored,
    Write,
)
from haulcast.tasks import TaskSet

from .committer import Committer
from .live_index import LiveIndex
from .membership import OwnershipLost
from .messages import Message
from .metrics import ActorMetrics

FIRST_EPOCH = 1
_SEEK_RETRY_MS = 1_000
_MEASURE_S = 1.0
"""How long accepts that are to be decided wait for the positions of their vehicles."""
_LOOKUPS_AT_ONCE = 32
_DIRECTORY_SPARE_MS = 60_000
"""How much longer than its broadcast an entry of the directory may live."""

_PROCESS = token_hex(8)
_writes = count(1)
"""Together they name a write for good, for a tenth of what a UUID costs."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActorContext:
    """What all broadcast actors of a node share."""

    clock: Clock
    committer: Committer
    presence: Presence
    publisher: Publisher
    live_index: LiveIndex
    cluster: Cluster
    on_trip: Callable[[TenantId, Trip], None]
    """Called after a trip has begun or changed, durably."""
    replace: Callable[[TenantId, Message, BroadcastId], None]
    """Sees to a `Create` that is to take the place of its customer's other broadcast, and answers it."""
    tasks: TaskSet
    metrics: ActorMetrics
    lookups: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LOOKUPS_AT_ONCE))
    """Held during a lookup of candidates: those of ten thousand broadcasts at once, all timing out, would all be tried
    again at once, for ever."""


class BroadcastActor:
    """One broadcast, owned by `incarnation` under `epoch`. `state` is None before it is created and when there is no
    such broadcast."""

    __slots__ = (
        "_broadcast_id",
        "_context",
        "_control",
        "_fenced",
        "_measuring",
        "_post",
        "_seek_not_before_ms",
        "_seeking",
        "_tenant_id",
        "epoch",
        "incarnation",
        "state",
    )

    def __init__(
        self,
        context: ActorContext,
        tenant_id: TenantId,
        broadcast_id: BroadcastId,
        control: TenantControl,
        incarnation: int,
        stored: Stored | None,
        post: Callable[[Message], bool],
    ) -> None:
        self._context = context
        self._tenant_id = tenant_id
        self._broadcast_id = broadcast_id
        self._control = control
        self.incarnation = incarnation
        self.epoch = FIRST_EPOCH if stored is None else stored.epoch
        self._fenced = False  # the journal has refused a refusal: somebody else owns the broadcast
        self._post = post  # into the own mailbox, with the system's privilege
        self._seeking = False  # a lookup of candidates is under way
        self._seek_not_before_ms = 0
        self._measuring = False  # a lookup of positions is under way, or the `Match` that follows it
        self.state = None if stored is None else stored.state
        if self.state is not None:
            self._index(None, self.state)
            self._record(None, self.state)

    def next_deadline_ms(self) -> int | None:
        """When the state next wants a `Tick`; None if never."""
        if self.state is None or not self.state.live:
            return None
        deadlines = [self.state.expires_at_ms]
        if self.state.reminder_at_ms is not None:
            deadlines.append(self.state.reminder_at_ms)
        if self.state.decide_at_ms is not None and not self._measuring:
            deadlines.append(self.state.decide_at_ms)
        wave_due_at_ms = wave_due_at(self.state, self._control, self._context.clock.now_ms())
        if wave_due_at_ms is not None and not self._seeking:
            deadlines.append(max(wave_due_at_ms, self._seek_not_before_ms))
        return min(deadlines)

    def configure(self, control: TenantControl) -> None:
        """From the next message on `control` is in force, unless it is no newer than what is. A `Tick` has to follow: a
        wave may be due by now."""
        if control.version <= self._control.version:
            return
        self._control = control
        if self.state is not None and self.state.live:
            self._index(None, self.state)

    def discard(self) -> None:
        """Forget the broadcast here; what is durable stays."""
        if self.state is not None:
            self._context.live_index.forget(self.state)
            self._context.cluster.forget(self._tenant_id, self._broadcast_id, self._ownership)

    async def handle(self, message: Message) -> None:
        """Decide one message and see it through. Raises `OwnershipLost`, or whatever was wrong in deciding."""
        if self._fenced:
            raise OwnershipLost(f"{self._broadcast_id} at epoch {self.epoch}")
        if isinstance(message.command, Match):
            self._measuring = False
        now_ms, control = self._context.clock.now_ms(), self._control
        decision = decide(self.state, message.command, control, now_ms)
        if decision.events:
            await self._checkpoint(message, decision, control, now_ms)
        else:
            self._carry_out(decision.effects)
            self._reply(message, decision.reply, now_ms)

    async def _checkpoint(self, message: Message, decision: Decision, control: TenantControl, now_ms: int) -> None:
        before = after = self.state
        for event in decision.events:
            after = evolve(after, event)
        assert after is not None
        write = self._write(
            now_ms,
            _logged(message.origin, decision.reply),
            fence=Fence(self.epoch, self.incarnation, 0 if before is None else before.seq),
            state=after,
            events=decision.events,
        )
        with self._context.metrics.gate_wait_s.time():
            outcome = await self._context.committer.submit(write)
        match outcome:
            case Duplicate():
                self._answer(message, _repeated(message.origin, outcome))
            case Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, data) if (
                isinstance(message.command, Create)
                and control.settings.active_broadcast_policy is ActiveBroadcastPolicy.REPLACE
            ):
                self._context.replace(self._tenant_id, message, BroadcastId(str(data["broadcast_id"])))
            case Conflict(code) if isinstance(message.command, Match):
                assert write.assigned is not None
                dropped = DropAccept(write.assigned.vehicle_id, code, message.command.positions)
                await self.handle(Message(dropped))
            case Conflict(code, data):
                self._reply(message, Refused(code, data), now_ms)
            case Fenced():
                raise OwnershipLost(f"{self._broadcast_id} at epoch {self.epoch}, seq {after.seq}")
            case _:
                self.state = after
                self._count(before, after, decision.events)
                self._index(before, after)
                self._record(before, after)
                self._context.publisher.publish(Change(self.epoch, before, after, decision.effects))
                self._carry_out(decision.effects)
                if decision.reply is not None:
                    self._answer(message, decision.reply)

    def _reply(self, message: Message, reply: Reply | None, now_ms: int) -> None:
        """Answer without a change of state: as soon as the answer is logged, or at once if nobody sent a request."""
        if reply is None or message.origin is None:
            return
        # What does not exist has no owner, and is refused by whoever is asked.
        fence = None if self.state is None else Fence(self.epoch, self.incarnation, self.state.seq)
        logging = self._context.committer.submit(self._write(now_ms, _logged(message.origin, reply), fence))

        def logged(future: "asyncio.Future[Outcome]") -> None:
            if future.cancelled():
                message.fail(ErrorCode.UNAVAILABLE)
                return
            if (error := future.exception()) is not None:
                log.error("reply_not_logged", broadcast=self._broadcast_id, exc_info=error)
                message.fail(ErrorCode.INTERNAL)
                return
            outcome = future.result()
            if isinstance(outcome, Fenced):
                self._fenced = True
                if not self._post(message):
                    message.fail(ErrorCode.BUSY)
                return
            self._answer(message, _repeated(message.origin, outcome) if isinstance(outcome, Duplicate) else reply)

        logging.add_done_callback(logged)

    def _answer(self, message: Message, reply: Reply) -> None:
        outcome = "ok" if isinstance(reply, Done) else reply.code.value
        self._context.metrics.decisions.labels(type(message.command).__name__, outcome).inc()
        message.answer(reply)

    def _count(self, before: Broadcast | None, after: Broadcast, events: tuple[Event, ...]) -> None:
        """Count what the business asks for, once it is durable."""
        metrics = self._context.metrics
        for event in events:
            if isinstance(event, Created):
                metrics.trucks_requested.inc(len(event.vehicle_types))
            elif isinstance(event, TruckAssigned):
                metrics.trucks_assigned.inc()
        if before is not None and before.live and not after.live:
            metrics.broadcasts_ended.labels(after.end_reason).inc()

    def _carry_out(self, effects: tuple[fx.Effect, ...]) -> None:
        """What is left to the actor itself; the rest of the effects are the publisher's."""
        for effect in effects:
            if isinstance(effect, fx.SeekCandidates):
                self._seek(effect)
            elif isinstance(effect, fx.MeasureAccepts):
                self._measure(effect)
            elif isinstance(effect, fx.MatchOn):
                self._measuring = self._post(Message(Match(effect.positions)))
            elif isinstance(effect, fx.ShowTrip):
                self._context.on_trip(self._tenant_id, effect.trip)
            elif isinstance(effect, fx.OpenOffers):
                self._context.metrics.wave_fan_out.observe(len(effect.offers))

    def _index(self, before: Broadcast | None, after: Broadcast) -> None:
        next_m = radius_m(self._control.settings, after.wave + 1)
        reach_m = next_m if farther(next_m, after.reached_m) else after.reached_m
        self._context.live_index.note(before, after, reach_m)

    @property
    def _ownership(self) -> Ownership:
        return Ownership(self.epoch, self.incarnation)

    def _record(self, before: Broadcast | None, after: Broadcast) -> None:
        """Have the other nodes find the broadcast here while it is live; of one that has ended the journal tells them.
        Should the entry be left behind, it goes by itself."""
        if after.live and before is None:
            left_ms = max(0, after.expires_at_ms - self._context.clock.now_ms()) + _DIRECTORY_SPARE_MS
            self._context.cluster.record(self._tenant_id, self._broadcast_id, self._ownership, left_ms)
        elif not after.live and (before is None or before.live):
            self._context.cluster.forget(self._tenant_id, self._broadcast_id, self._ownership)

    def _seek(self, effect: fx.SeekCandidates) -> None:
        if not self._seeking and self._context.clock.now_ms() >= self._seek_not_before_ms:
            self._seeking = True
            self._context.tasks.start(self._look_up(effect), "lookup")

    async def _look_up(self, effect: fx.SeekCandidates) -> None:
        """Find candidates outside the mailbox's turn, so that accepts do not wait for it."""
        state = self.state
        assert state is not None
        try:
            async with self._context.lookups:
                nearby = await self._context.presence.nearest(
                    self._tenant_id,
                    state.pickup.point,
                    vehicle_types=effect.vehicle_types,
                    radius_m=effect.radius_m,
                    exclude=state.offers,
                    limit=effect.limit,
                    left_out_limit=MAX_LEFT_OUT,
                )
        except Exception as error:
            self._context.metrics.lookup_failures.inc()
            log.warning("lookup_failed", tenant=self._tenant_id, broadcast=self._broadcast_id, error=repr(error))
            self._seek_not_before_ms = self._context.clock.now_ms() + _SEEK_RETRY_MS
            message = Message(Tick())
        else:
            message = Message(
                SendWave(effect.wave, effect.radius_m, effect.limit, nearby.candidates, nearby.more, nearby.left_out)
            )
        self._seeking = False
        self._post(message)

    def _measure(self, effect: fx.MeasureAccepts) -> None:
        if not self._measuring:
            self._measuring = True
            self._context.tasks.start(self._look_where(effect), "measure")

    async def _look_where(self, effect: fx.MeasureAccepts) -> None:
        """Find out where vehicles are. The accepts are decided in any case: waiting for longer would cost them the
        truck."""
        state = self.state
        assert state is not None
        left_s = max(0.0, (state.expires_at_ms - self._context.clock.now_ms()) / 1000)
        positions: Mapping[VehicleId, Point] = {}
        try:
            async with asyncio.timeout(min(_MEASURE_S, left_s / 2)):
                positions = await self._context.presence.positions(self._tenant_id, effect.vehicle_ids)
        except Exception as error:
            log.warning("measure_failed", tenant=self._tenant_id, broadcast=self._broadcast_id, error=repr(error))
        self._measuring = self._post(Message(Match(positions)))

    def _write(
        self,
        now_ms: int,
        logged: LoggedReply | None,
        fence: Fence | None = None,
        state: Broadcast | None = None,
        events: tuple[Event, ...] = (),
    ) -> Write:
        return Write(
            write_id=f"{_PROCESS}-{next(_writes)}",
            at_ms=now_ms,
            tenant_id=self._tenant_id,
            broadcast_id=self._broadcast_id,
            logged=logged,
            fence=fence,
            state=state,
            events=events,
        )


def _logged(origin: Origin | None, reply: Reply | None) -> LoggedReply | None:
    return None if origin is None or reply is None else LoggedReply(origin, reply)


def _repeated(origin: Origin | None, duplicate: Duplicate) -> Reply:
    """The answer given before, unless the id was used for something else then."""
    if origin is not None and origin.fingerprint != duplicate.fingerprint:
        return Refused(Refusal.ID_REUSED)
    return duplicate.reply
