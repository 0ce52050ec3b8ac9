"""The demo's own server: a child process on the embedded journal, started like any other."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from haulcast.config import Config
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing

from .city import Company

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
TOKEN_LIFETIME_S = 7 * 86_400
IMPORTS_AT_ONCE = 8
LOG_LINES_SHOWN = 15


class ServerFailed(Exception):
    """The server did not start, ended by itself, or refused what it should not. The message names its log."""


class Server:
    """A running server, as its clients and its operator see it."""

    def __init__(self, config: Config, tenant: str, port: int, log_path: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.tenant = tenant
        self.log_path = log_path
        self.journal_path = config.journal_path
        self._keys = KeyRing(config.keys, config.audience)
        self._process: asyncio.subprocess.Process | None = None

    def token(self, role: Role, user: str) -> str:
        """A token of the demo's tenant."""
        now_ms = time.time_ns() // 1_000_000
        return self._keys.sign(tenant=self.tenant, role=role, user=user, now_ms=now_ms, lifetime_s=TOKEN_LIFETIME_S)

    async def ended(self) -> None:
        """Wait for the process to end, which it should not, and raise `ServerFailed`."""
        assert self._process is not None
        code = await self._process.wait()
        raise self._failed(f"the server has ended with {code}")

    async def detailed(self) -> Mapping[str, Any]:
        """What `/health/detailed` says. On a connection of its own, whose task is the only one that asking adds."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/health/detailed") as response:
            details: Mapping[str, Any] = await response.json()
            return details

    async def create_tenant(self, settings: Mapping[str, float]) -> None:
        """Bring the demo's tenant into being with settings of its own, as an admin would."""
        headers = {"Authorization": f"Bearer {self.token(Role.ADMIN, 'demo')}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.put(f"{self.url}/v1/tenants/{self.tenant}", json={"settings": settings}) as response,
        ):
            if response.status not in (200, 201):
                raise self._failed(f"PUT /v1/tenants/{self.tenant} was answered {await response.text()}")

    async def import_fleet(self, companies: Iterable[Company]) -> None:
        """Make the companies known, through the REST API."""
        headers = {"Authorization": f"Bearer {self.token(Role.OPERATOR, 'demo')}"}
        limit = asyncio.Semaphore(IMPORTS_AT_ONCE)

        async def put(http: aiohttp.ClientSession, path: str, body: Mapping[str, str]) -> None:
            async with http.put(f"{self.url}/v1/fleet/{path}", json=body) as response:
                if response.status not in (200, 201):
                    raise self._failed(f"PUT /v1/fleet/{path} was answered {await response.text()}")

        async def import_company(http: aiohttp.ClientSession, company: Company) -> None:
            owner = {"transporter_id": company.transporter_id}
            async with limit:
                await put(http, f"transporters/{company.transporter_id}", {"name": company.name})
                for truck in company.trucks:
                    await put(http, f"vehicles/{truck.vehicle_id}", {**owner, "vehicle_type": truck.vehicle_type})
                for driver in company.drivers:
                    await put(http, f"drivers/{driver}", owner)

        async with aiohttp.ClientSession(headers=headers) as http, asyncio.TaskGroup() as imports:
            for company in companies:
                imports.create_task(import_company(http, company))

    async def start(self, environ: Mapping[str, str]) -> None:
        """Start the process and wait until it is ready."""
        with self.log_path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "haulcast", "serve"),
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for the demo, which then stops the server itself
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as http:
                while not await self._ready(http):
                    if self._process.returncode is not None:
                        raise self._failed(f"the server has not started (exit code {self._process.returncode})")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise self._failed(f"the server was not ready within {START_TIMEOUT_S:g} s") from None

    async def stop(self) -> int:
        """Stop the process, gracefully if it lets us; its exit code."""
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
        return await process.wait()

    async def _ready(self, http: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, OSError):
            async with http.get(f"{self.url}/health/ready") as response:
                return response.status == 200
        return False

    def _failed(self, what: str) -> ServerFailed:
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return ServerFailed("\n".join([f"{what}; its log is {self.log_path}", *lines]))


@asynccontextmanager
async def running_server(config: Config, tenant: str, port: int | None) -> AsyncIterator[Server]:
    """A server that is ready, until the block ends. Without `port` it takes a free one. Raises `ServerFailed`."""
    config.data_dir.mkdir(parents=True, exist_ok=True)
    server = Server(config, tenant, port or _free_port(), config.data_dir / f"{tenant}.log")
    port_taken = server.url.rpartition(":")[2]
    environ = {**os.environ, "HAULCAST_PORT": port_taken, "HAULCAST_DATA_DIR": str(config.data_dir)}
    try:
        await server.start(environ)
        yield server
    finally:
        code = await server.stop()
    if code:
        raise ServerFailed(f"the server has stopped with {code} instead of 0; its log is {server.log_path}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
