"""What users are shown: plain JSON, nothing internal, and the same by snapshot and by change."""

import json
from collections.abc import Mapping

import pytest

from haulcast.domain.commands import Cancel, Decline, Tick
from haulcast.domain.replies import Json
from haulcast.domain.states import TripStatus
from haulcast.domain.views import (
    CLOSED_OFFER_SHOWN_MS,
    broadcast_summary,
    broadcast_view,
    haul_view,
    offer_body,
    offer_closing,
    offer_fill,
    offer_shown,
    offer_tail,
    offer_view,
    trip_view,
)

from .strategies import CUSTOMER, NOW_MS, T1, T2, T3, Run, accept, begun

PICKUP = {"lat": 19.076, "lng": 72.8777, "address": "Dock 4"}
DROP = {"lat": 18.5204, "lng": 73.8567, "address": "Yard 7"}
TRIP = {
    "trip_id": "01k9haul-1-t",
    "assignment_id": "01k9haul-1-a",
    "request_id": "01k9haul-1",
    "status": "assigned",
    "transporter_id": "t1",
    "vehicle_id": "t1:van",
    "vehicle_type": "van",
    "driver_id": "t1:driver",
    "assigned_at": NOW_MS + 5_000,
    "updated_at": NOW_MS + 5_000,
}


def half_filled() -> Run:
    """Wanted: a van, which t1 has won, and a truck; t2 and t3 have the offer too."""
    run = begun("van", "truck", offered=(T1, T2, T3))
    run.at(NOW_MS + 5_000).do(accept(T1, "van"))
    return run


def plain(view: Mapping[str, Json]) -> object:
    """The view as a client gets it."""
    return json.loads(json.dumps(view))


def test_the_customer_is_answered_with_the_requests() -> None:
    assert plain(broadcast_summary(begun("van", "truck").state)) == {
        "broadcast_id": "01k9haul",
        "status": "searching",
        "expires_at": NOW_MS + 300_000,
        "requests": [
            {"request_id": "01k9haul-1", "vehicle_type": "van", "status": "searching"},
            {"request_id": "01k9haul-2", "vehicle_type": "truck", "status": "searching"},
        ],
    }


def test_a_broadcast_is_shown_with_its_trucks_and_never_with_who_was_asked() -> None:
    run = half_filled()
    assert plain(broadcast_view(run.state)) == {
        "broadcast_id": "01k9haul",
        "customer_id": "c1",
        "status": "partially_filled",
        "end_reason": None,
        "pickup": PICKUP,
        "drop": DROP,
        "note": "two pallets",
        "created_at": NOW_MS,
        "expires_at": NOW_MS + 300_000,
        "ended_at": None,
        "wave": 1,
        "notified": 3,
        "remaining_requests": 1,
        "requests": {
            "01k9haul-1": {"request_id": "01k9haul-1", "vehicle_type": "van", "status": "assigned"},
            "01k9haul-2": {"request_id": "01k9haul-2", "vehicle_type": "truck", "status": "searching"},
        },
        "trips": {"01k9haul-1-t": TRIP},
    }


def test_an_ended_broadcast_says_why_and_when() -> None:
    run = half_filled()
    run.at(NOW_MS + 9_000).do(Cancel(CUSTOMER))
    view = broadcast_view(run.state)
    assert (view["status"], view["end_reason"], view["ended_at"]) == ("cancelled", "customer_cancelled", NOW_MS + 9_000)
    assert view["remaining_requests"] == 0


def test_an_open_offer() -> None:
    run = half_filled()
    assert plain(offer_view(run.state, run.state.offers[T2])) == {
        "broadcast_id": "01k9haul",
        "status": "open",
        "pickup": PICKUP,
        "drop": DROP,
        "note": "two pallets",
        "expires_at": NOW_MS + 300_000,
        "open_trucks": {"truck": 1},
        "remaining_requests": 1,
        "wave": 1,
        "vehicle_id": "t2:truck",
        "distance_m": 2_000,
        "offered_at": NOW_MS,
    }


