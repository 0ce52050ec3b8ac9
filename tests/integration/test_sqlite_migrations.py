"""How a database comes to its schema."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import haulcast
from haulcast.domain.control import TenantControl
from haulcast.errors import ConfigError
from haulcast.ports import ControlRecord, RequestKey, Role
from haulcast.storage.settings_documents import read_settings, write_settings
from haulcast.storage.sqlite import SqliteJournal, migrate, pending, queries
from haulcast.storage.sqlite.database import LockFile
from tests.contract.hauls import ACME

ALL = ["0001", "0002", "0003", "0004", "0005"]

V1_OTHER = (Path(__file__).parents[1] / "data" / "settings" / "v1_other.json").read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "100%" / "haulcast.db"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def test_an_empty_database_gets_everything_once(path: Path) -> None:
    assert pending(path) == ALL
    assert not path.exists()
    assert migrate(path) == ALL
    assert pending(path) == migrate(path) == []
    tables = {name for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"tenants", "broadcasts", "offers", "events", "assignments", "request_log", "control_log"} <= tables


def test_every_table_of_ours_is_strict_and_begins_its_key_with_the_tenant(path: Path) -> None:
    migrate(path)
    tables = query(path, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert [name for name, strict in tables if not strict] == ["alembic_version"]
    for name, _ in tables:
        key = query(path, f"SELECT name FROM pragma_table_info('{name}') WHERE pk = 1")
        assert key == [("tenant_id",)] or name in ("alembic_version", "incarnations", "lost_nodes")


def test_opening_what_needs_no_migration_imports_neither_alembic_nor_sqlalchemy(path: Path) -> None:
    """A server that has nothing to migrate does not pay for what migrates."""
    migrate(path)
    script = (
        "import asyncio, sys; from pathlib import Path; from haulcast.storage.sqlite import SqliteJournal\n"
        "async def main():\n"
        "    journal = await SqliteJournal.open(Path(sys.argv[1])); await journal.close()\n"
        "asyncio.run(main()); sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_no_query_reads_more_than_it_has_to(path: Path) -> None:
    """Each finds its rows by an index, and by more of it than the tenant; these are the exceptions."""
    whole = {"BOARD", "CONTROL_VERSIONS", "ENGAGED_VEHICLES", "NEWEST_BROADCASTS", "PUT_CONTROL", "TENANT"}
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        for name, sql in vars(queries).items():
            if not name.isupper():
                continue
            parameters = dict.fromkeys(re.findall(r":(\w+)", sql), 1) | {"keys": "[]"}
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            scan = r"^SCAN (?!key |shown|json_each )|\(tenant_id=\?\)|AUTOMATIC"
            wide = [step for step in plan if re.search(scan, step)]
            assert not wide or name in whole, f"{name}: {wide}"


def test_a_board_is_found_by_the_indexes_of_live_and_of_lately_ended_broadcasts(path: Path) -> None:
    """Never by all that a tenant ever had: of the live ones there is an index that has no others."""
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        parameters = {"tenant_id": "acme", "ended_after_ms": 1, "after": "", "limit": 1}
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {queries.BOARD}", parameters)]
    assert [step for step in plan if " broadcasts" in step] == [
        "SEARCH broadcasts USING INDEX broadcasts_live_customer (tenant_id=?)",
        "SEARCH broadcasts USING INDEX broadcasts_ended (tenant_id=? AND ended_at_ms>?)",
    ]


async def test_opening_migrates(path: Path) -> None:
    journal = await SqliteJournal.open(path)
    await journal.close()
    assert pending(path) == []


@pytest.mark.parametrize("exclusive", [True, False])
async def test_a_database_of_a_newer_version_is_refused_and_left_alone(path: Path, exclusive: bool) -> None:
    migrate(path)
    query(path, "UPDATE alembic_version SET version_num = '9999'")
    for refused in (pending, migrate):
        with pytest.raises(ConfigError, match="9999, which is newer"):
            refused(path)
    with pytest.raises(ConfigError, match="9999, which is newer"):
        await SqliteJournal.open(path, exclusive=exclusive)
    assert query(path, "SELECT version_num FROM alembic_version") == [("9999",)]


async def test_nobody_migrates_under_a_server(path: Path) -> None:
    path.parent.mkdir()
    lock = LockFile(path)
    try:
        with pytest.raises(ConfigError, match=r"haulcast\.db\.lock"):
            migrate(path)
        with pytest.raises(ConfigError, match=r"haulcast\.db\.lock"):
            await SqliteJournal.open(path, exclusive=False)
    finally:
        lock.release()
    assert pending(path) == ALL


async def test_tenants_of_before_keep_their_settings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[migrate.__module__]
    before = path.parent / "migrations"
    shutil.copytree(module.MIGRATIONS, before)
    (before / "versions" / "0005_control.py").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", before)
        assert migrate(path) == ALL[:-1]
    query(path, f"INSERT INTO tenants (tenant_id, settings) VALUES ('acme', '{V1_OTHER}')")
    assert migrate(path) == ALL[-1:]
    journal = await SqliteJournal.open(path)
    try:
        settings = read_settings(V1_OTHER)
        assert await journal.read_tenant(ACME) == TenantControl(settings, False, 1, ())
        assert query(path, "SELECT settings, mode FROM tenants") == [(V1_OTHER, "progressive")]

        # Nothing is rewritten before a setting is changed.
        key = RequestKey(ACME, Role.OPERATOR, "op1", "r1")
        pause = ControlRecord(key, "f", "pause", {}, 1, 2)
        assert await journal.record_control(pause, TenantControl(settings, True, 2)) == replace(pause, number=1)
        assert query(path, "SELECT settings FROM tenants") == [(V1_OTHER,)]
        blast = replace(settings, dispatch_mode="blast")
        switch = ControlRecord(replace(key, request_id="r2"), "f", "switch_mode", {}, 1, 3)
        await journal.record_control(switch, TenantControl(blast, True, 3))
        assert query(path, "SELECT settings, mode FROM tenants") == [(write_settings(blast), "blast")]
    finally:
        await journal.close()


SIXTH = """
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("CREATE TABLE sixth (id INTEGER PRIMARY KEY)")
    op.execute({last!r})
