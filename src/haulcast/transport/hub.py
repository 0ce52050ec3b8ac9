"""Who is connected, what they have subscribed to, and how a durable change reaches them.

1. Everything that a client is shown belongs to a topic; a topic exists here only while somebody has subscribed to it.
2. A snapshot is read from the journal. If the topic moved on while it was read, it is read again: what is sent is
   exact, and nothing has to be held back meanwhile. What the snapshot has already is not sent as a delta after it.
3. `broadcast:{id}` carries the broadcast's own version. A feed gathers many broadcasts, so its version is its own:
   the node's incarnation and a count that no later topic of that name starts below.
4. A change is encoded once. What differs between recipients (an offer's distance, a topic's version) is joined in as
   bytes. There is no await here and no work for clients who are not connected.
5. A user may have `MAX_CONNECTIONS` connections; the oldest goes when one more comes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol

from prometheus_client import Counter

from haulcast.domain import effects as fx
from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, is_id
from haulcast.domain.replies import Json
from haulcast.domain.views import (
    CLOSED_OFFER_SHOWN_MS,
    broadcast_view,
    haul_view,
    offer_body,
    offer_closing,
    offer_fill,
    offer_shown,
    offer_tail,
    offer_view,
)
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Change, Clock, Journal, Role

from .auth import Principal
from .codec import dumps
from .topics import (
    FeedUpdate,
    TopicVersion,
    delta_frame,
    difference,
    encode_delta,
    event_frame,
    pointer,
    snapshot_frame,
)

MAX_CONNECTIONS = 5
MAX_TOPICS = 32
RECENT_BROADCASTS = 10
"""How many of a customer's newest broadcasts are looked at when they connect."""
_SNAPSHOT_TRIES = 20


class Connection(Protocol):
    """What the hub needs of a client's connection."""

    @property
    def principal(self) -> Principal:
        """Whose it is."""
        ...

    def send(self, frames: bytes, *, snapshot: bool = False) -> None:
        """Send finished frames, in order, soon. Never blocks. A snapshot may be of any size."""
        ...


class _Topic:
    """A topic that somebody has subscribed to. `subscribers` has the version of the snapshot each was sent."""

    __slots__ = ("name", "subscribers", "version")

    def __init__(self, name: str, version: TopicVersion) -> None:
        self.name = name
        self.version = version
        self.subscribers: dict[Connection, TopicVersion] = {}

    def held(self, connection: Connection) -> TopicVersion:
        """What a subscriber has been sent: its snapshot, and every version since."""
        return max(self.subscribers[connection], self.version)

    def send(self, version: TopicVersion, frames: bytes) -> None:
        """Move to `version` and tell all whose snapshot was older."""
        self.version = version
        for connection, had in self.subscribers.items():
            if had < version:
                connection.send(frames)


_Key = tuple[TenantId, str]
_Snapshot = tuple[TopicVersion | None, Mapping[str, Json]]
"""A version (None: that of the topic itself) and the data."""
_NOT_YET: TopicVersion = (2**63, 0)
"""The version that a subscriber has while its snapshot is being read: no delta comes after it."""


