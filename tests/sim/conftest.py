"""Virtual time for everything in this directory, and a world whose promises are checked when a test ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.sim.virtual_time import VirtualLoop
from tests.sim.world import World

Logs = list[MutableMapping[str, Any]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time that passes only when everybody waits."""
    return {"virtual": VirtualLoop}


@pytest.fixture
def logs() -> Iterator[Logs]:
    """What was logged so far."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def world(logs: Logs) -> AsyncIterator[World]:
    """A world with one node. Fails the test if something was logged as wrong that the test did not expect."""
    async with World.open() as world:
        yield world
    wrong = [entry for entry in logs if entry["log_level"] in ("warning", "error")]
    assert [entry for entry in wrong if entry["event"] not in world.expected_logs] == []
