"""`RedisPresence` while Redis is flushed, killed, cut off or silent; several nodes at once; what is left behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from structlog.testing import capture_logs

from haulcast.clock import SystemClock
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TransporterId
from haulcast.errors import ClusterUnavailable
from haulcast.ports import LAPSED_KEPT_S, MAX_POSITIONS, Ownership, Presence
from haulcast.storage.redis import RedisCluster, RedisPresence, reports
from haulcast.storage.redis.client import RedisClient, Reply
from haulcast.storage.redis.keys import DATAGRAMS, ENGAGED, FORMAT, KEYS, TOGGLES, family_of, format_of
from haulcast.storage.redis.scripts import Call as ScriptCall
from haulcast.storage.redis.scripts import Command, Script
from tests.contract.shared import ManualClock, emptied, eventually
from tests.contract.test_presence import (
    ACME,
    D1,
    DELHI,
    MUMBAI,
    OTHER,
    T1,
    T2,
    T3,
    THANE,
    V1,
    V2,
    V3,
    found,
    nearest,
    vehicle,
)
from tests.integration.redis_support import admin, private_redis, promptly, proxy_to, used_while_flushed
from tests.integration.test_redis_cluster import Counter, listen
from tests.proxy import Proxy

Call = Callable[[RedisPresence], Awaitable[object]]

CALLS: dict[str, Call] = {
    "go_online": lambda presence: presence.go_online(ACME, T1),
    "go_offline": lambda presence: presence.go_offline(ACME, T1),
    "is_online": lambda presence: presence.is_online(ACME, T1),
    "available": lambda presence: presence.available(ACME, T1),
    "nearest": lambda presence: nearest(presence),
    "sync_engaged": lambda presence: presence.sync_engaged([(ACME, V1.vehicle_id)]),
    "positions": lambda presence: presence.positions(ACME, [V1.vehicle_id]),
    "count_toggle": lambda presence: presence.count_toggle(ACME, T1, limit=100, window_s=60),
    "note_drivers": lambda presence: presence.note_drivers(1, ACME, [D1], []),
    "sync_drivers": lambda presence: presence.sync_drivers(1, ACME, {D1}),
    "connected_drivers": lambda presence: presence.connected_drivers(ACME, [D1], [1, 2]),
    "sweep": lambda presence: presence.sweep(),
}


def tell(presence: Presence) -> None:
    """All that is told without waiting."""
    presence.report(ACME, V1, MUMBAI)
    presence.heard_from(ACME, T1)
    presence.engage(ACME, V2.vehicle_id)
    presence.release(ACME, V3.vehicle_id)


@pytest.fixture
async def way(redis_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """To an empty Redis, and its address by that way."""
    async with proxy_to(await emptied(redis_url)) as way:
        yield way


async def finds(presence: Presence, *vehicles: str) -> None:
    """Returns once a lookup finds these."""

    async def as_expected() -> bool:
        return await found(presence) == list(vehicles)

    await eventually(as_expected)


# --- Out of reach ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_a_question_out_of_reach_fails_within_a_second_and_the_next_one_is_answered(
    way: tuple[Proxy, str], call: Call
) -> None:
    """Cut off, or not answered; with something waiting to be written, or not."""
    proxy, url = way
    presence = RedisPresence(url, SystemClock())
    try:
        assert not await presence.is_online(ACME, T2)  # a tenant to sweep
        for told in (lambda _: None, tell):
            told(presence)
            await call(presence)
            await proxy.cut()
            told(presence)
            with promptly(), pytest.raises(ClusterUnavailable):
                await call(presence)
            proxy.mend()
            await call(presence)
            proxy.stall()
            told(presence)
            with promptly(), pytest.raises(ClusterUnavailable):
                await call(presence)
            proxy.mend()
            await call(presence)
    finally:
        await presence.close()


async def test_what_was_told_while_cut_off_is_written_when_it_can_be(way: tuple[Proxy, str], redis_url: str) -> None:
    proxy, url = way
    here, there = RedisPresence(url, SystemClock()), RedisPresence(redis_url, SystemClock())
    try:
        for transporter_id in (T1, T2):
            await here.go_online(ACME, transporter_id)
        here.report(ACME, V2, MUMBAI)
        await finds(there, "v2")
        await proxy.cut()
        assert here.report(ACME, V1, DELHI)
        assert not here.report(ACME, V1, MUMBAI)
        here.engage(ACME, V2.vehicle_id)
        with pytest.raises(ClusterUnavailable):
            await found(here)
        proxy.mend()
        await finds(there, "v1")
        assert await there.available(ACME, T1) == [(V1, MUMBAI)]
    finally:
        await here.close()
        await there.close()


async def test_a_report_that_could_not_be_written_does_not_replace_one_that_came_since(
    way: tuple[Proxy, str], redis_url: str
) -> None:
    proxy, url = way
    here, there = RedisPresence(url, SystemClock()), RedisPresence(redis_url, SystemClock())
    try:
        await here.go_online(ACME, T1)
        with capture_logs() as logs:
            proxy.stall()
            here.report(ACME, V1, DELHI)
            await asyncio.sleep(0.3)  # it is on its way now
            here.report(ACME, V1, MUMBAI)

            async def failed() -> bool:
                return any(line["event"] == "redis_write_failed" for line in logs)

            await eventually(failed)
        await proxy.cut()
        proxy.mend()

        async def written() -> bool:
            return await there.available(ACME, T1) == [(V1, MUMBAI)]

        await eventually(written)
    finally:
        await here.close()
        await there.close()


async def test_who_was_heard_of_all_the_time_stays_online_however_long_redis_was_out_of_reach(
    way: tuple[Proxy, str],
) -> None:
    proxy, url = way
    clock = ManualClock()
    presence = RedisPresence(url, clock, now_ms=clock.now_ms)
    try:
        await presence.go_online(ACME, T1)
        await presence.go_online(ACME, T2)
        await proxy.cut()
        for _ in range(5):
            clock.advance(60)
            presence.heard_from(ACME, T1)
            with pytest.raises(ClusterUnavailable):
                await presence.is_online(ACME, T1)
            clock.advance(60)
            presence.heard_from(ACME, T1)
        presence.heard_from(ACME, T2)
        proxy.mend()
        assert await presence.is_online(ACME, T1)
        assert not await presence.is_online(ACME, T2)
        clock.advance(119.9)
        assert await presence.is_online(ACME, T1)
    finally:
        await presence.close()


async def test_of_two_nodes_reports_the_later_one_counts_whichever_is_written_last(
    way: tuple[Proxy, str], redis_url: str
) -> None:
    proxy, url = way
    here, there = RedisPresence(url, SystemClock()), RedisPresence(redis_url, SystemClock())
    try:
        for transporter_id in (T1, T2):
            await there.go_online(ACME, transporter_id)
        await proxy.cut()
        here.report(ACME, V1, MUMBAI)
        here.report(ACME, V2, MUMBAI)
        await asyncio.sleep(0.1)
        there.report(ACME, V1, DELHI)
        await finds(there, "v1")
        proxy.mend()
        await finds(there, "v2", "v1")
        assert await there.available(ACME, T1) == [(V1, DELHI)]
    finally:
        await here.close()
        await there.close()


async def test_more_than_can_wait_is_lost_and_neither_blocks_nor_raises(
    way: tuple[Proxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_MOST_WAITING", 10)
    proxy, url = way
    presence = RedisPresence(url, SystemClock())
    fleet = [vehicle(f"v{number:02}", TransporterId(f"t{number:02}")) for number in range(30)]
    try:
        for each in fleet:
            await presence.go_online(ACME, each.transporter_id)
        await proxy.cut()
        for point in (DELHI, MUMBAI):
            for each in fleet:
                presence.report(ACME, each, point)
        proxy.mend()
        await finds(presence, *(each.vehicle_id for each in fleet[:10]))
        assert (await nearest(presence, radius_m=1.0)).candidates[9].transporter_id == "t09"
    finally:
        await presence.close()


async def test_a_question_is_answered_while_more_waits_than_can_be_written_soon(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_PER_BATCH", 1)
    presence = RedisPresence(await emptied(redis_url), SystemClock())
    try:
        for number in range(20_000):
            presence.report(ACME, vehicle(f"v{number}"), MUMBAI)
        with promptly():
            assert await presence.go_online(ACME, T1)
        presence._waiting = reports.Reports(120_000)
    finally:
        await presence.close()


# --- Redis forgets ---------------------------------------------------------------------------------------------------


async def test_a_redis_that_was_killed_and_comes_back_empty_is_filled_again(tmp_path: Path) -> None:
    with private_redis(tmp_path) as redis:
        here, there = RedisPresence(redis.url, SystemClock()), RedisPresence(redis.url, SystemClock())
        try:
            await here.go_online(ACME, T1)
            here.report(ACME, V1, MUMBAI)
            await finds(there, "v1")
            await asyncio.to_thread(redis.kill)
            for call in CALLS.values():
                with promptly(), pytest.raises(ClusterUnavailable):
                    await call(here)
            tell(here)
            await asyncio.to_thread(redis.start)
            assert await there.go_online(ACME, T1)
            assert await there.go_online(ACME, T2)
            here.report(ACME, V1, THANE)
            here.report(ACME, V2, THANE)
            await finds(there, "v1")  # V2 was engaged meanwhile
            here.release(ACME, V2.vehicle_id)
            await finds(there, "v1", "v2")
        finally:
            await here.close()
            await there.close()


async def test_a_flush_in_mid_flight_is_no_error(redis_url: str) -> None:
    """Neither of the data nor of the scripts."""
    presence = RedisPresence(await emptied(redis_url), SystemClock())

    async def use() -> None:
        tell(presence)
        for call in CALLS.values():
            await call(presence)

    try:
        await used_while_flushed(redis_url, use)
    finally:
        await presence.close()


# --- Several nodes ---------------------------------------------------------------------------------------------------


async def test_what_one_node_is_told_the_others_see(redis_url: str) -> None:
    here, there = RedisPresence(await emptied(redis_url), SystemClock()), RedisPresence(redis_url, SystemClock())
    try:
        assert await here.go_online(ACME, T1)
        assert not await there.go_online(ACME, T1)
        assert here.report(ACME, V1, MUMBAI)
        await finds(there, "v1")
        assert there.report(ACME, V1, MUMBAI)  # news to that node
        there.engage(ACME, V1.vehicle_id)
        await finds(here)
        here.release(ACME, V1.vehicle_id)
        await finds(there, "v1")
        assert await there.go_offline(ACME, T1)
        assert not await here.is_online(ACME, T1)
        assert (here.vehicle_count, there.vehicle_count) == (1, 1)
    finally:
        await here.close()
        await there.close()


async def test_toggles_at_several_nodes_count_as_one(redis_url: str) -> None:
    await emptied(redis_url)
    nodes = [RedisPresence(redis_url, SystemClock()) for _ in range(3)]
    try:
        waits = await asyncio.gather(
            *(nodes[number % 3].count_toggle(ACME, T1, limit=10, window_s=60) for number in range(30))
        )
        assert sum(wait is None for wait in waits) == 10
        assert all(wait is None or 50_000 < wait <= 60_000 for wait in waits)
    finally:
        for node in nodes:
            await node.close()


async def test_what_a_dead_node_left_engaged_is_released_by_another(redis_url: str) -> None:
    """Which has only been asked about the tenant."""
    clock = ManualClock()
    dead = RedisPresence(await emptied(redis_url), clock, now_ms=clock.now_ms)
    await dead.go_online(ACME, T1)
    dead.report(ACME, V1, MUMBAI)
    dead.engage(ACME, V1.vehicle_id)
    await dead.close()
    clock.advance(11)
    survivor = RedisPresence(redis_url, clock, now_ms=clock.now_ms)
    try:
        assert await found(survivor) == []
        await survivor.sync_engaged([])
        assert await found(survivor) == ["v1"]
    finally:
        await survivor.close()


async def test_nodes_whose_clocks_differ_agree(redis_url: str) -> None:
    """By hours: only Redis' own clock counts."""

    class Wrong(SystemClock):
        def now_ms(self) -> int:
            return super().now_ms() - 7_200_000

        def monotonic_s(self) -> float:
            return super().monotonic_s() + 7_200

    here, there = RedisPresence(await emptied(redis_url), SystemClock()), RedisPresence(redis_url, Wrong())
    try:
        await here.go_online(ACME, T1)
        there.report(ACME, V1, MUMBAI)
        there.heard_from(ACME, T1)
        await finds(here, "v1")
        here.report(ACME, V1, MUMBAI)
        await here.sweep()
        await there.sweep()
        await finds(there, "v1")
    finally:
        await here.close()
        await there.close()


