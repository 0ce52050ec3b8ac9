"""Commands from the control panel to real servers, and what becomes of them on all nodes."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.request import urlopen

import aiohttp
import pytest
from playwright.async_api import Page, Route, expect

from tests.acceptance.deployment import Cluster
from tests.acceptance.network import Network, haul, sign
from tests.acceptance.phone import Json
from tests.acceptance.server import Server
from tests.browser.conftest import OpenPage
from tests.browser.console import Console
from tests.browser.panel import Panel
from tests.browser.test_console_control import REFUSED
from tests.browser.watch import NETWORK_FAILED, Watch


async def panel_at(url: str, page: Page, tenant: str, role: str = "operator") -> Panel:
    """The panel of somebody who is connected to that node."""
    await Console(page, url).open(sign(tenant, role, "boss"))
    return Panel(page)


async def number_of(node: Server) -> int:
    """Under which the others know it."""

    def ask() -> int:
        with urlopen(f"{node.url}/health/detailed", timeout=10.0) as response:
            number: int = json.load(response)["incarnation"]
            return number

    return await asyncio.to_thread(ask)


async def audit_of(network: Network) -> list[Json]:
    """All commands, newest first."""
    _, answer = await network.rest("GET", "/v1/control", "operator", "op")
    entries: list[Json] = answer["entries"]
    return entries


# --- One node ---


async def test_while_it_is_paused_nothing_is_created_and_then_it_goes_on(network: Network, page: Page) -> None:
    customer = await network.phone("customer", "c1")
    panel = await panel_at(network.url, page, network.tenant)
    await panel.says("Running")
    await panel.press_pause()
    await panel.says("Paused")
    assert (await customer.refused("broadcast.create", haul()))["code"] == "TENANT_PAUSED"
    await panel.pause.click()
    await panel.says("Running")
    await customer.do("broadcast.create", haul())
    await panel.mode.select_option("blast")
    await panel.switch.click()
    await expect(panel.facts).to_contain_text("blast · version 4")
    await panel.reload.click()
    await expect(panel.facts).to_contain_text("blast · version 5")
    assert [entry["command"] for entry in await audit_of(network)] == [
        "reload_settings",
        "switch_mode",
        "resume",
        "pause",
    ]


async def test_a_real_command_whose_answer_is_lost_happens_once(network: Network, page: Page, watch: Watch) -> None:
    """It is sent again under the same key, and answered as it was."""
    watch.expect(NETWORK_FAILED)
    panel = await panel_at(network.url, page, network.tenant)
    keys: list[str] = []

    async def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()
            await route.abort("connectionreset")
        else:  # not before it has been said, or it may never be
            await expect(panel.note).to_contain_text("The same command is sent again")
            await route.continue_()

    await page.route("**/v1/control/pause", lose)
    await panel.watch_states()
    await panel.press_pause()
    await panel.says("Paused")
    await expect(panel.pause).to_be_enabled()
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert [entry["command"] for entry in await audit_of(network)] == ["pause"]
    await expect(panel.facts).to_contain_text("version 2")


async def test_what_is_announced_reaches_the_phones_of_that_role(network: Network, page: Page) -> None:
    """Those that are connected, and who comes later; and nobody else."""
    async with socket_of(network, "driver") as driver, socket_of(network, "customer") as customer:
        panel = await panel_at(network.url, page, network.tenant)
        await panel.open("Announcements")
        await panel.announce("Fog on the A4", audience="driver")
        await expect(panel.announcements).to_contain_text("Fog on the A4")
        assert (await announced_to(driver))["text"] == "Fog on the A4"
        async with socket_of(network, "driver", "later") as later:
            assert (await announced_to(later))["text"] == "Fog on the A4"
        await panel.announce("Prices are up", audience="customer")
        assert (await announced_to(customer))["text"] == "Prices are up"


@asynccontextmanager
async def socket_of(network: Network, role: str, user: str = "u1") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A bare WebSocket that has said hello."""
    async with network.session.ws_connect(f"{network.url}/v1/ws", protocols=("haulcast.v1.json",)) as socket:
        token = sign(network.tenant, role, user)
        await socket.send_json({"id": "h", "type": "hello", "data": {"token": token}})
        yield socket


