"""Fleet files: read whole or not at all, and a bad line is named with its number."""

from pathlib import Path

import pytest

from haulcast.config import Config, load
from haulcast.domain.fleet import Driver, Transporter, Vehicle
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.fleet_file import BadFleetFile, import_fleet, read_fleet
from haulcast.storage.sqlite import SqliteJournal

T1 = TransporterId("t1")
JSON_LINES = """{"kind": "transporter", "id": "t1", "name": "Arjun"}

{"kind": "vehicle", "id": "v1", "transporter_id": "t1", "vehicle_type": "mini"}
{"kind": "driver", "id": "d1", "transporter_id": "t1"}
"""
CSV = """kind,id,transporter_id,vehicle_type,name
transporter,t1,,,Arjun
vehicle,v1,t1,mini,
driver,d1,t1,,
"""
ITEMS = [Transporter(T1, "Arjun"), Vehicle(VehicleId("v1"), T1, "mini"), Driver(DriverId("d1"), T1)]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load({"HAULCAST_DATA_DIR": str(tmp_path / "var")})


@pytest.mark.parametrize(("name", "text"), [("f.jsonl", JSON_LINES), ("f.ndjson", JSON_LINES), ("f.csv", CSV)])
def test_both_formats_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert [item for _, item in read_fleet(tmp_path / name)] == ITEMS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"kind": "ship", "id": "x"}', "give transporter, vehicle or driver"),
        ('{"id": "x"}', "kind is None"),
        ('{"kind": ["x"]}', "kind is"),
        ('{"kind": "driver", "id": "d2"}', "transporter_id is missing"),
        ('{"kind": "vehicle", "id": "v2", "transporter_id": "t1"}', "vehicle_type is missing"),
        ('{"kind": "vehicle", "id": "v 2", "transporter_id": "t1", "vehicle_type": "mini"}', "id is 'v 2'"),
        ('{"kind": "driver", "id": 7, "transporter_id": "t1"}', "id is 7"),
        ('{"kind": "driver", "id": "d2", "transporter_id": "t1", "vehicle_type": "mini"}', "no vehicle_type"),
        ('{"kind": "transporter", "id": "t2", "name": 7}', "name is not a text"),
        ('{"kind": "driver", "id": "d2", "transporter_id": "t9"}', "no transporter 't9'"),
    ],
)
async def test_a_bad_line_is_named_and_nothing_of_the_file_is_imported(
    tmp_path: Path, config: Config, line: str, said: str
) -> None:
    path = tmp_path / "fleet.jsonl"
    path.write_text(JSON_LINES + line + "\n")
    with pytest.raises(BadFleetFile, match=f"line 5: .*{said}"):
        await import_fleet(config, TenantId("acme"), path)
    journal = await SqliteJournal.open(config.journal_path)
    try:
        assert await journal.read_vehicle(TenantId("acme"), VehicleId("v1")) is None
    finally:
        await journal.close()


async def test_an_import_beside_a_running_server_is_seen_by_it(tmp_path: Path, config: Config) -> None:
    (tmp_path / "fleet.csv").write_text(CSV)
    serving = await SqliteJournal.open(config.journal_path)
    try:
        assert await import_fleet(config, TenantId("acme"), tmp_path / "fleet.csv") == ITEMS
        assert await serving.read_vehicle(TenantId("acme"), VehicleId("v1")) == ITEMS[1]
    finally:
        await serving.close()


async def test_a_file_with_nothing_in_it_is_refused(tmp_path: Path, config: Config) -> None:
    (tmp_path / "fleet.csv").write_text("")
    with pytest.raises(BadFleetFile, match="nothing in it"):
        await import_fleet(config, TenantId("acme"), tmp_path / "fleet.csv")


def test_a_csv_that_is_separated_otherwise_is_refused_at_its_header(tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(CSV.replace(",", ";"))
    with pytest.raises(BadFleetFile, match="line 1: there is no column called kind"):
        list(read_fleet(tmp_path / "fleet.csv"))


def test_a_csv_row_with_too_many_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.csv").write_text(CSV + "driver,d2,t1,,,surplus\n")
    with pytest.raises(BadFleetFile, match="line 5: a driver has no extra columns"):
        list(read_fleet(tmp_path / "fleet.csv"))


@pytest.mark.parametrize("name", ["fleet.txt", "missing.csv"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "fleet.txt").write_text(CSV)
    with pytest.raises(BadFleetFile):
        list(read_fleet(tmp_path / name))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFleetFile, match="cannot be read"):
        list(read_fleet(tmp_path / "fleet.jsonl"))
