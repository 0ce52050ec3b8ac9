"""Clients that hang up at once: nothing that anybody has to be told of."""

import asyncio
import socket
import struct

from tests.acceptance.network import Network
from tests.acceptance.server import Server

_UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: haulcast\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_RESET = struct.pack("ii", 1, 0)  # linger for no time at all


async def test_a_client_that_is_gone_before_it_is_let_in_is_no_failure(server: Server, network: Network) -> None:
    """A browser that gives up an upgrade, say: the log, which is checked after every test, has no error."""

    def call_and_hang_up() -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", server.port)) as line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                line.sendall(_UPGRADE)

    await asyncio.to_thread(call_and_hang_up)
    customer = await network.phone("customer", "c1")
    await customer.do("ping")
