"""Nodes that are killed: what they confirmed stands, and what they had under way goes on elsewhere."""

import asyncio

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes
from tests.acceptance.cluster.verdict import judge


@pytest.mark.timeout(120)
async def test_a_node_that_is_killed_in_mid_race_loses_nothing_that_was_confirmed(nodes: Nodes, crowd: Crowd) -> None:
    """The others take its broadcasts over, with their races and deadlines; everybody is answered, and as before if they
    were answered before."""
    victim = await crowd.busiest()
    lonely = await crowd.lonely(victim, expires_in_s=2)
    await crowd.racing()
    victim.kill()
    await crowd.expired(lonely)
    await crowd.won_more(10)
    await asyncio.to_thread(victim.start)
    await crowd.won_more(5)
    await judge(crowd)


@pytest.mark.timeout(120)
async def test_one_node_is_enough_when_two_are_killed_in_a_row(nodes: Nodes, crowd: Crowd) -> None:
    """The second dies while the third may be taking over from the first, or the second itself may."""
    first, second, third = nodes.all
    lonely = await crowd.lonely(first, expires_in_s=3) + await crowd.lonely(second, expires_in_s=3)
    incarnation = await asyncio.to_thread(first.incarnation)
    await crowd.racing()
    first.kill()
    while incarnation in (await crowd.owners()).values():  # until somebody has begun to take over
        if incarnation not in (await asyncio.to_thread(second.detailed))["cluster"]["peers"]:
            break
    second.kill()
    await crowd.expired(lonely)
    await crowd.won_more(10)
    assert third.ready
    await judge(crowd)
