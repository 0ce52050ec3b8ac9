"""What is to be said about one durable change: to its watchers, its customer and the feeds, encoded once for all nodes.

1. `render` is pure. Whatever it makes is bytes that only want a topic's name and versions, which differ from node to
   node: there each recipient costs a join of bytes, and nothing is encoded again.
2. `News` travels between nodes as msgpack. A later version may append fields with defaults to any of these structs;
   nodes that do not know them pass over them.
3. What is the same for many feeds is one `Update`. Offers differ from one recipient to the next in their ends: `tails`.
"""

from collections.abc import Iterable, Iterator

import msgspec

from haulcast.domain import effects as fx
from haulcast.domain.broadcast import Broadcast, Offer, Trip, WaitingAccept
from haulcast.domain.delta import Delta, difference, pointer
from haulcast.domain.ids import BroadcastId, TenantId, TransporterId, VehicleId
from haulcast.domain.replies import Json, Refusal
from haulcast.domain.routes import Offered
from haulcast.domain.views import broadcast_view, haul_view, offer_body, offer_closing, offer_fill, offer_tail
from haulcast.ports import Change

from .codec import dumps
from .topics import TopicVersion, broadcast_topic, driver_topic, encode_delta, feed_topic, fleet_beside


class Update(msgspec.Struct, frozen=True, array_like=True):
    """A delta for many feeds, and the event that goes with it if it has a name. With `tails`, each of `topics` has its
    own end of the delta, in the same order."""

    topics: list[str]
    delta: bytes
    tails: list[bytes] = []
    event_name: bytes = b""
    event: bytes = b""


class News(msgspec.Struct, frozen=True, array_like=True):
    """One change of a broadcast. To its watchers `delta` leads from `since` to `seq`, and `events` are told after it.

    A new broadcast (`since` is 0) has its `snapshot` instead.
    """

    tenant_id: TenantId
    broadcast_id: BroadcastId
    customer_id: str
    epoch: int
    since: int
    seq: int
    now_ms: int
    may_change: bool
    """Whether anything can follow."""
    snapshot: bytes
    delta: bytes
    events: list[tuple[bytes, bytes]]
    """Names and data."""
    updates: list[Update]
    ended_at_ms: int | None = None

    @property
    def version(self) -> TopicVersion:
        """What the broadcast has come to."""
        return self.epoch, self.seq

    @property
    def topic(self) -> str:
        """The broadcast's own topic."""
        return broadcast_topic(self.broadcast_id)

    def topics(self) -> Iterator[str]:
        """Every topic that the news concern."""
        yield self.topic
        for update in self.updates:
            yield from update.topics

    def fleets(self) -> Iterator[str]:
        """The fleets' topics of those one of whose trips has begun, moved on or ended."""
        for update in self.updates:
            if update.event_name in _TRIP_EVENTS:
                yield fleet_beside(update.topics[0])

    def to_bytes(self) -> bytes:
        """The news as they travel."""
        return _encode(self)

    @staticmethod
    def from_bytes(payload: bytes) -> "News":
        """The news that travelled. Raises `msgspec.MsgspecError` for what are none."""
        return _decode(payload)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(News).decode
_TRIP_EVENTS = frozenset(news.encode() for news in fx.TripNews)


class _Tail(msgspec.Struct):
    vehicle_id: VehicleId
    distance_m: int


_decode_tail = msgspec.json.Decoder(_Tail).decode
_TAIL_ENDS = b"}}"
"""What an offer's end closes besides itself: `set`, and the delta."""
_OFFER = b"offer"


def render(change: Change, now_ms: int) -> News:
    """Everything that is to be said about `change`."""
    before, after = change.before, change.after
    view = broadcast_view(after)
    return News(
        tenant_id=after.tenant_id,
        broadcast_id=after.broadcast_id,
        customer_id=after.customer_id,
        epoch=change.epoch,
        since=0 if before is None else before.seq,
        seq=after.seq,
        now_ms=now_ms,
        may_change=may_change(after),
        snapshot=dumps(view) if before is None else b"",
        delta=b"" if before is None else encode_delta(difference(broadcast_view(before), view)),
        events=[
            (effect.news.encode(), dumps(effect.data))
            for effect in change.effects
            if isinstance(effect, fx.TellWatchers)
        ],
        updates=[update for effect in change.effects for update in _updates(after, effect)],
        ended_at_ms=after.ended_at_ms,
    )


