"""Operators' commands: from the journal to every actor of every node, and back as acknowledgements.

1. A command is decided on what the journal says, and recorded there under its own id together with what it leads to.
   Only then is anybody told.
2. What travels is a tenant and a version. Whoever hears of a version that it does not have reads the journal: what it
   puts in force is true, whichever messages were lost or have crossed.
3. A node hands it to each actor of the tenant, which takes it between two messages. When the last of them has it, the
   node says so to all others: each knows what every node has in force.
4. Who was given the command waits for all nodes that live, asks those that are silent again every second, and tells
   after `ANSWER_WITHIN_S` which have not answered. A node that dies meanwhile is told of as gone: its broadcasts
   are begun anew elsewhere, by what the journal says.
5. Whatever was missed heals: every `COMPARE_EVERY_S` each node asks the journal for the versions of its tenants. As
   long as somebody looks on, it also asks the nodes that are not known to have what it has.
6. The same id again finds the record: it is answered by it, or, if who saw to it died, the nodes are asked again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import structlog

from haulcast.domain.control import (
    Announce,
    Applied,
    ControlCommand,
    PatchSettings,
    Pause,
    ReloadSettings,
    Resume,
    SwitchMode,
    TenantControl,
    apply,
    changes_view,
)
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Done, Json, Refusal, Refused, Reply
from haulcast.errors import ErrorCode, HaulcastError, JournalUnavailable, RequestError
from haulcast.ports import Clock, Cluster, ControlListener, ControlRecord, ControlState, Journal, Kind, Origin, Stale
from haulcast.tasks import TaskSet

from .bus import NodeBus
from .membership import Membership
from .metrics import ActorMetrics
from .tenants import Tenants

ANSWER_WITHIN_S = 5.0
ASK_AGAIN_S = 1.0
COMPARE_EVERY_S = 2.0
_LOOK_EVERY_S = 0.05
"""How soon it is noticed that a node which is waited for has died."""
_TRIES = 20
"""How many commands to the same tenant, given at other nodes, may come first."""

COMMANDS: Mapping[type[ControlCommand], str] = {
    Pause: "pause",
    Resume: "resume",
    ReloadSettings: "reload_settings",
    SwitchMode: "switch_mode",
    PatchSettings: "patch_settings",
    Announce: "announce",
}
"""How the audit calls each command."""
DRAIN_NODE = "drain_node"

log = structlog.get_logger()

Configure = Callable[[TenantId, TenantControl], Awaitable[None]]
"""Hands what is in force to every actor of a tenant on this node; returns when the last has taken it."""


class _Version(msgspec.Struct, array_like=True):
    """What a tenant is at (`CONTROL`: have it in force and say so), or what a node has in force (`CONTROLLED`)."""

    tenant_id: TenantId
    version: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Version).decode


class Control:
    """The `Controller` of this node. `run` compares versions."""

    def __init__(
        self,
        journal: Journal,
        tenants: Tenants,
        membership: Membership,
        cluster: Cluster,
        bus: NodeBus,
        clock: Clock,
        configure: Configure,
        listener: ControlListener,
        metrics: ActorMetrics,
    ) -> None:
        self._journal = journal
        self._tenants = tenants
        self._membership = membership
        self._cluster = cluster
        self._bus = bus
        self._clock = clock
        self._configure = configure
        self._listener = listener
        self._metrics = metrics
        self._tasks = TaskSet()
        self._deciding: defaultdict[TenantId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._has: dict[TenantId, int] = {}  # what every actor here has, if that may be other than what is known
        self._others: defaultdict[int, dict[TenantId, int]] = defaultdict(dict)  # what other nodes have said they have
        self._waiting: dict[asyncio.Event, None] = {}  # in the order in which they began
        bus.handle(Kind.CONTROL, self._on_control)
        bus.handle(Kind.CONTROLLED, self._on_controlled)

    async def run(self) -> None:
        """Notice what was missed, until cancelled."""
        while True:
            await asyncio.sleep(COMPARE_EVERY_S)
            try:
                await self._compare()
            except HaulcastError as error:
                log.warning("control_versions_not_compared", error=str(error))
            for tenant_id in self._listener.watched:
                self._ask_others(tenant_id)

    async def close(self) -> None:
        """End what is under way."""
        await self._tasks.close()

    # --- What clients ask ---

    async def carry_out(
        self, tenant_id: TenantId, command: ControlCommand, origin: Origin, expected_version: int | None
    ) -> Reply:
        """See `Controller`."""
        async with self._deciding[tenant_id]:  # or those of this node would get in each other's way
            decided = await self._decided(tenant_id, command, origin, expected_version)
        return decided if isinstance(decided, Refused) else await self._see_through(tenant_id, decided, origin)

    async def drain(self, node: int, origin: Origin) -> Reply:
        """See `Controller`."""
        record = await self._recorded(origin)
        if record is None:
            if node not in self._membership.alive:
                raise RequestError(ErrorCode.NODE_NOT_FOUND, node=node)
            staying = self._membership.heirs | {self._membership.incarnation}
            if not staying - {node} or (self._membership.leaving and not self._membership.heirs - {node}):
                raise RequestError(ErrorCode.LAST_NODE, node=node)
            asked = ControlRecord(origin.key, origin.fingerprint, DRAIN_NODE, {"node": node}, self._clock.now_ms())
            recorded = await self._journal.record_control(asked, None)
            assert isinstance(recorded, ControlRecord)  # only a tenant's version can be another one
            record = recorded
        return await self._see_through(origin.key.tenant_id, record, origin)

    async def state_of(self, tenant_id: TenantId) -> ControlState:
        """See `Controller`."""
        control = await self._tenants.control_of(tenant_id)
        self._ask_others(tenant_id)
        return self._state(tenant_id, control)

    def _ask_others(self, tenant_id: TenantId) -> None:
        """Have those say what they have who are not known to have as much as is known here. A node that has nobody of
        the tenant reads the journal, and has it then."""
        version = self._version(tenant_id)
        for node in self._bus.peers:
            if self._others[node].get(tenant_id, -1) < version:
                self._bus.send(node, Kind.CONTROL, _encode(_Version(tenant_id, version)))

    def _state(self, tenant_id: TenantId, control: TenantControl) -> ControlState:
        versions = {node: self._others[node].get(tenant_id, 0) for node in self._bus.peers}
        return ControlState(control, {**versions, self._membership.incarnation: self._version(tenant_id)})

    # --- A command's way ---

    async def _decided(
        self, tenant_id: TenantId, command: ControlCommand, origin: Origin, expected_version: int | None
    ) -> ControlRecord | Refused:
        """The record of a command, which may have been carried out before."""
        for _ in range(_TRIES):
            before = await self._tenants.read(tenant_id)
            # After that: a command that was given elsewhere too is not refused for what it has changed itself.
            record = await self._recorded(origin)
            if record is not None:
                return record
            if expected_version not in (None, before.version):
                raise RequestError(ErrorCode.VERSION_MISMATCH, version=before.version)
            now_ms = self._clock.now_ms()
            applied = apply(before, command, now_ms)
            if isinstance(applied, Refused):
                return applied
            record = await self._record(origin, command, applied, now_ms)
            if record is not None:
                return record
        raise RequestError(ErrorCode.BUSY)

    async def _recorded(self, origin: Origin) -> ControlRecord | None:
        return await self._journal.read_control(origin.key)

    async def _record(
        self, origin: Origin, command: ControlCommand, applied: Applied, now_ms: int
    ) -> ControlRecord | None:
        """The record, also one that was there already; None if another command to the tenant came first."""
        record = ControlRecord(
            by=origin.key,
            fingerprint=origin.fingerprint,
            command=COMMANDS[type(command)],
            data=msgspec.to_builtins(command),
            at_ms=now_ms,
            version=applied.control.version,
            changes=applied.changes,
        )
        recorded = await self._journal.record_control(record, applied.control)
        return None if isinstance(recorded, Stale) else recorded

    async def _see_through(self, tenant_id: TenantId, record: ControlRecord, origin: Origin) -> Reply:
        """Have all nodes follow a recorded command, and note how they answered."""
        if record.fingerprint != origin.fingerprint:
            return Refused(Refusal.ID_REUSED)
        outcome = record.outcome
        if outcome is None:
            began_s = self._clock.monotonic_s()
            log.info("control", tenant=tenant_id, command=record.command, number=record.number, version=record.version)
            if record.version is None:
                node = record.data["node"]
                assert isinstance(node, int)
                nodes = await self._drained(node, record.at_ms)
            else:
                nodes = await self._followed(tenant_id, record.version, record.at_ms)
            self._metrics.control_s.observe(self._clock.monotonic_s() - began_s)
            outcome = {"complete": all(node["status"] in ("acked", "gone") for node in nodes), "nodes": nodes}
            outcome = await self._finish(tenant_id, record, outcome)
        shown: dict[str, Json] = {"command": record.command, "number": record.number}
        if record.version is not None:
            shown.update(version=record.version, changes=changes_view(record.changes))
        return Done({**shown, **outcome})

    async def _finish(
        self, tenant_id: TenantId, record: ControlRecord, outcome: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Note the outcome. What is on record then: another node may have seen to the same command and noted first."""
        for node in outcome["nodes"]:
            if node["status"] == "silent":
                self._metrics.control_silent.inc()
                log.warning("control_unanswered", tenant=tenant_id, command=record.command, node=node["node"])
        try:
            await self._journal.finish_control(tenant_id, record.number, outcome)
            noted = await self._journal.read_control(record.by)
        except JournalUnavailable as error:  # what was commanded holds all the same
            log.warning("control_outcome_not_noted", tenant=tenant_id, number=record.number, error=str(error))
            noted = None
        return outcome if noted is None or noted.outcome is None else noted.outcome

    async def _followed(self, tenant_id: TenantId, version: int, since_ms: int) -> list[dict[str, Any]]:
        """How each node that lives has followed to `version`."""
        me, payload = self._membership.incarnation, _encode(_Version(tenant_id, version))
        self._tasks.start(self._follow(tenant_id, version), "control")

        def has(node: int) -> bool:
            return (self._version(tenant_id) if node == me else self._others[node].get(tenant_id, 0)) >= version

        return await self._answered(
            self._membership.alive, since_ms, has, lambda node: self._bus.send(node, Kind.CONTROL, payload)
        )

    async def _drained(self, node: int, since_ms: int) -> list[dict[str, Any]]:
        """How a node has taken it that it is to stop: it is marked, sees that, and all see it as one that leaves.
        Unless no other one would be left: many may be drained at once. Raises `ClusterUnavailable`."""
        if node in self._membership.alive and not await self._cluster.drain(node, not_last=True):
            return [{"node": node, "status": "refused"}]

        def leaves(node: int) -> bool:
            return (
                self._membership.leaving if node == self._membership.incarnation else node not in self._membership.heirs
            )

        return await self._answered(frozenset({node}), since_ms, leaves, lambda node: None)

    async def _answered(
        self, nodes: frozenset[int], since_ms: int, answered: Callable[[int], bool], ask: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        """Ask nodes until each has answered or died, or the time is up. `since_ms`: when the command was recorded."""
        began_s = ask_at_s = self._clock.monotonic_s()
        answers: dict[int, dict[str, Any]] = {}
        with self._noticing() as noticed:
            while True:
                noticed.clear()
                now_s = self._clock.monotonic_s()
                for node in nodes - answers.keys():
                    if answered(node):
                        after_ms = max(0, self._clock.now_ms() - since_ms)
                        answers[node] = {"node": node, "status": "acked", "after_ms": after_ms}
                    elif node not in self._membership.alive:
                        answers[node] = {"node": node, "status": "gone"}
                missing = nodes - answers.keys()
                if not missing or now_s >= began_s + ANSWER_WITHIN_S:
                    break
                if now_s >= ask_at_s:
                    ask_at_s += ASK_AGAIN_S
                    for node in missing - {self._membership.incarnation}:
                        ask(node)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await noticed.wait()
        silent = [{"node": node, "status": "silent"} for node in missing]
        return sorted([*answers.values(), *silent], key=lambda answer: answer["node"])

    @contextmanager
    def _noticing(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever something was heard."""
        event = asyncio.Event()
        self._waiting[event] = None
        try:
            yield event
        finally:
            del self._waiting[event]

    # --- Following ---

    def _version(self, tenant_id: TenantId) -> int:
        """What every actor of the tenant has here; 0 if nothing is known of the tenant."""
        known = self._tenants.known.get(tenant_id)
        return self._has.get(tenant_id, 0 if known is None else known.version)

    async def _follow(self, tenant_id: TenantId, version: int) -> None:
        """Have at least `version` in force here, and say so. If the journal is away, whoever waits will ask again, and
        so will `run`."""
        if self._version(tenant_id) >= version:
            return
        try:
            control = await self._tenants.read(tenant_id)
        except HaulcastError as error:
            log.warning("control_not_read", tenant=tenant_id, version=version, error=str(error))
        else:
            await self._put_in_force(tenant_id, control)

    async def _put_in_force(self, tenant_id: TenantId, control: TenantControl) -> None:
        before = self._tenants.known.get(tenant_id)
        if before is not None:
            self._has.setdefault(tenant_id, before.version)
        if not self._tenants.learn(tenant_id, control):
            return  # under way
        if before is not None:  # otherwise nobody of that tenant is here
            self._listener.control_changed(tenant_id, before, control)
            await self._configure(tenant_id, control)
            self._has[tenant_id] = max(self._has[tenant_id], control.version)
        self._bus.broadcast(Kind.CONTROLLED, _encode(_Version(tenant_id, self._version(tenant_id))))
        self._heard(tenant_id)

    async def catch_up(self) -> None:
        """Have in force what the journal says. For a node that could not be told, and has no actors yet. Raises
        `JournalUnavailable`."""
        versions = await self._journal.control_versions(list(self._tenants.known))
        for tenant_id, version in versions.items():
            if self._tenants.known[tenant_id].version < version:
                await self._put_in_force(tenant_id, await self._tenants.read(tenant_id))

    async def _compare(self) -> None:
        """Follow what was missed."""
        versions = await self._journal.control_versions(list(self._tenants.known))
        for tenant_id, version in versions.items():
            if self._tenants.known[tenant_id].version < version:
                self._metrics.control_healed.inc()
                log.warning("control_was_missed", tenant=tenant_id, version=version)
                self._tasks.start(self._follow(tenant_id, version), "control")

    def peers_changed(self) -> None:
        """It is another set of nodes that lives."""
        for node in self._others.keys() - self._bus.peers:
            del self._others[node]
        for tenant_id in self._listener.watched:
            self._ask_others(tenant_id)
            self._heard(tenant_id)

    def _heard(self, tenant_id: TenantId) -> None:
        for event in self._waiting:
            event.set()
        if (control := self._tenants.known.get(tenant_id)) is not None:
            self._listener.state_changed(tenant_id, self._state(tenant_id, control))

    def _on_control(self, sender: int, payload: bytes) -> None:
        asked = _decode(payload)
        has = self._version(asked.tenant_id)
        if has >= asked.version:
            self._bus.send(sender, Kind.CONTROLLED, _encode(_Version(asked.tenant_id, has)))
        else:
            self._tasks.start(self._follow(asked.tenant_id, asked.version), "control")

    def _on_controlled(self, sender: int, payload: bytes) -> None:
        told = _decode(payload)
        if self._others[sender].get(told.tenant_id, -1) < told.version:
            self._others[sender][told.tenant_id] = told.version
            self._heard(told.tenant_id)
