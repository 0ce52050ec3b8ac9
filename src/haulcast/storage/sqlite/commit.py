"""A batch of writes in one transaction.

1. The transaction holds the write lock from its start, so what has been read stays true until the commit.
2. What all writes of the batch have to know is read first (`facts.py`). Then they are judged one after the other in
   Python, each against the facts as those before it leave them, in the order of checks that `Journal.commit` gives.
3. The rows of those that land are written table by table (`rows.py`): of a broadcast that moved twice, the last state.
4. The unique indexes stand behind the judgement. Should one refuse what was judged to land, the batch is taken back
   to a savepoint and done again write by write, so that only the write in question fails.
5. An event row names the write that it came with. The event after the fence's `seq` therefore says whether it was
   this very write that moved the broadcast on, even if others have moved it further since.
"""

import sqlite3
from collections.abc import Sequence

from haulcast.domain.broadcast import Broadcast, Trip
from haulcast.domain.replies import Refusal
from haulcast.ports import Conflict, Duplicate, Fence, Fenced, Landed, LoggedReply, Outcome, Write
from haulcast.storage import documents
from haulcast.storage.writes import check

from . import queries
from .database import savepoint, transaction
from .facts import Facts, Position, gather, request
from .rows import Rows


def commit(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Outcome]:
    """Write all, each on its own merits. Raises `ValueError` for a write that no actor may make."""
    for write in writes:
        check(write)
    with transaction(connection):
        try:
            return _commit_together(connection, writes)
        except sqlite3.IntegrityError:
            return [_commit_alone(connection, write) for write in writes]


def _commit_together(connection: sqlite3.Connection, writes: Sequence[Write]) -> list[Outcome]:
    """Raises `sqlite3.IntegrityError`, and then nothing is written."""
    facts = gather(connection, writes)
    rows = Rows()
    outcomes: list[Outcome] = []
    for write in writes:
        outcome = _judge(connection, facts, write)
        if outcome is None:
            reply = None if write.logged is None else documents.write_reply(write.logged.reply)
            rows.add(write, reply, facts.positions.get((write.tenant_id, write.broadcast_id)))
            facts.note(write, reply)
            outcome = Landed()
        outcomes.append(outcome)
    with savepoint(connection):
        rows.write(connection)
    return outcomes


def _commit_alone(connection: sqlite3.Connection, write: Write) -> Outcome:
    try:
        (outcome,) = _commit_together(connection, [write])
    except sqlite3.IntegrityError as error:
        return _refused_by_index(connection, write, error)
    return outcome


def _judge(connection: sqlite3.Connection, facts: Facts, write: Write) -> Outcome | None:
    """The outcome of a write that is not to be written, because it may not or because it was; else None."""
    if write.logged is not None and (outcome := _answered_before(facts, write, write.logged)):
        return outcome
    if write.fence is not None:
        position = facts.positions.get((write.tenant_id, write.broadcast_id))
        if not _matches(write, write.fence, position):
            return Landed() if _moved_on_by(connection, facts, write, write.fence.seq + 1) else Fenced()
    return None if write.state is None else _conflict(facts, write, write.state)


def _answered_before(facts: Facts, write: Write, logged: LoggedReply) -> Outcome | None:
    found = facts.replies.get(request(logged))
    if found is None:
        return None
    if found.write_id == write.write_id:
        return Landed()
    return Duplicate(found.fingerprint, documents.read_reply(found.reply))


def _matches(write: Write, fence: Fence, position: Position | None) -> bool:
    if position is None:
        return fence.seq == 0
    owned = (position.epoch, position.owner) == (fence.epoch, fence.incarnation)
    return owned and (write.state is None or position.seq == fence.seq)


def _moved_on_by(connection: sqlite3.Connection, facts: Facts, write: Write, seq: int) -> bool:
    """Asked one by one: it happens when a commit is sent again or an owner is stale, and then for few."""
    if not write.events:
        return False
    key = (write.tenant_id, write.broadcast_id)
    writer = facts.writers.get((key, seq))
    if writer is None:
        parameters = {"tenant_id": write.tenant_id, "broadcast_id": write.broadcast_id, "seq": seq}
        row = connection.execute(queries.WRITER_OF_EVENT, parameters).fetchone()
        writer = None if row is None else row[0]
    return writer == write.write_id


def _conflict(facts: Facts, write: Write, state: Broadcast) -> Conflict | None:
    if state.live:
        other = facts.live.get((state.tenant_id, state.customer_id), state.broadcast_id)
        if other != state.broadcast_id:
            return Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": other})
    trip = write.assigned
    return None if trip is None else _unassignable(facts, write, trip)


def _unassignable(facts: Facts, write: Write, trip: Trip) -> Conflict | None:
    vehicle, driver = (write.tenant_id, trip.vehicle_id), (write.tenant_id, trip.driver_id)
    owner, vehicle_type = facts.vehicles.get(vehicle, (None, None))
    if owner != trip.transporter_id:
        return Conflict(Refusal.VEHICLE_NOT_OWNED, {})
    if vehicle_type != trip.vehicle_type:
        return Conflict(Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": vehicle_type})
    if vehicle in facts.busy_vehicles:
        return Conflict(Refusal.VEHICLE_BUSY, {})
    if facts.drivers.get(driver) != trip.transporter_id:
        return Conflict(Refusal.DRIVER_NOT_OWNED, {})
    if driver in facts.busy_drivers:
        return Conflict(Refusal.DRIVER_BUSY, {})
    return None


def _refused_by_index(connection: sqlite3.Connection, write: Write, error: sqlite3.IntegrityError) -> Outcome:
    """What a constraint meant. SQLite names the columns, not the index."""
    said = str(error)
    if "broadcasts.customer_id" in said and write.state is not None:
        parameters = {"tenant_id": write.tenant_id, "customer_id": write.state.customer_id}
        row = connection.execute(queries.LIVE_BROADCAST_OF_CUSTOMER, parameters).fetchone()
        if row is not None:
            return Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": row[0]})
    if "assignments.vehicle_id" in said:
        return Conflict(Refusal.VEHICLE_BUSY, {})
    if "assignments.driver_id" in said:
        return Conflict(Refusal.DRIVER_BUSY, {})
    # The rows of the broadcast are not what its owner believes: it has to be loaded again.
    return Fenced()
