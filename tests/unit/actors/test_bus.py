"""What nodes tell each other, and what a node finds out that had clients before the others knew of it."""

import asyncio

import msgspec
from structlog.testing import capture_logs

from haulcast.actors.bus import NodeBus
from haulcast.clock import SystemClock
from haulcast.metrics import Metrics
from haulcast.ports import Kind
from haulcast.storage.memory import MemoryCluster, MemoryStore


class Ear:
    """A node's bus, what it was told, and how often it was told that something was missed."""

    def __init__(self, store: MemoryStore) -> None:
        metrics = Metrics().actors
        self.bus = NodeBus(MemoryCluster(store, SystemClock()), metrics.bus_sent, metrics.bus_missed)
        self.heard: list[tuple[int, bytes]] = []
        self.missed = 0
        self.bus.handle(Kind.NEWS, lambda sender, payload: self.heard.append((sender, payload)))
        self.bus.on_missed(self.note_missed)

    def note_missed(self) -> None:
        """See `NodeBus.on_missed`."""
        self.missed += 1


async def pair() -> tuple[Ear, Ear]:
    """Node 1, and node 2, which has come later and knows of node 1."""
    store = MemoryStore()
    first, second = Ear(store), Ear(store)
    await first.bus.listen(1)
    await second.bus.listen(2)
    second.bus.peers = frozenset({1})
    return first, second


async def delivered() -> None:
    """Long enough for what was sent to arrive: a turn of the loop for each step."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_whoever_is_met_late_finds_that_something_was_missed() -> None:
    first, second = await pair()
    first.bus.broadcast(Kind.NEWS, b"before it was met")
    await delivered()
    assert (second.heard, second.missed) == ([], 0)
    assert second.bus.strangers == {1}
    first.bus.meet(frozenset({2}))
    await delivered()
    assert (second.heard, second.missed) == ([], 1)
    assert not second.bus.strangers
    first.bus.broadcast(Kind.NEWS, b"after")
    first.bus.meet(frozenset({2}))
    await delivered()
    assert (second.heard, second.missed) == ([(1, b"after")], 1)


async def test_whoever_was_known_from_the_start_has_missed_nothing() -> None:
    first, second = await pair()
    second.bus.broadcast(Kind.NEWS, b"at once")
    await delivered()
    assert (first.heard, first.missed) == ([(2, b"at once")], 0)


async def test_whoever_was_gone_for_a_while_finds_that_something_was_missed() -> None:
    first, second = await pair()
    first.bus.meet(frozenset({2}))
    await delivered()
    first.bus.meet(frozenset())
    first.bus.broadcast(Kind.NEWS, b"while it was gone")
    first.bus.meet(frozenset({2}))
    await delivered()
    assert (second.heard, second.missed) == ([], 2)


async def test_of_a_node_that_is_silenced_no_notice_is_taken_however_late_its_words_come() -> None:
    first, second = await pair()
    first.bus.meet(frozenset({2}))
    first.bus.broadcast(Kind.NEWS, b"in time")
    await delivered()
    missed = second.missed
    first.bus.broadcast(Kind.NEWS, b"held up")
    second.bus.silence(1)
    await delivered()
    first.bus.tip()
    await delivered()
    assert (second.heard, second.missed) == ([(1, b"in time")], missed)


async def test_what_cannot_be_read_is_passed_over_and_what_comes_with_it_is_not() -> None:
    first, second = await pair()
    second.bus.handle(Kind.FLEET, lambda _sender, payload: msgspec.msgpack.decode(payload))
    first.bus.meet(frozenset({2}))
    await delivered()
    with capture_logs() as logs:
        first.bus.broadcast(Kind.FLEET, b"\xc1")
        first.bus.broadcast(Kind.NEWS, b"after")
        await delivered()
    assert second.heard == [(1, b"after")]
    assert [(entry["event"], entry["kind"], entry["sender"]) for entry in logs] == [("bad_message", "fleet", 1)]
