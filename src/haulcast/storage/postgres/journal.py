"""The journal in a Postgres database, shared by all nodes of a cluster.

1. Commits have a connection of their own, one after the other. Claims, sweeps and whatever else concerns all tenants
   share a few others; both act as `haulcast_node`.
2. What requests read and write goes through a bounded pool whose connections act as `haulcast_tenant` for one tenant at
   a time: row-level security keeps them from every other tenant's rows, whatever the query says.
3. Every answer of this journal is that of statements that the server has committed by itself; nothing is cached here.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Self, TypeVar

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.control import TenantControl
from haulcast.domain.events import Event
from haulcast.domain.fleet import Driver, FleetItem, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.replies import Json
from haulcast.domain.settings import TenantSettings
from haulcast.errors import ConfigError, JournalUnavailable
from haulcast.ports import Claim, ControlRecord, Outcome, Ownership, RequestKey, Stale, Stored, Write
from haulcast.storage.writes import check

from . import commit, control, fleet, ownership, queries, reads
from .connections import NODE_ROLE, TENANT_ROLE, Database, Limits, Link, Pool
from .migrate import bring_up_to_date

T = TypeVar("T")

PURGED_AT_ONCE = 1_000
"""Rows deleted by one statement."""

SWEEPING_CONNECTIONS = 2
"""One can be busy with a purge and another still claims."""


class PostgresJournal:
    """`Journal` for the nodes of a cluster. Made by `open`."""

    def __init__(self, database: Database) -> None:
        self._committer = Pool(database, NODE_ROLE, 1)
        self._node = Pool(database, NODE_ROLE, SWEEPING_CONNECTIONS)
        self._requests = Pool(database, TENANT_ROLE, database.limits.requests)

    @classmethod
    async def open(cls, url: str, limits: Limits | None = None) -> Self:
        """Connect, migrating the database if need be. Raises `ConfigError`."""
        database = Database(url, limits or Limits())
        await bring_up_to_date(database)
        journal = cls(database)
        try:
            for pool in journal._pools:
                await pool.run(lambda link: link.fetch("SELECT"))
        except JournalUnavailable as error:
            await journal.close()
            raise ConfigError(f"the database cannot be used: {error}; check HAULCAST_DATABASE_URL") from error
        return journal

    async def close(self) -> None:
        """Finish what is under way and close all connections. Again: nothing."""
        for pool in self._pools:
            await pool.close()

    @property
    def _pools(self) -> tuple[Pool, ...]:
        return self._committer, self._node, self._requests

    # --- For all tenants ---------------------------------------------------------------------------------------------

    async def next_incarnation(self) -> int:
        return await self._node.run(ownership.next_incarnation)

    async def mark_lost(self, incarnation: int) -> None:
        await self._node.run(lambda link: ownership.mark_lost(link, incarnation))

    async def list_owned(self, incarnation: int) -> list[Claim]:
        return await self._node.run(lambda link: ownership.list_owned(link, incarnation))

    async def is_lost(self, incarnation: int) -> bool:
        return await self._node.run(lambda link: ownership.is_lost(link, incarnation))

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        for write in writes:
            check(write)
        return await self._committer.run(lambda link: commit.commit(link, writes))

    async def claim(self, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
        return await self._node.run(lambda link: ownership.claim(link, claims, incarnation))

    async def claim_orphans(
        self,
        incarnation: int,
        alive: Collection[int],
        limit: int,
        *,
        share: bool = False,
        overdue_before_ms: int | None = None,
    ) -> list[Stored]:
        return await self._node.run(
            lambda link: ownership.claim_orphans(link, incarnation, alive, limit, share, overdue_before_ms)
        )

    async def engaged_vehicles(self) -> list[tuple[TenantId, VehicleId]]:
        return await self._node.run(reads.engaged_vehicles)

    async def control_versions(self, tenant_ids: Collection[TenantId]) -> dict[TenantId, int]:
        return await self._node.run(lambda link: control.control_versions(link, tenant_ids))

    async def purge_requests(self, before_ms: int) -> int:
        async def some(link: Link) -> int:
            (row,) = await link.fetch(queries.PURGE_REQUESTS, before_ms, PURGED_AT_ONCE)
            count: int = row["purged"]
            return count

        purged = 0
        while count := await self._node.run(some):
            purged += count
        return purged

    # --- For one tenant ----------------------------------------------------------------------------------------------

    async def read_owner(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        return await self._for(tenant_id, lambda link: reads.read_owner(link, tenant_id, broadcast_id))

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        return await self._for(tenant_id, lambda link: reads.read_broadcast(link, tenant_id, broadcast_id))

    async def read_events(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
        return await self._for(tenant_id, lambda link: reads.read_events(link, tenant_id, broadcast_id))

    async def list_broadcasts(self, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
        return await self._for(tenant_id, lambda link: reads.list_broadcasts(link, tenant_id, customer_id, limit))

    async def list_board(
        self, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
    ) -> list[Stored]:
        return await self._for(tenant_id, lambda link: reads.list_board(link, tenant_id, ended_after_ms, after, limit))

    async def read_offers(
        self, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        return await self._for(
            tenant_id, lambda link: reads.read_offers(link, tenant_id, transporter_id, ended_after_ms)
        )

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
        return await self._for(tenant_id, lambda link: reads.read_trips(link, tenant_id, transporter_id, driver_id))

    async def put_fleet(self, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
        await self._for(tenant_id, lambda link: fleet.put_fleet(link, tenant_id, items))

    async def read_vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
        return await self._for(tenant_id, lambda link: reads.read_vehicle(link, tenant_id, vehicle_id))

    async def read_driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
        return await self._for(tenant_id, lambda link: reads.read_driver(link, tenant_id, driver_id))

    async def read_fleet(
        self, tenant_id: TenantId, transporter_id: TransporterId
    ) -> tuple[list[Vehicle], list[Driver]]:
        return await self._for(tenant_id, lambda link: reads.read_fleet(link, tenant_id, transporter_id))

    async def create_tenant(self, tenant_id: TenantId, settings: TenantSettings) -> bool:
        return await self._for(tenant_id, lambda link: control.create_tenant(link, tenant_id, settings))

    async def read_tenant(self, tenant_id: TenantId) -> TenantControl | None:
        return await self._for(tenant_id, lambda link: control.read_tenant(link, tenant_id))

    async def record_control(self, record: ControlRecord, after: TenantControl | None) -> ControlRecord | Stale:
        return await self._for(record.by.tenant_id, lambda link: control.record_control(link, record, after))

    async def read_control(self, key: RequestKey) -> ControlRecord | None:
        return await self._for(key.tenant_id, lambda link: control.read_control_record(link, key))

    async def finish_control(self, tenant_id: TenantId, number: int, outcome: Mapping[str, Json]) -> None:
        await self._for(tenant_id, lambda link: control.finish_control(link, tenant_id, number, outcome))

    async def read_control_log(
        self, tenant_id: TenantId, *, before: int | None, limit: int, commands: Collection[str] | None = None
    ) -> list[ControlRecord]:
        return await self._for(
            tenant_id, lambda link: control.read_control_log(link, tenant_id, before, limit, commands)
        )

    async def _for(self, tenant_id: TenantId, job: Callable[[Link], Awaitable[T]]) -> T:
        return await self._requests.run(job, tenant_id)
