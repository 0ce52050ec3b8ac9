"""Measures a journal's commit alone, in one process: no actors, no sockets, one batch at a time, as a committer does.

Payload: "assigned" writes are checkpoints of different broadcasts, each with one TruckAssigned, its trip and a logged
reply, on broadcasts of two trucks with 20 offers; "log" writes have a logged reply alone; "refusal" writes too, which
the owner alone may give, all of one broadcast; "wave" writes make 500 offers each. Preparing the broadcasts is not
measured, nor is building the writes. `--busy` keeps the event loop running Python meanwhile, in slices of 200 us, as a
loaded server's would: the writer then waits for the interpreter, and the CPU time is that of both.
SQLite's database is made in `--directory`, whose disk it is that COMMIT waits for. `--postgres` measures the journal in
Postgres instead, in a database of its own on that server, dropped at the end; the server's CPU time is not counted, and
its `fsync` and its disk are what they are.

    python -m bench.journal [--directory var] [--batches 60] [--busy] [--postgres URL]
"""

import argparse
import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter, perf_counter_ns, process_time
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from haulcast.domain.broadcast import Offer, Place, Trip
from haulcast.domain.events import Created, Event, TruckAssigned, WaveSent
from haulcast.domain.evolve import evolve
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import (
    BroadcastId,
    CustomerId,
    DriverId,
    TenantId,
    TransporterId,
    VehicleId,
    assignment_id,
    request_id,
    trip_id,
)
from haulcast.domain.replies import Done
from haulcast.domain.states import TripStatus
from haulcast.ports import Fence, Journal, Landed, LoggedReply, Origin, RequestKey, Role, Write
from haulcast.storage.postgres import PostgresJournal
from haulcast.storage.sqlite import SqliteJournal

TENANT = TenantId("bench")
NOW_MS = 1_790_000_000_000
TRUCK = "truck_14ft"
SIZES = (1, 32, 128, 256)
Prepared = tuple[list[Write], Write]
numbers = count(1)


def logged(number: int) -> LoggedReply:
    key = RequestKey(TENANT, Role.TRANSPORTER, f"transporter-{number:06}", f"request-{number:06}")
    reply = Done({"broadcast_id": f"b{number}", "trip_id": f"b{number}-1-t", "remaining_requests": 1})
    return LoggedReply(Origin(key, "0123456789abcdef" * 2), reply)


def checkpoints(number: int, steps: list[tuple[Event, ...]], reply: LoggedReply | None) -> list[Write]:
    """The writes of these steps; the last carries the reply."""
    state, writes = None, []
    for step, events in enumerate(steps):
        seq = 0 if state is None else state.seq
        for event in events:
            state = evolve(state, event)
        last = reply if step == len(steps) - 1 else None
        writes.append(
            Write(
                f"{number}-{step}",
                NOW_MS,
                TENANT,
                BroadcastId(f"b{number}"),
                last,
                Fence(1, 1, seq),
                state,
                tuple(events),
            )
        )
    return writes


def created(number: int) -> Created:
    pickup, drop = Place(19.07, 72.87, "Dock 4, Jawaharlal Nehru Port"), Place(18.52, 73.85, "Gate 2, Chakan")
    return Created(
        NOW_MS,
        TENANT,
        BroadcastId(f"b{number}"),
        CustomerId(f"customer-{number:06}"),
        pickup,
        drop,
        (TRUCK, TRUCK),
        NOW_MS + 300_000,
        NOW_MS + 240_000,
        "two pallets",
    )


def wave(offers: int) -> WaveSent:
    made = (
        Offer(TransporterId(f"transporter-{n:06}"), 1, VehicleId(f"vehicle-{n:06}"), TRUCK, 1_000 + n, NOW_MS)
        for n in range(offers)
    )
    return WaveSent(NOW_MS, 1, tuple(made), NOW_MS + 15_000)


def assigned() -> Prepared:
    number = next(numbers)
    request = request_id(BroadcastId(f"b{number}"), 1)
    trip = Trip(
        trip_id(request),
        assignment_id(request),
        request,
        TransporterId("owner"),
        VehicleId(f"vehicle-{number:06}"),
        DriverId(f"driver-{number:06}"),
        TRUCK,
        TripStatus.ASSIGNED,
        NOW_MS,
        NOW_MS,
    )
    steps: list[tuple[Event, ...]] = [(created(number),), (wave(20),), (TruckAssigned(NOW_MS, trip),)]
    *before, measured = checkpoints(number, steps, logged(number))
    return before, measured


def log() -> Prepared:
    number = next(numbers)
    return [], Write(f"log-{number}", NOW_MS, TENANT, BroadcastId("b0"), logged(number))


