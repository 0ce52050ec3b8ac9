"""Nodes that are killed and stopped under load: how long a thousand broadcasts are out of reach, and what gets lost.

1. It is `haulcast demo --cluster --chaos --json`: a simulated city lives on a cluster over private stores, whose nodes
   are killed with SIGKILL, stopped, and come back; `haulcast.demo.failover` tells how it is measured from outside.
2. `failover_first_s` and `failover_all_s`: from the kill until the first and the last of the dead node's broadcasts
   answers. `handover_ms`: the longest that a question had to wait while a node stopped. `violations`: what the demo's
   checker found wrong afterwards, in what clients saw and what the journal keeps: double assignments, lost replies.
3. A run kills and stops several nodes; p50 and p99 are over all of them. It may take longer than its `seconds`: it ends
   when every broadcast and trip has ended.
"""

from typing import Any

from bench.kit.bench import Bench
from bench.kit.demo import play, record_city, worst
from bench.kit.servers import Missing

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"nodes": 3, "seconds": 12, "transporters": 60, "customers": 40, "repetitions": 1},
    "full": {"nodes": 3, "seconds": 120, "transporters": 120, "customers": 80, "repetitions": 3},
}
UNITS = {"failover_first_s": "s", "failover_all_s": "s", "handover_ms": "ms"}
PERCENTILES = ("p50", "p99")


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
        bench.target(f"{name}_p99", text, worst(bench, variant, f"{name}_p99"), at_most=bound)
    bench.target("violations", "broken invariants", worst(bench, variant, "violations"), at_most=0)


async def _play(bench: Bench, variant: str, seed: int) -> None:
    """One run of the demo, and what came of it."""
    came_to = await play(bench, seed, "--chaos")
    for name, unit in UNITS.items():
        for percentile in PERCENTILES:
            if (value := came_to[name][percentile]) is not None:
                bench.record(variant, unit, **{f"{name}_{percentile}": value})
    record_city(bench, variant, seed, came_to)