async def announced_to(socket: aiohttp.ClientWebSocketResponse) -> Json:
    """The next announcement that it is sent."""
    async with asyncio.timeout(10):
        while True:
            frame = await socket.receive_json()
            if frame.get("type") == "announcement":
                data: Json = frame["data"]
                return data


async def test_the_last_node_is_not_drained(network: Network, page: Page, watch: Watch) -> None:
    watch.expect(REFUSED)
    panel = await panel_at(network.url, page, network.tenant, "admin")
    await page.get_by_role("button", name=re.compile("^Drain node")).click()
    await panel.confirm("Drain node")
    await expect(panel.drained).to_contain_text("is the last one")


# --- Three nodes ---


@pytest.mark.timeout(180)
async def test_a_node_that_stands_still_is_waited_for_until_it_is_gone(
    cluster: Cluster, page: Page, open_page: OpenPage
) -> None:
    """Two of three have followed; then the third is given up, and dispatch is paused. Whoever looks on at another node
    sees the same. The third joins anew, and follows."""
    still = cluster.nodes[2]
    async with Network(cluster.url, "acme") as network:
        customer = await network.phone("customer", "c1")
        panel = await panel_at(cluster.nodes[0].url, page, "acme")
        other = await panel_at(cluster.nodes[1].url, await open_page(), "acme")
        for each in (panel, other):
            await each.says("Running")
            await each.watch_states()
        await panel.reload.click()
        await expect(other.facts).to_contain_text("version 2")
        for each in (panel, other):
            await each.says("Running")
        number = await number_of(still)
        still.suspend()
        try:
            await panel.press_pause()
            for each in (panel, other):
                await each.says("Pausing … 2 of 3 nodes")
            for each in (panel, other):
                await each.says("Paused")
                await expect(each.note).to_have_text(f"Node {number} is gone: the others go on without.")
                states = await each.states()
                assert states.index("Paused") > states.index("Pausing … 2 of 3 nodes"), states
            assert (await customer.refused("broadcast.create", haul()))["code"] == "TENANT_PAUSED"
            await panel.open("Audit")
            await expect(panel.entries("audit").first).to_contain_text(f"node {number}: gone before it could")
        finally:
            still.resume()
        await panel.pause.click()
        for each in (panel, other):
            await each.says("Running")
        await customer.do("broadcast.create", haul())
    cluster.check_log("node_was_given_up", "commit_failed")


@pytest.mark.timeout(180)
async def test_an_admin_drains_a_node(cluster: Cluster, page: Page, watch: Watch) -> None:
    """It says that it has begun, hands over and ends; its row says that it is gone."""
    watch.expect(NETWORK_FAILED)
    leaving = cluster.nodes[2]
    number = await number_of(leaving)
    panel = await panel_at(cluster.nodes[0].url, page, "acme", "admin")
    await expect(page.get_by_role("button", name=re.compile("^Drain node"))).to_have_count(3)
    await page.get_by_role("button", name=f"Drain node {number}").click()
    await panel.confirm(f"Drain node {number}")
    await expect(panel.drained).to_have_text(f"Node {number} has begun to drain.")
    await asyncio.to_thread(leaving.ended)
    await expect(page.locator(f"[data-node='{number}']")).to_contain_text("gone since")
    await panel.says("Running")
    await panel.press_pause()
    await panel.says("Paused")
    await panel.open("Audit")
    await expect(panel.entries("audit").first).to_contain_text("boss (admin) paused dispatch")
    await expect(panel.entries("audit").nth(1)).to_contain_text("boss (admin) drained a node")
