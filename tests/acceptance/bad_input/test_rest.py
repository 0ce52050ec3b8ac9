"""REST: calls that are not good, bodies that are none, and what is not even HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from haulcast.transport import wire
from haulcast.transport.handlers import LOGGED
from haulcast.transport.http import ROUTES, Route
from tests.acceptance.bad_input.bench import (
    MARKER,
    ORIGIN,
    WITHIN_S,
    Bench,
    Counted,
    check_error_body,
    token,
)
from tests.acceptance.bad_input.wrong import (
    GOOD,
    Wrong,
    address,
    encode,
    in_body,
    in_query,
    some_role,
    wrongs,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

WITH_BODY = {f"{route.method} {route.path}": route for route in ROUTES if route.method != "GET"}


@pytest.mark.parametrize("header", ["", "Basic enp6", "bearer", f"Token {MARKER}"])
async def test_no_address_without_a_token(edge: Bench, header: str) -> None:
    """401."""
    async with edge.notices(Counted.request("broadcast.list", "UNAUTHENTICATED")):
        status, answer, _ = await edge.rest("GET", "/v1/broadcasts", None, Authorization=header)
        assert (status, answer["error"]["code"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize("route", [pytest.param(one, id=one.path) for one in ROUTES if one.request in LOGGED])
@pytest.mark.parametrize("key", [None, "", "x" * 65, "clé"], ids=["none", "empty", "too long", "not ASCII"])
async def test_a_command_without_a_good_idempotency_key(edge: Bench, route: Route, key: str | None) -> None:
    """400, which names the header."""
    who = token(some_role(route), "somebody")
    body = in_body(route, GOOD[route.request])
    headers = {} if key is None else {"Idempotency-Key": key}
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "BAD_REQUEST"), hidden=(who,)):
        status, answer, _ = await edge.rest(route.method, address(route), who, body, **headers)
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", "header.Idempotency-Key")


@pytest.mark.parametrize(
    "body",
    [b"{", f'["{MARKER}"]'.encode(), b"null", b"\xff\xfe", b"[" * 30_000, b'{"a":1}{', f'"{MARKER}"'.encode()],
    ids=["cut off", "list", "null", "not UTF-8", "deep", "two", "text"],
)
@pytest.mark.parametrize("name", WITH_BODY)
async def test_a_body_that_is_no_json_object(edge: Bench, name: str, body: bytes) -> None:
    """400 BAD_JSON."""
    route = WITH_BODY[name]
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "BAD_JSON")):
        status, answer, _ = await edge.rest(
            route.method, address(route), token(some_role(route), "somebody"), body, **{"Idempotency-Key": "k"}
        )
        assert (status, answer["error"]["code"]) == (400, "BAD_JSON")


@pytest.mark.parametrize(
    ("route", "wrong"),
    [
        pytest.param(route, wrong, id=f"{route.path}-{wrong.path}-{wrong.what}".replace(" ", "_"))
        for route in ROUTES
        if route.request in wire.REST_REQUESTS.values() and route.method != "GET"
        for wrong in wrongs(route.request)
        if f"{{{wrong.path}}}" not in route.path
    ],
)
async def test_a_field_of_a_body_that_is_missing_or_not_allowed(edge: Bench, route: Route, wrong: Wrong) -> None:
    """400, which names the field."""
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "BAD_REQUEST")):
        status, answer, _ = await edge.rest(
            route.method,
            address(route),
            token(some_role(route), "somebody"),
            encode(in_body(route, wrong.data)).encode(),
        )
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", f"body.{wrong.path}")


@pytest.mark.parametrize(
    ("route", "wrong"),
    [
        pytest.param(route, wrong, id=f"{route.path}-{wrong.path}-{wrong.what}".replace(" ", "_"))
        for route in ROUTES
        if route.method == "GET"
        for wrong in wrongs(route.request)
        if f"{{{wrong.path}}}" not in route.path and wrong.what != "null"
    ],
)
async def test_a_parameter_of_a_query_that_is_not_allowed(edge: Bench, route: Route, wrong: Wrong) -> None:
    """400, which names the parameter."""
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "BAD_REQUEST")):
        status, answer, _ = await edge.rest(
            "GET", f"{address(route)}?{in_query(route, wrong.data)}", token(some_role(route), "somebody")
        )
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", f"query.{wrong.path}")


async def test_parameters_of_a_query_that_nobody_knows_are_ignored(edge: Bench) -> None:
    """As unknown fields of a body are."""
    status, answer, _ = await edge.rest("GET", f"/v1/control?{MARKER}=1&limit=2", token("operator", "somebody"))
    assert (status, answer["next"]) == (200, None)


@pytest.mark.parametrize(
    "route", [pytest.param(one, id=f"{one.method} {one.path}") for one in ROUTES if "{" in one.path]
)
async def test_a_name_in_an_address_that_cannot_be_one(edge: Bench, route: Route) -> None:
    """400, which names the parameter."""
    [name] = re.findall(r"{(\w+)}", route.path)
    path = route.path.replace(f"{{{name}}}", f"{MARKER}%20%00")
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "BAD_REQUEST")):
        status, answer, _ = await edge.rest(
            route.method,
            path,
            token(some_role(route), "somebody"),
            in_body(route, GOOD[route.request]) if route.method != "GET" else None,
            **{"Idempotency-Key": "k"},
        )
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", f"path.{name}")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"wave_radii_km": []}, "wave_radii_km"),
        ({"wave_radii_km": [10, 5]}, "wave_radii_km"),
        ({"wave_radii_km": [None, 5]}, "wave_radii_km"),
        ({"wave_interval_s": 0}, "wave_interval_s"),
        ({"max_offers_per_wave": 2**70}, "max_offers_per_wave"),
        ({"min_expiry_s": 100, "default_expiry_s": 50}, "default_expiry_s"),
        ({"toggle_limit": 0}, "toggle_limit"),
        ({"togle_limit": 5}, "togle_limit"),
        ({"dispatch_mode": MARKER}, "dispatch_mode"),
        ({"active_broadcast_policy": MARKER}, "active_broadcast_policy"),
        ({"accept_window_s": 0}, "accept_window_s"),
        ({"requests_per_s": 0}, "requests_per_s"),
        ({"request_burst": 0}, "request_burst"),
        ({"announcements_per_hour": 101}, "announcements_per_hour"),
    ],
)
async def test_settings_that_cannot_work(edge: Bench, settings: dict[str, Any], field: str) -> None:
    """400, which names the setting; the tenant does not come into being."""
    async with edge.notices(Counted.request("tenant.put", "BAD_REQUEST")):
        status, answer, _ = await edge.rest("PUT", "/v1/tenants/absurd", token("admin", "root"), {"settings": settings})
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", f"body.settings.{field}")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"wave_radii_km": [10, 5]}, "wave_radii_km"),
        ({"default_expiry_s": 5}, "default_expiry_s"),
        ({"dispatch_mode": MARKER}, "dispatch_mode"),
        ({"togle_limit": 5}, "togle_limit"),
        ({"toggle_limit": None}, "toggle_limit"),
        ({"toggle_limit": "5"}, "toggle_limit"),
    ],
)
async def test_a_change_of_settings_that_cannot_work(edge: Bench, settings: dict[str, Any], field: str) -> None:
    """400, which names the setting; nothing changes and nothing is recorded."""
    operator = token("operator", "somebody")
    before = await edge.rest("GET", "/v1/settings", operator)
    async with edge.notices(Counted.request("settings.patch", "BAD_REQUEST")):
        body = {"settings": settings, "expected_version": before[1]["version"]}
        status, answer, _ = await edge.rest("PATCH", "/v1/settings", operator, body, **{"Idempotency-Key": "k"})
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", f"body.settings.{field}")
    assert (await edge.rest("GET", "/v1/settings", operator))[1] == before[1]
    assert (await edge.rest("GET", "/v1/control", operator))[1]["entries"] == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large(edge: Bench, chunked: bool) -> None:
    """413, whether its length is told or not."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield MARKER.encode() * 100

    who = token("customer", "c1")
    headers = {"Authorization": f"Bearer {who}", "Idempotency-Key": "k"}
    body: Any = pieces() if chunked else MARKER.encode() * 7_000
    async with (
        edge.notices(Counted.request("http", "BAD_REQUEST"), hidden=(who,)),
        edge.session.post(f"{edge.url}/v1/broadcasts", data=body, headers=headers) as response,
    ):
        assert response.status == 413
        check_error_body((await response.json())["error"], "BAD_REQUEST", "body")


