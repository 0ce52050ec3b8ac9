"""What each command leads to: `decide(state, command, control, now_ms) -> Decision`.

1. `decide` changes nothing. Its events are folded into the state by `evolve` once they are durable; its effects are
   carried out after that; its reply leaves last of all.
2. A command that comes at or after the expiry finds the broadcast expired, whether or not the clock's own `Tick` has
   been handled yet: expiry against accept has one outcome, and the time alone says which.
3. Whoever has already won a truck never hears that "the broadcast" was cancelled or expired, only that the trip stands.
4. A decision assigns at most one truck, so that its one assignment and its state land together or not at all.
5. `control` is what is in force at this moment. It may be another one at the next message, and decisions depend on the
   state and on this one alone: nothing is worked out under one control and carried out under another.
6. While the tenant is paused there are no new broadcasts, nor is one ended to make room for another, and no waves; all
   else goes on.

Waves are decided in `sending`, accepts in `accepting`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from . import commands as c
from . import effects as fx
from . import events as e
from .accepting import accept, drop_accept, match
from .broadcast import Broadcast
from .control import TenantControl
from .decision import Decision, ending, over, waited
from .evolve import evolve
from .replies import Done, Json, Refusal, Refused
from .sending import appear, seek, send_wave
from .settings import ActiveBroadcastPolicy
from .states import TRIP_TRANSITIONS, EndReason
from .views import broadcast_summary, trip_view
from .waves import wave_due_at


def decide(state: Broadcast | None, command: c.Command, control: TenantControl, now_ms: int) -> Decision:
    """Decide `command` on `state` (None: there is no such broadcast) at `now_ms`, milliseconds since 1970."""
    if isinstance(command, c.Create):
        return _create(state, command, control, now_ms)
    if state is None:
        is_trip = isinstance(command, c.UpdateTrip)
        return Decision(reply=Refused(Refusal.TRIP_NOT_FOUND if is_trip else Refusal.BROADCAST_NOT_FOUND))
    if state.live and now_ms >= state.expires_at_ms:
        expired, effects = _expire(state, now_ms)
        after = evolve(state, expired)
        late = _DECIDE[type(command)](after, command, control, now_ms)
        return Decision((expired, *late.events), (*effects, *late.effects), late.reply)
    return _DECIDE[type(command)](state, command, control, now_ms)


def _create(state: Broadcast | None, command: c.Create, control: TenantControl, now_ms: int) -> Decision:
    if control.paused:
        return Decision(reply=Refused(Refusal.TENANT_PAUSED))
    if state is not None:
        # Asked again after its actor died of the answer, which the journal knows. Any other request finds this.
        return Decision(reply=Refused(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": state.broadcast_id}))
    settings = control.settings
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
    return Decision((created,), (seek(new, settings),), Done(broadcast_summary(new)))


def _cancel(state: Broadcast, command: c.Cancel, control: TenantControl, now_ms: int) -> Decision:
    if command.customer_id != state.customer_id:
        return Decision(reply=Refused(Refusal.BROADCAST_NOT_FOUND))
    if not state.live:
        return Decision(reply=over(state))
    if command.reason is EndReason.REPLACED and (refused := _irreplaceable(state, control)) is not None:
        return Decision(reply=refused)
    cancelled = e.Cancelled(now_ms, command.reason)
    after = evolve(state, cancelled)
    return Decision(
        (cancelled,),
        (
            *waited(state, after, state.waiting, over(after).code),
            *ending(after),
            fx.TellWatchers(fx.CustomerNews.BROADCAST_CANCELLED, _ended(after)),
        ),
        Done(
            {
                "broadcast_id": state.broadcast_id,
                "status": after.status,
                "assigned": len(after.trips),
            }
        ),
    )


def _irreplaceable(state: Broadcast, control: TenantControl) -> Refused | None:
    """Why nothing may take its place now. What is to do so was decided on before this reached the broadcast; that may
    have been long ago, and its customer may have been told meanwhile that it is not to be."""
    if control.paused:
        return Refused(Refusal.TENANT_PAUSED)
    if control.settings.active_broadcast_policy is not ActiveBroadcastPolicy.REPLACE:
        return Refused(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": state.broadcast_id})
    return None


def _decline(state: Broadcast, command: c.Decline, control: TenantControl, now_ms: int) -> Decision:
    offer = state.offers.get(command.transporter_id)
    if offer is None:
        return Decision(reply=Refused(Refusal.NOT_OFFERED))
    done = Done({"broadcast_id": state.broadcast_id})
    waits = any(each.transporter_id == command.transporter_id for each in state.waiting)
    if not state.live or (offer.declined and not waits):
        return Decision(reply=done)
    effects = () if offer.declined else (fx.DropOffers((command.transporter_id,)),)
    return Decision((e.Declined(now_ms, command.transporter_id),), effects, done)


def _update_trip(state: Broadcast, command: c.UpdateTrip, control: TenantControl, now_ms: int) -> Decision:
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


def _tick(state: Broadcast, command: c.Tick, control: TenantControl, now_ms: int) -> Decision:
    if not state.live:
        return Decision()
    events: tuple[e.Event, ...] = ()
    effects: tuple[fx.Effect, ...] = ()
    if state.reminder_at_ms is not None and state.reminder_at_ms <= now_ms:
        events += (e.Reminded(now_ms),)
        effects += (
            fx.TellWatchers(
                fx.CustomerNews.EXPIRY_REMINDER,
                {"expires_at": state.expires_at_ms, "remaining_requests": len(state.open_requests)},
            ),
        )
    if state.decide_at_ms is not None and state.decide_at_ms <= now_ms:
        effects += (fx.MeasureAccepts(tuple(each.vehicle_id for each in state.waiting)),)
    wave_due_at_ms = wave_due_at(state, control, now_ms)
    if wave_due_at_ms is not None and wave_due_at_ms <= now_ms:
        if control.paused:
            events += (e.WaveHeld(now_ms),)
        else:
            effects += (seek(state, control.settings),)
    return Decision(events, effects)


_DECIDE: Mapping[type[c.Command], Callable[[Broadcast, Any, TenantControl, int], Decision]] = {
    c.Cancel: _cancel,
    c.Accept: accept,
    c.Decline: _decline,
    c.UpdateTrip: _update_trip,
    c.Tick: _tick,
    c.SendWave: send_wave,
    c.Appear: appear,
    c.Match: match,
    c.DropAccept: drop_accept,
}


def _expire(state: Broadcast, now_ms: int) -> tuple[e.Expired, tuple[fx.Effect, ...]]:
    reason = EndReason.EXPIRED if state.trips else EndReason.NO_VEHICLES_AVAILABLE
    expired = e.Expired(now_ms, reason)
    after = evolve(state, expired)
    return expired, (
        *waited(state, after, state.waiting, over(after).code),
        *ending(after),
        fx.TellWatchers(fx.CustomerNews.BROADCAST_EXPIRED, _ended(after)),
    )


def _ended(state: Broadcast) -> dict[str, Json]:
    return {"reason": state.end_reason, "assigned": len(state.trips)}
