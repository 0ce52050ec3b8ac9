"""The store of a view: whoever writes late, twice or out of turn, what stands is the newest of each cluster."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.delta import Delta, difference
from haulcast.domain.snapshot import Gap, Store

VIEW: dict[str, Any] = {
    "status": "searching",
    "wave": 1,
    "notified": 3,
    "requests": {"r1": {"status": "searching"}, "r2": {"status": "searching"}},
    "remaining_requests": 2,
    "trips": {},
}


def store_of(version: tuple[int, int] = (1, 1), **fields: Any) -> Store:
    store = Store(capacity=10)
    store.write("b1", version, {**VIEW, **fields})
    return store


class TestWrite:
    def test_a_new_entity_is_its_whole_view(self) -> None:
        store = Store(capacity=10)
        delta = store.write("b1", (1, 1), VIEW)
        assert delta.set == {f"/{field}": value for field, value in VIEW.items()}
        assert store.fields("b1") == VIEW

    def test_what_is_written_again_changes_nothing(self) -> None:
        store = store_of()
        assert not store.write("b1", (1, 1), VIEW)

    def test_what_changed_comes_back_by_field(self) -> None:
        store = store_of()
        requests = {**VIEW["requests"], "r1": {"status": "assigned"}}
        delta = store.write("b1", (1, 2), {**VIEW, "requests": requests})
        assert delta == Delta({"/requests/r1/status": "assigned"})

    def test_a_late_one_changes_nothing_and_is_counted(self) -> None:
        store = store_of()
        store.amend("b1", 1, (1, 2), Delta({"/wave": 2}))
        assert not store.write("b1", (1, 1), VIEW)
        assert store.fields("b1")["wave"] == 2
        assert store.rejected == 1
        assert store.version("b1") == (1, 2)


class TestAmend:
    def test_what_follows_is_applied(self) -> None:
        store = store_of()
        changed = Delta({"/trips/t1": {"status": "assigned"}, "/remaining_requests": 1})
        assert store.amend("b1", 1, (1, 2), changed) == changed
        gone = Delta({}, ("/trips/t1",))
        assert store.amend("b1", 2, (2, 3), gone) == gone
        assert store.fields("b1") == {**VIEW, "remaining_requests": 1}

    def test_what_is_known_changes_nothing_and_is_counted(self) -> None:
        store = store_of((2, 5))
        assert not store.amend("b1", 4, (2, 5), Delta({"/wave": 7}))
        assert not store.amend("b1", 6, (1, 7), Delta({"/status": "expired"}))
        assert store.fields("b1") == VIEW
        assert store.rejected == 2

    @pytest.mark.parametrize(("key", "since"), [("b1", 2), ("b1", 0), ("unknown", 1)])
    def test_what_does_not_fit_is_a_gap_and_changes_nothing(self, key: str, since: int) -> None:
        store = store_of()
        with pytest.raises(Gap):
            store.amend(key, since, (1, 9), Delta({"/wave": 9}))
        assert [*store] == ["b1"]
        assert store.fields("b1") == VIEW

    def test_a_takeover_is_no_gap(self) -> None:
        store = store_of((1, 4))
        assert store.amend("b1", 4, (3, 5), Delta({"/wave": 2}))

    def test_a_pointer_may_name_keys_with_slashes(self) -> None:
        store = store_of(trips={"a/b~c": {"status": "assigned"}})
        store.amend("b1", 1, (1, 2), Delta({"/trips/a~1b~0c/status": "loaded"}))
        assert store.fields("b1")["trips"] == {"a/b~c": {"status": "loaded"}}


class TestBounds:
    def test_whoever_is_dropped_is_gone(self) -> None:
        store = store_of()
        assert store.drop("b1")
        assert not store.drop("b1")
        assert len(store) == 0

    def test_ended_ones_go_first_and_then_those_that_were_written_longest_ago(self) -> None:
        store = Store(capacity=3)
        for key in ("a", "b", "c", "d", "e"):
            store.write(key, (1, 1), VIEW)
        store.end("d")
        store.end("unknown")
        store.write("a", (1, 2), VIEW)
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
    store, reader = Store(capacity=1), dict[str, Any]()
    newest = -1
    for number, whole in [*arrivals, (len(history) - 1, True)]:
        seq = number % len(history)
        if whole or seq == 0:
            delta = store.write("b", (1, seq), history[seq])
        else:
            step = difference(history[seq - 1], history[seq])
            try:
                delta = store.amend("b", seq - 1, (1, seq), step)
            except Gap:
                continue
        newest = max(newest, seq)
        assert store.fields("b") == history[newest]
        mirror = Store(capacity=1)
        mirror.write("b", (1, 0), reader)
        mirror.amend("b", 0, (1, 1), delta)
        reader = dict(mirror.fields("b"))
        assert reader == history[newest]
