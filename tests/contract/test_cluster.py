"""What every cluster promises: leases and who is given up, the directory, datagrams between nodes."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.ports import Cluster, Member, Ownership, Standing
from haulcast.storage.memory import MemoryCluster, MemoryStore
from haulcast.storage.memory import cluster as memory
from haulcast.storage.redis import RedisCluster
from tests.contract.shared import ManualClock, emptied, eventually

ACME, OTHER = TenantId("acme"), TenantId("other")
HAUL = BroadcastId("01haul")
TTL_MS = 3_000
LONG_MS = 600_000

Join = Callable[[], Cluster]
"""Makes one more node's cluster, sharing what the others share."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "redis"])
async def join(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Join]:
    joined: list[Cluster] = []
    if request.param == "memory":
        store = MemoryStore()

        def make() -> Cluster:
            return MemoryCluster(store, clock)
    else:
        url = await emptied(request.getfixturevalue("redis_url"))

        def make() -> Cluster:
            return RedisCluster(url, now_ms=clock.now_ms)

    def join() -> Cluster:
        joined.append(make())
        return joined[-1]

    try:
        yield join
    finally:
        for cluster in joined:
            await cluster.close()


@pytest.fixture
def cluster(join: Join) -> Cluster:
    return join()


def alive(incarnation: int) -> Member:
    return Member(incarnation, alive=True, draining=False)


def gone(incarnation: int) -> Member:
    return Member(incarnation, alive=False, draining=False)


# --- Leases ----------------------------------------------------------------------------------------------------------


async def test_who_has_registered_is_a_member_that_all_see(join: Join) -> None:
    one, two = join(), join()
    assert await one.members() == []
    assert await one.register(1, TTL_MS)
    assert await two.register(2, TTL_MS)
    assert await one.members() == await two.members() == [alive(1), alive(2)]


async def test_members_come_in_the_order_of_their_numbers(cluster: Cluster) -> None:
    for incarnation in (10, 9, 100, 1):
        await cluster.register(incarnation, TTL_MS + incarnation)
    assert [member.incarnation for member in await cluster.members()] == [1, 9, 10, 100]


async def test_a_lease_holds_for_its_time_from_the_last_renewal(cluster: Cluster, clock: ManualClock) -> None:
    await cluster.register(1, TTL_MS)
    for _ in range(5):
        clock.advance(2.9)
        assert await cluster.members() == [alive(1)]
        assert await cluster.renew(1, TTL_MS) is Standing.HELD
    clock.advance(2.999)
    assert await cluster.members() == [alive(1)]
    clock.advance(0.001)
    assert await cluster.members() == [gone(1)]


async def test_renewing_never_brings_a_lease_back(cluster: Cluster, clock: ManualClock) -> None:
    assert await cluster.renew(1, TTL_MS) is Standing.EXPIRED
    assert await cluster.members() == []
    await cluster.register(1, TTL_MS)
    clock.advance(3)
    for _ in range(2):
        assert await cluster.renew(1, TTL_MS) is Standing.EXPIRED
        assert await cluster.members() == [gone(1)]


async def test_registering_brings_a_lease_back_that_nobody_has_given_up(cluster: Cluster, clock: ManualClock) -> None:
    await cluster.register(1, TTL_MS)
    clock.advance(3)
    assert await cluster.register(1, TTL_MS)
    assert await cluster.members() == [alive(1)]
    assert await cluster.renew(1, TTL_MS) is Standing.HELD


async def test_a_renewal_may_be_for_another_time(cluster: Cluster, clock: ManualClock) -> None:
    await cluster.register(1, TTL_MS)
    await cluster.renew(1, 10_000)
    clock.advance(9.9)
    assert await cluster.members() == [alive(1)]
    await cluster.renew(1, 500)
    clock.advance(0.5)
    assert await cluster.members() == [gone(1)]


async def test_who_leaves_is_no_member_and_its_lease_is_gone(cluster: Cluster) -> None:
    await cluster.register(1, TTL_MS)
    await cluster.register(2, TTL_MS)
    await cluster.drain(1)
    await cluster.leave(1)
    await cluster.leave(1)
    assert await cluster.members() == [alive(2)]
    assert await cluster.renew(1, TTL_MS) is Standing.EXPIRED
    assert await cluster.register(1, TTL_MS)
    assert await cluster.members() == [alive(1), alive(2)]


