"""Writes as the rows that the commit's statement takes.

1. Each kind of row is a named tuple. Its fields are the columns, in their order and by their names, and say of which
   type the column is; a statement takes each column as one array, with `unnest` to make rows of them again.
2. A write is taken apart once (`prepared`), however often it is then sent. What belongs to it refers to it by `n`, its
   place in the statement, which is put in front when it is sent: it is the first column of each kind, but of
   `ChangeRow`, which goes on where a write's first row ends.
3. Arrays, not one JSON document: documents in a document would be escaped here and unescaped there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import NoneType
from typing import Any, NamedTuple, TypeAlias, get_args, get_type_hints

from haulcast.domain.broadcast import Broadcast, Trip
from haulcast.ports import LoggedReply, Write
from haulcast.storage import documents
from haulcast.storage.writes import next_deadline_at_ms

Row: TypeAlias = tuple[Any, ...]
"""A row but for its first column."""

_SQL_TYPES = {int: "BIGINT", str: "TEXT", bool: "BOOLEAN"}


class Step(IntEnum):
    """What a write does to its broadcast."""

    NONE = 0
    """It logs a reply that anybody may give."""
    REFUSAL = 1
    """It logs a reply that the owner alone may give."""
    CREATION = 2
    CHECKPOINT = 3


class WriteRow(NamedTuple):
    """What any write may have, and all of one that only logs a reply. Each group below is there or None as a whole."""

    n: int
    step: int
    write_id: str
    at_ms: int
    tenant_id: str
    broadcast_id: str
    # The fence.
    epoch: int | None
    owner: int | None
    seq: int | None
    # The reply.
    request_tenant_id: str | None
    role: str | None
    user_id: str | None
    request_id: str | None
    fingerprint: str | None
    reply: str | None


class ChangeRow(NamedTuple):
    """What a write makes of its broadcast, but for events, offers and trips. Each group is there or None as a whole."""

    # The state.
    customer_id: str | None
    status: str | None
    created_at_ms: int | None
    expires_at_ms: int | None
    ended_at_ms: int | None
    next_deadline_at_ms: int | None
    new_seq: int | None
    state: str | None
    # The assignment.
    truck_request_id: str | None
    assignment_id: str | None
    trip_id: str | None
    transporter_id: str | None
    vehicle_id: str | None
    driver_id: str | None
    vehicle_type: str | None
    trip_status: str | None
    active: bool | None
    assigned_at_ms: int | None
    updated_at_ms: int | None


class EventRow(NamedTuple):
    """An event of write `n`."""

    n: int
    write_id: str
    tenant_id: str
    broadcast_id: str
    seq: int
    name: str
    body: str


class OfferRow(NamedTuple):
    """An offer that write `n` makes, or that its transporter declines in it."""

    n: int
    tenant_id: str
    broadcast_id: str
    transporter_id: str
    wave: int
    vehicle_id: str
    vehicle_type: str
    distance_m: int
    offered_at_ms: int
    declined: bool
    ended_at_ms: int | None


class TripRow(NamedTuple):
    """A trip of before that comes further by write `n`."""

    n: int
    tenant_id: str
    broadcast_id: str
    request_id: str
    trip_status: str
    active: bool
    updated_at_ms: int


def unnest(first: int, *kinds: type[NamedTuple]) -> str:
    """The FROM item that makes rows of these kinds, side by side, out of the parameters from number `first` on."""
    arrays, names = [], []
    columns = [column for kind in kinds for column in get_type_hints(kind).items()]
    for number, (name, hint) in enumerate(columns, start=first):
        (python,) = {*(get_args(hint) or (hint,))} - {NoneType}
        arrays.append(f"${number}::{_SQL_TYPES[python]}[]")
        names.append(name)
    return f"unnest({', '.join(arrays)}) AS given ({', '.join(names)})"


_NO_FENCE = (None,) * 3
_NO_REPLY = (None,) * 6
_NO_TRIP = (None,) * 11
_NO_CHANGE = (None,) * len(ChangeRow._fields)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A write taken apart."""

    write: Write
    step: Step
    things: frozenset[tuple[str, ...]]
    """What it may change or depends on beside the ownership of its broadcast, each by its kind and key."""
    row: Row
    change: Row = _NO_CHANGE
    """All of a `ChangeRow`."""
    events: Sequence[Row] = ()
    offers: Sequence[Row] = ()
    trips: Sequence[Row] = ()


def prepared(write: Write) -> Prepared:
    """Take a sound write apart."""
    fence, state = write.fence, write.state
    step = _step(write)
    row = (
        int(step),
        write.write_id,
        write.at_ms,
        write.tenant_id,
        write.broadcast_id,
        *(_NO_FENCE if fence is None else (fence.epoch, fence.incarnation, fence.seq)),
        *(_NO_REPLY if write.logged is None else _reply(write.logged)),
    )
    if fence is None or state is None:
        return Prepared(write, step, _things(write, step, ()), row)
    made = write.assigned
    trips = _touched_trips(write, state, made)
    trip = None if made is None else next(trip for trip in trips if trip.trip_id == made.trip_id)
    return Prepared(
        write,
        step,
        _things(write, step, trips),
        row,
        (*_state(state), *(_NO_TRIP if trip is None else _assignment(trip))),
        _events(write, fence.seq),
        _offers(write, state),
        [_progress(write, moved) for moved in trips if moved is not trip],
    )


