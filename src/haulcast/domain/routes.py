"""How far the trucks are from a broadcast's pickup, by road and by time: what is to be found out, and what is shown.

1. Of the vehicles that the broadcast was offered because of, those count that are nearest by where they are now, and of
   its trips those that have not loaded yet. Whose position is not known is not shown.
2. A way holds for as long as its vehicle has not moved `MOVED_M` since. What nobody has moved in needs nothing.
3. When ways cannot be found out, those that are known stay, and it is said since when and why: `fault`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from .geo import Point, distance_m
from .ids import TransporterId, VehicleId
from .replies import Json
from .states import TripStatus

NEAREST = 10
"""Vehicles of a broadcast that were offered it and are looked at."""
MOVED_M = 50.0
TO_PICKUP = frozenset({TripStatus.ASSIGNED, TripStatus.EN_ROUTE, TripStatus.AT_PICKUP})
"""Trips that have not loaded yet."""


class RouteKind(StrEnum):
    """What a distance is measured along."""

    ROAD = "road"
    GREAT_CIRCLE = "great_circle"


class RouteFault(StrEnum):
    """Why ways could not be found out."""

    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    BAD_ANSWER = "bad_answer"
    NO_POSITIONS = "no_positions"
    """It is the vehicles, or where they are, that could not be found out."""


@dataclass(frozen=True, slots=True)
class Leg:
    """From a vehicle to the pickup."""

    distance_m: int
    duration_s: int


class Offered(NamedTuple):
    """A vehicle that a broadcast was offered because of, and how far it was then."""

    distance_m: int
    vehicle_id: VehicleId
    transporter_id: TransporterId


@dataclass(frozen=True, slots=True)
class Way:
    """Where a vehicle was, and the leg from there; None if there is no road."""

    transporter_id: TransporterId
    position: Point
    leg: Leg | None


@dataclass(frozen=True, slots=True)
class Route:
    """What is known of the ways to a pickup. `updated_at_ms` None: nothing was ever found out."""

    updated_at_ms: int | None
    ways: Mapping[VehicleId, Way]
    fault: RouteFault | None = None


UNKNOWN = Route(None, {})


def choose(
    pickup: Point,
    offered: Collection[Offered],
    trips: Mapping[VehicleId, TransporterId],
    positions: Mapping[VehicleId, Point],
) -> dict[VehicleId, tuple[TransporterId, Point]]:
    """The vehicles that count, with where they are."""
    candidates = [
        (distance_m(positions[vehicle_id], pickup), vehicle_id, transporter_id)
        for _, vehicle_id, transporter_id in offered
        if vehicle_id in positions and vehicle_id not in trips
    ]
    nearest = {vehicle_id: transporter_id for _, vehicle_id, transporter_id in sorted(candidates)[:NEAREST]}
    return {
        vehicle_id: (transporter_id, positions[vehicle_id])
        for vehicle_id, transporter_id in (*trips.items(), *nearest.items())
        if vehicle_id in positions
    }


def moved(route: Route, chosen: Mapping[VehicleId, tuple[TransporterId, Point]]) -> list[VehicleId]:
    """Those whose way is not known, or not from where they are."""
    return [
        vehicle_id
        for vehicle_id, (_, position) in chosen.items()
        if vehicle_id not in route.ways or distance_m(route.ways[vehicle_id].position, position) > MOVED_M
    ]


def is_idle(route: Route, chosen: Collection[VehicleId], asked: Collection[VehicleId]) -> bool:
    """Whether a route says all that there is to say."""
    return not asked and route.fault is None and route.ways.keys() == set(chosen)


def route_view(kind: RouteKind, route: Route) -> dict[str, Json]:
    """A route as operators see it."""
    return {
        "status": "ok" if route.fault is None else "failing",
        **({} if route.fault is None else {"reason": route.fault}),
        "source": kind,
        "updated_at": route.updated_at_ms,
        "vehicles": {vehicle_id: _way_view(way) for vehicle_id, way in route.ways.items()},
    }


def _way_view(way: Way) -> dict[str, Json]:
    leg = way.leg
    return {
        "transporter_id": way.transporter_id,
        "lat": way.position.lat,
        "lng": way.position.lng,
        "distance_m": None if leg is None else leg.distance_m,
        "duration_s": None if leg is None else leg.duration_s,
    }
