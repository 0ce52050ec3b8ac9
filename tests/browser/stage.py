"""A server of the console that says exactly what a test wants, also what no server should say.

1. It serves the console's own files with their own headers, and speaks as much of the protocol as the console asks for:
   hello, subscribe, ping and ack on the socket; the board, one broadcast and the nodes over REST; and what operators
   set (`controls`).
2. `board` is the truth. `change` changes it and tells it in one delta, as the server does; what else is said on the
   sockets (`say`) is between the test and the page.
3. It counts what it is asked for.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from haulcast.client.pointer import patch
from haulcast.transport.console import Console
from tests.acceptance.network import DROP, PICKUP, TRUCK, sign
from tests.acceptance.phone import Json
from tests.browser.controls import Controls

TENANT = "acme"
TOPIC = f"board:{TENANT}"
CONTROL = f"control:{TENANT}"
LIFETIME_MS = 300_000


def now_ms() -> int:
    """The time of the server."""
    return time.time_ns() // 1_000_000


def token(role: str = "operator") -> str:
    """Of somebody of the stage's tenant."""
    return sign(TENANT, role, "op")


def broadcast_view(broadcast_id: str, trucks: int = 1, **fields: Any) -> Json:
    """What the board shows of a broadcast that has just begun, but for these fields."""
    begun_ms = now_ms()
    return {
        "broadcast_id": broadcast_id,
        "customer_id": f"customer-of-{broadcast_id}",
        "status": "searching",
        "end_reason": None,
        "pickup": {"lat": PICKUP[0], "lng": PICKUP[1], "address": "MG Road"},
        "drop": {"lat": DROP[0], "lng": DROP[1], "address": "Chennai Port"},
        "note": "",
        "created_at": begun_ms,
        "expires_at": begun_ms + LIFETIME_MS,
        "ended_at": None,
        "wave": 0,
        "notified": 0,
        "remaining_requests": trucks,
        "requests": {
            request_id: {"request_id": request_id, "vehicle_type": TRUCK, "status": "searching"}
            for request_id in (f"{broadcast_id}-{number}" for number in range(1, trucks + 1))
        },
        "trips": {},
        **fields,
    }


