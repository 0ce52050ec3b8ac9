"""The only wiring: what a node consists of, the order in which it starts, and the reverse in which it stops.

Start: stores, the source of routes, hub, actors (the node joins the others under a new incarnation and takes over what
nobody who lives owns; overdue deadlines ring; the others have met it), then the port is opened. Whoever can connect
finds a node that is ready.

Stop: readiness is withdrawn, live broadcasts are handed over to other nodes if there are any, commands under way are
finished and answered, the port and then the sockets are closed, these with a hint when to come back, the node leaves
the others, and the stores are closed last.
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Self

import structlog
import uvloop
from aiohttp import web

from . import __version__, log
from .actors.bus import NodeBus
from .actors.dispatch import Dispatch
from .actors.membership import LEASE_TTL_S
from .actors.nodes import Nodes
from .actors.tenants import Tenants
from .clock import SystemClock
from .config import DEVELOPMENT_KEY, Config, Environment
from .domain.ids import TenantId
from .domain.replies import Json
from .errors import ConfigError, HaulcastError, StoreUnavailable
from .identity import new_broadcast_id
from .loop_lag import LoopLag
from .metrics import Metrics
from .ports import Clock, Kind, NodeStatus, RouteSource, Vitals
from .routing import BoundedRoutes, GreatCircleRoutes, OsrmRoutes
from .stores import Stores, open_stores
from .tasks import running
from .transport.auth import KeyRing
from .transport.close_codes import CloseCode
from .transport.collector import RouteCollectors
from .transport.http import Edge
from .transport.hub import Hub
from .transport.rates import Rates
from .transport.services import Services
from .transport.session import Limits

DRAIN_TIMEOUT_S = 10.0
SOCKETS_CLOSE_OVER_S = 0.5
"""A planned stop closes its sockets spread over this time, so that clients do not all come back at once."""
REQUEST_LOG_MS = 24 * 3600 * 1000
"""How long an answer is remembered under its request's id."""
_PURGE_EVERY_S = 600.0
_SWEEP_EVERY_S = 5.0
_SYNC_EVERY_S = 60.0
_WATCH_EVERY_S = 5.0
_LAGGING_MS = 1_000.0

logger = structlog.get_logger()


