"""Operators change how a city is dispatched while it runs, at whichever node."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from haulcast.demo.evidence import Kept
from haulcast.demo.kept import PostgresTables
from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.nodes import ClusterNode, Nodes
from tests.acceptance.cluster.verdict import judge
from tests.acceptance.network import sign
from tests.acceptance.phone import Json, eventually_answered

ROUNDS = 20
MODES = ("blast", "best_match", "progressive")


class Operator:
    """Somebody with a token of the crowd's tenant, who talks to whichever node."""

    def __init__(self, crowd: Crowd, role: str = "operator") -> None:
        self._session = crowd.session
        self._token = sign(crowd.tenant, role, "boss")

    async def command(self, node: ClusterNode, command: str, /, key: str | None = None, **data: Any) -> Json:
        """Give a command; the answer, which must be a good one."""
        status, answer = await self.try_command(node, command, key, **data)
        assert status in (200, 202), answer
        return answer

    async def try_command(
        self, node: ClusterNode, command: str, /, key: str | None = None, **data: Any
    ) -> tuple[int, Json]:
        """Give a command; the status and the answer."""
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": key or uuid4().hex}
        url = f"{node.url}/v1/control/{command}"
        async with self._session.post(url, json=data, headers=headers) as response:
            answer: Json = await response.json()
            return response.status, answer

    async def get(self, node: ClusterNode, path: str) -> Json:
        """What a node answers."""
        headers = {"Authorization": f"Bearer {self._token}"}
        async with self._session.get(f"{node.url}{path}", headers=headers) as response:
            assert response.status == 200, await response.text()
            answer: Json = await response.json()
            return answer

    async def log(self, node: ClusterNode) -> list[Json]:
        """The whole audit, oldest first."""
        entries: list[Json] = []
        before = ""
        while True:
            page = await self.get(node, f"/v1/control?limit=50{before}")
            entries += page["entries"]
            if page["next"] is None:
                return entries[::-1]
            before = f"&before={page['next']}"


@pytest.mark.timeout(180)
async def test_a_city_is_paused_switched_and_resumed_again_and_again(nodes: Nodes, crowd: Crowd) -> None:
    """Every command is acknowledged by all nodes. While dispatch is paused no wave goes out and nothing is created;
    trucks are won in between, in every mode, and nothing is lost or doubled."""
    operator = Operator(crowd)
    for number in range(ROUNDS):
        at = [nodes.all[(number + step) % 3] for step in range(3)]
        for node, command, data in (
            (at[0], "pause", {}),
            (at[1], "switch_mode", {"mode": MODES[number % 3]}),
            (at[2], "resume", {}),
        ):
            answer = await operator.command(node, command, **data)
            assert answer["complete"], answer
            assert [each["status"] for each in answer["nodes"]] == ["acked"] * 3, answer
            await asyncio.sleep(0.1)  # what is asked is how it goes on in this state
        if number % 4 == 3:
            await crowd.won_more(2)
    log = await operator.log(nodes.first)
    assert [entry["command"] for entry in log] == ["pause", "switch_mode", "resume"] * ROUNDS
    versions = [entry["version"] for entry in log]
    assert versions == list(range(versions[0], versions[0] + 3 * ROUNDS))
    await crowd.won_more(10)
    await judge(crowd)
    async with PostgresTables.opened(crowd.url) as tables:
        kept = await tables.kept(crowd.tenant)
    assert [*_while_paused(kept, log)] == []
    modes = {entry["changes"]["dispatch_mode"]["to"] for entry in log if "dispatch_mode" in entry["changes"]}
    assert modes == set(MODES)
    waited = [event for event in kept.events if event.name == "accept_waiting"]
    assert waited, "no accept has waited for others"


def _while_paused(kept: Kept, log: Sequence[Json]) -> Iterator[str]:
    """What must not have been between the last acknowledgement of a pause and the resume after it."""
    for pause, after in pairwise(entry for entry in log if entry["command"] in ("pause", "resume")):
        if pause["command"] == "pause":
            acked_ms = pause["at"] + max(each["after_ms"] for each in pause["outcome"]["nodes"])
            for event in kept.events:
                if event.name in ("created", "wave_sent") and acked_ms + 20 < event.body["at_ms"] < after["at"]:
                    yield f"{event} came while dispatch was paused, from {acked_ms} to {after['at']}"


