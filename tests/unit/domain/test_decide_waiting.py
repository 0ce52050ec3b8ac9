"""Accepts that wait for a decision: who wins, who hears what, and that nobody is forgotten."""

from collections.abc import Mapping

import pytest

from haulcast.domain import effects as fx
from haulcast.domain import events as e
from haulcast.domain.accepting import MAX_WAITING, MAX_WAITING_EACH
from haulcast.domain.broadcast import WaitingAccept
from haulcast.domain.commands import Accept, Cancel, Decline, DropAccept, Match, Tick
from haulcast.domain.decision import Decision
from haulcast.domain.effects import CustomerNews, TripNews
from haulcast.domain.geo import Point
from haulcast.domain.ids import DriverId, TransporterId, VehicleId
from haulcast.domain.replies import Done, Json, Refusal, Refused
from haulcast.domain.settings import ActiveBroadcastPolicy, TenantSettings
from haulcast.domain.states import BroadcastStatus, EndReason
from haulcast.domain.views import offer_view

from .strategies import (
    BROADCAST,
    CUSTOMER,
    NOW_MS,
    PICKUP,
    T1,
    T2,
    T3,
    T4,
    Run,
    accept,
    begun,
    candidate,
    driver_of,
    vehicle_of,
)

SETTINGS = TenantSettings(dispatch_mode="best_match", accept_window_s=3.0)
DECIDED_MS = NOW_MS + 3_000


def waiting(*transporters: TransporterId, wanted: tuple[str, ...] = ("van",), vehicle_type: str = "van") -> Run:
    """A broadcast that T1 to T4 were offered, and which these have accepted; the n-th of T1 to T4 is n km away."""
    run = begun(*wanted, settings=SETTINGS)
    run.send_wave(
        *(
            candidate(each, wanted[number % len(wanted)], (number + 1) * 1_000)
            for number, each in enumerate((T1, T2, T3, T4))
        )
    )
    for each in transporters:
        assert isinstance(run.do(accept(each, vehicle_type)).reply, Done)
    return run


def waits(transporter: TransporterId, vehicle_type: str = "van", at_ms: int = NOW_MS) -> WaitingAccept:
    return WaitingAccept(
        transporter, vehicle_of(transporter, vehicle_type), vehicle_type, driver_of(transporter), at_ms
    )


def pending(decided_at: int = DECIDED_MS, remaining: int = 1) -> Done:
    return Done(
        {
            "broadcast_id": BROADCAST,
            "status": "pending",
            "decided_at": decided_at,
            "remaining_requests": remaining,
        }
    )


def at_km(km: float) -> Point:
    return Point(PICKUP.lat + km / 111.195, PICKUP.lng)


def lost(decision: Decision) -> dict[VehicleId, Refusal]:
    """Who is told to have lost, and why."""
    return {
        accept.vehicle_id: effect.code
        for effect in decision.effects
        if isinstance(effect, fx.LoseAccepts)
        for accept in effect.accepts
    }


def winners(run: Run) -> list[TransporterId]:
    return [trip.transporter_id for trip in run.state.trips]


# --- Waiting ---------------------------------------------------------------------------------------------------------


def test_an_accept_waits_and_is_told_until_when() -> None:
    run = waiting()
    assert run.do(accept(T2)) == Decision(
        (e.AcceptWaiting(NOW_MS, waits(T2), DECIDED_MS),), (fx.ShowWaiting((T2,), DECIDED_MS),), pending()
    )
    assert run.state.status is BroadcastStatus.SEARCHING
    assert DECIDED_MS in [*run.state.deadlines()]


def test_the_first_sets_the_time_for_all() -> None:
    run = waiting(T1).at(NOW_MS + 2_000)
    assert run.do(accept(T2)).reply == pending()
    assert run.state.waiting == (waits(T1), waits(T2, at_ms=NOW_MS + 2_000))


@pytest.mark.parametrize(("left_ms", "waits_ms"), [(5_001, 3_000), (4_999, 2_999), (2_001, 1), (2_000, 0), (1, 0)])
def test_it_is_decided_2_s_before_the_expiry_at_the_latest(left_ms: int, waits_ms: int) -> None:
    run = waiting()
    run.at(run.state.expires_at_ms - left_ms)
    assert run.do(accept(T1)).reply == pending(run.now_ms + waits_ms)