"""


@pytest.mark.parametrize("last", ["CREATE INDEX sixth_id ON sixth (id)", "this is not SQL"])
def test_a_migration_that_fails_leaves_the_database_as_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    migrate(path)
    copy = tmp_path / "migrations"
    module = sys.modules[migrate.__module__]
    shutil.copytree(module.MIGRATIONS, copy)
    (copy / "versions" / "0006_sixth.py").write_text(SIXTH.format(last=last))
    monkeypatch.setattr(module, "MIGRATIONS", copy)
    assert pending(path) == ["0006"]
    if last.startswith("CREATE"):
        assert migrate(path) == ["0006"]
        assert query(path, "SELECT * FROM sixth") == []
        assert pending(path) == []
    else:
        with pytest.raises(ConfigError, match="syntax error"):
            migrate(path)
        assert query(path, "SELECT name FROM sqlite_schema WHERE name = 'sixth'") == []
        assert pending(path) == ["0006"]


def test_an_installed_copy_finds_its_migrations_from_anywhere(tmp_path: Path) -> None:
    """Nothing of the source tree is needed but the package, and a relative path is the caller's."""
    installed = tmp_path / "site"
    shutil.copytree(
        Path(haulcast.__file__).parent, installed / "haulcast", ignore=shutil.ignore_patterns("__pycache__")
    )
    script = (
        "import haulcast, sys; from pathlib import Path; from haulcast.storage.sqlite import migrate\n"
        "assert Path(haulcast.__file__).is_relative_to(sys.argv[1]), haulcast.__file__\n"
        "assert migrate(Path('var/haulcast.db'))"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(installed)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert (tmp_path / "var" / "haulcast.db").exists()
