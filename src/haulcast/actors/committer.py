"""The one way into the journal for actors: group commit without a timer.

1. While a batch is being written, further writes gather; when it is done they are the next batch, at most 256.
2. A batch that could not be written is submitted again, unchanged and in its place, until it can; write ids keep what
   did land from landing twice. Until then nobody is told anything: the gate stays shut.
3. A write that makes the journal fail in any other way is tried alone, and then fails alone: its actor dies of it.
4. An actor has at most one checkpoint under way, so a batch never holds two assignments of one broadcast, and replies
   that are merely logged follow the checkpoint that they speak of.
"""

import asyncio
from collections import deque

import structlog

from haulcast.errors import JournalUnavailable
from haulcast.ports import Clock, Journal, Outcome, Write

from .metrics import ActorMetrics

MAX_BATCH_WRITES = 256
_FIRST_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 2.0

log = structlog.get_logger()

_Submitted = tuple[Write, "asyncio.Future[Outcome]"]


class Committer:
    """Writes what actors submit. `run`, started by `start`, is the only task that commits."""

    def __init__(self, journal: Journal, clock: Clock, metrics: ActorMetrics) -> None:
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        # Bounded by the actors (one checkpoint each) and by the requests under way on all connections.
        self._waiting: deque[_Submitted] = deque()
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()  # nothing waits and nothing is being written
        self._idle.set()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to commit."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name="committer")

    async def finish(self, timeout_s: float) -> None:
        """Wait until everything that was submitted is written, at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("commits_abandoned", writes=len(self._waiting))

    async def close(self) -> None:
        """Stop. The futures of writes whose outcome is not known are cancelled."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def submit(self, write: Write) -> "asyncio.Future[Outcome]":
        """Write it with the next batch. The future ends only when the outcome is known."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, future))
        self._ready.set()
        self._idle.clear()
        return future

    async def _run(self) -> None:
        while True:
            await self._ready.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH_WRITES))]
            try:
                await self._settle(batch)
            finally:
                for _, future in batch:
                    future.cancel()  # those that have no outcome because this task was cancelled
            if not self._waiting:
                self._ready.clear()
                self._idle.set()

    async def _settle(self, batch: list[_Submitted]) -> None:
        """Give every write of the batch its outcome, or the exception that it causes."""
        try:
            outcomes = await self._commit([write for write, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for submitted in batch:
                    await self._settle([submitted])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    async def _commit(self, writes: list[Write]) -> list[Outcome]:
        """Write them, however long the journal is away."""
        backoff_s = _FIRST_BACKOFF_S
        started_s = self._clock.monotonic_s()
        while True:
            try:
                outcomes = await self._journal.commit(writes)
            except JournalUnavailable as error:
                self._metrics.commit_failures.inc()
                log.error("commit_failed", writes=len(writes), retry_in_s=backoff_s, error=str(error))
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
            else:
                self._metrics.commit_batch_size.observe(len(writes))
                self._metrics.commit_latency_s.observe(self._clock.monotonic_s() - started_s)
                return outcomes
