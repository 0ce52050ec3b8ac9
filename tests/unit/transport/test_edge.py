"""The edge over real sockets: what a client sees of connections and calls. Only the actors behind it are fakes."""

import asyncio
import gc
import json
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from structlog.testing import capture_logs

from haulcast.domain.broadcast import Place
from haulcast.domain.commands import Accept, Create, SendWave, TruckSpec
from haulcast.domain.control import Announcement, Audience, Pause, TenantControl
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.settings import InvalidSetting, TenantSettings
from haulcast.errors import ERRORS, ErrorCode, JournalUnavailable, RequestError
from haulcast.ports import ControlState, Role
from haulcast.transport.close_codes import CloseCode
from haulcast.transport.connection import MAX_WAITING, Connection
from haulcast.transport.http import ROUTES, Edge
from haulcast.transport.rates import Rates
from haulcast.transport.services import Services
from haulcast.transport.session import Limits
from haulcast.transport.websocket import GREETINGS_AT_ONCE
from tests.unit.transport.fakes import ACME, FAST, ManualClock, World, token

CREATE = {
    "pickup": {"lat": 28.61, "lng": 77.2},
    "drop": {"lat": 1, "lng": 2},
    "trucks": [{"vehicle_type": "flatbed", "count": 1}],
}


HAUL = Create(ACME, BroadcastId("b1"), CustomerId("c1"), Place(1, 1), Place(2, 2), (TruckSpec("flatbed", 1),))


class Client:
    """One WebSocket of a test."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def ask(self, request_id: str, request_type: str, **data: Any) -> None:
        await self.socket.send_json({"id": request_id, "type": request_type, "data": data})

    async def next(self) -> dict[str, Any]:
        message = await self.socket.receive(timeout=5)
        assert message.type is WSMsgType.TEXT, message
        decoded: dict[str, Any] = json.loads(message.data)
        return decoded

    async def reply(self, request_id: str | None) -> dict[str, Any]:
        while True:
            frame = await self.next()
            if "re" in frame and frame["re"] == request_id:
                return frame

    async def closed(self) -> tuple[int, str]:
        """The close code and reason; frames before it are passed over."""
        while (message := await self.socket.receive(timeout=5)).type is not WSMsgType.CLOSE:
            assert message.type in (WSMsgType.TEXT, WSMsgType.PING), message
        return message.data, message.extra or ""


class Server:
    """An edge that listens, and who can talk to it."""

    def __init__(self, world: World, http: aiohttp.ClientSession, url: str, edge: Edge) -> None:
        self.world, self.http, self.url, self.edge = world, http, url, edge

    def token(self, role: Role, user: str, **more: Any) -> str:
        return token(role, user, clock=self.world.clock, **more)

    async def connect(self, **options: Any) -> Client:
        return Client(await self.http.ws_connect(self.url + "/v1/ws", autoping=False, **options))

    async def greeted(self, role: Role, user: str, **data: Any) -> Client:
        client = await self.connect()
        await client.ask("hello", "hello", token=self.token(role, user), **data)
        assert (await client.next())["ok"]
        return client

    async def call(
        self, method: str, path: str, role: Role | None = None, user: str = "u1", body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        if role is not None:
            headers["Authorization"] = "Bearer " + self.token(role, user)
        data = body if isinstance(body, bytes | None) else json.dumps(body)
        async with self.http.request(method, self.url + path, data=data, headers=headers) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()


@asynccontextmanager
async def serving(change: Callable[[World], Services] = lambda world: world.services) -> AsyncIterator[Server]:
    """A server; afterwards nothing of it may be left."""
    world = World(clock=ManualClock(real=True))
    await world.add_fleet()
    edge = Edge(change(world))
    runner = web.AppRunner(edge.app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession() as http:
            yield Server(world, http, f"http://{host}:{port}", edge)
            await edge.close()
    finally:
        await runner.cleanup()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert world.hub.connection_count == 0
    assert world.count("connections") == 0


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def masked(payload: bytes) -> bytes:
    """A client's text frame, masked with nothing."""
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
    return b"\x81" + length + bytes(4) + payload


def socket_of(client: Client) -> asyncio.Transport:
    """The client's own end, to do with it what a library would not."""
    assert client.socket._conn is not None
    assert client.socket._conn.transport is not None
    return client.socket._conn.transport


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


