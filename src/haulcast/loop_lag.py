"""How late the event loop comes back to a task that asked for it: the one number that says whether a node keeps up."""

import asyncio

from prometheus_client import Histogram

from .ports import Clock

_INTERVAL_S = 0.25


class LoopLag:
    """Samples the lag four times a second while `run` runs. `last_ms` is the newest sample."""

    def __init__(self, clock: Clock, histogram: Histogram) -> None:
        self._clock = clock
        self._histogram = histogram
        self.last_ms = 0.0

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            before_s = self._clock.monotonic_s()
            await asyncio.sleep(_INTERVAL_S)
            lag_s = max(0.0, self._clock.monotonic_s() - before_s - _INTERVAL_S)
            self._histogram.observe(lag_s)
            self.last_ms = lag_s * 1000
