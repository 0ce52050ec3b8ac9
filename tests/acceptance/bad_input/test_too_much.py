"""Too late, too much, too slow: bounded, and nobody else notices."""

import asyncio
import socket
from time import time
from typing import Any

import aiohttp
import pytest

from haulcast.transport import wire
from tests.acceptance.bad_input.bench import (
    MARKER,
    SUBPROTOCOL,
    WITHIN_S,
    Bench,
    Counted,
    Line,
    token,
)
from tests.acceptance.bad_input.wrong import (
    GOOD,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

ANSWERED_WITHIN_S = 1.0
"""While another client misbehaves. Generous: it is about being served at all."""


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
    """4100: more than the bound waits for a client that does not take it. Nor may it take the word that says so."""
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
        assert await lazy.closed() in (4100, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
        await other.ws.close()
    assert max(slow_s) < ANSWERED_WITHIN_S
    assert await hasty.values(Counted("haulcast_slow_consumers_total", {})) == [1]
