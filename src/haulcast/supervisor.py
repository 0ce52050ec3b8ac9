"""`haulcast serve --nodes N`: several nodes of a cluster on one machine, behind one port.

1. Each node is a process, `haulcast serve`. All listen on the same port (SO_REUSEPORT): the kernel spreads connections
   over them. Node i has the port HAULCAST_PORT + i besides, for operators: its own health and metrics.
2. The port is reserved by a socket that is bound and never listens, so that nobody else gets it while nodes restart.
3. A node that dies is started again, for ever; `Backoff` says when. Its broadcasts do not wait for that: the other
   nodes take them over.
4. A node that ends with exit code 0 without having been told to here was drained: it has handed everything over, and is
   started again at once.
5. SIGTERM and SIGINT stop all nodes at once, and kill those that are not done in time. SIGHUP replaces one node after
   the other; the next only when the one before is ready, so one that cannot start holds the rest up, as it should.
6. A supervisor that is killed takes its nodes along: they are leashed, and stop gracefully by themselves.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import aiohttp
import structlog

from . import log
from .config import Config
from .errors import ConfigError
from .leash import leashed

NODE = (sys.executable, "-m", "haulcast", "serve", "--share-port")
STOP_WITHIN_S = 25.0
"""A node needs some 12 s at most; whoever stops a supervisor is told to give it 30."""
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
STEADY_AFTER_S = 60.0
_READY_POLL_S = 0.1
_READY_ANSWER_WITHIN_S = 2.0
_HIGHEST_PORT = 65_535
_TRIES_FOR_FREE_PORTS = 50

logger = structlog.get_logger()


class Backoff:
    """How long to wait before a node is started again: twice as long each time, unless it ran well for a while."""

    def __init__(self) -> None:
        self._deaths = 0  # in a row, each soon after the start

    def died_after(self, lived_s: float) -> float:
        """The delay in seconds."""
        self._deaths = 1 if lived_s >= STEADY_AFTER_S else self._deaths + 1
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._deaths - 1, 32))


def supervise(config: Config, nodes: int, command: Sequence[str] = NODE) -> int:
    """Run so many nodes until SIGTERM or SIGINT. 0: all stopped by themselves; 1: some had to be killed.

    Raises `ConfigError` if the configuration does not allow it or a port is taken.
    """
    if not config.clustered:
        raise ConfigError(
            "--nodes needs HAULCAST_DATABASE_URL and HAULCAST_REDIS_URL: an embedded journal has one process"
        )
    if config.node_port is not None:
        raise ConfigError("--nodes gives its nodes the ports after HAULCAST_PORT: unset HAULCAST_NODE_PORT")
    log.configure(config.log_level)
    port = _choose_port(config.host, config.port, nodes)
    with _bound(config.host, port, socket.SO_REUSEPORT):
        return asyncio.run(_supervise([Node(number, config.host, port, command) for number in range(1, nodes + 1)]))


class Node:
    """One node: a process, and after its end the next one."""

    def __init__(self, number: int, host: str, shared_port: int, command: Sequence[str]) -> None:
        self.number = number
        self.node_port = shared_port + number
        self._command = command
        self._environ = {"HAULCAST_PORT": str(shared_port), "HAULCAST_NODE_PORT": str(self.node_port)}
        self._ready_url = f"http://{_reached_at(host)}:{self.node_port}/health/ready"
        self._process: asyncio.subprocess.Process | None = None
        self._backoff = Backoff()
        self._ending = asyncio.Event()
        self._replaced = False  # whether the end of the process that runs is wanted, and is to be followed by another

    async def keep(self) -> None:
        """Keep it running until `end`."""
        while not self._ending.is_set():
            began_s = monotonic()
            end = await self._run()
            if self._ending.is_set():
                return
            if self._replaced:
                self._replaced = False
                continue
            if end.get("exit_code") == 0:
                logger.info("node_drained", node=self.number, pid=end["pid"])
                continue
            delay_s = self._backoff.died_after(monotonic() - began_s)
            logger.error("node_died", node=self.number, **end, starts_again_in_s=delay_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay_s)

    def end(self) -> None:
        """Ask it to stop, for good."""
        self._ending.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        logger.error("node_killed", node=self.number, why=f"it has not stopped within {STOP_WITHIN_S:g} s")
        self._signal(signal.SIGKILL)

    async def replace(self) -> None:
        """Stop the process, start another and wait until that is ready, however long it takes."""
        process = self._process
        if process is not None:
            self._replaced = True
            self._signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
            except TimeoutError:
                self.kill()
                await process.wait()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_READY_ANSWER_WITHIN_S)) as http:
            while not await self._is_ready(http):
                await asyncio.sleep(_READY_POLL_S)

    async def _run(self) -> dict[str, int | str]:
        """Run one process to its end; how it ended, for the log."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *leashed(self._command, signal.SIGTERM),
                env={**os.environ, **self._environ},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the supervisor, which then stops its nodes itself
            )
        except OSError as error:
            return {"error": str(error)}
        logger.info("node_started", node=self.number, pid=self._process.pid, node_port=self.node_port)
        if self._ending.is_set():
            self._signal(signal.SIGTERM)
        pid, code = self._process.pid, await self._process.wait()
        self._process = None
        return {"pid": pid, "exit_code": code} if code >= 0 else {"pid": pid, "signal": signal.Signals(-code).name}

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with http.get(self._ready_url) as response:
                return response.status == 200
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


