"""Postgres goes away: for one node alone, and for everybody."""

import asyncio
from time import monotonic

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes
from tests.acceptance.cluster.verdict import judge
from tests.acceptance.network import Network, haul
from tests.acceptance.phone import Gone, eventually, eventually_answered


@pytest.mark.timeout(120)
async def test_a_node_that_cannot_reach_postgres_confirms_nothing(
    nodes: Nodes, crowd: Crowd, allowed_errors: list[str]
) -> None:
    """It is not ready, its clients are served elsewhere, and what it owns goes on when it can reach Postgres again."""
    allowed_errors += ["commit_failed"]
    cut_off = nodes.first
    async with Network(cut_off.url, crowd.tenant) as network:
        customer = await network.phone("customer", "unlucky")
        lonely = await crowd.lonely(cut_off, expires_in_s=2)
        await crowd.racing()
        cut_s = monotonic()
        nodes.to_postgres.stall()
        create = await customer.post("broadcast.create", haul())

        async def is_ready(wanted: bool) -> bool:
            return await asyncio.to_thread(lambda: cut_off.ready) is wanted

        await eventually_answered(lambda: is_ready(False), "it is not ready", 20.0)
        await crowd.won_more(10)
        assert not create.done() or isinstance(create.exception(), Gone) or not create.result()["ok"]
        assert not cut_off.ready
        nodes.to_postgres.mend()
        outage_s = monotonic() - cut_s
        await eventually_answered(lambda: is_ready(True), "it is ready again", 20.0)
        await crowd.expired(lonely)
    await crowd.won_more(5)
    await judge(crowd, outage_s)


@pytest.mark.timeout(120)
async def test_postgres_may_be_restarted(nodes: Nodes, crowd: Crowd, allowed_errors: list[str]) -> None:
    """Stopped or killed: no node is ready and nothing is confirmed without it; what was confirmed is there afterwards,
    and all goes on under the same incarnations."""
    allowed_errors += ["commit_failed"]
    before = [await asyncio.to_thread(node.incarnation) for node in nodes.all]
    longest_s = 0.0
    for end in (nodes.postgres.stop, nodes.postgres.kill):
        lonely = [await crowd.lonely(node, expires_in_s=2, count=1) for node in nodes.all]
        await crowd.racing()
        lost_s = monotonic()
        await asyncio.to_thread(end)
        await eventually_answered(lambda: _nobody_is_ready(nodes), "no node is ready", 20.0)
        won = crowd.recorder.accepts_won
        await eventually(lambda: sum(len(user.waiting) for user in crowd.users) >= 5, "several wait for an answer")
        assert crowd.recorder.accepts_won == won
        await asyncio.to_thread(nodes.postgres.start)
        longest_s = max(longest_s, monotonic() - lost_s)
        for broadcasts in lonely:
            await crowd.expired(broadcasts)
        await crowd.won_more(10)
    await judge(crowd, longest_s)
    assert [await asyncio.to_thread(node.incarnation) for node in nodes.all] == before


async def _nobody_is_ready(nodes: Nodes) -> bool:
    return not await asyncio.to_thread(lambda: any(node.ready for node in nodes.all))
