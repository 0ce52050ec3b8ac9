"""Request and reply over a WebSocket: what answering `ping` costs, against aiohttp that only echoes.

Sockets ask at an even rate, below what one of them may; the server's CPU time is divided by the answers.
haulcast's cost includes the envelope, validation, the rate limit and the metrics. It is about cost, not about latency.
"""

import asyncio
from time import perf_counter
from typing import Any

from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.line import SUBPROTOCOL, Line, Phone
from bench.kit.servers import Haulcast, Subject, baseline, embedded, python

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"sockets": 200, "seconds": 1.0, "repetitions": 5},
    "full": {"sockets": 200, "seconds": 5.0, "repetitions": 9},
}
TENANT = "request"
PER_SOCKET_S = 40
"""How often a socket asks; it may 50 times a second."""
TURNS = 5
"""In how many groups the sockets take turns."""
ANSWERED_WITHIN_S = 20.0
ASK = b'{"id":"r1234","type":"ping"}'


class Agent:
    """Sockets that ask."""

    def __init__(self, _number: int) -> None:
        self._lines: dict[str, list[Line]] = {}

    async def greet(self, url: str, tokens: list[str]) -> None:
        """Connect to haulcast."""
        phones = await asyncio.gather(*(Phone.connect(url, token) for token in tokens))
        self._lines[url] = [phone.line for phone in phones]

    async def connect(self, url: str, sockets: int) -> None:
        """Connect to what wants no hello."""
        ws = f"ws{url.removeprefix('http')}/v1/ws"
        self._lines[url] = [await Line.open(ws, lambda _frame: None, SUBPROTOCOL) for _ in range(sockets)]

    async def ask(self, url: str, seconds: float) -> int:
        """Have every socket ask at an even rate for about this time, and wait for the answers; how many came."""
        lines = self._lines[url]
        turns = round(seconds * PER_SOCKET_S) * TURNS
        to_ask = turns // TURNS * len(lines)
        answers = 0
        done = asyncio.get_running_loop().create_future()

        def on_text(_frame: bytes) -> None:
            nonlocal answers
            answers += 1
            if answers == to_ask:
                done.set_result(None)

        for line in lines:
            line.on_text = on_text
        began_s = perf_counter()
        for turn in range(turns):
            for line in lines[turn % TURNS :: TURNS]:
                line.send(ASK)
            await asyncio.sleep(began_s + (turn + 1) / (PER_SOCKET_S * TURNS) - perf_counter())
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            await done
        return answers


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    if bench.only_its_own_servers("haulcast"):
        return
    sockets, seconds = bench.options["sockets"], bench.options["seconds"]
    haulcast = await bench.stack.enter_async_context(embedded(bench.directory()))
    bare = await bench.stack.enter_async_context(baseline(python("bench.baselines.bare_aiohttp")))
    crew = await bench.stack.enter_async_context(Crew.hire(Agent, 1))
    await greet(haulcast, crew, sockets)
    await crew.ask("connect", bare.url, sockets)
    subjects: dict[str, Subject] = {"haulcast": haulcast, "bare aiohttp": bare}
    async for variant in bench.in_turns([*subjects], bench.options["repetitions"]):
        subject = subjects[variant]
        before_s = subject.cpu_s()
        (answers,) = await crew.ask("ask", subject.url, seconds)
        bench.record(variant, "us", cpu_per_request=(subject.cpu_s() - before_s) / answers * 1e6)
        bench.record(variant, "1/s", requests=answers / seconds)
        bench.record_crew(variant, crew)
    bench.target(
        "cpu",
        "server CPU per request, by that of bare aiohttp",
        bench.ratio(("haulcast", "cpu_per_request"), ("bare aiohttp", "cpu_per_request")),
        at_most=1.1,
    )


async def greet(haulcast: Haulcast, crew: Crew, sockets: int) -> None:
    """Connect operators, who may ask as often as they like."""
    await haulcast.create_tenant(TENANT)
    await crew.ask("greet", haulcast.url, [haulcast.token(TENANT, "operator", f"o{n}") for n in range(sockets)])
