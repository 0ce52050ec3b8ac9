"""Each command in each situation: what happens, who hears of it, what is answered."""

import pytest

from haulcast.domain import effects as fx
from haulcast.domain import events as e
from haulcast.domain.broadcast import Offer, Trip
from haulcast.domain.commands import (
    Accept,
    Appear,
    Cancel,
    Command,
    Create,
    Decline,
    Tick,
    TruckSpec,
    UpdateTrip,
)
from haulcast.domain.decision import Decision
from haulcast.domain.effects import CustomerNews, TripNews
from haulcast.domain.ids import AssignmentId, DriverId, RequestId, TransporterId, TripId
from haulcast.domain.ranking import LeftOutReason
from haulcast.domain.replies import Done, Json, Refusal, Refused
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import TRIP_TRANSITIONS, EndReason, TripStatus
from haulcast.domain.views import broadcast_summary, trip_view
from haulcast.domain.waves import radius_m

from .strategies import (
    BROADCAST,
    CUSTOMER,
    DROP,
    NOW_MS,
    PICKUP,
    STRANGER,
    T1,
    T2,
    T3,
    T4,
    T5,
    TENANT,
    Run,
    accept,
    begun,
    candidate,
    create,
    driver_of,
    found,
    left_out,
    vehicle_of,
)

EXPIRY_MS = NOW_MS + 300_000
TRIP = TripId("01k9haul-1-t")


def refused(code: Refusal, **data: Json) -> Decision:
    """A decision that does nothing but refuse."""
    return Decision(reply=Refused(code, data))


def trip_of(transporter: TransporterId, number: int, vehicle_type: str = "van", at_ms: int = NOW_MS) -> Trip:
    return Trip(
        TripId(f"01k9haul-{number}-t"),
        AssignmentId(f"01k9haul-{number}-a"),
        RequestId(f"01k9haul-{number}"),
        transporter,
        vehicle_of(transporter, vehicle_type),
        driver_of(transporter),
        vehicle_type,
        TripStatus.ASSIGNED,
        at_ms,
        at_ms,
    )


def offer_to(
    transporter: TransporterId, wave: int = 1, distance_m: int = 1_000, vehicle_type: str = "van", at_ms: int = NOW_MS
) -> Offer:
    return Offer(transporter, wave, vehicle_of(transporter, vehicle_type), vehicle_type, distance_m, at_ms)


def won(run: Run, *transporters: TransporterId) -> Run:
    """`run`, in which each of these has won a van."""
    for transporter in transporters:
        assert isinstance(run.do(accept(transporter)).reply, Done)
    return run


def cancelled() -> Run:
    run = won(begun("van", "van", offered=(T1, T2)), T1)
    run.do(Cancel(CUSTOMER))
    return run


def expired() -> Run:
    run = won(begun("van", "van", offered=(T1, T2)), T1)
    run.at(EXPIRY_MS).do(Tick())
    return run


def filled() -> Run:
    return won(begun("van", "van", offered=(T1, T2)), T1, T2)


OVER = {"cancelled": cancelled, "expired": expired, "filled": filled}
over = pytest.mark.parametrize("end", OVER)


# --- No such broadcast -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        Cancel(CUSTOMER),
        accept(T1),
        Decline(T1),
        Tick(),
        found(1, candidate(T1)),
        Appear(candidate(T1)),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_does_not_exist_is_not_found(command: Command) -> None:
    assert Run().decide(command) == refused(Refusal.BROADCAST_NOT_FOUND)


def test_whose_only_trip_was_cancelled_hears_of_the_end_like_everybody_else() -> None:
    run = won(begun("van", "van", offered=(T1, T2)), T1)
    run.move(TripStatus.CANCELLED)
    decision = run.at(run.state.expires_at_ms).do(Tick())
    assert fx.CloseOffers((T1, T2)) in decision.effects
    assert not [effect for effect in decision.effects if isinstance(effect, fx.DropOffers | fx.ShowTrip)]


def test_a_trip_of_no_broadcast_is_no_trip() -> None:
    assert Run().decide(UpdateTrip(T1, TRIP, TripStatus.LOADED)) == refused(Refusal.TRIP_NOT_FOUND)


def test_a_broadcast_that_exists_is_not_created_again() -> None:
    run = begun("van")
    again = Create(TENANT, BROADCAST, CUSTOMER, PICKUP, DROP, (TruckSpec("van", 1),))
    assert run.decide(again) == refused(Refusal.ACTIVE_BROADCAST_EXISTS, broadcast_id=BROADCAST)


# --- Create ----------------------------------------------------------------------------------------------------------


def test_a_new_broadcast_looks_for_its_first_wave_at_once() -> None:
    run = Run()
    decision = run.do(create("van", "truck", "van"))
    assert decision == Decision(
        (
            e.Created(
                NOW_MS,
                TENANT,
                BROADCAST,
                CUSTOMER,
                PICKUP,
                DROP,
                ("van", "truck", "van"),
                EXPIRY_MS,
                EXPIRY_MS - 60_000,
                "two pallets",
            ),
        ),
        (fx.SeekCandidates(1, 10_000.0, frozenset({"van", "truck"}), 500),),
        Done(broadcast_summary(run.state)),
    )
    assert run.state.next_wave_at_ms == NOW_MS
    assert run.state.seq == 1