def arguments(writes: Sequence[Prepared]) -> list[Sequence[Any]]:
    """The arrays for `COMMIT`: the columns of `WriteRow`, `ChangeRow`, `EventRow`, `OfferRow` and `TripRow`."""
    return [
        *log_arguments(writes),
        *zip(*(write.change for write in writes), strict=True),
        *_columns(EventRow, [write.events for write in writes]),
        *_columns(OfferRow, [write.offers for write in writes]),
        *_columns(TripRow, [write.trips for write in writes]),
    ]


def log_arguments(writes: Sequence[Prepared]) -> Sequence[Sequence[Any]]:
    """The arrays for `LOG`: the columns of `WriteRow`."""
    return _columns(WriteRow, [(write.row,) for write in writes])


def _columns(kind: type[NamedTuple], rows_of_writes: Sequence[Sequence[Row]]) -> Sequence[Sequence[Any]]:
    numbers = [n for n, rows in enumerate(rows_of_writes) for _ in rows]
    if not numbers:
        return [()] * len(kind._fields)
    return [numbers, *zip(*(row for rows in rows_of_writes for row in rows), strict=True)]


def _step(write: Write) -> Step:
    if write.fence is None:
        return Step.NONE
    if write.state is None:
        return Step.REFUSAL
    return Step.CREATION if write.fence.seq == 0 else Step.CHECKPOINT


def _things(write: Write, step: Step, trips: Sequence[Trip]) -> frozenset[tuple[str, ...]]:
    things: list[tuple[str, ...]] = []
    if write.logged is not None:
        key = write.logged.origin.key
        things.append(("request", key.tenant_id, key.role, key.user_id, key.request_id))
    if write.state is not None:
        things.append(("broadcast", write.tenant_id, write.broadcast_id))
        if step is Step.CREATION or not write.state.live:
            things.append(("customer", write.tenant_id, write.state.customer_id))
        for trip in trips:
            things.append(("vehicle", write.tenant_id, trip.vehicle_id))
            things.append(("driver", write.tenant_id, trip.driver_id))
    return frozenset(things)


def _touched_trips(write: Write, state: Broadcast, made: Trip | None) -> Sequence[Trip]:
    """The trips that the events made or moved, as they are after all of them."""
    updates = write.trip_updates
    if made is None and not updates:
        return ()
    ids = dict.fromkeys([*(() if made is None else (made.trip_id,)), *(update.trip_id for update in updates)])
    return [trip for trip_id in ids if (trip := state.trip(trip_id)) is not None]


def _state(state: Broadcast) -> Row:
    return (
        state.customer_id,
        state.status.value,
        state.created_at_ms,
        state.expires_at_ms,
        state.ended_at_ms,
        next_deadline_at_ms(state),
        state.seq,
        documents.write_state(state),
    )


def _reply(logged: LoggedReply) -> Row:
    key = logged.origin.key
    return (
        key.tenant_id,
        key.role.value,
        key.user_id,
        key.request_id,
        logged.origin.fingerprint,
        documents.write_reply(logged.reply),
    )


def _assignment(trip: Trip) -> Row:
    return (
        trip.request_id,
        trip.assignment_id,
        trip.trip_id,
        trip.transporter_id,
        trip.vehicle_id,
        trip.driver_id,
        trip.vehicle_type,
        trip.status.value,
        trip.active,
        trip.assigned_at_ms,
        trip.updated_at_ms,
    )


def _events(write: Write, seq: int) -> Sequence[Row]:
    return [
        (write.write_id, write.tenant_id, write.broadcast_id, number, *documents.write_event(event))
        for number, event in enumerate(write.events, start=seq + 1)
    ]


def _offers(write: Write, state: Broadcast) -> Sequence[Row]:
    touched = [*(offer.transporter_id for offer in write.new_offers), *write.declined_by]
    return [
        (
            write.tenant_id,
            write.broadcast_id,
            offer.transporter_id,
            offer.wave,
            offer.vehicle_id,
            offer.vehicle_type,
            offer.distance_m,
            offer.offered_at_ms,
            offer.declined,
            state.ended_at_ms,
        )
        for offer in map(state.offers.__getitem__, dict.fromkeys(touched))
    ]


def _progress(write: Write, trip: Trip) -> Row:
    return (
        write.tenant_id,
        write.broadcast_id,
        trip.request_id,
        trip.status.value,
        trip.active,
        trip.updated_at_ms,
    )
