"""What is relied on of aiohttp, over real sockets: connections are taken over from it whole."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import ref

import aiohttp
import pytest
import uvloop
from aiohttp import WSMessage, WSMsgType, web
from prometheus_client import CollectorRegistry

from haulcast.transport.codec import close_frame, frame, ping_frame
from haulcast.transport.outbox import Flusher, Outbox
from haulcast.transport.upgrade import accept, broken_code, reader, take_over
from tests.unit.transport.fakes import make_metrics

MAX_BYTES = 1000


class Taker(asyncio.Protocol):
    """Notes what it gets."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.messages: asyncio.Queue[WSMessage | int] = asyncio.Queue()
        self.lost = asyncio.Event()
        self._reader = reader(self.messages.put_nowait, self._break, MAX_BYTES)

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def _break(self, error: BaseException) -> None:
        self.messages.put_nowait(broken_code(error))

    async def next(self) -> WSMessage | int:
        return await asyncio.wait_for(self.messages.get(), 5)


class Bench:
    """A server whose WebSockets are taken over, and its only client's end."""

    def __init__(self, runner: web.AppRunner, takers: "asyncio.Queue[Taker]") -> None:
        self.runner = runner
        self.port: int = runner.addresses[0][1]
        self.requests: list[ref[web.Request]] = []
        """All there were."""
        self._takers = takers

    async def taker(self) -> Taker:
        return await asyncio.wait_for(self._takers.get(), 5)


@asynccontextmanager
async def serving(
    handler: "Callable[[web.Request], Awaitable[web.StreamResponse]] | None" = None,
) -> AsyncIterator[Bench]:
    takers: asyncio.Queue[Taker] = asyncio.Queue()

    async def handle(request: web.Request) -> web.StreamResponse:
        response, transport = await accept(request, "p")
        assert transport is not None
        taker = Taker(transport)
        take_over(request, transport, taker)
        takers.put_nowait(taker)
        bench.requests.append(ref(request))
        return response

    app = web.Application()
    bench: Bench
    app.router.add_get("/", handler or handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        bench = Bench(runner, takers)
        yield bench
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(bench: Bench) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The client asks for compression and must not get it."""
    async with aiohttp.ClientSession() as client:
        address = f"http://127.0.0.1:{bench.port}/"
        async with client.ws_connect(address, compress=15, autoping=False, protocols=("p",)) as socket:
            yield socket


@asynccontextmanager
async def raw(bench: Bench) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that says what the test says, and goes without a word."""
    stream, writer = await asyncio.open_connection("127.0.0.1", bench.port, limit=2**26)
    try:
        yield stream, writer
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """A client's frame, masked with nothing."""
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    return bytes((first,)) + length + bytes(4) + payload


async def test_a_client_that_goes_while_it_is_answered_is_nobodys_fault() -> None:
    accepted: asyncio.Future[asyncio.Transport | None] = asyncio.get_running_loop().create_future()

    async def handle(request: web.Request) -> web.StreamResponse:
        while request.transport is not None:
            await asyncio.sleep(0)
        response, transport = await accept(request, "p")
        accepted.set_result(transport)
        return response

    async with serving(handle) as bench, raw(bench) as (_, writer):
        writer.write(UPGRADE)
        await writer.drain()
        writer.transport.abort()
        assert await asyncio.wait_for(accepted, 5) is None


async def test_messages_of_every_kind_come_through_and_frames_go_out_whole() -> None:
    async with serving() as bench, connected(bench) as client:
        taker = await bench.taker()
        assert client.protocol == "p"
        assert client.compress == 0
        await client.send_str("häuler")
        await client.send_bytes(b"\x00\xff")
        await client.ping(b"?")
        await client.pong(b"!")
        got = [await taker.next() for _ in range(4)]
        assert [(message.type, message.data) for message in got if isinstance(message, WSMessage)] == [
            (WSMsgType.TEXT, "häuler"),
            (WSMsgType.BINARY, b"\x00\xff"),
            (WSMsgType.PING, b"?"),
            (WSMsgType.PONG, b"!"),
        ]
        outbox = Outbox(taker.transport, Flusher(make_metrics(CollectorRegistry())), 10**7, pytest.fail)
        payloads = [f"{number}:" + "x" * size for number, size in enumerate([0, 10, 125, 126, 4000, 65_535, 70_000])]
        for payload in payloads:
            outbox.send(frame(payload.encode()))
            outbox.send(ping_frame(b"ours"))
        outbox.send(close_frame(4200, "done"))
        for payload in payloads:
            assert [(await client.receive(timeout=5)).data for _ in range(2)] == [payload, b"ours"]
        closing = await client.receive(timeout=5)
        assert (closing.data, closing.extra) == (4200, "done")
        goodbye = await taker.next()
        assert isinstance(goodbye, WSMessage)
        assert goodbye.type is WSMsgType.CLOSE


async def test_what_comes_behind_the_request_is_not_lost() -> None:
    """Some phones do not wait for the answer to the upgrade. It may come in the same segment, or cut anywhere."""
    text = masked(b"first") + masked(b"x" * 500) + masked(b"last")
    async with serving() as bench:
        for cut in (len(UPGRADE), len(UPGRADE) + 3, len(UPGRADE) + 100, len(UPGRADE + text)):
            async with raw(bench) as (stream, writer):
                writer.write((UPGRADE + text)[:cut])
                taker = await bench.taker()
                writer.write((UPGRADE + text)[cut:])
                got = [await taker.next() for _ in range(3)]
                assert [one.data for one in got if isinstance(one, WSMessage)] == ["first", "x" * 500, "last"]
                assert (await stream.readline()).startswith(b"HTTP/1.1 101")
            await asyncio.wait_for(taker.lost.wait(), 5)


async def test_much_that_comes_behind_the_request_is_not_lost_either() -> None:
    """So much that aiohttp would stop reading until somebody has taken it."""
    async with serving() as bench, raw(bench) as (_, writer):
        writer.write(UPGRADE + b"".join(masked(b"%05d" % number + b"x" * 900) for number in range(2_000)))
        taker = await bench.taker()
        for number in range(2_000):
            message = await taker.next()
            assert isinstance(message, WSMessage)
            assert message.data.startswith(f"{number:05}")


async def test_aiohttp_keeps_nothing_of_the_connection_and_does_not_close_it() -> None:
    async with serving() as bench, connected(bench) as client:
        taker = await bench.taker()
        await client.send_str("still here")
        await taker.next()
        server = bench.runner.server
        assert server is not None
        assert not server.connections
        async with asyncio.timeout(5):
            while [task for task in asyncio.all_tasks() if "RequestHandler" in repr(task)]:
                await asyncio.sleep(0)
        gc.collect()
        [request] = bench.requests
        assert request() is None
        await bench.runner.shutdown()
        await client.send_str("and here")
        await taker.next()
        taker.transport.close()
        await asyncio.wait_for(taker.lost.wait(), 5)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (masked(b"x" * MAX_BYTES), None),
        (masked(b"x" * (MAX_BYTES + 1)), 1009),
        (masked(b"\xff"), 1007),
        (masked(b"x", first=0xC1), 1002),
        (masked(b"x", first=0x83), 1002),
        (masked(b"\x00", first=0x88), 1002),
    ],
)
async def test_what_is_not_websocket_is_told_once_with_the_code_that_says_why(what: bytes, code: int | None) -> None:
    async with serving() as bench, raw(bench) as (_, writer):
        writer.write(UPGRADE)
        taker = await bench.taker()
        writer.write(what + masked(b"after"))
        first = await taker.next()
        if code is None:
            assert isinstance(first, WSMessage)
            assert isinstance(await taker.next(), WSMessage)
        else:
            assert first == code
            writer.write(masked(b"more"))
            writer.write_eof()
            await asyncio.wait_for(taker.lost.wait(), 5)
            assert taker.messages.empty()


