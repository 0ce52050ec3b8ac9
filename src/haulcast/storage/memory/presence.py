"""Who is online and where their vehicles are, in the memory of one process.

1. A vehicle is tracked from its first report until `LAPSED_KEPT_S` after its position is `vehicle_ttl_s` old, whether
   or not its transporter is online. A transporter is known while it is online or one of its vehicles is tracked.
2. The grid of a tenant holds the tracked vehicles that are not engaged and whose transporter was online when they
   were put there. Coming online puts them there, and so does the end of a trip; a trip takes them away at once. All
   the others stand in a second grid, of those who cannot be found: each tracked vehicle is in one of the two.
3. What only lapses (a position, a transporter that goes offline or silent) stays in the grid for now and is refused
   when a lookup comes across it: every look compares with the clock. So going offline is O(1) however large the
   fleet; a vehicle's next report, or the sweep, takes it out.
4. Vehicles stand in the order of their last report and transporters in that of their last sign of life. The time to
   live is the same for all, so that the stale are always those in front, and `sweep` looks at nothing else. What it
   finds stale then waits in a second queue to be forgotten.
5. Whatever may be long is done in turns: a lookup, a sweep, a large fleet that comes online. Between two turns the
   event loop runs. A lookup counts what it refuses too, and lets every so-manyth of those through, since only at
   what the grid yields can it stop and go on.
6. A vehicle that reports between two turns of a lookup may leave a cell that is still to be opened for one that
   was. At its end the lookup therefore looks once more at whatever has reported since it began. So nobody is missing
   who matched all along, and whoever is in the answer did match at some moment of it.
7. Who is left out is looked for when the candidates are known, from the middle again, in both grids at once. The
   candidates and the excluded are refused before their distances are reckoned, so this costs little beside the rest.
8. Toggles are counted in a log for each transporter, by a clock that nobody corrects: no wait becomes longer.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import takewhile
from math import inf
from operator import itemgetter
from typing import TypeVar

from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point, distance_m
from haulcast.domain.grid import GridIndex
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate, LeftOut, LeftOutReason, rank
from haulcast.ports import LAPSED_KEPT_S, MAX_POSITIONS, Clock, Nearby

_LOOKS_PER_TURN = 500
"""Vehicles that a lookup takes or refuses in one turn."""
_CHANGES_PER_TURN = 250
"""Vehicles put into the grid, or taken out of memory, in one turn: at most 10 us each (bench/positions.py)."""

_ENGAGED_LATELY_S = 10.0
"""What began so lately may not be in what `sync_engaged` is told, which was read a moment ago."""
_SWEEP_TOGGLES_ABOVE = 10_000
"""With so many transporters in the log of toggles, or twice as many as the last time, those who are in nobody's window
any more are dropped from it."""

_OFFLINE = -inf


class MemoryPresence:
    """The `Presence` of a deployment with one process. Needs `sweep` called every few seconds, to forget."""

    def __init__(self, clock: Clock, *, vehicle_ttl_s: float = 60, transporter_ttl_s: float = 120) -> None:
        self._clock = clock
        self._vehicle_ttl_s = vehicle_ttl_s
        self._transporter_ttl_s = transporter_ttl_s
        self._tenants: dict[TenantId, _Tenant] = {}  # none that is empty
        self._tracked: OrderedDict[_Tracked, None] = OrderedDict()  # by until_s
        self._lapsed: OrderedDict[_Tracked, None] = OrderedDict()  # those swept out of it, likewise
        self._online: OrderedDict[_Transporter, None] = OrderedDict()  # by until_s; none is _OFFLINE
        self._toggles: dict[tuple[TenantId, TransporterId], _Toggles] = {}
        self._sweep_toggles_above = _SWEEP_TOGGLES_ABOVE
        self._drivers: dict[
            tuple[int, TenantId], set[DriverId]
        ] = {}  # by the node that they are connected to; no empty

    @property
    def vehicle_count(self) -> int:
        """Vehicles in memory, those with a stale position included until the next sweep."""
        return len(self._tracked)

    @property
    def online_count(self) -> int:
        """Transporters that are online, those not heard of for too long included until the next sweep."""
        return len(self._online)

    async def sweep(self) -> None:
        """Forget the stale, all of them, in turns of `_CHANGES_PER_TURN`. O(what is stale)."""
        now_s = self._clock.monotonic_s()
        changes = 0
        for tracked in _stale_first(self._tracked, now_s):
            del self._tracked[tracked]
            self._lapsed[tracked] = None
            self._place(tracked, now_s)
            changes += 1
            if changes % _CHANGES_PER_TURN == 0:
                await asyncio.sleep(0)
        for tracked in _stale_first(self._lapsed, now_s - LAPSED_KEPT_S):
            self._forget(tracked)
            changes += 1
            if changes % _CHANGES_PER_TURN == 0:
                await asyncio.sleep(0)
        for transporter in _stale_first(self._online, now_s):
            self._leave(transporter)
            changes += 1
            if changes % _CHANGES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Presence`. The vehicles of a large fleet can be found one turn after the other."""
        now_s = self._clock.monotonic_s()
        transporter = self._tenant(tenant_id).transporter(transporter_id)
        changed = transporter.until_s <= now_s
        transporter.until_s = now_s + self._transporter_ttl_s
        self._online[transporter] = None
        self._online.move_to_end(transporter)
        if changed:
            for number, tracked in enumerate(list(transporter.tracked.values()), start=1):
                now_s = self._clock.monotonic_s()
                if tracked.until_s > now_s:  # else it may be forgotten, and the grid hold another under its key
                    self._place(tracked, now_s)
                if number % _CHANGES_PER_TURN == 0:
                    await asyncio.sleep(0)
        return changed

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Presence`."""
        transporter = self._find(tenant_id, transporter_id)
        if transporter is None or transporter.until_s == _OFFLINE:
            return False
        changed = transporter.until_s > self._clock.monotonic_s()
        self._leave(transporter)
        return changed

    async def is_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Presence`."""
        transporter = self._find(tenant_id, transporter_id)
        return transporter is not None and transporter.until_s > self._clock.monotonic_s()

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """See `Presence`. O(1)."""
        transporter = self._find(tenant_id, transporter_id)
        now_s = self._clock.monotonic_s()
        if transporter is not None and transporter.until_s > now_s:
            transporter.until_s = now_s + self._transporter_ttl_s
            self._online.move_to_end(transporter)

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> bool:
        """See `Presence`. O(1). The latest report says whose the vehicle is, and of which type."""
        now_s = self._clock.monotonic_s()
        tenant = self._tenant(tenant_id)
        until_s = now_s + self._vehicle_ttl_s
        tracked = tenant.tracked.get(vehicle.vehicle_id)
        if tracked is None:
            new = True
            transporter = tenant.transporter(vehicle.transporter_id)
            tracked = _Tracked(vehicle, position, until_s, transporter)
            tenant.tracked[vehicle.vehicle_id] = transporter.tracked[vehicle.vehicle_id] = tracked
        else:
            new = tracked.until_s <= now_s or tracked.vehicle != vehicle
            if tracked.vehicle.transporter_id != vehicle.transporter_id:
                self._hand_over(tracked, tenant.transporter(vehicle.transporter_id))
            tracked.vehicle = vehicle
            tracked.position = position
            tracked.until_s = until_s
            self._lapsed.pop(tracked, None)
        self._tracked[tracked] = None
        self._tracked.move_to_end(tracked)
        self._place(tracked, now_s)
        return new

    def engage(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """See `Presence`. Holds until `release`, whatever is forgotten of the vehicle meanwhile."""
        now_s = self._clock.monotonic_s()
        self._engage(self._tenant(tenant_id), vehicle_id, now_s, now_s)

    def release(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """See `Presence`."""
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            tenant.engaged.pop(vehicle_id, None)
            tracked = tenant.tracked.get(vehicle_id)
            if tracked is not None:
                self._place(tracked, self._clock.monotonic_s())
            self._drop_if_empty(tenant)

    async def sync_engaged(self, engaged: Collection[tuple[TenantId, VehicleId]]) -> None:
        """See `Presence`. Not in turns: what differs is little."""
        wanted = frozenset(engaged)
        latest_s = self._clock.monotonic_s() - _ENGAGED_LATELY_S
        for tenant in list(self._tenants.values()):
            for vehicle_id, since_s in list(tenant.engaged.items()):
                if since_s < latest_s and (tenant.tenant_id, vehicle_id) not in wanted:
                    self.release(tenant.tenant_id, vehicle_id)
        for tenant_id, vehicle_id in wanted:
            tenant = self._tenant(tenant_id)
            if vehicle_id not in tenant.engaged:
                self._engage(tenant, vehicle_id, -inf, self._clock.monotonic_s())

    async def count_toggle(
        self, tenant_id: TenantId, transporter_id: TransporterId, limit: int, window_s: int
    ) -> int | None:
        """See `Presence`."""
        now_ms = round(self._clock.monotonic_s() * 1000)
        toggles = self._toggles.setdefault((tenant_id, transporter_id), _Toggles())
        wait_ms = toggles.count(now_ms, limit, window_s * 1000)
        if len(self._toggles) > self._sweep_toggles_above:
            self._toggles = {key: each for key, each in self._toggles.items() if each.until_ms > now_ms}
            self._sweep_toggles_above = max(_SWEEP_TOGGLES_ABOVE, 2 * len(self._toggles))
        return wait_ms

    async def note_drivers(
        self, node: int, tenant_id: TenantId, came: Collection[DriverId], went: Collection[DriverId]
    ) -> None:
        """See `Presence`."""
        await self.sync_drivers(
            node, tenant_id, self._drivers.get((node, tenant_id), set()).union(came).difference(went)
        )

    async def sync_drivers(self, node: int, tenant_id: TenantId, drivers: Collection[DriverId]) -> bool:
        """See `Presence`."""
        before = self._drivers.pop((node, tenant_id), set())
        if drivers:
            self._drivers[node, tenant_id] = set(drivers)
        return before != set(drivers)

    async def connected_drivers(
        self, tenant_id: TenantId, drivers: Collection[DriverId], nodes: Collection[int]
    ) -> set[DriverId]:
        """See `Presence`."""
        return set().union(*(self._drivers.get((node, tenant_id), set()).intersection(drivers) for node in nodes))

    async def available(self, tenant_id: TenantId, transporter_id: TransporterId) -> list[tuple[Vehicle, Point]]:
        """See `Presence`."""
        transporter = self._find(tenant_id, transporter_id)
        now_s = self._clock.monotonic_s()
        if transporter is None or transporter.until_s <= now_s:
            return []
        engaged = transporter.tenant.engaged
        return [
            (tracked.vehicle, tracked.position)
            for vehicle_id, tracked in transporter.tracked.items()
            if tracked.until_s > now_s and vehicle_id not in engaged
        ]

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
        """See `Presence`. In the order of `rank`; whatever changes during the lookup may or may not be seen."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return Nearby((), more=False)
        lookup = _Lookup(
            tenant, center, frozenset(vehicle_types), radius_m, frozenset(exclude), limit, self._clock.monotonic_s()
        )
        in_turns = False
        for _ in lookup.turns():
            in_turns = True
            await asyncio.sleep(0)
        if in_turns:
            since_s = lookup.now_s + self._vehicle_ttl_s
            lookup.look_again(takewhile(lambda tracked: tracked.until_s >= since_s, reversed(self._tracked)))
        lookup.settle()
        for _ in lookup.turns_for_left_out(left_out_limit):
            await asyncio.sleep(0)
        return lookup.answer(left_out_limit)

    async def close(self) -> None:
        """See `Presence`. Nothing waits here."""

    async def positions(self, tenant_id: TenantId, vehicle_ids: Collection[VehicleId]) -> dict[VehicleId, Point]:
        """See `Presence`."""
        if len(vehicle_ids) > MAX_POSITIONS:
            raise ValueError(f"{len(vehicle_ids)} vehicles, more than {MAX_POSITIONS}")
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return {}
        now_s = self._clock.monotonic_s()
        return {
            vehicle_id: tracked.position
            for vehicle_id in vehicle_ids
            if (tracked := tenant.tracked.get(vehicle_id)) is not None and tracked.until_s > now_s
        }

    def _tenant(self, tenant_id: TenantId) -> "_Tenant":
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant(tenant_id)
        return tenant

    def _find(self, tenant_id: TenantId, transporter_id: TransporterId) -> "_Transporter | None":
        tenant = self._tenants.get(tenant_id)
        return None if tenant is None else tenant.transporters.get(transporter_id)

    def _place(self, tracked: "_Tracked", now_s: float) -> None:
        """Have the grid hold the vehicle where it is now, or the second grid if it cannot be found."""
        transporter = tracked.transporter
        tenant = transporter.tenant
        vehicle = tracked.vehicle
        if transporter.until_s > now_s and tracked.until_s > now_s and vehicle.vehicle_id not in tenant.engaged:
            grid, other = tenant.grid, tenant.hidden
        else:
            grid, other = tenant.hidden, tenant.grid
        grid.put(vehicle.vehicle_id, tracked.position, vehicle.vehicle_type, tracked)
        other.remove(vehicle.vehicle_id)

    def _engage(self, tenant: "_Tenant", vehicle_id: VehicleId, since_s: float, now_s: float) -> None:
        tenant.engaged[vehicle_id] = since_s
        tracked = tenant.tracked.get(vehicle_id)
        if tracked is not None:
            self._place(tracked, now_s)

    def _hand_over(self, tracked: "_Tracked", transporter: "_Transporter") -> None:
        vehicle_id = tracked.vehicle.vehicle_id
        before, tracked.transporter = tracked.transporter, transporter
        transporter.tracked[vehicle_id] = tracked
        del before.tracked[vehicle_id]
        self._drop_if_unknown(before)

    def _forget(self, tracked: "_Tracked") -> None:
        transporter = tracked.transporter
        vehicle_id = tracked.vehicle.vehicle_id
        tenant = transporter.tenant
        tenant.grid.remove(vehicle_id)
        tenant.hidden.remove(vehicle_id)
        del tenant.tracked[vehicle_id]
        del transporter.tracked[vehicle_id]
        self._tracked.pop(tracked, None)
        self._lapsed.pop(tracked, None)
        self._drop_if_unknown(transporter)

    def _leave(self, transporter: "_Transporter") -> None:
        transporter.until_s = _OFFLINE
        del self._online[transporter]
        self._drop_if_unknown(transporter)

    def _drop_if_unknown(self, transporter: "_Transporter") -> None:
        if transporter.until_s == _OFFLINE and not transporter.tracked:
            del transporter.tenant.transporters[transporter.transporter_id]
            self._drop_if_empty(transporter.tenant)

    def _drop_if_empty(self, tenant: "_Tenant") -> None:
        if not tenant.transporters and not tenant.engaged:
            del self._tenants[tenant.tenant_id]


