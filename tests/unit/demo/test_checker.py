"""The checker finds every kind of violation when one is planted, and nothing in a run that is clean."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from haulcast.demo.checker import INVARIANTS, SHOWN_PER_INVARIANT, Verdict, check
from haulcast.demo.kept import kept_in_sqlite
from haulcast.storage.sqlite.migrate import migrate

TENANT = "demo-1"
NOW_MS = 1_000_000


class World:
    """A journal and what clients saw, changed at will before it is written and judged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[tuple[str, int, str, dict[str, Any]]] = []
        self.broadcasts: dict[str, dict[str, Any]] = {}
        self.assignments: list[dict[str, Any]] = []
        self.offers: list[dict[str, Any]] = []
        self.replies: list[tuple[str, str, dict[str, Any]]] = []
        self.records: list[dict[str, Any]] = []

    def event(self, broadcast_id: str, name: str, at_ms: int, **body: Any) -> None:
        row = self.broadcasts[broadcast_id]
        row["seq"] += 1
        self.events.append((broadcast_id, row["seq"], name, {"at_ms": at_ms, **body}))

    def create(self, broadcast_id: str, customer: str, *vehicle_types: str, at_ms: int = 100) -> None:
        self.broadcasts[broadcast_id] = {
            "customer_id": customer,
            "status": "searching",
            "seq": 0,
            "expires_at_ms": at_ms + 10_000,
            "ended_at_ms": None,
            "end_reason": None,
        }
        self.event(broadcast_id, "created", at_ms, customer_id=customer, vehicle_types=vehicle_types)
        self.asked(customer, "broadcast.create", f"{broadcast_id}-create", {}, reply={"broadcast_id": broadcast_id})

    def offer(self, broadcast_id: str, *transporters: str, at_ms: int = 110, declined: bool = False) -> None:
        self.event(broadcast_id, "wave_sent", at_ms, wave=1)
        for transporter in transporters:
            self.offers.append(
                {
                    "broadcast_id": broadcast_id,
                    "transporter_id": transporter,
                    "offered_at_ms": at_ms,
                    "declined": int(declined),
                }
            )
            self.heard(transporter, broadcast_id, "offer")

    def win(self, broadcast_id: str, number: int, who: str, vehicle: str, at_ms: int = 200, **more: Any) -> None:
        request = f"{broadcast_id}-{number}"
        trip = {
            "request_id": request,
            "assignment_id": f"{request}-a",
            "trip_id": f"{request}-t",
            "transporter_id": who,
            "vehicle_id": vehicle,
            "driver_id": f"d{vehicle}",
            "vehicle_type": "mini",
            **more,
        }
        self.event(broadcast_id, "truck_assigned", at_ms, trip=trip)
        self.assignments.append(
            {key: trip[key] for key in trip if key != "vehicle_type"} | {"broadcast_id": broadcast_id}
        )
        reply = {key: trip[key] for key in ("request_id", "assignment_id", "trip_id")}
        reply |= {"broadcast_id": broadcast_id, "status": "fully_filled", "remaining_requests": 0}
        asked = {"broadcast_id": broadcast_id, "vehicle_id": vehicle, "driver_id": f"d{vehicle}"}
        self.asked(who, "offer.accept", f"{request}-{who}", asked, reply=reply)
        self.replies.append((who, f"{request}-{who}", {"done": {**reply}}))
        self.heard(who, broadcast_id, "trip_assigned", trip_id=trip["trip_id"])
        self.heard(
            self.broadcasts[broadcast_id]["customer_id"], broadcast_id, "truck_confirmed", trip_id=trip["trip_id"]
        )

    def lose(self, broadcast_id: str, who: str, code: str = "REQUEST_ALREADY_TAKEN") -> None:
        asked = {"broadcast_id": broadcast_id, "vehicle_id": "vx", "driver_id": "dx"}
        reply = {"remaining_requests": 0} if code == "REQUEST_ALREADY_TAKEN" else {}
        self.asked(who, "offer.accept", f"{broadcast_id}-{who}", asked, outcome="refused", code=code, reply=reply)

    def end(self, broadcast_id: str, status: str, reason: str, *losers: str, at_ms: int = 300) -> None:
        self.broadcasts[broadcast_id] |= {"status": status, "ended_at_ms": at_ms, "end_reason": reason}
        if status != "fully_filled":
            self.event(broadcast_id, status, at_ms, reason=reason)
            self.heard(self.broadcasts[broadcast_id]["customer_id"], broadcast_id, f"broadcast_{status}", reason=reason)
        for loser in losers:
            self.heard(loser, broadcast_id, "offer_closed", reason=reason)

    def asked(self, user: str, kind: str, id: str, data: dict[str, Any], **more: Any) -> None:
        self.records.append(
            {"kind": "asked", "user": user, "type": kind, "id": id, "data": data, "outcome": "ok", "code": None} | more
        )

    def heard(self, user: str, broadcast_id: str, event: str, **more: Any) -> None:
        self.records.append(
            {"kind": "heard", "user": user, "broadcast_id": broadcast_id, "event": event}
            | {"trip_id": None, "reason": None, "replayed": False}
            | more
        )

    def stayed(self, *users: str, **more: Any) -> None:
        for user in users:
            self.records.append(
                {"kind": "stayed", "user": user, "since_ms": 0, "until_ms": NOW_MS}
                | {"connections": 1, "events_dropped": 0}
                | more
            )

    def forget(self, **fields: Any) -> None:
        """Take back every record that has these fields."""
        before = len(self.records)
        self.records = [r for r in self.records if any(r.get(key) != value for key, value in fields.items())]
        assert len(self.records) < before

    def record(self, **fields: Any) -> dict[str, Any]:
        """The one record that has these fields."""
        (found,) = (r for r in self.records if all(r.get(key) == value for key, value in fields.items()))
        return found

    def judge(self) -> Verdict:
        migrate(self.path)
        with closing(sqlite3.connect(self.path)) as db, db:
            for broadcast_id, row in self.broadcasts.items():
                row = {"tenant_id": TENANT, "broadcast_id": broadcast_id, **row}
                row["state"] = json.dumps({"end_reason": row.pop("end_reason")})
                _insert(db, "broadcasts", {**row, "created_at_ms": 100, "epoch": 1, "owner": 1})
            for broadcast_id, seq, name, body in self.events:
                key = {"tenant_id": TENANT, "broadcast_id": broadcast_id, "seq": seq}
                _insert(db, "events", {**key, "name": name, "body": json.dumps(body), "write_id": f"w{seq}"})
            for row in self.assignments:
                times = {"assigned_at_ms": 200, "updated_at_ms": 200}
                row = {"tenant_id": TENANT, "vehicle_type": "mini", "trip_status": "delivered", **times, **row}
                _insert(db, "assignments", row)
            for row in self.offers:
                shown = {"wave": 1, "vehicle_id": "v", "vehicle_type": "mini", "distance_m": 5}
                _insert(db, "offers", {"tenant_id": TENANT, **shown, **row})
            for user, request_id, reply in self.replies:
                key = {"tenant_id": TENANT, "role": "transporter", "user_id": user, "request_id": request_id}
                rest = {"fingerprint": "f", "reply": json.dumps(reply), "at_ms": 200, "write_id": "w"}
                _insert(db, "request_log", {**key, **rest})
        return check(self.records, kept_in_sqlite(self.path, TENANT), NOW_MS)


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A clean run: b1 filled by t1 and t2 (t3 lost, t4 declined), b2 cancelled, b3 expired, b4 filled by t1 again."""
    world = World(tmp_path / "journal.sqlite3")
    world.stayed("c1", "c2", "c3", "t1", "t2", "t3", "t4")
    world.create("b1", "c1", "mini", "mini")
    world.create("b2", "c2", "mini")
    world.offer("b1", "t1", "t2", "t3")
    world.offer("b1", "t4", declined=True)
    world.event("b1", "declined", 120, transporter_id="t4")
    world.offer("b2", "t3")
    world.win("b1", 1, "t1", "v1")
    world.win("b1", 2, "t2", "v2")
    world.lose("b1", "t3")
    world.end("b1", "fully_filled", "filled", "t3")
    world.end("b2", "cancelled", "customer_cancelled", "t3")
    world.lose("b2", "t3", "BROADCAST_CANCELLED")
    world.create("b3", "c3", "flatbed")
    world.event("b3", "wave_sent", 130, wave=1)
    world.end("b3", "expired", "no_vehicles_available")
    world.event("b1", "trip_updated", 400, trip_id="b1-1-t", status="loaded")
    world.event("b1", "trip_updated", 500, trip_id="b1-1-t", status="delivered")
    world.create("b4", "c1", "mini")
    world.offer("b4", "t1")
    world.win("b4", 1, "t1", "v1", at_ms=600)
    world.end("b4", "fully_filled", "filled")
    return world


def test_a_clean_run_passes(world: World) -> None:
    verdict = world.judge()
    assert verdict.violations == ()
    assert verdict.double_assignments == 0
    assert verdict.statuses == {"fully_filled": 2, "cancelled": 1, "expired": 1}
    assert (verdict.wins, verdict.wins_untold) == (3, 0)


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
