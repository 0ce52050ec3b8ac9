"""Waves, reminders and expiries: each at its time, once, and nothing of them is left afterwards."""

import asyncio

import pytest

from haulcast.domain.effects import CustomerNews, OpenOffers, TellWatchers
from haulcast.domain.events import Reminded
from haulcast.domain.ids import BroadcastId, TransporterId
from haulcast.domain.states import BroadcastStatus, EndReason, RequestStatus
from tests.sim.conftest import Logs
from tests.sim.virtual_time import START_MS
from tests.sim.world import ACME, TRUCK, World, outcome


def offered(world: World, broadcast: BroadcastId) -> list[tuple[float, int, list[TransporterId]]]:
    """When each wave with somebody in it was published, in seconds, with its number and whom it reached."""
    created_ms = world.changes(broadcast)[0].at_ms
    return [
        (
            (published.at_ms - created_ms) / 1000,
            published.change.after.wave,
            [offer.transporter_id for offer in effect.offers],
        )
        for published in world.changes(broadcast)
        for effect in published.change.effects
        if isinstance(effect, OpenOffers)
    ]


def news(world: World, broadcast: BroadcastId) -> list[tuple[float, CustomerNews]]:
    """What the customer was told, and when, in seconds after the first."""
    created_ms = world.changes(broadcast)[0].at_ms
    return [
        ((published.at_ms - created_ms) / 1000, effect.news)
        for published in world.changes(broadcast)
        for effect in published.change.effects
        if isinstance(effect, TellWatchers)
    ]


async def test_waves_reach_10_25_50_75_km_and_then_everybody_15_s_apart_and_each_transporter_once(
    world: World,
) -> None:
    for km in (9.9, 10.1, 24.9, 25.1, 49.9, 50.1, 74.9, 75.1, 900):
        await world.transporter(f"at{km}", km=km)
    await world.transporter("van", km=1, vehicle_type="van")
    broadcast = await world.broadcast()
    await asyncio.sleep(100)
    assert offered(world, broadcast) == [
        (0, 1, ["at9.9"]),
        (15, 2, ["at10.1", "at24.9"]),
        (30, 3, ["at25.1", "at49.9"]),
        (45, 4, ["at50.1", "at74.9"]),
        (60, 5, ["at75.1", "at900"]),
    ]
    assert (await world.state(broadcast)).next_wave_at_ms is None


async def test_waves_stop_when_the_last_truck_is_taken(world: World) -> None:
    await world.transporter("near")
    await world.transporter("far", km=20)
    broadcast = await world.broadcast()
    await world.accept(broadcast, "near")
    await asyncio.sleep(60)
    assert offered(world, broadcast) == [(0, 1, ["near"])]


async def test_a_broadcast_that_nobody_takes_expires_on_time_and_leaves_nothing_behind(world: World) -> None:
    await world.transporter("t1")
    broadcast = await world.broadcast()
    assert world.node.leftovers() == {"actors": 1, "deadlines": 1, "index": 1, "tenants in the index": 1}
    await asyncio.sleep(300 + 6)
    state = await world.state(broadcast)
    assert state.ended_at_ms is not None
    assert 0 <= state.ended_at_ms - state.expires_at_ms <= 50
    assert 0 <= world.changes(broadcast)[-1].at_ms - state.expires_at_ms <= 50
    assert (state.status, state.end_reason) == (BroadcastStatus.EXPIRED, EndReason.NO_VEHICLES_AVAILABLE)
    assert world.node.leftovers() == {}
    tasks = {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}
    assert tasks == {"committer", "membership", "failover", "control"}


async def test_300_broadcasts_expire_within_50_ms_of_their_times_and_leave_nothing_behind(world: World) -> None:
    await asyncio.gather(*[world.create(f"c{n}", expires_in_s=60 + n % 7) for n in range(300)])
    await asyncio.sleep(0.001)
    held = world.node.leftovers()
    assert (held["actors"], held["deadlines"], held["index"]) == (300, 300, 300)
    await asyncio.sleep(70)
    ends = [one.at_ms - one.change.after.expires_at_ms for one in world.published if not one.change.after.live]
    assert len(ends) == 300
    assert min(ends) >= 0
    assert max(ends) <= 50
    await asyncio.sleep(5)
    assert world.node.leftovers() == {}