def test_each_truck_of_a_type_is_a_request_of_its_own_in_the_order_asked_for() -> None:
    run = Run()
    run.do(Create(TENANT, BROADCAST, CUSTOMER, PICKUP, DROP, (TruckSpec("truck", 2), TruckSpec("van", 1))))
    assert [(request.request_id, request.vehicle_type) for request in run.state.requests] == [
        ("01k9haul-1", "truck"),
        ("01k9haul-2", "truck"),
        ("01k9haul-3", "van"),
    ]


def test_without_an_expiry_the_tenants_default_holds() -> None:
    run = Run(TenantSettings(default_expiry_s=42))
    run.do(create("van", expires_in_s=None))
    assert run.state.expires_at_ms == NOW_MS + 42_000


@pytest.mark.parametrize("expires_in_s", [10, 86_400])
def test_an_expiry_at_the_tenants_bounds_is_taken(expires_in_s: int) -> None:
    run = Run()
    run.do(create("van", expires_in_s=expires_in_s))
    assert run.state.expires_at_ms == NOW_MS + expires_in_s * 1000


@pytest.mark.parametrize("expires_in_s", [-1, 0, 9, 86_401])
def test_an_expiry_outside_of_them_is_refused(expires_in_s: int) -> None:
    assert Run().decide(create("van", expires_in_s=expires_in_s)) == refused(
        Refusal.EXPIRY_OUT_OF_RANGE, field="expires_in_s", min=10, max=86_400
    )


@pytest.mark.parametrize(("expires_in_s", "reminder_after_s"), [(59, None), (60, None), (61, 1), (300, 240)])
def test_only_a_broadcast_longer_than_the_lead_is_reminded_of(expires_in_s: int, reminder_after_s: int | None) -> None:
    run = begun("van", expires_in_s=expires_in_s)
    expected = None if reminder_after_s is None else NOW_MS + reminder_after_s * 1000
    assert run.state.reminder_at_ms == expected


# --- Cancel ----------------------------------------------------------------------------------------------------------


def test_a_cancel_closes_the_offers_of_all() -> None:
    run = begun("van", offered=(T1, T2)).at(NOW_MS + 7)
    assert run.do(Cancel(CUSTOMER)) == Decision(
        (e.Cancelled(NOW_MS + 7, EndReason.CUSTOMER_CANCELLED),),
        (
            fx.CloseOffers((T1, T2)),
            fx.TellWatchers(CustomerNews.BROADCAST_CANCELLED, {"reason": "customer_cancelled", "assigned": 0}),
        ),
        Done({"broadcast_id": BROADCAST, "status": "cancelled", "assigned": 0}),
    )


def test_winners_hear_that_their_trip_stands_and_never_of_the_cancel() -> None:
    run = won(begun("van", "van", "van", offered=(T1, T2, T3)), T2)
    assert run.decide(Cancel(CUSTOMER)) == Decision(
        (e.Cancelled(NOW_MS, EndReason.CUSTOMER_CANCELLED),),
        (
            fx.DropOffers((T2,)),
            fx.CloseOffers((T1, T3)),
            fx.ShowTrip(trip_of(T2, 1), TripNews.TRIP_CONTINUES),
            fx.TellWatchers(CustomerNews.BROADCAST_CANCELLED, {"reason": "customer_cancelled", "assigned": 1}),
        ),
        Done({"broadcast_id": BROADCAST, "status": "cancelled", "assigned": 1}),
    )


def test_a_trip_that_has_ended_does_not_continue() -> None:
    run = won(begun("van", "van", "van", offered=(T1, T2, T3)), T1, T2)
    run.move(TripStatus.DELIVERED)
    continuing = [effect for effect in run.decide(Cancel(CUSTOMER)).effects if isinstance(effect, fx.ShowTrip)]
    assert continuing == [fx.ShowTrip(trip_of(T2, 2), TripNews.TRIP_CONTINUES)]


def test_who_declined_does_not_hear_of_the_end() -> None:
    run = begun("van", offered=(T1, T2))
    run.do(Decline(T1))
    assert fx.CloseOffers((T2,)) in run.decide(Cancel(CUSTOMER)).effects


def test_a_cancel_before_any_offer_is_told_to_the_watchers_alone() -> None:
    decision = begun("van").decide(Cancel(CUSTOMER))
    assert [type(effect) for effect in decision.effects] == [fx.TellWatchers]


