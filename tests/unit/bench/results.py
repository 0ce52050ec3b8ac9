"""Small results for the tests of what reads them."""

from collections.abc import Sequence

from bench.kit.result import Figure, Result, ScenarioResult, Target, Variant


def result_of(values: Sequence[float], **other: str) -> Result:
    """A run of one scenario with a variant that was measured and one that was left out."""
    haulcast = Variant(
        {"cpu": Figure("us", list(values))}, {"wait": [(0.0, 0.5), (50.0, 1.0), (99.0, 9.0), (100.0, 20.0)]}
    )
    scenario = ScenarioResult(
        "what it is about <b>",
        {"sockets": 20},
        variants={"haulcast": haulcast, "Node ws": Variant(skipped="node is not installed")},
        notes=["the clients were the bottleneck"],
    )
    return Result(
        command="python -m bench run",
        profile="short",
        started_at="2026-01-01T00:00:00Z",
        machine={"cpu": "a processor", "cores": 2, "load_before": 0.1},
        versions={"python": "3.11.2", **other},
        scenarios={"request": scenario},
        targets={
            "request.cpu": Target("server CPU per request", "at most", 10.0, 2.0, True),
            "request.worse": Target("something else", "at most", 1.0, 2.0, False),
            "request.node": Target("against Node", "at least", 2.0, None, False, "Node ws was left out"),
        },
    )
