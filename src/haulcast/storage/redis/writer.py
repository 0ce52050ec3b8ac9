"""A task that writes what has gathered, in rounds, and again later if that fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from haulcast.errors import ClusterUnavailable

_SHORTEST_RETRY_S = 0.1
_LONGEST_RETRY_S = 1.0

log = structlog.get_logger()


class Writer:
    """Calls `write` soon after it was woken: `pause_s` later, so that more can gather. `write` writes all that waits
    when it is called, and says whether anything did, or raises `ClusterUnavailable`: then it is called again, after
    pauses that grow to a second."""

    def __init__(self, name: str, write: Callable[[], Awaitable[bool]], pause_s: float) -> None:
        self._name = name
        self._write = write
        self._pause_s = pause_s
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None  # from the first waking on
        self._next = asyncio.Event()  # set at the end of the next round
        self._current: asyncio.Event | None = None  # set at the end of the round that is under way
        self._closed = False

    def wake(self) -> None:
        """There is something to write. To be called on the event loop."""
        self._woken.set()
        if self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"redis_{self._name}")

    async def flush(self, within_s: float) -> None:
        """Returns when what waits now was written, or that failed, or after `within_s`."""
        over = self._next if self._woken.is_set() else self._current
        if over is not None and not self._closed:
            self._hurried.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await over.wait()

    async def close(self) -> None:
        """End the task, and try once more to write what waits."""
        self._closed = True
        if self._task is not None:
            if self._current is None:
                self._task.cancel()
            await asyncio.wait([self._task])
            with suppress(ClusterUnavailable):
                await self._write()

    async def _run(self) -> None:
        failures = 0
        while not self._closed:
            await self._woken.wait()
            retry_s = min(_SHORTEST_RETRY_S * 2 ** min(failures - 1, 10), _LONGEST_RETRY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s if failures else self._pause_s):
                    await self._hurried.wait()
            self._woken.clear()
            self._hurried.clear()
            self._current, self._next = self._next, asyncio.Event()
            try:
                written = await self._write()
            except ClusterUnavailable as error:
                if not failures:
                    log.warning("redis_write_failed", what=self._name, error=str(error))
                failures += 1
                self._woken.set()
            else:
                if failures and written:
                    log.info("redis_written_again", what=self._name, failures=failures)
                    failures = 0
            finally:
                self._current.set()
                self._current = None
