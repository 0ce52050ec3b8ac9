"""How each node of the deployment is, for operators: asked of all of them when somebody wants to know, and not before.

A question goes to every live node as one message, and each answers for itself. One that has not answered within
`ANSWER_WITHIN_S` is told of as such: whoever looks after the nodes is told first of all that one of them stands still.
"""

import asyncio
from collections.abc import Callable
from itertools import count

import msgspec

from haulcast.domain.ids import TenantId
from haulcast.ports import Kind, NodeStatus

from .bus import NodeBus

ANSWER_WITHIN_S = 1.0

Measure = Callable[[TenantId | None], NodeStatus]
"""How this node is; what it counts of one tenant's, or (None) of all."""


class _Question(msgspec.Struct, array_like=True):
    number: int
    tenant_id: TenantId | None


class _Answer(msgspec.Struct, array_like=True):
    number: int
    status: NodeStatus


class _Asked:
    """A question under way: whose answers are missing, and those that have come."""

    def __init__(self, waiting_for: frozenset[int]) -> None:
        self.missing = set(waiting_for)
        self.answers: list[NodeStatus] = []
        self.complete = asyncio.Event()


class Nodes:
    """The `Nodes` of this node."""

    def __init__(self, bus: NodeBus, measure: Measure) -> None:
        self._bus = bus
        self._measure = measure
        self._numbers = count(1)
        self._asked: dict[int, _Asked] = {}
        bus.handle(Kind.HOW_ARE_YOU, self._on_question)
        bus.handle(Kind.HOW_I_AM, self._on_answer)

    async def ask(self, tenant_id: TenantId | None) -> list[NodeStatus]:
        """See `Nodes`."""
        number, asked = next(self._numbers), _Asked(self._bus.peers)
        self._asked[number] = asked
        try:
            self._bus.broadcast(Kind.HOW_ARE_YOU, msgspec.msgpack.encode(_Question(number, tenant_id)))
            if asked.missing:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await asked.complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._asked[number]
        silent = [NodeStatus(node) for node in asked.missing & self._bus.peers]
        return sorted([self._measure(tenant_id), *asked.answers, *silent], key=lambda status: status.node)

    def _on_question(self, sender: int, payload: bytes) -> None:
        question = msgspec.msgpack.decode(payload, type=_Question)
        answer = _Answer(question.number, self._measure(question.tenant_id))
        self._bus.send(sender, Kind.HOW_I_AM, msgspec.msgpack.encode(answer))

    def _on_answer(self, sender: int, payload: bytes) -> None:
        answer = msgspec.msgpack.decode(payload, type=_Answer)
        asked = self._asked.get(answer.number)
        if asked is not None and sender in asked.missing:
            asked.missing.discard(sender)
            asked.answers.append(answer.status)
            if not asked.missing:
                asked.complete.set()
