"""What is in force for tenants, and the record of operators' commands."""

import asyncio
from collections.abc import Collection, Mapping
from random import uniform

import asyncpg

from haulcast.domain.control import TenantControl
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Json
from haulcast.domain.settings import TenantSettings
from haulcast.errors import JournalUnavailable
from haulcast.ports import ControlRecord, RequestKey, Stale
from haulcast.storage.control_rows import (
    NEWEST,
    NO_TENANT,
    RecordColumns,
    TenantColumns,
    read_control,
    read_record,
    record_columns,
    tenant_columns,
    write_outcome,
)

from . import queries
from .connections import Link
from .faults import CONTENDED

LOOKS = 2
"""How often a command is tried that is refused for its version. The first statement may have waited for one that has
recorded the very same command, which only the next one sees."""

ATTEMPTS = 20
"""How often a statement is sent that collides: each time another command of the tenant was recorded in that moment."""

_COLLIDED = (asyncpg.UniqueViolationError, *CONTENDED)


async def create_tenant(link: Link, tenant_id: TenantId, settings: TenantSettings) -> bool:
    new = tenant_columns(TenantControl(settings))
    return bool(await link.fetch(queries.CREATE_TENANT, tenant_id, new.settings, new.mode))


async def read_tenant(link: Link, tenant_id: TenantId) -> TenantControl | None:
    rows = await link.fetch(queries.TENANT, tenant_id)
    return read_control(*rows[0]) if rows else None


async def control_versions(link: Link, tenant_ids: Collection[TenantId]) -> dict[TenantId, int]:
    rows = await link.fetch(queries.CONTROL_VERSIONS, list(tenant_ids))
    return {row["tenant_id"]: row["control_version"] for row in rows}


async def record_control(link: Link, record: ControlRecord, after: TenantControl | None) -> ControlRecord | Stale:
    """Raises the driver's errors, and `JournalUnavailable` if others keep getting in the way."""
    row = record_columns(record)
    to_be = NO_TENANT if after is None else await _tenant_columns(link, record.by.tenant_id, after)
    looks = 0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            known = await link.fetch(queries.RECORD_CONTROL, *row, *to_be)
        except _COLLIDED:
            await asyncio.sleep(uniform(0.0, 0.002) * attempt)
            continue
        if known:
            return _record(known[0])
        looks += 1
        if looks == LOOKS:
            return Stale()
    raise JournalUnavailable("too many commands are recorded at once")


async def read_control_record(link: Link, key: RequestKey) -> ControlRecord | None:
    rows = await link.fetch(queries.CONTROL_RECORD, key.tenant_id, key.role.value, key.user_id, key.request_id)
    return _record(rows[0]) if rows else None


async def finish_control(link: Link, tenant_id: TenantId, number: int, outcome: Mapping[str, Json]) -> None:
    await link.fetch(queries.FINISH_CONTROL, tenant_id, number, write_outcome(outcome))


async def read_control_log(
    link: Link, tenant_id: TenantId, before: int | None, limit: int, commands: Collection[str] | None
) -> list[ControlRecord]:
    wanted = None if commands is None else list(commands)
    rows = await link.fetch(queries.CONTROL_LOG, tenant_id, NEWEST if before is None else before, limit, wanted)
    return [_record(row) for row in rows]


async def _tenant_columns(link: Link, tenant_id: TenantId, after: TenantControl) -> TenantColumns:
    """Two statements are enough: as long as the version is the same, so are the settings."""
    rows = await link.fetch(queries.SETTINGS_TO_REPLACE, tenant_id, after.version)
    return tenant_columns(after, rows[0]["settings"] if rows else None)


def _record(row: asyncpg.Record) -> ControlRecord:
    number, *columns = row
    return read_record(number, RecordColumns(*columns))
