"""One server for all stories that do nothing to it, and what the others need to run their own: each once embedded, and
once as a cluster."""

from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
import structlog

from haulcast.app import Node
from haulcast.config import load
from tests.acceptance.deployment import Deployment, deployed, deployments, private_stores
from tests.acceptance.network import Network
from tests.acceptance.server import Server

_HERE = Path(__file__).parent
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an acceptance test."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.acceptance)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each story is played on everything that serves it."""
    if "deployment" in metafunc.fixturenames:
        metafunc.parametrize("deployment", deployments(metafunc.function.__name__), indirect=True, scope="session")


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """What this test runs on."""
    return Deployment(request.param)


@pytest.fixture(scope="session")
def shared_server(
    request: pytest.FixtureRequest, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that runs as long as the tests do, and in the end stops as it should."""
    with private_stores(deployment, request.getfixturevalue) as stores:
        server = deployed(tmp_path_factory.mktemp("server"), stores)
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
def own_stores(request: pytest.FixtureRequest, deployment: Deployment) -> Iterator[Mapping[str, str]]:
    """The settings of stores for one test; none if its server has its own."""
    with private_stores(deployment, request.getfixturevalue) as stores:
        yield stores


@pytest.fixture
def own_server(tmp_path: Path, own_stores: Mapping[str, str], allowed_errors: list[str]) -> Iterator[Server]:
    """A server for one test, which starts and ends it. The log is checked afterwards."""
    server = deployed(tmp_path, own_stores)
    try:
        yield server
    finally:
        server.end()
    server.check_log(*allowed_errors)


@pytest.fixture
async def node(tmp_path: Path, own_stores: Mapping[str, str]) -> AsyncIterator[Node]:
    """A node within the test's own process, on a real port: for what is to be seen inside, or wants few clients. On a
    cluster it is the only one."""
    config = load({"HAULCAST_PORT": "0", "HAULCAST_DATA_DIR": str(tmp_path), **own_stores})
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
