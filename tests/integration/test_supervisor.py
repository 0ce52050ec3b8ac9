"""Several nodes behind one port: what dies comes back, what is told to stop stops, and nobody is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from haulcast.config import load
from haulcast.errors import ConfigError
from haulcast.supervisor import FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_AFTER_S, Backoff, supervise

CLUSTER = {"HAULCAST_DATABASE_URL": "postgresql://127.0.0.1/none", "HAULCAST_REDIS_URL": "redis://127.0.0.1"}
CHILD = str(Path(__file__).parent / "supervised_child.py")
SUPERVISE = """
import json, sys
from haulcast import supervisor
from haulcast.config import load
command, supervisor.STOP_WITHIN_S = json.loads(sys.argv[1]), float(sys.argv[2])
sys.exit(supervisor.supervise(load(), 3, command))
"""
NODES = 3
WITHIN_S = 30.0


class Supervised:
    """A supervisor with nodes that stand in for real ones."""

    def __init__(self, log_path: Path, port: int, *options: str, stop_within_s: float = 20) -> None:
        self.port = port
        self._log_path = log_path
        command = json.dumps([sys.executable, CHILD, *options])
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HAULCAST_")}
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, command, str(stop_within_s)],
                env={**environ, **CLUSTER, "HAULCAST_PORT": str(port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def pid(self, number: int = 0) -> int:
        """The process that answers at the port of one node, or (0) at the shared one; 0 if none does."""
        with suppress(URLError, OSError), urlopen(f"http://127.0.0.1:{self.port + number}/pid", timeout=2) as answer:
            return int(answer.read())
        return 0

    def pids(self) -> list[int]:
        """The process of each node."""
        return [self.pid(number) for number in range(1, NODES + 1)]

    def events(self, name: str) -> list[dict[str, object]]:
        """The lines of its log with this event."""
        whole = (line for line in self._log_path.read_text().splitlines(keepends=True) if line.endswith("}\n"))
        return [line for line in map(json.loads, whole) if line["event"] == name]

    def until_up(self) -> list[int]:
        """Wait for all nodes; their processes."""
        until(lambda: all(self.pids()))
        return self.pids()

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(WITHIN_S)


def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    give_up_at = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < give_up_at, f"not within {WITHIN_S:g} s"
        time.sleep(0.02)


def gone(pids: list[int]) -> bool:
    """Whether none of the processes runs any more."""
    return not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    """Whether a process does anything; one that nobody has waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts a supervisor that ends with the test."""
    started: list[Supervised] = []

    def start(*options: str, stop_within_s: float = 20) -> Supervised:
        started.append(Supervised(tmp_path / "log", free_ports(), *options, stop_within_s=stop_within_s))
        return started[-1]

    yield start
    for supervised in started:
        supervised.process.kill()
        supervised.process.wait()


def free_ports() -> int:
    """A port that is free, as are those after it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                for number in range(1, NODES + 1):
                    socket.create_server(("127.0.0.1", port + number)).close()
                return port


def test_a_node_that_dies_is_replaced_while_the_port_goes_on_answering(start: Callable[..., Supervised]) -> None:
    supervised = start()
    first, *others = supervised.until_up()
    os.kill(first, signal.SIGKILL)
    until(lambda: bool(supervised.events("node_died")))
    while supervised.pid(1) in (0, first):
        assert supervised.pid()
    assert supervised.pids()[1:] == others
    (death,) = supervised.events("node_died")
    assert (death["node"], death["pid"], death["signal"]) == (1, first, "SIGKILL")


def test_a_node_that_was_drained_is_started_again_at_once_and_not_called_dead(start: Callable[..., Supervised]) -> None:
    """However often in a row: a node that was told to go has done nothing wrong."""
    supervised = start()
    first, *others = supervised.until_up()
    for drains in (1, 2, 3, 4):
        before = supervised.pid(1)
        os.kill(before, signal.SIGUSR1)
        until(lambda drains=drains: len(supervised.events("node_drained")) == drains)  # type: ignore[misc]
        until(lambda before=before: supervised.pid(1) not in (0, before))  # type: ignore[misc]
    assert supervised.pids()[1:] == others
    assert [(line["node"], line["level"]) for line in supervised.events("node_drained")] == [(1, "info")] * 4
    assert supervised.events("node_drained")[0]["pid"] == first
    assert not supervised.events("node_died")


