"""Topics: deltas applied exactly, gaps noticed, missed events made up for."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.client import Event, Topic, Version
from haulcast.client.pointer import PatchError, patch
from haulcast.client.protocol import Delta, JsonObject, Snapshot
from haulcast.client.topics import CLOSED_OFFER_SHOWN_MS, MAX_RESUMED, OVER_TOPICS, Applied, Subscriptions

FEED = "feed:t1"

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.text(alphabet="ab/~ é0", max_size=3)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
states = st.dictionaries(keys, values, max_size=4)


def difference(before: JsonObject, after: JsonObject, at: str = "") -> tuple[JsonObject, list[str]]:
    """Pointers to set and to delete, as a server would find them."""
    changed: JsonObject = {}
    gone: list[str] = []
    for key in before.keys() | after.keys():
        pointer = at + "/" + key.replace("~", "~0").replace("/", "~1")
        old, new = before.get(key), after.get(key)
        if key not in after:
            gone.append(pointer)
        elif key in before and isinstance(old, dict) and isinstance(new, dict):
            inner_changed, inner_gone = difference(old, new, pointer)
            changed |= inner_changed
            gone += inner_gone
        elif key not in before or old != new or type(old) is not type(new):
            changed[pointer] = new
    return changed, gone


def snapshot(data: JsonObject, seq: int = 1, topic: str = FEED) -> Snapshot:
    return Snapshot(topic, Version(1, seq), 1000 + seq, data)


def delta(base: int, seq: int, set_: JsonObject | None = None, *gone: str, topic: str = FEED) -> Delta:
    return Delta(topic, Version(1, base), Version(1, seq), 1000 + seq, set_ or {}, gone)


def event(name: str, data: JsonObject, seq: int = 2, topic: str = FEED) -> Event:
    return Event(topic, name, data, Version(1, seq), 1000 + seq)


def told(events: list[Event]) -> list[tuple[str, JsonObject]]:
    assert all(event.replayed for event in events)
    return [(event.event, event.data) for event in events]


# --- pointers ---


@given(states, states)
def test_patching_with_a_difference_gives_the_other_state(before: JsonObject, after: JsonObject) -> None:
    kept = copy.deepcopy(before)
    changed, gone = difference(before, after)
    assert patch(before, changed, gone) == after
    assert before == kept


@given(states)
def test_what_a_delta_does_not_name_is_not_copied(state: JsonObject) -> None:
    patched = patch({**state, "left": {"alone": 1}}, {"/new": 1}, ())
    assert patched["new"] == 1
    assert all(patched[key] is state[key] for key in state if key not in ("new", "left"))


def test_pointers_reach_into_lists() -> None:
    state = {"a": [1, {"b": 2}, 3]}
    assert patch(state, {"/a/1/b": 5}, ()) == {"a": [1, {"b": 5}, 3]}
    assert patch(state, {}, ["/a/0"]) == {"a": [{"b": 2}, 3]}


def test_the_empty_pointer_is_the_whole_state() -> None:
    assert patch({"a": 1}, {"": {"b": 2}}, ()) == {"b": 2}
    with pytest.raises(PatchError):
        patch({"a": 1}, {"": 5}, ())
    with pytest.raises(PatchError):
        patch({"a": 1}, {}, [""])


def test_deleting_what_is_not_there_is_done_already() -> None:
    assert patch({"offers": {}}, {}, ["/offers/b1"]) == {"offers": {}}


@pytest.mark.parametrize("pointer", ["/missing/x", "/text/x", "/list/9", "/list/-", "/list/²", "no-slash", "/n/x"])
def test_a_pointer_that_leads_nowhere_is_an_error(pointer: str) -> None:
    state: dict[str, Any] = {"text": "abc", "list": [1], "n": None}
    with pytest.raises(PatchError):
        patch(state, {pointer: 1}, ())
    with pytest.raises(PatchError):
        patch(state, {}, [pointer + "/deeper"])
    assert state == {"text": "abc", "list": [1], "n": None}


# --- versions ---


@given(st.lists(states, min_size=2, max_size=6), st.data())
def test_a_lost_delta_is_always_noticed(history: list[JsonObject], data: st.DataObject) -> None:
    lost = data.draw(st.integers(1, len(history) - 1))
    topic = Topic(FEED)
    topic.take_snapshot(snapshot(history[0], seq=1))
    for seq in range(1, len(history)):
        changed, gone = difference(history[seq - 1], history[seq])
        if seq == lost:
            continue
        outcome = topic.take_delta(delta(seq, seq + 1, changed, *gone))
        expected = Applied.DONE if seq < lost else Applied.GAP if seq == lost + 1 else Applied.OLD
        assert outcome is expected
    assert topic.version == Version(1, lost)
    assert topic.state == history[lost - 1]


def test_after_a_gap_only_a_snapshot_counts() -> None:
    topic = Topic(FEED)
    topic.take_snapshot(snapshot({"a": 1}, seq=1))
    assert topic.take_delta(delta(2, 3, {"/a": 3})) is Applied.GAP
    assert topic.stale
    assert topic.take_delta(delta(1, 2, {"/a": 2})) is Applied.OLD
    topic.take_snapshot(snapshot({"a": 4}, seq=4))
    assert not topic.stale
    assert topic.take_delta(delta(4, 5, {"/a": 5})) is Applied.DONE
    assert (topic.state, topic.version) == ({"a": 5}, Version(1, 5))


def test_a_delta_that_the_snapshot_has_already_is_skipped() -> None:
    topic = Topic(FEED)
    topic.take_snapshot(snapshot({"a": 1}, seq=7))
    assert topic.take_delta(delta(6, 7, {"/a": 0})) is Applied.OLD
    assert topic.take_delta(delta(5, 6, {"/a": 0})) is Applied.OLD
    assert topic.state == {"a": 1}


def test_a_delta_that_does_not_fit_is_a_gap() -> None:
    topic = Topic(FEED)
    topic.take_snapshot(snapshot({}, seq=1))
    assert topic.take_delta(delta(1, 2, {"/offers/b1/status": "closed"})) is Applied.GAP


def test_a_new_owner_outranks_an_old_one() -> None:
    topic = Topic(FEED)
    topic.take_snapshot(snapshot({"a": 1}, seq=90))
    assert topic.take_delta(Delta(FEED, Version(1, 90), Version(2, 1), 0, {"/a": 2}, ())) is Applied.DONE
    assert topic.take_delta(Delta(FEED, Version(1, 90), Version(1, 91), 0, {"/a": 0}, ())) is Applied.OLD
    assert topic.state == {"a": 2}


# --- events ---


def offer(status: str = "open", **more: Any) -> JsonObject:
    return {"broadcast_id": "b1", "status": status, "vehicle_id": "v1", **more}


def trip(status: str = "assigned", **more: Any) -> JsonObject:
    return {"trip_id": "b1-1-t", "status": status, "broadcast_id": "b1", **more}


def test_an_offer_event_brings_the_offer() -> None:
    subscriptions = Subscriptions()
    subscriptions.take(snapshot({"offers": {}, "trips": {}}))
    subscriptions.take(delta(1, 2, {"/offers/b1": offer()}))
    (heard,), gap = subscriptions.take(event("offer", {"broadcast_id": "b1"}))
    assert heard.data == offer()
    assert not heard.replayed
    assert not gap


def test_the_first_snapshot_tells_what_is_open() -> None:
    topic = Topic(FEED)
    shown = {"offers": {"b1": offer(), "b2": offer("closed", reason="expired")}, "trips": {"b1-1-t": trip()}}
    assert told(topic.take_snapshot(snapshot(shown))) == [("offer", offer()), ("trip_assigned", trip())]


def test_a_snapshot_after_a_gap_tells_only_what_was_missed() -> None:
    topic = Topic(FEED)
    topic.take_snapshot(
        snapshot({"offers": {"b1": offer(), "b3": offer()}, "trips": {"b0-1-t": trip(broadcast_id="b0")}})
    )
    topic.take_event(event("offer", {"broadcast_id": "b2"}))
    later = {
        "offers": {"b1": offer("closed", reason="customer_cancelled"), "b2": offer(), "b4": offer(note="b4")},
        "trips": {"b0-1-t": trip("loaded", broadcast_id="b0"), "b3-1-t": trip(broadcast_id="b3")},
    }
    assert told(topic.take_snapshot(snapshot(later, seq=9))) == [
        ("offer", offer(note="b4")),  # b2 had been told
        ("trip_updated", trip("loaded", broadcast_id="b0")),
        ("trip_assigned", trip(broadcast_id="b3")),  # and so b3's offer is not "closed"
        ("offer_closed", {"broadcast_id": "b1", "reason": "customer_cancelled"}),
    ]
    assert topic.take_snapshot(snapshot(later, seq=9)) == []


def test_an_offer_that_is_gone_without_a_reason_is_closed() -> None:
    topic = Topic(FEED)
    topic.take_snapshot(snapshot({"offers": {"b1": offer()}, "trips": {}}))
    missed = topic.take_snapshot(snapshot({"offers": {}, "trips": {}}, seq=5))
    assert told(missed) == [("offer_closed", {"broadcast_id": "b1", "reason": None})]


def test_what_the_user_saw_live_is_not_told_again() -> None:
    subscriptions = Subscriptions()
    subscriptions.take(snapshot({"offers": {}, "trips": {}}))
    subscriptions.take(delta(1, 2, {"/offers/b1": offer()}))
    subscriptions.take(event("offer", {"broadcast_id": "b1"}))
    subscriptions.take(delta(2, 3, {}, "/offers/b1"))  # declined
    subscriptions.take(delta(3, 4, {"/trips/b1-1-t": trip()}))
    subscriptions.take(event("trip_assigned", trip(), seq=4))
    subscriptions.take(delta(4, 5, {}, "/trips/b1-1-t"))
    subscriptions.take(event("trip_updated", trip("delivered"), seq=5))
    assert subscriptions.take(snapshot({"offers": {}, "trips": {}}, seq=6)) == ([], False)


def test_what_a_snapshot_told_is_not_told_again_by_its_event() -> None:
    """The server may have sent the snapshot before it came to tell of what was in it."""
    subscriptions = Subscriptions()
    subscriptions.take(snapshot({"offers": {"b1": offer(), "b3": offer()}, "trips": {}}))
    shown = {
        "offers": {"b1": offer("closed", reason="expired"), "b2": offer(), "b3": offer()},
        "trips": {"b1-1-t": trip(broadcast_id="b0")},
    }
    missed, _ = subscriptions.take(snapshot(shown, seq=2))
    assert {name for name, _ in told(missed)} == {"offer_closed", "offer", "trip_assigned"}
    late = [
        event("offer_closed", {"broadcast_id": "b1", "reason": "expired"}),
        event("offer", {"broadcast_id": "b2"}),
        event("trip_assigned", trip(broadcast_id="b0")),
    ]
    assert [subscriptions.take(one) for one in late] == [([], False)] * 3
    new = [event("offer_closed", {"broadcast_id": "b3"}), event("trip_updated", trip("loaded", broadcast_id="b0"))]
    assert [subscriptions.take(one)[0] for one in new] == [[one] for one in new]


def test_what_a_snapshot_of_a_broadcast_told_is_not_told_again_by_its_event() -> None:
    subscriptions, topic = Subscriptions(), "broadcast:b1"
    subscriptions.take(snapshot(broadcast("cancelled", "assigned", end_reason="x", ended_at=5), topic=topic))
    confirmed = event("truck_confirmed", {"trip_id": "b1-1-t", "status": "assigned"}, topic=topic)
    cancelled = event("broadcast_cancelled", {"reason": "x", "assigned": 1}, topic=topic)
    continues = event("trip_continues", {"trip_id": "b1-1-t", "status": "assigned"}, topic=topic)
    assert [subscriptions.take(one)[0] for one in (confirmed, cancelled)] == [[], []]
    assert subscriptions.take(continues)[0] == [continues]


def broadcast(status: str, trip_status: str | None, **more: Any) -> JsonObject:
    trips = {} if trip_status is None else {"b1-1-t": {"trip_id": "b1-1-t", "status": trip_status}}
    return {"status": status, "trips": trips, "remaining_requests": 1, "ended_at": None, **more}


def test_a_customer_is_told_what_a_broadcast_came_to() -> None:
    topic = Topic("broadcast:b1")
    assert topic.take_snapshot(snapshot(broadcast("searching", None))) == []
    assert told(topic.take_snapshot(snapshot(broadcast("partially_filled", "assigned"), seq=2))) == [
        ("truck_confirmed", {"trip_id": "b1-1-t", "status": "assigned", "remaining_requests": 1})
    ]
    ended = broadcast("expired", "loaded", end_reason="expired", ended_at=5)
    assert told(topic.take_snapshot(snapshot(ended, seq=3))) == [
        ("trip_updated", {"trip_id": "b1-1-t", "status": "loaded"}),
        ("broadcast_expired", {"reason": "expired", "assigned": 1}),
    ]
    topic.take_event(event("trip_updated", {"trip_id": "b1-1-t", "status": "delivered"}))
    delivered = broadcast("expired", "delivered", end_reason="expired", ended_at=5)
    assert topic.take_snapshot(snapshot(delivered, seq=4)) == []


# --- subscriptions ---


def test_what_is_held_is_resumed_and_what_is_missing_is_known() -> None:
    subscriptions = Subscriptions()
    subscriptions.want(["feed:t1", "broadcast:b1"])
    subscriptions.take(snapshot({"offers": {}}, seq=5))
    assert subscriptions.resume() == {"feed:t1": [1, 5]}
    assert subscriptions.missing({"feed:t1"}) == ["broadcast:b1"]


def test_acks_are_one_per_topic_and_for_the_newest_version() -> None:
    subscriptions = Subscriptions()
    subscriptions.take(snapshot({"a": 1}))
    subscriptions.take(delta(1, 2, {"/a": 2}))
    subscriptions.take(delta(7, 8, {"/a": 8}))
    assert subscriptions.take_unacked() == {FEED: Version(1, 2)}
    assert subscriptions.take_unacked() == {}


def test_what_was_left_does_not_come_back_by_itself() -> None:
    subscriptions = Subscriptions()
    subscriptions.take(snapshot({"a": 1}))
    subscriptions.leave(FEED)
    assert subscriptions.take(delta(1, 2, {"/a": 2})) == ([], False)
    subscriptions.take(snapshot({"a": 3}, seq=3))
    assert not subscriptions.topics
    subscriptions.want([FEED])
    subscriptions.take(snapshot({"a": 3}, seq=3))
    assert subscriptions.topics[FEED].state == {"a": 3}


def test_of_more_topics_than_a_hello_takes_the_latest_are_resumed_and_the_rest_is_missing() -> None:
    subscriptions = Subscriptions()
    names = [f"broadcast:b{number}" for number in range(MAX_RESUMED + 1)]
    for name in names:
        subscriptions.take(snapshot(broadcast("searching", None), topic=name))
    assert [*subscriptions.resume()] == names[1:]
    assert subscriptions.missing(subscriptions.resume()) == names[:1]


def test_broadcasts_that_are_over_are_not_followed_and_only_the_last_are_kept() -> None:
    subscriptions = Subscriptions()
    for number in range(OVER_TOPICS + 3):
        name = f"broadcast:b{number}"
        subscriptions.take(snapshot(broadcast("searching", None), topic=name))
        subscriptions.take(delta(1, 2, {"/status": "fully_filled", "/ended_at": 5}, topic=name))
    assert len(subscriptions.topics) == OVER_TOPICS
    assert "broadcast:b2" not in subscriptions.topics
    assert subscriptions.resume() == {}
    assert subscriptions.take_unacked() == {}


def test_a_broadcast_with_a_trip_under_way_is_not_over() -> None:
    topic = Topic("broadcast:b1")
    topic.take_snapshot(snapshot(broadcast("fully_filled", "loaded", ended_at=5)))
    assert not topic.over
    topic.take_snapshot(snapshot(broadcast("fully_filled", "delivered", ended_at=5)))
    assert topic.over


def test_closed_offers_are_dropped_after_ten_minutes_and_a_late_delta_is_not_a_gap() -> None:
    subscriptions = Subscriptions()
    subscriptions.take(snapshot({"offers": {"b1": offer("closed", closed_at=1000), "b2": offer()}, "trips": {}}))
    before = subscriptions.topics[FEED].state
    subscriptions.drop_closed(FEED, 1000 + CLOSED_OFFER_SHOWN_MS - 1)
    assert subscriptions.topics[FEED].state is before
    subscriptions.drop_closed(FEED, 1000 + CLOSED_OFFER_SHOWN_MS)
    assert [*subscriptions.topics[FEED].state["offers"]] == ["b2"]
    assert "b1" in before["offers"]
    assert subscriptions.take(delta(1, 2, {}, "/offers/b1")) == ([], False)
    assert subscriptions.topics[FEED].version == Version(1, 2)
