"""What has happened to a broadcast: the journal keeps these, and replaying them gives the state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .broadcast import Offer, Place, Trip, WaitingAccept
from .ids import BroadcastId, CustomerId, TenantId, TransporterId, TripId, VehicleId
from .ranking import LeftOut
from .replies import Refusal
from .states import EndReason, TripStatus


@dataclass(frozen=True, slots=True)
class Created:
    """A broadcast came into being. `vehicle_types` has one entry per truck, in the order of the requests."""

    at_ms: int
    tenant_id: TenantId
    broadcast_id: BroadcastId
    customer_id: CustomerId
    pickup: Place
    drop: Place
    vehicle_types: tuple[str, ...]
    expires_at_ms: int
    reminder_at_ms: int | None
    note: str


@dataclass(frozen=True, slots=True)
class WaveSent:
    """A wave went out, possibly to nobody.

    `radius_m` is how far it reached, None: everybody. `left_out`: the nearest whom it did not reach, and why; kept for
    whoever asks later, and no part of the state. A wave sent before these were recorded has a radius of 0 and nobody.
    """

    at_ms: int
    wave: int
    offers: tuple[Offer, ...]
    next_wave_at_ms: int | None
    radius_m: float | None = 0.0
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class WaveHeld:
    """A wave was due while the tenant was paused; it goes out when that is over."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Offered:
    """One transporter that came online late was offered the broadcast."""

    at_ms: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class Declined:
    """A transporter does not want it; accepts of theirs do not wait any more."""

    at_ms: int
    transporter_id: TransporterId


@dataclass(frozen=True, slots=True)
class AcceptWaiting:
    """A transporter accepted, and what becomes of it is decided at `decide_at_ms`, the same for all that wait."""

    at_ms: int
    accept: WaitingAccept
    decide_at_ms: int


@dataclass(frozen=True, slots=True)
class AcceptsLost:
    """The accepts with these vehicles waited, and have not won."""

    at_ms: int
    vehicle_ids: tuple[VehicleId, ...]
    code: Refusal


@dataclass(frozen=True, slots=True)
class TruckAssigned:
    """A transporter won a truck request; the accept with this vehicle does not wait any more."""

    at_ms: int
    trip: Trip


@dataclass(frozen=True, slots=True)
class TripUpdated:
    """A trip came further, or ended."""

    at_ms: int
    trip_id: TripId
    status: TripStatus


@dataclass(frozen=True, slots=True)
class Reminded:
    """The customer was reminded that time is running out."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The customer took it back or replaced it; trucks already assigned keep their trips."""

    at_ms: int
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Expired:
    """Time ran out; trucks already assigned keep their trips."""

    at_ms: int
    reason: EndReason


Event: TypeAlias = (
    Created
    | WaveSent
    | WaveHeld
    | Offered
    | Declined
    | AcceptWaiting
    | AcceptsLost
    | TruckAssigned
    | TripUpdated
    | Reminded
    | Cancelled
    | Expired
)

EVENT_TYPES: Mapping[str, type[Event]] = {
    "created": Created,
    "wave_sent": WaveSent,
    "wave_held": WaveHeld,
    "offered": Offered,
    "declined": Declined,
    "accept_waiting": AcceptWaiting,
    "accepts_lost": AcceptsLost,
    "truck_assigned": TruckAssigned,
    "trip_updated": TripUpdated,
    "reminded": Reminded,
    "cancelled": Cancelled,
    "expired": Expired,
}
"""The name each event has in the journal; names are never reused for another shape."""

EVENT_NAMES: Mapping[type[Event], str] = {event: name for name, event in EVENT_TYPES.items()}
