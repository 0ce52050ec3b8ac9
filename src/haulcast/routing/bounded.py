"""A route source within bounds: few questions at once, none for long, and none that was answered a moment ago.

1. What was answered is kept for some minutes by destination and by origin, rounded to some 100 m: who drives on a
   little, or stands where another stood, is told the same.
2. At most `calls` questions are under way. The others wait for their turn, and only then their time begins to run.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from math import inf
from typing import TypeAlias

from haulcast.domain.geo import Point
from haulcast.domain.routes import Leg, RouteFault, RouteKind
from haulcast.errors import RoutesUnavailable
from haulcast.ports import RouteSource

CALLS = 4
CALL_TIMEOUT_S = 3.0
KEPT_S = 600.0
MAX_KEPT = 20_000
"""Legs. One takes about 400 bytes."""
_DECIMALS = 3
"""Of a degree: 111 m of latitude, and of longitude that or less."""

_Key: TypeAlias = tuple[Point, float, float]


class BoundedRoutes:
    """The `RouteSource` of a node in front of another, which it closes."""

    def __init__(
        self,
        source: RouteSource,
        *,
        calls: int = CALLS,
        timeout_s: float = CALL_TIMEOUT_S,
        kept_s: float = KEPT_S,
        max_kept: int = MAX_KEPT,
    ) -> None:
        self._source = source
        self._calls = asyncio.Semaphore(calls)
        self._timeout_s = timeout_s
        self._kept_s = kept_s
        self._max_kept = max_kept
        self._kept: OrderedDict[_Key, tuple[float, Leg | None]] = OrderedDict()  # since when; the last used is last

    @property
    def kind(self) -> RouteKind:
        """See `RouteSource`."""
        return self._source.kind

    async def legs(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        """See `RouteSource`."""
        keys = [(destination, round(origin.lat, _DECIMALS), round(origin.lng, _DECIMALS)) for origin in origins]
        legs: dict[_Key, Leg | None] = {}
        asked: dict[_Key, Point] = {}
        now_s = asyncio.get_running_loop().time()
        for key, origin in zip(keys, origins, strict=True):
            since_s, leg = self._kept.get(key, (-inf, None))
            if now_s - since_s < self._kept_s:
                self._kept.move_to_end(key)
                legs[key] = leg
            else:
                asked.setdefault(key, origin)
        if asked:
            answers = dict(zip(asked, await self._ask([*asked.values()], destination), strict=True))
            self._kept.update((key, (now_s, leg)) for key, leg in answers.items())
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
            legs |= answers
        return [legs[key] for key in keys]

    async def close(self) -> None:
        """See `RouteSource`."""
        await self._source.close()

    async def _ask(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        async with self._calls:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._source.legs(origins, destination)
            except TimeoutError:
                raise RoutesUnavailable(RouteFault.TIMEOUT, f"no answer within {self._timeout_s:g} s") from None
