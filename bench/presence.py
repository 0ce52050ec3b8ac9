"""Measures storage.redis.presence against a real Redis on this machine, over loopback.

Payload: that of bench/positions.py: 100,000 vehicles of one kind, those of 30,000 transporters at random, in a city
(50 x 50 km) or a country (1000 x 1000 km) around 20 N 78 E; all online, unless "offline" says how many are not. A
lookup asks from a random place for the nearest 500 transporters and the nearest 20 of those left out; "excluded": so
many of the nearest have been offered the haul before. Times are those of the caller, one lookup after the other; "in
Redis" is how long Redis did nothing else (its own percentiles, of the script alone). A report is the call; the clock
stops when Redis has all of them.

    python -m bench.presence [--redis URL] [--vehicles 100000] [--lookups 200] [--rounds 5]

Without --redis one is started, and ended afterwards.
"""

import argparse
import asyncio
import re
import tempfile
from pathlib import Path
from random import Random
from statistics import median, quantiles
from time import perf_counter_ns, process_time_ns

from redis.asyncio import Redis

from bench.positions import (
    AREAS_KM,
    EXCLUDED,
    HOME_KM,
    KIND,
    OFFERS_PER_WAVE,
    RADII_KM,
    TENANT,
    TRANSPORTERS,
    anywhere,
    driven,
    moved,
    report_costs,
)
from haulcast.clock import SystemClock
from haulcast.demo.stores import PrivateRedis
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point, distance_m
from haulcast.domain.ids import TransporterId, VehicleId
from haulcast.domain.waves import MAX_LEFT_OUT
from haulcast.storage.redis import RedisPresence

FOREVER_S = 1e6
"""The time to live of positions: none lapses while the bench runs."""
PER_BREATH = 500
"""Reports that come in before the loop runs again."""
OFFLINE = 0.9

Fleet = dict[Vehicle, Point]


def fleet_of(rng: Random, vehicles: int, side_km: float) -> Fleet:
    """Each transporter's first vehicle stands anywhere, its others within 15 km of it."""
    homes: dict[TransporterId, Point] = {}
    fleet: Fleet = {}
    half_m = HOME_KM * 500.0
    for number in range(vehicles):
        transporter_id = TransporterId(f"transporter-{rng.randrange(TRANSPORTERS):05}")
        home = homes.get(transporter_id)
        if home is None:
            place = homes[transporter_id] = anywhere(rng, side_km)
        else:
            place = moved(home, rng.uniform(-half_m, half_m), rng.uniform(-half_m, half_m))
        fleet[Vehicle(VehicleId(f"vehicle-{number:06}"), transporter_id, KIND)] = place
    return fleet


def nearest_transporters(fleet: Fleet, center: Point, count: int) -> set[TransporterId]:
    if count == 0:
        return set()
    near: dict[TransporterId, None] = {}
    for vehicle in sorted(fleet, key=lambda vehicle: distance_m(center, fleet[vehicle])):
        near[vehicle.transporter_id] = None
        if len(near) == count:
            break
    return set(near)


async def report_all(presence: RedisPresence, fleet: Fleet) -> None:
    for number, (vehicle, place) in enumerate(fleet.items(), start=1):
        presence.report(TENANT, vehicle, place)
        if number % PER_BREATH == 0:
            await asyncio.sleep(0)
    await presence._writer.flush(60.0)


async def in_redis_ms(redis: "Redis") -> str:
    """The percentiles that Redis has of scripts since they were reset."""
    info = await redis.execute_command("INFO", "latencystats")  # type: ignore[no-untyped-call]
    text = info.decode() if isinstance(info, bytes) else str(info)
    found = re.search(r"evalsha\W+p50\W+([\d.]+)\W+p99\W+([\d.]+)", text)
    if found is None:
        return "not told"
    return f"p50 {float(found[1]) / 1000:.2f} ms   p99 {float(found[2]) / 1000:.2f} ms"


