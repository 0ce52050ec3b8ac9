"""Road distances and times from an OSRM server, by the table service of its HTTP interface (OSRM 5.20 or newer).

1. One question is one GET: the destination is coordinate 0, the origins are those behind it. The answer has a row of
   one column for each origin: seconds in `durations`, metres in `distances`, null where there is no road.
2. Whatever else comes is `RoutesUnavailable`: `timeout` when it takes too long, `unavailable` when nobody answers or
   the server says that it cannot now (429, 5xx), `bad_answer` for all that is not as documented. OSRM's own errors, of
   status 400 and a `code`, are that too: the question was one that this server does not take.
3. An answer is read up to `MAX_ANSWER_BYTES` and not unpacked. Redirects are not followed: the address is configured.
4. What is asked and where is never logged: there may be credentials in the address, and the places are people's.
"""

import math
from collections.abc import Sequence

import aiohttp
import msgspec
from yarl import URL

from haulcast.domain.geo import Point
from haulcast.domain.routes import Leg, RouteFault, RouteKind
from haulcast.errors import RoutesUnavailable

TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 262_144
"""With all that OSRM says of each place besides, 50 origins take some 15 kB."""
_MAX_VALUE = 1e8
"""Metres or seconds: more than any road on earth takes."""


class _Table(msgspec.Struct):
    code: str
    durations: list[list[float | None]] | None = None
    distances: list[list[float | None]] | None = None


_decode = msgspec.json.Decoder(_Table).decode


class OsrmRoutes:
    """The `RouteSource` of a deployment with an OSRM. `url` is where its services begin; user and password in it are
    sent as basic authentication. To be made within a running loop."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._base = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @property
    def kind(self) -> RouteKind:
        """See `RouteSource`."""
        return RouteKind.ROAD

    async def legs(self, origins: Sequence[Point], destination: Point) -> list[Leg | None]:
        """See `RouteSource`."""
        if not origins:
            return []
        body = await self._get(self._question(origins, destination))
        try:
            table = _decode(body)
        except (ValueError, RecursionError):  # what msgspec raises is a ValueError
            raise RoutesUnavailable(RouteFault.BAD_ANSWER, "no table in JSON") from None
        if table.code != "Ok":
            raise RoutesUnavailable(RouteFault.BAD_ANSWER, f"the server refused: {table.code[:40]!r}")
        durations, distances = _column(table.durations, len(origins)), _column(table.distances, len(origins))
        return [_leg(distance, duration) for distance, duration in zip(distances, durations, strict=True)]

    async def close(self) -> None:
        """See `RouteSource`."""
        await self._session.close()

    def _question(self, origins: Sequence[Point], destination: Point) -> URL:
        places = ";".join(f"{place.lng:.6f},{place.lat:.6f}" for place in (destination, *origins))
        sources = ";".join(str(number) for number in range(1, len(origins) + 1))
        query = f"sources={sources}&destinations=0&annotations=duration,distance"
        # As it stands: a server need not understand separators that are escaped.
        return URL(f"{self._base}/table/v1/driving/{places}?{query}", encoded=True)

    async def _get(self, url: URL) -> bytes:
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status == 429 or answer.status >= 500:
                    raise RoutesUnavailable(RouteFault.UNAVAILABLE, f"status {answer.status}")
                if answer.status not in (200, 400):
                    raise RoutesUnavailable(RouteFault.BAD_ANSWER, f"status {answer.status}")
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise RoutesUnavailable(RouteFault.BAD_ANSWER, f"more than {MAX_ANSWER_BYTES} bytes")
                return bytes(body)
        except TimeoutError:
            raise RoutesUnavailable(RouteFault.TIMEOUT, "no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # their texts may quote the address
            raise RoutesUnavailable(RouteFault.UNAVAILABLE, type(error).__name__) from None


def _column(rows: list[list[float | None]] | None, height: int) -> list[float | None]:
    if rows is None or len(rows) != height or any(len(row) != 1 for row in rows):
        raise RoutesUnavailable(RouteFault.BAD_ANSWER, "a table of another shape than was asked for")
    return [row[0] for row in rows]


def _leg(distance: float | None, duration: float | None) -> Leg | None:
    if distance is None or duration is None:
        return None
    if not (math.isfinite(distance) and 0 <= distance <= _MAX_VALUE and 0 <= duration <= _MAX_VALUE):
        raise RoutesUnavailable(RouteFault.BAD_ANSWER, "a distance or a time that cannot be")
    return Leg(round(distance), round(duration))
