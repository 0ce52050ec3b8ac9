"""One cluster for all stories, made whole before each."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes

_numbers = count(1)


@pytest.fixture(scope="package")
def shared_nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Three nodes that run as long as the stories do, and in the end stop as they should."""
    nodes = Nodes()
    try:
        nodes.start()
        yield nodes
        nodes.mend()
        nodes.stop()
        if not request.session.testsfailed:
            nodes.remove()
    finally:
        nodes.end()


@pytest.fixture
def allowed_errors() -> list[str]:
    """The error events that a story explains, in the log of any node; it appends to the list."""
    return []


@pytest.fixture
def nodes(shared_nodes: Nodes, allowed_errors: list[str]) -> Iterator[Nodes]:
    """The shared nodes, all ready. Their logs are checked afterwards."""
    shared_nodes.mend()
    for node in shared_nodes.all:
        with suppress(AssertionError):  # of a story that has failed before
            node.check_log()
    yield shared_nodes
    shared_nodes.mend()
    for node in shared_nodes.all:
        node.check_log(*allowed_errors)


@pytest.fixture
async def crowd(nodes: Nodes) -> AsyncIterator[Crowd]:
    """Customers and transporters of a tenant of their own, spread over the nodes and busy."""
    async with Crowd(nodes, f"crowd{next(_numbers)}") as crowd:
        yield crowd
