"""Latencies as an HDR histogram: three significant digits from a microsecond to a minute, mergeable over processes."""

from collections.abc import Iterable
from typing import Self

from hdrh.histogram import HdrHistogram

_MAX_US = 60_000_000
_DIGITS = 3
_SHOWN = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0)


class Histogram:
    """Collects seconds, tells milliseconds. Picklable."""

    def __init__(self, values_s: Iterable[float] = ()) -> None:
        self._counts = HdrHistogram(1, _MAX_US, _DIGITS)
        for value_s in values_s:
            self.add(value_s)

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def __getstate__(self) -> bytes:
        encoded: bytes = self._counts.encode()
        return encoded

    def __setstate__(self, state: bytes) -> None:
        self._counts = HdrHistogram.decode(state)

    def add(self, value_s: float) -> None:
        """Count one; what is longer than a minute counts as a minute."""
        self._counts.record_value(max(1, min(_MAX_US, round(value_s * 1e6))))

    def merge(self, *others: "Histogram") -> Self:
        """Count what others have counted."""
        for other in others:
            self._counts.add(other._counts)
        return self

    def ms(self, percentile: float) -> float:
        """The value that this share of all (0 to 100) does not exceed, in milliseconds; 0 if there are none."""
        return float(self._counts.get_value_at_percentile(percentile)) / 1000 if len(self) else 0.0

    @property
    def curve(self) -> list[tuple[float, float]]:
        """What a chart needs: (percentile, milliseconds)."""
        return [(percentile, self.ms(percentile)) for percentile in _SHOWN]
