"""What was promised, held against what happened. It knows nothing of how nodes work: it judges by the journal's book,
by what clients heard, by what was published, and by what is left when all has come to rest.

Every check yields what is wrong in words; nothing means that all is well.

1. The book: a write lands only if it names the owner, epoch and sequence that the broadcast has at that moment, a
   claim raises the epoch by one, and a node that was given up decides nothing once its lease must have run out.
2. Trips and broadcasts: no truck is won twice, no driver and no vehicle is on two active trips, no customer has two
   live broadcasts, nothing is assigned after the expiry, the events give the state, every broadcast ends in time.
3. Requests (`requests_checker`), accepts that wait (`accepts_checker`), and what operators do (`control_checker`).
4. Publications: nothing but what is durable, each step at most once, in order at each node; a node that lives has
   told everything that it has written.
5. Rest: no actor, deadline, index entry, task or open question anywhere; all nodes hold their leases, and each knows
   the others.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

from haulcast.actors.membership import LEASE_TTL_S
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.events import Event, Expired, TruckAssigned
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import BroadcastId
from haulcast.domain.states import ACTIVE_TRIP
from haulcast.ports import Write
from tests.sim.accepts_checker import check_accepts
from tests.sim.chronicle import Landing, Loss, Taking
from tests.sim.cluster_servers import JOURNAL_PATIENCE_S
from tests.sim.control_checker import check_control
from tests.sim.evidence import Evidence, Violations
from tests.sim.lines import LATEST_S
from tests.sim.requests_checker import check_requests
from tests.sim.virtual_time import START_MS
from tests.sim.world import leftovers


def check_at_rest(evidence: Evidence) -> list[str]:
    """What is wrong when everything should have come to rest."""
    histories = evidence.journal.histories()
    return [
        *_ownership(evidence),
        *_those_given_up(evidence),
        *_engagements(evidence),
        *chain.from_iterable(_broadcast(evidence, *one) for one in histories.values()),
        *check_requests(evidence),
        *check_accepts(evidence, histories),
        *check_control(evidence),
        *_publications(evidence, histories),
        *_nodes(evidence),
    ]


def check_at_the_end(evidence: Evidence) -> list[str]:
    """What is wrong when all nodes have stopped, and all that goes by itself has gone."""
    now_s = evidence.world.clock.monotonic_s()
    directory = evidence.world.store.directory.items()
    found = [f"{key[1]} is still in the directory" for key, (_, until_s) in directory if until_s > now_s]
    found += [f"node {one} is still a member" for one in evidence.world.store.members]
    for server in evidence.servers:
        if not server.now.ended.is_set():
            found.append(f"server {server.number} did not stop")
    return found


# --- The book --------------------------------------------------------------------------------------------------------


def _ownership(evidence: Evidence) -> Violations:
    owners: dict[BroadcastId, tuple[int, int]] = {}  # epoch, incarnation
    seqs: dict[BroadcastId, int] = {}
    for entry in evidence.journal.book:
        if isinstance(entry, Taking):
            epoch, _ = owners.get(entry.broadcast_id, (0, 0))
            if not epoch or entry.epoch != epoch + 1:
                yield f"{entry.broadcast_id} was claimed at epoch {entry.epoch} after {epoch}"
            owners[entry.broadcast_id] = (entry.epoch, entry.incarnation)
        elif isinstance(entry, Landing) and (fence := entry.write.fence) is not None:
            broadcast_id, state = entry.write.broadcast_id, entry.write.state
            named = (fence.epoch, fence.incarnation)
            if owners.get(broadcast_id, named) != named:
                yield f"{broadcast_id}: a write of (epoch, owner) {named} landed under {owners[broadcast_id]}"
            if state is not None:
                if seqs.get(broadcast_id, 0) != fence.seq:
                    yield f"{broadcast_id}: a write after seq {fence.seq} landed at {seqs.get(broadcast_id, 0)}"
                owners.setdefault(broadcast_id, named)
                seqs[broadcast_id] = state.seq


def _those_given_up(evidence: Evidence) -> Violations:
    lost_at_ms: dict[int, int] = {}
    lease_ms = round(LEASE_TTL_S * 1000)
    on_its_way_ms = round((JOURNAL_PATIENCE_S + LATEST_S) * 1000)
    for entry in evidence.journal.book:
        if isinstance(entry, Loss):
            if not entry.revoked:
                lost_at_ms.setdefault(entry.incarnation, entry.at_ms)
            continue
        if isinstance(entry, Taking):
            who, decided_at_ms = entry.incarnation, entry.at_ms - on_its_way_ms
        elif isinstance(entry, Landing) and entry.write.fence is not None:
            who, decided_at_ms = entry.write.fence.incarnation, entry.write.at_ms
        else:
            continue
        if who in lost_at_ms and decided_at_ms > lost_at_ms[who] + lease_ms:
            yield f"node {who} acted at {entry.at_ms} although it was given up at {lost_at_ms[who]}"
    for server in evidence.servers:
        if server.dispatch.membership.incarnation in lost_at_ms:
            yield f"server {server.number} is node {server.dispatch.membership.incarnation}, which was given up"


# --- Trips and broadcasts --------------------------------------------------------------------------------------------


def _engagements(evidence: Evidence) -> Violations:
    engaged: dict[str, str] = {}
    live: dict[str, str] = {}
    won: set[str] = set()
    for write in evidence.landed:
        if (trip := write.assigned) is not None:
            if trip.request_id in won:
                yield f"truck {trip.request_id} was won twice"
            won.add(trip.request_id)
            for what in (f"vehicle {trip.vehicle_id}", f"driver {trip.driver_id}"):
                if engaged.setdefault(what, trip.trip_id) != trip.trip_id:
                    yield f"{what} was on {engaged[what]} and on {trip.trip_id}"
        for update in write.trip_updates:
            if update.status not in ACTIVE_TRIP:
                engaged = {what: trip_id for what, trip_id in engaged.items() if trip_id != update.trip_id}
        if (state := write.state) is not None:
            if state.live and live.setdefault(state.customer_id, state.broadcast_id) != state.broadcast_id:
                yield f"customer {state.customer_id} had {live[state.customer_id]} and {state.broadcast_id}"
            if not state.live and live.get(state.customer_id) == state.broadcast_id:
                del live[state.customer_id]


def _broadcast(evidence: Evidence, state: Broadcast, events: Sequence[Event]) -> Violations:
    name = state.broadcast_id
    replayed: Broadcast | None = None
    for event in events:
        replayed = evolve(replayed, event)
        if isinstance(event, TruckAssigned) and event.at_ms >= state.expires_at_ms:
            yield f"{name}: assigned at {event.at_ms}, after its expiry at {state.expires_at_ms}"
        if isinstance(event, Expired) and event.at_ms < state.expires_at_ms:
            yield f"{name}: expired at {event.at_ms}, before its expiry at {state.expires_at_ms}"
    if replayed != state:
        yield f"{name}: its events do not give its state"
    bound_ms = max(state.expires_at_ms, START_MS + round(evidence.faults_end_s * 1000)) + round(evidence.bound_s * 1000)
    if state.ended_at_ms is None:
        yield f"{name} never ended"
    elif state.ended_at_ms > bound_ms:
        yield f"{name} ended at {state.ended_at_ms}, due at {state.expires_at_ms}"


# --- Publications ----------------------------------------------------------------------------------------------------


def _publications(evidence: Evidence, histories: Mapping[BroadcastId, tuple[Broadcast, Sequence[Event]]]) -> Violations:
    versions: dict[tuple[BroadcastId, int], Write] = {
        (write.broadcast_id, write.state.seq): write for write in evidence.landed if write.state is not None
    }
    told: set[tuple[BroadcastId, int]] = set()
    newest: dict[tuple[int, BroadcastId], tuple[int, int]] = {}
    for published in evidence.world.published:
        after = published.change.after
        name = f"{after.broadcast_id} {published.version} by node {published.incarnation}"
        step = (after.broadcast_id, after.seq)
        write = versions.get(step)
        if write is None or write.fence is None or write.state != after:
            yield f"published {name} is not what was written"
        elif write.fence.epoch != published.change.epoch:
            yield f"published {name} was written at epoch {write.fence.epoch}"
        if step in told:
            yield f"published {name} was published before"
        told.add(step)
        place = (published.incarnation, after.broadcast_id)
        if newest.get(place, (0, 0)) >= published.version:
            yield f"published {name} after {newest[place]}"
        newest[place] = published.version
    living = {server.dispatch.membership.incarnation for server in evidence.servers}
    for step, write in versions.items():
        if write.fence is not None and write.fence.incarnation in living and step not in told:
            yield f"{step} was written by node {write.fence.incarnation} and never published"
        if step[0] not in histories:
            yield f"{step} was written and is gone"


# --- Rest ------------------------------------------------------------------------------------------------------------


def _nodes(evidence: Evidence) -> Violations:
    here = {server.dispatch.membership.incarnation for server in evidence.servers}
    members = set(evidence.world.store.members)
    if members != here:
        yield f"members are {sorted(members)}, and there are {sorted(here)}"
    for server in evidence.servers:
        dispatch, name = server.dispatch, f"server {server.number}"
        if not server.now.up:
            yield f"{name} is not up"
        more = {
            "commands carried": len(dispatch.dispatcher._tasks),
            "asks": len(dispatch.dispatcher._asked),
            "adoptions": len(dispatch.registry._adopted),
            "writes": len(dispatch._committer._waiting),
        }
        for what, number in {**leftovers(dispatch), **more}.items():
            if number:
                yield f"{name} holds {number} {what}"
        membership = dispatch.membership
        if membership.lost or not membership.held:
            yield f"{name} does not hold its lease"
        if membership.alive != here or membership.heirs != here - {membership.incarnation}:
            yield f"{name} sees {sorted(membership.alive)}, and there are {sorted(here)}"
        for run in server.runs:
            if run.unanswered and not run.process.dead:
                yield f"{name} has {len(run.unanswered)} commands without an answer"
