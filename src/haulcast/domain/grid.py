"""Who is nearest: an exact spatial index in memory, for positions that move all the time.

1. The earth is cut into cells of 1/64 degree of latitude by 1/64 degree of longitude (1.7 km high). Eight by
   eight of them make a cell of the next level, and so on: 1/64, 1/8, 1 and 8 degrees. Each kind has a tree of
   its own: a root, its occupied 8-degree cells, their occupied 1-degree cells, and so down to the leaves,
   which hold entries.
2. Only occupied cells exist. The entry that arrives makes those it lacks, the last one to leave takes them
   along. So nothing grows with the places that were once visited.
3. A move inside a leaf replaces one record. A move out of it walks at most four levels down and four up,
   however many entries there are.
4. A cell knows its centre and its reach: no point in it is farther from its centre than that. By the triangle
   inequality nothing in a cell is nearer to a place than the distance from there to the cell's centre, less
   its reach. This is the only geometry there is, and the sphere's own: the poles and the antimeridian are no
   special cases.
5. A lookup keeps two heaps: cells by that lower bound, and found entries by (distance, key). It opens the
   cell with the lowest bound (the cells inside it, or the entries, take its place) until no unopened cell
   could hold anything as near as the first found entry, and then yields that one. A cell with the same bound
   is opened first, so that equal distances come out in the order of their keys.
6. Hence a lookup costs what lies as near as its answer, not what the index holds: empty land is never looked
   at, and a lookup from another continent opens a few great cells instead of searching its way there. What a
   leaf holds is looked at together: the cost grows with how many stand in the leaves that are opened.

The scheme of 5 is incremental nearest neighbour search (G. Hjaltason and H. Samet, Distance Browsing in
Spatial Databases, ACM TODS 24(2), 1999).
"""

from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import cos, inf, radians
from typing import Any, Generic, Protocol, TypeVar

from .geo import Point, haversine_m

_LEAVES_PER_DEGREE = 64
"""Measured (bench/positions.py): 32 makes a lookup in a city 2 times as long, 128 one in a country 1.5."""
_LEVEL_SHIFTS = (9, 6, 3, 0)
"""A leaf's row or column to that of the cell around it, top level first: 512, 64, 8 and 1 leaves wide."""
_COLUMNS = 360 * _LEAVES_PER_DEGREE
_ROW_STRIDE = 1 << 16
"""A cell's number on its level is row * stride + column."""

_SLACK_M = 1.0
"""Added to each reach: more than haversine errs next to the antipode, or rounding at the edge of a cell."""


class Key(Hashable, Protocol):
    """What an entry is known by: hashable, and orderable among its like."""

    def __lt__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=Key)
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Entry(Generic[V_co]):
    """What the index holds under a key."""

    point: Point
    kind: str
    value: V_co


