"""The commands of an operator on the stores of a cluster: real ones, and such as are not there."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis import Redis

from haulcast.cli import main
from haulcast.config import VARIABLES
from haulcast.doctor import redis_keys
from haulcast.storage.redis.keys import DATAGRAMS, FORMAT, KEYS, OWNER, PREFIX
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


# --- What doctor says of the keys in Redis ---------------------------------------------------------------------------

NEWER, OLDER = FORMAT + 1, FORMAT - 1


@pytest.fixture
def redis(redis_url: str) -> Iterator["Redis"]:
    """With nothing in it, but for what the test puts there."""
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
        yield redis
        redis.flushdb()


def keys_shown(capsys: pytest.CaptureFixture[str]) -> str:
    """What doctor says of them: it never keeps a server from starting."""
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    return shown[shown.index("keys           ") :]


def test_doctor_lists_every_family_of_keys_with_what_it_is_for(
    redis: "Redis", capsys: pytest.CaptureFixture[str]
) -> None:
    """And for how long one lives, and how many there are now. Nothing is wrong with any of them."""
    for number, key in enumerate(KEYS, start=1):
        for copy in range(number if "<" in key.pattern else 1):
            redis.zadd(key(f"acme{copy}", "b1"), {"7": 1})
            redis.pexpire(key(f"acme{copy}", "b1"), 60_000)
    redis.set("somebody:else", "")
    with redis.pubsub() as node:  # type: ignore[no-untyped-call]
        database = redis.connection_pool.connection_kwargs.get("db") or 0
        node.subscribe(DATAGRAMS(database, 7), DATAGRAMS(99, 8))  # another database's is not counted
        node.get_message(timeout=5)
        shown = keys_shown(capsys)
    for number, key in enumerate(KEYS, start=1):
        count = number if "<" in key.pattern else 1
        lives = {0: "varies", 3_600_000: "1 hour", 86_400_000: "1 day"}[key.ttl_ms]
        row = re.escape(f"{key.pattern}|{lives}|{key.purpose.partition(';')[0]}").replace(r"\|", " +")
        assert re.search(rf"^ +{count}  {row}$", shown, re.MULTILINE), shown
    assert re.search(rf"^ +1  {re.escape(DATAGRAMS.pattern)} +channel ", shown, re.MULTILINE), shown
    assert f"(format {FORMAT})\n" in shown
    assert "somebody" not in shown
    assert "->" not in shown.partition("nodes          ")[0]


@pytest.mark.parametrize(("number", "whose"), [(OLDER, "an older"), (NEWER, "a newer"), (312, "a newer")])
def test_doctor_finds_what_another_format_has_left_and_how_to_remove_it(
    redis: "Redis", redis_url: str, capsys: pytest.CaptureFixture[str], number: int, whose: str
) -> None:
    """The command that it shows removes that and nothing else, with the password beside it."""
    for broadcast in range(5):
        redis.set(OWNER("acme", f"b{broadcast}").replace(PREFIX, f"hc{number}:"), "1 1", ex=7_300)
    redis.set(OWNER("acme", "b1"), "1 1", ex=60)
    shown = keys_shown(capsys)
    found = re.search(rf"^note  keys +5 of format {number}, .*, \.\.\.\n      -> (.*)", shown, re.MULTILINE)
    assert found is not None, shown
    assert f"left by {whose} version: they end by their time to live" in found[1]
    assert "the last in 2 hours" in found[1]
    command = found[1].rpartition(": ")[2]
    password = urlsplit(redis_url).password
    assert not password or password not in shown
    assert f"'hc{number}:*'" in command
    if shutil.which("redis-cli") is not None:
        beside = {"REDISCLI_AUTH": password} if password else {}
        done = subprocess.run(["sh", "-c", command], env={**os.environ, **beside}, capture_output=True, timeout=20)
        assert (done.returncode, done.stderr) == (0, b""), done
        assert redis.keys() == [OWNER("acme", "b1").encode()]


@pytest.mark.parametrize("number", [OLDER, NEWER])
@pytest.mark.parametrize("keys", [0, 1])
def test_doctor_says_which_nodes_to_stop_where_two_formats_run(
    redis: "Redis", capsys: pytest.CaptureFixture[str], number: int, keys: int
) -> None:
    for _ in range(keys):
        redis.set(f"hc{number}:nodes", "", ex=60)
    with redis.pubsub() as node:  # type: ignore[no-untyped-call]
        node.subscribe(f"hc{number}:node:0:7")
        node.get_message(timeout=5)
        shown = keys_shown(capsys)
    assert f"of format {number}" in shown
    assert "1 nodes listen" in shown
    assert f"stop all of format {min(number, FORMAT)}, then only those of format {max(number, FORMAT)} run" in shown
    assert "unlink" not in shown


def test_doctor_finds_keys_of_no_family_and_keys_that_never_end(
    redis: "Redis", capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever their names are; nothing in one gets to the terminal that is no text."""
    redis.set(f"{PREFIX}presence:{{acme}}:mood", "good", ex=60)
    redis.set(OWNER("acme", "b1"), "1 1")
    redis.set(PREFIX.encode() + b"\xff\x1b[2J", "", ex=60)
    shown = keys_shown(capsys)
    assert f"note  keys           2 begin with {PREFIX} and are of no family: " in shown
    assert f"'{PREFIX}presence:{{acme}}:mood'" in shown
    assert "\x1b" not in shown
    assert f"note  keys           1 without a time to live: '{OWNER('acme', 'b1')}'\n" in shown
    assert re.search(r"pexpire NAME \d+$", shown, re.MULTILINE)


def test_doctor_looks_at_no_more_keys_than_it_may(
    redis: "Redis", capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nearly all are somebody else's."""
    monkeypatch.setattr(redis_keys, "MOST_KEYS", 2_000)
    redis.mset({f"other:{number}": "" for number in range(20_000)})
    redis.config_resetstat()
    assert "there are more than were looked at" in keys_shown(capsys)
    assert redis.info("commandstats")["cmdstat_scan"]["calls"] == 2