def newly_offered(news: News, limit: int) -> tuple[int, list[Offered]]:
    """To how many the broadcast was offered by this, and the first `limit` of each wave, which are its nearest. Raises
    `MsgspecError` for what an `_opening` of this version does not make."""
    openings = [update for update in news.updates if update.event_name == _OFFER]
    return sum(len(update.topics) for update in openings), [
        Offered(tail.distance_m, tail.vehicle_id, TransporterId(topic.partition(":")[2]))
        for update in openings
        for topic, end in zip(update.topics[:limit], update.tails, strict=False)
        for tail in (_decode_tail(b"{" + end.removesuffix(_TAIL_ENDS)),)
    ]


def may_change(state: Broadcast) -> bool:
    """Whether anything can still happen to a broadcast or to one of its trips."""
    return state.live or any(trip.active for trip in state.trips)


def _updates(state: Broadcast, effect: fx.Effect) -> Iterator[Update]:
    match effect:
        case fx.OpenOffers(offers):
            yield _opening(state, offers)
        case fx.AmendOffers(to):
            yield Update(_feeds(to), encode_delta(Delta(_at_offer(state, offer_fill(state)))))
        case fx.CloseOffers(to):
            yield _closing(state, to)
        case fx.DropOffers(to):
            yield Update(_feeds(to), encode_delta(Delta({}, (pointer("offers", state.broadcast_id),))))
        case fx.ShowWaiting(to, decided_at_ms):
            at = pointer("offers", state.broadcast_id, "decided_at")
            delta = Delta({}, (at,)) if decided_at_ms is None else Delta({at: decided_at_ms})
            yield Update(_feeds(to), encode_delta(delta))
        case fx.LoseAccepts(accepts, code):
            yield from (_losing(state, accept, code) for accept in accepts)
        case fx.ShowTrip(trip, news):
            yield _trip(state, trip, news)
        case fx.TellWatchers() | fx.SeekCandidates() | fx.MeasureAccepts() | fx.MatchOn():
            pass


def _opening(state: Broadcast, offers: Iterable[Offer]) -> Update:
    head = b'{"set":{"%b":%b,' % (pointer("offers", state.broadcast_id).encode(), dumps(offer_body(state))[:-1])
    return Update(
        topics=_feeds(offer.transporter_id for offer in offers),
        delta=head,
        tails=[dumps(offer_tail(offer))[1:] + _TAIL_ENDS for offer in offers],
        event_name=_OFFER,
        event=dumps({"broadcast_id": state.broadcast_id}),
    )


def _closing(state: Broadcast, to: Iterable[TransporterId]) -> Update:
    closing = offer_closing(state)
    event = dumps({"broadcast_id": state.broadcast_id, "reason": closing["reason"]})
    return Update(_feeds(to), encode_delta(Delta(_at_offer(state, closing))), event_name=b"offer_closed", event=event)


def _losing(state: Broadcast, accept: WaitingAccept, code: Refusal) -> Update:
    event: dict[str, Json] = {
        "broadcast_id": state.broadcast_id,
        "vehicle_id": accept.vehicle_id,
        "code": code,
        "remaining_requests": len(state.open_requests),
    }
    return Update(_feeds([accept.transporter_id]), encode_delta(Delta()), event_name=b"accept_lost", event=dumps(event))


def _trip(state: Broadcast, trip: Trip, news: fx.TripNews) -> Update:
    at, view = pointer("trips", trip.trip_id), haul_view(state, trip)
    delta = encode_delta(Delta({at: view}) if trip.active else Delta({}, (at,)))
    topics = [feed_topic(trip.transporter_id), driver_topic(trip.driver_id)]
    return Update(topics, delta, event_name=news.encode(), event=dumps(view))


def _at_offer(state: Broadcast, fields: dict[str, Json]) -> dict[str, Json]:
    return {pointer("offers", state.broadcast_id, key): value for key, value in fields.items()}


def _feeds(to: Iterable[TransporterId]) -> list[str]:
    return [feed_topic(transporter_id) for transporter_id in to]
