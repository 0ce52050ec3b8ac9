"""The demo's operator: rounds at one node after the other, each command under one key until it is answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from haulcast.demo import control
from haulcast.demo.control import Operator
from haulcast.demo.record import Outcome, Recorder
from haulcast.demo.server import Server

ALL = ["progressive", "blast", "best_match"]


class Node:
    """Answers as a node would, after the answers that it was told to give first."""

    def __init__(self, server: "Servers") -> None:
        self.server = server
        self.first: list[int] = []
        self.url = ""

    async def settings(self, request: web.Request) -> web.Response:
        return web.json_response({"modes": ALL, "settings": {"dispatch_mode": "progressive"}})

    async def command(self, request: web.Request) -> web.Response:
        name, key = request.match_info["command"], request.headers["Idempotency-Key"]
        self.server.given.append((self.server.nodes.index(self), name, key, await request.json()))
        if self.first:
            return web.json_response({"error": {"code": "X"}}, status=self.first.pop(0))
        self.server.answered.release()
        nodes = [{"node": 1, "status": "acked", "after_ms": 2.5}]
        return web.json_response({"complete": True, "number": 1, "version": 2, "nodes": nodes}, status=202)


class Servers:
    """Three nodes, and what they were given."""

    def __init__(self) -> None:
        self.nodes = [Node(self) for _ in range(3)]
        self.given: list[tuple[int, str, str, dict[str, Any]]] = []
        self.answered = asyncio.Semaphore(0)

    def token(self, role: str, user: str) -> str:
        return f"{role}-{user}"


@asynccontextmanager
async def serving() -> AsyncIterator[Servers]:
    servers = Servers()
    async with AsyncExitStack() as stack:
        for node in servers.nodes:
            app = web.Application()
            app.router.add_get("/v1/settings", node.settings)
            app.router.add_post("/v1/control/{command}", node.command)
            server = await stack.enter_async_context(TestServer(app))
            node.url = str(server.make_url("")).rstrip("/")
        yield servers


async def work(servers: Servers, until_answers: int) -> Recorder:
    """What the operator writes down who is stopped after so many answers."""
    recorder, begun, stopping = Recorder(), asyncio.Event(), asyncio.Event()
    begun.set()
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        tasks.create_task(Operator(cast(Server, servers), recorder, http).work(begun, stopping))
        for _ in range(until_answers):
            await servers.answered.acquire()
        stopping.set()
    return recorder


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no pauses between commands, and one between rounds that is short."""
    for name, seconds in (("FIRST_AFTER_S", 0.0), ("ROUND_S", 0.02), ("STEP_S", 0.0), ("ASK_AGAIN_AFTER_S", 0.0)):
        monkeypatch.setattr(control, name, seconds)


async def test_rounds_go_from_node_to_node_and_from_mode_to_mode_and_end_with_a_resume() -> None:
    async with serving() as servers:
        recorder = await work(servers, until_answers=7)
    given = [(node, command, data.get("mode")) for node, command, _, data in servers.given]
    assert given == [
        (0, "pause", None),
        (1, "switch_mode", "blast"),
        (2, "resume", None),
        (1, "pause", None),
        (2, "switch_mode", "best_match"),
        (0, "resume", None),
        (2, "pause", None),
        (0, "switch_mode", "progressive"),
        (1, "resume", None),
    ]
    assert len({key for _, _, key, _ in servers.given}) == 9
    assert [command.complete for command in recorder.commands] == [True] * 9
    assert {command.followed_ms for command in recorder.commands} == {2.5}


async def test_what_may_yet_succeed_is_given_to_the_next_node_under_the_same_key() -> None:
    async with serving() as servers:
        servers.nodes[0].first = [503]
        recorder = await work(servers, until_answers=1)
    pauses = [(node, key) for node, command, key, _ in servers.given if command == "pause"]
    assert pauses == [(0, "command-1"), (1, "command-1")]
    assert recorder.commands[0].outcome is Outcome.OK
    assert recorder.commands[0].node == servers.nodes[1].url


async def test_a_refusal_is_final_and_no_answer_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "PATIENCE_S", 0.0)
    async with serving() as servers:
        servers.nodes[0].first, servers.nodes[1].first = [403], [500]
        recorder = await work(servers, until_answers=1)
    assert [command.outcome for command in recorder.commands[:3]] == [Outcome.REFUSED, Outcome.LOST, Outcome.OK]
    assert [command.complete for command in recorder.commands[:3]] == [False, False, True]
