"""What is in force for tenants, and the record of operators' commands."""

import sqlite3
from collections.abc import Collection, Mapping

import orjson

from haulcast.domain.control import TenantControl
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Json
from haulcast.domain.settings import TenantSettings
from haulcast.ports import ControlRecord, RequestKey, Stale
from haulcast.storage.control_rows import (
    NEWEST,
    RecordColumns,
    read_control,
    read_record,
    record_columns,
    tenant_columns,
    write_outcome,
)

from . import queries
from .database import transaction


def create_tenant(connection: sqlite3.Connection, tenant_id: TenantId, settings: TenantSettings) -> bool:
    new = tenant_columns(TenantControl(settings))
    row = {"tenant_id": tenant_id, "settings": new.settings, "mode": new.mode}
    with transaction(connection):
        return connection.execute(queries.CREATE_TENANT, row).rowcount == 1


def read_tenant(connection: sqlite3.Connection, tenant_id: TenantId) -> TenantControl | None:
    row = connection.execute(queries.TENANT, {"tenant_id": tenant_id}).fetchone()
    return None if row is None else read_control(*row)


def control_versions(connection: sqlite3.Connection, tenant_ids: Collection[TenantId]) -> dict[TenantId, int]:
    parameters = {"tenant_ids": orjson.dumps(list(tenant_ids)).decode()}
    return dict(connection.execute(queries.CONTROL_VERSIONS, parameters).fetchall())


def record_control(
    connection: sqlite3.Connection, record: ControlRecord, after: TenantControl | None
) -> ControlRecord | Stale:
    row = record_columns(record)._asdict()
    with transaction(connection):
        known = connection.execute(queries.CONTROL_RECORD, row).fetchone()
        if known is None:
            if after is not None and not _put(connection, record.by.tenant_id, after):
                return Stale()
            connection.execute(queries.RECORD_CONTROL, row)
            known = connection.execute(queries.CONTROL_RECORD, row).fetchone()
        return _record(*known)


def read_control_record(connection: sqlite3.Connection, key: RequestKey) -> ControlRecord | None:
    row = {"tenant_id": key.tenant_id, "role": key.role.value, "user_id": key.user_id, "request_id": key.request_id}
    known = connection.execute(queries.CONTROL_RECORD, row).fetchone()
    return None if known is None else _record(*known)


def finish_control(
    connection: sqlite3.Connection, tenant_id: TenantId, number: int, outcome: Mapping[str, Json]
) -> None:
    row = {"tenant_id": tenant_id, "number": number, "outcome": write_outcome(outcome)}
    with transaction(connection):
        connection.execute(queries.FINISH_CONTROL, row)


def read_control_log(
    connection: sqlite3.Connection,
    tenant_id: TenantId,
    before: int | None,
    limit: int,
    commands: Collection[str] | None,
) -> list[ControlRecord]:
    parameters = {
        "tenant_id": tenant_id,
        "before": NEWEST if before is None else before,
        "limit": limit,
        "commands": None if commands is None else orjson.dumps(list(commands)).decode(),
    }
    return [_record(*row) for row in connection.execute(queries.CONTROL_LOG, parameters)]


def _put(connection: sqlite3.Connection, tenant_id: TenantId, after: TenantControl) -> bool:
    """Whether the tenant was at the version before; it is at that of `after` now."""
    row = connection.execute(queries.TENANT, {"tenant_id": tenant_id}).fetchone()
    if row is None:
        return False
    settings, _, version, _ = row
    if version != after.version - 1:
        return False
    columns = tenant_columns(after, settings)._asdict()
    connection.execute(queries.PUT_CONTROL, {"tenant_id": tenant_id, **columns})
    return True


def _record(number: int, *columns: str) -> ControlRecord:
    return read_record(number, RecordColumns._make(columns))