def test_a_closed_offer_says_why_and_when() -> None:
    run = half_filled()
    offer = run.state.offers[T2]
    before = offer_view(run.state, offer)
    run.at(run.state.expires_at_ms).do(Tick())
    assert offer_view(run.state, offer) == {
        **before,
        "status": "closed",
        "open_trucks": {},
        "remaining_requests": 0,
        "reason": "expired",
        "closed_at": NOW_MS + 300_000,
    }


def test_an_offer_is_its_body_and_its_tail() -> None:
    run = half_filled()
    offer = run.state.offers[T3]
    assert offer_view(run.state, offer) == {**offer_body(run.state), **offer_tail(offer)}
    assert not offer_body(run.state).keys() & offer_tail(offer).keys()


@pytest.mark.parametrize(("ended", "status"), [(False, "open"), (True, "closed")])
def test_the_body_alone_says_whether_the_offer_is_open(ended: bool, status: str) -> None:
    run = half_filled()
    if ended:
        run.do(Cancel(CUSTOMER))
    assert offer_body(run.state)["status"] == status


def test_the_open_trucks_are_counted_by_type() -> None:
    run = begun("van", "truck", "van", "van", offered=(T1, T2))
    assert offer_fill(run.state) == {"open_trucks": {"van": 3, "truck": 1}, "remaining_requests": 4}
    run.do(accept(T1, "van"))
    run.do(accept(T2, "truck"))
    assert offer_fill(run.state) == {"open_trucks": {"van": 2}, "remaining_requests": 2}


def test_an_open_offer_brought_up_to_date_equals_a_new_one() -> None:
    run = begun("van", "truck", offered=(T1, T2))
    offer = run.state.offers[T2]
    held = offer_view(run.state, offer)
    run.do(accept(T1, "van"))
    assert held | offer_fill(run.state) == offer_view(run.state, offer)


@pytest.mark.parametrize("end", ["cancel", "expiry", "fill"])
def test_an_open_offer_that_is_closed_equals_a_closed_one(end: str) -> None:
    """Who was connected at the end and who comes back after it see the same."""
    run = half_filled()
    offer = run.state.offers[T3]
    held = offer_view(run.state, offer)
    if end == "cancel":
        run.do(Cancel(CUSTOMER))
    elif end == "expiry":
        run.at(run.state.expires_at_ms).do(Tick())
    else:
        run.do(accept(T2, "truck"))
    assert not run.state.live
    assert held | offer_closing(run.state) == offer_view(run.state, offer)


def test_a_trip_and_where_it_goes() -> None:
    run = half_filled()
    assert plain(trip_view(run.trip())) == TRIP
    assert plain(haul_view(run.state, run.trip())) == {
        **TRIP,
        "broadcast_id": "01k9haul",
        "pickup": PICKUP,
        "drop": DROP,
        "note": "two pallets",
    }


def test_a_trip_shows_how_far_it_has_come_and_since_when() -> None:
    run = half_filled()
    run.at(NOW_MS + 7_000).move(TripStatus.LOADED)
    assert plain(trip_view(run.trip())) == {**TRIP, "status": "loaded", "updated_at": NOW_MS + 7_000}


def shown(run: Run, now_ms: int) -> list[str]:
    return [offer.transporter_id for offer in run.state.offers.values() if offer_shown(run.state, offer, now_ms)]


def test_the_feeds_of_a_live_broadcast_show_it_unless_declined() -> None:
    run = half_filled()
    run.do(Decline(T3))
    assert shown(run, NOW_MS) == [T1, T2]
    assert shown(run, NOW_MS + CLOSED_OFFER_SHOWN_MS * 9) == [T1, T2]


def test_a_closed_offer_is_shown_for_ten_minutes_to_whoever_won_nothing() -> None:
    run = half_filled()
    run.do(Cancel(CUSTOMER))
    ended_at_ms = run.now_ms
    assert shown(run, ended_at_ms - 1) == [T2, T3]
    assert shown(run, ended_at_ms + 599_999) == [T2, T3]
    assert shown(run, ended_at_ms + 600_000) == []


def test_a_declined_offer_is_not_shown_closed_either() -> None:
    run = half_filled()
    run.do(Decline(T3))
    run.do(Cancel(CUSTOMER))
    assert shown(run, run.now_ms) == [T2]
