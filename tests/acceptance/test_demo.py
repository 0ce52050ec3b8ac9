"""`haulcast demo` as a user runs it: it shows the product at work, judges it, and leaves nothing running."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.acceptance.server import environment

DEMO = (sys.executable, "-m", "haulcast", "demo", "--json", "--transporters", "30", "--customers", "20")
CLUSTER = (*DEMO, "--cluster")
FAILOVER = {"failover_first_s", "failover_all_s", "handover_ms"}
CONTROL = {"control", "control_ms", "followed_ms"}
RESULT = {
    "broadcasts_created",
    "fully_filled",
    "expired",
    "cancelled",
    "accepts_won",
    "accepts_lost",
    "double_assignments",
    "offers_delivered",
    "accept_latency_ms",
    "leaks",
    "violations",
}


def judged(output: str, measured: Set[str] = frozenset()) -> dict[str, Any]:
    """The result in the last line, which everything has to be fine in. `measured`: what else is in it."""
    *before, last = output.splitlines()
    assert before
    assert not any(line.startswith("{") for line in before)
    result: dict[str, Any] = json.loads(last)
    assert result.keys() == RESULT | measured
    assert result["violations"] == []
    assert result["double_assignments"] == 0
    assert result["leaks"] == {"actors": 0, "timers": 0, "tasks": 0}
    ended = result["fully_filled"] + result["expired"] + result["cancelled"]
    assert ended == result["broadcasts_created"]
    return result


def servers_of(output: str) -> list[str]:
    """Where the first line says that the servers are."""
    urls = output.split("server ", 1)[1].split(",", 1)[0].split()
    return [url.removeprefix("http://") for url in urls]


def is_served(address: str) -> bool:
    """Whether anybody listens there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def looked_on(address: str, token: str, tenant: str, demo: subprocess.Popen[str]) -> tuple[str, str]:
    """Do what the console does, with an HTTP connection that stays open, until the demo has ended; its output."""
    async with aiohttp.ClientSession() as http:
        async with http.get(address) as page:
            assert page.status == 200
        async with http.ws_connect(f"{address.removesuffix('console/')}v1/ws") as socket:
            await socket.send_json({"id": "1", "type": "hello", "data": {"token": token}})
            await socket.send_json({"id": "2", "type": "subscribe", "data": {"topic": f"board:{tenant}"}})
            ending = asyncio.create_task(asyncio.to_thread(demo.communicate))
            frames = [message.json() async for message in socket if message.type is aiohttp.WSMsgType.TEXT]
            assert frames[0]["data"]["role"] == "operator"
            assert {"snapshot", "delta"} <= {frame.get("type") for frame in frames}
            return await ending