# --- What it uses, and what is left ----------------------------------------------------------------------------------


async def test_a_lookup_is_one_command_however_many_candidates_and_excluded(redis_url: str) -> None:
    commands = Counter()
    presence = RedisPresence(await emptied(redis_url), SystemClock(), commands=commands)
    rng = Random(1)
    fleet = [vehicle(f"v{number}", TransporterId(f"t{number}")) for number in range(3_000)]
    try:
        await nearest(presence)
        await presence.available(ACME, T1)
        for each in fleet:
            await presence.go_online(ACME, each.transporter_id)
            presence.report(ACME, each, Point(rng.uniform(18, 20), rng.uniform(72, 74)))
        await presence.go_online(ACME, T1)
        for exclude in ([], [each.transporter_id for each in fleet[:2_000]]):
            for limit in (1, 3_000):
                commands.value = 0
                nearby = await nearest(presence, exclude=exclude, limit=limit, left_out_limit=20)
                assert len(nearby.candidates) == min(limit, 3_000 - len(exclude))
                assert len(nearby.left_out) == (20 if limit == 1 else 0)
                assert commands.value == 1
        commands.value = 0
        await presence.available(ACME, T1)
        assert commands.value == 1
        await presence.positions(ACME, [])
        assert commands.value == 1
        await presence.positions(ACME, [V1.vehicle_id])
        commands.value = 0
        asked = [each.vehicle_id for each in fleet[:MAX_POSITIONS]]
        assert len(await presence.positions(ACME, asked)) == MAX_POSITIONS
        assert commands.value == 1
    finally:
        await presence.close()


