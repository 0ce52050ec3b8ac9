"""Who gets a truck.

1. Where the mode in force takes the first who accepts, an accept wins at once. Otherwise it waits: it is answered with
   the time at which it will be decided, and that is durable.
2. The first accept that waits sets that time for all of them, whatever truck they want; it is never later than 2 s
   before the expiry. While one waits all others do too, also if the mode is another one by then.
3. When the time has come the vehicles are measured, and the mode in force chooses among those who want the same truck.
   A decision assigns one truck; the next one follows at once, until nobody waits.
4. Whoever does not win is told why: the last truck of the type went to others, the broadcast is over, or the journal
   refused the assignment, which then goes to the next.
"""

from collections.abc import Mapping
from functools import reduce

from . import commands as c
from . import effects as fx
from . import events as e
from .broadcast import Broadcast, Trip, TruckRequest, WaitingAccept
from .control import TenantControl
from .decision import Decision, ending, holding, over, taken, waited
from .evolve import evolve
from .geo import Point, distance_m
from .ids import VehicleId, assignment_id, trip_id
from .modes import Contender
from .replies import Done, Refusal, Refused, Reply
from .states import BroadcastStatus, TripStatus
from .views import trip_view

MAX_WAITING = 250
"""Accepts of one broadcast: they are written with every checkpoint of its state."""
MAX_WAITING_EACH = 10
"""Of one transporter, so that nobody keeps the others out."""
SPARE_MS = 2_000
"""How long before the expiry accepts are decided at the latest."""


