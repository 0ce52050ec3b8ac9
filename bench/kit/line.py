"""A client's WebSocket that costs next to nothing, for thousands of them in one process.

The reference client keeps topics, reconnects and checks what it hears; here what counts is when frames come. picows
parses a frame in about a microsecond, so that the client is not what is measured.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from socket import IPPROTO_TCP, TCP_CORK
from time import perf_counter
from typing import Any, Self

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

SUBPROTOCOL = "haulcast.v1.json"
_HANDSHAKE_WITHIN_S = 30.0


class Refused(Exception):
    """A request was refused; `code` says why."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]
        self.data: Mapping[str, Any] = error.get("data") or {}


class Dropped(Exception):
    """The connection has ended; the message is the close code."""


class Line(WSListener):
    """One WebSocket. `on_text` is called with each text frame, as bytes."""

    def __init__(self, on_text: Callable[[bytes], None]) -> None:
        self.on_text = on_text
        self.closed = asyncio.get_running_loop().create_future()
        """The close code, once the connection has ended."""
        self._transport: WSTransport

    @classmethod
    async def open(cls, url: str, on_text: Callable[[bytes], None], subprotocol: str | None = None) -> Self:
        """Connect to `ws://...`. Raises `OSError` or `picows.WSError`."""
        headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else {}
        _, line = await ws_connect(
            lambda: cls(on_text), url, extra_headers=headers, websocket_handshake_timeout=_HANDSHAKE_WITHIN_S
        )
        if not isinstance(line, cls):
            raise ConnectionResetError("closed before the handshake was complete")
        return line

    def send(self, text: bytes) -> None:
        """Send a text frame."""
        self._transport.send(WSMsgType.TEXT, text)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have all that is sent in the block reach the server at once, as one segment."""
        socket = self._transport.underlying_transport.get_extra_info("socket")
        socket.setsockopt(IPPROTO_TCP, TCP_CORK, 1)
        yield
        socket.setsockopt(IPPROTO_TCP, TCP_CORK, 0)

    def drop(self) -> None:
        """End the connection without a word, as a phone does that loses its network."""
        self._transport.disconnect(graceful=False)

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Called by picows."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Called by picows."""
        if frame.msg_type == WSMsgType.TEXT:
            self.on_text(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            if not self.closed.done():
                self.closed.set_result(int(frame.get_close_code()))  # type: ignore[call-overload]  # in C an int
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Called by picows."""
        if not self.closed.done():
            self.closed.set_result(1006)


class _Reply(msgspec.Struct):
    re: str | None = None
    ok: bool = False
    data: msgspec.Raw = msgspec.Raw()
    error: dict[str, Any] = {}


_decode_reply = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode


class Phone:
    """A client of haulcast: requests with their replies, and everything else to `on_push` as bytes.

    `sent_s` is when the last request was sent, by `perf_counter`.
    """

    def __init__(self, on_push: Callable[[bytes], None] = lambda _frame: None) -> None:
        self.on_push = on_push
        self.line: Line
        self._ids = count(1)
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    @classmethod
    async def connect(
        cls,
        url: str,
        token: str,
        on_push: Callable[[bytes], None] = lambda _frame: None,
        resume: Mapping[str, object] | None = None,
    ) -> Self:
        """Connect to a server at `http://...` and say hello. Raises `OSError`, `WSError`, `Refused`, `Dropped`."""
        phone = cls(on_push)
        phone.line = await Line.open(f"ws{url.removeprefix('http')}/v1/ws", phone._take, SUBPROTOCOL)
        phone.line.closed.add_done_callback(phone._fail)
        await phone.do("hello", {"token": token, "resume": resume or {}})
        return phone

    def ask(self, request_type: str, data: Mapping[str, Any], id: str | None = None) -> "asyncio.Future[bytes]":
        """Send a request; the future gets the whole reply. It fails with `Dropped`."""
        id = id or f"r{next(self._ids)}"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        self.line.send(_encode({"id": id, "type": request_type, "data": data}))
        return future

    async def do(self, request_type: str, data: Mapping[str, Any], id: str | None = None) -> Any:
        """Send a request; the data of its reply. Raises `Refused`, `Dropped`."""
        reply = _decode_reply(await self.ask(request_type, data, id))
        if not reply.ok:
            raise Refused(reply.error)
        return msgspec.json.decode(reply.data)

    async def timed(self, request_type: str, data: Mapping[str, Any], id: str | None = None) -> float:
        """Send a request; the seconds until its reply, whatever that says. Raises `Dropped`."""
        began_s = perf_counter()
        await self.ask(request_type, data, id)
        return perf_counter() - began_s

    def _take(self, frame: bytes) -> None:
        if frame.startswith(b'{"re":'):
            future = self._waiting.pop(_decode_reply(frame).re or "", None)
            if future is not None and not future.done():
                future.set_result(frame)
        else:
            self.on_push(frame)

    def _fail(self, closed: "asyncio.Future[int]") -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Dropped(f"closed with {closed.result()}"))
