"""Operators' commands under load: how long until every node has followed.

1. It is `haulcast demo --cluster --control --json`: while a simulated city lives on a cluster over private stores, an
   operator pauses dispatch, switches to the next mode and resumes, twenty times a minute, at one node after the other.
2. `control`: from sending a command until its answer, which comes when all nodes that live have it in force in every
   broadcast. `followed`: from the moment when it was on record until the last of them had, by the node that was asked.
   A minute has sixty commands, so that the p99 of a run is its slowest one.
3. `creates_paused`: broadcasts that were refused because dispatch was paused, and tried again. `accepts_waited`: those
   that had to wait for a decision, which is so in one of the modes; `accept` times are until it is said that they wait.
4. `incomplete`: commands that were not answered, or that a node did not follow. `violations`: what the demo's checker
   found wrong afterwards: besides all that it looks for in any run, waves while dispatch was paused, accepts that
   waited for a decision and were never told of it, and gaps in the record of commands.
5. There is no run without an operator beside it: what pauses do to a city is what they are there for.
"""

from typing import Any

from bench.kit.bench import Bench
from bench.kit.demo import play, record_city, worst
from bench.kit.servers import Missing

OPTIONS: dict[str, dict[str, Any]] = {
    "short": {"nodes": 3, "seconds": 15, "transporters": 60, "customers": 40, "repetitions": 1},
    "full": {"nodes": 3, "seconds": 60, "transporters": 60, "customers": 40, "repetitions": 3},
}
SHARES = ("p50", "p99", "max")


async def run(bench: Bench) -> None:
    """See `bench.kit.bench`."""
    variant = f"cluster of {bench.options['nodes']}"
    with bench.needs(variant):
        if bench.url:
            raise Missing("its tenant is the demo's, so it plays on a cluster of its own only: run it without --url")
        async for _ in bench.in_turns([variant], bench.options["repetitions"], warm_up=False):
            seed = 1 + len(bench.values(variant, "violations"))
            came_to = await play(bench, seed, "--control")
            for name in ("control", "followed"):
                took = came_to[f"{name}_ms"]
                bench.record(variant, "ms", **{f"{name}_{share}": took[share] for share in SHARES})
            counts = came_to["control"]
            bench.record(variant, "", commands=counts["commands"], incomplete=counts["commands"] - counts["complete"])
            bench.record(variant, "", **{name: counts[name] for name in ("creates_paused", "accepts_waited")})
            record_city(bench, variant, seed, came_to)
    bench.target(
        "control_p99",
        "milliseconds from sending a command until all nodes have followed, p99, worst of the repetitions",
        worst(bench, variant, "control_p99"),
        at_most=200.0,
    )
    bench.target(
        "incomplete",
        "commands that were not answered or not followed by all nodes",
        worst(bench, variant, "incomplete"),
        at_most=0,
    )
    bench.target("violations", "broken invariants", worst(bench, variant, "violations"), at_most=0)
