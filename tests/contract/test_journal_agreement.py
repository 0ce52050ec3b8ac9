"""Whatever actors, right or confused, write in whatever batches, and operators command: all journals say the same.

An example is a seed and a number of steps, not a strategy for each choice: so a run gets far enough to meet every
outcome (of a hundred runs: 1,400 landed, 330 fenced, 250 duplicates, 330 conflicts of every kind), and what is shrunk
is the number of steps.
"""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haulcast.domain.control import TenantControl
from haulcast.domain.events import Event, TruckAssigned
from haulcast.domain.fleet import Vehicle
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import IllegalTransition, TripStatus
from haulcast.ports import (
    Claim,
    ControlRecord,
    FleetConflict,
    Journal,
    Landed,
    Outcome,
    RequestKey,
    Role,
    Stored,
    Write,
)
from haulcast.storage.memory import MemoryJournal
from haulcast.storage.postgres import PostgresJournal
from haulcast.storage.sqlite import SqliteJournal, migrate
from tests.contract.hauls import ACME, FLEET, NOW_MS, OTHER, TRUCK, Haul, log_only, logged
from tests.databases import empty

Key: TypeAlias = tuple[TenantId, BroadcastId]

TENANTS = (ACME, OTHER)
TRANSPORTERS = ("t1", "t2")
KEYS: tuple[Key, ...] = (*((ACME, BroadcastId(f"b{n}")) for n in range(1, 5)), (OTHER, BroadcastId("b1")))
COMMANDS = ("pause", "resume")
PROGRESS = (TripStatus.LOADED, TripStatus.DELIVERED, TripStatus.DELIVERED, TripStatus.CANCELLED, TripStatus.ASSIGNED)


