"""The invariants of operators' commands, and of accepts that wait for a decision, which only some dispatch modes have.

A command's record says when it was decided and how long each node took from then on to follow. Until all have, waves
may go out; from there to the next `resume` none may. What is between deciding and writing the record is not in it, so
the demo's own operator, who knows when the answer came, is believed if that was later.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .evidence import Row, Run

TOLERANCE_MS = 20
"""For what a record does not say of a command that somebody else gave."""
DISPATCHES = frozenset({"created", "wave_sent"})
"""What there is none of while dispatch is paused."""


class Wait(NamedTuple):
    """An accept that waited, and the event that it ended with, with its time; "" if it still waits."""

    broadcast_id: str
    transporter_id: str
    vehicle_id: str
    ended_by: str
    ended_at_ms: int


def commands_are_followed(run: Run) -> Iterator[str]:
    """Every command of the demo's operator is answered, and every node that lives has followed."""
    for record in run.commanded:
        who = f"{record['command']} {record['id']} at {record['node']}"
        if record["outcome"] != "ok":
            yield f"{who} was {record['outcome']}: {record['reply']}"
        elif not record["reply"]["complete"]:
            yield f"{who} was not followed by all nodes: {record['reply']['nodes']}"


def commands_are_kept(run: Run) -> Iterator[str]:
    """Commands are numbered from 1 without a gap, so are the versions that they led to, and what the demo's operator
    was answered is on record."""
    numbers = sorted(row["number"] for row in run.control_log)
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the records are numbered {numbers}"
    versions = [row["version"] for row in _by_number(run) if row["version"] is not None]
    if versions and versions != list(range(versions[0], versions[0] + len(versions))):
        yield f"the commands led to the versions {versions}"
    kept = {row["number"]: row for row in run.control_log}
    for record in run.commanded:
        if record["outcome"] == "ok":
            told = (record["id"], record["command"], record["reply"]["version"])
            row = kept.get(record["reply"]["number"])
            if row is None or told != (row["request_id"], row["command"], row["version"]):
                yield f"the answer to {told} is {record['reply']}, on record is {row}"


def paused_is_paused(run: Run) -> Iterator[str]:
    """While all nodes have dispatch paused nothing is created and no wave goes out."""
    pauses = [*_pauses(run)]
    for event in run.events:
        if event.name in DISPATCHES:
            for since_ms, until_ms in pauses:
                if since_ms < event.body["at_ms"] < until_ms:
                    yield (
                        f"{event.broadcast_id}: {event.name} at {event.body['at_ms']}, "
                        f"and dispatch was paused from {since_ms} to {until_ms}"
                    )


def waiting_accepts_end(run: Run) -> Iterator[str]:
    """An accept that was answered "pending" is on record as waiting, comes to an end, and its transporter hears which,
    unless it was they who declined."""
    waits: defaultdict[tuple[str, str, str], list[Wait]] = defaultdict(list)
    for wait in _waits(run):
        waits[wait.transporter_id, wait.broadcast_id, wait.vehicle_id].append(wait)
        if not wait.ended_by and run.broadcasts[wait.broadcast_id]["expires_at_ms"] <= run.now_ms:
            yield f"{wait.transporter_id}'s accept of {wait.broadcast_id} with {wait.vehicle_id} waits for ever"
    for record in run.pending:
        asked = record["data"]
        if (record["user"], asked["broadcast_id"], asked["vehicle_id"]) not in waits:
            yield f"{record['user']}'s {record['id']} is pending, and no event says so"
    for (user, broadcast_id, vehicle_id), mine in waits.items():
        to_hear = [
            wait
            for wait in mine
            if wait.ended_by not in ("", "declined") and run.attended(user, wait.ended_at_ms, wait.ended_at_ms)
        ]
        ends = [
            heard
            for event in ("trip_assigned", "accept_lost")
            for heard in run.heard.get((user, broadcast_id, event), ())
            if heard["vehicle_id"] == vehicle_id
        ]
        if len(ends) < len(to_hear) and not run.times_heard(user, broadcast_id, "offer_closed"):
            yield f"{user} heard of {len(ends)} ends of {len(to_hear)} accepts of {broadcast_id} with {vehicle_id}"


def _by_number(run: Run) -> list[Row]:
    return sorted(run.control_log, key=lambda row: int(row["number"]))


def _pauses(run: Run) -> Iterator[tuple[int, int]]:
    """From when all nodes had it until somebody resumed, or the run was judged."""
    answered_ms = {record["id"]: record["answered_ms"] for record in run.commanded if record["outcome"] == "ok"}
    since_ms: int | None = None
    for row in _by_number(run):
        if row["command"] == "resume":
            if since_ms is not None:
                yield since_ms, row["at_ms"]
            since_ms = None
        elif row["command"] == "pause" and since_ms is None:
            since_ms = _followed_ms(row, answered_ms)
    if since_ms is not None:
        yield since_ms, run.now_ms


def _followed_ms(row: Row, answered_ms: Mapping[str, int]) -> int | None:
    """When all nodes had followed; None if that is not known."""
    outcome = row["outcome"]
    if outcome is None or not outcome["complete"]:
        return None
    took_ms = max((node["after_ms"] for node in outcome["nodes"] if node["status"] == "acked"), default=0)
    by_record_ms: int = round(row["at_ms"] + took_ms) + TOLERANCE_MS
    return max(by_record_ms, answered_ms.get(row["request_id"], 0))


def _waits(run: Run) -> Iterator[Wait]:
    for broadcast_id, events in run.history.items():
        waiting: dict[str, str] = {}  # transporters by vehicle
        for event in events:
            body = event.body
            over: list[str] = []
            match event.name:
                case "accept_waiting":
                    waiting[body["accept"]["vehicle_id"]] = body["accept"]["transporter_id"]
                case "truck_assigned":
                    over = [body["trip"]["vehicle_id"]]
                case "accepts_lost":
                    over = [*body["vehicle_ids"]]
                case "declined":
                    over = [vehicle for vehicle, who in waiting.items() if who == body["transporter_id"]]
                case "cancelled" | "expired":
                    over = [*waiting]
            for vehicle_id in over:
                if vehicle_id in waiting:
                    yield Wait(broadcast_id, waiting.pop(vehicle_id), vehicle_id, event.name, body["at_ms"])
        for vehicle_id, transporter_id in waiting.items():
            yield Wait(broadcast_id, transporter_id, vehicle_id, "", 0)
