"""Broadcasts for the tests of journals: what an actor would have its journal write."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from haulcast.domain.broadcast import Broadcast, Offer, Place, Trip
from haulcast.domain.events import (
    Cancelled,
    Created,
    Declined,
    Event,
    Expired,
    Offered,
    TripUpdated,
    TruckAssigned,
    WaveSent,
)
from haulcast.domain.evolve import evolve
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import (
    BroadcastId,
    CustomerId,
    DriverId,
    TenantId,
    TransporterId,
    VehicleId,
    assignment_id,
    request_id,
    trip_id,
)
from haulcast.domain.ranking import LeftOut, LeftOutReason
from haulcast.domain.replies import Done, Reply
from haulcast.domain.states import EndReason, TripStatus
from haulcast.ports import (
    Claim,
    Fence,
    Journal,
    Landed,
    LoggedReply,
    Origin,
    Outcome,
    RequestKey,
    Role,
    Stored,
    Write,
)

ACME = TenantId("acme")
OTHER = TenantId("other")
B1, C1 = BroadcastId("b1"), CustomerId("c1")
NOW_MS = 1_790_000_000_000
TRUCK = "truck_14ft"

_numbers = count(1)

FLEET: tuple[FleetItem, ...] = tuple(
    item
    for n in (1, 2)
    for item in (
        Transporter(TransporterId(f"t{n}"), f"Transporter {n}"),
        Vehicle(VehicleId(f"t{n}v1"), TransporterId(f"t{n}"), TRUCK),
        Vehicle(VehicleId(f"t{n}v2"), TransporterId(f"t{n}"), TRUCK),
        Vehicle(VehicleId(f"t{n}van"), TransporterId(f"t{n}"), "van"),
        Driver(DriverId(f"t{n}d1"), TransporterId(f"t{n}"), "Asha"),
        Driver(DriverId(f"t{n}d2"), TransporterId(f"t{n}"), "Ravi"),
    )
)
"""Two transporters, each with two trucks, a van and two drivers."""


def logged(
    request: str, reply: Reply | None = None, *, user: str = "c1", tenant: TenantId = ACME, fingerprint: str = "f"
) -> LoggedReply:
    """A reply to the customer's request of that id."""
    key = RequestKey(tenant, Role.CUSTOMER, user, request)
    return LoggedReply(Origin(key, fingerprint), Done({"n": 1, "list": ["a", None]}) if reply is None else reply)


def log_only(reply: LoggedReply, write_id: str | None = None, *, at_ms: int = NOW_MS) -> Write:
    """A write without a state."""
    return Write(write_id or fresh_id(), at_ms, reply.origin.key.tenant_id, B1, logged=reply)


def fresh_id() -> str:
    """A write id that no other write has."""
    return f"w{next(_numbers)}"


