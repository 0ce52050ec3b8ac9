"""Three nodes as processes, the Postgres and the Redis that they share, and the network between these and one node.

1. The stores are private, and so is the directory: it is removed when everything went well, and left behind for
   whoever wants to read the logs when not. It is not pytest's own, which is closed to Postgres' user.
2. The first node reaches its stores over lines that can be cut and held up; the others are connected directly. The
   lines live in a thread of their own, since the nodes outlive the event loop of a test.
3. A story may leave anything broken. `mend` makes it whole for the next: what does not run, or is not ready, is
   started.
4. Everything here blocks; a test calls what takes time by `asyncio.to_thread`.
"""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.request import urlopen

from haulcast.demo.stores import PrivatePostgres, PrivateRedis
from tests.acceptance.server import START_WITHIN_S, Server
from tests.proxy import Proxy

T = TypeVar("T")

NODES = 3
_POLL_S = 0.02


class Line:
    """A proxy in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxy = Proxy(port)
        self._do(self._proxy.start())

    def through(self, url: str, port: int) -> str:
        """The address of a store, by this way."""
        return url.replace(f":{port}/", f":{self._proxy.port}/")

    def cut(self) -> None:
        """Break every connection, and each new one, until mended."""
        self._do(self._proxy.cut())

    def stall(self) -> None:
        """Pass nothing on until mended."""
        self._loop.call_soon_threadsafe(self._proxy.stall)

    def mend(self) -> None:
        """Pass on again."""
        self._loop.call_soon_threadsafe(self._proxy.mend)

    def close(self) -> None:
        """Break everything, and end the thread."""
        self._do(self._proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class ClusterNode(Server):
    """One node."""

    def __init__(self, number: int, directory: Path, **settings: str) -> None:
        directory.mkdir()
        super().__init__(directory, **settings)
        self.number = number

    @property
    def running(self) -> bool:
        """Whether it was started, and not ended, from here."""
        return self._process is not None

    @property
    def ready(self) -> bool:
        """What it says to a load balancer."""
        return self._is_ready()

    def detailed(self) -> dict[str, Any]:
        """What `/health/detailed` says."""
        with urlopen(f"{self.url}/health/detailed", timeout=10.0) as response:
            details: dict[str, Any] = json.load(response)
            return details

    def incarnation(self) -> int:
        """Under which the others know it."""
        number: int = self.detailed()["incarnation"]
        return number


class Nodes:
    """The nodes and their stores."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="haulcast-nodes-"))
        stores = self.directory / "stores"
        stores.mkdir()
        self.postgres = PrivatePostgres(stores, fsync=False)
        self.redis = PrivateRedis(stores)
        self.all: list[ClusterNode] = []
        self._lines: list[Line] = []

    @property
    def first(self) -> ClusterNode:
        """The one behind the lines."""
        return self.all[0]

    def start(self) -> None:
        """Start everything."""
        self.postgres.start()
        self.redis.start()
        self._lines = [Line(self.postgres.port), Line(self.redis.port)]
        self.to_postgres, self.to_redis = self._lines
        for number in range(NODES):
            database, redis = self.postgres.url, self.redis.url
            if number == 0:
                database = self.to_postgres.through(database, self.postgres.port)
                redis = self.to_redis.through(redis, self.redis.port)
            directory = self.directory / f"node{number}"
            settings = {"HAULCAST_DATABASE_URL": database, "HAULCAST_REDIS_URL": redis}
            self.all.append(ClusterNode(number, directory, **settings))
        self.mend()

    def mend(self) -> None:
        """Have everything run and every node ready, whatever has happened."""
        for store in (self.postgres, self.redis):
            if not store.running:
                store.start()
        self.to_postgres.mend()
        self.to_redis.mend()
        for node in self.all:
            if node.running and not node.ready:
                node.end()
        with ThreadPoolExecutor(NODES) as starting:
            for started in [starting.submit(node.start) for node in self.all if not node.running]:
                started.result()
        until(self.complete, "every node knows all others")

    def complete(self) -> bool:
        """Whether every node is ready and knows all others, and nobody else."""
        if not all(node.running and node.ready for node in self.all):
            return False
        health = [node.detailed() for node in self.all]
        everybody = {one["incarnation"] for one in health}
        return all({*one["cluster"]["peers"], one["incarnation"]} == everybody for one in health)

    def stop(self) -> None:
        """Stop the nodes as an operator would, one after the other, and the stores after them."""
        for node in self.all:
            node.stop()
            node.check_log("node_was_given_up")  # on a machine that has no time for it between two stories
        self.redis.stop()
        self.postgres.stop()
        self._end()

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.directory)

    def end(self) -> None:
        """Whatever has happened: leave no process behind."""
        for node in self.all:
            node.end()
        self.redis.kill()
        self.postgres.kill()
        self._end()

    def _end(self) -> None:
        while self._lines:
            self._lines.pop().close()


def until(condition: Callable[[], object], what: str, within_s: float = START_WITHIN_S) -> None:
    """Wait until `condition` gives something true."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s: {what}"
        time.sleep(_POLL_S)
