"""What a node was told about presence and has not written yet.

1. The latest of each vehicle's positions and of its trip; of each transporter's signs of life the first and the last.
2. Each remembers when it came, and is written with its age. So waiting makes nothing look fresher than it is, and of
   the reports of two nodes the later one wins, whichever is written last.
3. What could not be written waits on, but never more than `_MOST_WAITING` of a kind. What is lost so is reported anew
   within seconds, or is set right by `sync_engaged`.
4. Of all that waits a batch is taken, and made into calls of at most `_PER_CALL` each, so that others get their turn
   in Redis in between.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import TenantId, TransporterId, VehicleId

from .keys import AT, ENGAGED, FLEETS, ONLINE, SEEN, VEHICLES
from .scripts import Argument, Call, Script

_MOST_WAITING = 200_000
_PER_BATCH = 1_000
_PER_CALL = 300

_REPORT = Script("report")
_HEARD_FROM = Script("heard_from")
_ENGAGE = Script("engage")

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _Position:
    vehicle: Vehicle
    point: Point
    at_s: float


@dataclass(frozen=True, slots=True)
class _Heard:
    """Signs of life that follow one another closely enough: the first of them may find the transporter still online
    when the last alone would not."""

    transporter_id: TransporterId
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class _Trip:
    vehicle_id: VehicleId
    active: bool
    at_s: float


@dataclass(slots=True)
class Reports:
    """What waits. `at_s` is by a clock of the node's own; a transporter's sign of life counts for `heard_ms`."""

    heard_ms: int
    positions: dict[tuple[TenantId, VehicleId], _Position] = field(default_factory=dict)
    heard: dict[tuple[TenantId, TransporterId], _Heard] = field(default_factory=dict)
    trips: dict[tuple[TenantId, VehicleId], _Trip] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.positions or self.heard or self.trips)

    def note_position(self, tenant_id: TenantId, vehicle: Vehicle, point: Point, at_s: float) -> None:
        """Where a vehicle is."""
        _put(self.positions, (tenant_id, vehicle.vehicle_id), _Position(vehicle, point, at_s))

    def note_heard(self, tenant_id: TenantId, transporter_id: TransporterId, at_s: float) -> None:
        """A transporter is still there."""
        self._put_heard((tenant_id, transporter_id), _Heard(transporter_id, at_s, at_s))

    def note_trip(self, tenant_id: TenantId, vehicle_id: VehicleId, active: bool, at_s: float) -> None:
        """A vehicle's trip has begun or ended."""
        _put(self.trips, (tenant_id, vehicle_id), _Trip(vehicle_id, active, at_s))

    def take(self) -> "Reports":
        """A batch of what has waited longest, which then waits no more."""
        return Reports(self.heard_ms, _take(self.positions), _take(self.heard), _take(self.trips))

    def put_back(self, taken: "Reports") -> None:
        """Have what was taken wait on, where nothing newer does."""
        _put_back(self.positions, taken.positions)
        for key, earlier in taken.heard.items():
            later = self.heard.get(key)
            self.heard.pop(key, None)
            self._put_heard(key, earlier)
            if later is not None:
                self._put_heard(key, later)
        _put_back(self.trips, taken.trips)

    def calls(self, now: int | str, now_s: float) -> Iterator[Call]:
        """All of it. `now`: as scripts want it."""
        positions: defaultdict[TenantId, list[_Position]] = defaultdict(list)
        for (tenant_id, _), position in self.positions.items():
            positions[tenant_id].append(position)
        for tenant_id, all_positions in positions.items():
            for some_positions in _chunks(all_positions):
                yield _report(tenant_id, some_positions, now, now_s)

        heard: defaultdict[TenantId, list[_Heard]] = defaultdict(list)
        for (tenant_id, _), sign in self.heard.items():
            heard[tenant_id].append(sign)
        for tenant_id, signs in heard.items():
            for some_signs in _chunks(signs):
                yield _heard_from(tenant_id, some_signs, now, now_s, self.heard_ms)

        trips: defaultdict[TenantId, list[_Trip]] = defaultdict(list)
        for (tenant_id, _), trip in self.trips.items():
            trips[tenant_id].append(trip)
        for tenant_id, all_trips in trips.items():
            for some_trips in _chunks(all_trips):
                yield _engage(tenant_id, some_trips, now, now_s)

    def _put_heard(self, key: tuple[TenantId, TransporterId], sign: _Heard) -> None:
        before = self.heard.get(key)
        if before is not None and sign.first_s < before.last_s + self.heard_ms / 1000:
            sign = _Heard(sign.transporter_id, before.first_s, sign.last_s)
        _put(self.heard, key, sign)


def _report(tenant_id: TenantId, positions: Iterable[_Position], now: int | str, now_s: float) -> Call:
    keys = [VEHICLES(tenant_id), SEEN(tenant_id), FLEETS(tenant_id)]
    numbers: dict[str, int] = {}  # by type: which of KEYS holds it
    arguments: list[Argument] = [now, VEHICLES.ttl_ms]
    for position in positions:
        vehicle = position.vehicle
        number = numbers.get(vehicle.vehicle_type)
        if number is None:
            keys.append(AT(tenant_id, vehicle.vehicle_type))
            number = numbers[vehicle.vehicle_type] = len(keys)
        arguments += (
            number,
            vehicle.vehicle_id,
            vehicle.transporter_id,
            vehicle.vehicle_type,
            position.point.lat,
            position.point.lng,
            _age_ms(now_s, position.at_s),
        )
    return _REPORT(keys, *arguments)


def _heard_from(tenant_id: TenantId, signs: Iterable[_Heard], now: int | str, now_s: float, heard_ms: int) -> Call:
    arguments: list[Argument] = [now, ONLINE.ttl_ms, heard_ms]
    for sign in signs:
        arguments += (sign.transporter_id, _age_ms(now_s, sign.first_s), _age_ms(now_s, sign.last_s))
    return _HEARD_FROM([ONLINE(tenant_id)], *arguments)


def _engage(tenant_id: TenantId, trips: Iterable[_Trip], now: int | str, now_s: float) -> Call:
    arguments: list[Argument] = [now, ENGAGED.ttl_ms]
    for trip in trips:
        arguments += (trip.vehicle_id, int(trip.active), _age_ms(now_s, trip.at_s))
    return _ENGAGE([ENGAGED(tenant_id)], *arguments)


def _age_ms(now_s: float, at_s: float) -> int:
    return max(0, round((now_s - at_s) * 1000))


def _put(waiting: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(waiting) < _MOST_WAITING or key in waiting:
        waiting[key] = value


def _put_back(waiting: dict[_Key, _Value], taken: dict[_Key, _Value]) -> None:
    for key, value in taken.items():
        if key not in waiting:
            _put(waiting, key, value)


def _take(waiting: dict[_Key, _Value]) -> dict[_Key, _Value]:
    taken = dict(islice(waiting.items(), _PER_BATCH))
    for key in taken:
        del waiting[key]
    return taken


def _chunks(all_of_it: list[_Value]) -> Iterator[list[_Value]]:
    for start in range(0, len(all_of_it), _PER_CALL):
        yield all_of_it[start : start + _PER_CALL]