async def test_a_body_that_is_not_encoded_as_it_says(edge: Bench) -> None:
    """400."""
    async with edge.notices(Counted.request("broadcast.create", "BAD_REQUEST")):
        status, answer, _ = await edge.rest(
            "POST",
            "/v1/broadcasts",
            token("customer", "c1"),
            MARKER.encode(),
            **{"Idempotency-Key": "k", "Content-Encoding": "gzip"},
        )
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", "body")


@pytest.mark.parametrize("path", ["/v1/broadcasts", "/nowhere"])
async def test_an_expectation_that_nobody_knows(edge: Bench, path: str) -> None:
    """417, whatever bytes it is made of, and wherever it is sent."""
    async with edge.notices(Counted.request("http", "BAD_REQUEST")):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nExpect: {MARKER}".encode() + b"\xe6\r\nConnection: close\r\n\r\n"
        )
        async with asyncio.timeout(WITHIN_S):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 417 ")
        check_error_body(json.loads(body)["error"], "BAD_REQUEST", "header.Expect")


async def test_a_client_that_goes_away_in_the_middle_of_its_body(edge: Bench) -> None:
    """Nobody to answer; one line all the same."""
    who = token("customer", "c1")
    async with edge.notices(Counted.request("broadcast.create", "BAD_REQUEST"), hidden=(who,)):
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(
            f"POST /v1/broadcasts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who}\r\nIdempotency-Key: k\r\n"
            f'Content-Length: 999\r\n\r\n{{"{MARKER}'.encode()
        )
        await writer.drain()
        await asyncio.sleep(0.05)  # the server has begun to read the body; nothing shows that
        writer.close()


