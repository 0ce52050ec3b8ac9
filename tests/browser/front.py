"""One address in front of several servers, as a load balancer or an office's proxy is."""

import asyncio
from enum import Enum, auto

from tests.proxy import Proxy


class Upgrades(Enum):
    """What becomes of a connection that is to be a WebSocket."""

    PASS = auto()
    REFUSE = auto()
    """It ends without an answer."""
    HANG = auto()
    """It stays open, and nothing comes."""


class Front(Proxy):
    """Each connection goes to the first of `ports` where somebody listens. See `Proxy` for what else can happen to it.

    Unrealistic in that only the first request of a connection is looked at; a browser opens a new one for a WebSocket.
    """

    def __init__(self, *ports: int) -> None:
        super().__init__(0)
        self._ports = ports
        self._upgrades = Upgrades.PASS

    @property
    def url(self) -> str:
        """Its address, once it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def block(self, upgrades: Upgrades) -> None:
        """From now on this becomes of WebSockets; those that there are break."""
        self._upgrades = upgrades
        await self._break_all()

    def unblock(self) -> None:
        """WebSockets pass again."""
        self._upgrades = Upgrades.PASS

    async def _admit(self, reader: asyncio.StreamReader) -> bytes | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None  # a browser opens connections ahead, and may not use them
        if b"\r\nupgrade: websocket" in head.lower():
            if self._upgrades is Upgrades.REFUSE:
                return None
            if self._upgrades is Upgrades.HANG:
                await reader.read()
                return None
        return head

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for port in self._ports:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                pass
        raise ConnectionRefusedError
