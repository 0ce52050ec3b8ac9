"""What can go wrong when several nodes record commands at once: another connection does, in the worst moment, what
another node might."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from haulcast.domain.control import TenantControl
from haulcast.domain.settings import TenantSettings
from haulcast.errors import JournalFault, JournalUnavailable
from haulcast.ports import ControlRecord, RequestKey, Role, Stale
from haulcast.storage.control_rows import record_columns
from haulcast.storage.postgres import PostgresJournal, control
from tests.contract.hauls import ACME, NOW_MS
from tests.contract.shared import eventually
from tests.databases import admin, empty

Connection = Any

PAUSE = ControlRecord(RequestKey(ACME, Role.OPERATOR, "op1", "r1"), "f", "pause", {}, NOW_MS, 2)
PAUSED = TenantControl(paused=True, version=2)

RECORD = f"INSERT INTO control_log VALUES ({', '.join(f'${n}' for n in range(1, 13))})"


@pytest.fixture
async def url(migrated_url: str) -> str:
    await empty(migrated_url)
    return migrated_url


@pytest.fixture
async def journal(url: str) -> AsyncIterator[PostgresJournal]:
    journal = await PostgresJournal.open(url)
    await journal.create_tenant(ACME, TenantSettings())
    yield journal
    await journal.close()


async def record(connection: Connection, made: ControlRecord, number: int = 1) -> None:
    tenant, *rest = record_columns(made)
    await connection.execute(RECORD, tenant, number, *rest)


async def raise_version(connection: Connection) -> None:
    await connection.execute("UPDATE tenants SET control_version = control_version + 1")


async def overtaken(
    url: str,
    journal: PostgresJournal,
    by: Callable[[Connection], Awaitable[None]],
    after: TenantControl | None = PAUSED,
) -> ControlRecord | Stale:
    """The answer to `PAUSE`, which waits for what another connection does at that moment, and commits."""
    async with admin(url) as connection, admin(url) as watch:

        async def waits() -> bool:
            blocked: bool = await watch.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))",
                connection.get_server_pid(),
            )
            return blocked

        async with connection.transaction():
            await by(connection)
            answer = asyncio.create_task(journal.record_control(PAUSE, after))
            await eventually(waits)
        return await answer


async def test_a_number_that_another_command_takes_at_that_moment_is_not_given_twice(
    url: str, journal: PostgresJournal
) -> None:
    other = replace(PAUSE, by=replace(PAUSE.by, request_id="r2"), command="drain_node", version=None)
    assert await overtaken(url, journal, lambda connection: record(connection, other)) == replace(PAUSE, number=2)
    assert await journal.read_tenant(ACME) == PAUSED
    log = await journal.read_control_log(ACME, before=None, limit=9)
    assert log == [replace(PAUSE, number=2), replace(other, number=1)]


@pytest.mark.parametrize("after", [PAUSED, None])
async def test_the_same_command_that_another_node_records_at_that_moment_is_answered_by_its_record(
    url: str, journal: PostgresJournal, after: TenantControl | None
) -> None:
    """With another number the key alone tells that it is the same."""

    async def elsewhere(connection: Connection) -> None:
        await record(connection, PAUSE, 7)
        if after is not None:
            await raise_version(connection)

    assert await overtaken(url, journal, elsewhere, after) == replace(PAUSE, number=7)
    assert await journal.control_versions([ACME]) == {ACME: 1 if after is None else 2}
    assert await journal.read_control_log(ACME, before=None, limit=9) == [replace(PAUSE, number=7)]


async def test_a_command_whose_version_another_node_passes_at_that_moment_is_stale(
    url: str, journal: PostgresJournal
) -> None:
    assert await overtaken(url, journal, raise_version) == Stale()
    assert await journal.read_tenant(ACME) == TenantControl(version=2)
    assert await journal.read_control_log(ACME, before=None, limit=9) == []


async def test_whoever_is_always_overtaken_is_told_to_come_again(
    url: str, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ATTEMPTS", 1)
    other = replace(PAUSE, by=replace(PAUSE.by, request_id="r2"))
    with pytest.raises(JournalUnavailable, match="at once"):
        await overtaken(url, journal, lambda connection: record(connection, other))
    assert await journal.control_versions([ACME]) == {ACME: 1}


@pytest.mark.parametrize("settings", ['{"version":99}', '{"colour":"red"}'])
async def test_settings_that_this_version_cannot_read_are_not_overwritten(
    url: str, journal: PostgresJournal, settings: str
) -> None:
    async with admin(url) as connection:
        await connection.execute("UPDATE tenants SET settings = $1", settings)
        with pytest.raises(JournalFault, match="Unreadable"):
            await journal.read_tenant(ACME)
        with pytest.raises(JournalFault, match="Unreadable"):
            await journal.record_control(PAUSE, PAUSED)
        assert await connection.fetchval("SELECT settings FROM tenants") == settings
