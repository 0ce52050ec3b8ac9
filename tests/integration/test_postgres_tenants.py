"""What keeps tenants apart in Postgres, whatever a query says: the role that requests act under, and its policies.

The tables are found in the catalog: one that is added without a policy fails here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest

from haulcast.domain.control import TenantControl
from haulcast.domain.ids import DriverId, TransporterId
from haulcast.domain.settings import TenantSettings
from haulcast.ports import ControlRecord, RequestKey, Role
from haulcast.storage.postgres import Limits, PostgresJournal
from haulcast.storage.postgres.connections import NODE_ROLE, TENANT_ROLE, Link
from tests.contract.hauls import ACME, FLEET, NOW_MS, OTHER, another, land, logged
from tests.databases import admin, empty

Connection = Any

NOT_OF_TENANTS = {"alembic_version", "compatibility", "lost_nodes"}


@pytest.fixture
async def url(migrated_url: str) -> str:
    """A database in which every table has rows of two tenants."""
    await empty(migrated_url)
    journal = await PostgresJournal.open(migrated_url)
    try:
        for tenant in (ACME, OTHER):
            await journal.create_tenant(tenant, TenantSettings())
            key = RequestKey(tenant, Role.OPERATOR, "op1", "r1")
            paused = TenantControl(paused=True, version=2)
            await journal.record_control(ControlRecord(key, "f", "pause", {}, NOW_MS, 2), paused)
            await journal.put_fleet(tenant, FLEET)
            haul = another(1, tenant=tenant)
            await land(
                journal,
                haul.step(haul.created(), reply=logged("r1", tenant=tenant)),
                haul.step(haul.wave("t1")),
                haul.step(haul.assigned(1, "t1")),
            )
    finally:
        await journal.close()
    return migrated_url


@asynccontextmanager
async def acting(url: str, role: str, tenant: str | None = None) -> AsyncIterator[Connection]:
    """A connection under a role, for a tenant if one is given."""
    async with admin(url) as connection:
        await connection.execute(f"SET ROLE {role}")
        if tenant is not None:
            await connection.execute("SELECT set_config('haulcast.tenant', $1, false)", tenant)
        yield connection


async def tables(url: str) -> dict[str, bool]:
    """Every table of the schema, and whether its rows belong to tenants."""
    async with admin(url) as connection:
        found = await connection.fetch(
            """
            SELECT relname, EXISTS (
                SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped
            ) AS of_tenants
            FROM pg_class
            WHERE relkind IN ('r', 'p') AND relnamespace = 'haulcast'::regnamespace
            """
        )
    return {row["relname"]: row["of_tenants"] for row in found}


async def count(connection: Connection, query: str) -> int | None:
    """What a counting query gives; None if the role may not even ask."""
    try:
        number: int = await connection.fetchval(query)
    except asyncpg.InsufficientPrivilegeError:
        return None
    return number


async def test_every_table_either_belongs_to_tenants_or_is_known_not_to(url: str) -> None:
    found = await tables(url)
    assert {table for table, of_tenants in found.items() if not of_tenants} == NOT_OF_TENANTS
    async with admin(url) as connection:
        for table in found.keys() - NOT_OF_TENANTS:
            secured = await connection.fetchrow(
                "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::regclass", table
            )
            assert tuple(secured) == (True, True), table
            everybody = await connection.fetchval(f"SELECT count(DISTINCT tenant_id) FROM {table}")
            assert everybody == 2, f"{table} has no rows to try it with"


async def test_every_policy_of_the_tenants_role_binds_it_to_its_tenant(url: str) -> None:
    """On each table of tenants there is one, for whatever is done; nothing else lets the role, or everybody, see more:
    several policies of a table are alternatives."""
    async with admin(url) as connection:
        policies = await connection.fetch(
            """
            SELECT tablename, cmd, qual, coalesce(with_check, qual) AS check, permissive
            FROM pg_policies
            WHERE schemaname = 'haulcast' AND roles && ARRAY['public', $1]::NAME[]
            """,
            TENANT_ROLE,
        )
    bound = "(tenant_id = current_setting('haulcast.tenant'::text, true))"
    assert sorted(tuple(policy) for policy in policies) == [
        (table, "ALL", bound, bound, "PERMISSIVE") for table in sorted((await tables(url)).keys() - NOT_OF_TENANTS)
    ]


@pytest.mark.parametrize("role", [NODE_ROLE, TENANT_ROLE])
async def test_no_role_is_above_the_policies(url: str, role: str) -> None:
    """Neither by itself nor by one that it may take; nor does it own a table, and could drop what keeps it apart."""
    async with admin(url) as connection:
        above = await connection.fetch(
            "SELECT rolname FROM pg_roles WHERE (rolsuper OR rolbypassrls) AND pg_has_role($1, oid, 'MEMBER')", role
        )
        owned = await connection.fetch(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = 'haulcast'::regnamespace AND pg_has_role($1, relowner, 'MEMBER')
            """,
            role,
        )
    assert [*above, *owned] == []


async def test_nothing_in_the_schema_looks_past_the_policies_with_its_owner_s_eyes(url: str) -> None:
    """As views and functions may that act for whoever made them. There are none; one that is added has to be thought
    about."""
    async with admin(url) as connection:
        views = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'haulcast'::regnamespace"
        )
        functions = await connection.fetch(
            "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'haulcast'::regnamespace"
        )
    assert [*views, *functions] == []


