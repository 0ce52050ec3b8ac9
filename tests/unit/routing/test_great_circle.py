"""As the crow flies."""

from haulcast.domain.geo import Point
from haulcast.domain.routes import Leg, RouteKind
from haulcast.routing.great_circle import DETOUR, ROAD_KMH, GreatCircleRoutes

HERE, A_DEGREE_NORTH = Point(18, 73), Point(19, 73)


async def test_distances_are_straight_and_times_those_of_a_road() -> None:
    routes = GreatCircleRoutes()
    [there, nowhere] = await routes.legs([A_DEGREE_NORTH, HERE], HERE)
    assert there == Leg(111_195, round(111_195 * DETOUR / ROAD_KMH * 3.6))
    assert nowhere == Leg(0, 0)
    assert routes.kind is RouteKind.GREAT_CIRCLE
    assert await routes.legs([], HERE) == []
