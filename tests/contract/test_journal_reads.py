"""What every journal promises beside the commit and ownership: reads, fleets, tenants, the age of the request log."""

from dataclasses import replace

import pytest

from haulcast.domain.control import TenantControl
from haulcast.domain.evolve import replay
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import TripStatus
from haulcast.ports import Claim, Duplicate, FleetConflict, Journal, Landed, Stored
from tests.contract.hauls import ACME, FLEET, NOW_MS, OTHER, another, ids, land, log_only, logged

T1, T2 = TransporterId("t1"), TransporterId("t2")


# --- Reads of broadcasts ---------------------------------------------------------------------------------------------


async def test_replaying_the_events_gives_the_state(journal: Journal) -> None:
    haul = another(1)
    await land(
        journal,
        haul.step(haul.created()),
        haul.step(haul.wave("t1", "t2")),
        haul.step(haul.declined("t2"), haul.offered("t3")),
        haul.step(haul.assigned(1, "t1")),
        haul.step(haul.expired(), haul.trip(1, TripStatus.DELIVERED)),
    )
    events = await journal.read_events(ACME, haul.broadcast_id)
    stored = await journal.read_broadcast(ACME, haul.broadcast_id)
    assert stored is not None
    assert len(events) == stored.state.seq
    assert replay(events) == stored.state == haul.state


async def test_what_does_not_exist_has_no_state_and_no_events(journal: Journal) -> None:
    assert await journal.read_broadcast(ACME, BroadcastId("nothing")) is None
    assert await journal.read_events(ACME, BroadcastId("nothing")) == []


async def test_broadcasts_are_listed_newest_first(journal: Journal) -> None:
    for number, at_ms in ((1, 300), (2, 100), (3, 200)):
        haul = another(number, at_ms=NOW_MS + at_ms)
        await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1")))
    listed = await journal.list_broadcasts(ACME, None, 10)
    assert ids(listed) == ["b1", "b3", "b2"]
    assert [(stored.state.offers, stored.state.notified) for stored in listed] == [({}, 1)] * 3
    assert ids(await journal.list_broadcasts(ACME, None, 2)) == ["b1", "b3"]


async def test_a_customers_list_has_live_and_ended_ones_of_that_customer_alone(journal: Journal) -> None:
    other = another(9)
    await land(journal, other.step(other.created()))
    for number in (1, 2, 3):
        haul = another(number, at_ms=NOW_MS + number)
        haul.customer_id = another(1).customer_id
        await land(journal, haul.step(haul.created()))
        if number < 3:
            await land(journal, haul.step(haul.cancelled()))
    assert ids(await journal.list_broadcasts(ACME, "c1", 10)) == ["b3", "b2", "b1"]
    assert ids(await journal.list_broadcasts(ACME, "c1", 1)) == ["b3"]
    assert await journal.list_broadcasts(ACME, "nobody", 10) == []


async def test_a_board_has_what_is_live_and_what_ended_after_a_time_in_order_of_the_ids(journal: Journal) -> None:
    searching, expired, old, filled, partly, at_the_bound = hauls = [another(n) for n in (10, 4, 2, 5, 1, 3)]
    theirs = another(6, tenant=OTHER)
    await land(journal, *(haul.step(haul.created()) for haul in (*hauls, theirs)))
    old.at_ms, at_the_bound.at_ms = NOW_MS + 999, NOW_MS + 1_000
    expired.at_ms, filled.at_ms = NOW_MS + 1_001, NOW_MS + 2_000
    await land(journal, *(haul.step(haul.cancelled()) for haul in (old, at_the_bound)), expired.step(expired.expired()))
    await land(journal, filled.step(filled.assigned(1, "t1")), filled.step(filled.assigned(2, "t2")))
    await land(journal, partly.step(partly.assigned(1, "t1", "v2", "d2")))

    board = await journal.list_board(ACME, NOW_MS + 1_000, None, 10)
    assert board == [haul.stored for haul in (partly, searching, expired, filled)]
    assert ids(board) == ["b1", "b10", "b4", "b5"]
    assert ids(await journal.list_board(ACME, NOW_MS + 999, None, 10)) == ["b1", "b10", "b3", "b4", "b5"]
    assert ids(await journal.list_board(ACME, 0, None, 10)) == ["b1", "b10", "b2", "b3", "b4", "b5"]
    assert ids(await journal.list_board(ACME, NOW_MS + 2_000, None, 10)) == ["b1", "b10"]
    assert ids(await journal.list_board(OTHER, 0, None, 10)) == ["b6"]
    assert await journal.list_board(TenantId("empty"), 0, None, 10) == []


