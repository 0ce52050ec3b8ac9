"""As the crow flies: what a deployment without a routing server shows."""

from collections.abc import Sequence

from haulcast.domain.geo import Point, distance_m
from haulcast.domain.routes import Leg, RouteKind

DETOUR = 1.3
"""How much longer a road is than the straight line: in most countries 1.2 to 1.4 (R. Ballou, H. Rahardja and N. Sakai,
Selected country circuity factors for travel distance estimation, Transportation Research A 36(9), 2002)."""
ROAD_KMH = 40.0
"""A laden truck's average over city streets and highways; an assumption."""


class GreatCircleRoutes:
    """The `RouteSource` that needs nobody: the distance is the straight one, the time that of a road with a detour."""

    @property
    def kind(self) -> RouteKind:
        """See `RouteSource`."""
        return RouteKind.GREAT_CIRCLE

    async def legs(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        """See `RouteSource`."""
        return [_leg(distance_m(origin, destination)) for origin in origins]

    async def close(self) -> None:
        """See `RouteSource`."""


def _leg(away_m: float) -> Leg:
    return Leg(round(away_m), round(away_m * DETOUR / (ROAD_KMH / 3.6)))
