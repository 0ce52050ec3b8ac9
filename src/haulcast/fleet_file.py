"""Fleet files: JSON lines or CSV, imported whole or not at all."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from .config import Config, Environment
from .domain.fleet import Driver, FleetItem, Transporter, Vehicle
from .domain.ids import ID_FORM, DriverId, TenantId, TransporterId, VehicleId, is_id
from .domain.settings import TenantSettings
from .errors import ConfigError
from .ports import FleetConflict, Journal
from .storage.sqlite.journal import SqliteJournal

MAX_NAME_CHARS = 200
_FIELDS: Mapping[str, frozenset[str]] = {
    "transporter": frozenset({"kind", "id", "name"}),
    "vehicle": frozenset({"kind", "id", "transporter_id", "vehicle_type"}),
    "driver": frozenset({"kind", "id", "transporter_id", "name"}),
}


class BadFleetFile(Exception):
    """The file cannot be imported; the message names the line, counted from 1, and what is wrong with it."""


async def import_fleet(config: Config, tenant_id: TenantId, path: Path) -> list[FleetItem]:
    """Import the file into the tenant; what was in it. Raises `BadFleetFile`, `ConfigError`."""
    if not is_id(tenant_id):
        raise ConfigError(f"--tenant is {tenant_id!r}; give {ID_FORM}")
    numbered = list(read_fleet(path))
    if not numbered:
        raise BadFleetFile("there is nothing in it")
    journal = await _open_journal(config)
    try:
        if config.environment is Environment.DEVELOPMENT:
            await journal.create_tenant(tenant_id, TenantSettings())
        elif await journal.read_tenant(tenant_id) is None:
            raise ConfigError(f"there is no tenant {tenant_id}; an admin creates it by PUT /v1/tenants/{tenant_id}")
        await journal.put_fleet(tenant_id, [item for _, item in numbered])
    except FleetConflict as error:
        line = numbered[error.index][0]
        raise BadFleetFile(f"line {line}: there is no transporter {error.transporter_id!r}") from None
    finally:
        await journal.close()
    return [item for _, item in numbered]


async def _open_journal(config: Config) -> Journal:
    if config.database_url is None:
        return await SqliteJournal.open(config.journal_path, exclusive=False)
    from .storage.postgres import PostgresJournal

    return await PostgresJournal.open(config.database_url)


def read_fleet(path: Path) -> Iterator[tuple[int, FleetItem]]:
    """The items of a file with their line numbers. Raises `BadFleetFile`."""
    rows = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows}.get(path.suffix.lower())
    if rows is None:
        raise BadFleetFile("give a .jsonl, .ndjson or .csv file")
    try:
        for line, row in rows(path):
            try:
                yield line, _item(row)
            except ValueError as error:
                raise BadFleetFile(f"line {line}: {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFleetFile(f"cannot be read: {error}") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restkey="extra columns")
        if reader.fieldnames is not None and "kind" not in reader.fieldnames:
            raise BadFleetFile("line 1: there is no column called kind; the columns are separated by commas")
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if value}


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError:
                    raise BadFleetFile(f"line {number}: not JSON") from None
                if not isinstance(row, dict):
                    raise BadFleetFile(f"line {number}: not a JSON object")
                yield number, row


def _item(row: Mapping[str, object]) -> FleetItem:
    """Raises ValueError that says what is wrong with the row and what would be right."""
    kind = row.get("kind")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ValueError(f"kind is {kind!r}; give transporter, vehicle or driver")
    if unknown := sorted(row.keys() - fields):
        raise ValueError(f"a {kind} has no {unknown[0]}; it has {', '.join(sorted(fields))}")
    if kind == "transporter":
        return Transporter(TransporterId(_id(row, "id")), _name(row))
    transporter_id = TransporterId(_id(row, "transporter_id"))
    if kind == "vehicle":
        return Vehicle(VehicleId(_id(row, "id")), transporter_id, _id(row, "vehicle_type"))
    return Driver(DriverId(_id(row, "id")), transporter_id, _name(row))


def _id(row: Mapping[str, object], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not is_id(value):
        shown = "missing" if value is None else repr(value)
        raise ValueError(f"{field} is {shown}; give {ID_FORM}")
    return value


def _name(row: Mapping[str, object]) -> str:
    value = row.get("name", "")
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARS:
        raise ValueError(f"name is not a text of at most {MAX_NAME_CHARS} characters")
    return value
