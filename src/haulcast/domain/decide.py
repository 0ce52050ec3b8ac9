"""What each command leads to: `decide(state, command, settings, now_ms) -> Decision`.

1. `decide` changes nothing. Its events are folded into the state by `evolve` once they are durable; its effects are
   carried out after that; its reply leaves last of all.
2. A command that comes at or after the expiry finds the broadcast expired, whether or not the clock's own `Tick` has
   been handled yet: expiry against accept has one outcome, and the time alone says which.
3. Whoever has already won a truck never hears that "the broadcast" was cancelled or expired, only that the trip stands.
4. A decision assigns at most one truck, so that its one assignment and its state land together or not at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import commands as c
from . import effects as fx
from . import events as e
from .broadcast import Broadcast, Offer, Trip
from .evolve import evolve
from .ids import TransporterId, assignment_id, trip_id
from .ranking import Candidate, LeftOutReason, over_limit, rank
from .replies import Done, Json, Refusal, Refused, Reply
from .settings import TenantSettings
from .states import TRIP_TRANSITIONS, BroadcastStatus, EndReason, TripStatus
from .views import broadcast_summary, trip_view
from .waves import MAX_LEFT_OUT, next_wave_at, radius_m


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen. `reply` is None for commands that nobody waits for."""

    events: tuple[e.Event, ...] = ()
    effects: tuple[fx.Effect, ...] = ()
    reply: Reply | None = None


def decide(state: Broadcast | None, command: c.Command, settings: TenantSettings, now_ms: int) -> Decision:
    """Decide `command` on `state` (None: there is no such broadcast) at `now_ms`, milliseconds since 1970."""
    if isinstance(command, c.Create):
        return _create(state, command, settings, now_ms)
    if state is None:
        is_trip = isinstance(command, c.UpdateTrip)
        return Decision(reply=Refused(Refusal.TRIP_NOT_FOUND if is_trip else Refusal.BROADCAST_NOT_FOUND))
    if state.live and now_ms >= state.expires_at_ms:
        expired, effects = _expire(state, now_ms)
        after = evolve(state, expired)
        late = _DECIDE[type(command)](after, command, settings, now_ms)
        return Decision((expired, *late.events), (*effects, *late.effects), late.reply)
    return _DECIDE[type(command)](state, command, settings, now_ms)


