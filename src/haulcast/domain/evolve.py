"""How each event changes a broadcast: the fold that gives the state, and nothing else does."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from . import events as e
from .broadcast import Broadcast, Offer, TruckRequest, WaitingAccept
from .ids import request_id
from .states import (
    BROADCAST_TRANSITIONS,
    REQUEST_TRANSITIONS,
    TRIP_TRANSITIONS,
    BroadcastStatus,
    EndReason,
    RequestStatus,
    advance,
)
from .waves import farther

Changes: TypeAlias = Mapping[str, Any]
"""The fields of a broadcast that are other after an event."""


def evolve(state: Broadcast | None, event: e.Event) -> Broadcast:
    """The state after `event`. Raises `IllegalTransition` for one that the tables do not allow after `state`."""
    if isinstance(event, e.Created):
        if state is not None:
            raise ValueError("a broadcast is created once")
        return _created(event)
    if state is None:
        raise ValueError("a broadcast begins with Created")
    return replace(state, seq=state.seq + 1, **_EVOLVE[type(event)](state, event))


def replay(events: Iterable[e.Event]) -> Broadcast:
    """The state that a broadcast's events lead to. Raises `ValueError` if there are none."""
    state: Broadcast | None = None
    for event in events:
        state = evolve(state, event)
    if state is None:
        raise ValueError("no events, no broadcast")
    return state


def _created(event: e.Created) -> Broadcast:
    return Broadcast(
        tenant_id=event.tenant_id,
        broadcast_id=event.broadcast_id,
        customer_id=event.customer_id,
        pickup=event.pickup,
        drop=event.drop,
        note=event.note,
        requests=tuple(
            TruckRequest(request_id(event.broadcast_id, number), vehicle_type)
            for number, vehicle_type in enumerate(event.vehicle_types, start=1)
        ),
        created_at_ms=event.at_ms,
        expires_at_ms=event.expires_at_ms,
        reminder_at_ms=event.reminder_at_ms,
        next_wave_at_ms=event.at_ms,
    )


def _wave_sent(state: Broadcast, event: e.WaveSent) -> Changes:
    return {
        "wave": event.wave,
        "next_wave_at_ms": event.next_wave_at_ms,
        "reached_m": event.radius_m if farther(event.radius_m, state.reached_m) else state.reached_m,
        "wave_held": False,
        **_with_offers(state, event.offers),
    }


def _wave_held(state: Broadcast, event: e.WaveHeld) -> Changes:
    return {"wave_held": True}


def _offered(state: Broadcast, event: e.Offered) -> Changes:
    return _with_offers(state, (event.offer,))


def _with_offers(state: Broadcast, new: Iterable[Offer]) -> Changes:
    offers = {**state.offers, **{offer.transporter_id: offer for offer in new}}
    return {"offers": offers, "notified": len(offers)}


def _declined(state: Broadcast, event: e.Declined) -> Changes:
    offer = replace(state.offers[event.transporter_id], declined=True)
    return {
        "offers": {**state.offers, event.transporter_id: offer},
        **_waiting(state, (each for each in state.waiting if each.transporter_id != event.transporter_id)),
    }


def _accept_waiting(state: Broadcast, event: e.AcceptWaiting) -> Changes:
    return {"waiting": (*state.waiting, event.accept), "decide_at_ms": event.decide_at_ms}


def _accepts_lost(state: Broadcast, event: e.AcceptsLost) -> Changes:
    return _waiting(state, (each for each in state.waiting if each.vehicle_id not in event.vehicle_ids))


def _waiting(state: Broadcast, accepts: Iterable[WaitingAccept]) -> Changes:
    """That only these still wait."""
    waiting = tuple(accepts)
    return {"waiting": waiting, "decide_at_ms": state.decide_at_ms if waiting else None}


def _truck_assigned(state: Broadcast, event: e.TruckAssigned) -> Changes:
    requests = tuple(
        replace(
            request,
            status=advance(REQUEST_TRANSITIONS, request.status, RequestStatus.ASSIGNED),
            trip=event.trip,
        )
        if request.request_id == event.trip.request_id
        else request
        for request in state.requests
    )
    changes = {
        "requests": requests,
        **_waiting(state, (each for each in state.waiting if each.vehicle_id != event.trip.vehicle_id)),
    }
    if any(request.status is RequestStatus.SEARCHING for request in requests):
        status = advance(BROADCAST_TRANSITIONS, state.status, BroadcastStatus.PARTIALLY_FILLED)
        return {**changes, "status": status}
    status = advance(BROADCAST_TRANSITIONS, state.status, BroadcastStatus.FULLY_FILLED)
    return {**changes, "status": status, "end_reason": EndReason.FILLED, "ended_at_ms": event.at_ms}


def _trip_updated(state: Broadcast, event: e.TripUpdated) -> Changes:
    def updated(request: TruckRequest) -> TruckRequest:
        trip = request.trip
        if trip is None or trip.trip_id != event.trip_id:
            return request
        status = advance(TRIP_TRANSITIONS, trip.status, event.status)
        return replace(request, trip=replace(trip, status=status, updated_at_ms=event.at_ms))

    return {"requests": tuple(updated(request) for request in state.requests)}


def _reminded(state: Broadcast, event: e.Reminded) -> Changes:
    return {"reminder_at_ms": None}


def _cancelled(state: Broadcast, event: e.Cancelled) -> Changes:
    return _ended(state, event, BroadcastStatus.CANCELLED, RequestStatus.CANCELLED)


def _expired(state: Broadcast, event: e.Expired) -> Changes:
    return _ended(state, event, BroadcastStatus.EXPIRED, RequestStatus.EXPIRED)


def _ended(
    state: Broadcast, event: e.Cancelled | e.Expired, status: BroadcastStatus, open_become: RequestStatus
) -> Changes:
    return {
        "status": advance(BROADCAST_TRANSITIONS, state.status, status),
        "end_reason": event.reason,
        "ended_at_ms": event.at_ms,
        "requests": tuple(
            replace(request, status=advance(REQUEST_TRANSITIONS, request.status, open_become))
            if request.status is RequestStatus.SEARCHING
            else request
            for request in state.requests
        ),
        **_waiting(state, ()),
    }


_EVOLVE: Mapping[type[e.Event], Callable[[Broadcast, Any], Changes]] = {
    e.WaveSent: _wave_sent,
    e.WaveHeld: _wave_held,
    e.Offered: _offered,
    e.Declined: _declined,
    e.AcceptWaiting: _accept_waiting,
    e.AcceptsLost: _accepts_lost,
    e.TruckAssigned: _truck_assigned,
    e.TripUpdated: _trip_updated,
    e.Reminded: _reminded,
    e.Cancelled: _cancelled,
    e.Expired: _expired,
}
