"""What the stories are played on: the embedded default, and a cluster of three nodes over Postgres and Redis.

A story runs on both unless `EMBEDDED_ONLY` or `CLUSTER_ONLY` says why not. On the cluster its phones and its REST calls
are spread over the nodes (see `Network`), so most of what happens in it crosses from one node to another.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis

from tests.acceptance.books import PostgresTables, Tables
from tests.acceptance.server import Server
from tests.databases import blocking, migrated_database

NODES = 3
_free_databases = [*range(1, 16)]  # of Redis, but for the one that other tests use


class Deployment(StrEnum):
    """What serves a story."""

    EMBEDDED = "embedded"
    CLUSTER = "cluster"


_SYNTAX = "what comes before a message is understood knows no store"

EMBEDDED_ONLY: Mapping[str, str] = {
    "test_a_data_directory_has_one_server": "nodes of a cluster have no data directory",
    "test_metrics_tell_what_has_happened": "the values are those of one node that does everything itself",
    "test_the_example_in_the_readme_wins_a_haul": "the example is a client, which cannot tell",
    "test_arguments_that_must_change_are_told_how": "what is wrong with them no store decides",
    "test_what_the_server_refuses_is_told_in_its_words": "one node refuses it",
    "test_any_frames": _SYNTAX,
    "test_any_bytes_on_a_websocket": _SYNTAX,
    "test_any_json": _SYNTAX,
    "test_anything_instead_of_a_hello": _SYNTAX,
    "test_any_bytes_on_the_port": _SYNTAX,
}
"""The stories that are not played on a cluster, each with the reason. What runs without the fixtures of the folder's
conftest is not listed: the demo, the supervisor and the document of the protocol bring their own servers."""

CLUSTER_ONLY: Mapping[str, str] = {
    "test_what_redis_has_of_a_tenant_is_under_the_tenants_name": "an embedded node has no Redis",
}
"""The stories that are played on a cluster alone, likewise."""


def deployments(story: str) -> list[Deployment]:
    """On what a test of this name is played."""
    if story in CLUSTER_ONLY:
        return [Deployment.CLUSTER]
    return [Deployment.EMBEDDED] if story in EMBEDDED_ONLY else [*Deployment]


class Cluster(Server):
    """Three nodes on the same stores, which are started, killed and stopped together."""

    def __init__(self, directory: Path, database_url: str, redis_url: str) -> None:
        super().__init__(directory)
        self._tables = PostgresTables(database_url)
        self.redis_url = redis_url
        self.nodes: list[Server] = []
        for number in range(NODES):
            node_directory = directory / f"node{number}"
            node_directory.mkdir()
            settings = {"HAULCAST_DATABASE_URL": database_url, "HAULCAST_REDIS_URL": redis_url}
            self.nodes.append(Server(node_directory, **settings))

    @property
    def url(self) -> str:
        """The addresses of the nodes, separated by commas."""
        return ",".join(node.url for node in self.nodes)

    @property
    def journal(self) -> Tables:
        """See `Server`."""
        return self._tables

    def launch(self) -> None:
        """See `Server`."""
        for node in self.nodes:
            node.launch()

    def await_ready(self) -> None:
        """See `Server`. `port` is that of the first node."""
        for node in self.nodes:
            node.await_ready()
        self.port = self.nodes[0].port

    def kill(self) -> None:
        """See `Server`."""
        for node in self.nodes:
            node.kill()

    def terminate(self) -> None:
        """See `Server`."""
        for node in self.nodes:
            node.terminate()

    def ended(self) -> None:
        """See `Server`."""
        for node in self.nodes:
            node.ended()

    def end(self) -> None:
        """See `Server`."""
        for node in self.nodes:
            node.end()
        self._tables.close()

    def log_text(self) -> str:
        """See `Server`: node by node."""
        return "".join(node.log_text() for node in self.nodes)

    def check_log(self, *allowed: str) -> None:
        """See `Server`."""
        for node in self.nodes:
            node.check_log(*allowed)


@contextmanager
def private_stores(deployment: Deployment, url_of: Callable[[str], str]) -> Iterator[dict[str, str]]:
    """Settings of a server with a Postgres database and a Redis database that nobody else uses; none if it is embedded.

    `url_of` gives the value of the fixtures `postgres_url` and `redis_url`, which start a store when first asked for.
    """
    if deployment is Deployment.EMBEDDED:
        yield {}
        return
    number = _free_databases.pop()
    redis_url = urlsplit(url_of("redis_url"))._replace(path=f"/{number}").geturl()
    with migrated_database(url_of("postgres_url")) as database_url:
        blocking(_flush(redis_url))
        yield {"HAULCAST_DATABASE_URL": database_url, "HAULCAST_REDIS_URL": redis_url}
    _free_databases.append(number)


async def _flush(url: str) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushdb()


def deployed(directory: Path, stores: Mapping[str, str]) -> Server:
    """A server, or a cluster if there are stores to share. It is yet to be started, and has to be ended."""
    if not stores:
        return Server(directory)
    return Cluster(directory, stores["HAULCAST_DATABASE_URL"], stores["HAULCAST_REDIS_URL"])
