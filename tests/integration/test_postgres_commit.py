"""What can go wrong when several nodes commit to one database at once. Each test takes away the ground of one
safeguard: another connection does, in the worst moment, what another node might."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import pytest

from haulcast.domain.ids import BroadcastId, CustomerId, TransporterId
from haulcast.domain.replies import Done, Refusal
from haulcast.domain.states import TripStatus
from haulcast.errors import JournalUnavailable
from haulcast.ports import Conflict, Duplicate, Fence, Fenced, Landed, Outcome, Stored, Write
from haulcast.storage.postgres import Limits, PostgresJournal
from haulcast.storage.postgres.commit import independent
from haulcast.storage.postgres.commit_query import COMMIT
from haulcast.storage.postgres.connections import Link
from haulcast.storage.postgres.log_query import LOG
from haulcast.storage.postgres.queries import BOARD
from haulcast.storage.postgres.rows import arguments, log_arguments, prepared
from tests.contract.hauls import (
    ACME,
    FLEET,
    NOW_MS,
    Haul,
    another,
    fresh_id,
    land,
    log_only,
    logged,
    only,
    searching,
)
from tests.contract.shared import eventually
from tests.databases import admin, empty

Connection = Any
T1 = TransporterId("t1")


@pytest.fixture
async def url(migrated_url: str) -> str:
    await empty(migrated_url)
    return migrated_url


@pytest.fixture
async def journal(url: str) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(url)
    await journal.put_fleet(ACME, FLEET)
    yield journal
    await journal.close()


@pytest.fixture
async def statements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many writes each statement had that was sent to commit."""
    return counted(monkeypatch, COMMIT, LOG)


@pytest.fixture
async def log_statements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The same of those alone that can do nothing but log replies."""
    return counted(monkeypatch, LOG)


def counted(monkeypatch: pytest.MonkeyPatch, *queries: str) -> list[int]:
    sent: list[int] = []
    fetch = Link.fetch

    async def counting(link: Link, query: str, *values: Any) -> Any:
        if query in queries:
            sent.append(len(values[0]))
        return await fetch(link, query, *values)

    monkeypatch.setattr(Link, "fetch", counting)
    return sent


def refusal(haul: Haul, request: str, fence: Fence | None = None) -> Write:
    """The owner's answer to somebody who came too late."""
    return Write(fresh_id(), NOW_MS, ACME, haul.broadcast_id, logged(request), fence or Fence(1, 1, 2))


@asynccontextmanager
async def other_node(url: str) -> AsyncIterator[Connection]:
    """A connection in the middle of a transaction, that commits at the end."""
    async with admin(url) as connection, connection.transaction():
        yield connection


async def waiting(url: str, number: int = 1) -> None:
    """Until so many statements wait for somebody's lock."""
    async with admin(url) as connection:

        async def wait_for_locks() -> bool:
            count: int = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return count >= number

        await eventually(wait_for_locks)


async def meanwhile(url: str, journal: PostgresJournal, writes: list[Write], *statements: str) -> list[Outcome]:
    """The outcomes of a commit that begins when another node has done these, and that node commits while it waits."""
    async with other_node(url) as node:
        for statement in statements:
            await node.execute(statement)
        commit = asyncio.create_task(journal.commit(writes))
        await waiting(url)
    return await commit


async def rows(url: str, table: str, where: str = "true") -> int:
    async with admin(url) as connection:
        count: int = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {where}")
        return count


def assign_elsewhere(vehicle_id: str, driver_id: str) -> str:
    """Another node assigns these."""
    return (
        "INSERT INTO assignments VALUES ('acme', 'elsewhere', 'elsewhere-1', 'a', 't', 't1',"
        f" '{vehicle_id}', '{driver_id}', 'truck_14ft', 'assigned', true, 1, 1)"
    )


# --- The fence -------------------------------------------------------------------------------------------------------


