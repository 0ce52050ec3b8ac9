"""The index against brute force, and what its theory of operation promises beyond the right answer."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from math import degrees, inf, nan, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.geo import FARTHEST_M, Point, distance_m
from haulcast.domain.grid import Entry, GridIndex, _Cell

KINDS = ("van", "truck", "trailer")
MUMBAI = Point(19.076, 72.8777)

Accept = Callable[[int, object], bool]


def anyone(key: object, value: object) -> bool:
    return True


def brute_force(
    entries: dict[int, Entry[object]],
    center: Point,
    kinds: Collection[str],
    radius_m: float | None,
    accept: Accept,
) -> list[tuple[float, int, object]]:
    found = [
        (distance_m(center, entry.point), key, entry.value)
        for key, entry in entries.items()
        if entry.kind in kinds and accept(key, entry.value)
    ]
    limit_m = inf if radius_m is None else radius_m
    return sorted((each for each in found if each[0] <= limit_m), key=lambda each: each[:2])


def keys_nearest(
    index: GridIndex[int, object],
    center: Point,
    kinds: Collection[str] = KINDS,
    radius_m: float | None = None,
) -> list[int]:
    return [key for _, key, _ in index.nearest(center, kinds=kinds, radius_m=radius_m, accept=anyone)]


def check_cells(index: GridIndex[int, object]) -> None:
    """Rules 1, 2 and 4: entries are below the root of their kind, no cell is empty, no reach is too short."""
    held: list[int] = []

    def visit(cell: _Cell[int, object], kind: str, above: list[_Cell[int, object]]) -> None:
        assert bool(cell.children) != bool(cell.records)
        for number, child in cell.children.items():
            assert (child.parent, child.number) == (cell, number)
            visit(child, kind, [*above, child])
        for key, record in cell.records.items():
            assert record is index._records[key]
            assert (record.leaf, record.kind) == (cell, kind)
            for each in above:
                away_m = distance_m(record.point, Point(degrees(each.lat), degrees(each.lng)))
                assert away_m <= each.reach_m
            held.append(key)

    for kind, root in index._roots.items():
        assert root.parent is None
        visit(root, kind, [])
    assert sorted(held) == sorted(index._records)


# Places crowd around a few anchors, on a lattice: ties, shared leaves and edges between two are common.
anchors = st.sampled_from(
    [
        Point(0.0, 0.0),
        MUMBAI,
        Point(52.0, 13.0),  # the corner of four leaves, and of four greater cells
        Point(90.0, 0.0),
        Point(-90.0, 0.0),
        Point(86.0, 100.0),  # the edge of the northernmost great cells
        Point(0.0, 180.0),
        Point(-17.0, -180.0),
        Point(68.0, 180.0),
    ]
)
steps = (1e-9, 0.001, 1 / 64, 0.02, 0.125, 1.0, 8.0)
offsets = st.sampled_from((0.0, *steps, *(-step for step in steps)))


def near(anchor: Point, north: float, east: float) -> Point:
    lng = anchor.lng + east
    if abs(lng) > 180.0:
        lng -= 360.0 if lng > 0.0 else -360.0
    return Point(max(-90.0, min(90.0, anchor.lat + north)), max(-180.0, min(180.0, lng)))


poles = st.sampled_from((Point(90.0, 0.0), Point(-90.0, 0.0)))
points = (
    st.builds(near, anchors, offsets, offsets)
    | st.builds(near, poles, offsets, st.floats(-180.0, 180.0))
    | st.builds(Point, st.floats(-90.0, 90.0), st.floats(-180.0, 180.0))
)


@dataclass(frozen=True, slots=True)
class Put:
    key: int
    point: Point
    kind: str


@dataclass(frozen=True, slots=True)
class Remove:
    key: int


keys = st.integers(0, 30)
puts = st.builds(Put, keys, points, st.sampled_from(KINDS))
operations = st.lists(puts | st.builds(Remove, keys), max_size=80)
some_kinds = st.lists(st.sampled_from((*KINDS, "unheard of")), max_size=4)


def after(done: list[Put | Remove]) -> tuple[GridIndex[int, object], dict[int, Entry[object]]]:
    index: GridIndex[int, object] = GridIndex()
    entries: dict[int, Entry[object]] = {}
    for operation in done:
        match operation:
            case Put(key, point, kind):
                value = object()  # cannot be ordered, is equal to nothing else
                index.put(key, point, kind, value)
                entries[key] = Entry(point, kind, value)
            case Remove(key):
                assert index.remove(key) == (entries.pop(key, None) is not None)
    return index, entries


@given(operations)
def test_holds_what_was_put_last_and_not_removed_since(done: list[Put | Remove]) -> None:
    index, entries = after(done)
    assert len(index) == len(entries)
    for key in range(31):
        assert (key in index) == (key in entries)
        assert index.get(key) == entries.get(key)


@given(operations)
def test_keeps_no_empty_cell_and_none_that_reaches_too_short(done: list[Put | Remove]) -> None:
    index, _ = after(done)
    check_cells(index)


@given(operations, points, some_kinds, st.integers(1, 4), st.data())
def test_nearest_is_what_brute_force_finds(
    done: list[Put | Remove], center: Point, kinds: list[str], every: int, data: st.DataObject
) -> None:
    """To the bit, in distance, order and value; with radii that end just at, before and behind an entry."""
    index, entries = after(done)
    at_entries = [distance_m(center, entry.point) for entry in entries.values()] or [0.0]
    edge_m = data.draw(st.sampled_from(at_entries))
    radius_m = data.draw(
        st.none()
        | st.sampled_from((edge_m, nextafter(edge_m, 0.0), nextafter(edge_m, inf), 0.0, FARTHEST_M))
        | st.floats(0.0, FARTHEST_M)
    )

    def accept(key: int, value: object) -> bool:
        assert entries[key].value is value
        return key % every == 0

    found = list(index.nearest(center, kinds=kinds, radius_m=radius_m, accept=accept))
    assert found == brute_force(entries, center, kinds, radius_m, accept)


def test_equal_distances_come_in_the_order_of_keys_also_from_different_cells_and_kinds() -> None:
    index: GridIndex[int, object] = GridIndex()
    around = [Point(0.0, 1.0), Point(0.0, -1.0), Point(1.0, 0.0), Point(-1.0, 0.0)]
    for key in (7, 3, 11, 0, 5, 9, 2, 4):
        index.put(key, around[key % 4], KINDS[key % 3], object())
    found = list(index.nearest(Point(0.0, 0.0), kinds=KINDS, radius_m=None, accept=anyone))
    assert len({away_m for away_m, _, _ in found}) == 1
    assert keys_nearest(index, Point(0.0, 0.0)) == [0, 2, 3, 4, 5, 7, 9, 11]


def test_the_radius_includes_its_edge() -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, Point(19.1, 72.9), "van", None)
    edge_m = distance_m(MUMBAI, Point(19.1, 72.9))
    assert keys_nearest(index, MUMBAI, radius_m=edge_m) == [1]
    assert keys_nearest(index, MUMBAI, radius_m=nextafter(edge_m, 0.0)) == []


@pytest.mark.parametrize("radius_m", [-1.0, nan])
def test_a_radius_that_holds_nothing_finds_nothing(radius_m: float) -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, MUMBAI, "van", None)
    assert keys_nearest(index, MUMBAI, radius_m=radius_m) == []


def test_a_kind_named_twice_yields_its_entries_once() -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, MUMBAI, "van", None)
    assert keys_nearest(index, MUMBAI, kinds=["van", "van"]) == [1]


def test_neighbours_across_the_antimeridian_are_near() -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, Point(-17.0, 179.0), "van", None)
    index.put(2, Point(-17.0, -179.999), "van", None)
    index.put(3, Point(-17.0, -180.0), "van", None)
    index.put(4, Point(-17.0, 180.0), "van", None)
    assert keys_nearest(index, Point(-17.0, 179.9999))[2:] == [2, 1]


def test_neighbours_across_a_pole_are_near() -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, Point(89.0, 10.0), "van", None)
    index.put(2, Point(89.9, -170.0), "van", None)
    assert keys_nearest(index, Point(89.9, 10.0)) == [2, 1]


def test_a_move_leaves_nothing_behind() -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, MUMBAI, "van", "old")
    index.put(1, Point(28.6, 77.2), "truck", "new")
    assert len(index) == 1
    assert index.get(1) == Entry(Point(28.6, 77.2), "truck", "new")
    assert keys_nearest(index, MUMBAI, kinds=["van"]) == []
    assert keys_nearest(index, MUMBAI, kinds=["truck"]) == [1]
    check_cells(index)


def test_a_new_kind_at_the_same_place_is_found_as_that_kind_only() -> None:
    index: GridIndex[int, object] = GridIndex()
    index.put(1, MUMBAI, "van", None)
    index.put(1, MUMBAI, "truck", None)
    assert keys_nearest(index, MUMBAI, kinds=["van"]) == []
    assert keys_nearest(index, MUMBAI, kinds=["truck"]) == [1]
    check_cells(index)


def test_an_emptied_index_holds_no_cells() -> None:
    index: GridIndex[int, object] = GridIndex()
    for key in range(500):
        index.put(key, Point(key % 180 - 90.0, key * 0.7 - 180.0), KINDS[key % 3], None)
        index.put(key, Point(key % 90 - 45.0, key * 0.3 - 90.0), KINDS[key % 2], None)
    for key in range(500):
        assert index.remove(key)
    assert (len(index), index._records, index._roots) == (0, {}, {})


def test_stopping_early_leaves_far_away_entries_unasked() -> None:
    index: GridIndex[int, object] = GridIndex()
    for key in range(1000):
        index.put(key, Point(key % 100 - 50.0, key // 100 * 10.0), "van", None)
    asked: list[int] = []

    def accept(key: int, value: object) -> bool:
        asked.append(key)
        return True

    nearest = index.nearest(Point(0.0, 0.0), kinds=KINDS, radius_m=None, accept=accept)
    assert [key for _, key, _ in islice(nearest, 3)] == [50, 49, 51]
    assert len(asked) < 10


def test_an_entry_is_asked_about_once() -> None:
    index, _ = after([Put(key, near(MUMBAI, key * 0.01, -key * 0.3), KINDS[key % 3]) for key in range(100)])
    asked: list[int] = []

    def accept(key: int, value: object) -> bool:
        asked.append(key)
        return key % 2 == 0

    list(index.nearest(MUMBAI, kinds=KINDS, radius_m=None, accept=accept))
    assert sorted(asked) == list(range(100))


def test_a_lookup_that_goes_on_after_a_change_does_not_fail() -> None:
    index, _ = after([Put(key, near(MUMBAI, key * 0.002, 0.0), "van") for key in range(100)])
    nearest = index.nearest(MUMBAI, kinds=KINDS, radius_m=None, accept=anyone)
    before = [key for _, key, _ in islice(nearest, 10)]
    for key in range(100):
        index.remove(key)
    for key in range(100, 200):
        index.put(key, near(MUMBAI, 0.0, key * 0.002), "van", None)
    assert before == list(range(10))
    assert {key for _, key, _ in nearest} <= set(range(10, 200))
