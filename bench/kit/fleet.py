"""Transporters by the thousand: sockets that say hello, and note when they were answered and had their snapshot.

1. Arrivals are open-loop: when each is due is fixed beforehand, and latency counts from then, so that a server that
   makes some wait does not make the others come later.
2. What is due does not wait for what came before it; all that are due at the same moment are one storm.
3. Like an app, a `Caller` keeps the version that it holds of its feed, to resume at. It says hello again if it is told
   to, and connects again when the connection fails, after waits that double. Latency goes on counting meanwhile.
"""

import asyncio
import gc
import random
import resource
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import msgspec
from picows import WSError

from .histogram import Histogram
from .line import SUBPROTOCOL, Dropped, Line
from .servers import Subject

ARRIVED_WITHIN_S = 60.0
SETTLED_WITHIN_S = 60.0
FIRST_BACKOFF_S = 0.1
_QUIET_FOR_S = 0.5
_QUIET = 0.1  # of a core
_SPARE_FILES = 200
_POLL_S = 0.005
_encode = msgspec.json.Encoder().encode


class TooFewFiles(Exception):
    """The machine allows a process fewer open files than the scenario has sockets."""

    def __init__(self, sockets: int, allowed: int) -> None:
        super().__init__(
            f"{sockets} sockets need {sockets + _SPARE_FILES} open files and a process may have {allowed}: "
            f"raise it with `ulimit -n`, or ask for fewer"
        )


