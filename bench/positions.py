"""Measures haulcast.domain.grid, and storage.memory.presence on top of it, in one process: no server, no socket.

Payload: 100,000 vehicles of one kind with string keys, spread evenly over a city (50 x 50 km) or a country
(1000 x 1000 km) around 20 N 78 E. A lookup takes the first 200 from a random place in the area, all of them
drained before the clock stops. "refused": `accept` turns down that many of the nearest first. "from afar":
the place is 4,000 km away. An update is the Point, checked, and the put: a drive of 75 m (15 m/s for 5 s), or
a jump to anywhere in the area. Figures are over all rounds on one index, in a random but seeded order; the
garbage collector is on, as it is in a server.

"presence": the same vehicles, those of 30,000 transporters at random, all online; each transporter's first vehicle
stands anywhere and its others within 15 km of it. A lookup asks for the nearest 500 transporters and the nearest 20 of
those left out; "excluded": so many of the nearest have been offered the haul before. The longest turn is the longest
stretch in any lookup that does not let the event loop run. A report is the Point, checked, and the call.

    python -m bench.positions [--vehicles 100000] [--lookups 200] [--rounds 5]
"""

import argparse
from collections.abc import Callable, Collection, Coroutine
from itertools import islice
from math import cos, radians
from random import Random
from statistics import median, quantiles
from time import perf_counter_ns
from typing import TypeVar

from haulcast.clock import SystemClock
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.grid import GridIndex
from haulcast.domain.ids import TenantId, TransporterId, VehicleId
from haulcast.domain.waves import MAX_LEFT_OUT
from haulcast.ports import Nearby
from haulcast.storage.memory.presence import MemoryPresence

KIND = "truck_14ft"
MIDDLE = Point(20.0, 78.0)
AFAR = Point(-10.0, 60.0)
LIMIT = 200
REFUSED = 5_000
TENANT = TenantId("acme")
TRANSPORTERS = 30_000
OFFERS_PER_WAVE = 500
EXCLUDED = (5_000, 20_000)
HOME_KM = 30.0
FOREVER_S = 1e9
"""The time to live of positions: none lapses while the bench runs."""
M_PER_DEGREE = 111_195.0
AREAS_KM = {"city": 50.0, "country": 1000.0}
RADII_KM: tuple[float | None, ...] = (10.0, 75.0, None)

T = TypeVar("T")
Accept = Callable[[str, int], bool]
Move = tuple[str, float, float]
"""Key, latitude and longitude: plain, so that making the Point is part of what is measured."""


def accept_all(key: str, value: int) -> bool:
    return True


def moved(point: Point, north_m: float, east_m: float) -> Point:
    east_degrees = east_m / (M_PER_DEGREE * cos(radians(point.lat)))
    return Point(point.lat + north_m / M_PER_DEGREE, point.lng + east_degrees)


def anywhere(rng: Random, side_km: float) -> Point:
    half_m = side_km * 500.0
    return moved(MIDDLE, rng.uniform(-half_m, half_m), rng.uniform(-half_m, half_m))


def driven(rng: Random, point: Point) -> Point:
    return moved(point, rng.choice((-53.0, 53.0)), rng.choice((-53.0, 53.0)))


def filled(rng: Random, vehicles: int, side_km: float) -> GridIndex[str, int]:
    index: GridIndex[str, int] = GridIndex()
    for number in range(vehicles):
        index.put(f"vehicle-{number:06}", anywhere(rng, side_km), KIND, number)
    return index


def lookup(
    index: GridIndex[str, int],
    center: Point,
    radius_m: float | None,
    accept: Accept,
) -> tuple[float, int]:
    """Milliseconds, and how many were found."""
    started = perf_counter_ns()
    found = list(islice(index.nearest(center, kinds=(KIND,), radius_m=radius_m, accept=accept), LIMIT))
    return (perf_counter_ns() - started) / 1e6, len(found)


def refusing_nearest(index: GridIndex[str, int], center: Point) -> Accept:
    near = index.nearest(center, kinds=(KIND,), radius_m=None, accept=accept_all)
    refused = {key for _, key, _ in islice(near, REFUSED)}
    return lambda key, value: key not in refused


def report_lookups(what: str, taken: list[tuple[float, int]]) -> None:
    times = [ms for ms, _ in taken]
    found = median(found for _, found in taken)
    p99 = quantiles(times, n=100)[98]
    print(f"{what:<44} p50 {median(times):7.3f} ms   p99 {p99:7.3f} ms   found {found:5.0f}")


def report_updates(what: str, index: GridIndex[str, int], moves: list[list[Move]]) -> None:
    """`moves`: those of each round."""
    costs = []
    for one_round in moves:
        started = perf_counter_ns()
        for number, (key, lat, lng) in enumerate(one_round):
            index.put(key, Point(lat, lng), KIND, number)
        costs.append((perf_counter_ns() - started) / 1e3 / len(one_round))
    report_costs(what, costs)


def report_costs(what: str, costs: list[float]) -> None:
    """`costs`: microseconds each, by round."""
    print(f"{what:<44} median {median(costs):.2f} us   worst round {max(costs):.2f} us")