async def test_a_lookup_does_not_go_far_for_those_left_out(redis_url: str) -> None:
    """However many vehicles of the excluded stand beyond the radius: who stands behind all of these is not told."""
    presence = RedisPresence(await emptied(redis_url), SystemClock())
    rng = Random(1)
    try:
        for transporter_id in (T1, T2):
            await presence.go_online(ACME, transporter_id)
        for number in range(10_000):
            presence.report(ACME, vehicle(f"v{number}", T1), Point(rng.uniform(10, 12), rng.uniform(70, 72)))
        presence.report(ACME, vehicle("near", T2), Point(11.0, 71.001))
        presence.report(ACME, vehicle("far", T3), Point(11.0, 75.0))
        await presence._writer.flush(60.0)
        async with admin(redis_url) as redis:
            for center, told in ((Point(11.0, 71.0), [T2]), (Point(11.0, 75.0), [T3])):
                await redis.config_resetstat()
                nearby = await nearest(presence, center, radius_m=10.0, exclude=[T1], limit=10, left_out_limit=20)
                assert [each.transporter_id for each in nearby.left_out] == told
                calls = (await redis.info("commandstats"))["cmdstat_geosearch"]["calls"]
                assert calls <= 8
    finally:
        await presence.close()


async def test_a_lookup_finds_out_at_once_that_beyond_the_radius_there_is_nobody(redis_url: str) -> None:
    """A city in which everybody has been offered the haul: what stands in it is not gone through again and again."""
    presence = RedisPresence(await emptied(redis_url), SystemClock())
    rng = Random(1)
    try:
        await presence.go_online(ACME, T1)
        for number in range(3_000):
            presence.report(ACME, vehicle(f"v{number}", T1), Point(rng.gauss(11, 0.05), rng.gauss(71, 0.05)))
        await presence._writer.flush(60.0)
        async with admin(redis_url) as redis:
            for elsewhere in (None, Point(14.0, 71.0)):
                for number in range(3_000 if elsewhere is not None else 0):
                    presence.report(ACME, vehicle(f"w{number}", T1), Point(rng.gauss(14, 0.05), rng.gauss(71, 0.05)))
                await presence._writer.flush(60.0)
                await redis.config_resetstat()
                nearby = await nearest(
                    presence, Point(11.0, 71.0), radius_m=25_000.0, exclude=[T1], limit=10, left_out_limit=20
                )
                assert (nearby.candidates, nearby.left_out) == ((), ())
                calls = (await redis.info("commandstats"))["cmdstat_geosearch"]["calls"]
                assert calls <= 8
    finally:
        await presence.close()


