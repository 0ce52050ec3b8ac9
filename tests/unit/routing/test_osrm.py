"""The OSRM adapter, against a server that answers as OSRM's documentation says, and against some that do not."""

import asyncio
import gzip
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.geo import Point
from haulcast.domain.routes import Leg, RouteFault, RouteKind
from haulcast.errors import RoutesUnavailable
from haulcast.ports import MAX_ORIGINS
from haulcast.routing import OsrmRoutes
from haulcast.routing.osrm import MAX_ANSWER_BYTES

PICKUP = Point(12.9716, 77.5946)
ORIGINS = [Point(12.98, 77.6), Point(-33.9, -18.4)]
WAYPOINT = {"hint": "abc", "distance": 4.15, "name": "MG Road", "location": [77.5946, 12.9716]}
SECRET = "hush"


def table(durations: Any, distances: Any) -> dict[str, Any]:
    """A good answer."""
    return {
        "code": "Ok",
        "durations": durations,
        "distances": distances,
        "sources": [WAYPOINT] * 2,
        "destinations": [WAYPOINT],
    }


class Server:
    """Answers every request as `answer` says."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.good
        self.url = ""

    async def good(self, _request: web.Request) -> web.Response:
        """As documented."""
        return web.json_response(table([[61.4], [7_200]], [[900.6], [12_000.2]]))

    def says(self, body: Any, status: int = 200, **headers: str) -> None:
        """Answer this from now on: bytes, or what is to be JSON."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=payload, status=status, headers=headers)

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every path is answered."""
        self.requests.append(request)
        return await self.answer(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def routes(server: Server) -> AsyncIterator[OsrmRoutes]:
    routes = OsrmRoutes(server.url)
    yield routes
    await routes.close()


async def fault_of(routes: OsrmRoutes) -> RouteFault:
    with pytest.raises(RoutesUnavailable) as failed:
        await routes.legs(ORIGINS, PICKUP)
    assert SECRET not in str(failed.value)
    assert "77.5946" not in str(failed.value)
    return failed.value.fault


async def test_it_asks_for_a_table_and_reads_metres_and_seconds(server: Server, routes: OsrmRoutes) -> None:
    assert await routes.legs(ORIGINS, PICKUP) == [Leg(901, 61), Leg(12_000, 7_200)]
    [request] = server.requests
    assert request.method == "GET"
    assert request.raw_path == (
        "/table/v1/driving/77.594600,12.971600;77.600000,12.980000;-18.400000,-33.900000"
        "?sources=1;2&destinations=0&annotations=duration,distance"
    )
    assert routes.kind is RouteKind.ROAD


async def test_nobody_is_asked_about_nothing(server: Server, routes: OsrmRoutes) -> None:
    assert await routes.legs([], PICKUP) == []
    assert server.requests == []


@pytest.mark.parametrize("path", ["", "/", "/osrm", "/osrm/"])
async def test_its_services_may_begin_at_a_path_and_want_a_password(server: Server, path: str) -> None:
    routes = OsrmRoutes(server.url.replace("://", f"://router:{SECRET}@") + path)
    try:
        assert len(await routes.legs(ORIGINS, PICKUP)) == 2
        server.says({}, 500)
        await fault_of(routes)
    finally:
        await routes.close()
    assert server.requests[0].path.startswith(path.rstrip("/") + "/table/v1/")
    assert b64decode(server.requests[0].headers["Authorization"].removeprefix("Basic ")) == f"router:{SECRET}".encode()


async def test_where_there_is_no_road_there_is_no_leg(server: Server, routes: OsrmRoutes) -> None:
    server.says(table([[None], [60]], [[None], [700]]))
    assert await routes.legs(ORIGINS, PICKUP) == [None, Leg(700, 60)]
    server.says(table([[10], [None]], [[None], [700]]))
    assert await routes.legs(ORIGINS, PICKUP) == [None, None]


async def test_as_many_origins_as_may_be_asked_for_fit(server: Server, routes: OsrmRoutes) -> None:
    rows = [[float(number)] for number in range(MAX_ORIGINS)]
    server.says({**table(rows, rows), "sources": [{**WAYPOINT, "hint": "x" * 200}] * MAX_ORIGINS})
    legs = await routes.legs([Point(0, number) for number in range(MAX_ORIGINS)], PICKUP)
    assert legs == [Leg(number, number) for number in range(MAX_ORIGINS)]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_server_that_cannot_now_is_unavailable(server: Server, routes: OsrmRoutes, status: int) -> None:
    server.says(b"<html>", status)
    assert await fault_of(routes) is RouteFault.UNAVAILABLE


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 401, 403, 404])
async def test_any_other_status_is_no_answer_and_no_redirect_is_followed(
    server: Server, routes: OsrmRoutes, status: int
) -> None:
    server.says(b"", status, Location="/elsewhere")
    assert await fault_of(routes) is RouteFault.BAD_ANSWER
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["NoTable", "InvalidQuery", "TooBig", "NoSegment", "NotImplemented"])
@pytest.mark.parametrize("status", [200, 400])
async def test_what_osrm_refuses_is_a_bad_answer(server: Server, routes: OsrmRoutes, code: str, status: int) -> None:
    server.says({"code": code, "message": "why"}, status)
    with pytest.raises(RoutesUnavailable, match=code) as failed:
        await routes.legs(ORIGINS, PICKUP)
    assert failed.value.fault is RouteFault.BAD_ANSWER


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b'{"code":"Ok","durations":[[1],[2]]',
        b"[" * 100_000,
        b'{"code":"Ok","x":' + b"[" * 100_000,
        b"[]",
        b"null",
        b"{}",
        {"code": "Ok"},
        {"code": 7},
        table(None, None),
        table([[1], [2]], None),
        table([[1]], [[1]]),
        table([[1], [2], [3]], [[1], [2], [3]]),
        table([[1, 2]], [[1, 2]]),
        table([[], []], [[], []]),
        table([[1], [2]], [[1], ["2"]]),
        table([1, 2], [1, 2]),
        table([[1], [2]], [[1], [-2]]),
        table([[1], [-0.1]], [[1], [2]]),
        table([[1], [1e300]], [[1], [2]]),
        b'{"code":"Ok","durations":[[1],[NaN]],"distances":[[1],[2]]}',
        b'{"code":"Ok","durations":[[1],[1e999]],"distances":[[1],[2]]}',
    ],
    ids=lambda body: str(body)[:60],
)
async def test_what_is_no_table_of_that_shape_is_a_bad_answer(server: Server, routes: OsrmRoutes, body: Any) -> None:
    server.says(body)
    assert await fault_of(routes) is RouteFault.BAD_ANSWER


async def test_a_packed_answer_is_not_unpacked(server: Server, routes: OsrmRoutes) -> None:
    server.says(gzip.compress(json.dumps(table([[1], [2]], [[1], [2]])).encode()), 200, **{"Content-Encoding": "gzip"})
    assert await fault_of(routes) is RouteFault.BAD_ANSWER
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_without_end_is_read_up_to_its_bound(
    server: Server, routes: OsrmRoutes, announced: bool
) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(1 << 40)} if announced else None)
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65_536)
                sent += 65_536
        except ConnectionError:
            return response

    server.answer = endless
    assert await fault_of(routes) is RouteFault.BAD_ANSWER
    assert sent < 100 * MAX_ANSWER_BYTES


async def test_a_slow_answer_is_a_timeout(server: Server) -> None:
    """Whether nothing comes, or now and then a byte."""
    routes = OsrmRoutes(server.url, timeout_s=0.1)
    never = asyncio.Event()

    async def silent(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async def dripping(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not never.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.01)
        return response

    try:
        for slow in (silent, dripping):
            server.answer = slow
            assert await fault_of(routes) is RouteFault.TIMEOUT
    finally:
        never.set()
        await routes.close()


async def test_nobody_there_is_unavailable(unused_tcp_port: int) -> None:
    routes = OsrmRoutes(f"http://router:{SECRET}@127.0.0.1:{unused_tcp_port}")
    try:
        assert await fault_of(routes) is RouteFault.UNAVAILABLE
    finally:
        await routes.close()


@pytest.mark.parametrize(
    "spoken",
    [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"],
)
async def test_who_speaks_no_http_or_hangs_up_is_unavailable(spoken: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(spoken)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(speak, "127.0.0.1", 0)
    routes = OsrmRoutes(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        assert await fault_of(routes) is RouteFault.UNAVAILABLE
    finally:
        await routes.close()
        listener.close()
        await listener.wait_closed()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["code", "durations"]), inner),
    max_leaves=8,
)


@given(
    st.binary(max_size=40)
    | st.fixed_dictionaries({"code": st.just("Ok") | anything, "durations": anything, "distances": anything}).map(
        lambda body: json.dumps(body).encode()
    )
)
def test_whatever_is_answered_it_is_legs_or_unavailable(body: bytes) -> None:
    """Without sockets, which the tests above have."""

    class Canned(OsrmRoutes):
        async def _get(self, url: object) -> bytes:
            return body

    async def ask() -> None:
        routes = Canned("http://127.0.0.1:1")
        try:
            [legs] = await asyncio.gather(routes.legs(ORIGINS, PICKUP), return_exceptions=True)
        finally:
            await routes.close()
        if isinstance(legs, RoutesUnavailable):
            assert legs.fault is RouteFault.BAD_ANSWER
        else:
            assert isinstance(legs, list)
            assert len(legs) == len(ORIGINS)

    asyncio.run(ask())