async def test_a_broadcast_that_is_partly_filled_expires_with_its_trip_standing(world: World) -> None:
    await world.transporters(2)
    broadcast = await world.broadcast(trucks={TRUCK: 2}, expires_in_s=30)
    await world.accept(broadcast, "t0")
    await asyncio.sleep(30)
    state = await world.state(broadcast)
    assert (state.status, state.end_reason) == (BroadcastStatus.EXPIRED, EndReason.EXPIRED)
    assert [request.status for request in state.requests] == [RequestStatus.ASSIGNED, RequestStatus.EXPIRED]
    assert await outcome(world.accept(broadcast, "t1")) == "BROADCAST_EXPIRED"


async def test_the_customer_is_reminded_once_60_s_before_the_expiry(world: World) -> None:
    broadcast = await world.broadcast(expires_in_s=200)
    await asyncio.sleep(201)
    assert news(world, broadcast) == [(140, CustomerNews.EXPIRY_REMINDER), (200, CustomerNews.BROADCAST_EXPIRED)]


async def test_a_broadcast_shorter_than_the_lead_has_no_reminder(world: World) -> None:
    broadcast = await world.broadcast(expires_in_s=60)
    await asyncio.sleep(61)
    assert not any(isinstance(event, Reminded) for event in await world.journal.read_events(ACME, broadcast))


async def test_a_lookup_that_fails_is_tried_again_every_second_until_the_wave_goes_out(
    world: World, logs: Logs
) -> None:
    world.expected_logs.add("lookup_failed")
    await world.transporter("t1")
    world.node.presence.failing = 3
    broadcast = await world.broadcast()
    await asyncio.sleep(20)
    assert offered(world, broadcast) == [(3, 1, ["t1"])]
    assert [event["event"] for event in logs if event["log_level"] == "warning"] == ["lookup_failed"] * 3
    assert world.node.metric("lookup_failures_total") == 3


async def test_accepts_do_not_wait_for_a_slow_lookup_and_no_second_one_begins_beside_it(world: World) -> None:
    await world.transporter("near")
    await world.transporter("far", km=20)
    broadcast = await world.broadcast(trucks={TRUCK: 2}, expires_in_s=77)  # a reminder, and its tick, come at 17 s
    world.node.presence.lookup_s = 40
    await asyncio.sleep(20)
    assert world.node.leftovers()["tasks"] == 1
    before_ms = world.clock.now_ms()
    assert await outcome(world.accept(broadcast, "near")) == "ok"
    assert world.clock.now_ms() == before_ms
    await asyncio.sleep(36)
    assert offered(world, broadcast) == [(0, 1, ["near"]), (55, 2, ["far"])]


async def test_a_lookup_that_ends_after_its_broadcast_changes_nothing(world: World) -> None:
    await world.transporter("t1")
    world.node.presence.lookup_s = 20
    broadcast = await world.broadcast()
    await world.cancel(broadcast)
    await asyncio.sleep(30)
    assert offered(world, broadcast) == []
    assert world.node.leftovers() == {}


@pytest.mark.parametrize("step_s", [-7, 100])
async def test_deadlines_follow_a_wall_clock_that_is_corrected(world: World, step_s: int) -> None:
    broadcast = await world.broadcast(expires_in_s=300)
    await asyncio.sleep(30)
    world.clock.step_ms += step_s * 1000
    await asyncio.sleep(400)
    state = await world.state(broadcast)
    assert state.ended_at_ms is not None
    assert state.ended_at_ms - state.expires_at_ms <= 50
    assert state.ended_at_ms - START_MS == pytest.approx(300_000, abs=50)


async def test_a_wall_clock_that_jumps_over_the_expiry_is_noticed_within_a_second(world: World) -> None:
    broadcast = await world.broadcast(expires_in_s=300)
    await asyncio.sleep(30)
    world.clock.step_ms += 300_000
    await asyncio.sleep(1.01)
    assert (await world.state(broadcast)).status is BroadcastStatus.EXPIRED
