"""What operators changed, held against what was decided. It looks at decisions, wherever they were made.

1. Commands: versions are one apart, each command is carried out at most once and answered the same whoever is asked,
   and one that was refused has changed nothing.
2. Every decision was made under one version, all of it, as the journal had it; waves and broadcasts are as it says.
3. Acknowledged: when an answer names a node as having followed to a version, all that is there has it, and nothing that
   was decided there under an older one lands any more.
4. Paused: no wave and no new broadcast is decided under a pause, nor anywhere where it is acknowledged until dispatch
   is resumed.
5. Rest: every node has the newest version in force and knows what all others have, and nobody is waited for.
"""

from collections import defaultdict
from collections.abc import Mapping

from haulcast.domain.control import TenantControl
from haulcast.domain.events import Created, Event, WaveHeld, WaveSent
from haulcast.domain.replies import Done
from haulcast.ports import RequestKey
from tests.sim.chronicle import Acknowledgement, Decided, Instruction, Landing, Recording
from tests.sim.evidence import Evidence, Violations
from tests.sim.world import ACME


def check_control(evidence: Evidence) -> Violations:
    """What is wrong about operators' commands when everything should have come to rest."""
    recordings = [entry for entry in evidence.journal.book if isinstance(entry, Recording)]
    yield from _versions(recordings)
    yield from _answers(evidence, {entry.record.by: entry for entry in recordings})
    yield from _decisions(evidence, {entry.control.version: entry.control for entry in recordings})
    yield from _following(evidence)
    yield from _pauses(evidence)
    yield from _rest(evidence)


def _versions(recordings: list[Recording]) -> Violations:
    version = 1
    keys: set[RequestKey] = set()
    for entry in recordings:
        if entry.control.version != version + 1 or entry.record.version != entry.control.version:
            yield f"control {entry.control.version} was put in force after {version}"
        version = entry.control.version
        if entry.record.by in keys:
            yield f"command {entry.record.by.request_id!r} was carried out twice"
        keys.add(entry.record.by)


def _answers(evidence: Evidence, recordings: Mapping[RequestKey, Recording]) -> Violations:
    for key, instruction in evidence.instructions.items():
        name = f"command {key.user_id} {key.request_id!r}"
        recording = recordings.get(key)
        done = [reply for reply in instruction.replies if isinstance(reply, Done)]
        for reply in done:
            said = (reply.data["number"], reply.data["version"])
            if recording is None:
                yield f"{name}: answered as {said}, and not recorded"
            elif said != (recording.record.number, recording.record.version):
                yield f"{name}: answered as {said}, recorded as {recording.record.number, recording.record.version}"
        if recording is not None and _refused(instruction):
            yield f"{name}: refused with {_refused(instruction)}, and carried out"


def _refused(instruction: Instruction) -> list[str]:
    refused = [str(reply.code) for reply in instruction.replies if not isinstance(reply, Done)]
    return refused + [code for code in instruction.errors if code == "VERSION_MISMATCH"]


# --- What was decided ------------------------------------------------------------------------------------------------


def _decisions(evidence: Evidence, controls: Mapping[int, TenantControl]) -> Violations:
    first = TenantControl(evidence.world.settings)
    for entry in evidence.journal.book:
        if not isinstance(entry, Landing) or not entry.write.events:
            continue
        name = entry.write.broadcast_id
        if entry.decided is None:
            yield f"{name}: {entry.write.events} were decided by nobody"
            continue
        control = entry.decided.control
        if control != controls.get(control.version, first):
            yield f"{name}: decided under {control}, which is not version {control.version}"
        for event in entry.write.events:
            yield from (f"{name}: {what}" for what in _accordance(event, control))