def test_nobody_else_can_cancel_or_learn_that_there_is_something() -> None:
    assert begun("van", offered=(T1,)).decide(Cancel(STRANGER)) == refused(Refusal.BROADCAST_NOT_FOUND)
    assert filled().decide(Cancel(STRANGER)) == refused(Refusal.BROADCAST_NOT_FOUND)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("cancelled", Refusal.BROADCAST_CANCELLED),
        ("expired", Refusal.BROADCAST_EXPIRED),
        ("filled", Refusal.BROADCAST_FULLY_FILLED),
    ],
)
def test_a_cancel_after_the_end_says_which_end(end: str, code: Refusal) -> None:
    assert OVER[end]().decide(Cancel(CUSTOMER)) == refused(code)


# --- Accept ----------------------------------------------------------------------------------------------------------


def test_the_accept_of_the_last_truck_fills_the_broadcast() -> None:
    run = begun("van", offered=(T1, T2, T3)).at(NOW_MS + 7)
    trip = trip_of(T2, 1, at_ms=NOW_MS + 7)
    assert run.do(accept(T2)) == Decision(
        (e.TruckAssigned(NOW_MS + 7, trip),),
        (
            fx.ShowTrip(trip, TripNews.TRIP_ASSIGNED),
            fx.TellWatchers(CustomerNews.TRUCK_CONFIRMED, {**trip_view(trip), "remaining_requests": 0}),
            fx.DropOffers((T2,)),
            fx.CloseOffers((T1, T3)),
        ),
        Done(
            {
                "broadcast_id": BROADCAST,
                "request_id": "01k9haul-1",
                "assignment_id": "01k9haul-1-a",
                "trip_id": "01k9haul-1-t",
                "status": "fully_filled",
                "remaining_requests": 0,
            }
        ),
    )


def test_while_trucks_are_open_the_offers_are_amended() -> None:
    run = begun("van", "van", offered=(T1, T2, T3))
    run.do(Decline(T3))
    trip = trip_of(T1, 1)
    decision = run.do(accept(T1))
    assert decision.effects == (
        fx.ShowTrip(trip, TripNews.TRIP_ASSIGNED),
        fx.TellWatchers(CustomerNews.TRUCK_CONFIRMED, {**trip_view(trip), "remaining_requests": 1}),
        fx.AmendOffers((T1, T2)),
    )
    assert isinstance(decision.reply, Done)
    assert (decision.reply.data["status"], decision.reply.data["remaining_requests"]) == ("partially_filled", 1)


def test_filling_the_rest_drops_all_winners_and_closes_the_others() -> None:
    run = won(begun("van", "van", offered=(T1, T2, T3)), T3)
    assert run.decide(accept(T1)).effects[2:] == (fx.DropOffers((T1, T3)), fx.CloseOffers((T2,)))


def test_an_accept_takes_the_first_open_truck_of_its_type() -> None:
    run = begun("van", "truck", "van", "truck", offered=(T1, T2))
    taken = []
    for transporter, vehicle_type in ((T1, "truck"), (T2, "van"), (T2, "truck"), (T1, "van")):
        reply = run.do(accept(transporter, vehicle_type)).reply
        assert isinstance(reply, Done)
        taken.append(reply.data["request_id"])
    assert taken == ["01k9haul-2", "01k9haul-1", "01k9haul-4", "01k9haul-3"]


def test_the_trip_has_the_vehicle_and_the_driver_of_the_accept() -> None:
    run = begun("van", offered=(T1,))
    vehicle, driver = vehicle_of(T1, "spare"), DriverId("d-spare")
    run.do(Accept(T1, vehicle, "van", driver))
    assert (run.trip().vehicle_id, run.trip().driver_id) == (vehicle, driver)


def test_one_transporter_can_win_several_trucks_and_hears_of_the_end_once() -> None:
    run = won(begun("van", "van", offered=(T1, T2)), T1)
    assert run.decide(accept(T1)).effects[2:] == (fx.DropOffers((T1,)), fx.CloseOffers((T2,)))


def test_who_declined_may_still_accept() -> None:
    run = begun("van", offered=(T1, T2))
    run.do(Decline(T1))
    decision = run.do(accept(T1))
    assert isinstance(decision.reply, Done)
    assert decision.effects[2:] == (fx.CloseOffers((T2,)),), "the offer has left the winner's feed before"


def test_who_won_and_then_declined_the_rest_hears_only_that_the_trip_stands() -> None:
    run = won(begun("van", "van", offered=(T1, T2)), T1)
    assert run.do(Decline(T1)).effects == (fx.DropOffers((T1,)),)
    assert run.decide(Cancel(CUSTOMER)).effects[:2] == (
        fx.CloseOffers((T2,)),
        fx.ShowTrip(trip_of(T1, 1), TripNews.TRIP_CONTINUES),
    )


def test_who_was_not_offered_cannot_accept() -> None:
    assert begun("van", offered=(T1,)).decide(accept(T2)) == refused(Refusal.NOT_OFFERED)
    assert begun("van").decide(accept(T2)) == refused(Refusal.NOT_OFFERED)


@over
def test_who_was_not_offered_does_not_learn_how_it_ended(end: str) -> None:
    assert OVER[end]().decide(accept(T3)) == refused(Refusal.NOT_OFFERED)


