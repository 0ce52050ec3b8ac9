"""Accepts that wait: the nearest wins, and whatever happens meanwhile, nobody is promised or denied what is not so."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from haulcast.domain.effects import LoseAccepts, ShowTrip
from haulcast.domain.events import AcceptsLost, TruckAssigned
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import BroadcastStatus
from tests.sim.conftest import Logs
from tests.sim.world import ACME, TRUCK, World, data, north, outcome

WINDOW_S = 3.0


@pytest.fixture
async def world(logs: Logs) -> AsyncIterator[World]:
    """A node whose tenant looks for the best match."""
    settings = TenantSettings(dispatch_mode="best_match", accept_window_s=WINDOW_S)
    async with World.open(settings) as world:
        yield world
    wrong = [entry for entry in logs if entry["log_level"] in ("warning", "error")]
    assert [entry for entry in wrong if entry["event"] not in world.expected_logs] == []


async def offered_to(world: World, *kms: float, trucks: int = 1, expires_in_s: int | None = None) -> BroadcastId:
    """A broadcast offered to t1, t2... who stand at these distances."""
    for number, km in enumerate(kms, start=1):
        await world.transporter(f"t{number}", km=km)
    return await world.broadcast(trucks={TRUCK: trucks}, expires_in_s=expires_in_s)


async def winners(world: World, broadcast_id: BroadcastId) -> list[str]:
    events = await world.journal.read_events(ACME, broadcast_id)
    return [event.trip.transporter_id for event in events if isinstance(event, TruckAssigned)]


def losers(world: World, broadcast_id: BroadcastId) -> dict[str, Refusal]:
    """Who was told to have lost, and why; each once."""
    told = [
        (accept.transporter_id, effect.code)
        for one in world.changes(broadcast_id)
        for effect in one.change.effects
        if isinstance(effect, LoseAccepts)
        for accept in effect.accepts
    ]
    assert len(dict(told)) == len(told)
    return {str(transporter_id): code for transporter_id, code in told}


async def test_the_nearest_of_those_who_accept_within_the_window_wins(world: World) -> None:
    broadcast = await offered_to(world, 3, 2, 1)
    first = data(await world.accept(broadcast, "t1"))
    assert first["status"] == "pending"
    assert first["decided_at"] == world.clock.now_ms() + 3_000
    await asyncio.sleep(1)
    for name in ("t3", "t2"):
        assert data(await world.accept(broadcast, name))["decided_at"] == first["decided_at"]
    await asyncio.sleep(1.9)
    assert await winners(world, broadcast) == []
    await asyncio.sleep(0.2)
    assert await winners(world, broadcast) == ["t3"]
    assert losers(world, broadcast) == {
        "t1": Refusal.REQUEST_ALREADY_TAKEN,
        "t2": Refusal.REQUEST_ALREADY_TAKEN,
    }
    state = await world.state(broadcast)
    assert state.trips[0].assigned_at_ms == first["decided_at"]


async def test_where_they_are_now_counts_and_not_where_they_were(world: World) -> None:
    broadcast = await offered_to(world, 1, 2)
    await world.accept(broadcast, "t1")
    await world.accept(broadcast, "t2")
    vehicle, _ = world.positions[(await world.state(broadcast)).waiting[0].transporter_id]
    world.node.presence.report(ACME, vehicle, north(9))
    await asyncio.sleep(WINDOW_S + 0.1)
    assert await winners(world, broadcast) == ["t2"]


@pytest.mark.parametrize("how", ["failing", "silent"])
async def test_without_presence_the_distances_of_the_offers_decide_without_delay(world: World, how: str) -> None:
    world.expected_logs.add("measure_failed")
    broadcast = await offered_to(world, 2, 1)
    await world.accept(broadcast, "t1")
    await world.accept(broadcast, "t2")
    if how == "failing":
        world.node.presence.failing = 99
    else:
        world.node.presence.lookup_s = 3_600
    await asyncio.sleep(WINDOW_S + 1.1)
    assert await winners(world, broadcast) == ["t2"]
    world.node.presence.lookup_s = 0


async def test_three_trucks_go_to_the_three_nearest_of_five_at_once(world: World) -> None:
    broadcast = await offered_to(world, 5, 1, 4, 2, 3, trucks=3)
    for number in range(1, 6):
        await world.accept(broadcast, f"t{number}")
    await asyncio.sleep(WINDOW_S + 0.1)
    assert await winners(world, broadcast) == ["t2", "t4", "t5"]
    assert losers(world, broadcast) == dict.fromkeys(("t1", "t3"), Refusal.REQUEST_ALREADY_TAKEN)
    assert (await world.state(broadcast)).status is BroadcastStatus.FULLY_FILLED
    assert [len(one.change.after.trips) for one in world.changes(broadcast)][-3:] == [1, 2, 3]


async def test_the_same_accept_sent_again_is_answered_the_same_also_when_it_has_been_decided(world: World) -> None:
    broadcast = await offered_to(world, 1)
    first = await world.accept(broadcast, "t1", request="mine")
    assert await world.resend(world.asks[-1]) == first
    await asyncio.sleep(WINDOW_S + 0.1)
    assert await winners(world, broadcast) == ["t1"]
    assert await world.resend(world.asks[-1]) == first
    late = await world.accept(broadcast, "t1", request="another")
    assert late == Refused(Refusal.REQUEST_ALREADY_TAKEN, {"remaining_requests": 0})


@pytest.mark.parametrize("down_s", [1.0, 60.0])
async def test_what_waits_survives_a_crash_and_is_decided_when_it_was_to_be_or_at_once(
    world: World, down_s: float
) -> None:
    broadcast = await offered_to(world, 2, 1)
    decided_at = data(await world.accept(broadcast, "t1"))["decided_at"]
    await world.accept(broadcast, "t2")
    await world.node.crash()
    await asyncio.sleep(down_s)
    await world.boot()
    up_ms = world.clock.now_ms()
    await asyncio.sleep(WINDOW_S)
    assert await winners(world, broadcast) == ["t2"]
    assert isinstance(decided_at, int)
    [trip] = (await world.state(broadcast)).trips
    assert trip.assigned_at_ms == max(decided_at, up_ms)


async def test_what_waits_at_a_node_that_dies_is_decided_by_its_heir() -> None:
    async with World.open(TenantSettings(dispatch_mode="best_match", accept_window_s=WINDOW_S), nodes=3) as world:
        broadcast = await offered_to(world, 2, 1)
        for name in ("t1", "t2"):
            assert data(await world.accept(broadcast, name, node=world.nodes[0]))["status"] == "pending"
        await world.nodes[-1].crash()
        await asyncio.sleep(WINDOW_S + 5)
        assert await winners(world, broadcast) == ["t2"]
        assert losers(world, broadcast) == {"t1": Refusal.REQUEST_ALREADY_TAKEN}


async def test_a_driver_who_is_busy_by_then_loses_and_the_next_one_wins(world: World) -> None:
    broadcast = await offered_to(world, 1, 2, 3)
    elsewhere = await world.broadcast("c2")
    await world.configure(dispatch_mode="progressive")
    await world.spare_vehicle("t1", "t1-v2")
    for number in (1, 2, 3):
        await world.configure(dispatch_mode="best_match")
        await world.accept(broadcast, f"t{number}")
    await world.configure(dispatch_mode="progressive")
    assert await outcome(world.accept(elsewhere, "t1", vehicle="t1-v2")) == "ok"
    await asyncio.sleep(WINDOW_S + 0.1)
    assert await winners(world, broadcast) == ["t2"]
    assert losers(world, broadcast) == {"t1": Refusal.DRIVER_BUSY, "t3": Refusal.REQUEST_ALREADY_TAKEN}


async def test_when_none_of_those_who_wait_can_win_the_truck_is_still_looked_for(world: World) -> None:
    first, second = await offered_to(world, 1, 2), await world.broadcast("c2", trucks={TRUCK: 2})
    for broadcast in (first, second):
        for name in ("t1", "t2"):
            assert data(await world.accept(broadcast, name))["status"] == "pending"
    third = await world.broadcast("c3", trucks={TRUCK: 2})
    await world.configure(dispatch_mode="progressive")
    for name in ("t1", "t2"):
        assert await outcome(world.accept(third, name)) == "ok"
    await asyncio.sleep(WINDOW_S + 0.1)
    for broadcast in (first, second):
        assert await winners(world, broadcast) == []
        assert losers(world, broadcast) == dict.fromkeys(("t1", "t2"), Refusal.VEHICLE_BUSY)
        state = await world.state(broadcast)
        assert (state.status, state.waiting) == (BroadcastStatus.SEARCHING, ())
        events = await world.journal.read_events(ACME, broadcast)
        assert len([event for event in events if isinstance(event, AcceptsLost)]) == 2


async def test_a_cancel_in_the_window_tells_those_who_wait(world: World) -> None:
    broadcast = await offered_to(world, 1, 2)
    await world.accept(broadcast, "t1")
    assert isinstance(await world.cancel(broadcast), Done)
    assert losers(world, broadcast) == {"t1": Refusal.BROADCAST_CANCELLED}
    await asyncio.sleep(WINDOW_S + 0.1)
    assert await winners(world, broadcast) == []


async def test_who_accepts_shortly_before_the_expiry_still_gets_the_truck(world: World) -> None:
    broadcast = await offered_to(world, 1, expires_in_s=30)
    await asyncio.sleep(28.9)
    await world.accept(broadcast, "t1")
    await asyncio.sleep(0.05)
    assert await winners(world, broadcast) == ["t1"]
    shown = [effect for one in world.changes(broadcast) for effect in one.change.effects]
    assert [effect.trip.transporter_id for effect in shown if isinstance(effect, ShowTrip)] == ["t1"]


async def test_a_match_that_kills_its_actor_is_tried_again(world: World) -> None:
    world.expected_logs |= {"actor_died"}
    broadcast = await offered_to(world, 1, 2)
    await world.accept(broadcast, "t1")
    await asyncio.sleep(WINDOW_S - 0.1)
    world.node.publisher.broken = 1
    await asyncio.sleep(1)
    assert await winners(world, broadcast) == ["t1"]