class ConfusedOwners:
    """Owners that go on before they know what became of their last step, sometimes from an earlier state or as a former
    owner, and sometimes send a write again that landed.

    What they never do, since no fence could tell: go on from a step that was refused once something else has landed.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.clock_ms = NOW_MS
        self.landed: list[Write] = []
        # Of each broadcast, what it was at the end of each batch, and where its owner believes it to be.
        self.known: dict[Key, list[Haul]] = {}
        self.tips: dict[Key, Haul] = {}
        for key in KEYS:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """It does not exist, as far as anybody knows. Who it would be for: sometimes somebody who has one."""
        customer = CustomerId(self.rng.choice((f"c{key[1][1:]}", f"c{key[1][1:]}", "c1")))
        self.tips[key] = Haul(key[1], customer, key[0], trucks=3)
        self.known[key] = [self.tips[key]]

    def know(self, key: Key, stored: Stored, incarnation: int) -> None:
        """What has become of it."""
        haul = replace(self.tips[key], epoch=stored.epoch, incarnation=incarnation, state=stored.state)
        self.tips[key] = haul
        if (haul.epoch, haul.state) != (self.known[key][-1].epoch, self.known[key][-1].state):
            self.known[key].append(haul)

    def batch(self) -> list[Write]:
        return [write for _ in range(self.rng.randrange(7)) if (write := self.write()) is not None]

    def write(self) -> Write | None:
        """A write, or None for what no owner can have come to."""
        self.clock_ms += 1
        dice = self.rng.random()
        if dice < 0.1 and self.landed:
            return self.rng.choice(self.landed[-20:])
        if dice < 0.2:
            return log_only(logged(f"r{self.rng.randrange(5)}"), at_ms=self.clock_ms)
        key = self.rng.choice(KEYS)
        tip, earlier = self.tips[key], self.known[key][-3:-1]
        haul = self.rng.choice(earlier) if earlier and self.rng.random() < 0.2 else tip
        on_time = haul is tip
        haul = replace(haul, at_ms=self.clock_ms)
        number = self.rng.choice((self.rng.randrange(5), self.clock_ms, self.clock_ms))
        reply = self.rng.choice((None, logged(f"r{number}", tenant=key[0], fingerprint=key[1])))
        events = [self.event(haul) for _ in range(self.rng.choice((1, 1, 2)))]
        try:
            write = haul.write(*(events if haul.state else [haul.created()]), reply=reply)
        except (IllegalTransition, KeyError):
            return None
        if sum(isinstance(event, TruckAssigned) for event in write.events) > 1:
            return None
        if on_time:
            self.tips[key] = replace(haul, state=write.state)
        return write

    def event(self, haul: Haul) -> Event:
        pick = self.rng.choice
        transporter, number = pick(TRANSPORTERS), pick((1, 2, 3))
        match self.rng.randrange(20):
            case 0:
                return haul.wave(*TRANSPORTERS)
            case 1 | 2:
                return haul.offered(transporter)
            case 3:
                return haul.declined(transporter)
            case 4:
                return haul.cancelled()
            case 5:
                return haul.expired()
            case 6 | 7 | 8 | 9 | 10 | 11:
                return haul.trip(number, pick(PROGRESS))
            case _:
                vehicle = pick((f"{transporter}v1", f"{transporter}v2", pick(("t1v1", f"{transporter}van", "none"))))
                driver = pick((f"{transporter}d1", f"{transporter}d2", pick(("t1d1", "none"))))
                return haul.assigned_to(number, transporter, vehicle, driver)


class Both:
    """Two journals that are asked the same and must answer the same."""

    def __init__(self, one: Journal, other: Journal, owners: ConfusedOwners) -> None:
        self.one, self.other, self.owners = one, other, owners
        self.incarnations: dict[Key, int] = {}

    async def commit(self, writes: list[Write]) -> list[Outcome]:
        outcomes = await self.one.commit(writes)
        assert outcomes == await self.other.commit(writes)
        self.owners.landed += [write for write, outcome in zip(writes, outcomes, strict=True) if outcome == Landed()]
        for key in KEYS:
            stored = await self.one.read_broadcast(*key)
            if stored is None:
                self.owners.forget(key)
            else:
                self.owners.know(key, stored, self.incarnations.get(key, 1))
        return outcomes

    async def claim(self, keys: list[Key], epochs_off: list[int], incarnation: int) -> None:
        owners = [await self.one.read_owner(*key) for key in keys]
        assert owners == [await self.other.read_owner(*key) for key in keys]
        claims = [
            Claim(*key, (1 if owner is None else owner.epoch) + off)
            for key, owner, off in zip(keys, owners, epochs_off, strict=True)
        ]
        self._note(incarnation, await self.one.claim(claims, incarnation), await self.other.claim(claims, incarnation))

    async def claim_orphans(self, incarnation: int, alive: set[int], limit: int, overdue_before_ms: int | None) -> None:
        self._note(
            incarnation,
            await self.one.claim_orphans(incarnation, alive, limit, overdue_before_ms=overdue_before_ms),
            await self.other.claim_orphans(incarnation, alive, limit, overdue_before_ms=overdue_before_ms),
        )

    def _note(self, incarnation: int, claimed: list[Stored], claimed_of_other: list[Stored]) -> None:
        assert claimed == claimed_of_other
        for stored in claimed:
            self.incarnations[stored.state.tenant_id, stored.state.broadcast_id] = incarnation

    async def sell(self, buyer: str) -> None:
        """A vehicle changes hands, unless the buyer does not exist."""
        items = [
            Vehicle(VehicleId("t1v2"), TransporterId("t1"), "van"),
            Vehicle(VehicleId("t1v1"), TransporterId(buyer), TRUCK),
        ]
        refused = []
        for journal in (self.one, self.other):
            try:
                await journal.put_fleet(ACME, items)
            except FleetConflict as conflict:
                refused.append((conflict.index, conflict.transporter_id))
        assert refused in ([], [(1, buyer)] * 2)

    async def purge(self, before_ms: int) -> None:
        assert await self.one.purge_requests(before_ms) == await self.other.purge_requests(before_ms)

    async def control(self, rng: Random, at_ms: int) -> None:
        """A tenant is created, or an operator's command recorded or answered; some come again or on a wrong version."""
        tenant, number = rng.choice(TENANTS), rng.randrange(1, 6)
        match rng.randrange(6):
            case 0:
                settings = TenantSettings(toggle_limit=number)
                created = await self.one.create_tenant(tenant, settings)
                assert created == await self.other.create_tenant(tenant, settings)
            case 1:
                for journal in (self.one, self.other):
                    await journal.finish_control(tenant, number, {"at_ms": at_ms})
            case _:
                known = await self.one.read_tenant(tenant) or TenantControl()
                version = known.version + rng.choice((0, 1, 1, 1, 2))
                after = replace(known, paused=not known.paused, version=version)
                key = RequestKey(tenant, rng.choice((Role.OPERATOR, Role.ADMIN)), "op1", f"r{rng.randrange(12)}")
                record = ControlRecord(key, "f", rng.choice(COMMANDS), {"n": number}, at_ms, version)
                then = rng.choice((after, after, None))
                answer = await self.one.record_control(record, then)
                assert answer == await self.other.record_control(record, then)

    async def compare(self) -> None:
        assert await everything(self.one) == await everything(self.other)


