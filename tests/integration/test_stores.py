"""The servers that tests and the cluster demo start for themselves: they survive what they should, and nobody else."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from haulcast.demo import stores
from haulcast.demo.stores import PrivatePostgres, PrivateRedis, StoreFailed

HOLDER = """
import sys, time
from pathlib import Path
from haulcast.demo.stores import PrivatePostgres, PrivateRedis
postgres, redis = PrivatePostgres(Path(sys.argv[1]), fsync=False), PrivateRedis(Path(sys.argv[1]))
postgres.start()
redis.start()
print(postgres.url, redis.url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not pytest's `tmp_path`: whenever another run begins, that is closed to the user that Postgres runs as."""
    with tempfile.TemporaryDirectory(prefix="haulcast-stores-") as directory:
        yield Path(directory)


@pytest.fixture
def postgres(directory: Path) -> Iterator[PrivatePostgres]:
    """A Postgres that the test starts."""
    postgres = PrivatePostgres(directory)
    try:
        yield postgres
    finally:
        postgres.kill()


@pytest.fixture
def redis(directory: Path) -> Iterator[PrivateRedis]:
    """A Redis that the test starts."""
    redis = PrivateRedis(directory)
    try:
        yield redis
    finally:
        redis.kill()


async def rows(url: str, *, add: int = 0) -> list[int]:
    """What is in a table, with `add` added first."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS numbers (number integer)")
        if add:
            await connection.execute("INSERT INTO numbers VALUES ($1)", add)
        return [row["number"] for row in await connection.fetch("SELECT number FROM numbers ORDER BY number")]
    finally:
        await connection.close()


async def value(url: str, *, put: str = "") -> str | None:
    """What is in a key, with `put` put there first."""
    async with Redis.from_url(url, decode_responses=True) as redis:
        if put:
            await redis.set("key", put)
        found = await redis.get("key")
        assert found is None or isinstance(found, str)
        return found


async def test_postgres_keeps_its_data_and_its_address_when_it_is_stopped_and_when_it_is_killed(
    postgres: PrivatePostgres,
) -> None:
    postgres.start()
    url = postgres.url
    assert await rows(url, add=1) == [1]
    for end in (postgres.kill, postgres.stop, postgres.kill):
        await asyncio.to_thread(end)
        with pytest.raises(ConnectionRefusedError):
            await rows(url)
        await asyncio.to_thread(postgres.start)
        assert postgres.url == url
        assert await rows(url) == [1]


async def test_redis_keeps_its_address_and_no_data(redis: PrivateRedis) -> None:
    redis.start()
    url = redis.url
    assert await value(url, put="here") == "here"
    for end in (redis.kill, redis.stop):
        end()
        redis.start()
        assert redis.url == url
        assert await value(url) is None


async def test_they_live_on_when_the_thread_that_started_them_has_ended(
    postgres: PrivatePostgres, redis: PrivateRedis
) -> None:
    with asyncio.Runner() as runner:  # its threads end with it

        async def start() -> None:
            await asyncio.to_thread(postgres.start)
            await asyncio.to_thread(redis.start)

        await asyncio.to_thread(runner.run, start())
        await asyncio.to_thread(runner.close)
    assert await rows(postgres.url) == []
    assert await value(redis.url) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent has died")
def test_they_end_with_a_process_that_is_killed(directory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        postgres_url, redis_url = holder.stdout.readline().split()
        assert asyncio.run(rows(postgres_url)) == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    until_refused(int(postgres_url.rpartition(":")[2].partition("/")[0]))
    until_refused(int(redis_url.rpartition(":")[2].partition("/")[0]))


async def test_without_the_password_nobody_gets_in(postgres: PrivatePostgres, redis: PrivateRedis) -> None:
    postgres.start()
    redis.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url.replace("haulcast:", "haulcast:x"))
    with pytest.raises(Exception, match="invalid username-password"):
        await value(redis.url.replace("://:", "://:x"))


def test_what_is_missing_is_said_with_what_installs_it(
    postgres: PrivatePostgres, redis: PrivateRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stores, "DEBIAN_POSTGRES", tmp_path)
    with pytest.raises(StoreFailed, match=r"PostgreSQL 14 or newer is not installed.*scripts/stores.sh"):
        postgres.start()
    with pytest.raises(StoreFailed, match=r"redis-server.*scripts/stores.sh"):
        redis.start()
    assert not postgres.running
    assert not redis.running


def test_a_store_that_does_not_start_shows_its_log(redis: PrivateRedis, directory: Path) -> None:
    redis.start()
    other = PrivateRedis(directory)
    other.port = redis.port
    with pytest.raises(StoreFailed, match="Address already in use"):
        other.start()
    assert not other.running


@pytest.mark.parametrize("missing", ["postgresql", "redis-server"])
def test_the_script_says_what_to_install_where_it_may_not(missing: str, tmp_path: Path) -> None:
    """An ordinary user, with a machine that lacks one of the two."""
    commands = {"sed", "id", "dirname", "readlink", "apt-get"} | ({"redis-server"} - {missing})
    for command in commands:
        (tmp_path / command).symlink_to(shutil.which(command) or "/bin/true")
    (tmp_path / "id").unlink()
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    if missing == "postgresql":
        environ["DEBIAN_POSTGRES"] = str(tmp_path)
    script = Path(__file__).parents[2] / "scripts" / "stores.sh"
    done = subprocess.run(["/bin/sh", script], env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert missing in done.stderr
    assert f"sudo {script}" in done.stderr


def until_refused(port: int) -> None:
    """Wait until nobody listens on a port of this machine."""
    give_up_at = time.monotonic() + 15
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return
        assert time.monotonic() < give_up_at, f"port {port} is still open"
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run Postgres as somebody else")
def test_root_lets_postgres_through_to_a_closed_temporary_directory_and_to_no_other(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    postgres = PrivatePostgres(closed, fsync=False)
    postgres.start()
    postgres.kill()
    closed.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(closed / "elsewhere"))
    with pytest.raises(StoreFailed, match=f"{closed} is closed"):
        postgres.start()
    assert closed.stat().st_mode & 0o777 == 0o700
