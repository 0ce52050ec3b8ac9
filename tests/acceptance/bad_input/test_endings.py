"""What ends a connection: no hello first, frames that cannot be, tokens and origins that are not good."""

import asyncio
from collections.abc import Mapping
from time import time

import aiohttp
import pytest

from haulcast.ports import Role
from haulcast.transport import wire
from tests.acceptance.bad_input.bench import (
    KEYS,
    MARKER,
    ORIGIN,
    PING,
    WITHIN_S,
    Bench,
    Counted,
    Line,
    check_error,
    forged,
    token,
)
from tests.acceptance.bad_input.wrong import (
    GOOD,
    frame,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

ANSWERED_WITHIN_S = 1.0
"""While another client misbehaves. Generous: it is about being served at all."""


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


# --- Tokens ---

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


# --- Origins and subprotocols ---


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
