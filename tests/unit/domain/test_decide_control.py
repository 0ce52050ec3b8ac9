"""What changes while a broadcast lives: its tenant is paused, or has other settings than when it was asked."""

from typing import Any

import pytest

from haulcast.domain import effects as fx
from haulcast.domain import events as e
from haulcast.domain.commands import Appear, Cancel, Decline, SendWave, Tick
from haulcast.domain.decision import Decision
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.settings import ActiveBroadcastPolicy, TenantSettings
from haulcast.domain.states import EndReason

from .strategies import BROADCAST, CUSTOMER, NOW_MS, T1, T2, T3, Run, accept, begun, candidate, create, found

DUE_MS = NOW_MS + 15_000


def paused(run: Run) -> Run:
    return run.configure(paused=True)


# --- Paused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ActiveBroadcastPolicy)
def test_while_paused_nothing_is_created_and_nothing_else_is_said(policy: ActiveBroadcastPolicy) -> None:
    refused = Decision(reply=Refused(Refusal.TENANT_PAUSED))
    run = paused(Run(TenantSettings(active_broadcast_policy=policy)))
    assert run.decide(create("van")) == run.decide(create("van", expires_in_s=1)) == refused
    assert paused(begun("van")).decide(create("van")) == refused


def test_while_paused_no_wave_is_sought_and_that_it_is_held_is_noted_once() -> None:
    run = paused(begun("van", offered=(T1,))).at(DUE_MS)
    assert run.do(Tick()) == Decision((e.WaveHeld(DUE_MS),))
    assert run.state.next_wave_at_ms == DUE_MS
    assert DUE_MS not in [*run.state.deadlines()]
    assert run.at(DUE_MS + 1).decide(Tick()) == Decision()


def test_a_wave_that_was_sought_before_the_pause_is_not_sent_in_it() -> None:
    run = begun("van", offered=(T1,)).at(DUE_MS)
    assert run.decide(Tick()).effects
    assert paused(run).decide(found(2, candidate(T2))) == Decision()


def test_after_the_pause_the_wave_goes_out_at_once_and_the_next_a_full_interval_later() -> None:
    run = paused(begun("van", offered=(T1,))).at(DUE_MS)
    run.do(Tick())
    run.configure(paused=False).at(DUE_MS + 60_000)
    (seek,) = run.decide(Tick()).effects
    assert isinstance(seek, fx.SeekCandidates)
    assert seek.wave == 2
    run.send_wave(candidate(T2))
    assert (run.state.next_wave_at_ms, run.state.wave_held) == (DUE_MS + 75_000, False)
    assert run.decide(Tick()) == Decision()


def test_a_pause_between_two_waves_changes_nothing() -> None:
    run = paused(begun("van", offered=(T1,))).at(DUE_MS - 1)
    assert run.decide(Tick()) == Decision()
    run.configure(paused=False).at(DUE_MS)
    run.do(Tick())
    run.send_wave()
    assert run.state.next_wave_at_ms == DUE_MS + 15_000


def test_while_paused_everything_else_goes_on() -> None:
    run = paused(begun("van", "van", offered=(T1, T2), expires_in_s=300)).at(DUE_MS)
    assert isinstance(run.do(accept(T1)).reply, Done)
    assert isinstance(run.do(Decline(T2)).reply, Done)
    reminded = run.at(NOW_MS + 240_000).do(Tick())
    assert [type(event) for event in reminded.events] == [e.Reminded, e.WaveHeld]
    assert [type(event) for event in run.at(NOW_MS + 300_000).do(Tick()).events] == [e.Expired]
    run = paused(begun("van", offered=(T1,)))
    assert isinstance(run.do(Cancel(CUSTOMER)).reply, Done)


@pytest.mark.parametrize(("distance_m", "offered"), [(10_000, True), (10_001, False)])
def test_who_appears_in_a_pause_is_offered_what_has_reached_them_and_waits_for_the_held_wave(
    distance_m: int, offered: bool
) -> None:
    run = paused(begun("van", offered=(T1,))).at(DUE_MS)
    for _ in range(2):
        assert bool(run.decide(Appear(candidate(T2, "van", distance_m))).events) is offered
        run.do(Tick())  # by now it is noted that the wave is held


def test_who_appears_before_any_wave_was_sent_waits_for_it() -> None:
    run = paused(begun("van"))
    assert run.decide(Appear(candidate(T2, "van", 0))) == Decision()


# --- Other settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sought"),
    [
        ({"wave_radii_km": (2, 3)}, (2, 3_000.0, 500)),
        ({"max_offers_per_wave": 7}, (2, 25_000.0, 7)),
        ({"dispatch_mode": "blast"}, (2, None, 10_000)),
    ],
)
def test_what_was_looked_up_under_other_settings_is_looked_up_again(
    changes: dict[str, Any], sought: tuple[int, float | None, int]
) -> None:
    run = begun("van", offered=(T1,)).at(DUE_MS)
    answer = found(2, candidate(T2), settings=run.settings)
    (seek,) = run.configure(**changes).decide(answer).effects
    assert isinstance(seek, fx.SeekCandidates)
    assert (seek.wave, seek.radius_m, seek.limit) == sought
    assert run.decide(answer).events == ()
    again = SendWave(seek.wave, seek.radius_m, seek.limit, (candidate(T2),), False)
    (sent,) = run.decide(again).events
    assert isinstance(sent, e.WaveSent)
    assert sent.radius_m == sought[1]


def test_settings_that_do_not_concern_the_lookup_do_not_repeat_it() -> None:
    run = begun("van", offered=(T1,)).at(DUE_MS)
    run.configure(wave_interval_s=5.0).do(found(2, candidate(T2)))
    assert run.state.next_wave_at_ms == DUE_MS + 5_000


# --- Replaced --------------------------------------------------------------------------------------------------------


def test_a_broadcast_that_is_replaced_is_cancelled_for_that_reason() -> None:
    run = begun("van", "van", offered=(T1, T2, T3))
    run.do(accept(T1))
    run.configure(active_broadcast_policy=ActiveBroadcastPolicy.REPLACE)
    decision = run.do(Cancel(CUSTOMER, EndReason.REPLACED))
    assert decision == Decision(
        (e.Cancelled(NOW_MS, EndReason.REPLACED),),
        (
            fx.DropOffers((T1,)),
            fx.CloseOffers((T2, T3)),
            fx.ShowTrip(run.trip(), fx.TripNews.TRIP_CONTINUES),
            fx.TellWatchers(fx.CustomerNews.BROADCAST_CANCELLED, {"reason": "replaced", "assigned": 1}),
        ),
        Done({"broadcast_id": BROADCAST, "status": "cancelled", "assigned": 1}),
    )


def test_a_broadcast_is_not_replaced_where_that_is_not_so_any_more() -> None:
    """Its successor would be refused."""
    run = begun("van")
    replaced = Cancel(CUSTOMER, EndReason.REPLACED)
    exists = Refused(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": BROADCAST})
    assert run.decide(replaced) == Decision(reply=exists)
    run.configure(active_broadcast_policy=ActiveBroadcastPolicy.REPLACE)
    assert paused(run).decide(replaced) == Decision(reply=Refused(Refusal.TENANT_PAUSED))
    assert run.decide(Cancel(CUSTOMER)).events == (e.Cancelled(NOW_MS, EndReason.CUSTOMER_CANCELLED),)
