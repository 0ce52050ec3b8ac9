"""How durable changes, of this node and of others, reach those who are connected here.

1. Everything that a client is shown belongs to a topic. A snapshot is read from the journal. If the topic moved on
   while it was read, it is read again: what is sent is exact, and nothing has to be held back meanwhile. What the
   snapshot has already is not sent as a delta after it.
2. A change becomes `News` once, on the node that owns the broadcast, and every node hands them to its own subscribers.
3. Versions never go back, on whichever node a client is. `broadcast:{id}` carries the broadcast's own. A feed counts by
   itself under an epoch: whoever subscribes draws one, above all that any node was given before, and so above all that
   the client saw elsewhere. If that is above the topic's own, the topic goes on under it, and those who follow it
   already are told so by a delta in which nothing changes: nobody finds a gap.
4. A topic keeps its last steps, for a minute or two also without a subscriber. Who comes back to the node where they
   were and lacks only some of these is sent those, with their events, and nothing is read.
5. News can be lost between nodes. Whoever notices calls `refresh`; what a single topic lacks, `delivery` notices.
6. Boards, fleets and what operators set are kept, each in its own module, as long as they have a topic, and tell their
   own deltas.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import msgspec
import structlog

from haulcast.domain.control import Audience, TenantControl
from haulcast.domain.delta import Delta
from haulcast.domain.ids import DriverId, TenantId, TransporterId
from haulcast.domain.replies import Json
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Bus, Change, Clock, ControlState, Journal, Kind, Presence, Role

from .attendance import Attendance
from .auth import Principal
from .board import Boards, Collect
from .controls import Controls, StateOf, announcement_frame, hand_out, new_announcements, of_role
from .delivery import Delivery
from .fleet_cache import Changed
from .fleets import Fleets
from .metrics import HubMetrics
from .news import News, may_change, render
from .rates import PHONES, Rates
from .ring import Step
from .snapshots import Snapshot, Snapshots, may_ask, may_see
from .staleness import Staleness, customer_mark, marked_customer
from .subscriptions import MAX_TOPICS, Connection, Subscriptions, Topic
from .topics import (
    TopicKey,
    TopicVersion,
    board_topic,
    broadcast_topic,
    encode_delta,
    event_frame,
    is_board,
    is_control,
    is_fleet,
    snapshot_frame,
)

MAX_STEP_BYTES = 65_536
"""Of a board or fleet. A larger one is not kept for who comes back: a snapshot is of that size as well."""
RECENT_BROADCASTS = 10
"""How many of a customer's newest broadcasts are looked at when they connect."""
_SNAPSHOT_TRIES = 20
_NO_CHANGE = encode_delta(Delta())

log = structlog.get_logger()