@pytest.mark.timeout(120)
def test_a_short_demo_shows_races_and_finds_nothing_wrong(tmp_path: Path) -> None:
    """A1, A3, A5, A8, A10: in some seconds of a city, by what its clients saw and what the journal kept."""
    demo = subprocess.run(
        [*DEMO, "--seconds", "5"],
        env=environment(HAULCAST_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    result = judged(demo.stdout)
    assert result["broadcasts_created"] >= 20
    assert result["fully_filled"] > 0
    assert result["expired"] + result["cancelled"] > 0
    assert result["accepts_won"] > 0
    assert result["accepts_lost"] > 0
    assert result["offers_delivered"] > result["accepts_won"]
    assert 0 < result["accept_latency_ms"]["p50"] <= result["accept_latency_ms"]["p99"]
    assert "token" not in demo.stdout, "a result may be passed on, and a token not"
    assert not any(map(is_served, servers_of(demo.stdout)))
    assert [path.name for path in tmp_path.iterdir()] == ["demo"], "it keeps apart from the data of other servers"


@pytest.mark.timeout(120)
def test_a_demo_that_is_stopped_is_judged_all_the_same(tmp_path: Path) -> None:
    """When the terminal is closed, customers take back what is live, trips are driven to their end, the server is
    stopped, and the run is judged."""
    env = environment(HAULCAST_DATA_DIR=str(tmp_path))
    with subprocess.Popen(DEMO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        heard = demo.stdout.readline()
        while not heard.splitlines()[-1].startswith("running"):
            line = demo.stdout.readline()
            assert line, heard
            heard += line
        demo.send_signal(signal.SIGHUP)
        rest, errors = demo.communicate()
    assert demo.returncode == 0, heard + rest + errors
    assert judged(heard + rest)["broadcasts_created"] > 0
    assert not any(map(is_served, servers_of(heard)))


@pytest.mark.timeout(120)
def test_a_demo_that_an_operator_looks_on_until_the_end_has_no_leak(tmp_path: Path) -> None:
    """The address of the console is said where there is no terminal too, and signs in; the board that a browser keeps,
    and its connections, are not the server's fault."""
    env = environment(HAULCAST_DATA_DIR=str(tmp_path))
    command = [*(part for part in DEMO if part != "--json"), "--seconds", "3"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        tenant = demo.stdout.readline().split("tenant ", 1)[1].split(",", 1)[0]
        address, _, token = demo.stdout.readline().removeprefix("console ").strip().partition("#token=")
        output, errors = asyncio.run(looked_on(address, token, tenant, demo))
    assert demo.returncode == 0, output + errors
    assert "leaks       0 actors, 0 timers, 0 tasks" in output


@pytest.mark.timeout(180)
def test_a_demo_of_a_cluster_shows_the_same_on_three_nodes(tmp_path: Path) -> None:
    demo = subprocess.run(
        [*CLUSTER, "--seconds", "5"],
        env=environment(HAULCAST_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    result = judged(demo.stdout)
    assert result["broadcasts_created"] >= 20
    assert result["accepts_won"] > 0
    servers = servers_of(demo.stdout)
    assert len(set(servers)) == 3
    assert not any(map(is_served, servers))


@pytest.mark.timeout(300)
def test_in_a_cluster_whose_nodes_die_and_stop_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    """And how long the broadcasts of such a node are out of reach is measured."""
    demo = subprocess.run(
        [*CLUSTER, "--chaos", "--seconds", "10"],
        env=environment(HAULCAST_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    result = judged(demo.stdout, FAILOVER)
    assert result["accepts_won"] > 0
    assert 0 < result["failover_first_s"]["p50"] <= result["failover_all_s"]["p99"]
    assert 0 < result["handover_ms"]["p50"] <= result["handover_ms"]["p99"]
    assert not any(map(is_served, servers_of(demo.stdout)))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("chaos", [(), ("--chaos",)], ids=["quiet", "chaos"])
def test_an_operator_pauses_switches_and_resumes_a_cluster_and_nothing_is_lost(
    tmp_path: Path, chaos: tuple[str, ...]
) -> None:
    """Every command is followed by all nodes that live, also while nodes die; customers who are refused come back, and
    accepts that wait are decided."""
    demo = subprocess.run(
        [*CLUSTER, "--control", *chaos, "--seconds", "10"],
        env=environment(HAULCAST_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    result = judged(demo.stdout, CONTROL | (FAILOVER if chaos else set()))
    control, took = result["control"], result["control_ms"]
    assert control["rounds"] >= 2
    assert control["commands"] == control["complete"] == 3 * control["rounds"]
    assert control["creates_paused"] > 0
    assert control["accepts_waited"] > 0
    assert 0 < took["p50"] <= took["p99"] <= took["max"]
    assert result["accepts_won"] > 0


def test_chaos_needs_a_cluster(tmp_path: Path) -> None:
    demo = subprocess.run(
        [*DEMO, "--chaos"],
        env=environment(HAULCAST_DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 2
    assert "--cluster" in demo.stderr


def test_a_demo_whose_server_cannot_start_says_why(tmp_path: Path) -> None:
    """The server's own words, and where its log is."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "haulcast.sqlite3").write_text("this is not a database" * 100)
    demo = subprocess.run(
        DEMO, env=environment(HAULCAST_DATA_DIR=str(tmp_path)), capture_output=True, text=True, check=False
    )
    assert demo.returncode == 1
    assert "cannot be opened as a database" in demo.stderr
    assert str(tmp_path) in demo.stderr
