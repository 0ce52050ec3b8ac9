"""How far it is, along roads and in time."""

from collections.abc import Sequence
from typing import Protocol

from haulcast.domain.geo import Point
from haulcast.domain.routes import Leg, RouteKind

MAX_ORIGINS = 50
"""Of one question. OSRM's own default bound is 100 places, the destination included."""


class RouteSource(Protocol):
    """Distances and times. May be slow, or away: never to be waited for by what must not be late."""

    @property
    def kind(self) -> RouteKind:
        """What the distances are measured along."""
        ...

    async def legs(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        """From each of up to `MAX_ORIGINS` places to one, in their order; None where there is no way. Ends within
        seconds; raises `RoutesUnavailable`, which says why, and nothing else."""
        ...

    async def close(self) -> None:
        """Let go of the source."""
        ...
