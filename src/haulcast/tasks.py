"""Tasks with an owner: none is lost to the garbage collector, none outlives the set that it belongs to."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from .errors import ErrorCode, RequestError

T = TypeVar("T")

log = structlog.get_logger()


class TaskSet:
    """Tasks under way, at most `limit` (None: as many as its owner starts), all ended when the set is closed."""

    __slots__ = ("_closed", "_limit", "_tasks")

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order in which they began
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run `work`; the caller looks at its result. Raises `RequestError` BUSY when the set is full, DRAINING when
        it is closed."""
        if self._closed or (self._limit is not None and len(self._tasks) >= self._limit):
            work.close()
            raise RequestError(ErrorCode.DRAINING if self._closed else ErrorCode.BUSY)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work`, which nobody waits for; if it fails, that is logged and concerns nobody else. Once the set is
        closed nothing is started."""
        if self._closed:
            work.close()
            return
        task = self.spawn(work)
        task.set_name(name)
        task.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run `work` until the context ends, at the latest. If it fails, that is logged."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_log_failure)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background_task_failed", task=task.get_name(), exc_info=error)
