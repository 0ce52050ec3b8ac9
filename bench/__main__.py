"""`python -m bench`: measure haulcast, and what its users would use instead, side by side.

python -m bench list
python -m bench run [SCENARIO ...] [--profile short|full] [--url URL] [--set NAME=VALUE ...] [--out FILE]
python -m bench compare A.json B.json
python -m bench report RESULT.json [--out FILE.html]
"""

import argparse
import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import aiohttp
import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from . import scenarios
from .kit import compare, report, table
from .kit.bench import Bench
from .kit.result import Result, ScenarioResult, machine, now, versions

PROFILES = ("short", "full")
RESULTS = Path("var/bench")
REACHED_WITHIN_S = 5.0
AT_LEAST_ONE = frozenset({"repetitions", "sockets", "clients", "seconds", "transporters", "broadcasts"})
WIDE = 140
"""Columns of tables that are not shown on a terminal."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code. 1: a scenario failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what can be measured")
    run = commands.add_parser("run", help="measure; without names, everything")
    run.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="see list")
    run.add_argument("--profile", choices=PROFILES, default="short", help="how much (default: %(default)s)")
    run.add_argument(
        "--url",
        help="a server that runs, at which the scenarios are played that can be; it must know the "
        "development key, or the keys in HAULCAST_JWT_KEYS",
    )
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another number for an option")
    run.add_argument("--out", type=Path, help="the result file (default: in var/bench/)")
    comparing = commands.add_parser("compare", help="what differs between two results")
    comparing.add_argument("before", type=Path, metavar="A.json")
    comparing.add_argument("after", type=Path, metavar="B.json")
    reporting = commands.add_parser("report", help="a result as one HTML file")
    reporting.add_argument("result", type=Path, metavar="RESULT.json")
    reporting.add_argument("--out", type=Path, metavar="FILE.html", help="(default: beside the result)")
    args = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDE)
    if args.command == "list":
        for name, scenario in found().items():
            console.print(f"[bold]{name}[/] {about(scenario)}", highlight=False)
            for profile in PROFILES:
                console.print(f"    {profile}: {json.dumps(scenario.OPTIONS[profile])}", highlight=False, style="dim")
        return 0
    try:
        if args.command == "compare":
            compare.show(Result.read(args.before), Result.read(args.after), console)
            return 0
        if args.command == "report":
            out = args.out or args.result.with_suffix(".html")
            out.write_text(report.html(Result.read(args.result)), encoding="utf-8")
            console.print(f"written to {out}", highlight=False)
            return 0
        return measure(args, console)
    except ValueError as error:
        console.print(f"bench: {error}", highlight=False, markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("bench: interrupted", highlight=False, markup=False)
        return 130


def measure(args: argparse.Namespace, console: Console) -> int:
    """Run scenarios, show the table, write the file. Raises `ValueError` for a scenario or an option that is none."""
    all_scenarios = found()
    if unknown := sorted(set(args.scenarios) - set(all_scenarios)):
        raise ValueError(f"unknown scenario {', '.join(unknown)}; there are: {', '.join(all_scenarios)}")
    chosen = {name: all_scenarios[name] for name in args.scenarios or all_scenarios}
    overrides = [overriding(text) for text in args.set]
    options = {name: options_of(scenario, args.profile, overrides) for name, scenario in chosen.items()}
    for name, _ in overrides:
        if not any(name in its for its in options.values()):
            raise ValueError(f"--set {name}: {', '.join(chosen)} has no such option")
    began_s = time.monotonic()
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    if args.url:
        uvloop.run(reach(args.url))
    result = Result(command, args.profile, now(), machine(), versions(), args.url)
    out = args.out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{args.profile}.json"
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name, scenario in chosen.items():
            task = progress.add_task(name, total=1.0)

            def tell(doing: str, part: float, task: Any = task) -> None:
                progress.update(task, description=doing, completed=part)

            for clients in more_clients(options[name]):
                mine = result.scenarios[name] = ScenarioResult(about(scenario), {**options[name], **clients})
                started_s = time.monotonic()
                saturated = False
                try:
                    saturated = uvloop.run(_play(scenario, name, mine.options, args.url, result, tell))
                except Exception as error:
                    mine.failed = f"{type(error).__name__}: {error}"
                    progress.console.print(traceback.format_exc(), highlight=False)
                mine.took_s = round(time.monotonic() - started_s, 1)
                if not saturated:
                    break
            progress.remove_task(task)
            result.took_s = round(time.monotonic() - began_s, 1)
            result.write(out)  # each time, so that an end before the end loses little
    table.show(result, console)
    console.print(f"written to {out}, in {result.took_s:.0f} s")
    return 1 if any(scenario.failed for scenario in result.scenarios.values()) else 0


async def reach(url: str) -> None:
    """Raise `ValueError` unless a server answers at `url`."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"--url {url}: give it as http://HOST:PORT or https://HOST")
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REACHED_WITHIN_S)) as http,
            http.get(f"{url.rstrip('/')}/health/live") as response,
        ):
            status = response.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ValueError(f"--url {url}: nothing answers there ({error or type(error).__name__})") from None
    if status != 200:
        raise ValueError(f"--url {url}: /health/live was answered {status}, so this is no haulcast, or one in trouble")


async def _play(
    scenario: ModuleType, name: str, options: Mapping[str, Any], url: str | None, result: Result, tell: Any
) -> bool:
    """Run a scenario; whether its clients were the bottleneck."""
    async with AsyncExitStack() as stack:
        bench = Bench(name, options, url, result, tell, stack)
        await scenario.run(bench)
        return bench.saturated


def more_clients(options: Mapping[str, Any]) -> Iterator[Mapping[str, int]]:
    """The client processes to measure with: as many as was said, and twice as many each time that they were the
    bottleneck, up to one for each core. Of a scenario that has no such option nothing is said."""
    clients = options.get("clients")
    if clients is None:
        yield {}
        return
    yield {"clients": clients}
    while clients < (os.cpu_count() or 1):
        clients = min(2 * clients, os.cpu_count() or 1)
        yield {"clients": clients}


def found() -> dict[str, ModuleType]:
    """All scenarios, by name."""
    names = sorted(module.name for module in iter_modules(scenarios.__path__))
    return {name: import_module(f"{scenarios.__name__}.{name}") for name in names}


def about(scenario: ModuleType) -> str:
    """What it measures."""
    return (scenario.__doc__ or "").split("\n")[0]


def overriding(text: str) -> tuple[str, Any]:
    """What `NAME=VALUE` says. Raises `ValueError`."""
    name, equals, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        wrong = "the value is not JSON" if equals else "give NAME=VALUE"
        raise ValueError(f"--set {text}: {wrong}") from None


def options_of(scenario: ModuleType, profile: str, overrides: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Its numbers, with those of the overrides that it has. Raises `ValueError` for a value of another type."""
    options: dict[str, Any] = dict(scenario.OPTIONS[profile])
    for name, value in overrides:
        if name not in options:
            continue
        try:
            options[name] = msgspec.convert(value, type(options[name]))
        except msgspec.ValidationError:
            kind = type(options[name]).__name__
            raise ValueError(f"--set {name}={json.dumps(value)}: it is of type {kind}, like {options[name]}") from None
        least = 1 if name in AT_LEAST_ONE else 0
        if isinstance(value, int | float) and value < least:
            raise ValueError(f"--set {name}={json.dumps(value)}: it is at least {least}")
    return options


if __name__ == "__main__":
    sys.exit(main())
