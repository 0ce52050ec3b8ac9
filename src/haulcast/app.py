"""The only wiring: what a node consists of, the order in which it starts, and the reverse in which it stops.

Start: journal (migrated, locked), incarnation, presence, hub, actors (every live broadcast is taken over, overdue
deadlines ring), then the port is opened. Whoever can connect finds a node that is ready.

Stop: new commands are refused and readiness is withdrawn, commands under way are finished and answered, the port and
then the sockets are closed, these with a hint when to come back, and the journal last.
"""

import asyncio
import gc
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Self

import structlog
import uvloop
from aiohttp import web

from . import __version__, log
from .actors.dispatch import Dispatch
from .actors.tenants import Tenants
from .clock import SystemClock
from .config import DEVELOPMENT_KEY, Config, Environment
from .domain.ids import TenantId
from .domain.replies import Json
from .errors import ConfigError, JournalFault, JournalUnavailable
from .identity import new_broadcast_id
from .loop_lag import LoopLag
from .metrics import Metrics
from .ports import Clock, Journal
from .storage.memory.presence import MemoryPresence
from .storage.sqlite.journal import SqliteJournal
from .transport.auth import KeyRing
from .transport.http import Edge
from .transport.hub import Hub
from .transport.services import Services
from .transport.session import Limits

DRAIN_TIMEOUT_S = 10.0
SOCKETS_CLOSE_OVER_S = 0.5
"""A planned stop closes its sockets spread over this time, so that clients do not all come back at once."""
REQUEST_LOG_MS = 24 * 3600 * 1000
"""How long an answer is remembered under its request's id."""
_PURGE_EVERY_S = 600.0
_SWEEP_EVERY_S = 5.0
_LAGGING_MS = 1_000.0

logger = structlog.get_logger()


