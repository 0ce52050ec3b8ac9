"""What the clients of a run saw, every answer and every event: typed here, plain for the checker."""

from collections import Counter
from collections.abc import Mapping
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


Record: TypeAlias = Asked | Heard | Stayed


class Recorder:
    """All records of a run, with the figures that are shown while it goes on."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.broadcasts: Counter[str] = Counter()
        """How many were `created`, and how many ended `filled`, `cancelled` or `expired`."""
        self.accepts_won = 0
        self.accepts_lost = 0
        self.offers_delivered = 0
        self._accept_latencies_ms: list[float] = []

    def add(self, record: Record) -> None:
        """Write a record down."""
        self.records.append(record)
        if isinstance(record, Asked):
            self._count_answer(record)
        elif isinstance(record, Heard):
            self.offers_delivered += record.event == "offer"
            self.broadcasts["filled"] += record.event == "truck_confirmed" and record.remaining_requests == 0
            for ending in ("cancelled", "expired"):
                self.broadcasts[ending] += record.event == f"broadcast_{ending}"

    def latency_ms(self, share: float, last: int = 0) -> float | None:
        """The accept latency that `share` of all accepts, or of the `last` ones, did not exceed; None without any."""
        ordered = sorted(self._accept_latencies_ms[-last:])
        return round(ordered[max(0, ceil(share * len(ordered)) - 1)], 2) if ordered else None

    def plain(self) -> list[dict[str, Any]]:
        """The records as the checker takes them."""
        return [{"kind": type(record).__name__.lower(), **asdict(record)} for record in self.records]

    def _count_answer(self, record: Asked) -> None:
        answered = record.outcome in (Outcome.OK, Outcome.REFUSED)
        if record.type == "offer.accept" and answered:
            self.accepts_won += record.outcome is Outcome.OK
            self.accepts_lost += record.outcome is Outcome.REFUSED
            self._accept_latencies_ms.append(record.latency_ms)
        self.broadcasts["created"] += record.type == "broadcast.create" and record.outcome is Outcome.OK