@dataclass(slots=True, eq=False)
class _Tenant:
    tenant_id: TenantId
    transporters: "dict[TransporterId, _Transporter]" = field(default_factory=dict)
    tracked: "dict[VehicleId, _Tracked]" = field(default_factory=dict)
    grid: "GridIndex[VehicleId, _Tracked]" = field(default_factory=GridIndex)
    hidden: "GridIndex[VehicleId, _Tracked]" = field(default_factory=GridIndex)  # the tracked that are not in the grid
    engaged: dict[VehicleId, float] = field(default_factory=dict)  # since when; -inf: since before anybody looked

    def transporter(self, transporter_id: TransporterId) -> "_Transporter":
        transporter = self.transporters.get(transporter_id)
        if transporter is None:
            transporter = self.transporters[transporter_id] = _Transporter(transporter_id, self)
        return transporter


@dataclass(slots=True, eq=False)
class _Transporter:
    """Online, or with a tracked vehicle, or both."""

    transporter_id: TransporterId
    tenant: _Tenant
    until_s: float = _OFFLINE  # online before this moment
    tracked: "dict[VehicleId, _Tracked]" = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Tracked:
    """A vehicle that has reported."""

    vehicle: Vehicle
    position: Point
    until_s: float  # the position is fresh before this moment
    transporter: _Transporter