def test_the_same_vehicle_waits_once() -> None:
    run = waiting(T1).at(NOW_MS + 50)
    assert run.do(accept(T1)) == Decision(reply=pending())


def test_a_vehicle_that_has_changed_hands_while_it_waits_is_not_promised_twice() -> None:
    run = waiting(T1)
    other = Accept(T2, vehicle_of(T1), "van", driver_of(T2))
    assert run.do(other) == Decision(reply=Refused(Refusal.VEHICLE_BUSY))


def test_a_second_vehicle_of_the_same_transporter_waits_besides_and_the_offer_shows_it_already() -> None:
    run = waiting(T1)
    second = Accept(T1, VehicleId("t1:van2"), "van", DriverId("t1:driver2"))
    decision = run.do(second)
    assert (decision.reply, decision.effects) == (pending(), ())
    assert len(run.state.waiting) == 2


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (accept(TransporterId("stranger")), Refusal.NOT_OFFERED),
        (accept(T1, "trailer"), Refusal.VEHICLE_TYPE_MISMATCH),
        (Accept(T1, vehicle_of(T1), None, driver_of(T1)), Refusal.VEHICLE_NOT_OWNED),
    ],
)
def test_what_could_not_win_does_not_wait(command: Accept, code: Refusal) -> None:
    decision = waiting().decide(command)
    assert isinstance(decision.reply, Refused)
    assert (decision.reply.code, decision.events) == (code, ())


