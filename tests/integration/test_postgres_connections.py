"""What becomes of the journal when its database restarts, dies, hangs or cannot be reached, and of errors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from urllib.parse import urlsplit

import asyncpg
import pytest

from haulcast.demo.stores import PrivatePostgres
from haulcast.domain.ids import BroadcastId, TenantId, VehicleId
from haulcast.errors import JournalFault, JournalUnavailable
from haulcast.ports import Claim, Journal, Landed
from haulcast.storage.postgres import Limits, PostgresJournal
from haulcast.storage.postgres.connections import Database, Link
from haulcast.storage.postgres.faults import translated
from tests.contract.hauls import ACME, FLEET, another, land, log_only, logged, only, searching
from tests.contract.shared import eventually
from tests.databases import admin, empty
from tests.proxy import Proxy

QUICK = Limits(connect_s=0.5, statement_s=0.4, answer_s=0.5)


@pytest.fixture
async def url(migrated_url: str) -> str:
    await empty(migrated_url)
    return migrated_url


@pytest.fixture
async def journal(url: str) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(url, QUICK)
    await journal.put_fleet(ACME, FLEET)
    yield journal
    await journal.close()


@pytest.fixture
def postgres() -> Iterator[PrivatePostgres]:
    """A server that a test may end."""
    with TemporaryDirectory(prefix="haulcast-postgres-") as directory:
        postgres = PrivatePostgres(Path(directory))
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()


@pytest.fixture
async def network(url: str) -> AsyncIterator[Proxy]:
    async with Proxy(urlsplit(url).port or 5432) as proxy:
        yield proxy


def through(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}").geturl()


async def unavailable_everywhere(journal: Journal) -> None:
    """Commits, sweeps and requests are refused, each within a moment."""
    for call in (
        journal.commit([log_only(logged("x"))]),
        journal.claim_orphans(7, [7], 1),
        journal.read_broadcast(ACME, BroadcastId("b1")),
    ):
        started = monotonic()
        with pytest.raises(JournalUnavailable):
            await call
        assert monotonic() - started < 3


async def works_everywhere(journal: Journal) -> None:
    """At last."""

    async def works() -> bool:
        with suppress(JournalUnavailable):
            await journal.commit([log_only(logged("x"))])
            await journal.claim_orphans(99, [1, 99], 1)
            await journal.read_broadcast(ACME, BroadcastId("b1"))
            return True
        return False

    await eventually(works)


# --- Away and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [PrivatePostgres.stop, PrivatePostgres.kill])
async def test_the_journal_comes_back_by_itself_when_its_server_does(
    postgres: PrivatePostgres, end: Callable[[PrivatePostgres], None]
) -> None:
    """With everything that was acknowledged."""
    journal = await PostgresJournal.open(postgres.url, QUICK)
    await journal.put_fleet(ACME, FLEET)
    haul = await searching(journal)
    step = haul.write(haul.assigned(1, "t1"), reply=logged("r1"))
    end(postgres)
    await unavailable_everywhere(journal)
    with pytest.raises(JournalUnavailable):
        await journal.commit([step])
    postgres.start()
    await works_everywhere(journal)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    await land(journal, step)
    await journal.close()


async def test_a_server_that_dies_in_the_middle_of_committing_loses_nothing_that_was_acknowledged(
    postgres: PrivatePostgres,
) -> None:
    """Nor leaves half of a write."""
    journal = await PostgresJournal.open(postgres.url, QUICK)
    acknowledged: list[int] = []

    async def commit() -> None:
        for batch in count():
            hauls = [another(number) for number in range(batch * 10, batch * 10 + 10)]
            writes = [write for haul in hauls for write in (haul.step(haul.created()), haul.step(haul.wave("t1")))]
            await land(journal, *writes)
            acknowledged.extend(range(batch * 10, batch * 10 + 10))

    committing = asyncio.create_task(commit())
    while len(acknowledged) < 100:
        await asyncio.sleep(0.001)
    await asyncio.to_thread(postgres.kill)
    with pytest.raises(JournalUnavailable):
        await committing
    postgres.start()
    await works_everywhere(journal)
    for number in acknowledged:
        haul = another(number)
        haul.step(haul.created())
        haul.step(haul.wave("t1"))
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    everything = await journal.list_broadcasts(ACME, None, 10_000)
    assert all(stored.state.seq == stored.state.notified + 1 for stored in everything)
    await journal.close()


async def test_a_database_that_falls_silent_is_noticed_and_used_again_when_it_answers(url: str, network: Proxy) -> None:
    """Nothing breaks: no packet comes back. What was sent may have landed, and is recognised."""
    journal = await PostgresJournal.open(through(network, url), QUICK)
    await journal.put_fleet(ACME, FLEET)
    haul = await searching(journal)
    step = haul.step(haul.assigned(1, "t1"), reply=logged("r1"))
    network.stall()
    started = monotonic()
    with pytest.raises(JournalUnavailable, match=r"no answer from the database within 0\.5 s"):
        await journal.commit([step])
    assert monotonic() - started < 1
    await unavailable_everywhere(journal)
    network.mend()
    await works_everywhere(journal)
    await land(journal, step)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    await journal.close()


async def test_when_one_connection_falls_silent_those_beside_it_are_not_trusted_either(
    url: str, network: Proxy
) -> None:
    """Otherwise each would cost somebody the whole wait."""
    journal = await PostgresJournal.open(through(network, url), QUICK)
    await asyncio.gather(*(journal.read_tenant(ACME) for _ in range(4)))
    assert len(journal._requests._idle) > 1
    network.stall()
    with pytest.raises(JournalUnavailable):
        await journal.read_tenant(ACME)
    assert journal._requests._idle == []
    network.mend()
    await journal.close()


async def test_broken_connections_are_replaced(url: str, network: Proxy) -> None:
    journal = await PostgresJournal.open(through(network, url), QUICK)
    await network.cut()
    await unavailable_everywhere(journal)
    network.mend()
    await works_everywhere(journal)
    await journal.close()


async def test_a_connection_that_the_server_has_ended_is_not_used_again(url: str, journal: PostgresJournal) -> None:
    """Nobody notices, as it was idle."""
    async with admin(url) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await eventually(lambda: _all_closed(journal))
    await land(journal, log_only(logged("r1")))
    assert await journal.read_broadcast(ACME, BroadcastId("b1")) is None


async def _all_closed(journal: PostgresJournal) -> bool:
    return all(link.connection.is_closed() for pool in journal._pools for link in pool._idle)


async def test_between_tries_to_connect_callers_are_refused_at_once(
    url: str, network: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the tries are spaced, however many callers there are."""
    journal = await PostgresJournal.open(through(network, url), QUICK)
    await network.cut()
    await eventually(lambda: _all_closed(journal))
    tries = 0
    connect = Database.connect

    async def counting(database: Database, role: str | None = None) -> object:
        nonlocal tries
        tries += 1
        return await connect(database, role)

    monkeypatch.setattr(Database, "connect", counting)
    refused, started = 0, monotonic()
    while monotonic() - started < 0.3:
        with pytest.raises(JournalUnavailable):
            await journal.commit([log_only(logged("r1"))])
        refused += 1
        await asyncio.sleep(0)
    assert 1 <= tries <= 6
    assert refused > 10 * tries
    await journal.close()


