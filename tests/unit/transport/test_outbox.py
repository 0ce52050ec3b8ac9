"""The outbox against a transport that only notes what it is told. Over a real socket: `test_upgrade.py`."""

import asyncio
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from haulcast.transport.metrics import TransportMetrics
from haulcast.transport.outbox import CHUNK_BYTES, Flusher, Outbox
from tests.unit.transport.fakes import make_metrics

LIMIT = 1000


class NotingTransport:
    """Notes writes. Its buffer holds what it is told it holds: real ones empty themselves."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.buffered = 0
        self.closing = False
        self.broken = False
        self.aborted = False
        self.tells_when_drained = False
        self.fills = False  # whether what is written stays in the buffer

    def write(self, data: bytes) -> None:
        if self.broken:
            raise OSError("broken")
        assert not self.closing, "a closing transport is not written to"
        self.writes.append(data)
        if self.fills:
            self.buffered += len(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int) -> None:
        self.tells_when_drained = high == 0

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted = True


class Sender:
    """An outbox with its transport, and how often it overflowed."""

    def __init__(self, flusher: Flusher, limit: int = LIMIT) -> None:
        self.transport = NotingTransport()
        self.overflows = 0
        self.outbox = Outbox(cast(asyncio.Transport, self.transport), flusher, limit, self._overflow)

    def _overflow(self) -> None:
        self.overflows += 1


@pytest.fixture
def metrics() -> TransportMetrics:
    return make_metrics(CollectorRegistry())


@pytest.fixture
def flusher(metrics: TransportMetrics) -> Flusher:
    return Flusher(metrics)


async def tick() -> None:
    """Let everything run that is scheduled now."""
    await asyncio.sleep(0)


class TestTicks:
    async def test_what_is_sent_in_one_tick_leaves_in_one_write_at_its_end(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        for payload in (b"a", b"b", b"c"):
            sender.outbox.send(payload)
        assert sender.transport.writes == []
        await tick()
        assert sender.transport.writes == [b"abc"]
        await tick()
        sender.outbox.send(b"d")
        await tick()
        assert sender.transport.writes == [b"abc", b"d"]

    async def test_what_leaves_is_counted(self, flusher: Flusher, metrics: TransportMetrics) -> None:
        first, second = Sender(flusher), Sender(flusher)
        first.outbox.send(b"ab")
        second.outbox.send(b"cde")
        first.outbox.send(b"f")
        await tick()
        assert metrics.frames_sent.value == 3
        assert metrics.bytes_sent.value == 6

    async def test_many_sockets_take_several_turns_and_none_is_left_out(self, metrics: TransportMetrics) -> None:
        flusher = Flusher(metrics, sockets_per_turn=10)
        senders = [Sender(flusher) for _ in range(25)]
        for sender in senders:
            sender.outbox.send(b"x")
        written = []
        for _ in range(4):
            written.append(sum(bool(sender.transport.writes) for sender in senders))
            await tick()
        assert written == [0, 10, 20, 25]

    async def test_frames_for_a_socket_that_waits_for_its_turn_join_the_same_write(
        self, metrics: TransportMetrics
    ) -> None:
        flusher = Flusher(metrics, sockets_per_turn=1)
        first, second = Sender(flusher), Sender(flusher)
        first.outbox.send(b"x")
        second.outbox.send(b"a")
        await tick()
        second.outbox.send(b"b")
        first.outbox.send(b"y")
        await tick()
        assert second.transport.writes == [b"ab"]
        await tick()
        assert first.transport.writes == [b"x", b"y"]

    async def test_what_a_full_flush_leaves_room_for_still_goes_out_later(self, metrics: TransportMetrics) -> None:
        """The flusher starts again after it had nothing to do."""
        flusher = Flusher(metrics, sockets_per_turn=1)
        sender = Sender(flusher)
        for number in range(5):
            sender.outbox.send(b"%d" % number)
            await tick()
            await tick()
        assert sender.transport.writes == [b"0", b"1", b"2", b"3", b"4"]

    async def test_a_broken_socket_does_not_keep_others_from_being_written_to(self, flusher: Flusher) -> None:
        broken, fine = Sender(flusher), Sender(flusher)
        broken.transport.broken = True
        broken.outbox.send(b"x")
        fine.outbox.send(b"y")
        await tick()
        assert broken.transport.aborted
        assert fine.transport.writes == [b"y"]

    async def test_a_closing_transport_is_not_written_to(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.send(b"x")
        sender.transport.closing = True
        await tick()
        assert sender.transport.writes == []
        assert not sender.transport.aborted

    async def test_flush_now_does_not_wait_for_the_end_of_the_tick(
        self, flusher: Flusher, metrics: TransportMetrics
    ) -> None:
        sender = Sender(flusher)
        sender.outbox.send(b"x")
        sender.outbox.flush_now()
        assert sender.transport.writes == [b"x"]
        await tick()
        assert sender.transport.writes == [b"x"]
        assert metrics.frames_sent.value == 1


class TestBound:
    async def test_counts_what_waits_here_and_in_the_transport(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.transport.buffered = 600
        sender.outbox.send(b"x" * 300)
        sender.outbox.send(b"x" * 100)
        assert sender.overflows == 0
        sender.outbox.send(b"x")
        assert sender.overflows == 1

    async def test_beyond_it_nothing_is_kept_and_the_overflow_is_told_once(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.send(b"early")
        sender.outbox.send(b"x" * LIMIT)
        sender.outbox.send(b"late")
        sender.outbox.send(b"x" * LIMIT)
        assert sender.overflows == 1
        await tick()
        assert sender.transport.writes == []

    async def test_a_snapshot_may_be_larger_and_what_comes_after_it_still_counts(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.hold()
        sender.outbox.send(b"x" * (5 * LIMIT), snapshot=True)
        sender.outbox.release(b"hello")
        await tick()
        assert sender.transport.writes == [b"hello" + b"x" * (5 * LIMIT)]
        sender.transport.buffered = 5 * LIMIT
        sender.outbox.send(b"x" * LIMIT)
        assert sender.overflows == 0
        sender.outbox.send(b"x")
        assert sender.overflows == 1

    async def test_once_a_snapshot_has_left_the_bound_is_what_it_was(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.send(b"x" * (5 * LIMIT), snapshot=True)
        await tick()
        sender.outbox.send(b"x" * LIMIT)
        sender.outbox.send(b"x")
        assert sender.overflows == 1

    async def test_what_has_left_no_longer_counts(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        for _ in range(10):
            sender.outbox.send(b"x" * 900)
            await tick()
        assert sender.overflows == 0

    async def test_holds_for_what_is_held(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.hold()
        sender.outbox.send(b"x" * 600)
        sender.outbox.send(b"x" * 600)
        assert sender.overflows == 1


class TestYielding:
    async def test_while_nothing_waits_all_frames_keep_their_order(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        for payload in (b"a", b"b", b"c"):
            sender.outbox.send(payload, yielding=payload == b"b")
        await tick()
        assert sender.transport.writes == [b"abc"]
        assert not sender.transport.tells_when_drained

    async def test_on_a_slow_connection_what_yields_waits_until_all_else_has_left(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.transport.buffered = 10
        sender.outbox.send(b"board 1", yielding=True)
        assert sender.transport.tells_when_drained
        sender.outbox.send(b"reply")
        await tick()
        assert sender.transport.writes == [b"reply"]
        sender.outbox.send(b"board 2", yielding=True)
        await tick()
        sender.transport.buffered = 0
        sender.outbox.send(b"board 3", yielding=True)  # not before the others of its kind
        sender.outbox.drained()
        assert sender.transport.writes == [b"reply", b"board 1board 2board 3"]
        sender.outbox.send(b"board 4", yielding=True)
        await tick()
        assert sender.transport.writes[2:] == [b"board 4"]

    async def test_it_leaves_a_chunk_at_a_time(self, flusher: Flusher) -> None:
        sender = Sender(flusher, limit=10 * CHUNK_BYTES)
        sender.transport.buffered = 1
        small, large = b"s" * (CHUNK_BYTES // 2), b"l" * (2 * CHUNK_BYTES)
        for payload in (small, small, small, large):
            sender.outbox.send(payload, yielding=True)
        for expected in (small + small, small, large):
            sender.transport.fills = True
            sender.transport.buffered = 0
            sender.outbox.drained()
            assert sender.transport.writes.pop() == expected
            assert sender.transport.writes == []
        sender.transport.buffered = 0
        sender.outbox.drained()
        assert sender.transport.writes == []

    async def test_what_is_held_is_released_in_order(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.transport.buffered = 1
        sender.outbox.hold()
        sender.outbox.send(b"board", yielding=True)
        sender.outbox.send(b"feed")
        sender.transport.buffered = 0
        sender.outbox.drained()
        sender.outbox.release(b"hello")
        await tick()
        assert sender.transport.writes == [b"helloboardfeed"]

    async def test_it_counts_as_what_waits_until_it_has_left(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.transport.buffered = 100
        sender.outbox.send(b"x" * 800, yielding=True)
        sender.outbox.send(b"x" * 100)
        assert sender.overflows == 0
        sender.outbox.send(b"x", yielding=True)
        assert sender.overflows == 1
        sender.outbox.drained()
        await tick()
        assert sender.transport.writes == []

    async def test_once_it_has_left_it_does_not_count_any_more(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        for _ in range(3):
            sender.transport.buffered = 100
            sender.outbox.send(b"x" * 800, yielding=True)
            sender.transport.buffered = 0
            sender.outbox.drained()
        assert sender.overflows == 0


class TestHolding:
    async def test_what_is_held_waits_for_its_release_and_comes_after_the_first(self, flusher: Flusher) -> None:
        """But what was sent before goes first."""
        sender = Sender(flusher)
        sender.outbox.send(b"a")
        sender.outbox.hold()
        sender.outbox.send(b"c")
        await tick()
        await tick()
        assert sender.transport.writes == [b"a"]
        sender.outbox.release(b"b")
        await tick()
        assert b"".join(sender.transport.writes) == b"abc"
        sender.outbox.send(b"d")
        await tick()
        assert b"".join(sender.transport.writes) == b"abcd"

    async def test_what_was_held_may_be_dropped(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.hold()
        sender.outbox.send(b"dropped")
        sender.outbox.release(b"x", keep=False)
        await tick()
        assert sender.transport.writes == [b"x"]

    async def test_closed_drops_what_waits_and_takes_nothing(self, flusher: Flusher) -> None:
        sender = Sender(flusher)
        sender.outbox.send(b"x")
        sender.outbox.close()
        sender.outbox.send(b"y")
        await tick()
        assert sender.transport.writes == []
        assert sender.overflows == 0
