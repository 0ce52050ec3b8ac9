"""What the parts of haulcast ask of each other, and what they may rely on.

    transport --Dispatcher, Availability--> actors --Journal, Presence, Clock--> storage
    actors --Publisher--> transport

Actors, transport and storage know these protocols and the domain, and nothing of one another; `app` wires them.
"""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from .domain.broadcast import Broadcast, Offer, Trip
from .domain.commands import Command, Create
from .domain.effects import Effect
from .domain.events import Declined, Event, Offered, TripUpdated, TruckAssigned, WaveSent
from .domain.fleet import Driver, FleetItem, Vehicle
from .domain.geo import Point
from .domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from .domain.ranking import Candidate
from .domain.replies import Json, Refusal, Reply
from .domain.settings import TenantSettings


class Clock(Protocol):
    """Time. Sleeping is the event loop's: a simulation runs on a loop whose time is virtual."""

    def now_ms(self) -> int:
        """Wall time, milliseconds since 1970. May step when the machine's clock is corrected."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never step back, from an arbitrary start; for durations."""
        ...


class Role(StrEnum):
    """Whom a token speaks for."""

    CUSTOMER = "customer"
    TRANSPORTER = "transporter"
    DRIVER = "driver"
    OPERATOR = "operator"
    ADMIN = "admin"