def _create(state: Broadcast | None, command: c.Create, settings: TenantSettings, now_ms: int) -> Decision:
    if state is not None:
        # Asked again after its actor died of the answer, which the journal knows. Any other request finds this.
        return Decision(reply=Refused(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": state.broadcast_id}))
    expires_in_s = settings.default_expiry_s if command.expires_in_s is None else command.expires_in_s
    if not settings.min_expiry_s <= expires_in_s <= settings.max_expiry_s:
        return Decision(
            reply=Refused(
                Refusal.EXPIRY_OUT_OF_RANGE,
                {
                    "field": "expires_in_s",
                    "min": settings.min_expiry_s,
                    "max": settings.max_expiry_s,
                },
            )
        )
    expires_at_ms = now_ms + expires_in_s * 1000
    reminder_at_ms = expires_at_ms - settings.reminder_lead_s * 1000
    created = e.Created(
        at_ms=now_ms,
        tenant_id=command.tenant_id,
        broadcast_id=command.broadcast_id,
        customer_id=command.customer_id,
        pickup=command.pickup,
        drop=command.drop,
        vehicle_types=tuple(spec.vehicle_type for spec in command.trucks for _ in range(spec.count)),
        expires_at_ms=expires_at_ms,
        reminder_at_ms=reminder_at_ms if reminder_at_ms > now_ms else None,
        note=command.note,
    )
    new = evolve(None, created)
    return Decision((created,), (_seek(new, settings),), Done(broadcast_summary(new)))


def _cancel(state: Broadcast, command: c.Cancel, settings: TenantSettings, now_ms: int) -> Decision:
    if command.customer_id != state.customer_id:
        return Decision(reply=Refused(Refusal.BROADCAST_NOT_FOUND))
    if not state.live:
        return Decision(reply=_over(state))
    cancelled = e.Cancelled(now_ms, EndReason.CUSTOMER_CANCELLED)
    after = evolve(state, cancelled)
    return Decision(
        (cancelled,),
        (*_ending(after), fx.TellWatchers(fx.CustomerNews.BROADCAST_CANCELLED, _ended(after))),
        Done(
            {
                "broadcast_id": state.broadcast_id,
                "status": after.status,
                "assigned": len(after.trips),
            }
        ),
    )


def _accept(state: Broadcast, command: c.Accept, settings: TenantSettings, now_ms: int) -> Decision:
    if command.transporter_id not in state.offers:
        return Decision(reply=Refused(Refusal.NOT_OFFERED))
    open_requests = state.open_requests
    if state.status is BroadcastStatus.FULLY_FILLED:
        return Decision(reply=_taken(state))
    if not state.live:
        return Decision(reply=_over(state))
    if command.vehicle_type is None:
        return Decision(reply=Refused(Refusal.VEHICLE_NOT_OWNED))
    if all(request.vehicle_type != command.vehicle_type for request in state.requests):
        return Decision(reply=Refused(Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": command.vehicle_type}))
    request = next((r for r in open_requests if r.vehicle_type == command.vehicle_type), None)
    if request is None:
        return Decision(reply=_taken(state))
    trip = Trip(
        trip_id=trip_id(request.request_id),
        assignment_id=assignment_id(request.request_id),
        request_id=request.request_id,
        transporter_id=command.transporter_id,
        vehicle_id=command.vehicle_id,
        driver_id=command.driver_id,
        vehicle_type=request.vehicle_type,
        status=TripStatus.ASSIGNED,
        assigned_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    assigned = e.TruckAssigned(now_ms, trip)
    after = evolve(state, assigned)
    remaining = len(after.open_requests)
    return Decision(
        (assigned,),
        (
            fx.ShowTrip(trip, fx.TripNews.TRIP_ASSIGNED),
            fx.TellWatchers(fx.CustomerNews.TRUCK_CONFIRMED, {**trip_view(trip), "remaining_requests": remaining}),
            *((fx.AmendOffers(_holding(after)),) if after.live else _ending(after)),
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


def _decline(state: Broadcast, command: c.Decline, settings: TenantSettings, now_ms: int) -> Decision:
    offer = state.offers.get(command.transporter_id)
    if offer is None:
        return Decision(reply=Refused(Refusal.NOT_OFFERED))
    done = Done({"broadcast_id": state.broadcast_id})
    if offer.declined or not state.live:
        return Decision(reply=done)
    return Decision((e.Declined(now_ms, command.transporter_id),), (fx.DropOffers((command.transporter_id,)),), done)


def _update_trip(state: Broadcast, command: c.UpdateTrip, settings: TenantSettings, now_ms: int) -> Decision:
    trip = state.trip(command.trip_id)
    if trip is None or command.user_id != (trip.driver_id if command.by_driver else trip.transporter_id):
        return Decision(reply=Refused(Refusal.TRIP_NOT_FOUND))
    done = Done({"trip_id": trip.trip_id, "status": command.status})
    if command.status is trip.status:
        return Decision(reply=done)
    if command.status not in TRIP_TRANSITIONS[trip.status]:
        return Decision(
            reply=Refused(
                Refusal.TRIP_TRANSITION_INVALID,
                {"status": trip.status, "allowed": sorted(TRIP_TRANSITIONS[trip.status])},
            )
        )
    updated = e.TripUpdated(now_ms, trip.trip_id, command.status)
    shown = evolve(state, updated).trip(trip.trip_id)
    assert shown is not None
    return Decision(
        (updated,),
        (
            fx.ShowTrip(shown, fx.TripNews.TRIP_UPDATED),
            fx.TellWatchers(fx.CustomerNews.TRIP_UPDATED, trip_view(shown)),
        ),
        done,
    )


def _tick(state: Broadcast, command: c.Tick, settings: TenantSettings, now_ms: int) -> Decision:
    if not state.live:
        return Decision()
    events: tuple[e.Event, ...] = ()
    effects: tuple[fx.Effect, ...] = ()
    if state.reminder_at_ms is not None and state.reminder_at_ms <= now_ms:
        events = (e.Reminded(now_ms),)
        effects = (
            fx.TellWatchers(
                fx.CustomerNews.EXPIRY_REMINDER,
                {"expires_at": state.expires_at_ms, "remaining_requests": len(state.open_requests)},
            ),
        )
    if state.next_wave_at_ms is not None and state.next_wave_at_ms <= now_ms:
        effects = (*effects, _seek(state, settings))
    return Decision(events, effects)


def _send_wave(state: Broadcast, command: c.SendWave, settings: TenantSettings, now_ms: int) -> Decision:
    due_at_ms = state.next_wave_at_ms
    if not state.live or due_at_ms is None or command.wave != state.wave + 1:
        return Decision()
    wanted = {request.vehicle_type for request in state.open_requests}
    chosen = rank(
        (candidate for candidate in command.candidates if candidate.vehicle_type in wanted),
        state.offers,
        settings.max_offers_per_wave,
    )
    offers = tuple(_offer(candidate, command.wave, now_ms) for candidate in chosen)
    # Found and still without the offer: no place left, or the vehicle found is of a type no longer wanted and another
    # one of theirs may do.
    offered = {*state.offers, *(offer.transporter_id for offer in offers)}
    passed_over = [candidate for candidate in command.candidates if candidate.transporter_id not in offered]
    left_out = rank([*map(over_limit, passed_over), *command.left_out], offered, MAX_LEFT_OUT)
    sent = e.WaveSent(
        now_ms,
        command.wave,
        offers,
        next_wave_at(settings, command.wave, due_at_ms, now_ms, command.more or bool(passed_over)),
        radius_m(settings, command.wave),
        tuple(
            each if each.vehicle_type in wanted else replace(each, reason=LeftOutReason.TYPE_FILLED)
            for each in left_out
        ),
    )
    return Decision((sent,), (fx.OpenOffers(offers),) if offers else ())


def _appear(state: Broadcast, command: c.Appear, settings: TenantSettings, now_ms: int) -> Decision:
    candidate = command.candidate
    if not state.live or candidate.transporter_id in state.offers:
        return Decision()
    # A wave that is due may have been looked up just before the transporter appeared: it counts as sent.
    wave_is_due = state.next_wave_at_ms is not None and state.next_wave_at_ms <= now_ms
    wave = state.wave + wave_is_due
    reach_m = radius_m(settings, wave)
    if reach_m is not None and candidate.distance_m > reach_m:
        return Decision()
    if all(request.vehicle_type != candidate.vehicle_type for request in state.open_requests):
        return Decision()
    offer = _offer(candidate, wave, now_ms)
    return Decision((e.Offered(now_ms, offer),), (fx.OpenOffers((offer,)),))


_DECIDE: Mapping[type[c.Command], Callable[[Broadcast, Any, TenantSettings, int], Decision]] = {
    c.Cancel: _cancel,
    c.Accept: _accept,
    c.Decline: _decline,
    c.UpdateTrip: _update_trip,
    c.Tick: _tick,
    c.SendWave: _send_wave,
    c.Appear: _appear,
}


def _seek(state: Broadcast, settings: TenantSettings) -> fx.SeekCandidates:
    wave = state.wave + 1
    return fx.SeekCandidates(
        wave,
        radius_m(settings, wave),
        frozenset(request.vehicle_type for request in state.open_requests),
        settings.max_offers_per_wave,
    )


def _expire(state: Broadcast, now_ms: int) -> tuple[e.Expired, tuple[fx.Effect, ...]]:
    reason = EndReason.EXPIRED if state.trips else EndReason.NO_VEHICLES_AVAILABLE
    expired = e.Expired(now_ms, reason)
    after = evolve(state, expired)
    return expired, (
        *_ending(after),
        fx.TellWatchers(fx.CustomerNews.BROADCAST_EXPIRED, _ended(after)),
    )


def _ending(after: Broadcast) -> tuple[fx.Effect, ...]:
    """What the transporters hear when the broadcast has ended: winners keep their trips, offers to others close."""
    winners = after.winners
    holding = _holding(after)
    effects: list[fx.Effect] = []
    if won := tuple(transporter for transporter in holding if transporter in winners):
        effects.append(fx.DropOffers(won))
    if lost := tuple(transporter for transporter in holding if transporter not in winners):
        effects.append(fx.CloseOffers(lost))
    if after.status is not BroadcastStatus.FULLY_FILLED:
        effects += [fx.ShowTrip(trip, fx.TripNews.TRIP_CONTINUES) for trip in after.trips if trip.active]
    return tuple(effects)


def _holding(state: Broadcast) -> tuple[TransporterId, ...]:
    """The transporters who still have the offer on their screens."""
    return tuple(offer.transporter_id for offer in state.offers.values() if not offer.declined)


def _offer(candidate: Candidate, wave: int, now_ms: int) -> Offer:
    return Offer(
        candidate.transporter_id,
        wave,
        candidate.vehicle_id,
        candidate.vehicle_type,
        candidate.distance_m,
        now_ms,
    )


def _taken(state: Broadcast) -> Refused:
    return Refused(Refusal.REQUEST_ALREADY_TAKEN, {"remaining_requests": len(state.open_requests)})


def _over(state: Broadcast) -> Refused:
    """The refusal for a command that came after the end."""
    if state.status is BroadcastStatus.FULLY_FILLED:
        return Refused(Refusal.BROADCAST_FULLY_FILLED)
    if state.status is BroadcastStatus.CANCELLED:
        return Refused(Refusal.BROADCAST_CANCELLED)
    return Refused(Refusal.BROADCAST_EXPIRED)


def _ended(state: Broadcast) -> dict[str, Json]:
    return {"reason": state.end_reason, "assigned": len(state.trips)}
