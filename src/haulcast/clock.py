"""The clock that a server runs on. A simulation has one of its own, on a loop whose time is virtual."""

import time

_COUNTS_SUSPEND = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On Linux CLOCK_MONOTONIC stands still while the machine is suspended, and a lease would seem to hold."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return time.clock_gettime(_COUNTS_SUSPEND)