def test_no_more_wait_than_there_is_room_for_and_nobody_takes_all_of_it() -> None:
    many = tuple(TransporterId(f"x{number}") for number in range(MAX_WAITING // MAX_WAITING_EACH + 1))
    run = begun("van", settings=SETTINGS)
    run.send_wave(*(candidate(each) for each in many))
    full = Decision(reply=Refused(Refusal.ACCEPTS_FULL))
    for each in many[:-1]:
        for number in range(MAX_WAITING_EACH):
            mine = Accept(each, VehicleId(f"{each} v{number}"), "van", DriverId(f"{each} d{number}"))
            assert run.do(mine).reply == pending()
        assert run.do(Accept(each, VehicleId(f"{each} more"), "van", DriverId(f"{each} more"))) == full
    assert run.do(accept(many[-1])) == full


def test_a_vehicle_that_waits_with_one_driver_does_not_wait_with_another() -> None:
    """Who asked for the other one is not told that it waits."""
    run = waiting(T1)
    other = Accept(T1, vehicle_of(T1), "van", DriverId("another"))
    assert run.do(other) == Decision(reply=Refused(Refusal.VEHICLE_BUSY))
    assert run.do(accept(T1)).reply == pending()


@pytest.mark.parametrize("mode", ["progressive", "blast"])
def test_while_one_waits_all_do_whatever_the_mode_is_by_then(mode: str) -> None:
    run = waiting(T1).configure(dispatch_mode=mode)
    assert run.do(accept(T2)).reply == pending()


def test_the_offer_shows_that_an_accept_waits() -> None:
    run = waiting(T1)
    assert offer_view(run.state, run.state.offers[T1])["decided_at"] == DECIDED_MS
    assert "decided_at" not in offer_view(run.state, run.state.offers[T2])


# --- Deciding --------------------------------------------------------------------------------------------------------


def test_when_the_time_has_come_the_vehicles_are_measured() -> None:
    run = waiting(T2, T1)
    assert run.at(DECIDED_MS - 1).decide(Tick()).effects == ()
    assert run.at(DECIDED_MS).decide(Tick()).effects == (fx.MeasureAccepts((vehicle_of(T2), vehicle_of(T1))),)


def test_nothing_is_decided_before() -> None:
    assert waiting(T1, T2).at(DECIDED_MS - 1).decide(Match({})) == Decision()


@pytest.mark.parametrize(
    ("positions", "winner"),
    [
        ({}, T1),
        ({vehicle_of(T1): at_km(5)}, T2),
        ({vehicle_of(T3): at_km(0.5)}, T3),
        ({vehicle_of(T1): at_km(9), vehicle_of(T2): at_km(8), vehicle_of(T3): at_km(7)}, T3),
        ({vehicle_of(T3): at_km(1.002)}, T1),
    ],
)
def test_the_nearest_wins_by_where_it_is_now_or_else_by_where_it_was(
    positions: Mapping[VehicleId, Point], winner: TransporterId
) -> None:
    run = waiting(T3, T2, T1).at(DECIDED_MS)
    run.do(Match(positions))
    assert winners(run) == [winner]


def test_of_a_vehicle_that_was_not_the_one_offered_nothing_is_known_and_it_comes_last() -> None:
    run = waiting()
    run.do(Accept(T1, VehicleId("t1:other"), "van", driver_of(T1)))
    run.do(accept(T4))
    run.at(DECIDED_MS).do(Match({}))
    assert winners(run) == [T4]


def test_the_winner_is_assigned_as_by_a_direct_accept_and_the_others_hear_that_they_lost() -> None:
    run = waiting(T2, T1, T3).at(DECIDED_MS)
    decision = run.do(Match({}))
    trip = run.trip()
    assert decision.events == (
        e.TruckAssigned(DECIDED_MS, trip),
        e.AcceptsLost(DECIDED_MS, (vehicle_of(T2), vehicle_of(T3)), Refusal.REQUEST_ALREADY_TAKEN),
    )
    (shown, told, hidden, losing, won, closed) = decision.effects
    assert shown == fx.ShowTrip(trip, TripNews.TRIP_ASSIGNED)
    assert isinstance(told, fx.TellWatchers)
    assert told.news is CustomerNews.TRUCK_CONFIRMED
    assert hidden == fx.ShowWaiting((T1, T2, T3), None)
    assert losing == fx.LoseAccepts((waits(T2), waits(T3)), Refusal.REQUEST_ALREADY_TAKEN)
    assert (won, closed) == (fx.DropOffers((T1,)), fx.CloseOffers((T2, T3, T4)))
    assert (run.state.waiting, run.state.decide_at_ms) == ((), None)


def test_one_truck_is_decided_at_a_time_and_the_next_at_once() -> None:
    run = waiting(T3, T1, T2, wanted=("van", "van")).at(DECIDED_MS)
    positions = {vehicle_of(T2): at_km(9)}
    first = run.do(Match(positions))
    assert first.effects[-1] == fx.MatchOn(positions)
    assert fx.ShowWaiting((T1,), None) in first.effects
    assert (winners(run), lost(first), run.state.decide_at_ms) == ([T1], {}, DECIDED_MS)
    second = run.do(Match(positions))
    assert (winners(run), lost(second)) == ([T1, T3], {vehicle_of(T2): Refusal.REQUEST_ALREADY_TAKEN})
    assert not [effect for effect in second.effects if isinstance(effect, fx.MatchOn)]


def test_each_type_is_decided_on_its_own() -> None:
    run = begun("van", "truck", settings=SETTINGS)
    run.send_wave(*(candidate(each, "van", 1_000) for each in (T1, T2)), candidate(T3, "truck", 9_000))
    for each, vehicle_type in ((T2, "van"), (T3, "truck"), (T1, "van")):
        run.do(accept(each, vehicle_type))
    run.at(DECIDED_MS)
    first, second = run.do(Match({})), run.do(Match({}))
    assert (winners(run), lost(first), lost(second)) == (
        [T2, T3],
        {vehicle_of(T1): Refusal.REQUEST_ALREADY_TAKEN},
        {},
    )


def test_who_comes_while_the_vehicles_are_measured_is_decided_with_the_others() -> None:
    run = waiting(T2).at(DECIDED_MS + 5)
    assert run.do(accept(T1)).reply == pending()
    run.do(Match({}))
    assert winners(run) == [T1]


def test_fewer_than_there_are_trucks_all_win_and_the_next_one_waits_anew() -> None:
    run = waiting(T1, wanted=("van", "van")).at(DECIDED_MS)
    run.do(Match({}))
    assert (winners(run), run.state.decide_at_ms) == ([T1], None)
    assert run.do(accept(T2)).reply == pending(DECIDED_MS + 3_000)


def test_the_mode_in_force_chooses() -> None:
    run = waiting(T3, T1).configure(dispatch_mode="progressive").at(DECIDED_MS)
    run.do(Match({}))
    assert winners(run) == [T3]


def test_accepts_are_decided_while_the_tenant_is_paused() -> None:
    run = waiting(T1).configure(paused=True).at(DECIDED_MS)
    assert run.do(accept(T2)).reply == pending()
    run.do(Match({}))
    assert winners(run) == [T1]


# --- Those who cannot win --------------------------------------------------------------------------------------------


def test_an_accept_that_the_journal_refuses_is_dropped_and_the_next_one_follows() -> None:
    run = waiting(T1, T2).at(DECIDED_MS)
    decision = run.do(DropAccept(vehicle_of(T1), Refusal.DRIVER_BUSY, {}))
    assert decision == Decision(
        (e.AcceptsLost(DECIDED_MS, (vehicle_of(T1),), Refusal.DRIVER_BUSY),),
        (
            fx.ShowWaiting((T1,), None),
            fx.LoseAccepts((waits(T1),), Refusal.DRIVER_BUSY),
            fx.MatchOn({}),
        ),
    )
    run.do(Match({}))
    assert winners(run) == [T2]


def test_when_the_last_one_is_dropped_the_truck_is_still_wanted() -> None:
    run = waiting(T1).at(DECIDED_MS)
    run.do(DropAccept(vehicle_of(T1), Refusal.VEHICLE_BUSY, {}))
    assert (run.state.waiting, run.state.decide_at_ms, run.state.live) == ((), None, True)
    assert run.decide(DropAccept(vehicle_of(T1), Refusal.VEHICLE_BUSY, {})) == Decision()
    assert run.do(accept(T2)).reply == pending(DECIDED_MS + 3_000)


def test_who_declines_does_not_wait_any_more() -> None:
    run = waiting(T1, T2)
    assert run.do(Decline(T1)).effects == (fx.DropOffers((T1,)),)
    assert [each.transporter_id for each in run.state.waiting] == [T2]
    run.do(Decline(T2))
    assert (run.state.waiting, run.state.decide_at_ms) == ((), None)


def test_who_declines_accepts_and_declines_again_does_not_wait() -> None:
    run = waiting()
    run.do(Decline(T1))
    assert run.do(accept(T1)).effects == ()
    again = run.do(Decline(T1))
    assert (len(again.events), again.effects, run.state.waiting) == (1, (), ())
    assert run.do(Decline(T1)) == Decision(reply=Done({"broadcast_id": BROADCAST}))


@pytest.mark.parametrize("end", ["cancelled", "replaced", "expired"])
def test_when_the_broadcast_ends_those_who_wait_hear_that_they_lost_and_that_it_is_closed(end: str) -> None:
    run = waiting(T1, T2)
    run.do(Decline(T4))
    if end == "expired":
        decision = run.at(run.state.expires_at_ms).do(Match({}))
        code, reason = Refusal.BROADCAST_EXPIRED, EndReason.NO_VEHICLES_AVAILABLE
    else:
        reason = EndReason.CUSTOMER_CANCELLED if end == "cancelled" else EndReason.REPLACED
        run.configure(active_broadcast_policy=ActiveBroadcastPolicy.REPLACE)
        decision, code = run.do(Cancel(CUSTOMER, reason)), Refusal.BROADCAST_CANCELLED
    assert decision.effects[:3] == (
        fx.ShowWaiting((T1, T2), None),
        fx.LoseAccepts((waits(T1), waits(T2)), code),
        fx.CloseOffers((T1, T2, T3)),
    )
    assert (run.state.waiting, run.state.decide_at_ms, run.state.end_reason) == ((), None, reason)
    told = decision.effects[-1]
    assert isinstance(told, fx.TellWatchers)
    expected: dict[str, Json] = {"reason": reason, "assigned": 0}
    assert told.data == expected
