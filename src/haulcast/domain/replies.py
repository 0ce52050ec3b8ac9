"""What a command is answered with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""Anything that JSON can say."""


class Refusal(StrEnum):
    """Why the core or the journal said no. `haulcast.errors` gives each its message and HTTP status."""

    BROADCAST_NOT_FOUND = "BROADCAST_NOT_FOUND"
    ACTIVE_BROADCAST_EXISTS = "ACTIVE_BROADCAST_EXISTS"
    EXPIRY_OUT_OF_RANGE = "EXPIRY_OUT_OF_RANGE"
    REQUEST_ALREADY_TAKEN = "REQUEST_ALREADY_TAKEN"
    ACCEPTS_FULL = "ACCEPTS_FULL"
    BROADCAST_EXPIRED = "BROADCAST_EXPIRED"
    BROADCAST_CANCELLED = "BROADCAST_CANCELLED"
    BROADCAST_FULLY_FILLED = "BROADCAST_FULLY_FILLED"
    NOT_OFFERED = "NOT_OFFERED"
    VEHICLE_NOT_OWNED = "VEHICLE_NOT_OWNED"
    VEHICLE_TYPE_MISMATCH = "VEHICLE_TYPE_MISMATCH"
    VEHICLE_BUSY = "VEHICLE_BUSY"
    DRIVER_NOT_OWNED = "DRIVER_NOT_OWNED"
    DRIVER_BUSY = "DRIVER_BUSY"
    TRIP_NOT_FOUND = "TRIP_NOT_FOUND"
    TRIP_TRANSITION_INVALID = "TRIP_TRANSITION_INVALID"
    ID_REUSED = "ID_REUSED"
    TRANSPORTER_NOT_FOUND = "TRANSPORTER_NOT_FOUND"
    TENANT_PAUSED = "TENANT_PAUSED"
    TOO_MANY_ANNOUNCEMENTS = "TOO_MANY_ANNOUNCEMENTS"


@dataclass(frozen=True, slots=True)
class Done:
    """The command was carried out; `data` is what the client is told."""

    data: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The command was not carried out and never will be under this id."""

    code: Refusal
    data: Mapping[str, Json] = field(default_factory=dict)


Reply: TypeAlias = Done | Refused