class Node:
    """One running server. Made by `start`, ended by `stop`."""

    def __init__(self, clock: Clock, journal: Journal, incarnation: int, tenants: Tenants, metrics: Metrics) -> None:
        self._clock = clock
        self._journal = journal
        self._incarnation = incarnation
        self._started_ms = clock.now_ms()
        self._presence = MemoryPresence(clock)
        self._lag = LoopLag(clock, metrics.loop_lag_s)
        self._draining = False
        self._cleanup = AsyncExitStack()
        self.hub = Hub(journal, clock, incarnation, metrics.deliveries)
        self.dispatch = Dispatch(
            journal=journal,
            presence=self._presence,
            publisher=self.hub,
            clock=clock,
            metrics=metrics.actors,
            tenants=tenants,
            incarnation=incarnation,
        )
        metrics.topics.set_function(lambda: self.hub.topic_count)
        metrics.live_actors.set_function(lambda: len(self.dispatch.dispatcher))
        metrics.armed_timers.set_function(lambda: len(self.dispatch.deadlines))
        metrics.tasks.set_function(lambda: len(asyncio.all_tasks()))
        self.port = 0  # where it listens, once started

    @classmethod
    async def start(cls, config: Config, clock: Clock | None = None, limits: Limits | None = None) -> Self:
        """Start a node as configured; `limits` replaces the bounds of a connection. Raises `ConfigError`."""
        clock = clock or SystemClock()
        keys = KeyRing(config.keys, config.audience)
        metrics = Metrics()
        async with AsyncExitStack() as started:
            journal = await SqliteJournal.open(config.journal_path)
            started.push_async_callback(journal.close)
            tenants = Tenants(journal, create_on_sight=config.environment is Environment.DEVELOPMENT)
            node = cls(clock, journal, await journal.next_incarnation(), tenants, metrics)
            await node.dispatch.start()
            started.push_async_callback(node.dispatch.close)
            edge = Edge(
                Services(
                    journal=journal,
                    dispatcher=node.dispatch.dispatcher,
                    availability=node.dispatch.availability,
                    hub=node.hub,
                    tenants=tenants,
                    clock=clock,
                    keys=keys,
                    metrics=metrics.transport,
                    health=node,
                    new_broadcast_id=lambda: new_broadcast_id(clock),
                    registry=metrics.registry,
                    origins=config.origins,
                    limits=limits or Limits(),
                )
            )
            site, node.port = await _listen(started, edge, config)
            started.push_async_callback(edge.close, SOCKETS_CLOSE_OVER_S)
            started.push_async_callback(site.stop)  # first, so that nobody comes back to a node that is leaving
            started.push_async_callback(node.dispatch.finish, DRAIN_TIMEOUT_S)
            for work in (node._lag.run(), node._maintain()):
                started.push_async_callback(_end, asyncio.create_task(work))
            node._cleanup = started.pop_all()
        return node

    async def stop(self) -> None:
        """Stop gracefully. Live broadcasts stay in the journal; the next start goes on with them."""
        self._draining = True
        await self._cleanup.aclose()

    # --- Health ---

    def live(self) -> bool:
        """See `Health`."""
        return True

    async def ready(self) -> bool:
        """See `Health`."""
        return not self._draining and await self._journal_latency_ms() is not None

    async def detailed(self) -> Mapping[str, Json]:
        """See `Health`. Counts are of this node."""
        latency_ms = await self._journal_latency_ms()
        lagging = self._lag.last_ms > _LAGGING_MS
        status = "draining" if self._draining else "degraded" if latency_ms is None or lagging else "ok"
        return {
            "status": status,
            "version": __version__,
            "incarnation": self._incarnation,
            "uptime_s": (self._clock.now_ms() - self._started_ms) // 1000,
            "journal": {"kind": "sqlite", "ok": latency_ms is not None, "latency_ms": latency_ms},
            "loop_lag_ms": round(self._lag.last_ms, 1),
            "connections": self.hub.connection_count,
            "topics": self.hub.topic_count,
            "actors": len(self.dispatch.dispatcher),
            "timers": len(self.dispatch.deadlines),
            "tasks": len(asyncio.all_tasks()),
            "vehicles": self._presence.vehicle_count,
            "transporters_online": self._presence.online_count,
        }

    async def _journal_latency_ms(self) -> float | None:
        """How long a small read takes; None if it fails."""
        started_s = self._clock.monotonic_s()
        try:
            await self._journal.read_tenant(TenantId("health"))
        except JournalUnavailable:
            return None
        return round((self._clock.monotonic_s() - started_s) * 1000, 1)

    async def _maintain(self) -> None:
        """Drop what has outlived its time: presence often, logged replies now and then."""
        next_purge_s = self._clock.monotonic_s()
        while True:
            await self._presence.sweep()
            if self._clock.monotonic_s() >= next_purge_s:
                next_purge_s = self._clock.monotonic_s() + _PURGE_EVERY_S
                try:
                    await self._journal.purge_requests(self._clock.now_ms() - REQUEST_LOG_MS)
                except (JournalUnavailable, JournalFault) as error:
                    logger.warning("purge_failed", error=str(error))
            await asyncio.sleep(_SWEEP_EVERY_S)


def serve(config: Config) -> int:
    """Run a node until SIGTERM or SIGINT; the exit code. Raises `ConfigError`."""
    log.configure(config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    node = await Node.start(config)
    if DEVELOPMENT_KEY in config.keys:
        logger.warning("DEVELOPMENT MODE: anybody can sign tokens with the built-in key; never expose this server")
    logger.info("listening", url=f"http://{config.host}:{node.port}", environment=config.environment)
    # Measured: what lives as long as the process is not looked at again by the collector; p99 of a reply 50 -> 24 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await stopping.wait()
    logger.info("stopping")
    await node.stop()
    logger.info("stopped")


async def _listen(started: AsyncExitStack, edge: Edge, config: Config) -> tuple[web.TCPSite, int]:
    runner = web.AppRunner(
        edge.app,
        access_log=None,
        logger=edge.aiohttp_log,
        handle_signals=False,
        shutdown_timeout=1.0,
        auto_decompress=False,  # 300 kB of zeros, compressed, took 0.7 s of the loop, and nobody sends such bodies
    )
    await runner.setup()
    started.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, config.host, config.port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}") from None
    port: int = runner.addresses[0][1]
    return site, port


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
