"""Who is online and where their vehicles are."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate, LeftOut

LAPSED_KEPT_S = 600.0
"""How long after it stopped to count a position is still remembered, for whoever asks why its vehicle was not found."""

MAX_POSITIONS = 1_000
"""Vehicles of one question."""


@dataclass(frozen=True, slots=True)
class Nearby:
    """The answer to a lookup: nearest first. `more`: more would have matched. `left_out`: who is not among these,
    and why."""

    candidates: tuple[Candidate, ...]
    more: bool
    left_out: tuple[LeftOut, ...] = ()


class Presence(Protocol):
    """Who is online and where their vehicles are. Hints with a time to live, never the truth: a crash may lose all.
    Nodes of one deployment share them; what one node is told the others see soon after. Every method that is awaited
    may raise `ClusterUnavailable`; the others never block and never raise, and lose what they are told if need be.

    A vehicle can be found while its own position is younger than 60 s, its transporter was heard of in the last
    120 s and is online, and it is not engaged in a trip.
    """

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Whether that changed anything."""
        ...

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Whether that changed anything."""
        ...

    async def is_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Whether the transporter is online and was heard of in the last 120 s."""
        ...

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """The transporter is still there. Does not bring anybody online."""
        ...

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> bool:
        """Where a vehicle is. Whether this node knew no position of it, or only one too old, or it was another's or of
        another type, until now."""
        ...

    def engage(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """The vehicle is on a trip."""
        ...

    def release(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """The vehicle's trip has ended."""
        ...

    async def sync_engaged(self, engaged: Collection[tuple[TenantId, VehicleId]]) -> None:
        """These vehicles of all tenants are on a trip, and no others but those engaged within the last seconds."""
        ...

    async def count_toggle(
        self, tenant_id: TenantId, transporter_id: TransporterId, limit: int, window_s: int
    ) -> int | None:
        """Note that a transporter comes or goes, unless it did so `limit` times within the last `window_s`: then how
        many milliseconds to wait."""
        ...

    async def available(self, tenant_id: TenantId, transporter_id: TransporterId) -> list[tuple[Vehicle, Point]]:
        """A transporter's vehicles that can be found now, with their positions."""
        ...

    async def nearest(
        self,
        tenant_id: TenantId,
        center: Point,
        *,
        vehicle_types: Collection[str],
        radius_m: float | None,
        exclude: Collection[TransporterId],
        limit: int,
        left_out_limit: int,
    ) -> Nearby:
        """The `limit` nearest transporters with a vehicle that can be found, each once with its nearest vehicle.

        And the `left_out_limit` nearest of all the others but the excluded who have a vehicle of these types with a
        position that is remembered, however far away and whether or not it can be found; each once with its nearest
        vehicle, and the first reason that holds. Beyond the candidates and the radius no more than the nearest 100
        vehicles need be looked at for these, the vehicles of the excluded included.
        """
        ...

    async def note_drivers(
        self, node: int, tenant_id: TenantId, came: Collection[DriverId], went: Collection[DriverId]
    ) -> None:
        """Note who is connected to a node by now, and who is no more. When it returns, all nodes see it."""
        ...

    async def sync_drivers(self, node: int, tenant_id: TenantId, drivers: Collection[DriverId]) -> bool:
        """Have exactly these drivers of a tenant noted as connected to a node. What is noted lives on by this, so it
        has to be called every few minutes. Whether something else was noted: who asked meanwhile was told wrong."""
        ...

    async def connected_drivers(
        self, tenant_id: TenantId, drivers: Collection[DriverId], nodes: Collection[int]
    ) -> set[DriverId]:
        """Those of `drivers` that are connected to any of `nodes`. The caller knows which nodes live: what is noted of
        one that has died counts as long as anybody asks for it, and is forgotten later."""
        ...

    async def sweep(self) -> None:
        """Forget what has outlived its time: positions only `LAPSED_KEPT_S` later. To be called every few seconds."""
        ...

    @property
    def vehicle_count(self) -> int:
        """Vehicles whose position this node was told lately."""
        ...

    @property
    def online_count(self) -> int:
        """Transporters that came online at this node and that it heard of lately."""
        ...

    async def close(self) -> None:
        """Write what waits, and let go of the store."""
        ...

    async def positions(self, tenant_id: TenantId, vehicle_ids: Collection[VehicleId]) -> dict[VehicleId, Point]:
        """Where vehicles are, whether or not they can be found: those of them of which a position younger than 60 s is
        known. One round trip. Raises `ValueError` for more than `MAX_POSITIONS`."""
        ...
