"""The sides of a race: haulcast and the accept paths, each with its server, its database, its phones and one fleet.

1. What they decide on is prepared outside of what is measured: haulcast's broadcasts are created by customers and
   offered, the baselines' are put into their tables.
2. After each measurement its outcome is checked, by what was told and by what was written, and the trips are ended.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import aiohttp
import asyncpg
import redis

from bench.kit.crew import Crew
from bench.kit.histogram import Histogram
from bench.kit.servers import Haulcast, Missing, baseline, clustered, python, stores
from haulcast.config import load
from haulcast.demo.stores import StoreFailed

from . import accept_queries as sql

TENANT = "race"
SETTINGS = {"wave_radii_km": [10.0], "default_expiry_s": 3600, "toggle_limit": 1000}
EXPIRES_IN_MS = 3_600_000
PLACE = {"lat": 12.97, "lng": 77.59}
RACED = "raced"
"""The type of vehicle that all transporters have; each has others of a type of its own, named like itself."""
OTHERS = 20
"""Trips under way in the baselines' tables, for each vehicle that accepts."""
OFFERED_WITHIN_S = 30.0
CALLS_AT_ONCE = 32
LOST = frozenset({"REQUEST_ALREADY_TAKEN", "BROADCAST_FULLY_FILLED"})


class Attempt(NamedTuple):
    """An accept: by which socket, of what, with what."""

    socket: int
    broadcast_id: str
    vehicle_id: str
    driver_id: str


@dataclass
class Told:
    """What became of accepts: who won which trip, how often each answer was no, and how long they took. `busy`: how
    often there was no decision, and the phone tried again."""

    winners: list[tuple[int, str]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    won: Histogram = field(default_factory=Histogram)
    lost: Histogram = field(default_factory=Histogram)
    busy: int = 0

    @property
    def decisions(self) -> int:
        """How many accepts were won or lost."""
        return len(self.winners) + self.refusals.total()

    def check(self, broadcasts: int) -> None:
        """Raise `AssertionError` unless each broadcast has one winner and everybody else was told why not."""
        assert len({trip for _, trip in self.winners}) == len(self.winners) == broadcasts, (
            f"{len(self.winners)} winners of {broadcasts} trucks ({dict(self.refusals)})"
        )
        assert not set(self.refusals) - LOST, f"answered {dict(self.refusals)}"


class Fleet:
    """Each transporter has vehicles of a type that all have, to race with, others of a type of its own, and drivers
    for both."""

    def __init__(self, transporters: int, raced: int, own: int) -> None:
        self.users = [user(n) for n in range(transporters)]
        self.vehicles = [
            (f"{owner}-{kind}{n}", owner, vehicle_type)
            for owner in self.users
            for kind, vehicle_type, size in (("r", RACED, raced), ("o", owner, own))
            for n in range(size)
        ]
        self.drivers = [(f"{vehicle}-driver", owner) for vehicle, owner, _ in self.vehicles]
        self._raced = raced

    def of_each(self, own: int) -> list[list[str]]:
        """The vehicles of each transporter, with the first so many of its own type."""
        return [
            [*(f"{owner}-r{n}" for n in range(self._raced)), *(f"{owner}-o{n}" for n in range(own))]
            for owner in self.users
        ]

    def all_want(self, broadcast_id: str, number: int) -> list[Attempt]:
        """An attempt of every transporter, with its `number`-th vehicle of the common type."""
        return [self._attempt(n, broadcast_id, f"{owner}-r{number}") for n, owner in enumerate(self.users)]

    def each_wants(self, broadcasts: Sequence[str]) -> list[Attempt]:
        """An attempt for each broadcast, spread evenly over the transporters, with vehicles of their own types. In no
        order: neighbours in an index do not come together."""
        size = len(self.users)
        attempts = [
            self._attempt(n % size, broadcast, f"{user(n % size)}-o{n // size}")
            for n, broadcast in enumerate(broadcasts)
        ]
        Random(size).shuffle(attempts)
        return attempts

    def own_types(self, number: int) -> list[str]:
        """What so many broadcasts want, each of the next transporter."""
        return [self.users[n % len(self.users)] for n in range(number)]

    def _attempt(self, socket: int, broadcast_id: str, vehicle_id: str) -> Attempt:
        return Attempt(socket, broadcast_id, vehicle_id, f"{vehicle_id}-driver")


class Side:
    """A server with its phones and its database. haulcast's broadcasts are made by its customers."""

    assignments = "haulcast.assignments"

    def __init__(self, server: Haulcast, crew: Crew, db: "asyncpg.Connection[asyncpg.Record]", fleet: Fleet) -> None:
        self.server = server
        self.crew = crew
        self._db = db
        self._fleet = fleet
        self._keys = count(1)
        self._customers: dict[str, str] = {}

    async def prepare(self) -> None:
        """Make the fleet known, and connect."""
        await self.server.create_tenant(TENANT, **SETTINGS)
        await self._db.executemany(
            "INSERT INTO haulcast.transporters VALUES ($1, $2, $2)", [(TENANT, owner) for owner in self._fleet.users]
        )
        await self._db.executemany(
            "INSERT INTO haulcast.vehicles VALUES ($1, $2, $3, $4)", [(TENANT, *one) for one in self._fleet.vehicles]
        )
        await self._db.executemany(
            "INSERT INTO haulcast.drivers VALUES ($1, $2, $3, $2)", [(TENANT, *one) for one in self._fleet.drivers]
        )
        await self._db.execute("ANALYZE")
        tokens = [self.server.token(TENANT, "transporter", owner) for owner in self._fleet.users]
        await self.crew.ask("greet", self.server.url, tokens)

    async def appear(self, own: int) -> None:
        """Have vehicles report, of each transporter's own type so many: whoever is silent for two minutes is offered
        nothing, and accepts that come with a vehicle that was not heard of for one have to look it up."""
        await self.crew.ask("appear", self.server.url, self._fleet.of_each(own))

    async def open(self, vehicle_types: Sequence[str], holders: int) -> list[str]:
        """Live broadcasts that want one such truck each, offered to so many transporters each."""
        limit = asyncio.Semaphore(CALLS_AT_ONCE)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CALLS_AT_ONCE)) as http:
            calls = (self._create(http, limit, f"c{n}", kind) for n, kind in enumerate(vehicle_types))
            created = await asyncio.gather(*calls)
        async with asyncio.timeout(OFFERED_WITHIN_S):
            query = "SELECT count(*) FROM haulcast.offers WHERE tenant_id = $1 AND broadcast_id = ANY($2::text[])"
            while await self._db.fetchval(query, TENANT, created) < holders * len(created):
                await asyncio.sleep(0.05)
        return created

    async def clear(self, told: Told) -> None:
        """End the trips that were won."""
        await self.crew.ask("end", self.server.url, told.winners)

    def versions(self) -> dict[str, str]:
        """Of the database, and of the drivers that the baselines use."""
        postgres = self._db.get_server_version()
        return {
            "postgres": f"{postgres.major}.{postgres.minor}",
            "asyncpg": asyncpg.__version__,
            "redis-py": redis.__version__,
        }

    async def check(self, broadcasts: Sequence[str], told: Told) -> None:
        """Raise `AssertionError` unless each has one winner, by what was told and by what was written."""
        told.check(len(broadcasts))
        query = f"SELECT broadcast_id FROM {self.assignments} WHERE broadcast_id = ANY($1::text[])"
        written = [row["broadcast_id"] for row in await self._db.fetch(query, broadcasts)]
        assert sorted(written) == sorted(broadcasts), f"{len(written)} assignments of {len(broadcasts)} trucks"

    async def _create(self, http: aiohttp.ClientSession, limit: asyncio.Semaphore, customer: str, kind: str) -> str:
        token = self._customers.setdefault(customer, self.server.token(TENANT, "customer", customer))
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"k{next(self._keys)}"}
        body = {"pickup": PLACE, "drop": PLACE, "trucks": [{"vehicle_type": kind, "count": 1}]}
        async with limit, http.post(f"{self.server.url}/v1/broadcasts", json=body, headers=headers) as response:
            response.raise_for_status()
            return str((await response.json())["broadcast_id"])


