"""What the clients of a run saw, every answer and every event: typed here, plain for the checker."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil
from typing import Any, TypeAlias


class Outcome(StrEnum):
    """What became of a request, as its client saw it."""

    OK = "ok"
    REFUSED = "refused"
    LOST = "lost"
    """No answer came."""
    ABANDONED = "abandoned"
    """The client did not wait for one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and its answer: `reply` is the data, of the error too."""

    user: str
    role: str
    type: str
    id: str
    data: Mapping[str, Any]
    outcome: Outcome
    reply: Mapping[str, Any]
    code: str | None
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Heard:
    """An event about a broadcast."""

    user: str
    role: str
    event: str
    broadcast_id: str
    trip_id: str | None
    vehicle_id: str | None
    reason: str | None
    remaining_requests: int | None
    replayed: bool


@dataclass(frozen=True, slots=True)
class Stayed:
    """How a client was connected. Times are the server's."""

    user: str
    role: str
    since_ms: int
    until_ms: int
    connections: int
    events_dropped: int


@dataclass(frozen=True, slots=True)
class Commanded:
    """An operator's command, and the answer of the last node that was given it. The time is the client's."""

    id: str
    command: str
    node: str
    outcome: Outcome
    reply: Mapping[str, Any]
    answered_ms: int
    latency_ms: float

    @property
    def complete(self) -> bool:
        """Whether all nodes that live have followed."""
        return self.outcome is Outcome.OK and bool(self.reply["complete"])

    @property
    def followed_ms(self) -> float:
        """How long the last node took, by the node that was asked; 0 if none followed."""
        return max((node.get("after_ms", 0.0) for node in self.reply.get("nodes", ())), default=0.0)


Record: TypeAlias = Asked | Heard | Stayed | Commanded


class Recorder:
    """All records of a run, with the figures that are shown while it goes on."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.broadcasts: Counter[str] = Counter()
        """How many were `created`, and how many ended `filled`, `cancelled` or `expired`."""
        self.accepts_won = 0
        self.accepts_lost = 0
        self.accepts_waited = 0
        """How many were answered that they will be decided; each is won or lost later."""
        self.creates_paused = 0
        """How many were refused because dispatch was paused."""
        self.offers_delivered = 0
        self.commands: list[Commanded] = []
        self._accept_latencies_ms: list[float] = []
        self._pending: set[tuple[str, str, str]] = set()  # user, broadcast and vehicle of accepts not yet decided

    def add(self, record: Record) -> None:
        """Write a record down."""
        self.records.append(record)
        if isinstance(record, Asked):
            self._count_answer(record)
        elif isinstance(record, Heard):
            self._count_decision(record)
            self.offers_delivered += record.event == "offer"
            self.broadcasts["filled"] += record.event == "truck_confirmed" and record.remaining_requests == 0
            for ending in ("cancelled", "expired"):
                self.broadcasts[ending] += record.event == f"broadcast_{ending}"

        elif isinstance(record, Commanded):
            self.commands.append(record)

    def latency_ms(self, share: float, last: int = 0) -> float | None:
        """The accept latency that `share` of all accepts, or of the `last` ones, did not exceed; None without any."""
        return _percentile(self._accept_latencies_ms[-last:], share)

    def control_ms(self, share: float) -> float | None:
        """In which time `share` of all commands was answered; None without any."""
        return _percentile([command.latency_ms for command in self.commands], share)

    def followed_ms(self, share: float) -> float | None:
        """In which time after it was on record the last node had followed `share` of all commands; None without any."""
        return _percentile([command.followed_ms for command in self.commands], share)

    def plain(self) -> list[dict[str, Any]]:
        """The records as the checker takes them."""
        return [{"kind": type(record).__name__.lower(), **asdict(record)} for record in self.records]

    def _count_answer(self, record: Asked) -> None:
        answered = record.outcome in (Outcome.OK, Outcome.REFUSED)
        if record.type == "offer.accept" and answered:
            pending = record.outcome is Outcome.OK and record.reply["status"] == "pending"
            if pending:
                self.accepts_waited += 1
                self._pending.add((record.user, record.data["broadcast_id"], record.data["vehicle_id"]))
            self.accepts_won += record.outcome is Outcome.OK and not pending
            self.accepts_lost += record.outcome is Outcome.REFUSED
            self._accept_latencies_ms.append(record.latency_ms)
        self.creates_paused += record.code == "TENANT_PAUSED"
        self.broadcasts["created"] += record.type == "broadcast.create" and record.outcome is Outcome.OK

    def _count_decision(self, record: Heard) -> None:
        """An accept that was pending counts when it is decided."""
        if record.event in ("trip_assigned", "accept_lost") and record.vehicle_id is not None:
            accept = (record.user, record.broadcast_id, record.vehicle_id)
            if accept in self._pending:
                self._pending.discard(accept)
                self.accepts_won += record.event == "trip_assigned"
                self.accepts_lost += record.event == "accept_lost"


def _percentile(values: Sequence[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[max(0, ceil(share * len(ordered)) - 1)], 2) if ordered else None