# --- Limits ----------------------------------------------------------------------------------------------------------


async def test_a_statement_that_takes_too_long_is_given_up_by_the_server_and_writes_nothing(
    url: str, journal: PostgresJournal
) -> None:
    haul = await searching(journal)
    write = haul.write(haul.offered("t3"), reply=logged("r1"))
    async with admin(url) as connection, connection.transaction():
        await connection.execute("SELECT FROM broadcasts FOR UPDATE")
        with pytest.raises(JournalUnavailable, match="statement timeout"):
            await journal.commit([write])
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    await land(journal, write)


async def test_who_finds_all_connections_in_use_waits_but_not_for_ever(url: str) -> None:
    journal = await PostgresJournal.open(url, Limits(requests=2, answer_s=0.3))
    free, held = asyncio.Event(), asyncio.Semaphore(0)

    async def hold(link: Link) -> None:
        held.release()
        await free.wait()

    holding = [asyncio.create_task(journal._requests.run(hold)) for _ in range(2)]
    for _ in holding:
        await held.acquire()
    with pytest.raises(JournalUnavailable, match="in use"):
        await journal.read_tenant(ACME)
    waiting = asyncio.create_task(journal.read_tenant(ACME))
    await asyncio.sleep(0)
    free.set()
    assert await waiting is None
    await asyncio.gather(*holding)
    await journal.close()


