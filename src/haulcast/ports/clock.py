"""What time it is."""

from typing import Protocol


class Clock(Protocol):
    """Time. Sleeping is the event loop's: a simulation runs on a loop whose time is virtual."""

    def now_ms(self) -> int:
        """Wall time, milliseconds since 1970. May step when the machine's clock is corrected."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never step back, from an arbitrary start; for durations. They go on while the machine or the
        process is suspended."""
        ...
