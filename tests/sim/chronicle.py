"""What really happened in a schedule, written down where it happened: at the journal, where actors decide, and at the
clients.

The entries of the journal's book are in the one order in which things happened.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from unittest.mock import patch

from haulcast.actors import broadcast_actor
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Command
from haulcast.domain.control import ControlCommand, TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.decision import Decision
from haulcast.domain.events import Event
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Reply
from haulcast.ports import Claim, ControlRecord, Landed, Outcome, RequestKey, Stale, Stored, Write
from haulcast.storage.memory.cluster import MemoryStore
from tests.sim.faults import FaultyJournal
from tests.sim.virtual_time import VirtualClock


@dataclass(frozen=True, slots=True)
class Decided:
    """That events were decided, under which control, and when: the book had so many entries."""

    control: TenantControl
    position: int


@dataclass(frozen=True, slots=True)
class Landing:
    """A write became durable. `decided`: how its events were; None if it has none."""

    at_ms: int
    write: Write
    decided: Decided | None


@dataclass(frozen=True, slots=True)
class Taking:
    """A broadcast got a new owner."""

    at_ms: int
    broadcast_id: BroadcastId
    epoch: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A node was noted as given up. `revoked`: it has a lease again, which it got in good faith, since the store of
    hints had forgotten that it was given up and the journal did not know of it yet."""

    at_ms: int
    incarnation: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """An operator's command was recorded, and `control` put in force."""

    at_ms: int
    record: ControlRecord
    control: TenantControl


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A node has answered an operator's command: which nodes have followed to `version`. `behind` says in words what
    of those had something else in force at that moment."""

    at_ms: int
    version: int
    complete: bool
    nodes: frozenset[int]
    behind: tuple[str, ...]


Entry: TypeAlias = Landing | Taking | Loss | Recording | Acknowledgement


@dataclass(slots=True)
class Request:
    """What a client wanted under one id, however often it asked, and all that it heard."""

    key: RequestKey
    command: Command
    sent_at_ms: list[int] = field(default_factory=list)
    replies: list[tuple[int, Reply]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    undurable: bool = False
    """A reply was heard before the journal had it."""
    open: int = 0
    """So many of the client's attempts to be answered are not over."""


@dataclass(slots=True)
class Instruction:
    """What an operator wanted under one id, on top of version `expected` if not None, and all that was answered."""

    key: RequestKey
    command: ControlCommand
    expected: int | None
    replies: list[Reply] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    final: bool = False
    """It was answered for good, be it with a refusal."""
    left: bool = False
    """Nobody waits for an answer any more."""


class WatchedJournal(FaultyJournal):
    """The shared journal, with a book of what it did. `trace` is told of it in short, without write ids."""

    def __init__(self, clock: VirtualClock, store: MemoryStore, trace: list[tuple[object, ...]]) -> None:
        super().__init__()
        self._clock = clock
        self._store = store
        self._trace = trace
        self.book: list[Entry] = []
        self._noted: set[str] = set()  # write ids
        self._decided: dict[int, tuple[tuple[Event, ...], Decided]] = {}  # by the id of the events, which it keeps
        self._numbers: set[int] = set()  # of commands that are in the book

    @contextmanager
    def witnessing(self) -> Iterator[None]:
        """Note under which control each decision is made, in every actor of the process."""

        def witness(state: Broadcast | None, command: Command, control: TenantControl, now_ms: int) -> Decision:
            decision = decide(state, command, control, now_ms)
            if decision.events:
                self._decided[id(decision.events)] = (decision.events, Decided(control, len(self.book)))
            return decision

        with patch.object(broadcast_actor, "decide", witness):
            yield

    async def commit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `Journal`."""
        outcomes = await super().commit(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Landed) and write.write_id not in self._noted:
                self._noted.add(write.write_id)
                _, decided = self._decided.pop(id(write.events), (None, None))
                self.book.append(Landing(self._clock.now_ms(), write, decided))
                events = [type(event).__name__ for event in write.events]
                key = None if write.logged is None else write.logged.origin.key
                self._note("landed", write.broadcast_id, write.fence, events, key)
        return outcomes

    async def claim(self, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
        """See `Journal`."""
        return self._taken(await super().claim(claims, incarnation), incarnation)

    async def claim_orphans(
        self,
        incarnation: int,
        alive: Collection[int],
        limit: int,
        *,
        share: bool = False,
        overdue_before_ms: int | None = None,
    ) -> list[Stored]:
        """See `Journal`."""
        taken = await super().claim_orphans(incarnation, alive, limit, share=share, overdue_before_ms=overdue_before_ms)
        return self._taken(taken, incarnation)

    async def mark_lost(self, incarnation: int) -> None:
        """See `Journal`."""
        await super().mark_lost(incarnation)
        lease = self._store.members.get(incarnation)
        revoked = lease is not None and lease.until_s > self._clock.monotonic_s()
        self.book.append(Loss(self._clock.now_ms(), incarnation, revoked))
        self._note("given up", incarnation, revoked)

    async def record_control(self, record: ControlRecord, after: TenantControl | None) -> ControlRecord | Stale:
        """See `Journal`."""
        recorded = await super().record_control(record, after)
        if isinstance(recorded, ControlRecord) and after is not None and recorded.number not in self._numbers:
            self._numbers.add(recorded.number)
            self.book.append(Recording(self._clock.now_ms(), recorded, after))
            self._note("recorded", recorded.number, recorded.version, recorded.command, recorded.by)
        return recorded

    def acknowledged(self, version: int, complete: bool, nodes: frozenset[int], behind: tuple[str, ...]) -> None:
        """A node has answered a command."""
        self.book.append(Acknowledgement(self._clock.now_ms(), version, complete, nodes, behind))
        self._note("acknowledged", version, complete, sorted(nodes))

    def _taken(self, taken: list[Stored], incarnation: int) -> list[Stored]:
        at_ms = self._clock.now_ms()
        for one in taken:
            self.book.append(Taking(at_ms, one.state.broadcast_id, one.epoch, incarnation))
            self._note("claimed", one.state.broadcast_id, one.epoch, incarnation)
        return taken

    def _note(self, *what: object) -> None:
        self._trace.append((self._clock.monotonic_s(), *what))

    def histories(self) -> dict[BroadcastId, tuple[Broadcast, Sequence[Event]]]:
        """Every broadcast that there is, with its events."""
        return {key[1]: (found.state, found.events) for key, found in self._broadcasts.items()}
