"""Faults planted in how operators' commands are followed and accepts are decided."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from haulcast.actors.control import Control
from haulcast.actors.registry import Registry
from haulcast.actors.tenants import Tenants
from haulcast.domain import accepting
from haulcast.domain import effects as fx
from haulcast.domain.broadcast import Broadcast, WaitingAccept
from haulcast.domain.commands import SendWave
from haulcast.domain.control import TenantControl
from haulcast.domain.decision import Decision, waited
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Refusal
from haulcast.domain.sending import seek, send_wave
from haulcast.ports import ControlRecord, Stale
from haulcast.storage.memory.journal import MemoryJournal


@contextmanager
def acknowledged_before_it_is_taken() -> Iterator[None]:
    """A node says that it has followed as soon as it has told its actors."""

    async def hasty(registry: Registry, tenant_id: TenantId, control: TenantControl) -> None:
        for (theirs, _), (cell, _) in registry._cells.items():
            if theirs == tenant_id:
                cell.configure(control, lambda: None)

    with patch.object(Registry, "configure", hasty):
        yield


@contextmanager
def older_control_in_place_of_a_newer() -> Iterator[None]:
    """What was read last is in force, whichever version it is."""

    def careless(tenants: Tenants, tenant_id: TenantId, control: TenantControl) -> bool:
        tenants._known[tenant_id] = control
        return True

    with patch.object(Tenants, "learn", careless):
        yield


@contextmanager
def versions_not_compared() -> Iterator[None]:
    """Nobody looks whether a command was missed, by itself or at the others."""

    async def nothing(_control: Control) -> None:
        return

    with patch.object(Control, "run", nothing):
        yield


@contextmanager
def recorded_on_any_version() -> Iterator[None]:
    """The journal does not look which version a command builds on."""
    record_control = MemoryJournal.record_control

    async def careless(
        journal: MemoryJournal, record: ControlRecord, after: TenantControl | None
    ) -> ControlRecord | Stale:
        found = journal._tenants[record.by.tenant_id]
        if after is not None and record.by not in journal._recorded:
            journal._tenants[record.by.tenant_id] = replace(found, version=after.version - 1)
        return await record_control(journal, record, after)

    with patch.object(MemoryJournal, "record_control", careless):
        yield


@contextmanager
def wave_of_another_reach() -> Iterator[None]:
    """Whoever was found is offered the broadcast, however far was looked."""

    def careless(state: Broadcast, command: SendWave, control: TenantControl, now_ms: int) -> Decision:
        wanted = seek(state, control.settings)
        return send_wave(state, replace(command, radius_m=wanted.radius_m, limit=wanted.limit), control, now_ms)

    with _deciding_waves(careless):
        yield


@contextmanager
def wave_in_spite_of_a_pause() -> Iterator[None]:
    """A wave whose candidates are being looked for when the pause comes is sent."""

    def careless(state: Broadcast, command: SendWave, control: TenantControl, now_ms: int) -> Decision:
        return send_wave(state, command, replace(control, paused=False), now_ms)

    with _deciding_waves(careless):
        yield


@contextmanager
def losers_not_told() -> Iterator[None]:
    """Nobody whose accept waited in vain hears of it."""

    def silent(
        before: Broadcast, after: Broadcast, lost: Sequence[WaitingAccept], code: Refusal
    ) -> tuple[fx.Effect, ...]:
        return waited(before, after, (), code)

    with patch.object(accepting, "waited", silent), patch("haulcast.domain.decide.waited", silent):
        yield


@contextmanager
def _deciding_waves(decide: Callable[[Broadcast, Any, TenantControl, int], Decision]) -> Iterator[None]:
    with patch.dict("haulcast.domain.decide._DECIDE", {SendWave: decide}):
        yield
