"""A server that says what a test tells it to. Unrealistic in that it knows no state: every answer is the test's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

Json = dict[str, Any]
Answer = Callable[[Json], Json | None]
"""From a request's frame to the rest of the reply's (`ok` and so on), or None to leave it unanswered."""


def done(_: Json) -> Json:
    """Answer with nothing in particular."""
    return {"ok": True, "data": {}}


def refused(code: str, *, retry: bool = False, **data: Any) -> Answer:
    """Answer with an error."""
    return lambda _: {"ok": False, "error": {"code": code, "message": "", "retry": retry, "data": data}}


def silent(_: Json) -> None:
    """Do not answer."""


class Socket:
    """One connection, from the server's side."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[Json] = []

    async def say(self, type: str, topic: str, seq: int, data: Json, **more: Any) -> None:
        frame = {"type": type, "topic": topic, "version": [1, seq], "server_time": 1_000_000 + seq, "data": data}
        await self.ws.send_str(json.dumps(frame | more))

    async def announce(self, announcement_id: str, text: str = "Fog") -> None:
        data = {"announcement_id": announcement_id, "text": text, "at": 1_000_000, "expires_at": 2_000_000}
        await self.ws.send_str(json.dumps({"type": "announcement", "server_time": 1_000_001, "data": data}))

    async def close(self, code: int, reason: str = "") -> None:
        await self.ws.close(code=code, message=reason.encode())

    def asked(self, type: str) -> list[Json]:
        """The requests of a type so far."""
        return [frame for frame in self.frames if frame["type"] == type]


class FakeServer:
    """`answers` by request type (default: `done`); `sockets` in the order of connecting."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, Answer] = {}
        self.topics: list[str] = []
        self.sockets: list[Socket] = []
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something has come in that makes `condition` true."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(condition)

    async def socket(self, number: int) -> Socket:
        """The `number`-th connection (from 1), once it has been greeted."""
        await self.until(lambda: len(self.sockets) >= number and self.sockets[number - 1].asked("hello"))
        return self.sockets[number - 1]

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("haulcast.v1.json",))
        await ws.prepare(request)
        socket = Socket(ws)
        self.sockets.append(socket)
        async for message in ws:
            assert message.type is WSMsgType.TEXT
            frame: Json = json.loads(message.data)
            reply = self.answers.get(frame["type"], done)(frame)
            if frame["type"] == "hello" and reply == done({}):
                reply = {"ok": True, "data": {"server_time": 1_000_000, "topics": self.topics}}
            if reply is not None and "id" in frame:
                await ws.send_str(json.dumps({"re": frame["id"], **reply}))
            async with self._changed:
                socket.frames.append(frame)
                self._changed.notify_all()
        return ws


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    """Run one."""
    server = FakeServer()
    app = web.Application()
    app.router.add_get("/v1/ws", server.handle)
    async with TestServer(app) as running:
        server.url = str(running.make_url("/"))
        yield server
        for socket in server.sockets:
            await socket.ws.close()
