"""Whatever comes over the socket, the page shows what the server has."""

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import orjson
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.acceptance.network import Network, haul, sign
from tests.acceptance.phone import eventually
from tests.browser.console import Console, views_of
from tests.browser.stage import TOPIC, Stage, broadcast_view, stage, token


@pytest_asyncio.fixture(loop_scope="session")
async def played() -> AsyncIterator[Stage]:
    """A server that says what the test wants, with three broadcasts on its board."""
    async with stage() as played:
        played.put(broadcast_view(f"b{number}") for number in (1, 2, 3))
        yield played


@pytest_asyncio.fixture(loop_scope="session")
async def console(played: Stage, page: Page) -> Console:
    """A console that shows this board."""
    console = Console(page, played.url)
    await console.open(token())
    await shows_the_truth(console, played)
    await console.mark()
    return console


async def shows_the_truth(console: Console, played: Stage) -> None:
    """Wait until the page shows the board of the server."""
    await console.connected("live")
    await console.shows(played.board["broadcasts"].values())


async def test_after_a_gap_a_snapshot_is_asked_for(played: Stage, console: Console) -> None:
    played.delta({"/b1/status": "expired"})  # which nobody is told
    await played.change({"/b2/status": "cancelled"})
    await shows_the_truth(console, played)
    assert played.subscribed == 2
    await played.change({"/b3/status": "fully_filled"})
    await shows_the_truth(console, played)
    assert played.subscribed == 2, "from the snapshot on, deltas fit"
    await console.not_reloaded()


async def test_what_is_not_newer_is_passed_over(played: Stage, console: Console) -> None:
    """A delta that comes twice changes nothing, and is no reason to ask again."""
    delta = played.delta({"/b1/status": "partially_filled"})
    await played.say(delta)
    await played.change({"/b1/status": "fully_filled"})
    await played.say(delta)
    await played.change({"/b2/status": "expired"})
    await shows_the_truth(console, played)
    assert played.subscribed == 1


async def test_versions_may_leap(played: Stage, console: Console) -> None:
    """To another epoch, say, when another node takes over: only `from` counts."""
    held = played.version
    played.version = (7, 0)
    delta = played.delta({"/b1/status": "fully_filled"})
    await played.say({**delta, "from": held})
    await shows_the_truth(console, played)
    assert played.subscribed == 1


def of_the_board(kind: str, **fields: Any) -> str:
    """A frame about the board that carries on from what the stage begins with."""
    frame = {"type": kind, "topic": TOPIC, "from": [1, 1], "version": [1, 2], "server_time": 1_790_000_000_000}
    return orjson.dumps({**frame, **fields}).decode()


MALFORMED = {
    "no JSON": '{"type":',
    "no object": "[1, 2]",
    "null": "null",
    "a kind that is no text": '{"type": 7}',
    "a delta without data": of_the_board("delta"),
    "a version that is none": of_the_board("delta", version="1.2", data={"set": {}}),
    "a time that is none": of_the_board("delta", server_time="now", data={"set": {}}),
    "a pointer that is none": of_the_board("delta", data={"set": {"broadcasts": {}}}),
    "a way that does not exist": of_the_board("delta", data={"set": {"/broadcasts/b9/status": "expired"}}),
    "a status that is none": of_the_board("delta", data={"set": {"/broadcasts/b1/status": "lost"}}),
    "a place that is none": of_the_board("delta", data={"set": {"/broadcasts/b1/pickup": {"lat": 100, "lng": 1}}}),
    "a field that is gone": of_the_board("delta", data={"del": ["/broadcasts/b1/expires_at"]}),
    "a count below zero": of_the_board("delta", data={"set": {"/broadcasts/b1/notified": -1}}),
    "half good": of_the_board(
        "delta", data={"set": {"/broadcasts/b1/status": "expired", "/broadcasts/b2/status": "lost"}}
    ),
    "a prototype": of_the_board("delta", data={"set": {"/broadcasts/__proto__/polluted": True}}),
    "a prototype within": of_the_board("delta", data={"set": {"/broadcasts/b1/__proto__/polluted": True}}),
    "a snapshot without a board": of_the_board("snapshot", data={}),
    "a snapshot with a broadcast that is none": of_the_board("snapshot", data={"broadcasts": {"b1": {}}}),
    "a snapshot of null": of_the_board("snapshot", data=None),
    "a reply without an answer": '{"re": "subscribe-1"}',
}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_malformed_is_dropped_whole_and_the_board_asked_for(
    frame: str, played: Stage, console: Console
) -> None:
    await played.say(frame)
    await eventually(lambda: played.subscribed == 2, "the board is asked for again")
    await shows_the_truth(console, played)
    assert await console.page.evaluate("({}).polluted === undefined")
    await played.change({"/b1/status": "fully_filled"})
    await shows_the_truth(console, played)
    await console.not_reloaded()


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "event", "event": "new"}',
        '{"type": "hint", "topic": 7}',
        of_the_board("delta", topic="board:other", data={"set": {"/broadcasts/b1/status": "expired"}}),
        '{"re": "nobody-asked", "ok": true, "data": {}}',
        '{"re": null, "ok": false, "error": {"code": "BAD_JSON", "message": "", "retry": false, "data": {}}}',
    ],
)
async def test_what_is_not_known_is_passed_over(frame: str, played: Stage, console: Console) -> None:
    """Later servers may say more."""
    await played.say(frame)
    await played.change({"/b1/status": "fully_filled"})
    await shows_the_truth(console, played)
    assert played.subscribed == 1


async def test_a_server_that_goes_on_with_nonsense_is_asked_ever_more_rarely(played: Stage, console: Console) -> None:
    """At once the first time, then after half a second, then after one."""
    played.after_snapshot = "nonsense"
    began_s = perf_counter()
    await played.say("nonsense")
    await eventually(lambda: played.subscribed == 4, "the board is asked for three times more")
    assert perf_counter() - began_s > 1.4
    played.after_snapshot = ""
    await played.change({"/b1/status": "fully_filled"})
    await shows_the_truth(console, played)


async def test_what_users_write_is_shown_as_they_wrote_it(played: Stage, console: Console) -> None:
    """It is text, whatever it looks like."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    place = {"lat": 12.9, "lng": 77.5, "address": evil}
    await played.change({"/b1/note": evil, "/b1/pickup": place, "/b1/customer_id": evil})
    await expect(console.card("b1")).to_contain_text("<img src=x")
    await console.card("b1").click()
    await console.shows_details_of("b1")
    await expect(console.details).to_contain_text(evil)
    assert await console.page.locator("img[src=x]").count() == 0


async def test_two_tabs_show_the_same(network: Network, page: Page) -> None:
    """Each has a socket of its own, and one that closes takes nothing from the other."""
    tabs = [Console(page, network.url), Console(await page.context.new_page(), network.url)]
    for tab in tabs:
        await tab.open(sign(network.tenant, "operator", "op"))
    customer = await network.phone("customer", "c1")
    first = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    for tab in tabs:
        await expect(tab.card_in("searching", first)).to_be_visible()
    await page.close()
    await customer.do("broadcast.cancel", {"broadcast_id": first})
    await expect(tabs[1].card_in("ended", first)).to_be_visible()
    _, answer = await network.rest("GET", f"/v1/topics/board:{network.tenant}", "operator", "op")
    await tabs[1].shows(views_of(answer))
