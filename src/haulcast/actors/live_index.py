"""Which live broadcasts a vehicle at some place would match, so that whoever comes online late is offered them.

A broadcast stands once for each vehicle type that it still wants, with the reach of its next wave, which may be due or
looked up already; the actor knows exactly whom it reaches now.
"""

from collections.abc import Iterator
from itertools import islice

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.geo import Point
from haulcast.domain.grid import GridIndex
from haulcast.domain.ids import BroadcastId, TenantId

MAX_MATCHES = 200


class LiveIndex:
    """The live broadcasts of this node, by tenant, each with the radius in metres of its next wave (None: all)."""

    def __init__(self) -> None:
        self._grids: dict[TenantId, GridIndex[tuple[BroadcastId, str], float | None]] = {}

    def __len__(self) -> int:
        return sum(len(grid) for grid in self._grids.values())

    def note(self, before: Broadcast | None, after: Broadcast, reach_m: float | None) -> None:
        """A broadcast has come, changed or ended; its next wave reaches `reach_m`."""
        had, has = _wanted(before), _wanted(after)
        if had == has and before is not None and before.wave == after.wave:
            return
        grid = self._grids.setdefault(after.tenant_id, GridIndex())
        for vehicle_type in had - has:
            grid.remove((after.broadcast_id, vehicle_type))
        for vehicle_type in has:
            grid.put((after.broadcast_id, vehicle_type), after.pickup.point, vehicle_type, reach_m)
        if not len(grid):
            del self._grids[after.tenant_id]

    def forget(self, state: Broadcast) -> None:
        """A broadcast is no longer this node's."""
        grid = self._grids.get(state.tenant_id)
        if grid is not None:
            for vehicle_type in _wanted(state):
                grid.remove((state.broadcast_id, vehicle_type))
            if not len(grid):
                del self._grids[state.tenant_id]

    def within_reach(
        self, tenant_id: TenantId, position: Point, vehicle_type: str
    ) -> Iterator[tuple[float, BroadcastId]]:
        """The nearest broadcasts whose next wave reaches `position`: distance in metres and id, nearest first."""
        grid = self._grids.get(tenant_id)
        if grid is None:
            return
        found = grid.nearest(position, kinds=(vehicle_type,), radius_m=None, accept=lambda _key, _reach: True)
        for distance_m, (broadcast_id, _), reach_m in islice(found, MAX_MATCHES):
            if reach_m is None or distance_m <= reach_m:
                yield distance_m, broadcast_id


def _wanted(state: Broadcast | None) -> set[str]:
    if state is None or not state.live:
        return set()
    return {request.vehicle_type for request in state.open_requests}
