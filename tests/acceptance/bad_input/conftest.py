"""The nodes that are given bad input, the same for all tests of this folder: they have to bear it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from haulcast.ports import Role
from haulcast.transport.session import Limits
from tests.acceptance.bad_input.bench import (
    Bench,
    Line,
    bench,
    captured_logs,
)

GENEROUS = Limits(requests_per_s=1e6, burst_requests=1_000_000)
HASTY = Limits(
    hello_within_s=0.3,
    ping_after_s=0.2,
    silence_s=0.6,
    max_queued_bytes=128 * 1024,
    requests_per_s=1e6,
    burst_requests=1_000_000,
    max_in_flight=1_000_000,
)


@pytest.fixture(scope="package")
def logs() -> Iterator[list[Any]]:
    """What all nodes log; one is at work at a time."""
    with captured_logs() as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def edge(tmp_path_factory: pytest.TempPathFactory, logs: list[Any]) -> AsyncIterator[Bench]:
    """A node that never finds that there is too much."""
    async with bench(tmp_path_factory.mktemp("edge"), GENEROUS, logs) as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def hasty(tmp_path_factory: pytest.TempPathFactory, logs: list[Any]) -> AsyncIterator[Bench]:
    """A node that waits for nobody."""
    async with bench(tmp_path_factory.mktemp("hasty"), HASTY, logs) as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def strict(tmp_path_factory: pytest.TempPathFactory, logs: list[Any]) -> AsyncIterator[Bench]:
    """A node with the limits that servers have."""
    async with bench(tmp_path_factory.mktemp("strict"), Limits(), logs) as made:
        yield made


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def lines(edge: Bench) -> Mapping[Role, Line]:
    """A greeted connection for each role, the same for all tests: they have to go on, whatever comes."""
    return {role: await edge.greeted(role, f"some-{role}") for role in Role}
