"""The machines that nodes run on: what happens to them, and who starts them again.

A `Server` outlives its processes. Whoever asks it something reaches the process that runs now; should that be stopped,
killed or about to end, the answer comes late or never, and nobody says so.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf

from haulcast.actors.dispatch import Dispatch
from haulcast.domain.commands import Command, Create
from haulcast.domain.control import ControlCommand
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Reply
from haulcast.errors import ClusterUnavailable, ErrorCode, JournalUnavailable, RequestError, StoreUnavailable
from haulcast.ports import Origin
from tests.sim.chronicle import WatchedJournal
from tests.sim.lines import Line, RemoteCluster, Weather, remote_journal
from tests.sim.processes import Process, ProcessLoop
from tests.sim.world import ACME, World

Answer = Callable[[Reply | RequestError], None]

JOURNAL_PATIENCE_S = 2.0
CLUSTER_PATIENCE_S = 1.0
DRAIN_S = 2.0


class Run:
    """One process: its dispatch, its lines, and what it was asked. `up`: it takes requests."""

    def __init__(self, server: "Server", seed: str) -> None:
        world, trace = server.world, server.trace
        self.process = Process(server.loop)
        self.journal_line = Line(
            f"journal {server.number}",
            f"{seed} journal",
            server.weather,
            trace,
            JOURNAL_PATIENCE_S,
            JournalUnavailable,
            server.loop,
        )
        self.cluster_line = Line(
            f"cluster {server.number}",
            f"{seed} cluster",
            server.weather,
            trace,
            CLUSTER_PATIENCE_S,
            ClusterUnavailable,
            server.loop,
        )
        self.cluster = RemoteCluster(world.store, world.clock, self.cluster_line, self.process)
        assert world.presence is not None
        self.dispatch, _, _ = world.wire(
            remote_journal(world.journal, self.journal_line),
            self.cluster,
            world.presence,
            idle_s=2.0,
            on_given_up=lambda: None,
        )
        self.up = False
        self.ended = asyncio.Event()
        self.unanswered: set[asyncio.Future[Reply]] = set()
        self._instructed: dict[asyncio.Task[None], None] = {}  # operators' commands under way, in order

    @property
    def lines(self) -> tuple[Line, Line]:
        """Its ways to both stores."""
        return self.journal_line, self.cluster_line

    async def start(self) -> None:
        """Join the others; the process ends if it cannot."""
        try:
            await self.dispatch.start()
        except StoreUnavailable:
            self.end()
        else:
            self.up = True

    async def leave(self) -> None:
        """A planned stop."""
        await self.dispatch.finish(DRAIN_S)
        self.up = False
        await self.dispatch.close()
        for task in self._instructed:
            task.cancel()
        await self.cluster.close()
        self.ended.set()

    def end(self) -> None:
        """The process is gone, from one step to the next."""
        self.up = False
        self.process.kill()
        self.ended.set()

    def take(self, command: Command, origin: Origin, broadcast_id: BroadcastId, answer: Answer) -> None:
        """A request has come over a client's connection."""
        dispatcher = self.dispatch.dispatcher
        if isinstance(command, Create):
            future = dispatcher.create(command, origin)
        else:
            future = dispatcher.ask(ACME, broadcast_id, command, origin)
        self.unanswered.add(future)
        future.add_done_callback(partial(self._answered, answer))

    def instruct(
        self,
        command: ControlCommand,
        origin: Origin,
        expected: int | None,
        heard: Callable[[Reply], None],
        answer: Answer,
    ) -> None:
        """An operator's command has come over a connection. `heard` is told of the reply in the moment in which it is
        made."""
        task = self.process.spawn(self._carry_out(command, origin, expected, heard, answer))
        self._instructed[task] = None
        task.add_done_callback(self._instructed.pop)

    async def _carry_out(
        self,
        command: ControlCommand,
        origin: Origin,
        expected: int | None,
        heard: Callable[[Reply], None],
        answer: Answer,
    ) -> None:
        try:
            reply = await self.dispatch.controller.carry_out(ACME, command, origin, expected)
        except RequestError as error:
            answer(error)
        except StoreUnavailable:
            answer(RequestError(ErrorCode.UNAVAILABLE))
        else:
            heard(reply)
            answer(reply)

    def behind(self, version: int) -> list[str]:
        """What here has an older version in force, in words."""
        known = self.dispatch.controller._tenants.known.get(ACME)
        found = [] if known is not None and known.version >= version else [f"it knows {known and known.version}"]
        for (_, broadcast_id), (cell, _) in self.dispatch.registry._cells.items():
            if cell.actor is not None and cell.actor._control.version < version:
                found.append(f"the actor of {broadcast_id} has {cell.actor._control.version}")
        return found

    def _answered(self, answer: Answer, future: "asyncio.Future[Reply]") -> None:
        self.unanswered.discard(future)
        error = future.exception()
        if error is None:
            answer(future.result())
        else:
            answer(error if isinstance(error, RequestError) else RequestError(ErrorCode.INTERNAL))