class Theirs(Side):
    """A baseline: what it decides on is put straight into its tables."""

    assignments = "accepts.assignments"

    async def prepare(self) -> None:
        """See `Side`."""
        await self._db.execute(sql.PUT_VEHICLES, *_columns(self._fleet.vehicles))
        await self._db.execute(sql.PUT_DRIVERS, *_columns(self._fleet.drivers))
        await self._db.execute(sql.PUT_OTHERS_TRIPS, OTHERS)
        await super().prepare()

    async def open(self, vehicle_types: Sequence[str], holders: int) -> list[str]:
        """See `Side`; nobody is offered anything."""
        created = [f"b{next(self._keys):08}" for _ in vehicle_types]
        expires_at_ms = time.time_ns() // 1_000_000 + EXPIRES_IN_MS
        await self._db.execute(sql.PUT_BROADCASTS, created, list(vehicle_types), expires_at_ms)
        await self._db.execute("ANALYZE")
        return created

    async def clear(self, told: Told) -> None:
        """See `Side`."""
        await self._db.execute(sql.END_TRIPS, [trip for _, trip in told.winners])


async def start(stack: AsyncExitStack, directory: Path, crew: Crew, fleet: Fleet, path: str | None) -> Side:
    """A side with stores of its own, until `stack` ends: haulcast, or a baseline by the name of its path. Raises
    `Missing`."""
    try:
        if path is None:
            server = await stack.enter_async_context(clustered(directory, 1))
        else:
            server = await _start_baseline(stack, directory, path)
    except StoreFailed as error:
        raise Missing(str(error)) from None
    db = await asyncpg.connect(server.store_urls["HAULCAST_DATABASE_URL"])
    stack.push_async_callback(db.close)
    assert await db.fetchval("SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') = 'on'")
    side = (Side if path is None else Theirs)(server, crew, db, fleet)
    await side.prepare()
    return side


async def _start_baseline(stack: AsyncExitStack, directory: Path, path: str) -> Haulcast:
    postgres, cache = await stack.enter_async_context(stores(directory))
    urls = {"HAULCAST_DATABASE_URL": postgres.url, "HAULCAST_REDIS_URL": cache.url}
    subject = await stack.enter_async_context(baseline(python("bench.baselines.accept_server", path), **urls))
    return Haulcast(load({}), subject.urls, pids=subject.pids, store_pids=[postgres.pid, cache.pid], store_urls=urls)


def user(number: int) -> str:
    """The id of a transporter."""
    return f"t{number}"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[list[str]]:
    return [list(column) for column in zip(*rows, strict=True)]
