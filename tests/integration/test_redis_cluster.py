"""`RedisCluster` while Redis is flushed, killed, cut off or silent; what it uses, and that it gives it back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.errors import ClusterUnavailable
from haulcast.ports import Member, Ownership, Standing
from haulcast.storage.redis import RedisCluster, datagrams
from haulcast.storage.redis.client import RedisClient, Reply
from haulcast.storage.redis.keys import CONDEMNED
from haulcast.storage.redis.scripts import Command
from tests.contract.shared import ManualClock, emptied, eventually
from tests.contract.test_cluster import Inbox
from tests.integration.redis_support import admin, private_redis, promptly, proxy_to, used_while_flushed
from tests.proxy import Proxy

ACME = TenantId("acme")
HAUL = BroadcastId("01haul")
TTL_MS = 600_000
OWNER = Ownership(1, 1)

Call = Callable[[RedisCluster], Awaitable[object]]


async def listen(cluster: RedisCluster) -> None:
    inbox = Inbox()
    await cluster.listen(1, inbox.receive, inbox.miss)


CALLS: dict[str, Call] = {
    "register": lambda cluster: cluster.register(1, TTL_MS),
    "renew": lambda cluster: cluster.renew(1, TTL_MS),
    "drain": lambda cluster: cluster.drain(1),
    "leave": lambda cluster: cluster.leave(1),
    "members": lambda cluster: cluster.members(),
    "condemn": lambda cluster: cluster.condemn(9),
    "locate": lambda cluster: cluster.locate(ACME, HAUL),
    "listen": listen,
}

calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


class Counter:
    """A `Count`."""

    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self, more: float) -> None:
        self.value += more


@pytest.fixture
async def way(redis_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """To an empty Redis, and its address by that way."""
    async with proxy_to(await emptied(redis_url)) as way:
        yield way


async def noted(cluster: RedisCluster, owner: Ownership | None) -> None:
    async def as_expected() -> bool:
        return await cluster.locate(ACME, HAUL) == owner

    await eventually(as_expected)


async def heard(inbox: Inbox, sender: RedisCluster, to: int) -> None:
    """Returns once a datagram has come through: `sender` may have to try several times."""
    before = len(inbox.datagrams)

    async def arrived() -> bool:
        sender.post(to, b"again")
        await asyncio.sleep(0.02)
        return len(inbox.datagrams) > before

    await eventually(arrived)


# --- Out of reach ----------------------------------------------------------------------------------------------------


@calls
async def test_a_call_that_is_cut_off_fails_within_a_second_and_the_next_one_works(
    way: tuple[Proxy, str], call: Call
) -> None:
    proxy, url = way
    cluster = RedisCluster(url)
    try:
        await call(cluster)
        await proxy.cut()
        for _ in range(3):
            with promptly(), pytest.raises(ClusterUnavailable):
                await call(cluster)
        proxy.mend()
        await call(cluster)
    finally:
        await cluster.close()


@calls
async def test_a_call_that_nobody_answers_fails_within_a_second_and_the_next_one_works(
    way: tuple[Proxy, str], call: Call
) -> None:
    proxy, url = way
    cluster = RedisCluster(url)
    try:
        await call(cluster)
        proxy.stall()
        with promptly(), pytest.raises(ClusterUnavailable):
            await call(cluster)
        proxy.mend()
        await call(cluster)
    finally:
        await cluster.close()


async def test_when_many_wait_for_an_answer_all_of_them_fail_within_a_second(way: tuple[Proxy, str]) -> None:
    """Also those for whom no connection is left."""
    proxy, url = way
    cluster = RedisCluster(url)
    try:
        proxy.stall()
        with promptly():
            outcomes = await asyncio.gather(*(cluster.members() for _ in range(100)), return_exceptions=True)
        assert all(isinstance(outcome, ClusterUnavailable) for outcome in outcomes)
        proxy.mend()
        assert await cluster.members() == []
    finally:
        await cluster.close()


async def test_a_line_that_broke_while_nobody_used_it_costs_no_call(way: tuple[Proxy, str]) -> None:
    proxy, url = way
    cluster = RedisCluster(url)
    try:
        await asyncio.gather(*(cluster.members() for _ in range(20)))
        await proxy.cut()
        proxy.mend()
        for _ in range(20):
            assert await cluster.members() == []
    finally:
        await cluster.close()


async def test_what_is_only_told_neither_raises_nor_waits_while_cut_off_and_the_directory_catches_up(
    way: tuple[Proxy, str],
) -> None:
    proxy, url = way
    await proxy.cut()
    cluster = RedisCluster(url)
    try:
        cluster.record(ACME, HAUL, OWNER, TTL_MS)
        cluster.post(7, b"lost")
        with capture_logs() as logs:
            await asyncio.sleep(0.3)
        assert {line["what"] for line in logs if line["event"] == "redis_write_failed"} == {"directory", "datagrams"}
        assert len(logs) == 2  # once, not for every try
        proxy.mend()
        await noted(cluster, OWNER)
    finally:
        await cluster.close()


async def test_what_is_noted_while_what_was_noted_before_is_on_its_way_is_not_lost(way: tuple[Proxy, str]) -> None:
    proxy, url = way
    cluster = RedisCluster(url)
    try:
        await noted(cluster, None)
        proxy.stall()
        cluster.record(ACME, HAUL, OWNER, TTL_MS)
        await asyncio.sleep(0.2)
        cluster.record(ACME, HAUL, Ownership(2, 2), TTL_MS)
        proxy.mend()
        await noted(cluster, Ownership(2, 2))
    finally:
        await cluster.close()


async def test_closing_while_out_of_reach_ends(way: tuple[Proxy, str]) -> None:
    proxy, url = way
    for fail in (proxy.cut, proxy.stall):
        cluster = RedisCluster(url)
        await listen(cluster)
        if (cutting := fail()) is not None:
            await cutting
        cluster.record(ACME, HAUL, OWNER, TTL_MS)
        cluster.post(7, b"lost")
        calling = asyncio.create_task(cluster.members())
        await asyncio.sleep(0)
        with promptly(4):
            await cluster.close()
        assert isinstance((await asyncio.gather(calling, return_exceptions=True))[0], ClusterUnavailable)
        proxy.mend()


async def test_no_password_is_told(redis_url: str) -> None:
    async def errors_of(url: str) -> str:
        cluster = RedisCluster(url)
        try:
            with capture_logs() as logs:
                cluster.record(ACME, HAUL, OWNER, TTL_MS)
                with pytest.raises(ClusterUnavailable) as unavailable:
                    await cluster.members()
                with pytest.raises(ClusterUnavailable) as silent:
                    await listen(cluster)
        finally:
            await cluster.close()
        assert logs
        chain = [unavailable.value, unavailable.value.__cause__, silent.value]
        return f"{chain!r} {logs!r} {cluster!r}"

    async with proxy_to(redis_url) as (proxy, _):
        there = f"127.0.0.1:{proxy.port}"
        assert "swordfish" not in await errors_of(f"redis://:swordfish@{there}/0")  # wrong, or there should be none
        await proxy.cut()
        assert "swordfish" not in await errors_of(f"redis://:swordfish@{there}/0")
        assert "swordfish" not in await errors_of(f"rediss://user:swordfish@{there}/0")


# --- Redis forgets ---------------------------------------------------------------------------------------------------


async def test_a_redis_that_was_killed_and_comes_back_empty_is_taken_up_again(tmp_path: Path) -> None:
    with private_redis(tmp_path) as redis:
        one, two, inbox = RedisCluster(redis.url), RedisCluster(redis.url), Inbox()
        try:
            await one.register(1, TTL_MS)
            await one.drain(1)
            await two.register(2, TTL_MS)
            await two.listen(2, inbox.receive, inbox.miss)
            one.record(ACME, HAUL, OWNER, TTL_MS)
            await noted(two, OWNER)
            await heard(inbox, one, 2)
            assert inbox.missed == 0

            await asyncio.to_thread(redis.kill)
            for call in CALLS.values():
                if call is not listen:
                    with promptly(), pytest.raises(ClusterUnavailable):
                        await call(one)
            one.post(2, b"lost")
            await asyncio.to_thread(redis.start)

            assert await one.renew(1, TTL_MS) is Standing.EXPIRED
            assert await two.members() == []
            assert await one.register(1, TTL_MS)
            assert await two.members() == [Member(1, alive=True, draining=False)]
            assert await two.locate(ACME, HAUL) is None
            one.record(ACME, HAUL, Ownership(1, 2), TTL_MS)
            await noted(two, Ownership(1, 2))
            await heard(inbox, one, 2)
            assert inbox.missed == 1
        finally:
            await one.close()
            await two.close()


async def test_a_flush_in_mid_flight_is_no_error(redis_url: str) -> None:
    """Neither of the data nor of the scripts."""
    cluster = RedisCluster(await emptied(redis_url))
    numbers = count()

    async def use() -> None:
        cluster.record(ACME, BroadcastId(f"b{next(numbers)}"), OWNER, TTL_MS)
        await cluster.register(1, TTL_MS)
        await cluster.renew(1, TTL_MS)
        await cluster.members()
        await cluster.condemn(1)
        await cluster.locate(ACME, HAUL)

    try:
        await used_while_flushed(redis_url, use)
        assert await cluster.renew(1, TTL_MS) is Standing.EXPIRED
    finally:
        await cluster.close()


# --- Datagrams -------------------------------------------------------------------------------------------------------


async def test_whoever_listens_is_told_when_it_was_cut_off_and_goes_on_hearing(
    way: tuple[Proxy, str], redis_url: str
) -> None:
    proxy, url = way
    sender, receiver, inbox = RedisCluster(redis_url), RedisCluster(url), Inbox()
    try:
        await receiver.listen(1, inbox.receive, inbox.miss)
        for times in range(1, 4):
            await heard(inbox, sender, 1)
            assert inbox.missed == times - 1
            await proxy.cut()
            sender.post(1, b"into the dark")
            proxy.mend()
            await heard(inbox, sender, 1)
            assert inbox.missed == times
        assert b"into the dark" not in inbox.datagrams
    finally:
        await sender.close()
        await receiver.close()


async def test_a_line_that_has_fallen_silent_is_noticed(
    way: tuple[Proxy, str], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word from the network."""
    monkeypatch.setattr(datagrams, "_PING_EVERY_S", 0.1)
    monkeypatch.setattr(datagrams, "_SILENCE_S", 0.5)
    proxy, url = way
    sender, receiver, inbox = RedisCluster(redis_url), RedisCluster(url), Inbox()
    try:
        await receiver.listen(1, inbox.receive, inbox.miss)
        await asyncio.sleep(1.0)
        assert inbox.missed == 0  # quiet is not silent
        with capture_logs() as logs:
            proxy.stall()

            async def given_up() -> bool:
                return any(line["event"] == "redis_listener_failed" for line in logs)

            await eventually(given_up)
        proxy.mend()
        await heard(inbox, sender, 1)
        assert inbox.missed == 1
    finally:
        await sender.close()
        await receiver.close()


