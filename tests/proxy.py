"""A network that fails: connections to a server pass through here, and can be cut, refused or held up."""

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a port of its own and passes what it gets on to `port` on this machine, and back.

    Unrealistic in that it stands in for the network only: a stalled connection goes on filling the buffers of the
    kernel, and a refusal comes at once.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._whole = True
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        """Where it listens, from `start` on."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break every connection, and listen no more."""
        if self._listener is not None:
            self._listener.close()
            await self._break_all()
            await self._listener.wait_closed()
            self._listener = None

    async def cut(self) -> None:
        """Break every connection, and each new one, until mended. Both sides see it at once."""
        self._whole = False
        await self._break_all()

    def stall(self) -> None:
        """Pass nothing on until mended. Connections stay open, and new ones are taken: nobody sees anything."""
        self._flowing.clear()

    def mend(self) -> None:
        """Pass on again, what was held up first."""
        self._whole = True
        self._flowing.set()

    async def _break_all(self) -> None:
        for task in self._carrying:
            task.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            beginning = await self._admit(reader)
            if beginning is None:
                return
            far_reader, far_writer = await self._connect()
            ends.append(far_writer)
            far_writer.write(beginning)
            ways = [
                asyncio.create_task(self._pass_on(reader, far_writer)),
                asyncio.create_task(self._pass_on(far_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        except OSError:
            pass  # nobody listens there: the connection ends
        finally:
            for end in ends:
                end.transport.abort()

    async def _admit(self, reader: asyncio.StreamReader) -> bytes | None:
        """What had to be read of a new connection to admit it; None if it is not to be."""
        return b""

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the far side. Raises `OSError`."""
        return await asyncio.open_connection("127.0.0.1", self._to)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
