from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from haulcast.ports import Journal
from haulcast.storage.memory import MemoryJournal
from haulcast.storage.postgres import PostgresJournal
from haulcast.storage.sqlite import SqliteJournal
from tests.contract.hauls import ACME, FLEET, OTHER
from tests.databases import empty, migrated_database


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str) -> Iterator[str]:
    """A database that all tests of this directory share; each empties it before."""
    with migrated_database(postgres_url) as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    """An empty journal but for the same fleet in two tenants."""
    journal: Journal
    match request.param:
        case "memory":
            journal = MemoryJournal()
        case "sqlite":
            journal = await SqliteJournal.open(tmp_path / "haulcast.db")
        case _:
            url = request.getfixturevalue("migrated_url")
            await empty(url)
            journal = await PostgresJournal.open(url)
    try:
        for tenant in (ACME, OTHER):
            await journal.put_fleet(tenant, FLEET)
        yield journal
    finally:
        await journal.close()
