"""Accepts that wait for a decision, and broadcasts that take another one's place, held against the events.

1. Whoever waits comes to an end: with a truck, by losing, by declining, or with the broadcast; nobody waits at rest.
2. Whoever waited and has not won is told so by what is published of it, and whoever has won is shown the trip.
3. A truck that goes to somebody who waited goes to one of them, with the vehicle and driver that they named, not before
   the time that they were told; where the first who accepts wins, to the first.
4. A broadcast that was replaced has a successor of the same customer, unless dispatch was paused in between: then the
   customer was told that.
"""

from collections.abc import Iterable, Mapping, Sequence

from haulcast.domain.broadcast import Broadcast, WaitingAccept
from haulcast.domain.commands import Accept, Create
from haulcast.domain.control import TenantControl
from haulcast.domain.effects import Effect, LoseAccepts, ShowTrip, TripNews
from haulcast.domain.events import AcceptWaiting, Cancelled, Created, Declined, Event, TruckAssigned
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import BroadcastId, CustomerId
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.states import EndReason
from haulcast.ports import Write
from tests.sim.chronicle import Landing
from tests.sim.evidence import Evidence, Violations

_FIRST_COME = ("progressive", "blast")

Histories = Mapping[BroadcastId, tuple[Broadcast, Sequence[Event]]]


def check_accepts(evidence: Evidence, histories: Histories) -> Violations:
    """What is wrong about accepts that waited and broadcasts that were replaced."""
    told = {
        (one.change.after.broadcast_id, one.change.after.seq): one.change.effects for one in evidence.world.published
    }
    states: dict[BroadcastId, Broadcast] = {}
    for entry in evidence.journal.book:
        if isinstance(entry, Landing) and entry.write.state is not None and entry.decided is not None:
            write = entry.write
            before = states.get(write.broadcast_id)
            lost: list[WaitingAccept] = []
            for event in write.events:
                if before is not None:
                    yield from _match(write, before, event, entry.decided.control)
                    lost += _losers(before, evolve(before, event), event)
                before = evolve(before, event)
            assert before is not None
            states[write.broadcast_id] = before
            effects = told.get((write.broadcast_id, before.seq))
            if effects is not None:
                yield from _told(write, lost, effects)
    for broadcast_id, (state, _) in histories.items():
        if state.waiting or state.decide_at_ms is not None:
            yield f"{broadcast_id}: {state.waiting} still wait for {state.decide_at_ms}"
    yield from _promises(evidence)
    yield from _replaced(evidence)


def _told(write: Write, lost: Sequence[WaitingAccept], effects: Sequence[Effect]) -> Violations:
    losers = {accept for effect in effects if isinstance(effect, LoseAccepts) for accept in effect.accepts}
    if not losers >= {*lost}:
        yield f"{write.broadcast_id}: nobody told {lost} that they have lost"
    if write.assigned is not None and ShowTrip(write.assigned, TripNews.TRIP_ASSIGNED) not in effects:
        yield f"{write.broadcast_id}: nobody told of {write.assigned}"


def _losers(before: Broadcast, after: Broadcast, event: Event) -> Iterable[WaitingAccept]:
    """Who does not wait any more after an event, has not won, and has not taken it back."""
    gone = [accept for accept in before.waiting if accept not in after.waiting]
    match event:
        case TruckAssigned(trip=trip):
            return [accept for accept in gone if accept.vehicle_id != trip.vehicle_id]
        case Declined():
            return [accept for accept in gone if accept.transporter_id != event.transporter_id]
    return gone


def _match(write: Write, before: Broadcast, event: Event, control: TenantControl) -> Violations:
    """What is wrong about who got a truck, or about until when somebody waits."""
    window_ms = round(control.settings.mode.accept_window_s(control.settings.accept_window_s) * 1000)
    if isinstance(event, AcceptWaiting):
        decide_at_ms = before.decide_at_ms or event.decide_at_ms
        if event.decide_at_ms != decide_at_ms or (not before.waiting and decide_at_ms > event.at_ms + window_ms):
            yield f"{write.broadcast_id}: {event} is not decided at {decide_at_ms}, or later than {window_ms} ms"
    if not isinstance(event, TruckAssigned):
        return
    if not before.waiting:
        if window_ms:
            yield f"{write.broadcast_id}: {event.trip.transporter_id} won at once, and should have waited"
        return
    trip, name = event.trip, write.broadcast_id
    rivals = [accept for accept in before.waiting if accept.vehicle_type == trip.vehicle_type]
    said = (trip.transporter_id, trip.vehicle_id, trip.driver_id)
    if said not in [(accept.transporter_id, accept.vehicle_id, accept.driver_id) for accept in rivals]:
        yield f"{name}: {said} won although others waited, and they did not"
    elif before.decide_at_ms is None or event.at_ms < before.decide_at_ms:
        yield f"{name}: decided at {event.at_ms}, and {before.decide_at_ms} was said"
    elif control.settings.dispatch_mode in _FIRST_COME and trip.vehicle_id != rivals[0].vehicle_id:
        yield f"{name}: {said} won before {rivals[0]}, who was first"


def _promises(evidence: Evidence) -> Violations:
    """Where an accept was said to wait, it is in force until when."""
    for write in evidence.landed:
        if write.logged is None or not isinstance(write.logged.reply, Done):
            continue
        request = evidence.requests.get(write.logged.origin.key)
        if request is None or not isinstance(request.command, Accept):
            continue
        data = write.logged.reply.data
        if data["status"] == "pending" and write.state is not None and data["decided_at"] != write.state.decide_at_ms:
            yield f"{write.broadcast_id}: said to be decided at {data['decided_at']}, not {write.state.decide_at_ms}"


def _replaced(evidence: Evidence) -> Violations:
    bereft: dict[CustomerId, list[Broadcast]] = {}  # what was replaced, and by nothing yet
    for write in evidence.landed:
        if (state := write.state) is None:
            continue
        if isinstance(write.events[0], Created):
            bereft.pop(state.customer_id, None)
        if any(isinstance(event, Cancelled) and event.reason is EndReason.REPLACED for event in write.events):
            bereft.setdefault(state.customer_id, []).append(state)
    for customer_id, replaced in bereft.items():
        told_at_ms = [
            at_ms
            for request in evidence.requests.values()
            if isinstance(request.command, Create) and request.command.customer_id == customer_id
            for at_ms, reply in request.replies
            if isinstance(reply, Refused) and reply.code is Refusal.TENANT_PAUSED
        ]
        for state in replaced:
            assert state.ended_at_ms is not None
            if not any(at_ms >= state.ended_at_ms for at_ms in told_at_ms):
                yield f"{state.broadcast_id} was replaced by nothing"