async def test_the_pages_of_a_board_have_each_broadcast_once(journal: Journal) -> None:
    """Whichever of live and ended ones a page begins or ends with."""
    hauls = [another(number) for number in (7, 1, 5, 2, 6, 4, 3)]
    await land(journal, *(haul.step(haul.created()) for haul in hauls))
    await land(journal, *(haul.step(haul.cancelled()) for haul in hauls[::2]))
    pages: list[list[str]] = []
    after: BroadcastId | None = None
    while len(pages) < 9 and (page := await journal.list_board(ACME, 0, after, 2)):
        pages.append(ids(page))
        after = page[-1].state.broadcast_id
    assert pages == [["b1", "b2"], ["b3", "b4"], ["b5", "b6"], ["b7"]]
    # b3 was the last of a page, and has left the board since.
    assert ids(await journal.list_board(ACME, NOW_MS, BroadcastId("b3"), 2)) == ["b4"]


async def test_lists_leave_the_offers_out_and_say_how_many_there_are(journal: Journal) -> None:
    """After two waves, an offer to a latecomer, and a decline, which takes nobody's offer back."""
    haul, silent = another(1), another(2, at_ms=NOW_MS - 1)
    await land(journal, haul.step(haul.created()), silent.step(silent.created()))
    await land(journal, haul.step(haul.wave("t1", "t2")))
    await land(journal, haul.step(haul.wave("t3", wave=2), haul.offered("t4")), haul.step(haul.declined("t1")))
    assert haul.state is not None
    assert (len(haul.state.offers), haul.state.notified) == (4, 4)

    expected = [Stored(1, replace(one.stored.state, offers={})) for one in (haul, silent)]
    assert [stored.state.notified for stored in expected] == [4, 0]
    for listed in (
        await journal.list_board(ACME, 0, None, 10),
        await journal.list_broadcasts(ACME, None, 10),
        [*await journal.list_broadcasts(ACME, "c1", 1), *await journal.list_broadcasts(ACME, "c2", 1)],
    ):
        assert listed == expected
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert await journal.claim([haul.claim()], 2) == [Stored(2, haul.state)]


async def test_a_transporters_offers_are_those_of_live_and_lately_ended_broadcasts(journal: Journal) -> None:
    live, declined, old, recent = (another(n) for n in (1, 2, 3, 4))
    for n, haul in enumerate((live, declined, old, recent)):
        haul.at_ms = NOW_MS + n
        await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1", "t2")))
    await land(journal, declined.step(declined.declined("t1")))
    old.at_ms, recent.at_ms = NOW_MS + 1_000, NOW_MS + 2_000
    await land(journal, old.step(old.cancelled()), recent.step(recent.expired()))

    offers = await journal.read_offers(ACME, T1, NOW_MS + 1_000)
    assert [state.broadcast_id for state, _ in offers] == ["b1", "b2", "b4"]
    assert [offer.declined for _, offer in offers] == [False, True, False]
    for (state, offer), haul in zip(offers, (live, declined, recent), strict=True):
        assert haul.state is not None
        assert offer == haul.state.offers[T1]
        assert state.offers == {}
        assert (state.seq, state.status) == (haul.state.seq, haul.state.status)
    assert len(await journal.read_offers(ACME, T1, NOW_MS + 999)) == 4
    assert await journal.read_offers(ACME, TransporterId("t3"), 0) == []


async def test_active_trips_are_found_by_transporter_and_by_driver(journal: Journal) -> None:
    haul, second = another(1), another(2, at_ms=NOW_MS + 1)
    await land(journal, haul.step(haul.created()), second.step(second.created()))
    await land(journal, haul.step(haul.assigned(1, "t1")), haul.step(haul.assigned(2, "t2")))
    await land(journal, second.step(second.assigned(1, "t1", "v2", "d2")), second.step(second.cancelled()))
    await land(journal, haul.step(haul.trip(1, TripStatus.LOADED)))

    trips = await journal.read_trips(ACME, transporter_id=T1)
    assert [(state.broadcast_id, trip.driver_id, trip.status) for state, trip in trips] == [
        ("b1", "t1d1", TripStatus.LOADED),
        ("b2", "t1d2", TripStatus.ASSIGNED),
    ]
    assert all(state.offers == {} for state, _ in trips)
    assert await journal.read_trips(ACME, driver_id=DriverId("t1d2")) == trips[1:]
    assert await journal.engaged_vehicles() == [(ACME, "t1v1"), (ACME, "t1v2"), (ACME, "t2v1")]

    await land(journal, haul.step(haul.trip(1, TripStatus.DELIVERED)))
    assert [trip.driver_id for _, trip in await journal.read_trips(ACME, transporter_id=T1)] == ["t1d2"]
    assert await journal.read_trips(ACME, driver_id=DriverId("t1d1")) == []
    assert await journal.engaged_vehicles() == [(ACME, "t1v2"), (ACME, "t2v1")]


