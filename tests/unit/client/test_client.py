"""The client over real sockets: what it does when connections break, answers fail, and it is closed."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from haulcast.client import Client, ConnectionClosed, Event, RequestTimeout, ServerError, Version
from haulcast.client.client import websocket_url
from haulcast.client.events import EventQueue

from .fake_server import FakeServer, done, fake_server, refused, silent

FEED = "feed:t1"


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """A fake server; afterwards no task and no socket of a client is left."""
    async with fake_server() as server:
        yield server
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if "client" in repr(task.get_coro())]
    assert left == []


async def next_event(client: Client) -> Event:
    async with asyncio.timeout(5):
        return await anext(client.events())


async def test_requests_are_answered_or_raise(server: FakeServer) -> None:
    server.answers["offer.accept"] = refused("REQUEST_ALREADY_TAKEN", remaining_requests=0)
    server.answers["transporter.online"] = lambda _: {"ok": True, "data": {"online": True, "changed": True}}
    async with Client(server.url, "token") as client:
        assert await client.go_online() == {"online": True, "changed": True}
        with pytest.raises(ServerError, match="REQUEST_ALREADY_TAKEN") as raised:
            await client.accept("b1", "v1", "d1")
        assert raised.value.data == {"remaining_requests": 0}
    (socket,) = server.sockets
    assert socket.frames[0]["data"] == {"token": "token", "resume": {}}
    assert socket.asked("offer.accept")[0]["data"] == {"broadcast_id": "b1", "vehicle_id": "v1", "driver_id": "d1"}


async def test_a_broadcast_is_created_from_plain_values(server: FakeServer) -> None:
    async with Client(server.url, "token") as client:
        await client.create_broadcast(
            (1.5, 2.5), {"lat": 3, "lng": 4, "address": "Dock 2"}, {"mini": 2}, expires_in_s=30
        )
    (asked,) = server.sockets[0].asked("broadcast.create")
    assert asked["data"] == {
        "pickup": {"lat": 1.5, "lng": 2.5},
        "drop": {"lat": 3, "lng": 4, "address": "Dock 2"},
        "trucks": [{"vehicle_type": "mini", "count": 2}],
        "expires_in_s": 30,
    }


async def test_an_announcement_is_an_event_and_comes_once_however_often_it_is_said(server: FakeServer) -> None:
    """Also over a reconnect, after which the server says again what is still valid."""
    async with Client(server.url, "token") as client:
        first = await server.socket(1)
        for announcement in ("a1", "a1", "a2"):
            await first.announce(announcement)
        fog, second_one = await next_event(client), await next_event(client)
        assert (fog.event, fog.topic, fog.version) == ("announcement", "", Version(0, 0))
        assert fog.data == {"announcement_id": "a1", "text": "Fog", "at": 1_000_000, "expires_at": 2_000_000}
        assert second_one.data["announcement_id"] == "a2"
        assert client.topics == {}
        await first.close(4201, "node lost")
        second = await server.socket(2)
        for announcement in ("a1", "a2", "a3"):
            await second.announce(announcement)
        assert (await next_event(client)).data["announcement_id"] == "a3"


async def test_an_announcement_sets_no_topic_wrong_and_a_frame_of_an_unknown_type_hurts_nobody(
    server: FakeServer,
) -> None:
    server.topics = [FEED]
    async with Client(server.url, "token") as client:
        socket = await server.socket(1)
        await socket.say("snapshot", FEED, 1, {"offers": {}, "trips": {}})
        await socket.ws.send_str('{"type":"hologram","server_time":1,"data":{"x":[1]},"topic":7}')
        await socket.ws.send_str('{"type":"hologram"}')
        await socket.announce("a1")
        await socket.say("delta", FEED, 2, {"set": {"/x": 1}}, **{"from": [1, 1]})
        assert (await next_event(client)).event == "announcement"
        await client.request("ping")
        assert client.topics[FEED].version == Version(1, 2)
        assert client.connections == 1


async def test_operators_say_what_they_want_by_name(server: FakeServer) -> None:
    async with Client(server.url, "token") as client:
        await client.get_settings()
        await client.patch_settings({"wave_interval_s": 3}, 7, id="p1")
        await client.pause(expected_version=8)
        await client.resume()
        await client.reload_settings()
        await client.switch_mode("blast", expected_version=9)
        await client.announce("transporter", "Fog", lifetime_s=60)
        await client.drain_node(3, id="d1")
    (socket,) = server.sockets
    asked = [(frame["type"], frame["data"]) for frame in socket.frames[1:] if frame["type"] != "ack"]
    assert asked == [
        ("settings.get", {}),
        ("settings.patch", {"settings": {"wave_interval_s": 3}, "expected_version": 7}),
        ("control.pause", {"expected_version": 8}),
        ("control.resume", {}),
        ("control.reload_settings", {}),
        ("control.switch_mode", {"mode": "blast", "expected_version": 9}),
        ("control.announce", {"audience": "transporter", "text": "Fog", "lifetime_s": 60}),
        ("control.drain_node", {"node": 3}),
    ]
    assert [frame["id"] for frame in socket.frames if frame["type"].endswith(("patch", "drain_node"))] == ["p1", "d1"]


async def test_after_a_reconnect_everything_is_as_it_was(server: FakeServer) -> None:
    """In flight: sent again under its id. Online, positions, topics: said again."""
    server.topics = [FEED]
    server.answers["offer.accept"] = silent
    async with Client(server.url, "token") as client:
        first = await server.socket(1)
        await client.go_online()
        await client.location("v1", 1.0, 2.0)
        await first.say("snapshot", FEED, 7, {"offers": {}, "trips": {}})
        accepting = asyncio.create_task(client.accept("b1", "v1", "d1"))
        await server.until(lambda: first.asked("offer.accept"))
        server.answers["offer.accept"] = lambda _: {"ok": True, "data": {"trip_id": "b1-1-t"}}
        await first.close(4201, "node lost")
        async with asyncio.timeout(5):
            assert await accepting == {"trip_id": "b1-1-t"}
        second = await server.socket(2)
        await server.until(lambda: second.asked("location"))
        assert client.connections == 2
    assert second.frames[0]["data"]["resume"] == {FEED: [1, 7]}
    assert second.asked("offer.accept") == first.asked("offer.accept")
    assert len(second.asked("transporter.online")) == 1
    assert second.asked("location")[0]["data"] == {"vehicle_id": "v1", "lat": 1.0, "lng": 2.0}
    assert second.asked("subscribe") == []


async def test_who_went_offline_stays_offline(server: FakeServer) -> None:
    async with Client(server.url, "token") as client:
        await client.go_online()
        await client.go_offline()
        await server.sockets[0].close(4202)
        await server.socket(2)
        await client.request("ping")
        assert server.sockets[1].asked("transporter.online") == []


async def test_a_request_made_without_a_connection_waits_for_one(server: FakeServer) -> None:
    async with Client(server.url, "token") as client:
        await server.sockets[0].close(4201)
        while client.connected:
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await client.decline("b1")
    assert server.sockets[1].asked("offer.decline")


async def test_a_refusal_that_says_retry_is_asked_again_under_the_same_id(server: FakeServer) -> None:
    answers = [refused("BUSY", retry=True), refused("RATE_LIMITED", retry=True, retry_after_ms=20), done]
    server.answers["offer.accept"] = lambda frame: answers.pop(0)(frame)
    async with Client(server.url, "token") as client:
        await client.accept("b1", "v1", "d1", id="mine")
    assert [frame["id"] for frame in server.sockets[0].asked("offer.accept")] == ["mine"] * 3


async def test_when_time_is_over_the_last_refusal_is_what_is_known(server: FakeServer) -> None:
    server.answers["offer.accept"] = refused("UNAVAILABLE", retry=True, retry_after_ms=10_000)
    server.answers["offer.decline"] = silent
    async with Client(server.url, "token") as client:
        with pytest.raises(ServerError, match="UNAVAILABLE"):
            await client.accept("b1", "v1", "d1", timeout_s=0.2)
        with pytest.raises(RequestTimeout, match="not answered within") as raised:
            await client.decline("b1", id="mine", timeout_s=0.05)
        assert raised.value.request_id == "mine"
        assert isinstance(raised.value, TimeoutError)


async def test_a_late_reply_is_nobodys(server: FakeServer) -> None:
    server.answers["offer.decline"] = silent
    async with Client(server.url, "token") as client:
        with pytest.raises(RequestTimeout):
            await client.decline("b1", id="mine", timeout_s=0.05)
        await server.sockets[0].ws.send_str('{"re":"mine","ok":true,"data":{}}')
        await server.sockets[0].ws.send_str('{"re":null,"ok":false,"error":{"code":"BAD_JSON"}}')
        await client.request("ping")


async def test_two_requests_cannot_wait_under_one_id(server: FakeServer) -> None:
    server.answers["offer.decline"] = silent
    async with Client(server.url, "token") as client:
        waiting = asyncio.create_task(client.decline("b1", id="mine"))
        await server.until(lambda: server.sockets[0].asked("offer.decline"))
        with pytest.raises(ValueError, match="waiting already"):
            await client.decline("b1", id="mine")
        waiting.cancel()
        await asyncio.wait([waiting])
        server.answers["offer.decline"] = done
        await client.decline("b1", id="mine")


async def test_a_code_that_says_do_not_come_back_ends_everything(server: FakeServer) -> None:
    server.answers["offer.accept"] = silent
    async with Client(server.url, "token") as client:
        accepting = asyncio.create_task(client.accept("b1", "v1", "d1"))
        subscribing = asyncio.create_task(client.subscribe("broadcast:b1"))
        await server.until(lambda: len(server.sockets[0].frames) == 3)
        await server.sockets[0].close(4009, "replaced")
        for waiting in (accepting, subscribing, client.ping(), anext(client.events())):
            with pytest.raises(ConnectionClosed, match="4009 replaced"):
                await asyncio.wait_for(waiting, 5)
    assert len(server.sockets) == 1


async def test_a_refused_token_is_renewed_once(server: FakeServer) -> None:
    tokens = iter(["old", "new", "never"])
    server.answers["hello"] = lambda frame: (
        done(frame) if frame["data"]["token"] == "new" else refused("UNAUTHENTICATED")(frame)
    )
    async with Client(server.url, lambda: next(tokens)):
        assert [socket.frames[0]["data"]["token"] for socket in server.sockets] == ["old", "new"]
    assert next(tokens) == "never"


async def test_a_token_provider_may_be_a_coroutine(server: FakeServer) -> None:
    async def token() -> str:
        return "made"

    async with Client(server.url, token):
        assert server.sockets[0].frames[0]["data"]["token"] == "made"


async def test_opening_says_why_it_failed(server: FakeServer) -> None:
    server.answers["hello"] = refused("UNAUTHENTICATED")
    with pytest.raises(ConnectionClosed, match="UNAUTHENTICATED"):
        async with Client(server.url, "bad"):
            pass
    with pytest.raises(ConnectionClosed, match="404"):
        async with Client(f"{server.url}elsewhere", "token"):
            pass

    def broken() -> str:
        raise LookupError("no token today")

    with pytest.raises(ConnectionClosed, match="no token today"):
        async with Client(server.url, broken):
            pass


async def test_a_server_that_is_not_there_is_given_up_after_a_while(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectionClosed, match="no connection"):
        async with Client(f"http://127.0.0.1:{unused_tcp_port}", "token", open_timeout_s=0.3):
            pass


async def test_topics_follow_their_deltas_and_are_acknowledged(server: FakeServer) -> None:
    server.topics = [FEED]
    async with Client(server.url, "token") as client:
        socket = await server.socket(1)
        await socket.say("snapshot", FEED, 1, {"offers": {}, "trips": {}})
        shown = {"broadcast_id": "b1", "status": "open", "vehicle_id": "v1"}
        await socket.say("delta", FEED, 2, {"set": {"/offers/b1": shown}}, **{"from": [1, 1]})
        await socket.say("event", FEED, 2, {"broadcast_id": "b1"}, event="offer")
        event = await next_event(client)
        assert (event.topic, event.event, event.data, event.version) == (FEED, "offer", shown, Version(1, 2))
        assert client.topics[FEED].state == {"offers": {"b1": shown}, "trips": {}}
        assert client.server_now_ms() >= 1_000_002
        await server.until(lambda: socket.asked("ack"))
    assert [frame["data"] for frame in socket.asked("ack")] == [{"topic": FEED, "version": [1, 2]}]


async def test_a_gap_is_mended_by_subscribing_again(server: FakeServer) -> None:
    server.topics = [FEED]
    async with Client(server.url, "token") as client:
        socket = await server.socket(1)
        await socket.say("snapshot", FEED, 1, {"offers": {}, "trips": {}})
        await socket.say("delta", FEED, 3, {"set": {"/x": 3}}, **{"from": [1, 2]})
        await server.until(lambda: socket.asked("subscribe"))
        assert client.topics[FEED].stale
        missed = {"broadcast_id": "b1", "status": "open"}
        await socket.say("snapshot", FEED, 3, {"offers": {"b1": missed}, "trips": {}})
        event = await next_event(client)
        assert (event.event, event.data, event.replayed) == ("offer", missed, True)
        assert not client.topics[FEED].stale


async def test_subscribing_returns_the_topic_with_its_state(server: FakeServer) -> None:
    async with Client(server.url, "token") as client:
        subscribing = asyncio.create_task(client.subscribe("broadcast:b1"))
        await server.until(lambda: server.sockets[0].asked("subscribe"))
        await server.sockets[0].say("snapshot", "broadcast:b1", 4, {"status": "searching", "requests": {}})
        topic = await subscribing
        assert (topic.state["status"], topic.version) == ("searching", Version(1, 4))
        await client.unsubscribe("broadcast:b1")
        assert "broadcast:b1" not in client.topics


async def test_a_topic_that_cannot_be_had_is_not_asked_for_again(server: FakeServer) -> None:
    server.answers["subscribe"] = refused("TOPIC_NOT_FOUND")
    async with Client(server.url, "token") as client:
        with pytest.raises(ServerError, match="TOPIC_NOT_FOUND"):
            await client.subscribe("broadcast:b9")
        server.answers["subscribe"] = silent
        with pytest.raises(RequestTimeout):
            await client.subscribe("broadcast:b8", timeout_s=0.05)


async def test_garbage_from_the_server_is_passed_over(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    async with Client(server.url, "token") as client:
        for garbage in ("{", "[]", '{"type":"snapshot"}', '{"type":"news"}'):
            await server.sockets[0].ws.send_str(garbage)
        await server.sockets[0].ws.send_bytes(b"\x00")
        await client.request("ping")
    assert len(caplog.records) == 3


async def test_closing_answers_everybody_and_leaves_nothing(server: FakeServer) -> None:
    server.answers["offer.accept"] = silent
    client = Client(server.url, "token")
    await client.open()
    accepting = asyncio.create_task(client.accept("b1", "v1", "d1"))
    listening = asyncio.ensure_future(anext(client.events()))
    await server.until(lambda: server.sockets[0].asked("offer.accept"))
    await client.close()
    with pytest.raises(ConnectionClosed, match="closed by this client"):
        await accepting
    with pytest.raises(StopAsyncIteration):
        await listening
    with pytest.raises(ConnectionClosed):
        await client.go_online()
    with pytest.raises(RuntimeError):
        await client.open()
    await client.close()
    assert server.sockets[0].ws.closed


async def test_closing_while_there_is_no_connection(server: FakeServer) -> None:
    async with Client(server.url, "token") as client:
        await server.sockets[0].close(4100)
        waiting = asyncio.create_task(client.request("ping"))
        while client.connected:
            await asyncio.sleep(0)
    with pytest.raises(ConnectionClosed):
        await waiting


async def test_a_server_that_takes_the_connection_and_stands_still_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that is suspended does that, and a load balancer has others."""
    monkeypatch.setattr("haulcast.client.connection.HELLO_TIMEOUT_S", 0.05)
    taken: list[asyncio.StreamWriter] = []
    again = asyncio.Event()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        if len(taken) == 2:
            again.set()

    listener = await asyncio.start_server(take, "127.0.0.1", 0)
    opening = asyncio.create_task(Client(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "token").open())
    async with asyncio.timeout(5):
        await again.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for writer in taken:
        writer.close()
    listener.close()


async def test_a_session_that_was_lent_is_left_open(server: FakeServer) -> None:
    async with aiohttp.ClientSession() as session:
        async with Client(server.url, "token", session=session):
            pass
        assert not session.closed


async def test_a_client_that_was_not_opened_refuses_requests(server: FakeServer) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await Client(server.url, "token").request("ping")


# --- the queue of events ---


def numbered(number: int) -> Event:
    return Event(FEED, "offer", {"n": number}, Version(1, number), 0)


async def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    queue = EventQueue(3)
    for number in range(5):
        queue.put(numbered(number))
    queue.end()
    assert [event.data["n"] async for event in queue] == [2, 3, 4]
    assert queue.dropped == 2


async def test_two_consumers_share_the_events_and_a_cancelled_one_takes_none() -> None:
    queue = EventQueue(10)
    first, second = (asyncio.ensure_future(anext(queue)) for _ in range(2))
    await asyncio.sleep(0)
    queue.put(numbered(1))
    first.cancel()
    async with asyncio.timeout(1):
        assert (await second).data == {"n": 1}
    assert first.cancelled()


async def test_the_queue_ends_with_the_error_it_was_given_after_the_last_event() -> None:
    queue = EventQueue(10)
    queue.put(numbered(1))
    queue.end(ConnectionClosed(4003, "forbidden"))
    queue.end()
    assert (await anext(queue)).data == {"n": 1}
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match="4003"):
            await anext(queue)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://localhost:8080", "ws://localhost:8080/v1/ws"),
        ("https://dispatch.example/", "wss://dispatch.example/v1/ws"),
        ("wss://dispatch.example/behind/v1/ws", "wss://dispatch.example/behind/v1/ws"),
    ],
)
def test_an_address_may_be_given_in_any_usual_form(given: str, used: str) -> None:
    assert websocket_url(given) == used


@pytest.mark.parametrize("bad", ["localhost:8080", "ftp://x", "", "http://"])
def test_what_is_not_an_address_is_refused_with_an_example(bad: str) -> None:
    with pytest.raises(ValueError, match="http://localhost:8080"):
        websocket_url(bad)
