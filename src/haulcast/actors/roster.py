"""Transporters coming, going and moving, and what that means for live broadcasts.

1. Going online twice is being online; only a change counts against the toggle limit of the tenant.
2. Whatever makes a vehicle findable (its transporter comes online, its first position, the end of its trip) has the
   live broadcasts within whose reach it stands told, nearest first, on every node: each looks among its own. Each
   actor knows whom it has offered already.
3. Everything here is a hint. The journal decides who may take what.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from haulcast.domain.broadcast import Trip
from haulcast.domain.commands import Appear
from haulcast.domain.control import TenantControl
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TenantId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate
from haulcast.errors import ErrorCode, RequestError, StoreUnavailable
from haulcast.ports import Kind, Presence
from haulcast.tasks import TaskSet

from . import envelopes
from .bus import NodeBus
from .live_index import LiveIndex

_FULL_MAILBOX_PAUSE_S = 0.1

log = structlog.get_logger()

Appearance = Callable[[TenantId, BroadcastId, Appear], bool]
"""Tells a live broadcast's actor; False when it cannot take the message now."""


class Roster:
    """The `Availability` of this node."""

    def __init__(
        self,
        presence: Presence,
        live_index: LiveIndex,
        control_of: Callable[[TenantId], Awaitable[TenantControl]],
        appear: Appearance,
        bus: NodeBus,
        tasks: TaskSet,
    ) -> None:
        self._presence = presence
        self._live_index = live_index
        self._control_of = control_of
        self._appear = appear
        self._bus = bus
        self._tasks = tasks
        bus.handle(Kind.APPEARED, self._on_appeared)

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Availability`."""
        if await self._presence.is_online(tenant_id, transporter_id):
            self._presence.heard_from(tenant_id, transporter_id)
            return False
        await self._count_toggle(tenant_id, transporter_id)
        changed = await self._presence.go_online(tenant_id, transporter_id)
        if changed:
            self._tasks.start(self._offer(tenant_id, transporter_id), "offer_late")
        return changed

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Availability`."""
        if not await self._presence.is_online(tenant_id, transporter_id):
            return False
        await self._count_toggle(tenant_id, transporter_id)
        return await self._presence.go_offline(tenant_id, transporter_id)

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> None:
        """See `Availability`."""
        if self._presence.report(tenant_id, vehicle, position):
            self._tasks.start(self._offer(tenant_id, vehicle.transporter_id, vehicle.vehicle_id), "offer_late")

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """See `Availability`."""
        self._presence.heard_from(tenant_id, transporter_id)

    def trip_changed(self, tenant_id: TenantId, trip: Trip) -> None:
        """A trip has durably begun, moved on or ended: its vehicle is engaged, or free again."""
        if trip.active:
            self._presence.engage(tenant_id, trip.vehicle_id)
        else:
            self._presence.release(tenant_id, trip.vehicle_id)
            self._tasks.start(self._offer(tenant_id, trip.transporter_id, trip.vehicle_id), "offer_late")

    async def _count_toggle(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """Note one toggle. Raises `RequestError(TOO_MANY_TOGGLES)` when the limit is reached."""
        settings = (await self._control_of(tenant_id)).settings
        retry_after_ms = await self._presence.count_toggle(
            tenant_id, transporter_id, settings.toggle_limit, settings.toggle_window_s
        )
        if retry_after_ms is not None:
            raise RequestError(ErrorCode.TOO_MANY_TOGGLES, retry_after_ms=retry_after_ms)

    async def _offer(
        self, tenant_id: TenantId, transporter_id: TransporterId, vehicle_id: VehicleId | None = None
    ) -> None:
        """Tell every live broadcast within whose reach the vehicle stands (None: any of the transporter's)."""
        try:
            available = await self._presence.available(tenant_id, transporter_id)
        except StoreUnavailable as error:
            log.warning("not_offered_late", tenant=tenant_id, transporter=transporter_id, error=str(error))
            return
        found = [(vehicle, position) for vehicle, position in available if vehicle_id in (None, vehicle.vehicle_id)]
        if not found:
            return
        if self._bus.peers:
            self._bus.broadcast(Kind.APPEARED, envelopes.encode(envelopes.Appeared(tenant_id, transporter_id, found)))
        await self._match(tenant_id, transporter_id, found)

    def _on_appeared(self, sender: int, payload: bytes) -> None:
        appeared = envelopes.decode_appeared(payload)
        self._tasks.start(self._match(appeared.tenant_id, appeared.transporter_id, appeared.vehicles), "offer_late")

    async def _match(
        self, tenant_id: TenantId, transporter_id: TransporterId, found: Sequence[tuple[Vehicle, Point]]
    ) -> None:
        """Tell the live broadcasts of this node."""
        nearest: dict[BroadcastId, Candidate] = {}
        for vehicle, position in found:
            await asyncio.sleep(0)  # a search takes up to a millisecond, and a fleet has many vehicles
            for distance_m, broadcast_id in self._live_index.within_reach(tenant_id, position, vehicle.vehicle_type):
                candidate = Candidate(round(distance_m), transporter_id, vehicle.vehicle_id, vehicle.vehicle_type)
                nearest[broadcast_id] = min(candidate, nearest.get(broadcast_id, candidate))
        for broadcast_id in sorted(nearest, key=lambda broadcast_id: nearest[broadcast_id]):
            while not self._appear(tenant_id, broadcast_id, Appear(nearest[broadcast_id])):
                await asyncio.sleep(_FULL_MAILBOX_PAUSE_S)
