"""What `board:{tenant}` shows: every live broadcast of a tenant, on whichever node, and those that ended lately.

1. A board is kept while its topic is: a node at which no operator has one does nothing for it. It is read from the
   journal, a page at a time, and then follows the news of all nodes.
2. Whatever comes is ordered by the broadcasts' own versions, so it does not matter whether a page or the news of a
   change come first. A broadcast of which news do not follow on what is known is read again by itself.
3. News can be lost without a trace. So the board is compared with the journal, when somebody suspects it and every
   `COMPARE_EVERY_S` anyway. What the journal knew and the board still does not `GRACE_S` later had been lost: it is put
   right, logged as drift, and counted by field. What came after the journal was read is newer, and stays.
4. What changes within `GATHERED_S` leaves as one delta.
5. A broadcast that has ended goes `ENDED_SHOWN_MS` later, and earlier if there are more than `MAX_SHOWN`.
6. A collector adds what is slow to find out, in fields of its own (`domain.snapshot.CLUSTERS`): the news and the
   journal know nothing of these and do not touch them, and with a broadcast's end they go. It works while the board is
   open.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgspec
import structlog

from haulcast.domain.delta import Delta, difference, path_of, pointer
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.replies import Json
from haulcast.domain.snapshot import Fields, Gap, Source, Store
from haulcast.domain.views import broadcast_view
from haulcast.errors import StoreUnavailable
from haulcast.ports import Clock, Journal, Stored
from haulcast.tasks import TaskSet

from .codec import dumps
from .metrics import HubMetrics
from .news import News
from .topics import TopicVersion, encode_delta

GATHERED_S = 0.05
COMPARE_EVERY_S = 60.0
GRACE_S = 1.0
ENDED_SHOWN_MS = 600_000
MAX_SHOWN = 20_000
"""Broadcasts of a board. One takes about 3 kB, and 1 kB for each vehicle whose way to the pickup is shown."""
PAGE = 100
"""Broadcasts that are read at once."""
_RETRY_S = 1.0
_ENTRIES = "broadcasts"

log = structlog.get_logger()


class _Patch(msgspec.Struct):
    set: dict[str, Any] = {}
    gone: list[str] = msgspec.field(name="del", default_factory=list)


_decode_patch = msgspec.json.Decoder(_Patch).decode
_decode_view = msgspec.json.Decoder(dict[str, Any]).decode


class Collector(Protocol):
    """Finds out what a board shows besides, and tells it so by `put_route`."""

    def take(self, news: News) -> None:
        """A broadcast of the tenant has changed. Never waits, never raises."""
        ...

    async def run(self) -> None:
        """Collect until cancelled. Begun when the board has been read."""
        ...


Collect: TypeAlias = Callable[["Board"], Collector]


class Board:
    """One tenant's board on this node. `send` is called with the data of a delta, encoded."""

    def __init__(
        self,
        tenant_id: TenantId,
        journal: Journal,
        clock: Clock,
        send: Callable[[bytes], None],
        metrics: HubMetrics,
        collect: Collect | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self._journal = journal
        self._clock = clock
        self._send = send
        self._drift = metrics.drift
        self._store = Store(MAX_SHOWN, lambda cluster: metrics.rejected.labels(cluster).inc())
        self._encoded: dict[str, bytes] = {}  # members of the snapshot, as far as they are of the latest version
        self._before: dict[str, Fields | None] = {}  # what changed since the last delta: as it was, None if it was not
        self._gathering: asyncio.TimerHandle | None = None
        self._doubted: dict[BroadcastId, None] = {}  # are to be read again
        self._reading_again = False
        self._tasks = TaskSet()
        self._comparing = asyncio.Lock()
        self._complete = asyncio.Event()  # everything has been read once
        self._suspected = asyncio.Event()  # it is to be compared now
        self._closed = False
        self._collector = None if collect is None else collect(self)
        self._collecting = TaskSet()

    def __len__(self) -> int:
        return len(self._store)

    @property
    def task_count(self) -> int:
        """How many tasks it has."""
        return len(self._tasks) + len(self._collecting)

    async def open(self) -> None:
        """Return once everything has been read. Raises `StoreUnavailable`."""
        if self._complete.is_set():
            return
        async with self._comparing:
            if self._complete.is_set():
                return
            async for page in self._pages():
                for stored in page:
                    self._take(stored)
            self._flush()
            self._complete.set()
            self._tasks.start(self._compare_for_ever(), "compare_board")
            if self._collector is not None:
                self._collecting.start(self._collector.run(), "collect")

    async def close(self) -> None:
        """Say nothing any more, and end what is under way; a comparison is finished first."""
        self._closed = True
        if self._gathering is not None:
            self._gathering.cancel()
        await self._collecting.close()
        async with self._comparing:
            await self._tasks.close()

    def snapshot(self) -> bytes:
        """Everything, encoded. Whatever had not been sent yet is sent before, so it is nothing but what was told."""
        self._flush()
        return b'{"%b":{%b}}' % (_ENTRIES.encode(), b",".join(map(self._member, self._store)))

    def take(self, news: News) -> None:
        """A broadcast of the tenant has changed."""
        if self._collector is not None:
            self._collector.take(news)
        key = news.broadcast_id
        if news.since and key not in self._store and self._ended_long_ago(news.ended_at_ms):
            return  # a trip of it goes on
        if news.since:
            patch = _decode_patch(news.delta)
            delta = Delta(patch.set, tuple(patch.gone))
            try:
                self._apply(key, lambda: self._store.amend(key, news.since, news.version, delta, self._clock.now_ms()))
            except Gap:
                self._doubt(key)
        elif news.snapshot:
            self._write(key, news.version, _decode_view(news.snapshot))
        else:  # from a node of an earlier version
            self._doubt(key)

    def drop_ended(self) -> None:
        """Drop what ended long enough ago."""
        for key in [key for key in self._store if self._is_over(self._store.fields(key))]:
            self._drop(key)

    async def compare(self) -> None:
        """Put right whatever the journal knows better. Raises `StoreUnavailable`."""
        async with self._comparing:
            live = {key: self._store.version(key) for key in self._store if self._store.fields(key)["ended_at"] is None}
            ahead: list[Stored] = []
            async for page in self._pages():
                for stored in page:
                    live.pop(stored.state.broadcast_id, None)
                    if self._store.version(stored.state.broadcast_id) < (stored.epoch, stored.state.seq):
                        ahead.append(stored)
                    else:
                        self._put_right(stored)
            if ahead:
                await asyncio.sleep(GRACE_S)  # most of it is on its way
            for stored in ahead:
                self._put_right(stored)
            for key, version in live.items():
                if self._store.version(key) == version:  # it ended so long ago that it is not shown any more
                    self._note_drift(key, ["status"])
                    self._drop(key)

    # --- For the collector ---

    def live(self) -> list[BroadcastId]:
        """The broadcasts that have not ended."""
        return [BroadcastId(key) for key in self._store if self._store.fields(key)["ended_at"] is None]

    def entry(self, key: BroadcastId) -> Fields | None:
        """What is shown of a broadcast that has not ended; None if it has, or is not shown."""
        fields = self._store.fields(key) if key in self._store else None
        return None if fields is None or fields["ended_at"] is not None else fields

    def put_route(self, key: BroadcastId, version: TopicVersion, route: Json) -> bool:
        """Show the ways to a broadcast's pickup, unless it has ended or newer ones are shown. Whether that changed
        anything."""
        fields, now_ms = {"route": route}, self._clock.now_ms()
        return bool(self._apply(key, lambda: self._store.write(key, Source.ROUTES, version, fields, now_ms)))

    # --- Reading ---

    async def _pages(self) -> AsyncIterator[list[Stored]]:
        after: BroadcastId | None = None
        ended_after_ms = self._clock.now_ms() - ENDED_SHOWN_MS
        while True:
            page = await self._journal.list_board(self.tenant_id, ended_after_ms, after, PAGE)
            yield page
            if len(page) < PAGE:
                return
            after = page[-1].state.broadcast_id

    def suspect(self) -> None:
        """Something may have been lost: have it compared soon."""
        self._suspected.set()

    async def _compare_for_ever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_EVERY_S):
                    await self._suspected.wait()
            self._suspected.clear()
            try:
                await self.compare()
            except StoreUnavailable as error:
                log.warning("comparison_delayed", tenant=self.tenant_id, reason=str(error))
                await asyncio.sleep(_RETRY_S)
                self._suspected.set()
            except Exception:
                log.exception("comparison_failed", tenant=self.tenant_id)

    def _doubt(self, key: BroadcastId) -> None:
        self._doubted[key] = None
        if not self._reading_again:
            self._reading_again = True
            self._tasks.start(self._read_again(), "read_board_again")

    async def _read_again(self) -> None:
        try:
            while self._doubted:
                key = next(iter(self._doubted))
                del self._doubted[key]
                try:
                    stored = await self._journal.read_broadcast(self.tenant_id, key)
                except StoreUnavailable as error:
                    self._doubted[key] = None
                    log.warning("reading_delayed", broadcast=key, reason=str(error))
                    await asyncio.sleep(_RETRY_S)
                except Exception:
                    log.exception("reading_failed", broadcast=key)
                else:
                    if stored is not None:
                        self._take(stored)
        finally:
            self._reading_again = False

    # --- Writing ---

    def _take(self, stored: Stored) -> Delta:
        state = stored.state
        return self._write(state.broadcast_id, (stored.epoch, state.seq), broadcast_view(state))

    def _put_right(self, stored: Stored) -> None:
        if delta := self._take(stored):
            fields = {path_of(at)[0] for at in (*delta.set, *delta.gone)}
            self._note_drift(stored.state.broadcast_id, sorted(fields))

    def _note_drift(self, key: str, fields: Collection[str]) -> None:
        log.warning("drift", tenant=self.tenant_id, broadcast=key, fields=fields)
        for field in fields:
            self._drift.labels(field).inc()

    def _write(self, key: str, version: TopicVersion, fields: Fields) -> Delta:
        if self._is_over(fields):
            return Delta()
        now_ms = self._clock.now_ms()
        delta = self._apply(key, lambda: self._store.write(key, Source.OWNER, version, fields, now_ms))
        for gone in self._store.shrink():
            self._before.setdefault(gone, {})
            self._encoded.pop(gone, None)
        return delta

    def _apply(self, key: str, write: Callable[[], Delta]) -> Delta:
        before = dict(self._store.fields(key)) if key in self._store else None
        delta = write()
        if delta:
            if self._store.fields(key)["ended_at"] is not None:
                self._store.end(key)
            self._note_change(key, before)
        return delta

    def _drop(self, key: str) -> None:
        before = dict(self._store.fields(key))
        self._store.drop(key)
        self._note_change(key, before)

    def _is_over(self, fields: Fields) -> bool:
        return self._ended_long_ago(fields["ended_at"])

    def _ended_long_ago(self, ended_at: Json) -> bool:
        return isinstance(ended_at, int) and ended_at <= self._clock.now_ms() - ENDED_SHOWN_MS

    # --- Telling ---

    def _note_change(self, key: str, before: Fields | None) -> None:
        self._encoded.pop(key, None)
        self._before.setdefault(key, before)
        if self._gathering is None and not self._closed:
            self._gathering = asyncio.get_running_loop().call_later(GATHERED_S, self._flush)

    def _flush(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        changed, self._before = self._before, {}
        if self._closed or not self._complete.is_set():  # nobody was shown anything; the snapshot will have it all
            return
        values: dict[str, Json] = {}
        gone: list[str] = []
        for key, before in changed.items():
            at, after = pointer(_ENTRIES, key), self._store.fields(key) if key in self._store else None
            if after is None:
                gone += [at] if before is not None else []
            elif before is None:
                values[at] = after
            else:
                delta = difference(before, after)
                values.update((at + inner, value) for inner, value in delta.set.items())
                gone += [at + inner for inner in delta.gone]
        if values or gone:
            self._send(encode_delta(Delta(values, tuple(gone))))

    def _member(self, key: str) -> bytes:
        member = self._encoded.get(key)
        if member is None:
            member = self._encoded[key] = b"%b:%b" % (dumps(key), dumps(self._store.fields(key)))
        return member


class Boards:
    """The boards of this node, by tenant. `send` is called with a tenant and the data of a delta of its board."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        send: Callable[[TenantId, bytes], None],
        metrics: HubMetrics,
        collect: Collect | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._send = send
        self._metrics = metrics
        self._collect = collect
        self._boards: dict[TenantId, Board] = {}
        self._closing: dict[Board, None] = {}
        self._tasks = TaskSet()

    @property
    def task_count(self) -> int:
        """How many tasks boards have that go on for as long as they do."""
        return sum(board.task_count for board in self._boards.values())

    @property
    def size(self) -> int:
        """How many broadcasts all boards show."""
        return sum(map(len, self._boards.values()))

    def take(self, news: News) -> None:
        """Have the tenant's board, if there is one, follow."""
        board = self._boards.get(news.tenant_id)
        if board is not None:
            board.take(news)

    async def open(self, tenant_id: TenantId) -> Board:
        """The tenant's board, complete. Raises `StoreUnavailable`."""
        board = self._boards.get(tenant_id)
        if board is None:
            send = partial(self._send, tenant_id)
            board = Board(tenant_id, self._journal, self._clock, send, self._metrics, self._collect)
            self._boards[tenant_id] = board
        await board.open()
        return board

    def suspect(self, tenant_id: TenantId) -> None:
        """Have a board, if there is one, compared with the journal soon."""
        board = self._boards.get(tenant_id)
        if board is not None:
            board.suspect()

    def sweep(self, wanted: Collection[TenantId]) -> None:
        """Close all boards but these tenants', and drop from those what ended long enough ago."""
        for tenant_id, board in [*self._boards.items()]:
            if tenant_id in wanted:
                board.drop_ended()
            else:
                self._closing[self._boards.pop(tenant_id)] = None
                self._tasks.start(self._close(board), "close_board")

    async def close(self) -> None:
        """Close all; comparisons under way are finished first."""
        await asyncio.gather(*(self._close(board) for board in (*self._boards.values(), *self._closing)))
        self._boards.clear()
        await self._tasks.close()

    async def _close(self, board: Board) -> None:
        await board.close()
        self._closing.pop(board, None)