async def test_a_client_that_does_not_read_overflows_and_the_server_goes_on() -> None:
    """Nothing here waits for the client: neither the sender nor the loop."""
    async with serving() as bench, connected(bench) as client:
        taker = await bench.taker()
        assert client._conn is not None
        assert client._conn.transport is not None
        client._conn.transport.pause_reading()
        overflowed = asyncio.Event()
        outbox = Outbox(taker.transport, Flusher(make_metrics(CollectorRegistry())), 2**20, overflowed.set)
        while not overflowed.is_set():
            outbox.send(frame(b"x" * 60_000))
            await asyncio.sleep(0)
        assert taker.transport.get_write_buffer_size() <= 2**20
        taker.transport.abort()
        client._conn.transport.abort()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_does_not_yield_overtakes_what_does_on_a_slow_connection(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """And all of it arrives, what yields in its order."""

    async def story() -> None:
        async with serving() as bench, raw(bench) as (stream, writer):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            writer.write(UPGRADE)
            await stream.readuntil(b"\r\n\r\n")
            taker = await bench.taker()
            taker.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            outbox = Outbox(taker.transport, Flusher(make_metrics(CollectorRegistry())), 2**27, lambda: None)
            taker.resume_writing = outbox.drained  # type: ignore[method-assign]
            for number in range(1, 201):
                outbox.send(b"%b %04d;" % (b"b" * 50_000, number), yielding=True)
                await asyncio.sleep(0)
            outbox.send(b"reply;")
            outbox.send(b"end;", yielding=True)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            came = (await asyncio.wait_for(stream.readuntil(b"end;"), 20)).split(b";")[:-1]
            numbers = [int(each[-4:]) for each in came if each.startswith(b"b")]
            assert numbers == [*range(1, 201)]
            # Before it only what the sockets and the buffers of the loop have taken.
            assert came.index(b"reply") < 100
            taker.transport.abort()
            await asyncio.wait_for(taker.lost.wait(), 5)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())