async def everything(journal: Journal) -> list[object]:
    """All that can be read."""
    said: list[object] = [await journal.engaged_vehicles(), await journal.control_versions(TENANTS)]
    for tenant in TENANTS:
        said += [await journal.list_broadcasts(tenant, customer, 4) for customer in (None, "c1", "c2")]
        said += [await journal.list_board(tenant, NOW_MS + 20, after, 2) for after in (None, BroadcastId("b2"))]
        for transporter in map(TransporterId, TRANSPORTERS):
            said.append(await journal.read_offers(tenant, transporter, NOW_MS + 20))
            said.append(await journal.read_trips(tenant, transporter_id=transporter))
        said += [await journal.read_trips(tenant, driver_id=DriverId(driver)) for driver in ("t1d1", "t1d2", "t2d1")]
        said += [await journal.read_vehicle(tenant, VehicleId(vehicle)) for vehicle in ("t1v1", "t1v2")]
        said.append(await journal.read_tenant(tenant))
        said.append(await journal.read_control_log(tenant, before=None, limit=100))
        said.append(await journal.read_control_log(tenant, before=4, limit=2, commands=COMMANDS[:1]))
    for key in KEYS:
        said += [await journal.read_broadcast(*key), await journal.read_events(*key)]
    return said


async def run(rng: Random, steps: int, journal: Journal) -> None:
    owners = ConfusedOwners(rng)
    both = Both(MemoryJournal(), journal, owners)
    for one in (both.one, both.other):
        for tenant in TENANTS:
            await one.put_fleet(tenant, FLEET)
    for _ in range(steps):
        if rng.random() < 0.3:
            await both.control(rng, owners.clock_ms)
        match rng.randrange(30):
            case 0 | 1:
                keys = rng.sample(KEYS, 2)
                await both.claim(keys, [rng.choice((-1, 0, 0, 0)) for _ in keys], rng.randrange(1, 4))
            case 2:
                incarnation = rng.randrange(1, 4)
                alive = {incarnation, rng.randrange(1, 4)}
                overdue_before_ms = rng.choice((None, owners.clock_ms))
                await both.claim_orphans(incarnation, alive, rng.randrange(4), overdue_before_ms)
            case 3:
                await both.sell(rng.choice((*TRANSPORTERS, "nobody")))
            case 4:
                await both.purge(owners.clock_ms - rng.randrange(60))
            case _:
                await both.commit(owners.batch())
    await both.compare()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied: migrating anew would take most of the time."""
    path = tmp_path_factory.mktemp("empty") / "haulcast.db"
    migrate(path)
    return path


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 30))
def test_sqlite_gives_the_same_outcomes_and_reads_as_the_journal_in_memory(
    empty_database: Path, seed: int, steps: int
) -> None:
    async def opened(path: Path) -> None:
        journal = await SqliteJournal.open(path)
        try:
            await run(Random(seed), steps, journal)
        finally:
            await journal.close()

    with TemporaryDirectory() as directory:
        path = Path(directory) / "haulcast.db"
        shutil.copy(empty_database, path)
        asyncio.run(opened(path))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 30))
def test_postgres_gives_the_same_outcomes_and_reads_as_the_journal_in_memory(
    migrated_url: str, seed: int, steps: int
) -> None:
    async def opened() -> None:
        await empty(migrated_url)
        journal = await PostgresJournal.open(migrated_url)
        try:
            await run(Random(seed), steps, journal)
        finally:
            await journal.close()

    asyncio.run(opened())
