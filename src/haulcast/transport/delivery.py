"""News handed to whoever is connected to this node and concerned.

1. There is no await here, nothing is encoded, and there is no work for clients who are not connected. Nor does it take
   the loop for long: news for very many are handed out to some of them at a time, and newer ones wait behind them.
2. News of one broadcast come from one owner after another, over different ways. Those that are older than what was
   handed out before are not applied. Those that do not build on it are not applied to feeds, which may lack what was
   missed, but for new offers, which are whole. Either way what they concern is read again, and the events of the
   second are told after it. Where nodes share a journal, the first news of a broadcast build on what was handed out
   here only if the broadcast is new.
3. A seq is written once, so the state of (1, 9) is that of (2, 9): taking a broadcast over changes nothing that is
   shown. Who has the one and who has the other each get the delta from theirs; nearly always all have one. For who has
   an earlier state the broadcast is read again.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import structlog
from prometheus_client import Counter

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.ports import Role

from .news import News, Update
from .ring import Step
from .staleness import Staleness, customer_mark
from .subscriptions import NOT_YET, Connection, Subscriptions
from .topics import TopicVersion, event_frame, snapshot_frame

MAX_REMEMBERED = 20_000
"""Broadcasts whose last version handed out is remembered; one takes about 300 bytes."""
RECIPIENTS_PER_TURN = 2_000
"""Of the loop; one takes 1 to 2 us. What takes several turns does not leave in one write with what follows it."""

log = structlog.get_logger()


class Delivery:
    """Hands out news. `deliveries` counts, by `kind`. `shared`: there may be news that never came here."""

    def __init__(self, subscriptions: Subscriptions, stale: Staleness, deliveries: Counter, shared: bool) -> None:
        self._subscriptions = subscriptions
        self._stale = stale
        self._deliveries = deliveries
        self._shared = shared
        # Also of broadcasts that have ended: late news of one would open its offers again.
        self._last: OrderedDict[tuple[TenantId, BroadcastId], TopicVersion] = OrderedDict()
        self._under_way: deque[tuple[News, Iterator[None]]] = deque()  # the first has been begun

    def deliver(self, news: News, *, travelled: bool = False) -> None:
        """Hand out `news`, or have read again what they concern. Of a new broadcast those that have `travelled` do not
        show its snapshot: its customer may have seen more of it on the node where they were."""
        steps = self._steps(news, travelled)
        if self._under_way:
            self._under_way.append((news, steps))
        elif _more(steps):
            self._under_way.append((news, steps))
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        news, steps = self._under_way[0]
        try:
            more = _more(steps)
        except Exception:  # nobody is left to tell, and what waits behind it is to go on
            log.exception("delivery_failed", broadcast=news.broadcast_id, version=news.version)
            self._stale.mark(self._here(news, news.topics()))
            more = False
        if not more:
            self._under_way.popleft()
        if self._under_way:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _steps(self, news: News, travelled: bool) -> Iterator[None]:
        """Deliver `news`, with a pause whenever many have been told."""
        key = (news.tenant_id, news.broadcast_id)
        last = self._last.get(key)
        if last is not None and news.version < last:
            log.info("late_news", broadcast=news.broadcast_id, version=news.version, last=last)
            self._stale.mark(self._here(news, [news.topic]))
            self._look_for_new(news)
            self._read_feeds_again(news)
            return
        self._last[key] = news.version
        self._last.move_to_end(key)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        if news.snapshot and not travelled:
            self._show_to_customer(news)
        else:
            self._look_for_new(news)
            yield from self._tell_watchers(news)
        missed = self._shared and news.since > 0 if last is None else news.since > last[1]
        if missed:
            log.info("missed_news", broadcast=news.broadcast_id, version=news.version, last=last)
        for update in news.updates:
            yield from self._update_feeds(news, update, missed)

    def _show_to_customer(self, news: News) -> None:
        """A new broadcast: everything its customer has open shows it."""
        frame = b""
        for connection in self._subscriptions.of_user(news.tenant_id, Role.CUSTOMER, news.customer_id):
            self._subscriptions.make_room(connection, news.topic)
            topic = self._subscriptions.join(connection, news.topic)
            topic.lasts, topic.customer_id = True, news.customer_id
            if topic.subscribers[connection] == NOT_YET:
                frame = frame or snapshot_frame(topic.label, news.version, news.now_ms, news.snapshot)
                topic.version = max(topic.version, news.version)
                topic.send_snapshot([connection], news.version, frame)

    def _tell_watchers(self, news: News) -> Iterator[None]:
        topic = self._subscriptions.topics.get((news.tenant_id, news.topic))
        if topic is None:
            return
        version, label, now_ms = news.version, topic.label, news.now_ms
        if topic.version < version:
            if news.delta and topic.version[1] == news.since:
                topic.ring.add(Step(topic.version, version, now_ms, (news.delta,), news.events))
            topic.version = version
        topic.lasts, topic.customer_id = news.may_change, news.customer_id
        frames: dict[TopicVersion, bytes] = {}
        told: list[Connection] = []
        for number, connection in enumerate(list(topic.subscribers), 1):
            if not number % RECIPIENTS_PER_TURN:
                yield
            had = topic.subscribers.get(connection, NOT_YET)  # who came or went meanwhile is not told
            if had == NOT_YET:
                continue
            if had[1] < news.since:
                self._stale.mark([topic.key])
                continue
            if had < version:
                if had not in frames:
                    frames[had] = Step(had, version, now_ms, (news.delta,), news.events).frames(label)
                topic.subscribers[connection] = version
                connection.send(frames[had])
            elif had[1] == news.seq and news.events:  # the snapshot was read between the commit and now
                connection.send(_events(news, label, had))
            told.append(connection)
        if not news.may_change:
            for connection in told:
                self._subscriptions.leave(connection, news.topic)

    def _update_feeds(self, news: News, update: Update, missed: bool) -> Iterator[None]:
        topics, tenant_id, now_ms = self._subscriptions.topics, news.tenant_id, news.now_ms
        delta, tails, event_name, event = update.delta, update.tails, update.event_name, update.event
        events = ((event_name, event),) if event_name else ()
        reached = 0
        for position, name in enumerate(update.topics):
            if position and not position % RECIPIENTS_PER_TURN:
                yield
            topic = topics.get((tenant_id, name))
            if topic is None:
                continue
            since = topic.version
            if not tails and (missed or topic.key in self._stale):
                self._stale.mark([topic.key])  # what this amends may be what it lacks
                if event_name:
                    topic.owe((event_name, event))
                continue
            version = topic.version = (since[0], since[1] + 1)
            step = Step(since, version, now_ms, (delta, tails[position]) if tails else (delta,), events)
            topic.ring.add(step)
            if not topic.subscribers:
                continue
            topic.send(version, step.frames(topic.label))
            reached += 1
        if event_name == b"offer":
            self._deliveries.labels("offer").inc(reached)

    def _look_for_new(self, news: News) -> None:
        """Of a broadcast that is new on another node the customer is shown what the journal says."""
        if not news.since and self._subscriptions.of_user(news.tenant_id, Role.CUSTOMER, news.customer_id):
            self._stale.mark([customer_mark(news.tenant_id, news.customer_id)])

    def _read_feeds_again(self, news: News) -> None:
        for update in news.updates:
            self._stale.mark(self._here(news, update.topics))

    def _here(self, news: News, names: Iterable[str]) -> list[tuple[TenantId, str]]:
        """Those of the topics that somebody has subscribed to."""
        keys = ((news.tenant_id, name) for name in names)
        return [key for key in keys if key in self._subscriptions.topics]


def _events(news: News, label: bytes, version: TopicVersion) -> bytes:
    return b"".join(event_frame(label, version, news.now_ms, name, data) for name, data in news.events)


def _more(steps: Iterator[None]) -> bool:
    """Take a step; whether there are more."""
    return next(steps, _DONE) is not _DONE


_DONE = object()
