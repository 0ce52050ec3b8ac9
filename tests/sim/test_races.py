"""Of everything that can happen to a broadcast at one moment, one thing does, and both sides hear the same."""

import asyncio
from collections import Counter

import pytest

from haulcast.domain.effects import CloseOffers, ShowTrip, TellWatchers
from haulcast.domain.events import Cancelled, Expired, TruckAssigned
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.states import BroadcastStatus, TripStatus
from tests.sim.world import ACME, TRUCK, World, data, outcome, outcomes


async def test_one_of_200_accepts_wins_the_truck_and_the_others_hear_that_it_is_taken(world: World) -> None:
    transporters = await world.transporters(200)
    broadcast = await world.broadcast()
    replies = await asyncio.gather(*[world.accept(broadcast, transporter) for transporter in transporters])
    won = [reply for reply in replies if isinstance(reply, Done)]
    lost = [reply for reply in replies if isinstance(reply, Refused)]
    assert len(won) == 1
    assert lost == [Refused(Refusal.REQUEST_ALREADY_TAKEN, {"remaining_requests": 0})] * 199
    trips = [
        effect.trip
        for published in world.changes(broadcast)
        for effect in published.change.effects
        if isinstance(effect, ShowTrip)
    ]
    assert [trip.trip_id for trip in trips] == [won[0].data["trip_id"]]


async def test_20_trucks_go_to_20_of_200_transporters_each_with_a_vehicle_of_its_own(world: World) -> None:
    transporters = await world.transporters(200)
    broadcast = await world.broadcast(trucks={TRUCK: 20})
    replies = await asyncio.gather(*[world.accept(broadcast, transporter) for transporter in transporters])
    won = [reply.data for reply in replies if isinstance(reply, Done)]
    assert [each["remaining_requests"] for each in won] == list(reversed(range(20)))
    assert len({each["request_id"] for each in won}) == 20
    assert Counter(type(reply) for reply in replies) == {Done: 20, Refused: 180}
    state = await world.state(broadcast)
    assert state.status is BroadcastStatus.FULLY_FILLED
    assert len({trip.vehicle_id for trip in state.trips}) == len({trip.driver_id for trip in state.trips}) == 20


async def test_the_trucks_of_each_type_are_raced_for_on_their_own(world: World) -> None:
    for name, vehicle_type in (("t1", "van"), ("t2", "van"), ("t3", TRUCK)):
        await world.transporter(name, vehicle_type=vehicle_type)
    broadcast = await world.broadcast(trucks={TRUCK: 1, "van": 1})
    vans = await asyncio.gather(*[world.accept(broadcast, name, vehicle_type="van") for name in ("t1", "t2")])
    assert vans[1] == Refused(Refusal.REQUEST_ALREADY_TAKEN, {"remaining_requests": 1})
    assert data(await world.accept(broadcast, "t3"))["status"] == BroadcastStatus.FULLY_FILLED


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancel_against_accept_has_one_outcome_that_both_hear(world: World, cancel_first: bool) -> None:
    await world.transporter("t1")
    broadcast = await world.broadcast()
    if cancel_first:
        cancelled, accepted = world.cancel(broadcast), world.accept(broadcast, "t1")
        assert await outcome(cancelled) == "ok"
        assert await outcome(accepted) == Refusal.BROADCAST_CANCELLED
    else:
        accepted, cancelled = world.accept(broadcast, "t1"), world.cancel(broadcast)
        assert await outcome(accepted) == "ok"
        assert await outcome(cancelled) == Refusal.BROADCAST_FULLY_FILLED
    events = await world.journal.read_events(ACME, broadcast)
    assert [type(event) for event in events[2:]] == [Cancelled if cancel_first else TruckAssigned]
    last = world.changes(broadcast)[-1].change
    told = {type(effect) for effect in last.effects}
    assert told >= ({CloseOffers, TellWatchers} if cancel_first else {ShowTrip, TellWatchers})


