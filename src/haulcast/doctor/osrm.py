"""Looks at the OSRM of a deployment that has one. Nothing but boards needs it, so nothing here keeps a server from
starting."""

from time import perf_counter

from haulcast.domain.geo import Point
from haulcast.errors import RoutesUnavailable
from haulcast.routing import OsrmRoutes
from haulcast.store_url import StoreUrl

from .finding import Finding

SUBJECT = "routes"
_ANYWHERE = Point(0, 0)
"""OSRM takes a place for the nearest that is on its map."""


async def look_at_osrm(url: str) -> Finding:
    """What there is to say about it."""
    shown, routes = StoreUrl.parse(url).shown, OsrmRoutes(url)
    began_s = perf_counter()
    try:
        await routes.legs([_ANYWHERE], _ANYWHERE)
    except RoutesUnavailable as error:
        advice = f"{error}: boards will say that distances by road fail; check HAULCAST_OSRM_URL"
        return Finding(SUBJECT, f"OSRM at {shown}: {error.fault}", advice)
    finally:
        await routes.close()
    return Finding(SUBJECT, f"OSRM at {shown}, answers in {(perf_counter() - began_s) * 1000:.1f} ms")
