"""What transport asks of others, small enough to look into: the journal and the hub are real ones."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from haulcast.domain.broadcast import Broadcast, Offer
from haulcast.domain.commands import Command, Create
from haulcast.domain.control import ControlCommand, TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.evolve import evolve
from haulcast.domain.fleet import Driver, Transporter, Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.replies import Done, Json, Reply
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import ControlState, Fence, Landed, NodeStatus, Origin, Role, Stored, Vitals, Write
from haulcast.storage.memory import MemoryJournal, MemoryPresence
from haulcast.transport.auth import Algorithm, Key, KeyRing, Principal
from haulcast.transport.bus import NoPeers
from haulcast.transport.hub import Hub
from haulcast.transport.meter import RequestMeter, Sum
from haulcast.transport.metrics import HubMetrics, TransportMetrics
from haulcast.transport.rates import Rates
from haulcast.transport.services import Services
from haulcast.transport.session import Limits

ACME = TenantId("acme")
KEYS = KeyRing([Key("test", Algorithm.HS256, "a secret of at least thirty-two bytes")])
FAR_MS = 4_000_000_000_000


def principal(role: Role, user_id: str, tenant_id: TenantId = ACME) -> Principal:
    return Principal(tenant_id, role, user_id, FAR_MS)


def make_metrics(registry: CollectorRegistry) -> TransportMetrics:
    return TransportMetrics(
        connections=Gauge("connections", "-", registry=registry),
        requests=RequestMeter("request", (0.001, 0.01), registry),
        bad_frames=Counter("bad_frames", "-", ["code"], registry=registry),
        frames_sent=Sum("frames", "-", registry),
        bytes_sent=Sum("bytes", "-", registry),
        closes=Counter("closes", "-", ["code"], registry=registry),
        slow_consumers=Counter("slow", "-", registry=registry),
    )


def hub_metrics(registry: CollectorRegistry | None = None) -> HubMetrics:
    registry = registry or CollectorRegistry()
    return HubMetrics(
        deliveries=Counter("deliveries", "-", ["kind"], registry=registry),
        drift=Counter("drift", "-", ["field"], registry=registry),
        rejected=Counter("rejected", "-", ["cluster"], registry=registry),
        routes_failed=Counter("routes_failed", "-", ["reason"], registry=registry),
    )


async def incarnation() -> int:
    """The epoch of a node that is alone."""
    return 1


async def state_of(tenant_id: TenantId) -> ControlState:
    """What is in force on a node that is alone, if nobody has changed anything."""
    return ControlState(TenantControl(), {1: 1})


class ManualClock:
    """Time that only passes when it is told to. `monotonic_s` may be the loop's, for tests over sockets."""

    def __init__(self, *, real: bool = False) -> None:
        self.s = 1000.0
        self.real = real

    def now_ms(self) -> int:
        return 1_790_000_000_000 + int(self.monotonic_s() * 1000)

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time() if self.real else self.s


@dataclass
class FakeDispatcher:
    """Notes what it is asked. Its futures are answered by the test."""

    asked: list[tuple[BroadcastId, Command, Origin]] = field(default_factory=list)
    futures: "list[asyncio.Future[Reply]]" = field(default_factory=list)

    def create(self, command: Create, origin: Origin) -> "asyncio.Future[Reply]":
        return self.ask(command.tenant_id, command.broadcast_id, command, origin)

    def ask(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin
    ) -> "asyncio.Future[Reply]":
        assert tenant_id == origin.key.tenant_id
        self.asked.append((broadcast_id, command, origin))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


@dataclass
class FakeAvailability:
    """Notes what it is told."""

    online: set[TransporterId] = field(default_factory=set)
    reports: list[tuple[Vehicle, Point]] = field(default_factory=list)
    heard: list[TransporterId] = field(default_factory=list)

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        changed = transporter_id not in self.online
        self.online.add(transporter_id)
        return changed

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        changed = transporter_id in self.online
        self.online.discard(transporter_id)
        return changed

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> None:
        self.reports.append((vehicle, position))

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        self.heard.append(transporter_id)


class FakeTenants:
    """The tenants that there are, and what the tests have put in force."""

    def __init__(self, *names: TenantId) -> None:
        self.controls = {name: TenantControl() for name in names}
        self.journal: MemoryJournal | None = None

    async def control_of(self, tenant_id: TenantId) -> TenantControl:
        if tenant_id not in self.controls:
            raise RequestError(ErrorCode.TENANT_NOT_FOUND)
        return self.controls[tenant_id]

    async def read(self, tenant_id: TenantId) -> TenantControl:
        stored = None if self.journal is None else await self.journal.read_tenant(tenant_id)
        return stored or await self.control_of(tenant_id)