async def test_reports_are_written_together(redis_url: str) -> None:
    commands = Counter()
    presence = RedisPresence(await emptied(redis_url), SystemClock(), commands=commands)
    try:
        tell(presence)
        await finds(presence)  # the scripts are known now
        commands.value = 0
        for _ in range(10):
            for number in range(100):
                presence.report(ACME, vehicle(f"w{number}"), MUMBAI)
                presence.heard_from(ACME, T1)
        await presence.go_online(ACME, T1)
        assert commands.value == 3  # one for all positions, one for all signs of life
        assert len(await presence.available(ACME, T1)) == 101
    finally:
        await presence.close()


async def test_after_all_times_to_live_a_sweep_leaves_nothing_but_trips(redis_url: str) -> None:
    clock = ManualClock()
    presence = RedisPresence(await emptied(redis_url), clock, now_ms=clock.now_ms)
    rng = Random(1)
    try:
        for number in range(1_500):
            if number % 3:
                await presence.go_online(ACME, TransporterId(f"t{rng.randrange(100)}"))
            each = vehicle(f"v{rng.randrange(900)}", TransporterId(f"t{rng.randrange(100)}"), rng.choice("abc"))
            presence.report(rng.choice((ACME, OTHER)), each, Point(rng.uniform(-90, 90), rng.uniform(-180, 180)))
        presence.engage(ACME, V1.vehicle_id)
        await presence.is_online(ACME, T1)
        async with admin(redis_url) as redis:
            assert await redis.dbsize() >= 12
            clock.advance(59.9)
            await presence.sweep()
            assert await redis.dbsize() >= 12
            assert len((await nearest(presence, vehicle_types="abc", limit=1_000)).candidates) > 50
            clock.advance(60.1)
            await presence.sweep()
            assert "hc1:presence:{acme}:online" not in await names(redis)
            clock.advance(LAPSED_KEPT_S - 60.1)
            await presence.sweep()
            assert await redis.dbsize() >= 11
            clock.advance(0.1)
            await presence.sweep()
            assert await names(redis) == {"hc1:presence:{acme}:engaged"}
            presence.release(ACME, V1.vehicle_id)
            await presence.is_online(ACME, T1)
            assert await redis.dbsize() == 0
    finally:
        await presence.close()