async def test_every_connection_has_the_settings_that_its_promises_rest_on(url: str, journal: PostgresJournal) -> None:
    """Also if the database has others."""
    names = ("synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout", "transaction_isolation")
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    async with admin(url) as connection:
        database = urlsplit(url).path[1:]
        await connection.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
        await connection.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
        try:
            other = await PostgresJournal.open(url, QUICK)
            for pool in other._pools:
                (row,) = await pool.run(lambda link: link.fetch(query))
                assert tuple(row) == ("on", "400ms", "400ms", "read committed")
            await other.close()
        finally:
            await connection.execute(f"ALTER DATABASE {database} RESET ALL")


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (asyncpg.AdminShutdownError("x"), JournalUnavailable),
        (asyncpg.CannotConnectNowError("x"), JournalUnavailable),
        (asyncpg.TooManyConnectionsError("x"), JournalUnavailable),
        (asyncpg.DiskFullError("x"), JournalUnavailable),
        (asyncpg.QueryCanceledError("x"), JournalUnavailable),
        (asyncpg.DeadlockDetectedError("x"), JournalUnavailable),
        (asyncpg.ReadOnlySQLTransactionError("x"), JournalUnavailable),
        (asyncpg.ConnectionDoesNotExistError("x"), JournalUnavailable),
        (asyncpg.InterfaceError("x"), JournalUnavailable),
        (asyncpg.InternalClientError("x"), JournalUnavailable),
        (ConnectionResetError("x"), JournalUnavailable),
        (TimeoutError("x"), JournalUnavailable),
        (asyncpg.UndefinedTableError("x"), JournalFault),
        (asyncpg.InsufficientPrivilegeError("x"), JournalFault),
        (asyncpg.CharacterNotInRepertoireError("x"), JournalFault),
        (asyncpg.UniqueViolationError("x"), JournalFault),
        (asyncpg.DataCorruptedError("x"), JournalFault),
    ],
)
def test_the_driver_s_errors_become_the_journal_s(error: Exception, means: type[Exception]) -> None:
    with pytest.raises(means, match=type(error).__name__), translated():
        raise error


async def test_what_is_stored_and_cannot_be_read_is_a_fault(url: str, journal: PostgresJournal) -> None:
    async with admin(url) as connection:
        await connection.execute("""INSERT INTO tenants VALUES ('t', '{"colour": "red"}')""")
    with pytest.raises(JournalFault, match="colour"):
        await journal.read_tenant(TenantId("t"))
    assert await journal.read_vehicle(ACME, VehicleId("t1v1")) == FLEET[1]


@pytest.mark.parametrize("unwritable", ["\0", "\ud800"])
async def test_what_the_database_cannot_store_is_a_fault_and_nothing_of_its_batch_is_written(
    journal: PostgresJournal, unwritable: str
) -> None:
    fine = log_only(logged("r1"))
    with pytest.raises(JournalFault):
        await journal.commit([fine, log_only(logged(f"r{unwritable}"))])
    assert await only(journal, log_only(logged("r1"))) == Landed()


async def test_a_closed_journal_is_unavailable(journal: PostgresJournal) -> None:
    await journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.commit([log_only(logged("r1"))])
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.engaged_vehicles()


async def test_closing_finishes_what_is_under_way(url: str, journal: PostgresJournal) -> None:
    haul = await searching(journal)
    async with admin(url) as connection, connection.transaction():
        await connection.execute("SELECT FROM broadcasts FOR UPDATE")
        commit = asyncio.create_task(journal.commit([haul.step(haul.offered("t3"))]))
        await asyncio.sleep(0)
        closing = asyncio.create_task(journal.close())
        await asyncio.wait([closing], timeout=0.1)
        assert not closing.done()
    assert await commit == [Landed()]
    await closing


async def test_a_broadcast_that_cannot_be_read_does_not_keep_others_from_being_taken_over(
    journal: PostgresJournal, url: str
) -> None:
    hauls = [another(number) for number in range(1, 4)]
    await land(journal, *(haul.step(haul.created()) for haul in hauls))
    async with admin(url) as connection:
        await connection.execute("UPDATE haulcast.broadcasts SET state = '{}' WHERE broadcast_id = 'b2'")
    claimed = await journal.claim_orphans(7, {7}, 10)
    assert [one.state.broadcast_id for one in claimed] == ["b1", "b3"]
    with pytest.raises(JournalFault):
        await journal.claim([Claim(ACME, BroadcastId("b2"), 2)], 8)