# --- Journal ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The idempotency key of a command: a client's own id, in its own name space."""

    tenant_id: TenantId
    role: Role
    user_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a command came from. `fingerprint` is a digest of its type and content: a key reused for another
    command is refused."""

    key: RequestKey
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LoggedReply:
    """A final answer, kept for 24 hours so that the same request is answered the same."""

    origin: Origin
    reply: Reply


@dataclass(frozen=True, slots=True)
class Fence:
    """Which state a write replaces: that of `seq`, under this ownership. `seq` 0 means there must be none."""

    epoch: int
    incarnation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Write:
    """One actor's step, durable as a whole or not at all.

    With `state` it is a checkpoint: the new state, the events that led to it (at most one `TruckAssigned`), and the
    reply that reports them. Without, it only logs a reply. `write_id` is unique: a write whose outcome was lost is
    submitted again and recognised.
    """

    write_id: str
    at_ms: int
    tenant_id: TenantId
    broadcast_id: BroadcastId
    logged: LoggedReply | None = None
    fence: Fence | None = None
    state: Broadcast | None = None
    events: tuple[Event, ...] = ()

    @property
    def new_offers(self) -> tuple[Offer, ...]:
        """The offers that the events made."""
        offers: list[Offer] = []
        for event in self.events:
            if isinstance(event, WaveSent):
                offers += event.offers
            elif isinstance(event, Offered):
                offers.append(event.offer)
        return tuple(offers)

    @property
    def declined_by(self) -> tuple[TransporterId, ...]:
        """Who declined in the events."""
        return tuple(event.transporter_id for event in self.events if isinstance(event, Declined))

    @property
    def assigned(self) -> Trip | None:
        """The one assignment that the events made, if any."""
        return next((event.trip for event in self.events if isinstance(event, TruckAssigned)), None)

    @property
    def trip_updates(self) -> tuple[TripUpdated, ...]:
        """The trips that came further."""
        return tuple(event for event in self.events if isinstance(event, TripUpdated))


@dataclass(frozen=True, slots=True)
class Landed:
    """The write is durable."""


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing was written: the broadcast has another owner or another state than the fence says."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written: something outside the broadcast forbids it."""

    code: Refusal
    data: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Nothing was written: the request was answered before."""

    fingerprint: str
    reply: Reply


Outcome: TypeAlias = Landed | Fenced | Conflict | Duplicate


@dataclass(frozen=True, slots=True)
class Stored:
    """A broadcast as the journal has it. `(epoch, state.seq)` is its version."""

    epoch: int
    state: Broadcast


class FleetConflict(Exception):
    """An item of a fleet change names a transporter that does not exist. `index` counts from 0."""

    def __init__(self, index: int, transporter_id: TransporterId) -> None:
        super().__init__(f"item {index}: there is no transporter {transporter_id!r}")
        self.index = index
        self.transporter_id = transporter_id


class Journal(Protocol):
    """The durable truth. Every method may raise `JournalUnavailable`, and then says nothing of what was written, or
    `JournalFault`, and then nothing was."""

    async def next_incarnation(self) -> int:
        """A number never given before: who this process is in fences."""
        ...

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write all in one transaction, in order, each on its own merits; outcomes in the same order.

        A write sees those before it. For each, the first of these that applies is its outcome:
        a reply logged under its key -> `Duplicate` (unless that reply is its own, by `write_id`: `Landed`);
        fence does not match -> `Fenced` (unless it was this very write that moved on: `Landed`);
        the customer has another live broadcast -> `Conflict(ACTIVE_BROADCAST_EXISTS, {"broadcast_id"})`;
        the assignment's vehicle is not the transporter's, has another type, is on an active trip, its driver is not
        the transporter's, is on an active trip -> `Conflict` with VEHICLE_NOT_OWNED, VEHICLE_TYPE_MISMATCH,
        VEHICLE_BUSY, DRIVER_NOT_OWNED, DRIVER_BUSY in this order; else `Landed`.
        When it returns, what landed survives the loss of power.
        """
        ...

    async def claim(self, tenant_id: TenantId, broadcast_id: BroadcastId, incarnation: int) -> Stored | None:
        """Take a broadcast over: raise its epoch by one, so that whoever owned it is fenced, and load it."""
        ...

    async def claim_orphans(self, incarnation: int, limit: int) -> list[Stored]:
        """Claim up to `limit` live broadcasts that another incarnation owns, those due soonest first."""
        ...

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        """A broadcast, without taking it over."""
        ...

    async def read_events(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
        """All events of a broadcast in order: event n has seq n."""
        ...

    async def list_broadcasts(self, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
        """The newest `limit` broadcasts of a tenant, or of one of its customers, newest first."""
        ...

    async def read_offers(
        self, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        """A transporter's offers whose broadcast is live or ended after `ended_after_ms`; `offers` of each
        broadcast is left empty."""
        ...

    async def read_trips(
        self,
        tenant_id: TenantId,
        *,
        transporter_id: TransporterId | None = None,
        driver_id: DriverId | None = None,
    ) -> list[tuple[Broadcast, Trip]]:
        """The active trips of a transporter or of a driver; `offers` of each broadcast is left empty."""
        ...

    async def engaged_vehicles(self) -> list[tuple[TenantId, VehicleId]]:
        """Every vehicle that is on an active trip."""
        ...

    async def put_fleet(self, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
        """Create or replace all of them, in order, or none. Raises `FleetConflict`."""
        ...

    async def read_vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None: ...

    async def read_driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None: ...

    async def create_tenant(self, tenant_id: TenantId, settings: TenantSettings) -> bool:
        """Whether the tenant is new; an existing one is left as it is."""
        ...

    async def read_tenant(self, tenant_id: TenantId) -> TenantSettings | None: ...

    async def purge_requests(self, before_ms: int) -> int:
        """Forget logged replies from before `before_ms`; how many."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the store."""
        ...


# --- Presence --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nearby:
    """The answer to a lookup: nearest first. `left_out`: more would have matched."""

    candidates: tuple[Candidate, ...]
    left_out: bool


class Presence(Protocol):
    """Who is online and where their vehicles are. Hints with a time to live, never the truth: a crash may lose all.

    A vehicle can be found while its own position is younger than 60 s, its transporter was heard of in the last
    120 s and is online, and it is not engaged in a trip.
    """

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Whether that changed anything."""
        ...

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Whether that changed anything."""
        ...

    async def is_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Whether the transporter is online and was heard of in the last 120 s."""
        ...

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """The transporter is still there. Does not bring anybody online."""
        ...

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> bool:
        """Where a vehicle is. Whether it had no position, or only one too old, or was another's or of another type,
        until now."""
        ...

    def engage(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """The vehicle is on a trip."""
        ...

    def release(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """The vehicle's trip has ended."""
        ...

    async def available(self, tenant_id: TenantId, transporter_id: TransporterId) -> list[tuple[Vehicle, Point]]:
        """A transporter's vehicles that can be found now, with their positions."""
        ...

    async def nearest(
        self,
        tenant_id: TenantId,
        center: Point,
        *,
        vehicle_types: Collection[str],
        radius_m: float | None,
        exclude: Collection[TransporterId],
        limit: int,
    ) -> Nearby:
        """The `limit` nearest transporters with a vehicle that can be found, each once with its nearest vehicle."""
        ...


# --- Between transport and actors ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What became durable of one broadcast, and what is to be said about it. `before` is None when it is new."""

    epoch: int
    before: Broadcast | None
    after: Broadcast
    effects: tuple[Effect, ...]


class Publisher(Protocol):
    """Tells clients. Called once for each durable change, in the order of the broadcast's versions."""

    def publish(self, change: Change) -> None:
        """Hand the change to whoever is connected and concerned. Never blocks, never raises for a client's sake."""
        ...


class Dispatcher(Protocol):
    """Carries commands to the actors. A future ends with the reply once it is durable, or with `RequestError`
    (BUSY, DRAINING, UNAVAILABLE, INTERNAL). Cancelling a future does not take the command back."""

    def create(self, command: Create, origin: Origin) -> "asyncio.Future[Reply]":
        """Start a broadcast under the id that the command carries."""
        ...

    def ask(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin
    ) -> "asyncio.Future[Reply]":
        """Have the broadcast's actor handle `command`."""
        ...


class Availability(Protocol):
    """Transporters coming, going and moving."""

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Mark the transporter online and offer it the live broadcasts that match. Whether it was offline.
        Raises `RequestError(TOO_MANY_TOGGLES)`."""
        ...

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Mark the transporter offline. Whether it was online. Raises `RequestError(TOO_MANY_TOGGLES)`."""
        ...

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> None:
        """Note where a vehicle is, and offer it the live broadcasts that match if it had no position before."""
        ...

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """Anything at all came from the transporter's connection."""
        ...
