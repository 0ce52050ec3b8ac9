"""The stores of a node: embedded ones for a process on its own, or those that the nodes of a cluster share."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from .config import Config
from .metrics import Metrics
from .ports import Clock, Cluster, Journal, Presence
from .storage.memory import MemoryCluster, MemoryPresence, MemoryStore
from .storage.sqlite import SqliteJournal


@dataclass(frozen=True, slots=True)
class Stores:
    """What a node keeps things in."""

    journal: Journal
    cluster: Cluster
    presence: Presence
    shared: bool
    """Whether other nodes use them too."""

    @property
    def kinds(self) -> tuple[str, str]:
        """What the journal and the cluster are, for people."""
        return ("postgres", "redis") if self.shared else ("sqlite", "memory")


async def open_stores(opened: AsyncExitStack, config: Config, clock: Clock, metrics: Metrics) -> Stores:
    """Open what `config` names; `opened` closes it. Raises `ConfigError`."""
    if config.database_url is None or config.redis_url is None:
        stores = Stores(
            await SqliteJournal.open(config.journal_path),
            MemoryCluster(MemoryStore(), clock),
            MemoryPresence(clock),
            shared=False,
        )
    else:
        # Only here: a node on its own need not wait for two drivers to be imported.
        from .storage.postgres import PostgresJournal
        from .storage.redis import RedisCluster, RedisPresence

        count = metrics.redis_commands.inc
        stores = Stores(
            await PostgresJournal.open(config.database_url),
            RedisCluster(config.redis_url, commands=count, dropped=metrics.datagrams_dropped.inc),
            RedisPresence(config.redis_url, clock, commands=count),
            shared=True,
        )
    closing: tuple[Callable[[], Awaitable[None]], ...]
    closing = (stores.journal.close, stores.cluster.close, stores.presence.close)
    for close in closing:
        opened.push_async_callback(close)
    return stores
