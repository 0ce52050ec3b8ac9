"""Where a command is carried out: it may arrive at any node, and is decided at one.

1. A broadcast that has an actor here is handled here; a new one is created here, unless this node is about to leave.
2. Otherwise its owner is looked up: in memory, then in the directory, then in the journal. The first two are hints,
   and a node that is asked in vain says `Moved` to the owner that the journal has.
3. An owner that lives is asked over the bus. An ask that is not answered in time is asked again: the command's own id
   keeps it from being done twice, wherever it ends up.
4. A broadcast whose owner is dead or about to leave is claimed by whoever needs it. That this may be too early does no
   harm: the journal fences whoever was slower.
5. A command is carried for at most `CARRY_S`; then its outcome is not known, and the client asks again.
6. A broadcast that is to take another one's place has that one cancelled by whoever owns it, if what is in force there
   still allows it, and is created once it is over. The journal alone says whether it is: each try to create finds out
   anew what is in the way.
"""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from itertools import count

import structlog

from haulcast.domain.commands import Cancel, Command, Create
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.rendezvous import heir
from haulcast.domain.replies import Refusal, Refused, Reply
from haulcast.domain.states import EndReason
from haulcast.errors import ClusterUnavailable, ErrorCode, RequestError, StoreUnavailable
from haulcast.ports import Clock, Cluster, Journal, Kind, Origin, Ownership
from haulcast.tasks import TaskSet

from . import envelopes
from .bus import NodeBus
from .cell import Cell
from .membership import Membership
from .messages import Message
from .metrics import ActorMetrics
from .registry import Registry

CARRY_S = 5.0
ATTEMPT_S = 1.0
MAX_CARRIED = 20_000
MAX_REMEMBERED = 100_000
_FIRST_PAUSE_S = 0.01
_MAX_PAUSE_S = 0.2
_NOT_TO_BE = (Refusal.TENANT_PAUSED, Refusal.ACTIVE_BROADCAST_EXISTS)
"""Why a broadcast is not cancelled in favour of another one."""

log = structlog.get_logger()

_Key = tuple[TenantId, BroadcastId]


