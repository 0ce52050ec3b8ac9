"""The client processes that make the load: as many as a scenario wants, each with a loop and an agent of its own.

1. An agent is a class of the scenario's own file. `Crew.hire` makes one in each process, with its number as the first
   argument; `Crew.ask` has each carry out one of its methods, side by side, and returns what they returned. What is
   passed either way is pickled.
2. A crew that was busy for nearly all of its time may have been what was measured, instead of the server. `busy` tells
   the largest share of a core that one of the processes had while something was asked of it.
3. They are leashed to this process.
"""

import asyncio
import pickle
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from time import monotonic
from typing import Any

import uvloop

from haulcast.leash import leashed

from .procstat import cpu_s

SATURATED = 0.9
"""A client process that used more of a core than this was the bottleneck."""
_LENGTH_BYTES = 8


class AgentFailed(Exception):
    """A method of an agent raised; the message is its traceback."""


class Crew:
    """Client processes with an agent each."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes
        self.busy = 0.0
        """The largest share of a core that a process needed since this was set to 0."""

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    @classmethod
    @asynccontextmanager
    async def hire(cls, agent: type, size: int, *args: object) -> AsyncIterator["Crew"]:
        """`size` processes with an `agent(number, *args)` each, until the block ends."""
        processes = [
            await asyncio.create_subprocess_exec(
                *leashed(
                    [sys.executable, "-m", "bench.kit.crew", agent.__module__, agent.__qualname__], signal.SIGTERM
                ),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=1 << 20,
            )
            for _ in range(size)
        ]
        crew = cls(processes)
        try:
            await asyncio.gather(*(_call(one, "__init__", number, *args) for number, one in enumerate(processes)))
            yield crew
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            await asyncio.gather(*(process.wait() for process in processes))

    async def ask(self, method: str, *args: object) -> list[Any]:
        """What this method of all agents returns, in order of their numbers. Raises `AgentFailed`."""
        return await self.ask_each(method, [args] * len(self))

    async def ask_each(self, method: str, args: Sequence[Sequence[object]]) -> list[Any]:
        """The same with other arguments for each."""
        began_s, before_s = monotonic(), [cpu_s([pid]) for pid in self.pids]
        answers = await asyncio.gather(
            *(_call(process, method, *mine) for process, mine in zip(self._processes, args, strict=True))
        )
        took_s = monotonic() - began_s
        used_s = max(cpu_s([pid]) - before for pid, before in zip(self.pids, before_s, strict=True))
        self.busy = max(self.busy, used_s / took_s)
        return answers


async def _call(process: asyncio.subprocess.Process, *message: object) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    _write(process.stdin, message)
    try:
        failure, answer = pickle.loads(await _read(process.stdout))
    except asyncio.IncompleteReadError:
        raise AgentFailed(f"a client process has ended (exit code {await process.wait()})") from None
    if failure:
        raise AgentFailed(failure)
    return answer


async def _read(stream: asyncio.StreamReader) -> bytes:
    return await stream.readexactly(int.from_bytes(await stream.readexactly(_LENGTH_BYTES)))


def _write(stream: asyncio.StreamWriter, message: object) -> None:
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(_LENGTH_BYTES) + data)


async def _serve(module: str, qualname: str) -> None:
    """Carry out what is asked on standard input until that is closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    agent: Any = None
    while True:
        try:
            name, *args = pickle.loads(await _read(reader))
        except asyncio.IncompleteReadError:
            return
        try:
            if name == "__init__":
                agent, answer = getattr(import_module(module), qualname)(*args), None
            else:
                answer = await getattr(agent, name)(*args)
        except Exception:
            _write(writer, (traceback.format_exc(), None))
        else:
            _write(writer, ("", answer))


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
