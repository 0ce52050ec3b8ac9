"""What an operator is told of the nodes: every live one answers for itself, and one that does not is named."""

import asyncio

import pytest

from haulcast.actors.bus import NodeBus
from haulcast.actors.nodes import ANSWER_WITHIN_S, Nodes
from haulcast.clock import SystemClock
from haulcast.domain.ids import TenantId
from haulcast.metrics import Metrics
from haulcast.ports import Kind, NodeStatus, Vitals
from haulcast.storage.memory import MemoryCluster, MemoryStore

ACME, OTHER = TenantId("acme"), TenantId("other")


class Asked:
    """Three nodes; node n owns n broadcasts of acme and none of others."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.buses: dict[int, NodeBus] = {}
        self.nodes: dict[int, Nodes] = {}

    async def start(self) -> None:
        """Have each listen and know the others."""
        for number in (1, 2, 3):
            metrics = Metrics().actors
            bus = NodeBus(MemoryCluster(self.store, SystemClock()), metrics.bus_sent, metrics.bus_missed)
            await bus.listen(number)
            bus.peers = frozenset({1, 2, 3} - {number})
            self.buses[number] = bus
            self.nodes[number] = Nodes(bus, lambda tenant_id, number=number: status(number, tenant_id))  # type: ignore[misc]


def status(number: int, tenant_id: TenantId | None) -> NodeStatus:
    """What a node says."""
    active = 0 if tenant_id == OTHER else number
    vitals = Vitals(active, lease_age_ms=100 * number, lease_ttl_ms=1500, loop_lag_ms=0.5, draining=number == 3)
    return NodeStatus(number, vitals)


@pytest.fixture
async def asked() -> Asked:
    asked = Asked()
    await asked.start()
    return asked


@pytest.mark.parametrize("tenant_id", [ACME, OTHER, None])
async def test_all_live_nodes_answer_in_order_and_of_the_tenant_only(asked: Asked, tenant_id: TenantId | None) -> None:
    before_s = asyncio.get_running_loop().time()
    assert await asked.nodes[2].ask(tenant_id) == [status(number, tenant_id) for number in (1, 2, 3)]
    assert asyncio.get_running_loop().time() == before_s


async def test_one_that_does_not_answer_is_told_of_and_keeps_nobody_waiting_for_long(asked: Asked) -> None:
    asked.buses[3].handle(Kind.HOW_ARE_YOU, lambda _sender, _payload: None)
    before_s = asyncio.get_running_loop().time()
    assert await asked.nodes[1].ask(ACME) == [status(1, ACME), status(2, ACME), NodeStatus(3)]
    assert asyncio.get_running_loop().time() - before_s == pytest.approx(ANSWER_WITHIN_S)


async def test_one_that_is_given_up_meanwhile_is_no_live_node_any_more(asked: Asked) -> None:
    asked.buses[3].handle(Kind.HOW_ARE_YOU, lambda _sender, _payload: None)
    question = asyncio.create_task(asked.nodes[1].ask(ACME))
    await asyncio.sleep(0)
    asked.buses[1].peers = frozenset({2})
    assert await question == [status(1, ACME), status(2, ACME)]


async def test_answers_that_come_late_or_twice_are_nobodys(asked: Asked) -> None:
    held: list[tuple[int, bytes]] = []
    asked.buses[3].handle(Kind.HOW_ARE_YOU, lambda sender, payload: held.append((sender, payload)))
    assert NodeStatus(3) in await asked.nodes[1].ask(ACME)
    for sender, payload in held * 2:
        asked.nodes[3]._on_question(sender, payload)
    assert NodeStatus(3) in await asked.nodes[1].ask(ACME)
    assert not asked.nodes[1]._asked
