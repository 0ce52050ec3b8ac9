"""Faults planted in the code itself, each of which a simulation that is worth its time has to find."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest.mock import patch

from haulcast.actors.broadcast_actor import BroadcastActor
from haulcast.actors.messages import Message
from haulcast.domain.control import TenantControl
from haulcast.domain.decision import Decision
from haulcast.ports import Outcome, Standing, Write
from haulcast.storage.memory.cluster import MemoryCluster
from haulcast.storage.memory.journal import MemoryJournal

Plant = Callable[[], AbstractContextManager[None]]
"""Has a fault within its context, in every node and store of the process."""


@contextmanager
def epoch_left_out_of_the_fence() -> Iterator[None]:
    """The journal compares owner and sequence only: a write is let in that its node sent when it owned the broadcast
    the time before."""
    fenced = MemoryJournal._fenced

    def careless(journal: MemoryJournal, write: Write) -> Outcome | None:
        found = journal._broadcasts.get((write.tenant_id, write.broadcast_id))
        if found is not None and write.fence is not None:
            write = replace(write, fence=replace(write.fence, epoch=found.epoch))
        return fenced(journal, write)

    with patch.object(MemoryJournal, "_fenced", careless):
        yield


@contextmanager
def lease_recreated_on_renewal() -> Iterator[None]:
    """A renewal makes a lease anew that has run out or was forgotten, and nobody asks the journal first."""

    async def careless(cluster: MemoryCluster, incarnation: int, ttl_ms: int) -> Standing:
        return Standing.HELD if await cluster.register(incarnation, ttl_ms) else Standing.LOST

    with patch.object(MemoryCluster, "renew", careless):
        yield


@contextmanager
def reply_before_commit() -> Iterator[None]:
    """An actor answers as soon as it has decided."""
    checkpoint = BroadcastActor._checkpoint

    async def hasty(
        actor: BroadcastActor, message: Message, decision: Decision, control: TenantControl, now_ms: int
    ) -> None:
        if decision.reply is not None:
            message.answer(decision.reply)
        await checkpoint(actor, message, decision, control, now_ms)

    with patch.object(BroadcastActor, "_checkpoint", hasty):
        yield


@contextmanager
def request_log_not_consulted() -> Iterator[None]:
    """The journal does not look whether a request was answered before."""
    with patch.object(MemoryJournal, "_answered_before", lambda _journal, _write: None):
        yield
