"""With real processes: a crew is one."""

import os

import pytest

from bench.kit.bench import Bench
from bench.kit.crew import SATURATED, AgentFailed, Crew
from bench.kit.histogram import Histogram
from bench.kit.result import Result

from .agent import Agent


async def test_each_process_answers_for_itself() -> None:
    async with Crew.hire(Agent, 2, "hello") as crew:
        assert await crew.ask("greet", "world") == [(0, "hello world"), (1, "hello world")]
        assert await crew.ask_each("greet", [["a"], ["b"]]) == [(0, "hello a"), (1, "hello b")]
        assert len(Histogram().merge(*await crew.ask("measure"))) == 2
        assert len({os.getpid(), *crew.pids}) == 3


async def test_what_an_agent_raises_is_told_and_it_goes_on() -> None:
    async with Crew.hire(Agent, 1, "hello") as crew:
        with pytest.raises(AgentFailed, match="LookupError: nothing here"):
            await crew.ask("fail")
        assert await crew.ask("greet", "again") == [(0, "hello again")]


async def test_an_agent_that_cannot_be_made_is_told() -> None:
    with pytest.raises(AgentFailed, match="ValueError: no such greeting"):
        async with Crew.hire(Agent, 1, "wrong"):
            pass


async def test_a_process_that_ends_is_told() -> None:
    async with Crew.hire(Agent, 1, "hello") as crew:
        with pytest.raises(AgentFailed, match=r"has ended \(exit code 7\)"):
            await crew.ask("end")


async def test_processes_end_with_the_block() -> None:
    async with Crew.hire(Agent, 2, "hello") as crew:
        pids = crew.pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_busy_is_the_share_of_a_core_that_one_process_had() -> None:
    async with Crew.hire(Agent, 2, "hello") as crew:
        await crew.ask("rest", 0.2)
        resting = crew.busy
        await crew.ask_each("work", [[0.2], [0.0]])
        assert resting < crew.busy < 1.2
        busy = crew.busy
        await crew.ask("rest", 0.05)
        assert crew.busy == busy  # the largest since it was set to 0


@pytest.mark.parametrize(("busy", "notes"), [(SATURATED, 0), (SATURATED + 0.01, 1)])
def test_a_busy_crew_is_noted_as_the_bottleneck(bench: Bench, result: Result, busy: float, notes: int) -> None:
    crew = Crew([])
    crew.busy = busy
    bench.record_crew("a", crew)
    assert bench.values("a", "client_busy") == [busy]
    assert len(result.scenarios["one"].notes) == notes
    assert crew.busy == 0
