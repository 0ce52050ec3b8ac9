"""Seeded schedules of a cluster with faults: what was promised holds in each, and what is planted in the code is found.

`make sim` runs more of them. A seed that fails is run again by the command that the failure names.
"""

import os
import subprocess
import sys

import pytest

from tests.sim import schedules
from tests.sim.cluster_schedule import Result, play
from tests.sim.planted import (
    Plant,
    epoch_left_out_of_the_fence,
    lease_recreated_on_renewal,
    reply_before_commit,
    request_log_not_consulted,
)
from tests.sim.planted_control import (
    acknowledged_before_it_is_taken,
    losers_not_told,
    older_control_in_place_of_a_newer,
    recorded_on_any_version,
    versions_not_compared,
    wave_in_spite_of_a_pause,
    wave_of_another_reach,
)

BATCHES = 20
PER_BATCH = 10
FOUND_WITHIN = 100


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_was_promised_holds_in_every_schedule(batch: int) -> None:
    for seed in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
        result = play(seed)
        assert result.violations == [], f"again: python -m tests.sim.schedules --schedules 1 --seed {seed} --trace"


@pytest.mark.parametrize(
    ("plant", "evidence"),
    [
        (epoch_left_out_of_the_fence, "a write of (epoch, owner)"),
        (lease_recreated_on_renewal, "was given up"),
        (reply_before_commit, "answered before the answer was durable"),
        (request_log_not_consulted, "but the journal has"),
        (acknowledged_before_it_is_taken, "said to have followed to"),
        (older_control_in_place_of_a_newer, "said to have followed to"),
        (versions_not_compared, "is the newest"),
        (recorded_on_any_version, "was put in force after"),
        (wave_of_another_reach, "m was sent to somebody"),
        (wave_in_spite_of_a_pause, "was decided while paused"),
        (losers_not_told, "that they have lost"),
    ],
)
def test_a_planted_fault_is_found(plant: Plant, evidence: str) -> None:
    with plant():
        assert any(evidence in violation for seed in range(FOUND_WITHIN) for violation in play(seed).violations)


def test_the_same_seed_gives_the_same_trace() -> None:
    for seed in (3, 6, 9, 11):
        assert play(seed).trace == play(seed).trace


def test_the_same_seed_gives_the_same_trace_in_another_process() -> None:
    command = [sys.executable, "-c", "from tests.sim.cluster_schedule import play; print(play(9).digest)"]
    digests = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert digests == {play(9).digest}


def test_different_seeds_give_different_schedules() -> None:
    assert len({play(seed).digest for seed in range(5)}) == 5


def test_a_failure_is_reported_with_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Result(seed=7, violations=["truck b1-1 was won twice"], trace=[], counts={})
    assert schedules.report([failed], 1) == 1
    told = capsys.readouterr().out
    assert "truck b1-1 was won twice" in told
    assert "python -m tests.sim.schedules --schedules 1 --seed 7 --trace" in told


def test_a_run_without_violations_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert schedules.main(["--schedules", "2", "--jobs", "1"]) == 0
    assert "2/2 schedules, 0 with violations" in capsys.readouterr().out