async def test_a_sweep_leaves_alone_what_is_fresh_by_now(redis_url: str) -> None:
    """Also of vehicles that were another's, or of another type, before."""
    clock = ManualClock()
    presence = RedisPresence(await emptied(redis_url), clock, now_ms=clock.now_ms)
    try:
        await presence.go_online(ACME, T1)
        await presence.go_online(ACME, T2)
        presence.report(ACME, V1, MUMBAI)
        presence.report(ACME, V2, MUMBAI)
        await presence.is_online(ACME, T1)
        presence.report(ACME, vehicle("v1", T2, "truck"), THANE)
        await presence.is_online(ACME, T1)
        clock.advance(59)
        presence.report(ACME, V2, MUMBAI)
        await presence.sweep()
        clock.advance(0.5)
        await presence.sweep()
        assert [each.vehicle_id for each, _ in await presence.available(ACME, T2)] == ["v1", "v2"]
        clock.advance(0.5)
        await presence.sweep()
        assert await found(presence) == ["v2"]
        assert await presence.available(ACME, T2) == [(V2, MUMBAI)]
        clock.advance(LAPSED_KEPT_S)
        await presence.sweep()
        async with admin(redis_url) as redis:
            assert await redis.zcard("hc1:presence:{acme}:at:truck") == 0
            assert await redis.zcard("hc1:presence:{acme}:at:van") == 1
            assert (
                await redis.zcard("hc1:presence:{acme}:fleets") == await redis.hlen("hc1:presence:{acme}:vehicles") == 1
            )
    finally:
        await presence.close()


