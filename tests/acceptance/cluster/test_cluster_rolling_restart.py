"""All nodes are replaced, one after the other, and nobody loses anything by it."""

import asyncio

import pytest

from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import Nodes
from tests.acceptance.cluster.verdict import judge

DRAINING = 4200


@pytest.mark.timeout(120)
async def test_a_rolling_restart_under_load_loses_nothing(nodes: Nodes, crowd: Crowd) -> None:
    """Each node stops with its broadcasts handed over, and closes its sockets with 4200; nobody is given up."""
    lines_before = {node: len(node.log()) for node in nodes.all}
    for node in nodes.all:
        lonely = await crowd.lonely(node, expires_in_s=1, count=1)
        await crowd.racing()
        connected = [user.phone for user in crowd.users if user.node is node and user.phone.close_code is None]
        await asyncio.to_thread(node.stop)
        codes = {(await phone.closed())[0] for phone in connected if not phone.retired}
        assert codes == {DRAINING}
        await crowd.expired(lonely)
        await asyncio.to_thread(node.start)
        await crowd.won_more(5)
    assert not [
        line for node in nodes.all for line in node.log()[lines_before[node] :] if line["event"] == "nodes_lost"
    ]
    await judge(crowd)