async def measure(
    redis: "Redis", url: str, area: str, side_km: float, vehicles: int, lookups: int, rounds: int
) -> None:
    rng = Random(1)
    await redis.flushdb()
    presence = RedisPresence(url, SystemClock(), vehicle_ttl_s=FOREVER_S, transporter_ttl_s=FOREVER_S)
    fleet = fleet_of(rng, vehicles, side_km)
    transporters = sorted({vehicle.transporter_id for vehicle in fleet})
    for first in range(0, len(transporters), PER_BREATH):
        await asyncio.gather(*(presence.go_online(TENANT, each) for each in transporters[first : first + PER_BREATH]))
    await report_all(presence, fleet)
    print(f"{area}: {presence.vehicle_count} vehicles, {presence.online_count} transporters online")

    async def measured(what: str, count: int, radius_m: float | None, excluded: int) -> None:
        times: list[float] = []
        found: list[int] = []
        centers = [anywhere(rng, side_km) for _ in range(count)]
        excludes = [nearest_transporters(fleet, center, excluded) for center in centers]
        await redis.execute_command("CONFIG", "RESETSTAT")  # type: ignore[no-untyped-call]
        for center, exclude in zip(centers, excludes, strict=True):
            started = perf_counter_ns()
            nearby = await presence.nearest(
                TENANT,
                center,
                vehicle_types=(KIND,),
                radius_m=radius_m,
                exclude=exclude,
                limit=OFFERS_PER_WAVE,
                left_out_limit=MAX_LEFT_OUT,
            )
            times.append((perf_counter_ns() - started) / 1e6)
            found.append(len(nearby.candidates))
        p99 = quantiles(times, n=100)[98]
        print(f"{what:<36} p50 {median(times):7.2f} ms   p99 {p99:7.2f} ms   found {median(found):5.0f}")
        print(f"{'':<36} in Redis {await in_redis_ms(redis)}")

    for radius_km in RADII_KM:
        within = "no limit" if radius_km is None else f"{radius_km:g} km"
        await measured(f"{area}, {within}", lookups, None if radius_km is None else radius_km * 1000.0, 0)
    for excluded in EXCLUDED:
        await measured(f"{area}, no limit, {excluded} excluded", 10 * rounds, None, excluded)

    costs, cpu = [], []
    for _ in range(rounds):
        fleet = {vehicle: driven(rng, place) for vehicle, place in fleet.items()}
        await redis.execute_command("CONFIG", "RESETSTAT")  # type: ignore[no-untyped-call]
        started, cpu_started = perf_counter_ns(), process_time_ns()
        await report_all(presence, fleet)
        costs.append((perf_counter_ns() - started) / 1e3 / len(fleet))
        cpu.append((process_time_ns() - cpu_started) / 1e3 / len(fleet))
    report_costs(f"{area}, report, until all is written", costs)
    report_costs(f"{area}, report, of that this process", cpu)
    print(f"{1e6 / median(costs):,.0f} reports per second from one node; a batch in Redis {await in_redis_ms(redis)}")

    for transporter_id in transporters[: round(len(transporters) * OFFLINE)]:
        await presence.go_offline(TENANT, transporter_id)
    await measured(f"{area}, no limit, {OFFLINE:.0%} offline", 10 * rounds, None, 0)
    await presence.close()


async def measure_all(url: str, options: argparse.Namespace) -> None:
    async with Redis.from_url(url) as redis:
        for area, side_km in AREAS_KM.items():
            await measure(redis, url, area, side_km, options.vehicles, options.lookups, options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.presence")
    parser.add_argument("--redis", help="its address; the database that it names is emptied")
    parser.add_argument("--vehicles", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=200, help="for each radius")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.redis is not None:
        asyncio.run(measure_all(options.redis, options))
        return
    with tempfile.TemporaryDirectory(prefix="haulcast-bench-") as directory:
        redis = PrivateRedis(Path(directory))
        redis.start()
        try:
            asyncio.run(measure_all(redis.url, options))
        finally:
            redis.stop()


if __name__ == "__main__":
    main()
