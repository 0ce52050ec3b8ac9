"""What an operator's command does when the way to the server breaks."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from haulcast.operate import api as module
from haulcast.operate.access import Access
from haulcast.operate.api import Api, NoAnswer, NotReached, ServerRefused

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def says(status: int, body: Any) -> Answer:
    """An answer of JSON."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")

    return answer


def refuses(status: int, code: str, *, retry: bool = False, **data: Any) -> Answer:
    return says(status, {"error": {"code": code, "message": f"It is {code}.", "retry": retry, "data": data}})


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """The connection breaks after the command has arrived."""
    await request.read()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never_answers(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


async def is_a_proxy(_: web.Request) -> web.Response:
    return web.Response(status=502, text="<html>Bad Gateway</html>")


DONE = says(200, {"complete": True})


class Asked:
    """What a server that answers as it is told has been asked."""

    def __init__(self) -> None:
        self.keys: list[str | None] = []
        self.notices: list[str] = []


@asynccontextmanager
async def asking(*answers: Answer) -> AsyncIterator[tuple[Api, Asked]]:
    """A server that gives these answers, the last of them for ever."""
    asked = Asked()

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.keys.append(request.headers.get("Idempotency-Key"))
        assert request.headers["Authorization"] == "Bearer x.y.z"
        return await answers[min(len(asked.keys), len(answers)) - 1](request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(TestServer(app))
        access = Access(str(server.make_url("")).rstrip("/"), "x.y.z")
        yield await stack.enter_async_context(Api(access, asked.notices.append)), asked


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(module, "REPEAT_FOR_S", 1.0)


async def pause(api: Api) -> Any:
    return await api.command("POST", "/v1/control/pause", {}, "k1")


@pytest.mark.parametrize("broken", [hangs_up, is_a_proxy, refuses(503, "UNAVAILABLE", retry=True)])
async def test_a_command_whose_answer_is_lost_is_asked_for_again_under_its_id(broken: Answer) -> None:
    async with asking(broken, broken, DONE) as (api, asked):
        assert await pause(api) == {"complete": True}
        assert asked.keys == ["k1"] * 3
        assert len(asked.notices) == 1


async def test_a_no_is_a_no(hasty: None) -> None:
    async with asking(refuses(409, "ID_REUSED")) as (api, asked):
        with pytest.raises(ServerRefused, match=r"It is ID_REUSED. \(ID_REUSED\)"):
            await pause(api)
        assert len(asked.keys) == 1


async def test_a_no_for_the_next_hour_is_not_waited_for() -> None:
    async with asking(refuses(429, "TOO_MANY_ANNOUNCEMENTS", retry=True, retry_after_ms=3_000_000)) as (api, asked):
        with pytest.raises(ServerRefused) as refused:
            await pause(api)
        assert refused.value.data == {"retry_after_ms": 3_000_000}
        assert len(asked.keys) == 1


async def test_after_a_while_it_gives_up_and_says_that_nothing_is_known() -> None:
    async with asking(hangs_up) as (api, asked):
        with pytest.raises(NoAnswer, match="no answer from http"):
            await pause(api)
        assert len(asked.keys) > 3


async def test_a_try_that_takes_too_long_is_no_answer_and_the_last_one_gets_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.7)
    async with asking(never_answers) as (api, asked):
        began_s = monotonic()
        with pytest.raises(NoAnswer, match=r"no answer for \d s"):
            await pause(api)
        assert 0.9 < monotonic() - began_s < 1.4
        assert len(asked.keys) == 2
        assert asked.notices == ["no answer for 1 s; asking again for up to 1 s"]


async def test_a_refusal_that_may_pass_and_does_not_is_told_in_the_end() -> None:
    async with asking(refuses(503, "BUSY", retry=True)) as (api, asked):
        with pytest.raises(ServerRefused, match="BUSY"):
            await pause(api)
        assert len(asked.keys) > 3


async def test_where_nobody_is_nothing_was_asked_and_that_is_said_at_once(unused_tcp_port: int) -> None:
    async with Api(Access(f"http://127.0.0.1:{unused_tcp_port}", "x.y.z"), print) as api:
        with pytest.raises(
            NotReached, match=f"nobody answers at http://127.0.0.1:{unused_tcp_port}: Connection refused"
        ):
            await pause(api)


async def test_a_plain_server_that_is_asked_for_tls_is_told_so() -> None:
    async with asking(DONE) as (plain, _):
        url = plain._access.url.replace("http:", "https:")
        async with Api(Access(url, "x.y.z"), print) as api:
            with pytest.raises(NotReached, match="does not speak TLS"):
                await pause(api)


async def test_a_redirect_is_not_followed() -> None:
    """The token is for the address that was given."""

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    async with asking(elsewhere) as (api, asked):
        with pytest.raises(ServerRefused, match="is not haulcast"):
            await pause(api)
        assert len(asked.keys) == 1


@pytest.mark.parametrize("answer", [says(200, [1]), says(200, "x"), says(404, {"x": 1}), says(500, None)])
async def test_what_is_not_haulcast_is_told_apart(answer: Answer) -> None:
    async with asking(answer) as (api, _):
        with pytest.raises(ServerRefused, match="is not haulcast"):
            await api.get("/v1/settings")


async def test_only_what_is_given_is_in_the_query() -> None:
    async def tells(request: web.Request) -> web.Response:
        return web.Response(body=json.dumps(dict(request.query)).encode())

    async with asking(tells) as (api, asked):
        assert await api.get("/v1/control", limit=5, before=None) == {"limit": "5"}
        assert asked.keys == [None]
