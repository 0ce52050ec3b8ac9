"""Rows become domain values. Every function is one statement, and so sees one commit of the database throughout."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import orjson
import structlog

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.events import Event
from haulcast.domain.fleet import Driver, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, TripId, VehicleId
from haulcast.ports import Ownership, Stored
from haulcast.storage import documents

from . import queries
from .connections import Link

log = structlog.get_logger()


def stored(row: asyncpg.Record, offers: str | None) -> Stored:
    """A broadcast out of its row; `offers` as a query gives them, None for none."""
    state = documents.read_state(row["state"])
    made = (_offer(*one) for one in orjson.loads(offers)) if offers else ()
    return Stored(row["epoch"], replace(state, offers={offer.transporter_id: offer for offer in made}))


async def read_owner(link: Link, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
    rows = await link.fetch(queries.OWNER, tenant_id, broadcast_id)
    return Ownership(rows[0]["epoch"], rows[0]["owner"]) if rows else None


async def read_broadcast(link: Link, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
    rows = await link.fetch(queries.BROADCAST, tenant_id, broadcast_id)
    return stored(rows[0], rows[0]["offers"]) if rows else None


async def read_events(link: Link, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
    rows = await link.fetch(queries.EVENTS_OF_BROADCAST, tenant_id, broadcast_id)
    return [documents.read_event(row["name"], row["body"]) for row in rows]


async def list_broadcasts(link: Link, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
    if customer_id is None:
        rows = await link.fetch(queries.NEWEST_BROADCASTS, tenant_id, limit)
    else:
        rows = await link.fetch(queries.NEWEST_BROADCASTS_OF_CUSTOMER, tenant_id, limit, customer_id)
    return [stored(row, None) for row in rows]


async def list_board(
    link: Link, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
) -> list[Stored]:
    rows = await link.fetch(queries.BOARD, tenant_id, ended_after_ms, after or "", limit)
    return [stored(row, None) for row in rows]


async def read_offers(
    link: Link, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
) -> list[tuple[Broadcast, Offer]]:
    rows = await link.fetch(queries.OFFERS_OF_TRANSPORTER, tenant_id, transporter_id, ended_after_ms)
    return [(documents.read_state(document), _offer(*offer)) for document, *offer in rows]


async def read_trips(
    link: Link, tenant_id: TenantId, transporter_id: TransporterId | None, driver_id: DriverId | None
) -> list[tuple[Broadcast, Trip]]:
    if driver_id is None:
        rows = await link.fetch(queries.ACTIVE_TRIPS_OF_TRANSPORTER, tenant_id, transporter_id)
    else:
        rows = await link.fetch(queries.ACTIVE_TRIPS_OF_DRIVER, tenant_id, driver_id)
    return [_trip(documents.read_state(row["state"]), row["trip_id"]) for row in rows]


async def engaged_vehicles(link: Link) -> list[tuple[TenantId, VehicleId]]:
    return [(row["tenant_id"], row["vehicle_id"]) for row in await link.fetch(queries.ENGAGED_VEHICLES)]


async def read_vehicle(link: Link, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
    rows = await link.fetch(queries.VEHICLE, tenant_id, vehicle_id)
    return Vehicle(*rows[0]) if rows else None


async def read_driver(link: Link, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
    rows = await link.fetch(queries.DRIVER, tenant_id, driver_id)
    return Driver(*rows[0]) if rows else None


async def read_fleet(
    link: Link, tenant_id: TenantId, transporter_id: TransporterId
) -> tuple[list[Vehicle], list[Driver]]:
    rows = await link.fetch(queries.FLEET, tenant_id, transporter_id)
    return (
        [Vehicle(id_, transporter_id, more) for is_driver, id_, more in rows if not is_driver],
        [Driver(id_, transporter_id, more) for is_driver, id_, more in rows if is_driver],
    )


async def with_offers(link: Link, rows: Sequence[asyncpg.Record], *, all_or_none: bool) -> list[Stored]:
    """Broadcasts that have just been claimed, in the order of their rows. Unless it is to be all or none, one that
    cannot be read is left out, so that it does not keep the others from being gone on with."""
    if not rows:
        return []
    keys = [row["tenant_id"] for row in rows], [row["broadcast_id"] for row in rows]
    offers = await link.fetch(queries.OFFERS_OF_BROADCASTS, *keys)
    found: list[Stored] = []
    for row, made in zip(rows, offers, strict=True):
        try:
            found.append(stored(row, made["offers"]))
        except documents.Unreadable as error:
            if all_or_none:
                raise
            log.error("broadcast_unreadable", tenant=row["tenant_id"], broadcast=row["broadcast_id"], error=str(error))
    return found


def _offer(
    transporter_id: Any,
    wave: int,
    vehicle_id: Any,
    vehicle_type: str,
    distance_m: int,
    offered_at_ms: int,
    declined: bool,
) -> Offer:
    return Offer(transporter_id, wave, vehicle_id, vehicle_type, distance_m, offered_at_ms, declined)


def _trip(state: Broadcast, trip_id: TripId) -> tuple[Broadcast, Trip]:
    trip = state.trip(trip_id)
    if trip is None:
        raise documents.Unreadable(f"broadcast {state.broadcast_id} does not have its trip {trip_id}")
    return state, trip
