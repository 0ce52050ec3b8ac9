"""The state of one broadcast.

1. The state is a frozen value; `evolve(state, event)` gives the next one and is the only way to get there.
2. `seq` counts the events, so `(epoch, seq)` orders everything that is ever said about a broadcast.
3. Deadlines are absolute times in the state. Whoever holds the state can compute the next one; nothing has to be
   cancelled, because a state without a deadline has none.
4. A request that is assigned carries its trip for good: the trip outlives the broadcast.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .geo import Point
from .ids import (
    AssignmentId,
    BroadcastId,
    CustomerId,
    DriverId,
    RequestId,
    TenantId,
    TransporterId,
    TripId,
    VehicleId,
)
from .states import ACTIVE_TRIP, LIVE_BROADCAST, BroadcastStatus, EndReason, RequestStatus, TripStatus


@dataclass(frozen=True, slots=True)
class Place:
    """Where a truck is wanted or goes to."""

    lat: float
    lng: float
    address: str = ""

    @property
    def point(self) -> Point:
        """The place without its address."""
        return Point(self.lat, self.lng)


@dataclass(frozen=True, slots=True)
class Trip:
    """A confirmed truck: which request, who drives it, how far it has come."""

    trip_id: TripId
    assignment_id: AssignmentId
    request_id: RequestId
    transporter_id: TransporterId
    vehicle_id: VehicleId
    driver_id: DriverId
    vehicle_type: str
    status: TripStatus
    assigned_at_ms: int
    updated_at_ms: int

    @property
    def active(self) -> bool:
        """Whether it still occupies its driver and its vehicle."""
        return self.status in ACTIVE_TRIP


@dataclass(frozen=True, slots=True)
class TruckRequest:
    """One truck of one type. `trip` is set exactly when the status is `assigned`."""

    request_id: RequestId
    vehicle_type: str
    status: RequestStatus = RequestStatus.SEARCHING
    trip: Trip | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """That a transporter was shown the broadcast, in which wave and because of which vehicle."""

    transporter_id: TransporterId
    wave: int
    vehicle_id: VehicleId
    vehicle_type: str
    distance_m: int
    offered_at_ms: int
    declined: bool = False


@dataclass(frozen=True, slots=True)
class WaitingAccept:
    """An accept that has not been decided yet."""

    transporter_id: TransporterId
    vehicle_id: VehicleId
    vehicle_type: str
    driver_id: DriverId
    at_ms: int


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A customer's haul. Terminal states have no deadline and take no more offers or assignments."""

    tenant_id: TenantId
    broadcast_id: BroadcastId
    customer_id: CustomerId
    pickup: Place
    drop: Place
    note: str
    requests: tuple[TruckRequest, ...]
    created_at_ms: int
    expires_at_ms: int
    reminder_at_ms: int | None
    next_wave_at_ms: int | None
    wave: int = 0
    """The last wave that went out."""
    status: BroadcastStatus = BroadcastStatus.SEARCHING
    end_reason: EndReason | None = None
    ended_at_ms: int | None = None
    seq: int = 1
    notified: int = 0
    """How many transporters have been offered it so far: known also where `offers` is left empty."""
    offers: Mapping[TransporterId, Offer] = field(default_factory=dict)
    """The notified set: everybody who was ever shown the broadcast."""
    reached_m: float | None = 0.0
    """How far the farthest wave so far has reached; None: everybody."""
    wave_held: bool = False
    """The next wave was due while the tenant was paused, and is no deadline until it has gone out."""
    waiting: tuple[WaitingAccept, ...] = ()
    """In the order in which they came, each with a vehicle of its own, of a type that is still open."""
    decide_at_ms: int | None = None
    """When those that wait are decided; set exactly while some do."""

    @property
    def live(self) -> bool:
        """Whether it can still be accepted, cancelled or expire."""
        return self.status in LIVE_BROADCAST

    @property
    def open_requests(self) -> tuple[TruckRequest, ...]:
        """The trucks still wanted, in order."""
        return tuple(request for request in self.requests if request.status is RequestStatus.SEARCHING)

    @property
    def trips(self) -> tuple[Trip, ...]:
        """The trips of all assigned requests, ended ones included."""
        return tuple(request.trip for request in self.requests if request.trip is not None)

    @property
    def winners(self) -> frozenset[TransporterId]:
        """Who had a truck in it that was not cancelled, when it ended or now."""
        return frozenset(
            trip.transporter_id
            for trip in self.trips
            if trip.status is not TripStatus.CANCELLED
            or (self.ended_at_ms is not None and trip.updated_at_ms > self.ended_at_ms)
        )

    def trip(self, trip_id: TripId) -> Trip | None:
        """The trip of that id, if it belongs to this broadcast."""
        return next((trip for trip in self.trips if trip.trip_id == trip_id), None)

    def deadlines(self) -> Iterator[int]:
        """Every time at which something is due."""
        if self.live:
            yield self.expires_at_ms
            if self.reminder_at_ms is not None:
                yield self.reminder_at_ms
            if self.next_wave_at_ms is not None and not self.wave_held:
                yield self.next_wave_at_ms
            if self.decide_at_ms is not None:
                yield self.decide_at_ms
