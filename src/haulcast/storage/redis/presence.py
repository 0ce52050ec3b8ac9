"""The `Presence` of nodes that share a Redis.

1. A vehicle's last report is kept to the last bit in a hash; a geo set for each type answers what is near. What makes a
   vehicle findable is not in its being there, but is looked at by each lookup: how old its report is, when its
   transporter was heard of, whether it is engaged. So coming online and going offline are O(1), whatever the fleet.
2. The geo set rounds positions to 0.6 m and takes the earth for a little larger than `domain.geo` does. A lookup
   therefore asks it for slightly more than it needs, and settles distances, radius and ties here. Beyond 85 degrees
   of latitude, where a geo set ends, vehicles and lookups count as standing at that edge.
3. A lookup is one script, so one round trip; it searches with a radius that grows, or shrinks where too many stand,
   until it has enough. What it costs Redis grows with what it has to look at: see `bench/presence.py`. Who is left out
   is noted on the way, and beyond the candidates in what a hundred vehicles more take.
4. Reports and the like wait up to `_PAUSE_S` and are written together (`reports.py`). Whatever is awaited has them
   written first, unless that takes too long: what a node was told it sees at once, the others soon after.
5. Times are those of Redis' clock, read within the scripts (`scripts.py`). Only what concerns this node alone goes by
   its own: how long a report has waited, whether one is news here, and the two counts.
6. What has outlived its time is refused by lookups, and taken out by `sweep`, positions `LAPSED_KEPT_S` later; every
   node sweeps the tenants that it has had to do with. Keys that nobody sweeps any more end by their own time to live.
7. Redis may lose all of it. Phones report every few seconds, transporters go online again as they do after any loss of
   connection, and trips come back with the next `sync_engaged`.
8. Who is connected to a node stands in a set of that node's. A synchronization asks for each whether it is in it, and
   writes only if one is not, or there are others.
"""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection
from typing import TypeVar

from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import FARTHEST_M, Point, distance_m
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate, LeftOut, LeftOutReason, over_limit, rank
from haulcast.ports import LAPSED_KEPT_S, MAX_POSITIONS, Clock, Nearby

from .client import Count, RedisClient, answer_in_time, uncounted
from .keys import AT, DRIVERS, ENGAGED, FLEETS, ONLINE, SEEN, TOGGLES, VEHICLES
from .reports import Reports
from .scripts import Script
from .writer import Writer

_CONNECTIONS = 8
_PATIENCE_S = 5.0
_PAUSE_S = 0.05
_WRITE_FIRST_S = 0.3
"""How long a question waits for what waits to be written: some 10,000 reports."""
_ROWS_PER_TURN = 500
"""Candidates that are worked out before others have their turn."""
_SWEPT_AT_ONCE = 500
_TENANT_TTL_S = 86_400.0
"""For how long a tenant is swept and synchronized after this node has had to do with it: as long as its keys live."""
_ENGAGED_LATELY_MS = 10_000
"""What began so lately may not be in what `sync_engaged` was told, which was read a moment ago."""
_GEO_LATITUDE = 85.05
"""A geo set ends at 85.05112878."""
_SCALE = 1.0003
"""A geo set's earth has a radius of 6,372,797.56 m: its distances are 1.00028 times those of `domain.geo`."""
_ROUNDING_M = 2.0
"""Two positions, each off by up to 0.4 m, and distances rounded to a metre."""

_GO_ONLINE = Script("go_online")
_GO_OFFLINE = Script("go_offline")
_IS_ONLINE = Script("is_online")
_AVAILABLE = Script("available")
_NEAREST = Script("nearest")
_POSITIONS = Script("positions")
_SYNC_ENGAGED = Script("sync_engaged")
_COUNT_TOGGLE = Script("count_toggle")
_NOTE_DRIVERS = Script("note_drivers")
_SYNC_DRIVERS = Script("sync_drivers")
_FIND_STALE = Script("find_stale")
_DROP_STALE = Script("drop_stale")

K = TypeVar("K")
V = TypeVar("V")


