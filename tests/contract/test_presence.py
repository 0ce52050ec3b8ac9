"""What every presence promises: who can be found, for how long, in which order. Then what the one in memory adds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from math import degrees, inf, nextafter
from random import Random
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import EARTH_RADIUS_M, Point, distance_m
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate, LeftOut, LeftOutReason, rank
from haulcast.ports import LAPSED_KEPT_S, MAX_POSITIONS, Nearby, Presence
from haulcast.storage.memory import presence as memory
from haulcast.storage.memory.presence import MemoryPresence
from haulcast.storage.redis import RedisPresence
from tests.contract.shared import ManualClock, emptied

T = TypeVar("T")

ACME, OTHER = TenantId("acme"), TenantId("other")
T1, T2, T3 = TransporterId("t1"), TransporterId("t2"), TransporterId("t3")
MUMBAI = Point(19.076, 72.8777)
THANE = Point(19.2183, 72.9781)  # 19 km off
DELHI = Point(28.6139, 77.209)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "redis"])
async def presence(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Presence]:
    presence: Presence
    if request.param == "memory":
        presence = MemoryPresence(clock)
    else:
        presence = RedisPresence(await emptied(request.getfixturevalue("redis_url")), clock, now_ms=clock.now_ms)
    try:
        yield presence
    finally:
        await presence.close()


def vehicle(vehicle_id: str, transporter_id: TransporterId = T1, vehicle_type: str = "van") -> Vehicle:
    return Vehicle(VehicleId(vehicle_id), transporter_id, vehicle_type)


V1, V2, V3 = vehicle("v1"), vehicle("v2", T2), vehicle("v3", T3)


def east(metres: float) -> Point:
    """So far along the equator."""
    return Point(0.0, degrees(metres / EARTH_RADIUS_M))


async def nearest(
    presence: Presence,
    center: Point = MUMBAI,
    *,
    tenant_id: TenantId = ACME,
    vehicle_types: Collection[str] = ("van",),
    radius_m: float | None = None,
    exclude: Collection[TransporterId] = (),
    limit: int = 100,
    left_out_limit: int = 0,
) -> Nearby:
    return await presence.nearest(
        tenant_id,
        center,
        vehicle_types=vehicle_types,
        radius_m=radius_m,
        exclude=exclude,
        limit=limit,
        left_out_limit=left_out_limit,
    )


async def found(presence: Presence, tenant_id: TenantId = ACME, vehicle_type: str = "van") -> list[str]:
    nearby = await nearest(presence, tenant_id=tenant_id, vehicle_types=(vehicle_type,))
    return [candidate.vehicle_id for candidate in nearby.candidates]


# --- Who can be found ------------------------------------------------------------------------------------------------


async def test_a_vehicle_is_found_when_it_has_reported_and_its_transporter_is_online(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    assert await found(presence) == []
    presence.report(ACME, V1, MUMBAI)
    assert await nearest(presence) == Nearby((Candidate(0, T1, V1.vehicle_id, "van"),), more=False)
    assert await presence.available(ACME, T1) == [(V1, MUMBAI)]


async def test_nobody_at_all_is_nobody_left_out(presence: Presence) -> None:
    assert await nearest(presence) == Nearby((), more=False)
    assert await presence.available(ACME, T1) == []
    assert not await presence.is_online(ACME, T1)


async def test_a_position_reported_while_offline_counts_once_the_transporter_is_online(presence: Presence) -> None:
    presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == []
    assert await presence.available(ACME, T1) == []
    await presence.go_online(ACME, T1)
    assert await found(presence) == ["v1"]


async def test_going_offline_hides_all_vehicles_and_coming_back_shows_them(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    await presence.go_offline(ACME, T1)
    assert await found(presence) == []
    presence.report(ACME, V1, THANE)
    assert await found(presence) == []
    await presence.go_online(ACME, T1)
    assert await presence.available(ACME, T1) == [(V1, THANE)]
    assert await found(presence) == ["v1"]


async def test_going_online_and_offline_say_whether_that_changed_anything(presence: Presence) -> None:
    assert not await presence.go_offline(ACME, T1)
    assert await presence.go_online(ACME, T1)
    assert not await presence.go_online(ACME, T1)
    assert await presence.is_online(ACME, T1)
    assert await presence.go_offline(ACME, T1)
    assert not await presence.go_offline(ACME, T1)
    assert not await presence.is_online(ACME, T1)


async def test_tenants_see_nothing_of_each_other(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    assert not await presence.is_online(OTHER, T1)
    assert await found(presence, OTHER) == []
    assert presence.report(OTHER, V1, DELHI)
    await presence.go_online(OTHER, T1)
    presence.engage(OTHER, V1.vehicle_id)
    await presence.go_offline(OTHER, T1)
    assert await presence.available(ACME, T1) == [(V1, MUMBAI)]


# --- For how long ----------------------------------------------------------------------------------------------------


async def test_a_position_counts_while_it_is_younger_than_60_s(presence: Presence, clock: ManualClock) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    clock.advance(59.9)
    assert await found(presence) == ["v1"]
    clock.advance(0.1)
    assert await found(presence) == []
    assert await presence.available(ACME, T1) == []
    presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == ["v1"]


async def test_going_online_does_not_bring_a_stale_position_back(presence: Presence, clock: ManualClock) -> None:
    presence.report(ACME, V1, MUMBAI)
    clock.advance(60)
    await presence.go_online(ACME, T1)
    assert await found(presence) == []


async def test_a_report_says_whether_there_was_no_fresh_position(presence: Presence, clock: ManualClock) -> None:
    assert presence.report(ACME, V1, MUMBAI)
    assert not presence.report(ACME, V1, THANE)
    clock.advance(59.9)
    assert not presence.report(ACME, V1, THANE)
    clock.advance(60)
    assert presence.report(ACME, V1, THANE)


async def test_a_transporter_counts_while_it_was_heard_of_in_the_last_120_s(
    presence: Presence, clock: ManualClock
) -> None:
    await presence.go_online(ACME, T1)
    clock.advance(119)
    presence.heard_from(ACME, T1)
    clock.advance(119)
    presence.report(ACME, V1, MUMBAI)
    assert await presence.is_online(ACME, T1)
    assert await found(presence) == ["v1"]
    clock.advance(1)
    assert not await presence.is_online(ACME, T1)
    assert await found(presence) == []
    assert await presence.available(ACME, T1) == []


async def test_going_online_again_is_hearing_from_the_transporter(presence: Presence, clock: ManualClock) -> None:
    await presence.go_online(ACME, T1)
    clock.advance(119)
    assert not await presence.go_online(ACME, T1)
    clock.advance(119)
    assert await presence.is_online(ACME, T1)


async def test_a_vehicles_report_does_not_stand_for_its_transporter(presence: Presence, clock: ManualClock) -> None:
    await presence.go_online(ACME, T1)
    for _ in range(4):
        clock.advance(30)
        presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == []


async def test_silence_for_too_long_is_being_offline(presence: Presence, clock: ManualClock) -> None:
    """Hearing from the transporter does not undo it, going offline changes nothing, going online does."""
    await presence.go_online(ACME, T1)
    clock.advance(120)
    presence.report(ACME, V1, MUMBAI)
    presence.heard_from(ACME, T1)
    assert not await presence.is_online(ACME, T1)
    assert not await presence.go_offline(ACME, T1)
    assert await presence.go_online(ACME, T1)
    assert await found(presence) == ["v1"]
    clock.advance(120)
    assert await presence.go_online(ACME, T1)


async def test_hearing_from_somebody_unknown_or_offline_brings_nobody_online(presence: Presence) -> None:
    presence.heard_from(ACME, T1)
    assert not await presence.is_online(ACME, T1)
    await presence.go_online(ACME, T1)
    await presence.go_offline(ACME, T1)
    presence.heard_from(ACME, T1)
    assert not await presence.is_online(ACME, T1)
    assert await presence.go_online(ACME, T1)


# --- Where vehicles are ----------------------------------------------------------------------------------------------


async def test_positions_are_those_of_the_vehicles_asked_for_whether_or_not_they_can_be_found(
    presence: Presence,
) -> None:
    """To the last bit; offline, engaged, of another transporter or type."""
    south = Point(-33.900000001, 151.2)
    presence.report(ACME, V1, MUMBAI)
    presence.report(ACME, vehicle("v2", T2, "truck"), south)
    presence.report(ACME, V3, DELHI)
    presence.engage(ACME, V2.vehicle_id)
    assert await presence.positions(ACME, [V1.vehicle_id, V2.vehicle_id, VehicleId("unknown")]) == {
        V1.vehicle_id: MUMBAI,
        V2.vehicle_id: south,
    }
    assert await presence.positions(ACME, []) == {}


async def test_a_position_is_known_while_it_is_younger_than_60_s(presence: Presence, clock: ManualClock) -> None:
    presence.report(ACME, V1, MUMBAI)
    clock.advance(30)
    presence.report(ACME, V2, DELHI)
    clock.advance(29.9)
    both = [V1.vehicle_id, V2.vehicle_id]
    assert await presence.positions(ACME, both) == {V1.vehicle_id: MUMBAI, V2.vehicle_id: DELHI}
    clock.advance(0.1)
    assert await presence.positions(ACME, both) == {V2.vehicle_id: DELHI}
    presence.report(ACME, V1, THANE)
    assert await presence.positions(ACME, both) == {V1.vehicle_id: THANE, V2.vehicle_id: DELHI}


async def test_positions_are_the_tenants_own(presence: Presence) -> None:
    presence.report(ACME, V1, MUMBAI)
    assert await presence.positions(OTHER, [V1.vehicle_id]) == {}
    presence.report(OTHER, V1, DELHI)
    assert await presence.positions(ACME, [V1.vehicle_id]) == {V1.vehicle_id: MUMBAI}


async def test_as_many_positions_as_may_be_asked_for_are_told_and_more_are_refused(presence: Presence) -> None:
    vehicles = [vehicle(f"v{number}") for number in range(MAX_POSITIONS + 1)]
    for number, each in enumerate(vehicles):
        presence.report(ACME, each, east(number))
    asked = [each.vehicle_id for each in vehicles]
    assert await presence.positions(ACME, asked[:-1]) == {id_: east(number) for number, id_ in enumerate(asked[:-1])}
    with pytest.raises(ValueError, match="more than"):
        await presence.positions(ACME, asked)


# --- Trips -----------------------------------------------------------------------------------------------------------


async def test_an_engaged_vehicle_is_not_found_until_its_trip_ends(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    presence.engage(ACME, V1.vehicle_id)
    assert await found(presence) == []
    assert await presence.available(ACME, T1) == []
    presence.report(ACME, V1, THANE)
    await presence.go_offline(ACME, T1)
    await presence.go_online(ACME, T1)
    assert await found(presence) == []
    presence.release(ACME, V1.vehicle_id)
    assert await presence.available(ACME, T1) == [(V1, THANE)]
    assert await found(presence) == ["v1"]


async def test_a_vehicle_can_be_engaged_before_anything_is_known_of_it(presence: Presence) -> None:
    presence.engage(ACME, V1.vehicle_id)
    await presence.go_online(ACME, T1)
    assert presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == []
    presence.release(ACME, V1.vehicle_id)
    assert await found(presence) == ["v1"]


async def test_a_trip_outlasts_position_and_transporter(presence: Presence, clock: ManualClock) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    presence.engage(ACME, V1.vehicle_id)
    presence.engage(ACME, V1.vehicle_id)
    clock.advance(1_000)
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == []
    presence.release(ACME, V1.vehicle_id)
    assert await found(presence) == ["v1"]


async def test_the_end_of_a_trip_does_not_bring_a_stale_position_back(presence: Presence, clock: ManualClock) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    presence.engage(ACME, V1.vehicle_id)
    clock.advance(60)
    presence.release(ACME, V1.vehicle_id)
    assert await found(presence) == []


async def test_releasing_what_is_not_engaged_does_nothing(presence: Presence) -> None:
    presence.release(ACME, V1.vehicle_id)
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    presence.release(ACME, V1.vehicle_id)
    assert await found(presence) == ["v1"]


async def test_synchronizing_engages_those_named_and_releases_the_others(
    presence: Presence, clock: ManualClock
) -> None:
    await place(presence, [(V1, MUMBAI), (V2, MUMBAI), (V3, MUMBAI)])
    presence.engage(ACME, V1.vehicle_id)
    presence.engage(ACME, V2.vehicle_id)
    presence.engage(OTHER, V3.vehicle_id)
    clock.advance(11)
    await presence.sync_engaged([(ACME, V2.vehicle_id), (ACME, V3.vehicle_id), (OTHER, VehicleId("unheard of"))])
    assert await found(presence) == ["v1"]
    await presence.sync_engaged([])
    assert await found(presence) == ["v1", "v2", "v3"]
    await presence.go_online(OTHER, T3)
    presence.report(OTHER, V3, MUMBAI)
    assert await found(presence, OTHER) == ["v3"]


async def test_synchronizing_engages_where_nothing_else_is_known(presence: Presence) -> None:
    await presence.sync_engaged([(ACME, V1.vehicle_id)])
    await place(presence, [(V1, MUMBAI), (V2, MUMBAI)])
    assert await found(presence) == ["v2"]


async def test_synchronizing_leaves_alone_what_was_engaged_within_the_last_10_s(
    presence: Presence, clock: ManualClock
) -> None:
    await place(presence, [(V1, MUMBAI), (V2, MUMBAI)])
    presence.engage(ACME, V1.vehicle_id)
    clock.advance(5)
    presence.engage(ACME, V2.vehicle_id)
    clock.advance(5)
    await presence.sync_engaged([(ACME, V2.vehicle_id)])
    await presence.sync_engaged([])
    assert await found(presence) == []
    clock.advance(0.1)
    await presence.sync_engaged([])
    assert await found(presence) == ["v1"]
    clock.advance(5)
    await presence.sync_engaged([])
    assert await found(presence) == ["v1", "v2"]


async def test_synchronizing_keeps_what_is_engaged_engaged(presence: Presence, clock: ManualClock) -> None:
    await place(presence, [(V1, MUMBAI)])
    presence.engage(ACME, V1.vehicle_id)
    for _ in range(3):
        clock.advance(15)
        await presence.sync_engaged({(ACME, V1.vehicle_id)})
        assert await found(presence) == []
    presence.release(ACME, V1.vehicle_id)
    assert await found(presence) == ["v1"]


# --- Drivers who are connected ---------------------------------------------------------------------------------------

D1, D2, D3 = DriverId("d1"), DriverId("d2"), DriverId("d3")


async def test_a_driver_is_connected_from_coming_to_a_node_to_leaving_it(presence: Presence) -> None:
    assert await presence.connected_drivers(ACME, [D1, D2], [1]) == set()
    await presence.note_drivers(1, ACME, [D1, D2], [])
    assert await presence.connected_drivers(ACME, [D1, D2, D3], [1]) == {D1, D2}
    assert await presence.connected_drivers(ACME, [D1], [1]) == {D1}
    await presence.note_drivers(1, ACME, [D3, D1], [D2])
    await presence.note_drivers(1, ACME, [], [D2])
    assert await presence.connected_drivers(ACME, [D1, D2, D3], [1]) == {D1, D3}


async def test_of_nodes_that_are_not_asked_for_nothing_counts(presence: Presence) -> None:
    """So the drivers of a node that has died go with it."""
    await presence.note_drivers(1, ACME, [D1, D2], [])
    await presence.note_drivers(2, ACME, [D1], [])
    assert await presence.connected_drivers(ACME, [D1, D2], [1, 2, 3]) == {D1, D2}
    assert await presence.connected_drivers(ACME, [D1, D2], [2, 3]) == {D1}
    assert await presence.connected_drivers(ACME, [D1, D2], [3]) == set()
    assert await presence.connected_drivers(ACME, [D1, D2], []) == set()


async def test_who_leaves_one_node_of_two_is_still_connected(presence: Presence) -> None:
    for node in (1, 2):
        await presence.note_drivers(node, ACME, [D1], [])
    await presence.note_drivers(1, ACME, [], [D1])
    assert await presence.connected_drivers(ACME, [D1], [1, 2]) == {D1}
    await presence.note_drivers(2, ACME, [], [D1])
    assert await presence.connected_drivers(ACME, [D1], [1, 2]) == set()


async def test_synchronizing_drivers_notes_those_named_and_no_others_and_says_whether_it_had_to(
    presence: Presence,
) -> None:
    await presence.note_drivers(1, ACME, [D1, D2], [])
    await presence.note_drivers(2, ACME, [D3], [])
    assert not await presence.sync_drivers(1, ACME, {D1, D2})
    assert await presence.sync_drivers(1, ACME, {D1})
    assert await presence.connected_drivers(ACME, [D1, D2, D3], [1, 2]) == {D1, D3}
    assert await presence.sync_drivers(1, ACME, {D1, D2})
    assert await presence.sync_drivers(1, ACME, {D1, D3})
    assert await presence.connected_drivers(ACME, [D1, D2, D3], [1]) == {D1, D3}
    assert await presence.sync_drivers(1, ACME, {D1, D2, D3})
    assert await presence.connected_drivers(ACME, [D1, D2, D3], [1]) == {D1, D2, D3}
    assert await presence.sync_drivers(1, ACME, ())
    assert await presence.connected_drivers(ACME, [D1, D2, D3], [1]) == set()
    assert not await presence.sync_drivers(1, ACME, ())


async def test_a_driver_of_another_tenant_is_another_driver(presence: Presence) -> None:
    await presence.note_drivers(1, ACME, [D1], [])
    assert await presence.connected_drivers(OTHER, [D1], [1]) == set()
    await presence.note_drivers(1, OTHER, [], [D1])
    assert await presence.sync_drivers(1, OTHER, {D2})
    assert await presence.connected_drivers(ACME, [D1, D2], [1]) == {D1}


async def test_drivers_by_the_thousand(presence: Presence) -> None:
    crowd = [DriverId(f"driver-{number}") for number in range(12_000)]
    await presence.note_drivers(1, ACME, crowd[:9_000], [])
    assert await presence.sync_drivers(1, ACME, set(crowd))
    assert await presence.connected_drivers(ACME, [*crowd, D1], [1, 2]) == {*crowd}
    await presence.note_drivers(1, ACME, [], crowd[1:])
    assert await presence.connected_drivers(ACME, crowd, [1]) == {crowd[0]}


# --- Toggles ---------------------------------------------------------------------------------------------------------


async def test_toggles_are_counted_up_to_the_limit_and_then_it_says_how_long_to_wait(
    presence: Presence, clock: ManualClock
) -> None:
    for _ in range(3):
        assert await presence.count_toggle(ACME, T1, limit=3, window_s=60) is None
        clock.advance(1)
    assert await presence.count_toggle(ACME, T1, limit=3, window_s=60) == 57_000
    clock.advance(56.9)
    assert await presence.count_toggle(ACME, T1, limit=3, window_s=60) == 100
    clock.advance(0.1)
    assert await presence.count_toggle(ACME, T1, limit=3, window_s=60) is None
    assert await presence.count_toggle(ACME, T1, limit=3, window_s=60) == 1_000


async def test_a_toggle_that_is_refused_does_not_count(presence: Presence, clock: ManualClock) -> None:
    assert await presence.count_toggle(ACME, T1, limit=1, window_s=10) is None
    clock.advance(5)
    for _ in range(5):
        assert await presence.count_toggle(ACME, T1, limit=1, window_s=10) == 5_000
    clock.advance(5)
    assert await presence.count_toggle(ACME, T1, limit=1, window_s=10) is None


async def test_toggles_are_counted_for_each_transporter_of_each_tenant(presence: Presence) -> None:
    for tenant_id, transporter_id in ((ACME, T1), (ACME, T2), (OTHER, T1)):
        assert await presence.count_toggle(tenant_id, transporter_id, limit=1, window_s=10) is None
        assert await presence.count_toggle(tenant_id, transporter_id, limit=1, window_s=10) == 10_000


# --- Vehicles that change --------------------------------------------------------------------------------------------


async def test_a_vehicle_is_where_it_reported_last(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, DELHI)
    assert await presence.available(ACME, T1) == [(V1, DELHI)]
    presence.report(ACME, V1, MUMBAI)
    assert (await nearest(presence, DELHI, radius_m=1_000)).candidates == ()
    assert (await nearest(presence, MUMBAI, radius_m=1_000)).candidates[0].distance_m == 0


async def test_a_vehicle_sold_is_the_new_transporters_alone(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    await presence.go_online(ACME, T2)
    presence.report(ACME, V1, MUMBAI)
    assert await presence.available(ACME, T1) == [(V1, MUMBAI)]
    sold = vehicle("v1", T2)
    assert presence.report(ACME, sold, MUMBAI)
    assert (await nearest(presence)).candidates == (Candidate(0, T2, sold.vehicle_id, "van"),)
    assert await presence.available(ACME, T1) == []
    assert await presence.available(ACME, T2) == [(sold, MUMBAI)]
    await presence.go_offline(ACME, T1)
    assert await found(presence) == ["v1"]
    await presence.go_offline(ACME, T2)
    assert await found(presence) == []


async def test_a_vehicle_sold_to_somebody_offline_is_not_found_until_they_come_online(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == ["v1"]
    presence.report(ACME, vehicle("v1", T2), MUMBAI)
    assert await found(presence) == []
    await presence.go_online(ACME, T2)
    assert await found(presence) == ["v1"]


async def test_a_vehicle_of_another_type_is_found_as_that_alone(presence: Presence) -> None:
    await presence.go_online(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    assert await found(presence) == ["v1"]
    rebuilt = vehicle("v1", T1, "truck")
    assert presence.report(ACME, rebuilt, MUMBAI)
    assert await found(presence, vehicle_type="van") == []
    assert await found(presence, vehicle_type="truck") == ["v1"]
    assert await presence.available(ACME, T1) == [(rebuilt, MUMBAI)]


# --- The nearest -----------------------------------------------------------------------------------------------------


async def place(presence: Presence, where: Iterable[tuple[Vehicle, Point]]) -> None:
    for each, position in where:
        await presence.go_online(ACME, each.transporter_id)
        presence.report(ACME, each, position)


async def test_each_transporter_comes_once_with_its_nearest_vehicle_that_matches(presence: Presence) -> None:
    await place(
        presence,
        [
            (vehicle("far", T1), east(3_000)),
            (vehicle("near", T1), east(1_000)),
            (vehicle("nearer", T1, "truck"), east(500)),
            (vehicle("between", T2), east(2_000)),
        ],
    )
    nearby = await nearest(presence, east(0))
    assert [(each.distance_m, each.transporter_id, each.vehicle_id) for each in nearby.candidates] == [
        (1_000, T1, "near"),
        (2_000, T2, "between"),
    ]
    assert not nearby.more


async def test_several_types_are_one_search(presence: Presence) -> None:
    await place(presence, [(vehicle("v1", T1, "truck"), east(10)), (vehicle("v2", T2, "van"), east(20))])
    nearby = await nearest(presence, east(0), vehicle_types=["van", "truck", "trailer"])
    assert [each.vehicle_type for each in nearby.candidates] == ["truck", "van"]
    for number in range(3, 9):
        of_type = ("van", "truck")[number % 2]
        await place(presence, [(vehicle(f"v{number}", TransporterId(f"t{number}"), of_type), east(number * 10))])
    for limit in range(1, 9):
        nearby = await nearest(presence, east(0), vehicle_types=["van", "truck"], limit=limit)
        assert [each.distance_m for each in nearby.candidates] == [number * 10 for number in range(1, limit + 1)]


async def test_equally_near_to_the_metre_come_in_the_order_of_their_ids(presence: Presence) -> None:
    """Also where the exact distance says otherwise, and where only part of them is asked for."""
    await place(
        presence,
        [
            (vehicle("v9", T1), east(100.2)),
            (vehicle("v8", T1), east(100.3)),
            (vehicle("v7", T2), east(100.1)),
            (vehicle("v6", T3), east(99.8)),
        ],
    )
    ranked = [(100, T1, "v8"), (100, T2, "v7"), (100, T3, "v6")]
    for limit in (1, 2, 3):
        nearby = await nearest(presence, east(0), limit=limit)
        assert [(each.distance_m, each.transporter_id, each.vehicle_id) for each in nearby.candidates] == ranked[:limit]
        assert nearby.more == (limit < 3)


async def test_more_counts_transporters_and_not_their_vehicles(presence: Presence) -> None:
    await place(presence, [(vehicle(f"v{number}", T1), east(number * 1_000)) for number in range(5)])
    assert not (await nearest(presence, east(0), limit=1)).more
    await place(presence, [(vehicle("w", T2), east(50_000))])
    assert (await nearest(presence, east(0), limit=1)).more
    assert not (await nearest(presence, east(0), limit=1, radius_m=49_000)).more
    assert not (await nearest(presence, east(0), limit=1, exclude=[T2])).more
    assert not (await nearest(presence, east(0), limit=2)).more
    await presence.go_offline(ACME, T2)
    assert not (await nearest(presence, east(0), limit=1)).more


async def test_the_excluded_make_room_for_others(presence: Presence) -> None:
    await place(presence, [(V1, east(100)), (V2, east(200)), (V3, east(300))])
    for exclude in ([T1], {T1}, {T1: None}.keys(), (T1, T1, TransporterId("unheard of"))):
        nearby = await nearest(presence, east(0), exclude=exclude, limit=1)
        assert [each.transporter_id for each in nearby.candidates] == [T2]
        assert nearby.more


async def test_the_radius_includes_its_edge(presence: Presence) -> None:
    await place(presence, [(V1, THANE)])
    edge_m = distance_m(MUMBAI, THANE)
    assert len((await nearest(presence, radius_m=edge_m)).candidates) == 1
    assert (await nearest(presence, radius_m=nextafter(edge_m, 0.0))).candidates == ()


async def test_what_is_near_is_found_where_the_map_is_cut(presence: Presence) -> None:
    """At the antimeridian."""
    where = [(V1, Point(-17.0, 179.999)), (V2, Point(-17.0, -179.999)), (V3, Point(-17.0, 180.0))]
    for center_lng in (-179.9999, -180.0, 179.9999, 180.0):
        await place(presence, where)
        nearby = await nearest(presence, Point(-17.0, center_lng), radius_m=1_000)
        assert {each.transporter_id for each in nearby.candidates} == {T1, T2, T3}


async def test_at_the_poles_everybody_is_found_too(presence: Presence) -> None:
    await place(presence, [(V1, Point(89.9, 10.0)), (V2, Point(-90.0, 0.0))])
    for center in (Point(90.0, 0.0), Point(-89.0, 180.0)):
        assert {each.transporter_id for each in (await nearest(presence, center)).candidates} == {T1, T2}


async def test_whoever_is_nearest_is_found_wherever_they_are_and_however_far(presence: Presence) -> None:
    """Up to 85 degrees of latitude, to the metre, against brute force."""
    rng = Random(1)

    def anywhere() -> Point:
        return Point(rng.uniform(-85, 85), rng.choice((rng.uniform(-180, 180), rng.uniform(77, 79))))

    where = [(vehicle(f"v{number}", TransporterId(f"t{number}")), anywhere()) for number in range(300)]
    await place(presence, where)
    for _ in range(100):
        center = anywhere()
        radius_m = rng.choice((None, 10 ** rng.uniform(4, 7.3)))
        candidates = [
            Candidate(round(distance_m(center, point)), each.transporter_id, each.vehicle_id, each.vehicle_type)
            for each, point in where
            if radius_m is None or distance_m(center, point) <= radius_m
        ]
        limit = rng.choice((3, 30, 300))
        expected = Nearby(rank(candidates, (), limit), more=len(candidates) > limit)
        assert await nearest(presence, center, radius_m=radius_m, limit=limit) == expected


async def test_the_other_side_of_the_world_is_within_no_radius_at_all(presence: Presence) -> None:
    await place(presence, [(V1, Point(20.0, 78.0))])
    assert [each.transporter_id for each in (await nearest(presence, Point(-20.0, -102.0))).candidates] == [T1]


async def test_a_crowd_in_one_place_is_ranked_by_id_and_all_of_it_is_looked_at(presence: Presence) -> None:
    """More of them than any search should have to take at once."""
    crowd = [vehicle(f"v{number:05}", TransporterId(f"t{number % 2_500:05}")) for number in range(10_000)]
    await place(presence, [(each, MUMBAI) for each in crowd])
    await place(presence, [(vehicle("far", T1), THANE)])
    nearby = await nearest(presence, limit=3)
    assert [(each.transporter_id, each.vehicle_id) for each in nearby.candidates] == [
        ("t00000", "v00000"),
        ("t00001", "v00001"),
        ("t00002", "v00002"),
    ]
    assert nearby.more
    exclude = {each.transporter_id for each in crowd}
    assert await nearest(presence, exclude=exclude, limit=3) == Nearby(
        (Candidate(round(distance_m(MUMBAI, THANE)), T1, VehicleId("far"), "van"),), more=False
    )


# --- Who is left out -------------------------------------------------------------------------------------------------


async def left_out(
    presence: Presence,
    *,
    vehicle_types: Collection[str] = ("van",),
    radius_m: float | None = None,
    exclude: Collection[TransporterId] = (),
    limit: int = 100,
    left_out_limit: int = 20,
) -> list[tuple[int, str, str]]:
    """How far from the origin each stands, by which vehicle, and why it is left out."""
    nearby = await nearest(
        presence,
        east(0),
        vehicle_types=vehicle_types,
        radius_m=radius_m,
        exclude=exclude,
        limit=limit,
        left_out_limit=left_out_limit,
    )
    assert not {each.transporter_id for each in nearby.left_out} & {*exclude, *offered(nearby)}
    return [(each.distance_m, each.vehicle_id, each.reason) for each in nearby.left_out]


def offered(nearby: Nearby) -> list[TransporterId]:
    return [candidate.transporter_id for candidate in nearby.candidates]


def fleet(count: int, first: int = 1) -> list[Vehicle]:
    """Vehicles of as many transporters, named so that their order is that of their numbers."""
    return [vehicle(f"v{n:03}", TransporterId(f"t{n:03}")) for n in range(first, first + count)]


async def test_each_who_is_left_out_is_told_with_the_reason(presence: Presence, clock: ManualClock) -> None:
    near, offline, silent, on_trip, lapsed, second, far = fleet(7)
    await place(presence, [(silent, east(300)), (lapsed, east(500))])
    clock.advance(120)
    await presence.go_online(ACME, lapsed.transporter_id)
    presence.report(ACME, silent, east(300))
    others = [(near, 100), (offline, 200), (on_trip, 400), (second, 600), (far, 1_001)]
    await place(presence, [(each, east(metres)) for each, metres in others])
    await presence.go_offline(ACME, offline.transporter_id)
    presence.engage(ACME, on_trip.vehicle_id)
    assert await left_out(presence, radius_m=1_000, limit=1) == [
        (200, "v002", "offline"),
        (300, "v003", "offline"),
        (400, "v004", "on_trip"),
        (500, "v005", "no_signal"),
        (600, "v006", "over_limit"),
        (1_001, "v007", "out_of_range"),
    ]


async def test_the_first_reason_that_holds_is_told(presence: Presence, clock: ManualClock) -> None:
    """Offline, on a trip, no signal, out of range."""
    await place(presence, [(V1, east(5_000))])
    presence.engage(ACME, V1.vehicle_id)
    clock.advance(60)
    assert await left_out(presence, radius_m=1_000) == [(5_000, "v1", "on_trip")]
    await presence.go_offline(ACME, T1)
    assert await left_out(presence, radius_m=1_000) == [(5_000, "v1", "offline")]
    await presence.go_online(ACME, T1)
    presence.release(ACME, V1.vehicle_id)
    assert await left_out(presence, radius_m=1_000) == [(5_000, "v1", "no_signal")]
    presence.report(ACME, V1, east(5_000))
    assert await left_out(presence, radius_m=1_000) == [(5_000, "v1", "out_of_range")]


async def test_a_position_too_old_to_count_is_remembered_for_ten_minutes(
    presence: Presence, clock: ManualClock
) -> None:
    await place(presence, [(V1, east(100))])
    clock.advance(60)
    await presence.go_online(ACME, T1)
    for seconds in (0, 540, 59.9):
        clock.advance(seconds)
        await presence.go_online(ACME, T1)
        await presence.sweep()
        assert await left_out(presence) == [(100, "v1", "no_signal")]
        assert await found(presence) == []
    clock.advance(0.1)
    assert await left_out(presence) == []
    presence.report(ACME, V1, east(200))
    assert await left_out(presence) == []
    assert await found(presence) == ["v1"]


async def test_one_with_another_vehicle_that_matches_is_a_candidate_and_not_left_out(presence: Presence) -> None:
    await place(presence, [(vehicle("near", T1), east(100)), (vehicle("far", T1), east(5_000)), (V2, east(200))])
    presence.engage(ACME, VehicleId("near"))
    nearby = await nearest(presence, east(0), left_out_limit=20)
    assert (offered(nearby), nearby.left_out) == ([T2, T1], ())
    assert await left_out(presence, radius_m=1_000) == [(100, "near", "on_trip")]
    assert await left_out(presence, limit=1) == [(100, "near", "on_trip")]


async def test_each_left_out_comes_once_with_its_nearest_vehicle_and_ties_go_by_id(presence: Presence) -> None:
    await place(
        presence,
        [
            (vehicle("v9", T1), east(100.2)),
            (vehicle("v8", T1), east(100.3)),
            (vehicle("v7", T2), east(100.1)),
            (vehicle("v6", T3), east(99.8)),
            (vehicle("v5", T3), east(99.0)),
            (vehicle("v4", T1), east(101.0)),
        ],
    )
    presence.engage(ACME, VehicleId("v8"))
    expected = [(99, "v5", "out_of_range"), (100, "v8", "on_trip"), (100, "v7", "out_of_range")]
    for limit in range(1, 4):
        assert await left_out(presence, radius_m=10, left_out_limit=limit) == expected[:limit]


async def test_no_more_are_told_than_asked_for_and_those_are_the_nearest(presence: Presence) -> None:
    """Wherever the candidates end: at the limit, at the radius, or with the last of all."""
    vans = fleet(60)
    await place(presence, [(each, east(number * 100)) for number, each in enumerate(vans, start=1)])
    for each in vans[:10]:
        presence.engage(ACME, each.vehicle_id)
    for each in vans[30:40]:
        await presence.go_offline(ACME, each.transporter_id)
    free = [*range(11, 31), *range(41, 61)]
    for limit, radius_m in ((5, None), (5, 2_500), (100, 2_500), (100, 500), (100, None), (1, 50)):
        taken = [number for number in free if radius_m is None or number * 100 <= radius_m][:limit]
        rest = [number * 100 for number in range(1, 61) if number not in taken]
        for count in (0, 1, 20, 100):
            told = await left_out(presence, limit=limit, radius_m=radius_m, left_out_limit=count)
            assert [metres for metres, _, _ in told] == rest[:count]


async def test_the_excluded_and_other_types_and_tenants_are_not_left_out(presence: Presence) -> None:
    truck = vehicle("truck", TransporterId("t4"), "truck")
    await place(presence, [(V1, east(100)), (V2, east(200)), (V3, east(300)), (truck, east(50))])
    presence.report(OTHER, vehicle("v9", TransporterId("t9")), east(10))
    assert await left_out(presence, exclude=[T1], limit=1) == [(300, "v3", "over_limit")]
    assert await left_out(presence, exclude=[T1], limit=1, vehicle_types=["van", "truck"]) == [
        (200, "v2", "over_limit"),
        (300, "v3", "over_limit"),
    ]
    assert await left_out(presence, vehicle_types=[]) == []


async def test_a_vehicle_that_was_anothers_or_of_another_type_is_not_left_out_as_that(presence: Presence) -> None:
    await place(presence, [(V1, east(100)), (V2, east(200))])
    assert await found(presence) == ["v2", "v1"]
    await place(presence, [(vehicle("v1", T2), east(100)), (vehicle("v2", T2, "truck"), east(200))])
    await presence.go_offline(ACME, T1)
    assert await left_out(presence) == []
    assert await left_out(presence, radius_m=10) == [(100, "v1", "out_of_range")]


async def test_who_stands_behind_99_vehicles_of_the_excluded_is_left_out_too(presence: Presence) -> None:
    many = [vehicle(f"w{number:03}", T1) for number in range(99)]
    await place(presence, [(each, east(2_000 + number * 10)) for number, each in enumerate(many)])
    await place(presence, [(V2, east(10_000)), (V3, east(500))])
    presence.engage(ACME, V3.vehicle_id)
    assert await left_out(presence, exclude=[T1], radius_m=1_000) == [
        (500, "v3", "on_trip"),
        (10_000, "v2", "out_of_range"),
    ]


async def test_who_is_left_out_is_found_wherever_they_are(presence: Presence) -> None:
    """Against brute force: fleets that are large and small, crowded and sparse, on trips or not."""
    rng = Random(2)
    where: list[tuple[Vehicle, Point]] = []
    for number in range(400):
        transporter = TransporterId(f"t{rng.randrange(250):03}")
        scale = rng.choice((0.01, 0.1, 1.0))
        where.append((vehicle(f"v{number:03}", transporter), Point(rng.gauss(0, scale), rng.gauss(0, scale))))
    await place(presence, where)
    gone = {TransporterId(f"t{number:03}") for number in range(0, 250, 5)}
    for each in gone:
        await presence.go_offline(ACME, each)
    busy = {each.vehicle_id for each, _ in where[::4]}
    for vehicle_id in busy:
        presence.engage(ACME, vehicle_id)
    for _ in range(60):
        center = Point(rng.gauss(0, 0.3), rng.gauss(0, 0.3))
        radius_m = rng.choice((None, 10 ** rng.uniform(2, 5)))
        exclude = {TransporterId(f"t{rng.randrange(250):03}") for _ in range(rng.choice((0, 10)))}
        limit, left_out_limit = rng.choice((1, 10, 300)), rng.choice((5, 20))
        expected = by_brute_force(
            where, center, radius_m, exclude, limit, left_out_limit, lambda each: reason_of(each, gone, busy)
        )
        assert expected == await nearest(
            presence, center, radius_m=radius_m, exclude=exclude, limit=limit, left_out_limit=left_out_limit
        )


def reason_of(
    each: Vehicle, offline: Collection[TransporterId], engaged: Collection[VehicleId]
) -> LeftOutReason | None:
    if each.transporter_id in offline:
        return LeftOutReason.OFFLINE
    return LeftOutReason.ON_TRIP if each.vehicle_id in engaged else None


def by_brute_force(
    where: Iterable[tuple[Vehicle, Point]],
    center: Point,
    radius_m: float | None,
    exclude: Collection[TransporterId],
    limit: int,
    left_out_limit: int,
    obstacle: Callable[[Vehicle], LeftOutReason | None],
) -> Nearby:
    """What a lookup should say, if `obstacle` is why a vehicle cannot be found at all."""
    candidates: list[Candidate] = []
    others: list[LeftOut] = []
    for each, position in where:
        away_m = distance_m(center, position)
        found = (round(away_m), each.transporter_id, each.vehicle_id, each.vehicle_type)
        reason = obstacle(each)
        if reason is None and (radius_m is None or away_m <= radius_m):
            candidates.append(Candidate(*found))
            reason = LeftOutReason.OVER_LIMIT
        others.append(LeftOut(*found, reason or LeftOutReason.OUT_OF_RANGE))
    everybody = rank(candidates, exclude, len(candidates))
    chosen = {*exclude, *(candidate.transporter_id for candidate in everybody[:limit])}
    return Nearby(everybody[:limit], len(everybody) > limit, rank(others, chosen, left_out_limit))


# --- All of it against a model ---------------------------------------------------------------------------------------

tenants = st.sampled_from((ACME, ACME, ACME, OTHER))
transporters = st.sampled_from((T1, T2, T3, TransporterId("t4")))
vehicle_ids = st.sampled_from([VehicleId(f"v{number}") for number in range(8)])
types = st.sampled_from(("van", "truck"))
# Steps of less than a metre and of some hundred: ties to the metre, within and across the cells of an index.
points = st.builds(
    lambda small, large: Point(0.0, small * 3e-6 + large * 0.005), st.integers(-4, 4), st.integers(-4, 4)
)


class PresenceMachine(RuleBasedStateMachine):
    """The adapter against brute force over what it was told."""

    turn = 1_000

    def __init__(self, make: Callable[[ManualClock], Presence] = MemoryPresence) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(memory, "_LOOKS_PER_TURN", self.turn)
        self.patch.setattr(memory, "_CHANGES_PER_TURN", self.turn)
        self.clock = ManualClock()
        self.presence = make(self.clock)
        self.heard: dict[tuple[TenantId, TransporterId], float] = {}
        self.seen: dict[tuple[TenantId, VehicleId], tuple[float, Vehicle, Point]] = {}
        self.engaged: set[tuple[TenantId, VehicleId]] = set()

    def teardown(self) -> None:
        self.runner.run(self.presence.close())
        self.runner.close()
        self.patch.undo()

    def tell(self, call: Callable[[], T]) -> T:
        """Call it on the event loop."""

        async def tell() -> T:
            return call()

        return self.runner.run(tell())

    def online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        return self.clock.now_s - self.heard.get((tenant_id, transporter_id), -inf) < 120

    def matching(self, tenant_id: TenantId) -> list[tuple[Vehicle, Point]]:
        return [
            (each, position)
            for (tenant, vehicle_id), (at_s, each, position) in self.seen.items()
            if tenant == tenant_id
            and self.clock.now_s - at_s < 60
            and self.online(tenant_id, each.transporter_id)
            and (tenant_id, vehicle_id) not in self.engaged
        ]

    def obstacle(self, tenant_id: TenantId, each: Vehicle) -> LeftOutReason | None:
        if not self.online(tenant_id, each.transporter_id):
            return LeftOutReason.OFFLINE
        if (tenant_id, each.vehicle_id) in self.engaged:
            return LeftOutReason.ON_TRIP
        at_s, _, _ = self.seen[tenant_id, each.vehicle_id]
        return LeftOutReason.NO_SIGNAL if self.clock.now_s - at_s >= 60 else None

    @rule(seconds=st.sampled_from((1, 30, 59, 60, 119, 120, 600)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(tenant_id=tenants, transporter_id=transporters)
    def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        changed = not self.online(tenant_id, transporter_id)
        assert self.runner.run(self.presence.go_online(tenant_id, transporter_id)) == changed
        self.heard[tenant_id, transporter_id] = self.clock.now_s

    @rule(tenant_id=tenants, transporter_id=transporters)
    def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        changed = self.online(tenant_id, transporter_id)
        assert self.runner.run(self.presence.go_offline(tenant_id, transporter_id)) == changed
        self.heard.pop((tenant_id, transporter_id), None)

    @rule(tenant_id=tenants, transporter_id=transporters)
    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        self.tell(lambda: self.presence.heard_from(tenant_id, transporter_id))
        if self.online(tenant_id, transporter_id):
            self.heard[tenant_id, transporter_id] = self.clock.now_s

    @rule(tenant_id=tenants, each=st.builds(Vehicle, vehicle_ids, transporters, types), position=points)
    def report(self, tenant_id: TenantId, each: Vehicle, position: Point) -> None:
        at_s, known, _ = self.seen.get((tenant_id, each.vehicle_id), (-inf, None, None))
        new = self.clock.now_s - at_s >= 60 or known != each
        assert self.tell(lambda: self.presence.report(tenant_id, each, position)) == new
        self.seen[tenant_id, each.vehicle_id] = (self.clock.now_s, each, position)

    @rule(tenant_id=tenants, vehicle_id=vehicle_ids)
    def engage(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        self.tell(lambda: self.presence.engage(tenant_id, vehicle_id))
        self.engaged.add((tenant_id, vehicle_id))

    @rule(tenant_id=tenants, vehicle_id=vehicle_ids)
    def release(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        self.tell(lambda: self.presence.release(tenant_id, vehicle_id))
        self.engaged.discard((tenant_id, vehicle_id))

    @rule(tenant_id=tenants, transporter_id=transporters)
    def look_at_one(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        is_online = self.runner.run(self.presence.is_online(tenant_id, transporter_id))
        assert is_online == self.online(tenant_id, transporter_id)
        available = self.runner.run(self.presence.available(tenant_id, transporter_id))
        expected = [each for each in self.matching(tenant_id) if each[0].transporter_id == transporter_id]
        assert sorted(available, key=repr) == sorted(expected, key=repr)

    @rule(
        tenant_id=tenants,
        center=points,
        vehicle_types=st.lists(types, max_size=3),
        radius_m=st.sampled_from((None, None, 0.0, 1.0, 600.0, 3_000.0)),
        exclude=st.lists(transporters, max_size=2),
        limit=st.integers(1, 5),
        left_out_limit=st.integers(0, 4),
    )
    def look_around(
        self,
        tenant_id: TenantId,
        center: Point,
        vehicle_types: list[str],
        radius_m: float | None,
        exclude: list[TransporterId],
        limit: int,
        left_out_limit: int,
    ) -> None:
        nearby = self.runner.run(
            self.presence.nearest(
                tenant_id,
                center,
                vehicle_types=vehicle_types,
                radius_m=radius_m,
                exclude=exclude,
                limit=limit,
                left_out_limit=left_out_limit,
            )
        )
        remembered = [
            (each, position)
            for (tenant, _), (at_s, each, position) in self.seen.items()
            if tenant == tenant_id and each.vehicle_type in vehicle_types and self.clock.now_s - at_s < 660
        ]
        assert nearby == by_brute_force(
            remembered, center, radius_m, exclude, limit, left_out_limit, lambda each: self.obstacle(tenant_id, each)
        )

    @rule()
    def sweep(self) -> None:
        self.runner.run(self.presence.sweep())
        assert self.presence.vehicle_count == sum(self.clock.now_s - at_s < 60 for at_s, _, _ in self.seen.values())
        assert self.presence.online_count == sum(self.online(*key) for key in self.heard)
        if isinstance(self.presence, MemoryPresence):
            for tenant in self.presence._tenants.values():
                assert tenant.grid._records.keys() | tenant.hidden._records.keys() == tenant.tracked.keys()
                assert not tenant.grid._records.keys() & tenant.hidden._records.keys()


class OneLookPerTurnMachine(PresenceMachine):
    turn = 1


PresenceMachine.TestCase.settings = OneLookPerTurnMachine.TestCase.settings = settings(deadline=None)
TestAgainstAModel = PresenceMachine.TestCase
TestAgainstAModelInTheShortestTurns = OneLookPerTurnMachine.TestCase


def test_redis_against_the_model(redis_url: str) -> None:
    def machine() -> PresenceMachine:
        asyncio.run(emptied(redis_url))
        return PresenceMachine(lambda clock: RedisPresence(redis_url, clock, now_ms=clock.now_ms))

    run_state_machine_as_test(machine, settings=settings(max_examples=40, deadline=None))  # type: ignore[arg-type]


# --- In memory: nothing leaks ----------------------------------------------------------------------------------------


def empty(presence: MemoryPresence) -> bool:
    return (presence.vehicle_count, presence.online_count, presence._tenants, presence._drivers) == (0, 0, {}, {})


async def test_after_all_times_to_live_a_sweep_leaves_nothing(clock: ManualClock) -> None:
    presence = MemoryPresence(clock)
    rng = Random(1)
    for number in range(3_000):
        tenant_id = TenantId(f"tenant-{number % 7}")
        transporter_id = TransporterId(f"t{rng.randrange(400)}")
        if number % 3:
            await presence.go_online(tenant_id, transporter_id)
        for _ in range(3):
            each = vehicle(f"v{rng.randrange(2_000)}", TransporterId(f"t{rng.randrange(400)}"), rng.choice("abc"))
            presence.report(tenant_id, each, Point(rng.uniform(-90, 90), rng.uniform(-180, 180)))
        if number % 5 == 0:
            await presence.go_offline(tenant_id, transporter_id)
        if number % 100 == 0:
            clock.advance(1)
    assert presence.vehicle_count > 1_000
    assert presence.online_count > 1_000
    clock.advance(60)
    await presence.sweep()
    assert presence.vehicle_count == 0
    assert presence.online_count > 0
    clock.advance(60)
    await presence.sweep()
    assert (presence.vehicle_count, presence.online_count) == (0, 0)
    clock.advance(LAPSED_KEPT_S)
    await presence.sweep()
    assert empty(presence)


async def test_who_is_offline_or_stale_does_not_stay_in_the_way_of_lookups(clock: ManualClock) -> None:
    """Their vehicles leave the grid with their next report or the next sweep, not only with their tenant."""
    presence = MemoryPresence(clock)
    await place(presence, [(V1, MUMBAI), (V2, MUMBAI)])
    grid = presence._tenants[ACME].grid
    await presence.go_offline(ACME, T1)
    presence.report(ACME, V1, MUMBAI)
    assert V1.vehicle_id not in grid
    clock.advance(60)
    await presence.go_online(ACME, T1)
    presence.release(ACME, V1.vehicle_id)
    assert V1.vehicle_id not in grid
    assert V2.vehicle_id in grid
    await presence.sweep()
    assert len(grid) == 0


async def test_a_sweep_leaves_alone_what_is_fresh(clock: ManualClock) -> None:
    presence = MemoryPresence(clock, vehicle_ttl_s=10, transporter_ttl_s=20)
    await place(presence, [(V1, MUMBAI), (V2, MUMBAI)])
    clock.advance(9)
    presence.report(ACME, V1, MUMBAI)
    presence.heard_from(ACME, T1)
    clock.advance(1)
    await presence.sweep()
    assert (presence.vehicle_count, presence.online_count) == (1, 2)
    clock.advance(10)
    await presence.sweep()
    assert (presence.vehicle_count, presence.online_count) == (0, 1)


async def test_only_trips_hold_on_to_memory_and_their_end_lets_go(clock: ManualClock) -> None:
    presence = MemoryPresence(clock)
    presence.engage(ACME, V1.vehicle_id)
    await place(presence, [(V1, MUMBAI)])
    clock.advance(120)
    await presence.sweep()
    assert (presence.vehicle_count, presence.online_count) == (0, 0)
    clock.advance(LAPSED_KEPT_S)
    await presence.sweep()
    assert not empty(presence)
    presence.release(ACME, V1.vehicle_id)
    assert empty(presence)


async def test_questions_leave_nothing_behind(clock: ManualClock) -> None:
    presence = MemoryPresence(clock)
    await nearest(presence)
    await presence.available(ACME, T1)
    await presence.is_online(ACME, T1)
    await presence.positions(ACME, [V1.vehicle_id])
    await presence.go_offline(ACME, T1)
    presence.heard_from(ACME, T1)
    presence.release(ACME, V1.vehicle_id)
    await presence.connected_drivers(ACME, [D1], [1])
    assert empty(presence)


async def test_coming_and_going_leaves_nothing_behind(clock: ManualClock) -> None:
    presence = MemoryPresence(clock)
    await presence.go_online(ACME, T1)
    await presence.go_offline(ACME, T1)
    await presence.note_drivers(1, ACME, [D1], [])
    await presence.note_drivers(1, ACME, [], [D1])
    assert empty(presence)


async def test_who_has_not_toggled_for_long_is_not_remembered(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SWEEP_TOGGLES_ABOVE", 10)
    presence = MemoryPresence(clock)
    for number in range(100):
        assert await presence.count_toggle(ACME, TransporterId(f"t{number}"), limit=2, window_s=10) is None
        clock.advance(1)
    assert len(presence._toggles) <= 2 * 10 + 1
    clock.advance(-1)
    assert await presence.count_toggle(ACME, TransporterId("t99"), limit=1, window_s=10) == 10_000


# --- In memory: the loop goes on -------------------------------------------------------------------------------------


class Turns:
    """Counts how often the event loop comes round while something else is awaited."""

    def __init__(self) -> None:
        self.count = 0

    async def __aenter__(self) -> "Turns":
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _tick(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def test_a_lookup_through_a_crowd_it_refuses_lets_the_loop_go_on(clock: ManualClock) -> None:
    presence = MemoryPresence(clock)
    crowd = [vehicle(f"v{number:05}", TransporterId(f"t{number:05}")) for number in range(20_000)]
    await place(presence, [(each, Point(0.0, number * 0.001)) for number, each in enumerate(crowd)])
    exclude = {each.transporter_id for each in crowd[:-1]}
    async with Turns() as turns:
        nearby = await nearest(presence, east(0), exclude=exclude)
        assert turns.count > 10
    assert [each.vehicle_id for each in nearby.candidates] == ["v19999"]


async def test_a_large_fleet_comes_online_and_is_forgotten_in_turns(clock: ManualClock) -> None:
    presence = MemoryPresence(clock)
    for number in range(5_000):
        presence.report(ACME, vehicle(f"v{number}"), Point(0.0, number * 0.001))
    async with Turns() as turns:
        await presence.go_online(ACME, T1)
        assert turns.count > 5
    assert len(await presence.available(ACME, T1)) == 5_000
    for seconds in (120, LAPSED_KEPT_S):
        clock.advance(seconds)
        async with Turns() as turns:
            await presence.sweep()
            assert turns.count > 5
    assert empty(presence)


async def test_a_fleet_that_goes_while_it_is_still_coming_is_offline(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CHANGES_PER_TURN", 1)
    presence = MemoryPresence(clock)
    for number in range(10):
        presence.report(ACME, vehicle(f"v{number}"), Point(0.0, number * 0.001))
    coming = asyncio.create_task(presence.go_online(ACME, T1))
    await asyncio.sleep(0)
    assert await presence.go_offline(ACME, T1)
    assert await coming
    assert not await presence.is_online(ACME, T1)
    assert await found(presence) == []


async def test_a_vehicle_forgotten_and_back_while_its_fleet_comes_online_is_found(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CHANGES_PER_TURN", 1)
    presence = MemoryPresence(clock)
    presence.report(ACME, vehicle("v0"), DELHI)
    presence.report(ACME, V1, DELHI)
    coming = asyncio.create_task(presence.go_online(ACME, T1))
    await asyncio.sleep(0)
    clock.advance(60)
    presence._forget(presence._tenants[ACME].tracked[V1.vehicle_id])  # as a sweep does
    presence.report(ACME, V1, MUMBAI)
    await coming
    assert await found(presence) == ["v1"]


async def test_a_lookup_misses_nobody_who_drives_about_meanwhile(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves a cell that is still to be opened for one that was is found, at a place where it stood; also
    when the clock is too coarse to tell a report from the lookup's beginning."""
    monkeypatch.setattr(memory, "_LOOKS_PER_TURN", 1)
    presence = MemoryPresence(clock)
    rng = Random(1)
    fleet = [vehicle(f"v{number:02}", TransporterId(f"t{number:02}")) for number in range(60)]
    stood: dict[str, set[int]] = {each.vehicle_id: set() for each in fleet}

    async def drive(each: Vehicle) -> None:
        position = Point(0.0, rng.uniform(-0.3, 0.3))
        stood[each.vehicle_id].add(round(distance_m(east(0), position)))
        presence.report(ACME, each, position)

    for each in fleet:
        await presence.go_online(ACME, each.transporter_id)
        await drive(each)
    clock.advance(1)
    lookup = asyncio.create_task(nearest(presence, east(0), limit=60))
    turns = 0
    while not lookup.done():
        await asyncio.sleep(0)
        await drive(rng.choice(fleet))
        turns += 1
    nearby = await lookup
    assert turns > 30
    assert len(nearby.candidates) == 60
    assert not nearby.more
    assert all(each.distance_m in stood[each.vehicle_id] for each in nearby.candidates)


