"""The tables are the law: what they allow happens, everything else raises and changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from itertools import product
from typing import Any, get_args

import pytest

from haulcast.domain import events as e
from haulcast.domain.broadcast import Broadcast, Offer
from haulcast.domain.commands import Cancel, Tick
from haulcast.domain.evolve import evolve, replay
from haulcast.domain.ids import TransporterId
from haulcast.domain.states import (
    ACTIVE_TRIP,
    BROADCAST_TRANSITIONS,
    LIVE_BROADCAST,
    REQUEST_TRANSITIONS,
    TRIP_TRANSITIONS,
    BroadcastStatus,
    EndReason,
    IllegalTransition,
    RequestStatus,
    TripStatus,
    advance,
)

from .strategies import CUSTOMER, NOW_MS, T1, T2, T3, T4, Run, accept, begun, vehicle_of

# Written out once more, from the words of the design and not from the code.
ALLOWED: dict[type[StrEnum], set[tuple[str, str]]] = {
    BroadcastStatus: {
        ("searching", "partially_filled"),
        ("searching", "fully_filled"),
        ("searching", "cancelled"),
        ("searching", "expired"),
        ("partially_filled", "partially_filled"),
        ("partially_filled", "fully_filled"),
        ("partially_filled", "cancelled"),
        ("partially_filled", "expired"),
    },
    RequestStatus: {("searching", "assigned"), ("searching", "cancelled"), ("searching", "expired")},
    TripStatus: {
        ("assigned", "en_route"),
        ("assigned", "at_pickup"),
        ("assigned", "loaded"),
        ("assigned", "delivered"),
        ("assigned", "cancelled"),
        ("en_route", "at_pickup"),
        ("en_route", "loaded"),
        ("en_route", "delivered"),
        ("en_route", "cancelled"),
        ("at_pickup", "loaded"),
        ("at_pickup", "delivered"),
        ("at_pickup", "cancelled"),
        ("loaded", "delivered"),
        ("loaded", "cancelled"),
    },
}
TABLES: dict[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    BroadcastStatus: BROADCAST_TRANSITIONS,
    RequestStatus: REQUEST_TRANSITIONS,
    TripStatus: TRIP_TRANSITIONS,
}
MOVES = [(kind, current, new) for kind in TABLES for current, new in product(kind, kind)]


@pytest.mark.parametrize(("kind", "current", "new"), MOVES)
def test_a_move_is_made_if_the_table_has_it_and_raises_otherwise(
    kind: type[StrEnum], current: StrEnum, new: StrEnum
) -> None:
    table = TABLES[kind]
    if (current.value, new.value) in ALLOWED[kind]:
        assert advance(table, current, new) is new
    else:
        with pytest.raises(IllegalTransition, match=rf"{kind.__name__}: {current} -> {new}"):
            advance(table, current, new)


@pytest.mark.parametrize("kind", TABLES)
def test_every_state_is_in_its_table(kind: type[StrEnum]) -> None:
    assert set(TABLES[kind]) == set(kind)


def test_live_and_active_are_the_states_with_a_way_out() -> None:
    assert set(LIVE_BROADCAST) == {BroadcastStatus.SEARCHING, BroadcastStatus.PARTIALLY_FILLED}
    assert set(ACTIVE_TRIP) == {
        TripStatus.ASSIGNED,
        TripStatus.EN_ROUTE,
        TripStatus.AT_PICKUP,
        TripStatus.LOADED,
    }


# --- The same law in the fold ----------------------------------------------------------------------------------------


def searching() -> Run:
    return begun("van", "van", offered=(T1, T2))


def partially_filled() -> Run:
    run = searching()
    run.do(accept(T1))
    return run


def fully_filled() -> Run:
    run = partially_filled()
    run.do(accept(T2))
    return run


def cancelled() -> Run:
    run = partially_filled()
    run.do(Cancel(CUSTOMER))
    return run


def expired() -> Run:
    run = partially_filled()
    run.at(run.state.expires_at_ms).do(Tick())
    return run


ENDINGS: list[e.Event] = [
    e.Cancelled(NOW_MS + 1, EndReason.CUSTOMER_CANCELLED),
    e.Expired(NOW_MS + 1, EndReason.EXPIRED),
]


def refused_unchanged(state: Broadcast, event: e.Event) -> None:
    before = replace(state, offers=dict(state.offers))
    with pytest.raises(IllegalTransition):
        evolve(state, event)
    assert state == before


@pytest.mark.parametrize("over", [fully_filled, cancelled, expired])
@pytest.mark.parametrize("event", ENDINGS, ids=lambda event: type(event).__name__)
def test_a_broadcast_ends_once(over: Callable[[], Run], event: e.Event) -> None:
    refused_unchanged(over().state, event)


@pytest.mark.parametrize("over", [partially_filled, fully_filled, cancelled, expired])
def test_a_truck_request_is_assigned_once(over: Callable[[], Run]) -> None:
    run = over()
    refused_unchanged(run.state, e.TruckAssigned(NOW_MS + 1, replace(run.trip(), transporter_id=T2)))


@pytest.mark.parametrize("over", [cancelled, expired])
def test_an_open_truck_request_is_not_assigned_after_the_end(over: Callable[[], Run]) -> None:
    run = over()
    trip = replace(run.trip(), request_id=run.state.requests[1].request_id)
    refused_unchanged(run.state, e.TruckAssigned(NOW_MS + 1, trip))


@pytest.mark.parametrize(("current", "new"), [*product(TripStatus, TripStatus)])
def test_a_trip_moves_by_its_table_whatever_became_of_the_broadcast(current: TripStatus, new: TripStatus) -> None:
    run = cancelled()
    if current is not TripStatus.ASSIGNED:
        run.move(current)
    event = e.TripUpdated(NOW_MS + 9, run.trip().trip_id, new)
    if (current.value, new.value) in ALLOWED[TripStatus]:
        moved = evolve(run.state, event).trip(run.trip().trip_id)
        assert moved == replace(run.trip(), status=new, updated_at_ms=NOW_MS + 9)
    else:
        refused_unchanged(run.state, event)


def test_only_the_trip_that_is_named_moves() -> None:
    run = fully_filled()
    other = run.trip(2)
    run.move(TripStatus.EN_ROUTE)
    assert run.trip().status is TripStatus.EN_ROUTE
    assert run.trip(2) == other


@pytest.mark.parametrize(
    ("over", "status", "reason", "requests"),
    [
        (fully_filled, BroadcastStatus.FULLY_FILLED, EndReason.FILLED, ["assigned", "assigned"]),
        (cancelled, BroadcastStatus.CANCELLED, EndReason.CUSTOMER_CANCELLED, ["assigned", "cancelled"]),
        (expired, BroadcastStatus.EXPIRED, EndReason.EXPIRED, ["assigned", "expired"]),
    ],
)
def test_an_end_has_its_status_reason_and_time_and_settles_every_open_request(
    over: Callable[[], Run], status: BroadcastStatus, reason: EndReason, requests: list[str]
) -> None:
    run = over()
    state = run.state
    assert (state.status, state.end_reason, state.ended_at_ms) == (status, reason, run.now_ms)
    assert [request.status.value for request in state.requests] == requests
    assert not state.live
    assert not state.open_requests
    assert [*state.deadlines()] == []


def test_a_live_broadcast_has_no_end() -> None:
    state = partially_filled().state
    assert (state.status, state.end_reason, state.ended_at_ms) == (BroadcastStatus.PARTIALLY_FILLED, None, None)
    assert {*state.deadlines()} == {state.expires_at_ms, state.reminder_at_ms, state.next_wave_at_ms}


def test_it_counts_each_transporter_that_was_offered_it_once() -> None:
    """Over the waves and the latecomers; neither a second offer nor a decline nor the end changes the count."""

    def offer(transporter: TransporterId) -> Offer:
        return Offer(transporter, 1, vehicle_of(transporter), "van", 1_000, NOW_MS)

    def wave(number: int, *transporters: TransporterId) -> e.Event:
        return e.WaveSent(NOW_MS, number, tuple(map(offer, transporters)), None)

    state = begun("van", "truck").state
    counts = [state.notified]
    for event in (
        wave(1, T1, T2),
        wave(2, T2, T3),
        wave(3),
        e.Offered(NOW_MS, offer(T4)),
        e.Offered(NOW_MS, offer(T4)),
        e.Declined(NOW_MS, T1),
        ENDINGS[0],
    ):
        state = evolve(state, event)
        counts.append(state.notified)
    assert counts == [0, 2, 3, 3, 4, 4, 4, 4]


def test_a_broadcast_begins_with_created_and_has_it_once() -> None:
    run = searching()
    with pytest.raises(ValueError, match="begins with Created"):
        evolve(None, run.events[1])
    with pytest.raises(ValueError, match="created once"):
        evolve(run.state, run.events[0])
    with pytest.raises(ValueError, match="no events"):
        replay([])


@pytest.mark.parametrize("over", [searching, partially_filled, fully_filled, cancelled, expired])
def test_the_events_alone_give_the_state(over: Callable[[], Run]) -> None:
    run = over()
    assert replay(run.events) == run.state
    assert run.state.seq == len(run.events)


def test_every_event_has_a_name_of_its_own_in_the_journal() -> None:
    assert {event: name for name, event in e.EVENT_TYPES.items()} == e.EVENT_NAMES
    assert set(e.EVENT_NAMES) == {*get_args(e.Event)}