def test_a_type_that_was_never_wanted_is_a_mismatch() -> None:
    run = begun("van", offered=(T1,))
    assert run.decide(accept(T1, "truck")) == refused(Refusal.VEHICLE_TYPE_MISMATCH, vehicle_type="truck")


def test_a_type_whose_trucks_are_all_found_is_taken() -> None:
    run = won(begun("van", "truck", "truck", offered=(T1, T2)), T1)
    assert run.decide(accept(T2)) == refused(Refusal.REQUEST_ALREADY_TAKEN, remaining_requests=2)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("cancelled", refused(Refusal.BROADCAST_CANCELLED)),
        ("expired", refused(Refusal.BROADCAST_EXPIRED)),
        ("filled", refused(Refusal.REQUEST_ALREADY_TAKEN, remaining_requests=0)),
    ],
)
@pytest.mark.parametrize("vehicle_type", ["van", "truck"])
def test_an_accept_after_the_end_says_which_end(end: str, expected: Decision, vehicle_type: str) -> None:
    run = OVER[end]()
    assert run.decide(accept(T1, vehicle_type)) == expected
    assert run.decide(accept(T2, vehicle_type)) == expected


def test_in_the_last_millisecond_an_accept_wins() -> None:
    run = begun("van", offered=(T1,)).at(EXPIRY_MS - 1)
    assert isinstance(run.decide(accept(T1)).reply, Done)


def test_an_accept_at_the_expiry_finds_the_broadcast_expired() -> None:
    run = begun("van", offered=(T1, T2)).at(EXPIRY_MS)
    assert run.decide(accept(T1)) == Decision(
        (e.Expired(EXPIRY_MS, EndReason.NO_VEHICLES_AVAILABLE),),
        (
            fx.CloseOffers((T1, T2)),
            fx.TellWatchers(CustomerNews.BROADCAST_EXPIRED, {"reason": "no_vehicles_available", "assigned": 0}),
        ),
        Refused(Refusal.BROADCAST_EXPIRED),
    )


def test_a_clock_that_steps_back_does_not_revive_what_has_expired() -> None:
    run = begun("van", offered=(T1,)).at(EXPIRY_MS)
    run.do(Tick())
    assert run.at(EXPIRY_MS - 5).decide(accept(T1)) == refused(Refusal.BROADCAST_EXPIRED)


# --- Decline ---------------------------------------------------------------------------------------------------------


def test_a_decline_takes_the_offer_off_the_feed() -> None:
    run = begun("van", offered=(T1, T2)).at(NOW_MS + 7)
    assert run.do(Decline(T2)) == Decision(
        (e.Declined(NOW_MS + 7, T2),), (fx.DropOffers((T2,)),), Done({"broadcast_id": BROADCAST})
    )
    assert run.state.offers[T2].declined
    assert not run.state.offers[T1].declined


def test_a_second_decline_is_answered_the_same_and_does_nothing() -> None:
    run = begun("van", offered=(T1,))
    first = run.do(Decline(T1))
    assert run.decide(Decline(T1)) == Decision(reply=first.reply)


def test_who_was_not_offered_cannot_decline() -> None:
    assert begun("van", offered=(T1,)).decide(Decline(T2)) == refused(Refusal.NOT_OFFERED)


@over
def test_a_decline_after_the_end_does_nothing(end: str) -> None:
    assert OVER[end]().decide(Decline(T2)) == Decision(reply=Done({"broadcast_id": BROADCAST}))


# --- Trips -----------------------------------------------------------------------------------------------------------


def at_status(status: TripStatus) -> Run:
    run = won(begun("van", "van", offered=(T1, T2)), T1)
    if status is not TripStatus.ASSIGNED:
        run.move(status)
    return run


@pytest.mark.parametrize(
    ("status", "new"),
    [(status, new) for status in TripStatus for new in TripStatus if new in TRIP_TRANSITIONS[status]],
)
@pytest.mark.parametrize("by_driver", [False, True])
def test_a_trip_goes_forward_and_may_skip(status: TripStatus, new: TripStatus, by_driver: bool) -> None:
    run = at_status(status).at(NOW_MS + 7)
    decision = run.do(UpdateTrip(driver_of(T1) if by_driver else T1, TRIP, new, by_driver))
    assert (run.trip().status, run.trip().updated_at_ms, run.trip().assigned_at_ms) == (new, NOW_MS + 7, NOW_MS)
    assert decision == Decision(
        (e.TripUpdated(NOW_MS + 7, TRIP, new),),
        (
            fx.ShowTrip(run.trip(), TripNews.TRIP_UPDATED),
            fx.TellWatchers(CustomerNews.TRIP_UPDATED, trip_view(run.trip())),
        ),
        Done({"trip_id": TRIP, "status": new}),
    )


@pytest.mark.parametrize("status", TripStatus)
def test_a_status_reported_again_is_answered_and_does_nothing(status: TripStatus) -> None:
    run = at_status(status)
    decision = run.decide(UpdateTrip(T1, TRIP, status))
    assert decision == Decision(reply=Done({"trip_id": TRIP, "status": status}))


