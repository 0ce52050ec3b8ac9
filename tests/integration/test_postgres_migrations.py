"""How a database comes to its schema, with several nodes and two versions of them about."""

import asyncio
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest

from haulcast.demo.stores import PrivatePostgres
from haulcast.domain.control import TenantControl
from haulcast.domain.ids import VehicleId
from haulcast.errors import ConfigError
from haulcast.ports import ControlRecord, RequestKey, Role
from haulcast.storage.postgres import PostgresJournal, migrate, pending
from haulcast.storage.settings_documents import read_settings, write_settings
from tests.contract.hauls import ACME, FLEET, OTHER, another, land
from tests.databases import admin, create_database, drop_database, renamed

AddRevision: TypeAlias = Callable[[str], None]

ALL = ["0001", "0002", "0003", "0004"]

MADE_BEFORE = "INSERT INTO tenants (tenant_id, settings) VALUES ($1, $2) ON CONFLICT DO NOTHING"
V1_DEFAULT, V1_OTHER = (
    (Path(__file__).parents[1] / "data" / "settings" / name).read_text()
    for name in ("v1_default.json", "v1_other.json")
)

REVISIONS = sys.modules[migrate.__module__]
"""The module, whose name is that of the function too."""


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """An empty database."""
    url = await create_database(postgres_url)
    yield url
    await drop_database(url)


async def value(url: str, query: str) -> object:
    async with admin(url) as connection:
        return await connection.fetchval(query)


# --- Once ------------------------------------------------------------------------------------------------------------


async def test_an_empty_database_gets_everything_once(url: str) -> None:
    assert await pending(url) == ALL
    assert await value(url, "SELECT to_regnamespace('haulcast')") is None
    assert await migrate(url) == ALL
    assert await pending(url) == await migrate(url) == []


async def test_every_key_begins_with_the_tenant(url: str) -> None:
    await migrate(url)
    async with admin(url) as connection:
        rows = await connection.fetch(
            """
            SELECT indexrelid::regclass::text AS name, attname
            FROM pg_index
            JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
            JOIN pg_class ON pg_class.oid = indrelid
            WHERE relnamespace = 'haulcast'::regnamespace AND attname <> 'tenant_id'
            """
        )
    # What sweeps go by, for all tenants; and what is no tenant's.
    assert {row["name"] for row in rows} == {
        "broadcasts_deadline",
        "request_log_age",
        "lost_nodes_pkey",
        "compatibility_pkey",
        "alembic_version_pkc",
    }


async def test_opening_migrates_and_many_nodes_may_do_so_at_once(url: str) -> None:
    journals = await asyncio.gather(*(PostgresJournal.open(url) for _ in range(5)))
    assert sorted([await journal.next_incarnation() for journal in journals]) == [1, 2, 3, 4, 5]
    for journal in journals:
        await journal.close()
    assert await pending(url) == []