@pytest.mark.parametrize(("early_ms", "winner"), [(1, "accept"), (0, "expiry"), (-1, "expiry")])
async def test_expiry_against_accept_is_decided_by_the_time_alone(world: World, early_ms: int, winner: str) -> None:
    await world.transporter("t1")
    broadcast = await world.broadcast(expires_in_s=30)
    deadline_ms = (await world.state(broadcast)).expires_at_ms
    await asyncio.sleep((deadline_ms - early_ms - world.clock.now_ms()) / 1000)
    accepted = await outcome(world.accept(broadcast, "t1"))
    assert accepted == ("ok" if winner == "accept" else Refusal.BROADCAST_EXPIRED)
    await asyncio.sleep(1)
    events = await world.journal.read_events(ACME, broadcast)
    assert [type(event) for event in events if isinstance(event, TruckAssigned | Expired)] == [
        TruckAssigned if winner == "accept" else Expired
    ]


async def test_an_accept_that_waited_over_the_deadline_finds_the_broadcast_expired_though_no_tick_was_handled(
    world: World,
) -> None:
    await world.transporters(2)
    broadcast = await world.broadcast(trucks={TRUCK: 2}, expires_in_s=30)
    deadline_ms = (await world.state(broadcast)).expires_at_ms
    await asyncio.sleep((deadline_ms - 5 - world.clock.now_ms()) / 1000)
    with world.journal.slow(before_s=0.02):
        first = world.accept(broadcast, "t0")
        await asyncio.sleep(0.001)
        second = world.accept(broadcast, "t1")
        assert await outcome(first) == "ok"
        assert await outcome(second) == Refusal.BROADCAST_EXPIRED
    assert (await world.state(broadcast)).status is BroadcastStatus.EXPIRED


async def test_a_driver_who_is_busy_elsewhere_is_refused_and_the_truck_goes_to_the_next(world: World) -> None:
    await world.transporters(2)
    await world.spare_vehicle("t0", "t0-v2")
    first, second = await world.broadcast("c1"), await world.broadcast("c2")
    elsewhere, busy, following = await asyncio.gather(
        world.accept(first, "t0"), world.accept(second, "t0", vehicle="t0-v2"), world.accept(second, "t1")
    )
    assert isinstance(elsewhere, Done)
    assert busy == Refused(Refusal.DRIVER_BUSY)
    assert data(following)["remaining_requests"] == 0


async def test_one_vehicle_in_50_broadcasts_at_once_gets_one_trip(world: World) -> None:
    await world.transporter("t0")
    broadcasts = [await world.broadcast(f"c{n}") for n in range(50)]
    ended = Counter(await outcomes(*[world.accept(broadcast, "t0") for broadcast in broadcasts]))
    assert ended == {"ok": 1, Refusal.VEHICLE_BUSY: 49}


async def test_a_customer_has_one_active_broadcast_however_many_are_asked_for_at_once(world: World) -> None:
    replies = await asyncio.gather(*[world.create("c1") for _ in range(20)])
    won = [reply for reply in replies if isinstance(reply, Done)]
    assert len(won) == 1
    refused = [reply for reply in replies if isinstance(reply, Refused)]
    expected = Refused(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": won[0].data["broadcast_id"]})
    assert refused == [expected] * 19
    assert len(world.node.dispatch.registry) == 1


@pytest.mark.parametrize("end", ["cancelled", "filled", "expired"])
async def test_every_end_of_a_broadcast_frees_its_customer_for_the_next(world: World, end: str) -> None:
    await world.transporter("t1")
    broadcast = await world.broadcast(expires_in_s=30)
    if end == "cancelled":
        await world.cancel(broadcast)
    elif end == "filled":
        await world.accept(broadcast, "t1")
    else:
        await asyncio.sleep(31)
    assert await outcome(world.create()) == "ok"


async def test_the_end_of_a_trip_frees_its_driver_and_vehicle(world: World) -> None:
    await world.transporter("t1")
    first, second = await world.broadcast("c1"), await world.broadcast("c2")
    await world.accept(first, "t1")
    assert await outcome(world.accept(second, "t1")) == Refusal.VEHICLE_BUSY
    await world.update_trip(first, "t1-d", TripStatus.DELIVERED)
    assert await outcome(world.accept(second, "t1")) == "ok"
    assert await world.journal.engaged_vehicles() == [(ACME, "t1-v")]