class Server:
    """One machine of the cluster. `run` keeps a process on it until `over`."""

    def __init__(
        self,
        number: int,
        seed: str,
        world: World,
        journal: WatchedJournal,
        weather: Weather,
        trace: list[tuple[object, ...]],
        calm_from_s: float,
        loop: ProcessLoop,
    ) -> None:
        self.number = number
        self.world = world
        self.journal = journal
        self.weather = weather
        self.trace = trace
        self.loop = loop
        self._seed = seed
        self._calm_from_s = calm_from_s
        self.runs: list[Run] = []
        self.restart_after_s = 0.5
        self.over = False

    @property
    def now(self) -> Run:
        """The newest process."""
        return self.runs[-1]

    @property
    def dispatch(self) -> Dispatch:
        """The actors of the newest process."""
        return self.now.dispatch

    async def run(self) -> None:
        """Start a process whenever there is none, until `over`."""
        while not self.over:
            run = Run(self, f"{self._seed} {self.number} {len(self.runs)}")
            for line, earlier in zip(run.lines, self.now.lines if self.runs else run.lines, strict=True):
                line.calm_from_s = self._calm_from_s
                line.cut_until_s = earlier.cut_until_s
                line.slow_until_s = earlier.slow_until_s
            self.runs.append(run)
            run.process.spawn(run.start())
            await run.ended.wait()
            self.trace.append((self.loop.time(), "process ended", self.number))
            if not self.over:
                await asyncio.sleep(self.restart_after_s)

    def ask(self, command: Command, origin: Origin, broadcast_id: BroadcastId, answer: Answer) -> None:
        """Send a request. Where no process listens it is refused at once."""
        run = self.now
        if run.up:
            run.process.call(run.take, command, origin, broadcast_id, answer)
        else:
            answer(RequestError(ErrorCode.UNAVAILABLE))

    def instruct(
        self,
        command: ControlCommand,
        origin: Origin,
        expected: int | None,
        heard: Callable[[Reply], None],
        answer: Answer,
    ) -> None:
        """Send an operator's command. Where no process listens it is refused at once."""
        run = self.now
        if run.up:
            run.process.call(run.instruct, command, origin, expected, heard, answer)
        else:
            answer(RequestError(ErrorCode.UNAVAILABLE))

    # --- What happens to it ---

    def crash(self, steps: int) -> None:
        """Kill the process after so many of its steps."""
        self.now.process.light_fuse(steps, self.now.end)

    def stall(self, steps: int, for_s: float) -> None:
        """Stop the process after so many of its steps, and have it go on a while later."""
        process = self.now.process

        def stop() -> None:
            process.stop()
            self.loop.call_later(for_s, process.go_on, context=self.loop.outside)

        process.light_fuse(steps, stop)

    def leave(self) -> None:
        """Stop the process as an operator does."""
        if self.now.up:
            self.now.process.spawn(self.now.leave())

    def cut(self, lines: tuple[Line, ...], for_s: float) -> None:
        """Let nothing through for a while."""
        until_s = self.loop.time() + for_s
        for line in lines:
            line.cut_until_s = max(line.cut_until_s, until_s)
        if self.now.cluster_line in lines:
            self.loop.call_at(until_s, self.now.cluster.back, context=self.loop.outside)

    def slow(self, for_s: float) -> None:
        """Everything takes twenty times as long for a while."""
        for line in self.now.lines:
            line.slow_until_s = self.loop.time() + for_s

    def heal(self) -> None:
        """Nothing is wrong any more, and nothing will be."""
        self.now.process.defuse()
        self.now.process.go_on()
        self.restart_after_s = 0.5
        for line in self.now.lines:
            line.cut_until_s = line.slow_until_s = -inf
