"""Operators of a simulated cluster, who change at any node what is in force, while everything else goes wrong.

1. A command keeps its id until it is answered, as requests of clients do: not heard of, it is given again at whichever
   server, some at two at once, and some again although they were answered.
2. Who pauses dispatch resumes it. When nobody will pause any more, it is resumed once again, and what customers'
   broadcasts replace is put back to what it was: then everything can come to rest.
3. Others change only how trucks are found, as long as there are faults, and now and then leave before they have heard
   anything: nobody but the nodes themselves sees to it that such a command reaches everybody.
4. Each draws from a generator of its own.
"""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random

from haulcast.domain.control import (
    Announce,
    Audience,
    ControlCommand,
    PatchSettings,
    Pause,
    ReloadSettings,
    Resume,
    SwitchMode,
)
from haulcast.domain.modes import MODES
from haulcast.domain.replies import Done, Reply
from haulcast.domain.settings import ActiveBroadcastPolicy
from haulcast.errors import ERRORS, RequestError
from haulcast.ports import Origin, RequestKey, Role
from tests.sim.chronicle import Instruction, WatchedJournal
from tests.sim.cluster_servers import Server
from tests.sim.processes import ProcessLoop
from tests.sim.world import ACME

DISPATCHERS = ("o0", "o1")
TINKERERS = ("o2", "o3")
_CHANGES: tuple[Mapping[str, object], ...] = (
    *({"wave_interval_s": seconds} for seconds in (0.5, 1.0, 4.0)),
    *({"wave_radii_km": radii} for radii in ((10.0,), (5.0, 20.0), (10.0, 25.0, 50.0, 75.0, None), (None,)) * 2),
    *({"max_offers_per_wave": number} for number in (1, 2, 500)),
    *({"accept_window_s": seconds} for seconds in (0.3, 1.0, 3.0)),
    {"min_expiry_s": 1, "max_expiry_s": 20, "default_expiry_s": 8},
    {"max_expiry_s": 86_400, "default_expiry_s": 10},
    {"wave_interval_s": 2.0, "max_offers_per_wave": 3},
)
"""None of them makes a client's request one that is not valid."""