async def test_a_member_that_drains_says_so_until_it_leaves(cluster: Cluster, clock: ManualClock) -> None:
    draining = Member(1, alive=True, draining=True)
    await cluster.drain(1)
    assert await cluster.members() == []
    await cluster.register(1, TTL_MS)
    await cluster.register(2, LONG_MS)
    assert await cluster.members() == [alive(1), alive(2)]
    await cluster.drain(1)
    assert await cluster.members() == [draining, alive(2)]
    await cluster.renew(1, TTL_MS)
    assert await cluster.members() == [draining, alive(2)]
    clock.advance(3)
    assert await cluster.members() == [Member(1, alive=False, draining=True), alive(2)]
    await cluster.register(1, TTL_MS)
    assert await cluster.members() == [draining, alive(2)]


async def test_of_any_number_that_are_to_drain_at_once_one_stays(join: Join, clock: ManualClock) -> None:
    """Whoever asks: of those that have a lease and do not drain there is always another one."""
    stores = [join() for _ in range(3)]
    for incarnation in (1, 2, 3):
        await stores[0].register(incarnation, LONG_MS)
    await stores[0].register(4, TTL_MS)
    clock.advance(3)  # 4 has no lease any more
    marked = await asyncio.gather(*(stores[one - 1].drain(one, not_last=True) for one in (1, 2, 3)))
    assert sorted(marked) == [False, True, True]
    [staying] = [member.incarnation for member in await stores[0].members() if member.alive and not member.draining]
    assert not await stores[1].drain(staying, not_last=True)
    assert [await stores[1].drain(one, not_last=True) for one in (1, 2, 3) if one != staying] == [True, True]
    assert not await stores[1].drain(99, not_last=True)
    assert await stores[1].drain(staying)


# --- Giving up -------------------------------------------------------------------------------------------------------


async def test_who_has_a_lease_cannot_be_given_up(join: Join, clock: ManualClock) -> None:
    one, two = join(), join()
    await one.register(1, TTL_MS)
    clock.advance(2.999)
    assert not await two.condemn(1)
    assert await two.members() == [alive(1)]
    assert await one.renew(1, TTL_MS) is Standing.HELD


async def test_who_was_given_up_is_lost_for_good(join: Join, clock: ManualClock) -> None:
    one, two = join(), join()
    await one.register(1, TTL_MS)
    await one.drain(1)
    await two.register(2, LONG_MS)
    clock.advance(3)
    assert await two.condemn(1)
    assert await two.members() == [alive(2)]
    for _ in range(2):
        assert await one.renew(1, TTL_MS) is Standing.LOST
        assert not await one.register(1, TTL_MS)
    await one.drain(1)
    await one.leave(1)
    assert await one.renew(1, TTL_MS) is Standing.LOST
    assert await one.members() == [alive(2)]
    clock.advance(23 * 3600)
    assert not await one.register(1, TTL_MS)
    assert await one.register(3, TTL_MS)


async def test_giving_up_twice_and_whoever_is_unknown(cluster: Cluster, clock: ManualClock) -> None:
    await cluster.register(1, TTL_MS)
    clock.advance(3)
    assert await cluster.condemn(1)
    assert await cluster.condemn(1)
    assert await cluster.condemn(7)
    assert not await cluster.register(7, TTL_MS)
    assert await cluster.members() == []


async def test_of_renewing_and_giving_up_in_the_same_moment_one_wins(join: Join, clock: ManualClock) -> None:
    """Whoever asks many times about a lease that has just run out gets one story."""
    nodes = [join() for _ in range(4)]
    for incarnation in range(1, 31):
        await nodes[0].register(incarnation, TTL_MS)
        clock.advance(3)
        outcomes = await asyncio.gather(
            nodes[0].register(incarnation, TTL_MS), *(node.condemn(incarnation) for node in nodes[1:])
        )
        registered, *condemned = outcomes
        standing = await nodes[0].renew(incarnation, TTL_MS)
        assert (standing is Standing.HELD) == registered == (not any(condemned))
        assert registered or standing is Standing.LOST
        await nodes[0].leave(incarnation)


# --- Directory -------------------------------------------------------------------------------------------------------


async def noted(cluster: Cluster, owner: Ownership | None, tenant_id: TenantId = ACME) -> None:
    """Returns once `owner` is what is noted."""

    async def as_expected() -> bool:
        return await cluster.locate(tenant_id, HAUL) == owner

    await eventually(as_expected)


async def settled(cluster: Cluster) -> None:
    """Returns once everything is noted that was given to this node before."""
    mark = BroadcastId("01mark")
    cluster.record(ACME, mark, Ownership(1, 1), LONG_MS)

    async def there() -> bool:
        return await cluster.locate(ACME, mark) is not None

    await eventually(there)
    cluster.forget(ACME, mark, Ownership(1, 1))

    async def away() -> bool:
        return await cluster.locate(ACME, mark) is None

    await eventually(away)


