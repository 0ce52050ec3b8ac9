"""The city: who is there, where they are, what they want. Seeded, without clock or I/O.

Everybody draws from a source of their own, so the same seed gives the same companies and the same orders, whatever the
races between them do.

    centre    0-8 km      most companies, most orders
    suburbs  12-22 km     some companies; orders there are reached by the second wave
    country  30-45 km     few companies
    nowhere  500 km off   no company: orders there expire
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import asin, atan2, cos, degrees, pi, radians, sin, sqrt
from random import Random

EARTH_KM = 6371.0
TRUCK_SPEED_KM_S = 0.2
"""This city is on fast forward, by ten or so."""
ROAMING_KM = 3.0
SHORTEST_EXPIRY_S = 10

VEHICLE_TYPES: Mapping[str, int] = {"mini": 5, "tipper": 3, "flatbed": 3, "container": 2}
"""Each with its weight among all trucks."""
NAMES = ("Amber", "Banyan", "Cedar", "Delta", "Ember", "Falcon", "Granite", "Harbour", "Indigo", "Juniper", "Kestrel")


@dataclass(frozen=True, slots=True)
class Place:
    """A point on the map."""

    lat: float
    lng: float

    def towards(self, bearing: float, distance_km: float) -> "Place":
        """The place at that distance in that direction (radians from north)."""
        lat, lng, angle = radians(self.lat), radians(self.lng), distance_km / EARTH_KM
        new_lat = asin(sin(lat) * cos(angle) + cos(lat) * sin(angle) * cos(bearing))
        new_lng = lng + atan2(sin(bearing) * sin(angle) * cos(lat), cos(angle) - sin(lat) * sin(new_lat))
        return Place(round(degrees(new_lat), 6), round((degrees(new_lng) + 540) % 360 - 180, 6))

    def around(self, rng: Random, near_km: float, far_km: float) -> "Place":
        """Some place between so near and so far."""
        return self.towards(rng.uniform(0, 2 * pi), sqrt(rng.uniform(near_km**2, far_km**2)))

    def distance_km(self, other: "Place") -> float:
        """As the crow flies (haversine)."""
        lat, other_lat = radians(self.lat), radians(other.lat)
        half = sin((other_lat - lat) / 2) ** 2
        half += cos(lat) * cos(other_lat) * sin(radians(other.lng - self.lng) / 2) ** 2
        return 2 * EARTH_KM * asin(min(1.0, sqrt(half)))


CENTRE = Place(18.52, 73.86)
NOWHERE = CENTRE.towards(0.9, 500)


@dataclass(slots=True)
class Truck:
    """A vehicle, with where it is and where it is going."""

    vehicle_id: str
    vehicle_type: str
    home: Place
    position: Place
    destination: Place
    trip_id: str | None = None

    def move(self, rng: Random, seconds: float) -> None:
        """Drive on; an idle truck that has arrived picks another corner near its home."""
        reach_km = TRUCK_SPEED_KM_S * seconds
        left_km = self.position.distance_km(self.destination)
        if left_km <= reach_km:
            self.position = self.destination
            if self.trip_id is None:
                self.destination = self.home.around(rng, 0, ROAMING_KM)
            return
        share = reach_km / left_km
        self.position = Place(
            round(self.position.lat + (self.destination.lat - self.position.lat) * share, 6),
            round(self.position.lng + (self.destination.lng - self.position.lng) * share, 6),
        )


@dataclass(frozen=True, slots=True)
class Company:
    """A transporter: its trucks, and a driver for each."""

    transporter_id: str
    name: str
    trucks: tuple[Truck, ...]
    drivers: tuple[str, ...]
    online_after_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """What a customer is about to do."""

    pickup: Place
    drop: Place
    trucks: Mapping[str, int]
    expires_in_s: int
    cancel_after_s: float | None
    twice: bool
    """A nervous thumb: the button is hit twice."""


class City:
    """Companies and customers. Orders expire after `longest_expiry_s` at most."""

    def __init__(self, seed: int, transporters: int, customers: int, longest_expiry_s: int) -> None:
        self.seed = seed
        self.longest_expiry_s = max(SHORTEST_EXPIRY_S, longest_expiry_s)
        self.companies = tuple(self._company(number) for number in range(1, transporters + 1))
        self.customers = tuple(f"c{number}" for number in range(1, customers + 1))

    def source(self, of: str) -> Random:
        """The source of chance of one inhabitant."""
        return Random(f"{self.seed}/{of}")

    def order(self, rng: Random) -> Order:
        """The next order of the customer with that source."""
        where = rng.random()
        shortest_s, longest_s = SHORTEST_EXPIRY_S, self.longest_expiry_s
        if where < 0.08:
            pickup, longest_s = NOWHERE.around(rng, 0, 5), SHORTEST_EXPIRY_S
        elif where < 0.22:
            pickup, shortest_s = CENTRE.around(rng, 12, 22), max(SHORTEST_EXPIRY_S, longest_s - 5)
        else:
            pickup = CENTRE.around(rng, 0, 6)
        return Order(
            pickup=pickup,
            drop=pickup.around(rng, 2, 30),
            trucks=_wanted(rng),
            expires_in_s=rng.randint(shortest_s, longest_s),
            cancel_after_s=rng.uniform(0.2, 3) if rng.random() < 0.2 else None,
            twice=rng.random() < 0.1,
        )

    def _company(self, number: int) -> Company:
        transporter_id = f"t{number}"
        rng = self.source(transporter_id)
        near_km, far_km = rng.choices(((0, 8), (12, 22), (30, 45)), (7, 2, 1))[0]
        home = CENTRE.around(rng, near_km, far_km)
        types = rng.sample([*VEHICLE_TYPES], 2)
        trucks = []
        for truck in range(1, rng.randint(1, 4) + 1):
            vehicle_type = rng.choices(types, [VEHICLE_TYPES[kind] for kind in types])[0]
            position, destination = (home.around(rng, 0, ROAMING_KM) for _ in range(2))
            trucks.append(Truck(f"v{number}-{truck}", vehicle_type, home, position, destination))
        return Company(
            transporter_id=transporter_id,
            name=f"{rng.choice(NAMES)} Haulage {number}",
            trucks=tuple(trucks),
            drivers=tuple(f"d{number}-{driver}" for driver in range(1, len(trucks) + 1)),
            online_after_s=rng.uniform(1, 6) if rng.random() < 0.15 else 0.0,
        )


def _wanted(rng: Random) -> Mapping[str, int]:
    kinds, weights = [*VEHICLE_TYPES], [*VEHICLE_TYPES.values()]
    size = rng.random()
    if size < 0.55:
        return {rng.choices(kinds, weights)[0]: 1}
    if size < 0.8:
        return {rng.choices(kinds, weights)[0]: rng.randint(2, 3)}
    return {kind: rng.randint(1, 2) for kind in rng.sample(kinds, 2)}