@pytest.mark.parametrize("silent", [False, True])
async def test_listening_that_fails_comes_about_later_and_says_so(
    way: tuple[Proxy, str], redis_url: str, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setattr(datagrams, "_SILENCE_S", 0.5)
    proxy, url = way
    sender, receiver, inbox = RedisCluster(redis_url), RedisCluster(url), Inbox()
    try:
        if silent:
            proxy.stall()
        else:
            await proxy.cut()
        with capture_logs() as logs:
            with pytest.raises(ClusterUnavailable):
                await receiver.listen(1, inbox.receive, inbox.miss)
            assert [line["event"] for line in logs] == ["redis_listener_failed"]
        proxy.mend()
        await heard(inbox, sender, 1)
        assert inbox.missed == 1
    finally:
        await sender.close()
        await receiver.close()


async def test_datagrams_that_could_not_be_sent_are_dropped_and_counted(
    way: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "_MOST_WAITING", 50)
    monkeypatch.setattr(datagrams, "_MOST_WAITING_BYTES", 1_000)
    proxy, url = way
    dropped = Counter()
    cluster, inbox = RedisCluster(url, dropped=dropped), Inbox()
    try:
        await cluster.listen(1, inbox.receive, inbox.miss)
        for number in range(60):
            cluster.post(1, str(number).encode())
        assert dropped.value == 10
        await inbox.holds(50)
        assert inbox.datagrams == [str(number).encode() for number in range(50)]
        for _ in range(3):
            cluster.post(1, b"x" * 400)
        assert dropped.value == 11
        await inbox.holds(52)
        await proxy.cut()
        cluster.post(1, b"lost")
        cluster.post(1, b"lost")

        async def counted() -> bool:
            return dropped.value == 13

        await eventually(counted)
        proxy.mend()
        await heard(inbox, cluster, 1)
        assert b"lost" not in inbox.datagrams
    finally:
        await cluster.close()


async def test_a_datagram_whose_sending_is_in_doubt_is_not_sent_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis has published it, but the line broke before it could say so."""
    cluster, inbox, dropped = RedisCluster(redis_url), Inbox(), Counter()
    sender = RedisCluster(redis_url, dropped=dropped)
    exchange = RedisClient._exchange_over
    breaking = True

    async def broken(client: RedisClient, connection: AbstractConnection, commands: Sequence[Command]) -> list[Reply]:
        nonlocal breaking
        replies = await exchange(client, connection, commands)
        if breaking and commands[0][0] == "PUBLISH":
            breaking = False
            raise RedisConnectionError("broken")
        return replies

    try:
        await sender.members()  # so that it has a connection
        await cluster.listen(1, inbox.receive, inbox.miss)
        monkeypatch.setattr(RedisClient, "_exchange_over", broken)
        sender.post(1, b"once")
        await inbox.holds(1)
        sender.post(1, b"mark")
        await inbox.holds(2)
        assert inbox.datagrams == [b"once", b"mark"]
        assert dropped.value == 1
    finally:
        await cluster.close()
        await sender.close()


async def test_a_listener_that_raises_goes_on_listening(redis_url: str) -> None:
    cluster, inbox = RedisCluster(redis_url), Inbox()

    def receive(datagram: bytes) -> None:
        inbox.receive(datagram)
        if datagram == b"bad":
            raise ValueError(datagram)

    try:
        await cluster.listen(1, receive, inbox.miss)
        with capture_logs() as logs:
            cluster.post(1, b"bad")
            cluster.post(1, b"good")
            await inbox.holds(2)
        assert [line["event"] for line in logs] == ["redis_listener_raised"]
        assert inbox.missed == 0
    finally:
        await cluster.close()


async def test_two_databases_of_one_redis_hear_nothing_of_each_other(redis_url: str) -> None:
    other_url = redis_url.rpartition("/")[0] + "/1"
    one, other = RedisCluster(redis_url), RedisCluster(other_url)
    inbox, other_inbox = Inbox(), Inbox()
    try:
        await one.listen(1, inbox.receive, inbox.miss)
        await other.listen(1, other_inbox.receive, other_inbox.miss)
        one.post(1, b"one")
        await inbox.holds(1)
        other.post(1, b"other")
        await other_inbox.holds(1)
        assert (inbox.datagrams, other_inbox.datagrams) == ([b"one"], [b"other"])
    finally:
        await one.close()
        await other.close()


# --- What it uses ----------------------------------------------------------------------------------------------------


async def test_connections_are_bounded_and_none_is_left_after_closing(tmp_path: Path) -> None:
    with private_redis(tmp_path) as private:
        async with admin(private.url) as redis:

            async def others() -> int:
                return len(await redis.client_list()) - 1

            assert await others() == 0
            cluster = RedisCluster(private.url)
            await listen(cluster)
            cluster.record(ACME, HAUL, OWNER, TTL_MS)
            cluster.post(1, b"datagram")
            await asyncio.gather(*(cluster.members() for _ in range(200)))
            assert 3 <= await others() <= 7
            calling = [asyncio.create_task(cluster.members()) for _ in range(20)]
            await asyncio.sleep(0)
            await cluster.close()
            await asyncio.gather(*calling, return_exceptions=True)

            async def none_left() -> bool:
                return await others() == 0

            await eventually(none_left)


async def test_who_is_gone_leaves_nothing_but_a_tombstone(redis_url: str) -> None:
    clock = ManualClock()
    cluster = RedisCluster(await emptied(redis_url), now_ms=clock.now_ms)
    try:
        for incarnation in (1, 2, 3):
            await cluster.register(incarnation, 3_000)
            await cluster.drain(incarnation)
        await cluster.leave(3)
        clock.advance(3)
        await cluster.condemn(1)
        clock.advance(24 * 3600)
        await cluster.condemn(2)
        async with admin(redis_url) as redis:
            assert await redis.keys() == [CONDEMNED().encode()]
            assert await redis.zrange(CONDEMNED(), 0, -1) == [b"2"]
    finally:
        await cluster.close()


async def test_a_call_that_is_cancelled_leaves_no_answer_behind_for_the_next(redis_url: str) -> None:
    cluster = RedisCluster(await emptied(redis_url))
    try:
        await cluster.register(1, TTL_MS)
        for turns in range(12):
            calling = [asyncio.create_task(cluster.members()) for _ in range(8)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in calling:
                task.cancel()
            await asyncio.gather(*calling, return_exceptions=True)
            assert await asyncio.gather(*(cluster.renew(1, TTL_MS) for _ in range(8))) == [Standing.HELD] * 8
    finally:
        await cluster.close()


async def test_commands_are_counted(tmp_path: Path) -> None:
    """As Redis counts them, which nobody else asks anything."""
    commands = Counter()
    with private_redis(tmp_path) as private:
        async with admin(private.url) as redis:
            cluster = RedisCluster(private.url, commands=commands)
            try:
                await cluster.members()
                await cluster.register(1, TTL_MS)  # from now on Redis knows these scripts
                commands.value = 0
                await redis.config_resetstat()
                await listen(cluster)
                for _ in range(10):
                    await cluster.members()
                    await cluster.register(1, TTL_MS)
                    await cluster.locate(ACME, HAUL)
                    cluster.post(7, b"datagram")
                await cluster.close()
                stats = await redis.info("commandstats")
                made = sum(stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "get", "publish", "subscribe"))
                assert commands.value == made >= 41
            finally:
                await cluster.close()