class GridIndex(Generic[K, V]):
    """Entries with a key, a position, a kind and an opaque value; the nearest first, exactly.

    "Exactly" means the order, and the very bits, of `distance_m` to every entry. Not thread-safe.
    """

    def __init__(self) -> None:
        self._records: dict[K, _Record[K, V]] = {}
        self._roots: dict[str, _Cell[K, V]] = {}  # by kind; no root without an entry below it

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def get(self, key: K) -> Entry[V] | None:
        """The entry under `key`, as last put."""
        record = self._records.get(key)
        return None if record is None else Entry(record.point, record.kind, record.value)

    def put(self, key: K, point: Point, kind: str, value: V) -> None:
        """Add an entry, or replace the one of this key: its position, kind and value. O(1)."""
        row = int((point.lat + 90.0) * _LEAVES_PER_DEGREE)
        column = int((point.lng + 180.0) * _LEAVES_PER_DEGREE) % _COLUMNS  # 180 degrees is the column of -180
        old = self._records.get(key)
        if old is not None and old.kind == kind and old.leaf.number == row * _ROW_STRIDE + column:
            leaf = old.leaf
        else:
            if old is not None:
                self._vacate(key, old)
            leaf = self._occupy(kind, row, column)
        lat = radians(point.lat)
        record = _Record(point, kind, value, leaf, lat, radians(point.lng), cos(lat))
        leaf.records[key] = record
        self._records[key] = record

    def remove(self, key: K) -> bool:
        """Drop the entry under `key`; whether there was one."""
        record = self._records.pop(key, None)
        if record is None:
            return False
        self._vacate(key, record)
        return True

    def nearest(
        self,
        center: Point,
        *,
        kinds: Collection[str],
        radius_m: float | None,
        accept: Callable[[K, V], bool],
    ) -> Iterator[tuple[float, K, V]]:
        """Yield (distance in metres, key, value), the nearest first, equal distances by key; stop at will.

        `kinds`: entries of any of them. `radius_m`: inclusive; None for no limit. `accept` is asked at most
        once for each entry, in no particular order, also for some beyond the last one taken or the radius; it
        must not change the index.

        Take what you need before the index changes. A lookup that goes on after a change does not fail, but
        may miss an entry that moved, or yield it where it was, or twice.
        """
        lat, lng = radians(center.lat), radians(center.lng)
        cos_lat = cos(lat)
        limit_m = inf if radius_m is None else radius_m
        serial = count()  # keeps the heap from comparing cells
        unopened = [(-inf, next(serial), self._roots[kind]) for kind in set(kinds) if kind in self._roots]
        found: list[tuple[float, K, V]] = []
        while True:
            while unopened and (not found or unopened[0][0] <= found[0][0]):
                cell = heappop(unopened)[2]
                for child in cell.children.values():
                    to_center_m = haversine_m(lat, lng, cos_lat, child.lat, child.lng, child.cos_lat)
                    bound_m = to_center_m - child.reach_m
                    if bound_m <= limit_m:
                        heappush(unopened, (bound_m, next(serial), child))
                for key, record in cell.records.items():
                    # Asked before the distance is reckoned and the entry queued, not when its turn comes:
                    # 3.1 ms instead of 9.2 where a city's nearest 5,000 are refused (bench/positions.py).
                    if accept(key, record.value):
                        away_m = haversine_m(lat, lng, cos_lat, record.lat, record.lng, record.cos_lat)
                        if away_m <= limit_m:
                            heappush(found, (away_m, key, record.value))
            if not found:
                return
            yield heappop(found)

    def _occupy(self, kind: str, row: int, column: int) -> "_Cell[K, V]":
        cell = self._roots.get(kind)
        if cell is None:
            cell = self._roots[kind] = _Cell(None, 0)
        for shift in _LEVEL_SHIFTS:
            number = (row >> shift) * _ROW_STRIDE + (column >> shift)
            child = cell.children.get(number)
            if child is None:
                child = cell.children[number] = _cell_at(cell, number, shift)
            cell = child
        return cell

    def _vacate(self, key: K, record: "_Record[K, V]") -> None:
        cell = record.leaf
        del cell.records[key]
        while not cell.records and not cell.children:
            if cell.parent is None:
                del self._roots[record.kind]
                return
            del cell.parent.children[cell.number]
            cell = cell.parent


@dataclass(slots=True, eq=False)
class _Cell(Generic[K, V]):
    """The root, a cell of cells, or a leaf: between two calls it has either children or records."""

    parent: "_Cell[K, V] | None"
    number: int  # on its level; its key in parent.children
    lat: float = 0.0  # of the centre, in radians, as lng
    lng: float = 0.0
    cos_lat: float = 1.0
    reach_m: float = inf
    children: "dict[int, _Cell[K, V]]" = field(default_factory=dict)
    records: "dict[K, _Record[K, V]]" = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Record(Generic[K, V]):
    """An entry with what a lookup would otherwise reckon each time; replaced, never changed."""

    point: Point
    kind: str
    value: V
    leaf: _Cell[K, V]
    lat: float  # in radians, as lng
    lng: float
    cos_lat: float


def _cell_at(parent: _Cell[K, V], number: int, shift: int) -> _Cell[K, V]:
    row, column = divmod(number, _ROW_STRIDE)
    size = (1 << shift) / _LEAVES_PER_DEGREE
    south = row * size - 90.0
    # 8 does not divide 180: the northernmost great cells are half as high. The pole has leaves of no height.
    north = min(south + size, 90.0)
    lat, lng = radians((south + north) / 2), radians((column + 0.5) * size - 180.0)
    # The point of a cell farthest from its centre is a corner: along a parallel the distance grows with the
    # difference in longitude; along a meridian (at most 4 degrees off) it falls to a minimum, then rises.
    corner_lng = lng + radians(size / 2)
    corner_lats = (radians(south), radians(north))
    reach_m = max(haversine_m(lat, lng, cos(lat), corner, corner_lng, cos(corner)) for corner in corner_lats)
    return _Cell(parent, number, lat, lng, cos(lat), reach_m + _SLACK_M)
