"""The journal in one SQLite file.

1. One thread writes, another reads (`database.py`); every method is one job of one of them.
2. A batch of writes is one transaction (`commit.py`), synced to the disk before its outcomes are told.
3. One process serves a database: it holds a lock file beside it. Others may open it `exclusive=False` to put fleets
   and tenants into it, and take turns with the server by SQLite's own locks.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.control import TenantControl
from haulcast.domain.events import Event
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.replies import Json
from haulcast.domain.settings import TenantSettings
from haulcast.errors import ConfigError
from haulcast.ports import Claim, ControlRecord, FleetConflict, Outcome, Ownership, RequestKey, Stale, Stored, Write

from . import commit, control, ownership, queries, reads
from .database import ConnectionThread, LockFile, connect, transaction
from .migrate import bring_up_to_date

PURGED_AT_ONCE = 1_000
"""Rows deleted in one transaction; 1,000 keep a commit waiting for a few milliseconds."""


class SqliteJournal:
    """`Journal` for a single process. Made by `open`."""

    def __init__(self, writer: ConnectionThread, reader: ConnectionThread, lock: LockFile | None) -> None:
        self._writer = writer
        self._reader = reader
        self._lock = lock  # None if opened beside the process that serves

    @classmethod
    async def open(cls, path: Path, *, exclusive: bool = True, busy_timeout_s: float = 5.0) -> Self:
        """Open the database, creating or migrating it if need be. Raises `ConfigError`.

        `busy_timeout_s`: how long to wait for another process that writes before giving up with `JournalUnavailable`.
        """
        writer, reader = ConnectionThread("journal-writer"), ConnectionThread("journal-reader")
        lock: LockFile | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if exclusive:
                lock = LockFile(path)
            await writer.start(partial(_open_writer, path, exclusive, busy_timeout_s))
            await reader.start(partial(connect, path, busy_timeout_s=busy_timeout_s, read_only=True))
        except BaseException as error:
            await cls(writer, reader, lock).close()
            if isinstance(error, (sqlite3.Error, OSError)):
                raise ConfigError(f"{path} cannot be opened as a database: {error}") from error
            raise
        return cls(writer, reader, lock)

    async def close(self) -> None:
        """Finish what is under way, close both connections, let go of the lock. Again: nothing."""
        try:
            await self._reader.stop()
            # Last, since the last connection to close folds the write-ahead log into the database.
            await self._writer.stop()
        finally:
            if self._lock is not None:
                self._lock.release()

    async def next_incarnation(self) -> int:
        return await self._writer.run(_next_incarnation)

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        return await self._writer.run(lambda connection: commit.commit(connection, writes))

    async def mark_lost(self, incarnation: int) -> None:
        def job(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(queries.MARK_LOST, {"incarnation": incarnation})

        await self._writer.run(job)

    async def is_lost(self, incarnation: int) -> bool:
        return await self._reader.run(lambda connection: reads.is_lost(connection, incarnation))

    async def claim(self, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
        return await self._writer.run(lambda connection: ownership.claim(connection, claims, incarnation))

    async def claim_orphans(
        self,
        incarnation: int,
        alive: Collection[int],
        limit: int,
        *,
        share: bool = False,
        overdue_before_ms: int | None = None,
    ) -> list[Stored]:
        def job(connection: sqlite3.Connection) -> list[Stored]:
            return ownership.claim_orphans(connection, incarnation, alive, limit, share, overdue_before_ms)

        return await self._writer.run(job)

    async def list_owned(self, incarnation: int) -> list[Claim]:
        return await self._reader.run(lambda connection: reads.list_owned(connection, incarnation))

    async def read_owner(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        return await self._reader.run(lambda connection: reads.read_owner(connection, tenant_id, broadcast_id))

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        return await self._reader.run(lambda connection: reads.read_broadcast(connection, tenant_id, broadcast_id))

    async def read_events(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> list[Event]:
        return await self._reader.run(lambda connection: reads.read_events(connection, tenant_id, broadcast_id))

    async def list_broadcasts(self, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
        return await self._reader.run(
            lambda connection: reads.list_broadcasts(connection, tenant_id, customer_id, limit)
        )

    async def list_board(
        self, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
    ) -> list[Stored]:
        return await self._reader.run(
            lambda connection: reads.list_board(connection, tenant_id, ended_after_ms, after, limit)
        )

    async def read_offers(
        self, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        return await self._reader.run(
            lambda connection: reads.read_offers(connection, tenant_id, transporter_id, ended_after_ms)
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
        return await self._reader.run(
            lambda connection: reads.read_trips(connection, tenant_id, transporter_id, driver_id)
        )

    async def engaged_vehicles(self) -> list[tuple[TenantId, VehicleId]]:
        return await self._reader.run(reads.engaged_vehicles)

    async def put_fleet(self, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
        await self._writer.run(lambda connection: _put_fleet(connection, tenant_id, items))

    async def read_vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
        return await self._reader.run(lambda connection: reads.read_vehicle(connection, tenant_id, vehicle_id))

    async def read_driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
        return await self._reader.run(lambda connection: reads.read_driver(connection, tenant_id, driver_id))

    async def read_fleet(
        self, tenant_id: TenantId, transporter_id: TransporterId
    ) -> tuple[list[Vehicle], list[Driver]]:
        return await self._reader.run(lambda connection: reads.read_fleet(connection, tenant_id, transporter_id))

    async def create_tenant(self, tenant_id: TenantId, settings: TenantSettings) -> bool:
        return await self._writer.run(lambda connection: control.create_tenant(connection, tenant_id, settings))

    async def read_tenant(self, tenant_id: TenantId) -> TenantControl | None:
        return await self._reader.run(lambda connection: control.read_tenant(connection, tenant_id))

    async def control_versions(self, tenant_ids: Collection[TenantId]) -> dict[TenantId, int]:
        return await self._reader.run(lambda connection: control.control_versions(connection, tenant_ids))

    async def record_control(self, record: ControlRecord, after: TenantControl | None) -> ControlRecord | Stale:
        return await self._writer.run(lambda connection: control.record_control(connection, record, after))

    async def read_control(self, key: RequestKey) -> ControlRecord | None:
        return await self._reader.run(lambda connection: control.read_control_record(connection, key))

    async def finish_control(self, tenant_id: TenantId, number: int, outcome: Mapping[str, Json]) -> None:
        await self._writer.run(lambda connection: control.finish_control(connection, tenant_id, number, outcome))

    async def read_control_log(
        self, tenant_id: TenantId, *, before: int | None, limit: int, commands: Collection[str] | None = None
    ) -> list[ControlRecord]:
        return await self._reader.run(
            lambda connection: control.read_control_log(connection, tenant_id, before, limit, commands)
        )

    async def purge_requests(self, before_ms: int) -> int:
        parameters = {"before_ms": before_ms, "limit": PURGED_AT_ONCE}

        def job(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return connection.execute(queries.PURGE_REQUESTS, parameters).rowcount

        purged = 0
        while some := await self._writer.run(job):
            purged += some
        return purged


def _open_writer(path: Path, exclusive: bool, busy_timeout_s: float) -> sqlite3.Connection:
    connection = connect(path, busy_timeout_s=busy_timeout_s)
    try:
        bring_up_to_date(connection, path, locked=exclusive)
    except BaseException:
        connection.close()
        raise
    return connection


def _next_incarnation(connection: sqlite3.Connection) -> int:
    with transaction(connection):
        (incarnation,) = connection.execute(queries.NEXT_INCARNATION).fetchone()
        assert isinstance(incarnation, int)
        return incarnation


def _put_fleet(connection: sqlite3.Connection, tenant_id: TenantId, items: Sequence[FleetItem]) -> None:
    with transaction(connection):
        for index, item in enumerate(items):
            try:
                _put(connection, tenant_id, item)
            except sqlite3.IntegrityError:  # the foreign key of vehicles and drivers is all that can refuse
                raise FleetConflict(index, item.transporter_id) from None


def _put(connection: sqlite3.Connection, tenant_id: TenantId, item: FleetItem) -> None:
    row = {"tenant_id": tenant_id, "transporter_id": item.transporter_id}
    match item:
        case Transporter():
            connection.execute(queries.PUT_TRANSPORTER, {**row, "name": item.name})
        case Vehicle():
            connection.execute(
                queries.PUT_VEHICLE, {**row, "vehicle_id": item.vehicle_id, "vehicle_type": item.vehicle_type}
            )
        case Driver():
            connection.execute(queries.PUT_DRIVER, {**row, "driver_id": item.driver_id, "name": item.name})