async def test_an_owner_that_is_fenced_while_its_commit_waits_writes_nothing(
    url: str, journal: PostgresJournal
) -> None:
    """The fence is compared with the row as it is once it is locked, and everything hangs on that."""
    haul, other = await searching(journal), await searching(journal, 2)
    write = haul.write(haul.offered("t9"), haul.declined("t2"), haul.assigned(1, "t1"), reply=logged("r1"))
    refusal = Write("w-r2", NOW_MS, ACME, haul.broadcast_id, logged("r2"), Fence(1, 1, 2))
    outcomes = await meanwhile(
        url,
        journal,
        [write, refusal, other.step(other.offered("t9"))],
        "UPDATE broadcasts SET epoch = 2, owner = 2 WHERE broadcast_id = 'b1'",
    )
    assert outcomes == [Fenced(), Fenced(), Landed()]
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == Stored(2, haul.stored.state)
    for table in ("events", "offers"):
        assert await rows(url, table, "broadcast_id = 'b1'") == 2
    assert await rows(url, "assignments") == await rows(url, "request_log") == 0


async def test_a_step_that_follows_one_that_is_just_landing_lands(url: str, journal: PostgresJournal) -> None:
    """What the lock gave way to is what the fence is compared with, not what was there when the statement began."""
    haul = await searching(journal)
    step = haul.step(haul.offered("t3"))
    next_step = haul.step(haul.offered("t4"))
    async with admin(url) as connection:
        document = await connection.fetchval("SELECT state FROM broadcasts")
    assert step.state is not None
    outcomes = await meanwhile(
        url,
        journal,
        [next_step],
        f"UPDATE broadcasts SET seq = 3, state = '{document}'",
        f"INSERT INTO events VALUES ('acme', 'b1', 3, 'offered', '{{}}', '{step.write_id}')",
    )
    assert outcomes == [Landed()]
    assert await rows(url, "events") == 4


async def test_an_owner_that_is_fenced_while_its_refusals_wait_gives_none(url: str, journal: PostgresJournal) -> None:
    """Its other broadcasts' refusals land, and so does what anybody may answer."""
    haul, other = await searching(journal), await searching(journal, 2)
    outcomes = await meanwhile(
        url,
        journal,
        [refusal(haul, "r1"), refusal(other, "r2"), refusal(haul, "r3"), log_only(logged("r4"))],
        "UPDATE broadcasts SET epoch = 2, owner = 2 WHERE broadcast_id = 'b1'",
    )
    assert outcomes == [Fenced(), Landed(), Fenced(), Landed()]
    assert await rows(url, "request_log") == await rows(url, "request_log", "request_id IN ('r2', 'r4')") == 2


async def test_a_refusal_waits_for_whoever_is_taking_its_broadcast_but_not_for_its_next_state(
    url: str, journal: PostgresJournal
) -> None:
    """Only epoch and owner count, which the checkpoint that it waited for has not changed."""
    haul = await searching(journal)
    outcomes = await meanwhile(url, journal, [refusal(haul, "r1")], "UPDATE broadcasts SET seq = 3")
    assert outcomes == [Landed()]


async def test_a_refusal_is_the_owner_s_alone_or_anybody_s_for_what_does_not_exist(
    url: str, journal: PostgresJournal, log_statements: list[int]
) -> None:
    haul, missing = await searching(journal), another(9)
    fences = {
        "owner": (haul, Fence(1, 1, 2)),
        "owner-before-its-last-step": (haul, Fence(1, 1, 1)),
        "owner-of-a-later-epoch": (haul, Fence(2, 1, 2)),
        "other-node": (haul, Fence(1, 2, 2)),
        "other-node-that-knows-of-none": (haul, Fence(1, 2, 0)),
        "missing": (missing, Fence(1, 1, 0)),
        "missing-for-its-owner": (missing, Fence(1, 1, 2)),
    }
    outcomes = await journal.commit([refusal(of, request, fence) for request, (of, fence) in fences.items()])
    landed = {request for request, outcome in zip(fences, outcomes, strict=True) if outcome == Landed()}
    assert landed == {"owner", "owner-before-its-last-step", "missing"}
    assert {type(outcome) for outcome in outcomes} == {Landed, Fenced}
    assert log_statements == [7, 4]
    assert await rows(url, "request_log") == 3


# --- What crosses broadcasts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vehicle", "driver", "code"), [("t1v1", "x", Refusal.VEHICLE_BUSY), ("x", "t1d1", Refusal.DRIVER_BUSY)]
)
async def test_an_assignment_that_another_node_forestalls_lands_in_no_part_and_spoils_no_other_write(
    url: str, journal: PostgresJournal, statements: list[int], vehicle: str, driver: str, code: Refusal
) -> None:
    haul, other = await searching(journal), await searching(journal, 2)
    write = haul.write(haul.offered("t9"), haul.assigned(1, "t1"), reply=logged("r1"))
    statements.clear()
    outcomes = await meanwhile(
        url, journal, [write, other.step(other.assigned(1, "t2"))], assign_elsewhere(vehicle, driver)
    )
    assert outcomes == [Conflict(code, {}), Landed()]
    assert statements == [2, 1]  # together, and one more look at the one that did not land
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert await rows(url, "events", "broadcast_id = 'b1'") == 2
    assert await rows(url, "offers", "broadcast_id = 'b1'") == 2
    assert await rows(url, "request_log") == 0


