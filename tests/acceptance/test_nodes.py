"""`haulcast serve --nodes 3` on real stores: one port, whatever becomes of one of the nodes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.acceptance.server import environment
from tests.databases import blocking, create_database, drop_database

NODES = 3
WITHIN_S = 40.0


class Nodes:
    """The supervisor and, through their own ports, its nodes."""

    def __init__(self, log_path: Path, **settings: str) -> None:
        self._log_path = log_path
        command = [sys.executable, "-m", "haulcast", "serve", "--nodes", str(NODES)]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(HAULCAST_PORT="0", **settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def port(self) -> int:
        """The shared port, the one before those of the nodes; 0 before there is a node."""
        return min((record["node_port"] for record in self.log("node_started")), default=1) - 1

    def is_ready(self, number: int = 0) -> bool:
        """Whether one node, or (0) whoever takes the connection to the shared port, is ready."""
        url = f"http://127.0.0.1:{self.port + number}/health/ready"
        with suppress(URLError, OSError), urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
        return False

    def all_ready(self) -> bool:
        """Whether every node is."""
        return all(self.is_ready(number) for number in range(1, NODES + 1))

    def log(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        lines = self._log_path.read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
        return [record for record in records if record["event"] == event]

    def pids(self) -> dict[int, int]:
        """The process of each node, as the log has it."""
        return {record["node"]: record["pid"] for record in self.log("node_started")}


def until(holds: Callable[[], bool], log_path: Path) -> None:
    """Wait for a condition."""
    give_up_at = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < give_up_at, log_path.read_text()
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process does anything; one that nobody has waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def nodes(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes, ready, on a database that was empty before."""
    log_path = tmp_path / "log"
    database = blocking(create_database(postgres_url))
    nodes = Nodes(log_path, HAULCAST_DATABASE_URL=database, HAULCAST_REDIS_URL=redis_url)
    try:
        until(nodes.all_ready, log_path)
        yield nodes
    finally:
        nodes.process.kill()
        nodes.process.wait()
        blocking(drop_database(database))


@pytest.mark.timeout(120)
def test_a_node_that_dies_is_replaced_and_the_port_goes_on_answering(nodes: Nodes, tmp_path: Path) -> None:
    victim = nodes.pids()[2]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim in [death["pid"] for death in nodes.log("node_died")], tmp_path / "log")
    while nodes.pids()[2] == victim or not nodes.is_ready(2):
        assert nodes.is_ready()
    assert nodes.is_ready(1)
    assert nodes.is_ready(3)


@pytest.mark.timeout(120)
def test_a_rolling_restart_leaves_the_port_answering_and_then_everything_stops(nodes: Nodes, tmp_path: Path) -> None:
    before = nodes.pids()
    nodes.process.send_signal(signal.SIGHUP)
    until(lambda: len(nodes.log("node_replaced")) == NODES, tmp_path / "log")
    after = nodes.pids()
    assert not set(before.values()) & set(after.values())
    assert nodes.all_ready()
    assert nodes.is_ready()
    deaths = len(nodes.log("node_died"))
    nodes.process.terminate()
    assert nodes.process.wait(WITHIN_S) == 0
    assert not any(map(runs, after.values()))
    assert len(nodes.log("node_died")) == deaths


@pytest.mark.timeout(120)
def test_a_supervisor_that_is_killed_takes_its_nodes_along(nodes: Nodes, tmp_path: Path) -> None:
    nodes.process.kill()
    nodes.process.wait()
    until(lambda: not any(map(runs, nodes.pids().values())), tmp_path / "log")