async def test_a_tenant_sees_its_own_rows_and_no_others(url: str) -> None:
    seen = set()
    async with acting(url, TENANT_ROLE, "acme") as connection:
        for table, of_tenants in (await tables(url)).items():
            if not of_tenants:
                assert await count(connection, f"SELECT count(*) FROM {table}") is None, table
                continue
            assert await count(connection, f"SELECT count(*) FROM {table} WHERE tenant_id <> 'acme'") in (None, 0), (
                table
            )
            if await count(connection, f"SELECT count(*) FROM {table}"):
                seen.add(table)
    assert seen == {
        "tenants",
        "transporters",
        "vehicles",
        "drivers",
        "broadcasts",
        "events",
        "offers",
        "assignments",
        "control_log",
    }


@pytest.mark.parametrize("tenant", [None, "", "nobody"])
async def test_whoever_acts_for_no_tenant_sees_nothing(url: str, tenant: str | None) -> None:
    async with acting(url, TENANT_ROLE, tenant) as connection:
        for table in (await tables(url)).keys() - NOT_OF_TENANTS:
            assert await count(connection, f"SELECT count(*) FROM {table}") in (None, 0), table


async def test_a_tenant_can_neither_write_nor_take_nor_give_away_another_s_rows(url: str) -> None:
    """Nor delete or empty anything. Each is tried with a row that would be fine under its own name."""
    for table in (await tables(url)).keys() - NOT_OF_TENANTS:
        async with admin(url) as connection:
            theirs = await connection.fetchval(
                f"SELECT row_to_json({table})::text FROM {table} WHERE tenant_id = 'other'"
            )
        async with acting(url, TENANT_ROLE, "acme") as connection:
            attempts = {
                "insert": f"INSERT INTO {table} SELECT * FROM json_populate_record(NULL::{table}, '{theirs}')",
                "take": f"UPDATE {table} SET tenant_id = 'acme' WHERE tenant_id = 'other'",
                "change": f"UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = 'other'",
                "give away": f"UPDATE {table} SET tenant_id = 'other'",
                "delete": f"DELETE FROM {table} WHERE tenant_id = 'other'",
                "empty": f"TRUNCATE {table} CASCADE",
            }
            for what, statement in attempts.items():
                try:
                    done = await connection.execute(statement)
                except asyncpg.InsufficientPrivilegeError:
                    continue
                assert what in ("take", "change", "delete"), f"{what} {table}"
                assert done.endswith(" 0"), f"{what} {table}: {done}"


# --- The journal's connections ---------------------------------------------------------------------------------------


async def test_requests_act_under_the_tenant_s_role_and_everything_else_under_the_node_s(url: str) -> None:
    async def who(link: Link) -> tuple[str, bool]:
        (row,) = await link.fetch(
            "SELECT current_user, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        return tuple(row)

    journal = await PostgresJournal.open(url)
    try:
        assert await journal._requests.run(who) == (TENANT_ROLE, False)
        for pool in (journal._committer, journal._node):
            assert await pool.run(who) == (NODE_ROLE, False)
    finally:
        await journal.close()


async def test_a_connection_serves_tenants_in_turn_and_is_told_only_of_a_change(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    fetch = Link.fetch

    async def noting(link: Link, query: str, *values: Any) -> Any:
        told.extend(values if "set_config" in query else ())
        return await fetch(link, query, *values)

    monkeypatch.setattr(Link, "fetch", noting)
    journal = await PostgresJournal.open(url, Limits(requests=1))
    try:
        for tenant in (ACME, ACME, OTHER, OTHER, ACME):
            ((broadcast, _),) = await journal.read_trips(tenant, transporter_id=TransporterId("t1"))
            assert broadcast.tenant_id == tenant
            assert await journal.read_driver(tenant, DriverId("t1d1")) is not None
    finally:
        await journal.close()
    assert told == [ACME, OTHER, ACME]


async def test_a_query_that_forgets_the_tenant_gets_that_of_the_request_alone(url: str) -> None:
    journal = await PostgresJournal.open(url, Limits(requests=1))
    try:
        for tenant in (ACME, OTHER):
            for table in ("broadcasts", "tenants", "control_log"):
                rows = await journal._requests.run(partial(Link.fetch, query=f"SELECT tenant_id FROM {table}"), tenant)
                assert [row["tenant_id"] for row in rows] == [tenant]
    finally:
        await journal.close()


async def test_a_command_that_forgets_the_tenant_reaches_that_of_the_request_alone(url: str) -> None:
    async with acting(url, TENANT_ROLE, "acme") as connection:
        assert await connection.execute("UPDATE tenants SET paused = false, control_version = 9") == "UPDATE 1"
        assert await connection.execute("UPDATE control_log SET outcome = '{}'") == "UPDATE 1"
    async with acting(url, TENANT_ROLE, "other") as connection:
        assert tuple(await connection.fetchrow("SELECT paused, control_version FROM tenants")) == (True, 2)
        assert await connection.fetchval("SELECT outcome FROM control_log") is None


async def test_of_what_was_recorded_a_request_can_change_nothing_but_the_outcome(url: str) -> None:
    async with admin(url) as connection:
        columns = [
            row["attname"]
            for row in await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'control_log'::regclass AND attnum > 0"
            )
        ]
    changed = set()
    async with acting(url, TENANT_ROLE, "acme") as connection:
        for column in columns:
            try:
                await connection.execute(f"UPDATE control_log SET {column} = {column}")
            except asyncpg.InsufficientPrivilegeError:
                continue
            changed.add(column)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM control_log")
    assert changed == {"outcome"}


async def test_a_node_sees_of_tenants_nothing_but_their_versions(url: str) -> None:
    async with acting(url, NODE_ROLE) as connection:
        assert await count(connection, "SELECT sum(control_version) FROM tenants") == 4
        for asked in ("SELECT count(settings) FROM tenants", "SELECT count(*) FROM control_log"):
            assert await count(connection, asked) is None, asked
