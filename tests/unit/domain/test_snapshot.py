"""The store of a view: whoever writes late, twice or out of turn, what stands is the newest of each cluster."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.client.pointer import patch
from haulcast.domain.delta import Delta, difference
from haulcast.domain.snapshot import CLUSTERS, Gap, Source, Store, WrongSource
from haulcast.domain.views import broadcast_view

from .strategies import begun

VIEW: dict[str, Any] = {
    "status": "searching",
    "wave": 1,
    "notified": 3,
    "requests": {"r1": {"status": "searching"}, "r2": {"status": "searching"}},
    "remaining_requests": 2,
    "trips": {},
}


ROUTE: dict[str, Any] = {"status": "ok", "vehicles": {"v1": {"distance_m": 900}, "v2": {"distance_m": 1_200}}}
OWNER, ROUTES = Source.OWNER, Source.ROUTES


class Book(Store):
    """A store that counts what it rejects."""

    def __init__(self, capacity: int = 10) -> None:
        self.rejected: Counter[str] = Counter()
        super().__init__(capacity, lambda cluster: self.rejected.update([cluster]))

    def own(self, key: str, version: tuple[int, int], fields: dict[str, Any], now_ms: int = 0) -> Delta:
        """The owner writes all."""
        return self.write(key, OWNER, version, fields, now_ms)


def store_of(version: tuple[int, int] = (1, 1), **fields: Any) -> Book:
    store = Book()
    store.own("b1", version, {**VIEW, **fields})
    return store


class TestWrite:
    def test_a_new_entity_is_its_whole_view(self) -> None:
        store = Book()
        delta = store.own("b1", (1, 1), VIEW)
        assert delta.set == {f"/{field}": value for field, value in VIEW.items()}
        assert store.fields("b1") == VIEW

    def test_what_is_written_again_changes_nothing(self) -> None:
        store = store_of()
        assert not store.own("b1", (1, 1), VIEW)

    def test_what_changed_comes_back_by_field(self) -> None:
        store = store_of()
        requests = {**VIEW["requests"], "r1": {"status": "assigned"}}
        delta = store.own("b1", (1, 2), {**VIEW, "requests": requests})
        assert delta == Delta({"/requests/r1/status": "assigned"})

    def test_a_late_one_changes_nothing_and_is_counted(self) -> None:
        store = store_of()
        store.amend("b1", 1, (1, 2), Delta({"/wave": 2}), 0)
        assert not store.own("b1", (1, 1), VIEW)
        assert store.fields("b1")["wave"] == 2
        assert store.rejected == {"lifecycle": 1, "fill": 1, "reach": 1, "trips": 1}
        assert store.version("b1") == (1, 2)


class TestAmend:
    def test_what_follows_is_applied(self) -> None:
        store = store_of()
        changed = Delta({"/trips/t1": {"status": "assigned"}, "/remaining_requests": 1})
        assert store.amend("b1", 1, (1, 2), changed, 0) == changed
        gone = Delta({}, ("/trips/t1",))
        assert store.amend("b1", 2, (2, 3), gone, 0) == gone
        assert store.fields("b1") == {**VIEW, "remaining_requests": 1}

    def test_what_is_known_changes_nothing_and_is_counted(self) -> None:
        store = store_of((2, 5))
        assert not store.amend("b1", 4, (2, 5), Delta({"/wave": 7}), 0)
        assert not store.amend("b1", 6, (1, 7), Delta({"/status": "expired"}), 0)
        assert store.fields("b1") == VIEW
        assert store.rejected == {"reach": 1, "lifecycle": 1}

    @pytest.mark.parametrize(("key", "since"), [("b1", 2), ("b1", 0), ("unknown", 1)])
    def test_what_does_not_fit_is_a_gap_and_changes_nothing(self, key: str, since: int) -> None:
        store = store_of()
        with pytest.raises(Gap):
            store.amend(key, since, (1, 9), Delta({"/wave": 9}), 0)
        assert [*store] == ["b1"]
        assert store.fields("b1") == VIEW

    def test_a_takeover_is_no_gap(self) -> None:
        store = store_of((1, 4))
        assert store.amend("b1", 4, (3, 5), Delta({"/wave": 2}), 0)

    def test_a_pointer_may_name_keys_with_slashes(self) -> None:
        store = store_of(trips={"a/b~c": {"status": "assigned"}})
        store.amend("b1", 1, (1, 2), Delta({"/trips/a~1b~0c/status": "loaded"}), 0)
        assert store.fields("b1")["trips"] == {"a/b~c": {"status": "loaded"}}


class TestClusters:
    def test_every_field_of_a_broadcast_is_of_one_cluster_and_its_owners(self) -> None:
        named = [field for cluster in CLUSTERS.values() for field in cluster.fields]
        assert len(named) == len(set(named))
        owned = [field for cluster in CLUSTERS.values() if cluster.source is OWNER for field in cluster.fields]
        assert set(owned) == broadcast_view(begun().state).keys()

    def test_the_owner_leaves_alone_what_a_collector_wrote(self) -> None:
        store = store_of()
        assert store.write("b1", ROUTES, (0, 1), {"route": ROUTE}, 0) == Delta({"/route": ROUTE})
        assert store.own("b1", (1, 2), {**VIEW, "wave": 2}) == Delta({"/wave": 2})
        assert store.amend("b1", 2, (1, 3), Delta({"/wave": 3}), 0)
        assert store.fields("b1") == {**VIEW, "wave": 3, "route": ROUTE}
        assert store.fields("b1")["route"] is ROUTE

    def test_a_collector_leaves_alone_what_the_owner_wrote(self) -> None:
        store = store_of((4, 7))
        store.write("b1", ROUTES, (0, 1), {"route": ROUTE}, 0)
        farther = {**ROUTE, "vehicles": {**ROUTE["vehicles"], "v2": {"distance_m": 1_300}}}
        assert store.write("b1", ROUTES, (0, 2), {"route": farther}, 0) == Delta(
            {"/route/vehicles/v2/distance_m": 1_300}
        )
        assert (store.version("b1"), store.version("b1", "route")) == ((4, 7), (0, 2))
        assert store.fields("b1") == {**VIEW, "route": farther}

    def test_a_late_write_of_a_collector_changes_nothing_and_is_counted(self) -> None:
        store = store_of()
        store.write("b1", ROUTES, (0, 2), {"route": ROUTE}, 0)
        assert not store.write("b1", ROUTES, (0, 1), {"route": None}, 0)
        assert store.fields("b1")["route"] == ROUTE
        assert store.rejected == {"route": 1}

    def test_nobody_writes_what_is_anothers(self) -> None:
        store = store_of()
        with pytest.raises(WrongSource):
            store.own("b1", (1, 2), {**VIEW, "route": ROUTE})
        with pytest.raises(WrongSource):
            store.amend("b1", 1, (1, 2), Delta({"/route/status": "failing"}), 0)
        with pytest.raises(WrongSource):
            store.amend("b1", 1, (1, 2), Delta({}, ("/route",)), 0)
        with pytest.raises(WrongSource):
            store.write("b1", ROUTES, (0, 1), {"route": ROUTE, "wave": 9}, 0)
        assert store.fields("b1") == VIEW
        assert not store.rejected

    def test_of_what_is_not_there_or_has_ended_a_collector_says_nothing(self) -> None:
        store = store_of()
        assert not store.write("unknown", ROUTES, (0, 1), {"route": ROUTE}, 0)
        assert "unknown" not in store
        store.write("b1", ROUTES, (0, 2), {"route": ROUTE}, 0)
        store.end("b1")
        assert store.fields("b1") == VIEW
        assert not store.write("b1", ROUTES, (0, 3), {"route": ROUTE}, 0)
        assert store.fields("b1") == VIEW
        assert store.rejected == {"route": 2}
        assert store.own("b1", (1, 2), {**VIEW, "trips": {"t": 1}})

    def test_each_cluster_tells_when_it_changed(self) -> None:
        store = Book()
        store.own("b1", (1, 1), VIEW, now_ms=10)
        store.own("b1", (1, 2), {**VIEW, "wave": 2}, now_ms=20)
        store.amend("b1", 2, (1, 3), Delta({"/trips/t1": {}, "/remaining_requests": 1}), 30)
        store.write("b1", ROUTES, (0, 1), {"route": ROUTE}, 40)
        store.write("b1", ROUTES, (0, 2), {"route": ROUTE}, 50)
        changed = {cluster: store.changed_ms("b1", cluster) for cluster in CLUSTERS}
        assert changed == {"lifecycle": 10, "fill": 30, "reach": 20, "trips": 30, "route": 40}
        assert store.changed_ms("unknown", "fill") is None

    def test_what_an_owner_of_a_later_version_shows_is_the_owners(self) -> None:
        store = store_of(rating=5)
        store.write("b1", ROUTES, (0, 1), {"route": ROUTE}, 0)
        store.own("b1", (1, 2), VIEW)
        assert store.fields("b1") == {**VIEW, "route": ROUTE}


class TestBounds:
    def test_whoever_is_dropped_is_gone(self) -> None:
        store = store_of()
        assert store.drop("b1")
        assert not store.drop("b1")
        assert len(store) == 0

    def test_ended_ones_go_first_and_then_those_that_were_written_longest_ago(self) -> None:
        store = Book(capacity=3)
        for key in ("a", "b", "c", "d", "e"):
            store.own(key, (1, 1), VIEW)
        store.end("d")
        store.end("unknown")
        store.own("a", (1, 2), VIEW)
        store.write("b", ROUTES, (0, 1), {"route": ROUTE}, 0)  # is no sign of life of its owner
        assert store.shrink() == ["d", "b"]
        assert [*store] == ["c", "e", "a"]
        assert store.shrink() == []


views = st.fixed_dictionaries(
    {"status": st.sampled_from("ab"), "wave": st.integers(0, 2), "remaining_requests": st.integers(0, 2)},
    optional={"trips": st.dictionaries(st.sampled_from("xy"), st.integers(0, 2))},
)


@given(st.lists(views, min_size=1, max_size=8), st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=30))
def test_whatever_is_doubled_or_comes_out_of_order_the_newest_stands(
    history: list[dict[str, Any]], arrivals: list[tuple[int, bool]]
) -> None:
    """States and deltas of one broadcast arrive in any order; what each call returns leads a reader to the same."""
    store, reader = Book(capacity=1), dict[str, Any]()
    newest = -1
    for number, whole in [*arrivals, (len(history) - 1, True)]:
        seq = number % len(history)
        if whole or seq == 0:
            delta = store.own("b", (1, seq), history[seq])
        else:
            step = difference(history[seq - 1], history[seq])
            try:
                delta = store.amend("b", seq - 1, (1, seq), step, 0)
            except Gap:
                continue
        newest = max(newest, seq)
        assert store.fields("b") == history[newest]
        mirror = Book(capacity=1)
        mirror.own("b", (1, 0), reader)
        mirror.amend("b", 0, (1, 1), delta, 0)
        reader = dict(mirror.fields("b"))
        assert reader == history[newest]


@given(
    st.lists(views, min_size=1, max_size=6),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from(["whole", "step", "route"]), st.integers(0, 5)), max_size=30),
)
def test_in_whatever_order_both_sources_write_the_newest_of_each_stands(
    history: list[dict[str, Any]], routes: list[int], arrivals: list[tuple[str, int]]
) -> None:
    """And neither ever changes what is the other's; what each call returns leads a reader to the same."""
    store, reader = Book(capacity=1), dict[str, Any]()
    newest = {OWNER: 0, ROUTES: -1}
    store.own("b", (1, 0), history[0])
    reader = dict(store.fields("b"))
    for way, number in [*arrivals, ("whole", len(history) - 1), ("route", len(routes) - 1)]:
        seq = number % len(history if way != "route" else routes)
        late = seq < newest[ROUTES if way == "route" else OWNER]
        rejected = store.rejected.copy()
        try:
            if way == "route":
                delta = store.write("b", ROUTES, (0, seq), {"route": {"vehicles": routes[seq]}}, 0)
            elif way == "whole" or seq == 0:
                delta = store.own("b", (1, seq), history[seq])
            else:
                delta = store.amend("b", seq - 1, (1, seq), difference(history[seq - 1], history[seq]), 0)
        except Gap:
            assert seq > newest[OWNER] + 1
            continue
        if late and (way != "step" or seq == 0 or history[seq - 1] != history[seq]):
            assert store.rejected != rejected
        source = ROUTES if way == "route" else OWNER
        newest[source] = max(newest[source], seq)
        shown = {} if newest[ROUTES] < 0 else {"route": {"vehicles": routes[newest[ROUTES]]}}
        assert store.fields("b") == {**history[newest[OWNER]], **shown}
        reader = applied(reader, delta)
        assert reader == store.fields("b")


def applied(reader: dict[str, Any], delta: Delta) -> dict[str, Any]:
    """What a client makes of a delta."""
    return dict(patch(reader, delta.set, delta.gone))
