"""Identifiers. All are opaque strings that match `ID_PATTERN`, so they never need escaping.

The ids of a broadcast's parts are derived from the broadcast's own, which keeps `decide` free of randomness and lets a
trip id be routed to the actor that owns it without a lookup:

    broadcast   01k9...       (chosen by whoever creates it)
    request     01k9...-1     (the first truck)
    trip        01k9...-1-t
    assignment  01k9...-1-a
"""

import re
from typing import NewType

TenantId = NewType("TenantId", str)
CustomerId = NewType("CustomerId", str)
TransporterId = NewType("TransporterId", str)
VehicleId = NewType("VehicleId", str)
DriverId = NewType("DriverId", str)
BroadcastId = NewType("BroadcastId", str)
RequestId = NewType("RequestId", str)
AssignmentId = NewType("AssignmentId", str)
TripId = NewType("TripId", str)

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"
"""What users, vehicles, drivers and tenants may be called."""

ID_FORM = "1 to 64 letters, digits or . : _ -, the first a letter or digit"
"""The same in words."""

_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Whether `text` may name a user, vehicle, driver or tenant."""
    return _ID.fullmatch(text) is not None


def request_id(broadcast_id: BroadcastId, number: int) -> RequestId:
    """The id of the `number`-th truck (from 1) of a broadcast."""
    return RequestId(f"{broadcast_id}-{number}")


def trip_id(request: RequestId) -> TripId:
    """The id of a request's trip."""
    return TripId(f"{request}-t")


def assignment_id(request: RequestId) -> AssignmentId:
    """The id of a request's assignment."""
    return AssignmentId(f"{request}-a")


def broadcast_of(trip: TripId) -> BroadcastId:
    """The broadcast that a trip belongs to (itself unchecked: it may not exist)."""
    return BroadcastId(trip.split("-", 1)[0])