def accept(state: Broadcast, command: c.Accept, control: TenantControl, now_ms: int) -> Decision:
    """Have a transporter win a truck, or wait for it."""
    if command.transporter_id not in state.offers:
        return Decision(reply=Refused(Refusal.NOT_OFFERED))
    if state.status is BroadcastStatus.FULLY_FILLED:
        return Decision(reply=taken(state))
    if not state.live:
        return Decision(reply=over(state))
    if command.vehicle_type is None:
        return Decision(reply=Refused(Refusal.VEHICLE_NOT_OWNED))
    if all(request.vehicle_type != command.vehicle_type for request in state.requests):
        return Decision(reply=Refused(Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": command.vehicle_type}))
    request = next((r for r in state.open_requests if r.vehicle_type == command.vehicle_type), None)
    if request is None:
        return Decision(reply=taken(state))
    wanting = WaitingAccept(command.transporter_id, command.vehicle_id, command.vehicle_type, command.driver_id, now_ms)
    window_s = control.settings.mode.accept_window_s(control.settings.accept_window_s)
    if window_s > 0 or state.waiting:
        return _wait(state, wanting, window_s, now_ms)
    return _assign(state, request, wanting, now_ms)


def match(state: Broadcast, command: c.Match, control: TenantControl, now_ms: int) -> Decision:
    """Have one of those who wait win a truck."""
    if state.decide_at_ms is None or state.decide_at_ms > now_ms:
        return Decision()
    # Each that waits wants a type that is still open.
    wanted = {accept.vehicle_type for accept in state.waiting}
    request = next(request for request in state.open_requests if request.vehicle_type in wanted)
    rivals = [accept for accept in state.waiting if accept.vehicle_type == request.vehicle_type]
    best = control.settings.mode.best(
        [Contender(rival.at_ms, _distance_m(state, rival, command.positions.get(rival.vehicle_id))) for rival in rivals]
    )
    decision = _assign(state, request, rivals[best], now_ms)
    after = reduce(evolve, decision.events, state)
    return Decision(decision.events, (*decision.effects, *_match_on(after, command.positions)))


def drop_accept(state: Broadcast, command: c.DropAccept, control: TenantControl, now_ms: int) -> Decision:
    """Go on without an accept that cannot win."""
    lost = tuple(accept for accept in state.waiting if accept.vehicle_id == command.vehicle_id)
    if not lost:
        return Decision()
    dropped = e.AcceptsLost(now_ms, (command.vehicle_id,), command.code)
    after = evolve(state, dropped)
    return Decision((dropped,), (*waited(state, after, lost, command.code), *_match_on(after, command.positions)))


def _wait(state: Broadcast, accept: WaitingAccept, window_s: float, now_ms: int) -> Decision:
    same = next((each for each in state.waiting if each.vehicle_id == accept.vehicle_id), None)
    if same is not None:
        # Or the vehicle has changed hands meanwhile, or another driver is to have it.
        again = (same.transporter_id, same.driver_id) == (accept.transporter_id, accept.driver_id)
        return Decision(reply=_pending(state) if again else Refused(Refusal.VEHICLE_BUSY))
    own = sum(each.transporter_id == accept.transporter_id for each in state.waiting)
    if len(state.waiting) >= MAX_WAITING or own >= MAX_WAITING_EACH:
        return Decision(reply=Refused(Refusal.ACCEPTS_FULL))
    decide_at_ms = state.decide_at_ms
    if decide_at_ms is None:
        decide_at_ms = max(now_ms, min(now_ms + round(window_s * 1000), state.expires_at_ms - SPARE_MS))
    waiting = e.AcceptWaiting(now_ms, accept, decide_at_ms)
    after = evolve(state, waiting)
    shows = not state.offers[accept.transporter_id].declined and all(
        each.transporter_id != accept.transporter_id for each in state.waiting
    )
    effects = (fx.ShowWaiting((accept.transporter_id,), decide_at_ms),) if shows else ()
    return Decision((waiting,), effects, _pending(after))


def _pending(state: Broadcast) -> Reply:
    return Done(
        {
            "broadcast_id": state.broadcast_id,
            "status": "pending",
            "decided_at": state.decide_at_ms,
            "remaining_requests": len(state.open_requests),
        }
    )


def _assign(state: Broadcast, request: TruckRequest, accept: WaitingAccept, now_ms: int) -> Decision:
    trip = Trip(
        trip_id=trip_id(request.request_id),
        assignment_id=assignment_id(request.request_id),
        request_id=request.request_id,
        transporter_id=accept.transporter_id,
        vehicle_id=accept.vehicle_id,
        driver_id=accept.driver_id,
        vehicle_type=request.vehicle_type,
        status=TripStatus.ASSIGNED,
        assigned_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    assigned = e.TruckAssigned(now_ms, trip)
    after = evolve(state, assigned)
    open_types = {request.vehicle_type for request in after.open_requests}
    lost = tuple(each for each in after.waiting if each.vehicle_type not in open_types)
    events: tuple[e.Event, ...] = (assigned,)
    if lost:
        events += (e.AcceptsLost(now_ms, tuple(each.vehicle_id for each in lost), Refusal.REQUEST_ALREADY_TAKEN),)
        after = evolve(after, events[-1])
    remaining = len(after.open_requests)
    return Decision(
        events,
        (
            fx.ShowTrip(trip, fx.TripNews.TRIP_ASSIGNED),
            fx.TellWatchers(fx.CustomerNews.TRUCK_CONFIRMED, {**trip_view(trip), "remaining_requests": remaining}),
            *waited(state, after, lost, Refusal.REQUEST_ALREADY_TAKEN),
            *((fx.AmendOffers(holding(after)),) if after.live else ending(after)),
        ),
        Done(
            {
                "broadcast_id": state.broadcast_id,
                "request_id": request.request_id,
                "assignment_id": trip.assignment_id,
                "trip_id": trip.trip_id,
                "status": after.status,
                "remaining_requests": remaining,
            }
        ),
    )


def _match_on(after: Broadcast, positions: Mapping[VehicleId, Point]) -> tuple[fx.Effect, ...]:
    return (fx.MatchOn(positions),) if after.waiting else ()


def _distance_m(state: Broadcast, accept: WaitingAccept, position: Point | None) -> int | None:
    """How far a vehicle is from the pickup; if that is not known now, how far it was when it was offered the haul."""
    if position is not None:
        return round(distance_m(state.pickup.point, position))
    offer = state.offers[accept.transporter_id]
    return offer.distance_m if offer.vehicle_id == accept.vehicle_id else None
