"""What a command says and how it exits, for what no real server does at will."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from haulcast.cli import main
from haulcast.config import DEVELOPMENT_KEY, VARIABLES
from haulcast.operate import api
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing

SETTINGS = {"toggle_limit": 10}
FOLLOWED = {"node": 3, "status": "acked", "after_ms": 4.0}
SILENT = {"node": 4, "status": "silent"}
GONE = {"node": 5, "status": "gone"}


class Told:
    """A server that says what it is told to, and what it was asked."""

    def __init__(self) -> None:
        self.nodes = [FOLLOWED]
        self.lost = False
        self.asked: list[tuple[str, str, Any, str | None]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return _json({"version": 7, "paused": False, "modes": [], "settings": SETTINGS, "defaults": SETTINGS})
        body, key = await request.json(), request.headers.get("Idempotency-Key")
        self.asked.append((request.method, request.path, body, key))
        if self.lost:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        complete = SILENT not in self.nodes
        answer = {"command": "x", "number": 1, "version": 8, "changes": {}, "complete": complete, "nodes": self.nodes}
        return _json(answer, 200 if complete else 202)


def _json(data: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(data).encode(), content_type="application/json")


@pytest.fixture
async def told(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    told = Told()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", told.handle)
    monkeypatch.setattr(api, "REPEAT_FOR_S", 0.5)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    async with TestServer(app) as server:
        monkeypatch.setenv("HAULCAST_URL", str(server.make_url("")))
        yield told


async def haulcast(*arguments: str) -> int:
    """Run a command beside the server."""
    return await asyncio.to_thread(main, [*arguments, "--tenant", "acme"])


@pytest.mark.parametrize(
    ("nodes", "code", "last"),
    [
        ([FOLLOWED], 0, "x is done (version 8, number 1 in the log)"),
        ([FOLLOWED, GONE], 0, "x is done (version 8, number 1 in the log)"),
        (
            [FOLLOWED, SILENT, GONE],
            3,
            "x is recorded and holds (version 8, number 1 in the log); 1 of 3 nodes has not answered",
        ),
    ],
)
async def test_a_node_that_has_not_answered_is_told_apart_from_success_and_from_failure(
    told: Told, capsys: pytest.CaptureFixture[str], nodes: list[dict[str, Any]], code: int, last: str
) -> None:
    told.nodes = nodes
    assert await haulcast("control", "pause") == code
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert await haulcast("control", "pause", "--json") == code
    assert json.loads(capsys.readouterr().out)["complete"] is (code == 0)


async def test_whose_it_is_is_told_also_if_only_the_token_says_so(
    told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = KeyRing([DEVELOPMENT_KEY]).sign(tenant="acme", role=Role.OPERATOR, user="op", now_ms=0)
    monkeypatch.setenv("HAULCAST_TOKEN", token)
    assert await asyncio.to_thread(main, ["settings", "show"]) == 0
    assert capsys.readouterr().out.startswith("acme: version 7")
    assert await asyncio.to_thread(main, ["control", "pause"]) == 0
    assert capsys.readouterr().err.startswith("haulcast: the tenant is acme, the id of this command is ")


async def test_a_lost_answer_is_asked_for_with_what_it_takes_to_ask_again(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """The version too: without it the same would be another command."""
    told.lost = True
    assert await haulcast("settings", "set", "toggle_limit=5", "--id", "k1") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("ask again, the same with --id k1 --expect 7")
    told.lost = False
    assert await haulcast("settings", "set", "toggle_limit=5", "--id", "k1", "--expect", "7") == 0
    assert len(told.asked) > 2
    assert all(one == told.asked[0] for one in told.asked)
    assert told.asked[0] == ("PATCH", "/v1/settings", {"settings": {"toggle_limit": 5}, "expected_version": 7}, "k1")


async def test_what_is_so_already_is_not_set_unless_it_is_asked_for_again(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await haulcast("settings", "set", "toggle_limit=10") == 0
    assert capsys.readouterr().out == "it is so already (version 7)\n"
    assert told.asked == []
    assert await haulcast("settings", "set", "toggle_limit=10", "--id", "k1", "--expect", "6") == 0
    assert told.asked[0][2]["expected_version"] == 6


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["pause"], "pause", {}),
        (["resume"], "resume", {}),
        (["reload-settings"], "reload_settings", {}),
        (["switch-mode", "blast"], "switch_mode", {"mode": "blast"}),
        (
            ["announce", "--to", "driver", "--lifetime", "15m", "Fog"],
            "announce",
            {"audience": "driver", "text": "Fog", "lifetime_s": 900},
        ),
        (["drain-node", "14"], "drain_node", {"node": 14}),
    ],
)
async def test_each_command_goes_where_it_belongs_under_an_id_of_its_own(
    told: Told, arguments: list[str], path: str, body: Any
) -> None:
    for _ in range(2):
        await haulcast("control", *arguments)
    assert [one[:3] for one in told.asked] == [("POST", f"/v1/control/{path}", body)] * 2
    assert told.asked[0][3] != told.asked[1][3]
