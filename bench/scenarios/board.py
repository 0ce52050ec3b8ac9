"""The operators' board: what a change of one broadcast costs, among few broadcasts and among very many.

The broadcasts stand in the journal before the server starts; nobody is near any of them, and nothing happens to them.
Beside them are four more, whose trips move on one after the other, by a transporter's phone. A variant is a server with
so many broadcasts, whose board is watched by some operators or by none. `cpu_change` is the server's CPU time per
change, less what it uses in the same time when nothing happens; `told` is the time from asking for a change to the last
operator, in which the board gathers for 50 ms; `snapshot` what an operator who comes waits for the whole board, and
`snapshot_kib` how large it is. Every minute the server compares its board with the journal, which some turns include.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.baselines.crowd import Crowd
from bench.baselines.hauls import LAT, LNG, TENANT, TOPICS, Trips
from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.histogram import Histogram
from bench.kit.line import Phone
from bench.kit.servers import Haulcast, embedded
from haulcast.config import load
from haulcast.domain.broadcast import Place
from haulcast.domain.events import Created, Event, WaveSent
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import BroadcastId, CustomerId, TenantId
from haulcast.domain.settings import TenantSettings
from haulcast.ports import Fence, Write
from haulcast.storage.sqlite import SqliteJournal
from haulcast.transport.topics import board_topic

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"broadcasts": [100, 10_000], "unwatched": [], "watchers": 10, "changes": 16, "repetitions": 2},
    "full": {
        "broadcasts": [100, 1_000, 10_000],
        "unwatched": [10_000],
        "watchers": 50,
        "changes": 40,
        "repetitions": 7,
    },
}
IDLE_S = 0.7
EVERY_S = 0.07
"""A change follows on another when its delta has left."""
SETTINGS: dict[str, Any] = {"wave_radii_km": (5.0,), "max_expiry_s": 86_400}
EXPIRES_IN_MS = 7_200_000
COMMITTED_AT_ONCE = 500
CROWD = "operators"


@dataclass(frozen=True, slots=True)
class Watched:
    """A server with its broadcasts. `crew`: its operators, if there are any."""

    server: Haulcast
    trips: Trips
    crew: Crew | None


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    sizes: list[int] = bench.options["broadcasts"]
    variants = {f"{size} broadcasts": (size, True) for size in sizes}
    variants |= {f"{size} broadcasts, nobody watches": (size, False) for size in bench.options["unwatched"]}
    first, last = f"{sizes[0]} broadcasts", f"{sizes[-1]} broadcasts"
    if bench.only_its_own_servers(last):
        return
    watched: dict[str, Watched] = {}
    async with AsyncExitStack() as stack:
        for variant, (size, watch) in variants.items():
            bench.tell(f"{variant} are prepared")
            watched[variant] = await prepared(bench, stack, size, watch=watch)
        async for variant in bench.in_turns([*variants], bench.options["repetitions"]):
            await measure(bench, variant, watched[variant])
    for name, text, figure in (
        ("cpu_by_size", f"CPU of a change among {sizes[-1]} broadcasts, by one among {sizes[0]}", "cpu_change"),
        ("told_by_size", f"time until operators see it among {sizes[-1]}, by that among {sizes[0]}", "told_p50"),
    ):
        bench.target(name, text, bench.ratio((last, figure), (first, figure)), at_most=1.25)


async def prepared(bench: Bench, stack: AsyncExitStack, size: int, *, watch: bool) -> Watched:
    """A server with so many broadcasts, changes to make, and operators who watch."""
    directory = bench.directory()
    await fill(load({"HAULCAST_DATA_DIR": str(directory)}).journal_path, size)
    server = await stack.enter_async_context(embedded(directory))
    changes = bench.options["changes"] * (bench.options["repetitions"] + 1)
    trips = Trips(server, 1 + changes // TOPICS, **SETTINGS)
    await trips.create()
    await trips.assign()
    if not watch:
        return Watched(server, trips, None)
    crew = await stack.enter_async_context(Crew.hire(Crowd, 1))
    tokens = [server.token(TENANT, "operator", f"op{number}") for number in range(bench.options["watchers"])]
    await crew.ask("watch", CROWD, server.url, tokens, [board_topic(TenantId(TENANT))])
    return Watched(server, trips, crew)


async def fill(path: Path, size: int) -> None:
    """Put a tenant with so many live broadcasts into a journal that nobody uses yet."""
    journal = await SqliteJournal.open(path)
    try:
        await journal.create_tenant(TenantId(TENANT), TenantSettings(**SETTINGS))
        now_ms = time.time_ns() // 1_000_000
        for first in range(0, size, COMMITTED_AT_ONCE):
            some = range(first, min(size, first + COMMITTED_AT_ONCE))
            await journal.commit([created(number, now_ms) for number in some])
    finally:
        await journal.close()


def created(number: int, now_ms: int) -> Write:
    """A broadcast whose waves are over."""
    broadcast_id = BroadcastId(f"b{number}")
    pickup, drop = Place(LAT, LNG, f"Dock {number}"), Place(LAT + 1, LNG + 1, "Gate 2, Chakan")
    ends_ms = now_ms + EXPIRES_IN_MS
    events: Sequence[Event] = (
        Created(
            *(now_ms, TenantId(TENANT), broadcast_id, CustomerId(f"customer{number}"), pickup, drop),
            vehicle_types=("crane",),
            expires_at_ms=ends_ms,
            reminder_at_ms=None,
            note="two pallets",
        ),
        WaveSent(now_ms, 1, (), None),
    )
    state = None
    for event in events:
        state = evolve(state, event)
    return Write(f"w{number}", now_ms, TenantId(TENANT), broadcast_id, None, Fence(1, 1, 0), state, tuple(events))


async def measure(bench: Bench, variant: str, watched: Watched) -> None:
    """A turn: an operator comes, nothing happens, and then one change after the other."""
    server, changes = watched.server, bench.options["changes"]
    if watched.crew is not None:
        await newcomer(bench, variant, server)
    await asyncio.sleep(EVERY_S)
    before_s = server.cpu_s()
    await asyncio.sleep(IDLE_S)
    idle_s = (server.cpu_s() - before_s) / IDLE_S

    if watched.crew is not None:
        await watched.crew.ask("begin", CROWD, 1)
    told = Histogram()
    before_s, began_s = server.cpu_s(), perf_counter()
    for number in range(changes):
        asked_s = perf_counter()
        await watched.trips.change(1)
        if watched.crew is not None:
            (came_s,) = await watched.crew.ask("complete", CROWD, number)
            told.add(came_s - asked_s)
        await asyncio.sleep(max(0.0, asked_s + EVERY_S - perf_counter()))
    used_s = server.cpu_s() - before_s - idle_s * (perf_counter() - began_s)
    bench.record(variant, "us", cpu_change=used_s / changes * 1e6)
    bench.record(variant, "of a core", idle=idle_s)
    if watched.crew is not None:
        bench.record_latency(variant, "told", told)
        bench.record_crew(variant, watched.crew)


async def newcomer(bench: Bench, variant: str, server: Haulcast) -> None:
    """One more operator comes to the board and goes."""
    came = asyncio.get_running_loop().create_future()

    def hear(frame: bytes) -> None:
        if b'"type":"snapshot"' in frame[:100] and not came.done():
            came.set_result(len(frame))

    began_s = perf_counter()
    phone = await Phone.connect(
        server.url, server.token(TENANT, "operator", "newcomer"), hear, resume={board_topic(TenantId(TENANT)): (0, 0)}
    )
    size_bytes = await came
    bench.record(variant, "ms", snapshot=(perf_counter() - began_s) * 1e3)
    bench.record(variant, "KiB", snapshot_kib=size_bytes / 1024)
    phone.line.drop()