async def _supervise(nodes: Sequence[Node]) -> int:
    stopping, rolling = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, rolling.set)
    keeping = [asyncio.create_task(node.keep()) for node in nodes]
    roller = asyncio.create_task(_roll(nodes, rolling))
    await stopping.wait()
    logger.info("stopping", nodes=len(nodes))
    roller.cancel()
    for node in nodes:
        node.end()
    await asyncio.wait(keeping, timeout=STOP_WITHIN_S)
    late = [node for node, kept in zip(nodes, keeping, strict=True) if not kept.done()]
    for node in late:
        node.kill()
    await asyncio.gather(*keeping)
    await asyncio.wait([roller])
    logger.info("stopped", nodes=len(nodes))
    return 1 if late else 0


async def _roll(nodes: Sequence[Node], rolling: asyncio.Event) -> None:
    """Replace all nodes, one after the other, whenever it is asked for."""
    while True:
        await rolling.wait()
        rolling.clear()
        logger.info("rolling_restart", nodes=len(nodes))
        for node in nodes:
            await node.replace()
            logger.info("node_replaced", node=node.number)


# --- Ports ------------------------------------------------------------------------------------------------------------


def _choose_port(host: str, port: int, nodes: int) -> int:
    """`port`, or for 0 a free one. It and the `nodes` ports after it are free. Raises `ConfigError`."""
    if port + nodes > _HIGHEST_PORT:
        raise ConfigError(f"HAULCAST_PORT is {port}, and {nodes} nodes need as many ports after it")
    for attempts_left in reversed(range(1 if port else _TRIES_FOR_FREE_PORTS)):
        taken = port
        try:
            with _bound(host, port, socket.SO_REUSEADDR) as probe:
                taken = chosen = int(probe.getsockname()[1])
            for taken in range(chosen + 1, min(chosen + nodes, _HIGHEST_PORT) + 1):
                _bound(host, taken, socket.SO_REUSEADDR).close()
        except OSError as error:
            if not attempts_left:
                raise ConfigError(f"cannot listen on {host}:{taken}: {error.strerror or error}") from None
        else:
            if chosen + nodes <= _HIGHEST_PORT:
                return chosen
    raise ConfigError(f"there are no {nodes + 1} free ports in a row: set HAULCAST_PORT")


def _bound(host: str, port: int, option: int) -> socket.socket:
    """A socket that has the port and does not listen. With SO_REUSEADDR it has it alone, and connections that have just
    ended do not count; with SO_REUSEPORT it shares it with this user's other processes."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _reached_at(host: str) -> str:
    """Where a server that listens at `host` is reached from this machine, as part of a URL."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