@dataclass
class Haul:
    """A broadcast as its owner knows it; `epoch` and `incarnation` are who the owner believes to be."""

    broadcast_id: BroadcastId = B1
    customer_id: CustomerId = C1
    tenant_id: TenantId = ACME
    trucks: int = 2
    vehicle_type: str = TRUCK
    at_ms: int = NOW_MS
    epoch: int = 1
    incarnation: int = 1
    state: Broadcast | None = None

    def write(self, *events: Event, reply: LoggedReply | None = None, write_id: str | None = None) -> Write:
        """The checkpoint that these events lead to from here; the haul itself stays where it is."""
        state = self.state
        for event in events:
            state = evolve(state, event)
        return Write(
            write_id or fresh_id(),
            self.at_ms,
            self.tenant_id,
            self.broadcast_id,
            reply,
            Fence(self.epoch, self.incarnation, 0 if self.state is None else self.state.seq),
            state,
            events,
        )

    def step(self, *events: Event, reply: LoggedReply | None = None) -> Write:
        """The same, and the haul goes on from there."""
        write = self.write(*events, reply=reply)
        self.state = write.state
        return write

    @property
    def stored(self) -> Stored:
        """What a journal should say of it."""
        assert self.state is not None
        return Stored(self.epoch, self.state)

    def claim(self, epoch: int | None = None) -> Claim:
        """To take it over from whoever owned it at the epoch: this owner, unless another is named."""
        return Claim(self.tenant_id, self.broadcast_id, self.epoch if epoch is None else epoch)

    def created(self, expires_in_ms: int = 300_000) -> Created:
        return Created(
            self.at_ms,
            self.tenant_id,
            self.broadcast_id,
            self.customer_id,
            Place(19.0, 72.8, "Dock 1"),
            Place(18.5, 73, "Ærø, 1st floor"),
            (self.vehicle_type,) * self.trucks,
            self.at_ms + expires_in_ms,
            self.at_ms + expires_in_ms - 60_000,
            "two pallets",
        )

    def offer(self, transporter: str, *, wave: int = 1, distance_m: int = 900) -> Offer:
        vehicle_id = VehicleId(f"{transporter}v1")
        return Offer(TransporterId(transporter), wave, vehicle_id, self.vehicle_type, distance_m, self.at_ms)

    def wave(self, *transporters: str, wave: int = 1) -> WaveSent:
        offers = tuple(self.offer(one, wave=wave, distance_m=n) for n, one in enumerate(transporters))
        return WaveSent(self.at_ms, wave, offers, self.at_ms + 15_000, 10_000.0, (self.left_out(),))

    def left_out(self) -> LeftOut:
        """Somebody whom every wave leaves out."""
        return LeftOut(9_500, TransporterId("t9"), VehicleId("t9v1"), self.vehicle_type, LeftOutReason.ON_TRIP)

    def offered(self, transporter: str) -> Offered:
        return Offered(self.at_ms, self.offer(transporter))

    def declined(self, transporter: str) -> Declined:
        return Declined(self.at_ms, TransporterId(transporter))

    def assigned(self, number: int, transporter: str, vehicle: str = "v1", driver: str = "d1") -> TruckAssigned:
        """The `number`-th truck goes to the transporter's vehicle and driver: "v1" is t1's t1v1."""
        return self.assigned_to(number, transporter, f"{transporter}{vehicle}", f"{transporter}{driver}")

    def assigned_to(self, number: int, transporter: str, vehicle_id: str, driver_id: str) -> TruckAssigned:
        request = request_id(self.broadcast_id, number)
        trip = Trip(
            trip_id(request),
            assignment_id(request),
            request,
            TransporterId(transporter),
            VehicleId(vehicle_id),
            DriverId(driver_id),
            self.vehicle_type,
            TripStatus.ASSIGNED,
            self.at_ms,
            self.at_ms,
        )
        return TruckAssigned(self.at_ms, trip)

    def trip(self, number: int, status: TripStatus) -> TripUpdated:
        return TripUpdated(self.at_ms, trip_id(request_id(self.broadcast_id, number)), status)

    def cancelled(self) -> Cancelled:
        return Cancelled(self.at_ms, EndReason.CUSTOMER_CANCELLED)

    def expired(self) -> Expired:
        return Expired(self.at_ms, EndReason.NO_VEHICLES_AVAILABLE)


async def land(journal: Journal, *writes: Write) -> None:
    """Commit, and all of it lands."""
    assert await journal.commit(writes) == [Landed()] * len(writes)


async def only(journal: Journal, write: Write) -> Outcome:
    """The outcome of a batch of one."""
    (outcome,) = await journal.commit([write])
    return outcome


def another(number: int, *, tenant: TenantId = ACME, trucks: int = 2, at_ms: int = NOW_MS) -> Haul:
    """The haul `b{number}` of the customer `c{number}`."""
    return Haul(BroadcastId(f"b{number}"), CustomerId(f"c{number}"), tenant, trucks=trucks, at_ms=at_ms)


def ids(stored: Iterable[Stored]) -> list[str]:
    """Which broadcasts these are."""
    return [one.state.broadcast_id for one in stored]


async def searching(journal: Journal, number: int = 1, *, trucks: int = 2) -> Haul:
    """A haul that t1 and t2 have been offered."""
    haul = another(number, trucks=trucks)
    await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1", "t2")))
    return haul


async def nothing_of(journal: Journal, write: Write) -> bool:
    """Whether neither the write's reply nor its trip is there."""
    if write.logged is not None:
        probe = log_only(write.logged)
        if await only(journal, probe) != Landed():
            return False
    trip = write.assigned
    trips = [] if trip is None else await journal.read_trips(write.tenant_id, transporter_id=trip.transporter_id)
    return trip not in [found for _, found in trips]
