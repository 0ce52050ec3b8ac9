"""What clients were answered, held against what was done.

Each request is answered in the end; every answer is the one that the journal holds, whoever was asked and however
often; what was promised has happened, and what was refused has not.
"""

from collections import defaultdict

from haulcast.domain.commands import Accept, Cancel, Create, Decline, UpdateTrip
from haulcast.domain.events import AcceptWaiting, Cancelled, Created, Declined, TripUpdated
from haulcast.domain.replies import Done
from haulcast.ports import RequestKey, Write
from haulcast.storage import documents
from tests.sim.chronicle import Request
from tests.sim.evidence import Evidence, Violations


def check_requests(evidence: Evidence) -> Violations:
    logged: defaultdict[RequestKey, list[Write]] = defaultdict(list)
    for write in evidence.landed:
        if write.logged is not None:
            logged[write.logged.origin.key].append(write)
    winners: dict[object, RequestKey] = {}
    for key, request in evidence.requests.items():
        name = f"{key.role} {key.user_id} {key.request_id!r}"
        if request.open:
            yield f"{name}: not answered, after {len(request.sent_at_ms)} tries and {request.errors[-3:]}"
        if request.undurable:
            yield f"{name}: answered before the answer was durable"
        if len(logged[key]) > 1:
            yield f"{name}: carried out {len(logged[key])} times"
        for _, reply in request.replies:
            if not logged[key]:
                yield f"{name}: answered {reply}, of which the journal has nothing"
                break
            [write, *_] = logged[key]
            assert write.logged is not None
            if documents.write_reply(write.logged.reply) != documents.write_reply(reply):
                yield f"{name}: answered {reply}, but the journal has {write.logged.reply}"
        for write in logged[key]:
            assert write.logged is not None
            yield from (f"{name}: {what}" for what in _deeds(evidence, request, write, write.logged.reply))
            if isinstance(request.command, Accept) and isinstance(write.logged.reply, Done) and write.assigned:
                truck = write.logged.reply.data["request_id"]
                if winners.setdefault(truck, key) != key:
                    yield f"{name}: won truck {truck}, as {winners[truck]} did"


def _deeds(evidence: Evidence, request: Request, write: Write, reply: object) -> Violations:
    """What the write of a reply did, against what the reply says."""
    command = request.command
    trip = write.assigned
    if not isinstance(reply, Done):
        if trip is not None or any(isinstance(event, Created | Cancelled | TripUpdated) for event in write.events):
            yield f"refused with {reply}, and yet {write.events}"
        return
    match command:
        case Accept() if reply.data["status"] == "pending":
            _, events = evidence.journal.histories()[write.broadcast_id]
            waited = {event.accept.vehicle_id for event in events if isinstance(event, AcceptWaiting)}
            if trip is not None or command.vehicle_id not in waited:
                yield f"said to wait with {command.vehicle_id}, written {write.events}"
        case Accept():
            said = (reply.data["trip_id"], command.transporter_id, command.vehicle_id, command.driver_id)
            if trip is None or (trip.trip_id, trip.transporter_id, trip.vehicle_id, trip.driver_id) != said:
                yield f"promised {said}, written {trip}"
        case Create():
            if write.broadcast_id != reply.data["broadcast_id"] or not isinstance(write.events[0], Created):
                yield f"promised {reply.data['broadcast_id']}, written {write.broadcast_id}"
        case Cancel():
            if not any(isinstance(event, Cancelled) for event in write.events):
                yield "said to be cancelled, and is not"
        case UpdateTrip():
            told = {
                (event.trip_id, event.status)
                for event in evidence.journal.histories()[write.broadcast_id][1]
                if isinstance(event, TripUpdated)
            }
            if (command.trip_id, command.status) not in told:
                yield f"{command.trip_id} is said to be {command.status}, and never was"
        case Decline():
            state, events = evidence.journal.histories()[write.broadcast_id]
            declined = {event.transporter_id for event in events if isinstance(event, Declined)}
            if command.transporter_id not in declined and state.live:
                yield "said to be declined, and is not"
