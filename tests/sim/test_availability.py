"""Transporters who come, go and move: who is late is offered what lives, once; toggling is limited."""

import asyncio

import pytest

from haulcast.actors.live_index import MAX_MATCHES
from haulcast.domain.commands import Appear
from haulcast.domain.ids import BroadcastId, TransporterId
from haulcast.domain.states import BroadcastStatus, TripStatus
from haulcast.errors import RequestError
from tests.sim.faults import decided
from tests.sim.test_deadlines import offered
from tests.sim.world import ACME, TRUCK, World, data, north, outcome

T1 = TransporterId("t1")


async def test_who_comes_online_late_is_offered_the_live_broadcasts_within_reach_once_nearest_first(
    world: World,
) -> None:
    far, near, middle = [
        BroadcastId(str(data(await world.create(f"c{km}", pickup_km=km))["broadcast_id"])) for km in (9, 1, 4)
    ]
    await world.cancel(await world.broadcast("c3"), "c3")
    vehicle = await world.offline("t1")
    world.node.dispatch.availability.report(ACME, vehicle, north(0))
    await asyncio.sleep(0.1)
    assert await world.node.dispatch.availability.go_online(ACME, T1)
    await asyncio.sleep(0.1)
    late = [one.change.after for one in world.published if one.change.after.offers]
    assert [state.broadcast_id for state in late] == [near, middle, far]
    assert [state.offers[T1].distance_m for state in late] == [1_000, 4_000, 9_000]
    for _ in range(3):
        assert not await world.node.dispatch.availability.go_online(ACME, T1)
        world.node.dispatch.availability.report(ACME, vehicle, north(0.1))
    await asyncio.sleep(40)
    for broadcast in (near, middle, far):
        assert [to for _, _, to in offered(world, broadcast)] == [["t1"]]
    assert await outcome(world.accept(near, "t1")) == "ok"


async def test_coming_back_online_does_not_offer_again_what_was_offered_or_declined(world: World) -> None:
    await world.transporter("t1")
    broadcast = await world.broadcast()
    await world.decline(broadcast, "t1")
    await world.node.dispatch.availability.go_offline(ACME, T1)
    assert await world.node.dispatch.availability.go_online(ACME, T1)
    await asyncio.sleep(20)
    assert [to for _, _, to in offered(world, broadcast)] == [["t1"]]


@pytest.mark.parametrize(("km", "due_s", "wave"), [(20, 15, 2), (40, 30, 3)])
async def test_who_stands_beyond_the_last_waves_reach_waits_for_the_wave_that_reaches_it(
    world: World, km: int, due_s: int, wave: int
) -> None:
    broadcast = await world.broadcast()
    vehicle = await world.offline("t1")
    await asyncio.sleep(1)
    with decided() as commands:
        world.node.dispatch.availability.report(ACME, vehicle, north(km))
        await world.node.dispatch.availability.go_online(ACME, T1)
        await asyncio.sleep(1)
    # An actor is troubled only for whom its next wave, which may be under way already, would reach.
    assert {type(command) for command in commands} == ({Appear} if km < 25 else set())
    await asyncio.sleep(40)
    assert [(round(at_s), number) for at_s, number, _ in offered(world, broadcast)] == [(due_s, wave)]


async def test_who_appears_while_a_wave_is_being_looked_up_is_not_missed_and_not_offered_twice(world: World) -> None:
    world.node.presence.lookup_s = 5
    broadcast = await world.broadcast()
    await asyncio.sleep(1)
    await world.transporter("t1", km=2)  # what the lookup will find
    vehicle = await world.offline("t2")
    await world.node.dispatch.availability.go_online(ACME, TransporterId("t2"))
    world.node.dispatch.availability.report(ACME, vehicle, north(2))
    await asyncio.sleep(0.1)
    assert [(round(at_s), to) for at_s, _, to in offered(world, broadcast)] == [(1, ["t2"])]
    await asyncio.sleep(30)
    assert [(round(at_s), to) for at_s, _, to in offered(world, broadcast)] == [(1, ["t2"]), (5, ["t1"])]


async def test_broadcasts_that_do_not_reach_somebody_do_not_hide_those_that_do(world: World) -> None:
    """However many of the former are nearer."""
    reaching = await world.broadcast("far")
    await asyncio.sleep(100)  # its waves are over: it reaches everybody
    for number in range(MAX_MATCHES):
        await world.create(f"c{number}")
    await asyncio.sleep(0.1)
    vehicle = await world.offline("t1")
    world.node.dispatch.availability.report(ACME, vehicle, north(40))
    await world.node.dispatch.availability.go_online(ACME, T1)
    await asyncio.sleep(0.1)
    assert [to for _, _, to in offered(world, reaching)] == [["t1"]]


async def test_who_comes_within_an_earlier_waves_reach_is_offered_at_once(world: World) -> None:
    broadcast = await world.broadcast()
    vehicle = await world.offline("t1")
    await asyncio.sleep(17)
    await world.node.dispatch.availability.go_online(ACME, T1)
    await asyncio.sleep(0.1)
    assert offered(world, broadcast) == []
    world.node.dispatch.availability.report(ACME, vehicle, north(20))
    await asyncio.sleep(0.1)
    assert [(round(at_s), wave) for at_s, wave, _ in offered(world, broadcast)] == [(17, 2)]


