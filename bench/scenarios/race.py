"""Accepts over WebSockets: what a decision costs, server and stores together, against the accept paths users run today.

Two loads. Raced: 200 sockets want the same truck, one race after the other. Uncontended: as many accepts at once, each
for a truck that nobody else wants. Every commit is on the disk before it is told. All variants are served by haulcast's
edge; a decision is an accept that was won or lost, and exactly one wins each truck. The baselines tell nobody of what
was decided, so the phones have closed their feeds; what it costs to have them open is measured besides.
`transport` is what a ping costs at the same server, sent in the same way.
"""

import asyncio
from collections.abc import Mapping, Sequence
from math import ceil
from random import uniform
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from bench.baselines.accept_sides import PLACE, RACED, Attempt, Fleet, Side, Told, start, user
from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.histogram import Histogram
from bench.kit.line import Phone

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"sockets": 200, "races": 2, "uncontended": 1000, "repetitions": 5, "rates": [], "seconds": 0.0},
    "full": {
        "sockets": 200,
        "races": 10,
        "uncontended": 1000,
        "repetitions": 9,
        "rates": [250, 500, 1000, 2000, 3000, 4000],
        "seconds": 2.0,
    },
}
UNCONTENDED = "uncontended"
OURS, OPEN = "haulcast", "haulcast, feeds open"
THEIRS = {"lock": "lock + SERIALIZABLE", "serializable": "SERIALIZABLE", "conditional": "conditional statement"}
TARGETS = {
    RACED: {"lock": 15.0, "serializable": 6.0, "conditional": 5.0},
    UNCONTENDED: {"lock": 8.0, "serializable": 8.0, "conditional": 2.5},
}
REPORTS_AT_ONCE = 64
PINGS = 10
"""Per socket, for what the transport alone costs."""
ANSWERED_WITHIN_S = 60.0
BUSY = b'"code":"BUSY"'
BUSY_RETRIES = 5
BUSY_PAUSE_S = 0.1
"""Whoever is told BUSY tries again after this time, then after twice as long, and so on, as the protocol advises."""
SETTLED_AFTER_S = 1.0
"""When vehicles are free again whose trips have ended."""


class Agent:
    """Transporters' phones, one set for each server."""

    def __init__(self, _number: int) -> None:
        self._phones: dict[str, list[Phone]] = {}

    async def greet(self, url: str, tokens: list[str]) -> None:
        """Connect, and close the feeds."""
        self._phones[url] = await asyncio.gather(*(Phone.connect(url, token) for token in tokens))
        await self.feeds(url, False)

    async def feeds(self, url: str, opened: bool) -> None:
        """Open or close the feed of every phone."""
        kind = "subscribe" if opened else "unsubscribe"
        await asyncio.gather(
            *(phone.do(kind, {"topic": f"feed:{user(n)}"}) for n, phone in enumerate(self._phones[url]))
        )

    async def appear(self, url: str, vehicles: list[list[str]]) -> None:
        """Report where the vehicles of each phone are, and be online."""
        limit = asyncio.Semaphore(REPORTS_AT_ONCE)

        async def report(phone: Phone, vehicle: str) -> None:
            async with limit:
                await phone.do("location", {"vehicle_id": vehicle, **PLACE})

        by_phone = zip(self._phones[url], vehicles, strict=True)
        await asyncio.gather(*(report(phone, vehicle) for phone, theirs in by_phone for vehicle in theirs))
        await asyncio.gather(*(phone.do("transporter.online", {}) for phone in self._phones[url]))

    async def end(self, url: str, trips: list[tuple[int, str]]) -> None:
        """End trips, so that their vehicles and drivers are free again."""
        phones = self._phones[url]
        await asyncio.gather(
            *(phones[n].do("trip.update", {"trip_id": trip, "status": "cancelled"}) for n, trip in trips)
        )

    async def ping(self, url: str) -> int:
        """Have all ping at once, over and over; how often."""
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            for _ in range(PINGS):
                await asyncio.gather(*(phone.timed("ping", {}) for phone in self._phones[url]))
        return PINGS * len(self._phones[url])

    async def accept(self, url: str, races: list[list[Attempt]]) -> Told:
        """Make the attempts of each race at once, the next race when all have been answered."""
        answers = []
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            for race in races:
                answers += await asyncio.gather(*(self._accept(url, attempt) for attempt in race))
        return _told(answers)

    async def accept_at(self, url: str, attempts: list[Attempt], per_s: float) -> tuple[Told, float]:
        """Make an attempt every so often, whatever has become of those before, and how long it took until the last
        answer. Latency counts from when an attempt was due."""
        began_s = perf_counter()
        answers = []
        async with asyncio.timeout(ANSWERED_WITHIN_S), asyncio.TaskGroup() as tasks:
            for n, attempt in enumerate(attempts):
                due_s = began_s + n / per_s
                if (wait_s := due_s - perf_counter()) > 0:
                    await asyncio.sleep(wait_s)
                answers.append(tasks.create_task(self._accept(url, attempt, due_s)))
        took_s = perf_counter() - began_s
        return _told([answer.result() for answer in answers]), took_s

    async def _accept(self, url: str, attempt: Attempt, due_s: float | None = None) -> "_Answer":
        began_s = perf_counter() if due_s is None else due_s
        phone, busy = self._phones[url][attempt.socket], 0
        data = {
            "broadcast_id": attempt.broadcast_id,
            "vehicle_id": attempt.vehicle_id,
            "driver_id": attempt.driver_id,
        }
        while BUSY in (frame := await phone.ask("offer.accept", data)) and busy < BUSY_RETRIES:
            await asyncio.sleep(uniform(0.5, 1.5) * BUSY_PAUSE_S * 2**busy)
            busy += 1
        return _Answer(attempt.socket, frame, perf_counter() - began_s, busy)