class TestHello:
    async def test_only_so_many_are_greeted_at_once_and_who_is_connected_is_served_meanwhile(
        self, server: Server
    ) -> None:
        """When thousands come back together, the others do not wait until all of them are in."""
        before = await server.greeted(Role.CUSTOMER, "c1")
        server.world.journal.gate.clear()
        newcomers = [await server.connect() for _ in range(GREETINGS_AT_ONCE + 4)]
        for number, client in enumerate(newcomers):
            await client.ask("hello", "hello", token=server.token(Role.TRANSPORTER, f"t{number}"))
        await until(lambda: server.world.hub.connection_count == 1 + GREETINGS_AT_ONCE)
        await before.ask("r1", "ping")
        assert (await before.next())["ok"]
        assert server.world.hub.connection_count == 1 + GREETINGS_AT_ONCE
        server.world.journal.gate.set()
        for client in newcomers:
            assert (await client.next())["ok"]

    async def test_what_is_sent_right_behind_it_is_answered_after_it_in_order(self, server: Server) -> None:
        client = await server.connect()
        server.world.journal.gate.clear()
        await client.ask("r1", "hello", token=server.token(Role.TRANSPORTER, "t1"))
        for request_id in ("r2", "r3"):
            await client.ask(request_id, "ping")
        await until(lambda: server.world.hub.connection_count == 1)
        server.world.journal.gate.set()
        assert [(await client.next()).get("re") for _ in range(4)] == ["r1", None, "r2", "r3"]

    async def test_nothing_more_is_read_until_it_is_answered(self, server: Server) -> None:
        """Also behind a hello that came with the upgrade: whoever sends on fills its own buffers, not the server's."""
        server.world.journal.gate.clear()
        hello = {"id": "r1", "type": "hello", "data": {"token": server.token(Role.TRANSPORTER, "t1")}}
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(UPGRADE + masked(json.dumps(hello).encode()))
        await until(lambda: server.world.hub.connection_count == 1)
        (connection,) = server.world.hub.connections
        assert isinstance(connection, Connection)
        for _ in range(20):
            writer.write(masked(b'{"id":"r2","type":"ping"}') * 5)
            await asyncio.sleep(0)
        assert len(connection._waiting) == 0
        server.world.journal.gate.set()
        while b'"r2"' not in await reader.read(65_536):
            pass
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def test_who_floods_before_it_is_answered_is_closed(self, server: Server) -> None:
        client = await server.connect()
        server.world.journal.gate.clear()
        socket_of(client).write(
            b"".join(
                masked(json.dumps(frame).encode())
                for frame in (
                    {"id": "r1", "type": "hello", "data": {"token": server.token(Role.TRANSPORTER, "t1")}},
                    *({"id": f"r{number}", "type": "ping"} for number in range(MAX_WAITING + 1)),
                )
            )
        )
        assert (await client.closed())[0] == 4129
        server.world.journal.gate.set()

    async def test_is_answered_first_and_then_come_the_snapshots(self, server: Server) -> None:
        client = await server.connect(protocols=("other", "haulcast.v1.json"))
        assert client.socket.protocol == "haulcast.v1.json"
        await client.ask("r1", "hello", token=server.token(Role.TRANSPORTER, "t1"))
        first, second = await client.next(), await client.next()
        data = first["data"]
        assert first == {"re": "r1", "ok": True, "data": data}
        assert data.pop("session")
        assert abs(data.pop("server_time") - server.world.clock.now_ms()) < 1000
        assert data == {
            "role": "transporter",
            "user": "t1",
            "tenant": "acme",
            "heartbeat_s": 25,
            "topics": ["feed:t1"],
            "resumed": [],
        }
        assert (second["type"], second["topic"]) == ("snapshot", "feed:t1")
        assert server.world.availability.heard == ["t1"]

    @pytest.mark.parametrize(
        ("given", "code", "close"),
        [
            ({"tenant": "nowhere"}, "TENANT_NOT_FOUND", 4003),
            ({"lifetime_s": -1}, "UNAUTHENTICATED", 4001),
        ],
    )
    async def test_with_a_token_that_is_no_good_closes(
        self, server: Server, given: dict[str, Any], code: str, close: int
    ) -> None:
        client = await server.connect()
        await client.ask("r1", "hello", token=server.token(Role.CUSTOMER, "c1", **given))
        reply = await client.next()
        assert (reply["re"], reply["ok"], reply["error"]["code"]) == ("r1", False, code)
        assert (await client.closed())[0] == close

    async def test_of_an_admin_needs_no_tenant(self, server: Server) -> None:
        client = await server.connect()
        await client.ask("r1", "hello", token=server.token(Role.ADMIN, "root", tenant="nowhere"))
        assert (await client.next())["ok"]

    @pytest.mark.parametrize("error", [JournalUnavailable(), RuntimeError("bug")])
    async def test_that_could_not_be_answered_may_be_sent_again(self, server: Server, error: Exception) -> None:
        known = server.world.tenants.control_of
        server.world.services.tenants.control_of = _raising(error)  # type: ignore[method-assign, assignment]
        client = await server.connect()
        await client.ask("r1", "hello", token=server.token(Role.CUSTOMER, "c1"))
        expected = "UNAVAILABLE" if isinstance(error, JournalUnavailable) else "INTERNAL"
        assert (await client.next())["error"]["code"] == expected
        server.world.services.tenants.control_of = known  # type: ignore[method-assign]
        await client.ask("r1", "hello", token=server.token(Role.CUSTOMER, "c1"))
        assert (await client.next())["ok"]

    async def test_that_fails_half_way_leaves_no_subscription_and_shows_nothing(self, server: Server) -> None:
        greet = server.world.hub.greet

        async def fail(*arguments: Any) -> list[str]:
            await greet(*arguments)
            raise JournalUnavailable

        server.world.hub.greet = fail  # type: ignore[method-assign, assignment]
        client = await server.connect()
        await client.ask("r1", "hello", token=server.token(Role.TRANSPORTER, "t1"))
        assert (await client.next())["error"]["code"] == "UNAVAILABLE"
        assert (server.world.hub.connection_count, server.world.hub.topic_count) == (0, 0)
        server.world.hub.greet = greet  # type: ignore[method-assign]
        await client.ask("r2", "hello", token=server.token(Role.TRANSPORTER, "t1"))
        assert (await client.next())["re"] == "r2"

    async def test_that_fails_half_way_costs_no_other_connection_its_place(self, server: Server) -> None:
        oldest, *_ = [await server.greeted(Role.DRIVER, "d1") for _ in range(5)]
        greet = server.world.hub.greet

        async def fail(*arguments: Any) -> list[str]:
            await greet(*arguments)
            raise JournalUnavailable

        server.world.hub.greet = fail  # type: ignore[method-assign, assignment]
        sixth = await server.connect()
        await sixth.ask("r1", "hello", token=server.token(Role.DRIVER, "d1"))
        assert (await sixth.next())["error"]["code"] == "UNAVAILABLE"
        assert server.world.hub.connection_count == 5
        server.world.hub.greet = greet  # type: ignore[method-assign]
        await sixth.ask("r2", "hello", token=server.token(Role.DRIVER, "d1"))
        assert (await sixth.reply("r2"))["ok"]
        assert (await oldest.closed())[0] == 4009
        assert server.world.hub.connection_count == 5

    async def test_that_takes_too_long_is_answered_unavailable(self) -> None:
        async with serving(lambda world: world.with_(limits=FAST)) as server:
            server.world.services.tenants.control_of = _hanging  # type: ignore[method-assign, assignment]
            client = await server.connect()
            await client.ask("r1", "hello", token=server.token(Role.CUSTOMER, "c1"))
            assert (await client.next())["error"]["code"] == "UNAVAILABLE"
            assert (await client.closed())[0] == 4004

    async def test_may_be_followed_by_requests_without_waiting(self, server: Server) -> None:
        client = await server.connect()
        await client.ask("r1", "hello", token=server.token(Role.CUSTOMER, "c1"))
        await client.ask("r2", "ping")
        assert [(await client.next())["re"], (await client.next())["re"]] == ["r1", "r2"]

    async def test_from_a_sixth_connection_closes_the_oldest(self, server: Server) -> None:
        clients = [await server.greeted(Role.DRIVER, "d1") for _ in range(5)]
        others = await asyncio.gather(*(server.greeted(Role.DRIVER, "d1") for _ in range(2)))
        assert [(await client.closed())[0] for client in clients[:2]] == [4009, 4009]
        for client in (*clients[2:], *others):
            await client.ask("r", "ping")
            await client.reply("r")


