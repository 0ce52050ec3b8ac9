"""Processes within one event loop on virtual time: each can be stopped, continued and killed, as by a signal.

1. What belongs to a process is told by the context that its callbacks run in. Tasks, timers and callbacks inherit it,
   so a process is everything that was ever started by it, and nothing has to be registered.
2. A process that is stopped runs no callback: answers and timers that come due wait until it goes on, and all of them
   are then due at once. That is SIGSTOP, or a machine that is suspended, or a very long pause of the collector.
3. A process that is killed runs nothing ever again, no `finally` either, and nobody is told. That is SIGKILL.
4. Both can be set to happen after so many more callbacks: between any two steps of any task, hence at every await.
5. Unrealistic in this: a process computes in no time; all share one clock; memory is shared, so that what is handed
   from one to another has to go by `Process.call`.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from tests.sim.virtual_time import VirtualLoop

_PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class Process:
    """One process, which runs as soon as something is called in it."""

    def __init__(self, loop: "ProcessLoop") -> None:
        self._loop = loop
        self._context = copy_context()
        self._context.run(_PROCESS.set, self)
        self._held: list[asyncio.Handle] = []  # what came due while it was stopped or dead
        self._fuse: Callable[[], None] | None = None
        self._fuse_steps = 0
        self.stopped = False
        self.dead = False

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have the process call something: a packet for it has arrived."""
        self._loop.call_soon(function, *args, context=self._context)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a task in the process."""
        task: asyncio.Task[None] = self._loop.create_task(work, context=self._context.copy())
        return task

    def light_fuse(self, steps: int, action: Callable[[], None]) -> None:
        """Do `action` to the process after so many more of its callbacks."""
        self._fuse, self._fuse_steps = action, steps

    def defuse(self) -> None:
        """Nothing is to happen to it any more."""
        self._fuse = None

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False
        if self.dead:
            return
        held, self._held = self._held, []
        self._loop.put_back(held)

    def kill(self) -> None:
        """SIGKILL. Its tasks are kept as they are: one that is collected would run its `finally`."""
        self.dead = True
        self._loop.remains += asyncio.all_tasks(self._loop)

    def exhume(self) -> None:
        """Have its tasks run again, so that they can be cancelled once nobody looks any more."""
        self.dead = False
        self.defuse()
        self.go_on()

    def may_run(self, handle: asyncio.Handle) -> bool:
        """Whether a callback that is due may run now; it is held if it may later."""
        if self.dead or self.stopped:
            self._held.append(handle)
            return False
        if self._fuse is not None:
            self._fuse_steps -= 1
            if self._fuse_steps < 0:
                fuse, self._fuse = self._fuse, None
                fuse()
                return self.may_run(handle)
        return True


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        process = _process_of(self)
        if process is None or process.may_run(self):
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        process = _process_of(self)
        if process is None or process.may_run(self):
            super()._run()


def _process_of(handle: asyncio.Handle) -> Process | None:
    context: Context = handle._context  # type: ignore[attr-defined]  # 3.12 has `get_context`
    return context.get(_PROCESS)


class ProcessLoop(VirtualLoop):
    """A loop on virtual time whose callbacks belong to processes. What belongs to none always runs."""

    def __init__(self) -> None:
        super().__init__()
        self.remains: list[asyncio.Task[Any]] = []
        self.outside = Context()
        """Of no process."""

    def put_back(self, handles: list[asyncio.Handle]) -> None:
        """Run these next, those that were cancelled meanwhile excepted."""
        self._ready.extend(handles)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop does, with a handle that knows its process."""
        when = round(when / self._clock_resolution) * self._clock_resolution  # time has no moments in between
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # how a loop counts those that are cancelled
        return timer

    def _call_soon(
        self, callback: Callable[..., object], args: tuple[object, ...], context: Context | None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle
