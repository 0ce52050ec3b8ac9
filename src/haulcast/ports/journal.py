"""The durable truth, and the values that are put into it and come out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.control import TenantControl
from haulcast.domain.events import Declined, Event, Offered, TripUpdated, TruckAssigned, WaveSent
from haulcast.domain.fleet import Driver, FleetItem, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.replies import Json, Refusal, Reply
from haulcast.domain.settings import TenantSettings


class Role(StrEnum):
    """Whom a token speaks for."""

    CUSTOMER = "customer"
    TRANSPORTER = "transporter"
    DRIVER = "driver"
    OPERATOR = "operator"
    ADMIN = "admin"


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
    """Which state a write replaces: that of `seq`, under this ownership. `seq` 0 means there must be none.

    For a write without a state only the ownership counts: the owner must still be this one.
    """

    epoch: int
    incarnation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Write:
    """One actor's step, durable as a whole or not at all.

    With `state` it is a checkpoint: the new state, the events that led to it (at most one `TruckAssigned`), and the
    reply that reports them. Without, it only logs a reply, which the owner alone may give if there is a `fence`.
    `write_id` is unique: a write whose outcome was lost is submitted again and recognised.
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


@dataclass(frozen=True, slots=True, order=True)
class Ownership:
    """Whose a broadcast is: its `epoch`-th owner is the node `incarnation`."""

    epoch: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A broadcast that is to be taken over from whoever owned it at `epoch`."""

    tenant_id: TenantId
    broadcast_id: BroadcastId
    epoch: int


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """An operator's command, as the audit has it.

    `by` names the tenant that it concerns. `data` is what was asked, `changes` what it changed (by name: what it was,
    what it is). `version`: the control version that it led to; None if it was no command to a tenant. `outcome`: how
    the nodes answered; None as long as that is not known. `number` counts the records of the tenant, from 1; one that
    is not recorded yet has 0. What is JSON is read back as lists and dicts.
    """

    by: RequestKey
    fingerprint: str
    command: str
    data: Mapping[str, Json]
    at_ms: int
    version: int | None = None
    changes: Mapping[str, tuple[Json, Json]] = field(default_factory=dict)
    outcome: Mapping[str, Json] | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing was written: the tenant is not at the version before, or does not exist."""


class FleetConflict(Exception):
    """An item of a fleet change names a transporter that does not exist. `index` counts from 0."""

    def __init__(self, index: int, transporter_id: TransporterId) -> None:
        super().__init__(f"item {index}: there is no transporter {transporter_id!r}")
        self.index = index
        self.transporter_id = transporter_id


class Journal(Protocol):
    """The durable truth. Every method may raise `JournalUnavailable`, and then says nothing of what was written, or
    `JournalFault`, and then the same call would raise it again."""

    async def next_incarnation(self) -> int:
        """A number above all given before, to any node: who this process is in fences."""
        ...

    async def mark_lost(self, incarnation: int) -> None:
        """Note for good that the others have given a node up."""
        ...

    async def is_lost(self, incarnation: int) -> bool:
        """Whether the others have given a node up."""
        ...

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write all, in order, each on its own merits and each as a whole; outcomes in the same order.

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

    async def claim(self, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
        """Take broadcasts over: raise the epoch of each by one, so that whoever owned it is fenced, and load it.

        One that is not at the epoch of its claim, or does not exist, is left alone and missing from the answer.
        """
        ...

    async def claim_orphans(
        self,
        incarnation: int,
        alive: Collection[int],
        limit: int,
        *,
        share: bool = False,
        overdue_before_ms: int | None = None,
    ) -> list[Stored]:
        """Claim up to `limit` live broadcasts whose owner is not in `alive`, those due soonest first.

        With `share`, only those that fall to `incarnation` when all orphans are split among `alive` (to which it
        belongs) by rendezvous hashing: each falls to exactly one, whoever asks.
        With `overdue_before_ms`, also those of another owner that were due before that time, dead or not.
        """
        ...

    async def list_owned(self, incarnation: int) -> list[Claim]:
        """The live broadcasts that a node owns, each at its epoch. It may not have been told that a claim landed."""
        ...

    async def read_owner(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """Whose a broadcast is; None if there is no such broadcast."""
        ...

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        """A broadcast, without taking it over."""
        ...

    async def read_events(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
        """All events of a broadcast in order: event n has seq n."""
        ...

    async def list_broadcasts(self, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
        """The newest `limit` broadcasts of a tenant, or of one of its customers, newest first; `offers` of each is
        left empty."""
        ...

    async def list_board(
        self, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
    ) -> list[Stored]:
        """The broadcasts of a tenant that are live or ended after `ended_after_ms`, in order of their ids, those
        behind `after` (None: from the first), at most `limit`; `offers` of each is left empty."""
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

    async def read_fleet(
        self, tenant_id: TenantId, transporter_id: TransporterId
    ) -> tuple[list[Vehicle], list[Driver]]:
        """A transporter's vehicles and drivers, each in order of their ids; none of one that does not exist."""
        ...

    async def create_tenant(self, tenant_id: TenantId, settings: TenantSettings) -> bool:
        """Whether the tenant is new; an existing one is left as it is."""
        ...

    async def read_tenant(self, tenant_id: TenantId) -> TenantControl | None:
        """What is in force for a tenant. Settings are migrated from whatever version they were written in."""
        ...

    async def control_versions(self, tenant_ids: Collection[TenantId]) -> dict[TenantId, int]:
        """The control version of each of these tenants that exists."""
        ...

    async def record_control(self, record: ControlRecord, after: TenantControl | None) -> ControlRecord | Stale:
        """Record a command and, if it is one to a tenant, put `after` in force, both or neither: only if the tenant is
        at the version before that of `after`. Of several commands on top of one version exactly one is carried out.

        The record with its number. A command under a key that was recorded before is not carried out again: it gets
        the record from then, whatever the version and whatever was asked; compare the fingerprints. The tenant of
        a command without `after` need not exist.
        """
        ...

    async def read_control(self, key: RequestKey) -> ControlRecord | None:
        """The record of the command that came under this key."""
        ...

    async def finish_control(self, tenant_id: TenantId, number: int, outcome: Mapping[str, Json]) -> None:
        """Note how the nodes answered a command. What was noted before stays; without such a record nothing happens."""
        ...

    async def read_control_log(
        self, tenant_id: TenantId, *, before: int | None, limit: int, commands: Collection[str] | None = None
    ) -> list[ControlRecord]:
        """The newest `limit` records of a tenant, newest first: those with a number below `before` and of these
        commands, if they are given. They are kept for ever."""
        ...

    async def purge_requests(self, before_ms: int) -> int:
        """Forget logged replies from before `before_ms`; how many."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the store."""
        ...