class TestClosing:
    async def test_who_only_sends_frames_that_make_no_message_is_closed(self, server: Server) -> None:
        """They take no token of the rate limit."""
        client = await server.greeted(Role.CUSTOMER, "c1")
        socket_of(client).write(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 30_000)
        assert (await client.closed())[0] == 1009

    async def test_a_connection_that_has_ended_is_freed_at_once(self, server: Server) -> None:
        """With what it had of a message: the collector comes late, since it was told to."""
        client = await server.greeted(Role.CUSTOMER, "c1")
        (connection,) = server.world.hub.connections
        gone = weakref.ref(connection)
        del connection
        socket_of(client).write(masked(b"x" * 60_000)[:50_000])
        await client.ask("late", "ping")
        gc.collect()
        gc.disable()
        try:
            socket_of(client).abort()
            await until(lambda: server.world.hub.connection_count == 0)
            await until(lambda: gone() is None)
        finally:
            gc.enable()

    async def test_who_goes_on_sending_after_it_was_closed_is_cut_off(self) -> None:
        """Instead of saying goodbye: nobody parses that for long."""
        async with serving(lambda world: world.with_(limits=Limits(max_frame_bytes=1000))) as server:
            client = await server.greeted(Role.CUSTOMER, "c1")
            transport = socket_of(client)
            transport.pause_reading()
            (connection,) = server.world.hub.connections
            assert isinstance(connection, Connection)
            connection.close(4200, "retry_in_s=1")
            transport.write(masked(b"x" * 100) * 20)
            await until(lambda: server.world.hub.connection_count == 0)
            transport.abort()

    @pytest.mark.parametrize("frame", ["ping", b"binary"])
    async def test_a_first_frame_that_is_no_hello(self, server: Server, frame: str | bytes) -> None:
        client = await server.connect()
        if isinstance(frame, bytes):
            await client.socket.send_bytes(frame)
        else:
            await client.ask("r1", frame)
        assert (await client.closed())[0] == (4005 if isinstance(frame, bytes) else 4004)

    async def test_without_a_hello(self) -> None:
        async with serving(lambda world: world.with_(limits=FAST)) as server:
            assert (await (await server.connect()).closed())[0] == 4004

    async def test_a_silent_client_is_pinged_and_closed_and_one_that_answers_is_not(self) -> None:
        async with serving(lambda world: world.with_(limits=FAST)) as server:
            silent, alive = await server.greeted(Role.DRIVER, "d1"), await server.greeted(Role.DRIVER, "d2")
            seen: list[WSMsgType] = []

            async def answer() -> None:
                while (message := await alive.socket.receive()).type is not WSMsgType.CLOSE:
                    seen.append(message.type)
                    if message.type is WSMsgType.PING:
                        await alive.socket.pong(message.data)

            answering = asyncio.create_task(answer())
            assert (await silent.closed())[0] == 4202
            await until(lambda: seen.count(WSMsgType.PING) >= 6)
            assert not alive.socket.closed
            await server.edge.close()
            await answering

    async def test_at_the_end_of_the_token(self, server: Server) -> None:
        client = await server.connect()
        await client.ask("r1", "hello", token=server.token(Role.DRIVER, "d1", lifetime_s=1))
        assert (await client.next())["ok"]
        assert await client.closed() == (4001, "token expired")

    async def test_draining_says_when_to_come_back_and_turns_newcomers_away(self, server: Server) -> None:
        client = await server.greeted(Role.DRIVER, "d1")
        closing = asyncio.create_task(server.edge.close(retry_in_s=3))
        assert await client.closed() == (4200, "retry_in_s=3")
        await closing
        assert await (await server.connect()).closed() == (4200, "retry_in_s=3")

    async def test_a_node_that_is_given_up_sends_all_away_and_goes_on(self, server: Server) -> None:
        clients = [await server.greeted(Role.DRIVER, f"d{number}") for number in range(4)]
        server.edge.dismiss(CloseCode.NODE_LOST, over_s=0.2)
        newcomer = await server.greeted(Role.DRIVER, "d9")
        started = asyncio.get_running_loop().time()
        assert [await client.closed() for client in clients] == [(4201, "retry_in_s=0")] * 4
        assert asyncio.get_running_loop().time() - started > 0.1
        await newcomer.ask("r1", "ping")
        assert (await newcomer.reply("r1"))["ok"]

    async def test_draining_is_spread_over_time(self, server: Server) -> None:
        clients = [await server.greeted(Role.DRIVER, f"d{number}") for number in range(8)]
        times = []

        async def watch(client: Client) -> None:
            await client.closed()
            times.append(asyncio.get_running_loop().time())

        watching = [asyncio.create_task(watch(client)) for client in clients]
        await server.edge.close(spread_s=0.4)
        await asyncio.gather(*watching)
        assert max(times) - min(times) > 0.25

    async def test_what_was_sent_before_the_close_arrives_before_it(self, server: Server) -> None:
        client = await server.greeted(Role.DRIVER, "d1")
        await client.ask("r1", "ping")
        await client.socket.send_bytes(b"x")
        assert (await client.reply("r1"))["ok"]
        assert (await client.closed())[0] == 4005

    async def test_a_client_that_does_not_read_is_a_slow_consumer_and_is_cut_off(self) -> None:
        async with serving(lambda world: world.with_(limits=replace(FAST, max_queued_bytes=100_000))) as server:
            client = await server.greeted(Role.DRIVER, "d1")
            (connection,) = server.world.hub.connections
            transport = socket_of(client)
            transport.pause_reading()
            while server.world.hub.connection_count:
                connection.send(b"\x81\x7e\xea\x60" + b"x" * 60_000)
                await asyncio.sleep(0)
            assert server.world.count("slow_total") == 1
            transport.abort()

    async def test_a_peer_that_never_answers_the_close_is_cut_off(self) -> None:
        async with serving(lambda world: world.with_(limits=FAST)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
            writer.write(
                b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            everything = await asyncio.wait_for(reader.read(), 5)
            assert struct.pack("!H", 4004) in everything
            writer.close()
            await writer.wait_closed()

    @pytest.mark.parametrize(("frame", "close"), [("x" * 65_537, 1009), (b"\x81\x81\0\0\0\0\xff", 1007)])
    async def test_frames_that_are_no_frames(self, server: Server, frame: str | bytes, close: int) -> None:
        client = await server.greeted(Role.DRIVER, "d1")
        if isinstance(frame, bytes):
            socket_of(client).write(frame)
        else:
            await client.socket.send_str(frame)
        assert (await client.closed())[0] == close

    async def test_closing_the_edge_waits_for_the_end_of_all(self, server: Server) -> None:
        for number in range(3):
            await server.greeted(Role.DRIVER, f"d{number}")
        await server.edge.close()
        assert server.world.hub.connection_count == 0
        assert asyncio.all_tasks() <= {asyncio.current_task(), *(t for t in asyncio.all_tasks() if "http" in repr(t))}

    async def test_a_client_that_closes_but_does_not_read_is_cut_off(self) -> None:
        limits = Limits(max_queued_bytes=10**8, close_within_s=0.2)
        async with serving(lambda world: world.with_(limits=limits)) as server:
            client = await server.greeted(Role.DRIVER, "d1")
            (connection,) = server.world.hub.connections
            assert isinstance(connection, Connection)
            transport = socket_of(client)
            transport.pause_reading()
            for _ in range(300):
                connection.send(b"\x81\x7e\xea\x60" + b"x" * 60_000)
            await until(lambda: connection._transport.get_write_buffer_size() > 10**6)
            await client.socket._writer.close(1000)
            await until(lambda: server.world.hub.connection_count == 0)
            await until(lambda: connection._transport.get_extra_info("socket").fileno() == -1)
            transport.abort()

    async def test_nothing_is_left_when_the_client_just_goes(self, server: Server) -> None:
        """Not even a task of its own that is still reading; a command that it sent goes on."""
        client = await server.greeted(Role.OPERATOR, "op1")
        server.world.journal.gate.clear()
        await client.ask("r1", "subscribe", topic="feed:t1")
        await until(lambda: server.world.hub.topic_count == 1)
        socket_of(client).abort()
        await until(lambda: server.world.hub.connection_count == 0)
        assert server.world.hub.topic_count == 0
        await until(lambda: not any("_subscribed" in repr(task) for task in asyncio.all_tasks()))

    async def test_who_goes_while_a_missed_broadcast_is_read_for_them_is_passed_over(self, server: Server) -> None:
        client, world = await server.greeted(Role.CUSTOMER, "c1"), server.world
        await world.store(HAUL)
        world.journal.gate.clear()
        with capture_logs() as logs:
            world.hub.refresh()
            await until(lambda: world.hub.topic_count == 1)
            gone = [weakref.ref(connection) for connection in world.hub.connections]
            socket_of(client).abort()
            await until(lambda: world.hub.connection_count == 0)
            world.journal.gate.set()
            await until(lambda: [reference() for reference in gone] == [None])
        assert [line for line in logs if line["log_level"] == "error"] == []
        assert world.hub.topic_count == 0

    async def test_an_accept_goes_on_when_its_client_has_gone(self, server: Server) -> None:
        client = await server.greeted(Role.TRANSPORTER, "t1")
        server.world.journal.gate.clear()
        await client.ask("r1", "offer.accept", broadcast_id="b1", vehicle_id="v1", driver_id="d1")
        await until(lambda: server.world.journal.fleet_reads == 1)
        socket_of(client).abort()
        await until(lambda: server.world.hub.connection_count == 0)
        server.world.journal.gate.set()
        await until(lambda: len(server.world.dispatcher.asked) == 1)
        server.world.dispatcher.futures[0].set_result(Done())

    async def test_no_timer_keeps_a_connection_that_has_ended(self, server: Server) -> None:
        client = await server.greeted(Role.DRIVER, "d1")
        (connection,) = server.world.hub.connections
        ended = weakref.ref(connection)
        del connection
        await client.socket.close()
        await until(lambda: server.world.hub.connection_count == 0)
        await asyncio.sleep(0.01)
        gc.collect()
        assert ended() is None


class TestOrigins:
    @pytest.mark.parametrize(
        ("listed", "origin", "allowed"),
        [
            ((), None, True),
            ((), "https://evil.example", False),
            (("https://app.example",), "https://app.example", True),
            (("https://app.example",), "https://APP.example", True),
            (("https://app.example",), "https://app.example.evil", False),
            (("https://app.example",), "http://app.example", False),
            (("https://app.example",), "null", False),
            (("*",), "https://any.example", True),
            ((), "OWN", True),
        ],
    )
    async def test_decide_who_may_connect_and_call(
        self, listed: tuple[str, ...], origin: str | None, allowed: bool
    ) -> None:
        async with serving(lambda world: world.with_(origins=frozenset(listed))) as server:
            origin = server.url if origin == "OWN" else origin
            client = await server.connect(origin=origin)
            await client.ask("r1", "hello", token=server.token(Role.CUSTOMER, "c1"))
            if allowed:
                assert (await client.next())["ok"]
            else:
                assert await client.closed() == (4003, "origin not allowed")
            if origin is not None:
                preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                async with server.http.options(server.url + "/v1/broadcasts", headers=preflight) as response:
                    assert response.status == 204
                    assert (response.headers.get("Access-Control-Allow-Origin") == origin) is allowed
                    assert ("Access-Control-Allow-Methods" in response.headers) is allowed
                async with server.http.get(server.url + "/health/live", headers={"Origin": origin}) as response:
                    assert (response.headers.get("Access-Control-Allow-Origin") == origin) is allowed
                    assert response.headers["Vary"] == "Origin"


class TestRequests:
    async def test_a_bad_frame_is_answered_and_the_connection_goes_on(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        await client.socket.send_str("{")
        assert (await client.next())["error"]["code"] == "BAD_JSON"
        await client.ask("r2", "no.such")
        assert (await client.reply("r2"))["error"]["code"] == "UNKNOWN_TYPE"
        await client.ask("r3", "broadcast.create", **{**CREATE, "pickup": {"lat": 91, "lng": 0}})
        error = (await client.reply("r3"))["error"]
        assert (error["code"], error["data"], error["retry"]) == ("BAD_REQUEST", {"field": "data.pickup.lat"}, False)
        await client.ask("r4", "ping")
        assert (await client.reply("r4"))["ok"]
        assert server.world.count("bad_frames_total", code="BAD_JSON") == 1

    async def test_replies_come_when_their_futures_end(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        await client.ask("r1", "broadcast.create", **CREATE)
        await client.ask("r2", "broadcast.cancel", broadcast_id="b1")
        await until(lambda: len(server.world.dispatcher.futures) == 2)
        server.world.dispatcher.futures[1].set_result(Refused(Refusal.BROADCAST_NOT_FOUND))
        assert (await client.next())["error"]["code"] == "BROADCAST_NOT_FOUND"
        server.world.dispatcher.futures[0].set_result(Done({"broadcast_id": "b-new"}))
        assert await client.next() == {"re": "r1", "ok": True, "data": {"broadcast_id": "b-new"}}
        assert server.world.count("requests_total", type="broadcast.create", outcome="ok") == 1
        assert server.world.count("requests_total", type="broadcast.cancel", outcome="BROADCAST_NOT_FOUND") == 1

    @pytest.mark.parametrize(
        ("failure", "code"),
        [
            (RequestError(ErrorCode.BUSY), "BUSY"),
            (JournalUnavailable(), "UNAVAILABLE"),
            (RuntimeError("secret of the payload"), "INTERNAL"),
            (None, "UNAVAILABLE"),
        ],
    )
    async def test_whatever_goes_wrong_is_answered(self, server: Server, failure: Exception | None, code: str) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        await client.ask("r1", "broadcast.cancel", broadcast_id="b1")
        await until(lambda: bool(server.world.dispatcher.futures))
        if failure is None:
            server.world.dispatcher.futures[0].cancel()
        else:
            server.world.dispatcher.futures[0].set_exception(failure)
        error = (await client.next())["error"]
        assert (error["code"], error["message"]) == (code, ERRORS[ErrorCode(code)].message)

    async def test_an_answer_that_cannot_be_written_is_an_internal_error(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        await client.ask("r1", "broadcast.cancel", broadcast_id="b1")
        await until(lambda: bool(server.world.dispatcher.futures))
        server.world.dispatcher.futures[0].set_result(Done({"x": object()}))  # type: ignore[dict-item]
        assert (await client.next())["error"]["code"] == "INTERNAL"

    async def test_an_answer_after_the_end_hurts_nobody(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        for request_id in ("r1", "r2"):
            await client.ask(request_id, "broadcast.cancel", broadcast_id="b1")
        await until(lambda: len(server.world.dispatcher.futures) == 2)
        await client.socket.close()
        await until(lambda: server.world.hub.connection_count == 0)
        first, second = server.world.dispatcher.futures
        assert not first.cancelled()
        first.set_result(Done())
        second.set_exception(RequestError(ErrorCode.BUSY))
        await asyncio.sleep(0)
        assert server.world.count("requests_total", type="broadcast.cancel", outcome="ok") == 1

    async def test_more_in_flight_than_allowed_are_busy(self) -> None:
        async with serving(lambda world: world.with_(limits=Limits(max_in_flight=1))) as server:
            client = await server.greeted(Role.CUSTOMER, "c1")
            await client.ask("r1", "broadcast.cancel", broadcast_id="b1")
            await client.ask("r2", "ping")
            assert (await client.reply("r2"))["error"]["code"] == "BUSY"
            server.world.dispatcher.futures[0].set_result(Done())
            assert (await client.reply("r1"))["ok"]
            await client.ask("r3", "ping")
            assert (await client.reply("r3"))["ok"]

    async def test_a_flood_is_refused_and_then_closed(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        for number in range(500):
            await client.ask(str(number), "ping")
        replies, last = [], None
        while (last := await client.socket.receive(timeout=5)).type is WSMsgType.TEXT:
            replies.append(json.loads(last.data))
        assert last.data == 4129
        assert [reply["re"] for reply in replies] == [str(number) for number in range(len(replies))]
        assert sum(not reply["ok"] for reply in replies) == 201

    async def test_topics_come_and_go(self, server: Server) -> None:
        client = await server.greeted(Role.OPERATOR, "op1")
        await client.ask("r1", "subscribe", topic="feed:t1")
        frames = [await client.next(), await client.next()]
        assert {frame.get("type", "reply") for frame in frames} == {"snapshot", "reply"}
        await client.ask("r2", "subscribe", topic="broadcast:none")
        assert (await client.reply("r2"))["error"]["code"] == "TOPIC_NOT_FOUND"
        await client.ask("r3", "unsubscribe", topic="feed:t1")
        assert (await client.reply("r3"))["data"] == {"topic": "feed:t1"}
        assert server.world.hub.topic_count == 0

    async def test_an_ack_is_silent_unless_it_could_not_be_meant(self, server: Server) -> None:
        client = await server.greeted(Role.TRANSPORTER, "t1")
        version = (await client.next())["version"]
        await client.socket.send_json({"type": "ack", "data": {"topic": "feed:t1", "version": version}})
        await client.ask("a2", "ack", topic="feed:gone", version=version)
        await client.ask("r3", "ping")
        assert (await client.next())["re"] == "r3"
        await client.ask("a4", "ack", topic="feed:t1", version=[version[0] + 1, 0])
        assert (await client.next())["error"]["code"] == "BAD_REQUEST"

    async def test_presence_is_told_of_a_transporter_now_and_then(self, server: Server) -> None:
        client = await server.greeted(Role.TRANSPORTER, "t1")
        for number in range(3):
            await client.ask(str(number), "ping")
            await client.reply(str(number))
        assert server.world.availability.heard == ["t1"]

    async def test_pings_are_answered_in_order(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        await client.ask("r1", "ping")
        await client.socket.ping(b"now")
        await client.ask("r2", "ping")
        got = [await client.socket.receive(timeout=5) for _ in range(3)]
        assert [message.type for message in got] == [WSMsgType.TEXT, WSMsgType.PONG, WSMsgType.TEXT]
        assert got[1].data == b"now"


class TestLogs:
    async def test_name_the_code_and_who_but_never_payload_or_token(self, server: Server) -> None:
        with capture_logs() as lines:
            client = await server.greeted(Role.CUSTOMER, "c1")
            await client.ask("r1", "broadcast.create", **{**CREATE, "note": "SECRET" * 100})
            await client.reply("r1")
            await client.ask("r2", "broadcast.cancel", broadcast_id="SECRET")
            await until(lambda: bool(server.world.dispatcher.futures))
            server.world.dispatcher.futures[0].set_exception(RequestError(ErrorCode.BUSY))
            await client.reply("r2")
            bad = await server.connect()
            await bad.ask("r3", "hello", token="SECRET")
            await bad.closed()
            await server.call("POST", "/v1/location", Role.DRIVER, "d1", {"vehicle_id": "SECRET!"})
        assert "SECRET" not in repr(lines)
        assert {"event": "frame_refused", "code": "BAD_REQUEST", "request_id": "r1", "log_level": "info"}.items() <= (
            lines[0].items()
        )
        assert (lines[0]["tenant"], lines[0]["user"]) == ("acme", "c1")
        assert [line.get("code") for line in lines] == ["BAD_REQUEST", "BUSY", 4001, "BAD_REQUEST"]


def put_in_force(server: Server, settings: TenantSettings) -> None:
    """As the runtime does when an operator has changed settings."""
    before = server.world.tenants.controls[ACME]
    after = replace(before, settings=settings, version=before.version + 1)
    server.world.tenants.controls[ACME] = after
    server.world.hub.control_changed(ACME, before, after)


async def outcome(client: Client) -> str:
    """How a ping is answered."""
    await client.ask("q", "ping")
    reply = await client.reply("q")
    return "ok" if reply["ok"] else str(reply["error"]["code"])


class TestControl:
    async def pause(self, server: Server, **fields: Any) -> tuple[int, Any]:
        path, key = "/v1/control/pause", {"Idempotency-Key": "k1"}
        return await server.call("POST", path, Role.OPERATOR, "op1", fields, **key)

    @pytest.mark.parametrize(("complete", "status"), [(True, 200), (False, 202)])
    async def test_a_command_that_some_node_has_not_followed_is_accepted_and_not_done(
        self, server: Server, complete: bool, status: int
    ) -> None:
        server.world.controller.reply = Done({"complete": complete})
        answer = await self.pause(server)
        assert answer == (status, {"complete": complete})
        [(tenant, command, origin, expected)] = server.world.controller.asked
        assert (tenant, command, origin.key.request_id, expected) == (ACME, Pause(), "k1", None)

    async def test_by_socket_and_by_call_it_has_the_same_origin(self, server: Server) -> None:
        await self.pause(server, expected_version=3)
        operator = await server.greeted(Role.OPERATOR, "op1")
        await operator.ask("k1", "control.pause", expected_version=3)
        assert (await operator.reply("k1"))["ok"]
        first, second = server.world.controller.asked
        assert first == second

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=many", "limit"),
            ("before=-1", "before"),
            ("before=x", "before"),
        ],
    )
    @pytest.mark.parametrize("path", ["/v1/control", "/v1/settings/history"])
    async def test_a_wrong_query_parameter_is_named(self, server: Server, path: str, query: str, field: str) -> None:
        status, body = await server.call("GET", f"{path}?{query}", Role.OPERATOR, "op1")
        assert (status, body["error"]["code"], body["error"]["data"]) == (
            400,
            "BAD_REQUEST",
            {"field": f"query.{field}"},
        )

    async def test_a_setting_that_cannot_work_is_named_as_its_request_calls_it(self, server: Server) -> None:
        server.world.controller.error = InvalidSetting("wave_interval_s", 0, "0.1 to 3600")
        body = {"settings": {"wave_interval_s": 0}, "expected_version": 1}
        key = {"Idempotency-Key": "k1"}
        _, answer = await server.call("PATCH", "/v1/settings", Role.OPERATOR, "op1", body, **key)
        assert answer["error"]["data"] == {"field": "body.settings.wave_interval_s"}
        assert answer["error"]["message"] == "body.settings.wave_interval_s: expected 0.1 to 3600"
        _, answer = await server.call("POST", "/v1/control/switch_mode", Role.OPERATOR, "op1", {"mode": "x"}, **key)
        assert answer["error"]["data"] == {"field": "body.mode"}
        operator = await server.greeted(Role.OPERATOR, "op1")
        await operator.ask("k2", "settings.patch", **body)
        assert (await operator.reply("k2"))["error"]["data"] == {"field": "data.settings.wave_interval_s"}

    async def test_an_announcement_reaches_its_role_and_whoever_comes_while_it_is_valid(self, server: Server) -> None:
        """Right behind the answer to the hello, in the order in which they were announced."""
        now_ms = server.world.clock.now_ms()
        transporter = await server.greeted(Role.TRANSPORTER, "t1")
        assert (await transporter.next())["type"] == "snapshot"
        driver, operator = await server.greeted(Role.DRIVER, "d1"), await server.greeted(Role.OPERATOR, "op1")
        assert (await driver.next())["type"] == "snapshot"
        before = server.world.tenants.controls[ACME]
        after = replace(
            before,
            version=2,
            announcements=(
                Announcement("a0", Audience.TRANSPORTER, "Gone", now_ms - 2_000, now_ms - 1_000),
                Announcement("a1", Audience.TRANSPORTER, "Fog", now_ms, now_ms + 60_000),
                Announcement("a2", Audience.TRANSPORTER, "Ice", now_ms, now_ms + 60_000),
            ),
        )
        server.world.tenants.controls[ACME] = after
        server.world.hub.control_changed(ACME, replace(before, announcements=after.announcements[:1]), after)
        told = [await transporter.next(), await transporter.next()]
        assert [(one["type"], one["data"]["announcement_id"]) for one in told] == [
            ("announcement", "a1"),
            ("announcement", "a2"),
        ]
        assert set(told[0]) == {"type", "server_time", "data"}
        assert told[0]["data"] == {"announcement_id": "a1", "text": "Fog", "at": now_ms, "expires_at": now_ms + 60_000}
        assert [await outcome_next(client) for client in (driver, operator)] == ["ping", "ping"]
        newcomer = await server.connect()
        await newcomer.ask("h", "hello", token=server.token(Role.TRANSPORTER, "t2"))
        first = [await newcomer.next() for _ in range(4)]
        assert first[0]["re"] == "h"
        assert [one["data"]["announcement_id"] for one in first if one.get("type") == "announcement"] == ["a1", "a2"]

    async def test_whoever_watches_is_told_what_changes(self, server: Server) -> None:
        operator = await server.greeted(Role.OPERATOR, "op1")
        await operator.ask("s", "subscribe", topic="control:acme")
        snapshot = await operator.next()
        assert snapshot["data"]["nodes"] == {"1": {"node": 1, "version": 1}}
        after = replace(TenantControl(), version=2, paused=True)
        server.world.hub.state_changed(ACME, ControlState(after, {1: 2}))
        await operator.reply("s")
        delta = await operator.next()
        assert delta["data"]["set"] == {"/version": 2, "/paused": True, "/nodes/1/version": 2}


async def outcome_next(client: Client) -> str:
    """Which request the very next frame answers."""
    await client.ask("ping", "ping")
    return str((await client.next())["re"])


class TestRest:
    async def test_every_route_needs_a_token(self, server: Server) -> None:
        for route in ROUTES:
            status, body = await server.call(route.method, route.path.replace("{", "").replace("}", ""))
            assert (status, body["error"]["code"]) == (401, "UNAUTHENTICATED"), route

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer ", "Bearer x", "Basic dTpw", "bearer\tx", "Bearer x.y.z trailing"]
    )
    async def test_a_bad_token_is_refused(self, server: Server, header: str) -> None:
        status, body = await server.call("GET", "/v1/offers", Authorization=header)
        assert (status, body["error"]["code"]) == (401, "UNAUTHENTICATED")

    async def test_a_phone_that_floods_is_refused_and_nobody_else_is(self) -> None:
        few = Limits(burst_requests=3, requests_per_s=0.001)
        async with serving(lambda world: world.with_(limits=few, rates=Rates(few))) as server:
            statuses = [(await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1"))[0] for _ in range(4)]
            assert statuses == [200, 200, 200, 429]
            assert (await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t2"))[0] == 200
            operator = [(await server.call("GET", "/v1/broadcasts", Role.OPERATOR, "o1"))[0] for _ in range(4)]
            assert operator == [200] * 4

    async def test_a_rate_that_the_tenant_sets_holds_at_once_for_calls_and_open_connections(
        self, server: Server
    ) -> None:
        phone, console = await server.greeted(Role.DRIVER, "d1"), await server.greeted(Role.OPERATOR, "o1")
        assert (await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1"))[0] == 200
        put_in_force(server, TenantSettings(requests_per_s=0.1, request_burst=2))
        statuses = [(await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1"))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert [await outcome(phone) for _ in range(3)] == ["ok", "ok", "RATE_LIMITED"]
        newcomer = await server.greeted(Role.DRIVER, "d2")
        assert [await outcome(newcomer) for _ in range(3)] == ["ok", "ok", "RATE_LIMITED"]
        assert [await outcome(console) for _ in range(9)] == ["ok"] * 9
        put_in_force(server, TenantSettings())
        await asyncio.sleep(0.1)  # at 50 a second
        assert [await outcome(phone) for _ in range(3)] == ["ok"] * 3
        assert (await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1"))[0] == 200

    async def test_a_tenant_cannot_set_a_rate_above_the_servers_own(self) -> None:
        few = Limits(burst_requests=3, requests_per_s=0.001)
        rates = Rates(few)
        async with serving(lambda world: world.with_(limits=few, rates=rates)) as server:
            rates.change(ACME, TenantSettings())
            server.world.tenants.controls[ACME] = TenantControl(
                TenantSettings(requests_per_s=10_000, request_burst=10_000)
            )
            phone = await server.greeted(Role.DRIVER, "d1")
            calls = [(await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1"))[0] for _ in range(4)]
            rates.change(ACME, TenantSettings(requests_per_s=9_999, request_burst=9_999))
            assert calls == [200, 200, 200, 429]
            assert [await outcome(phone) for _ in range(4)] == [
                "ok",
                "ok",
                "RATE_LIMITED",
                "RATE_LIMITED",
            ]  # hello was one

    async def test_a_good_token_in_another_scheme_is_refused(self, server: Server) -> None:
        header = "Basic " + server.token(Role.TRANSPORTER, "t1")
        assert (await server.call("GET", "/v1/offers", Authorization=header))[0] == 401

    async def test_a_call_that_still_reads_when_the_edge_closes_is_answered(self, server: Server) -> None:
        server.world.journal.gate.clear()
        here = {"vehicle_id": "v1", "lat": 1, "lng": 2}
        calling = asyncio.create_task(server.call("POST", "/v1/location", Role.TRANSPORTER, "t1", here))
        await until(lambda: server.world.journal.fleet_reads == 1)
        await server.edge.close()
        status, body = await calling
        assert (status, body["error"]["code"]) == (503, "UNAVAILABLE")

    async def test_a_command_is_answered_with_the_data_of_its_reply(self, server: Server) -> None:
        calling = asyncio.create_task(
            server.call("POST", "/v1/broadcasts", Role.CUSTOMER, "c1", CREATE, **{"Idempotency-Key": "k1"})
        )
        await until(lambda: bool(server.world.dispatcher.futures))
        server.world.dispatcher.futures[0].set_result(Done({"broadcast_id": "b-new"}))
        assert await calling == (201, {"broadcast_id": "b-new"})
        assert server.world.dispatcher.asked[0][2].key.request_id == "k1"

    async def test_same_request_by_socket_and_by_call_has_the_same_origin(self, server: Server) -> None:
        client = await server.greeted(Role.CUSTOMER, "c1")
        await client.ask("k1", "broadcast.cancel", broadcast_id="b1")
        key = {"Idempotency-Key": "k1"}
        calling = asyncio.create_task(server.call("POST", "/v1/broadcasts/b1/cancel", Role.CUSTOMER, "c1", **key))
        await until(lambda: len(server.world.dispatcher.futures) == 2)
        (_, _, by_socket), (_, _, by_call) = server.world.dispatcher.asked
        assert by_socket == by_call
        server.world.dispatcher.futures[1].set_result(Refused(Refusal.BROADCAST_EXPIRED))
        status, body = await calling
        assert (status, body["error"]["code"]) == (410, "BROADCAST_EXPIRED")

    @pytest.mark.parametrize("key", [None, "", "x" * 65, "é"])
    async def test_a_command_needs_a_key(self, server: Server, key: str | None) -> None:
        headers = {} if key is None else {"Idempotency-Key": key}
        status, body = await server.call("POST", "/v1/broadcasts", Role.CUSTOMER, "c1", CREATE, **headers)
        assert (status, body["error"]["data"]) == (400, {"field": "header.Idempotency-Key"})

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"{", ("BAD_JSON", {})),
            (b"[]", ("BAD_JSON", {})),
            ({"vehicle_id": "v1", "lat": 1}, ("BAD_REQUEST", {"field": "body.lng"})),
        ],
    )
    async def test_a_bad_body_is_named(self, server: Server, body: Any, expected: tuple[str, Any]) -> None:
        status, answer = await server.call("POST", "/v1/location", Role.TRANSPORTER, "t1", body)
        assert status == 400
        assert (answer["error"]["code"], answer["error"]["data"]) == expected

    async def test_a_body_that_is_too_large_is_refused(self, server: Server) -> None:
        status, answer = await server.call("POST", "/v1/location", Role.TRANSPORTER, "t1", b" " * 65_537)
        assert (status, answer["error"]["code"]) == (413, "BAD_REQUEST")

    @pytest.mark.parametrize("path", ["/", "/v1", "/v1/nope", "/v1/broadcasts/", "/v1/broadcasts/a/b/c"])
    async def test_nothing_there(self, server: Server, path: str) -> None:
        status, body = await server.call("GET", path)
        assert (status, body["error"]["code"]) == (404, "NOT_FOUND")

    async def test_a_method_that_an_address_does_not_take(self, server: Server) -> None:
        status, body = await server.call("DELETE", "/v1/broadcasts")
        assert (status, body["error"]["code"]) == (405, "NOT_FOUND")
        assert "GET" in body["error"]["message"]
        assert "POST" in body["error"]["message"]
        assert "DELETE" not in body["error"]["message"]

    async def test_fleet_and_location(self, server: Server) -> None:
        operator = (Role.OPERATOR, "op1")
        assert await server.call("PUT", "/v1/fleet/transporters/t9", *operator, {"name": "Nine"}) == (
            200,
            {"transporter_id": "t9", "name": "Nine"},
        )
        vehicle = {"transporter_id": "t9", "vehicle_type": "reefer"}
        assert (await server.call("PUT", "/v1/fleet/vehicles/v9", *operator, vehicle))[0] == 200
        assert (await server.call("PUT", "/v1/fleet/drivers/d9", *operator, {"transporter_id": "t9"}))[0] == 200
        here = {"vehicle_id": "v9", "lat": 1, "lng": 2}
        assert await server.call("POST", "/v1/location", Role.DRIVER, "d9", here) == (200, {})
        assert (await server.call("PUT", "/v1/fleet/drivers/no%20id", *operator, {"transporter_id": "t9"}))[1]["error"][
            "data"
        ] == {"field": "path.driver_id"}

    async def test_tenants_in_production(self, server: Server) -> None:
        """A token of a tenant that nobody has created is refused; an admin's is not, or there would never be one."""
        server.world.tenants.controls.clear()
        status, body = await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1")
        assert (status, body["error"]["code"]) == (403, "TENANT_NOT_FOUND")
        assert (await server.call("PUT", "/v1/tenants/new", Role.ADMIN, "root"))[0] == 201
        assert (await server.call("PUT", "/v1/tenants/new", Role.ADMIN, "root", {}))[0] == 200
        other = {"settings": {"toggle_limit": 1}}
        assert (await server.call("PUT", "/v1/tenants/new", Role.ADMIN, "root", other))[0] == 409

    async def test_errors_that_may_pass_say_when_to_try_again(self, server: Server) -> None:
        calling = server.http.post(
            server.url + "/v1/broadcasts/b1/cancel",
            headers={"Authorization": "Bearer " + server.token(Role.CUSTOMER, "c1"), "Idempotency-Key": "k"},
        )
        answering = asyncio.ensure_future(calling)
        await until(lambda: bool(server.world.dispatcher.futures))
        server.world.dispatcher.futures[0].set_exception(RequestError(ErrorCode.BUSY))
        async with await answering as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert response.headers["Server"] == "haulcast"

    async def test_offers_and_broadcasts(self, server: Server) -> None:
        assert await server.call("GET", "/v1/offers", Role.TRANSPORTER, "t1") == (200, {"offers": {}, "trips": {}})
        assert await server.call("GET", "/v1/broadcasts", Role.CUSTOMER, "c1") == (200, {"broadcasts": []})
        status, body = await server.call("GET", "/v1/broadcasts/none", Role.OPERATOR, "op1")
        assert (status, body["error"]["code"]) == (404, "BROADCAST_NOT_FOUND")


class TestPolling:
    async def test_shows_what_the_socket_shows(self, server: Server) -> None:
        client = await server.greeted(Role.TRANSPORTER, "t1")
        snapshot = await client.next()
        status, shown = await server.call("GET", "/v1/topics/feed:t1", Role.TRANSPORTER, "t1")
        assert (status, shown["topic"], shown["data"]) == (200, "feed:t1", snapshot["data"])
        assert shown["server_time"] > 0

    async def test_what_has_not_changed_is_not_sent_again(self, server: Server) -> None:
        headers = {"Authorization": "Bearer " + server.token(Role.OPERATOR, "op1")}
        url = server.url + "/v1/topics/feed:t1"
        async with server.http.get(url, headers=headers) as first:
            tag = first.headers["ETag"]
            assert first.headers["Cache-Control"] == "private, no-cache"
        for held in (tag, f'"other", {tag}', "*"):
            async with server.http.get(url, headers={**headers, "If-None-Match": held}) as again:
                assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)
        candidate = Candidate(1_000, TransporterId("t1"), VehicleId("v1"), "flatbed")
        accept = Accept(candidate.transporter_id, candidate.vehicle_id, "flatbed", DriverId("d1"))
        await server.world.store(HAUL, SendWave(1, 10_000.0, 500, (candidate,), more=False), accept)
        async with server.http.get(url, headers={**headers, "If-None-Match": tag}) as changed:
            assert (changed.status, list((await changed.json())["data"]["trips"])) == (200, ["b1-1-t"])
            assert changed.headers["ETag"] != tag

    async def test_a_tag_that_is_none_is_passed_over(self, server: Server) -> None:
        assert (await server.call("GET", "/v1/topics/feed:t1", Role.OPERATOR, **{"If-None-Match": "x y"}))[0] == 200

    @pytest.mark.parametrize(
        ("role", "topic"),
        [
            (Role.TRANSPORTER, "feed:t2"),
            (Role.DRIVER, "feed:u1"),
            (Role.OPERATOR, "broadcast:none"),
            (Role.ADMIN, "broadcast:none"),
            (Role.ADMIN, "control:rival"),
            (Role.TRANSPORTER, "control:acme"),
        ],
    )
    async def test_what_is_not_theirs_is_not_there(self, server: Server, role: Role, topic: str) -> None:
        status, answer = await server.call("GET", f"/v1/topics/{topic}", role)
        assert (status, answer["error"]["code"], answer["error"]["data"]) == (404, "TOPIC_NOT_FOUND", {"topic": topic})


class TestOperations:
    async def test_health_and_metrics_need_no_token(self, server: Server) -> None:
        assert await server.call("GET", "/health/live") == (200, {"status": "ok"})
        assert await server.call("GET", "/health/ready") == (200, {"status": "ok"})
        server.world.health.is_ready = False
        assert await server.call("GET", "/health/ready") == (503, {"status": "unavailable"})
        assert await server.call("GET", "/health/detailed") == (200, {"status": "draining"})
        async with server.http.get(server.url + "/metrics") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/plain")
            assert "connections 0.0" in await response.text()

    @pytest.mark.parametrize("protocols", [(), ("haulcast.v1.json",)])
    async def test_the_subprotocol_may_be_left_out(self, server: Server, protocols: tuple[str, ...]) -> None:
        client = await server.connect(protocols=protocols)
        await client.ask("r", "hello", token=server.token(Role.CUSTOMER, "c1"))
        assert (await client.next())["ok"]

    async def test_a_client_that_speaks_only_another_protocol_is_refused(self, server: Server) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await server.connect(protocols=("haulcast.v9.cbor",))
        assert caught.value.status == 400

    async def test_a_plain_request_for_the_socket_is_refused(self, server: Server) -> None:
        status, body = await server.call("GET", "/v1/ws")
        assert (status, body["error"]["data"]) == (400, {"field": "Upgrade"})


def _raising(error: Exception) -> Callable[..., Awaitable[Any]]:
    async def fail(*arguments: Any) -> Any:
        raise error

    return fail


async def _hanging(*arguments: Any) -> Any:
    await asyncio.Event().wait()
