"""Reconnecting: all transporters lose their connections at once and come back at once, while others go on asking.

The transporters have live offers in their feeds. Each comes back as the protocol says: hello with the version that it
holds, then `transporter.online` and its position; it is back when it has the snapshot, or when the server has said that
it goes on from that version. Then all must have all their offers. Measured is the time until all are back, the server's
CPU time for each (that of the pings is in it), and how long those wait meanwhile who stayed connected and ping at an
even rate from a process of their own, from when a ping was due. `calm` is the same before the storm: how long this
machine makes them wait anyway. `sent_late` is how late their own process was, which is in what they waited. Of several
nodes, each transporter comes back to the next one, which has to read its snapshot.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.fleet import Arrivals, Caller, allow_sockets, answered, arrive, leave, settled, tenant_of
from bench.kit.histogram import Histogram
from bench.kit.line import Phone
from bench.kit.servers import Haulcast, Missing, clustered, target_server
from haulcast.demo.stores import StoreFailed

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"sockets": 1_000, "others": 40, "offers": 3, "nodes": 1, "repetitions": 2},
    "full": {"sockets": 5_000, "others": 40, "offers": 3, "nodes": 2, "repetitions": 7},
}
PINGS_PER_S = 10
"""How often each of the others pings."""
STRETCH_S = 0.5
"""For so long the others are asked to ping; then again, until the transporters are back."""
CALM_S = 1.0
SET_UP_PER_S = 300
"""How many transporters a second connect for the first time; their positions are good for a minute."""
OFFERED_WITHIN_S = 60.0
PLACE = {"lat": 12.97, "lng": 77.59}
TRUCK = "truck"


class Transporter(Caller):
    """One of those who go and come back, with one vehicle."""

    def __init__(self, user: str, token: str) -> None:
        super().__init__(token)
        self._vehicle = vehicle_of(user)

    async def call(self, url: str) -> tuple[float, float]:
        """Also go online and say where the vehicle is, without waiting for the answers."""
        times_s = await super().call(url)
        self.ask("transporter.online", {})
        self.ask("location", {"vehicle_id": self._vehicle, **PLACE})
        return times_s


class Transporters:
    """All of them, in one process."""

    def __init__(self, _number: int) -> None:
        self._callers: dict[str, list[Transporter]] = {}
        self._turn = 0

    async def begin(self, urls: list[str], tokens: dict[str, str]) -> Arrivals:
        """Connect and go online, at a pace that any server bears."""
        callers = self._callers[urls[0]] = [Transporter(user, token) for user, token in tokens.items()]
        return await self._arrive(callers, urls, [number / SET_UP_PER_S for number in range(len(callers))])

    async def storm(self, urls: list[str]) -> Arrivals:
        """Drop all and have all come back."""
        callers = self._callers[urls[0]]
        for caller in callers:
            caller.line.drop()
        self._turn += 1
        return await self._arrive(callers, urls, [0.0] * len(callers))

    async def lacking(self, urls: list[str], offers: int) -> int:
        """How many lack an offer."""
        lacking = 0
        for caller in self._callers[urls[0]]:
            lacking += len((await caller.look())["offers"]) != offers
        return lacking

    async def end(self, urls: list[str]) -> None:
        """Drop all, for good."""
        await leave(self._callers[urls[0]])

    async def _arrive(self, callers: Sequence[Transporter], urls: list[str], due_in_s: list[float]) -> Arrivals:
        nodes = [urls[(number + self._turn) % len(urls)] for number in range(len(callers))]
        arrivals = await arrive(callers, nodes, due_in_s)
        await answered(callers)
        return arrivals


class Others:
    """Those who stay connected and ping."""

    def __init__(self, _number: int) -> None:
        self._phones: dict[str, list[Phone]] = {}

    async def connect(self, urls: list[str], tokens: list[str]) -> None:
        """Connect to all addresses in turn."""
        nodes = (urls[number % len(urls)] for number in range(len(tokens)))
        self._phones[urls[0]] = [await Phone.connect(url, token) for url, token in zip(nodes, tokens, strict=False)]

    async def ping(self, urls: list[str], seconds: float) -> tuple[Histogram, Histogram]:
        """Ping at an even rate; how long each waited from when its ping was due, and how late pings were sent."""
        phones = self._phones[urls[0]]
        waited, sent_late = Histogram(), Histogram()
        asked: list[asyncio.Future[bytes]] = []

        def note(due_s: float, _answer: "asyncio.Future[bytes]") -> None:
            waited.add(perf_counter() - due_s)

        began_s = perf_counter()
        for number in range(round(seconds * PINGS_PER_S * len(phones))):
            due_s = began_s + number / (PINGS_PER_S * len(phones))
            if (wait_s := due_s - perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            sent_late.add(perf_counter() - due_s)
            future = phones[number % len(phones)].ask("ping", {})
            future.add_done_callback(partial(note, due_s))
            asked.append(future)
        await asyncio.gather(*asked)
        return waited, sent_late


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    sockets, nodes = bench.options["sockets"], bench.options["nodes"]
    allow_sockets(sockets * (1 if nodes == 1 or bench.url else 2))  # those of both variants are one process'
    transporters = await bench.stack.enter_async_context(Crew.hire(Transporters, 1))
    others = await bench.stack.enter_async_context(Crew.hire(Others, 1))
    servers = {"haulcast": await target_server(bench)}
    if nodes > 1 and bench.url is None:
        variant = f"haulcast, {nodes} nodes"
        with bench.needs(variant):
            try:
                servers[variant] = await bench.stack.enter_async_context(clustered(bench.directory(), nodes))
            except StoreFailed as error:
                raise Missing(str(error)) from None
    for variant, server in servers.items():
        bench.tell(f"{variant}: transporters, vehicles, offers")
        await set_up(bench, server, transporters, others)
    async for variant in bench.in_turns([*servers], bench.options["repetitions"]):
        await storm(bench, variant, servers[variant], transporters, others)
    for server in servers.values():
        await transporters.ask("end", server.urls)
    bench.target(
        "others_ms",
        "the longest that anybody who stayed connected waited for a ping while all transporters came back",
        max(value for variant in servers for value in bench.values(variant, "others_max")),
        at_most=50,
    )


async def set_up(bench: Bench, server: Haulcast, transporters: Crew, others: Crew) -> None:
    """A tenant whose transporters all have all offers in their feeds."""
    sockets, offers, tenant = bench.options["sockets"], bench.options["offers"], tenant_of("reconnect")
    users = [f"t{number}" for number in range(sockets)]
    await server.create_tenant(tenant, wave_radii_km=[10], max_offers_per_wave=10_000)
    await server.import_fleet(tenant, {user: [(vehicle_of(user), TRUCK)] for user in users}, drivers=0)
    (arrivals,) = await transporters.ask("begin", server.urls, server.tokens(tenant, "transporter", users))
    if arrivals.lost:
        raise RuntimeError(f"{arrivals.lost} of {sockets} transporters could not connect: {arrivals.reasons}")
    for number in range(offers):
        await broadcast(server, server.token(tenant, "customer", f"c{number}"), sockets)
    tokens = [server.token(tenant, "customer", f"other{number}") for number in range(bench.options["others"])]
    await others.ask("connect", server.urls, tokens)


async def broadcast(server: Haulcast, token: str, transporters: int) -> None:
    """Look for a truck; returns when all have been offered it. Raises `TimeoutError`."""
    all_notified = asyncio.Event()

    def look(frame: bytes) -> None:
        if f'"/notified":{transporters}'.encode() in frame:
            all_notified.set()

    phone = await Phone.connect(server.url, token, look)
    trucks = [{"vehicle_type": TRUCK, "count": 1}]
    await phone.do("broadcast.create", {"pickup": PLACE, "drop": PLACE, "trucks": trucks, "expires_in_s": 7_200})
    async with asyncio.timeout(OFFERED_WITHIN_S):
        await all_notified.wait()
    phone.line.drop()


async def storm(bench: Bench, variant: str, server: Haulcast, transporters: Crew, others: Crew) -> None:
    """Once: the calm, then all at once, and the others meanwhile."""
    sockets = bench.options["sockets"]
    await settled(server)
    ((calm, _),) = await others.ask("ping", server.urls, CALM_S)
    before_s = server.cpu_s()
    coming = asyncio.create_task(transporters.ask("storm", server.urls))
    waited, sent_late = Histogram(), Histogram()
    while not coming.done():
        ((one, late),) = await others.ask("ping", server.urls, STRETCH_S)
        waited.merge(one)
        sent_late.merge(late)
    (arrivals,) = await coming
    used_s = server.cpu_s() - before_s
    (lacking,) = await transporters.ask("lacking", server.urls, bench.options["offers"])
    if arrivals.lost or lacking:
        raise RuntimeError(f"{variant}: {lacking} are not back with all offers, {arrivals.lost} not at all")
    if arrivals.troubles:
        bench.note(f"{variant}: {arrivals.reasons}")
    bench.record(variant, "times", tried_again=arrivals.troubles.total())
    bench.record(variant, "s", all_back=arrivals.took_s)
    bench.record_latency(variant, "snapshot", arrivals.complete)
    bench.record_latency(variant, "others", waited)
    bench.record(variant, "ms", calm_max=calm.ms(100), sent_late_max=sent_late.ms(100))
    if server.pids:
        bench.record(variant, "us", cpu_per_reconnect=used_s / sockets * 1e6)
    bench.record_crew(variant, transporters)
    bench.record_crew(variant, others)


def vehicle_of(user: str) -> str:
    """The id of a transporter's only vehicle."""
    return f"v-{user}"