class Hub:
    """The `Publisher` of this node."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        bus: Bus,
        next_epoch: Callable[[], Awaitable[int]],
        metrics: HubMetrics,
        *,
        presence: Presence,
        state_of: StateOf,
        rates: Rates,
        shared: bool = False,
        collect: Collect | None = None,
    ) -> None:
        """`next_epoch` gives a number above all that it gave before to any node. A node that has the journal for itself
        may be given its incarnation each time. `shared`: it has not, and may miss what other nodes had to say.
        `collect` makes the collector of a board, `state_of` tells what operators have set; `rates` are changed when
        that does."""
        self._journal = journal
        self._clock = clock
        self._bus = bus
        self._next_epoch = next_epoch
        self._deliveries = metrics.deliveries
        self.attendance = Attendance(presence, clock, bus, lambda *moved: self._fleets.drivers_moved(*moved))
        """Which drivers are connected to this node. Whoever has the hub has this run."""
        self._snapshots = Snapshots(journal, clock, self.attendance.online)
        self._subscriptions = Subscriptions()
        self._stale = Staleness(self._read_again)
        self._delivery = Delivery(self._subscriptions, self._stale, metrics.deliveries, shared)
        self._boards = Boards(journal, clock, self._tell_board, metrics, collect)
        self._fleets = Fleets(self._snapshots, self.attendance, self._tell)
        self._controls = Controls(state_of, clock, self._tell)
        self._rates = rates
        # One snapshot is read at a time: the journal would read them one after the other anyway, and a topic has less
        # time to move on under a read that does not wait for others. Without it, 300 phones that come back together
        # while their feeds move keep each other from ever getting one.
        self._reading = asyncio.Lock()

    async def close(self) -> None:
        """End what the hub does by itself."""
        await self._stale.close()
        await self._boards.close()
        await self._fleets.close()

    # --- connections ---

    def attach(self, connection: Connection) -> None:
        """A client has said hello."""
        self._subscriptions.attach(connection)
        self._note_driver(connection.principal)

    def detach(self, connection: Connection) -> None:
        """A connection has ended, or may not be sent anything more. Detaching twice is detaching."""
        self._subscriptions.detach(connection)
        self._note_driver(connection.principal)

    def _note_driver(self, principal: Principal) -> None:
        if principal.role is Role.DRIVER:
            connections = self._subscriptions.of_user(principal.tenant_id, Role.DRIVER, principal.user_id)
            self.attendance.note(principal.tenant_id, DriverId(principal.user_id), connected=bool(connections))

    def surplus(self, connection: Connection) -> Connection | None:
        """The connection that has to go for one that was greeted, if its user has too many now."""
        return self._subscriptions.surplus(connection)

    @property
    def connections(self) -> Collection[Connection]:
        """Whoever is connected."""
        return self._subscriptions.by_connection.keys()

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return len(self._subscriptions.by_connection)

    @property
    def topic_count(self) -> int:
        """How many topics have a subscriber."""
        return self._subscriptions.topic_count

    @property
    def board_task_count(self) -> int:
        """How many tasks boards have, for as long as somebody has them open."""
        return self._boards.task_count

    @property
    def board_size(self) -> int:
        """How many broadcasts boards show."""
        return self._boards.size

    @property
    def stale_count(self) -> int:
        """How many topics are still to be read again."""
        return len(self._stale) + len(self._fleets)

    # --- subscriptions ---

    async def greet(self, connection: Connection, held: Mapping[str, TopicVersion]) -> list[str]:
        """Subscribe a new connection to what can go on from the version that it holds, and to what is its own. Returns
        the former."""
        principal = connection.principal
        resumed = [name for name in held if self._go_on(connection, name, held[name])]
        if principal.role is Role.TRANSPORTER:
            await self._follow(connection, f"feed:{principal.user_id}")
        elif principal.role is Role.DRIVER:
            await self._follow(connection, f"driver:{principal.user_id}")
        elif principal.role is Role.CUSTOMER:
            await self._follow_newest(principal.tenant_id, principal.user_id, [connection])
        return resumed

    async def resume(self, connection: Connection, held: Iterable[str]) -> list[str]:
        """Subscribe a connection to what it had before. What it may not have (any more) is passed over. Returns the
        topics that it has now."""
        for name in held:
            await self._follow(connection, name)
        return list(self._subscriptions.names(connection))

    def sweep(self) -> None:
        """Forget topics that nobody has come back to. To be called about once a minute."""
        self._subscriptions.sweep()
        self._boards.sweep([tenant_id for tenant_id, name in self._subscriptions.topics if is_board(name)])
        self._fleets.sweep(self._subscriptions.topics)
        self._controls.sweep(self._subscriptions.topics)

    async def subscribe(self, connection: Connection, name: str) -> TopicVersion:
        """Send the topic's snapshot, and from then on its deltas. Raises `RequestError`: TOPIC_NOT_FOUND for what
        does not exist or is not the connection's to see, TOO_MANY_TOPICS, BUSY."""
        if connection not in self._subscriptions.by_connection or not may_ask(connection.principal, name):
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=name)
        mine = self._subscriptions.names(connection)
        if name not in mine and len(mine) >= MAX_TOPICS:
            raise RequestError(ErrorCode.TOO_MANY_TOPICS, limit=MAX_TOPICS)
        with self._subscriptions.joining(connection, name) as topic:
            epoch = await self._next_epoch() if topic.counted else 0
            snapshot = await self._read(topic)
            if snapshot is None or not may_see(connection.principal, snapshot.customer_id):
                raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=name)
            if epoch > topic.version[0]:
                step = Step(topic.version, (epoch, 0), self._clock.now_ms(), (_NO_CHANGE,))
                topic.version = step.version
                if topic.lasts:
                    topic.ring.add(step)
                    topic.send(step.version, step.frames(topic.label))
            return self._send(topic, snapshot, [connection])

    async def read(self, principal: Principal, name: str) -> bytes:
        """What a topic shows now, for who only looks: the data of its snapshot. Raises `RequestError` TOPIC_NOT_FOUND
        for what does not exist or is not the principal's to see."""
        if is_board(name) and may_ask(principal, name):
            self._subscriptions.visit((principal.tenant_id, name))
            return (await self._boards.open(principal.tenant_id)).snapshot()
        if is_control(name) and may_ask(principal, name):
            self._subscriptions.visit((principal.tenant_id, name))
            return await self._controls.open(principal.tenant_id)
        if may_ask(principal, name):
            snapshot = await self._snapshots.read((principal.tenant_id, name))
            if snapshot is not None and may_see(principal, snapshot.customer_id):
                return snapshot.data
        raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=name)

    def unsubscribe(self, connection: Connection, name: str) -> None:
        """Send nothing more of the topic. Unsubscribing twice is unsubscribing."""
        self._subscriptions.leave(connection, name)

    def ack(self, connection: Connection, name: str, version: TopicVersion) -> None:
        """The client has shown everything up to `version`. Raises `RequestError` for a version it cannot have."""
        topic = self._subscriptions.topics.get((connection.principal.tenant_id, name))
        held = None if topic is None else topic.subscribers.get(connection)
        if held is None:
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=name)
        if version > held:
            raise RequestError(
                ErrorCode.BAD_REQUEST, f"data.version: the topic is at {list(held)}", field="data.version"
            )

    async def feed_view(self, tenant_id: TenantId, transporter_id: TransporterId) -> dict[str, Json]:
        """The content of `feed:{transporter}`."""
        return await self._snapshots.feed_view(tenant_id, transporter_id)

    # --- changes ---

    def publish(self, change: Change) -> None:
        """See `Publisher`. All other nodes together cost one encoding, and each a message."""
        news = render(change, self._clock.now_ms())
        self._deliver(news)
        if self._bus.peers:
            self._bus.broadcast(Kind.NEWS, news.to_bytes())

    def receive(self, sender: int, payload: bytes) -> None:
        """Deliver the news of another node. Never raises: what cannot be read or delivered has been missed."""
        try:
            self._deliver(News.from_bytes(payload), travelled=True)
        except Exception as error:
            expected = isinstance(error, msgspec.MsgspecError)
            log.warning("bad_news", sender=sender, reason=str(error), exc_info=None if expected else error)
            self._deliveries.labels("bad_news").inc()
            self.refresh()

    def _deliver(self, news: News, *, travelled: bool = False) -> None:
        self._delivery.deliver(news, travelled=travelled)
        self._boards.take(news)
        self._fleets.take(news)

    def fleet_changed(self, changed: Changed) -> None:
        """Vehicles or drivers have been put, here or at another node."""
        self._fleets.put(changed)

    @property
    def watched(self) -> Collection[TenantId]:
        """See `ControlListener`."""
        return self._controls.watched

    def control_changed(self, tenant_id: TenantId, before: TenantControl, after: TenantControl) -> None:
        """See `ControlListener`."""
        self._rates.change(tenant_id, after.settings)
        now_ms = self._clock.now_ms()
        for each in new_announcements(before, after, now_ms):
            to = of_role(self.connections, tenant_id, Role(each.audience))
            hand_out(announcement_frame(each, now_ms), iter(to))
            self._deliveries.labels("announcement").inc(len(to))

    def state_changed(self, tenant_id: TenantId, state: ControlState) -> None:
        """See `ControlListener`."""
        self._controls.show(tenant_id, state)

    def announce(self, connection: Connection, control: TenantControl) -> None:
        """Tell somebody who is just being greeted what was announced before."""
        now_ms, principal = self._clock.now_ms(), connection.principal
        if principal.role in PHONES:
            for each in control.announced(Audience(principal.role), now_ms):
                connection.send(announcement_frame(each, now_ms))

    def peers_changed(self) -> None:
        """Another node has come or gone, and so may have the drivers at it."""
        self._fleets.suspect_all()

    def refresh(self, topics: Iterable[TopicKey] | None = None) -> None:
        """Something may not have been told here: have these topics (None: all, and the customers' new broadcasts) read
        again, as far as anybody has subscribed to them, and sent to whoever lacks something."""
        here = self._subscriptions.topics
        if topics is not None:
            self._stale.mark(key for key in topics if key in here)
            return
        self.attendance.sync_soon()
        self._stale.mark(here)
        self._stale.mark(customer_mark(tenant, user) for tenant, user in self._subscriptions.users(Role.CUSTOMER))

    # --- snapshots ---

    async def _read(self, topic: Topic) -> Snapshot | None:
        """The topic as it is when this returns; None if it does not exist. Raises `RequestError` BUSY."""
        if is_board(topic.name):
            return Snapshot((await self._boards.open(topic.key[0])).snapshot())
        if is_fleet(topic.name):
            return Snapshot(await self._fleets.open(topic.key))
        if is_control(topic.name):
            return Snapshot(await self._controls.open(topic.key[0]))
        for _ in range(_SNAPSHOT_TRIES):
            async with self._reading:
                before = topic.version
                snapshot = await self._snapshots.read(topic.key)
            version = None if snapshot is None else snapshot.version
            if topic.version == before if version is None else topic.version <= version:
                return snapshot
        raise RequestError(ErrorCode.BUSY)

    def _tell_board(self, tenant_id: TenantId, data: bytes) -> None:
        self._tell((tenant_id, board_topic(tenant_id)), data)

    def _tell(self, key: TopicKey, data: bytes) -> None:
        """Send the data of a delta to all who have a topic that counts by itself."""
        topic = self._subscriptions.topics.get(key)
        if topic is not None:
            since, version = topic.version, (topic.version[0], topic.version[1] + 1)
            topic.version = version
            step = Step(since, version, self._clock.now_ms(), (data,))
            large = len(data) > MAX_STEP_BYTES
            if not large:
                topic.ring.add(step)
            topic.send(version, step.frames(topic.label), large=large)

    def _send(self, topic: Topic, snapshot: Snapshot, to: Iterable[Connection]) -> TopicVersion:
        version = snapshot.version or topic.version
        topic.version = max(topic.version, version)
        topic.lasts, topic.customer_id = snapshot.may_change, snapshot.customer_id
        topic.send_snapshot(to, version, snapshot_frame(topic.label, version, self._clock.now_ms(), snapshot.data))
        return version

    async def _read_again(self, key: TopicKey) -> None:
        """Send what a topic says now to all who may not know it."""
        tenant_id, name = key
        if (customer_id := marked_customer(key)) is not None:
            connections = self._subscriptions.of_user(tenant_id, Role.CUSTOMER, customer_id)
            await self._follow_newest(tenant_id, customer_id, connections)
            return
        topic = self._subscriptions.topics.get(key)
        if topic is not None and is_board(name):
            self._boards.suspect(tenant_id)
            return
        if topic is not None and is_fleet(name):
            self._fleets.suspect([key])
            return
        if topic is not None and is_control(name):
            await self._controls.open(tenant_id)
            return
        if topic is not None and topic.subscribers and not topic.shown:
            async with self._reading:  # whoever comes just now may have read what is in doubt
                pass
        if topic is None or not topic.shown:
            self._subscriptions.forget(key)
            return
        snapshot = await self._read(topic)
        behind = topic.shown
        if snapshot is not None and snapshot.version is not None:
            seq = snapshot.version[1]
            behind = [connection for connection in behind if topic.subscribers[connection][1] < seq]
        elif snapshot is not None:
            topic.version = (topic.version[0], topic.version[1] + 1)
        if snapshot is not None and behind:
            version, now_ms = self._send(topic, snapshot, behind), self._clock.now_ms()
            if topic.owed:
                frames = b"".join(event_frame(topic.label, version, now_ms, *event) for event in topic.owed)
                topic.owed.clear()
                for connection in behind:
                    connection.send(frames)
        if snapshot is None or not snapshot.may_change:
            for connection in behind:
                self._subscriptions.leave(connection, name)

    async def _follow_newest(self, tenant_id: TenantId, customer_id: str, connections: Iterable[Connection]) -> None:
        """Subscribe a customer's connections to those of the newest broadcasts to which anything can still happen."""
        newest = await self._journal.list_broadcasts(tenant_id, customer_id, RECENT_BROADCASTS)
        for stored in reversed(newest):
            if may_change(stored.state):
                name = broadcast_topic(stored.state.broadcast_id)
                for connection in connections:
                    if connection in self._subscriptions.by_connection:
                        self._subscriptions.make_room(connection, name)
                        await self._follow(connection, name)

    def _go_on(self, connection: Connection, name: str, held: TopicVersion) -> bool:
        """Subscribe a connection to a topic from the version that it holds, if all that followed is still here."""
        principal = connection.principal
        topic = self._subscriptions.topics.get((principal.tenant_id, name))
        if (
            topic is None
            or not topic.lasts
            or not (topic.counted or topic.customer_id)
            or not (may_ask(principal, name) and may_see(principal, topic.customer_id))
            or (steps := topic.ring.between(held, topic.version)) is None
            or len(self._subscriptions.names(connection)) >= MAX_TOPICS
        ):
            return False
        self._subscriptions.join(connection, name)
        topic.subscribers[connection] = topic.version
        if steps:
            connection.send(b"".join(step.frames(topic.label) for step in steps), snapshot=True)
        return True

    async def _follow(self, connection: Connection, name: str) -> None:
        """Subscribe a connection to what it has not subscribed to, if it may be."""
        if name in self._subscriptions.names(connection):
            return
        try:
            await self.subscribe(connection, name)
        except RequestError as error:
            if error.code not in (ErrorCode.TOPIC_NOT_FOUND, ErrorCode.TOO_MANY_TOPICS):
                raise