async def test_who_reports_during_a_lookup_and_does_not_match_is_not_taken(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_LOOKS_PER_TURN", 1)
    presence = MemoryPresence(clock)
    truck, far, engaged = vehicle("truck", T2, "truck"), vehicle("far", T2), vehicle("engaged", T2)
    await presence.go_online(OTHER, T2)
    presence.engage(ACME, engaged.vehicle_id)
    await place(presence, [(V1, east(0)), (vehicle("far", T2), east(5_000))])
    lookup = asyncio.create_task(nearest(presence, east(0), radius_m=1_000))
    await asyncio.sleep(0)
    presence.report(ACME, truck, east(0))
    presence.report(ACME, far, east(2_000))
    presence.report(ACME, engaged, east(0))
    presence.report(OTHER, far, east(0))
    assert not lookup.done()
    assert [each.transporter_id for each in (await lookup).candidates] == [T1]


async def test_a_lookup_ends_when_it_knows_the_answer(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are behind, and whoever they belong to."""
    monkeypatch.setattr(memory, "_LOOKS_PER_TURN", 10)
    presence = MemoryPresence(clock)
    await place(presence, [(vehicle("v1", T1), east(100)), (vehicle("v2", T2), east(100))])
    for number in range(5_000):
        presence.report(ACME, vehicle(f"w{number}", (T1, T2)[number % 2]), Point(0.0, 0.1 + number * 0.001))
    async with Turns() as turns:
        assert (await nearest(presence, east(0), limit=1)).more
        assert turns.count < 10


async def test_who_goes_offline_while_a_lookup_is_on_its_way_is_not_come_across(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_LOOKS_PER_TURN", 1)
    presence = MemoryPresence(clock)
    await place(presence, [(V1, east(0)), (V2, east(10)), (V3, east(20))])
    lookup = asyncio.create_task(nearest(presence, east(0)))
    await asyncio.sleep(0)
    await presence.go_offline(ACME, T3)
    assert [each.transporter_id for each in (await lookup).candidates] == [T1, T2]