async def test_a_customer_whom_another_node_serves_in_the_same_moment_has_one_broadcast(
    url: str, journal: PostgresJournal, statements: list[int]
) -> None:
    haul, second = await searching(journal, 7), Haul(BroadcastId("b2"), CustomerId("c1"))
    write = second.write(second.created(), reply=logged("r1"))
    outcomes = await meanwhile(
        url,
        journal,
        [write, haul.step(haul.offered("t3"))],
        "INSERT INTO broadcasts VALUES ('acme', 'elsewhere', 'c1', 'searching', 1, 1, NULL, 1, 1, 2, 1, '')",
    )
    assert outcomes == [Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": "elsewhere"}), Landed()]
    assert statements[-2:] == [2, 1]
    assert await journal.read_broadcast(ACME, second.broadcast_id) is None
    assert await rows(url, "events", "broadcast_id = 'b2'") == await rows(url, "request_log") == 0


async def test_a_broadcast_that_is_created_with_an_assignment_comes_with_it_or_not_at_all(
    url: str, journal: PostgresJournal
) -> None:
    haul, other = another(1), another(2)
    write = haul.write(haul.created(), haul.assigned(1, "t1"))
    outcomes = await meanwhile(url, journal, [write, other.step(other.created())], assign_elsewhere("x", "t1d1"))
    assert outcomes == [Conflict(Refusal.DRIVER_BUSY, {}), Landed()]
    assert await journal.read_broadcast(ACME, haul.broadcast_id) is None
    async with admin(url) as connection:
        await connection.execute("DELETE FROM assignments")
    await land(journal, write)
    assert await journal.engaged_vehicles() == [(ACME, "t1v1")]


async def test_a_request_that_another_node_answers_in_the_same_moment_is_a_duplicate_and_does_nothing(
    url: str, journal: PostgresJournal
) -> None:
    """The statement fails as a whole, and every other write of it lands nevertheless."""
    hauls = [await searching(journal, number) for number in range(1, 6)]
    reply = logged("r1")
    outcomes = await meanwhile(
        url,
        journal,
        [
            *(haul.step(haul.offered("t3")) for haul in hauls[:3]),
            hauls[3].write(hauls[3].offered("t9"), reply=reply),
            hauls[4].step(hauls[4].offered("t3")),
            log_only(logged("r2")),
        ],
        """INSERT INTO request_log VALUES ('acme', 'customer', 'c1', 'r1', 'theirs', '{"done":{}}', 1, 'elsewhere')""",
    )
    assert [type(outcome) for outcome in outcomes] == [Landed, Landed, Landed, Duplicate, Landed, Landed]
    for haul in hauls:
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert await rows(url, "offers", "transporter_id = 't9'") == 0


async def test_so_is_one_that_comes_alone(url: str, journal: PostgresJournal) -> None:
    theirs = """INSERT INTO request_log VALUES ('acme', 'customer', 'c1', 'r1', 'f', '{"done":{}}', 1, 'elsewhere')"""
    (outcome,) = await meanwhile(url, journal, [log_only(logged("r1"))], theirs)
    assert outcome == Duplicate("f", Done())


async def test_a_refusal_that_another_node_answers_in_the_same_moment_is_a_duplicate_among_those_that_land(
    url: str, journal: PostgresJournal, log_statements: list[int]
) -> None:
    """The statement fails as a whole, and is done again in halves."""
    haul = await searching(journal)
    outcomes = await meanwhile(
        url,
        journal,
        [refusal(haul, f"r{number}") for number in range(4)],
        """INSERT INTO request_log VALUES ('acme', 'customer', 'c1', 'r1', 'theirs', '{"done":{}}', 1, 'elsewhere')""",
    )
    assert outcomes == [Landed(), Duplicate("theirs", Done()), Landed(), Landed()]
    assert log_statements == [4, 2, 2]
    assert await rows(url, "request_log", "write_id <> 'elsewhere'") == 3


async def test_a_refusal_that_was_logged_before_is_answered_from_the_log_whoever_asks_now(
    url: str, journal: PostgresJournal, log_statements: list[int]
) -> None:
    """Also by one who does not own the broadcast; and a write that is sent again is recognised."""
    haul = await searching(journal)
    first = Write("w-first", NOW_MS, ACME, haul.broadcast_id, logged("r1", Done({"n": 1})), Fence(1, 1, 2))
    await land(journal, first)
    log_statements.clear()
    again, stranger = refusal(haul, "r1"), refusal(haul, "r1", Fence(1, 7, 2))
    known = Duplicate("f", Done({"n": 1}))
    assert await journal.commit([again, refusal(haul, "r2")]) == [known, Landed()]
    assert await journal.commit([stranger]) == [known]
    assert await journal.commit([first, refusal(haul, "r3")]) == [Landed(), Landed()]
    assert log_statements == [2, 1, 2]
    assert await rows(url, "request_log") == 3


# --- One statement for many ------------------------------------------------------------------------------------------


async def test_many_independent_writes_are_one_statement_a_loser_s_refusals_included(
    journal: PostgresJournal, statements: list[int]
) -> None:
    haul, other = await searching(journal), await searching(journal, 2)
    statements.clear()
    refusals = [refusal(haul, f"r{number}") for number in range(100)]
    await land(journal, haul.step(haul.assigned(1, "t1")), *refusals, other.step(other.assigned(1, "t2")))
    assert statements == [102]
    statements.clear()
    await land(journal, *(log_only(logged(f"x{number}")) for number in range(600)))
    assert statements == [256, 256, 88]


async def test_writes_that_all_log_alone_are_sent_by_the_statement_for_these(
    journal: PostgresJournal, statements: list[int], log_statements: list[int]
) -> None:
    """With a checkpoint among them, even of their own broadcast, all go with that."""
    haul = await searching(journal)
    statements.clear()
    await land(journal, refusal(haul, "r1"), log_only(logged("r2")), refusal(haul, "r3"))
    assert statements == log_statements == [3]
    await land(journal, haul.step(haul.offered("t3")), refusal(haul, "r4"))
    assert (statements, log_statements) == ([3, 2], [3])


def test_a_write_that_depends_on_one_before_it_begins_a_statement() -> None:
    def parts(*writes: Write) -> list[int]:
        return [len(part) for part in independent([prepared(write) for write in writes])]

    one, two, same_customer = another(1), another(2), Haul(BroadcastId("b3"), CustomerId("c1"))
    created = one.step(one.created()), two.step(two.created())
    assert parts(*created) == [2]
    assert parts(created[0], same_customer.write(same_customer.created())) == [1, 1]
    assert parts(created[0], one.write(one.wave("t1"))) == [1, 1]
    assert parts(created[0], Write("w", 1, ACME, one.broadcast_id, logged("r"), Fence(1, 1, 1))) == [1, 1]
    assert parts(one.write(one.cancelled()), same_customer.write(same_customer.created())) == [1, 1]
    assert parts(log_only(logged("r")), log_only(logged("r")), log_only(logged("s"))) == [1, 2]
    vehicle, driver = one.write(one.assigned(1, "t1", "v1", "d1")), one.write(one.assigned(1, "t1", "v2", "d2"))
    assert parts(vehicle, two.write(two.assigned(1, "t1", "v1", "d2"))) == [1, 1]
    assert parts(driver, two.write(two.assigned(1, "t1", "v1", "d2"))) == [1, 1]
    assert parts(vehicle, two.write(two.assigned(1, "t1", "v2", "d2"))) == [2]
    one.step(one.assigned(1, "t1"))
    freed = one.write(one.trip(1, TripStatus.DELIVERED))
    assert parts(freed, two.write(two.assigned(1, "t1"))) == [1, 1]


async def test_two_assignments_of_one_broadcast_in_a_batch_are_two_facts(
    journal: PostgresJournal, statements: list[int]
) -> None:
    """The second is refused, and the first stands."""
    haul = await searching(journal)
    statements.clear()
    first = haul.step(haul.assigned(1, "t1"))
    second = haul.write(haul.assigned(2, "t1", "v2"))
    assert await journal.commit([first, second]) == [Landed(), Conflict(Refusal.DRIVER_BUSY, {})]
    assert statements == [1, 1]
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


# --- Locks -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def no_deadlock(url: str) -> AsyncIterator[None]:
    """The server has counted none meanwhile."""
    async with admin(url) as connection:
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        before = await connection.fetchval(deadlocks)
        yield
        assert await connection.fetchval(deadlocks) == before


@pytest.mark.parametrize("one", ["commit", "log"])
@pytest.mark.parametrize("other", ["commit", "log"])
async def test_batches_of_two_nodes_in_opposite_orders_never_deadlock(
    url: str, journal: PostgresJournal, one: str, other: str
) -> None:
    """Both statements lock rows in the order of their keys. Nothing is written, so that both can go on for ever."""
    hauls = [another(number) for number in range(1, 41)]
    await land(journal, *(haul.step(haul.created()) for haul in hauls))
    refusals = [Write(f"w{haul.broadcast_id}", NOW_MS, ACME, haul.broadcast_id, None, Fence(1, 1, 1)) for haul in hauls]
    fenced = Haul(BroadcastId("b20"), CustomerId("c20"), incarnation=7, state=hauls[19].state)
    batches = {"log": refusals, "commit": [fenced.write(fenced.wave("t1")), *refusals]}
    second = await PostgresJournal.open(url)
    try:
        async with no_deadlock(url):
            for _ in range(30):
                await asyncio.gather(journal.commit(batches[one]), second.commit(batches[other][::-1]))
    finally:
        await second.close()


async def test_two_nodes_that_log_the_same_requests_in_opposite_orders_never_deadlock(
    url: str, journal: PostgresJournal
) -> None:
    """Replies are logged in the order of their keys. Both begin when a third node gives their broadcasts free."""
    hauls = [await searching(journal), await searching(journal, 2)]
    second = await PostgresJournal.open(url)
    try:
        async with no_deadlock(url):
            for turn in range(5):
                mine, theirs = ([refusal(haul, f"{turn}-{number}") for number in range(200)] for haul in hauls)
                async with other_node(url) as node:
                    await node.execute("SELECT FROM broadcasts FOR UPDATE")
                    commits = asyncio.gather(journal.commit(mine), second.commit(theirs[::-1]))
                    await waiting(url, 2)
                outcomes = await commits
                assert sum(outcome == Landed() for outcome in chain(*outcomes)) == 200
    finally:
        await second.close()


async def test_a_deadlock_with_somebody_who_keeps_no_order_is_tried_again(url: str, journal: PostgresJournal) -> None:
    first, second = await searching(journal), await searching(journal, 2)
    async with other_node(url) as node:
        await node.execute("SET LOCAL deadlock_timeout = '30s'")  # so that it is not the one to be given up
        await node.execute("UPDATE broadcasts SET expires_at_ms = 1 WHERE broadcast_id = 'b2'")
        steps = [first.step(first.offered("t3")), second.step(second.offered("t3"))]
        commit = asyncio.create_task(journal.commit(steps))
        await waiting(url)
        await node.execute("UPDATE broadcasts SET expires_at_ms = 1 WHERE broadcast_id = 'b1'")
    assert await commit == [Landed(), Landed()]
    for haul in (first, second):
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


# --- Lost answers ----------------------------------------------------------------------------------------------------


async def test_a_write_is_recognised_while_its_first_try_is_still_under_way(url: str, journal: PostgresJournal) -> None:
    """The connection is given up, but the server goes on with what it was sent."""
    haul = await searching(journal)
    created = another(2)
    batch = [haul.step(haul.assigned(1, "t1"), reply=logged("r1")), created.step(created.created())]
    impatient = await PostgresJournal.open(url, Limits(statement_s=30, answer_s=0.2))
    try:
        async with other_node(url) as node:
            await node.execute("SELECT FROM broadcasts FOR UPDATE")
            with pytest.raises(JournalUnavailable):
                await impatient.commit(batch)
            again = asyncio.create_task(journal.commit(batch))
            await waiting(url, 2)
        assert await again == [Landed(), Landed()]
    finally:
        await impatient.close()
    assert await rows(url, "events", "broadcast_id = 'b1'") == 3
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


async def test_cancelling_a_caller_neither_stops_nor_halves_its_writes(url: str, journal: PostgresJournal) -> None:
    """One commit has begun when it is cancelled, the other waits for its turn. The connection is the same after."""
    haul, second = await searching(journal), another(2)
    (before,) = await journal._committer.run(lambda link: link.fetch("SELECT pg_backend_pid() AS pid"))
    async with other_node(url) as node:
        await node.execute("SELECT FROM broadcasts FOR UPDATE")
        tasks = [
            asyncio.create_task(journal.commit([haul.step(haul.offered("t3"))])),
            asyncio.create_task(journal.commit([second.step(second.created(), reply=logged("r1"))])),
        ]
        await waiting(url)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in results] == [asyncio.CancelledError] * 2
    assert isinstance(await only(journal, log_only(logged("r1"))), Duplicate)
    for one in (haul, second):
        assert await journal.read_broadcast(ACME, one.broadcast_id) == one.stored
    (after,) = await journal._committer.run(lambda link: link.fetch("SELECT pg_backend_pid() AS pid"))
    assert before == after


