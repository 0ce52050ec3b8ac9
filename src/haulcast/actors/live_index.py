"""Which live broadcasts a vehicle at some place would match, so that whoever comes online late is offered them.

A broadcast stands once for each vehicle type that it still wants, under the reach of its next wave, which may be due or
looked up already; the actor knows exactly whom it reaches now. There are as many reaches as waves in the settings, so
a search within each is exact and looks at nothing that is out of reach.
"""

from collections import Counter
from collections.abc import Iterator
from heapq import merge
from itertools import islice

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.geo import Point
from haulcast.domain.grid import GridIndex
from haulcast.domain.ids import BroadcastId, TenantId

MAX_MATCHES = 200
"""How many broadcasts one vehicle is matched with at once, nearest first."""


class LiveIndex:
    """The live broadcasts of this node, by tenant, each with the radius in metres of its next wave (None: all)."""

    def __init__(self) -> None:
        self._tenants: dict[TenantId, _Tenant] = {}

    def count(self, tenant_id: TenantId | None) -> int:
        """How many there are, of one tenant or (None) of all."""
        if tenant_id is None:
            return sum(len(tenant.live) for tenant in self._tenants.values())
        tenant = self._tenants.get(tenant_id)
        return 0 if tenant is None else len(tenant.live)

    def note(self, before: Broadcast | None, after: Broadcast, reach_m: float | None) -> None:
        """A broadcast has come, changed or ended; its next wave reaches `reach_m`."""
        had, has = _wanted(before), _wanted(after)
        if had == has and before is not None and before.wave == after.wave:
            return
        tenant = self._tenants.setdefault(after.tenant_id, _Tenant())
        for vehicle_type in had:
            tenant.remove(after.broadcast_id, vehicle_type)
        for vehicle_type in has:
            tenant.put(after, vehicle_type, reach_m)
        (tenant.live.add if has else tenant.live.discard)(after.broadcast_id)
        if not len(tenant.grid):
            del self._tenants[after.tenant_id]

    def forget(self, state: Broadcast) -> None:
        """A broadcast is no longer this node's."""
        tenant = self._tenants.get(state.tenant_id)
        if tenant is not None:
            for vehicle_type in _wanted(state):
                tenant.remove(state.broadcast_id, vehicle_type)
            tenant.live.discard(state.broadcast_id)
            if not len(tenant.grid):
                del self._tenants[state.tenant_id]

    def within_reach(self, tenant_id: TenantId, position: Point, vehicle_type: str) -> list[tuple[float, BroadcastId]]:
        """The nearest broadcasts whose next wave reaches `position`: distance in metres and id, nearest first."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return []
        found = merge(*(tenant.within(position, vehicle_type, reach_m) for reach_m in tenant.reaches))
        return list(islice(found, MAX_MATCHES))


class _Tenant:
    __slots__ = ("grid", "live", "reaches")

    def __init__(self) -> None:
        self.live: set[BroadcastId] = set()  # those that have entries in the grid
        self.grid: GridIndex[tuple[BroadcastId, str], float | None] = GridIndex()
        self.reaches: Counter[float | None] = Counter()  # how many entries of the grid have each reach

    def put(self, state: Broadcast, vehicle_type: str, reach_m: float | None) -> None:
        self.remove(state.broadcast_id, vehicle_type)
        self.grid.put((state.broadcast_id, vehicle_type), state.pickup.point, _kind(vehicle_type, reach_m), reach_m)
        self.reaches[reach_m] += 1

    def remove(self, broadcast_id: BroadcastId, vehicle_type: str) -> None:
        entry = self.grid.get((broadcast_id, vehicle_type))
        if entry is not None:
            self.grid.remove((broadcast_id, vehicle_type))
            self.reaches[entry.value] -= 1
            if not self.reaches[entry.value]:
                del self.reaches[entry.value]

    def within(self, position: Point, vehicle_type: str, reach_m: float | None) -> Iterator[tuple[float, BroadcastId]]:
        kinds = (_kind(vehicle_type, reach_m),)
        for distance_m, (broadcast_id, _), _reach in self.grid.nearest(
            position, kinds=kinds, radius_m=reach_m, accept=lambda _key, _value: True
        ):
            yield distance_m, broadcast_id


def _kind(vehicle_type: str, reach_m: float | None) -> str:
    return f"{vehicle_type} {reach_m}"


def _wanted(state: Broadcast | None) -> set[str]:
    if state is None or not state.live:
        return set()
    return {request.vehicle_type for request in state.open_requests}
