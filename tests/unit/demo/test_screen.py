"""What a run shows while it goes on and when it is over, on terminals wide and narrow."""

import io
import subprocess
from typing import Any

import pytest
from rich.console import Console

from haulcast.client import Topic, Version
from haulcast.client.protocol import Snapshot
from haulcast.demo.checker import Verdict, Violation
from haulcast.demo.record import Asked, Commanded, Heard, Outcome, Recorder
from haulcast.demo.result import Result
from haulcast.demo.screen import broadcasts_table, ready_call, show_console

NOW_MS = 1_000_000
PENDING = {"broadcast_id": "b1", "status": "pending", "decided_at": NOW_MS, "remaining_requests": 1}


def broadcast(status: str, *winners: str | None, **more: Any) -> Topic:
    state = {
        "broadcast_id": "01k9zzzzzzzzzzzzzzabcdefgh",
        "status": status,
        "end_reason": None,
        "ended_at": None,
        "expires_at": NOW_MS + 11_500,
        "wave": 2,
        "notified": 17,
        "requests": {str(number): {} for number in range(len(winners))},
        "trips": {str(number): {"transporter_id": winner} for number, winner in enumerate(winners) if winner},
        **more,
    }
    topic = Topic("broadcast:b1")
    topic.take_snapshot(Snapshot("broadcast:b1", Version(1, 1), NOW_MS, {**state, "trips": {}}))
    topic.state = state
    return topic


