"""The ways of a tenant's trucks to their pickups, found out for its board, slowly and beside everything else.

1. There is a collector where there is a board, and for as long: no operator, no work. Every `CADENCE_S` it goes round
   the live broadcasts, a few at a time, and lets a delta leave before the next few; a round may take longer than that.
2. Which vehicles a broadcast was offered because of it learns from the news, by what they tell anyway. What it has not
   followed from the start, or seems to have missed something of (the board shows another number of offers), it reads
   from the journal, one broadcast after the other.
3. What it waits for (the journal, positions, the source of routes) nothing else waits for: it hands the board what it
   has found out, in a cluster of fields of its own, under versions of its own.
4. A question that fails is shown where it was asked, with what was known before, and asked again in the next round. It
   is counted each time, and logged when it begins and when it is over.
5. It remembers live broadcasts of the board alone: whatever else it knew is forgotten in the next round at the latest.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import count, islice

import msgspec
import structlog
from prometheus_client import Counter

from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TransporterId, VehicleId
from haulcast.domain.routes import (
    NEAREST,
    TO_PICKUP,
    UNKNOWN,
    Offered,
    Route,
    RouteFault,
    Way,
    choose,
    is_idle,
    moved,
    route_view,
)
from haulcast.domain.snapshot import Fields
from haulcast.errors import HaulcastError, RoutesUnavailable
from haulcast.ports import MAX_ORIGINS, MAX_POSITIONS, Clock, Journal, Presence, RouteSource

from .board import GATHERED_S, Board, Collector
from .news import News, newly_offered

CADENCE_S = 5.0
REMEMBERED = 30
"""Vehicles of a broadcast, those that were nearest when it was offered: some of them will have gone since."""
MAX_TRIPS = MAX_ORIGINS - NEAREST
AT_ONCE = MAX_POSITIONS // (REMEMBERED + MAX_TRIPS)
"""Broadcasts whose vehicles are looked for in one question, and whose ways change in one delta."""

log = structlog.get_logger()


class _Trip(msgspec.Struct):
    transporter_id: TransporterId
    vehicle_id: VehicleId
    status: str


class _Place(msgspec.Struct):
    lat: float
    lng: float


class _Entry(msgspec.Struct):
    """What matters here of what a board shows."""

    pickup: _Place
    notified: int
    trips: dict[str, _Trip]

    @property
    def on_their_way(self) -> dict[VehicleId, TransporterId]:
        """The vehicles of its trips that have not loaded yet."""
        trips = (trip for trip in self.trips.values() if trip.status in TO_PICKUP)
        return {trip.vehicle_id: trip.transporter_id for trip in islice(trips, MAX_TRIPS)}


@dataclass(slots=True)
class _Followed:
    """A live broadcast. `seen`: the number of offers of which `nearest` are some; None if they have to be read."""

    seen: int | None = None
    fields: Fields | None = None
    entry: _Entry | None = None  # what they say
    nearest: Sequence[Offered] = ()
    route: Route = UNKNOWN

    def add(self, offered: Iterable[Offered]) -> None:
        self.nearest = nsmallest(REMEMBERED, (*self.nearest, *offered))


class RouteCollectors:
    """Makes the collectors of a node, which share `routes`. `failed` counts by `reason`."""

    def __init__(
        self, routes: RouteSource, journal: Journal, presence: Presence, clock: Clock, failed: Counter
    ) -> None:
        self._routes = routes
        self._journal = journal
        self._presence = presence
        self._clock = clock
        self._failed = failed

    def __call__(self, board: Board) -> Collector:
        """The collector of a board."""
        return RouteCollector(board, self._routes, self._journal, self._presence, self._clock, self._failed)


class RouteCollector:
    """Finds out the ways of one board's trucks."""

    def __init__(
        self,
        board: Board,
        routes: RouteSource,
        journal: Journal,
        presence: Presence,
        clock: Clock,
        failed: Counter,
    ) -> None:
        self._board = board
        self._routes = routes
        self._journal = journal
        self._presence = presence
        self._clock = clock
        self._failed = failed
        self._followed: dict[BroadcastId, _Followed] = {}
        self._versions = count(1)
        self._failing = False  # whether that was logged, and not yet that it is over

    def take(self, news: News) -> None:
        """See `Collector`. Of a wave only the nearest are looked at, however many it has."""
        key = news.broadcast_id
        if news.ended_at_ms is not None:
            self._followed.pop(key, None)
            return
        if not news.since:
            self._followed.setdefault(key, _Followed(seen=0))
        followed = self._followed.get(key)
        if followed is not None and followed.seen is not None:
            try:
                number, offered = newly_offered(news, REMEMBERED)
            except msgspec.MsgspecError:  # of a version that tells it otherwise
                followed.seen = None
            else:
                followed.seen += number
                followed.add(offered)

    async def run(self) -> None:
        """See `Collector`."""
        while True:
            next_s = self._clock.monotonic_s() + CADENCE_S
            try:
                await self._go_round()
            except Exception:
                log.exception("collecting_failed", tenant=self._board.tenant_id)
            await asyncio.sleep(max(0.0, next_s - self._clock.monotonic_s()))

    async def _go_round(self) -> None:
        live = self._board.live()
        for key in self._followed.keys() - set(live):
            del self._followed[key]
        concerned = [key for key in live if self._has_vehicles(key)]
        for start in range(0, len(concerned), AT_ONCE):
            changed = await self._collect(concerned[start : start + AT_ONCE])
            await asyncio.sleep(GATHERED_S if changed else 0)
        if self._failing and not any(followed.route.fault for followed in self._followed.values()):
            self._failing = False
            log.info("routes_found_again", tenant=self._board.tenant_id)

    def _has_vehicles(self, key: BroadcastId) -> bool:
        """Whether there is anything to find out: nobody may have been near. Most of a large board may be like that."""
        fields = self._board.entry(key)
        return fields is not None and bool(fields["notified"] or fields["trips"] or "route" in fields)

    async def _collect(self, keys: Sequence[BroadcastId]) -> bool:
        """Bring some broadcasts up to date; whether that changed anything."""
        entries: dict[BroadcastId, _Entry] = {}
        wanted: set[VehicleId] = set()
        changed = False
        for key in keys:
            try:
                entry = await self._learn(key)
            except HaulcastError as error:
                self._note_failure(RouteFault.NO_POSITIONS, error)
                changed |= self._fail(key, RouteFault.NO_POSITIONS)
                continue
            except Exception:  # one bad broadcast keeps no other from its turn
                log.exception("collecting_failed", broadcast=key)
                continue
            followed = self._followed.get(key)
            if entry is not None and followed is not None:  # it may have ended while its offers were read
                entries[key] = entry
                wanted.update(entry.on_their_way, (one.vehicle_id for one in followed.nearest))
        try:
            positions = await self._presence.positions(self._board.tenant_id, wanted) if wanted else {}
        except HaulcastError as error:
            self._note_failure(RouteFault.NO_POSITIONS, error)
            for key in entries:
                changed |= self._fail(key, RouteFault.NO_POSITIONS)
            return changed
        updates = (self._update(key, entry, positions) for key, entry in entries.items())
        return any(await asyncio.gather(*updates)) or changed

    async def _learn(self, key: BroadcastId) -> _Entry | None:
        """What the board shows of a broadcast, once it is known to whom that was offered; None if it is not live."""
        fields = self._board.entry(key)
        if fields is None:
            return None
        followed = self._followed.setdefault(key, _Followed())
        if followed.fields is not fields:  # which are never changed, but replaced
            followed.fields, followed.entry = fields, msgspec.convert(fields, _Entry)
        entry = followed.entry
        assert entry is not None
        if followed.seen != entry.notified:
            stored = await self._journal.read_broadcast(self._board.tenant_id, key)
            offers = () if stored is None else stored.state.offers.values()
            followed.nearest = ()
            followed.add(Offered(offer.distance_m, offer.vehicle_id, offer.transporter_id) for offer in offers)
            followed.seen = entry.notified  # if there are more by now, that shows in the next round
        return entry

    async def _update(self, key: BroadcastId, entry: _Entry, positions: Mapping[VehicleId, Point]) -> bool:
        """Find out the ways to one pickup; whether that changed anything."""
        followed, version = self._followed.get(key), next(self._versions)
        if followed is None:
            return False
        pickup = Point(entry.pickup.lat, entry.pickup.lng)
        chosen = choose(pickup, followed.nearest, entry.on_their_way, positions)
        known = self._known(key)
        asked = moved(known, chosen)
        if is_idle(known, chosen, asked):
            return False
        try:
            legs = await self._routes.legs([chosen[vehicle_id][1] for vehicle_id in asked], pickup) if asked else []
        except RoutesUnavailable as error:
            self._note_failure(error.fault, error)
            return self._fail(key, error.fault, version)
        except Exception:
            log.exception("collecting_failed", broadcast=key)
            return False
        fresh = {vehicle_id: Way(*chosen[vehicle_id], leg) for vehicle_id, leg in zip(asked, legs, strict=True)}
        ways = {vehicle_id: fresh.get(vehicle_id) or known.ways[vehicle_id] for vehicle_id in chosen}
        return self._show(key, Route(self._clock.now_ms(), ways), version)

    # --- What is shown ---

    def _known(self, key: BroadcastId) -> Route:
        """What the board shows now: it may have lost a broadcast, and got it again."""
        followed, fields = self._followed.get(key), self._board.entry(key)
        return followed.route if followed is not None and fields is not None and "route" in fields else UNKNOWN

    def _fail(self, key: BroadcastId, fault: RouteFault, version: int | None = None) -> bool:
        known = self._known(key)
        if known.fault is fault:
            return False
        return self._show(key, replace(known, fault=fault), version or next(self._versions))

    def _show(self, key: BroadcastId, route: Route, version: int) -> bool:
        followed = self._followed.get(key)
        if followed is None:  # it has ended meanwhile
            return False
        followed.route = route
        return self._board.put_route(key, (0, version), route_view(self._routes.kind, route))

    def _note_failure(self, fault: RouteFault, error: HaulcastError) -> None:
        self._failed.labels(fault).inc()
        if not self._failing:
            self._failing = True
            log.warning("routes_failing", tenant=self._board.tenant_id, reason=fault, error=str(error))