class _Answer(NamedTuple):
    socket: int
    frame: bytes
    latency_s: float
    busy: int


def _told(answers: Sequence[_Answer]) -> Told:
    """Read the replies, now that nothing is measured any more."""
    told = Told()
    for socket, frame, latency_s, busy in answers:
        told.busy += busy
        reply = msgspec.json.decode(frame)
        if reply["ok"]:
            told.winners.append((socket, reply["data"]["trip_id"]))
            told.won.add(latency_s)
        else:
            told.refusals[reply["error"]["code"]] += 1
            told.lost.add(latency_s)
    return told


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    if bench.only_its_own_servers(OURS):
        return
    options = bench.options
    most = max([options["uncontended"], *(round(rate * options["seconds"]) for rate in options["rates"])])
    fleet = Fleet(options["sockets"], options["races"], _vehicles_each(bench, most))
    crew = await bench.stack.enter_async_context(Crew.hire(Agent, 1))
    sides: dict[str, Side] = {}
    for path, variant in [(None, OURS), *THEIRS.items()]:
        with bench.needs(variant):
            sides[variant] = await start(bench.stack, bench.directory(), crew, fleet, path)
            bench.version(**sides[variant].versions())
    if OURS in sides:
        sides[OPEN] = sides[OURS]
    winners: dict[str, list[Histogram]] = {variant: [] for variant in sides}
    async for variant in bench.in_turns([*sides], options["repetitions"]):
        winners[variant].append(await _measure(bench, variant, sides[variant], fleet))
    if OURS in sides:
        await _steady(bench, sides[OURS], fleet)
    _targets(bench, winners)


async def _measure(bench: Bench, variant: str, side: Side, fleet: Fleet) -> Histogram:
    """One turn of a variant; the latencies of the raced winners."""
    url, options = side.server.url, bench.options
    await side.crew.ask("feeds", url, variant == OPEN)
    await side.appear(_vehicles_each(bench, options["uncontended"]))
    before_s = side.server.cpu_s()
    (pings,) = await side.crew.ask("ping", url)
    transport_us = (side.server.cpu_s() - before_s) / pings * 1e6
    bench.record(variant, "us", transport=transport_us)

    broadcasts = await side.open([RACED] * options["races"], len(fleet.users))
    races = [fleet.all_want(broadcast, n) for n, broadcast in enumerate(broadcasts)]
    raced = await _accept(bench, variant, side, RACED, races, transport_us)
    await side.check(broadcasts, raced)
    await side.clear(raced)

    if variant != OPEN:
        broadcasts = await side.open(fleet.own_types(options["uncontended"]), 1)
        told = await _accept(bench, variant, side, UNCONTENDED, [fleet.each_wants(broadcasts)], transport_us)
        await side.check(broadcasts, told)
        await side.clear(told)
    await side.crew.ask("feeds", url, False)
    bench.record_crew(variant, side.crew)
    return raced.won