class Stage:
    """The server. `url` is its address."""

    def __init__(self) -> None:
        self.board: Json = {"broadcasts": {}}
        self.version = (1, 1)
        self.url = ""
        self.greeted = 0
        """Sockets that have said hello."""
        self.subscribed = 0
        """Snapshots of the board that were asked for on a socket."""
        self.polled = 0
        """Requests for the board over REST."""
        self.curtain = asyncio.Event()
        """Until it is set, nobody is shown the board."""
        self.curtain.set()
        self.role = "operator"
        """Of whoever says hello."""
        self.controls = Controls(self._tell_control, now_ms)
        self.control_version = (1, 1)
        self.after_snapshot = ""
        """What is said after each of them."""
        self._sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application()
        app.router.add_get("/v1/ws", self._on_socket)
        app.router.add_get("/v1/topics/{topic}", self._get_topic)
        app.router.add_get("/v1/broadcasts/{broadcast_id}", self._get_broadcast)
        app.router.add_get("/v1/nodes", self._get_nodes)
        app.router.add_routes(self.controls.routes())
        for path, serve in Console(None).routes().items():
            app.router.add_get(path, serve)
        app.on_shutdown.append(self._hang_up)
        return app

    def put(self, views: Iterable[Json]) -> None:
        """Make these the truth, untold."""
        self.board = {"broadcasts": {view["broadcast_id"]: view for view in views}}

    async def change(self, to: Mapping[str, Any], gone: Iterable[str] = ()) -> None:
        """Change the truth, and tell it: JSON Pointers below `/broadcasts`, with their new values, and what goes."""
        delta = self.delta(to, gone)
        await self.say(delta)

    def delta(self, to: Mapping[str, Any], gone: Iterable[str] = ()) -> Json:
        """The delta of a change that is made and not told."""
        sets = {f"/broadcasts{pointer}": value for pointer, value in to.items()}
        dels = [f"/broadcasts{pointer}" for pointer in gone]
        before = self.version
        self.board = patch(self.board, sets, dels)
        self.version = (before[0], before[1] + 1)
        return {**self._frame("delta"), "from": before, "data": {"set": sets, "del": dels}}

    async def say(self, frame: Json | str) -> None:
        """A frame to every socket that has said hello."""
        text = frame if isinstance(frame, str) else orjson.dumps(frame).decode()
        for socket in self._sockets:
            await socket.send_str(text)

    async def drop_sockets(self, code: int) -> None:
        """Close every socket with this code."""
        for socket in list(self._sockets):
            await socket.close(code=code)

    # --- The protocol ---

    def _frame(self, kind: str, topic: str = TOPIC) -> Json:
        version = self.version if topic == TOPIC else self.control_version
        return {"type": kind, "topic": topic, "version": version, "server_time": now_ms()}

    async def _tell_control(self, data: Json) -> None:
        before = self.control_version
        self.control_version = (before[0], before[1] + 1)
        await self.say({**self._frame("delta", CONTROL), "from": before, "data": data})

    async def _on_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("haulcast.v1.json",))
        await socket.prepare(request)
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await self._on_request(socket, orjson.loads(message.data))
        finally:
            self._sockets.discard(socket)
        return socket

    async def _on_request(self, socket: web.WebSocketResponse, request: Json) -> None:
        answer: Json = {}
        match request["type"]:
            case "hello":
                self.greeted += 1
                held = request["data"].get("resume", {})
                versions = {TOPIC: self.version, CONTROL: self.control_version}
                resumed = [topic for topic in held if held[topic] == list(versions[topic])]
                answer = {
                    "session": "9c1f27ab04d3e655",
                    "role": self.role,
                    "user": "op",
                    "tenant": TENANT,
                    "heartbeat_s": 25,
                    "topics": [*held],
                    "resumed": resumed,
                }
                self._sockets.add(socket)
            case "subscribe":
                topic = request["data"]["topic"]
                self.subscribed += topic == TOPIC
                answer = {"topic": topic, "version": self._frame("", topic)["version"]}
            case "ack":
                return
        reply = {"re": request["id"], "ok": True, "data": {"server_time": now_ms(), **answer}}
        await socket.send_str(orjson.dumps(reply).decode())
        for topic in [answer["topic"]] if "topic" in answer else answer.get("topics", []):
            if topic not in answer.get("resumed", []):
                await self._show(socket, topic)

    async def _show(self, socket: web.WebSocketResponse, topic: str) -> None:
        await self.curtain.wait()
        data = self.board if topic == TOPIC else self.controls.content
        frame = {**self._frame("snapshot", topic), "data": data}
        await socket.send_str(orjson.dumps(frame).decode())
        if topic == TOPIC and self.after_snapshot:
            await socket.send_str(self.after_snapshot)

    async def _get_topic(self, request: web.Request) -> web.Response:
        topic = request.match_info["topic"]
        self.polled += topic == TOPIC
        data = self.board if topic == TOPIC else self.controls.content
        body = orjson.dumps(data)
        tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        answer = {"topic": topic, "server_time": now_ms(), "data": data}
        return _json(answer, ETag=tag)

    async def _get_broadcast(self, request: web.Request) -> web.Response:
        view = self.board["broadcasts"][request.match_info["broadcast_id"]]
        timeline = [{"seq": 1, "at": view["created_at"], "event": "created", "expires_at": view["expires_at"]}]
        return _json({**view, "timeline": timeline})

    async def _get_nodes(self, request: web.Request) -> web.Response:
        node = {"node": 1, "answered": True, "active_broadcasts": len(self.board["broadcasts"])}
        health = {"lease_age_ms": 100, "lease_ttl_ms": 1500, "loop_lag_ms": 0.3, "draining": False}
        return _json({"server_time": now_ms(), "nodes": [{**node, **health}]})

    async def _hang_up(self, app: web.Application) -> None:
        await self.drop_sockets(1001)


def _json(answer: Json, **headers: str) -> web.Response:
    return web.Response(body=orjson.dumps(answer), content_type="application/json", headers=headers)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """A stage that is being played on."""
    stage = Stage()
    runner = web.AppRunner(stage.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        stage.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield stage
    finally:
        await runner.cleanup()
