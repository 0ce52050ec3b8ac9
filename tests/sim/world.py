"""A dispatch runtime on virtual time: real actors over a journal and presence in memory; only transport is missing.

1. Time is the event loop's, and the loop's time is virtual: hours pass at once, and nothing happens in between that
   the program did not ask for.
2. A `World` outlives its nodes. What a node leaves behind when it stops or crashes is the journal.
3. Two promises are watched in every test, whatever else it is about: nothing is published, and nobody is given a
   reply, before the journal has reported the commit that justifies it. Breaches are gathered in `World.violations`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from haulcast.actors.bus import NodeBus
from haulcast.actors.dispatch import Dispatch
from haulcast.actors.tenants import Tenants
from haulcast.domain.broadcast import Broadcast, Place
from haulcast.domain.commands import Accept, Cancel, Command, Create, Decline, TruckSpec, UpdateTrip
from haulcast.domain.control import ControlCommand, PatchSettings, Pause, Resume, TenantControl
from haulcast.domain.fleet import Driver, Transporter, Vehicle
from haulcast.domain.geo import EARTH_RADIUS_M, Point
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, TripId, VehicleId
from haulcast.domain.replies import Done, Json, Refused, Reply
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import TripStatus
from haulcast.errors import RequestError
from haulcast.metrics import Metrics
from haulcast.ports import (
    Change,
    Claim,
    Cluster,
    ControlState,
    Journal,
    Origin,
    RequestKey,
    Role,
)
from haulcast.storage.memory import MemoryStore
from tests.sim.faults import FaultyJournal, FlakyCluster, FlakyPresence
from tests.sim.virtual_time import VirtualClock

ACME = TenantId("acme")
PICKUP = Place(19.0, 72.0, "Dock 1")
DROP = Place(18.5, 73.8, "Yard 9")
TRUCK = "truck"
_KM_PER_DEGREE = EARTH_RADIUS_M * 3.141592653589793 / 180 / 1000


@dataclass(frozen=True, slots=True)
class Published:
    """A change as one node published it."""

    at_ms: int
    incarnation: int
    change: Change

    @property
    def version(self) -> tuple[int, int]:
        """What orders everything that is said about the broadcast."""
        return self.change.epoch, self.change.after.seq


class RecordingPublisher:
    """Writes down what a node publishes. `broken`: so many of the next calls raise, which a publisher must not."""

    def __init__(self, world: "World", incarnation: Callable[[], int]) -> None:
        self._world = world
        self._incarnation = incarnation
        self.broken = 0

    def publish(self, change: Change) -> None:
        """See `Publisher`."""
        if self.broken:
            self.broken -= 1
            raise RuntimeError("a publisher that breaks its promise")
        after = change.after
        if self._world.journal.reported_seq.get(after.broadcast_id, 0) < after.seq:
            self._world.violations.append(f"{after.broadcast_id} seq {after.seq} was published before it was durable")
        self._world.published.append(Published(self._world.clock.now_ms(), self._incarnation(), change))


@dataclass(slots=True)
class RecordingListener:
    """Writes down what a node is told that operators have changed, and the last state of its nodes."""

    changed: list[tuple[int, int]] = field(default_factory=list)
    """The versions before and after."""
    state: ControlState | None = None
    watched: Collection[TenantId] = ()

    def control_changed(self, tenant_id: TenantId, before: TenantControl, after: TenantControl) -> None:
        """See `ControlListener`."""
        self.changed.append((before.version, after.version))

    def state_changed(self, tenant_id: TenantId, state: ControlState) -> None:
        """See `ControlListener`."""
        self.state = state


@dataclass(slots=True)
class Ask:
    """A command that a client sent, and when it was answered."""

    broadcast_id: BroadcastId
    command: Command
    origin: Origin
    future: "asyncio.Future[Reply]"
    answered_at_ms: int | None = None

    @property
    def reply(self) -> Reply | None:
        """The reply, if that is what it was answered with."""
        if not self.future.done() or self.future.cancelled() or self.future.exception() is not None:
            return None
        return self.future.result()


@dataclass(slots=True)
class Node:
    """One server process: started by `World.boot`."""

    dispatch: Dispatch
    cluster: FlakyCluster
    presence: FlakyPresence
    publisher: RecordingPublisher
    metrics: Metrics
    running: bool = True
    listener: RecordingListener = field(default_factory=RecordingListener)
    drained: bool = False
    """An admin wants it to stop."""
    missed_at_s: list[float] = field(default_factory=list)
    """When its views were to be read again."""
    given_up: int = 0
    """How often its clients were sent elsewhere because it was given up and cut off."""

    def dismiss(self) -> None:
        """Its clients are to go elsewhere."""
        self.given_up += 1

    def drain(self) -> None:
        """It is to stop."""
        self.drained = True

    @property
    def incarnation(self) -> int:
        """Who it is now."""
        return self.dispatch.membership.incarnation

    async def stop(self, timeout_s: float = 10.0) -> None:
        """A planned stop."""
        self.running = False
        await self.dispatch.finish(timeout_s)
        await self.dispatch.close()
        await self.cluster.close()

    async def crash(self) -> None:
        """The process dies. Unrealistic in that its clients are told, and a commit that waits may still be made."""
        self.running = False
        self.cluster.dead = True
        await self.dispatch.close()
        await self.cluster.close()

    def metric(self, name: str) -> float:
        """The value of a metric without labels, as operators see it."""
        value = self.metrics.registry.get_sample_value(f"haulcast_{name}")
        assert value is not None, f"there is no metric {name}"
        return value

    def leftovers(self) -> dict[str, int]:
        """Everything that the node still holds for broadcasts, if there is any."""
        return leftovers(self.dispatch)


def leftovers(dispatch: Dispatch) -> dict[str, int]:
    """Everything that a node still holds for broadcasts, if there is any."""
    registry = dispatch.registry
    held = {
        "actors": len(registry),
        "deadlines": len(dispatch.deadlines),
        "index": sum(len(tenant.grid) for tenant in registry._context.live_index._tenants.values()),
        "tenants in the index": len(registry._context.live_index._tenants),
        "tasks": len(registry._context.tasks),
    }
    return {what: number for what, number in held.items() if number}


@dataclass(slots=True, repr=False)
class World:
    """One tenant, its fleet, one journal, and one node after another (or beside another)."""

    settings: TenantSettings = field(default_factory=TenantSettings)
    clock: VirtualClock = field(default_factory=VirtualClock)
    journal: FaultyJournal = field(default_factory=FaultyJournal)
    store: MemoryStore = field(default_factory=MemoryStore)
    presence: FlakyPresence | None = None  # what several nodes share; one on its own begins anew
    nodes: list[Node] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    expected_logs: set[str] = field(default_factory=set)  # warnings and errors that the test provokes
    positions: dict[TransporterId, tuple[Vehicle, Point]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: TenantSettings | None = None, nodes: int = 1) -> AsyncIterator["World"]:
        """A world with so many running nodes. At its end every ask is answered and no task is left."""
        world = cls(settings=settings or TenantSettings())
        if nodes > 1:
            world.presence = FlakyPresence(world.clock)
        await world.journal.create_tenant(ACME, world.settings)
        for _ in range(nodes):
            await world.boot()
        if nodes > 1:
            await asyncio.sleep(1)  # until all have seen each other
        yield world
        for node in world.nodes:
            if node.running:
                await node.stop()
        await asyncio.sleep(0)
        assert [ask for ask in world.asks if not ask.future.done()] == []
        assert world.violations == []
        assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    @property
    def node(self) -> Node:
        """The newest node that runs, or the last that did."""
        return next((node for node in reversed(self.nodes) if node.running), self.nodes[-1])

    async def boot(self, idle_s: float = 5.0) -> Node:
        """Start a node over the journal. Whoever was online before is so again."""
        if self.presence is None and not any(node.running for node in self.nodes):
            self.store = MemoryStore()  # it was the process's own
        cluster = FlakyCluster(self.store, self.clock)
        presence = self.presence or FlakyPresence(self.clock)
        missed_at_s: list[float] = []
        listener = RecordingListener()
        dispatch, publisher, metrics = self.wire(
            self.journal,
            cluster,
            presence,
            idle_s=idle_s,
            on_given_up=lambda: node.dismiss(),
            on_missed=lambda: missed_at_s.append(self.clock.monotonic_s()),
            listener=listener,
            on_drain=lambda: node.drain(),
        )
        for transporter_id, (vehicle, position) in self.positions.items():
            await presence.go_online(ACME, transporter_id)
            presence.report(ACME, vehicle, position)
        node = Node(dispatch, cluster, presence, publisher, metrics, listener=listener, missed_at_s=missed_at_s)
        self.nodes.append(node)
        await dispatch.start()
        return node

    def wire(
        self,
        journal: Journal,
        cluster: Cluster,
        presence: FlakyPresence,
        *,
        idle_s: float,
        on_given_up: Callable[[], None],
        on_missed: Callable[[], None] = lambda: None,
        listener: RecordingListener | None = None,
        on_drain: Callable[[], None] = lambda: None,
    ) -> tuple[Dispatch, RecordingPublisher, Metrics]:
        """The actors of one node, not started yet, over what it has of the stores."""
        metrics = Metrics()
        dispatch = Dispatch(
            journal=journal,
            cluster=cluster,
            bus=NodeBus(cluster, metrics.actors.bus_sent, metrics.actors.bus_missed),
            presence=presence,
            publisher=(publisher := RecordingPublisher(self, lambda: dispatch.membership.incarnation)),
            clock=self.clock,
            metrics=metrics.actors,
            tenants=Tenants(journal, create_on_sight=False),
            on_missed=on_missed,
            on_given_up=on_given_up,
            listener=listener or RecordingListener(watched=(ACME,)),
            on_drain=on_drain,
            idle_s=idle_s,
        )
        return dispatch, publisher, metrics

    async def steal(self, broadcast_id: BroadcastId, node: Node) -> None:
        """Have `node` take a broadcast over although its owner lives."""
        owner = await self.journal.read_owner(ACME, broadcast_id)
        assert owner is not None
        claim = Claim(ACME, broadcast_id, owner.epoch)
        for stored in await self.journal.claim([claim], node.incarnation):
            node.dispatch.registry.adopt(stored)

    async def configure(self, *, paused: bool | None = None, **settings: Any) -> None:
        """Have an operator pause or resume, or change settings; returns when every node has followed."""
        commands: list[ControlCommand] = [] if paused is None else [Pause() if paused else Resume()]
        commands += [PatchSettings(settings)] if settings else []
        for command in commands:
            origin = Origin(RequestKey(ACME, Role.OPERATOR, "op", f"r{next(self._numbers)}"), "")
            assert data(await self.node.dispatch.controller.carry_out(ACME, command, origin, None))["complete"]

    # --- The fleet ---

    async def transporter(self, name: str, *, km: float = 1.0, vehicle_type: str = TRUCK) -> TransporterId:
        """Transporter `tN`, online with vehicle `tN-v` `km` north of the pickup, and with driver `tN-d`."""
        vehicle = await self.offline(name, vehicle_type=vehicle_type)
        transporter_id = vehicle.transporter_id
        self.positions[transporter_id] = (vehicle, north(km))
        await self.node.presence.go_online(ACME, transporter_id)
        self.node.presence.report(ACME, vehicle, north(km))
        return transporter_id

    async def offline(self, name: str, *, vehicle_type: str = TRUCK) -> Vehicle:
        """The same, but neither online nor with a position."""
        transporter_id = TransporterId(name)
        vehicle = Vehicle(VehicleId(f"{name}-v"), transporter_id, vehicle_type)
        driver = Driver(DriverId(f"{name}-d"), transporter_id)
        await self.journal.put_fleet(ACME, [Transporter(transporter_id), vehicle, driver])
        return vehicle

    async def transporters(self, number: int) -> list[TransporterId]:
        """So many transporters, online within the first wave's reach."""
        return [await self.transporter(f"t{n}", km=1 + n / 1000) for n in range(number)]

    async def spare_vehicle(self, owner: str, name: str, vehicle_type: str = TRUCK) -> None:
        """One more vehicle, which has never reported a position."""
        await self.journal.put_fleet(ACME, [Vehicle(VehicleId(name), TransporterId(owner), vehicle_type)])

    async def spare_driver(self, employer: str, name: str) -> None:
        """One more driver."""
        await self.journal.put_fleet(ACME, [Driver(DriverId(name), TransporterId(employer))])

    # --- Commands ---

    def create(
        self,
        customer: str = "c1",
        trucks: Mapping[str, int] | None = None,
        *,
        expires_in_s: int | None = None,
        pickup_km: float = 0.0,
        request: str | None = None,
        broadcast_id: BroadcastId | None = None,
        node: Node | None = None,
    ) -> "asyncio.Future[Reply]":
        """A customer broadcasts; under a new broadcast id, as a server gives it, however often the request comes."""
        specs = tuple(TruckSpec(kind, number) for kind, number in (trucks or {TRUCK: 1}).items())
        pickup = replace(PICKUP, lat=north(pickup_km).lat)
        broadcast_id = broadcast_id or BroadcastId(f"b{next(self._numbers)}")
        command = Create(ACME, broadcast_id, CustomerId(customer), pickup, DROP, specs, expires_in_s)
        return self.ask(
            broadcast_id, command, Role.CUSTOMER, customer, request, f"create {specs} {expires_in_s}", node=node
        )

    async def broadcast(
        self, customer: str = "c1", trucks: Mapping[str, int] | None = None, *, expires_in_s: int | None = None
    ) -> BroadcastId:
        """A broadcast whose first wave has gone out."""
        reply = await self.create(customer, trucks, expires_in_s=expires_in_s)
        assert isinstance(reply, Done), reply
        await asyncio.sleep(0.001)
        return BroadcastId(str(reply.data["broadcast_id"]))

    def accept(
        self,
        broadcast_id: BroadcastId,
        transporter: str,
        *,
        vehicle: str | None = None,
        driver: str | None = None,
        vehicle_type: str = TRUCK,
        request: str | None = None,
        node: Node | None = None,
    ) -> "asyncio.Future[Reply]":
        """A transporter accepts, with its own vehicle and driver unless told otherwise."""
        command = Accept(
            TransporterId(transporter),
            VehicleId(vehicle or f"{transporter}-v"),
            vehicle_type,
            DriverId(driver or f"{transporter}-d"),
        )
        return self.ask(broadcast_id, command, Role.TRANSPORTER, transporter, request, node=node)

    def cancel(
        self, broadcast_id: BroadcastId, customer: str = "c1", *, request: str | None = None, node: Node | None = None
    ) -> "asyncio.Future[Reply]":
        """The customer cancels."""
        return self.ask(broadcast_id, Cancel(CustomerId(customer)), Role.CUSTOMER, customer, request, node=node)

    def decline(self, broadcast_id: BroadcastId, transporter: str) -> "asyncio.Future[Reply]":
        """A transporter does not want it."""
        return self.ask(broadcast_id, Decline(TransporterId(transporter)), Role.TRANSPORTER, transporter)

    def update_trip(
        self, broadcast_id: BroadcastId, driver: str, status: TripStatus, *, truck: int = 1
    ) -> "asyncio.Future[Reply]":
        """The driver of the broadcast's `truck`-th truck reports."""
        command = UpdateTrip(DriverId(driver), TripId(f"{broadcast_id}-{truck}-t"), status, by_driver=True)
        return self.ask(broadcast_id, command, Role.DRIVER, driver)

    def ask(
        self,
        broadcast_id: BroadcastId,
        command: Command,
        role: Role,
        user: str,
        request: str | None = None,
        fingerprint: str | None = None,
        *,
        node: Node | None = None,
    ) -> "asyncio.Future[Reply]":
        """Send a command under the request id `request` (a new one if None)."""
        key = RequestKey(ACME, role, user, request or f"r{next(self._numbers)}")
        origin = Origin(key, fingerprint or f"{broadcast_id} {command}")
        dispatcher = (node or self.node).dispatch.dispatcher
        if isinstance(command, Create):
            future = dispatcher.create(command, origin)
        else:
            future = dispatcher.ask(ACME, broadcast_id, command, origin)
        ask = Ask(broadcast_id, command, origin, future)
        self.asks.append(ask)
        future.add_done_callback(partial(self._answered, ask))
        return future

    def resend(self, ask: Ask) -> "asyncio.Future[Reply]":
        """The client has heard nothing, or forgot, and sends the same request again; a creation under a new id."""
        command = ask.command
        if isinstance(command, Create):
            return self.create(
                command.customer_id,
                {spec.vehicle_type: spec.count for spec in command.trucks},
                expires_in_s=command.expires_in_s,
                request=ask.origin.key.request_id,
            )
        key = ask.origin.key
        return self.ask(
            ask.broadcast_id, command, key.role, key.user_id, key.request_id, fingerprint=ask.origin.fingerprint
        )

    def _answered(self, ask: Ask, future: "asyncio.Future[Reply]") -> None:
        ask.answered_at_ms = self.clock.now_ms()
        if ask.reply is not None and ask.origin.key not in self.journal.reported_replies:
            self.violations.append(f"{ask.origin.key} was answered before its reply was durable")

    # --- What can be seen ---

    async def state(self, broadcast_id: BroadcastId) -> Broadcast:
        """A broadcast as the journal has it."""
        stored = await self.journal.read_broadcast(ACME, broadcast_id)
        assert stored is not None
        return stored.state

    def changes(self, broadcast_id: BroadcastId) -> list[Published]:
        """What was published of one broadcast, in order."""
        return [one for one in self.published if one.change.after.broadcast_id == broadcast_id]


def north(km: float) -> Point:
    """So far north of the pickup."""
    return Point(PICKUP.lat + km / _KM_PER_DEGREE, PICKUP.lng)


async def outcome(future: "asyncio.Future[Reply]") -> str:
    """How a command ended, in one word: ok, or the code of its refusal or error."""
    try:
        async with asyncio.timeout(3_600):
            reply = await future
    except RequestError as error:
        return error.code
    return reply.code if isinstance(reply, Refused) else "ok"


async def outcomes(*futures: "asyncio.Future[Reply]") -> list[str]:
    """How each of several commands ended."""
    return [await outcome(future) for future in futures]


def data(reply: Reply) -> Mapping[str, Json]:
    """What a command that was carried out was answered with."""
    assert isinstance(reply, Done), reply
    return reply.data
