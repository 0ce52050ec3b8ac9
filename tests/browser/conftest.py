"""One Chromium for all tests, and what they show in it: real servers, once embedded and once as a cluster.

All tests here, and their fixtures, share the session's event loop: a browser belongs to the loop that it was started
in, and starting one takes longer than most of the tests.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page

from tests.acceptance.deployment import Cluster, Deployment, deployed, private_stores
from tests.acceptance.network import Network
from tests.acceptance.server import Server
from tests.browser.chromium import MISSING, chromium, find_chromium
from tests.browser.watch import Watch

_HERE = Path(__file__).parent
_numbers = count(1)

OpenPage: TypeAlias = Callable[..., Awaitable[Page]]
"""A new page in a context of its own, with these options of `Browser.new_context`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder runs in the session's loop."""
    for item in items:
        if item.path.is_relative_to(_HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


# --- The browser ---


@pytest.fixture(scope="session")
def executable() -> str:
    """The Chromium of this machine. A test that needs one is skipped where there is none."""
    found = find_chromium()
    if found is None:
        pytest.skip(MISSING)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(executable: str) -> AsyncIterator[Browser]:
    """It runs as long as the tests do."""
    async with chromium(executable) as browser:
        yield browser


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What goes wrong in the pages of this test fails it in the end."""
    watch = Watch()
    yield watch
    watch.check()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, watch: Watch) -> AsyncIterator[OpenPage]:
    """Opens pages that are watched, each in a context of its own, and closes them."""
    contexts: list[BrowserContext] = []

    async def open_page(**options: Any) -> Page:
        context = await browser.new_context(
            **{"locale": "en-GB", "timezone_id": "UTC", "viewport": {"width": 1280, "height": 800}, **options}
        )
        contexts.append(context)
        watch.over(context)
        return await context.new_page()

    yield open_page
    for context in contexts:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_page: OpenPage) -> Page:
    """A page on a desk by day."""
    return await open_page()


# --- Servers ---


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An embedded server that runs as long as the tests do, and in the end stops as it should."""
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


@pytest_asyncio.fixture(loop_scope="session")
async def network(server: Server) -> AsyncIterator[Network]:
    """A tenant of its own on the shared server."""
    async with Network(server.url, f"tenant{next(_numbers)}") as network:
        yield network


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes over a Postgres and a Redis, for one test, which may kill nodes and start them again."""
    with private_stores(Deployment.CLUSTER, request.getfixturevalue) as stores:
        cluster = deployed(tmp_path, stores)
        assert isinstance(cluster, Cluster)
        try:
            await asyncio.to_thread(cluster.start)
            yield cluster
        finally:
            await asyncio.to_thread(cluster.end)
        cluster.check_log()
