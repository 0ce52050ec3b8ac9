"""From an HTTP request to a WebSocket that costs little: the upgrade, and the hand-over of the TCP connection.

1. aiohttp accepts the connection and parses the request, and its answer is written here. Then the transport gets
   another protocol (`transport.set_protocol`), aiohttp's own is told that its connection has ended, and its handler's
   task ends. What it held for the request is freed, and no task is woken for a message.
2. Frames are parsed by aiohttp's compiled `WebSocketReader`, which hands each message to a `WebSocketDataQueue`.
   `Inbox` is one that keeps nothing: it calls back at once.

This is the one place that relies on how aiohttp works inside to read:
- `WebSocketReader.feed_data` takes what came, calls `queue.feed_data` for each message, `queue.set_exception` once for
  what is not WebSocket, and never raises; it parses on as long as `queue._size <= queue._limit`;
- `RequestHandler.set_parser` hands over what came behind the request already;
- `RequestHandler.connection_lost` ends its task, and closes what is in its `transport`.
`tests/unit/transport/test_upgrade.py` watches all of it over a real socket.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Any

from aiohttp import WebSocketError, WSMessage, hdrs, web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WS_KEY, WebSocketReader


class Inbox(WebSocketDataQueue):
    """Where parsed messages go. What the base class needs for waiting it has no use for, and does not make."""

    _size = _limit = 0

    def __init__(self, on_message: Callable[[WSMessage], None], on_broken: Callable[[BaseException], None]) -> None:
        self._on_message = on_message
        self._on_broken = on_broken

    def feed_data(self, data: WSMessage, size: int) -> None:  # type: ignore[override]  # text comes decoded
        """A message has come."""
        self._on_message(data)

    def set_exception(self, exc: BaseException, exc_cause: Any = None) -> None:
        """What came is not WebSocket; nothing more will be parsed."""
        self._on_broken(exc)


def reader(
    on_message: Callable[[WSMessage], None], on_broken: Callable[[BaseException], None], max_frame_bytes: int
) -> WebSocketReader:
    """A parser of clients' frames. Text comes decoded; a longer message than the bound is `on_broken` with 1009."""
    # aiohttp refuses what is as long as its bound.
    return WebSocketReader(Inbox(on_message, on_broken), max_frame_bytes + 1, compress=False, decode_text=True)


async def accept(request: web.Request, subprotocol: str | None) -> tuple[web.StreamResponse, asyncio.Transport | None]:
    """Answer a valid upgrade. The response, which is for aiohttp, and the transport; None if the client has gone."""
    digest = sha1(request.headers[hdrs.SEC_WEBSOCKET_KEY].encode() + WS_KEY).digest()
    headers = {
        hdrs.UPGRADE: "websocket",
        hdrs.CONNECTION: "upgrade",
        hdrs.SEC_WEBSOCKET_ACCEPT: b64encode(digest).decode(),
    }
    if subprotocol is not None:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
    response = web.StreamResponse(status=101, headers=headers)
    try:
        await response.prepare(request)
    except ConnectionResetError:
        return response, None
    return response, request.transport


def take_over(request: web.Request, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Have `protocol` get everything that comes from now on, and what came behind the request."""
    former, tail = request.protocol, _Tail()
    former.set_parser(tail)  # type: ignore[arg-type]  # a parser as far as it is used
    transport.set_protocol(protocol)
    former.transport = None  # or it would be closed
    former.connection_lost(None)
    transport.resume_reading()  # what came behind may have been so much that it was paused
    if tail.data:
        protocol.data_received(tail.data)  # last, since it may want to read no more


class _Tail:
    """Keeps what aiohttp has read already."""

    data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """See `WebSocketReader`."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The end is told by the transport."""


def broken_code(error: BaseException) -> int:
    """The close code for what is not WebSocket."""
    return int(error.code) if isinstance(error, WebSocketError) else 1002
