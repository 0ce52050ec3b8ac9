"""Which drivers are connected: at this node, and at the others.

1. A driver is online while at least one connection of theirs is greeted at a live node.
2. Who is connected here is known here at once. It is noted in presence under this node's incarnation, and when that is
   done the other nodes are told for which drivers to look again: a message says nothing but that.
3. What has gathered while one round was written goes with the next; nothing waits for a timer. A store that fails is
   tried again after a pause, and what is told then is what is so by then.
4. Every `SYNC_EVERY_S`, and when this node has joined anew, what is noted is compared with who is here. If it had been
   lost, or is of an earlier incarnation, it is noted anew and the others are told.
5. What is noted of a node counts while the others know it as living. So one that dies takes its drivers along.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from itertools import islice
from math import inf

import msgspec
import structlog

from haulcast.domain.ids import DriverId, TenantId
from haulcast.errors import StoreUnavailable
from haulcast.ports import Bus, Clock, Kind, Presence

SYNC_EVERY_S = 5.0
RETRY_S = 1.0
AT_ONCE = 1_000
"""Drivers that are noted in one call, and told of in one message."""

log = structlog.get_logger()


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """What nodes tell each other: these have come or gone."""

    tenant_id: TenantId
    drivers: list[DriverId]


class Attendance:
    """The drivers at this node. `on_change` is called with those that came or went, here or elsewhere; `run` tells the
    other nodes."""

    def __init__(
        self, presence: Presence, clock: Clock, bus: Bus, on_change: Callable[[TenantId, Collection[DriverId]], None]
    ) -> None:
        self._presence = presence
        self._clock = clock
        self._bus = bus
        self._on_change = on_change
        self._here: dict[TenantId, set[DriverId]] = {}  # an empty one: until it is known that nobody is noted either
        self._untold: dict[TenantId, set[DriverId]] = {}  # those who came or went since they were noted; no empty one
        self._woken = asyncio.Event()
        self._sync_at_s = -inf

    def note(self, tenant_id: TenantId, driver_id: DriverId, *, connected: bool) -> None:
        """Whether a driver has a connection here. To say what is known already is nothing."""
        here = self._here.setdefault(tenant_id, set())
        if connected == (driver_id in here):
            return
        if connected:
            here.add(driver_id)
        else:
            here.remove(driver_id)
        self._untold.setdefault(tenant_id, set()).add(driver_id)
        self._woken.set()
        self._on_change(tenant_id, {driver_id})

    def receive(self, sender: int, payload: bytes) -> None:
        """Drivers have come to another node, or gone from it. Raises `msgspec.MsgspecError`."""
        moved = _decode(payload)
        self._on_change(moved.tenant_id, set(moved.drivers))

    def here(self, tenant_id: TenantId, drivers: Collection[DriverId]) -> set[DriverId]:
        """Those of `drivers` who are connected here."""
        return self._here.get(tenant_id, set()).intersection(drivers)

    async def online(self, tenant_id: TenantId, drivers: Collection[DriverId]) -> set[DriverId]:
        """Those of `drivers` who are connected anywhere. Raises `ClusterUnavailable`."""
        here = self.here(tenant_id, drivers)
        elsewhere = [driver_id for driver_id in drivers if driver_id not in here]
        if elsewhere and (peers := self._bus.peers):
            here |= await self._presence.connected_drivers(tenant_id, elsewhere, peers)
        return here

    def sync_soon(self) -> None:
        """What is noted may not be true any more."""
        self._sync_at_s = -inf
        self._woken.set()

    async def run(self) -> None:
        """Note who comes and goes, and tell the other nodes, until cancelled."""
        failing = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SYNC_EVERY_S):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._tell()
            except StoreUnavailable as error:
                if not failing:
                    log.warning("drivers_not_told", error=str(error))
                failing = True
                await asyncio.sleep(RETRY_S)
                self._woken.set()
            except Exception:
                log.exception("drivers_not_told")
                await asyncio.sleep(RETRY_S)
            else:
                failing = False

    async def _tell(self) -> None:
        now_s = self._clock.monotonic_s()
        due = now_s >= self._sync_at_s
        for tenant_id in [*self._here] if due else [*self._untold]:
            while tenant_id in self._untold:
                await self._note(tenant_id)
            if due:
                await self._sync(tenant_id)
        if due:
            self._sync_at_s = now_s + SYNC_EVERY_S

    async def _note(self, tenant_id: TenantId) -> None:
        untold = self._untold.pop(tenant_id)
        drivers = set(islice(untold, AT_ONCE))
        came = self.here(tenant_id, drivers)
        try:
            await self._presence.note_drivers(self._bus.me, tenant_id, came, drivers - came)
        except BaseException:
            self._owe(tenant_id, untold)
            raise
        self._owe(tenant_id, untold - drivers)
        if self._bus.peers:
            self._bus.broadcast(Kind.DRIVERS, _encode(Moved(tenant_id, sorted(drivers))))

    async def _sync(self, tenant_id: TenantId) -> None:
        """To be called when nothing of the tenant is untold: what has been noted is then what is so."""
        here = frozenset(self._here[tenant_id])
        if await self._presence.sync_drivers(self._bus.me, tenant_id, here):
            self._owe(tenant_id, here)
            self._woken.set()
        elif not self._here[tenant_id] and tenant_id not in self._untold:
            del self._here[tenant_id]

    def _owe(self, tenant_id: TenantId, drivers: Collection[DriverId]) -> None:
        if drivers:
            self._untold.setdefault(tenant_id, set()).update(drivers)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Moved).decode