def allow_sockets(sockets: int) -> None:
    """Let this process, and those that it starts from now on, have so many. Raises `TooFewFiles`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sockets + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise TooFewFiles(sockets, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def tenant_of(name: str) -> str:
    """A name that no earlier run has used."""
    return f"{name}-{time.time_ns() // 1_000_000:x}"


@dataclass
class Arrivals:
    """How it went. Picklable."""

    greeted: Histogram = field(default_factory=Histogram)
    """From when the arrival was due until the hello was answered."""
    complete: Histogram = field(default_factory=Histogram)
    """The same until the snapshot was there, or the server said that it goes on from what the client holds."""
    troubles: Counter[str] = field(default_factory=Counter)
    """Why something had to be tried again, and how often."""
    lost: int = 0
    """How many did not arrive within `ARRIVED_WITHIN_S`."""
    took_s: float = 0.0
    """From the first that was due until the last was complete."""

    @property
    def reasons(self) -> str:
        """Why something had to be tried again, for people."""
        return ", ".join(f"{count} times {why}" for why, count in self.troubles.most_common(3))

    @classmethod
    def merged(cls, parts: Iterable["Arrivals"]) -> "Arrivals":
        """Those of several processes, which began at the same time."""
        whole = cls()
        for part in parts:
            whole.greeted.merge(part.greeted)
            whole.complete.merge(part.complete)
            whole.troubles += part.troubles
            whole.lost += part.lost
            whole.took_s = max(whole.took_s, part.took_s)
        return whole


class Caller:
    """One client that connects, and comes back. `snapshot`: whether it is sent one, as transporters are."""

    def __init__(self, token: str, snapshot: bool = True) -> None:
        self.line: Line
        self.unanswered = 0
        """How many requests after the hello have had no reply yet."""
        self.troubles: Counter[str] = Counter()
        """Why something had to be tried again since this was cleared."""
        self._token = token
        self._snapshot = snapshot
        self._greeted: asyncio.Future[float]
        self._complete: asyncio.Future[float]
        self._latest: bytes | None = None  # the last frame that tells a version of the feed

    async def call(self, url: str) -> tuple[float, float]:
        """Connect and say hello; when that was answered and when the snapshot came, by `perf_counter`.
        Raises `OSError`, `WSError`, `Dropped`."""
        loop = asyncio.get_running_loop()
        self._greeted = loop.create_future()
        complete = self._complete = loop.create_future()
        self.unanswered = 0
        self.line = await Line.open(f"ws{url.removeprefix('http')}/v1/ws", self._take, SUBPROTOCOL)
        self.line.closed.add_done_callback(lambda closed: _fail(complete, f"closed with {closed.result()}"))
        self._hello()
        complete_s = await complete
        return await self._greeted, complete_s

    def ask(self, request_type: str, data: Mapping[str, object]) -> None:
        """Send a request whose reply is only counted."""
        self.unanswered += 1
        self.line.send(_encode({"id": request_type, "type": request_type, "data": data}))

    async def look(self) -> Mapping[str, Any]:
        """Subscribe again; what the snapshot says. Raises `Dropped`."""
        ((topic, _),) = self._held().items()
        self._complete = asyncio.get_running_loop().create_future()
        self.ask("subscribe", {"topic": topic})
        await self._complete
        data: Mapping[str, Any] = msgspec.json.decode(self._latest or b"")["data"]
        return data

    def _hello(self) -> None:
        if not self.line.closed.done():
            hello = {"token": self._token, "resume": self._held()}
            self.line.send(_encode({"id": "hello", "type": "hello", "data": hello}))

    def _refused(self, frame: bytes) -> None:
        error = msgspec.json.decode(frame)["error"]
        if not error["retry"]:
            _fail(self._complete, frame.decode())
            return
        asyncio.get_running_loop().call_later(backoff_s(self.troubles.total()), self._hello)
        self.troubles[f"hello was answered {error['code']}"] += 1

    def _held(self) -> dict[str, list[int]]:
        if self._latest is None:
            return {}
        frame = msgspec.json.decode(self._latest)
        return {frame["topic"]: frame["version"]}

    def _take(self, frame: bytes) -> None:
        if frame.startswith(b'{"re":'):
            if self._greeted.done():
                self.unanswered -= 1
            elif b'"ok":true' not in frame:
                self._refused(frame)
            else:
                self._greeted.set_result(perf_counter())
                if not self._snapshot or b'"resumed":["' in frame:
                    self._complete.set_result(perf_counter())
        elif frame.startswith((b'{"type":"snapshot"', b'{"type":"delta"')):
            self._latest = frame
            if not self._complete.done():
                self._complete.set_result(perf_counter())


def _fail(complete: "asyncio.Future[float]", why: str) -> None:
    if not complete.done():
        complete.set_exception(Dropped(why))


def backoff_s(tried: int) -> float:
    """How long an app waits after so many tries before this one."""
    return FIRST_BACKOFF_S * float(2**tried) * random.uniform(0.5, 1.5)


async def persist(caller: Caller, url: str) -> tuple[float, float]:
    """Call until it works."""
    while True:
        try:
            return await caller.call(url)
        except (OSError, WSError, Dropped) as error:
            wait_s = backoff_s(caller.troubles.total())
            caller.troubles[f"{type(error).__name__}: {error}"] += 1
        await asyncio.sleep(wait_s)


async def arrive(callers: Sequence[Caller], urls: Sequence[str], due_in_s: Sequence[float]) -> Arrivals:
    """Have each connect to its address when it is due, in so many seconds from now (ascending)."""
    arrivals = Arrivals()
    began_s = last_s = perf_counter()

    async def one(caller: Caller, url: str, due_s: float) -> None:
        nonlocal last_s
        caller.troubles.clear()
        try:
            async with asyncio.timeout(ARRIVED_WITHIN_S):
                greeted_s, complete_s = await persist(caller, url)
        except TimeoutError:
            arrivals.lost += 1
            return
        finally:
            arrivals.troubles += caller.troubles
        arrivals.greeted.add(greeted_s - due_s)
        arrivals.complete.add(complete_s - due_s)
        last_s = max(last_s, complete_s)

    gc.disable()  # with thousands of sockets it stops this process for long enough to be measured
    try:
        async with asyncio.TaskGroup() as tasks:
            for caller, url, due_in in zip(callers, urls, due_in_s, strict=True):
                if (wait_s := began_s + due_in - perf_counter()) > 0:
                    await asyncio.sleep(wait_s)
                tasks.create_task(one(caller, url, began_s + due_in))
    finally:
        gc.enable()
    arrivals.took_s = last_s - began_s
    return arrivals


async def answered(callers: Sequence[Caller], within_s: float = ARRIVED_WITHIN_S) -> None:
    """Return when all requests of these have had a reply. Raises `TimeoutError`."""
    async with asyncio.timeout(within_s):
        while any(caller.unanswered for caller in callers):
            await asyncio.sleep(_POLL_S)


async def leave(callers: Sequence[Caller]) -> None:
    """Drop every connection, and return when all are closed."""
    lines = [caller.line for caller in callers if hasattr(caller, "line")]
    for line in lines:
        line.drop()
    await asyncio.gather(*(line.closed for line in lines))


async def settled(subject: Subject) -> None:
    """Return when a server has next to nothing left to do, after a pause at least. Raises `TimeoutError`."""
    async with asyncio.timeout(SETTLED_WITHIN_S):
        busy = True
        while busy:
            before_s = subject.cpu_s()
            await asyncio.sleep(_QUIET_FOR_S)
            busy = subject.cpu_s() - before_s > _QUIET * _QUIET_FOR_S