def measure(area: str, side_km: float, vehicles: int, lookups: int, rounds: int) -> None:
    rng = Random(1)
    index = filled(rng, vehicles, side_km)
    for radius_km in RADII_KM:
        radius_m = None if radius_km is None else radius_km * 1000.0
        within = "no limit" if radius_km is None else f"{radius_km:g} km"
        for _ in range(10):
            lookup(index, anywhere(rng, side_km), radius_m, accept_all)
        taken = [lookup(index, anywhere(rng, side_km), radius_m, accept_all) for _ in range(lookups * rounds)]
        report_lookups(f"{area}, {within}", taken)
    taken = []
    for _ in range(10 * rounds):
        center = anywhere(rng, side_km)
        taken.append(lookup(index, center, None, refusing_nearest(index, center)))
    report_lookups(f"{area}, no limit, {REFUSED} refused", taken)
    taken = [lookup(index, AFAR, None, accept_all) for _ in range(10 * rounds)]
    report_lookups(f"{area}, no limit, from afar", taken)

    keys = [f"vehicle-{number:06}" for number in range(vehicles)]
    drives = []
    places = {key: entry.point for key in keys if (entry := index.get(key)) is not None}
    for _ in range(rounds):
        rng.shuffle(keys)
        places = {key: driven(rng, places[key]) for key in keys}
        drives.append([(key, place.lat, place.lng) for key, place in places.items()])
    report_updates(f"{area}, update, 75 m on", index, drives)
    jumps = []
    for _ in range(rounds):
        there = [anywhere(rng, side_km) for _ in keys]
        jumps.append([(key, place.lat, place.lng) for key, place in zip(keys, there, strict=True)])
    report_updates(f"{area}, update, anywhere", index, jumps)


def online(rng: Random, vehicles: int, side_km: float) -> tuple[MemoryPresence, list[Vehicle], dict[VehicleId, Point]]:
    """Everybody online, the vehicles, and where each is."""
    presence = MemoryPresence(SystemClock(), vehicle_ttl_s=FOREVER_S, transporter_ttl_s=FOREVER_S)
    homes: dict[TransporterId, Point] = {}
    fleet: list[Vehicle] = []
    places: dict[VehicleId, Point] = {}
    for number in range(vehicles):
        transporter_id = TransporterId(f"transporter-{rng.randrange(TRANSPORTERS):05}")
        vehicle = Vehicle(VehicleId(f"vehicle-{number:06}"), transporter_id, KIND)
        if transporter_id not in homes:
            run(presence.go_online(TENANT, transporter_id))
            homes[transporter_id] = place = anywhere(rng, side_km)
        else:
            half_m = HOME_KM * 500.0
            place = moved(homes[transporter_id], rng.uniform(-half_m, half_m), rng.uniform(-half_m, half_m))
        presence.report(TENANT, vehicle, place)
        fleet.append(vehicle)
        places[vehicle.vehicle_id] = place
    return presence, fleet, places


def run(work: Coroutine[None, None, T]) -> tuple[T, list[float]]:
    """Its result, and the milliseconds of each of its turns: a loop with nothing else to do."""
    turns: list[float] = []
    while True:
        started = perf_counter_ns()
        try:
            work.send(None)
        except StopIteration as ended:
            result: T = ended.value
            return result, [*turns, (perf_counter_ns() - started) / 1e6]
        turns.append((perf_counter_ns() - started) / 1e6)


def nearest(
    presence: MemoryPresence,
    center: Point,
    radius_m: float | None,
    exclude: Collection[TransporterId],
    limit: int,
) -> tuple[Nearby, list[float]]:
    return run(
        presence.nearest(
            TENANT,
            center,
            vehicle_types=(KIND,),
            radius_m=radius_m,
            exclude=exclude,
            limit=limit,
            left_out_limit=MAX_LEFT_OUT,
        )
    )


def measure_presence(area: str, side_km: float, vehicles: int, lookups: int, rounds: int) -> None:
    rng = Random(1)
    presence, fleet, places = online(rng, vehicles, side_km)
    print(f"presence, {area}: {presence.vehicle_count} vehicles, {presence.online_count} transporters online")

    def measured(what: str, count: int, radius_m: float | None, excluded: int) -> None:
        taken = []
        longest_ms = 0.0
        for _ in range(count):
            center = anywhere(rng, side_km)
            exclude: set[TransporterId] = set()
            if excluded:
                before, _turns = nearest(presence, center, None, (), excluded)
                exclude = {candidate.transporter_id for candidate in before.candidates}
            nearby, turns = nearest(presence, center, radius_m, exclude, OFFERS_PER_WAVE)
            taken.append((sum(turns), len(nearby.candidates)))
            longest_ms = max(longest_ms, *turns)
        report_lookups(f"presence, {area}, {what}", taken)
        print(f"{'':<44} longest turn {longest_ms:.3f} ms")

    for radius_km in RADII_KM:
        within = "no limit" if radius_km is None else f"{radius_km:g} km"
        measured(within, lookups * rounds, None if radius_km is None else radius_km * 1000.0, 0)
    for excluded in EXCLUDED:
        measured(f"no limit, {excluded} excluded", 10 * rounds, None, excluded)

    costs = []
    for _ in range(rounds):
        rng.shuffle(fleet)
        places = {vehicle.vehicle_id: driven(rng, places[vehicle.vehicle_id]) for vehicle in fleet}
        moves = [(vehicle, places[vehicle.vehicle_id].lat, places[vehicle.vehicle_id].lng) for vehicle in fleet]
        started = perf_counter_ns()
        for vehicle, lat, lng in moves:
            presence.report(TENANT, vehicle, Point(lat, lng))
        costs.append((perf_counter_ns() - started) / 1e3 / len(moves))
    report_costs(f"presence, {area}, report, 75 m on", costs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.positions")
    parser.add_argument("--vehicles", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=200, help="for each round and radius")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for area, side_km in AREAS_KM.items():
        measure(area, side_km, options.vehicles, options.lookups, options.rounds)
        measure_presence(area, side_km, options.vehicles, options.lookups, options.rounds)


if __name__ == "__main__":
    main()
