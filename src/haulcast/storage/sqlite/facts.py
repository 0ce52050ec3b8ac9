"""What a batch of writes has to know before it is judged.

It is asked for in three queries, however many writes there are, and kept up to date here as the writes of the batch
land. Each statement also lets go of the interpreter and must get it back from an event loop that may be busy, so few
are better than many: a write of a batch of 256 costs 90 us of CPU like this, and 120 to 150 us with a statement for
each question and each row (`bench/journal.py`, assigned).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from haulcast.domain.broadcast import Broadcast, Trip
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.ports import LoggedReply, Write

from . import queries

Request: TypeAlias = tuple[TenantId, str, str, str]
Key: TypeAlias = tuple[TenantId, BroadcastId]


@dataclass(frozen=True, slots=True)
class Logged:
    """A reply that is in the log, as a document."""

    write_id: str
    fingerprint: str
    reply: str


@dataclass(frozen=True, slots=True)
class Position:
    """Where a broadcast is: what a fence is compared with, and whether it is live."""

    epoch: int
    owner: int
    seq: int
    live: bool


@dataclass(slots=True)
class Facts:
    """What is not in here does not exist, is not busy or has no live broadcast."""

    replies: dict[Request, Logged] = field(default_factory=dict)
    positions: dict[Key, Position] = field(default_factory=dict)
    live: dict[tuple[TenantId, CustomerId], BroadcastId] = field(default_factory=dict)
    vehicles: dict[tuple[TenantId, VehicleId], tuple[TransporterId, str]] = field(default_factory=dict)
    drivers: dict[tuple[TenantId, DriverId], TransporterId] = field(default_factory=dict)
    busy_vehicles: set[tuple[TenantId, VehicleId]] = field(default_factory=set)
    busy_drivers: set[tuple[TenantId, DriverId]] = field(default_factory=set)
    writers: dict[tuple[Key, int], str] = field(default_factory=dict)
    """Which write of this batch brought event `seq`."""

    def note(self, write: Write, reply: str | None) -> None:
        """`write` lands; `reply` is the document of what it logs."""
        if write.logged is not None and reply is not None:
            logged = Logged(write.write_id, write.logged.origin.fingerprint, reply)
            self.replies[request(write.logged)] = logged
        if write.state is not None and write.fence is not None:
            self._note_state(write, write.state, write.fence.epoch, write.fence.incarnation, write.fence.seq)

    def _note_state(self, write: Write, state: Broadcast, epoch: int, owner: int, seq: int) -> None:
        key = (write.tenant_id, write.broadcast_id)
        self.positions[key] = Position(epoch, owner, state.seq, state.live)
        for number in range(seq + 1, state.seq + 1):
            self.writers[key, number] = write.write_id
        customer = (write.tenant_id, state.customer_id)
        if state.live:
            self.live[customer] = state.broadcast_id
        elif self.live.get(customer) == state.broadcast_id:
            del self.live[customer]
        for trip in touched_trips(write, state):
            if trip.active:
                self.busy_vehicles.add((write.tenant_id, trip.vehicle_id))
                self.busy_drivers.add((write.tenant_id, trip.driver_id))
            else:
                self.busy_vehicles.discard((write.tenant_id, trip.vehicle_id))
                self.busy_drivers.discard((write.tenant_id, trip.driver_id))


def gather(connection: sqlite3.Connection, writes: Sequence[Write]) -> Facts:
    """What the database says. Call it within the transaction that the writes land in."""
    facts = Facts()
    requests = [request(write.logged) for write in writes if write.logged is not None]
    for *key, write_id, fingerprint, reply in _ask(connection, queries.LOGGED_REPLIES, requests):
        tenant_id, role, user_id, request_id = key
        facts.replies[tenant_id, role, user_id, request_id] = Logged(write_id, fingerprint, reply)

    positions = [
        (write.tenant_id, write.broadcast_id, None if write.state is None else write.state.customer_id)
        for write in writes
        if write.fence is not None
    ]
    for tenant_id, broadcast_id, customer_id, epoch, owner, seq, live, other in _ask(
        connection, queries.POSITIONS, positions
    ):
        if epoch is not None:
            facts.positions[tenant_id, broadcast_id] = Position(epoch, owner, seq, bool(live))
        if other is not None:
            facts.live[tenant_id, customer_id] = other

    trips = [(write.tenant_id, trip.vehicle_id, trip.driver_id) for write in writes if (trip := write.assigned)]
    for tenant_id, vehicle_id, driver_id, owner, vehicle_type, vehicle_busy, employer, driver_busy in _ask(
        connection, queries.ASSIGNABLE, trips
    ):
        if owner is not None:
            facts.vehicles[tenant_id, vehicle_id] = (owner, vehicle_type)
        if employer is not None:
            facts.drivers[tenant_id, driver_id] = employer
        if vehicle_busy:
            facts.busy_vehicles.add((tenant_id, vehicle_id))
        if driver_busy:
            facts.busy_drivers.add((tenant_id, driver_id))
    return facts


def request(logged: LoggedReply) -> Request:
    """The key of the request log."""
    key = logged.origin.key
    return key.tenant_id, key.role.value, key.user_id, key.request_id


def touched_trips(write: Write, state: Broadcast) -> list[Trip]:
    """The trips that the events made or moved, as they are after all of them."""
    made = [] if write.assigned is None else [write.assigned.trip_id]
    ids = dict.fromkeys([*made, *(update.trip_id for update in write.trip_updates)])
    return [trip for trip_id in ids if (trip := state.trip(trip_id)) is not None]


def _ask(connection: sqlite3.Connection, query: str, keys: Sequence[tuple[str | None, ...]]) -> list[list[Any]]:
    """The rows of a query that takes many keys as JSON and answers with all rows as one JSON array."""
    if not keys:
        return []
    (answer,) = connection.execute(query, {"keys": orjson.dumps(list(dict.fromkeys(keys))).decode()}).fetchone()
    rows: list[list[Any]] = orjson.loads(answer)
    return rows
