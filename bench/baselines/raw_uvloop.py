"""uvloop alone: after the handshake, one `transport.write` of a finished frame per client and message.

`GET /send?count=C&bytes=B` sends C messages of B bytes to every client. No parsing of what clients say, no bound on
what waits for them: what a fan-out costs in Python before a server does anything.
"""

import asyncio
import os
import re
from base64 import b64encode
from hashlib import sha1
from typing import cast

import uvloop

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT = 0x81
_TWO_BYTE_LENGTH = 126

clients: set[asyncio.Transport] = set()


class Client(asyncio.Protocol):
    """A connection: of a WebSocket client, or of whoever has something sent."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._transport in clients:
            return
        self._request += data
        if b"\r\n\r\n" not in self._request:
            return
        request, self._request = self._request, b""
        if send := re.match(rb"GET /send\?count=(\d+)&bytes=(\d+)", request):
            fan_out(int(send[1]), int(send[2]))
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        elif key := re.search(rb"(?i)\r\nSec-WebSocket-Key: *(\S+)", request):
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % b64encode(sha1(key[1] + _GUID).digest())
            )
            clients.add(self._transport)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        clients.discard(self._transport)


def fan_out(count: int, size_bytes: int) -> None:
    """Send so many messages to every client."""
    head = bytes([_TEXT, size_bytes] if size_bytes < _TWO_BYTE_LENGTH else [_TEXT, _TWO_BYTE_LENGTH])
    frame = head + (size_bytes.to_bytes(2) if size_bytes >= _TWO_BYTE_LENGTH else b"") + b"x" * size_bytes
    for _ in range(count):
        for client in clients:
            client.write(frame)


async def main() -> None:
    """Listen on `PORT` until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Client, "127.0.0.1", int(os.environ["PORT"]), backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
