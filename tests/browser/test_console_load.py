"""A busy city: the page stays calm, and answers at once."""

import asyncio
import os
from dataclasses import dataclass
from itertools import count
from random import Random
from statistics import median
from time import perf_counter

import pytest
from playwright.async_api import Page

from tests.acceptance.phone import eventually_answered
from tests.browser.console import Console, columns_of
from tests.browser.stage import Stage, broadcast_view, stage, token

BROADCASTS = 500
DELTAS_PER_S = 200
LASTS_S = 6.0
CLICKS = 16
ROUNDS = 3
RENDERS_PER_S = 5
MEDIAN_MS = 100.0
WORST_MS = 1_000.0
"""Generous."""

# The page's own account of its drawing (`data-renders`), and one that does not believe it: every turn of the event loop
# in which the document was changed, but for the mark on the card that is clicked, which comes at once. A click lasts
# from when the browser got it, before the page knew, to the turn after the picture with the details was made.
_OBSERVE = """() => {
    const observed = 'seen' in window;
    window.seen = {counted: [], changed: [], clicks: []};
    if (observed) return;
    new MutationObserver(() => window.seen.counted.push(performance.now()))
        .observe(document.documentElement, {attributes: true, attributeFilter: ['data-renders']});
    new MutationObserver(records => records.some(record =>
            record.target !== document.documentElement && record.attributeName !== 'aria-current')
            && window.seen.changed.push(performance.now()))
        .observe(document.documentElement, {subtree: true, childList: true, characterData: true, attributes: true});
    const details = document.getElementById('details');
    let clicked = null;
    addEventListener('click', event => {
        const card = event.target.closest('[data-state] [data-broadcast]');
        clicked = card?.dataset.broadcast !== details.dataset.broadcast
            && card && {at: event.timeStamp, id: card.dataset.broadcast};
        window.waiting = Boolean(clicked);
    }, {capture: true});
    new MutationObserver(() => {
        if (!clicked || details.dataset.broadcast !== clicked.id) return;
        const {at} = clicked;
        clicked = null;
        const painted = new MessageChannel();
        painted.port1.onmessage = () => {
            window.seen.clicks.push(performance.now() - at);
            window.waiting = false;
        };
        painted.port2.postMessage(0);
    }).observe(document.body, {subtree: true, attributes: true, attributeFilter: ['data-broadcast']});
}"""

# The middle of a card that can be seen, of those that are not selected yet.
_SOME_CARD = """pick => {
    const cards = [...document.querySelectorAll('[data-state] [data-broadcast]')].filter(card => {
        const box = card.getBoundingClientRect();
        const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
        return card.dataset.broadcast !== document.getElementById('details').dataset.broadcast
            && card.contains(document.elementFromPoint(x, y));
    });
    const box = cards[Math.floor(pick * cards.length)].getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
}"""


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured in one go."""

    deltas_per_s: float
    renders_per_s: int
    """The most in any second, by the page's own account."""
    changes_per_s: int
    """The same, by what could be seen of it."""
    clicks: int
    click_ms_median: float
    click_ms_worst: float


@pytest.mark.timeout(120)
async def test_in_a_busy_city_the_page_is_drawn_five_times_a_second_and_a_click_is_answered_at_once(
    page: Page,
) -> None:
    """500 broadcasts of which 200 change every second, one delta for each change.

    Whatever else this machine does can only make clicks slower: the best round counts, and where several processes
    wait for each processor, as much more time is given."""
    rng = Random(1)
    rounds: list[Round] = []
    async with stage() as played:
        played.put(
            broadcast_view(
                f"b{number:03}", trucks=rng.randint(1, 3), status=rng.choice(("searching", "partially_filled"))
            )
            for number in range(BROADCASTS)
        )
        console = Console(page, played.url)
        await console.open(token())
        while not rounds or (rounds[-1].click_ms_median >= MEDIAN_MS and len(rounds) < ROUNDS):
            rounds.append(await play_a_round(played, page, rng))
            print(rounds[-1])
        for state, shown in columns_of(played.board["broadcasts"].values()).items():
            await console.counts(state, len(shown))
        assert played.subscribed == 1, "no delta was missed"

    crowded = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    for measured in rounds:
        assert measured.deltas_per_s >= DELTAS_PER_S * 0.9 / crowded
        assert measured.clicks >= CLICKS / 2, "few hit what was selected already, or nothing"
        assert measured.renders_per_s <= RENDERS_PER_S
        assert measured.changes_per_s <= RENDERS_PER_S
        assert measured.click_ms_worst < WORST_MS * crowded
    assert min(measured.click_ms_median for measured in rounds) < MEDIAN_MS * crowded


async def play_a_round(played: Stage, page: Page, rng: Random) -> Round:
    """Change the board and click around for some seconds."""
    await page.evaluate(_OBSERVE)
    async with asyncio.TaskGroup() as both:
        load = both.create_task(change_all_the_time(played, rng))
        await click_around(page, rng)
        sent, took_s = await load
    seen = await page.evaluate("seen")
    return Round(
        deltas_per_s=sent / took_s,
        renders_per_s=most_within_a_second(seen["counted"]),
        changes_per_s=most_within_a_second(seen["changed"]),
        clicks=len(seen["clicks"]),
        click_ms_median=median(seen["clicks"]),
        click_ms_worst=max(seen["clicks"]),
    )


async def change_all_the_time(played: Stage, rng: Random) -> tuple[int, float]:
    """Send deltas at the rate, evenly; how many, and in how many seconds."""
    ids = list(played.board["broadcasts"])
    began_s = perf_counter()
    for sent in count():
        now_s = perf_counter()
        if now_s - began_s >= LASTS_S:
            return sent, now_s - began_s
        broadcast_id = rng.choice(ids)
        view = played.board["broadcasts"][broadcast_id]
        change = {f"/{broadcast_id}/wave": view["wave"] + 1, f"/{broadcast_id}/notified": view["notified"] + 3}
        if rng.random() < 0.3:
            change[f"/{broadcast_id}/status"] = rng.choice(("searching", "partially_filled", "fully_filled"))
        await played.change(change)
        await asyncio.sleep(max(0.0, began_s + (sent + 1) / DELTAS_PER_S - perf_counter()))
    raise AssertionError


async def click_around(page: Page, rng: Random) -> None:
    """Click on cards as they come by, each as soon as the one before was answered and a moment has passed."""
    for _ in range(CLICKS):
        x, y = await page.evaluate(_SOME_CARD, rng.random())
        await page.mouse.click(x, y)
        await asyncio.sleep(LASTS_S / CLICKS)  # an interval of what is measured
        await eventually_answered(lambda: page.evaluate("!window.waiting"), "the click is answered")


def most_within_a_second(times_ms: list[float]) -> int:
    """The greatest number of these within any second."""
    return max(sum(1 for other in times_ms if 0 <= other - time < 1000) for time in times_ms)
