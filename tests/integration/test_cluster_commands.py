"""The commands of an operator on the stores of a cluster: real ones, and such as are not there."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis import Redis

from haulcast.cli import main
from haulcast.config import VARIABLES
from tests.databases import blocking, create_database, drop_database

FLEET = (
    {"kind": "transporter", "id": "t1"},
    {"kind": "vehicle", "id": "v1", "transporter_id": "t1", "vehicle_type": "mini"},
)


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The address of a database that nothing is in."""

    url = blocking(create_database(postgres_url))
    yield url
    blocking(drop_database(url))


@pytest.fixture(autouse=True)
def environment(database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster whose stores are there."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAULCAST_DATA_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("HAULCAST_PORT", "0")
    monkeypatch.setenv("HAULCAST_DATABASE_URL", database)
    monkeypatch.setenv("HAULCAST_REDIS_URL", redis_url)


def password_of(url: str) -> str:
    return url.partition("@")[0].rpartition(":")[2]


def test_migrate_says_what_it_did_and_then_that_there_is_nothing_to_do(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate"]) == 0
    first = capsys.readouterr().out
    assert "applied 0001" in first
    assert password_of(database) not in first
    assert main(["migrate"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_a_fleet_is_imported_whole_or_not_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fleet.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in FLEET))
    assert main(["fleet", "import", "--tenant", "acme", str(path)]) == 0
    assert "imported into acme: 1 transporters, 1 vehicles" in capsys.readouterr().out
    path.write_text("".join(json.dumps({**item, "transporter_id": "t9"}) + "\n" for item in FLEET[1:]))
    assert main(["fleet", "import", "--tenant", "acme", str(path)]) == 1
    assert "line 1: there is no transporter 't9'" in capsys.readouterr().err


def test_doctor_knows_a_new_database_from_one_that_was_migrated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "revisions 0001" in capsys.readouterr().out
    main(["migrate"])
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "up to date; 0 live broadcasts" in shown
    assert "haulcast may act as haulcast_node and haulcast_tenant" in shown
    assert "hold a lease" in shown
    assert "FAIL" not in shown
    assert "SQLite, " not in shown


def test_doctor_warns_of_a_database_that_does_not_sync(capsys: pytest.CaptureFixture[str]) -> None:
    """As the tests' own one is, if nobody has given them another."""
    main(["doctor"])
    shown = capsys.readouterr().out
    assert ("fsync is off" in shown) == ("lost when its machine crashes" in shown)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HAULCAST_DATABASE_URL", "postgresql://someone:hush@127.0.0.1:1/none"),
        ("HAULCAST_REDIS_URL", "redis://:hush@127.0.0.1:1/0"),
        ("HAULCAST_REDIS_URL", "redis://:hush@no-such-host.invalid:1/0"),
    ],
)
def test_doctor_fails_on_a_store_that_cannot_be_reached_and_keeps_its_password(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL" in shown
    assert name in shown
    assert "hush" not in shown


async def test_doctor_says_what_an_administrator_has_to_do_for_a_user_without_rights(
    database: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await asyncpg.connect(postgres_url)
    try:
        await server.execute("CREATE ROLE nobody_special LOGIN PASSWORD 'hush'")
        address = database.partition("@")[2]
        monkeypatch.setenv("HAULCAST_DATABASE_URL", f"postgresql://nobody_special:hush@{address}")
        assert await asyncio.to_thread(main, ["doctor"]) == 1
        assert "GRANT haulcast_node TO nobody_special;" in capsys.readouterr().out
    finally:
        await server.execute("DROP ROLE nobody_special")
        await server.close()


def test_doctor_warns_of_a_redis_that_forgets_when_it_is_full(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        before = redis.config_get("maxmemory-policy")["maxmemory-policy"]
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.set("hc1:owner:{acme/b1}", "1 1", ex=60)
        try:
            assert main(["doctor"]) == 0
        finally:
            redis.config_set("maxmemory-policy", before)
            redis.delete("hc1:owner:{acme/b1}")
    shown = capsys.readouterr().out
    assert "maxmemory-policy is allkeys-lru" in shown
    assert "noeviction" in shown
    assert "cluster" in shown
