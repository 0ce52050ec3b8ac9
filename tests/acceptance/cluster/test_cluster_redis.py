"""Redis goes away: for everybody, and for one node alone."""

import asyncio
from time import monotonic

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes
from tests.acceptance.cluster.verdict import judge
from tests.acceptance.phone import eventually_answered

NODE_LOST = 4201


@pytest.mark.timeout(120)
async def test_redis_may_be_lost_with_all_that_it_holds(nodes: Nodes, crowd: Crowd) -> None:
    """Without it every node goes on with what it owns, under the incarnation that it had: hauls are taken on, and
    expire. With an empty one commands reach their owners on other nodes again, and offers the transporters."""
    before = [await asyncio.to_thread(node.incarnation) for node in nodes.all]
    standing = [await crowd.lonely(node, expires_in_s=3, count=1) for node in nodes.all]
    await crowd.racing()
    nodes.redis.kill()
    lost_s = monotonic()
    taken_on = [await crowd.lonely(node, expires_in_s=2, count=1) for node in nodes.all]
    for broadcasts in (*standing, *taken_on):
        await crowd.expired(broadcasts)
    assert all(node.ready for node in nodes.all)
    await asyncio.to_thread(nodes.redis.start)
    outage_s = monotonic() - lost_s
    assert [await asyncio.to_thread(node.incarnation) for node in nodes.all] == before
    await asyncio.gather(*(_reaches(crowd, nodes, at) for at in range(len(nodes.all))))
    await crowd.won_more(10)
    await judge(crowd, outage_s)
    assert [await asyncio.to_thread(node.incarnation) for node in nodes.all] == before


async def _reaches(crowd: Crowd, nodes: Nodes, at: int) -> None:
    """What one node owns is cancelled at the next."""
    [broadcast_id] = await crowd.lonely(nodes.all[at], expires_in_s=20, count=1)
    customer = crowd.customer_of(broadcast_id)
    elsewhere = crowd.user("customer", customer.name, at + 1)
    crowd.customers.append(elsewhere)
    answer = await elsewhere.ask("broadcast.cancel", {"broadcast_id": broadcast_id})
    assert answer is not None
    assert answer.ok, answer


@pytest.mark.timeout(120)
async def test_a_node_that_cannot_reach_redis_is_given_up_and_joins_anew(
    nodes: Nodes, crowd: Crowd, allowed_errors: list[str]
) -> None:
    """The others take over what it owns; it knows that from the journal, sends its clients away with 4201, and is not
    ready until it can reach Redis again."""
    allowed_errors += ["node_was_given_up", "commit_failed"]
    cut_off = nodes.first
    before = await asyncio.to_thread(cut_off.incarnation)
    lonely = await crowd.lonely(cut_off, expires_in_s=4)
    await crowd.racing()
    connected = [user.phone for user in crowd.users if user.node is cut_off and user.phone.close_code is None]
    assert connected
    nodes.to_redis.stall()

    async def is_ready(wanted: bool) -> bool:
        return await asyncio.to_thread(lambda: cut_off.ready) is wanted

    await eventually_answered(lambda: is_ready(False), "it is not ready", 20.0)
    codes = {(await phone.closed())[0] for phone in connected if not phone.retired}  # but for who went by themselves
    assert codes == {NODE_LOST}
    await crowd.expired(lonely)
    await crowd.won_more(10)
    assert not cut_off.ready
    nodes.to_redis.mend()
    await eventually_answered(lambda: is_ready(True), "it is ready again", 20.0)
    assert await asyncio.to_thread(cut_off.incarnation) > before
    await crowd.won_more(5)
    await judge(crowd)