@pytest.mark.timeout(120)
async def test_a_pause_outlives_the_node_that_was_asked_and_the_owners_of_broadcasts(
    nodes: Nodes, crowd: Crowd, allowed_errors: list[str]
) -> None:
    """A node is killed while dispatch is paused: its broadcasts go on elsewhere and send no wave, and a node that
    starts anew knows of the pause. Broadcasts that expire do so in time."""
    allowed_errors += ["commit_failed"]
    operator = Operator(crowd)
    victim, other = nodes.first, nodes.all[1]
    lonely = await crowd.lonely(victim, expires_in_s=8)
    pause = await operator.command(victim, "pause")
    assert pause["complete"]
    victim.kill()
    waves = await _waves(crowd, lonely)
    await crowd.expired(lonely)
    assert await _waves(crowd, lonely) == waves, "a wave went out while dispatch was paused"
    await asyncio.to_thread(victim.start)
    customer = crowd.user("customer", "latecomer", victim.number)
    crowd.customers.append(customer)
    refused = await customer.ask("broadcast.create", {"pickup": _HERE, "drop": _HERE, "trucks": _ONE})
    assert refused is not None
    assert refused.body["code"] == "TENANT_PAUSED"
    resumed = await operator.command(other, "resume")
    assert resumed["complete"]
    await crowd.won_more(5)
    await judge(crowd)


_HERE = {"lat": 12.97, "lng": 77.59, "address": "Here"}
_ONE = [{"vehicle_type": "truck_14ft", "count": 1}]


async def _waves(crowd: Crowd, broadcasts: Sequence[str]) -> int:
    async with PostgresTables.opened(crowd.url) as tables:
        kept = await tables.kept(crowd.tenant)
    return sum(event.name == "wave_sent" and event.broadcast_id in broadcasts for event in kept.events)


@pytest.mark.timeout(120)
async def test_a_node_that_stands_still_is_told_of_and_follows(
    nodes: Nodes, crowd: Crowd, allowed_errors: list[str]
) -> None:
    """A command is given while a node stands still: the others follow at once, the answer names it, and when it goes on
    it follows what it has missed, without being told again."""
    allowed_errors += ["node_was_given_up", "commit_failed"]
    operator = Operator(crowd)
    still, other = nodes.first, nodes.all[1]
    number = await asyncio.to_thread(still.incarnation)
    still.suspend()
    try:
        answer = await operator.command(other, "pause")
        statuses = {each["node"]: each["status"] for each in answer["nodes"]}
        assert statuses.pop(number) in ("gone", "silent")
        assert set(statuses.values()) == {"acked"}
    finally:
        still.resume()

    async def followed() -> bool:
        view = (await operator.get(other, f"/v1/topics/control:{crowd.tenant}"))["data"]
        return len(view["nodes"]) == 3 and all(each["version"] >= view["version"] for each in view["nodes"].values())

    await eventually_answered(followed, "all nodes have followed", 20.0)
    assert (await operator.command(still, "resume"))["complete"]
    await crowd.won_more(5)
    await judge(crowd)


@pytest.mark.timeout(120)
async def test_a_command_that_is_sent_again_is_carried_out_once(nodes: Nodes, crowd: Crowd) -> None:
    """The same id at three nodes at once, and later at a fourth attempt: one record, one version, one answer."""
    operator = Operator(crowd)
    answers = await asyncio.gather(*(operator.command(node, "pause", key="once") for node in nodes.all))
    answers.append(await operator.command(nodes.first, "pause", key="once"))
    assert {answer["number"] for answer in answers} == {answers[0]["number"]}
    assert {answer["version"] for answer in answers} == {answers[0]["version"]}
    status, refused = await operator.try_command(nodes.first, "resume", key="once")
    assert (status, refused["error"]["code"]) == (409, "ID_REUSED")
    assert [entry["command"] for entry in await operator.log(nodes.first)] == ["pause"]
    await operator.command(nodes.first, "resume")
    await judge(crowd)


@pytest.mark.timeout(120)
async def test_a_drained_node_hands_over_and_ends(nodes: Nodes, crowd: Crowd) -> None:
    """An admin drains a node: it is acknowledged, the node stops by itself as it should, and nobody is the worse."""
    admin = Operator(crowd, "admin")
    victim, other = nodes.all[2], nodes.first
    number = await asyncio.to_thread(victim.incarnation)
    refused, _ = await Operator(crowd).try_command(other, "drain_node", node=number)
    assert refused == 403
    answer = await admin.command(other, "drain_node", node=number)
    assert [each["status"] for each in answer["nodes"]] == ["acked"], answer
    await asyncio.to_thread(victim.ended)

    async def forgotten() -> bool:
        return number not in (await asyncio.to_thread(other.detailed))["cluster"]["peers"]

    await eventually_answered(forgotten, "the others know that it has left")
    unknown, body = await admin.try_command(other, "drain_node", node=number)
    assert (unknown, body["error"]["code"]) == (404, "NODE_NOT_FOUND")
    await asyncio.to_thread(victim.start)
    await crowd.won_more(5)
    await judge(crowd)
