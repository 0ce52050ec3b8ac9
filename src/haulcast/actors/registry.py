"""Every actor of this node, by broadcast: finds the one that a command is for, or starts it.

1. A broadcast has at most one cell here; the cell's task removes it, in the step in which it ends.
2. A command for a broadcast without a cell starts one, which claims the broadcast from the journal. Commands that come
   meanwhile wait in its mailbox.
3. At start, `recover` claims every live broadcast that the journal has; each actor arms the deadlines of its state, so
   one that passed while nobody owned it rings at once.
4. Draining refuses new commands, lets the mailboxes run empty, then ends the cells. Live broadcasts stay in the
   journal as they are.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from haulcast.domain.commands import Appear, Command, Create
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.replies import Reply
from haulcast.domain.settings import TenantSettings
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Journal, Origin

from .broadcast_actor import ActorContext, BroadcastActor, OwnershipLost
from .cell import Cell, Known
from .messages import Message
from .timers import Deadlines

RECOVER_BATCH = 500
MAX_ACTORS = 500_000
_DRAIN_POLL_S = 0.005

log = structlog.get_logger()


class Registry:
    """The `Dispatcher` of this node."""

    def __init__(
        self,
        context: ActorContext,
        journal: Journal,
        settings_of: Callable[[TenantId], Awaitable[TenantSettings]],
        deadlines: Deadlines,
        idle_s: float = 5.0,
    ) -> None:
        self._context = context
        self._journal = journal
        self._settings_of = settings_of
        self._deadlines = deadlines
        self._idle_s = idle_s
        self._cells: dict[tuple[TenantId, BroadcastId], tuple[Cell, asyncio.Task[None]]] = {}
        self._unanswered = 0  # commands that were taken and have no answer yet
        self._draining = False

    def __len__(self) -> int:
        """How many actors there are."""
        return len(self._cells)

    def create(self, command: Create, origin: Origin) -> "asyncio.Future[Reply]":
        """See `Dispatcher`."""
        return self._send(command.tenant_id, command.broadcast_id, command, origin, new=True)

    def ask(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin
    ) -> "asyncio.Future[Reply]":
        """See `Dispatcher`."""
        return self._send(tenant_id, broadcast_id, command, origin, new=False)

    def appear(self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Appear) -> bool:
        """Tell a live broadcast's actor of a transporter. False if its mailbox is full; true if it has left."""
        found = self._cells.get((tenant_id, broadcast_id))
        return found is None or found[0].mailbox.offer(Message(command))

    async def recover(self) -> int:
        """Claim what is live in the journal and nobody's here; how many."""
        count = 0
        while claimed := await self._journal.claim_orphans(self._context.incarnation, RECOVER_BATCH):
            for stored in claimed:
                self._open(stored.state.tenant_id, stored.state.broadcast_id, Known(stored))
            count += len(claimed)
        return count

    async def finish(self, timeout_s: float) -> None:
        """Take no more commands, ring no more deadlines, finish and answer what was taken, within `timeout_s`."""
        self._draining = True
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
        self._draining = True
        await asyncio.sleep(0)  # a task that is cancelled before its first step runs no `finally`: let all begin
        tasks = [task for _, task in self._cells.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _send(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin, new: bool
    ) -> "asyncio.Future[Reply]":
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._draining:
            future.set_exception(RequestError(ErrorCode.DRAINING))
            return future
        found = self._cells.get((tenant_id, broadcast_id))
        if found is None and len(self._cells) >= MAX_ACTORS:
            future.set_exception(RequestError(ErrorCode.BUSY))
            return future
        cell = found[0] if found else self._open(tenant_id, broadcast_id, Known(None) if new else None)
        if not cell.mailbox.offer(Message(command, origin, future)):
            self._context.metrics.busy.inc()
            future.set_exception(RequestError(ErrorCode.BUSY))
            return future
        self._unanswered += 1
        future.add_done_callback(self._answered)
        return future

    def _answered(self, _future: "asyncio.Future[Reply]") -> None:
        self._unanswered -= 1

    def _open(self, tenant_id: TenantId, broadcast_id: BroadcastId, known: Known | None) -> Cell:
        cell = Cell(
            tenant_id,
            broadcast_id,
            self._start,
            known,
            self._context.clock,
            self._deadlines,
            self._context.metrics,
            self._idle_s,
        )
        task = asyncio.get_running_loop().create_task(self._run(cell), name=f"broadcast:{broadcast_id}")
        self._cells[tenant_id, broadcast_id] = (cell, task)
        return cell

    async def _run(self, cell: Cell) -> None:
        try:
            await cell.run()
        finally:
            del self._cells[cell.tenant_id, cell.broadcast_id]

    async def _start(self, cell: Cell, known: Known | None) -> BroadcastActor:
        settings = await self._settings_of(cell.tenant_id)
        if cell.owned_epoch is not None:
            found = await self._journal.read_broadcast(cell.tenant_id, cell.broadcast_id)
            if found is not None and found.epoch != cell.owned_epoch:
                raise OwnershipLost(f"{cell.broadcast_id} is at epoch {found.epoch}, not at {cell.owned_epoch}")
            cell.owned_epoch = None  # a claim of our own whose answer is lost raises the epoch too
        if known is None:
            stored = await self._journal.claim(cell.tenant_id, cell.broadcast_id, self._context.incarnation)
        else:
            stored = known.stored
        return BroadcastActor(
            self._context, cell.tenant_id, cell.broadcast_id, settings, stored, cell.mailbox.offer_control
        )
