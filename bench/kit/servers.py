"""What is measured: haulcast as it is deployed, baselines started for the purpose, or whatever answers at an address.

1. A subject has addresses, and the processes whose CPU time and memory are its cost. Of an address that was given no
   processes are known, and what needs them is left out.
2. haulcast is `haulcast serve`, in processes of its own, in development. Its stores are private and on loopback.
3. What a scenario's tenant is made of goes in by REST, as an operator's import would.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from haulcast.config import Config, load
from haulcast.demo.process import Process
from haulcast.demo.stores import PrivatePostgres, PrivateRedis, free_port
from haulcast.leash import leashed
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing

from . import procstat

if TYPE_CHECKING:
    from .bench import Bench

_START_WITHIN_S = 30.0
_AT_ONCE = 16
_TOKEN_LIFETIME_S = 86_400


class Missing(Exception):
    """Something that a variant needs is not installed; the message names it and what installs it."""


class BaselineFailed(Exception):
    """A server did not start, or does not do what is asked of it; the message is what it said."""


@dataclass
class Subject:
    """Something that serves clients. `pids`: of its processes; `store_pids`: of its databases."""

    urls: Sequence[str]
    pids: Sequence[int] = ()
    store_pids: Sequence[int] = ()
    store_urls: Mapping[str, str] = field(default_factory=dict)
    """The addresses of its databases, as haulcast's settings name them."""

    @property
    def url(self) -> str:
        """The address of the first process."""
        return self.urls[0]

    def cpu_s(self) -> float:
        """CPU seconds that its processes have used so far, without its databases."""
        return procstat.cpu_s(self.pids)

    def whole_cpu_s(self) -> float:
        """CPU seconds that its processes and its databases have used so far."""
        return procstat.cpu_s([*self.pids, *self.store_pids])

    def memory_bytes(self) -> int:
        """What its processes hold of their own."""
        return sum(procstat.memory_bytes(pid) for process in self.pids for pid in procstat.family(process))


class Haulcast(Subject):
    """haulcast itself, and a tenant's way to it."""

    def __init__(self, config: Config, urls: Sequence[str], **known: Any) -> None:
        super().__init__(urls, **known)
        self._keys = KeyRing(config.keys, config.audience)

    def token(self, tenant: str, role: str, user: str) -> str:
        """A token for a day."""
        now_ms = time.time_ns() // 1_000_000
        return self._keys.sign(tenant=tenant, role=Role(role), user=user, now_ms=now_ms, lifetime_s=_TOKEN_LIFETIME_S)

    def tokens(self, tenant: str, role: str, users: Iterable[str]) -> dict[str, str]:
        """A token for each user."""
        return {user: self.token(tenant, role, user) for user in users}

    async def create_tenant(self, tenant: str, **settings: object) -> None:
        """Bring a tenant with such settings into being."""
        async with self._session(tenant, "admin") as http:
            await _call(http, "PUT", f"{self.url}/v1/tenants/{tenant}", {"settings": settings})

    async def import_fleet(self, tenant: str, fleet: Mapping[str, Sequence[tuple[str, str]]], drivers: int = 1) -> None:
        """Make transporters known, each with its vehicles (id and type) and drivers `{transporter}-d{number}`."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def put(http: aiohttp.ClientSession, transporter: str) -> None:
            async with limit:
                base = f"{self.url}/v1/fleet"
                await _call(http, "PUT", f"{base}/transporters/{transporter}", {"name": transporter})
                for vehicle, kind in fleet[transporter]:
                    body = {"transporter_id": transporter, "vehicle_type": kind}
                    await _call(http, "PUT", f"{base}/vehicles/{vehicle}", body)
                for number in range(drivers):
                    body = {"transporter_id": transporter}
                    await _call(http, "PUT", f"{base}/drivers/{transporter}-d{number}", body)

        async with self._session(tenant, "operator") as http:
            await asyncio.gather(*(put(http, transporter) for transporter in fleet))

    async def metrics(self) -> str:
        """What all its processes export, one after the other."""
        async with aiohttp.ClientSession() as http:
            texts = []
            for url in self.urls:
                async with http.get(f"{url}/metrics") as response:
                    texts.append(await response.text())
            return "\n".join(texts)

    def _session(self, tenant: str, role: str) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self.token(tenant, role, 'bench')}"}
        return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


async def _call(http: aiohttp.ClientSession, method: str, url: str, body: Mapping[str, object]) -> None:
    async with http.request(method, url, json=body) as response:
        if response.status not in (200, 201):
            hint = " (it does not know the key: set HAULCAST_JWT_KEYS)" if response.status == 401 else ""
            raise BaselineFailed(f"{method} {url} was answered {response.status}{hint}: {await response.text()}")


@asynccontextmanager
async def stores(directory: Path, *, fsync: bool = True) -> AsyncIterator[tuple[PrivatePostgres, PrivateRedis]]:
    """A Postgres and a Redis, until the block ends. Raises `StoreFailed`."""
    postgres, redis = PrivatePostgres(directory, fsync=fsync), PrivateRedis(directory)
    try:
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(redis.start)
        yield postgres, redis
    finally:
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(postgres.kill)


@asynccontextmanager
async def embedded(directory: Path, **environ: str) -> AsyncIterator[Haulcast]:
    """One haulcast with its journal in a file in `directory`, until the block ends."""
    async with _served(directory, 1, {"HAULCAST_DATA_DIR": str(directory), **environ}) as processes:
        yield Haulcast(load({}), [one.url for one in processes], pids=[one.pid for one in processes])


async def target_server(bench: "Bench") -> Haulcast:
    """The server at the URL that was given, or an embedded one for as long as the scenario runs.

    Of the former no processes are known, so there is nothing to measure the memory and CPU time of.
    """
    if bench.url is None:
        return await bench.stack.enter_async_context(embedded(bench.directory()))
    keys = {name: os.environ[name] for name in ("HAULCAST_JWT_KEYS", "HAULCAST_JWT_AUDIENCE") if name in os.environ}
    return Haulcast(load(keys), [bench.url.rstrip("/")])


@asynccontextmanager
async def clustered(directory: Path, nodes: int, **environ: str) -> AsyncIterator[Haulcast]:
    """So many nodes over private stores, with every commit on the disk before it is confirmed, until the block ends."""
    async with stores(directory) as (postgres, redis):
        urls = {"HAULCAST_DATABASE_URL": postgres.url, "HAULCAST_REDIS_URL": redis.url}
        async with _served(directory, nodes, {**urls, **environ}) as processes:
            yield Haulcast(
                load({}),
                [one.url for one in processes],
                pids=[one.pid for one in processes],
                store_pids=[postgres.pid, redis.pid],
                store_urls=urls,
            )


@asynccontextmanager
async def _served(directory: Path, nodes: int, settings: Mapping[str, str]) -> AsyncIterator[list[Process]]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HAULCAST_")}
    processes = [
        Process(free_port(), directory / f"node{number}.log", {**environ, **settings}) for number in range(nodes)
    ]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        await asyncio.gather(*(process.stop() for process in processes))


@asynccontextmanager
async def baseline(command: Sequence[str], **environ: str) -> AsyncIterator[Subject]:
    """A program that listens on the port in `PORT` and prints a line once it does, until the block ends."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *leashed(command, signal.SIGTERM),
        env={**os.environ, **environ, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_WITHIN_S):
            if not await process.stdout.readline():
                raise BaselineFailed(f"{' '.join(command)} has ended ({await process.wait()})")
        drain = asyncio.create_task(process.stdout.read())
        yield Subject([f"http://127.0.0.1:{port}"], pids=[process.pid])
        drain.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