# --- Claims ----------------------------------------------------------------------------------------------------------


async def test_a_claim_that_waits_for_the_owner_s_last_commit_gets_all_of_it(
    url: str, journal: PostgresJournal
) -> None:
    """Its offers too, which were not there when the claim began."""
    haul = await searching(journal)
    step = haul.step(haul.offered("t3"))
    second = await PostgresJournal.open(url)
    try:
        async with other_node(url) as node:
            await node.execute("SELECT FROM broadcasts FOR UPDATE")
            commit = asyncio.create_task(journal.commit([step]))
            await waiting(url, 1)
            claim = asyncio.create_task(second.claim([haul.claim()], 2))
            await waiting(url, 2)
        assert await commit == [Landed()]
        assert await claim == [Stored(2, haul.stored.state)]
    finally:
        await second.close()


async def test_orphans_that_somebody_is_writing_are_passed_over_rather_than_waited_for(
    url: str, journal: PostgresJournal
) -> None:
    hauls = [another(number, at_ms=NOW_MS + number) for number in range(1, 4)]
    await land(journal, *(haul.step(haul.created()) for haul in hauls))
    async with other_node(url) as node:
        await node.execute("SELECT FROM broadcasts WHERE broadcast_id = 'b1' FOR UPDATE")
        claimed = await journal.claim_orphans(7, [7], 2)
    assert [stored.state.broadcast_id for stored in claimed] == ["b2", "b3"]