@pytest.mark.parametrize(
    ("status", "new"),
    [
        (status, new)
        for status in TripStatus
        for new in TripStatus
        if new is not status and new not in TRIP_TRANSITIONS[status]
    ],
)
def test_a_trip_never_goes_back(status: TripStatus, new: TripStatus) -> None:
    allowed = sorted(TRIP_TRANSITIONS[status])
    decision = at_status(status).decide(UpdateTrip(T1, TRIP, new))
    assert decision == refused(Refusal.TRIP_TRANSITION_INVALID, status=status, allowed=allowed)


@pytest.mark.parametrize(
    ("user", "by_driver"),
    [
        (T2, False),
        (T3, False),
        (driver_of(T2), True),
        (DriverId("c1"), True),
        (DriverId(T1), True),  # a driver who happens to have the transporter's id
        (TransporterId(driver_of(T1)), False),
    ],
)
@pytest.mark.parametrize("status", [TripStatus.ASSIGNED, TripStatus.EN_ROUTE])
def test_a_stranger_finds_no_trip(user: TransporterId | DriverId, by_driver: bool, status: TripStatus) -> None:
    run = at_status(TripStatus.ASSIGNED)
    assert run.decide(UpdateTrip(user, TRIP, status, by_driver)) == refused(Refusal.TRIP_NOT_FOUND)


@pytest.mark.parametrize("trip_id", ["01k9haul-2-t", "01k9haul-3-t", "01k9haul-1-a", "01k9haul"])
def test_a_trip_that_does_not_exist_is_not_found(trip_id: str) -> None:
    run = at_status(TripStatus.ASSIGNED)
    command = UpdateTrip(T1, TripId(trip_id), TripStatus.EN_ROUTE)
    assert run.decide(command) == refused(Refusal.TRIP_NOT_FOUND)


@over
def test_a_trip_outlives_its_broadcast(end: str) -> None:
    run = OVER[end]()
    status = run.state.status
    for step in (TripStatus.EN_ROUTE, TripStatus.AT_PICKUP, TripStatus.LOADED, TripStatus.DELIVERED):
        assert run.move(step).reply == Done({"trip_id": TRIP, "status": step})
    assert run.state.status is status


# --- Tick ------------------------------------------------------------------------------------------------------------


def reminder(remaining: int) -> fx.TellWatchers:
    return fx.TellWatchers(CustomerNews.EXPIRY_REMINDER, {"expires_at": EXPIRY_MS, "remaining_requests": remaining})


def quiet() -> Run:
    """A broadcast for two vans that has no more waves to send."""
    return begun("van", "van", offered=(T1,), settings=TenantSettings(wave_radii_km=(10,)))


def test_a_tick_with_nothing_due_does_nothing() -> None:
    assert quiet().decide(Tick()) == Decision()
    assert quiet().at(EXPIRY_MS - 60_001).decide(Tick()) == Decision()


def test_the_customer_is_reminded_once_and_told_how_many_are_missing() -> None:
    run = won(quiet(), T1).at(EXPIRY_MS - 60_000)
    assert run.do(Tick()) == Decision((e.Reminded(run.now_ms),), (reminder(1),))
    assert run.decide(Tick()) == Decision()
    assert run.at(EXPIRY_MS - 1).decide(Tick()) == Decision()


def test_a_late_reminder_still_comes_unless_the_expiry_came_first() -> None:
    assert quiet().at(EXPIRY_MS - 1).decide(Tick()).effects == (reminder(2),)
    assert reminder(2) not in quiet().at(EXPIRY_MS).decide(Tick()).effects


def test_a_due_wave_asks_for_candidates_until_it_is_sent() -> None:
    run = begun("van", "truck", offered=(T1,))
    assert run.at(NOW_MS + 14_999).decide(Tick()) == Decision()
    seek = fx.SeekCandidates(2, 25_000.0, frozenset({"van", "truck"}), 500)
    assert run.at(NOW_MS + 15_000).do(Tick()) == Decision((), (seek,))
    assert run.at(NOW_MS + 15_001).do(Tick()) == Decision((), (seek,))
    run.send_wave()
    assert run.decide(Tick()) == Decision()


def test_a_wave_seeks_only_what_is_still_wanted() -> None:
    run = won(begun("van", "truck", offered=(T1, T2)), T1).at(NOW_MS + 15_000)
    assert run.decide(Tick()).effects == (fx.SeekCandidates(2, 25_000.0, frozenset({"truck"}), 500),)


def test_the_last_wave_reaches_everybody() -> None:
    run = begun("van")
    reached = []
    while run.state.next_wave_at_ms is not None:
        (seek,) = run.at(run.state.next_wave_at_ms).do(Tick()).effects
        assert isinstance(seek, fx.SeekCandidates)
        reached.append((seek.radius_m, run.now_ms - NOW_MS))
        run.send_wave()
    assert reached == [(10_000, 0), (25_000, 15_000), (50_000, 30_000), (75_000, 45_000), (None, 60_000)]


