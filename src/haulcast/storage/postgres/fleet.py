"""Putting fleets, which is two statements however many items there are."""

from collections.abc import Sequence

from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import TenantId
from haulcast.ports import FleetConflict

from . import queries
from .connections import Link


async def put_fleet(link: Link, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
    """All or none. Raises `FleetConflict`.

    No transaction is around both statements: transporters are never deleted, so one that is there stays there.
    """
    if not items:
        return
    await _check(link, tenant_id, items)
    # Of what is put several times the last counts.
    transporters = {item.transporter_id: item for item in items if isinstance(item, Transporter)}
    vehicles = {item.vehicle_id: item for item in items if isinstance(item, Vehicle)}
    drivers = {item.driver_id: item for item in items if isinstance(item, Driver)}
    await link.fetch(
        queries.PUT_FLEET,
        tenant_id,
        list(transporters),
        [one.name for one in transporters.values()],
        list(vehicles),
        [one.transporter_id for one in vehicles.values()],
        [one.vehicle_type for one in vehicles.values()],
        list(drivers),
        [one.transporter_id for one in drivers.values()],
        [one.name for one in drivers.values()],
    )


async def _check(link: Link, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
    """Every item's transporter is there or comes before it."""
    named = {item.transporter_id for item in items if not isinstance(item, Transporter)}
    rows = await link.fetch(queries.KNOWN_TRANSPORTERS, tenant_id, list(named))
    known = {row["transporter_id"] for row in rows}
    for index, item in enumerate(items):
        if isinstance(item, Transporter):
            known.add(item.transporter_id)
        elif item.transporter_id not in known:
            raise FleetConflict(index, item.transporter_id)