async def test_two_nodes_that_sweep_at_once_never_get_the_same(url: str, journal: PostgresJournal) -> None:
    await land(journal, *(haul.step(haul.created()) for haul in map(another, range(1, 101))))
    second = await PostgresJournal.open(url)
    try:
        sweeps = [one.claim_orphans(n, [n], 10) for _ in range(8) for n, one in ((7, journal), (8, second))]
        claimed = [stored for share in await asyncio.gather(*sweeps) for stored in share]
        assert [stored.epoch for stored in claimed if stored.epoch == 1] == []
        # Each sweep may have taken from the other what it had just claimed, but never at the same epoch.
        keys = [(stored.state.broadcast_id, stored.epoch) for stored in claimed]
        assert len(keys) == len(set(keys))
    finally:
        await second.close()


# --- What it costs ---------------------------------------------------------------------------------------------------


async def test_an_ordinary_checkpoint_touches_no_index(url: str, journal: PostgresJournal) -> None:
    """Neither a broadcast's status, state and seq nor a trip's status are in an index or in its condition."""
    ordinary = {("broadcasts", name) for name in ("status", "seq", "state", "expires_at_ms")}
    ordinary |= {("assignments", "trip_status"), ("assignments", "updated_at_ms"), ("offers", "declined")}
    async with admin(url) as connection:
        found = await connection.fetch(
            """
            SELECT relname, attname
            FROM pg_index
            JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = indexrelid AND refobjid = indrelid
            JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
            JOIN pg_class ON pg_class.oid = indrelid
            WHERE relnamespace = 'haulcast'::regnamespace
            """
        )
    indexed = {(row["relname"], row["attname"]) for row in found}
    assert {("broadcasts", "next_deadline_at_ms"), ("assignments", "active")} <= indexed
    assert not indexed & ordinary


