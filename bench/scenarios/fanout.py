"""Fan-out: what it costs the server that one message reaches many sockets, against peers and the limit.

1. A delivery is one message that reaches one recipient. haulcast's message is a change of a broadcast that everybody
   watches: one delta and one event, after authorisation, decision and durable commit. All others send a message of the
   same size that is finished already.
2. `one`: one message per client and tick; the next leaves when everybody has got it. `four`: four at once, of haulcast
   four changes of four broadcasts, which land in one commit. `writes` are write calls per delivery, by which it shows
   that the four leave in one; what is above 0.25 are the journal's own.
3. `last` is the time from asking for the change to the last recipient. Clients share the machine's cores with the
   server, so it compares variants and promises nothing.
4. `stall` is how long haulcast's event loop did not come back while changes fanned out, seen from outside: the longest
   answer to a ping, less the median one in peace, and less the time in which the server waited for a core. The
   recipients' processes stand still meanwhile; the kernel keeps for them what is sent. It shows any stall, whatever it
   was that the loop did, but none that fits between two pings (2.5 ms); and when the asking process was kept waiting
   itself, as on a machine that others use, that counts against haulcast too.
5. `haulcast offers` is what a new broadcast costs per transporter that gets it: candidates looked up and ranked,
   their offers checkpointed, and each told of its own. It is not a mere fan-out, and compared with none.
"""

import asyncio
import resource
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import aiohttp

from bench.baselines import epoll, node
from bench.baselines.crowd import PROBES, Crowd, Probe
from bench.baselines.hauls import LAT, LNG, TENANT, TOPICS, Offers, Trips
from bench.kit import procstat
from bench.kit.bench import Bench
from bench.kit.crew import Crew
from bench.kit.histogram import Histogram
from bench.kit.servers import Haulcast, Missing, Subject, baseline, clustered, embedded, python
from haulcast.demo.stores import StoreFailed

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"recipients": [1000], "two_nodes": 200, "clients": 2, "deliveries": 6_000, "repetitions": 5},
    "full": {"recipients": [1000, 10_000], "two_nodes": 200, "clients": 4, "deliveries": 20_000, "repetitions": 7},
}
MOST_TICKS, FEWEST_TICKS = 24, 4
"""Of one turn, with one message each."""
STALL_TICKS = 8
STALL_TICK_S, STALL_TICK_PER_RECIPIENT_S = 0.02, 0.00002
"""How long a fan-out may take before the next one: so much, and so much for each recipient."""
PEACE_S = 0.2
OFFERS = 2
"""Broadcasts in one turn."""
SOCKETS_EACH = 6
"""How many sockets a recipient has, one for each server."""
OTHER_FILES = 200
FRAMES = 2
"""A change of haulcast: a delta and an event."""

HAULCAST, OFFERED, RAW, C, WS = "haulcast", "haulcast offers", "raw uvloop", "C epoll", "Node ws"
SHARED, ROOMS = "Socket.IO shared room", "Socket.IO room per user"
TWO_HAULCAST, TWO_SHARED, TWO_ROOMS = (f"{name}, two nodes" for name in (HAULCAST, SHARED, ROOMS))


