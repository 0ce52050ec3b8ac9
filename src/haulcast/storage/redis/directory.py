"""The directory's writes, gathered: who owns which broadcast.

Of what waits for a broadcast only the latest is kept, unless what waits is of a higher epoch. When `_MOST_WAITING`
broadcasts wait, others are left out: the directory is a hint, and whoever looks in vain asks the journal.
"""

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.ports import Ownership

from .client import RedisClient
from .keys import OWNER
from .scripts import Call, Script
from .writer import Writer

_MOST_WAITING = 100_000
_AT_ONCE = 500
_PAUSE_S = 0.05

_RECORD = Script("record")
_FORGET = Script("forget")


class Directory:
    """The part of a `Cluster` that notes owners."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._waiting: dict[str, tuple[Ownership, int | None]] = {}  # by key; for how long, None: to be forgotten
        self._writer = Writer("directory", self._write, _PAUSE_S)

    def start(self) -> None:
        """Have the writer's task from now on, so that a node has the same tasks whether or not it had a broadcast."""
        self._writer.wake()

    def note(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership, ttl_ms: int | None) -> None:
        """See `Cluster.record` and, for `ttl_ms` None, `Cluster.forget`."""
        key = OWNER(tenant_id, broadcast_id)
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= _MOST_WAITING:
                return
        elif waiting[0].epoch > owner.epoch:
            return
        self._waiting[key] = (owner, ttl_ms)
        self._writer.wake()

    async def locate(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """See `Cluster`."""
        [noted] = await self._client.execute([("GET", OWNER(tenant_id, broadcast_id))])
        if noted is None:
            return None
        epoch, incarnation = noted.split()
        return Ownership(int(epoch), int(incarnation))

    async def close(self) -> None:
        """Write what waits."""
        await self._writer.close()

    async def _write(self) -> bool:
        """What waits stays until it is written, and what is noted meanwhile is not taken for written."""
        written = bool(self._waiting)
        while self._waiting:
            batch = dict(list(self._waiting.items())[:_AT_ONCE])
            await self._client.run(*(_call(key, owner, ttl_ms) for key, (owner, ttl_ms) in batch.items()))
            for key, noted in batch.items():
                if self._waiting[key] is noted:
                    del self._waiting[key]
        return written


def _call(key: str, owner: Ownership, ttl_ms: int | None) -> Call:
    if ttl_ms is None:
        return _FORGET([key], owner.epoch)
    return _RECORD([key], owner.epoch, owner.incarnation, ttl_ms)