async def test_trips_are_asked_for_by_exactly_one_of_transporter_and_driver(journal: Journal) -> None:
    with pytest.raises(ValueError, match="transporter or a driver"):
        await journal.read_trips(ACME)
    with pytest.raises(ValueError, match="transporter or a driver"):
        await journal.read_trips(ACME, transporter_id=T1, driver_id=DriverId("t1d1"))


# --- Fleet -----------------------------------------------------------------------------------------------------------


async def test_a_fleet_is_read_back_and_replaced(journal: Journal) -> None:
    assert await journal.read_vehicle(ACME, VehicleId("t1v1")) == FLEET[1]
    assert await journal.read_driver(ACME, DriverId("t1d1")) == FLEET[4]
    sold = Vehicle(VehicleId("t1v1"), T2, "van")
    moved = Driver(DriverId("t1d1"), T2, "Asha K.")
    await journal.put_fleet(ACME, [Transporter(T1, "renamed"), sold, moved])
    assert await journal.read_vehicle(ACME, VehicleId("t1v1")) == sold
    assert await journal.read_driver(ACME, DriverId("t1d1")) == moved
    assert await journal.read_vehicle(ACME, VehicleId("nothing")) is None
    assert await journal.read_driver(ACME, DriverId("nobody")) is None


async def test_a_transporter_s_fleet_is_what_it_owns_and_employs_now(journal: Journal) -> None:
    assert await journal.read_fleet(ACME, T1) == (list(FLEET[1:4]), list(FLEET[4:6]))
    sold, moved = Vehicle(VehicleId("t1v1"), T2, "van"), Driver(DriverId("t1d1"), T2, "Asha K.")
    renamed, new = Driver(DriverId("t1d2"), T1, "renamed"), Vehicle(VehicleId("a"), T1, "van")
    await journal.put_fleet(ACME, [sold, moved, renamed, new])
    assert await journal.read_fleet(ACME, T1) == ([new, *FLEET[2:4]], [renamed])
    vehicles, drivers = await journal.read_fleet(ACME, T2)
    assert sold in vehicles
    assert moved in drivers
    assert await journal.read_fleet(OTHER, T1) == (list(FLEET[1:4]), list(FLEET[4:6]))
    assert await journal.read_fleet(ACME, TransporterId("nobody")) == ([], [])


@pytest.mark.parametrize(
    "orphan",
    [
        Vehicle(VehicleId("new"), TransporterId("unknown"), "van"),
        Driver(DriverId("new"), TransporterId("unknown")),
        Vehicle(VehicleId("t1v1"), TransporterId("unknown"), "van"),
    ],
)
async def test_a_fleet_change_lands_as_a_whole_or_names_the_item_that_it_stumbled_over(
    journal: Journal, orphan: FleetItem
) -> None:
    newcomer = Transporter(TransporterId("t9"))
    truck = Vehicle(VehicleId("t9v1"), TransporterId("t9"), "van")
    with pytest.raises(FleetConflict) as raised:
        await journal.put_fleet(ACME, [newcomer, truck, orphan, Transporter(TransporterId("unknown"))])
    assert (raised.value.index, raised.value.transporter_id) == (2, "unknown")
    assert await journal.read_vehicle(ACME, VehicleId("t9v1")) is None
    assert await journal.read_vehicle(ACME, VehicleId("t1v1")) == FLEET[1]
    with pytest.raises(FleetConflict) as raised:
        await journal.put_fleet(ACME, [truck])
    assert raised.value.index == 0
    await journal.put_fleet(ACME, [newcomer, truck])
    assert await journal.read_vehicle(ACME, VehicleId("t9v1")) == truck


