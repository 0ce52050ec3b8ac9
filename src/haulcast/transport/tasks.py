"""Tasks with an owner and a bound."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from haulcast.errors import ErrorCode, RequestError

T = TypeVar("T")


class TaskSet:
    """At most `limit` tasks under way, all cancelled and awaited when the set is closed.

    Whoever spawns a task looks at its result or its error.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run `work` as a task. Raises `RequestError` BUSY when the set is full, DRAINING when it is closed."""
        if self._closed or len(self._tasks) >= self._limit:
            work.close()
            raise RequestError(ErrorCode.DRAINING if self._closed else ErrorCode.BUSY)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