async def test_opening_what_needs_no_migration_imports_neither_alembic_nor_sqlalchemy(url: str) -> None:
    await migrate(url)
    script = (
        "import asyncio, sys; from haulcast.storage.postgres import PostgresJournal\n"
        "async def main():\n"
        "    journal = await PostgresJournal.open(sys.argv[1]); await journal.close()\n"
        "asyncio.run(main()); sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, url)
    assert await process.wait() == 0


def test_no_revision_has_a_percent_sign() -> None:
    """Alembic would write it twice."""
    for path in (REVISIONS.MIGRATIONS / "versions").glob("*.py"):
        assert "%" not in path.read_text(), path


# --- Two versions ----------------------------------------------------------------------------------------------------


async def test_a_newer_schema_serves_the_version_before_it(url: str) -> None:
    await migrate(url)
    await value(url, "UPDATE alembic_version SET version_num = '9999'")
    assert await pending(url) == await migrate(url) == []
    journal = await PostgresJournal.open(url)
    await journal.put_fleet(ACME, FLEET)
    haul = another(1)
    await land(journal, haul.step(haul.created()), haul.step(haul.assigned(1, "t1")))
    await journal.close()
    assert await value(url, "SELECT version_num FROM alembic_version") == "9999"


async def test_a_newer_schema_that_this_version_cannot_live_with_is_refused(url: str) -> None:
    await migrate(url)
    await value(url, "UPDATE alembic_version SET version_num = '9999'")
    await value(url, "UPDATE compatibility SET min_version = '9998'")
    for refused in (pending, migrate, PostgresJournal.open):
        with pytest.raises(ConfigError, match=r"9998 or newer can work with; upgrade haulcast"):
            await refused(url)


async def test_tenants_of_before_keep_their_settings_also_those_that_the_version_before_still_makes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made_as_before(tenant: str, document: str) -> None:
        async with admin(url) as connection:
            await connection.execute("SET ROLE haulcast_tenant")
            await connection.execute("SELECT set_config('haulcast.tenant', $1, false)", tenant)
            await connection.execute(MADE_BEFORE, tenant, document)

    async def read_as_before(tenant: str) -> object:
        return await value(url, f"SELECT settings FROM tenants WHERE tenant_id = '{tenant}'")

    before = tmp_path / "migrations"
    shutil.copytree(REVISIONS.MIGRATIONS, before)
    (before / "versions" / "0004_control.py").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(REVISIONS, "MIGRATIONS", before)
        assert await migrate(url) == ALL[:-1]
    await made_as_before("acme", V1_OTHER)
    assert await migrate(url) == ["0004"]
    await made_as_before("other", V1_DEFAULT)
    journal = await PostgresJournal.open(url)
    try:
        settings = read_settings(V1_OTHER)
        assert await journal.read_tenant(ACME) == TenantControl(settings, False, 1, ())
        assert await journal.read_tenant(OTHER) == TenantControl()
        assert await value(url, "SELECT string_agg(DISTINCT mode, ',') FROM tenants") == "progressive"

        # As long as no setting is changed, the version before goes on reading them.
        key = RequestKey(ACME, Role.OPERATOR, "op1", "r1")
        pause = ControlRecord(key, "f", "pause", {}, 1, 2)
        assert await journal.record_control(pause, TenantControl(settings, True, 2)) == replace(pause, number=1)
        assert await read_as_before("acme") == V1_OTHER
        blast = replace(settings, dispatch_mode="blast")
        switch = ControlRecord(replace(key, request_id="r2"), "f", "switch_mode", {}, 1, 3)
        await journal.record_control(switch, TenantControl(blast, True, 3))
        assert await read_as_before("acme") == write_settings(blast)
        assert await value(url, "SELECT mode FROM tenants WHERE tenant_id = 'acme'") == "blast"
    finally:
        await journal.close()


FIFTH = """
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE broadcasts ADD COLUMN colour TEXT")
    op.execute("ALTER TABLE request_log ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
    op.execute("CREATE TABLE fifth (tenant_id TEXT)")
    op.execute({last!r})
"""


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddRevision:
    """Have this version know one more revision, that ends with a statement."""
    copy = tmp_path / "100%" / "migrations"
    shutil.copytree(REVISIONS.MIGRATIONS, copy)
    monkeypatch.setattr(REVISIONS, "MIGRATIONS", copy)

    def add(last: str) -> None:
        (copy / "versions" / "0005_fifth.py").write_text(FIFTH.format(last=last))

    return add


async def test_a_migration_runs_while_the_version_before_it_commits(url: str, add_revision: AddRevision) -> None:
    journal = await PostgresJournal.open(url)
    await journal.put_fleet(ACME, FLEET)
    landed, done = 0, asyncio.Event()

    async def commit() -> None:
        nonlocal landed
        while not done.is_set() or landed < 50:
            haul = another(landed)
            await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1")))
            landed += 1

    committing = asyncio.create_task(commit())
    add_revision("CREATE INDEX fifth_status ON broadcasts (tenant_id, status)")
    assert await migrate(url) == ["0005"]
    done.set()
    await committing
    assert len(await journal.list_broadcasts(ACME, None, 1_000)) == landed
    await journal.close()


async def test_a_revision_is_applied_once_however_many_nodes_find_it_missing(
    url: str, add_revision: AddRevision
) -> None:
    await migrate(url)
    add_revision("SELECT pg_sleep(0.2)")
    applied = await asyncio.gather(*(migrate(url) for _ in range(4)))
    assert sorted(applied) == [[], [], [], ["0005"]]


async def test_a_migration_that_waits_for_a_lock_holds_nobody_up_for_long(
    url: str, add_revision: AddRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's long query has the table. Whoever comes after a migration that waits would wait too."""
    monkeypatch.setattr(REVISIONS, "LOCK_TIMEOUT_MS", 100)
    monkeypatch.setattr(REVISIONS, "RETRY_IN_S", 0.05)
    journal = await PostgresJournal.open(url)
    await journal.put_fleet(ACME, FLEET)
    add_revision("SELECT 1")
    async with admin(url) as reader, reader.transaction():
        await reader.execute("SELECT FROM broadcasts")
        migration = asyncio.create_task(migrate(url))
        for number in range(40):
            haul = another(number)
            async with asyncio.timeout(1):
                await land(journal, haul.step(haul.created()))
            await asyncio.sleep(0.01)
        assert not migration.done()
    assert await migration == ["0005"]
    await journal.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(url: str, add_revision: AddRevision) -> None:
    await migrate(url)
    add_revision("this is not SQL")
    assert await pending(url) == ["0005"]
    with pytest.raises(ConfigError, match="syntax error"):
        await migrate(url)
    assert await value(url, "SELECT to_regclass('haulcast.fifth')") is None
    assert await pending(url) == ["0005"]


# --- Roles -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def virgin() -> Iterator[str]:
    """The address of a server that has never seen haulcast."""
    with TemporaryDirectory(prefix="haulcast-postgres-") as directory:
        postgres = PrivatePostgres(Path(directory), fsync=False)
        postgres.start()
        try:
            yield postgres.url
        finally:
            postgres.stop()


async def test_the_roles_are_made_by_an_owner_who_may_or_by_an_administrator(virgin: str) -> None:
    """Whoever has nothing to migrate needs only them."""

    async def owned(user: str, *rights: str) -> str:
        password = secrets.token_hex(8)
        async with admin(virgin) as connection:
            await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}' {' '.join(rights)}")
        made = await create_database(virgin, owner=user)
        return renamed(made, made.rpartition("/")[2], user=user, password=password)

    async def works(url: str) -> None:
        journal = await PostgresJournal.open(url)
        await journal.put_fleet(ACME, FLEET)
        haul = another(1)
        await land(journal, haul.step(haul.created()), haul.step(haul.assigned(1, "t1")))
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
        await journal.close()

    powerless = await owned("powerless")
    with pytest.raises(
        ConfigError, match="CREATE ROLE haulcast_node NOLOGIN; GRANT haulcast_node TO powerless"
    ) as said:
        await PostgresJournal.open(powerless)
    assert powerless.split(":")[2].split("@")[0] not in str(said.value)
    assert await value(powerless, "SELECT to_regnamespace('haulcast')") is None

    await works(await owned("creator", "CREATEROLE"))

    with pytest.raises(ConfigError, match="GRANT haulcast_node TO powerless"):
        await PostgresJournal.open(powerless)
    async with admin(virgin) as connection:
        await connection.execute("GRANT haulcast_node, haulcast_tenant TO powerless")
    await works(powerless)

    elsewhere = await owned("server")
    async with admin(virgin) as connection:
        await connection.execute("GRANT haulcast_node, haulcast_tenant TO server")
    name = powerless.rpartition("/")[2]
    journal = await PostgresJournal.open(elsewhere.rpartition("/")[0] + f"/{name}")
    assert await journal.read_vehicle(ACME, VehicleId("t1v1")) == FLEET[1]
    await journal.close()


# --- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "mysql://haulcast:s3cret@127.0.0.1/haulcast",
        "s3cret",
        "postgresql://haulcast:s3cret@127.0.0.1:port/haulcast",
        "postgresql://haulcast:s3cret@127.0.0.1:1/haulcast",
        "postgresql://haulcast:s3cret@127.0.0.1:1/haulcast?sslmode=s3cret",
    ],
)
async def test_an_address_that_does_not_work_is_a_matter_of_configuration_and_its_password_nobody_s_business(
    url: str,
) -> None:
    for refused in (pending, migrate, PostgresJournal.open):
        with pytest.raises(ConfigError, match="HAULCAST_DATABASE_URL") as raised:
            await refused(url)
        assert "s3cret" not in str(raised.value)


async def test_what_the_server_refuses_is_a_matter_of_configuration(postgres_url: str) -> None:
    parts = renamed(postgres_url, "postgres", user="nobody", password="s3cret")
    for url, said in ((parts, "authentication failed"), (renamed(postgres_url, "nowhere"), "nowhere.* does not exist")):
        with pytest.raises(ConfigError, match=said) as raised:
            await PostgresJournal.open(url)
        assert "s3cret" not in str(raised.value)
