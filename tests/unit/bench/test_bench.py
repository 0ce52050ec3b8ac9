import pytest

from bench.kit.bench import Bench
from bench.kit.histogram import Histogram
from bench.kit.result import Result
from bench.kit.servers import Missing


async def test_variants_take_turns_and_the_warm_up_does_not_count(bench: Bench) -> None:
    order = []
    async for variant in bench.in_turns(["a", "b"], 2):
        order.append(variant)
        bench.record(variant, "us", cost=float(len(order)))
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert bench.values("a", "cost") == [3.0, 5.0]
    assert bench.values("b", "cost") == [4.0, 6.0]


async def test_without_a_warm_up_every_turn_counts(bench: Bench) -> None:
    async for variant in bench.in_turns(["a"], 2, warm_up=False):
        bench.record(variant, "us", cost=1.0)
    assert bench.values("a", "cost") == [1.0, 1.0]


async def test_what_is_missing_is_left_out_and_named(bench: Bench, result: Result) -> None:
    with bench.needs("b"):
        raise Missing("node is not installed")
    assert [variant async for variant in bench.in_turns(["a", "b"], 1)] == ["a", "a"]
    assert result.scenarios["one"].variants["b"].skipped == "node is not installed"


async def test_what_goes_missing_meanwhile_gets_no_more_turns(bench: Bench) -> None:
    turns = []
    async for variant in bench.in_turns(["a", "b"], 2):
        turns.append(variant)
        with bench.needs(variant):
            if variant == "a":
                raise Missing("it has gone")
    assert turns == ["a", "b", "b", "b"]


def test_other_errors_are_not_taken_for_something_missing(bench: Bench, result: Result) -> None:
    with pytest.raises(OSError, match="broken"), bench.needs("a"):
        raise OSError("broken")
    assert not result.scenarios["one"].variants


def test_a_ratio_is_taken_within_each_repetition(bench: Bench) -> None:
    """The machine slows down tenfold from turn to turn, and the ratio does not see it."""
    for slower in (1.0, 10.0, 100.0):
        bench.record("a", "us", cost=3.0 * slower)
        bench.record("b", "us", cost=2.0 * slower)
    bench.record("a", "us", cost=1.0)  # has no partner
    assert bench.ratio(("a", "cost"), ("b", "cost")) == 1.5


def test_the_ratio_that_counts_is_the_median(bench: Bench) -> None:
    for one, other in ((1.0, 1.0), (2.0, 1.0), (90.0, 1.0)):
        bench.record("a", "us", cost=one)
        bench.record("b", "us", cost=other)
    assert bench.ratio(("a", "cost"), ("b", "cost")) == 2.0


def test_there_is_no_ratio_of_what_was_not_measured(bench: Bench) -> None:
    bench.record("a", "us", cost=1.0)
    bench.record("b", "us", cost=0.0)
    assert bench.ratio(("a", "cost"), ("c", "cost")) is None
    assert bench.ratio(("a", "cost"), ("b", "cost")) is None


@pytest.mark.parametrize(
    ("value", "bound", "met"),
    [
        (1.0, {"at_most": 1.0}, True),
        (1.1, {"at_most": 1.0}, False),
        (0.0, {"at_most": 0.0}, True),
        (2.0, {"at_least": 2.0}, True),
        (1.9, {"at_least": 2.0}, False),
    ],
)
def test_a_target_is_met_up_to_its_bound(
    bench: Bench, result: Result, value: float, bound: dict[str, float], met: bool
) -> None:
    bench.target("cost", "what it costs", value, **bound)
    target = result.targets["one.cost"]
    assert (target.value, target.met, target.why_not) == (value, met, "")


def test_a_target_that_was_not_measured_is_not_met_and_says_why(bench: Bench, result: Result) -> None:
    with bench.needs("b"):
        raise Missing("node is not installed")
    bench.target("cost", "what it costs", None, at_most=1.0)
    target = result.targets["one.cost"]
    assert (target.value, target.met) == (None, False)
    assert target.why_not == "b was left out: node is not installed"


def test_latencies_become_figures_and_a_curve(bench: Bench, result: Result) -> None:
    bench.record_latency("a", "wait", Histogram([0.001, 0.002, 0.003]))
    assert bench.values("a", "wait_p50") == [pytest.approx(2, rel=0.002)]
    assert bench.values("a", "wait_max") == [pytest.approx(3, rel=0.002)]
    assert result.scenarios["one"].variants["a"].curves["wait"][0][0] == 0


def test_a_note_is_told_once(bench: Bench, result: Result) -> None:
    bench.note("the clients were the bottleneck")
    bench.note("the clients were the bottleneck")
    assert result.scenarios["one"].notes == ["the clients were the bottleneck"]