def test_a_reminder_and_a_wave_that_are_due_together_both_come() -> None:
    run = begun("van", offered=(T1,)).at(EXPIRY_MS - 60_000)
    decision = run.decide(Tick())
    assert decision.events == (e.Reminded(run.now_ms),)
    assert decision.effects == (reminder(1), fx.SeekCandidates(2, 25_000.0, frozenset({"van"}), 500))


def test_an_expiry_with_nothing_found_says_so() -> None:
    run = begun("van", offered=(T1,)).at(EXPIRY_MS + 3)
    assert run.do(Tick()) == Decision(
        (e.Expired(EXPIRY_MS + 3, EndReason.NO_VEHICLES_AVAILABLE),),
        (
            fx.CloseOffers((T1,)),
            fx.TellWatchers(CustomerNews.BROADCAST_EXPIRED, {"reason": "no_vehicles_available", "assigned": 0}),
        ),
    )


def test_an_expiry_with_some_found_leaves_them_their_trips() -> None:
    run = won(begun("van", "van", offered=(T1, T2)), T2).at(EXPIRY_MS)
    assert run.do(Tick()) == Decision(
        (e.Expired(EXPIRY_MS, EndReason.EXPIRED),),
        (
            fx.DropOffers((T2,)),
            fx.CloseOffers((T1,)),
            fx.ShowTrip(trip_of(T2, 1), TripNews.TRIP_CONTINUES),
            fx.TellWatchers(CustomerNews.BROADCAST_EXPIRED, {"reason": "expired", "assigned": 1}),
        ),
    )


@over
def test_after_the_end_nothing_is_due(end: str) -> None:
    assert OVER[end]().at(EXPIRY_MS + 1).decide(Tick()) == Decision()


# --- SendWave --------------------------------------------------------------------------------------------------------


def test_a_wave_offers_to_the_nearest_first() -> None:
    run = begun("van").at(NOW_MS + 20)
    nearby = (candidate(T2, "van", 900), candidate(T3, "van", 300), candidate(T1, "van", 900))
    offers = tuple(
        offer_to(transporter, 1, distance_m, at_ms=NOW_MS + 20)
        for transporter, distance_m in ((T3, 300), (T1, 900), (T2, 900))
    )
    assert run.do(found(1, *nearby)) == Decision(
        (e.WaveSent(NOW_MS + 20, 1, offers, NOW_MS + 15_000, 10_000.0),), (fx.OpenOffers(offers),)
    )
    assert {*run.state.offers} == {T1, T2, T3}


def test_a_wave_to_nobody_goes_out_all_the_same() -> None:
    sent = e.WaveSent(NOW_MS, 1, (), NOW_MS + 15_000, 10_000.0)
    assert begun("van").decide(found(1)) == Decision((sent,))


def test_a_wave_has_its_limit() -> None:
    run = begun("van", settings=TenantSettings(max_offers_per_wave=2))
    run.send_wave(*(candidate(each) for each in (T1, T2, T3)), more=True)
    assert [*run.state.offers] == [T1, T2]


def test_nobody_is_offered_twice() -> None:
    run = begun("van", offered=(T1, T2))
    run.do(Decline(T2))
    decision = run.send_wave(candidate(T1), candidate(T2), candidate(T3))
    assert decision.effects == (fx.OpenOffers((offer_to(T3, 2),)),)
    assert run.state.offers[T1].wave == 1
    assert run.state.offers[T2].declined


def test_a_type_found_meanwhile_is_not_offered() -> None:
    run = won(begun("van", "truck", offered=(T1, T2)), T1)
    decision = run.send_wave(candidate(T3, "van"), candidate(T4, "truck"))
    assert decision.effects == (fx.OpenOffers((offer_to(T4, 2, vehicle_type="truck"),)),)


@pytest.mark.parametrize("wave", [0, 1, 3])
def test_candidates_for_another_wave_are_ignored(wave: int) -> None:
    assert begun("van", offered=(T1,)).decide(found(wave, candidate(T2))) == Decision()


def test_candidates_that_nobody_asked_for_are_ignored() -> None:
    assert quiet().decide(found(2, candidate(T2))) == Decision()


@over
def test_candidates_that_come_after_the_end_are_not_offered(end: str) -> None:
    run = OVER[end]()
    assert run.decide(found(2, candidate(T3))) == Decision()


def test_who_was_left_out_comes_with_a_repetition_of_the_last_wave() -> None:
    run = begun("van", settings=TenantSettings(wave_radii_km=(10,), max_offers_per_wave=1))
    run.send_wave(candidate(T1), more=True)
    assert run.state.next_wave_at_ms == NOW_MS + 15_000
    again = run.at(NOW_MS + 15_000).do(Tick())
    assert again.effects == (fx.SeekCandidates(2, 10_000.0, frozenset({"van"}), 1),)
    run.send_wave(candidate(T2), more=False)
    assert run.state.next_wave_at_ms is None
    assert [*run.state.offers] == [T1, T2]