def test_a_node_that_is_drained_while_all_stop_stays_away(start: Callable[..., Supervised]) -> None:
    supervised = start()
    pids = supervised.until_up()
    supervised.process.terminate()
    with suppress(ProcessLookupError):
        os.kill(pids[0], signal.SIGUSR1)
    assert supervised.ended() == 0
    assert gone(pids)
    assert len(supervised.events("node_started")) == NODES


def test_a_node_that_cannot_run_is_tried_again_and_again_ever_more_slowly(start: Callable[..., Supervised]) -> None:
    supervised = start("lame")  # without the file's name, so that it fails
    until(lambda: len(supervised.events("node_died")) >= 3 * NODES)
    delays = [death["starts_again_in_s"] for death in supervised.events("node_died") if death["node"] == 2]
    assert delays[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert supervised.events("node_died")[0]["exit_code"] == 1
    supervised.process.terminate()
    assert supervised.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_stops_all_nodes_and_exits_with_0(start: Callable[..., Supervised], number: int) -> None:
    supervised = start()
    pids = supervised.until_up()
    supervised.process.send_signal(number)
    assert supervised.ended() == 0
    assert gone(pids)
    assert not supervised.events("node_died")


def test_nodes_that_do_not_stop_in_time_are_killed(start: Callable[..., Supervised]) -> None:
    supervised = start("stubborn", stop_within_s=0.5)
    pids = supervised.until_up()
    supervised.process.terminate()
    assert supervised.ended() == 1
    assert gone(pids)
    assert len(supervised.events("node_killed")) == NODES


def test_a_rolling_restart_replaces_one_node_after_the_other(start: Callable[..., Supervised]) -> None:
    supervised = start()
    before = supervised.until_up()
    supervised.process.send_signal(signal.SIGHUP)
    down_at_once = 0
    while len(supervised.events("node_replaced")) < NODES:
        down_at_once = max(down_at_once, supervised.pids().count(0))
    after = supervised.pids()
    assert not set(before) & set(after)
    assert down_at_once <= 1
    assert not supervised.events("node_died")


def test_a_rolling_restart_waits_for_a_node_that_is_not_ready(start: Callable[..., Supervised], tmp_path: Path) -> None:
    lame = tmp_path / "LAME"
    supervised = start("lame", str(lame))
    before = supervised.until_up()
    lame.touch()
    supervised.process.send_signal(signal.SIGHUP)
    until(lambda: supervised.pid(1) not in (0, before[0]))
    assert supervised.pids()[1:] == before[1:]
    lame.unlink()
    until(lambda: len(supervised.events("node_replaced")) == NODES)
    assert not set(before) & set(supervised.pids())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent has died")
def test_a_supervisor_that_is_killed_leaves_no_node_behind(start: Callable[..., Supervised]) -> None:
    supervised = start()
    pids = supervised.until_up()
    supervised.process.kill()
    supervised.ended()
    until(lambda: gone(pids))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"HAULCAST_DATABASE_URL": "", "HAULCAST_REDIS_URL": ""}, "HAULCAST_DATABASE_URL"),
        ({"HAULCAST_NODE_PORT": "9000"}, "HAULCAST_NODE_PORT"),
        ({"HAULCAST_PORT": "65533"}, "HAULCAST_PORT"),
        ({"HAULCAST_HOST": "192.0.2.1"}, "cannot listen"),  # an address that no machine has (RFC 5737)
    ],
)
def test_what_several_nodes_cannot_run_with_is_said(change: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        supervise(load({**CLUSTER, "HAULCAST_PORT": "0", **change}), NODES)


@pytest.mark.parametrize("number", range(NODES + 1))
def test_a_port_that_is_taken_is_named(number: int) -> None:
    port = free_ports()
    with (
        socket.create_server(("127.0.0.1", port + number), reuse_port=True),
        pytest.raises(ConfigError, match=f":{port + number}: Address already in use"),
    ):
        supervise(load({**CLUSTER, "HAULCAST_PORT": str(port)}), NODES)


def test_the_delay_doubles_up_to_a_bound_and_starts_over_after_a_steady_run() -> None:
    backoff = Backoff()
    delays = [backoff.died_after(1.0) for _ in range(100)]
    assert delays[0] == FIRST_DELAY_S
    assert all(later == min(2 * earlier, LONGEST_DELAY_S) for earlier, later in pairwise(delays))
    assert backoff.died_after(STEADY_AFTER_S) == FIRST_DELAY_S
