"""Virtual time for the actors' parts."""

import asyncio
from collections.abc import Callable, Mapping

import async_solipsism
import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Time that passes only when everybody waits; a wait that nothing can end raises instead of hanging."""
    return {"virtual": async_solipsism.EventLoop}
