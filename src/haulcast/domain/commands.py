"""Everything a broadcast's actor can be asked to do. Frozen values: what arrives is what was sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .broadcast import Place
from .geo import Point
from .ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, TripId, VehicleId
from .ranking import Candidate, LeftOut
from .replies import Refusal
from .states import EndReason, TripStatus


@dataclass(frozen=True, slots=True)
class TruckSpec:
    """How many trucks of one vehicle type are wanted."""

    vehicle_type: str
    count: int


@dataclass(frozen=True, slots=True)
class Create:
    """A customer broadcasts a haul."""

    tenant_id: TenantId
    broadcast_id: BroadcastId
    customer_id: CustomerId
    pickup: Place
    drop: Place
    trucks: tuple[TruckSpec, ...]
    expires_in_s: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """The customer takes the broadcast back, or has it replaced by another one."""

    customer_id: CustomerId
    reason: EndReason = EndReason.CUSTOMER_CANCELLED


@dataclass(frozen=True, slots=True)
class Accept:
    """A transporter wants one truck request.

    `vehicle_type` is what the fleet said last, None if it knew no such vehicle of theirs; the write checks it again.
    """

    transporter_id: TransporterId
    vehicle_id: VehicleId
    vehicle_type: str | None
    driver_id: DriverId


@dataclass(frozen=True, slots=True)
class Decline:
    """A transporter does not want this offer."""

    transporter_id: TransporterId


@dataclass(frozen=True, slots=True)
class UpdateTrip:
    """The transporter of a trip, or its driver if `by_driver`, reports how far it has come.

    A driver and a transporter may have the same id without being the same person.
    """

    user_id: TransporterId | DriverId
    trip_id: TripId
    status: TripStatus
    by_driver: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline of the state has come."""


@dataclass(frozen=True, slots=True)
class SendWave:
    """The candidates for `wave` have been found: up to `limit` of them within `radius_m`. `more` says whether there
    were more than that.

    `left_out`: the nearest of those who are not among them.
    """

    wave: int
    radius_m: float | None
    limit: int
    candidates: tuple[Candidate, ...]
    more: bool
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class Appear:
    """A transporter has come online near a live broadcast."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Match:
    """The accepts that wait are to be decided, by where their vehicles are now, as far as that is known."""

    positions: Mapping[VehicleId, Point]


@dataclass(frozen=True, slots=True)
class DropAccept:
    """The accept with this vehicle was to win, and the journal refused it with `code`. `positions` as in `Match`."""

    vehicle_id: VehicleId
    code: Refusal
    positions: Mapping[VehicleId, Point]


Command: TypeAlias = Create | Cancel | Accept | Decline | UpdateTrip | Tick | SendWave | Appear | Match | DropAccept
