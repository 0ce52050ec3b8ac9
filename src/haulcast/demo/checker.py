"""Judges a run from outside: what the clients saw, against what the journal kept. Shares no code with what it judges.

`check` takes what was read from the journal's tables, and plain records, as clients wrote them down: see `evidence`.

1. Order in the journal is the order in which events were written, not the times they carry: two actors decide side by
   side, but only what was written first has happened first.
2. That no answer came is a violation, unless the connection broke. An accept that is `ok` and pending has neither won
   nor lost: who was told so hears later of the trip, or that it has lost.
3. What a client should have heard is only asked of those that were connected all the time and took every event.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .control_checker import commands_are_followed, commands_are_kept, paused_is_paused, waiting_accepts_end
from .evidence import Event, Kept, Record, Run, gather

ENDED_TRIP = frozenset({"delivered", "cancelled"})
ENDINGS = frozenset({"cancelled", "expired"})
LIVE = frozenset({"searching", "partially_filled"})
FAIR_REFUSALS = frozenset(
    {
        "REQUEST_ALREADY_TAKEN",
        "ACCEPTS_FULL",
        "BROADCAST_EXPIRED",
        "BROADCAST_CANCELLED",
        "BROADCAST_FULLY_FILLED",
        "VEHICLE_BUSY",
        "DRIVER_BUSY",
        "VEHICLE_TYPE_MISMATCH",
        "VEHICLE_NOT_OWNED",
        "DRIVER_NOT_OWNED",
        "NOT_OFFERED",
    }
)
"""The refusals of an accept that tell the loser why."""
SHOWN_PER_INVARIANT = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold, and the evidence."""

    invariant: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.evidence}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to. `violations` has at most `SHOWN_PER_INVARIANT` of each kind; `counts` has them all."""

    violations: tuple[Violation, ...]
    counts: Mapping[str, int]
    statuses: Mapping[str, int]
    """How many broadcasts ended (or stand) in each status."""
    wins: int
    wins_untold: int
    """Wins whose reply was lost with a connection."""

    @property
    def double_assignments(self) -> int:
        """Trucks won twice, and vehicles or drivers on two trips."""
        return self.counts.get("truck won once", 0) + self.counts.get("one trip at a time", 0)


def check(records: Iterable[Record], kept: Kept, now_ms: int) -> Verdict:
    """Judge the run of a tenant at `now_ms`."""
    run = gather(records, kept, now_ms)
    violations: list[Violation] = []
    counts: Counter[str] = Counter()
    for invariant, find in INVARIANTS.items():
        for evidence in find(run):
            counts[invariant] += 1
            if counts[invariant] <= SHOWN_PER_INVARIANT:
                violations.append(Violation(invariant, evidence))
    told = {record["reply"]["request_id"] for record in run.confirmed}
    promised = {_accepted_with(record) for record in run.pending}
    won = {trip["request_id"] for event, trip in run.wins() if _won_with(event, trip) not in promised}
    statuses = Counter(row["status"] for row in run.broadcasts.values())
    return Verdict(tuple(violations), dict(counts), dict(statuses), sum(1 for _ in run.wins()), len(won - told))


# --- The invariants: each yields the evidence against it --------------------------------------------------------------


def truck_won_once(run: Run) -> Iterator[str]:
    """No truck request is won twice, in the journal or by what clients were told."""
    for request_id, count in Counter(trip["request_id"] for _, trip in run.wins()).items():
        if count > 1:
            yield f"{request_id} was assigned {count} times"
    told = defaultdict(set)
    for record in run.confirmed:
        told[record["reply"]["request_id"]].add((record["user"], record["id"]))
    for request_id, winners in told.items():
        if len(winners) > 1:
            yield f"{request_id} was confirmed to {sorted(winners)}"


def one_trip_at_a_time(run: Run) -> Iterator[str]:
    """No vehicle and no driver is on two active trips at once."""
    busy: dict[tuple[str, str], str] = {}
    trips: dict[str, Mapping[str, Any]] = {}
    for event in run.events:
        if event.name == "truck_assigned":
            trip = trips[event.body["trip"]["trip_id"]] = event.body["trip"]
            for key in (("vehicle", trip["vehicle_id"]), ("driver", trip["driver_id"])):
                if key in busy and busy[key] != trip["trip_id"]:
                    yield f"{key[0]} {key[1]} got {trip['trip_id']} while on {busy[key]}"
                busy[key] = trip["trip_id"]
        elif event.name == "trip_updated" and event.body["status"] in ENDED_TRIP:
            trip_id = event.body["trip_id"]
            for key in [key for key, on in busy.items() if on == trip_id]:
                del busy[key]


def confirmed_is_kept(run: Run) -> Iterator[str]:
    """Whatever a client was told it has won is in the journal: as an assignment, as an event and as the answer."""
    events = {trip["request_id"]: trip for _, trip in run.wins()}
    for record in run.confirmed:
        reply, asked = record["reply"], record["data"]
        told = {
            **{key: reply[key] for key in ("request_id", "broadcast_id", "assignment_id", "trip_id")},
            **{key: asked[key] for key in ("vehicle_id", "driver_id")},
            "transporter_id": record["user"],
        }
        who = f"{record['user']} was told {reply['request_id']} ({record['id']})"
        row = run.assignments.get(reply["request_id"])
        if row is None:
            yield f"{who}, and there is no such assignment"
        elif dict(row) != told:
            yield f"{who} as {told}, and the assignment is {dict(row)}"
        trip = events.get(reply["request_id"])
        if trip is None or any(trip[key] != value for key, value in told.items() if key != "broadcast_id"):
            yield f"{who}, and no event says so"
        logged = run.replies.get((record["user"], record["id"]), {})
        if logged.get("done") != reply:
            yield f"{who}, and the answer on record is {logged}"
    for record in run.pending:
        logged = run.replies.get((record["user"], record["id"]), {})
        if logged.get("done") != record["reply"]:
            yield f"{record['user']} was told {record['reply']} ({record['id']}), and on record is {logged}"


def every_win_is_told(run: Run) -> Iterator[str]:
    """Every win was the answer to one request, or what became of one that was pending, or that answer was lost."""
    told = Counter(record["reply"]["request_id"] for record in run.confirmed)
    promised = {_accepted_with(record) for record in run.pending}
    lost = {
        (record["user"], record["data"]["broadcast_id"])
        for record in run.accepts
        if record["outcome"] in ("lost", "abandoned")
    }
    for event, trip in run.wins():
        if told[trip["request_id"]] or _won_with(event, trip) in promised:
            continue
        if (trip["transporter_id"], event.broadcast_id) not in lost:
            yield f"{trip['transporter_id']} won {trip['request_id']} and was never told"


def no_more_winners_than_trucks(run: Run) -> Iterator[str]:
    """Never more trucks of a type than were asked for."""
    for broadcast_id, events in run.history.items():
        wanted = Counter(kind for event in events if event.name == "created" for kind in event.body["vehicle_types"])
        won = Counter(event.body["trip"]["vehicle_type"] for event in events if event.name == "truck_assigned")
        for vehicle_type, count in won.items():
            if count > wanted[vehicle_type]:
                yield f"{broadcast_id} wanted {wanted[vehicle_type]} {vehicle_type} and got {count}"


def one_ending(run: Run) -> Iterator[str]:
    """A broadcast ends once, and nothing is offered or assigned after it was filled, cancelled or has expired."""
    for broadcast_id, events in run.history.items():
        ended = ""
        open_trucks = 0
        for event in events:
            if ended and event.name in (*ENDINGS, "truck_assigned", "wave_sent", "offered"):
                yield f"{broadcast_id}: {event.name} after {ended}"
            open_trucks += len(event.body.get("vehicle_types", ())) - (event.name == "truck_assigned")
            if event.name in ENDINGS or not open_trucks:
                ended = ended or (event.name if event.name in ENDINGS else "filled")


def one_live_broadcast(run: Run) -> Iterator[str]:
    """A customer has at most one live broadcast."""
    live: dict[str, str] = {}
    customers: dict[str, str] = {}
    open_trucks: Counter[str] = Counter()
    for event in run.events:
        key = event.broadcast_id
        if event.name == "created":
            customer = customers[key] = event.body["customer_id"]
            if customer in live:
                yield f"{customer} created {key} while {live[customer]} was live"
            live[customer] = key
            open_trucks[key] = len(event.body["vehicle_types"])
        elif event.name == "truck_assigned":
            open_trucks[key] -= 1
        ended = event.name in ENDINGS or (event.name == "truck_assigned" and open_trucks[key] == 0)
        if ended and live.get(customers.get(key, "")) == key:
            del live[customers[key]]


def every_broadcast_ends(run: Run) -> Iterator[str]:
    """Whatever was created is in the journal, and has ended or has its deadline before it."""
    for record in run.asked:
        if record["type"] == "broadcast.create" and record["outcome"] == "ok":
            broadcast_id = record["reply"]["broadcast_id"]
            if broadcast_id not in run.broadcasts:
                yield f"{record['user']} was told {broadcast_id}, which does not exist"
    for broadcast_id, row in run.broadcasts.items():
        if row["status"] in LIVE and row["expires_at_ms"] <= run.now_ms:
            yield f"{broadcast_id} is {row['status']}, {run.now_ms - row['expires_at_ms']} ms after its deadline"
        if (row["status"] in LIVE) != (row["ended_at_ms"] is None):
            yield f"{broadcast_id} is {row['status']} and ended at {row['ended_at_ms']}"


def histories_are_whole(run: Run) -> Iterator[str]:
    """The events of a broadcast are numbered from 1 without a gap, the first creates it, and its row has the last."""
    for broadcast_id, row in run.broadcasts.items():
        events = run.history.get(broadcast_id, [])
        if [event.seq for event in events] != list(range(1, len(events) + 1)):
            yield f"{broadcast_id} has the events {[event.seq for event in events]}"
        if not events or events[0].name != "created" or row["seq"] != len(events):
            yield f"{broadcast_id} is at {row['seq']} with {len(events)} events"


def everybody_is_answered(run: Run) -> Iterator[str]:
    """Every request is answered; whoever loses a race is told so, and how many trucks remain."""
    for record in run.asked:
        who = f"{record['user']}'s {record['type']} {record['id']}"
        if record["outcome"] == "lost" and run.unbroken(record["user"]):
            yield f"{who} was never answered"
        if record["outcome"] == "refused" and record["type"] == "offer.accept":
            if record["code"] not in FAIR_REFUSALS:
                yield f"{who} of {record['data']['broadcast_id']} was refused with {record['code']}"
            if record["code"] == "REQUEST_ALREADY_TAKEN" and "remaining_requests" not in record["reply"]:
                yield f"{who} was not told how many trucks remain"


def offers_are_closed(run: Run) -> Iterator[str]:
    """Who was offered a broadcast hears once that it is over, with the reason: or of the trip, or has declined. A trip
    that was cancelled before the end is none."""
    cancelled = {
        event.body["trip_id"]
        for event in run.events
        if event.name == "trip_updated"
        and event.body["status"] == "cancelled"
        and event.body["at_ms"] <= (run.broadcasts[event.broadcast_id]["ended_at_ms"] or 0)
    }
    winners = {
        (trip["transporter_id"], event.broadcast_id) for event, trip in run.wins() if trip["trip_id"] not in cancelled
    }
    for row in run.offers:
        user, broadcast = row["transporter_id"], run.broadcasts[row["broadcast_id"]]
        key = broadcast["broadcast_id"]
        if broadcast["ended_at_ms"] is None or not run.attended(user, row["offered_at_ms"], broadcast["ended_at_ms"]):
            continue
        if not run.times_heard(user, key, "offer"):
            yield f"{user} never heard of the offer {key}"
        closed = run.heard.get((user, key, "offer_closed"), [])
        if (user, key) in winners:
            if not run.times_heard(user, key, "trip_assigned"):
                yield f"{user} never heard of its trip in {key}"
            if closed:
                yield f"{user} won in {key} and heard that it was closed"
        elif not row["declined"] and [heard["reason"] for heard in closed] != [broadcast["end_reason"]]:
            yield f"{user} heard {[heard['reason'] for heard in closed]} of {key}, which is {broadcast['end_reason']}"


def customers_are_told(run: Run) -> Iterator[str]:
    """A customer hears of every truck, and how the broadcast ended."""
    for broadcast_id, row in run.broadcasts.items():
        events = run.history.get(broadcast_id, [])
        user = row["customer_id"]
        if row["ended_at_ms"] is None or not events:
            continue
        if not run.attended(user, events[0].body["at_ms"], row["ended_at_ms"]):
            continue
        confirmed = [heard["trip_id"] for heard in run.heard.get((user, broadcast_id, "truck_confirmed"), [])]
        won = [event.body["trip"]["trip_id"] for event in events if event.name == "truck_assigned"]
        if sorted(confirmed) != sorted(won):
            yield f"{user} heard of {confirmed} in {broadcast_id}, which has {won}"
        for ending in ENDINGS:
            if run.times_heard(user, broadcast_id, f"broadcast_{ending}") != (row["status"] == ending):
                yield f"{user}'s {broadcast_id} is {row['status']}, which is not what was heard"


def _accepted_with(record: Record) -> tuple[str, str, str]:
    return record["user"], record["data"]["broadcast_id"], record["data"]["vehicle_id"]


def _won_with(event: Event, trip: Mapping[str, Any]) -> tuple[str, str, str]:
    return trip["transporter_id"], event.broadcast_id, trip["vehicle_id"]


INVARIANTS: Mapping[str, Callable[[Run], Iterator[str]]] = {
    "truck won once": truck_won_once,
    "one trip at a time": one_trip_at_a_time,
    "confirmed is kept": confirmed_is_kept,
    "every win is told": every_win_is_told,
    "no more winners than trucks": no_more_winners_than_trucks,
    "one ending": one_ending,
    "one live broadcast": one_live_broadcast,
    "every broadcast ends": every_broadcast_ends,
    "histories are whole": histories_are_whole,
    "everybody is answered": everybody_is_answered,
    "offers are closed": offers_are_closed,
    "customers are told": customers_are_told,
    "commands are followed": commands_are_followed,
    "commands are kept": commands_are_kept,
    "paused is paused": paused_is_paused,
    "waiting accepts end": waiting_accepts_end,
}
