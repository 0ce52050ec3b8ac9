"""`haulcast settings` and `haulcast control` against servers that run: real processes on both sides."""

import asyncio
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployment import NODES, Cluster, Deployment
from tests.acceptance.network import TRUCK, Network, haul, offered, sign
from tests.acceptance.server import Server, environment

WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


async def haulcast(url: str, *arguments: str, **settings: str) -> Ran:
    """Run `haulcast` as an operator does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "haulcast", *arguments),
        env=environment(HAULCAST_URL=url, **settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ran(process.returncode, out.decode(), err.decode())


def nodes_of(deployment: Deployment) -> int:
    return NODES if deployment is Deployment.CLUSTER else 1


async def test_settings_are_shown_changed_and_listed(network: Network, server: Server, deployment: Deployment) -> None:
    """Each line of the answer is a node that has followed; a change is in the history with who made it."""
    first, *others = server.url.split(",")
    tenant = ("--tenant", network.tenant, "--user", "asha")
    shown = await haulcast(first, "settings", "show", *tenant)
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^wave_interval_s +15$", shown.out, re.MULTILINE)
    changed = await haulcast(first, "settings", "set", "wave_interval_s=0.5", "wave_radii_km=[3,null]", *tenant)
    assert changed.code == 0, changed
    assert re.search(r"^wave_interval_s +15 +-> +0.5$", changed.out, re.MULTILINE)
    assert len(re.findall(r"^node +\d+  followed after [\d.]+ ms$", changed.out, re.MULTILINE)) == nodes_of(deployment)
    for url in (first, *others):
        now = (await haulcast(url, "settings", "show", "--json", *tenant)).data
        assert (now["settings"]["wave_interval_s"], now["settings"]["wave_radii_km"]) == (0.5, [3.0, None])
    again = await haulcast(first, "settings", "set", "wave_interval_s=0.5", *tenant)
    assert (again.code, again.out) == (0, "it is so already (version 2)\n")
    history = await haulcast((*others, first)[0], "settings", "history", *tenant)
    head, row = history.out.splitlines()
    assert head.split() == ["number", "when", "who", "what", "outcome"]
    assert "operator asha" in row
    assert "wave_interval_s 15 -> 0.5" in row
    assert row.endswith(f"{nodes_of(deployment)} of {nodes_of(deployment)}")


async def test_what_somebody_else_changed_meanwhile_is_told_and_nothing_is_set(
    network: Network, server: Server
) -> None:
    url = server.url.split(",")[-1]
    tenant = ("--tenant", network.tenant)
    assert (await haulcast(url, "settings", "set", "toggle_limit=3", *tenant, "--user", "ravi")).code == 0
    assert (await haulcast(url, "control", "pause", *tenant, "--user", "asha")).code == 0
    late = await haulcast(url, "settings", "set", "toggle_limit=5", "--expect", "1", *tenant)
    assert late.code == 1
    assert "VERSION_MISMATCH" in late.err
    told = [line for line in late.err.splitlines() if line.startswith("version ")]
    assert [line.split()[:2] for line in told] == [["version", "2"], ["version", "3"]]
    assert "operator ravi" in told[0]
    assert "toggle_limit 10 -> 3" in told[0]
    assert told[1].endswith("operator asha  pause")
    assert (await haulcast(url, "settings", "show", "--json", *tenant)).data["settings"]["toggle_limit"] == 3
    in_json = await haulcast(url, "settings", "set", "toggle_limit=5", "--expect", "1", "--json", *tenant)
    assert (in_json.code, in_json.data["error"]["code"]) == (1, "VERSION_MISMATCH")


async def test_dispatch_pauses_and_goes_on(network: Network, server: Server) -> None:
    """Who creates a broadcast is told that it is paused, on every node, until it is resumed."""
    url = server.url.split(",")[0]
    transporter = await network.transporter("t1")
    customers = [await network.phone("customer", f"c{number}") for number in range(NODES)]
    assert (await haulcast(url, "control", "pause", "--tenant", network.tenant)).code == 0
    for customer in customers:
        assert (await customer.ask("broadcast.create", haul()))["error"]["code"] == "TENANT_PAUSED"
    assert "PAUSED" in (await haulcast(url, "settings", "show", "--tenant", network.tenant)).out
    assert (await haulcast(url, "control", "resume", "--tenant", network.tenant)).code == 0
    created = await customers[0].do("broadcast.create", haul({TRUCK: 1}))
    await offered(created["broadcast_id"], transporter)


async def test_an_announcement_is_heard_by_those_who_are_there_and_those_who_come(
    network: Network, server: Server
) -> None:
    url = server.url.split(",")[0]
    there, driver = await network.client("transporter", "t1"), await network.client("driver", "d1")
    announced = await haulcast(
        url, "control", "announce", "--to", "transporter", "--lifetime", "1h", "Fog on NH48", "--tenant", network.tenant
    )
    assert announced.code == 0, announced
    later = await network.client("transporter", "t2")
    for client in (there, later):
        async with asyncio.timeout(WITHIN_S):
            event = await anext(client.events())
        assert (event.event, event.data["text"]) == ("announcement", "Fog on NH48")
        assert event.data["expires_at"] - event.data["at"] == 3_600_000
    await driver.close()
    assert [event async for event in driver.events()] == []
    log = await haulcast(url, "control", "log", "--tenant", network.tenant)
    assert "announce to transporter: Fog on NH48" in log.out


async def test_the_same_id_is_done_once_whichever_node_is_asked(network: Network, server: Server) -> None:
    command = ("control", "switch-mode", "blast", "--id", "k1", "--json", "--tenant", network.tenant, "--user", "asha")
    urls = server.url.split(",")
    answers = [await haulcast(url, *command) for url in (urls[0], urls[-1], urls[0])]
    assert [answer.code for answer in answers] == [0, 0, 0]
    assert answers[0].data == answers[1].data == answers[2].data
    assert (answers[0].data["id"], answers[0].data["version"]) == ("k1", 2)
    other = await haulcast(urls[0], "control", "pause", "--id", "k1", "--tenant", network.tenant, "--user", "asha")
    assert other.code == 1
    assert "ID_REUSED" in other.err
    log = (await haulcast(urls[0], "control", "log", "--json", "--tenant", network.tenant)).data
    assert [entry["command"] for entry in log["entries"]] == ["switch_mode"]


async def test_an_answer_that_is_lost_on_the_way_is_asked_for_again(network: Network, server: Server) -> None:
    """The connection breaks when the answer begins to come; the command is in the log once."""
    host, port = server.url.split(",")[0].removeprefix("http://").split(":")
    cuts = 0

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal cuts
        there_reader, there = await asyncio.open_connection(host, int(port))
        there.write(await reader.read(65_536))
        answer = await there_reader.read(65_536)
        if cuts < 2:
            cuts += 1
        else:
            writer.write(answer)
            await writer.drain()
        for each in (there, writer):
            each.close()

    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as proxy:
        there = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        paused = await haulcast(there, "control", "pause", "--tenant", network.tenant)
    assert paused.code == 0, paused
    assert cuts == 2
    assert "asking again" in paused.err
    log = (await haulcast(server.url.split(",")[0], "control", "log", "--json", "--tenant", network.tenant)).data
    assert len(log["entries"]) == 1
    [command_id] = re.findall(r"the id of this command is (\w+)", paused.err)
    assert len(command_id) == 16


async def test_a_drained_node_leaves_by_itself_and_the_last_one_cannot(
    own_server: Server, deployment: Deployment
) -> None:
    """What it had goes on at the others; its process ends with 0."""
    await asyncio.to_thread(own_server.start)
    urls = own_server.url.split(",")
    drain = ("control", "drain-node")
    async with Network(own_server.url, "acme") as network:
        _, nodes = await network.rest("GET", "/v1/nodes", "admin", "root")
        numbers = [node["node"] for node in nodes["nodes"]]
        assert len(numbers) == nodes_of(deployment)
        nobody = await haulcast(urls[0], *drain, "999999", "--tenant", "acme")
        assert nobody.code == 1
        assert "NODE_NOT_FOUND" in nobody.err
        if isinstance(own_server, Cluster):
            async with network.session.get(f"{urls[-1]}/health/detailed") as response:
                leaving = (await response.json())["incarnation"]
            customer = await network.phone("customer", "c1")
            created = await customer.do("broadcast.create", haul())
            gone = await haulcast(urls[0], *drain, str(leaving), "--tenant", "acme")
            assert gone.code == 0, gone
            assert re.search(rf"^node {leaving}  leaves", gone.out)
            await asyncio.to_thread(own_server.nodes[-1].ended)
            status, shown = await call(network, urls[0], f"/v1/broadcasts/{created['broadcast_id']}")
            assert (status, shown["status"]) == (200, "searching")
        else:
            last = await haulcast(urls[0], *drain, str(numbers[0]), "--tenant", "acme")
            assert last.code == 1
            assert "LAST_NODE" in last.err
    if isinstance(own_server, Cluster):
        own_server.nodes[-1].launch()
        await asyncio.to_thread(own_server.nodes[-1].await_ready)
    await asyncio.to_thread(own_server.stop)


async def call(network: Network, url: str, path: str) -> tuple[int, Any]:
    """A call to one node."""
    headers = {"Authorization": f"Bearer {sign(network.tenant, 'operator', 'op')}"}
    async with network.session.get(url + path, headers=headers) as response:
        return response.status, await response.json()


async def test_a_token_comes_from_a_file_or_the_environment_and_is_never_shown(
    network: Network, server: Server, tmp_path: Path
) -> None:
    """In production nothing else will do; a customer's is refused."""
    url = server.url.split(",")[0]
    operator, customer = (sign(network.tenant, role, "u1") for role in ("operator", "customer"))
    production = {
        "HAULCAST_ENV": "production",
        "HAULCAST_ORIGINS": "",
        "HAULCAST_JWT_KEYS": json.dumps([{"kid": "k", "alg": "HS256", "secret": "s" * 32}]),
    }
    file = tmp_path / "token"
    file.write_text(f"{operator}\n")
    ran = [
        await haulcast(url, "settings", "show", **production),
        await haulcast(url, "settings", "show", "--token-file", str(file), **production),
        await haulcast(url, "control", "pause", **production, HAULCAST_TOKEN=operator),
        await haulcast(url, "control", "pause", HAULCAST_TOKEN=customer),
        await haulcast(url, "control", "pause", "--tenant", "rival", HAULCAST_TOKEN=operator),
        await haulcast(url, "control", "drain-node", "1", HAULCAST_TOKEN=operator),
    ]
    assert [one.code for one in ran] == [2, 0, 0, 1, 2, 1]
    assert "HAULCAST_TOKEN" in ran[0].err
    assert "FORBIDDEN" in ran[3].err
    assert "FORBIDDEN" in ran[5].err
    for one in ran:
        assert not any(token in one.out + one.err for token in (operator, customer))
    usage = await haulcast(url, "control", "pause", "--token", operator)
    assert usage.code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("settings", "set", "wave_interval_s", "--tenant", "acme"), "NAME=VALUE"),
        (("settings", "set", "wave=1", "--tenant", "acme"), "there is no setting wave"),
        (("settings", "set", "toggle_limit=1", "toggle_limit=2", "--tenant", "acme"), "given twice"),
        (("settings", "show"), "give --tenant"),
        (("control", "announce", "--to", "operator", "x", "--tenant", "acme"), "invalid choice"),
        (("control", "announce", "--to", "driver", "--lifetime", "1w", "x", "--tenant", "acme"), "15m, 1h, 2d"),
        (("control", "drain-node", "first", "--tenant", "acme"), "no number"),
        (("control", "log", "--limit", "0", "--tenant", "acme"), "1 to 100"),
        (("control", "pause", "--id", "x" * 65, "--tenant", "acme"), "1 to 64"),
        (("control", "pause", "--url", "localhost", "--tenant", "acme"), "http://host:port"),
    ],
)
async def test_arguments_that_must_change_are_told_how(server: Server, arguments: tuple[str, ...], said: str) -> None:
    ran = await haulcast(server.url.split(",")[0], *arguments)
    assert ran.code == 2, ran
    assert said in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("settings", "set", "wave_interval_s=0"), "settings.wave_interval_s: expected 0.1 to 3600"),
        (("control", "switch-mode", "magic"), "mode: expected one of progressive, blast, best_match"),
        (("control", "announce", "--to", "driver", "--lifetime", "1s", "x"), "lifetime_s: expected"),
    ],
)
async def test_what_the_server_refuses_is_told_in_its_words(
    network: Network, server: Server, arguments: tuple[str, ...], said: str
) -> None:
    ran = await haulcast(server.url.split(",")[0], *arguments, "--tenant", network.tenant)
    assert ran.code == 1, ran
    assert said in ran.err
    show = (await haulcast(server.url.split(",")[0], "settings", "show", "--json", "--tenant", network.tenant)).data
    assert show["version"] == 1


async def test_nobody_is_there(unused_tcp_port: int) -> None:
    ran = await haulcast(f"http://127.0.0.1:{unused_tcp_port}", "control", "pause", "--tenant", "acme")
    assert ran.code == 1
    assert f"nobody answers at http://127.0.0.1:{unused_tcp_port}" in ran.err
