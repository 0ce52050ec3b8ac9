"""Time that passes only when everybody waits: a clock for it, and a way to run on it from its start."""

import asyncio
from collections.abc import Callable, Coroutine

import async_solipsism

START_MS = 1_790_000_000_000
"""The wall clock at the start of time."""


class VirtualLoop(async_solipsism.EventLoop):  # type: ignore[misc]  # carries no types
    """A loop on virtual time: a wait that nothing can end raises instead of hanging.

    Never in debug mode, in which the thousands of histories here take eight times as long, for a record of where each
    callback was scheduled, and in which the time that callbacks really took would be warned of."""

    def __init__(self) -> None:
        super().__init__()
        self.set_debug(False)


class VirtualClock:
    """The loop's time as wall time. `step_ms` is by how much the machine's clock has been corrected since."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.step_ms = 0

    def now_ms(self) -> int:
        """See `Clock`."""
        return START_MS + round(self._loop.time() * 1000) + self.step_ms

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return self._loop.time()


def on_virtual_time(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `main` on a loop of its own, from the start of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