def _vehicles_each(bench: Bench, broadcasts: int) -> int:
    """How many vehicles of its own type a transporter needs for so many broadcasts."""
    return ceil(broadcasts / int(bench.options["sockets"]))


async def _accept(
    bench: Bench, variant: str, side: Side, load_name: str, races: list[list[Attempt]], transport_us: float
) -> Told:
    server_s, whole_s = side.server.cpu_s(), side.server.whole_cpu_s()
    (told,) = await side.crew.ask("accept", side.server.url, races)
    assert isinstance(told, Told)
    whole_us = (side.server.whole_cpu_s() - whole_s) / told.decisions * 1e6
    server_us = (side.server.cpu_s() - server_s) / told.decisions * 1e6
    bench.record(variant, "1/s", **{f"{load_name}_decisions_per_cpu_s": 1e6 / whole_us})
    bench.record(
        variant,
        "us",
        **{
            f"{load_name}_cpu": whole_us,
            f"{load_name}_server_cpu": server_us,
            f"{load_name}_cpu_without_transport": whole_us - transport_us,
        },
    )
    bench.record(variant, "per decision", **{f"{load_name}_busy": told.busy / told.decisions})
    bench.record_latency(variant, f"{load_name}_won", told.won)
    if load_name == RACED:
        bench.record_latency(variant, f"{load_name}_lost", told.lost)
    return told


async def _steady(bench: Bench, side: Side, fleet: Fleet) -> None:
    """Accepts at given rates, whatever becomes of them, at haulcast alone."""
    rates = {f"haulcast at {rate}/s": rate for rate in bench.options["rates"]}
    async for variant in bench.in_turns([*rates], bench.options["repetitions"], warm_up=False):
        await asyncio.sleep(SETTLED_AFTER_S)
        number = round(rates[variant] * bench.options["seconds"])
        await side.appear(_vehicles_each(bench, number))
        broadcasts = await side.open(fleet.own_types(number), 1)
        before_s = side.server.whole_cpu_s()
        attempts = fleet.each_wants(broadcasts)
        ((told, took_s),) = await side.crew.ask("accept_at", side.server.url, attempts, rates[variant])
        bench.record(variant, "us", cpu=(side.server.whole_cpu_s() - before_s) / number * 1e6)
        bench.record(variant, "1/s", decisions=number / took_s)
        bench.record_latency(variant, "latency", told.won)
        bench.record_crew(variant, side.crew)
        await side.check(broadcasts, told)
        await side.clear(told)


def _targets(bench: Bench, winners: Mapping[str, Sequence[Histogram]]) -> None:
    for load_name, bounds in TARGETS.items():
        for path, bound in bounds.items():
            figure = f"{load_name}_cpu"
            bench.target(
                f"{load_name}_by_{path}",
                f"decisions per CPU second, {load_name}, by those of {THEIRS[path]}",
                bench.ratio((THEIRS[path], figure), (OURS, figure)),
                at_least=bound,
            )
            net = f"{figure}_without_transport"
            for theirs, ours in zip(bench.values(THEIRS[path], net), bench.values(OURS, net), strict=False):
                bench.record(THEIRS[path], "times haulcast's", **{f"{load_name}_without_transport": theirs / ours})
    p99_ms = {
        variant: Histogram().merge(*by_turn[1:]).ms(99)  # the first is the warm-up
        for variant, by_turn in winners.items()
    }
    theirs_ms = [p99_ms[variant] for variant in THEIRS.values() if variant in p99_ms]
    bench.target(
        "winner_p99",
        "p99 of the winner's latency, raced, by the best of the others'",
        p99_ms[OURS] / min(theirs_ms) if theirs_ms and OURS in p99_ms else None,
        at_most=0.5,
    )
    bench.note(
        "p99 of the winners' latency over all races, in ms: "
        + ", ".join(f"{variant} {value:.1f}" for variant, value in p99_ms.items())
    )