async def test_who_has_only_vehicles_of_another_type_or_of_one_that_is_taken_is_offered_nothing(world: World) -> None:
    await world.transporter("t0")
    broadcast = await world.broadcast(trucks={TRUCK: 1, "van": 1})
    await world.accept(broadcast, "t0")
    for name, vehicle_type in (("t1", TRUCK), ("t2", "crane")):
        vehicle = await world.offline(name, vehicle_type=vehicle_type)
        await world.node.dispatch.availability.go_online(ACME, TransporterId(name))
        world.node.dispatch.availability.report(ACME, vehicle, north(1))
    await asyncio.sleep(100)
    assert [to for _, _, to in offered(world, broadcast)] == [["t0"]]


async def test_a_transporter_whose_trip_ends_is_offered_what_is_live(world: World) -> None:
    await world.transporter("t1")
    first = await world.broadcast("c1")
    await world.accept(first, "t1")
    second = await world.broadcast("c2")
    await asyncio.sleep(70)
    assert offered(world, second) == []
    await world.update_trip(first, "t1-d", TripStatus.DELIVERED)
    await asyncio.sleep(0.01)
    assert [to for _, _, to in offered(world, second)] == [["t1"]]
    assert await outcome(world.accept(second, "t1")) == "ok"


async def test_a_trip_that_merely_moves_on_keeps_its_vehicle_engaged(world: World) -> None:
    await world.transporter("t1")
    first = await world.broadcast("c1")
    await world.accept(first, "t1")
    await world.update_trip(first, "t1-d", TripStatus.LOADED)
    second = await world.broadcast("c2")
    await asyncio.sleep(70)
    assert offered(world, second) == []


async def test_toggling_is_limited_to_10_in_5_minutes_and_says_when_to_come_back(world: World) -> None:
    await world.offline("t1")
    availability = world.node.dispatch.availability
    for n in range(5):
        assert await availability.go_online(ACME, T1)
        await asyncio.sleep(n)
        assert await availability.go_offline(ACME, T1)
    with pytest.raises(RequestError) as refused:
        await availability.go_online(ACME, T1)
    assert refused.value.code == "TOO_MANY_TOGGLES"
    assert refused.value.data == {"retry_after_ms": 290_000}
    assert not await world.node.presence.is_online(ACME, T1)
    await asyncio.sleep(289.9)
    with pytest.raises(RequestError):
        await availability.go_online(ACME, T1)
    await asyncio.sleep(0.1)
    assert await availability.go_online(ACME, T1)


async def test_the_limit_holds_for_going_offline_too_and_for_each_transporter_on_its_own(world: World) -> None:
    for name in ("t1", "t2"):
        await world.offline(name)
    availability = world.node.dispatch.availability
    await availability.go_online(ACME, T1)
    await asyncio.sleep(300)  # out of the window
    for _ in range(5):
        await availability.go_offline(ACME, T1)
        await availability.go_online(ACME, T1)
    with pytest.raises(RequestError):
        await availability.go_offline(ACME, T1)
    assert await world.node.presence.is_online(ACME, T1)
    assert await availability.go_online(ACME, TransporterId("t2"))


async def test_a_clock_that_is_set_back_does_not_lengthen_the_wait(world: World) -> None:
    availability = world.node.dispatch.availability
    for _ in range(5):
        await availability.go_online(ACME, T1)
        await availability.go_offline(ACME, T1)
    world.clock.step_ms -= 3_600_000
    await asyncio.sleep(301)
    assert await availability.go_online(ACME, T1)


async def test_toggling_to_what_one_is_already_is_free(world: World) -> None:
    await world.offline("t1")
    availability = world.node.dispatch.availability
    for _ in range(20):
        assert not await availability.go_offline(ACME, T1)
    assert await availability.go_online(ACME, T1)
    for _ in range(20):
        assert not await availability.go_online(ACME, T1)
    assert await availability.go_offline(ACME, T1)


async def test_who_comes_online_while_an_actor_is_overwhelmed_is_offered_its_broadcast_later(world: World) -> None:
    world.expected_logs.add("commit_failed")
    await world.transporter("t0")
    broadcast = await world.broadcast()
    vehicle = await world.offline("t1")
    with world.journal.unavailable():
        asked = [world.decline(broadcast, "t0")]
        await asyncio.sleep(0.01)
        asked += [world.decline(broadcast, "t0") for _ in range(1_024)]
        world.node.presence.report(ACME, vehicle, north(1))
        await world.node.dispatch.availability.go_online(ACME, T1)
        await asyncio.sleep(1)
        assert [to for _, _, to in offered(world, broadcast)] == [["t0"]]
    await asyncio.gather(*asked)
    await asyncio.sleep(1)
    assert [to for _, _, to in offered(world, broadcast)] == [["t0"], ["t1"]]
    assert (await world.state(broadcast)).status is BroadcastStatus.SEARCHING
