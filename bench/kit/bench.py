"""The run, as a scenario sees it.

1. A scenario is a module in `bench.scenarios` with a docstring whose first line tells what it measures, `OPTIONS` (by
   profile, `short` and `full`: its numbers), and `async def run(bench)`. Nothing else needs to know of it.
2. Variants are measured in turns, A B A B: `in_turns` gives them, after a warm-up turn that does not count.
3. A figure is added for each turn with `record`; a target is told with `target`, which reads figures by repetition.
4. What a variant needs and is not installed raises `Missing`: the variant is named as left out, and never faked.
"""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from .crew import SATURATED, Crew
from .histogram import Histogram
from .result import Figure, Result, ScenarioResult, Target, Variant
from .servers import Missing

Told = Callable[[str, float], None]
"""Shows what is being done, and how much of the scenario is behind it, from 0 to 1."""


class Bench:
    """One scenario's run: its numbers, what it starts, and where its figures go."""

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        url: str | None,
        result: Result,
        tell: Told,
        stack: AsyncExitStack,
    ) -> None:
        self.name = name
        self.options = options
        self.url = url
        """The server that was given; None: start what is needed."""
        self.stack = stack
        """Ended after the scenario, in reverse: servers, crews."""
        self._result = result
        self._mine: ScenarioResult = result.scenarios[name]
        self._tell = tell
        self.saturated = False
        """Whether the clients were the bottleneck at some time."""

    def directory(self) -> Path:
        """An empty directory for as long as the scenario runs; other users can reach it, as Postgres may be one."""
        directory = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="haulcast-bench-")))
        directory.chmod(0o711)
        return directory

    def tell(self, doing: str, part: float = 0.0) -> None:
        """Show what is being done."""
        self._tell(f"{self.name}: {doing}", part)

    async def in_turns(self, variants: Sequence[str], repetitions: int, warm_up: bool = True) -> AsyncIterator[str]:
        """The variants that were not left out, one after the other, over and over. What is recorded in the first
        round is dropped, unless there is no warm-up."""
        rounds = repetitions + warm_up
        for number in range(rounds):
            for variant in variants:
                if not self._variant(variant).skipped:
                    warming = warm_up and number == 0
                    self.tell(
                        variant + (" (warm-up)" if warming else f" {number + 1 - warm_up}/{repetitions}"),
                        number / rounds,
                    )
                    yield variant
            if warm_up and number == 0:
                for variant in variants:
                    self._variant(variant).figures.clear()

    def record(self, variant: str, unit: str, **figures: float) -> None:
        """Add a value to these figures of a variant."""
        mine = self._variant(variant).figures
        for name, value in figures.items():
            mine.setdefault(name, Figure(unit)).values.append(value)

    def record_latency(self, variant: str, name: str, histogram: Histogram) -> None:
        """Add the median, p99 and maximum as figures, and the curve of the last repetition."""
        for label, percentile in (("p50", 50.0), ("p99", 99.0), ("max", 100.0)):
            self.record(variant, "ms", **{f"{name}_{label}": histogram.ms(percentile)})
        self._variant(variant).curves[name] = histogram.curve

    def record_crew(self, variant: str, crew: Crew) -> None:
        """Note whether the clients were the bottleneck since the last time."""
        self.record(variant, "of a core", client_busy=crew.busy)
        if crew.busy > SATURATED:
            self.saturated = True
            self.note(
                f"{variant}: the clients were the bottleneck, one process was busy for {crew.busy:.0%} of the time"
            )
        crew.busy = 0.0

    def note(self, text: str) -> None:
        """Tell the reader; the same text is told once."""
        if text not in self._mine.notes:
            self._mine.notes.append(text)

    def version(self, **versions: str) -> None:
        """What else was used."""
        self._result.versions.update(versions)

    def only_its_own_servers(self, variant: str) -> bool:
        """Leave the variant out if a server was given: what is measured here are processes on this machine."""
        if self.url is not None:
            self._variant(variant).skipped = "it measures servers that it starts itself: run it without --url"
        return self.url is not None

    @contextmanager
    def needs(self, variant: str) -> Iterator[None]:
        """Leave the variant out if the block raises `Missing`."""
        try:
            yield
        except Missing as error:
            self._variant(variant).skipped = str(error)

    def values(self, variant: str, figure: str) -> list[float]:
        """By repetition; empty if it was not measured."""
        found = self._variant(variant).figures.get(figure)
        return list(found.values) if found else []

    def ratio(self, over: tuple[str, str], under: tuple[str, str]) -> float | None:
        """The median of the ratios of two figures, (variant, figure), each taken within one repetition."""
        pairs = zip(self.values(*over), self.values(*under), strict=False)
        ratios = [one / other for one, other in pairs if other]
        return median(ratios) if ratios else None

    def target(
        self, name: str, text: str, value: float | None, *, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """Tell what was to be reached: exactly one bound. `value` None: it could not be measured."""
        bound, kind = (at_most, "at most") if at_most is not None else (at_least, "at least")
        assert bound is not None
        met = value is not None and (value <= bound if kind == "at most" else value >= bound)
        why_not = (
            ""
            if value is not None
            else "; ".join(
                f"{variant} was left out: {found.skipped}"
                for variant, found in self._mine.variants.items()
                if found.skipped
            )
        )
        self._result.targets[f"{self.name}.{name}"] = Target(text, kind, bound, value, met, why_not)

    def _variant(self, name: str) -> Variant:
        return self._mine.variants.setdefault(name, Variant())
