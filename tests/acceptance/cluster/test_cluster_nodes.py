"""What operators see of the nodes."""

import asyncio
from collections.abc import Sequence

from tests.acceptance.cluster.nodes import ClusterNode, Nodes
from tests.acceptance.network import TRUCK, Network, haul, offered
from tests.acceptance.phone import Json, eventually_answered


async def shown(node: ClusterNode, tenant: str, role: str = "operator") -> list[Json]:
    """All nodes, as one of them tells."""
    async with Network(node.url, tenant) as network:
        status, body = await network.rest("GET", "/v1/nodes", role, "boss")
    assert status == 200, body
    nodes: list[Json] = body["nodes"]
    return nodes


def counts(nodes: Sequence[Json]) -> int:
    """How many live broadcasts there are."""
    return sum(node["active_broadcasts"] for node in nodes)


async def test_each_node_tells_of_all_and_of_one_that_stands_still(nodes: Nodes, allowed_errors: list[str]) -> None:
    """And of the own tenant's broadcasts only, but to an admin."""
    allowed_errors += ["node_was_given_up", "commit_failed"]
    incarnations = sorted(await asyncio.gather(*(asyncio.to_thread(node.incarnation) for node in nodes.all)))
    for node in nodes.all:
        seen = await shown(node, "overseen")
        assert [each["node"] for each in seen] == incarnations
        assert all(each["answered"] and each["lease_age_ms"] < each["lease_ttl_ms"] for each in seen)
    others = counts(await shown(nodes.first, "overseen", "admin"))
    async with Network(nodes.all[1].url, "overseen") as network:
        await network.hire("t1", {"t1-v": TRUCK}, ["t1-d"])
        transporter = await network.on_duty("t1")
        customer = await network.phone("customer", "c1")
        created = await customer.do("broadcast.create", haul())
        await offered(created["broadcast_id"], transporter)
        assert counts(await shown(nodes.all[2], "overseen")) == 1
        assert counts(await shown(nodes.all[2], "strangers")) == 0
        assert counts(await shown(nodes.all[2], "strangers", "admin")) == others + 1
        await customer.do("broadcast.cancel", {"broadcast_id": created["broadcast_id"]})
        assert counts(await shown(nodes.first, "overseen")) == 0
    still = await asyncio.to_thread(nodes.first.incarnation)
    nodes.first.suspend()
    try:
        # It has a lease for a second and a half, in which it is a live node that does not answer.
        assert {"node": still, "answered": False} in await shown(nodes.all[1], "overseen")

        async def given_up() -> bool:
            return still not in {node["node"] for node in await shown(nodes.all[1], "overseen")}

        await eventually_answered(given_up, "it is no node any more")
    finally:
        nodes.first.resume()
