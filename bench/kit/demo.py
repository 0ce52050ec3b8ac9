"""`haulcast demo --json`, played by a scenario: the simulated city, on servers and stores of its own."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from haulcast.leash import leashed

from .bench import Bench
from .servers import BaselineFailed, Missing, python

ENDS_WITHIN_S = 180.0
"""After its `seconds`: measuring, draining and judging."""
CUT_OFF_AFTER_S = 20.0


async def play(bench: Bench, seed: int, *flags: str) -> dict[str, Any]:
    """The JSON that it prints, for the scenario's `nodes`, `seconds`, `transporters` and `customers`. Raises `Missing`
    if the stores are not installed."""
    options, directory = bench.options, bench.directory()
    command = ["demo", *flags, "--json", "--seed", str(seed), "--cluster", str(options["nodes"])]
    for name in ("seconds", "transporters", "customers"):
        command += [f"--{name}", str(options[name])]
    errors = directory / "errors"
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *leashed(python("haulcast", *command), signal.SIGTERM),
            env=_environ(directory),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
        try:
            async with asyncio.timeout(options["seconds"] + ENDS_WITHIN_S):
                printed, _ = await process.communicate()
        finally:
            await _end(process)
    last = printed.decode().rstrip().rpartition("\n")[2]
    if last.startswith("{"):
        came_to: dict[str, Any] = json.loads(last)
        return came_to
    said = errors.read_text(errors="replace").strip()
    if "is not installed" in said:
        raise Missing(said)
    raise BaselineFailed(f"the demo has ended ({process.returncode}): {said}")


def record_city(bench: Bench, variant: str, seed: int, came_to: dict[str, Any]) -> None:
    """What the city did in that run, and what its checker found."""
    latency = came_to["accept_latency_ms"]
    bench.record(variant, "ms", **{f"accept_{name}": latency[name] for name in ("p50", "p99")})
    bench.record(variant, "", violations=len(came_to["violations"]), broadcasts=came_to["broadcasts_created"])
    bench.record(variant, "", accepts_won=came_to["accepts_won"], accepts_lost=came_to["accepts_lost"])
    for violation in came_to["violations"]:
        bench.note(f"seed {seed}: {violation}")


def worst(bench: Bench, variant: str, figure: str) -> float | None:
    """Over the repetitions; None if it was not measured."""
    return max(bench.values(variant, figure), default=None)


def _environ(directory: Path) -> dict[str, str]:
    """That of this process, but with settings of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HAULCAST_")}
    return {**environ, "HAULCAST_DATA_DIR": str(directory)}


async def _end(process: asyncio.subprocess.Process) -> None:
    """If it still runs: it ends its servers at SIGTERM, the second of which cuts the run off."""
    while process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(CUT_OFF_AFTER_S):
                await process.communicate()
        except TimeoutError:
            continue
