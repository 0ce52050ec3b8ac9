"""What is known of a run: what its clients wrote down, and the rows that the journal kept. Plain, and of no code of the
server's.

    {"kind": "asked", "user", "role", "type", "id", "data", "outcome", "reply", "code"}
    {"kind": "heard", "user", "role", "event", "broadcast_id", "trip_id", "vehicle_id", "reason", "replayed"}
    {"kind": "stayed", "user", "role", "since_ms", "until_ms", "connections", "events_dropped"}
    {"kind": "commanded", "id", "command", "node", "outcome", "reply", "answered_ms"}

An outcome is `ok`, `refused`, `lost` (no answer came) or `abandoned` (the client did not wait for it). The operators'
commands are those of the demo's own operator.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Record: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a broadcast's history."""

    broadcast_id: str
    seq: int
    name: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows of one tenant, columns named as in the tables, what was JSON decoded."""

    events: Sequence[Event]
    """In the order of writing."""
    broadcasts: Sequence[Row]
    """With `end_reason`, from the state."""
    assignments: Sequence[Row]
    offers: Sequence[Row]
    replies: Sequence[Row]
    """What the server remembers to have answered to accepts."""
    control_log: Sequence[Row]
    """The operators' commands."""


@dataclass(slots=True)
class Run:
    """Everything that is known of a run."""

    now_ms: int
    events: Sequence[Event]
    broadcasts: Mapping[str, Row]
    assignments: Mapping[str, Row]
    offers: Sequence[Row]
    replies: Mapping[tuple[str, str], Mapping[str, Any]]
    control_log: Sequence[Row]
    asked: list[Record] = field(default_factory=list)
    heard: dict[tuple[str, str, str], list[Record]] = field(default_factory=lambda: defaultdict(list))
    """By user, broadcast and event."""
    commanded: list[Record] = field(default_factory=list)
    stayed: dict[str, Record] = field(default_factory=dict)
    history: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))

    @property
    def accepts(self) -> Iterator[Record]:
        """Every accept that was asked."""
        return (record for record in self.asked if record["type"] == "offer.accept")

    @property
    def confirmed(self) -> Iterator[Record]:
        """Those whose answer was that a truck is won."""
        return (record for record in self.accepts if record["outcome"] == "ok" and not _pending(record))

    @property
    def pending(self) -> Iterator[Record]:
        """Those whose answer was that it will be decided."""
        return (record for record in self.accepts if record["outcome"] == "ok" and _pending(record))

    def wins(self) -> Iterator[tuple[Event, Mapping[str, Any]]]:
        """Every assignment with its trip, in order."""
        return ((event, event.body["trip"]) for event in self.events if event.name == "truck_assigned")

    def unbroken(self, user: str) -> bool:
        """Whether the user had one connection all the time."""
        stay = self.stayed.get(user)
        return stay is not None and stay["connections"] == 1

    def attended(self, user: str, since_ms: int, until_ms: int) -> bool:
        """Whether the user took everything that was sent in that time."""
        stay = self.stayed.get(user)
        return (
            stay is not None
            and stay["connections"] == 1
            and not stay["events_dropped"]
            and stay["since_ms"] <= since_ms
            and stay["until_ms"] >= until_ms
        )

    def times_heard(self, user: str, broadcast_id: str, event: str) -> int:
        """How often the user was told."""
        return len(self.heard.get((user, broadcast_id, event), ()))


def gather(records: Iterable[Record], kept: Kept, now_ms: int) -> Run:
    """All of it, indexed."""
    run = Run(
        now_ms,
        kept.events,
        broadcasts={row["broadcast_id"]: row for row in kept.broadcasts},
        assignments={row["request_id"]: row for row in kept.assignments},
        offers=kept.offers,
        replies={(row["user_id"], row["request_id"]): row["reply"] for row in kept.replies},
        control_log=kept.control_log,
    )
    for event in kept.events:
        run.history[event.broadcast_id].append(event)
    for record in records:
        if record["kind"] == "asked":
            run.asked.append(record)
        elif record["kind"] == "heard":
            run.heard[record["user"], record["broadcast_id"], record["event"]].append(record)
        elif record["kind"] == "commanded":
            run.commanded.append(record)
        elif record["kind"] == "stayed":
            run.stayed[record["user"]] = record
    return run


def _pending(record: Record) -> bool:
    return bool(record["reply"]["status"] == "pending")
