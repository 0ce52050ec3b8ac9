"""A node that stands still for longer than its lease, and goes on as if nothing had happened."""

import asyncio
from time import monotonic

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes
from tests.acceptance.cluster.verdict import judge
from tests.acceptance.network import TRUCK, Network, accept_of, haul, north_of_pickup, offered
from tests.acceptance.phone import Gone, eventually_answered

STOPPED_S = 10.0


@pytest.mark.timeout(120)
async def test_a_node_that_stood_still_confirms_nothing_that_is_not_its_own_any_more(
    nodes: Nodes, crowd: Crowd, allowed_errors: list[str]
) -> None:
    """The others give it up and go on with its broadcasts. An accept that waits in its socket meanwhile is not
    confirmed afterwards, for the broadcast has expired elsewhere. It finds out by itself and joins anew."""
    allowed_errors += ["node_was_given_up", "commit_failed"]
    still, other = nodes.first, nodes.all[1]
    before = await asyncio.to_thread(still.incarnation)
    lonely = await crowd.lonely(still, expires_in_s=4)
    async with Network(still.url, crowd.tenant) as network:
        await network.hire("far", {"far-v": TRUCK}, ["far-d"])
        far = await network.on_duty("far", km=1_000)
        customer = await network.phone("customer", "far")
        lat, lng = north_of_pickup(1_000)
        pickup = {"lat": lat, "lng": lng, "address": "Far"}
        broadcast_id = (await customer.do("broadcast.create", haul(expires_in_s=3, pickup=pickup)))["broadcast_id"]
        await offered(broadcast_id, far)
        await crowd.racing()
        stopped_s = monotonic()
        still.suspend()
        try:
            accept = await far.post("offer.accept", accept_of("far", broadcast_id))
            await crowd.expired([*lonely, broadcast_id])
            await crowd.won_more(10)
            peers = (await asyncio.to_thread(other.detailed))["cluster"]["peers"]
            assert before not in peers
            await asyncio.sleep(stopped_s + STOPPED_S - monotonic())  # what is asked is how long it stands still
        finally:
            still.resume()
        try:
            async with asyncio.timeout(20):
                reply = await accept
            assert not reply["ok"], reply
        except Gone:
            pass

    async def joined_anew() -> bool:
        return await asyncio.to_thread(lambda: still.ready and still.incarnation() > before)

    await eventually_answered(joined_anew, "it has joined anew", 20.0)
    await crowd.won_more(5)
    await judge(crowd)