async def test_what_one_node_notes_the_others_find(join: Join) -> None:
    one, two = join(), join()
    assert await two.locate(ACME, HAUL) is None
    one.record(ACME, HAUL, Ownership(1, 7), LONG_MS)
    await noted(two, Ownership(1, 7))
    assert await two.locate(OTHER, HAUL) is None
    assert await two.locate(ACME, BroadcastId("01other")) is None


async def test_ids_that_hold_separators_are_not_mixed_up(cluster: Cluster) -> None:
    cluster.record(TenantId("a:b"), BroadcastId("c"), Ownership(1, 1), LONG_MS)
    await settled(cluster)
    assert await cluster.locate(TenantId("a"), BroadcastId("b:c")) is None
    assert await cluster.locate(TenantId("a:b"), BroadcastId("c")) == Ownership(1, 1)


async def test_only_a_higher_epoch_replaces(join: Join) -> None:
    one, two = join(), join()
    one.record(ACME, HAUL, Ownership(5, 1), LONG_MS)
    await noted(two, Ownership(5, 1))
    for owner in (Ownership(4, 9), Ownership(5, 2)):
        two.record(ACME, HAUL, owner, LONG_MS)
        await settled(two)
        assert await one.locate(ACME, HAUL) == Ownership(5, 1)
    two.record(ACME, HAUL, Ownership(10, 2), LONG_MS)
    await noted(one, Ownership(10, 2))
    one.record(ACME, HAUL, Ownership(9, 1), LONG_MS)
    await settled(one)
    assert await one.locate(ACME, HAUL) == Ownership(10, 2)


async def test_forgetting_removes_what_is_noted_unless_of_a_higher_epoch(join: Join) -> None:
    one, two = join(), join()
    one.record(ACME, HAUL, Ownership(10, 1), LONG_MS)
    one.record(OTHER, HAUL, Ownership(10, 1), LONG_MS)
    await noted(two, Ownership(10, 1))
    two.forget(ACME, HAUL, Ownership(9, 2))
    await settled(two)
    assert await two.locate(ACME, HAUL) == Ownership(10, 1)
    two.forget(ACME, HAUL, Ownership(10, 2))
    await noted(one, None)
    await noted(one, Ownership(10, 1), OTHER)
    two.forget(ACME, HAUL, Ownership(10, 2))
    await settled(two)
    assert await one.locate(ACME, HAUL) is None


async def test_of_what_is_said_in_one_breath_the_last_counts_unless_its_epoch_is_lower(cluster: Cluster) -> None:
    cluster.record(ACME, HAUL, Ownership(1, 1), LONG_MS)
    cluster.forget(ACME, HAUL, Ownership(1, 1))
    cluster.record(OTHER, HAUL, Ownership(2, 1), LONG_MS)
    cluster.forget(OTHER, HAUL, Ownership(1, 1))
    await settled(cluster)
    assert await cluster.locate(ACME, HAUL) is None
    assert await cluster.locate(OTHER, HAUL) == Ownership(2, 1)
    cluster.forget(OTHER, HAUL, Ownership(2, 1))
    cluster.record(OTHER, HAUL, Ownership(3, 1), LONG_MS)
    await settled(cluster)
    assert await cluster.locate(OTHER, HAUL) == Ownership(3, 1)


async def test_what_is_noted_ends_and_noting_it_again_prolongs_it(cluster: Cluster, clock: ManualClock) -> None:
    """A store may go by the clock or by its own time: for both, an hour has not passed and 0.3 s have."""
    owner = Ownership(1, 1)
    cluster.record(ACME, HAUL, owner, 300)
    cluster.record(OTHER, HAUL, owner, 300)
    await settled(cluster)
    cluster.record(OTHER, HAUL, owner, 3_600_000)
    await settled(cluster)
    clock.advance(0.3)
    await noted(cluster, None)
    assert await cluster.locate(OTHER, HAUL) == owner
    cluster.record(ACME, HAUL, Ownership(1, 2), LONG_MS)
    await noted(cluster, Ownership(1, 2))


async def test_many_broadcasts_can_be_noted_at_once(join: Join) -> None:
    one, two = join(), join()
    broadcasts = [BroadcastId(f"01haul{number}") for number in range(2_000)]
    for number, broadcast_id in enumerate(broadcasts):
        one.record(ACME, broadcast_id, Ownership(number + 1, 3), LONG_MS)
    await settled(one)
    located = await asyncio.gather(*(two.locate(ACME, broadcast_id) for broadcast_id in broadcasts))
    assert located == [Ownership(number + 1, 3) for number in range(2_000)]


# --- Datagrams -------------------------------------------------------------------------------------------------------