def refusals() -> Callable[[], Prepared]:
    """Makes the refusals of broadcast 0; the first comes with its creation."""
    creation = iter(checkpoints(0, [(created(0),)], None))

    def refusal() -> Prepared:
        number = next(numbers)
        fence = Fence(1, 1, 1)
        write = Write(f"refusal-{number}", NOW_MS, TENANT, BroadcastId("b0"), logged(number), fence)
        return list(creation), write

    return refusal


def wave_of_500() -> Prepared:
    number = next(numbers)
    *before, measured = checkpoints(number, [(created(number),), (wave(500),)], None)
    return before, measured


def fleet(vehicles: int) -> Iterator[FleetItem]:
    owner = TransporterId("owner")
    yield Transporter(owner)
    for number in range(vehicles):
        yield Vehicle(VehicleId(f"vehicle-{number:06}"), owner, TRUCK)
        yield Driver(DriverId(f"driver-{number:06}"), owner)


async def keep_busy() -> None:
    while True:
        until = perf_counter() + 200e-6
        while perf_counter() < until:
            pass
        await asyncio.sleep(0)


@asynccontextmanager
async def in_sqlite(directory: Path) -> AsyncIterator[Journal]:
    print(f"SQLite {sqlite3.sqlite_version}")
    with TemporaryDirectory(dir=directory) as made:
        journal = await SqliteJournal.open(Path(made) / "bench.db")
        try:
            yield journal
        finally:
            await journal.close()


@asynccontextmanager
async def in_postgres(url: str) -> AsyncIterator[Journal]:
    admin = await asyncpg.connect(url)
    try:
        print(await admin.fetchval("SELECT format('Postgres %s, fsync %s', version(), current_setting('fsync'))"))
        await admin.execute("DROP DATABASE IF EXISTS haulcast_bench")
        await admin.execute("CREATE DATABASE haulcast_bench")
        try:
            journal = await PostgresJournal.open(urlunsplit(urlsplit(url)._replace(path="/haulcast_bench")))
            try:
                yield journal
            finally:
                await journal.close()
        finally:
            await admin.execute("DROP DATABASE haulcast_bench")
    finally:
        await admin.close()


async def measure(journal: Journal, what: str, make: Callable[[], Prepared], size: int, batches: int) -> None:
    before, writes = [], []
    for _ in range(size * batches):
        needed, measured = make()
        before += needed
        writes.append(measured)
    for start in range(0, len(before), 256):
        await journal.commit(before[start : start + 256])
    times_ms = []
    cpu_before_s = process_time()
    for start in range(0, len(writes), size):
        started = perf_counter_ns()
        outcomes = await journal.commit(writes[start : start + size])
        times_ms.append((perf_counter_ns() - started) / 1e6)
        assert outcomes == [Landed()] * size
    cpu_us = (process_time() - cpu_before_s) / len(writes) * 1e6
    per_s = len(writes) / sum(times_ms) * 1e3
    p99 = quantiles(times_ms, n=100)[98]
    print(
        f"{what:<9} {size:3} a batch  {per_s:8,.0f} writes/s  p50 {median(times_ms):7.2f} ms  p99 {p99:7.2f} ms"
        f"  {cpu_us:8,.0f} us of CPU a write"
    )


async def main(journal: Journal, batches: int, busy: bool) -> None:
    load = asyncio.create_task(keep_busy()) if busy else None
    try:
        await journal.next_incarnation()
        items = list(fleet(sum(SIZES) * batches + 1))
        for start in range(0, len(items), 10_000):
            await journal.put_fleet(TENANT, items[start : start + 10_000])
        kinds: tuple[tuple[str, Callable[[], Prepared], tuple[int, ...]], ...] = (
            ("assigned", assigned, SIZES),
            ("log", log, SIZES),
            ("refusal", refusals(), SIZES),
            ("wave", wave_of_500, (1, 8)),
        )
        for what, make, sizes in kinds:
            for size in sizes:
                await measure(journal, what, make, size, batches)
    finally:
        if load is not None:
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load


async def run(directory: Path, url: str | None, batches: int, busy: bool) -> None:
    async with in_sqlite(directory) if url is None else in_postgres(url) as journal:
        await main(journal, batches, busy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.journal")
    parser.add_argument("--directory", type=Path, default=Path())
    parser.add_argument("--batches", type=int, default=60, help="measured for each kind and size")
    parser.add_argument("--busy", action="store_true", help="keep the event loop's thread running Python meanwhile")
    parser.add_argument("--postgres", metavar="URL", help="measure Postgres, as a user who may create databases")
    options = parser.parse_args()
    print(f"{'a busy' if options.busy else 'an idle'} event loop")
    asyncio.run(run(options.directory, options.postgres, options.batches, options.busy))
