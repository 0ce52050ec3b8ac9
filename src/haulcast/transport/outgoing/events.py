"""What happens on topics, besides the change that it makes to what they show."""

from collections.abc import Mapping

from msgspec import Struct

from haulcast.domain.replies import Refusal
from haulcast.domain.states import EndReason

from .views import Count, HaulView, Time, TripView


class TruckConfirmed(TripView):
    """A truck was won."""

    remaining_requests: Count


class ExpiryReminder(Struct):
    """The broadcast expires soon."""

    expires_at: Time
    remaining_requests: Count


class BroadcastEnded(Struct):
    """The broadcast was cancelled or has expired; `assigned` trucks go on with their trips."""

    reason: EndReason
    assigned: Count


class OfferNews(Struct):
    """There is a new offer: the delta before has it."""

    broadcast_id: str


class OfferClosed(Struct):
    """The offer is over."""

    broadcast_id: str
    reason: EndReason


class AcceptLost(Struct):
    """An accept that waited has not won, and why."""

    broadcast_id: str
    vehicle_id: str
    code: Refusal
    remaining_requests: Count


_TRIP_EVENTS: Mapping[str, type[Struct]] = {
    "trip_assigned": HaulView,
    "trip_updated": HaulView,
    "trip_continues": HaulView,
}
EVENTS: Mapping[str, Mapping[str, type[Struct]]] = {
    "broadcast": {
        "truck_confirmed": TruckConfirmed,
        "trip_updated": TripView,
        "expiry_reminder": ExpiryReminder,
        "broadcast_cancelled": BroadcastEnded,
        "broadcast_expired": BroadcastEnded,
    },
    "feed": {"offer": OfferNews, "offer_closed": OfferClosed, "accept_lost": AcceptLost, **_TRIP_EVENTS},
    "driver": _TRIP_EVENTS,
}
"""The data of each event, by what the name of its topic begins with, and its own."""