class Inbox:
    """What came, and how often it was said that something was missed."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.missed = 0
        self._changed = asyncio.Event()

    def receive(self, datagram: bytes) -> None:
        self.datagrams.append(datagram)
        self._changed.set()

    def miss(self) -> None:
        self.missed += 1

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.datagrams) < count:
                self._changed.clear()
                await self._changed.wait()


async def test_a_datagram_goes_to_the_node_it_was_sent_to_and_no_other(join: Join) -> None:
    one, two, three = join(), join(), join()
    inbox, other = Inbox(), Inbox()
    await two.listen(2, inbox.receive, inbox.miss)
    await three.listen(22, other.receive, other.miss)
    one.post(2, b"\x00 for two \xff\r\n")
    one.post(22, b"")
    one.post(7, b"for nobody")
    await inbox.holds(1)
    await other.holds(1)
    assert (inbox.datagrams, other.datagrams) == ([b"\x00 for two \xff\r\n"], [b""])
    assert (inbox.missed, other.missed) == (0, 0)


async def test_a_node_can_send_to_itself(cluster: Cluster) -> None:
    inbox = Inbox()
    await cluster.listen(1, inbox.receive, inbox.miss)
    cluster.post(1, b"me")
    assert inbox.datagrams == []  # not within the call
    await inbox.holds(1)


async def test_what_comes_of_one_sender_comes_in_order(join: Join) -> None:
    receiver, inbox = join(), Inbox()
    await receiver.listen(1, inbox.receive, inbox.miss)

    async def send(name: str, sender: Cluster) -> None:
        for number in range(500):
            sender.post(1, f"{name} {number}".encode())
            if number % 7 == 0:
                await asyncio.sleep(0)

    await asyncio.gather(*(send(name, join()) for name in "abc"))
    await inbox.holds(1_500)
    for name in "abc":
        of_one = [datagram.decode() for datagram in inbox.datagrams if datagram.startswith(name.encode())]
        assert of_one == [f"{name} {number}" for number in range(500)]


async def test_large_datagrams_arrive_whole(join: Join) -> None:
    one, two, inbox = join(), join(), Inbox()
    await two.listen(2, inbox.receive, inbox.miss)
    for number in range(4):
        one.post(2, bytes([number]) * (1 << 20))
    await inbox.holds(4)
    assert inbox.datagrams == [bytes([number]) * (1 << 20) for number in range(4)]


async def test_whoever_listens_as_another_hears_of_the_former_no_more(join: Join) -> None:
    one, two, former, latter = join(), join(), Inbox(), Inbox()
    await two.listen(2, former.receive, former.miss)
    one.post(2, b"to 2")
    await former.holds(1)
    await two.listen(3, latter.receive, latter.miss)
    one.post(2, b"to 2 again")
    one.post(3, b"to 3")
    await latter.holds(1)
    assert (former.datagrams, latter.datagrams) == ([b"to 2"], [b"to 3"])
    assert (former.missed, latter.missed) == (0, 0)


async def test_whoever_has_closed_hears_nothing_and_says_nothing(join: Join) -> None:
    one, two, three = join(), join(), join()
    inbox, other = Inbox(), Inbox()
    await two.listen(2, inbox.receive, inbox.miss)
    await three.listen(3, other.receive, other.miss)
    await two.close()
    await two.close()
    two.post(3, b"late")
    two.record(ACME, HAUL, Ownership(1, 1), LONG_MS)
    two.forget(ACME, HAUL, Ownership(1, 1))
    one.post(2, b"lost")
    one.post(3, b"mark")
    await other.holds(1)
    assert inbox.datagrams == []


async def test_closing_writes_what_waits(join: Join) -> None:
    one, two, inbox = join(), join(), Inbox()
    await two.listen(2, inbox.receive, inbox.miss)
    for number in range(300):
        one.post(2, str(number).encode())
    one.record(ACME, HAUL, Ownership(1, 1), LONG_MS)
    await one.close()
    await inbox.holds(300)
    assert await two.locate(ACME, HAUL) == Ownership(1, 1)


# --- In memory -------------------------------------------------------------------------------------------------------


async def test_what_has_run_out_does_not_stay_in_memory(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_SWEEP_ABOVE", 10)
    store = MemoryStore(sweep_above=10)
    cluster = MemoryCluster(store, clock)
    for number in range(100):
        cluster.record(ACME, BroadcastId(f"b{number}"), Ownership(1, 1), 10_000)
        clock.advance(1)
    assert len(store.directory) <= 2 * 10 + 1
    assert await cluster.locate(ACME, BroadcastId("b99")) == Ownership(1, 1)
