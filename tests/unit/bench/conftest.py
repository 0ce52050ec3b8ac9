"""A scenario's run without a scenario, and without a screen."""

from contextlib import AsyncExitStack

import pytest

from bench.kit.bench import Bench
from bench.kit.result import Result, ScenarioResult


@pytest.fixture
def result() -> Result:
    return Result("", "short", "", {}, {}, scenarios={"one": ScenarioResult("", {})})


@pytest.fixture
def bench(result: Result) -> Bench:
    return Bench("one", {}, None, result, lambda _doing, _part: None, AsyncExitStack())
