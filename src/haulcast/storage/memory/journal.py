"""The journal in dicts: the contract of `Journal` without durability, for simulations on virtual time.

1. No method awaits anything, so each is atomic.
2. `close` forgets nothing: the journal stands for a store that outlives the node which used it.
3. Indexes are kept as SQL would keep them: who has a live broadcast, and which active trip holds a vehicle or driver.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.control import TenantControl
from haulcast.domain.events import Event
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, TripId, VehicleId
from haulcast.domain.rendezvous import heir
from haulcast.domain.replies import Json, Refusal
from haulcast.domain.settings import TenantSettings
from haulcast.ports import (
    Claim,
    Conflict,
    ControlRecord,
    Duplicate,
    Fenced,
    FleetConflict,
    Landed,
    Outcome,
    Ownership,
    RequestKey,
    Stale,
    Stored,
    Write,
)
from haulcast.storage import documents
from haulcast.storage.control_rows import read_record, record_columns
from haulcast.storage.writes import check, next_deadline_at_ms


@dataclass(slots=True)
class _Broadcast:
    """A broadcast with its history; `writers[n]` is the write that brought event n + 1."""

    epoch: int
    owner: int
    state: Broadcast
    events: list[Event] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Logged:
    """A reply as a document, so that it is read back as every other journal would give it."""

    write_id: str
    at_ms: int
    fingerprint: str
    reply: str


class MemoryJournal:
    """`Journal` in dicts."""

    def __init__(self) -> None:
        self._incarnation = 0
        self._lost: set[int] = set()
        self._tenants: dict[TenantId, TenantControl] = {}
        self._control_log: defaultdict[TenantId, list[ControlRecord]] = defaultdict(list)  # record n has number n + 1
        self._recorded: dict[RequestKey, int] = {}  # has the number of every record
        self._transporters: dict[tuple[TenantId, TransporterId], Transporter] = {}
        self._vehicles: dict[tuple[TenantId, VehicleId], Vehicle] = {}
        self._drivers: dict[tuple[TenantId, DriverId], Driver] = {}
        self._broadcasts: dict[tuple[TenantId, BroadcastId], _Broadcast] = {}
        self._log: dict[RequestKey, _Logged] = {}
        self._live: dict[tuple[TenantId, CustomerId], BroadcastId] = {}  # has every live broadcast
        # Both have exactly the active trips.
        self._vehicle_trips: dict[tuple[TenantId, VehicleId], tuple[BroadcastId, TripId]] = {}
        self._driver_trips: dict[tuple[TenantId, DriverId], tuple[BroadcastId, TripId]] = {}
        # Only ever grows, as offers do.
        self._offered: defaultdict[tuple[TenantId, TransporterId], set[BroadcastId]] = defaultdict(set)

    async def close(self) -> None:
        """Nothing: another incarnation may go on with the same journal."""

    async def next_incarnation(self) -> int:
        self._incarnation += 1
        return self._incarnation

    # --- Commit ------------------------------------------------------------------------------------------------------

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        for write in writes:
            check(write)
        return [self._commit_one(write) for write in writes]

    def _commit_one(self, write: Write) -> Outcome:
        outcome = self._answered_before(write) or self._fenced(write) or self._conflict(write)
        if outcome is not None:
            return outcome
        if write.state is not None:
            self._write_state(write, write.state)
        if write.logged is not None:
            origin = write.logged.origin
            reply = documents.write_reply(write.logged.reply)
            self._log[origin.key] = _Logged(write.write_id, write.at_ms, origin.fingerprint, reply)
        return Landed()

    def _answered_before(self, write: Write) -> Outcome | None:
        logged = None if write.logged is None else self._log.get(write.logged.origin.key)
        if logged is None:
            return None
        if logged.write_id == write.write_id:
            return Landed()
        return Duplicate(logged.fingerprint, documents.read_reply(logged.reply))

    def _fenced(self, write: Write) -> Outcome | None:
        fence = write.fence
        if fence is None:
            return None
        found = self._broadcasts.get((write.tenant_id, write.broadcast_id))
        if found is None:
            return None if fence.seq == 0 else Fenced()
        owned = (found.epoch, found.owner) == (fence.epoch, fence.incarnation)
        if owned and (write.state is None or found.state.seq == fence.seq):
            return None
        moved_on = write.events and found.writers[fence.seq : fence.seq + 1] == [write.write_id]
        return Landed() if moved_on else Fenced()

    def _conflict(self, write: Write) -> Conflict | None:
        state = write.state
        if state is not None and state.live:
            other = self._live.get((state.tenant_id, state.customer_id), state.broadcast_id)
            if other != state.broadcast_id:
                return Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": other})
        trip = write.assigned
        return None if trip is None else self._unassignable(write.tenant_id, trip)

    def _unassignable(self, tenant_id: TenantId, trip: Trip) -> Conflict | None:
        vehicle = self._vehicles.get((tenant_id, trip.vehicle_id))
        driver = self._drivers.get((tenant_id, trip.driver_id))
        if vehicle is None or vehicle.transporter_id != trip.transporter_id:
            return Conflict(Refusal.VEHICLE_NOT_OWNED, {})
        if vehicle.vehicle_type != trip.vehicle_type:
            return Conflict(Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": vehicle.vehicle_type})
        if (tenant_id, trip.vehicle_id) in self._vehicle_trips:
            return Conflict(Refusal.VEHICLE_BUSY, {})
        if driver is None or driver.transporter_id != trip.transporter_id:
            return Conflict(Refusal.DRIVER_NOT_OWNED, {})
        if (tenant_id, trip.driver_id) in self._driver_trips:
            return Conflict(Refusal.DRIVER_BUSY, {})
        return None

    def _write_state(self, write: Write, state: Broadcast) -> None:
        assert write.fence is not None
        key = (write.tenant_id, write.broadcast_id)
        if write.fence.seq == 0:
            found = self._broadcasts[key] = _Broadcast(write.fence.epoch, write.fence.incarnation, state)
        else:
            found = self._broadcasts[key]
            found.state = state
        found.events += write.events
        found.writers += [write.write_id] * len(write.events)
        if state.live:
            self._live[state.tenant_id, state.customer_id] = state.broadcast_id
        elif self._live.get((state.tenant_id, state.customer_id)) == state.broadcast_id:
            del self._live[state.tenant_id, state.customer_id]
        for offer in write.new_offers:
            self._offered[write.tenant_id, offer.transporter_id].add(write.broadcast_id)
        if (trip := write.assigned) is not None:
            self._vehicle_trips[write.tenant_id, trip.vehicle_id] = (write.broadcast_id, trip.trip_id)
            self._driver_trips[write.tenant_id, trip.driver_id] = (write.broadcast_id, trip.trip_id)
        for update in write.trip_updates:
            trip = state.trip(update.trip_id)
            if trip is not None and not trip.active:
                self._vehicle_trips.pop((write.tenant_id, trip.vehicle_id), None)
                self._driver_trips.pop((write.tenant_id, trip.driver_id), None)

    # --- Ownership ---------------------------------------------------------------------------------------------------

    async def mark_lost(self, incarnation: int) -> None:
        self._lost.add(incarnation)

    async def is_lost(self, incarnation: int) -> bool:
        return incarnation in self._lost

    async def claim(self, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
        claimed: list[Stored] = []
        for claim in claims:
            found = self._broadcasts.get((claim.tenant_id, claim.broadcast_id))
            if found is not None and found.epoch == claim.epoch:
                claimed.append(_take(found, incarnation))
        return claimed

    async def claim_orphans(
        self,
        incarnation: int,
        alive: Collection[int],
        limit: int,
        *,
        share: bool = False,
        overdue_before_ms: int | None = None,
    ) -> list[Stored]:
        def wanted(found: _Broadcast) -> bool:
            if found.owner == incarnation:
                return False
            due_ms = next_deadline_at_ms(found.state)
            overdue = overdue_before_ms is not None and due_ms is not None and due_ms < overdue_before_ms
            if found.owner in alive and not overdue:
                return False
            return not share or heir(found.state.broadcast_id, alive) == incarnation

        live = [self._broadcasts[tenant_id, broadcast_id] for (tenant_id, _), broadcast_id in self._live.items()]
        orphans = sorted(filter(wanted, live), key=lambda found: _due(found.state))
        return [_take(found, incarnation) for found in orphans[:limit]]

    async def list_owned(self, incarnation: int) -> list[Claim]:
        live = ((tenant_id, broadcast_id) for (tenant_id, _), broadcast_id in self._live.items())
        return [Claim(*key, found.epoch) for key in live if (found := self._broadcasts[key]).owner == incarnation]

    async def read_owner(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        found = self._broadcasts.get((tenant_id, broadcast_id))
        return None if found is None else Ownership(found.epoch, found.owner)

    # --- Reads -------------------------------------------------------------------------------------------------------

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        found = self._broadcasts.get((tenant_id, broadcast_id))
        return None if found is None else Stored(found.epoch, found.state)

    async def read_events(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
        found = self._broadcasts.get((tenant_id, broadcast_id))
        return [] if found is None else list(found.events)

    async def list_broadcasts(self, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
        matching = [
            found
            for (tenant, _), found in self._broadcasts.items()
            if tenant == tenant_id and customer_id in (None, found.state.customer_id)
        ]
        matching.sort(key=lambda found: (found.state.created_at_ms, found.state.broadcast_id), reverse=True)
        return [_without_offers(found) for found in matching[:limit]]

    async def list_board(
        self, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
    ) -> list[Stored]:
        matching = [
            found
            for (tenant, broadcast_id), found in self._broadcasts.items()
            if tenant == tenant_id
            and (after is None or broadcast_id > after)
            and (found.state.ended_at_ms is None or found.state.ended_at_ms > ended_after_ms)
        ]
        matching.sort(key=lambda found: found.state.broadcast_id)
        return [_without_offers(found) for found in matching[:limit]]

    async def read_offers(
        self, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        states = (self._broadcasts[tenant_id, one].state for one in self._offered.get((tenant_id, transporter_id), ()))
        offers = [
            (replace(state, offers={}), state.offers[transporter_id])
            for state in states
            if state.ended_at_ms is None or state.ended_at_ms > ended_after_ms
        ]
        return sorted(offers, key=lambda pair: (pair[1].offered_at_ms, pair[0].broadcast_id))

    async def read_trips(
        self,
        tenant_id: TenantId,
        *,
        transporter_id: TransporterId | None = None,
        driver_id: DriverId | None = None,
    ) -> list[tuple[Broadcast, Trip]]:
        """Raises `ValueError` unless it is asked for exactly one of the two."""
        if (transporter_id is None) == (driver_id is None):
            raise ValueError("give a transporter or a driver")
        trips: list[tuple[Broadcast, Trip]] = []
        for (tenant, _), (broadcast_id, trip_id) in self._driver_trips.items():
            state = self._broadcasts[tenant, broadcast_id].state
            trip = state.trip(trip_id)
            assert trip is not None
            if tenant == tenant_id and (trip.transporter_id == transporter_id or trip.driver_id == driver_id):
                trips.append((replace(state, offers={}), trip))
        return sorted(trips, key=lambda pair: (pair[1].assigned_at_ms, pair[1].trip_id))

    async def engaged_vehicles(self) -> list[tuple[TenantId, VehicleId]]:
        return sorted(self._vehicle_trips)

    # --- Fleet, tenants ----------------------------------------------------------------------------------------------

    async def put_fleet(self, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
        known = {transporter for tenant, transporter in self._transporters if tenant == tenant_id}
        for index, item in enumerate(items):
            if isinstance(item, Transporter):
                known.add(item.transporter_id)
            elif item.transporter_id not in known:
                raise FleetConflict(index, item.transporter_id)
        for item in items:
            match item:
                case Transporter():
                    self._transporters[tenant_id, item.transporter_id] = item
                case Vehicle():
                    self._vehicles[tenant_id, item.vehicle_id] = item
                case Driver():
                    self._drivers[tenant_id, item.driver_id] = item

    async def read_vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
        return self._vehicles.get((tenant_id, vehicle_id))

    async def read_driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
        return self._drivers.get((tenant_id, driver_id))

    async def read_fleet(
        self, tenant_id: TenantId, transporter_id: TransporterId
    ) -> tuple[list[Vehicle], list[Driver]]:
        vehicles = [each for (tenant, _), each in sorted(self._vehicles.items()) if tenant == tenant_id]
        drivers = [each for (tenant, _), each in sorted(self._drivers.items()) if tenant == tenant_id]
        return (
            [vehicle for vehicle in vehicles if vehicle.transporter_id == transporter_id],
            [driver for driver in drivers if driver.transporter_id == transporter_id],
        )

    async def create_tenant(self, tenant_id: TenantId, settings: TenantSettings) -> bool:
        if tenant_id in self._tenants:
            return False
        self._tenants[tenant_id] = TenantControl(settings)
        return True

    async def read_tenant(self, tenant_id: TenantId) -> TenantControl | None:
        return self._tenants.get(tenant_id)

    # --- What operators do -------------------------------------------------------------------------------------------

    async def control_versions(self, tenant_ids: Collection[TenantId]) -> dict[TenantId, int]:
        return {tenant_id: found.version for tenant_id in tenant_ids if (found := self._tenants.get(tenant_id))}

    async def record_control(self, record: ControlRecord, after: TenantControl | None) -> ControlRecord | Stale:
        tenant_id = record.by.tenant_id
        log = self._control_log[tenant_id]
        if (number := self._recorded.get(record.by)) is not None:
            return log[number - 1]
        # As every other journal would read it back.
        recorded = read_record(len(log) + 1, record_columns(record))
        if after is not None:
            found = self._tenants.get(tenant_id)
            if found is None or found.version != after.version - 1:
                return Stale()
            self._tenants[tenant_id] = after
        log.append(recorded)
        self._recorded[record.by] = recorded.number
        return recorded

    async def read_control(self, key: RequestKey) -> ControlRecord | None:
        number = self._recorded.get(key)
        return None if number is None else self._control_log[key.tenant_id][number - 1]

    async def finish_control(self, tenant_id: TenantId, number: int, outcome: Mapping[str, Json]) -> None:
        log = self._control_log[tenant_id]
        if 1 <= number <= len(log) and log[number - 1].outcome is None:
            finished = replace(log[number - 1], outcome=outcome)
            log[number - 1] = read_record(number, record_columns(finished))

    async def read_control_log(
        self, tenant_id: TenantId, *, before: int | None, limit: int, commands: Collection[str] | None = None
    ) -> list[ControlRecord]:
        wanted = (
            record
            for record in reversed(self._control_log[tenant_id])
            if (before is None or record.number < before) and (commands is None or record.command in commands)
        )
        return list(islice(wanted, limit))

    # --- Request log -------------------------------------------------------------------------------------------------

    async def purge_requests(self, before_ms: int) -> int:
        old = [key for key, logged in self._log.items() if logged.at_ms < before_ms]
        for key in old:
            del self._log[key]
        return len(old)


def _take(found: _Broadcast, incarnation: int) -> Stored:
    found.epoch += 1
    found.owner = incarnation
    return Stored(found.epoch, found.state)


def _without_offers(found: _Broadcast) -> Stored:
    return Stored(found.epoch, replace(found.state, offers={}))


def _due(state: Broadcast) -> tuple[int, TenantId, BroadcastId]:
    due_ms = next_deadline_at_ms(state)
    assert due_ms is not None  # it is live
    return due_ms, state.tenant_id, state.broadcast_id
