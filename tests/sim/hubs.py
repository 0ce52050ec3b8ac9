"""Several hubs over one journal, with what owners and phones do around them. Only actors and sockets are missing.

1. A `Link` is the bus of one hub: what it is given arrives at the others at once, later, or not at all.
2. An `Owner` decides as an actor does, writes to the journal and publishes on the hub that it lives on. It may move to
   another hub, which raises the epoch, and it may stall between the commit and the publication.
3. A `Phone` is the reference client's own code for topics, fed with frames. It notes every version that it is shown.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import count

import orjson

from haulcast.client.protocol import Delta, Event, Snapshot, decode
from haulcast.client.topics import Subscriptions
from haulcast.domain.broadcast import Broadcast, Offer, Place, Trip
from haulcast.domain.commands import Command, Create, TruckSpec
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.evolve import evolve
from haulcast.domain.fleet import Driver, Transporter, Vehicle
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.views import broadcast_view
from haulcast.errors import ClusterUnavailable, JournalUnavailable, RequestError
from haulcast.ports import Change, Claim, Clock, Fence, Kind, Landed, Role, Stored, Write
from haulcast.storage.memory import MemoryJournal, MemoryPresence
from haulcast.transport.auth import Principal
from haulcast.transport.board import ENDED_SHOWN_MS, Collect
from haulcast.transport.codec import dumps
from haulcast.transport.fleet_cache import Changed
from haulcast.transport.hub import Hub
from haulcast.transport.rates import Rates
from haulcast.transport.session import Limits
from tests.sim.virtual_time import START_MS, VirtualClock
from tests.unit.transport.fakes import hub_metrics, state_of

ACME = TenantId("acme")
TRUCK = "truck"
READ_S = 0.002
_numbers = count(1)


class SharedJournal(MemoryJournal):
    """A journal whose reads take time, before they see anything and after. `away`: they fail."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.reads = 0

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        await self._on_the_way()
        found = await super().read_broadcast(tenant_id, broadcast_id)
        await asyncio.sleep(READ_S)
        return found

    async def read_offers(
        self, tenant_id: TenantId, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        await self._on_the_way()
        found = await super().read_offers(tenant_id, transporter_id, ended_after_ms)
        await asyncio.sleep(READ_S)
        return found

    async def read_trips(
        self, tenant_id: TenantId, *, transporter_id: TransporterId | None = None, driver_id: DriverId | None = None
    ) -> list[tuple[Broadcast, Trip]]:
        await self._on_the_way()
        return await super().read_trips(tenant_id, transporter_id=transporter_id, driver_id=driver_id)

    async def read_fleet(
        self, tenant_id: TenantId, transporter_id: TransporterId
    ) -> tuple[list[Vehicle], list[Driver]]:
        await self._on_the_way()
        return await super().read_fleet(tenant_id, transporter_id)

    async def list_broadcasts(self, tenant_id: TenantId, customer_id: str | None, limit: int) -> list[Stored]:
        await self._on_the_way()
        return await super().list_broadcasts(tenant_id, customer_id, limit)

    async def list_board(
        self, tenant_id: TenantId, ended_after_ms: int, after: BroadcastId | None, limit: int
    ) -> list[Stored]:
        await self._on_the_way()
        found = await super().list_board(tenant_id, ended_after_ms, after, limit)
        await asyncio.sleep(READ_S)
        return found

    async def _on_the_way(self) -> None:
        self.reads += 1
        await asyncio.sleep(READ_S)
        if self.away:
            raise JournalUnavailable("away")


class SharedPresence(MemoryPresence):
    """A presence whose questions take time. `away`: everything fails."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.away = False

    def forget_everything(self) -> None:
        """As a Redis that was flushed."""
        self._drivers.clear()

    async def note_drivers(
        self, node: int, tenant_id: TenantId, came: Collection[DriverId], went: Collection[DriverId]
    ) -> None:
        await self._on_the_way()
        await super().note_drivers(node, tenant_id, came, went)

    async def sync_drivers(self, node: int, tenant_id: TenantId, drivers: Collection[DriverId]) -> bool:
        await self._on_the_way()
        return await super().sync_drivers(node, tenant_id, drivers)

    async def connected_drivers(
        self, tenant_id: TenantId, drivers: Collection[DriverId], nodes: Collection[int]
    ) -> set[DriverId]:
        await self._on_the_way()
        found = await super().connected_drivers(tenant_id, drivers, nodes)
        await asyncio.sleep(READ_S)
        return found

    async def _on_the_way(self) -> None:
        await asyncio.sleep(READ_S)
        if self.away:
            raise ClusterUnavailable("away")


class Link:
    """The `Bus` of one hub."""

    def __init__(self, number: int) -> None:
        self.me = number
        self.others: dict[int, Hub] = {}
        self.cut = False  # whether what is sent is lost
        self.lost = 0
        self.sent: list[bytes] = []  # news
        self.held: list[tuple[Kind, bytes]] | None = None  # while something is in the way

    @property
    def peers(self) -> frozenset[int]:
        """See `Bus`."""
        return frozenset(self.others)

    def send(self, to: int, kind: Kind, payload: bytes) -> None:
        """See `Bus`."""
        raise AssertionError("a hub tells all nodes or none")

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """See `Bus`."""
        if kind is Kind.NEWS:
            self.sent.append(payload)
        if self.cut:
            self.lost += 1
        elif self.held is not None:
            self.held.append((kind, payload))
        else:
            self._arrive(kind, payload)

    def hold(self) -> None:
        """Let nothing arrive until `release`."""
        if self.held is None:
            self.held = []

    def release(self) -> None:
        """Let what was held arrive, in order."""
        held, self.held = self.held or [], None
        for kind, payload in held:
            self._arrive(kind, payload)

    def _arrive(self, kind: Kind, payload: bytes) -> None:
        for hub in [*self.others.values()]:
            match kind:
                case Kind.NEWS:
                    hub.receive(self.me, payload)
                case Kind.DRIVERS:
                    hub.attendance.receive(self.me, payload)
                case Kind.FLEET:
                    hub.fleet_changed(Changed.from_bytes(payload))
                case _:
                    raise AssertionError(f"no hub is told {kind}")


class Hubs:
    """Nodes of one deployment, as far as hubs go. `collect`: what their boards collect."""

    def __init__(
        self,
        number: int = 2,
        journal: SharedJournal | None = None,
        *,
        shared: bool = True,
        collect: Collect | None = None,
    ) -> None:
        self._shared = shared
        self._collect = collect
        self.clock = VirtualClock()
        self.journal = journal or SharedJournal()
        self.presence = SharedPresence(self.clock)
        self.links = [Link(n) for n in range(number)]
        self.hubs = [self._hub(link) for link in self.links]
        for link in self.links:
            link.others = {n: hub for n, hub in enumerate(self.hubs) if n != link.me}
        self._given = 0

    def _hub(self, link: Link) -> Hub:
        return Hub(
            self.journal,
            self.clock,
            link,
            self._next_epoch,
            hub_metrics(),
            presence=self.presence,
            state_of=state_of,
            rates=Rates(Limits()),
            shared=self._shared,
            collect=self._collect,
        )

    async def _next_epoch(self) -> int:
        await asyncio.sleep(0)
        self._given += self._shared or not self._given
        return self._given

    async def add_fleet(self, transporters: int) -> None:
        """`tN` with the vehicle `tN-v` and the driver `tN-d`."""
        for n in range(transporters):
            owner = TransporterId(f"t{n}")
            vehicle = Vehicle(VehicleId(f"t{n}-v"), owner, TRUCK)
            await self.journal.put_fleet(ACME, [Transporter(owner), vehicle, Driver(DriverId(f"t{n}-d"), owner)])

    async def settle(self) -> None:
        """Wait until all that was missed has been read again."""
        while any(hub.stale_count for hub in self.hubs):
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)  # what is being read now; a board waits for a while whether news come after all

    async def close(self) -> None:
        """End what the hubs do by themselves."""
        for hub in self.hubs:
            await hub.close()

    async def views(self, role: Role, user: str) -> dict[str, object]:
        """What the topics that a user is always subscribed to say, by the journal."""
        if role is Role.TRANSPORTER:
            return {f"feed:{user}": _json(await self.hubs[0].feed_view(ACME, TransporterId(user)))}
        if role is Role.OPERATOR:
            since_ms = self.clock.now_ms() - ENDED_SHOWN_MS
            shown = await self.journal.list_board(ACME, since_ms, None, 1_000)
            entries = {one.state.broadcast_id: _json(broadcast_view(one.state)) for one in shown}
            return {"board:acme": {"broadcasts": entries}}
        listed = await self.journal.list_broadcasts(ACME, user, 10)
        return {
            f"broadcast:{one.state.broadcast_id}": _json(broadcast_view(one.state))
            for one in listed
            if one.state.live or any(trip.active for trip in one.state.trips)
        }


@dataclass
class Owner:
    """Whoever owns a broadcast. `hub` counts from 0."""

    world: Hubs
    broadcast_id: BroadcastId
    hub: int = 0
    epoch: int = 1
    state: Broadcast | None = None
    untold: list[tuple[int, Change]] = field(default_factory=list)
    """What was committed and is still to be published, and on which hub."""

    async def create(self, customer: str, trucks: int = 2, *, stall: bool = False) -> None:
        """The customer broadcasts."""
        place = Place(1, 1)
        specs = (TruckSpec(TRUCK, trucks),)
        await self.do(Create(ACME, self.broadcast_id, CustomerId(customer), place, place, specs), stall=stall)

    async def do(self, command: Command, *, stall: bool = False) -> bool:
        """Carry out a command; whether it changed anything. With `stall` it is committed and not yet published."""
        await asyncio.sleep(0.001)  # two steps of a broadcast never have the same time
        before, now_ms = self.state, self.world.clock.now_ms()
        decision = decide(before, command, TenantControl(), now_ms)
        if not decision.events:
            return False
        after = before
        for event in decision.events:
            after = evolve(after, event)
        assert after is not None
        fence = Fence(self.epoch, self.hub, 0 if before is None else before.seq)
        write = Write(f"w{next(_numbers)}", now_ms, ACME, self.broadcast_id, None, fence, after, tuple(decision.events))
        if await self.world.journal.commit([write]) != [Landed()]:
            return False  # another trip has the vehicle
        self.state = after
        self.untold.append((self.hub, Change(self.epoch, before, after, decision.effects)))
        if not stall:
            self.tell()
        return True

    def tell(self) -> None:
        """Publish what was committed, each on the hub where it was."""
        untold, self.untold = self.untold, []
        for hub, change in untold:
            self.world.hubs[hub].publish(change)

    async def move(self, hub: int) -> None:
        """Another node takes the broadcast over."""
        [stored] = await self.world.journal.claim([Claim(ACME, self.broadcast_id, self.epoch)], hub)
        self.hub, self.epoch, self.state = hub, stored.epoch, stored.state


class Phone:
    """A client, on one hub at a time. `wants`: a topic that is not its own."""

    def __init__(self, world: Hubs, role: Role, user: str, wants: str | None = None) -> None:
        self.world = world
        self.wants = wants
        self.role, self.user = role, user
        self.held = Subscriptions()
        self.frames: list[Snapshot | Delta | Event] = []
        self.faults: list[str] = []
        self.gaps = 0
        self.order: list[str] = []  # topics in the order of their frames; several phones may share one
        self._socket: Socket | None = None
        self._hub: Hub | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, hub: int) -> None:
        """Come to a hub, from another or from nowhere."""
        self.disconnect()
        there = self._hub = self.world.hubs[hub]
        socket = self._socket = Socket(self, Principal(ACME, self.role, self.user, START_MS * 2))
        there.attach(socket)
        try:
            held = {name: (epoch, seq) for name, (epoch, seq) in self.held.resume().items()}
            await there.greet(socket, held)
            await there.resume(socket, held)
            if self.wants is not None and self.wants not in held:
                await there.subscribe(socket, self.wants)
        except JournalUnavailable:
            if self._socket is socket:
                self.disconnect()

    def disconnect(self) -> None:
        """Go away."""
        if self._socket is not None and self._hub is not None:
            self._hub.detach(self._socket)
        self._socket = self._hub = None

    @property
    def connected(self) -> bool:
        """Whether it is on a hub."""
        return self._socket is not None

    async def subscribe(self, topic: str) -> None:
        """Follow a topic."""
        assert self._hub is not None
        assert self._socket is not None
        await self._hub.subscribe(self._socket, topic)

    def take(self, frame: Snapshot | Delta | Event) -> None:
        """Take note of a frame."""
        self.frames.append(frame)
        self.order.append(frame.topic)
        topic = self.held.topics.get(frame.topic)
        if topic is not None and frame.version < topic.version:
            self.faults.append(f"{frame.topic} went from {topic.version} back to {frame.version}")
        _, gap = self.held.take(frame)
        if gap:
            self.gaps += 1
            task = asyncio.create_task(self._resubscribe(frame.topic))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _resubscribe(self, topic: str) -> None:
        """As the client does after a gap, until it succeeds or is of no use any more."""
        hub, socket = self._hub, self._socket
        while hub is not None and socket is not None and socket is self._socket:
            try:
                await hub.subscribe(socket, topic)
            except (JournalUnavailable, RequestError):
                await asyncio.sleep(0.5)
            else:
                return

    def shows(self) -> dict[str, object]:
        """The topics with what they hold."""
        return {name: topic.state for name, topic in self.held.topics.items()}

    def events(self, name: str) -> list[Mapping[str, object]]:
        """The data of all events of that name which the server has sent."""
        return [frame.data for frame in self.frames if isinstance(frame, Event) and frame.event == name]


@dataclass(eq=False)
class Socket:
    """One connection of a phone. What comes over one that has ended is not read."""

    phone: Phone
    principal: Principal

    def send(self, frames: bytes, *, snapshot: bool = False, yielding: bool = False) -> None:
        """See `Connection`."""
        if self.phone._socket is not self:
            self.phone.faults.append("something was sent to a connection that had ended")
        for text in texts(frames):
            frame = decode(text)
            assert isinstance(frame, Snapshot | Delta | Event)
            self.phone.take(frame)


def texts(frames: bytes) -> list[str]:
    """The payloads of finished frames."""
    found: list[str] = []
    while frames:
        start, size = {126: (4, 2), 127: (10, 8)}.get(frames[1], (2, 0))
        length = int.from_bytes(frames[2 : 2 + size]) if size else frames[1]
        found.append(frames[start : start + length].decode())
        frames = frames[start + length :]
    return found


def _json(view: Mapping[str, object]) -> object:
    return orjson.loads(dumps(view))  # type: ignore[arg-type]