def drawn(*topics: Topic, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(broadcasts_table([(topic, NOW_MS) for topic in topics], width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_live_broadcast_is_shown_with_its_countdown() -> None:
    _, row = drawn(broadcast("partially_filled", "t4", None), width=100).splitlines()
    assert row.split() == ["abcdefgh", "partially", "filled", "2", "17", "1/2", "t4", "12", "s"]


def test_an_ended_one_has_no_countdown_and_says_why() -> None:
    ended = broadcast("expired", None, ended_at=NOW_MS, end_reason="no_vehicles_available")
    _, row = drawn(ended, width=100).splitlines()
    assert row.split() == ["abcdefgh", "expired", "(none", "near)", "2", "17", "0/1"]


@pytest.mark.parametrize("width", [30, 44, 71, 72, 200])
def test_every_terminal_gets_the_state_and_the_trucks_on_one_line_each(width: int) -> None:
    lines = drawn(broadcast("searching", None), broadcast("fully_filled", "t1", "t2", "t3"), width=width).splitlines()
    assert len(lines) == 3
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "0/1" in lines[1]
    assert "3/3" in lines[2]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_call_that_is_shown_can_be_copied_from_every_terminal(width: int) -> None:
    lines = ready_call("http://127.0.0.1:38571", "demo-1", width)
    assert all(len(line) <= width for line in lines)
    script = "\n".join(lines).replace("curl", r"printf '%s\n'").replace(".venv/bin/haulcast", "echo")
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert shown.stdout.splitlines() == [
        "http://127.0.0.1:38571/v1/broadcasts",
        "-H",
        "Authorization: Bearer token --tenant demo-1 --role operator --user me",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_consoles_address_is_printed_in_one_piece_on_every_terminal(width: int) -> None:
    """So that it can be copied, or pressed where the terminal takes links; and its lines are told as the terminal
    breaks them."""
    url = "http://127.0.0.1:38571/console/#token=" + "a" * 250
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    taken = show_console(console, url)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert f"m{url}\x1b" in printed
    assert taken == 2 + -(-len(url) // width) == len(printed.splitlines()) - 1 + -(-len(url) // width)


def asked(latency_ms: float, outcome: Outcome = Outcome.OK, kind: str = "offer.accept") -> Asked:
    return Asked("t1", "transporter", kind, "r", {}, outcome, {"status": "fully_filled"}, None, latency_ms)


def test_latencies_are_those_of_answered_accepts() -> None:
    recorder = Recorder()
    assert recorder.latency_ms(0.5) is None
    for latency_ms in range(1, 101):
        recorder.add(asked(latency_ms, Outcome.OK if latency_ms % 2 else Outcome.REFUSED))
    recorder.add(asked(9_999, Outcome.LOST))
    recorder.add(asked(9_999, kind="trip.update"))
    assert (recorder.latency_ms(0.5), recorder.latency_ms(0.99), recorder.latency_ms(1)) == (50, 99, 100)
    assert recorder.latency_ms(0.5, last=10) == 95
    assert (recorder.accepts_won, recorder.accepts_lost) == (50, 50)


def test_an_accept_that_is_pending_counts_when_it_is_decided() -> None:
    recorder = Recorder()
    for vehicle in ("v1", "v2", "v3"):
        data = {"broadcast_id": "b1", "vehicle_id": vehicle}
        recorder.add(Asked("t1", "transporter", "offer.accept", vehicle, data, Outcome.OK, PENDING, None, 1.0))
    assert (recorder.accepts_won, recorder.accepts_lost, recorder.accepts_waited) == (0, 0, 3)
    for event, vehicle in (("trip_assigned", "v1"), ("accept_lost", "v2"), ("accept_lost", "v9")):
        recorder.add(Heard("t1", "transporter", event, "b1", None, vehicle, None, None, False))
    recorder.add(Heard("d1", "driver", "trip_assigned", "b1", "b1-1-t", "v1", None, None, False))
    assert (recorder.accepts_won, recorder.accepts_lost) == (1, 1)


def test_broadcasts_are_counted_by_how_they_ended() -> None:
    recorder = Recorder()
    recorder.add(asked(1, kind="broadcast.create"))
    for event, remaining in (("truck_confirmed", 1), ("truck_confirmed", 0), ("broadcast_expired", None)):
        recorder.add(Heard("c1", "customer", event, "b1", None, None, None, remaining, False))
    assert recorder.broadcasts == {"created": 1, "filled": 1, "expired": 1, "cancelled": 0}
    assert [record["kind"] for record in recorder.plain()] == ["asked", "heard", "heard", "heard"]


def commanded(latency_ms: float, *, complete: bool = True) -> Commanded:
    nodes = [{"node": 1, "status": "acked", "after_ms": latency_ms / 2}, {"node": 2, "status": "gone"}]
    reply = {"complete": complete, "nodes": nodes}
    return Commanded("k1", "resume", "http://node", Outcome.OK, reply, NOW_MS, latency_ms)


def test_the_result_says_how_commands_were_followed_if_there_were_any() -> None:
    run = result()
    assert "control" not in run.plain()
    for latency_ms in range(1, 101):
        run.recorder.add(commanded(latency_ms, complete=latency_ms < 100))
    refused = Outcome.REFUSED
    run.recorder.add(Asked("c1", "customer", "broadcast.create", "r", {}, refused, {}, "TENANT_PAUSED", 1.0))
    run.recorder.add(Commanded("k2", "pause", "http://node", Outcome.LOST, {}, NOW_MS, 101))
    plain = run.plain()
    assert plain["control"] == {
        "rounds": 100,
        "commands": 101,
        "complete": 99,
        "creates_paused": 1,
        "accepts_waited": 0,
    }
    assert plain["control_ms"] == {"p50": 51, "p99": 100, "max": 101}
    assert plain["followed_ms"] == {"p50": 25, "p99": 49.5, "max": 50}
    assert any(line.startswith("control     101 commands in 100 rounds, 99 followed") for line in run.lines())


def result(*violations: Violation, tasks: int = 0) -> Result:
    counts = {violation.invariant: 1 for violation in violations}
    verdict = Verdict(violations, counts, {"fully_filled": 3, "expired": 1}, wins=3, wins_untold=0)
    return Result(verdict, Recorder(), {"actors": 0, "timers": 0, "tasks": tasks})


def test_a_run_is_fine_if_nothing_was_violated_and_nothing_leaked() -> None:
    assert result().fine
    assert not result(tasks=1).fine
    assert not result(Violation("one ending", "b1")).fine


def test_the_result_says_what_was_violated() -> None:
    broken = result(Violation("truck won once", "b1-1 was assigned 2 times"))
    assert broken.plain()["double_assignments"] == 1
    assert broken.plain()["violations"] == ["truck won once: b1-1 was assigned 2 times"]
    assert "  truck won once: b1-1 was assigned 2 times" in broken.lines()
    assert broken.plain()["broadcasts_created"] == 4