async def test_who_reports_while_being_swept_stays(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    here = RedisPresence(await emptied(redis_url), clock, now_ms=clock.now_ms)
    there = RedisPresence(redis_url, clock, now_ms=clock.now_ms)
    run = here._client.run

    async def interrupted(*calls: ScriptCall) -> list[Reply]:
        if calls[0].script.text == Script("drop_stale").text:
            there.report(ACME, V1, MUMBAI)
            await there.is_online(ACME, T1)
        return await run(*calls)

    try:
        here.report(ACME, V1, DELHI)
        await here.is_online(ACME, T1)
        clock.advance(60 + LAPSED_KEPT_S)
        monkeypatch.setattr(here._client, "run", interrupted)
        await here.sweep()
        await here.go_online(ACME, T1)
        assert await there.available(ACME, T1) == [(V1, MUMBAI)]
        assert await found(there) == ["v1"]
    finally:
        await here.close()
        await there.close()


async def names(redis: "Redis") -> set[str]:
    """Of all keys."""
    return {name.decode() if isinstance(name, bytes) else name for name in await redis.keys()}


async def use_everything(url: str) -> None:
    """Whatever there is to be told and asked, of both stores."""
    presence = RedisPresence(url, SystemClock())
    cluster = RedisCluster(url)
    try:
        for _ in range(2):
            tell(presence)
            for call in CALLS.values():
                await call(presence)
        await presence.go_online(ACME, T2)
        await presence.count_toggle(ACME, T2, limit=3, window_s=60)
        await nearest(presence, vehicle_types=("van", "truck", "trailer"))
        await cluster.register(1, 3_000)
        await cluster.drain(1)
        await cluster.renew(1, 3_000)
        await cluster.members()
        await cluster.condemn(2)
        await cluster.register(3, 3_000)
        await cluster.leave(3)
        await listen(cluster)
        cluster.post(1, b"datagram")
        cluster.record(ACME, BroadcastId("b1"), Ownership(1, 1), 60_000)
        cluster.record(ACME, BroadcastId("b2"), Ownership(1, 1), 60_000)
        cluster.forget(ACME, BroadcastId("b3"), Ownership(1, 1))
        await cluster.locate(ACME, BroadcastId("b1"))
    finally:
        await presence.close()
        await cluster.close()


async def test_every_key_is_one_of_the_registrys_and_ends_by_itself(redis_url: str) -> None:
    await use_everything(await emptied(redis_url))
    async with admin(redis_url) as redis:
        there = await names(redis)
        for family in KEYS:
            assert any(family.matches(name) for name in there), f"nothing was written to {family.pattern}"
        for name in there:
            [family] = [family for family in KEYS if family.matches(name)]
            ttl_ms = await redis.pttl(name)
            assert 0 < ttl_ms <= (family.ttl_ms or 60_000)


async def test_activity_prolongs_what_it_needs(redis_url: str) -> None:
    presence = RedisPresence(await emptied(redis_url), SystemClock())
    try:
        async with admin(redis_url) as redis:
            await presence.go_online(ACME, T1)
            tell(presence)
            await presence.is_online(ACME, T1)
            await presence.note_drivers(1, ACME, [D1], [])
            for name in await names(redis):
                await redis.pexpire(name, 1_000_000)
            tell(presence)
            await presence.is_online(ACME, T1)
            assert not await presence.sync_drivers(1, ACME, {D1})
            for name in await names(redis):
                assert await redis.pttl(name) > 1_000_000
    finally:
        await presence.close()


async def test_what_a_command_touches_is_in_one_slot(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Redis Cluster, which refuses it otherwise."""
    sent: list[Command] = []
    exchange = RedisClient._exchange

    async def recorded(client: RedisClient, commands: list[Command], *, again: bool) -> list[object]:
        sent.extend(commands)
        return await exchange(client, commands, again=again)

    monkeypatch.setattr(RedisClient, "_exchange", recorded)
    await use_everything(await emptied(redis_url))
    keys_of = [command[3 : 3 + int(command[2])] for command in sent if command[0] in ("EVALSHA", "EVAL")]
    assert len(keys_of) > 30
    for keys in keys_of:
        assert len({key_slot(str(key).encode()) for key in keys}) == 1
    with_one_key = {"GET", "PUBLISH", "SCARD", "PEXPIRE", "SMISMEMBER"}
    assert {command[0] for command in sent} - {"EVAL"} == {"EVALSHA", *with_one_key}


def test_names_are_put_together_and_recognised() -> None:
    assert ENGAGED("a:b") == "hc1:presence:{a:b}:engaged"
    assert TOGGLES("acme", "t.1") == "hc1:presence:{acme}:toggles:t.1"
    assert DATAGRAMS(0, 17) == "hc1:node:0:17"
    assert TOGGLES.matches("hc1:presence:{acme}:toggles:t.1")
    for other in ("hc1:presence:{acme}:toggles:", "hc1:presence:{ac/me}:toggles:t", "hc2:presence:{acme}:toggles:t"):
        assert not TOGGLES.matches(other)
        assert family_of(other) is None
    assert family_of(TOGGLES("acme", "t.1")) is TOGGLES
    assert {format_of(key.pattern) for key in (*KEYS, DATAGRAMS)} == {FORMAT}
    assert [format_of(name) for name in ("hc12:x", "hc:x", "hcx:", "other:hc1:")] == [12, None, None, None]


async def test_connections_are_bounded_and_none_is_left_after_closing(tmp_path: Path) -> None:
    with private_redis(tmp_path) as private:
        async with admin(private.url) as redis:

            async def others() -> int:
                return len(await redis.client_list()) - 1

            presence = RedisPresence(private.url, SystemClock())
            tell(presence)
            await asyncio.gather(*(nearest(presence) for _ in range(200)))
            assert 1 <= await others() <= 8
            tell(presence)
            await presence.close()
            await presence.close()

            async def none_left() -> bool:
                return await others() == 0

            await eventually(none_left)
            assert await redis.zcard("hc1:presence:{acme}:seen") == 1  # closing wrote what waited
            with pytest.raises(ClusterUnavailable):
                await nearest(presence)