class RedisPresence:
    """One node's `Presence`. `commands` counts what is sent to Redis; `now_ms` replaces Redis' clock, for tests."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        vehicle_ttl_s: float = 60,
        transporter_ttl_s: float = 120,
        commands: Count = uncounted,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._client = RedisClient(url, connections=_CONNECTIONS, commands=commands, patience_s=_PATIENCE_S)
        self._clock = clock
        self._vehicle_ms = round(vehicle_ttl_s * 1000)  # for how long a position counts
        self._kept_ms = round((vehicle_ttl_s + LAPSED_KEPT_S) * 1000)  # for how long it is remembered
        self._heard_ms = round(transporter_ttl_s * 1000)  # for how long a transporter's sign of life does
        self._now_ms = now_ms
        self._waiting = Reports(self._heard_ms)
        self._writer = Writer("presence", self._write, _PAUSE_S)
        # What this node was told, oldest first, with when.
        self._reported: OrderedDict[tuple[TenantId, VehicleId], tuple[float, Vehicle]] = OrderedDict()
        self._online: OrderedDict[tuple[TenantId, TransporterId], float] = OrderedDict()
        self._tenants: OrderedDict[TenantId, float] = OrderedDict()

    @property
    def vehicle_count(self) -> int:
        """Vehicles that reported here, those with a stale position included until the next sweep."""
        return len(self._reported)

    @property
    def online_count(self) -> int:
        """Transporters that came online here, those not heard of here for too long included until the next sweep."""
        return len(self._online)

    # --- Told ---

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """See `Presence`."""
        now_s = self._clock.monotonic_s()
        heard_s = self._online.get((tenant_id, transporter_id))
        if heard_s is not None and not self._silent(heard_s, now_s):
            _renew(self._online, (tenant_id, transporter_id), now_s)
        self._waiting.note_heard(tenant_id, transporter_id, now_s)
        self._touch(tenant_id, now_s)

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> bool:
        """See `Presence`."""
        now_s = self._clock.monotonic_s()
        key = (tenant_id, vehicle.vehicle_id)
        before_s, before = self._reported.get(key, (0.0, None))
        self._reported[key] = (now_s, vehicle)
        self._reported.move_to_end(key)
        self._waiting.note_position(tenant_id, vehicle, position, now_s)
        self._touch(tenant_id, now_s)
        return before != vehicle or self._stale(before_s, now_s)

    def engage(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """See `Presence`."""
        self._note_trip(tenant_id, vehicle_id, active=True)

    def release(self, tenant_id: TenantId, vehicle_id: VehicleId) -> None:
        """See `Presence`."""
        self._note_trip(tenant_id, vehicle_id, active=False)

    # --- Awaited ---

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Presence`."""
        async with answer_in_time(_PATIENCE_S):
            await self._write_for(tenant_id)
            [changed] = await self._client.run(
                _GO_ONLINE([ONLINE(tenant_id)], self._now(), ONLINE.ttl_ms, self._heard_ms, transporter_id)
            )
        _renew(self._online, (tenant_id, transporter_id), self._clock.monotonic_s())
        return bool(changed)

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Presence`."""
        async with answer_in_time(_PATIENCE_S):
            await self._write_for(tenant_id)
            [changed] = await self._client.run(
                _GO_OFFLINE([ONLINE(tenant_id)], self._now(), self._heard_ms, transporter_id)
            )
        self._online.pop((tenant_id, transporter_id), None)
        return bool(changed)

    async def is_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """See `Presence`."""
        async with answer_in_time(_PATIENCE_S):
            await self._write_for(tenant_id)
            [online] = await self._client.run(
                _IS_ONLINE([ONLINE(tenant_id)], self._now(), self._heard_ms, transporter_id)
            )
        return bool(online)

    async def sync_engaged(self, engaged: Collection[tuple[TenantId, VehicleId]]) -> None:
        """See `Presence`. Of other tenants than those named, this node looks after the ones it has had to do with."""
        vehicles: defaultdict[TenantId, list[VehicleId]] = defaultdict(list)
        for tenant_id, vehicle_id in engaged:
            vehicles[tenant_id].append(vehicle_id)
        async with answer_in_time(_PATIENCE_S):
            await self._writer.flush(_WRITE_FIRST_S)
            calls = [
                _SYNC_ENGAGED(
                    [ENGAGED(tenant_id)], self._now(), ENGAGED.ttl_ms, _ENGAGED_LATELY_MS, *vehicles.get(tenant_id, ())
                )
                for tenant_id in self._tenants.keys() | vehicles.keys()
            ]
            if calls:
                await self._client.run(*calls)

    async def count_toggle(
        self, tenant_id: TenantId, transporter_id: TransporterId, limit: int, window_s: int
    ) -> int | None:
        """See `Presence`. All nodes count as one."""
        key = TOGGLES(tenant_id, transporter_id)
        [wait_ms] = await self._client.run(_COUNT_TOGGLE([key], self._now(), limit, window_s * 1000))
        return None if wait_ms is None else int(wait_ms)

    async def note_drivers(
        self, node: int, tenant_id: TenantId, came: Collection[DriverId], went: Collection[DriverId]
    ) -> None:
        """See `Presence`."""
        await self._client.run(_NOTE_DRIVERS([DRIVERS(tenant_id, node)], DRIVERS.ttl_ms, len(came), *came, *went))

    async def sync_drivers(self, node: int, tenant_id: TenantId, drivers: Collection[DriverId]) -> bool:
        """See `Presence`. As many as these may be others: a Redis that is back may have what was noted a while ago."""
        key, wanted = DRIVERS(tenant_id, node), list(drivers)
        there = [("SMISMEMBER", key, *wanted)] if wanted else []
        noted, _, *found = await self._client.execute([("SCARD", key), ("PEXPIRE", key, DRIVERS.ttl_ms), *there])
        if noted == len(wanted) and all(map(all, found)):
            return False
        await self._client.run(_SYNC_DRIVERS([key], DRIVERS.ttl_ms, *drivers))
        return True

    async def connected_drivers(
        self, tenant_id: TenantId, drivers: Collection[DriverId], nodes: Collection[int]
    ) -> set[DriverId]:
        """See `Presence`."""
        if not drivers or not nodes:
            return set()
        answers = await self._client.execute([("SMISMEMBER", DRIVERS(tenant_id, node), *drivers) for node in nodes])
        return {driver for driver, *connected in zip(drivers, *answers, strict=True) if any(connected)}

    async def available(self, tenant_id: TenantId, transporter_id: TransporterId) -> list[tuple[Vehicle, Point]]:
        """See `Presence`."""
        keys = [FLEETS(tenant_id), VEHICLES(tenant_id), ONLINE(tenant_id), ENGAGED(tenant_id)]
        async with answer_in_time(_PATIENCE_S):
            await self._write_for(tenant_id)
            [rows] = await self._client.run(
                _AVAILABLE(keys, self._now(), self._vehicle_ms, self._heard_ms, transporter_id)
            )
        return [_vehicle(row) for row in rows.decode().splitlines()]

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
        """See `Presence`. In the order of `rank`."""
        types = sorted(set(vehicle_types))
        if not types:
            return Nearby((), more=False)
        keys = [SEEN(tenant_id), VEHICLES(tenant_id), ONLINE(tenant_id), ENGAGED(tenant_id)]
        async with answer_in_time(_PATIENCE_S):
            await self._write_for(tenant_id)
            [rows] = await self._client.run(
                _NEAREST(
                    [*keys, *(AT(tenant_id, vehicle_type) for vehicle_type in types)],
                    self._now(),
                    self._vehicle_ms,
                    self._kept_ms,
                    self._heard_ms,
                    center.lng if center.lng < 180 else -180.0,  # the same meridian, and Redis 7 finds nobody near 180
                    max(-_GEO_LATITUDE, min(center.lat, _GEO_LATITUDE)),
                    (FARTHEST_M if radius_m is None else radius_m) * _SCALE + _ROUNDING_M,
                    FARTHEST_M * _SCALE + _ROUNDING_M,
                    _ROUNDING_M,
                    limit,
                    left_out_limit,
                    *exclude,
                )
            )
        candidates, left_out = [], []
        for number, row in enumerate(rows.decode().splitlines(), start=1):
            why, row = row.split(" ", 1)
            vehicle, position = _vehicle(row)
            away_m = distance_m(center, position)
            found = (round(away_m), vehicle.transporter_id, vehicle.vehicle_id, vehicle.vehicle_type)
            if why != "-":
                left_out.append(LeftOut(*found, LeftOutReason(why)))
            elif radius_m is None or away_m <= radius_m:
                candidates.append(Candidate(*found))
            else:
                left_out.append(LeftOut(*found, LeftOutReason.OUT_OF_RANGE))
            if number % _ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
        ranked = rank(candidates, exclude=(), limit=limit + 1)
        chosen = {candidate.transporter_id for candidate in ranked[:limit]}
        left_out += (over_limit(each) for each in candidates if each.transporter_id not in chosen)
        return Nearby(ranked[:limit], len(ranked) > limit, rank(left_out, chosen, left_out_limit))

    async def sweep(self) -> None:
        """See `Presence`. Nodes that sweep the same do no harm to each other."""
        now_s = self._clock.monotonic_s()
        _drop_first(self._reported, lambda reported: self._stale(reported[0], now_s))
        _drop_first(self._online, lambda heard_s: self._silent(heard_s, now_s))
        _drop_first(self._tenants, lambda used_s: used_s + _TENANT_TTL_S <= now_s)
        for tenant_id in list(self._tenants):
            await self._sweep(tenant_id)

    async def close(self) -> None:
        """See `Presence`."""
        await self._writer.close()
        await self._client.close()

    async def positions(self, tenant_id: TenantId, vehicle_ids: Collection[VehicleId]) -> dict[VehicleId, Point]:
        """See `Presence`."""
        if len(vehicle_ids) > MAX_POSITIONS:
            raise ValueError(f"{len(vehicle_ids)} vehicles, more than {MAX_POSITIONS}")
        if not vehicle_ids:
            return {}
        async with answer_in_time(_PATIENCE_S):
            await self._write_for(tenant_id)
            [rows] = await self._client.run(
                _POSITIONS([VEHICLES(tenant_id)], self._now(), self._vehicle_ms, *vehicle_ids)
            )
        return {vehicle.vehicle_id: position for vehicle, position in map(_vehicle, rows.decode().splitlines())}

    # --- Within ---

    def _now(self) -> int | str:
        return "" if self._now_ms is None else self._now_ms()

    def _stale(self, reported_s: float, now_s: float) -> bool:
        return reported_s + self._vehicle_ms / 1000 <= now_s

    def _silent(self, heard_s: float, now_s: float) -> bool:
        return heard_s + self._heard_ms / 1000 <= now_s

    def _note_trip(self, tenant_id: TenantId, vehicle_id: VehicleId, *, active: bool) -> None:
        now_s = self._clock.monotonic_s()
        self._waiting.note_trip(tenant_id, vehicle_id, active, now_s)
        self._touch(tenant_id, now_s)

    def _touch(self, tenant_id: TenantId, now_s: float) -> None:
        _renew(self._tenants, tenant_id, now_s)
        self._writer.wake()

    async def _write_for(self, tenant_id: TenantId) -> None:
        """Have what waits written, for somebody who asks about this tenant."""
        _renew(self._tenants, tenant_id, self._clock.monotonic_s())
        await self._writer.flush(_WRITE_FIRST_S)

    async def _write(self) -> bool:
        """Write what waits now; what has not been written when it fails waits on."""
        writing, self._waiting = self._waiting, Reports(self._heard_ms)
        written = bool(writing)
        batch = Reports(self._heard_ms)
        try:
            while writing:
                batch = writing.take()
                await self._client.run(*batch.calls(self._now(), self._clock.monotonic_s()))
        except BaseException:
            writing.put_back(batch)
            self._waiting.put_back(writing)
            raise
        return written

    async def _sweep(self, tenant_id: TenantId) -> None:
        keys = [SEEN(tenant_id), VEHICLES(tenant_id), FLEETS(tenant_id)]
        while True:
            [stale] = await self._client.run(
                _FIND_STALE(
                    [SEEN(tenant_id), ONLINE(tenant_id)],
                    self._now(),
                    self._kept_ms,
                    self._heard_ms,
                    _SWEPT_AT_ONCE,
                )
            )
            if stale:
                members = [member.decode() for member in stale]
                types = sorted({member.rsplit(" ", 1)[1] for member in members})
                places = [AT(tenant_id, vehicle_type) for vehicle_type in types]
                arguments = [self._kept_ms, len(types), *types, *members]
                await self._client.run(_DROP_STALE([*keys, *places], self._now(), *arguments))
            if len(stale) < _SWEPT_AT_ONCE:
                return


def _vehicle(row: str) -> tuple[Vehicle, Point]:
    """A row of `nearest.lua`, `available.lua` or `positions.lua`: a vehicle, then what `VEHICLES` holds of it."""
    vehicle_id, transporter_id, vehicle_type, lat, lng, _ = row.split(" ")
    return Vehicle(VehicleId(vehicle_id), TransporterId(transporter_id), vehicle_type), Point(float(lat), float(lng))


def _renew(queue: OrderedDict[K, float], key: K, now_s: float) -> None:
    queue[key] = now_s
    queue.move_to_end(key)


def _drop_first(queue: OrderedDict[K, V], outdated: Callable[[V], bool]) -> None:
    while queue and outdated(next(iter(queue.values()))):
        queue.popitem(last=False)