async def test_everything_is_found_by_the_right_index_from_the_first_row_on(url: str, journal: PostgresJournal) -> None:
    """Whatever the planner believes of tables that nobody has analysed yet; and no part is joined with another."""
    haul, creation = await searching(journal), another(2)
    batch = [
        haul.write(haul.assigned(1, "t1"), haul.cancelled(), reply=logged("r1")),
        creation.write(creation.created()),
    ]
    values = arguments([prepared(write) for write in batch])

    async def explain(link: Link) -> list[str]:
        return [row[0] for row in await link.fetch(f"EXPLAIN {COMMIT}", *values)]

    plan = await journal._committer.run(explain)
    used = [line.split(" using ")[1].split()[0] for line in plan if " using " in line]
    assert sorted(used) == [
        "assignments_active_driver",
        "assignments_active_vehicle",
        "assignments_pkey",
        "broadcasts_live_customer",
        "broadcasts_pkey",
        "broadcasts_pkey",
        "drivers_pkey",
        "events_pkey",
        "offers_pkey",
        "request_log_pkey",
        "vehicles_pkey",
    ]
    assert not [line for line in plan if "Seq Scan" in line or "Hash Join" in line or "Merge" in line]


async def test_the_refusals_of_a_broadcast_lock_it_once(url: str, journal: PostgresJournal) -> None:
    """And are found, as everything is, by the right index."""
    haul, other = await searching(journal), await searching(journal, 2)
    writes = [refusal(one, f"{one.broadcast_id}-{number}") for number in range(20) for one in (haul, other)]
    values = log_arguments([prepared(write) for write in writes])

    async def explain(link: Link) -> list[str]:
        return [row[0] for row in await link.fetch(f"EXPLAIN (ANALYZE, VERBOSE) {LOG}", *values)]

    plan = await journal._committer.run(explain)
    (locking,) = [line for line in plan if "LockRows" in line]
    assert "rows=1 loops=2)" in locking
    used = [line.split(" using ")[1].split()[0] for line in plan if " using " in line]
    assert sorted(used) == ["broadcasts_pkey", "request_log_pkey"]
    assert not [line for line in plan if "Seq Scan" in line or "Hash Join" in line or "Merge" in line]
    assert "NOT (hashed SubPlan" in "".join(plan)


