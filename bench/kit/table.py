"""What a run prints at its end."""

from rich.console import Console
from rich.table import Table

from .result import Result


def show(result: Result, console: Console) -> None:
    """A row for each figure, then one for each target."""
    figures = Table(title=f"{result.profile} run, {result.machine['cpu']}, {result.machine['cores']} cores")
    for column in ("scenario", "variant", "figure"):
        figures.add_column(column, overflow="fold")
    for column in ("median", "lowest", "highest", "unit"):
        figures.add_column(column, justify="right")
    for name, scenario in result.scenarios.items():
        for variant, found in scenario.variants.items():
            if found.skipped:
                figures.add_row(name, variant, f"left out: {found.skipped}")
            for figure, one in found.figures.items():
                numbers = (f"{value:,.4g}" for value in (one.median, min(one.values), max(one.values)))
                figures.add_row(name, variant, figure, *numbers, one.unit)
    console.print(figures)
    for name, scenario in result.scenarios.items():
        for note in [*scenario.notes, *([f"failed: {scenario.failed}"] if scenario.failed else [])]:
            console.print(f"{name}: {note}", highlight=False)
    if not result.targets:
        return
    targets = Table(title="targets")
    for column in ("target", "", "value", "bound", "what"):
        targets.add_column(column, overflow="fold")
    for name, target in result.targets.items():
        value = "-" if target.value is None else f"{target.value:,.4g}"
        mark = "met" if target.met else "not measured" if target.value is None else "NOT MET"
        what = f"{target.text} ({target.why_not})" if target.why_not else target.text
        targets.add_row(name, mark, value, f"{target.kind} {target.bound:g}", what)
    console.print(targets)
