"""The connection is lost, in every way that it can be: the page says so, does what it can, and is right again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.acceptance.deployment import Cluster
from tests.acceptance.network import Network, haul, sign
from tests.acceptance.phone import eventually, eventually_answered
from tests.browser.console import WITHIN_S, Console, columns_of, views_of
from tests.browser.front import Front, Upgrades
from tests.browser.stage import Stage, broadcast_view, stage, token
from tests.browser.watch import NETWORK_FAILED, Watch

TRIES_S = 45.0
"""The longest wait between two tries of the page, and some more."""


@pytest_asyncio.fixture(loop_scope="session")
async def front(network: Network, watch: Watch) -> AsyncIterator[Front]:
    """What stands between the page and the server."""
    watch.expect(NETWORK_FAILED)
    async with Front(int(network.url.rpartition(":")[2])) as front:
        yield front


@pytest_asyncio.fixture(loop_scope="session")
async def console(front: Front, network: Network, page: Page) -> Console:
    """The console of the network, behind the front."""
    console = Console(page, front.url)
    await console.open(sign(network.tenant, "operator", "op"))
    await console.mark()
    return console


async def create(network: Network, customer: str) -> str:
    """A new broadcast, past the front."""
    phone = await network.phone("customer", customer)
    broadcast_id: str = (await phone.do("broadcast.create", haul()))["broadcast_id"]
    return broadcast_id


async def shows_the_truth(console: Console, network: Network) -> None:
    """Wait until the page shows the board that the server has, which may come to it a little later."""

    async def shown() -> bool:
        _, answer = await network.rest("GET", f"/v1/topics/board:{network.tenant}", "operator", "op")
        return await console.columns() == columns_of(views_of(answer))

    await eventually_answered(shown, "the page shows what the server has", WITHIN_S)


@pytest.mark.timeout(120)
async def test_the_node_of_an_open_page_is_killed(cluster: Cluster, page: Page, watch: Watch) -> None:
    """The page comes back on another node, without a reload, and shows what is so."""
    watch.expect(NETWORK_FAILED)
    victim, *others = cluster.nodes
    urls = ",".join(node.url for node in others)
    async with Front(*(node.port for node in cluster.nodes)) as front, Network(urls, "acme") as network:
        console = Console(page, front.url)
        await console.open(sign("acme", "operator", "op"))
        await console.mark()
        before = [await create(network, f"c{number}") for number in range(3)]
        for broadcast_id in before:
            await expect(console.card_in("searching", broadcast_id)).to_be_visible()
        await asyncio.to_thread(victim.kill)
        await network.phones[0].do("broadcast.cancel", {"broadcast_id": before[0]})
        after = await create(network, "c9")
        await expect(console.card_in("searching", after)).to_be_visible()
        await expect(console.card_in("ended", before[0])).to_be_visible()
        await console.connected("live")
        await shows_the_truth(console, network)
        await console.not_reloaded()


async def test_a_cut_is_hardly_noticed(front: Front, network: Network, console: Console) -> None:
    """The page goes on from the version that it holds."""
    first = await create(network, "c1")
    await expect(console.card_in("searching", first)).to_be_visible()
    await front.cut()
    second = await create(network, "c2")
    front.mend()
    await expect(console.card_in("searching", second)).to_be_visible()
    await console.connected("live")
    await shows_the_truth(console, network)
    await console.not_reloaded()


@pytest.mark.timeout(120)
async def test_where_no_socket_passes_the_page_polls(front: Front, network: Network, console: Console) -> None:
    """And goes back to sockets when they pass again."""
    await front.block(Upgrades.REFUSE)
    await console.connected("polling")
    first = await create(network, "c1")
    await expect(console.card_in("searching", first)).to_be_visible()
    await network.phones[0].do("broadcast.cancel", {"broadcast_id": first})
    await expect(console.card_in("ended", first)).to_be_visible()
    await console.connected("polling")
    front.unblock()
    await console.connected("live", within_s=TRIES_S)
    second = await create(network, "c2")
    await expect(console.card_in("searching", second)).to_be_visible()
    await shows_the_truth(console, network)
    await console.not_reloaded()


async def test_a_page_that_opens_where_no_socket_passes_polls(front: Front, network: Network, page: Page) -> None:
    await front.block(Upgrades.REFUSE)
    first = await create(network, "c1")
    console = Console(page, front.url)
    await console.open(sign(network.tenant, "operator", "op"), connection="polling")
    await expect(console.card_in("searching", first)).to_be_visible()


@pytest.mark.timeout(120)
async def test_when_nobody_is_reachable_the_page_says_since_when(
    front: Front, network: Network, console: Console, page: Page
) -> None:
    """It goes on showing what it knew, and is right again soon after the network is."""
    first = await create(network, "c1")
    await expect(console.card_in("searching", first)).to_be_visible()
    await front.stop()
    await console.connected("stale")
    await expect(page.get_by_text("stale since")).to_be_visible()
    await expect(console.card_in("searching", first)).to_be_visible()
    second = await create(network, "c2")
    await front.start()
    await console.connected("live", within_s=TRIES_S)
    await expect(console.card_in("searching", second)).to_be_visible()
    await expect(page.get_by_text("stale since")).to_be_hidden()
    await shows_the_truth(console, network)
    await console.not_reloaded()


async def test_a_socket_on_which_nothing_comes_any_more_is_given_up(front: Front, network: Network, page: Page) -> None:
    """Neither side hears of its end, as in a tunnel: the page asks, and does not wait for ever. Its time is the
    test's."""
    await page.clock.install()
    console = Console(page, front.url)
    await console.open(sign(network.tenant, "operator", "op"))
    front.stall()
    await page.clock.run_for(60_000)
    await console.connected("connecting", "stale")
    front.mend()
    first = await create(network, "c1")
    await page.clock.resume()
    await console.connected("live")
    await expect(console.card_in("searching", first)).to_be_visible()
    await shows_the_truth(console, network)


