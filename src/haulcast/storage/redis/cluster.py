"""The `Cluster` of nodes that share a Redis.

1. Leases are scores in one sorted set, by the clock of Redis: the moment at which each runs out. A member whose lease
   has run out stays in it until it is condemned. Redis' own expiry and its events play no part.
2. Every decision about a lease is one script (`lua/`), so that a node that is being condemned cannot renew halfway.
3. A tombstone lasts a day. An incarnation is never given twice, and a node that was away for that long has to ask the
   journal, which keeps the lost for good.
4. Redis may lose all of it. A lease that is gone is one that has run out; the node asks the journal, and registers.
5. Leases and lookups, the directory's writes and the datagrams share `_CONNECTIONS` connections, so that one of them
   that waits for its answer does not hold up a renewal.
"""

from collections.abc import Callable

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.ports import Member, Ownership, Standing

from .client import Count, RedisClient, uncounted
from .datagrams import Listener, Sender
from .directory import Directory
from .keys import CONDEMNED, DAY_MS, DRAINING, LEASES
from .scripts import Script

_CONNECTIONS = 6

_REGISTER = Script("register")
_RENEW = Script("renew")
_DRAIN = Script("drain")
_LEAVE = Script("leave")
_MEMBERS = Script("members")
_CONDEMN = Script("condemn")


class RedisCluster:
    """One node's `Cluster`. `commands` counts what is sent to Redis, `dropped` datagrams that were not; `now_ms`
    replaces the clock of Redis, for tests."""

    def __init__(
        self,
        url: str,
        *,
        commands: Count = uncounted,
        dropped: Count = uncounted,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = RedisClient(url, connections=_CONNECTIONS, commands=commands)
        self._directory = Directory(self._client)
        self._sender = Sender(self._client, dropped)
        self._listener = Listener(self._client)
        self._now_ms = now_ms

    async def register(self, incarnation: int, ttl_ms: int) -> bool:
        """See `Cluster`. A member that registers again keeps draining."""
        keys = [LEASES(), CONDEMNED()]
        [registered] = await self._client.run(_REGISTER(keys, self._now(), incarnation, ttl_ms, DAY_MS))
        return bool(registered)

    async def renew(self, incarnation: int, ttl_ms: int) -> Standing:
        """See `Cluster`."""
        keys = [LEASES(), DRAINING(), CONDEMNED()]
        [standing] = await self._client.run(_RENEW(keys, self._now(), incarnation, ttl_ms, DAY_MS))
        return Standing(standing.decode())

    async def drain(self, incarnation: int, *, not_last: bool = False) -> bool:
        """See `Cluster`."""
        call = _DRAIN([LEASES(), DRAINING()], self._now(), incarnation, DAY_MS, int(not_last))
        return bool((await self._client.run(call))[0])

    async def leave(self, incarnation: int) -> None:
        """See `Cluster`."""
        await self._client.run(_LEAVE([LEASES(), DRAINING()], incarnation))

    async def members(self) -> list[Member]:
        """See `Cluster`."""
        [rows] = await self._client.run(_MEMBERS([LEASES(), DRAINING()], self._now()))
        members = [Member(int(incarnation), bool(alive), bool(draining)) for incarnation, alive, draining in rows]
        return sorted(members, key=lambda member: member.incarnation)

    async def condemn(self, incarnation: int) -> bool:
        """See `Cluster`."""
        keys = [LEASES(), DRAINING(), CONDEMNED()]
        [condemned] = await self._client.run(_CONDEMN(keys, self._now(), incarnation, DAY_MS))
        return bool(condemned)

    def record(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership, ttl_ms: int) -> None:
        """See `Cluster`. The same owner again prolongs the time."""
        self._directory.note(tenant_id, broadcast_id, owner, ttl_ms)

    def forget(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership) -> None:
        """See `Cluster`."""
        self._directory.note(tenant_id, broadcast_id, owner, None)

    async def locate(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """See `Cluster`."""
        return await self._directory.locate(tenant_id, broadcast_id)

    def post(self, to: int, datagram: bytes) -> None:
        """See `Cluster`."""
        self._sender.post(to, datagram)

    async def listen(self, incarnation: int, receive: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """See `Cluster`. When it raises, subscribing is tried further, and `missed` tells that it has come about."""
        self._directory.start()
        await self._listener.listen(incarnation, receive, missed)

    async def close(self) -> None:
        """See `Cluster`."""
        await self._listener.close()
        await self._directory.close()
        await self._sender.close()
        await self._client.close()

    def _now(self) -> int | str:
        return "" if self._now_ms is None else self._now_ms()