class Placement:
    """The `Dispatcher` of a node."""

    def __init__(
        self,
        registry: Registry,
        membership: Membership,
        cluster: Cluster,
        journal: Journal,
        bus: NodeBus,
        clock: Clock,
        metrics: ActorMetrics,
    ) -> None:
        self._registry = registry
        self._membership = membership
        self._cluster = cluster
        self._journal = journal
        self._bus = bus
        self._clock = clock
        self._metrics = metrics
        self._tasks = TaskSet(MAX_CARRIED)
        self._owners: OrderedDict[_Key, Ownership] = OrderedDict()  # used last is last; at most MAX_REMEMBERED
        self._numbers = count(1)
        self._asked: dict[int, tuple[int, asyncio.Future[envelopes.Answer | None]]] = {}  # by number: whom
        self.leaving = False
        """This node is about to leave: nothing is claimed or created here any more if others can."""
        bus.handle(Kind.ASK, self._on_ask)
        bus.handle(Kind.ANSWER, self._on_answer)

    # --- Commands of this node's clients ---

    def create(self, command: Create, origin: Origin) -> "asyncio.Future[Reply]":
        """See `Dispatcher`."""
        message, future = self._message(command, origin)
        self._begin(command, message)
        return future

    def ask(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin
    ) -> "asyncio.Future[Reply]":
        """See `Dispatcher`."""
        message, future = self._message(command, origin)
        self._place(tenant_id, broadcast_id, message)
        return future

    def reroute(self, cell: Cell, message: Message) -> None:
        """Send a command that waited in the mailbox of a broadcast which has gone after it."""
        if message.reply_to is not None:
            self._carry(cell.tenant_id, cell.broadcast_id, message)

    def replace(self, tenant_id: TenantId, message: Message, former: BroadcastId) -> None:
        """Carry out a `Create` in place of `former`, the customer's broadcast that is live."""
        now_s = self._clock.monotonic_s()
        if message.give_up_at_s is None:
            message.give_up_at_s = now_s + CARRY_S
        if now_s >= message.give_up_at_s:
            message.fail(ErrorCode.UNAVAILABLE)
            return
        try:
            task = self._tasks.spawn(self._replace(tenant_id, message, former, message.give_up_at_s - now_s))
        except RequestError as error:
            message.fail(error)
        else:
            task.add_done_callback(lambda task: _carried(task, message))

    def remember(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership) -> None:
        """Ask this owner next."""
        self._owners[tenant_id, broadcast_id] = owner
        self._owners.move_to_end((tenant_id, broadcast_id))
        if len(self._owners) > MAX_REMEMBERED:
            self._owners.popitem(last=False)

    def peers_changed(self) -> None:
        """Stop waiting for answers of nodes that are gone."""
        for whom, future in self._asked.values():
            if whom not in self._membership.peers and not future.done():
                future.set_result(None)

    async def close(self) -> None:
        """End what is under way; whoever waits is told that the outcome is not known."""
        await self._tasks.close()

    def _message(self, command: Command, origin: Origin) -> "tuple[Message, asyncio.Future[Reply]]":
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        return Message(command, origin, future), future

    def _begin(self, command: Create, message: Message) -> None:
        """Create it here if that may be."""
        if self.leaving and self._membership.heirs:
            self._carry(command.tenant_id, command.broadcast_id, message)
        else:
            self._registry.deliver(command.tenant_id, command.broadcast_id, message)

    def _place(self, tenant_id: TenantId, broadcast_id: BroadcastId, message: Message) -> None:
        """Handle it here at once if it is clear that it belongs here."""
        here = (tenant_id, broadcast_id) in self._registry
        if here or not (self._membership.peers or self._membership.lost):
            self._registry.deliver(tenant_id, broadcast_id, message)
        else:
            self._carry(tenant_id, broadcast_id, message)

    # --- Carrying ---

    def _carry(self, tenant_id: TenantId, broadcast_id: BroadcastId, message: Message) -> None:
        if message.give_up_at_s is None:
            message.give_up_at_s = self._clock.monotonic_s() + CARRY_S
        try:
            task = self._tasks.spawn(self._carry_until(tenant_id, broadcast_id, message, message.give_up_at_s))
        except RequestError as error:
            message.fail(error)
        else:
            task.add_done_callback(lambda task: _carried(task, message))

    async def _carry_until(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, message: Message, give_up_at_s: float
    ) -> None:
        """Deliver it here, or have another node answer it."""
        key = (tenant_id, broadcast_id)
        pause_s = _FIRST_PAUSE_S
        while self._clock.monotonic_s() < give_up_at_s:
            if key in self._registry and not self._membership.lost:
                self._registry.deliver(tenant_id, broadcast_id, message)
                return
            try:
                target = await self._target(key, message)
            except StoreUnavailable:
                target = None
            if target == self._membership.incarnation:
                self._registry.deliver(tenant_id, broadcast_id, message)
                return
            if target is not None and await self._ask(target, key, message):
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        message.fail(ErrorCode.UNAVAILABLE)

    async def _replace(self, tenant_id: TenantId, message: Message, former: BroadcastId, timeout_s: float) -> None:
        """Have `former` cancelled, then try again to create."""
        command, origin = message.command, message.origin
        assert isinstance(command, Create)
        assert origin is not None
        # No client's id begins like this; and the same try twice cancels once.
        key = replace(origin.key, request_id=f"→{command.broadcast_id} {former}")
        cancel, cancelled = self._message(Cancel(command.customer_id, EndReason.REPLACED), Origin(key, "replace"))
        cancel.give_up_at_s = message.give_up_at_s
        self._place(tenant_id, former, cancel)
        try:
            async with asyncio.timeout(timeout_s):
                ended = await cancelled
                # Refused if it has ended by itself, which will do, or if its owner knows already that it is not to be.
                if isinstance(ended, Refused) and ended.code in _NOT_TO_BE:
                    await asyncio.sleep(_MAX_PAUSE_S)  # soon this node knows it too
        except TimeoutError:
            message.fail(ErrorCode.UNAVAILABLE)
        except RequestError as error:
            message.fail(error)
        else:
            self._begin(command, message)

    async def _target(self, key: _Key, message: Message) -> int | None:
        """Which node to turn to; None if that cannot be said now. Raises `StoreUnavailable`."""
        if self._membership.lost:
            return None
        if not isinstance(message.command, Create):
            owner = self._owners.get(key) or await self._located(key)
            if owner is None or owner.incarnation not in self._membership.heirs:
                owner = await self._journal.read_owner(*key)
            if owner is not None and not self._membership.may_claim_from(owner):
                self.remember(*key, owner)
                return owner.incarnation
        if self.leaving and self._membership.heirs:
            return heir(key[1], self._membership.heirs)
        return self._membership.incarnation

    async def _located(self, key: _Key) -> Ownership | None:
        try:
            return await self._cluster.locate(*key)
        except ClusterUnavailable:
            return None

    async def _ask(self, target: int, key: _Key, message: Message) -> bool:
        """Whether the node has answered the command."""
        assert message.origin is not None
        number = next(self._numbers)
        future: asyncio.Future[envelopes.Answer | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = (target, future)
        self._metrics.forwarded.inc()
        try:
            self._bus.send(target, Kind.ASK, envelopes.ask(number, *key, message.command, message.origin))
            async with asyncio.timeout(ATTEMPT_S):
                answer = await future
        except TimeoutError:
            answer = None
        finally:
            del self._asked[number]
        if answer is None or answer.owner is not None:
            self._owners.pop(key, None)
            if answer is not None and answer.owner is not None:
                self._metrics.moved.inc()
                self.remember(*key, answer.owner)
            return False
        outcome = envelopes.outcome(answer)
        if isinstance(outcome, RequestError):
            if outcome.code in (ErrorCode.DRAINING, ErrorCode.UNAVAILABLE):
                return False
            message.fail(outcome)
        else:
            message.answer(outcome)
        return True

    # --- Commands of other nodes' clients ---

    def _on_ask(self, sender: int, payload: bytes) -> None:
        ask = envelopes.decode_ask(payload)
        message, future = self._message(ask.command, ask.origin)

        def answer(future: "asyncio.Future[Reply]") -> None:
            outcome = RequestError(ErrorCode.UNAVAILABLE) if future.cancelled() else future.exception()
            self._answer(sender, envelopes.answer(ask.number, outcome or future.result()))

        future.add_done_callback(answer)
        if (ask.tenant_id, ask.broadcast_id) in self._registry or isinstance(message.command, Create):
            self._registry.deliver(ask.tenant_id, ask.broadcast_id, message)
            return
        try:
            self._tasks.spawn(self._settle(sender, ask, message))
        except RequestError as error:
            message.fail(error)

    async def _settle(self, sender: int, ask: envelopes.Ask, message: Message) -> None:
        """Take the broadcast over if it is this node's to take, or tell whose it is."""
        try:
            owner = await self._journal.read_owner(ask.tenant_id, ask.broadcast_id)
        except StoreUnavailable:
            message.fail(ErrorCode.UNAVAILABLE)
            return
        if owner is not None and not self._membership.may_claim_from(owner):
            self._answer(sender, envelopes.Answer(ask.number, owner=owner))
        else:
            self._registry.deliver(ask.tenant_id, ask.broadcast_id, message)

    def _answer(self, to: int, answer: envelopes.Answer) -> None:
        self._bus.send(to, Kind.ANSWER, envelopes.encode(answer))

    def _on_answer(self, sender: int, payload: bytes) -> None:
        answer = envelopes.decode_answer(payload)
        found = self._asked.get(answer.number)
        if found is not None and found[0] == sender and not found[1].done():
            found[1].set_result(answer)


def _carried(task: "asyncio.Task[None]", message: Message) -> None:
    if task.cancelled():
        message.fail(ErrorCode.UNAVAILABLE)
    elif (error := task.exception()) is not None:
        log.error("carry_failed", exc_info=error)
        message.fail(ErrorCode.INTERNAL)
