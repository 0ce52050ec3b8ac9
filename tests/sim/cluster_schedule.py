"""A schedule: three nodes, their clients and operators, and what goes wrong, all of it drawn from one seed.

1. The seed determines everything. Each machine, line and client draws from a generator of its own, time is virtual,
   and nothing is ordered by what differs between two processes: the same seed gives the same trace, to the microsecond.
2. Weather is drawn once and holds for the schedule; faults come at drawn moments on top of it: a process is killed,
   stopped beyond its lease or restarted by plan, a line is cut or slow, the store of hints is emptied or out of reach.
3. All faults end at `FAULTS_END_S`. From then on every call is answered at once, what was on its way has landed, and
   every machine has a process. Then all has to come to rest, within the bounds that the checker knows.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any

from structlog.testing import capture_logs

from haulcast.domain.settings import TenantSettings
from haulcast.storage.memory import MemoryStore
from tests.sim.chronicle import Landing, Loss, Recording, Taking, WatchedJournal
from tests.sim.cluster_checker import check_at_rest, check_at_the_end
from tests.sim.cluster_clients import Clients, settle_fleet
from tests.sim.cluster_operators import Operators
from tests.sim.cluster_servers import Server
from tests.sim.evidence import Evidence
from tests.sim.faults import FlakyPresence
from tests.sim.lines import Weather
from tests.sim.processes import ProcessLoop
from tests.sim.virtual_time import START_MS, VirtualClock
from tests.sim.world import ACME, World

NODES = 3
BUSY_S = 14.0
"""When clients begin nothing new."""
FAULTS_END_S = 18.0
BOUND_S = 20.0
"""Within which everything is as it should be after the faults have ended."""
REST_S = 8.0
"""From the end of the last broadcast until nobody holds anything of it any more."""
FORGOTTEN_S = 85.0
"""How long the directory may speak of what is over, should the node have died that would have removed it."""

SETTINGS = TenantSettings(
    wave_interval_s=2.0, min_expiry_s=1, default_expiry_s=10, reminder_lead_s=2, toggle_limit=1_000
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a schedule."""

    seed: int
    violations: list[str]
    trace: list[tuple[object, ...]] = field(repr=False)
    counts: dict[str, int]

    @property
    def digest(self) -> str:
        """The trace in short: two runs with the same digest were the same."""
        return sha256(repr(self.trace).encode()).hexdigest()[:16]


def play(seed: int) -> Result:
    """Run one schedule on a loop of its own, and judge it."""
    with asyncio.Runner(debug=False, loop_factory=ProcessLoop) as runner, capture_logs() as logs:
        loop = runner.get_loop()
        assert isinstance(loop, ProcessLoop)
        schedule = runner.run(_ready(seed, loop))
        runner.run(schedule.play())
        result = schedule.result(logs)
        runner.run(schedule.bury())
    return result


async def _ready(seed: int, loop: ProcessLoop) -> "Schedule":
    return Schedule(seed, loop)