@dataclass(slots=True)
class _Toggles:
    """When one transporter came or went, oldest first."""

    times_ms: deque[int] = field(default_factory=deque)
    until_ms: int = 0  # in nobody's window any more from this moment on

    def count(self, now_ms: int, limit: int, window_ms: int) -> int | None:
        while self.times_ms and self.times_ms[0] <= now_ms - window_ms:
            self.times_ms.popleft()
        if len(self.times_ms) >= limit:
            return self.times_ms[0] + window_ms - now_ms
        self.times_ms.append(now_ms)
        self.until_ms = now_ms + window_ms
        return None


_Aging = TypeVar("_Aging", _Tracked, _Transporter)


def _stale_first(queue: OrderedDict[_Aging, None], now_s: float) -> Iterator[_Aging]:
    """What stands in front and is stale; whoever takes it removes it. `queue` may change between two."""
    while queue:
        first = next(iter(queue))
        if first.until_s > now_s:
            return
        yield first


class _Lookup:
    """One search for the nearest transporters. Where distances round to the same metre, `rank` decides: hence all
    of a metre is taken before anything is settled."""

    def __init__(
        self,
        tenant: _Tenant,
        center: Point,
        vehicle_types: frozenset[str],
        radius_m: float | None,
        exclude: frozenset[TransporterId],
        limit: int,
        now_s: float,
    ) -> None:
        self._tenant = tenant
        self._center = center
        self._vehicle_types = vehicle_types
        self._radius_m = radius_m
        self._exclude = exclude
        self._limit = limit
        self.now_s = now_s  # when it began
        self._candidates: list[Candidate] = []
        self._ranked: tuple[Candidate, ...] = ()  # the nearest of them, one more than the limit if there are
        self._left_out: list[LeftOut] = []

    def turns(self) -> Iterator[None]:
        """Look until the answer is known; yields when others should have their turn."""
        now_s = self.now_s
        done = set(self._exclude)  # and those with a candidate nearer than any still to come
        enough = len(done) + self._limit
        refused = 0

        def matches(tracked: _Tracked) -> bool:
            transporter = tracked.transporter
            return tracked.until_s > now_s and transporter.until_s > now_s and transporter.transporter_id not in done

        def accept(_vehicle_id: VehicleId, tracked: _Tracked) -> bool:
            nonlocal refused
            if matches(tracked):
                return True
            refused += 1
            return refused % _LOOKS_PER_TURN == 0

        at_m = 0
        at_this_metre: list[TransporterId] = []
        turn_ends = _LOOKS_PER_TURN
        found = self._tenant.grid.nearest(
            self._center, kinds=self._vehicle_types, radius_m=self._radius_m, accept=accept
        )
        for taken, (away_m, _, tracked) in enumerate(found, start=1):
            metres = round(away_m)
            if metres > at_m:
                at_m = metres
                done.update(at_this_metre)
                at_this_metre.clear()
            if matches(tracked):
                self._take(metres, tracked)
                if len(done) >= enough:
                    return
                at_this_metre.append(tracked.transporter.transporter_id)
            elif len(done) > enough:
                return
            if taken + refused >= turn_ends:
                yield
                turn_ends = taken + refused + _LOOKS_PER_TURN

    def look_again(self, reported: Iterator[_Tracked]) -> None:
        """Take those in `reported` that match where they are now."""
        for tracked in reported:
            transporter = tracked.transporter
            if (
                transporter.tenant is self._tenant
                and tracked.vehicle.vehicle_id in self._tenant.grid
                and tracked.vehicle.vehicle_type in self._vehicle_types
                and transporter.until_s > self.now_s
                and transporter.transporter_id not in self._exclude
            ):
                away_m = distance_m(self._center, tracked.position)
                if self._radius_m is None or away_m <= self._radius_m:
                    self._take(round(away_m), tracked)

    def settle(self) -> None:
        """Nobody else is taken: the candidates are known."""
        self._ranked = rank(self._candidates, exclude=(), limit=self._limit + 1)

    def turns_for_left_out(self, limit: int) -> Iterator[None]:
        """Look for the nearest `limit` who are not candidates; yields when others should have their turn."""
        done = {*self._exclude, *(candidate.transporter_id for candidate in self._ranked[: self._limit])}
        known: set[TransporterId] = set()  # those with a vehicle found
        kept_s = self.now_s - LAPSED_KEPT_S
        refused = 0

        def concerns(tracked: _Tracked) -> bool:
            return tracked.transporter.transporter_id not in done and tracked.until_s > kept_s

        def accept(_vehicle_id: VehicleId, tracked: _Tracked) -> bool:
            nonlocal refused
            if concerns(tracked):
                return True
            refused += 1
            return refused % _LOOKS_PER_TURN == 0

        found = merge(
            *(
                grid.nearest(self._center, kinds=self._vehicle_types, radius_m=None, accept=accept)
                for grid in (self._tenant.grid, self._tenant.hidden)
            ),
            key=itemgetter(0),
        )
        at_m = 0
        turn_ends = _LOOKS_PER_TURN
        for taken, (away_m, vehicle_id, tracked) in enumerate(found, start=1):
            metres = round(away_m)
            if metres > at_m:
                at_m = metres
                done.update(known)
                if len(known) >= limit:
                    return
            reason = self._reason(tracked, away_m) if concerns(tracked) else None
            if reason is not None:
                vehicle = tracked.vehicle
                known.add(vehicle.transporter_id)
                self._left_out.append(LeftOut(metres, vehicle.transporter_id, vehicle_id, vehicle.vehicle_type, reason))
            if taken + refused >= turn_ends:
                yield
                turn_ends = taken + refused + _LOOKS_PER_TURN

    def answer(self, left_out_limit: int) -> Nearby:
        """The nearest of whoever was taken, and of those left out."""
        return Nearby(
            self._ranked[: self._limit],
            more=len(self._ranked) > self._limit,
            left_out=rank(self._left_out, exclude=(), limit=left_out_limit),
        )

    def _reason(self, tracked: _Tracked, away_m: float) -> LeftOutReason | None:
        """Why it is no candidate's; None if it became one too late to be taken."""
        if tracked.transporter.until_s <= self.now_s:
            return LeftOutReason.OFFLINE
        if tracked.vehicle.vehicle_id in self._tenant.engaged:
            return LeftOutReason.ON_TRIP
        if tracked.until_s <= self.now_s:
            return LeftOutReason.NO_SIGNAL
        if self._radius_m is not None and away_m > self._radius_m:
            return LeftOutReason.OUT_OF_RANGE
        return LeftOutReason.OVER_LIMIT if len(self._ranked) > self._limit else None

    def _take(self, away_m: int, tracked: _Tracked) -> None:
        vehicle = tracked.vehicle
        self._candidates.append(Candidate(away_m, vehicle.transporter_id, vehicle.vehicle_id, vehicle.vehicle_type))
