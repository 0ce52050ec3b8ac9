"""Connecting: thousands of transporters connect and say hello, at an even rate and all at once.

Measured is the time from when a connection was due until its hello is answered, and until the snapshot of its feed is
there; the server's CPU time for each; and the memory that the server holds for each while nothing is said. Against it,
aiohttp that only echoes: a handshake and one answer, with no token to check and no snapshot. Each turn has a fresh
server, as what was freed is used again. Not in the memory: what the kernel holds for a socket.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.fleet import Arrivals, Caller, allow_sockets, arrive, leave, settled, tenant_of
from bench.kit.servers import Haulcast, Subject, baseline, embedded, python, target_server

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"sockets": 1_000, "per_s": 500, "clients": 1, "repetitions": 2},
    "full": {"sockets": 10_000, "per_s": 500, "clients": 2, "repetitions": 5},
}
WARM_UP = 20
"""How many connect and leave before anything is measured. What they needed is used again, and missing in the memory."""


class Agent:
    """A share of the transporters."""

    def __init__(self, _number: int) -> None:
        self._callers: list[Caller] = []

    async def arrive(self, url: str, tokens: list[str], snapshot: bool, due_in_s: list[float]) -> Arrivals:
        """Connect with each token when it is due."""
        self._callers = [Caller(token, snapshot) for token in tokens]
        return await arrive(self._callers, [url] * len(tokens), due_in_s)

    async def leave(self) -> None:
        """Close all."""
        await leave(self._callers)


class Transporters:
    """Those who connect, over all client processes. `bare`: to a server that sends no snapshots."""

    def __init__(self, crew: Crew, url: str, tokens: list[str], bare: bool) -> None:
        self._crew = crew
        self._url = url
        self._tokens = tokens
        self._bare = bare

    async def arrive(self, sockets: int, per_s: float | None) -> Arrivals:
        """So many connect, at this rate; None: all at once."""
        shares = []
        for number in range(len(self._crew)):
            mine = range(number, sockets, len(self._crew))
            due_in_s = [0.0 if per_s is None else one / per_s for one in mine]
            shares.append((self._url, [self._tokens[one] for one in mine], not self._bare, due_in_s))
        return Arrivals.merged(await self._crew.ask_each("arrive", shares))

    async def leave(self) -> None:
        """All go, which is not measured: how busy the crew was with it does not count."""
        busy = self._crew.busy
        await self._crew.ask("leave")
        self._crew.busy = busy


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    sockets = bench.options["sockets"]
    allow_sockets(sockets)
    crew = await bench.stack.enter_async_context(Crew.hire(Agent, bench.options["clients"]))
    variants = ["haulcast", "bare aiohttp"] if bench.url is None else ["haulcast"]
    async for variant in bench.in_turns(variants, bench.options["repetitions"], warm_up=False):
        async with served(bench, variant) as (subject, tokens):
            transporters = Transporters(crew, subject.url, tokens, bare=variant != "haulcast")
            await transporters.arrive(min(WARM_UP, sockets), None)
            await transporters.leave()
            await settled(subject)
            crew.busy = 0.0
            await measure(bench, variant, "even", subject, transporters, bench.options["per_s"])
            await measure(bench, variant, "storm", subject, transporters, None)
            bench.record_crew(variant, crew)
    if bench.url is None:
        bench.target(
            "memory",
            "KB that the server holds per idle authenticated transporter's socket",
            median(bench.values("haulcast", "memory_per_socket")),
            at_most=12,
        )


async def measure(
    bench: Bench, variant: str, name: str, subject: Subject, transporters: Transporters, per_s: float | None
) -> None:
    """Have all connect, look, and have them go."""
    sockets = bench.options["sockets"]
    before_bytes, before_s = subject.memory_bytes(), subject.cpu_s()
    arrivals = await transporters.arrive(sockets, per_s)
    used_s = subject.cpu_s() - before_s
    bench.record_latency(variant, f"{name}_hello", arrivals.greeted)
    if variant == "haulcast":
        bench.record_latency(variant, f"{name}_snapshot", arrivals.complete)
    if per_s is None:
        bench.record(variant, "1/s", connections=len(arrivals.complete) / arrivals.took_s)
    bench.record(variant, "times", **{f"{name}_tried_again": arrivals.troubles.total()})
    if arrivals.troubles or arrivals.lost:
        bench.note(f"{variant}, {name}: {arrivals.lost} of {sockets} did not arrive; {arrivals.reasons}")
    if subject.pids:
        bench.record(variant, "us", **{f"{name}_cpu_per_connection": used_s / sockets * 1e6})
    if (
        subject.pids and per_s is not None
    ):  # a storm's leftovers would be counted too, and later turns' memory is reused
        await settled(subject)
        held_bytes = subject.memory_bytes() - before_bytes
        bench.record(variant, "KB", memory_per_socket=held_bytes / (sockets - arrivals.lost) / 1000)
    await transporters.leave()
    await settled(subject)  # it still has the sockets, and the files, of those who have left


@asynccontextmanager
async def served(bench: Bench, variant: str) -> AsyncIterator[tuple[Subject, list[str]]]:
    """The server of a variant, and tokens for it."""
    sockets = bench.options["sockets"]
    if variant != "haulcast":
        async with baseline(python("bench.baselines.bare_aiohttp")) as bare:
            yield bare, ["a-token-of-a-length-that-is-usual" * 7] * sockets
    elif bench.url is not None:
        server = await target_server(bench)
        yield server, await tokens_of(server, sockets)
    else:
        async with embedded(bench.directory()) as server:
            yield server, await tokens_of(server, sockets)


async def tokens_of(server: Haulcast, sockets: int) -> list[str]:
    """Tokens of transporters in a tenant of their own."""
    tenant = tenant_of("connect")
    await server.create_tenant(tenant)
    return [server.token(tenant, "transporter", f"t{number}") for number in range(sockets)]