def test_who_found_no_place_in_the_last_wave_comes_with_another() -> None:
    """The tenant has lowered the limit while the candidates were looked up."""
    run = begun("van", settings=TenantSettings(wave_radii_km=(10,), max_offers_per_wave=1))
    run.send_wave(candidate(T1), candidate(T2), more=False)
    assert run.state.next_wave_at_ms == NOW_MS + 15_000


def test_whose_nearest_vehicle_is_no_longer_wanted_is_looked_up_again() -> None:
    """The nearest vehicle was a van; a truck of the same transporter may stand next to it."""
    run = won(begun("van", "truck", offered=(T1,), settings=TenantSettings(wave_radii_km=(10, None))), T1)
    run.send_wave(candidate(T2, "van"), more=False)
    assert run.state.next_wave_at_ms == NOW_MS + 30_000


def test_who_has_been_offered_meanwhile_causes_no_other_wave() -> None:
    run = begun("van", offered=(T1,), settings=TenantSettings(wave_radii_km=(10, None)))
    run.do(Appear(candidate(T2)))
    run.send_wave(candidate(T2), candidate(T1), more=False)
    assert run.state.next_wave_at_ms is None


def recorded(decision: Decision) -> list[tuple[str, str]]:
    """Whom a wave left out, and why."""
    (sent,) = decision.events
    assert isinstance(sent, e.WaveSent)
    return [(each.transporter_id, each.reason) for each in sent.left_out]


def test_a_wave_records_whom_it_left_out_and_how_far_it_reached() -> None:
    run = begun("van", settings=TenantSettings(wave_radii_km=(10, None)))
    others = [left_out(T3, LeftOutReason.OUT_OF_RANGE, "van", 12_000), left_out(T2, LeftOutReason.ON_TRIP, "van", 500)]
    first = run.send_wave(candidate(T1), left_out=others)
    assert first.events == (
        e.WaveSent(NOW_MS, 1, (offer_to(T1, 1),), NOW_MS + 15_000, 10_000.0, (others[1], others[0])),
    )
    last = run.send_wave(left_out=others[:1])
    assert isinstance(last.events[0], e.WaveSent)
    assert last.events[0].radius_m is None


def test_who_is_left_out_changes_neither_the_state_nor_what_anybody_is_shown() -> None:
    with_them, without = begun("van"), begun("van")
    assert (
        with_them.send_wave(candidate(T1), left_out=[left_out(T2)]).effects == without.send_wave(candidate(T1)).effects
    )
    assert with_them.state == without.state


def test_who_was_offered_it_in_this_wave_or_before_is_not_left_out() -> None:
    """Also by coming online while the wave was looked up, and also who has declined."""
    run = begun("van", offered=(T1, T2))
    run.do(Decline(T2))
    run.do(Appear(candidate(T3)))
    decision = run.send_wave(candidate(T4), left_out=[left_out(each) for each in (T1, T2, T3, T4, T5)])
    assert recorded(decision) == [(T5, "on_trip")]


def test_each_is_left_out_once_with_the_nearest_vehicle() -> None:
    run = begun("van", settings=TenantSettings(max_offers_per_wave=1))
    decision = run.send_wave(
        candidate(T1, "van", 100),
        candidate(T2, "van", 900),
        candidate(T3, "van", 200),
        left_out=[left_out(T2, distance_m=300), left_out(T3, distance_m=300), left_out(T2, distance_m=400)],
    )
    assert recorded(decision) == [(T3, "over_limit"), (T2, "on_trip")]


def test_whose_type_was_won_meanwhile_is_left_out_for_that() -> None:
    run = won(begun("van", "truck", offered=(T1,)), T1)
    decision = run.send_wave(
        candidate(T2, "van"),
        candidate(T3, "truck"),
        left_out=[left_out(T4, vehicle_type="van"), left_out(T5, vehicle_type="truck")],
    )
    assert recorded(decision) == [(T2, "type_filled"), (T4, "type_filled"), (T5, "on_trip")]


def test_a_wave_records_the_nearest_20_whom_it_left_out() -> None:
    many = [left_out(TransporterId(f"x{number:02}"), distance_m=number) for number in range(30)]
    assert recorded(begun("van").send_wave(left_out=many[::-1])) == [
        (each.transporter_id, "on_trip") for each in many[:20]
    ]


def test_a_late_wave_gives_the_next_a_full_interval() -> None:
    run = begun("van", offered=(T1,)).at(NOW_MS + 100_000)
    run.send_wave()
    assert run.state.next_wave_at_ms == NOW_MS + 115_000
    assert run.decide(Tick()) == Decision()


# --- Appear ----------------------------------------------------------------------------------------------------------