class Hub:
    """The `Publisher` of this node."""

    def __init__(self, journal: Journal, clock: Clock, incarnation: int, deliveries: Counter) -> None:
        self._journal = journal
        self._clock = clock
        self._incarnation = incarnation
        self._deliveries = deliveries  # label `kind`
        # One snapshot is read at a time: the journal would read them one after the other anyway, and a topic has less
        # time to move on under a read that does not wait for others. Without it, 300 phones that come back together
        # while their feeds move keep each other from ever getting one.
        self._reading = asyncio.Lock()
        self._topics: dict[_Key, _Topic] = {}
        self._retired_seq = 0  # the highest that any feed reached which is no longer here
        self._by_user: dict[tuple[TenantId, Role, str], list[Connection]] = {}
        self._subscribed: dict[Connection, dict[str, None]] = {}  # in the order in which they subscribed

    # --- connections ---

    def attach(self, connection: Connection) -> Connection | None:
        """A client has said hello. Returns the connection that must go in its place, if any."""
        self._subscribed[connection] = {}
        mine = self._by_user.setdefault(_user(connection.principal), [])
        mine.append(connection)
        return mine[0] if len(mine) > MAX_CONNECTIONS else None

    def detach(self, connection: Connection) -> None:
        """A connection has ended, or may not be sent anything more. Detaching twice is detaching."""
        names = self._subscribed.pop(connection, None)
        if names is None:
            return
        for name in names:
            self._leave(connection, name)
        user = _user(connection.principal)
        self._by_user[user].remove(connection)
        if not self._by_user[user]:
            del self._by_user[user]

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return len(self._subscribed)

    @property
    def topic_count(self) -> int:
        """How many topics have a subscriber."""
        return len(self._topics)

    # --- subscriptions ---

    async def greet(self, connection: Connection, resume: Mapping[str, TopicVersion]) -> list[str]:
        """Subscribe a new connection to what is its own, and to what it had before. Topics of `resume` that it may
        not have (any more) are passed over. Returns the topics it has."""
        principal = connection.principal
        if principal.role is Role.TRANSPORTER:
            await self.subscribe(connection, f"feed:{principal.user_id}")
        elif principal.role is Role.DRIVER:
            await self.subscribe(connection, f"driver:{principal.user_id}")
        elif principal.role is Role.CUSTOMER:
            newest = await self._journal.list_broadcasts(principal.tenant_id, principal.user_id, RECENT_BROADCASTS)
            for stored in reversed(newest):
                if _may_change(stored.state):
                    await self.subscribe(connection, f"broadcast:{stored.state.broadcast_id}")
        for topic in resume:
            if topic not in self._subscribed.get(connection, ()):
                try:
                    await self.subscribe(connection, topic)
                except RequestError as error:
                    if error.code not in (ErrorCode.TOPIC_NOT_FOUND, ErrorCode.TOO_MANY_TOPICS):
                        raise
        return list(self._subscribed.get(connection, ()))

    async def subscribe(self, connection: Connection, name: str) -> TopicVersion:
        """Send the topic's snapshot, and from then on its deltas. Raises `RequestError`: TOPIC_NOT_FOUND for what
        does not exist or is not the connection's to see, TOO_MANY_TOPICS, BUSY."""
        kind, _, subject = name.partition(":")
        reader = _READERS.get(kind)
        mine = self._subscribed.get(connection)
        if reader is None or mine is None or not is_id(subject):
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=name)
        if name not in mine and len(mine) >= MAX_TOPICS:
            raise RequestError(ErrorCode.TOO_MANY_TOPICS, limit=MAX_TOPICS)
        had = self._held_before(connection, name)
        topic = self._join(connection, name, _NOT_YET)
        try:
            for _ in range(_SNAPSHOT_TRIES):
                async with self._reading:
                    before = topic.version
                    version, data = await reader(self, connection.principal, subject)
                exact = topic.version == before if version is None else topic.version <= version
                if exact:
                    break
            else:
                raise RequestError(ErrorCode.BUSY)
        except BaseException:
            if had is None:
                self._leave(connection, name)
            elif connection in topic.subscribers:
                topic.subscribers[connection] = had  # what it missed meanwhile it notices at the next delta
            raise
        version = version or topic.version
        if connection in topic.subscribers:
            topic.subscribers[connection] = version
            connection.send(snapshot_frame(name, version, self._clock.now_ms(), data), snapshot=True)
        return version

    def unsubscribe(self, connection: Connection, name: str) -> None:
        """Send nothing more of the topic. Unsubscribing twice is unsubscribing."""
        self._leave(connection, name)

    def ack(self, connection: Connection, name: str, version: TopicVersion) -> None:
        """The client has shown everything up to `version`. Raises `RequestError` for a version it cannot have."""
        topic = self._topics.get((connection.principal.tenant_id, name))
        if topic is None or connection not in topic.subscribers:
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=name)
        held = topic.held(connection)
        if version > held:
            raise RequestError(
                ErrorCode.BAD_REQUEST, f"data.version: the topic is at {list(held)}", field="data.version"
            )

    async def feed_view(self, tenant_id: TenantId, transporter_id: TransporterId) -> dict[str, Json]:
        """The content of `feed:{transporter}`."""
        now_ms = self._clock.now_ms()
        offers = await self._journal.read_offers(tenant_id, transporter_id, now_ms - CLOSED_OFFER_SHOWN_MS)
        trips = await self._journal.read_trips(tenant_id, transporter_id=transporter_id)
        return {
            "offers": {
                state.broadcast_id: offer_view(state, offer)
                for state, offer in offers
                if offer_shown(state, offer, now_ms)
            },
            "trips": {trip.trip_id: haul_view(state, trip) for state, trip in trips},
        }

    # --- changes ---

    def publish(self, change: Change) -> None:
        """See `Publisher`."""
        now_ms = self._clock.now_ms()
        after = change.after
        if change.before is None:
            self._show_to_customer(change, now_ms)
        else:
            self._publish_broadcast(change, now_ms)
        for effect in change.effects:
            match effect:
                case fx.OpenOffers(offers):
                    self._open_offers(after, offers, now_ms)
                case fx.AmendOffers(to):
                    fill = {
                        pointer("offers", after.broadcast_id, key): value for key, value in offer_fill(after).items()
                    }
                    self._update_feeds(after.tenant_id, to, FeedUpdate(encode_delta(fill), now_ms))
                case fx.CloseOffers(to):
                    self._update_feeds(after.tenant_id, to, _closing(after, now_ms))
                case fx.DropOffers(to):
                    gone = encode_delta({}, (pointer("offers", after.broadcast_id),))
                    self._update_feeds(after.tenant_id, to, FeedUpdate(gone, now_ms))
                case fx.ShowTrip(trip, news):
                    self._show_trip(after, trip, news, now_ms)
                case fx.TellWatchers() | fx.SeekCandidates():
                    pass

    def _show_to_customer(self, change: Change, now_ms: int) -> None:
        """A new broadcast: everything its customer has open shows it."""
        state = change.after
        name, version = f"broadcast:{state.broadcast_id}", (change.epoch, state.seq)
        frames = b""
        for connection in self._by_user.get((state.tenant_id, Role.CUSTOMER, state.customer_id), ()):
            frames = frames or snapshot_frame(name, version, now_ms, broadcast_view(state))
            mine = self._subscribed[connection]
            if len(mine) >= MAX_TOPICS:
                self._leave(connection, next(iter(mine)))
            self._join(connection, name, version).version = version
            connection.send(frames, snapshot=True)

    def _publish_broadcast(self, change: Change, now_ms: int) -> None:
        before, after = change.before, change.after
        topic = self._topics.get((after.tenant_id, f"broadcast:{after.broadcast_id}"))
        if topic is None or before is None:
            return
        since, version = (change.epoch, before.seq), (change.epoch, after.seq)
        changed, gone = difference(broadcast_view(before), broadcast_view(after))
        events = b"".join(
            event_frame(topic.name, version, now_ms, effect.news, effect.data)
            for effect in change.effects
            if isinstance(effect, fx.TellWatchers)
        )
        # A seq is written once, so the state of (1, 9) is that of (2, 9): taking a broadcast over changes nothing that
        # is shown. Who has the one and who has the other each get the delta from theirs; nearly always all have one.
        frames: dict[TopicVersion, bytes] = {}
        for connection, had in topic.subscribers.items():
            if had < version:
                held = topic.held(connection)
                base = held if held[1] == before.seq else since
                if base not in frames:
                    frames[base] = delta_frame(topic.name, base, version, now_ms, changed, gone) + events
                connection.send(frames[base])
            elif had == version and events:  # the snapshot was read between the commit and now
                connection.send(events)
        topic.version = version
        if not _may_change(after):
            for connection, had in list(topic.subscribers.items()):
                if had != _NOT_YET:  # it has been told, and nothing can follow
                    self._leave(connection, topic.name)

    def _open_offers(self, state: Broadcast, offers: Iterable[Offer], now_ms: int) -> None:
        head = b'{"set":{"%b":%b,' % (
            pointer("offers", state.broadcast_id).encode(),
            dumps(offer_body(state))[:-1],
        )
        update = FeedUpdate(b"", now_ms, "offer", dumps({"broadcast_id": state.broadcast_id}))
        sent = 0
        for offer in offers:
            topic = self._topics.get((state.tenant_id, f"feed:{offer.transporter_id}"))
            if topic is not None:
                self._advance(topic, update, head + dumps(offer_tail(offer))[1:] + b"}}")
                sent += 1
        self._deliveries.labels("offer").inc(sent)

    def _show_trip(self, state: Broadcast, trip: Trip, news: fx.TripNews, now_ms: int) -> None:
        at, view = pointer("trips", trip.trip_id), haul_view(state, trip)
        delta = encode_delta({at: view}) if trip.active else encode_delta({}, (at,))
        update = FeedUpdate(delta, now_ms, news, dumps(view))
        for name in (f"feed:{trip.transporter_id}", f"driver:{trip.driver_id}"):
            topic = self._topics.get((state.tenant_id, name))
            if topic is not None:
                self._advance(topic, update)

    def _update_feeds(self, tenant_id: TenantId, to: Collection[TransporterId], update: FeedUpdate) -> None:
        for transporter_id in to:
            topic = self._topics.get((tenant_id, f"feed:{transporter_id}"))
            if topic is not None:
                self._advance(topic, update)

    def _advance(self, topic: _Topic, update: FeedUpdate, delta: bytes | None = None) -> None:
        since = topic.version
        version = (since[0], since[1] + 1)
        topic.send(version, update.frames(topic.name, since, version, delta))

    # --- topics ---

    def _held_before(self, connection: Connection, name: str) -> TopicVersion | None:
        """The version under which the connection is subscribed already."""
        topic = self._topics.get((connection.principal.tenant_id, name))
        return None if topic is None else topic.subscribers.get(connection)

    def _join(self, connection: Connection, name: str, version: TopicVersion) -> _Topic:
        key = (connection.principal.tenant_id, name)
        topic = self._topics.get(key)
        if topic is None:
            start = (0, 0) if name.startswith("broadcast:") else (self._incarnation, self._retired_seq)
            topic = self._topics[key] = _Topic(name, start)
        topic.subscribers[connection] = version
        self._subscribed[connection][name] = None
        return topic

    def _leave(self, connection: Connection, name: str) -> None:
        self._subscribed.get(connection, {}).pop(name, None)
        key = (connection.principal.tenant_id, name)
        topic = self._topics.get(key)
        if topic is None:
            return
        topic.subscribers.pop(connection, None)
        if not topic.subscribers:
            del self._topics[key]
            if not name.startswith("broadcast:"):
                self._retired_seq = max(self._retired_seq, topic.version[1])

    # --- snapshots; each raises TOPIC_NOT_FOUND for what the principal may not see ---

    async def _read_broadcast(self, principal: Principal, subject: str) -> _Snapshot:
        stored = await self._journal.read_broadcast(principal.tenant_id, BroadcastId(subject))
        if stored is None or not _may_watch(principal, stored.state.customer_id):
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=f"broadcast:{subject}")
        return (stored.epoch, stored.state.seq), broadcast_view(stored.state)

    async def _read_feed(self, principal: Principal, subject: str) -> _Snapshot:
        if principal.role is not Role.OPERATOR and (principal.role, principal.user_id) != (Role.TRANSPORTER, subject):
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=f"feed:{subject}")
        return None, await self.feed_view(principal.tenant_id, TransporterId(subject))

    async def _read_driver(self, principal: Principal, subject: str) -> _Snapshot:
        if principal.role is not Role.OPERATOR and (principal.role, principal.user_id) != (Role.DRIVER, subject):
            raise RequestError(ErrorCode.TOPIC_NOT_FOUND, topic=f"driver:{subject}")
        trips = await self._journal.read_trips(principal.tenant_id, driver_id=DriverId(subject))
        return None, {"trips": {trip.trip_id: haul_view(state, trip) for state, trip in trips}}


_READERS: Mapping[str, Callable[[Hub, Principal, str], Awaitable[_Snapshot]]] = {
    "broadcast": Hub._read_broadcast,
    "feed": Hub._read_feed,
    "driver": Hub._read_driver,
}


def _closing(state: Broadcast, now_ms: int) -> FeedUpdate:
    closing = offer_closing(state)
    fields = {pointer("offers", state.broadcast_id, key): value for key, value in closing.items()}
    event = {"broadcast_id": state.broadcast_id, "reason": closing["reason"]}
    return FeedUpdate(encode_delta(fields), now_ms, "offer_closed", dumps(event))


def _may_change(state: Broadcast) -> bool:
    """Whether anything can still happen to a broadcast or to one of its trips."""
    return state.live or any(trip.active for trip in state.trips)


def _may_watch(principal: Principal, customer_id: str) -> bool:
    return principal.role is Role.OPERATOR or (principal.role, principal.user_id) == (Role.CUSTOMER, customer_id)


def _user(principal: Principal) -> tuple[TenantId, Role, str]:
    return principal.tenant_id, principal.role, principal.user_id
