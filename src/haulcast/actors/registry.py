"""Every actor of this node, by broadcast: finds the one that a command is for, or starts it.

1. A broadcast has at most one cell here; the cell's task removes it, in the step in which it ends.
2. A command for a broadcast without a cell starts one, which claims the broadcast from the journal if it is this
   node's or nobody's that lives. Commands that come meanwhile wait in its mailbox.
3. What was claimed elsewhere in this node is `adopt`ed; each actor arms the deadlines of its state, so one that passed
   while nobody owned it rings at once.
4. Draining refuses new commands, lets the mailboxes run empty, then ends the cells. Live broadcasts stay in the
   journal as they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

import structlog

from haulcast.domain.commands import Appear, Create
from haulcast.domain.control import TenantControl
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.replies import Reply
from haulcast.errors import ErrorCode
from haulcast.ports import Claim, Journal, Stored

from .broadcast_actor import ActorContext, BroadcastActor
from .cell import Cell, Known, Reroute
from .membership import Membership, OwnershipLost
from .messages import Message
from .timers import Deadlines

MAX_ACTORS = 500_000
_DRAIN_POLL_S = 0.005
_CONFIGURED_AT_ONCE = 500
"""Actors that are told of a change in one step of the loop."""

log = structlog.get_logger()


class Registry:
    """The actors of this node. `reroute` is told of commands whose broadcast has gone to another node."""

    def __init__(
        self,
        context: ActorContext,
        journal: Journal,
        membership: Membership,
        control_of: Callable[[TenantId], Awaitable[TenantControl]],
        deadlines: Deadlines,
        reroute: Reroute,
        idle_s: float,
    ) -> None:
        self._context = context
        self._journal = journal
        self._membership = membership
        self._control_of = control_of
        self._deadlines = deadlines
        self._reroute = reroute
        self._idle_s = idle_s
        self._cells: dict[tuple[TenantId, BroadcastId], tuple[Cell, asyncio.Task[None]]] = {}
        self._adopted: dict[tuple[TenantId, BroadcastId], Stored] = {}  # what waits for an earlier cell to end
        self._starter, self._ender = self._start, self._end  # made once: a bound method takes 64 bytes
        self._unanswered = 0  # commands that were taken and have no answer yet
        self.draining = False

    def __len__(self) -> int:
        """How many actors there are."""
        return len(self._cells)

    def __contains__(self, key: tuple[TenantId, BroadcastId]) -> bool:
        return key in self._cells

    def deliver(self, tenant_id: TenantId, broadcast_id: BroadcastId, message: Message) -> None:
        """Hand a client's command to the broadcast's actor, or answer why not."""
        assert message.reply_to is not None
        if self.draining:
            message.fail(ErrorCode.DRAINING)
            return
        found = self._cells.get((tenant_id, broadcast_id))
        if found is None and len(self._cells) >= MAX_ACTORS:
            message.fail(ErrorCode.BUSY)
            return
        if found:
            cell = found[0]
        else:
            cell = self._open(tenant_id, broadcast_id, Known(None) if isinstance(message.command, Create) else None)
        if not cell.mailbox.offer(message):
            self._context.metrics.busy.inc()
            message.fail(ErrorCode.BUSY)
            return
        self._unanswered += 1
        message.reply_to.add_done_callback(self._answered)

    def appear(self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Appear) -> bool:
        """Tell a live broadcast's actor of a transporter. False if its mailbox is full; true if it has left."""
        found = self._cells.get((tenant_id, broadcast_id))
        return found is None or found[0].mailbox.offer(Message(command))

    async def configure(self, tenant_id: TenantId, control: TenantControl) -> None:
        """Have every actor of a tenant know `control` between two messages; returns when the last has taken it. Actors
        that start meanwhile know it, or are told."""
        cells = [cell for (theirs, _), (cell, _) in self._cells.items() if theirs == tenant_id]
        missing = len(cells)
        complete = asyncio.Event()

        def configured() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                complete.set()

        for start in range(0, len(cells), _CONFIGURED_AT_ONCE):
            for cell in cells[start : start + _CONFIGURED_AT_ONCE]:
                cell.configure(control, configured)
            await asyncio.sleep(0)
        if cells:
            await complete.wait()

    def adopt(self, stored: Stored) -> None:
        """Go on with a broadcast that was claimed for this node."""
        key = (stored.state.tenant_id, stored.state.broadcast_id)
        found = self._cells.get(key)
        if found is not None:  # its actor is of an earlier epoch
            self._adopted[key] = stored
            found[0].leave()
        elif not self.draining:
            self._open(*key, Known(stored))

    def owned(self) -> list[Claim]:
        """The live broadcasts that have an actor here, each at the epoch under which it is owned."""
        return [
            Claim(*key, cell.actor.epoch)
            for key, (cell, _) in self._cells.items()
            if cell.actor is not None and cell.actor.state is not None and cell.actor.state.live
        ]

    def freeze(self, claims: Iterable[Claim]) -> None:
        """Let these broadcasts begin no further message while another node is asked to take them."""
        for cell in self._those(claims):
            cell.freeze()

    def thaw(self, claims: Iterable[Claim]) -> None:
        """Nobody has taken them."""
        for cell in self._those(claims):
            cell.thaw()

    def leave(self, claims: Iterable[Claim]) -> None:
        """Other nodes have them."""
        for cell in self._those(claims):
            cell.leave()

    def abandon(self) -> None:
        """Drop every actor without writing: the node was given up."""
        for cell, _ in self._cells.values():
            cell.leave()

    async def finish(self, timeout_s: float) -> None:
        """Take no more commands, ring no more deadlines, finish and answer what was taken, within `timeout_s`."""
        self.draining = True
        self._deadlines.stop()
        try:
            async with asyncio.timeout(timeout_s):
                while self._unanswered or any(cell.busy or cell.mailbox for cell, _ in self._cells.values()):
                    await asyncio.sleep(_DRAIN_POLL_S)
                await asyncio.sleep(_DRAIN_POLL_S)  # whoever was answered last passes it on to the socket
        except TimeoutError:
            log.warning("drain_timed_out", actors=len(self._cells))

    async def close(self) -> None:
        """Take no more commands, and end every actor."""
        self.draining = True
        await asyncio.sleep(0)  # a task that is cancelled before its first step runs no `finally`: let all begin
        tasks = [task for _, task in self._cells.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _those(self, claims: Iterable[Claim]) -> Iterator[Cell]:
        for claim in claims:
            if (found := self._cells.get((claim.tenant_id, claim.broadcast_id))) is not None:
                yield found[0]

    def _answered(self, _future: "asyncio.Future[Reply]") -> None:
        self._unanswered -= 1

    def _open(self, tenant_id: TenantId, broadcast_id: BroadcastId, known: Known | None) -> Cell:
        cell = Cell(
            tenant_id,
            broadcast_id,
            self._starter,
            self._reroute,
            self._ender,
            known,
            self._membership,
            self._context.clock,
            self._deadlines,
            self._context.metrics,
            self._idle_s,
        )
        task = asyncio.get_running_loop().create_task(cell.run())
        self._cells[tenant_id, broadcast_id] = (cell, task)
        return cell

    def _end(self, cell: Cell) -> None:
        key = (cell.tenant_id, cell.broadcast_id)
        del self._cells[key]
        if (stored := self._adopted.pop(key, None)) is not None:
            self.adopt(stored)

    async def _start(self, cell: Cell, known: Known | None) -> BroadcastActor:
        control = await self._control_of(cell.tenant_id)
        incarnation = self._membership.incarnation
        stored = await self._claim(cell, incarnation) if known is None else known.stored
        return BroadcastActor(
            self._context,
            cell.tenant_id,
            cell.broadcast_id,
            control,
            incarnation,
            stored,
            cell.post,
        )

    async def _claim(self, cell: Cell, incarnation: int) -> Stored | None:
        """The broadcast, which is this node's now; None if there is none. Raises `OwnershipLost`."""
        owner = await self._journal.read_owner(cell.tenant_id, cell.broadcast_id)
        await self._membership.hold(incarnation)  # whoever was given up while it stood still must not claim any more
        if owner is None:
            return None
        if not self._membership.may_claim_from(owner):
            raise OwnershipLost(f"owned by node {owner.incarnation} at epoch {owner.epoch}")
        claimed = await self._journal.claim([Claim(cell.tenant_id, cell.broadcast_id, owner.epoch)], incarnation)
        if not claimed:
            raise OwnershipLost(f"claimed by another node after epoch {owner.epoch}")
        return claimed[0]
