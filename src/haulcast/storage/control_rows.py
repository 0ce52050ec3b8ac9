"""What is in force for a tenant, and the record of operators' commands, as the columns of their tables.

1. Fields are named as the columns and stand in their order; both databases have the same ones.
2. `mode` repeats what the settings say, for queries; it is never read.
3. What is JSON in a record comes back as lists and dicts, but for the pair of each change.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from haulcast.domain.control import Announcement, Changes, TenantControl
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Json
from haulcast.ports import ControlRecord, RequestKey, Role

from .documents import decoded
from .settings_documents import read_settings, rewrite_settings, write_settings


class TenantColumns(NamedTuple):
    """What a command changes in the row of its tenant. All None: nothing, as it is no command to a tenant."""

    settings: str | None
    paused: bool | None
    mode: str | None
    control_version: int | None
    announcements: str | None


class RecordColumns(NamedTuple):
    """A row of `control_log` but for its number."""

    tenant_id: str
    role: str
    user_id: str
    request_id: str
    fingerprint: str
    command: str
    data: str
    at_ms: int
    version: int | None
    changes: str
    outcome: str | None


NEWEST = 2**63 - 1
"""Above the number of every record."""

NO_TENANT = TenantColumns(None, None, None, None, None)


def tenant_columns(control: TenantControl, replaced: str | None = None) -> TenantColumns:
    """What is to be in force. `replaced`: the settings that are stored, None for none."""
    settings = control.settings
    return TenantColumns(
        write_settings(settings) if replaced is None else rewrite_settings(replaced, settings),
        control.paused,
        settings.dispatch_mode,
        control.version,
        orjson.dumps(control.announcements).decode(),
    )


def read_control(settings: str, paused: bool | int, control_version: int, announcements: str) -> TenantControl:
    """What is in force, by the columns of these names. Raises `Unreadable`."""
    announced = decoded("announcements", _ANNOUNCEMENTS.decode, announcements)
    return TenantControl(read_settings(settings), bool(paused), control_version, announced)


def record_columns(record: ControlRecord) -> RecordColumns:
    """The row of a record."""
    by = record.by
    return RecordColumns(
        by.tenant_id,
        by.role.value,
        by.user_id,
        by.request_id,
        record.fingerprint,
        record.command,
        _write(record.data),
        record.at_ms,
        record.version,
        _write(record.changes),
        None if record.outcome is None else write_outcome(record.outcome),
    )


def read_record(number: int, row: RecordColumns) -> ControlRecord:
    """A record by its row. Raises `Unreadable`."""
    return ControlRecord(
        RequestKey(TenantId(row.tenant_id), decoded("role", Role, row.role), row.user_id, row.request_id),
        row.fingerprint,
        row.command,
        decoded("data of a command", _OBJECT.decode, row.data),
        row.at_ms,
        row.version,
        decoded("changes by a command", _CHANGES.decode, row.changes),
        None if row.outcome is None else decoded("outcome of a command", _OBJECT.decode, row.outcome),
        number,
    )


def write_outcome(outcome: Mapping[str, Json]) -> str:
    """The column `outcome`."""
    return _write(outcome)


def _write(mapping: Mapping[str, Json] | Changes) -> str:
    return orjson.dumps(mapping).decode()


_OBJECT = msgspec.json.Decoder(dict[str, Any])
_CHANGES = msgspec.json.Decoder(dict[str, tuple[Any, Any]])
_ANNOUNCEMENTS = msgspec.json.Decoder(tuple[Announcement, ...])