@dataclass
class FakeController:
    """Notes what it is asked, and answers what the test wants."""

    asked: list[tuple[TenantId, ControlCommand, Origin, int | None]] = field(default_factory=list)
    drained: list[tuple[int, Origin]] = field(default_factory=list)
    reply: Reply = field(default_factory=lambda: Done({"complete": True}))
    error: Exception | None = None

    async def carry_out(
        self, tenant_id: TenantId, command: ControlCommand, origin: Origin, expected_version: int | None
    ) -> Reply:
        self.asked.append((tenant_id, command, origin, expected_version))
        return self._answer()

    async def drain(self, node: int, origin: Origin) -> Reply:
        self.drained.append((node, origin))
        return self._answer()

    async def state_of(self, tenant_id: TenantId) -> ControlState:
        return await state_of(tenant_id)

    def _answer(self) -> Reply:
        if self.error is not None:
            raise self.error
        return self.reply


class FakeHealth:
    """As healthy as it is told to be."""

    is_ready = True

    def live(self) -> bool:
        return True

    async def ready(self) -> bool:
        return self.is_ready

    async def detailed(self) -> Mapping[str, Json]:
        return {"status": "ok" if self.is_ready else "draining"}


class FakeNodes:
    """One node that owns nothing, and one that does not answer."""

    async def ask(self, tenant_id: TenantId | None) -> list[NodeStatus]:
        return [
            NodeStatus(1, Vitals(0, lease_age_ms=1, lease_ttl_ms=2, loop_lag_ms=0.1, draining=False)),
            NodeStatus(2),
        ]


class WatchedJournal(MemoryJournal):
    """Counts the fleet reads, and holds reads of vehicles, offers and broadcasts while `gate` is cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet_reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read_vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
        self.fleet_reads += 1
        vehicle = await super().read_vehicle(tenant_id, vehicle_id)
        await self.gate.wait()
        return vehicle

    async def read_offers(
        self, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        await self.gate.wait()
        return await super().read_offers(tenant_id, transporter_id, ended_after_ms)

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        await self.gate.wait()
        return await super().read_broadcast(tenant_id, broadcast_id)

    async def read_driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
        self.fleet_reads += 1
        return await super().read_driver(tenant_id, driver_id)


@dataclass
class World:
    """Services with everything that tests look into."""

    clock: ManualClock = field(default_factory=ManualClock)
    journal: WatchedJournal = field(default_factory=WatchedJournal)
    dispatcher: FakeDispatcher = field(default_factory=FakeDispatcher)
    availability: FakeAvailability = field(default_factory=FakeAvailability)
    tenants: FakeTenants = field(default_factory=lambda: FakeTenants(ACME))
    controller: FakeController = field(default_factory=FakeController)
    health: FakeHealth = field(default_factory=FakeHealth)
    rates: Rates = field(default_factory=lambda: Rates(Limits()))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.tenants.journal = self.journal
        self.hub = Hub(
            self.journal,
            self.clock,
            NoPeers(),
            incarnation,
            hub_metrics(self.registry),
            presence=MemoryPresence(self.clock),
            state_of=state_of,
            rates=self.rates,
        )
        self.services = Services(
            journal=self.journal,
            dispatcher=self.dispatcher,
            availability=self.availability,
            hub=self.hub,
            tenants=self.tenants,
            clock=self.clock,
            keys=KEYS,
            metrics=make_metrics(self.registry),
            health=self.health,
            new_broadcast_id=lambda: BroadcastId("b-new"),
            nodes=FakeNodes(),
            controller=self.controller,
            rates=self.rates,
            registry=self.registry,
        )

    def with_(self, **changes: Any) -> Services:
        """The services with some replaced."""
        return replace(self.services, **changes)

    async def add_fleet(self) -> None:
        """t1 owns v1 and employs d1; t2 owns v2 and employs d2."""
        for number in "12":
            transporter_id = TransporterId(f"t{number}")
            await self.journal.put_fleet(
                ACME,
                [
                    Transporter(transporter_id),
                    Vehicle(VehicleId(f"v{number}"), transporter_id, "flatbed"),
                    Driver(DriverId(f"d{number}"), transporter_id),
                ],
            )

    async def store(self, *commands: Command) -> None:
        """Put into the journal what these commands make of a broadcast, from its creation on."""
        before: Broadcast | None = None
        for number, command in enumerate(commands):
            decision, after = decide(before, command, TenantControl(), 1 + number), before
            for event in decision.events:
                after = evolve(after, event)
            assert after is not None
            fence = Fence(1, 1, 0 if before is None else before.seq)
            write = Write(f"w{number}", 1 + number, ACME, after.broadcast_id, None, fence, after, decision.events)
            assert await self.journal.commit([write]) == [Landed()]
            before = after

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.registry.get_sample_value(name, labels) or 0.0


def token(role: Role, user: str, tenant: str = "acme", *, clock: ManualClock, lifetime_s: int = 3600) -> str:
    return KEYS.sign(tenant=tenant, role=role, user=user, now_ms=clock.now_ms(), lifetime_s=lifetime_s)


FAST = Limits(hello_within_s=0.2, ping_after_s=0.1, silence_s=0.3, close_within_s=0.2, greeting_within_s=0.2)