class Node:
    """One running server. Made by `start`, ended by `stop`."""

    def __init__(
        self,
        clock: Clock,
        stores: Stores,
        routes: RouteSource,
        tenants: Tenants,
        rates: Rates,
        metrics: Metrics,
        on_drain: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._stores = stores
        self._journal = stores.journal
        self._presence = stores.presence
        self._started_ms = clock.now_ms()
        self._lag = LoopLag(clock, metrics.loop_lag_s)
        self._draining = False
        self._journal_answers = True  # when it was last watched; a node does not start without it
        self._cleanup = AsyncExitStack()
        self._edge: Edge | None = None
        self._http: web.Server | None = None
        bus = NodeBus(stores.cluster, metrics.actors.bus_sent, metrics.actors.bus_missed)
        self.bus = bus
        self.metrics = metrics
        self.hub = Hub(
            stores.journal,
            clock,
            bus,
            self._next_epoch,
            metrics.hub,
            presence=stores.presence,
            state_of=lambda tenant_id: self.dispatch.controller.state_of(tenant_id),
            rates=rates,
            shared=stores.shared,
            collect=RouteCollectors(routes, stores.journal, stores.presence, clock, metrics.hub.routes_failed),
        )
        self.dispatch = Dispatch(
            journal=stores.journal,
            cluster=stores.cluster,
            bus=bus,
            presence=stores.presence,
            publisher=self.hub,
            clock=clock,
            metrics=metrics.actors,
            tenants=tenants,
            on_missed=self.hub.refresh,
            on_given_up=self._dismiss,
            listener=self.hub,
            on_drain=on_drain,
        )
        self._membership = self.dispatch.membership
        self.nodes = Nodes(bus, self._status)
        bus.handle(Kind.NEWS, self.hub.receive)
        bus.handle(Kind.DRIVERS, self.hub.attendance.receive)
        bus.on_peers(self._peers_changed)
        metrics.board_broadcasts.set_function(lambda: self.hub.board_size)
        metrics.topics.set_function(lambda: self.hub.topic_count)
        metrics.live_actors.set_function(lambda: len(self.dispatch.registry))
        metrics.armed_timers.set_function(lambda: len(self.dispatch.deadlines))
        metrics.tasks.set_function(lambda: len(asyncio.all_tasks()))
        metrics.peers.set_function(lambda: len(self._membership.peers))
        metrics.lease_left_s.set_function(lambda: self._membership.left_s)
        metrics.ready.set_function(lambda: self._may_be_ready and self._journal_answers)
        metrics.transporters_online.set_function(lambda: self._presence.online_count)
        metrics.vehicles.set_function(lambda: self._presence.vehicle_count)
        self.port = 0  # where it listens, once started

    @classmethod
    async def start(
        cls,
        config: Config,
        clock: Clock | None = None,
        limits: Limits | None = None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> Self:
        """Start a node as configured; `limits` replaces the bounds of a connection. `on_drain` is called when an admin
        wants it to stop, and has `stop` called soon. Raises `ConfigError`."""
        clock = clock or SystemClock()
        keys = KeyRing(config.keys, config.audience)
        metrics = Metrics()
        async with AsyncExitStack() as started:
            stores = await open_stores(started, config, clock, metrics)
            tenants = Tenants(stores.journal, create_on_sight=config.environment is Environment.DEVELOPMENT)
            routes = _open_routes(started, config)
            limits = limits or Limits()
            rates = Rates(limits)
            node = cls(clock, stores, routes, tenants, rates, metrics, on_drain)
            started.push_async_callback(node.hub.close)
            started.push_async_callback(node.dispatch.close)
            try:
                await node.dispatch.start()
            except StoreUnavailable as error:
                raise ConfigError(
                    f"the stores cannot be reached: {error}; check HAULCAST_DATABASE_URL and HAULCAST_REDIS_URL"
                ) from error
            await node.dispatch.membership.introduced()
            await node.dispatch.controller.catch_up()
            await started.enter_async_context(running(node.hub.attendance.run(), "attendance"))
            edge = Edge(
                Services(
                    journal=stores.journal,
                    dispatcher=node.dispatch.dispatcher,
                    availability=node.dispatch.availability,
                    hub=node.hub,
                    tenants=tenants,
                    bus=node.bus,
                    clock=clock,
                    keys=keys,
                    metrics=metrics.transport,
                    health=node,
                    new_broadcast_id=lambda: new_broadcast_id(clock),
                    nodes=node.nodes,
                    controller=node.dispatch.controller,
                    rates=rates,
                    registry=metrics.registry,
                    origins=config.origins,
                    tiles=config.tiles,
                    limits=limits,
                )
            )
            node._edge = edge
            node.bus.handle(Kind.FLEET, edge.fleet_changed)
            runner, site = await _listen(started, edge, config)
            node.port, node._http = runner.addresses[0][1], runner.server
            started.push_async_callback(edge.close, SOCKETS_CLOSE_OVER_S)
            started.push_async_callback(site.stop)  # first, so that nobody comes back to a node that is leaving
            started.push_async_callback(node.dispatch.finish, DRAIN_TIMEOUT_S)
            await started.enter_async_context(running(node._lag.run(), "loop_lag"))
            await started.enter_async_context(running(node._maintain(), "maintain"))
            await started.enter_async_context(running(node._watch_journal(), "watch_journal"))
            node._cleanup = started.pop_all()
        return node

    @property
    def incarnation(self) -> int:
        """Who this node is among the others."""
        return self._membership.incarnation

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
        return self._may_be_ready and await self._journal_ms() is not None

    async def detailed(self) -> Mapping[str, Json]:
        """See `Health`. Counts are of this node."""
        journal_ms = await self._journal_ms()
        cluster_ms = await self._latency_ms(self._stores.cluster.members)
        degraded = None in (journal_ms, cluster_ms) or not self._membership.held or self._lag.last_ms > _LAGGING_MS
        journal, cluster = self._stores.kinds
        return {
            "status": "draining" if self._draining else "degraded" if degraded else "ok",
            "version": __version__,
            "incarnation": self._membership.incarnation,
            "uptime_s": (self._clock.now_ms() - self._started_ms) // 1000,
            "journal": {"kind": journal, "ok": journal_ms is not None, "latency_ms": journal_ms},
            "cluster": {
                "kind": cluster,
                "ok": cluster_ms is not None,
                "latency_ms": cluster_ms,
                "lease_left_ms": round(self._membership.left_s * 1000),
                "peers": sorted(self._membership.peers),
            },
            "loop_lag_ms": round(self._lag.last_ms, 1),
            "connections": self.hub.connection_count,
            "topics": self.hub.topic_count,
            "actors": len(self.dispatch.registry),
            "timers": len(self.dispatch.deadlines),
            "tasks": self._own_tasks,
            "vehicles": self._presence.vehicle_count,
            "transporters_online": self._presence.online_count,
        }

    def _status(self, tenant_id: TenantId | None) -> NodeStatus:
        return NodeStatus(
            self._membership.incarnation,
            Vitals(
                active_broadcasts=self.dispatch.live_index.count(tenant_id),
                lease_age_ms=round(self._membership.age_s * 1000),
                lease_ttl_ms=round(LEASE_TTL_S * 1000),
                loop_lag_ms=round(self._lag.last_ms, 1),
                draining=self._draining,
            ),
        )

    @property
    def _own_tasks(self) -> int:
        """Tasks, but for those that HTTP connections and boards have as long as somebody keeps them: what is more than
        before once all is done has leaked, whoever looks on."""
        connections = 0 if self._http is None else len(self._http.connections)
        return len(asyncio.all_tasks()) - connections - self.hub.board_task_count

    @property
    def _may_be_ready(self) -> bool:
        """Whether nothing but the journal can keep the node from being ready."""
        return not self._draining and self._membership.held

    async def _watch_journal(self) -> None:
        """Keep whether the journal answers, for `haulcast_ready`: a scrape must not ask it, nor wait for it. Apart
        from `_maintain`, which may be held up by what it does."""
        while True:
            try:
                self._journal_answers = await self._journal_ms() is not None
            except HaulcastError:
                self._journal_answers = False
            await asyncio.sleep(_WATCH_EVERY_S)

    async def _journal_ms(self) -> float | None:
        return await self._latency_ms(lambda: self._journal.read_tenant(TenantId("health")))

    async def _latency_ms(self, ask: Callable[[], Awaitable[object]]) -> float | None:
        """How long a small question takes; None if it is not answered."""
        started_s = self._clock.monotonic_s()
        try:
            await ask()
        except StoreUnavailable:
            return None
        return round((self._clock.monotonic_s() - started_s) * 1000, 1)

    # --- Cluster ---

    def _peers_changed(self) -> None:
        self.hub.peers_changed()
        self.dispatch.controller.peers_changed()

    async def _next_epoch(self) -> int:
        """A number above all that any node was given before: where the versions of a feed go on. A node on its own
        has its incarnation for that."""
        if self._stores.shared:
            return await self._journal.next_incarnation()
        return self._membership.incarnation

    def _dismiss(self) -> None:
        """The others have given this node up and it cannot reach them: its clients are better off elsewhere."""
        if self._edge is not None:
            self._edge.dismiss(CloseCode.NODE_LOST, SOCKETS_CLOSE_OVER_S)

    async def _maintain(self) -> None:
        """Drop what has outlived its time: presence often, logged replies now and then."""
        next_purge_s = self._clock.monotonic_s()
        next_sync_s = self._clock.monotonic_s() + _SYNC_EVERY_S
        while True:
            try:
                await self._presence.sweep()
                now_s = self._clock.monotonic_s()
                if now_s >= next_purge_s:
                    next_purge_s = now_s + _PURGE_EVERY_S
                    await self._journal.purge_requests(self._clock.now_ms() - REQUEST_LOG_MS)
                if now_s >= next_sync_s:
                    next_sync_s = now_s + _SYNC_EVERY_S
                    self.hub.sweep()
                    if self._membership.incarnation == min(self._membership.alive):  # one of them is enough
                        await self._presence.sync_engaged(await self._journal.engaged_vehicles())
            except HaulcastError as error:
                logger.warning("maintenance_failed", error=str(error))
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
    node = await Node.start(config, on_drain=stopping.set)
    if config.clustered:
        log.tell(incarnation=lambda: node.incarnation)
    if DEVELOPMENT_KEY in config.keys:
        logger.warning("DEVELOPMENT MODE: anybody can sign tokens with the built-in key; never expose this server")
    for name in config.exposed:
        logger.warning("a store is reached over a network without TLS", variable=name)
    logger.info("listening", url=f"http://{config.host}:{node.port}", environment=config.environment)
    # Measured: what lives as long as the process is not looked at again by the collector; p99 of a reply 50 -> 24 ms.
    # Young objects are looked at before there are many: the middle generation takes 5 to 20 ms (of 50,000, 15 to 40).
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 4, 50)
    await stopping.wait()
    logger.info("stopping")
    await node.stop()
    logger.info("stopped")


def _open_routes(started: AsyncExitStack, config: Config) -> RouteSource:
    routes = GreatCircleRoutes() if config.osrm_url is None else BoundedRoutes(OsrmRoutes(config.osrm_url))
    started.push_async_callback(routes.close)
    return routes


async def _listen(started: AsyncExitStack, edge: Edge, config: Config) -> tuple[web.AppRunner, web.TCPSite]:
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
    site = web.TCPSite(runner, config.host, config.port, backlog=1024, reuse_port=config.reuse_port)
    sites = [(config.port, site)]
    if config.node_port is not None:  # until the end: operators may look on while the node stops
        sites.append((config.node_port, web.TCPSite(runner, config.host, config.node_port)))
    for number, each in sites:
        try:
            await each.start()
        except OSError as error:
            raise ConfigError(f"cannot listen on {config.host}:{number}: {error.strerror or error}") from None
    return runner, site
