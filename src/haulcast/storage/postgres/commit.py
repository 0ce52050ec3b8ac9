"""A batch of writes, and what became of each.

1. A batch is one statement (`commit_query.py`, or `log_query.py` if its writes only log replies), unless a write of
   it depends on one before it: then it is several, one after the other, each committed before the next begins. They
   depend on each other if both move one broadcast, log under one request's id, or concern one customer, vehicle or
   driver.
2. What a write ran into is known as of the moment when the statement began. If that does not explain why it did not
   land, or if it only says that the broadcast has moved on, somebody else has written in that moment: the write is
   tried once more by a new statement, which sees what they wrote. So a write whose first try is still under way on a
   connection that was given up is recognised too.
3. If a row of a statement collides with one that was not there when it began, the statement is done again in halves,
   so that only the write in question does not land.
4. A deadlock takes the whole statement back, which is then sent again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import uniform
from typing import Any, TypeAlias

import asyncpg

from haulcast.domain.broadcast import Trip
from haulcast.domain.replies import Refusal
from haulcast.ports import Conflict, Duplicate, Fenced, Landed, Outcome, Write
from haulcast.storage import documents

from .commit_query import COMMIT
from .connections import Link
from .faults import COLLISION, CONTENDED
from .log_query import LOG
from .rows import Prepared, Step, arguments, log_arguments, prepared

MAX_STATEMENT_WRITES = 256

LOOKS = 4
"""How often a write is tried that does not land for no reason that can be seen. Each time somebody must have got in
its way and out of it again in a moment; nobody was ever seen to need a third."""

ATTEMPTS = 5
"""How often a statement is sent that runs into deadlocks."""

_LOGGING = (Step.NONE, Step.REFUSAL)
"""The steps of writes that change no broadcast."""

Facts: TypeAlias = Any  # a row of the statement's answer


async def commit(link: Link, writes: Sequence[Write]) -> list[Outcome]:
    """The outcomes of sound writes. Raises the driver's errors."""
    outcomes: list[Outcome] = []
    for statement in independent([prepared(write) for write in writes]):
        outcomes += await _commit_together(link, statement)
    return outcomes


def independent(writes: Sequence[Prepared]) -> list[list[Prepared]]:
    """The batch in parts, in order, none of which has a write that depends on another of it."""
    parts: list[list[Prepared]] = []
    touched = _Touched()
    for write in writes:
        if not parts or len(parts[-1]) == MAX_STATEMENT_WRITES or not touched.add(write):
            touched = _Touched()
            touched.add(write)
            parts.append([])
        parts[-1].append(write)
    return parts


@dataclass(slots=True)
class _Touched:
    """What the writes of a statement are about."""

    things: set[tuple[str, ...]] = field(default_factory=set)
    created: set[tuple[str, str]] = field(default_factory=set)

    def add(self, prepared: Prepared) -> bool:
        """Note the write; False, and nothing is noted, if it depends on one before it."""
        broadcast = (prepared.write.tenant_id, prepared.write.broadcast_id)
        # An owner does not change by a checkpoint, so any number of its refusals go with one.
        refused = prepared.step is Step.REFUSAL and broadcast in self.created
        if refused or not self.things.isdisjoint(prepared.things):
            return False
        self.things |= prepared.things
        if prepared.step is Step.CREATION:
            self.created.add(broadcast)
        return True


async def _commit_together(link: Link, writes: Sequence[Prepared]) -> list[Outcome]:
    try:
        return await _settle(link, writes)
    except COLLISION:
        if len(writes) == 1:
            return [await _commit_alone(link, writes[0])]
    middle = len(writes) // 2
    return [*await _commit_together(link, writes[:middle]), *await _commit_together(link, writes[middle:])]


async def _commit_alone(link: Link, write: Prepared) -> Outcome:
    """Once more, as what it collided with can be seen now."""
    try:
        (outcome,) = await _settle(link, [write])
    except COLLISION:
        # The rows of the broadcast are not what its owner believes: it has to be loaded again.
        return Fenced()
    return outcome


async def _settle(link: Link, writes: Sequence[Prepared]) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    unsettled = list(range(len(writes)))
    for look in range(LOOKS):
        answer = await _send(link, [writes[n] for n in unsettled])
        again: list[int] = []
        for facts in answer:
            n = unsettled[facts["n"]]
            outcome = judge(writes[n].write, facts, certain=look > 0)
            if outcome is None:
                again.append(n)
            else:
                outcomes[n] = outcome
        unsettled = sorted(again)
        if not unsettled:
            break
    return [outcomes.get(n, Fenced()) for n in range(len(writes))]


async def _send(link: Link, writes: Sequence[Prepared]) -> list[asyncpg.Record]:
    # Measured: 28 us of the database's CPU for each of 32 logged replies instead of 50, and 17 for each of 256, not 24.
    if all(write.step in _LOGGING for write in writes):
        query, arrays = LOG, log_arguments(writes)
    else:
        query, arrays = COMMIT, arguments(writes)
    for attempt in range(1, ATTEMPTS):
        try:
            return await link.fetch(query, *arrays)
        except CONTENDED:
            await asyncio.sleep(uniform(0.001, 0.01) * attempt)
    return await link.fetch(query, *arrays)


def judge(write: Write, facts: Facts, *, certain: bool) -> Outcome | None:
    """What became of the write; None if a new look is needed. `certain`: this is one."""
    if facts["landed"]:
        return Landed()
    if facts["logged_write_id"] is not None:
        if facts["logged_write_id"] == write.write_id:
            return Landed()
        return Duplicate(facts["logged_fingerprint"], documents.read_reply(facts["logged_reply"]))
    if not facts["holds"]:
        if write.events and facts["writer"] == write.write_id:
            return Landed()
        return Fenced() if certain else None
    if facts["other_broadcast_id"] is not None:
        return Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": facts["other_broadcast_id"]})
    return None if write.assigned is None else _unassignable(write.assigned, facts)


def _unassignable(trip: Trip, facts: Facts) -> Conflict | None:
    if facts["vehicle_owner"] != trip.transporter_id:
        return Conflict(Refusal.VEHICLE_NOT_OWNED, {})
    if facts["type_of_vehicle"] != trip.vehicle_type:
        return Conflict(Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": facts["type_of_vehicle"]})
    if facts["vehicle_busy"]:
        return Conflict(Refusal.VEHICLE_BUSY, {})
    if facts["employer"] != trip.transporter_id:
        return Conflict(Refusal.DRIVER_NOT_OWNED, {})
    if facts["driver_busy"]:
        return Conflict(Refusal.DRIVER_BUSY, {})
    return None
