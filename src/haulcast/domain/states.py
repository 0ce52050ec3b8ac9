"""The states of a broadcast, of its truck requests and of a trip, and the only moves between them.

1. A state machine is a table: state -> states it may become. Nothing else in the project decides what is legal.
2. A state with no way out is terminal.
3. `advance` returns the new state or raises `IllegalTransition`; it changes nothing by itself.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar


class BroadcastStatus(StrEnum):
    """What a customer is told about a broadcast."""

    SEARCHING = "searching"
    PARTIALLY_FILLED = "partially_filled"
    FULLY_FILLED = "fully_filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class RequestStatus(StrEnum):
    """The state of one truck request."""

    SEARCHING = "searching"
    ASSIGNED = "assigned"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class TripStatus(StrEnum):
    """How far a confirmed truck has come."""

    ASSIGNED = "assigned"
    EN_ROUTE = "en_route"
    AT_PICKUP = "at_pickup"
    LOADED = "loaded"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"


class EndReason(StrEnum):
    """Why a broadcast ended."""

    FILLED = "filled"
    CUSTOMER_CANCELLED = "customer_cancelled"
    REPLACED = "replaced"
    """The customer created another one in its place."""
    NO_VEHICLES_AVAILABLE = "no_vehicles_available"
    EXPIRED = "expired"
    """Time ran out with some trucks found and some not."""


BROADCAST_TRANSITIONS: Mapping[BroadcastStatus, frozenset[BroadcastStatus]] = {
    BroadcastStatus.SEARCHING: frozenset(
        {
            BroadcastStatus.PARTIALLY_FILLED,
            BroadcastStatus.FULLY_FILLED,
            BroadcastStatus.CANCELLED,
            BroadcastStatus.EXPIRED,
        }
    ),
    BroadcastStatus.PARTIALLY_FILLED: frozenset(
        {
            BroadcastStatus.PARTIALLY_FILLED,
            BroadcastStatus.FULLY_FILLED,
            BroadcastStatus.CANCELLED,
            BroadcastStatus.EXPIRED,
        }
    ),
    BroadcastStatus.FULLY_FILLED: frozenset(),
    BroadcastStatus.CANCELLED: frozenset(),
    BroadcastStatus.EXPIRED: frozenset(),
}

REQUEST_TRANSITIONS: Mapping[RequestStatus, frozenset[RequestStatus]] = {
    RequestStatus.SEARCHING: frozenset({RequestStatus.ASSIGNED, RequestStatus.CANCELLED, RequestStatus.EXPIRED}),
    RequestStatus.ASSIGNED: frozenset(),
    RequestStatus.CANCELLED: frozenset(),
    RequestStatus.EXPIRED: frozenset(),
}

_TRIP_ORDER = (
    TripStatus.ASSIGNED,
    TripStatus.EN_ROUTE,
    TripStatus.AT_PICKUP,
    TripStatus.LOADED,
    TripStatus.DELIVERED,
)

# A trip may skip steps (phones lose signal, drivers forget to tap) but never goes back.
TRIP_TRANSITIONS: Mapping[TripStatus, frozenset[TripStatus]] = {
    **{
        status: frozenset({*_TRIP_ORDER[step + 1 :], TripStatus.CANCELLED})
        for step, status in enumerate(_TRIP_ORDER[:-1])
    },
    TripStatus.DELIVERED: frozenset(),
    TripStatus.CANCELLED: frozenset(),
}

LIVE_BROADCAST = frozenset(status for status, onward in BROADCAST_TRANSITIONS.items() if onward)
ACTIVE_TRIP = frozenset(status for status, onward in TRIP_TRANSITIONS.items() if onward)


class IllegalTransition(Exception):
    """A state machine was asked for a move that is not in its table."""


S = TypeVar("S", bound=StrEnum)


def advance(table: Mapping[S, frozenset[S]], current: S, new: S) -> S:
    """`new`, if `table` allows it after `current`; raises `IllegalTransition` otherwise."""
    if new not in table[current]:
        raise IllegalTransition(f"{type(current).__name__}: {current} -> {new}")
    return new