class Schedule:
    """One run. Made within its loop."""

    def __init__(self, seed: int, loop: ProcessLoop) -> None:
        self.seed = seed
        self._loop = loop
        self._random = Random(seed)
        self._trace: list[tuple[object, ...]] = []
        self._unexpected: list[str] = []
        loop.set_exception_handler(self._note_exception)
        clock = VirtualClock()
        store = MemoryStore()
        self._journal = WatchedJournal(clock, store, self._trace)
        presence = FlakyPresence(clock)
        presence.lookup_s = Random(f"{seed} presence").choice((0.0, 0.05, 0.3, 0.8))
        self._world = World(SETTINGS, clock, self._journal, store, presence=presence)
        weather = _weather(self._random)
        self._servers = [
            Server(number, f"{seed}", self._world, self._journal, weather, self._trace, FAULTS_END_S, loop)
            for number in range(NODES)
        ]
        self._clients = Clients(
            f"{seed}",
            self._world,
            self._journal,
            self._servers,
            self._trace,
            loop,
            BUSY_S,
            FAULTS_END_S + BOUND_S,
        )
        self._operators = Operators(
            f"{seed}",
            self._journal,
            self._servers,
            self._trace,
            loop,
            BUSY_S,
            FAULTS_END_S,
            FAULTS_END_S + BOUND_S,
        )
        self._violations: list[str] = []

    async def play(self) -> None:
        """All of it, from the first process to the last."""
        with self._journal.witnessing():
            await self._play()

    async def _play(self) -> None:
        await self._journal.create_tenant(ACME, SETTINGS)
        await settle_fleet(self._world)
        keeping = [asyncio.create_task(server.run()) for server in self._servers]
        await asyncio.sleep(0)
        clients = asyncio.create_task(self._everybody())
        await self._disturb()
        await self._rest(clients)
        evidence = Evidence(
            self._world,
            self._journal,
            self._servers,
            self._clients.requests,
            self._operators.instructions,
            FAULTS_END_S,
            BOUND_S,
        )
        self._violations += check_at_rest(evidence)
        for server in self._servers:
            server.over = True
            server.leave()
        await asyncio.wait(keeping, timeout=10)
        await asyncio.sleep(FORGOTTEN_S)
        self._violations += check_at_the_end(evidence)
        left = asyncio.all_tasks() - {asyncio.current_task()} - set(self._loop.remains)
        self._violations += sorted(f"task {_plain_name(task)} was left behind" for task in left)

    async def _everybody(self) -> None:
        """Clients and operators, until none of them wants anything any more."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._clients.run())
            group.create_task(self._operators.run())

    def result(self, logs: list[Any]) -> Result:
        """What came of it, with what was logged that nobody should have to read."""
        logged = [f"logged {one['event']}: {one.get('exc_info', '')!r}" for one in logs if one["event"] in _ALARMING]
        published = [
            ((one.at_ms - START_MS) / 1000, "published", one.change.after.broadcast_id, one.version, one.incarnation)
            for one in self._world.published
        ]
        book = Counter(type(entry) for entry in self._journal.book)
        requests = self._clients.requests.values()
        counts = {
            "requests": len(requests),
            "retries": sum(len(request.sent_at_ms) for request in requests) - len(requests),
            "processes": sum(len(server.runs) for server in self._servers),
            "writes": book[Landing],
            "claims": book[Taking],
            "nodes given up": book[Loss],
            "commands of operators": book[Recording],
        }
        found = self._world.violations + self._violations + self._unexpected + logged
        return Result(self.seed, list(dict.fromkeys(found)), [*self._trace, *published], counts)

    async def bury(self) -> None:
        """Cancel the tasks of killed processes, and whatever they begin meanwhile, now that nobody looks any more."""
        self._loop.set_exception_handler(lambda _loop, _context: None)
        for server in self._servers:
            for run in server.runs:
                run.process.exhume()
        while remains := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in remains:
                task.cancel()
            await asyncio.wait(remains)

    # --- What goes wrong ---

    async def _disturb(self) -> None:
        """Bring about the faults, each at its moment, and end them all."""
        random = self._random
        faults = sorted(
            (random.uniform(0.2, FAULTS_END_S - 1), random.choice(_FAULTS), random.randrange(NODES))
            for _ in range(random.choice((0, 1, 2, 3, 4, 5, 6, 8)))
        )
        for at_s, name, number in faults:
            await asyncio.sleep(at_s - self._loop.time())
            self._trace.append((self._loop.time(), "fault", name, number))
            self._strike(name, self._servers[number])
        await asyncio.sleep(FAULTS_END_S - self._loop.time())
        assert self._world.presence is not None
        self._world.presence.lookup_s = 0.0
        for server in self._servers:
            server.heal()

    def _strike(self, name: str, server: Server) -> None:
        random = self._random
        for_s = random.choice((0.4, 1.0, 2.0, 3.0, 5.0))
        steps = random.randrange(60)
        match name:
            case "crash":
                server.restart_after_s = random.choice((0.1, 1.0, 4.0))
                server.crash(steps)
            case "stall":
                server.stall(steps, for_s)
            case "leave":
                server.restart_after_s = random.choice((0.1, 1.0, 4.0))
                server.leave()
            case "cut from the cluster":
                server.cut((server.now.cluster_line,), for_s)
            case "cut from the journal":
                server.cut((server.now.journal_line,), for_s)
            case "cut from both":
                server.cut(server.now.lines, for_s)
            case "no cluster":
                for each in self._servers:
                    each.cut((each.now.cluster_line,), for_s)
            case "no journal":
                for each in self._servers:
                    each.cut((each.now.journal_line,), for_s)
            case "slow":
                server.slow(for_s)
            case "flush":
                self._flush()
            case "asleep through a flush":
                server.stall(steps, 5.0)
                self._loop.call_later(for_s, self._flush)

    def _flush(self) -> None:
        """The store of hints has forgotten everything. Unrealistic in that whoever listens still does."""
        self._trace.append((self._loop.time(), "flush"))
        store = self._world.store
        store.members.clear()
        store.directory.clear()
        store.tombstones.clear()

    async def _rest(self, clients: "asyncio.Task[None]") -> None:
        """Until every client is content and every broadcast over, or until that should have been."""
        while self._loop.time() < FAULTS_END_S + BOUND_S or self._journal._live:
            if clients.done() and not self._journal._live:
                break
            if self._loop.time() > FAULTS_END_S + 2 * BOUND_S + SETTINGS.default_expiry_s:
                break
            await asyncio.sleep(0.5)
        await asyncio.sleep(REST_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(BOUND_S):
                await clients

    def _note_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unexpected.append(f"unhandled: {context.get('message')} {context.get('exception')!r}")


_FAULTS = (
    *["crash", "stall"] * 3,
    *["leave", "flush", "cut from the cluster", "cut from the journal", "cut from both", "slow"] * 2,
    *["no cluster", "no journal", *["asleep through a flush"] * 2],
)

_ALARMING = {"carry_failed", "background_task_failed", "actor_died", "message_quarantined", "reply_not_logged"}


def _weather(random: Random) -> Weather:
    harsh = random.choice((0.0, 0.3, 1.0, 3.0))
    return Weather(
        latency_s=random.choice((0.0005, 0.002, 0.01, 0.05)),
        refused=0.01 * harsh,
        unanswered=0.02 * harsh,
        late=0.01 * harsh,
        lost=0.02 * harsh,
        doubled=0.02 * harsh,
        delayed=0.02 * harsh,
    )


def _plain_name(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())