def _accordance(event: Event, control: TenantControl) -> Violations:
    """What in an event is not as the control says under which it was decided."""
    settings = control.settings
    match event:
        case WaveSent():
            radii_km = settings.mode.radii_km(settings.wave_radii_km)
            radius_km = radii_km[min(event.wave, len(radii_km)) - 1]
            if event.radius_m != (None if radius_km is None else radius_km * 1000):
                yield f"wave {event.wave} reached {event.radius_m} m, not {radius_km} km"
            farthest_m = max((offer.distance_m for offer in event.offers), default=0)
            if event.radius_m is not None and farthest_m > event.radius_m + 1:
                yield f"wave {event.wave} of {event.radius_m} m was sent to somebody {farthest_m} m away"
            if len(event.offers) > settings.mode.offers_per_wave(settings.max_offers_per_wave):
                yield f"wave {event.wave} made {len(event.offers)} offers"
            next_ms = event.next_wave_at_ms
            if next_ms is not None and next_ms > event.at_ms + settings.wave_interval_s * 1000:
                yield f"wave {event.wave} at {event.at_ms} is followed by one at {next_ms}"
        case Created():
            expiry_s = (event.expires_at_ms - event.at_ms) / 1000
            if not settings.min_expiry_s <= expiry_s <= settings.max_expiry_s:
                yield f"created to live {expiry_s} s"
        case WaveHeld():
            if not control.paused:
                yield "a wave is held, and nothing is paused"
    if control.paused and isinstance(event, Created | WaveSent):
        yield f"{type(event).__name__} was decided while paused"


def _following(evidence: Evidence) -> Violations:
    followed: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # by node: position of the answer, version
    for position, entry in enumerate(evidence.journal.book):
        if isinstance(entry, Acknowledgement):
            for node in entry.nodes:
                followed[node].append((position, entry.version))
            yield from (f"said to have followed to {entry.version}: {what}" for what in entry.behind)
        elif isinstance(entry, Landing) and entry.decided is not None and entry.write.fence is not None:
            node, had = entry.write.fence.incarnation, entry.decided.control.version
            for answered, version in followed[node]:
                if had < version:
                    when = "was decided" if entry.decided.position > answered else "landed"
                    what = [type(event).__name__ for event in entry.write.events]
                    yield f"node {node} had followed to {version}, and {what} {when} under {had} after that"
                    break


def _pauses(evidence: Evidence) -> Violations:
    in_force = TenantControl()
    paused: dict[int, int] = {}  # by node that has acknowledged the pause: the position of the answer
    for position, entry in enumerate(evidence.journal.book):
        if isinstance(entry, Recording):
            in_force = entry.control
            if not in_force.paused:
                paused.clear()
        elif isinstance(entry, Acknowledgement):
            if in_force.paused and entry.complete and entry.version == in_force.version:
                paused.update((node, position) for node in entry.nodes if node not in paused)
        elif isinstance(entry, Landing) and (decided := _decided_of_new(entry)) is not None:
            node = entry.write.fence.incarnation if entry.write.fence is not None else 0
            if node in paused and decided.position > paused[node]:
                yield f"node {node} has paused, and began {entry.write.events}"


def _decided_of_new(entry: Landing) -> Decided | None:
    """How it was decided, if it begins something."""
    return entry.decided if any(isinstance(event, Created | WaveSent) for event in entry.write.events) else None


# --- Rest ------------------------------------------------------------------------------------------------------------


def _rest(evidence: Evidence) -> Violations:
    newest = evidence.journal._tenants[ACME]
    if newest.paused:
        yield "dispatch is still paused"
    have = {
        server.dispatch.membership.incarnation: server.dispatch.controller._version(ACME) for server in evidence.servers
    }
    for server in evidence.servers:
        controller, name = server.dispatch.controller, f"server {server.number}"
        known = controller._tenants.known.get(ACME)
        if known is None:
            continue  # it reads what is in force when it needs it
        if known != newest:
            yield f"{name} knows control {known.version}, and {newest.version} is the newest"
        if controller._version(ACME) != newest.version:
            yield f"{name} has control {controller._version(ACME)}, and {newest.version} is the newest"
        yield from (f"{name}: {what}" for what in server.now.behind(newest.version))
        if (shown := controller._state(ACME, known).nodes) != have:
            yield f"{name} shows versions {shown}, and the nodes have {have}"
        if controller._waiting or len(controller._tasks):
            yield f"{name} waits for {len(controller._waiting)} acknowledgements with {len(controller._tasks)} tasks"
    for key, instruction in evidence.instructions.items():
        if not instruction.final and not instruction.left:
            yield f"command {key.user_id} {key.request_id!r} was not answered, after {instruction.errors[-3:]}"
