"""What users are shown of a broadcast: plain JSON values with user-facing names and nothing internal."""

from collections.abc import Collection, Iterable, Mapping

from .broadcast import Broadcast, Offer, Place, Trip, TruckRequest
from .fleet import Driver, Vehicle
from .ids import DriverId
from .replies import Json

CLOSED_OFFER_SHOWN_MS = 600_000
"""How long a feed goes on showing a closed offer, so that a phone that was away still learns why it went."""


def broadcast_summary(state: Broadcast) -> dict[str, Json]:
    """What the customer is answered when the broadcast has been created."""
    return {
        "broadcast_id": state.broadcast_id,
        "status": state.status,
        "expires_at": state.expires_at_ms,
        "requests": [_request_view(request) for request in state.requests],
    }


def broadcast_view(state: Broadcast) -> dict[str, Json]:
    """The content of the topic `broadcast:{id}`."""
    return {
        "broadcast_id": state.broadcast_id,
        "customer_id": state.customer_id,
        "status": state.status,
        "end_reason": state.end_reason,
        "pickup": place_view(state.pickup),
        "drop": place_view(state.drop),
        "note": state.note,
        "created_at": state.created_at_ms,
        "expires_at": state.expires_at_ms,
        "ended_at": state.ended_at_ms,
        "wave": state.wave,
        "notified": state.notified,
        "remaining_requests": len(state.open_requests),
        "requests": {request.request_id: _request_view(request) for request in state.requests},
        "trips": {trip.trip_id: trip_view(trip) for trip in state.trips},
    }


def offer_body(state: Broadcast) -> dict[str, Json]:
    """What is the same in the offer of everybody who has it."""
    return {
        "broadcast_id": state.broadcast_id,
        "status": "open" if state.live else "closed",
        "pickup": place_view(state.pickup),
        "drop": place_view(state.drop),
        "note": state.note,
        "expires_at": state.expires_at_ms,
        **offer_fill(state),
    }


def offer_fill(state: Broadcast) -> dict[str, Json]:
    """The part of an offer that changes when a truck is taken."""
    open_by_type: dict[str, Json] = {}
    for request in state.open_requests:
        count = open_by_type.get(request.vehicle_type, 0)
        assert isinstance(count, int)
        open_by_type[request.vehicle_type] = count + 1
    return {"open_trucks": open_by_type, "remaining_requests": len(state.open_requests)}


def offer_tail(offer: Offer) -> dict[str, Json]:
    """What differs from one recipient of the offer to the next."""
    return {
        "wave": offer.wave,
        "vehicle_id": offer.vehicle_id,
        "distance_m": offer.distance_m,
        "offered_at": offer.offered_at_ms,
    }


def offer_closing(state: Broadcast) -> dict[str, Json]:
    """The part of an offer that changes when it is over, and says why."""
    return {
        "status": "closed",
        "reason": state.end_reason,
        "closed_at": state.ended_at_ms,
        **offer_fill(state),
    }


def offer_view(state: Broadcast, offer: Offer) -> dict[str, Json]:
    """One transporter's offer, open or closed: an entry of `feed:{transporter}`. With `decided_at` while an accept of
    theirs waits."""
    view = {**offer_body(state), **offer_tail(offer), **({} if state.live else offer_closing(state))}
    if any(accept.transporter_id == offer.transporter_id for accept in state.waiting):
        view["decided_at"] = state.decide_at_ms
    return view


def offer_shown(state: Broadcast, offer: Offer, now_ms: int) -> bool:
    """Whether the transporter's feed still has the offer: declined ones and those that were won have left it."""
    if offer.declined:
        return False
    if state.ended_at_ms is None:
        return True
    return offer.transporter_id not in state.winners and now_ms - state.ended_at_ms < CLOSED_OFFER_SHOWN_MS


def trip_view(trip: Trip) -> dict[str, Json]:
    """A trip as everybody concerned sees it."""
    return {
        "trip_id": trip.trip_id,
        "assignment_id": trip.assignment_id,
        "request_id": trip.request_id,
        "status": trip.status,
        "transporter_id": trip.transporter_id,
        "vehicle_id": trip.vehicle_id,
        "vehicle_type": trip.vehicle_type,
        "driver_id": trip.driver_id,
        "assigned_at": trip.assigned_at_ms,
        "updated_at": trip.updated_at_ms,
    }


def haul_view(state: Broadcast, trip: Trip) -> dict[str, Json]:
    """A trip with where it goes: an entry of `feed:{transporter}` and `driver:{driver}`."""
    return {
        **trip_view(trip),
        "broadcast_id": state.broadcast_id,
        "pickup": place_view(state.pickup),
        "drop": place_view(state.drop),
        "note": state.note,
    }


def fleet_view(
    vehicles: Iterable[Vehicle], drivers: Iterable[Driver], trips: Collection[Trip], online: Collection[DriverId]
) -> dict[str, dict[str, dict[str, Json]]]:
    """The content of the topic `fleet:{transporter}`. `trips`: the active ones; `online`: drivers who are connected."""
    driven = {trip.driver_id: trip.trip_id for trip in trips}
    engaged = {trip.vehicle_id: trip.trip_id for trip in trips}
    return {
        "drivers": {
            each.driver_id: {
                "driver_id": each.driver_id,
                "online": each.driver_id in online,
                "trip_id": driven.get(each.driver_id),
            }
            for each in drivers
        },
        "vehicles": {
            each.vehicle_id: {
                "vehicle_id": each.vehicle_id,
                "vehicle_type": each.vehicle_type,
                "trip_id": engaged.get(each.vehicle_id),
            }
            for each in vehicles
        },
    }


def place_view(place: Place) -> Mapping[str, Json]:
    """A place on the wire."""
    return {"lat": place.lat, "lng": place.lng, "address": place.address}


def _request_view(request: TruckRequest) -> Mapping[str, Json]:
    return {
        "request_id": request.request_id,
        "vehicle_type": request.vehicle_type,
        "status": request.status,
    }
