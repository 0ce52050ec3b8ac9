"""The rows that a batch leaves behind, gathered over its writes and then written table by table.

1. Of what changes several times in a batch only the last is written: a broadcast, an offer, a trip.
2. What ends is written before what begins, since the beginning may need what the end sets free: a customer, a vehicle
   or a driver.
"""

import sqlite3
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from haulcast.domain.broadcast import Broadcast, Offer, Trip
from haulcast.domain.ids import RequestId, TransporterId
from haulcast.ports import Write
from haulcast.storage import documents
from haulcast.storage.writes import next_deadline_at_ms

from . import queries
from .facts import Key, Position, request, touched_trips

Row: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class Rows:
    """What is to be written. Call `add` for each write that lands, in order, then `write` once."""

    created: dict[Key, tuple[Broadcast, int, int]] = field(default_factory=dict)  # with epoch and owner
    moved: dict[Key, Broadcast] = field(default_factory=dict)  # those that existed before the batch
    ended: dict[Key, Broadcast] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    offers: dict[tuple[Key, TransporterId], tuple[Offer, int | None]] = field(default_factory=dict)  # with their end
    assigned: dict[tuple[Key, RequestId], Trip] = field(default_factory=dict)
    progress: dict[tuple[Key, RequestId], Trip] = field(default_factory=dict)  # trips from before the batch
    replies: list[Row] = field(default_factory=list)

    def add(self, write: Write, reply: str | None, before: Position | None) -> None:
        """`reply`: the document of what the write logs; `before`: where the broadcast was until now."""
        if write.state is not None:
            self._add_state(write, write.state, before)
        if write.logged is not None:
            tenant_id, role, user_id, request_id = request(write.logged)
            self.replies.append(
                {
                    "tenant_id": tenant_id,
                    "role": role,
                    "user_id": user_id,
                    "request_id": request_id,
                    "fingerprint": write.logged.origin.fingerprint,
                    "reply": reply,
                    "at_ms": write.at_ms,
                    "write_id": write.write_id,
                }
            )

    def _add_state(self, write: Write, state: Broadcast, before: Position | None) -> None:
        assert write.fence is not None
        key = (write.tenant_id, write.broadcast_id)
        if before is None or key in self.created:
            self.created[key] = (state, write.fence.epoch, write.fence.incarnation)
        else:
            self.moved[key] = state
        if not state.live and (before is None or before.live):
            self.ended[key] = state
        for seq, event in enumerate(write.events, start=write.fence.seq + 1):
            name, body = documents.write_event(event)
            self.events.append({**_named(key), "seq": seq, "name": name, "body": body, "write_id": write.write_id})
        for transporter_id in (*(offer.transporter_id for offer in write.new_offers), *write.declined_by):
            self.offers[key, transporter_id] = (state.offers[transporter_id], state.ended_at_ms)
        for trip in touched_trips(write, state):
            new = trip.trip_id == (write.assigned and write.assigned.trip_id) or (key, trip.request_id) in self.assigned
            (self.assigned if new else self.progress)[key, trip.request_id] = trip

    def write(self, connection: sqlite3.Connection) -> None:
        """One statement for each table, or none. Raises `sqlite3.IntegrityError`."""
        for query, rows in (
            (queries.UPDATE_BROADCAST, [_broadcast(key, state) for key, state in self.moved.items()]),
            (queries.INSERT_BROADCAST, [_new_broadcast(key, *created) for key, created in self.created.items()]),
            (queries.INSERT_EVENT, self.events),
            (queries.PUT_OFFER, [_offer(key, *offer) for (key, _), offer in self.offers.items()]),
            (queries.END_OFFERS, [{**_named(key), "ended_at_ms": one.ended_at_ms} for key, one in self.ended.items()]),
            (queries.UPDATE_TRIP, [_progress(key, trip) for (key, _), trip in self.progress.items()]),
            (queries.INSERT_ASSIGNMENT, [_assignment(key, trip) for (key, _), trip in self.assigned.items()]),
            (queries.LOG_REPLY, self.replies),
        ):
            if rows:
                connection.executemany(query, rows)


def _named(key: Key) -> Row:
    return {"tenant_id": key[0], "broadcast_id": key[1]}


def _broadcast(key: Key, state: Broadcast) -> Row:
    return {
        **_named(key),
        "status": state.status.value,
        "expires_at_ms": state.expires_at_ms,
        "ended_at_ms": state.ended_at_ms,
        "next_deadline_at_ms": next_deadline_at_ms(state),
        "seq": state.seq,
        "state": documents.write_state(state),
    }


def _new_broadcast(key: Key, state: Broadcast, epoch: int, owner: int) -> Row:
    return {
        **_broadcast(key, state),
        "customer_id": state.customer_id,
        "created_at_ms": state.created_at_ms,
        "epoch": epoch,
        "owner": owner,
    }


def _offer(key: Key, offer: Offer, ended_at_ms: int | None) -> Row:
    return {
        **_named(key),
        "transporter_id": offer.transporter_id,
        "wave": offer.wave,
        "vehicle_id": offer.vehicle_id,
        "vehicle_type": offer.vehicle_type,
        "distance_m": offer.distance_m,
        "offered_at_ms": offer.offered_at_ms,
        "declined": offer.declined,
        "ended_at_ms": ended_at_ms,
    }


def _progress(key: Key, trip: Trip) -> Row:
    return {
        **_named(key),
        "request_id": trip.request_id,
        "trip_status": trip.status.value,
        "updated_at_ms": trip.updated_at_ms,
    }


def _assignment(key: Key, trip: Trip) -> Row:
    return {
        **_progress(key, trip),
        "assignment_id": trip.assignment_id,
        "trip_id": trip.trip_id,
        "transporter_id": trip.transporter_id,
        "vehicle_id": trip.vehicle_id,
        "driver_id": trip.driver_id,
        "vehicle_type": trip.vehicle_type,
        "assigned_at_ms": trip.assigned_at_ms,
    }
