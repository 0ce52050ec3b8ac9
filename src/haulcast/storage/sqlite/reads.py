"""Rows become domain values. Every function sees one commit of the database throughout."""

import sqlite3
from dataclasses import replace
from typing import Any

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.events import Event
from haulcast.domain.fleet import Driver, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, TripId, VehicleId
from haulcast.ports import Claim, Ownership, Stored
from haulcast.storage import documents

from . import queries
from .database import snapshot


def stored(connection: sqlite3.Connection, epoch: int, document: str) -> Stored:
    """A broadcast with its offers. Call it within the transaction that read `document`."""
    state = documents.read_state(document)
    rows = connection.execute(
        queries.OFFERS_OF_BROADCAST, {"tenant_id": state.tenant_id, "broadcast_id": state.broadcast_id}
    )
    offers = {offer.transporter_id: offer for offer in (_offer(*row) for row in rows)}
    return Stored(epoch, replace(state, offers=offers))


def read_broadcast(connection: sqlite3.Connection, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
    with snapshot(connection):
        row = connection.execute(queries.BROADCAST, {"tenant_id": tenant_id, "broadcast_id": broadcast_id}).fetchone()
        return None if row is None else stored(connection, *row)


def list_owned(connection: sqlite3.Connection, incarnation: int) -> list[Claim]:
    return [Claim(*row) for row in connection.execute(queries.OWNED, {"owner": incarnation})]


def read_owner(connection: sqlite3.Connection, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
    row = connection.execute(queries.OWNER, {"tenant_id": tenant_id, "broadcast_id": broadcast_id}).fetchone()
    return None if row is None else Ownership(*row)


def is_lost(connection: sqlite3.Connection, incarnation: int) -> bool:
    return connection.execute(queries.LOST, {"incarnation": incarnation}).fetchone() is not None


def read_events(connection: sqlite3.Connection, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
    rows = connection.execute(queries.EVENTS_OF_BROADCAST, {"tenant_id": tenant_id, "broadcast_id": broadcast_id})
    return [documents.read_event(name, body) for name, body in rows]


def list_broadcasts(
    connection: sqlite3.Connection, tenant_id: TenantId, customer_id: str | None, limit: int
) -> list[Stored]:
    query = queries.NEWEST_BROADCASTS if customer_id is None else queries.NEWEST_BROADCASTS_OF_CUSTOMER
    parameters = {"tenant_id": tenant_id, "customer_id": customer_id, "limit": limit}
    rows = connection.execute(query, parameters)
    return [Stored(epoch, documents.read_state(document)) for epoch, document in rows]


def list_board(
    connection: sqlite3.Connection, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
) -> list[Stored]:
    rows = connection.execute(
        queries.BOARD,
        {"tenant_id": tenant_id, "ended_after_ms": ended_after_ms, "after": after or "", "limit": limit},
    )
    return [Stored(epoch, documents.read_state(document)) for epoch, document in rows]


def read_offers(
    connection: sqlite3.Connection, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
) -> list[tuple[Broadcast, Offer]]:
    rows = connection.execute(
        queries.OFFERS_OF_TRANSPORTER,
        {"tenant_id": tenant_id, "transporter_id": transporter_id, "ended_after_ms": ended_after_ms},
    )
    return [(documents.read_state(document), _offer(*offer)) for document, *offer in rows]


def read_trips(
    connection: sqlite3.Connection,
    tenant_id: TenantId,
    transporter_id: TransporterId | None,
    driver_id: DriverId | None,
) -> list[tuple[Broadcast, Trip]]:
    if driver_id is None:
        query, user_id = queries.ACTIVE_TRIPS_OF_TRANSPORTER, str(transporter_id)
    else:
        query, user_id = queries.ACTIVE_TRIPS_OF_DRIVER, str(driver_id)
    rows = connection.execute(query, {"tenant_id": tenant_id, "user_id": user_id})
    return [_trip(documents.read_state(document), trip_id) for document, trip_id in rows]


def engaged_vehicles(connection: sqlite3.Connection) -> list[tuple[TenantId, VehicleId]]:
    return connection.execute(queries.ENGAGED_VEHICLES).fetchall()


def read_vehicle(connection: sqlite3.Connection, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
    row = connection.execute(queries.VEHICLE, {"tenant_id": tenant_id, "vehicle_id": vehicle_id}).fetchone()
    return None if row is None else Vehicle(*row)


def read_driver(connection: sqlite3.Connection, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
    row = connection.execute(queries.DRIVER, {"tenant_id": tenant_id, "driver_id": driver_id}).fetchone()
    return None if row is None else Driver(*row)


def read_fleet(
    connection: sqlite3.Connection, tenant_id: TenantId, transporter_id: TransporterId
) -> tuple[list[Vehicle], list[Driver]]:
    rows = connection.execute(queries.FLEET, {"tenant_id": tenant_id, "transporter_id": transporter_id}).fetchall()
    return (
        [Vehicle(id_, transporter_id, more) for is_driver, id_, more in rows if not is_driver],
        [Driver(id_, transporter_id, more) for is_driver, id_, more in rows if is_driver],
    )


def _offer(
    transporter_id: Any,
    wave: int,
    vehicle_id: Any,
    vehicle_type: str,
    distance_m: int,
    offered_at_ms: int,
    declined: int,
) -> Offer:
    return Offer(transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, bool(declined))


def _trip(state: Broadcast, trip_id: TripId) -> tuple[Broadcast, Trip]:
    trip = state.trip(trip_id)
    if trip is None:
        raise documents.Unreadable(f"broadcast {state.broadcast_id} does not have its trip {trip_id}")
    return state, trip
