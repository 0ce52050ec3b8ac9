"""haulcast's own edge with another accept path behind it: connections, sessions, tokens, validation, rate limit, fleet
cache and metrics are haulcast's, and so are its background tasks; `offer.accept` alone goes elsewhere.

    PORT=... HAULCAST_DATABASE_URL=... HAULCAST_REDIS_URL=... python -m bench.baselines.accept_server PATH
"""

import asyncio
import gc
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from unittest.mock import patch

import asyncpg
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

from haulcast import app, log
from haulcast.config import load
from haulcast.domain.commands import Accept, Command, Create
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.replies import Reply
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Clock, Origin
from haulcast.tasks import TaskSet
from haulcast.transport.http import Edge
from haulcast.transport.services import Services

from .accept_paths import Conditional, Locked, Path, Serializable
from .accept_queries import TABLES

CONNECTIONS = 16
"""To Postgres and to Redis each."""
MAX_ACCEPTS = 10_000


@dataclass(frozen=True, slots=True)
class Stores:
    """What the paths decide in."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    redis: Redis


PATHS: Mapping[str, Callable[[Stores], Path]] = {
    "lock": lambda stores: Locked(stores.redis, Serializable(stores.pool)),
    "serializable": lambda stores: Serializable(stores.pool),
    "conditional": lambda stores: Conditional(stores.pool),
}


class Accepts:
    """A `Dispatcher` that has a path decide accepts and knows nothing else."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._tasks = TaskSet(MAX_ACCEPTS)

    def create(self, command: Create, origin: Origin) -> "asyncio.Future[Reply]":
        """See `Dispatcher`."""
        raise RequestError(ErrorCode.UNKNOWN_TYPE)

    def ask(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin
    ) -> "asyncio.Future[Reply]":
        """See `Dispatcher`."""
        if not isinstance(command, Accept):
            raise RequestError(ErrorCode.UNKNOWN_TYPE)
        return self._tasks.spawn(self._path.accept(broadcast_id, command, self._clock.now_ms()))


async def main(name: str) -> None:
    """Serve on `PORT` until killed."""
    log.configure("error")
    config = load({**os.environ, "HAULCAST_PORT": os.environ["PORT"]})
    assert config.database_url is not None
    assert config.redis_url is not None
    async with AsyncExitStack() as stack:
        owner = await asyncpg.connect(config.database_url)
        await owner.execute(TABLES)
        await owner.close()
        pool = asyncpg.create_pool(
            config.database_url,
            min_size=CONNECTIONS,
            max_size=CONNECTIONS,
            reset=_leave_as_it_is,
            server_settings={"search_path": "accepts", "jit": "off", "enable_seqscan": "off"},
        )
        await stack.enter_async_context(pool)
        connections = BlockingConnectionPool.from_url(config.redis_url, max_connections=CONNECTIONS, timeout=None)
        redis = await stack.enter_async_context(Redis.from_pool(connections))
        path = PATHS[name](Stores(pool, redis))

        def edge(services: Services) -> Edge:
            return Edge(replace(services, dispatcher=Accepts(path, services.clock)))

        with patch.object(app, "Edge", edge):
            node = await app.Node.start(config)
        stack.push_async_callback(node.stop)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)  # as haulcast does
        print("ready", flush=True)
        await asyncio.Event().wait()


async def _leave_as_it_is(_connection: object) -> None:
    """No statement leaves anything behind in its connection, so that the round trip to clear it can be saved."""


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
