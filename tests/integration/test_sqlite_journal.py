"""What is promised of the SQLite file: durability, one server, what becomes of errors and of cancelled callers."""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from haulcast.domain.ids import BroadcastId, TenantId, TransporterId
from haulcast.domain.replies import Refusal
from haulcast.errors import ConfigError, JournalFault, JournalUnavailable
from haulcast.ports import Conflict, Duplicate, Fenced, Landed
from haulcast.storage.sqlite import SqliteJournal, commit
from tests.contract.hauls import ACME, FLEET, another, land, log_only, logged, only


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "haulcast.db"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[SqliteJournal]:
    journal = await SqliteJournal.open(path, busy_timeout_s=0.05)
    await journal.put_fleet(ACME, FLEET)
    yield journal
    await journal.close()


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Another process is in the middle of a transaction. Unrealistic: it is this process, on another connection."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


# --- Durability ------------------------------------------------------------------------------------------------------


async def test_kill_9_in_the_middle_of_committing_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """Nor leaves half of a write, nor the lock. What a loss of power does it cannot show: see the pragmas."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.committing_child",
        str(path),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    acknowledged = [int(await child.stdout.readline()) for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    rest = (await child.stdout.read()).decode()
    acknowledged += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    assert await child.wait() == -signal.SIGKILL

    journal = await SqliteJournal.open(path)
    try:
        for number in acknowledged:
            haul = another(number)
            haul.step(haul.created())
            haul.step(haul.wave("t1", "t2"))
            assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
            again = [log_only(logged(f"r{number}", user=haul.customer_id)), log_only(logged(f"log{number}"))]
            assert [type(outcome) for outcome in await journal.commit(again)] == [Duplicate, Duplicate]
        everything = await journal.list_broadcasts(ACME, None, 1_000_000)
        assert all(stored.state.seq == stored.state.notified == 2 for stored in everything)
        assert await journal.next_incarnation() == 2
    finally:
        await journal.close()


async def test_the_pragmas_that_durability_rests_on_are_set(journal: SqliteJournal) -> None:
    def settings(connection: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "fullfsync", "foreign_keys", "busy_timeout", "query_only")
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    full = 2
    common = {"journal_mode": "wal", "synchronous": full, "fullfsync": 1, "foreign_keys": 1, "busy_timeout": 50}
    assert await journal._writer.run(settings) == {**common, "query_only": 0}
    assert await journal._reader.run(settings) == {**common, "query_only": 1}


async def test_what_landed_is_there_when_the_database_is_opened_again(path: Path) -> None:
    haul = another(1)
    for reopened in (False, True):
        journal = await SqliteJournal.open(path)
        if not reopened:
            await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1")))
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
        assert await journal.next_incarnation() == 1 + reopened
        await journal.close()


# --- One server ------------------------------------------------------------------------------------------------------


async def test_a_second_server_is_refused_until_the_first_has_closed(path: Path) -> None:
    first = await SqliteJournal.open(path)
    with pytest.raises(ConfigError, match=r"haulcast\.db\.lock"):
        await SqliteJournal.open(path)
    await first.close()
    second = await SqliteJournal.open(path)
    await second.close()


async def test_an_import_may_run_beside_the_server(path: Path) -> None:
    server = await SqliteJournal.open(path)
    beside = await SqliteJournal.open(path, exclusive=False)
    await beside.put_fleet(ACME, FLEET)
    await beside.close()
    haul = another(1)
    await land(server, haul.step(haul.created()), haul.step(haul.assigned(1, "t1")))
    await server.close()


@pytest.mark.parametrize("content", [b"this is not a database", None])
async def test_what_is_no_database_is_a_matter_of_configuration(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "haulcast.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content * 100)
    with pytest.raises(ConfigError, match="cannot be opened as a database"):
        await SqliteJournal.open(path)


# --- Errors ----------------------------------------------------------------------------------------------------------


async def test_a_locked_database_makes_the_journal_unavailable_but_can_be_read(
    journal: SqliteJournal, path: Path
) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()))
    write = haul.write(haul.wave("t1"), reply=logged("r1"))
    with write_lock(path):
        refused = asyncio.create_task(journal.commit([write]))
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
        assert not refused.done()
        with pytest.raises(JournalUnavailable, match="locked"):
            await refused
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    await land(journal, write)


async def test_a_full_disk_fails_the_batch_as_a_whole_and_writes_nothing(journal: SqliteJournal) -> None:
    """The limit on pages stands for the disk."""

    def limit(connection: sqlite3.Connection, pages: int) -> None:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used + pages}")

    first, second = another(1), another(2)
    small = first.write(first.created(), reply=logged("r1"))
    second.step(second.created())
    large = another(2)
    batch = [
        small,
        large.step(large.created()),
        large.step(large.wave(*(f"many{n}" for n in range(2_000)))),
    ]
    await journal._writer.run(lambda connection: limit(connection, 3))
    with pytest.raises(JournalUnavailable, match="full"):
        await journal.commit(batch)
    assert await journal.list_broadcasts(ACME, None, 10) == []
    await land(journal, small)
    await journal._writer.run(lambda connection: limit(connection, 1_000_000))
    await land(journal, *batch)


async def test_what_is_stored_and_cannot_be_read_is_a_fault(journal: SqliteJournal) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("""INSERT INTO tenants (tenant_id, settings) VALUES ('t', '{"colour": "red"}')""")

    await journal._writer.run(spoil)
    with pytest.raises(JournalFault, match="colour"):
        await journal.read_tenant(TenantId("t"))


async def test_a_closed_journal_is_unavailable(journal: SqliteJournal) -> None:
    await journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.commit([log_only(logged("r1"))])
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.engaged_vehicles()


async def test_cancelling_a_caller_neither_stops_nor_halves_its_writes(journal: SqliteJournal, path: Path) -> None:
    """One commit has begun when it is cancelled, the other waits for its turn."""
    haul, second = another(1), another(2)
    commits = (
        journal.commit([haul.step(haul.created()), haul.step(haul.wave("t1"))]),
        journal.commit([second.step(second.created(), reply=logged("r1"))]),
    )
    await journal._writer.run(lambda connection: connection.execute("PRAGMA busy_timeout = 30000"))
    with write_lock(path):
        tasks = [asyncio.create_task(one) for one in commits]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert [type(one) for one in await asyncio.gather(*tasks, return_exceptions=True)] == [
            asyncio.CancelledError,
            asyncio.CancelledError,
        ]
    assert isinstance(await only(journal, log_only(logged("r1"))), Duplicate)
    for one in (haul, second):
        assert await journal.read_broadcast(ACME, one.broadcast_id) == one.stored


# --- The indexes behind the checks -----------------------------------------------------------------------------------


async def test_the_unique_indexes_hold_without_the_checks_and_spoil_no_other_write(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, vehicle, driver, customer, wrong = (another(n) for n in range(1, 6))
    customer.customer_id = one.customer_id
    for haul in (one, vehicle, driver, wrong):
        await land(journal, haul.step(haul.created()))
    last = another(9)
    monkeypatch.setattr(commit, "_conflict", lambda *_: None)
    outcomes = await journal.commit(
        [
            one.step(one.assigned(1, "t1"), reply=logged("r0")),
            vehicle.write(vehicle.offered("t9"), vehicle.assigned(1, "t1", "v1", "d2"), reply=logged("r1")),
            driver.write(driver.offered("t9"), driver.assigned(1, "t1", "v2", "d1"), reply=logged("r2")),
            customer.write(customer.created(), reply=logged("r3")),
            wrong.write(wrong.offered("t9"), wrong.assigned_to(1, "t1", "nothing", "nobody"), reply=logged("r4")),
            last.step(last.created(), reply=logged("r5")),
        ]
    )
    assert outcomes == [
        Landed(),
        Conflict(Refusal.VEHICLE_BUSY, {}),
        Conflict(Refusal.DRIVER_BUSY, {}),
        Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": "b1"}),
        Fenced(),
        Landed(),
    ]
    for haul in (one, vehicle, driver, wrong, last):
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert await journal.read_broadcast(ACME, BroadcastId("b4")) is None
    assert await journal.read_offers(ACME, TransporterId("t9"), 0) == []
    await land(journal, *(log_only(logged(f"r{n}")) for n in (1, 2, 3, 4)))