Send = Callable[[int], Awaitable[None]]
"""Has so many messages sent at once."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A server with its crowd. `frames` is what a message consists of."""

    subject: Subject
    crowd: str
    send: Send
    frames: int = 1


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    if bench.only_its_own_servers(HAULCAST):
        return
    sizes: list[int] = bench.options["recipients"]
    for size in sizes:
        suffix = "" if size == sizes[0] else f", {size} recipients"
        with bench.needs(HAULCAST + suffix):
            allow_files(SOCKETS_EACH * size // bench.options["clients"], size)
            async with AsyncExitStack() as stack:
                await one_node(bench, stack, size, suffix)
    with bench.needs(TWO_HAULCAST):
        try:
            async with AsyncExitStack() as stack:
                await two_nodes(bench, stack)
        except StoreFailed as error:
            raise Missing(str(error)) from None
    tell_targets(bench, f", {sizes[-1]} recipients" if len(sizes) > 1 else "", sizes[-1])


def allow_files(*sockets: int) -> None:
    """Let the processes that are started from here have so many sockets each. Raises `Missing`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(sockets) + OTHER_FILES
    if most != resource.RLIM_INFINITY and most < wanted:
        raise Missing(f"a process may open {most} files, and this wants {wanted} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def one_node(bench: Bench, stack: AsyncExitStack, size: int, suffix: str) -> None:
    """All variants on one node, with crowds of this size. `suffix`: of the variants' names."""
    bench.tell("haulcast is started")
    haulcast = await stack.enter_async_context(embedded(bench.directory()))
    offering = await stack.enter_async_context(embedded(bench.directory()))
    # Clients are ended before the servers, which would wait for them.
    crew = await stack.enter_async_context(Crew.hire(Crowd, bench.options["clients"]))
    probe = await stack.enter_async_context(Crew.hire(Probe, 1))
    http = await stack.enter_async_context(aiohttp.ClientSession())
    sender, size_bytes = await watch(bench, haulcast, crew, size, STALL_TICKS)
    bench.note(f"a message has {size_bytes} bytes: the payloads of a change's delta and event together")
    senders = {HAULCAST + suffix: sender}
    probes = [haulcast.token(TENANT, "operator", f"p{number}") for number in range(PROBES)]
    await probe.ask("connect", haulcast.url, haulcast.pids[0], probes)
    for name in (RAW, C, WS, SHARED, ROOMS):
        bench.tell(f"{name} is started")
        with bench.needs(name + suffix):
            if name == ROOMS:
                await node.packages()
                subject, crowd = senders[SHARED + suffix].subject, SHARED
            else:
                program, environ = await command(bench, name)
                subject, crowd = await stack.enter_async_context(baseline(program, **environ)), name
                await connect(crew, name, [subject], size)
            send = trigger(http, subject, size_bytes, size if name == ROOMS else 0)
            senders[name + suffix] = Sender(subject, crowd, send)
    bench.tell("transporters go online")
    offers = await go_online(offering, crew, size)

    async for variant in bench.in_turns([*senders, OFFERED + suffix], bench.options["repetitions"]):
        if variant not in senders:
            await measure_offers(bench, crew, variant, offering, offers, size)
            continue
        await measure(bench, crew, variant, senders[variant], size)
        if variant == HAULCAST + suffix:
            await measure_stall(bench, crew, probe, variant, sender, size)


async def two_nodes(bench: Bench, stack: AsyncExitStack) -> None:
    """haulcast and Socket.IO over two nodes each, with the same Redis."""
    size = bench.options["two_nodes"]
    bench.tell("two nodes are started")
    haulcast = await stack.enter_async_context(clustered(bench.directory(), 2))
    crew = await stack.enter_async_context(Crew.hire(Crowd, 2))
    http = await stack.enter_async_context(aiohttp.ClientSession())
    postgres, redis = haulcast.store_pids
    sender, size_bytes = await watch(bench, haulcast, crew, size)
    senders = {TWO_HAULCAST: sender}
    for name in (TWO_SHARED, TWO_ROOMS):
        with bench.needs(name):
            await node.packages()
            if name == TWO_SHARED:
                environ = {**node.environ(), "REDIS_URL": haulcast.store_urls["HAULCAST_REDIS_URL"]}
                pair = [await stack.enter_async_context(baseline(node.script("socketio.js"), **environ)) for _ in "12"]
                await connect(crew, SHARED, pair, size)
                subject = Subject([one.url for one in pair], [pid for one in pair for pid in one.pids])
            else:
                subject = senders[TWO_SHARED].subject
            send = trigger(http, subject, size_bytes, size if name == TWO_ROOMS else 0)
            senders[name] = Sender(subject, SHARED, send)
    async for variant in bench.in_turns([*senders], bench.options["repetitions"]):
        before_s = procstat.cpu_s([redis]), procstat.cpu_s([postgres])
        deliveries = await measure(bench, crew, variant, senders[variant], size)
        stores = {"redis": procstat.cpu_s([redis]) - before_s[0], "postgres": procstat.cpu_s([postgres]) - before_s[1]}
        bench.record(variant, "us", **{f"cpu_{store}": used_s / deliveries * 1e6 for store, used_s in stores.items()})


async def command(bench: Bench, name: str) -> tuple[list[str], dict[str, str]]:
    """What starts this baseline, and its environment. Raises `Missing`."""
    if name == RAW:
        return python("bench.baselines.raw_uvloop"), {}
    if name == C:
        program, version = await epoll.compiled(bench.directory())
        bench.version(cc=version)
        return [program], {}
    bench.version(**await node.packages())
    return node.script("ws.js" if name == WS else "socketio.js"), node.environ()


def trigger(http: aiohttp.ClientSession, subject: Subject, size_bytes: int, users: int) -> Send:
    """What has a baseline send."""

    async def send(count: int) -> None:
        asked = {"count": str(count), "bytes": str(size_bytes), **({"users": str(users)} if users else {})}
        async with http.get(f"{subject.url}/send", params=asked) as response:
            response.raise_for_status()

    return send


async def connect(crew: Crew, name: str, subjects: Sequence[Subject], size: int) -> None:
    """Connect a crowd to a baseline, evenly over its nodes."""
    urls = [subjects[number % len(subjects)].url for number in range(len(crew))]
    if name == SHARED:
        users = [list(range(number, size, len(crew))) for number in range(len(crew))]
        await crew.ask_each("connect_socketio", [(name, *rest) for rest in zip(urls, users, strict=True)])
    else:
        await crew.ask_each("connect", [(name, url, size // len(crew)) for url in urls])


async def watch(bench: Bench, haulcast: Haulcast, crew: Crew, size: int, stall_ticks: int = 0) -> tuple[Sender, int]:
    """Connect operators who watch broadcasts, evenly over the nodes; and how many bytes one gets of a change."""
    ticks = ticks_of(bench, size)
    a_turn = (ticks + stall_ticks) // TOPICS + ticks // 2
    trips = Trips(haulcast, 1 + a_turn * (bench.options["repetitions"] + 1))
    topics = await trips.create()
    tokens = [haulcast.token(TENANT, "operator", f"o{number}") for number in range(size)]
    await crew.ask_each(
        "watch",
        [
            (HAULCAST, haulcast.urls[number % len(haulcast.urls)], tokens[number :: len(crew)], topics)
            for number in range(len(crew))
        ],
    )
    await crew.ask("begin", HAULCAST, FRAMES)
    changes = await trips.assign()
    await crew.ask("complete", HAULCAST, changes - 1)
    await crew.ask("begin", HAULCAST, FRAMES * TOPICS)
    await trips.change(TOPICS)
    await crew.ask("complete", HAULCAST, 0)
    heard_bytes = sum(await crew.ask("heard_bytes", HAULCAST))
    return Sender(haulcast, HAULCAST, trips.change, FRAMES), round(heard_bytes / TOPICS / size)


async def go_online(haulcast: Haulcast, crew: Crew, size: int) -> Offers:
    """Connect transporters who get offers."""
    transporters = [f"t{number}" for number in range(size)]
    offers = Offers(haulcast, transporters)
    await offers.prepare()
    tokens = haulcast.tokens(Offers.TENANT, "transporter", transporters)
    shares = [dict(list(tokens.items())[number :: len(crew)]) for number in range(len(crew))]
    await crew.ask_each("go_online", [(OFFERED, haulcast.url, share) for share in shares])
    return offers


def ticks_of(bench: Bench, size: int) -> int:
    """How many messages a turn sends one at a time: a multiple of `TOPICS`."""
    wanted: int = bench.options["deliveries"] // size
    return max(FEWEST_TICKS, min(MOST_TICKS, wanted)) // TOPICS * TOPICS


async def measure(bench: Bench, crew: Crew, variant: str, sender: Sender, size: int) -> int:
    """A turn of a variant; how many deliveries it had."""
    ticks, subject = ticks_of(bench, size), sender.subject
    busy, deliveries = 0.0, 0
    for label, at_once, count in (("one", 1, ticks), ("four", TOPICS, ticks // 2)):
        await crew.ask("begin", sender.crowd, at_once * sender.frames)
        clients_s = [procstat.cpu_s([pid]) for pid in crew.pids]
        before_s, before, began_s = subject.cpu_s(), writes(subject), perf_counter()
        took_s = []
        for tick in range(count):
            asked_s = perf_counter()
            await sender.send(at_once)
            took_s.append(max(await crew.ask("complete", sender.crowd, tick)) - asked_s)
        mine = size * at_once * count
        deliveries += mine
        bench.record(variant, "us", **{f"cpu_{label}": (subject.cpu_s() - before_s) / mine * 1e6})
        bench.record(variant, "per delivery", **{f"writes_{label}": (writes(subject) - before) / mine})
        bench.record(variant, "ms", **{f"last_{label}": median(took_s) * 1e3})
        used_s = [procstat.cpu_s([pid]) - had for pid, had in zip(crew.pids, clients_s, strict=True)]
        busy = max(busy, max(used_s) / (perf_counter() - began_s))
    crew.busy = busy
    bench.record_crew(variant, crew)
    return deliveries


async def measure_offers(bench: Bench, crew: Crew, variant: str, haulcast: Haulcast, offers: Offers, size: int) -> None:
    """A turn of offers: so many broadcasts, each cancelled when everybody has got its offer."""
    await crew.ask("report_positions", LAT, LNG)
    used_s, took_s = 0.0, []
    for _ in range(OFFERS):
        await crew.ask("begin", OFFERED, FRAMES)
        before_s, asked_s = haulcast.cpu_s(), perf_counter()
        await offers.create()
        took_s.append(max(await crew.ask("complete", OFFERED, 0)) - asked_s)
        used_s += haulcast.cpu_s() - before_s
        await offers.cancel()
        await crew.ask("complete", OFFERED, 1)
    bench.record(variant, "us", cpu_one=used_s / (size * OFFERS) * 1e6)
    bench.record(variant, "ms", last_one=median(took_s) * 1e3)


async def measure_stall(bench: Bench, crew: Crew, probe: Crew, variant: str, sender: Sender, size: int) -> None:
    """A turn of pings: in peace, and while changes fan out to recipients who do not read yet."""
    await probe.ask("begin")
    await asyncio.sleep(PEACE_S)
    (peace,) = await probe.ask("end")
    every_s = STALL_TICK_S + size * STALL_TICK_PER_RECIPIENT_S
    await crew.ask("begin", sender.crowd, sender.frames)
    paused = asyncio.create_task(crew.ask("pause", STALL_TICKS * every_s))
    await probe.ask("begin")
    for _ in range(STALL_TICKS):
        await asyncio.gather(sender.send(1), asyncio.sleep(every_s))
    (busy,) = await probe.ask("end")
    await paused
    await crew.ask("complete", sender.crowd, STALL_TICKS - 1)
    stall_s = max(0.0, max(busy) - median(peace))
    bench.record(variant, "ms", stall=stall_s * 1e3)
    bench.record_latency(variant, "ping", Histogram(busy))


def writes(subject: Subject) -> int:
    """How many write calls its processes have made so far."""
    total = 0
    for pid in subject.pids:
        for member in procstat.family(pid):
            for line in Path(f"/proc/{member}/io").read_text().splitlines():
                if line.startswith("syscw:"):
                    total += int(line.split()[1])
    return total


def tell_targets(bench: Bench, largest: str, size: int) -> None:
    """What was to be reached."""
    for name, text, over, under, at_most in (
        ("cpu_by_c", "CPU per delivery, by the C sender's", (HAULCAST, "cpu_one"), (C, "cpu_one"), 1.4),
        (
            "cpu_by_socketio",
            "CPU per delivery, by that of a Socket.IO room",
            (HAULCAST, "cpu_one"),
            (SHARED, "cpu_one"),
            0.5,
        ),
        (
            "four_by_c",
            "CPU per delivery at four per client and tick, by the C sender's",
            (HAULCAST, "cpu_four"),
            (C, "cpu_four"),
            1.0,
        ),
        (
            "two_nodes",
            "CPU per delivery of both nodes, by that of Socket.IO with a room per user",
            (TWO_HAULCAST, "cpu_one"),
            (TWO_ROOMS, "cpu_one"),
            0.1,
        ),
    ):
        bench.target(name, text, bench.ratio(over, under), at_most=at_most)
    stalls = bench.values(HAULCAST + largest, "stall")
    bench.target(
        "stall_ms",
        f"milliseconds that pings were held up by changes for {size} recipients",
        median(stalls) if stalls else None,
        at_most=10.0,
    )
