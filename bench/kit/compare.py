"""Two results side by side: what both have measured, and whether the difference is more than noise.

1. What differs in machine, versions, profile and options comes first: it may be what is compared.
2. A figure differs if the ranges of its repetitions, lowest to highest, do not overlap; if they do, it is noise. A
   range takes two repetitions. The machine's speed drifts from run to run: trust ratios within a run more than these.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .result import Figure, Result

NOISE = "within noise"
LOAD_DIFFERS_BY = 0.5
"""From here on a difference of the load that the machine had before is worth telling."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure that both runs have."""

    scenario: str
    variant: str
    figure: str
    before: Figure
    after: Figure

    @property
    def ratio(self) -> float | None:
        """The median of the second by that of the first; None if that is 0."""
        return self.after.median / self.before.median if self.before.median else None

    @property
    def verdict(self) -> str:
        """`within noise`, `lower`, `higher`, or why that cannot be told."""
        before, after = self.before.values, self.after.values
        if min(len(before), len(after)) < 2:
            return "no range"
        if max(before) < min(after):
            return "higher"
        if max(after) < min(before):
            return "lower"
        return NOISE


def pairs(before: Result, after: Result) -> Iterator[Pair]:
    """The figures that both have, in the order of the first."""
    for scenario, one in before.scenarios.items():
        other = after.scenarios.get(scenario)
        for variant, found in one.variants.items():
            matching = other.variants.get(variant) if other else None
            for figure, values in found.figures.items():
                match = matching.figures.get(figure) if matching else None
                if match and match.unit == values.unit and match.values and values.values:
                    yield Pair(scenario, variant, figure, values, match)


def differences(before: Result, after: Result) -> list[str]:
    """What is not the same about the two runs, apart from their figures."""
    found = _differing(
        "", *({"server": result.url or "its own", "profile": result.profile} for result in (before, after))
    )
    loads = [float(result.machine.get("load_before", 0)) for result in (before, after)]
    if abs(loads[0] - loads[1]) >= LOAD_DIFFERS_BY:
        found.append(f"load before: {loads[0]:g} and {loads[1]:g}")
    found += _differing("", *({**result.machine, "load_before": None} for result in (before, after)))
    found += _differing("", before.versions, after.versions)
    for scenario, one in before.scenarios.items():
        if other := after.scenarios.get(scenario):
            found += _differing(f"{scenario}: ", one.options, other.options)
    return found


def show(before: Result, after: Result, console: Console) -> None:
    """Print the differences, then the table."""
    for difference in differences(before, after):
        console.print(f"differs: {difference}", highlight=False, markup=False)
    table = Table(title=f"A: {before.started_at}, B: {after.started_at}")
    for column in ("scenario", "variant", "figure", "unit"):
        table.add_column(column, overflow="fold")
    for column in ("A", "B", "B / A"):
        table.add_column(column, justify="right")
    table.add_column("")
    for pair in pairs(before, after):
        ratio = "-" if pair.ratio is None else f"{pair.ratio:.3f}"
        medians = (f"{pair.before.median:,.4g}", f"{pair.after.median:,.4g}")
        table.add_row(pair.scenario, pair.variant, pair.figure, pair.before.unit, *medians, ratio, pair.verdict)
    if table.row_count:
        console.print(table)
    else:
        console.print("the two have no figure in common")


def _differing(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{prefix}{name}: {before.get(name, 'unknown')} and {after.get(name, 'unknown')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]