# --- Close codes ---


@pytest_asyncio.fixture(loop_scope="session")
async def played() -> AsyncIterator[Stage]:
    """A server that says what the test wants, with a broadcast on its board."""
    async with stage() as played:
        played.put([broadcast_view("b1")])
        yield played


@pytest.mark.parametrize("code", [1001, 1011, 4100, 4200, 4201, 4202, 4299])
async def test_after_most_close_codes_the_page_comes_back_with_what_it_holds(
    code: int, played: Stage, page: Page
) -> None:
    """A server that has all that followed need not show the board again."""
    console = Console(page, played.url)
    await console.open(token())
    await console.mark()
    await played.drop_sockets(code)
    await eventually(lambda: played.greeted == 2, "the page has come back", WITHIN_S)
    await console.connected("live")
    await played.change({"/b1/status": "fully_filled"})
    await expect(console.card_in("fully_filled", "b1")).to_be_visible()
    assert played.subscribed == 1
    await console.not_reloaded()


@pytest.mark.parametrize("code", [4004, 4005, 4009, 4099])
async def test_where_sockets_are_not_wanted_the_page_polls_until_the_operator_insists(
    code: int, played: Stage, page: Page
) -> None:
    """Coming back by itself would drive somebody else away, and be driven away again."""
    console = Console(page, played.url)
    await console.open(token())
    await played.drop_sockets(code)
    await console.connected("polling")
    played.delta({"/b1/status": "fully_filled"})
    await expect(console.card_in("fully_filled", "b1")).to_be_visible()
    assert played.greeted == 1
    await page.locator("#insist").click()
    await console.connected("live")
    assert played.greeted == 2


@pytest.mark.parametrize("code", [4001, 4003])
async def test_a_token_that_is_not_taken_any_more_leads_to_the_sign_in(code: int, played: Stage, page: Page) -> None:
    console = Console(page, played.url)
    await console.open(token())
    await played.drop_sockets(code)
    await expect(page.get_by_role("alert")).to_be_visible()
    await expect(console.card("b1")).to_be_hidden()
    await page.reload()
    await expect(page.locator("[data-connection]")).to_be_hidden()
    assert played.greeted == 1