def test_who_comes_late_within_reach_is_offered_it() -> None:
    run = begun("van", offered=(T1,)).at(NOW_MS + 7)
    offer = offer_to(T2, 1, 9_000, at_ms=NOW_MS + 7)
    assert run.do(Appear(candidate(T2, "van", 9_000))) == Decision(
        (e.Offered(NOW_MS + 7, offer),), (fx.OpenOffers((offer,)),)
    )
    assert run.state.offers[T2] == offer
    assert run.state.wave == 1


@pytest.mark.parametrize(("distance_m", "offered"), [(0, True), (10_000, True), (10_001, False)])
def test_the_reach_is_that_of_the_last_wave_to_the_metre(distance_m: int, offered: bool) -> None:
    run = begun("van", offered=(T1,))
    assert bool(run.decide(Appear(candidate(T2, "van", distance_m))).events) == offered


def test_the_reach_grows_with_the_waves_until_it_is_everywhere() -> None:
    run = begun("van")
    reached = []
    for _ in range(5):
        run.send_wave()
        reached.append(
            [km for km in (25, 26, 75, 76, 9_000) if run.decide(Appear(candidate(T2, "van", km * 1_000))).events]
        )
    assert reached == [[], [25], [25, 26], [25, 26, 75], [25, 26, 75, 76, 9_000]]


@pytest.mark.parametrize("sent", [0, 1])
def test_who_appears_while_a_wave_is_due_is_offered_as_if_it_had_been_sent(sent: int) -> None:
    """Its candidates may have been looked up just before."""
    run = begun("van", offered=(T2,)) if sent else begun("van")
    wave = sent + 1
    within = round(radius_m(run.settings, wave) or 0)
    if sent:
        assert run.decide(Appear(candidate(T1, "van", within))).events == ()
    run.at(run.state.next_wave_at_ms or 0)
    assert run.decide(Appear(candidate(T1, "van", within + 1))).events == ()
    (offered,) = run.decide(Appear(candidate(T1, "van", within))).events
    assert isinstance(offered, e.Offered)
    assert (offered.offer.transporter_id, offered.offer.wave) == (T1, wave)


def test_who_has_had_the_offer_does_not_get_it_by_coming_again() -> None:
    run = begun("van", offered=(T1, T2))
    run.do(Decline(T2))
    run.do(Appear(candidate(T3)))
    for transporter in (T1, T2, T3):
        assert run.decide(Appear(candidate(transporter))) == Decision()


def test_who_comes_with_what_is_not_wanted_any_more_is_not_offered_it() -> None:
    run = won(begun("van", "truck", offered=(T1, T2)), T1)
    assert run.decide(Appear(candidate(T3, "van"))) == Decision()
    assert run.decide(Appear(candidate(T3, "trailer"))) == Decision()
    assert run.decide(Appear(candidate(T3, "truck"))).events


@over
def test_who_comes_after_the_end_is_not_offered_it(end: str) -> None:
    assert OVER[end]().decide(Appear(candidate(T5))) == Decision()


# --- Whatever comes at the expiry ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (Cancel(CUSTOMER), Refused(Refusal.BROADCAST_EXPIRED)),
        (Cancel(STRANGER), Refused(Refusal.BROADCAST_NOT_FOUND)),
        (accept(T2), Refused(Refusal.BROADCAST_EXPIRED)),
        (accept(T3), Refused(Refusal.NOT_OFFERED)),
        (Decline(T2), Done({"broadcast_id": BROADCAST})),
        (UpdateTrip(T1, TRIP, TripStatus.ASSIGNED), Done({"trip_id": TRIP, "status": TripStatus.ASSIGNED})),
        (Tick(), None),
        (found(2, candidate(T3), more=True), None),
        (Appear(candidate(T3)), None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("late_ms", [0, 1, 3_600_000])
def test_whatever_comes_at_the_expiry_finds_the_broadcast_expired(
    command: Command, reply: Done | Refused | None, late_ms: int
) -> None:
    run = won(begun("van", "van", offered=(T1, T2)), T1).at(EXPIRY_MS + late_ms)
    assert run.decide(command) == Decision(
        (e.Expired(run.now_ms, EndReason.EXPIRED),),
        (
            fx.DropOffers((T1,)),
            fx.CloseOffers((T2,)),
            fx.ShowTrip(trip_of(T1, 1), TripNews.TRIP_CONTINUES),
            fx.TellWatchers(CustomerNews.BROADCAST_EXPIRED, {"reason": "expired", "assigned": 1}),
        ),
        reply,
    )


def test_a_trip_that_moves_at_the_expiry_moves() -> None:
    run = won(begun("van", "van", offered=(T1, T2)), T1).at(EXPIRY_MS)
    decision = run.do(UpdateTrip(T1, TRIP, TripStatus.DELIVERED))
    assert [type(event) for event in decision.events] == [e.Expired, e.TripUpdated]
    shown = [effect for effect in decision.effects if isinstance(effect, fx.ShowTrip)]
    assert [effect.news for effect in shown] == [TripNews.TRIP_CONTINUES, TripNews.TRIP_UPDATED]
    assert shown[-1].trip == run.trip()
    assert run.state.seq == 5
