"""One server for all stories that do nothing to it, and what the others need to run their own."""

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import structlog

from haulcast.app import Node
from haulcast.config import load
from tests.acceptance.network import Network
from tests.acceptance.server import Server

_HERE = Path(__file__).parent
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an acceptance test."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.acceptance)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs as long as the tests do, and in the end stops as it should."""
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
        server.stop()
        server.check_log()
    finally:
        server.end()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """The shared server, whose log must stay free of errors during the test."""
    yield shared_server
    shared_server.check_log()


@pytest.fixture
async def network(server: Server) -> AsyncIterator[Network]:
    """A tenant of its own on the shared server."""
    async with Network(server.url, f"tenant{next(_numbers)}") as network:
        yield network


@pytest.fixture
def allowed_errors() -> list[str]:
    """The error events that a test expects in the log of `own_server`; it appends to the list."""
    return []


@pytest.fixture
def own_server(tmp_path: Path, allowed_errors: list[str]) -> Iterator[Server]:
    """A server for one test, which starts and ends it. The log is checked afterwards."""
    server = Server(tmp_path)
    try:
        yield server
    finally:
        server.end()
    server.check_log(*allowed_errors)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node within the test's own process, on a real port: for what is to be seen inside, or wants few clients."""
    config = load({"HAULCAST_PORT": "0", "HAULCAST_DATA_DIR": str(tmp_path)})
    with structlog.testing.capture_logs() as logs:
        node = await Node.start(config)
        try:
            yield node
        finally:
            await node.stop()
    assert not [line for line in logs if line["log_level"] in ("error", "critical")]


@pytest.fixture
async def node_network(node: Node) -> AsyncIterator[Network]:
    """A tenant on the node within the process."""
    async with Network(f"http://127.0.0.1:{node.port}", "acme") as network:
        yield network
