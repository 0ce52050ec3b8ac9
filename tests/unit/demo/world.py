"""A journal and what clients saw, for the checker to judge."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from haulcast.demo.checker import Verdict, check
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
        self.commands: list[dict[str, Any]] = []
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
        self.heard(who, broadcast_id, "trip_assigned", trip_id=trip["trip_id"], vehicle_id=vehicle)
        self.heard(
            self.broadcasts[broadcast_id]["customer_id"], broadcast_id, "truck_confirmed", trip_id=trip["trip_id"]
        )

    def wait(self, broadcast_id: str, who: str, vehicle: str, at_ms: int = 200) -> None:
        """An accept that is pending."""
        accept = {"transporter_id": who, "vehicle_id": vehicle}
        self.event(broadcast_id, "accept_waiting", at_ms, accept=accept, decide_at_ms=at_ms + 50)
        asked = {"broadcast_id": broadcast_id, "vehicle_id": vehicle, "driver_id": f"d{vehicle}"}
        reply = {"broadcast_id": broadcast_id, "status": "pending", "decided_at": at_ms + 50, "remaining_requests": 1}
        request_id = f"{broadcast_id}-{who}-{vehicle}"
        self.asked(who, "offer.accept", request_id, asked, reply=reply)
        self.replies.append((who, request_id, {"done": reply}))

    def decide(self, broadcast_id: str, who: str, vehicle: str, *losers: tuple[str, str], at_ms: int = 250) -> None:
        """Of those who waited one wins, the others lose."""
        self.win(broadcast_id, 1, who, vehicle, at_ms=at_ms)
        self.forget(id=f"{broadcast_id}-1-{who}")
        self.replies.pop()
        lost = [with_vehicle for _, with_vehicle in losers]
        self.event(broadcast_id, "accepts_lost", at_ms, vehicle_ids=lost, code="REQUEST_ALREADY_TAKEN")
        for loser, with_vehicle in losers:
            self.heard(loser, broadcast_id, "accept_lost", vehicle_id=with_vehicle)

    def command(self, key: str, command: str, at_ms: int) -> None:
        """A command that all nodes have followed after 4 ms, and the answer to it."""
        number = len(self.commands) + 1
        nodes = [{"node": 1, "status": "acked", "after_ms": 1.5}, {"node": 2, "status": "acked", "after_ms": 4.0}]
        outcome = {"complete": True, "nodes": [*nodes, {"node": 3, "status": "gone"}]}
        row = {"number": number, "request_id": key, "command": command, "at_ms": at_ms, "version": number + 1}
        self.commands.append({**row, "outcome": outcome})
        reply = {"command": command, "number": number, "version": number + 1, **outcome}
        self.records.append(
            {"kind": "commanded", "id": key, "command": command, "node": "n1", "outcome": "ok", "reply": reply}
            | {"answered_ms": at_ms + 6}
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
            | {"trip_id": None, "vehicle_id": None, "reason": None, "replayed": False}
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

    def forget_event(self, name: str, vehicle: str) -> None:
        """Have another event of that name, of that vehicle, in its place."""
        for index, (broadcast_id, seq, kind, body) in enumerate(self.events):
            if kind == name and body["accept"]["vehicle_id"] == vehicle:
                self.events[index] = (broadcast_id, seq, "reminded", {"at_ms": body["at_ms"]})

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
            for row in self.commands:
                who = {"tenant_id": TENANT, "role": "operator", "user_id": "operator", "fingerprint": "f"}
                outcome = None if row["outcome"] is None else json.dumps(row["outcome"])
                _insert(db, "control_log", {**who, "data": "{}", "changes": "{}", **row, "outcome": outcome})
        return check(self.records, kept_in_sqlite(self.path, TENANT), NOW_MS)


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def clean(path: Path) -> World:
    """A run without a fault: b1 filled by t1 and t2 (t3 lost, t4 declined), b2 cancelled, b3 expired, b4 filled by t1
    again, dispatch paused from 700 to 800, and w1 filled by t3, whose accept waited as that of t2 did."""
    world = World(path)
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
    world.command("k1", "pause", 700)
    world.command("k2", "switch_mode", 750)
    world.command("k3", "resume", 800)
    world.create("w1", "c3", "mini", at_ms=850)
    world.offer("w1", "t2", "t3", at_ms=860)
    world.wait("w1", "t2", "v2", at_ms=870)
    world.wait("w1", "t3", "v3", at_ms=880)
    world.decide("w1", "t3", "v3", ("t2", "v2"), at_ms=920)
    world.end("w1", "fully_filled", "filled", "t2", at_ms=920)
    return world
