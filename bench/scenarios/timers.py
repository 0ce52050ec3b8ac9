"""Deadlines: many live broadcasts whose ends fall evenly into a window, how late each is, and what memory each takes.

Nobody is near any of them, so a broadcast is created, sends a wave that finds nobody, and waits for its end. By the
journal (`late`) a deadline is late by the milliseconds from `expires_at` until the actor decided that the broadcast has
ended; by the server's own histogram, until the heap rang (p99, as the bound of its bucket); and by customers who watch
(`told`), until they were told, which is after it was durable. From the memory that a live broadcast holds, that of its
state is taken off: the objects that its journal entry is read into, all of them counted. An ended one keeps its actor
for five seconds more, which is after the memory was read. The full profile takes about seven minutes.
"""

import asyncio
import gc
import re
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from enum import Enum
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import msgspec

from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.fleet import tenant_of
from bench.kit.histogram import Histogram
from bench.kit.line import Phone
from bench.kit.servers import Haulcast, Missing, embedded
from haulcast.config import load
from haulcast.storage import documents

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"broadcasts": 3_000, "create_within_s": 15, "window_s": 6, "watchers": 100, "repetitions": 1},
    "full": {"broadcasts": 100_000, "create_within_s": 200, "window_s": 200, "watchers": 200, "repetitions": 1},
}
AT_ONCE = 64
"""How many creates are under way."""
WARM_UP = 10_000
"""So many customers ask something first, as the server remembers the rate of as many."""
WATCH_WITHIN_S = 1.0
"""The watchers' creates are spread over a second, so that their ends are too."""
PAUSE_S = 2.0
"""Nothing happens for so long before memory is read."""
ROUNDED_S = 0.5
"""Ends may be so much outside of the window."""
FIRED_WITHIN_S = 30.0
GOLDEN = 0.6180339887498949
"""The multiples of this, without their whole parts, fill the range from 0 to 1 evenly and in no order."""
BROADCAST = {
    "pickup": {"lat": -48.9, "lng": -123.4},
    "drop": {"lat": -48.8, "lng": -123.3},
    "trucks": [{"vehicle_type": "truck", "count": 1}],
}
_BUCKET = re.compile(r'^haulcast_timer_lateness_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
_LIVE = "SELECT count(*), max(state) FROM broadcasts WHERE tenant_id = ? AND ended_at_ms IS NULL"
_LATE = "SELECT ended_at_ms - expires_at_ms FROM broadcasts WHERE tenant_id = ? AND ended_at_ms IS NOT NULL"


class Customers:
    """All customers: some watch over a socket, the others create by REST and go."""

    def __init__(self, _number: int) -> None:
        self._told = Histogram()
        self._phones: list[Phone] = []
        self._expires_at_ms: dict[str, int] = {}  # by topic

    async def warm_up(self, url: str, tokens: list[str]) -> None:
        """Have each customer ask for its broadcasts."""

        async def ask(http: aiohttp.ClientSession, _number: int, token: str) -> None:
            async with http.get(f"{url}/v1/broadcasts", headers=_bearer(token)) as response:
                response.raise_for_status()
                await response.read()

        await _each(tokens, ask)

    async def watch(self, url: str, tokens: list[str], from_s: float, to_s: float) -> None:
        """Create a broadcast each and stay to be told of its end, which is between these times, in Unix seconds."""
        for number, token in enumerate(tokens):
            phone = await Phone.connect(url, token, self._hear)
            self._phones.append(phone)
            expires_in_s = _expires_in_s(number, from_s, to_s)
            created = await phone.do("broadcast.create", {**BROADCAST, "expires_in_s": expires_in_s})
            self._expires_at_ms[f"broadcast:{created['broadcast_id']}"] = created["expires_at"]
            await asyncio.sleep(WATCH_WITHIN_S / len(tokens))

    async def create(self, url: str, tokens: list[str], from_s: float, to_s: float) -> None:
        """Create a broadcast each as fast as the server takes them."""

        async def create(http: aiohttp.ClientSession, number: int, token: str) -> None:
            headers = {**_bearer(token), "Idempotency-Key": "create"}
            body = {**BROADCAST, "expires_in_s": _expires_in_s(number, from_s, to_s)}
            async with http.post(f"{url}/v1/broadcasts", headers=headers, json=body) as response:
                response.raise_for_status()
                await response.read()

        await _each(tokens, create)

    async def told(self) -> Histogram:
        """Return when all who watch were told, with how late. Raises `TimeoutError`."""
        async with asyncio.timeout(FIRED_WITHIN_S):
            while len(self._told) < len(self._phones):
                await asyncio.sleep(0.05)
        for phone in self._phones:
            phone.line.drop()
        told, self._told, self._phones = self._told, Histogram(), []
        return told

    def _hear(self, frame: bytes) -> None:
        if b'"event":"broadcast_expired"' in frame:
            expires_at_ms = self._expires_at_ms[msgspec.json.decode(frame)["topic"]]
            self._told.add(time.time() - expires_at_ms / 1000)


def _expires_in_s(number: int, from_s: float, to_s: float) -> int:
    """How long from now until the end of the broadcast of this number, somewhere between these Unix times.

    The server takes whole seconds, so it may be half a second more or less. As broadcasts that end in different seconds
    are created in turn, the ends are even within each second, too.
    """
    return max(1, round(from_s + (to_s - from_s) * (number * GOLDEN % 1) - time.time()))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def _each(tokens: list[str], call: Callable[[aiohttp.ClientSession, int, str], Awaitable[None]]) -> None:
    """Make a call with each token, some at a time. Raises `aiohttp.ClientError`."""
    numbered = iter(enumerate(tokens))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as http:

        async def work() -> None:
            for number, token in numbered:
                await call(http, number, token)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(work())


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    customers = await bench.stack.enter_async_context(Crew.hire(Customers, 1))
    with bench.needs("haulcast"):
        if bench.url is not None:
            raise Missing("timers are judged by the journal's file, which is not to be had from a URL")
    async for variant in bench.in_turns(["haulcast"], bench.options["repetitions"], warm_up=False):
        directory = bench.directory()
        async with embedded(directory) as server:
            await measure(bench, variant, server, load({"HAULCAST_DATA_DIR": str(directory)}).journal_path, customers)
    late_p99, late_max = bench.values("haulcast", "late_p99"), bench.values("haulcast", "late_max")
    memory = bench.values("haulcast", "memory_per_broadcast")
    bench.target("late_p99_ms", "how late deadlines are, p99", median(late_p99) if late_p99 else None, at_most=5)
    bench.target("late_max_ms", "how late the latest deadline is", max(late_max) if late_max else None, at_most=20)
    bench.target(
        "memory_kib",
        "KiB that the server holds per live broadcast, beyond its state",
        median(memory) if memory else None,
        at_most=5,
    )


def memory_of(value: object) -> int:
    """Bytes that a value takes with all that it refers to, but for what is the same for all broadcasts."""
    found: dict[int, object] = {}
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if id(one) not in found and not isinstance(one, type | Enum | None):
            found[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(map(sys.getsizeof, found.values()))


async def measure(bench: Bench, variant: str, server: Haulcast, journal: Path, customers: Crew) -> None:
    """Create all, wait for their ends, and read what became of them."""
    broadcasts, watchers, window_s = (bench.options[name] for name in ("broadcasts", "watchers", "window_s"))
    tenant = tenant_of("timers")
    await server.create_tenant(tenant, wave_radii_km=[0.1], min_expiry_s=1, reminder_lead_s=86_400)
    tokens = [server.token(tenant, "customer", f"c{number}") for number in range(broadcasts + watchers)]
    watching, creating = tokens[:watchers], tokens[watchers:]
    await customers.ask("warm_up", server.url, creating[:WARM_UP])
    from_s = time.time() + bench.options["create_within_s"]
    to_s = from_s + window_s
    await customers.ask("watch", server.url, watching, from_s, to_s)
    await asyncio.sleep(PAUSE_S)

    before_bytes, began_s = server.memory_bytes(), time.time()
    customers.busy = 0.0
    await customers.ask("create", server.url, creating, from_s, to_s)
    bench.record(variant, "s", create_all=time.time() - began_s)
    bench.record_crew(variant, customers)
    await asyncio.sleep(PAUSE_S)
    held_bytes = (server.memory_bytes() - before_bytes) / broadcasts
    live, document = read(journal, _LIVE, tenant)[0]
    if live < len(tokens) or time.time() > from_s - ROUNDED_S:
        raise RuntimeError(
            f"{len(tokens)} broadcasts were not created in time, before the first ended: give create_within_s more "
            f"than {bench.options['create_within_s']}"
        )
    state_bytes = memory_of(documents.read_state(document))
    bench.record(variant, "KiB", memory_per_broadcast=(held_bytes - state_bytes) / 1024, state=state_bytes / 1024)

    rung, before_s = buckets(await server.metrics()), server.cpu_s()
    bench.tell(f"deadlines for {window_s} s")
    await asyncio.sleep(to_s + ROUNDED_S - time.time())
    (told,) = await customers.ask("told")
    give_up_s = to_s + FIRED_WITHIN_S
    while len(ended := read(journal, _LATE, tenant)) < len(tokens):
        if time.time() > give_up_s:
            raise RuntimeError(f"{len(tokens) - len(ended)} of {len(tokens)} broadcasts have not ended")
        await asyncio.sleep(PAUSE_S)
    used_s = server.cpu_s() - before_s
    late = Histogram(late_ms / 1000 for (late_ms,) in ended)
    bench.record_latency(variant, "late", late)
    bench.record_latency(variant, "told", told)
    bench.record(variant, "ms", heap_p99=p99_ms(rung, buckets(await server.metrics())))
    bench.record(variant, "us", cpu_per_deadline=used_s / len(tokens) * 1e6)


def read(journal: Path, query: str, tenant: str) -> list[tuple[Any, ...]]:
    """What the journal has."""
    with closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA query_only = ON")
        return db.execute(query, (tenant,)).fetchall()


def buckets(metrics: str) -> dict[float, float]:
    """How many deadlines rang so far with at most so many seconds' delay."""
    return {float(bound): float(count) for bound, count in _BUCKET.findall(metrics)}


def p99_ms(before: dict[float, float], after: dict[float, float]) -> float:
    """The bound of the bucket that 99% of what rang in between did not exceed; a minute if it has none."""
    rang = {bound: count - before[bound] for bound, count in after.items()}
    bound_s = min(bound for bound, count in rang.items() if count >= 0.99 * max(rang.values()))
    return min(bound_s, 60.0) * 1000
