"""How a tenant's trucks are found, and who of those who accept gets one: the dispatch modes.

1. A mode is one class here and its line in `MODES`. Nothing else in the project knows one by name: `decide` asks the
   mode in force, and whoever lists modes lists `MODES`.
2. A mode is a policy, not a process. It turns what the tenant has configured into what holds, and chooses among
   accepts; deadlines, offers and assignments are the same for all of them. So a broadcast can go on in another mode at
   any message, and nothing has to be converted.
3. Accepts that wait for a decision are decided at the time that was set when the first of them came, whatever the mode
   is by then; the mode in force chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Radii: TypeAlias = tuple[float | None, ...]
"""The radius of each wave in km; None: everybody."""

EVERYBODY_AT_ONCE = 10_000
"""As many transporters as one decision can take."""


@dataclass(frozen=True, slots=True)
class Contender:
    """An accept that waits: since when, and how far its vehicle is from the pickup (None: that is not known)."""

    at_ms: int
    distance_m: int | None


class Mode(Protocol):
    """One way of dispatching."""

    def radii_km(self, configured: Radii) -> Radii:
        """How far each wave goes."""
        ...

    def offers_per_wave(self, configured: int) -> int:
        """How many transporters one wave reaches at most."""
        ...

    def accept_window_s(self, configured: float) -> float:
        """How long the first accept waits for others; 0: it wins."""
        ...

    def best(self, contenders: Sequence[Contender]) -> int:
        """Which of those who wait wins: an index into `contenders`, which has at least one and is in the order in
        which they came."""
        ...


class Progressive:
    """Waves as configured; who accepts first wins."""

    def radii_km(self, configured: Radii) -> Radii:
        return configured

    def offers_per_wave(self, configured: int) -> int:
        return configured

    def accept_window_s(self, configured: float) -> float:
        return 0.0

    def best(self, contenders: Sequence[Contender]) -> int:
        return 0


class Blast(Progressive):
    """Everybody at once; who accepts first wins."""

    def radii_km(self, configured: Radii) -> Radii:
        return (None,)

    def offers_per_wave(self, configured: int) -> int:
        return EVERYBODY_AT_ONCE


class BestMatch(Progressive):
    """Waves as configured; of those who accept within the window the nearest wins, of equally near ones the first."""

    def accept_window_s(self, configured: float) -> float:
        return configured

    def best(self, contenders: Sequence[Contender]) -> int:
        def rank(index: int) -> tuple[bool, int, int]:
            contender = contenders[index]
            return contender.distance_m is None, contender.distance_m or 0, contender.at_ms

        return min(range(len(contenders)), key=rank)


DEFAULT_MODE = "progressive"
MODES: Mapping[str, Mode] = {
    DEFAULT_MODE: Progressive(),
    "blast": Blast(),
    "best_match": BestMatch(),
}
