"""The checker finds every kind of violation when one is planted, and nothing in a run that is clean."""

from collections.abc import Callable
from pathlib import Path

import pytest

from haulcast.demo.checker import INVARIANTS, SHOWN_PER_INVARIANT, check
from haulcast.demo.control_checker import TOLERANCE_MS
from haulcast.demo.kept import kept_in_sqlite

from .world import NOW_MS, World, clean


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A clean run."""
    return clean(tmp_path / "journal.sqlite3")


def test_a_clean_run_passes(world: World) -> None:
    verdict = world.judge()
    assert verdict.violations == ()
    assert verdict.double_assignments == 0
    assert verdict.statuses == {"fully_filled": 3, "cancelled": 1, "expired": 1}
    assert (verdict.wins, verdict.wins_untold) == (4, 0)


def test_another_tenants_run_is_not_looked_at(world: World) -> None:
    world.broadcasts["b1"]["seq"] = 99
    world.judge()
    assert check([], kept_in_sqlite(world.path, "demo-2"), NOW_MS).violations == ()


# --- one planted violation each ---


def won_twice_in_the_journal(world: World) -> None:
    world.event("b1", "truck_assigned", 210, trip={**world.events[7][3]["trip"], "transporter_id": "t3"})


def won_twice_by_what_was_told(world: World) -> None:
    won = world.record(user="t1", id="b1-1-t1")
    world.records.append({**won, "user": "t3", "id": "r9"})


def vehicle_on_two_trips(world: World) -> None:
    del world.events[
        world.events.index(("b1", 8, "trip_updated", {"at_ms": 500, "trip_id": "b1-1-t", "status": "delivered"}))
    ]


def driver_on_two_trips(world: World) -> None:
    for event in world.events:
        if event[2] == "truck_assigned":
            event[3]["trip"]["driver_id"] = "d7"


def assignment_missing(world: World) -> None:
    del world.assignments[0]


def assignment_of_another_vehicle(world: World) -> None:
    world.assignments[0]["vehicle_id"] = "v9"


def win_without_an_event(world: World) -> None:
    won = world.record(user="t1", id="b1-1-t1")
    won["reply"] |= {"request_id": "b1-9"}


def answer_on_record_is_another(world: World) -> None:
    world.replies[0][2]["done"] |= {"remaining_requests": 7}


def win_untold(world: World) -> None:
    world.forget(user="t1", id="b1-1-t1")


def too_many_winners(world: World) -> None:
    world.win("b1", 3, "t3", "v3")


def a_type_that_was_not_wanted(world: World) -> None:
    next(event for event in world.events if event[2] == "truck_assigned")[3]["trip"]["vehicle_type"] = "crane"


def assigned_after_the_cancel(world: World) -> None:
    world.win("b2", 1, "t3", "v3", at_ms=310)


def assigned_after_the_expiry(world: World) -> None:
    world.win("b3", 1, "t3", "v3", at_ms=310)


def expired_after_it_was_filled(world: World) -> None:
    world.event("b1", "expired", 320, reason="expired")


def two_live_broadcasts(world: World) -> None:
    world.create("b5", "c1", "mini", at_ms=NOW_MS)
    world.create("b6", "c1", "mini", at_ms=NOW_MS)
    world.end("b5", "expired", "no_vehicles_available")


def a_broadcast_that_nobody_ended(world: World) -> None:
    world.create("b5", "c4", "mini", at_ms=NOW_MS - 20_000)


def a_broadcast_that_vanished(world: World) -> None:
    world.asked("c3", "broadcast.create", "r9", {}, reply={"broadcast_id": "b9"})


def a_gap_in_the_events(world: World) -> None:
    world.events = [event for event in world.events if event[2] != "declined"]


def a_row_that_lags_behind_its_events(world: World) -> None:
    world.broadcasts["b3"]["seq"] -= 1


def an_accept_without_an_answer(world: World) -> None:
    world.record(user="t3", id="b1-t3")["outcome"] = "lost"


def a_refusal_that_explains_nothing(world: World) -> None:
    world.record(user="t3", id="b2-t3")["code"] = "INTERNAL"


def taken_without_what_remains(world: World) -> None:
    world.record(user="t3", id="b1-t3")["reply"] = {}


def an_offer_that_was_not_shown(world: World) -> None:
    world.forget(user="t3", broadcast_id="b1", event="offer")


def an_offer_that_was_not_closed(world: World) -> None:
    world.forget(user="t3", broadcast_id="b1", event="offer_closed")


def an_offer_that_was_closed_twice(world: World) -> None:
    world.heard("t3", "b1", "offer_closed", reason="filled")


def an_offer_closed_for_the_wrong_reason(world: World) -> None:
    world.record(user="t3", broadcast_id="b2", event="offer_closed")["reason"] = "expired"


def a_winner_who_heard_of_no_trip(world: World) -> None:
    world.forget(user="t1", broadcast_id="b4", event="trip_assigned")


def a_winner_who_heard_of_a_close(world: World) -> None:
    world.heard("t1", "b4", "offer_closed", reason="filled")


def a_customer_who_heard_of_no_truck(world: World) -> None:
    world.forget(user="c1", broadcast_id="b4", event="truck_confirmed")


def a_customer_who_heard_of_no_end(world: World) -> None:
    world.forget(user="c3", event="broadcast_expired")


def a_customer_who_heard_of_two_ends(world: World) -> None:
    world.heard("c2", "b2", "broadcast_expired", reason="no_vehicles_available")


def a_command_that_a_node_did_not_follow(world: World) -> None:
    world.record(kind="commanded", id="k1")["reply"]["complete"] = False


def a_command_that_nobody_answered(world: World) -> None:
    world.record(kind="commanded", id="k1")["outcome"] = "lost"


def a_gap_in_the_versions(world: World) -> None:
    world.commands[2]["version"] += 1


def a_version_that_is_there_twice(world: World) -> None:
    world.commands[2]["version"] -= 1


def a_command_without_a_record(world: World) -> None:
    del world.commands[1]


def a_command_that_was_answered_with_anothers_record(world: World) -> None:
    world.record(kind="commanded", id="k1")["reply"]["version"] += 1


def a_wave_while_paused(world: World) -> None:
    world.event("b3", "wave_sent", 760, wave=2)


def a_broadcast_while_paused(world: World) -> None:
    world.create("b5", "c3", "mini", at_ms=760)


def a_wave_after_a_pause_that_nobody_resumed(world: World) -> None:
    world.command("k4", "pause", 1_000)
    world.event("b3", "wave_sent", 1_100, wave=2)


def a_pending_accept_that_never_ended(world: World) -> None:
    world.wait("b2", "t3", "v3")
    world.events.remove(("b2", 3, "cancelled", {"at_ms": 300, "reason": "customer_cancelled"}))


def a_pending_accept_that_no_event_knows(world: World) -> None:
    world.forget_event("accept_waiting", vehicle="v3")


def a_loser_of_a_pending_accept_who_heard_nothing(world: World) -> None:
    world.forget(user="t2", event="accept_lost")
    world.forget(user="t2", event="offer_closed")


def a_pending_answer_that_is_not_on_record(world: World) -> None:
    world.replies = [reply for reply in world.replies if reply[1] != "w1-t3-v3"]


PLANTED: list[tuple[str, Callable[[World], None]]] = [
    ("truck won once", won_twice_in_the_journal),
    ("truck won once", won_twice_by_what_was_told),
    ("one trip at a time", vehicle_on_two_trips),
    ("one trip at a time", driver_on_two_trips),
    ("confirmed is kept", assignment_missing),
    ("confirmed is kept", assignment_of_another_vehicle),
    ("confirmed is kept", win_without_an_event),
    ("confirmed is kept", answer_on_record_is_another),
    ("every win is told", win_untold),
    ("no more winners than trucks", too_many_winners),
    ("no more winners than trucks", a_type_that_was_not_wanted),
    ("one ending", assigned_after_the_cancel),
    ("one ending", assigned_after_the_expiry),
    ("one ending", expired_after_it_was_filled),
    ("one live broadcast", two_live_broadcasts),
    ("every broadcast ends", a_broadcast_that_nobody_ended),
    ("every broadcast ends", a_broadcast_that_vanished),
    ("histories are whole", a_gap_in_the_events),
    ("histories are whole", a_row_that_lags_behind_its_events),
    ("everybody is answered", an_accept_without_an_answer),
    ("everybody is answered", a_refusal_that_explains_nothing),
    ("everybody is answered", taken_without_what_remains),
    ("offers are closed", an_offer_that_was_not_shown),
    ("offers are closed", an_offer_that_was_not_closed),
    ("offers are closed", an_offer_that_was_closed_twice),
    ("offers are closed", an_offer_closed_for_the_wrong_reason),
    ("offers are closed", a_winner_who_heard_of_no_trip),
    ("offers are closed", a_winner_who_heard_of_a_close),
    ("customers are told", a_customer_who_heard_of_no_truck),
    ("customers are told", a_customer_who_heard_of_no_end),
    ("customers are told", a_customer_who_heard_of_two_ends),
    ("confirmed is kept", a_pending_answer_that_is_not_on_record),
    ("commands are followed", a_command_that_a_node_did_not_follow),
    ("commands are followed", a_command_that_nobody_answered),
    ("commands are kept", a_gap_in_the_versions),
    ("commands are kept", a_version_that_is_there_twice),
    ("commands are kept", a_command_without_a_record),
    ("commands are kept", a_command_that_was_answered_with_anothers_record),
    ("paused is paused", a_wave_while_paused),
    ("paused is paused", a_broadcast_while_paused),
    ("paused is paused", a_wave_after_a_pause_that_nobody_resumed),
    ("waiting accepts end", a_pending_accept_that_never_ended),
    ("waiting accepts end", a_pending_accept_that_no_event_knows),
    ("waiting accepts end", a_loser_of_a_pending_accept_who_heard_nothing),
]


@pytest.mark.parametrize(("invariant", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_a_planted_violation_is_found(world: World, invariant: str, plant: Callable[[World], None]) -> None:
    plant(world)
    found = world.judge()
    assert invariant in found.counts, found.violations


def test_every_invariant_has_its_planted_violation() -> None:
    assert {invariant for invariant, _ in PLANTED} == set(INVARIANTS)


# --- what is nobody's fault ---


def test_a_reply_lost_with_its_connection_is_counted_and_excused(world: World) -> None:
    world.record(user="t1", id="b1-1-t1")["outcome"] = "lost"
    world.forget(kind="stayed", user="t1")
    world.stayed("t1", connections=2)
    verdict = world.judge()
    assert verdict.violations == ()
    assert verdict.wins_untold == 1


def test_who_was_away_need_not_have_heard_of_the_close(world: World) -> None:
    world.forget(user="t3", broadcast_id="b1", event="offer_closed")
    world.forget(kind="stayed", user="t3")
    world.stayed("t3", until_ms=299)
    assert world.judge().violations == ()


def test_who_dropped_events_is_not_asked_what_it_heard(world: World) -> None:
    world.forget(user="t3", event="offer")
    world.record(kind="stayed", user="t3")["events_dropped"] = 1
    assert world.judge().violations == ()


def test_a_broadcast_with_time_left_is_fine(world: World) -> None:
    world.create("b5", "c3", "mini", at_ms=NOW_MS - 9_000)
    assert world.judge().violations == ()


def test_many_violations_are_counted_but_not_all_shown(world: World) -> None:
    for number in range(SHOWN_PER_INVARIANT + 5):
        world.asked("c3", "broadcast.create", f"r{number}", {}, reply={"broadcast_id": f"x{number}"})
    verdict = world.judge()
    assert verdict.counts == {"every broadcast ends": SHOWN_PER_INVARIANT + 5}
    assert len(verdict.violations) == SHOWN_PER_INVARIANT


@pytest.mark.parametrize(
    ("at_ms", "fair"),
    [(699, True), (704 + TOLERANCE_MS, True), (705 + TOLERANCE_MS, False), (799, False), (800, True)],
)
def test_waves_may_go_out_until_the_last_node_has_paused_and_once_it_is_resumed(
    world: World, at_ms: int, fair: bool
) -> None:
    """By the record alone there are some milliseconds more."""
    world.forget(kind="commanded", id="k1")
    world.event("b3", "wave_sent", at_ms, wave=2)
    assert ("paused is paused" not in world.judge().counts) is fair


def test_the_operators_own_answer_is_believed_if_it_came_later(world: World) -> None:
    world.record(kind="commanded", id="k1")["answered_ms"] = 770
    world.event("b3", "wave_sent", 765, wave=2)
    assert "paused is paused" not in world.judge().counts


def test_a_pause_that_was_not_followed_everywhere_is_not_held_against_waves(world: World) -> None:
    """That it was not followed is a violation already."""
    world.commands[0]["outcome"] = None
    world.event("b3", "wave_sent", 760, wave=2)
    assert "paused is paused" not in world.judge().counts


def test_who_was_away_need_not_have_heard_of_a_pending_accept(world: World) -> None:
    a_loser_of_a_pending_accept_who_heard_nothing(world)
    world.forget(kind="stayed", user="t2")
    world.stayed("t2", connections=2)
    assert world.judge().violations == ()


def test_who_declines_while_an_accept_is_pending_hears_no_more_of_it(world: World) -> None:
    world.create("b5", "c1", "mini", at_ms=NOW_MS - 5_000)
    world.offer("b5", "t3")
    world.wait("b5", "t3", "v4")
    world.event("b5", "declined", NOW_MS - 4_000, transporter_id="t3")
    assert world.judge().violations == ()
