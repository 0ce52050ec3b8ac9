"""A day in a mixed city: what one operation costs, and what it costs at ten times the broadcasts and transporters.

1. The city is `bench.kit.city`: positions, broadcasts at a Poisson rate, races, declines, cancels, trips. Ten times the
   city has ten times the area, so that a haul is offered to as many as before: the nearest `OFFERED` of its type in the
   first wave. What its cost per operation shows is what grows with size alone.
2. An operation is a request that was answered, also with a no: who loses a race costs as much as who wins it.
   What the server does when nobody asks is divided by the operations too, and what is done at the same moment shares
   its commits and writes: a busier server is usually the cheaper one.
3. Each size has a server of its own, which idles while it is the other's turn. At an address that was given, both sizes
   are tenants of that one, and its CPU time is not known.
"""

from collections import Counter, defaultdict
from math import ceil, sqrt
from random import Random
from time import perf_counter
from typing import Any

from bench.kit.bench import Bench
from bench.kit.city import TYPES, VEHICLES, City
from bench.kit.crew import Crew
from bench.kit.fleet import allow_sockets, tenant_of
from bench.kit.histogram import Histogram
from bench.kit.servers import Haulcast, Missing, clustered, target_server
from haulcast.demo.stores import StoreFailed

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"transporters": 60, "broadcasts_per_s": 4.0, "seconds": 4.0, "repetitions": 2}
    | {"nodes": 0, "clients": 1, "seed": 1},
    "full": {"transporters": 60, "broadcasts_per_s": 4.0, "seconds": 20.0, "repetitions": 5}
    | {"nodes": 2, "clients": 1, "seed": 1},
}
"""`transporters` and `broadcasts_per_s` are those of the small city; `nodes` those of a cluster besides, if any."""
SIZES = {"small": 1, "ten times": 10}
PER_KM2 = 2.0
"""Transporters in a square kilometre, in a city of any size."""
OFFERED = 10
SETTINGS = {"wave_radii_km": [5.0, 50.0], "wave_interval_s": 2.0, "max_offers_per_wave": OFFERED}
CUSTOMERS_FOR_S = 8.0
"""How many customers there are, in broadcasts of so long: none has two at once."""
LOST = ("REQUEST_ALREADY_TAKEN", "BROADCAST_FULLY_FILLED", "BROADCAST_CANCELLED", "BROADCAST_EXPIRED")
"""What a race is lost with; any other refusal is an error."""


class Agent:
    """A share of each city."""

    def __init__(self, number: int, seed: int) -> None:
        self._seed = f"{seed}-{number}"
        self._cities: dict[str, City] = {}

    async def connect(self, variant: str, per_s: float, side_km: float, *residents: Any) -> None:
        """See `City.connect`."""
        city = self._cities[variant] = City(Random(self._seed), per_s, side_km)
        await city.connect(*residents)

    async def wake(self, variant: str) -> None:
        """See `City.wake`."""
        await self._cities[variant].wake()

    async def live(self, variant: str, seconds: float) -> tuple[dict[str, Histogram], Counter[str]]:
        """See `City.live`."""
        return await self._cities[variant].live(seconds)


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    options = bench.options
    crew = await bench.stack.enter_async_context(Crew.hire(Agent, options["clients"], options["seed"]))
    subjects: dict[str, Haulcast] = {}
    for size, times in SIZES.items():
        subjects[size] = await target_server(bench)
        await _settle(bench, crew, subjects[size], size, times)
    if options["nodes"] and bench.url is None:
        for size, times in SIZES.items():
            variant = f"{size}, {options['nodes']} nodes"
            with bench.needs(variant):
                subjects[variant] = await _cluster(bench)
                await _settle(bench, crew, subjects[variant], variant, times)
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    async for variant in bench.in_turns([*subjects], options["repetitions"]):
        refused[variant] += await _live(bench, crew, subjects[variant], variant)
    for variant, codes in refused.items():
        told = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
        bench.note(f"{variant}: refused in all turns, with the warm-up: {told or 'nothing'}")
    if bench.url:
        bench.note("the CPU time of a server at an address is not known")
    bench.target(
        "cpu_at_ten_times",
        "server CPU per operation in a city of ten times the broadcasts and transporters, by that in the small one",
        bench.ratio(("ten times", "cpu_per_operation"), ("small", "cpu_per_operation")),
        at_most=1.15,
    )


async def _live(bench: Bench, crew: Crew, subject: Haulcast, variant: str) -> Counter[str]:
    """One turn, recorded. How many requests were refused, by code."""
    await crew.ask("wake", variant)
    crew.busy = 0.0
    before_s, whole_before_s, began_s = subject.cpu_s(), subject.whole_cpu_s(), perf_counter()
    lived: list[tuple[dict[str, Histogram], Counter[str]]]
    lived = await crew.ask("live", variant, bench.options["seconds"])
    cpu_s, whole_cpu_s = subject.cpu_s() - before_s, subject.whole_cpu_s() - whole_before_s
    took_s = perf_counter() - began_s
    latencies: dict[str, Histogram] = defaultdict(Histogram)
    refused = Counter[str]()
    for its_latencies, its_refused in lived:
        refused += its_refused
        for request, histogram in its_latencies.items():
            latencies[request].merge(histogram)
    operations = sum(map(len, latencies.values()))
    if subject.pids:
        bench.record(variant, "us", cpu_per_operation=cpu_s / operations * 1e6)
        bench.record(variant, "of a core", server_busy=cpu_s / took_s)
    if subject.store_pids:
        bench.record(variant, "us", cpu_per_operation_with_stores=whole_cpu_s / operations * 1e6)
    bench.record(variant, "1/s", operations=operations / took_s)
    for request, histogram in sorted(latencies.items()):
        bench.record_latency(variant, request.replace(".", "_"), histogram)
    lost = sum(refused[code] for code in LOST)
    bench.record(variant, "", races_lost=lost, errors=refused.total() - lost)
    bench.record_crew(variant, crew)
    return refused


async def _cluster(bench: Bench) -> Haulcast:
    try:
        return await bench.stack.enter_async_context(clustered(bench.directory(), bench.options["nodes"]))
    except StoreFailed as error:
        raise Missing(str(error)) from None


async def _settle(bench: Bench, crew: Crew, haulcast: Haulcast, variant: str, times: int) -> None:
    """Have such a city there, and everybody connected."""
    bench.tell(f"{variant}: connecting")
    transporters, per_s = bench.options["transporters"] * times, bench.options["broadcasts_per_s"] * times
    tenant = tenant_of("day")
    await haulcast.create_tenant(tenant, **SETTINGS)
    kinds = {f"t{number}": TYPES[number % len(TYPES)] for number in range(transporters)}
    fleet = {name: [(f"{name}-v{number}", kind) for number in range(VEHICLES)] for name, kind in kinds.items()}
    await haulcast.import_fleet(tenant, fleet, VEHICLES)
    tokens = haulcast.tokens(tenant, "transporter", kinds)
    companies = [(name, (tokens[name], kind)) for name, kind in kinds.items()]
    customers = [haulcast.token(tenant, "customer", f"c{number}") for number in range(ceil(per_s * CUSTOMERS_FOR_S))]
    allow_sockets(len(companies) + len(customers))
    side_km = sqrt(transporters / PER_KM2)
    size = len(crew)
    shares = [
        (variant, per_s / size, side_km, [*haulcast.urls], dict(companies[number::size]), customers[number::size])
        for number in range(size)
    ]
    await crew.ask_each("connect", shares)
