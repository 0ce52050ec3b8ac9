"""One server of the demo: a child process, started like any other, and ended in every way there is."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from haulcast.leash import leashed

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
LOG_LINES_SHOWN = 15


class ServerFailed(Exception):
    """A server did not start, ended by itself, or refused what it should not. The message names its log."""


class Process:
    """`haulcast serve` on a port of this machine, over any number of starts. All write to one log."""

    def __init__(self, port: int, log_path: Path, environ: Mapping[str, str]) -> None:
        self.port = port
        self.log_path = log_path
        self.running = False
        """Whether it was ready, and was not ended from here."""
        self._environ = {**environ, "HAULCAST_PORT": str(port)}
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ending = False
        self._died = asyncio.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and wait until it is ready. Raises `ServerFailed`."""
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *leashed([sys.executable, "-m", "haulcast", "serve"], signal.SIGTERM),
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl-C is for the demo, which then stops the server itself
            )
        self._ending = False
        try:
            async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as http:
                while not await self._ready(http):
                    if self._process.returncode is not None:
                        raise self.failed(f"the server has not started (exit code {self._process.returncode})")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise self.failed(f"the server was not ready within {START_TIMEOUT_S:g} s") from None
        self.running = True
        self._watch = asyncio.create_task(self._notice_death(self._process))

    async def died(self) -> None:
        """Wait until it has ended though nobody told it to, and raise `ServerFailed`."""
        await self._died.wait()
        assert self._process is not None
        raise self.failed(f"the server has ended with {self._process.returncode}")

    async def stop(self) -> int:
        """Stop it gracefully, or kill it if it does not let us; its exit code, 0 if it does not run."""
        if self._process is None:
            return 0
        self._end(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._end(signal.SIGKILL)
        return await self._gone()

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything more."""
        self._end(signal.SIGKILL)
        await self._gone()

    async def detailed(self) -> Mapping[str, Any]:
        """What `/health/detailed` says. On a connection of its own, whose task is the only one that asking adds."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/health/detailed") as response:
            details: Mapping[str, Any] = await response.json()
            return details

    def failed(self, what: str) -> ServerFailed:
        """The error that says so, with the end of the log."""
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return ServerFailed("\n".join([f"{what}; its log is {self.log_path}", *lines]))

    def _end(self, number: signal.Signals) -> None:
        self.running = False
        self._ending = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _gone(self) -> int:
        assert self._process is not None
        code = await self._process.wait()
        if self._watch is not None:
            await asyncio.wait([self._watch])
        self._process = self._watch = None
        return code

    async def _notice_death(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if not self._ending:
            self.running = False
            self._died.set()

    async def _ready(self, http: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, OSError):
            async with http.get(f"{self.url}/health/ready") as response:
                return response.status == 200
        return False
