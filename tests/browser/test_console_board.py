"""What an operator sees: the board as it is, every change as it comes, and one broadcast in detail."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Page, expect

from tests.acceptance.network import Network, accept_of, haul, offered, sign
from tests.browser.console import Console, views_of
from tests.browser.stage import Stage, broadcast_view, stage, token


@pytest_asyncio.fixture(loop_scope="session")
async def played() -> AsyncIterator[Stage]:
    """A server that says what the test wants."""
    async with stage() as played:
        yield played


@pytest_asyncio.fixture(loop_scope="session")
async def console(network: Network, page: Page) -> Console:
    """The console of the network, signed in."""
    console = Console(page, network.url)
    await console.open(sign(network.tenant, "operator", "op"))
    await console.mark()
    return console


async def test_until_the_board_is_there_a_skeleton_stands_in_its_place(played: Stage, page: Page) -> None:
    """Nothing says that the board is empty before that is known."""
    played.put([broadcast_view("b1"), broadcast_view("b2", status="partially_filled")])
    played.curtain.clear()
    console = Console(page, played.url)
    await page.goto(f"{console.url}#token={token()}")
    await expect(page.locator("[data-skeleton]").first).to_be_visible()
    await console.connected("connecting")
    assert await page.locator("[data-broadcast]:visible").count() == 0
    played.curtain.set()
    await console.connected("live")
    await console.shows(played.board["broadcasts"].values())
    await expect(page.locator("[data-skeleton]")).to_have_count(0)


async def test_an_empty_board_says_so(console: Console, page: Page) -> None:
    await console.shows([])
    await expect(page.locator("[data-skeleton]")).to_have_count(0)
    await expect(page.locator("[data-state='searching']")).to_contain_text("Nothing is being looked for")


async def test_a_broadcast_moves_over_the_board_as_it_happens(network: Network, console: Console) -> None:
    """From its creation over real sockets to its last truck, without a reload."""
    first, second = await network.transporter("t1"), await network.transporter("t2", km=2.0)
    customer = await network.phone("customer", "c1")
    created = await customer.do("broadcast.create", haul({"truck_14ft": 2}))
    broadcast_id = created["broadcast_id"]
    card = console.card_in("searching", broadcast_id)
    await expect(card).to_be_visible()
    await expect(card).to_contain_text("MG Road")
    await offered(broadcast_id, first, second)
    await expect(card).to_contain_text("wave 1")
    await expect(card).to_contain_text("2 told")

    await first.do("offer.accept", accept_of("t1", broadcast_id))
    card = console.card_in("partially_filled", broadcast_id)
    await expect(card).to_be_visible()
    await expect(card).to_contain_text("t1")

    await second.do("offer.accept", accept_of("t2", broadcast_id))
    card = console.card_in("fully_filled", broadcast_id)
    await expect(card).to_be_visible()
    await expect(card).to_contain_text("t2")
    assert await console.columns() == {
        "searching": set(),
        "partially_filled": set(),
        "fully_filled": {broadcast_id},
        "ended": set(),
    }
    await console.not_reloaded()


async def test_what_is_cancelled_or_expires_is_among_the_ended(network: Network, page: Page) -> None:
    """The one by its customer, the other because its time ran out."""
    await network.create_tenant(min_expiry_s=1)
    console = Console(page, network.url)
    await console.open(sign(network.tenant, "operator", "op"))
    await console.mark()
    cancelling, waiting = await network.phone("customer", "c1"), await network.phone("customer", "c2")
    cancelled = (await cancelling.do("broadcast.create", haul()))["broadcast_id"]
    expiring = (await waiting.do("broadcast.create", haul(expires_in_s=2)))["broadcast_id"]
    await expect(console.card_in("searching", cancelled)).to_be_visible()
    await expect(console.card_in("searching", expiring)).to_be_visible()
    await cancelling.do("broadcast.cancel", {"broadcast_id": cancelled})
    await expect(console.card_in("ended", cancelled)).to_be_visible()
    await expect(console.card_in("ended", expiring)).to_be_visible()
    status, answer = await network.rest("GET", f"/v1/topics/board:{network.tenant}", "operator", "op")
    assert status == 200
    await console.shows(views_of(answer))
    await console.not_reloaded()


async def test_the_details_tell_the_whole_story_of_a_broadcast(network: Network, console: Console) -> None:
    """Who was told when, who won, and what became of the trip; also what happens while they are open."""
    transporter = await network.transporter("t1")
    customer = await network.phone("customer", "c1")
    created = await customer.do("broadcast.create", haul({"truck_14ft": 2}, note="Glass, handle with care"))
    broadcast_id = created["broadcast_id"]
    await offered(broadcast_id, transporter)
    await console.card(broadcast_id).click()
    await console.shows_details_of(broadcast_id)
    for told in ("c1", "MG Road", "Glass, handle with care"):
        await expect(console.details).to_contain_text(told)
    timeline = console.details.locator("[data-event]")
    await expect(timeline.and_(console.page.locator("[data-event='created']"))).to_have_count(1)
    await expect(timeline.and_(console.page.locator("[data-event='wave_sent']"))).to_have_count(1)

    won = await transporter.do("offer.accept", accept_of("t1", broadcast_id))
    await expect(console.details.locator("[data-event='truck_assigned']")).to_be_visible()
    await expect(console.details).to_contain_text("t1-v")
    await transporter.do("trip.update", {"trip_id": won["trip_id"], "status": "en_route"})
    await expect(console.details.locator("[data-event='trip_updated']")).to_be_visible()
    await customer.do("broadcast.cancel", {"broadcast_id": broadcast_id})
    await expect(console.details.locator("[data-event='cancelled']")).to_be_visible()
    await console.not_reloaded()


async def test_details_close_again(played: Stage, page: Page) -> None:
    played.put([broadcast_view("b1")])
    console = Console(page, played.url)
    await console.open(token())
    await console.card("b1").click()
    await console.shows_details_of("b1")
    await page.keyboard.press("Escape")
    await console.shows_no_details()


async def test_the_keyboard_is_enough(played: Stage, page: Page) -> None:
    """Sign in, reach a card, open it, come back to it, go to the next, all without a mouse."""
    played.put([broadcast_view("b1", expires_at=2**42), broadcast_view("b2", expires_at=2**42 + 1)])
    console = Console(page, played.url)
    await console.open()
    await page.keyboard.type(token())
    await page.keyboard.press("Enter")
    await console.connected("live")
    await console.shows(played.board["broadcasts"].values())
    for _ in range(30):
        await page.keyboard.press("Tab")
        if await focused(page) == "b1":
            break
    assert await focused(page) == "b1"
    await page.keyboard.press("ArrowDown")
    assert await focused(page) == "b2"
    await page.keyboard.press("Enter")
    await console.shows_details_of("b2")
    await page.keyboard.press("Escape")
    await console.shows_no_details()
    assert await focused(page) == "b2"


async def test_the_focus_stays_on_a_card_that_moves(played: Stage, page: Page) -> None:
    """Whoever works by keyboard is not thrown to the top of the page when somebody accepts."""
    played.put([broadcast_view("b1"), broadcast_view("b2")])
    console = Console(page, played.url)
    await console.open(token())
    await console.card("b1").focus()
    await played.change({"/b1/status": "partially_filled"})
    await expect(console.card_in("partially_filled", "b1")).to_be_visible()
    assert await focused(page) == "b1"


async def focused(page: Page) -> str | None:
    """The broadcast whose card has the focus."""
    found: str | None = await page.evaluate("document.activeElement.dataset.broadcast ?? null")
    return found