async def test_an_assignment_is_checked_against_the_fleet_of_now(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()))
    await journal.put_fleet(ACME, [Vehicle(VehicleId("t1van"), T1, haul.vehicle_type)])
    await land(journal, haul.step(haul.assigned_to(1, "t1", "t1van", "t1d1")))


# --- Tenants ---------------------------------------------------------------------------------------------------------


async def test_a_tenant_is_created_once_with_its_settings(journal: Journal) -> None:
    settings = TenantSettings(wave_radii_km=(5.0, 7.5), wave_interval_s=0.5, default_expiry_s=60)
    assert await journal.read_tenant(TenantId("new")) is None
    assert await journal.create_tenant(TenantId("new"), settings)
    assert not await journal.create_tenant(TenantId("new"), TenantSettings())
    assert not await journal.create_tenant(TenantId("new"), settings)
    assert await journal.read_tenant(TenantId("new")) == TenantControl(settings)
    assert await journal.create_tenant(TenantId("everybody"), TenantSettings())
    assert await journal.read_tenant(TenantId("everybody")) == TenantControl()


async def test_the_same_ids_in_two_tenants_are_different_things(journal: Journal) -> None:
    mine, theirs = another(1), another(1, tenant=OTHER)
    for haul in (mine, theirs):
        haul.at_ms = NOW_MS
    await land(journal, mine.step(mine.created(), reply=logged("r1")), mine.step(mine.wave("t1")))
    await land(journal, theirs.step(theirs.created(), reply=logged("r1", tenant=OTHER)))
    await land(journal, mine.step(mine.assigned(1, "t1")), theirs.step(theirs.assigned(1, "t1", "v1", "d1")))
    await land(journal, theirs.step(theirs.cancelled()))

    assert await journal.read_broadcast(ACME, mine.broadcast_id) == mine.stored
    assert await journal.read_broadcast(OTHER, theirs.broadcast_id) == theirs.stored
    assert len(await journal.read_events(ACME, mine.broadcast_id)) == 3
    listed = [Stored(1, replace(mine.stored.state, offers={}))]
    assert await journal.list_broadcasts(ACME, "c1", 10) == await journal.list_board(ACME, 0, None, 10) == listed
    assert len(await journal.read_offers(ACME, T1, 0)) == 1
    assert await journal.read_offers(OTHER, T1, 0) == []
    assert await journal.engaged_vehicles() == [(ACME, "t1v1"), (OTHER, "t1v1")]
    await land(journal, mine.step(mine.trip(1, TripStatus.DELIVERED)))
    assert await journal.engaged_vehicles() == [(OTHER, "t1v1")]
    assert await journal.read_trips(ACME, driver_id=DriverId("t1d1")) == []
    assert len(await journal.read_trips(OTHER, driver_id=DriverId("t1d1"))) == 1
    assert await journal.claim([Claim(OTHER, theirs.broadcast_id, 1)], 2) == [Stored(2, theirs.stored.state)]
    assert await journal.read_broadcast(ACME, mine.broadcast_id) == mine.stored


async def test_a_transporter_of_one_tenant_does_not_exist_in_another(journal: Journal) -> None:
    with pytest.raises(FleetConflict):
        await journal.put_fleet(TenantId("empty"), [Vehicle(VehicleId("t1v1"), T1, "van")])
    assert await journal.read_vehicle(TenantId("empty"), VehicleId("t1v1")) is None


# --- Request log -----------------------------------------------------------------------------------------------------


async def test_a_purge_forgets_replies_from_before_a_time_and_no_others(journal: Journal) -> None:
    for request, at_ms in (("old", 10), ("older", 5), ("young", 20)):
        await land(journal, log_only(logged(request), at_ms=at_ms))
    assert await journal.purge_requests(20) == 2
    assert await journal.purge_requests(20) == 0
    outcomes = await journal.commit([log_only(logged(request)) for request in ("old", "older", "young")])
    assert [type(outcome) for outcome in outcomes] == [Landed, Landed, Duplicate]


async def test_a_purge_of_many_is_complete(journal: Journal) -> None:
    await land(journal, *(log_only(logged(f"r{n}"), at_ms=n) for n in range(2_500)))
    assert await journal.purge_requests(2_400) == 2_400
    assert await journal.purge_requests(2_500) == 100


async def test_closing_twice_is_closing_once(journal: Journal) -> None:
    await journal.close()
    await journal.close()
