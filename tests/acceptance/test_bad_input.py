"""D5, C1, C9: whatever a client sends that it should not, it is told which code it is and what is wrong, the server
logs one line that shows nothing of it, counts it, and goes on serving everybody else.

`Bench.notices` holds each case to the last three.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from time import time
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.handlers import HANDLERS, LOGGED
from haulcast.transport.http import ROUTES, Route
from haulcast.transport.session import Limits
from tests.acceptance.bad_input_support import (
    GOOD,
    KEYS,
    MARKER,
    ORIGIN,
    SUBPROTOCOL,
    WITHIN_S,
    Bench,
    Counted,
    Line,
    Wrong,
    bench,
    captured_logs,
    check_good,
    encode,
    forged,
    frame,
    token,
    wrongs,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENEROUS = Limits(requests_per_s=1e6, burst_requests=1_000_000)
HASTY = Limits(
    hello_within_s=0.3,
    ping_after_s=0.2,
    silence_s=0.6,
    max_queued_bytes=128 * 1024,
    requests_per_s=1e6,
    burst_requests=1_000_000,
)
ANSWERED_WITHIN_S = 1.0
"""While another client misbehaves. Generous: it is about being served at all."""
STRUCTS = {**wire.REQUESTS, **wire.REST_REQUESTS}


@pytest.fixture(scope="module")
def logs() -> Iterator[list[Any]]:
    """What all nodes log; one is at work at a time."""
    with captured_logs() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory, logs: list[Any]) -> AsyncIterator[Bench]:
    """A node that never finds that there is too much."""
    async with bench(tmp_path_factory.mktemp("edge"), GENEROUS, logs) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory, logs: list[Any]) -> AsyncIterator[Bench]:
    """A node that waits for nobody."""
    async with bench(tmp_path_factory.mktemp("hasty"), HASTY, logs) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory, logs: list[Any]) -> AsyncIterator[Bench]:
    """A node with the limits that servers have."""
    async with bench(tmp_path_factory.mktemp("strict"), Limits(), logs) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lines(edge: Bench) -> Mapping[Role, Line]:
    """A greeted connection for each role, the same for all tests: they have to go on, whatever comes."""
    return {role: await edge.greeted(role, f"some-{role}") for role in Role}


# --- Frames ----------------------------------------------------------------------------------------------------------

PING = '{"id":"q","type":"ping"'
FRAMES: Mapping[str, tuple[str, str | None, str, str | None]] = {
    # what: the frame, the `re` of the answer, its code, its field
    "cut off": (f'{PING},"data":{{"{MARKER}', None, "BAD_JSON", None),
    "a list": (f'["{MARKER}"]', None, "BAD_JSON", None),
    "a text": (f'"{MARKER}"', None, "BAD_JSON", None),
    "empty": ("", None, "BAD_JSON", None),
    "no JSON at all": (f"hello, I am {MARKER}", None, "BAD_JSON", None),
    "two objects": (f"{PING}}}{PING}}}", None, "BAD_JSON", None),
    "a hundred lists deep, and no end": (f'{PING},"data":{"[" * 100}', None, "BAD_JSON", None),
    "NUL": ("\0", None, "BAD_JSON", None),
    "NaN": (
        '{"id":"q","type":"location","data":{"vehicle_id":"v1","lat":NaN,"lng":1}}',
        None,
        "BAD_JSON",
        None,
    ),
    "half a pair of surrogates": (
        '{"id":"q","type":"subscribe","data":{"topic":"feed:\\ud800"}}',
        None,
        "BAD_JSON",
        None,
    ),
    "no id": (f'{{"type":"ping","data":{{"x":"{MARKER}"}}}}', None, "BAD_REQUEST", "id"),
    "id is a number": ('{"id":1,"type":"ping"}', None, "BAD_REQUEST", "id"),
    "id is null": ('{"id":null,"type":"ping"}', None, "BAD_REQUEST", "id"),
    "id is empty": ('{"id":"","type":"ping"}', None, "BAD_REQUEST", "id"),
    "id is too long": (f'{{"id":"{MARKER}{"x" * 64}","type":"ping"}}', None, "BAD_REQUEST", "id"),
    "id is not ASCII": ('{"id":"é","type":"ping"}', None, "BAD_REQUEST", "id"),
    "id has a line end": ('{"id":"q\\n","type":"ping"}', None, "BAD_REQUEST", "id"),
    "no type": ('{"id":"q","data":{}}', "q", "BAD_REQUEST", "type"),
    "type is a number": ('{"id":"q","type":7}', "q", "BAD_REQUEST", "type"),
    "unknown type": (f'{{"id":"q","type":"{MARKER}"}}', "q", "UNKNOWN_TYPE", None),
    "type in capitals": ('{"id":"q","type":"PING"}', "q", "UNKNOWN_TYPE", None),
    "a name of REST": ('{"id":"q","type":"tenant.put","data":{}}', "q", "UNKNOWN_TYPE", None),
    "data is null": (f'{PING},"data":null}}', "q", "BAD_REQUEST", "data"),
    "data is a list": (f'{PING},"data":["{MARKER}"]}}', "q", "BAD_REQUEST", "data"),
    "data is a text": (f'{PING},"data":"{MARKER}"}}', "q", "BAD_REQUEST", "data"),
    "an ack of an absurd version": (
        '{"id":"q","type":"ack","data":{"topic":"feed:t1","version":[1,-1]}}',
        "q",
        "BAD_REQUEST",
        "data.version[1]",
    ),
    "101 trucks in all": (
        frame(
            wire.BroadcastCreate,
            {
                **GOOD[wire.BroadcastCreate],
                "trucks": [{"vehicle_type": MARKER, "count": 100}, {"vehicle_type": "x", "count": 1}],
            },
        ),
        "q",
        "BAD_REQUEST",
        "data.trucks",
    ),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_frame_that_is_no_request(edge: Bench, lines: Mapping[Role, Line], what: str) -> None:
    """It is answered with the code that it deserves, and the connection goes on."""
    text, re_, code, field = FRAMES[what]
    line = lines[Role.CUSTOMER]
    async with edge.notices(Counted.frame(code)):
        await line.say(text)
        check_error(await line.hear(), code, field, re_)
    await line.goes_on()


async def test_a_frame_nested_beyond_all_measure(edge: Bench, lines: Mapping[Role, Line]) -> None:
    """30,000 lists within each other are refused, not recursed into."""
    for data in ('{"x":' * 10_000 + "1" + "}" * 10_000, "[" * 30_000 + "]" * 30_000):
        async with edge.notices(Counted.frame("BAD_JSON")):
            await lines[Role.CUSTOMER].say(f'{PING},"data":{data}}}')
            reply = await lines[Role.CUSTOMER].hear()
            assert reply["error"]["code"] == "BAD_JSON"
    await lines[Role.CUSTOMER].goes_on()


def field_cases(structs: Mapping[str, type[wire.Request]]) -> list[Any]:
    """Each way in which each field of these can be wrong."""
    return [
        pytest.param(struct_, wrong, id=f"{name}-{wrong.path}-{wrong.what}".replace(" ", "_"))
        for name, struct_ in structs.items()
        for wrong in wrongs(struct_)
    ]


@pytest.mark.parametrize("struct_", STRUCTS.values(), ids=STRUCTS)
async def test_the_good_data_of_these_tests_is_good(struct_: type[wire.Request]) -> None:
    """Else what is wrong with a mutant would be something else."""
    check_good(struct_)


@pytest.mark.parametrize(("struct_", "wrong"), field_cases(wire.REQUESTS))
async def test_a_field_that_is_missing_or_not_allowed(
    edge: Bench, lines: Mapping[Role, Line], struct_: type[wire.Request], wrong: Wrong
) -> None:
    """The answer names exactly this field."""
    line = lines[Role.CUSTOMER]
    async with edge.notices(Counted.frame("BAD_REQUEST")):
        await line.say(frame(struct_, wrong.data))
        check_error(await line.hear(), "BAD_REQUEST", f"data.{wrong.path}", "q")
    await line.goes_on()


def check_error(reply: Mapping[str, Any], code: str, field: str | None, re_: str | None) -> None:
    """The reply is this error, and its message names the field."""
    assert reply["ok"] is False
    assert reply["re"] == re_
    check_error_body(reply["error"], code, field)


def check_error_body(error: Mapping[str, Any], code: str, field: str | None) -> None:
    assert set(error) == {"code", "message", "retry", "data"}
    assert error["code"] == code, error
    if field is not None:
        assert error["data"] == {"field": field}
        assert error["message"].startswith(f"{field}: ")


# --- What ends a connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [PING + "}", "{", frame(wire.OfferAccept, GOOD[wire.OfferAccept])])
async def test_anything_before_hello_ends_the_connection(edge: Bench, message: str) -> None:
    """4004, after an answer that says why."""
    line = await edge.connect()
    code = "BAD_JSON" if message == "{" else "HELLO_REQUIRED"
    async with edge.notices(Counted.frame(code), Counted.close(4004)):
        await line.say(message)
        assert (await line.hear())["error"]["code"] == code
        assert await line.closed() == 4004


async def test_a_second_hello_is_refused(edge: Bench, lines: Mapping[Role, Line]) -> None:
    """Nobody becomes somebody else on the way, and the connection goes on as who it was."""
    line = lines[Role.CUSTOMER]
    other = token("operator", MARKER)
    async with edge.notices(Counted.frame("ALREADY_GREETED"), hidden=(other,)):
        check_error(await line.ask("hello", {"token": other}), "ALREADY_GREETED", None, "q")
    await line.goes_on()
    assert (await line.ask("offer.decline", {"broadcast_id": "b1"}))["error"]["code"] == "FORBIDDEN"


async def test_a_binary_frame_ends_the_connection(edge: Bench) -> None:
    """4005."""
    line = await edge.greeted("customer", "c1")
    async with edge.notices(Counted.close(4005)):
        await line.ws.send_bytes(MARKER.encode())
        assert await line.closed() == 4005


async def test_a_frame_of_64_kib_is_taken_and_one_byte_more_is_not(edge: Bench) -> None:
    """1009."""
    line = await edge.greeted("customer", "c1")
    start, end = f'{PING},"data":{{"{MARKER}":"', '"}}'
    await line.say(start + "x" * (65_536 - len(start) - len(end)) + end)
    assert (await line.hear())["ok"]
    async with edge.notices(Counted.close(1009)):
        await line.say(start + "x" * (65_537 - len(start) - len(end)) + end)
        assert await line.closed() == 1009


async def test_text_that_is_not_utf8_ends_the_connection(edge: Bench) -> None:
    """1007."""
    line = await edge.greeted("customer", "c1")
    async with edge.notices(Counted.close(1007)):
        await line.ws.send_frame(b"\xff\xfe" + MARKER.encode(), aiohttp.WSMsgType.TEXT)
        assert await line.closed() == 1007


async def test_bytes_that_are_no_frame_end_the_connection(edge: Bench) -> None:
    """1002: a reserved bit is set."""
    async with edge.notices(Counted.close(1002)):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(
            b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with asyncio.timeout(WITHIN_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            writer.write(b"\xf1\x84\x00\x00\x00\x00zzzz")
            head = await reader.readexactly(4)
        assert head[0] == 0x88
        assert int.from_bytes(head[2:]) == 1002
        writer.close()


# --- Tokens ----------------------------------------------------------------------------------------------------------

NOBODY = "The token is not valid."
TOKENS: Mapping[str, tuple[str, str]] = {
    "expired": (forged(exp=time() - 1), "The token has expired."),
    "of another signer": (forged("a secret that nobody here knows, long enough"), NOBODY),
    "signed with another of our keys": (forged(KEYS[1].material), NOBODY),
    "of an unknown key": (forged(headers={"kid": MARKER}), NOBODY),
    "of no key": (forged(headers={}), NOBODY),
    "of a key that is no text": (forged(headers={"kid": "k1"}).replace("e", "E", 1), NOBODY),
    "unsigned": (forged("", algorithm="none"), NOBODY),
    "signed by another algorithm": (forged(KEYS[0].material, algorithm="HS512"), NOBODY),
    "without a role": (forged(role=None), NOBODY),
    "of a role there is not": (forged(role=MARKER), NOBODY),
    "without a tenant": (forged(tenant=None), NOBODY),
    "of a tenant with a bad name": (forged(tenant=f"../{MARKER}"), NOBODY),
    "without a user": (forged(sub=None), NOBODY),
    "without an end": (forged(exp=None), NOBODY),
    "that ends at no time": (forged(exp=MARKER), NOBODY),
    "not good yet": (forged(nbf=time() + 3600), "The token is not valid yet."),
    "for somebody else": (forged(aud=MARKER), "The token is for somebody else."),
    "no token": (MARKER, NOBODY),
    "three dots": ("...", NOBODY),
}


@pytest.mark.parametrize("what", TOKENS)
async def test_a_bad_token_ends_the_connection(edge: Bench, what: str) -> None:
    """4001, after an answer that gives nothing away."""
    bad, message = TOKENS[what]
    line = await edge.connect()
    async with edge.notices(
        Counted.request("hello", "UNAUTHENTICATED"), Counted.close(4001), hidden=(bad, bad.split(".")[-1] or bad)
    ):
        reply = await line.ask("hello", {"token": bad})
        assert reply["error"] == {"code": "UNAUTHENTICATED", "message": message, "retry": False, "data": {}}
        assert await line.closed() == 4001


@pytest.mark.parametrize("what", TOKENS)
async def test_a_bad_token_opens_no_address(edge: Bench, what: str) -> None:
    """401."""
    bad, message = TOKENS[what]
    async with edge.notices(Counted.request("offer.list", "UNAUTHENTICATED"), hidden=(bad, bad.split(".")[-1] or bad)):
        status, answer, headers = await edge.rest("GET", "/v1/offers", bad)
        assert (status, answer["error"]["message"]) == (401, message)
        assert headers["WWW-Authenticate"] == "Bearer"


async def test_a_tenant_that_does_not_exist_ends_the_connection(edge: Bench) -> None:
    """4003."""
    stranger = token("customer", "c1", tenant="nowhere")
    line = await edge.connect()
    async with edge.notices(Counted.request("hello", "TENANT_NOT_FOUND"), Counted.close(4003), hidden=(stranger,)):
        assert (await line.ask("hello", {"token": stranger}))["error"]["code"] == "TENANT_NOT_FOUND"
        assert await line.closed() == 4003
    async with edge.notices(Counted.request("broadcast.list", "TENANT_NOT_FOUND"), hidden=(stranger,)):
        assert (await edge.rest("GET", "/v1/broadcasts", stranger))[0] == 403


async def test_a_token_that_expires_ends_its_connection(edge: Bench) -> None:
    """4001, at that moment."""
    ends_at = time() + 0.5
    short = forged(sub="c1", exp=ends_at)
    line = await edge.connect()
    async with edge.notices(Counted.close(4001), hidden=(short,)):
        await line.do("hello", {"token": short})
        await line.goes_on()
        assert await line.closed() == 4001
        assert 0.0 <= time() - ends_at < ANSWERED_WITHIN_S


# --- Origins and subprotocols ----------------------------------------------------------------------------------------


async def test_a_page_of_another_origin_is_refused(edge: Bench) -> None:
    """4003 before any hello; a page that is allowed, and an app without an origin, are not."""
    async with edge.notices(Counted.close(4003)):
        line = await edge.connect(Origin=f"https://{MARKER}.example")
        assert await line.closed() == 4003
    line = await edge.connect(Origin=ORIGIN)
    await line.do("hello", {"token": token("customer", "c1")})


async def test_another_subprotocol_is_refused(edge: Bench) -> None:
    """400, in the handshake."""
    async with edge.notices(Counted.request("http", "BAD_REQUEST")):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await edge.session.ws_connect(f"{edge.url}/v1/ws", protocols=(MARKER, "haulcast.v2.json"))
        assert refused.value.status == 400


async def test_a_plain_request_to_the_socket_is_refused(edge: Bench) -> None:
    """400."""
    async with edge.notices(Counted.request("http", "BAD_REQUEST")):
        status, answer, _ = await edge.rest("GET", "/v1/ws", None)
        assert (status, answer["error"]["data"]) == (400, {"field": "Upgrade"})


# --- Too late, too much, too slow ------------------------------------------------------------------------------------


async def test_who_does_not_say_hello_in_time_is_closed(hasty: Bench) -> None:
    """4004."""
    async with hasty.notices(Counted.close(4004)):
        assert await (await hasty.connect()).closed() == 4004


async def test_who_says_nothing_and_answers_no_ping_is_closed(hasty: Bench) -> None:
    """4202; who only answers pings is not."""
    quiet = await hasty.greeted("customer", "c1")
    answering = asyncio.create_task(quiet.ws.receive())
    async with hasty.notices(Counted.close(4202)):
        ws = await hasty.session.ws_connect(f"{hasty.url}/v1/ws", protocols=(SUBPROTOCOL,), autoping=False)
        dead = Line(ws)
        await dead.do("hello", {"token": token("customer", "c2")})
        async with asyncio.timeout(WITHIN_S):
            assert (await ws.receive()).type is aiohttp.WSMsgType.PING
            while not ws.closed:
                await ws.receive()
        assert ws.close_code == 4202
    assert not answering.done()
    await quiet.say({"id": "q", "type": "ping"})
    async with asyncio.timeout(WITHIN_S):
        assert (await answering).json()["ok"]
    await quiet.ws.close()


async def test_a_flood_is_refused_and_then_closed_and_others_do_not_notice(strict: Bench) -> None:
    """RATE_LIMITED with the time to wait, and 4129 for who goes on. Who waits is served again."""
    other = await strict.greeted("customer", "c2")
    flood = await strict.greeted("customer", "c1")
    async with strict.notices(Counted.close(4129)):
        for number in range(400):
            await flood.say({"id": str(number), "type": "ping", "data": {"x": MARKER}})
        replies = []
        async with asyncio.timeout(WITHIN_S):
            while (message := await flood.ws.receive()).type is aiohttp.WSMsgType.TEXT:
                replies.append(message.json())
        assert flood.ws.close_code == 4129
    refused = [reply for reply in replies if not reply["ok"]]
    assert {reply["error"]["code"] for reply in refused} == {"RATE_LIMITED"}
    assert all(reply["error"]["retry"] and reply["error"]["data"]["retry_after_ms"] > 0 for reply in refused)
    assert len(refused) == 201
    assert 99 <= len(replies) - len(refused) < 150
    async with asyncio.timeout(ANSWERED_WITHIN_S):
        await other.goes_on()


async def test_who_waits_when_told_to_is_served_again(strict: Bench) -> None:
    """`retry_after_ms` is long enough."""
    line = await strict.greeted("customer", "c3")
    while (reply := await line.ask("ping"))["ok"]:
        pass
    await asyncio.sleep(reply["error"]["data"]["retry_after_ms"] / 1000)
    await line.goes_on()


async def test_who_does_not_read_is_closed_and_others_do_not_notice(hasty: Bench) -> None:
    """4100: more than the bound waits for a client that does not take it."""
    customer = await hasty.greeted("customer", "c1")
    trucks = [{"vehicle_type": "truck_14ft", "count": 100}]
    created = await customer.do("broadcast.create", {**GOOD[wire.BroadcastCreate], "trucks": trucks}, id="big")
    topic = f"broadcast:{created['broadcast_id']}"
    await customer.ws.close()
    other = await hasty.greeted("customer", "c2")
    slow_s: list[float] = []

    def small_socket(address: Any) -> socket.socket:
        made = socket.socket(address[0], address[1], address[2])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return made

    connector = aiohttp.TCPConnector(socket_factory=small_socket)
    async with aiohttp.ClientSession(connector=connector) as session, hasty.notices(Counted.close(4100)):
        lazy = Line(await session.ws_connect(f"{hasty.url}/v1/ws", protocols=(SUBPROTOCOL,)))
        await lazy.do("hello", {"token": token("customer", "c1")})
        async with asyncio.timeout(10.0):
            while await hasty.values(Counted.close(4100)) == [0]:
                for _ in range(32):
                    await lazy.say({"id": "q", "type": "subscribe", "data": {"topic": topic}})
                started = time()
                await other.goes_on()
                slow_s.append(time() - started)
        assert await lazy.closed() == 4100
        await other.ws.close()
    assert max(slow_s) < ANSWERED_WITHIN_S
    assert await hasty.values(Counted("haulcast_slow_consumers_total", {})) == [1]


# --- Who may what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("struct_", "role"),
    [
        pytest.param(struct_, role, id=f"{name}-{role}")
        for name, struct_ in wire.REQUESTS.items()
        if struct_ in HANDLERS
        for role in Role
        if role not in HANDLERS[struct_][0]
    ],
)
async def test_a_request_of_another_role_is_forbidden(
    edge: Bench, lines: Mapping[Role, Line], struct_: type[wire.Request], role: Role
) -> None:
    """For every request and every role that may not make it."""
    name = wire.TYPE_OF[struct_]
    async with edge.notices(Counted.request(name, "FORBIDDEN")):
        check_error(await lines[role].ask(name, GOOD[struct_]), "FORBIDDEN", None, "q")
    await lines[role].goes_on()


def address(route: Route) -> str:
    """An address of the route."""
    return re.sub(r"{(\w+)}", lambda name: str(GOOD[route.request][name[1]]), route.path)


def in_body(route: Route, data: Mapping[str, Any]) -> dict[str, Any]:
    """What of the data is sent as the body."""
    return {name: value for name, value in data.items() if f"{{{name}}}" not in route.path}


@pytest.mark.parametrize(
    ("route", "role"),
    [
        pytest.param(route, role, id=f"{route.method} {route.path}-{role}")
        for route in ROUTES
        for role in Role
        if role not in HANDLERS[route.request][0]
    ],
)
async def test_an_address_of_another_role_is_forbidden(edge: Bench, route: Route, role: Role) -> None:
    """403, for every address and every role that may not use it."""
    async with edge.notices(Counted.request(wire.TYPE_OF[route.request], "FORBIDDEN")):
        status, answer, _ = await edge.rest(
            route.method,
            address(route),
            token(role, "somebody"),
            in_body(route, GOOD[route.request]) if route.method != "GET" else None,
            **{"Idempotency-Key": "k"},
        )
        assert (status, answer["error"]["code"]) == (403, "FORBIDDEN")


# --- Other tenants ---------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theirs(edge: Bench) -> Mapping[str, str]:
    """What `acme` has: a live broadcast with a trip, and who and what takes part. `rival` has a broadcast of its own,
    offered to its transporter; the names of users are the same in both."""
    broadcasts: dict[str, str] = {}
    trip = ""
    for tenant, prefix in (("acme", "a"), ("rival", "r")):
        operator = token("operator", "op1", tenant)
        fleet = {"transporter_id": "t1"}
        for path, body in (
            ("transporters/t1", {}),
            (f"vehicles/{prefix}v1", {**fleet, "vehicle_type": "truck_14ft"}),
            (f"drivers/{prefix}d1", fleet),
        ):
            assert (await edge.rest("PUT", f"/v1/fleet/{path}", operator, body))[0] == 200
        transporter = await edge.greeted("transporter", "t1", tenant)
        await transporter.do("location", {"vehicle_id": f"{prefix}v1", "lat": 12.97, "lng": 77.59})
        await transporter.do("transporter.online")
        customer = await edge.greeted("customer", "c1", tenant)
        data = {**GOOD[wire.BroadcastCreate], "trucks": [{"vehicle_type": "truck_14ft", "count": 2}]}
        broadcasts[tenant] = (await customer.do("broadcast.create", data, id="create"))["broadcast_id"]
        async with asyncio.timeout(WITHIN_S):
            while not (await edge.rest("GET", "/v1/offers", token("transporter", "t1", tenant)))[1]["offers"]:
                await asyncio.sleep(0.01)
        if tenant == "acme":
            accept = {"broadcast_id": broadcasts[tenant], "vehicle_id": "av1", "driver_id": "ad1"}
            trip = (await transporter.do("offer.accept", accept, id="accept"))["trip_id"]
            status, answer, _ = await edge.rest("PUT", "/v1/fleet/transporters/at9", operator, {})
            assert status == 200, answer
    return {
        "broadcast": broadcasts["acme"],
        "own": broadcasts["rival"],
        "vehicle": "av1",
        "driver": "ad1",
        "trip": trip,
        "transporter": "at9",
    }


DECIDED = ("BROADCAST_NOT_FOUND", "DRIVER_NOT_OWNED")
"""Where the tests here get these, they are answers of the dispatch core: outcomes, counted but no lines in the log."""
NONE_SUCH = {
    "broadcast": "01k9zzzzzzzzzzzzzzzzzzzzzz",
    "vehicle": "no-such",
    "driver": "no-such",
    "trip": "01k9zzzzzzzzzzzzzzzzzzzzzz-1-t",
    "transporter": "no-such",
}
FOREIGN: Mapping[str, tuple[str, str, dict[str, str], str]] = {
    # what: role, type, data, code
    "cancel a broadcast": ("customer", "broadcast.cancel", {"broadcast_id": "broadcast"}, "BROADCAST_NOT_FOUND"),
    "accept an offer": (
        "transporter",
        "offer.accept",
        {"broadcast_id": "broadcast", "vehicle_id": "=rv1", "driver_id": "=rd1"},
        "BROADCAST_NOT_FOUND",
    ),
    "decline an offer": ("transporter", "offer.decline", {"broadcast_id": "broadcast"}, "BROADCAST_NOT_FOUND"),
    "accept with a vehicle": (
        "transporter",
        "offer.accept",
        {"broadcast_id": "own", "vehicle_id": "vehicle", "driver_id": "=rd1"},
        "VEHICLE_NOT_OWNED",
    ),
    "accept with a driver": (
        "transporter",
        "offer.accept",
        {"broadcast_id": "own", "vehicle_id": "=rv1", "driver_id": "driver"},
        "DRIVER_NOT_OWNED",
    ),
    "move a vehicle": (
        "transporter",
        "location",
        {"vehicle_id": "vehicle", "lat": "1", "lng": "1"},
        "VEHICLE_NOT_OWNED",
    ),
    "drive a vehicle": ("driver", "location", {"vehicle_id": "vehicle", "lat": "1", "lng": "1"}, "VEHICLE_NOT_OWNED"),
    # A trip is looked for where its broadcast is, and for this tenant there is none.
    "end a trip": ("transporter", "trip.update", {"trip_id": "trip", "status": "=cancelled"}, "BROADCAST_NOT_FOUND"),
    "watch a broadcast": ("customer", "subscribe", {"topic": "broadcast:broadcast"}, "TOPIC_NOT_FOUND"),
    "watch a broadcast as operator": ("operator", "subscribe", {"topic": "broadcast:broadcast"}, "TOPIC_NOT_FOUND"),
    "watch a feed": ("transporter", "subscribe", {"topic": "feed:transporter"}, "TOPIC_NOT_FOUND"),
    "watch a driver": ("driver", "subscribe", {"topic": "driver:driver"}, "TOPIC_NOT_FOUND"),
    "watch another kind": ("operator", "subscribe", {"topic": "board:broadcast"}, "TOPIC_NOT_FOUND"),
}
_USERS = {"customer": "c1", "transporter": "t1", "driver": "rd1", "operator": "op1"}


@pytest.mark.parametrize("what", FOREIGN)
async def test_what_is_another_tenants_does_not_exist(edge: Bench, theirs: Mapping[str, str], what: str) -> None:
    """C1: the answer is, but for the name that was asked for, that for something made up."""
    role, request_type, data, code = FOREIGN[what]
    line = await edge.greeted(role, _USERS[role], "rival")
    errors = []
    for number, names in enumerate((theirs, {**theirs, **NONE_SUCH})):
        sent = {key: named(value, names) for key, value in data.items()}
        async with edge.notices(Counted.request(request_type, code), logged=code not in DECIDED):
            reply = await line.ask(request_type, sent, id=f"{what}-{number}")
        errors.append(nameless(reply["error"], sent))
    await line.goes_on()
    await line.ws.close()
    assert errors[0] == errors[1]


def named(value: str, names: Mapping[str, str]) -> Any:
    """A value of the table: a name, text after "=", a number, or a topic of a name."""
    if value.startswith("="):
        return value[1:]
    if value.isdigit():
        return int(value)
    kind, _, name = value.rpartition(":")
    return f"{kind}:{names[name]}" if kind else names[name]


def nameless(error: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """The error without the names that the client gave itself."""
    data = {key: "-" if value in sent.values() else value for key, value in error["data"].items()}
    return {**error, "data": data}


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "code"),
    [
        ("customer", "GET", "/v1/broadcasts/{broadcast}", None, "BROADCAST_NOT_FOUND"),
        ("operator", "GET", "/v1/broadcasts/{broadcast}", None, "BROADCAST_NOT_FOUND"),
        ("customer", "POST", "/v1/broadcasts/{broadcast}/cancel", {}, "BROADCAST_NOT_FOUND"),
        (
            "operator",
            "PUT",
            "/v1/fleet/vehicles/mine",
            {"transporter_id": "{transporter}", "vehicle_type": "x"},
            "TRANSPORTER_NOT_FOUND",
        ),
        ("operator", "PUT", "/v1/fleet/drivers/mine", {"transporter_id": "{transporter}"}, "TRANSPORTER_NOT_FOUND"),
    ],
)
async def test_no_address_leads_to_another_tenant(
    edge: Bench, theirs: Mapping[str, str], role: str, method: str, path: str, body: Any, code: str
) -> None:
    """C1, over REST."""
    route = next(
        one for one in ROUTES if one.method == method and re.fullmatch(re.sub("{.*?}", "[^/]+", one.path), path)
    )
    answers = []
    for number, names in enumerate((theirs, {**theirs, **NONE_SUCH})):
        sent = {key: value.format(**names) for key, value in body.items()} if body is not None else None
        async with edge.notices(Counted.request(wire.TYPE_OF[route.request], code), logged=method != "POST"):
            status, answer, _ = await edge.rest(
                method,
                path.format(**names),
                token(role, _USERS[role], "rival"),
                sent,
                **{"Idempotency-Key": f"{path}-{role}-{number}"[:64]},
            )
        answers.append((status, nameless(answer["error"], sent or {})))
    assert answers[0] == answers[1]


async def test_an_operator_sees_nothing_on_the_topics_of_another_tenant(edge: Bench, theirs: Mapping[str, str]) -> None:
    """C1: an operator may look at any feed of its own tenant; one of another is as empty as one that is not there."""
    line = await edge.greeted("operator", "op1", "rival")
    for topic in (f"driver:{theirs['driver']}", "driver:no-such"):
        await line.say({"id": "q", "type": "subscribe", "data": {"topic": topic}})
        async with asyncio.timeout(WITHIN_S):
            snapshot = (await line.ws.receive()).json()
        assert (snapshot["topic"], snapshot["data"]) == (topic, {"trips": {}})
        assert (await line.hear())["ok"]


# --- REST ------------------------------------------------------------------------------------------------------------

WITH_BODY = {
    f"{route.method} {route.path}": route
    for route in ROUTES
    if in_body(route, GOOD[route.request]) or route.method != "GET"
}


def some_role(route: Route) -> Role:
    """Somebody who may."""
    return min(HANDLERS[route.request][0])


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
    ],
)
async def test_settings_that_cannot_work(edge: Bench, settings: dict[str, Any], field: str) -> None:
    """400, which names the setting; the tenant does not come into being."""
    async with edge.notices(Counted.request("tenant.put", "BAD_REQUEST")):
        status, answer, _ = await edge.rest("PUT", "/v1/tenants/absurd", token("admin", "root"), {"settings": settings})
        assert status == 400
        check_error_body(answer["error"], "BAD_REQUEST", f"body.settings.{field}")


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
        assert headers.get("Access-Control-Allow-Methods") == (allowed and "GET, POST, PUT")
        assert "Access-Control-Allow-Credentials" not in headers


async def test_nothing_tells_what_the_server_is_made_of(edge: Bench) -> None:
    """No versions in headers."""
    for path in ("/v1/broadcasts", "/nowhere", "/health/live"):
        assert (await edge.rest("GET", path, None))[2]["Server"] == "haulcast"
