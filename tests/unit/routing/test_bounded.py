"""A source within bounds: what was asked a moment ago is not asked again, and nothing takes too long."""

import asyncio
from collections.abc import Sequence

import pytest

from haulcast.domain.geo import Point
from haulcast.domain.routes import Leg, RouteFault, RouteKind
from haulcast.errors import RoutesUnavailable
from haulcast.routing import BoundedRoutes

PICKUP, ELSEWHERE = Point(12.9716, 77.5946), Point(13, 78)
HERE, NEARBY, FAR = Point(12.98, 77.6), Point(12.9803, 77.6004), Point(12.99, 77.6)
NO_ROAD = Point(0, 0)


class Source:
    """Answers when it is let, with the number of the question as the distance."""

    kind = RouteKind.ROAD

    def __init__(self) -> None:
        self.asked: list[list[Point]] = []
        self.let = asyncio.Event()
        self.let.set()
        self.under_way = self.most = 0
        self.failing = self.closed = False

    async def legs(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        """See `RouteSource`."""
        self.asked.append([*origins])
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.let.wait()
        finally:
            self.under_way -= 1
        if self.failing:
            raise RoutesUnavailable(RouteFault.UNAVAILABLE, "failing")
        return [None if origin == NO_ROAD else Leg(len(self.asked), 60) for origin in origins]

    async def close(self) -> None:
        """See `RouteSource`."""
        self.closed = True


async def test_what_was_asked_from_nearly_there_is_not_asked_again() -> None:
    source = Source()
    routes = BoundedRoutes(source)
    first = await routes.legs([HERE, NO_ROAD], PICKUP)
    assert first == [Leg(1, 60), None]
    assert await routes.legs([NO_ROAD, NEARBY], PICKUP) == first[::-1]
    assert source.asked == [[HERE, NO_ROAD]]


async def test_only_what_is_not_known_is_asked_and_the_order_stays() -> None:
    source = Source()
    routes = BoundedRoutes(source)
    await routes.legs([HERE], PICKUP)
    assert await routes.legs([FAR, NEARBY, FAR], PICKUP) == [Leg(2, 60), Leg(1, 60), Leg(2, 60)]
    assert source.asked == [[HERE], [FAR]]


async def test_what_was_answered_long_ago_is_asked_again() -> None:
    source = Source()
    routes = BoundedRoutes(source, kept_s=0.0)
    await routes.legs([HERE], PICKUP)
    assert await routes.legs([HERE], PICKUP) == [Leg(2, 60)]


async def test_another_destination_is_another_question() -> None:
    source = Source()
    routes = BoundedRoutes(source)
    await routes.legs([HERE], PICKUP)
    await routes.legs([HERE], ELSEWHERE)
    assert len(source.asked) == 2


async def test_only_so_many_are_kept_and_those_used_longest_ago_go() -> None:
    source = Source()
    routes = BoundedRoutes(source, max_kept=2)
    for origin in (HERE, FAR, HERE, NO_ROAD):
        await routes.legs([origin], PICKUP)
    source.asked.clear()
    await routes.legs([HERE, NO_ROAD], PICKUP)
    assert source.asked == []
    await routes.legs([FAR], PICKUP)
    assert source.asked == [[FAR]]


async def test_a_failure_is_not_kept() -> None:
    source = Source()
    routes = BoundedRoutes(source)
    source.failing = True
    with pytest.raises(RoutesUnavailable, match="failing"):
        await routes.legs([HERE], PICKUP)
    source.failing = False
    assert await routes.legs([HERE], PICKUP) == [Leg(2, 60)]


async def test_only_so_many_are_under_way_and_those_who_wait_lose_no_time() -> None:
    source = Source()
    source.let.clear()
    routes = BoundedRoutes(source, calls=2, timeout_s=0.05)
    asking = [asyncio.create_task(routes.legs([Point(1, number)], PICKUP)) for number in range(6)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert source.most == 2
    assert len(source.asked) == 6
    for answer in answers:
        assert isinstance(answer, RoutesUnavailable)
        assert answer.fault is RouteFault.TIMEOUT


async def test_who_is_cancelled_makes_room() -> None:
    source = Source()
    source.let.clear()
    routes = BoundedRoutes(source, calls=1)
    stuck = asyncio.create_task(routes.legs([HERE], PICKUP))
    await asyncio.sleep(0)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    source.let.set()
    assert await routes.legs([FAR], PICKUP) == [Leg(2, 60)]


async def test_it_is_what_is_behind_it() -> None:
    source = Source()
    routes = BoundedRoutes(source)
    assert routes.kind is RouteKind.ROAD
    await routes.close()
    assert source.closed
