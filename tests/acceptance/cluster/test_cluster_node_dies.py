"""Nodes that are killed: what they confirmed stands, and what they had under way goes on elsewhere."""

import asyncio

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes
from tests.acceptance.cluster.verdict import judge
from tests.acceptance.network import Network
from tests.acceptance.phone import eventually


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


@pytest.mark.timeout(120)
async def test_the_drivers_at_a_node_that_is_killed_go_offline_when_it_is_given_up(nodes: Nodes) -> None:
    """A15: and those who come to another node, or to that one when it is back, are online again."""
    first, second, third = nodes.all
    async with Network(third.url, "drivers") as here, Network(first.url, "drivers") as there:
        await here.hire("t1", {}, ["lost", "back", "other"])
        watcher = await here.phone("transporter", "t1")
        await watcher.do("subscribe", {"topic": "fleet:t1"})

        def online() -> set[str]:
            drivers = watcher.state("fleet:t1")["drivers"]
            return {driver for driver in drivers if drivers[driver]["online"]}

        for driver in ("lost", "back"):
            await there.phone("driver", driver)
        async with Network(second.url, "drivers") as elsewhere:
            await elsewhere.phone("driver", "other")
            await eventually(lambda: online() == {"lost", "back", "other"}, "all are online")
            first.kill()
            await eventually(lambda: online() == {"other"}, "those at the dead node are offline")
            await elsewhere.phone("driver", "back")
            await eventually(lambda: online() == {"back", "other"}, "one has come to another node")
        await eventually(lambda: online() == set(), "all have hung up")
        await asyncio.to_thread(first.start)
        async with Network(first.url, "drivers") as again:
            await again.phone("driver", "lost")
            await eventually(lambda: online() == {"lost"}, "one has come to the node that is back")


@pytest.mark.timeout(120)
async def test_a_redis_that_has_forgotten_who_is_connected_is_told_again(nodes: Nodes) -> None:
    """A15: nobody has to come anew."""
    first, _, third = nodes.all
    async with Network(third.url, "forgotten") as here, Network(first.url, "forgotten") as there:
        await here.hire("t1", {}, ["d1"])
        await there.phone("driver", "d1")
        await asyncio.to_thread(nodes.redis.kill)
        await asyncio.to_thread(nodes.redis.start)
        watcher = await here.phone("transporter", "t1")
        await watcher.do("subscribe", {"topic": "fleet:t1"})
        await eventually(
            lambda: watcher.state("fleet:t1")["drivers"]["d1"]["online"], "the driver is online", within_s=20
        )
