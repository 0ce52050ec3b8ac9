from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haulcast.ports import Journal
from haulcast.storage.memory import MemoryJournal
from haulcast.storage.sqlite import SqliteJournal
from tests.contract.hauls import ACME, FLEET, OTHER


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    """An empty journal but for the same fleet in two tenants."""
    journal: Journal = (
        MemoryJournal() if request.param == "memory" else await SqliteJournal.open(tmp_path / "haulcast.db")
    )
    try:
        for tenant in (ACME, OTHER):
            await journal.put_fleet(tenant, FLEET)
        yield journal
    finally:
        await journal.close()