@pytest.mark.parametrize(
    "text",
    [
        f"GET /v1/offers HTTP/1.1\r\nBad {MARKER}: x\r\n\r\n",
        f"GET /v1/offers HTTP/1.1\r\nAuthorization: Bearer {MARKER}\0\r\n\r\n",
        f"GET /v1/offers HTTP/9.{MARKER}\r\n\r\n",
        f"POST /v1/offers HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{MARKER}\r\n",
        f"GET http://[{MARKER} HTTP/1.1\r\n\r\n",
        f"GET /{MARKER * 1000} HTTP/1.1\r\n\r\n",
    ],
    ids=["header name", "header value", "version", "chunk", "address", "length"],
)
async def test_what_is_not_http(edge: Bench, text: str) -> None:
    """400, and the connection is closed."""
    async with edge.notices(Counted.request("http", "BAD_REQUEST")):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(text.encode())
        async with asyncio.timeout(WITHIN_S):
            answer = await reader.read()
        writer.close()
        assert answer.split(b" ")[1] == b"400"


@pytest.mark.parametrize("path", ["/", f"/v1/{MARKER}", "/v1/broadcasts/a/b/c", "/../etc/passwd", "/v1/ws/"])
async def test_an_address_that_does_not_exist(edge: Bench, path: str) -> None:
    """404, with or without a token."""
    for bearer in (None, token("customer", "c1")):
        async with edge.notices(Counted.request("http", "NOT_FOUND")):
            status, answer, _ = await edge.rest("GET", path, bearer)
            assert (status, answer["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/broadcasts", "GET, POST"),
        ("POST", "/v1/offers", "GET"),
        ("GET", "/v1/availability", "PUT"),
        ("PATCH", "/v1/tenants/acme", "PUT"),
        ("PROPFIND", "/v1/location", "POST"),
    ],
)
async def test_a_method_that_an_address_does_not_take(edge: Bench, method: str, path: str, allowed: str) -> None:
    """405, which says what it takes."""
    async with edge.notices(Counted.request("http", "NOT_FOUND")):
        status, answer, headers = await edge.rest(method, path, token("customer", "c1"))
        assert (status, answer["error"]["code"], headers["Allow"]) == (405, "NOT_FOUND", allowed)


async def test_pages_of_allowed_origins_may_call_and_others_may_not_read(edge: Bench) -> None:
    """CORS: the browser is told only for origins that are allowed, errors included."""
    for origin, allowed in ((ORIGIN, ORIGIN), (f"https://{MARKER}.example", None), ("null", None)):
        for path in ("/v1/broadcasts", "/v1/nowhere"):
            _, _, headers = await edge.rest("GET", path, token("customer", "c1"), Origin=origin)
            assert headers.get("Access-Control-Allow-Origin") == allowed
            assert headers["Vary"] == "Origin"
        status, _, headers = await edge.rest(
            "OPTIONS", "/v1/broadcasts", None, Origin=origin, **{"Access-Control-Request-Method": "POST"}
        )
        assert status == 204
        assert headers.get("Access-Control-Allow-Origin") == allowed
        assert headers.get("Access-Control-Allow-Methods") == (allowed and "GET, PATCH, POST, PUT")
        assert "Access-Control-Allow-Credentials" not in headers


async def test_nothing_tells_what_the_server_is_made_of(edge: Bench) -> None:
    """No versions in headers."""
    for path in ("/v1/broadcasts", "/nowhere", "/health/live"):
        assert (await edge.rest("GET", path, None))[2]["Server"] == "haulcast"
