"""Which ways to a pickup matter, and which of them are to be found out."""

from math import degrees

import pytest

from haulcast.domain.geo import EARTH_RADIUS_M, Point
from haulcast.domain.ids import TransporterId, VehicleId
from haulcast.domain.routes import (
    MOVED_M,
    NEAREST,
    UNKNOWN,
    Leg,
    Offered,
    Route,
    RouteFault,
    RouteKind,
    Way,
    choose,
    is_idle,
    moved,
    route_view,
)

PICKUP = Point(0, 0)
T = TransporterId("t")


def east(metres: float) -> Point:
    return Point(0.0, degrees(metres / EARTH_RADIUS_M))


def v(number: int) -> VehicleId:
    return VehicleId(f"v{number:02}")


def test_the_nearest_count_by_where_they_are_and_not_by_where_they_were() -> None:
    offered = [Offered(number, v(number), T) for number in range(NEAREST + 5)]
    positions = {v(number): east(10_000 - 100 * number) for number in range(NEAREST + 5)}
    assert choose(PICKUP, offered, {}, positions).keys() == {v(number) for number in range(5, NEAREST + 5)}


def test_who_is_on_the_way_takes_no_place_of_the_nearest() -> None:
    offered = [Offered(number, v(number), T) for number in range(NEAREST + 1)]
    positions = {v(number): east(100 * number) for number in range(NEAREST + 1)}
    chosen = choose(PICKUP, offered, {v(0): TransporterId("other")}, positions)
    assert chosen.keys() == positions.keys()
    assert chosen[v(0)] == (TransporterId("other"), east(0))


def test_whose_position_is_not_known_does_not_count() -> None:
    assert choose(PICKUP, [Offered(1, v(1), T)], {v(2): T}, {}) == {}


@pytest.mark.parametrize(("metres", "asked"), [(0, []), (MOVED_M - 1, []), (MOVED_M + 1, [v(1)])])
def test_who_has_moved_is_asked_for(metres: float, asked: list[VehicleId]) -> None:
    route = Route(1, {v(1): Way(T, east(1_000), None)})
    chosen = {v(1): (T, east(1_000 + metres))}
    assert moved(route, chosen) == asked
    assert is_idle(route, chosen, asked) == (not asked)


def test_nothing_is_idle_that_fails_or_shows_who_is_gone() -> None:
    route = Route(1, {v(1): Way(T, east(1_000), None)})
    assert is_idle(UNKNOWN, [], [])
    assert not is_idle(route, [], [])
    assert not is_idle(Route(1, route.ways, RouteFault.TIMEOUT), [v(1)], [])
    assert moved(UNKNOWN, {v(1): (T, PICKUP)}) == [v(1)]


def test_a_view_says_whether_it_holds() -> None:
    ways = {v(1): Way(T, Point(1.5, 2.5), Leg(900, 80)), v(2): Way(T, PICKUP, None)}
    shown = {
        "source": "road",
        "updated_at": 7,
        "vehicles": {
            "v01": {"transporter_id": "t", "lat": 1.5, "lng": 2.5, "distance_m": 900, "duration_s": 80},
            "v02": {"transporter_id": "t", "lat": 0, "lng": 0, "distance_m": None, "duration_s": None},
        },
    }
    assert route_view(RouteKind.ROAD, Route(7, ways)) == {"status": "ok", **shown}
    failing = route_view(RouteKind.ROAD, Route(7, ways, RouteFault.TIMEOUT))
    assert failing == {"status": "failing", "reason": "timeout", **shown}
