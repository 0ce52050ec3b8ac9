"""The ways to the pickups on a board: found out beside everything else, whatever fails or hangs meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from math import degrees
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from haulcast.client.protocol import Delta
from haulcast.domain.commands import Appear, Cancel, UpdateTrip
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import EARTH_RADIUS_M, Point, distance_m
from haulcast.domain.ids import BroadcastId, CustomerId, TenantId, TransporterId, VehicleId
from haulcast.domain.routes import NEAREST, Leg, RouteFault, RouteKind
from haulcast.domain.states import TripStatus
from haulcast.errors import ClusterUnavailable, RoutesUnavailable
from haulcast.ports import Role
from haulcast.routing import BoundedRoutes
from haulcast.routing.bounded import CALL_TIMEOUT_S, CALLS
from haulcast.storage.memory import MemoryPresence
from haulcast.transport import collector
from haulcast.transport.board import COMPARE_EVERY_S, GATHERED_S, GRACE_S
from haulcast.transport.collector import AT_ONCE, CADENCE_S, REMEMBERED, RouteCollector, RouteCollectors
from tests.sim.hubs import ACME, TRUCK, Hubs, Owner, Phone, SharedJournal
from tests.sim.test_board import drift, watching
from tests.sim.test_hubs import accept, candidate, connected, wave
from tests.sim.virtual_time import VirtualClock, on_virtual_time

ROUND_S = CADENCE_S + 0.1
PICKUP = Point(1, 1)


class Roads:
    """A source of routes: roads are straight, a metre takes a second. It can be slow, stuck or out of order."""

    kind = RouteKind.ROAD

    def __init__(self) -> None:
        self.asked: list[Sequence[Point]] = []
        self.takes_s = 0.01
        self.fault: RouteFault | None = None
        self.open = asyncio.Event()  # while it is not set, a question hangs
        self.open.set()
        self.under_way = self.most = 0

    async def legs(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        """See `RouteSource`."""
        self.asked.append(origins)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.open.wait()
            await asyncio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        if self.fault is not None:
            raise RoutesUnavailable(self.fault, "as this test wants it")
        return [leg(origin, destination) for origin in origins]

    async def close(self) -> None:
        """See `RouteSource`."""


def leg(origin: Point, destination: Point) -> Leg:
    away_m = round(distance_m(origin, destination))
    return Leg(away_m, away_m)


class Positions(MemoryPresence):
    """Where vehicles are. `away`: that cannot be said."""

    away = False
    questions = 0

    async def positions(self, tenant_id: TenantId, vehicle_ids: Collection[VehicleId]) -> dict[VehicleId, Point]:
        self.questions += 1
        if self.away:
            raise ClusterUnavailable("away")
        return await super().positions(tenant_id, vehicle_ids)


class RoadWorld(Hubs):
    """Hubs whose boards show routes."""

    def __init__(self) -> None:
        self.roads = Roads()
        self.places = Positions(VirtualClock(), vehicle_ttl_s=1e6)
        self.routes_failed = Counter("failed", "-", ["reason"], registry=CollectorRegistry())
        journal, routes = SharedJournal(), BoundedRoutes(self.roads)
        collect = RouteCollectors(routes, journal, self.places, VirtualClock(), self.routes_failed)
        super().__init__(journal=journal, collect=collect)

    def drive(self, number: int, metres: float) -> Point:
        """The vehicle of a transporter is so far north of the pickup."""
        place = Point(PICKUP.lat + degrees(metres / EARTH_RADIUS_M), PICKUP.lng)
        owner = TransporterId(f"t{number}")
        self.places.report(ACME, Vehicle(VehicleId(f"t{number}-v"), owner, TRUCK), place)
        return place

    def failures(self, fault: RouteFault) -> float:
        """How many questions failed for that reason."""
        value: float = self.routes_failed.labels(fault)._value.get()
        return value

    def collector(self, hub: int) -> RouteCollector:
        """That of the board of a hub."""
        found = self.hubs[hub]._boards._boards[ACME]._collector
        assert isinstance(found, RouteCollector)
        return found


@pytest.fixture
async def world() -> AsyncIterator[RoadWorld]:
    world = RoadWorld()
    await world.add_fleet(40)
    yield world
    await world.close()


async def offered(world: RoadWorld, *numbers: int, broadcast_id: str = "b1", hub: int = 0) -> Owner:
    """A broadcast that these transporters have been offered."""
    owner = Owner(world, BroadcastId(broadcast_id), hub)
    await owner.create(f"c-{broadcast_id}")
    await owner.do(wave(owner, *numbers))
    return owner


def entry(phone: Phone, broadcast_id: str = "b1") -> dict[str, Any]:
    shown: dict[str, dict[str, Any]] = phone.shows()["board:acme"]["broadcasts"]  # type: ignore[index]
    return shown[broadcast_id]


def metres(phone: Phone, broadcast_id: str = "b1") -> dict[str, int]:
    """What the board says of how far each vehicle is from the pickup."""
    vehicles = entry(phone, broadcast_id)["route"]["vehicles"]
    return {vehicle_id: way["distance_m"] for vehicle_id, way in vehicles.items()}


async def check_board(world: RoadWorld, *phones: Phone) -> None:
    """Without its routes, the board is what the journal says."""
    for phone in phones:
        assert phone.faults == []
        journal: dict[str, dict[str, Any]] = (await world.views(Role.OPERATOR, "op"))["board:acme"]["broadcasts"]  # type: ignore[index]
        shown: dict[str, dict[str, Any]] = phone.shows()["board:acme"]["broadcasts"]  # type: ignore[index]
        assert {key: {**view, "route": None} for key, view in shown.items()} == {
            key: {**view, "route": None} for key, view in journal.items()
        }


# --- What is shown ---------------------------------------------------------------------------------------------------


async def test_the_ways_of_those_who_were_offered_it_are_shown_and_nothing_is_read_for_that(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    place = world.drive(0, 900)
    world.drive(1, 1_500)
    reads = world.journal.reads
    await offered(world, 0, 1, 2)
    await asyncio.sleep(ROUND_S)
    assert entry(operator)["route"] == {
        "status": "ok",
        "source": "road",
        "updated_at": entry(operator)["route"]["updated_at"],
        "vehicles": {
            "t0-v": {"transporter_id": "t0", "lat": place.lat, "lng": 1, "distance_m": 900, "duration_s": 900},
            "t1-v": {**entry(operator)["route"]["vehicles"]["t1-v"], "transporter_id": "t1", "distance_m": 1_500},
        },
    }
    assert world.journal.reads == reads
    assert "route" not in str((await world.views(Role.CUSTOMER, "c-b1")).values())


async def test_of_what_was_there_before_the_offers_are_read_once(world: RoadWorld) -> None:
    for number in range(3):
        world.drive(number, 1_000 * (number + 1))
        await offered(world, number, broadcast_id=f"b{number}")
    operator = await watching(world, "op", 0)
    reads = world.journal.reads
    await asyncio.sleep(3 * ROUND_S)
    assert [metres(operator, f"b{number}") for number in range(3)] == [
        {"t0-v": 1_000},
        {"t1-v": 2_000},
        {"t2-v": 3_000},
    ]
    assert world.journal.reads == reads + 3


async def test_another_node_shows_them_too(world: RoadWorld) -> None:
    operator = await watching(world, "op", 1)
    world.drive(0, 900)
    await offered(world, 0, hub=0)
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t0-v": 900}


async def test_nobody_offered_is_nothing_shown(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    await offered(world)
    await asyncio.sleep(ROUND_S)
    assert "route" not in entry(operator)
    assert world.roads.asked == []


async def test_the_nearest_by_where_they_are_now_and_all_on_a_trip_there(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    for number in range(20):
        world.drive(number, 20_000 - 1_000 * number)  # who was nearest when it was offered is farthest now
    owner = await offered(world, *range(20))
    await owner.do(accept(0))
    await asyncio.sleep(ROUND_S)
    nearest = {f"t{number}-v" for number in range(20 - NEAREST, 20)}
    assert metres(operator).keys() == nearest | {"t0-v"}
    assert owner.state is not None
    trip = owner.state.trips[0]
    await owner.do(UpdateTrip(trip.transporter_id, trip.trip_id, TripStatus.LOADED))
    await asyncio.sleep(ROUND_S)
    assert metres(operator).keys() == nearest


async def test_of_a_large_wave_only_the_nearest_are_remembered(world: RoadWorld) -> None:
    await watching(world, "op", 0)
    owner = await offered(world, *range(30))
    await owner.do(wave(owner, *range(30, 40)))
    [followed] = world.collector(0)._followed.values()
    assert (followed.seen, len(followed.nearest)) == (40, REMEMBERED)
    assert [one.vehicle_id for one in followed.nearest] == [f"t{number}-v" for number in range(REMEMBERED)]


# --- When it asks ----------------------------------------------------------------------------------------------------


async def test_it_looks_again_every_five_seconds_and_asks_only_for_those_who_have_moved(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    still = world.drive(0, 900)
    world.drive(1, 1_500)
    await offered(world, 0, 1)
    await asyncio.sleep(ROUND_S)
    world.roads.asked.clear()
    moved = world.drive(1, 1_700)
    await asyncio.sleep(CADENCE_S - 0.5)
    assert metres(operator)["t1-v"] == 1_500
    await asyncio.sleep(1)
    assert metres(operator) == {"t0-v": 900, "t1-v": 1_700}
    assert world.roads.asked == [[moved]]
    assert still not in world.roads.asked[0]


async def test_who_stands_still_costs_nothing(world: RoadWorld) -> None:
    """A position that trembles by less than 50 m is standing still."""
    operator = await watching(world, "op", 0)
    world.drive(0, 900)
    await offered(world, 0)
    await asyncio.sleep(ROUND_S)
    world.roads.asked.clear()
    frames = len(operator.frames)
    for step in range(20):
        world.drive(0, 900 + 49 * (step % 2))
        await asyncio.sleep(CADENCE_S)
    assert world.roads.asked == []
    assert len(operator.frames) == frames
    world.drive(0, 1_010)
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t0-v": 1_010}


async def test_whose_position_is_lost_is_not_shown_any_more(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    world.drive(0, 900)
    world.drive(1, 1_500)
    await offered(world, 0, 1)
    await asyncio.sleep(ROUND_S)
    del world.places._tenants[ACME].tracked[VehicleId("t0-v")]
    world.roads.asked.clear()
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t1-v": 1_500}
    assert world.roads.asked == []


async def test_a_node_without_an_operator_asks_nothing(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    operator.disconnect()
    for hub in world.hubs:
        hub.sweep()
        hub.sweep()
    world.drive(0, 900)
    await offered(world, 0)
    await asyncio.sleep(10 * CADENCE_S)
    assert world.roads.asked == []
    assert world.places.questions == 0


@pytest.mark.parametrize("takes_s", [0.0, 0.2])
async def test_only_a_few_questions_are_under_way_and_changes_are_spread(world: RoadWorld, takes_s: float) -> None:
    world.roads.takes_s = takes_s
    operator = await watching(world, "op", 0)
    for number in range(2 * AT_ONCE):
        world.drive(number, 1_000 + 200 * number)
        await offered(world, number, broadcast_id=f"b{number}")
    await asyncio.sleep(2 * GATHERED_S)
    operator.frames.clear()
    await asyncio.sleep(4 * ROUND_S)
    assert all(metres(operator, f"b{number}") for number in range(2 * AT_ONCE))
    assert world.roads.most == CALLS
    deltas = [frame for frame in operator.frames if isinstance(frame, Delta)]
    assert max(len(delta.set) for delta in deltas) <= AT_ONCE


# --- Failing ---------------------------------------------------------------------------------------------------------


async def test_when_it_fails_that_is_shown_with_what_was_known_and_logged_once(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    world.drive(0, 900)
    await offered(world, 0)
    await asyncio.sleep(ROUND_S)
    before = entry(operator)["route"]
    world.roads.fault = RouteFault.UNAVAILABLE
    world.drive(0, 1_200)
    with capture_logs() as logs:
        await asyncio.sleep(4 * CADENCE_S)
    assert entry(operator)["route"] == {**before, "status": "failing", "reason": "unavailable"}
    assert world.failures(RouteFault.UNAVAILABLE) == 4
    [line] = logs
    assert (line["event"], line["log_level"], line["reason"]) == ("routes_failing", "warning", "unavailable")
    world.roads.fault = None
    with capture_logs() as logs:
        await asyncio.sleep(4 * CADENCE_S)
    assert metres(operator) == {"t0-v": 1_200}
    assert entry(operator)["route"]["status"] == "ok"
    assert "reason" not in entry(operator)["route"]
    assert [line["event"] for line in logs] == ["routes_found_again"]


async def test_who_was_never_found_is_shown_as_failing_too(world: RoadWorld) -> None:
    operator = await watching(world, "op", 0)
    world.roads.fault = RouteFault.BAD_ANSWER
    world.drive(0, 900)
    await offered(world, 0)
    await asyncio.sleep(ROUND_S)
    assert entry(operator)["route"] == {
        "status": "failing",
        "reason": "bad_answer",
        "source": "road",
        "updated_at": None,
        "vehicles": {},
    }


@pytest.mark.parametrize("what", ["positions", "offers"])
async def test_stores_that_are_away_are_shown_and_made_good(world: RoadWorld, what: str) -> None:
    world.drive(0, 900)
    await offered(world, 0)
    operator = await watching(world, "op", 0)
    if what == "offers":
        world.journal.away = True
    else:
        world.places.away = True
    await asyncio.sleep(2 * ROUND_S)
    assert entry(operator)["route"]["reason"] == "no_positions"
    assert world.failures(RouteFault.NO_POSITIONS) >= 2
    world.journal.away = world.places.away = False
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t0-v": 900}


async def test_a_fault_of_the_source_itself_keeps_no_other_broadcast_from_its_turn(
    world: RoadWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await watching(world, "op", 0)
    good = world.roads.legs

    async def legs(origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        if distance_m(origins[0], destination) < 1_000:
            raise RuntimeError("not one of its errors")
        return await good(origins, destination)

    monkeypatch.setattr(world.roads, "legs", legs)
    world.drive(0, 900)
    world.drive(1, 1_500)
    await offered(world, 0)
    await offered(world, 1, broadcast_id="b2")
    with capture_logs() as logs:
        await asyncio.sleep(ROUND_S)
    assert metres(operator, "b2") == {"t1-v": 1_500}
    assert [line["broadcast"] for line in logs if line["event"] == "collecting_failed"] == ["b1"]


async def test_while_a_question_hangs_every_event_is_on_time(world: RoadWorld) -> None:
    """Nothing is late by a millisecond of virtual time: offers, the board, what is compared."""
    operator, feed = await watching(world, "op", 0), await connected(world, Role.TRANSPORTER, "t0", 0)
    world.roads.open.clear()
    for number in range(12):
        world.drive(number, 900 + 100 * number)
        await offered(world, number, broadcast_id=f"a{number}")
    await asyncio.sleep(2 * ROUND_S)
    assert world.roads.under_way == CALLS
    loop = asyncio.get_running_loop()
    for number in range(100):
        owner = Owner(world, BroadcastId(f"b{number}"))
        await owner.create(f"c{number}")
        await owner.do(wave(owner, 0))
        now_s = loop.time()
        assert len(feed.events("offer")) == number + 2
        await asyncio.sleep(GATHERED_S)
        assert entry(operator, f"b{number}")["notified"] == 1
        assert loop.time() == pytest.approx(now_s + GATHERED_S)
    assert entry(operator, "a0")["route"]["reason"] == "timeout"
    world.roads.open.set()
    await asyncio.sleep(20 * ROUND_S)
    assert metres(operator, "a0") == {"t0-v": 900}
    await check_board(world, operator)


async def test_the_end_of_a_board_waits_for_no_question(world: RoadWorld) -> None:
    await watching(world, "op", 0)
    world.roads.open.clear()
    world.drive(0, 900)
    await offered(world, 0)
    await asyncio.sleep(ROUND_S)
    assert world.roads.under_way == 1
    now_s = asyncio.get_running_loop().time()
    await world.hubs[0].close()
    assert asyncio.get_running_loop().time() == now_s
    assert world.roads.under_way == 0


# --- The end of a broadcast ------------------------------------------------------------------------------------------


async def routed(world: RoadWorld) -> tuple[Owner, Phone]:
    """A broadcast whose route is shown, by hub 1, and an operator there."""
    operator = await watching(world, "op", 1)
    world.drive(0, 900)
    owner = await offered(world, 0)
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t0-v": 900}
    return owner, operator


def leftovers(world: RoadWorld) -> list[BroadcastId]:
    return [*world.collector(1)._followed]


async def test_with_a_broadcasts_end_its_route_goes_at_once(world: RoadWorld) -> None:
    owner, operator = await routed(world)
    await owner.do(Cancel(CustomerId("c-b1")))
    await asyncio.sleep(2 * GATHERED_S)
    delta = operator.frames[-1]
    assert isinstance(delta, Delta)
    assert "/broadcasts/b1/route" in delta.delete
    assert delta.set["/broadcasts/b1/status"] == "cancelled"
    assert leftovers(world) == []
    world.drive(0, 1_500)
    await asyncio.sleep(2 * ROUND_S)
    assert "route" not in entry(operator)
    await check_board(world, operator)


async def test_an_end_that_nobody_told_of_is_found_and_takes_the_route_along(world: RoadWorld) -> None:
    owner, operator = await routed(world)
    world.links[0].cut = True
    await owner.do(Cancel(CustomerId("c-b1")))
    await asyncio.sleep(COMPARE_EVERY_S + GRACE_S + ROUND_S)
    assert "route" not in entry(operator)
    assert leftovers(world) == []


async def test_what_a_full_board_drops_is_forgotten(world: RoadWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    _, operator = await routed(world)
    board_ = world.hubs[1]._boards._boards[ACME]
    monkeypatch.setattr(board_._store, "_capacity", 1)
    await offered(world, 1, broadcast_id="b2")
    await asyncio.sleep(ROUND_S)
    assert operator.shows()["board:acme"]["broadcasts"].keys() == {"b2"}  # type: ignore[index]
    assert leftovers(world) == ["b2"]


async def test_what_a_board_lost_and_got_back_is_found_out_again(world: RoadWorld) -> None:
    _, operator = await routed(world)
    world.hubs[1]._boards._boards[ACME]._drop("b1")
    await world.hubs[1]._boards._boards[ACME].compare()
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t0-v": 900}


async def test_with_the_board_goes_its_collector(world: RoadWorld) -> None:
    _, operator = await routed(world)
    operator.disconnect()
    world.hubs[1].sweep()
    world.hubs[1].sweep()
    questions = world.places.questions
    await asyncio.sleep(5 * CADENCE_S)
    assert world.places.questions == questions
    assert world.hubs[1]._boards._boards == {}


async def test_an_answer_that_comes_after_the_end_is_not_shown(world: RoadWorld) -> None:
    owner, operator = await routed(world)
    world.roads.takes_s = 2
    world.drive(0, 2_000)
    await asyncio.sleep(CADENCE_S)
    assert world.roads.under_way == 1
    await owner.do(Cancel(CustomerId("c-b1")))
    await asyncio.sleep(ROUND_S)
    assert "route" not in entry(operator)
    assert leftovers(world) == []


async def test_a_broadcast_that_ends_while_its_offers_are_read_is_no_fault(world: RoadWorld) -> None:
    owner, operator = await routed(world)
    world.collector(1)._followed[BroadcastId("b1")].seen = None
    reads = world.journal.reads
    with capture_logs() as logs:
        while world.journal.reads == reads:
            await asyncio.sleep(0.0005)
        await owner.do(Cancel(CustomerId("c-b1")))
        await asyncio.sleep(2 * ROUND_S)
    assert logs == []
    assert leftovers(world) == []
    assert "route" not in entry(operator)


# --- With the journal ------------------------------------------------------------------------------------------------


async def test_a_comparison_takes_a_route_for_no_drift_and_keeps_it(world: RoadWorld) -> None:
    _, operator = await routed(world)
    with capture_logs() as logs:
        await asyncio.sleep(3 * COMPARE_EVERY_S)
    assert logs == []
    assert metres(operator) == {"t0-v": 900}
    store = world.hubs[1]._boards._boards[ACME]._store
    store._entities["b1"].fields["wave"] = 7
    await asyncio.sleep(COMPARE_EVERY_S)
    assert drift(world, 1, "wave") == 1
    assert metres(operator) == {"t0-v": 900}
    await check_board(world, operator)


async def test_offers_of_which_the_news_were_lost_are_learned_once_the_board_knows_better(world: RoadWorld) -> None:
    owner, operator = await routed(world)
    world.drive(1, 400)
    world.links[0].cut = True
    await owner.do(Appear(candidate(1)))
    await asyncio.sleep(2 * ROUND_S)
    assert metres(operator) == {"t0-v": 900}
    await asyncio.sleep(COMPARE_EVERY_S + GRACE_S)
    assert metres(operator) == {"t0-v": 900, "t1-v": 400}
    reads = world.journal.reads
    await asyncio.sleep(3 * CADENCE_S)
    assert world.journal.reads == reads


async def test_while_the_board_lags_behind_the_journal_the_offers_are_not_read_again_and_again(
    world: RoadWorld,
) -> None:
    owner, operator = await routed(world)
    world.drive(1, 400)
    world.links[0].cut = True
    await owner.do(Appear(candidate(1)))
    world.collector(1)._followed[BroadcastId("b1")].seen = None
    reads = world.journal.reads
    await asyncio.sleep(4 * CADENCE_S)
    assert world.journal.reads == reads + 1
    assert metres(operator) == {"t0-v": 900, "t1-v": 400}


async def test_news_in_another_form_have_the_offers_read(world: RoadWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, operator = await routed(world)
    world.drive(1, 400)

    def not_understood(*_: object) -> None:
        raise msgspec.ValidationError("of a later version")

    with monkeypatch.context() as later:
        later.setattr(collector, "newly_offered", not_understood)
        await owner.do(Appear(candidate(1)))
    await asyncio.sleep(ROUND_S)
    assert metres(operator) == {"t0-v": 900, "t1-v": 400}


steps = st.one_of(
    st.tuples(st.just("create"), st.integers(0, 3)),
    st.tuples(st.just("wave"), st.integers(0, 3)),
    st.tuples(st.just("accept"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("drive"), st.integers(0, 3)),
    st.tuples(st.just("cut"), st.integers(0, 1)),
    st.tuples(st.just("mend"), st.integers(0, 1)),
    st.tuples(st.just("break"), st.sampled_from([*RouteFault])),
    st.tuples(st.just("hang"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, CADENCE_S, 20.0])),
)


@given(st.lists(steps, max_size=30))
def test_whatever_fails_in_whatever_order_board_and_routes_end_as_they_should(plan: list[tuple[str, Any]]) -> None:
    """What is shown is what the journal says, with the ways of whoever was offered what is live from where they are."""

    async def story() -> None:
        world = RoadWorld()
        await world.add_fleet(4)
        owners = [Owner(world, BroadcastId(f"b{number}"), number % 2) for number in range(4)]
        operators = [await watching(world, f"op{hub}", hub) for hub in range(2)]
        places = {number: world.drive(number, 1_000 * (number + 1)) for number in range(4)}
        for turn, (what, which) in enumerate(plan):
            await play(world, owners, places, turn, what, which)
        for link in world.links:
            link.cut = False
        world.roads.fault = None
        world.roads.open.set()
        await asyncio.sleep(COMPARE_EVERY_S + GRACE_S + 6 * (CALL_TIMEOUT_S + CADENCE_S))
        for operator in operators:
            await check_board(world, operator)
            for owner in owners:
                if owner.state is not None:
                    assert shown_ways(operator, owner.broadcast_id) == expected_ways(owner, places)
        await world.close()

    with capture_logs() as logs:
        on_virtual_time(story)
    assert not [line for line in logs if line["event"] == "collecting_failed"]


async def play(
    world: RoadWorld, owners: Sequence[Owner], places: dict[int, Point], turn: int, what: str, which: Any
) -> None:
    """One step of a plan; what cannot be done now is passed over."""
    match what:
        case "create" if owners[which].state is None:
            await owners[which].create(f"c{which}")
        case "wave" if owners[which].state is not None:
            await owners[which].do(wave(owners[which], turn % 4))
        case "accept" if owners[which].state is not None:
            await owners[which].do(accept(turn % 4))
        case "cancel" if owners[which].state is not None:
            await owners[which].do(Cancel(CustomerId(f"c{which}")))
        case "drive":
            places[which] = world.drive(which, 700 * (turn + 1))
        case "cut" | "mend":
            world.links[which].cut = what == "cut"
        case "break":
            world.roads.fault = which
        case "hang":
            (world.roads.open.clear if which else world.roads.open.set)()
        case "wait":
            await asyncio.sleep(which)


def shown_ways(operator: Phone, broadcast_id: str) -> dict[str, int]:
    route = entry(operator, broadcast_id).get("route")
    if route is None:
        return {}
    assert route["status"] == "ok"
    return {vehicle_id: way["distance_m"] for vehicle_id, way in route["vehicles"].items()}


def expected_ways(owner: Owner, places: dict[int, Point]) -> dict[str, int]:
    assert owner.state is not None
    if not owner.state.live:
        return {}
    numbers: Iterator[int] = (int(transporter_id[1:]) for transporter_id in owner.state.offers)
    return {f"t{number}-v": leg(places[number], PICKUP).distance_m for number in numbers}
