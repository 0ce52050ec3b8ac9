"""Nodes that are killed and stopped under load: how long a thousand broadcasts are out of reach, and what gets lost.

1. It is `haulcast demo --cluster --chaos --json`: a simulated city lives on a cluster over private stores, whose nodes
   are killed with SIGKILL, stopped, and come back; `haulcast.demo.failover` tells how it is measured from outside.
2. `failover_first_s` and `failover_all_s`: from the kill until the first and the last of the dead node's broadcasts
   answers. `handover_ms`: the longest that a question had to wait while a node stopped. `violations`: what the demo's
   checker found wrong afterwards, in what clients saw and what the journal keeps: double assignments, lost replies.
3. A run kills and stops several nodes; p50 and p99 are over all of them. It may take longer than its `seconds`: it ends
   when every broadcast and trip has ended.
"""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from bench.kit.bench import Bench
from bench.kit.servers import BaselineFailed, Missing, python
from haulcast.leash import leashed

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"nodes": 3, "seconds": 12, "transporters": 60, "customers": 40, "repetitions": 1},
    "full": {"nodes": 3, "seconds": 120, "transporters": 120, "customers": 80, "repetitions": 3},
}
UNITS = {"failover_first_s": "s", "failover_all_s": "s", "handover_ms": "ms"}
PERCENTILES = ("p50", "p99")
ENDS_WITHIN_S = 180.0
"""After its `seconds`: measuring, draining and judging."""
CUT_OFF_AFTER_S = 20.0


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    variant = f"cluster of {bench.options['nodes']}"
    with bench.needs(variant):
        if bench.url:
            raise Missing("it kills nodes, so it plays on a cluster of its own only: run it without --url")
        async for _ in bench.in_turns([variant], bench.options["repetitions"], warm_up=False):
            seed = 1 + len(bench.values(variant, "violations"))
            await _play(bench, variant, seed)
    for name, text, bound in (
        ("failover_all_s", "seconds from a kill until all of the dead node's broadcasts answer, p99", 3.0),
        ("handover_ms", "milliseconds that a question waits at most while a node stops, p99", 100.0),
    ):
        bench.target(f"{name}_p99", text, _worst(bench, variant, f"{name}_p99"), at_most=bound)
    bench.target("violations", "broken invariants", _worst(bench, variant, "violations"), at_most=0)


async def _play(bench: Bench, variant: str, seed: int) -> None:
    """One run of the demo, and what came of it."""
    came_to = await _demo(bench, seed)
    for name, unit in UNITS.items():
        for percentile in PERCENTILES:
            if (value := came_to[name][percentile]) is not None:
                bench.record(variant, unit, **{f"{name}_{percentile}": value})
    latency = came_to["accept_latency_ms"]
    bench.record(variant, "ms", **{f"accept_{name}": latency[name] for name in PERCENTILES})
    bench.record(variant, "", violations=len(came_to["violations"]), broadcasts=came_to["broadcasts_created"])
    bench.record(variant, "", accepts_won=came_to["accepts_won"], accepts_lost=came_to["accepts_lost"])
    for violation in came_to["violations"]:
        bench.note(f"seed {seed}: {violation}")


async def _demo(bench: Bench, seed: int) -> dict[str, Any]:
    """The JSON that it prints. Raises `Missing` if the stores are not installed."""
    options, directory = bench.options, bench.directory()
    command = ["demo", "--chaos", "--json", "--seed", str(seed), "--cluster", str(options["nodes"])]
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


def _worst(bench: Bench, variant: str, figure: str) -> float | None:
    return max(bench.values(variant, figure), default=None)
