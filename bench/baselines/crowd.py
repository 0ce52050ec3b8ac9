"""The recipients of fan-outs, of haulcast and of what it is measured against: they only count what they hear."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

from bench.kit.line import Line, Phone

_AT_ONCE = 16
"""Connections that one process opens at the same time."""
_HEARD_WITHIN_S = 30.0
PROBES = 10
_PROBE_EVERY_S = 0.0025
"""Together the probes ask this often; each of them may 50 times a second."""


class Ears:
    """Counts the text frames of one crowd, and notes when all of a tick's have come."""

    def __init__(self) -> None:
        self.frames = 0
        self.size_bytes = 0
        self.complete_s: list[float] = []
        """By tick, by `perf_counter`, which is one clock for all processes of a machine."""
        self._per_tick = 0
        self._next = 0
        self._came = asyncio.Event()

    def begin(self, per_tick: int) -> None:
        """Count anew; a tick has so many frames, over the whole crowd."""
        self.frames = self.size_bytes = 0
        self.complete_s = []
        self._per_tick = self._next = per_tick

    def hear(self, frame: bytes) -> None:
        """A frame has come."""
        self.frames += 1
        self.size_bytes += len(frame)
        if self.frames == self._next:
            self._next += self._per_tick
            self.complete_s.append(perf_counter())
            self._came.set()

    async def complete(self, tick: int) -> float:
        """When all frames of this tick had come. Raises `TimeoutError`."""
        async with asyncio.timeout(_HEARD_WITHIN_S):
            while len(self.complete_s) <= tick:
                self._came.clear()
                await self._came.wait()
        return self.complete_s[tick]


class Crowd:
    """One client process' part of all crowds, by name."""

    def __init__(self, _number: int) -> None:
        self._ears: dict[str, Ears] = {}
        self._lines: dict[str, list[Line]] = {}
        self._transporters: dict[str, Phone] = {}

    async def connect(self, name: str, url: str, size: int) -> None:
        """Connect to what sends frames to whoever connects."""
        ears = self._crowd(name)
        self._lines[name] = await _each([partial(Line.open, f"{_ws(url)}/v1/ws", ears.hear)] * size)

    async def connect_socketio(self, name: str, url: str, users: Sequence[int]) -> None:
        """Connect these users to Socket.IO, over WebSocket at once."""
        ears = self._crowd(name)

        async def enter(user: int) -> Line:
            entered = asyncio.get_running_loop().create_future()

            def hear(frame: bytes) -> None:
                if frame.startswith(b"42"):
                    ears.hear(frame)
                elif frame == b"2":
                    line.send(b"3")
                elif frame.startswith(b"40"):
                    entered.set_result(None)

            line = await Line.open(f"{_ws(url)}/socket.io/?EIO=4&transport=websocket&user={user}", hear)
            line.send(b"40")
            await entered
            return line

        self._lines[name] = await _each([partial(enter, user) for user in users])

    async def watch(self, name: str, url: str, tokens: Sequence[str], topics: Sequence[str]) -> None:
        """Connect to haulcast and subscribe to topics."""
        ears = self._crowd(name)

        async def enter(token: str) -> Line:
            phone = await Phone.connect(url, token, resume=dict.fromkeys(topics, (0, 0)))
            phone.line.on_text = ears.hear
            return phone.line

        self._lines[name] = await _each([partial(enter, token) for token in tokens])

    async def go_online(self, name: str, url: str, tokens: dict[str, str]) -> None:
        """Connect these transporters to haulcast and have them online; the vehicle of each is `{transporter}-v`."""
        ears = self._crowd(name)

        async def enter(transporter: str, token: str) -> Line:
            phone = self._transporters[transporter] = await Phone.connect(url, token, ears.hear)
            await phone.do("transporter.online", {})
            return phone.line

        self._lines[name] = await _each([partial(enter, *item) for item in tokens.items()])

    async def report_positions(self, lat: float, lng: float) -> None:
        """Have all transporters say where they are: here."""
        await asyncio.gather(
            *(
                phone.do("location", {"vehicle_id": f"{transporter}-v", "lat": lat, "lng": lng})
                for transporter, phone in self._transporters.items()
            )
        )

    async def begin(self, name: str, frames_each: int) -> None:
        """Count anew; in each tick everybody gets so many frames."""
        self._ears[name].begin(frames_each * len(self._lines[name]))

    async def complete(self, name: str, tick: int) -> float:
        """See `Ears`."""
        return await self._ears[name].complete(tick)

    async def heard_bytes(self, name: str) -> int:
        """How many bytes of payload have come since `begin`."""
        return self._ears[name].size_bytes

    async def pause(self, seconds: float) -> None:
        """Do nothing at all for this time; what is sent meanwhile waits in the sockets' buffers."""
        time.sleep(seconds)  # noqa: ASYNC251  # that the loop stands still is what is wanted

    def _crowd(self, name: str) -> Ears:
        ears = self._ears[name] = Ears()
        return ears


class Probe:
    """Asks haulcast for the time, evenly, and notes how long each answer takes: a loop that does not come back makes
    them wait. The time in which the server's main thread waited for a core is taken off: that is the machine's."""

    def __init__(self, _number: int) -> None:
        self._phones: list[Phone] = []
        self._schedstat: Path
        self._asking: asyncio.Task[None]
        self._answers: list[asyncio.Task[float]] = []

    async def connect(self, url: str, pid: int, tokens: Sequence[str]) -> None:
        """Connect a probe by each token. `pid`: of the server."""
        self._phones = [await Phone.connect(url, token) for token in tokens]
        self._schedstat = Path(f"/proc/{pid}/schedstat")

    async def begin(self) -> None:
        """Start to ask."""
        self._answers = []
        self._asking = asyncio.create_task(self._ask())

    async def end(self) -> list[float]:
        """Stop; the seconds that each answer took."""
        self._asking.cancel()
        return list(await asyncio.gather(*self._answers))

    async def _ask(self) -> None:
        began_s = perf_counter()
        for number in count(1):
            self._answers.append(asyncio.create_task(self._timed(self._phones[number % len(self._phones)])))
            await asyncio.sleep(began_s + number * _PROBE_EVERY_S - perf_counter())

    async def _timed(self, phone: Phone) -> float:
        before_s = self._core_wait_s()
        took_s = await phone.timed("ping", {})
        return max(0.0, took_s - (self._core_wait_s() - before_s))

    def _core_wait_s(self) -> float:
        return int(self._schedstat.read_text().split()[1]) / 1e9


def _ws(url: str) -> str:
    return f"ws{url.removeprefix('http')}"


async def _each(makers: Sequence[Callable[[], Awaitable[Line]]]) -> list[Line]:
    """What they make, a few at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(make: Callable[[], Awaitable[Line]]) -> Line:
        async with limit:
            return await make()

    return await asyncio.gather(*map(one, makers))