class Operators:
    """All operators of a schedule. They pause until `busy_s`, change other things until `faults_end_s`, and want their
    answers until `until_s`."""

    def __init__(
        self,
        seed: str,
        journal: WatchedJournal,
        servers: Sequence[Server],
        trace: list[tuple[object, ...]],
        loop: ProcessLoop,
        busy_s: float,
        faults_end_s: float,
        until_s: float,
    ) -> None:
        self._seed = seed
        self._journal = journal
        self._servers = servers
        self._trace = trace
        self._loop = loop
        self._busy_s = busy_s
        self._faults_end_s = faults_end_s
        self._until_s = until_s
        self.instructions: dict[RequestKey, Instruction] = {}

    async def run(self) -> None:
        """Until nobody wants anything any more."""
        random = Random(f"{self._seed} operators")
        dispatchers = DISPATCHERS[: random.choice((0, 1, 1, 2))]
        tinkerers = TINKERERS[: random.choice((0, 1, 2, 2))]
        async with asyncio.TaskGroup() as others:
            for name in tinkerers:
                others.create_task(self._tinker(name, Random(f"{self._seed} {name}")))
            async with asyncio.TaskGroup() as group:
                for name in dispatchers:
                    group.create_task(self._dispatch(name, Random(f"{self._seed} {name}")))
            if dispatchers:
                await self._give(random, "o9", "go on", Resume(), whatever=True)
                back = PatchSettings({"active_broadcast_policy": ActiveBroadcastPolicy.REJECT})
                await self._give(random, "o9", "put back", back, whatever=True)

    # --- What they do ---

    async def _dispatch(self, name: str, random: Random) -> None:
        rounds = 0
        while await self._pause(random, 2.5, self._busy_s):
            rounds += 1
            if random.random() < 0.4:
                await self._give(random, name, f"pause {rounds}", Pause())
                await asyncio.sleep(random.expovariate(1.0))
                await self._give(random, name, f"resume {rounds}", Resume())
            elif random.random() < 0.4:
                policy = random.choice((ActiveBroadcastPolicy.REPLACE, *ActiveBroadcastPolicy))
                await self._give(random, name, f"{rounds}", PatchSettings({"active_broadcast_policy": policy}))
            else:
                await self._give(random, name, f"{rounds}", _harmless(random, f"{name}.{rounds}"))

    async def _tinker(self, name: str, random: Random) -> None:
        rounds = 0
        mean_s = random.choice((1.0, 3.0))
        while await self._pause(random, mean_s, self._faults_end_s):
            rounds += 1
            patience_s = random.choice((0.05, 1.0, self._until_s)) if random.random() < 0.3 else self._until_s
            command = _harmless(random, f"{name}.{rounds}")
            try:
                async with asyncio.timeout(patience_s):
                    await self._give(random, name, f"{rounds}", command)
            except TimeoutError:
                self.instructions[RequestKey(ACME, Role.OPERATOR, name, f"{rounds}")].left = True

    # --- How they ask ---

    async def _give(
        self, random: Random, user: str, name: str, command: ControlCommand, *, whatever: bool = False
    ) -> None:
        """Give a command until there is an answer; now and then at two servers at once, or once more afterwards, or on
        top of the version that is in force now alone, unless it is to be carried out `whatever` others do."""
        key = RequestKey(ACME, Role.OPERATOR, user, name)
        in_force = (await self._journal.control_versions([ACME]))[ACME]
        expected = in_force if random.random() < 0.2 and not whatever else None
        instruction = self.instructions[key] = Instruction(key, command, expected)
        tries = 2 if random.random() < 0.2 else 1
        async with asyncio.TaskGroup() as group:
            for _ in range(tries):
                group.create_task(self._attempt(Random(random.random()), instruction))
        if random.random() < 0.1:
            await asyncio.sleep(random.expovariate(0.5))
            await self._attempt(random, instruction)

    async def _attempt(self, random: Random, instruction: Instruction) -> None:
        origin = Origin(instruction.key, str(instruction.command))
        while self._loop.time() < self._until_s:
            server = random.choice(self._servers)
            heard: asyncio.Future[Reply | RequestError] = self._loop.create_future()
            self._trace.append((self._loop.time(), "command", server.number, instruction.key, origin.fingerprint))
            server.instruct(
                instruction.command,
                origin,
                instruction.expected,
                self._reply,
                lambda answer: _hear(heard, answer),  # noqa: B023
            )
            await asyncio.wait([heard], timeout=random.choice((0.3, 2.0, 7.0)))
            answer = heard.result() if heard.done() else None
            self._trace.append((self._loop.time(), "answer", instruction.key, str(answer)))
            if isinstance(answer, RequestError):
                instruction.errors.append(answer.code)
                if not ERRORS[answer.code].retry:
                    instruction.final = True
                    return
            elif answer is not None:
                instruction.replies.append(answer)
                instruction.final = True
                return
            await asyncio.sleep(random.uniform(0.02, 0.5))

    def _reply(self, reply: Reply) -> None:
        """A node answers, now."""
        if not isinstance(reply, Done):
            return
        version, told = reply.data["version"], reply.data["nodes"]
        assert isinstance(version, int)
        assert isinstance(told, Sequence)
        nodes = frozenset(each["node"] for each in told if isinstance(each, dict) and each["status"] == "acked")
        behind: list[str] = []
        for server in self._servers:
            node = server.dispatch.membership.incarnation
            if node in nodes and not server.now.process.dead:
                behind += [f"node {node}: {what}" for what in server.now.behind(version)]
        self._journal.acknowledged(version, bool(reply.data["complete"]), nodes, tuple(behind))

    async def _pause(self, random: Random, mean_s: float, until_s: float) -> bool:
        """Whether there is time for more."""
        now_s: float = self._loop.time()
        await asyncio.sleep(max(0.0, min(random.expovariate(1 / mean_s), until_s - now_s)))
        now_s = self._loop.time()
        return now_s < until_s


def _harmless(random: Random, name: str) -> ControlCommand:
    """A command after which everything comes to rest as before."""
    kind = random.random()
    if kind < 0.4:
        return SwitchMode(random.choice((*MODES, "best_match")))
    if kind < 0.8:
        return PatchSettings(random.choice(_CHANGES))
    if kind < 0.9:
        return ReloadSettings()
    return Announce(name, random.choice([*Audience]), f"This is {name}.", 60)


def _hear(heard: "asyncio.Future[Reply | RequestError]", answer: Reply | RequestError) -> None:
    if not heard.done():
        heard.set_result(answer)