async def test_a_board_is_found_by_its_indexes_however_long_the_history(url: str, journal: PostgresJournal) -> None:
    """Whether or not the planner knows of the thousands that ended long ago, and in a plan that is made without values
    too. With a single row it may as well read the table."""
    await searching(journal)

    async def explain(link: Link) -> list[Any]:
        return await link.fetch(f"EXPLAIN (ANALYZE) {BOARD}", ACME, NOW_MS - 2_000, "b99", 2)

    def is_found_by_indexes(rows: list[Any]) -> None:
        plan = "\n".join(row[0] for row in rows)
        assert "Seq Scan" not in plan
        assert re.search(r"Index Cond: .*ended_at_ms >", plan)
        assert re.findall(r"Scan (?:using|on) (broadcasts_\w+)", plan) == [
            "broadcasts_live_customer",
            "broadcasts_ended",
        ]

    async with admin(url) as connection:
        await connection.execute(
            """
            INSERT INTO broadcasts
            SELECT
                tenant_id, 'b' || n, 'c' || n, 'expired', created_at_ms - n, expires_at_ms - n, $1::BIGINT - n, NULL,
                epoch, owner, seq, state
            FROM broadcasts
            CROSS JOIN generate_series(2, 20000) AS n
            """,
            NOW_MS,
        )
        is_found_by_indexes(await journal._requests.run(explain, ACME))
        await connection.execute("ANALYZE broadcasts")
        is_found_by_indexes(await journal._requests.run(explain, ACME))
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE board AS {BOARD}")
        is_found_by_indexes(
            await connection.fetch(f"EXPLAIN (ANALYZE) EXECUTE board('acme', {NOW_MS - 2_000}, 'b99', 2)")
        )


async def test_plans_are_made_anew_as_tables_grow() -> None:
    """What was planned for a small table does not do for a large one."""
    sent: list[str] = []

    class Recording:
        async def fetch(self, query: str) -> list[Any]:
            sent.append(query)
            return []

        execute = fetch

    link = Link(Recording(), 1.0)
    for _ in range(300):
        await link.fetch("SELECT")
    replanned = [number for number, query in enumerate(sent) if query == "DISCARD PLANS"]
    assert [number + 1 - earlier for earlier, number in enumerate(replanned)] == [4, 16, 64, 256]
