"""The console as a test uses it: where things are on the page, and what it has to show."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from playwright.async_api import Locator, Page, expect

from tests.acceptance.phone import Json, eventually_answered

WITHIN_S = 20.0
"""How long a test waits for what the page has to show. Long, as it says nothing about speed."""
COLUMNS = ("searching", "partially_filled", "fully_filled", "ended")

_READ_COLUMNS = """() => Object.fromEntries([...document.querySelectorAll('[data-state]')].map(column =>
    [column.dataset.state, [...column.querySelectorAll('[data-broadcast]')].map(card => card.dataset.broadcast)]))"""

expect.set_options(timeout=WITHIN_S * 1000)


class Console:
    """The console in one page, at the server of this address."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = f"{url}/console/"

    async def open(self, token: str | None = None, connection: str = "live") -> None:
        """Open it; with a token, as a link does that signs in, and until it is connected in that way."""
        await self.page.goto(self.url if token is None else f"{self.url}#token={token}")
        if token is not None:
            await self.connected(connection)

    async def connected(self, *states: str, within_s: float = WITHIN_S) -> None:
        """Wait until it says that it is connected in one of these ways."""
        await expect(self.page.locator("[data-connection]")).to_have_attribute(
            "data-connection", re.compile(f"^({'|'.join(states)})$"), timeout=within_s * 1000
        )

    def card(self, broadcast_id: str) -> Locator:
        """The card of a broadcast, wherever it is."""
        return self.page.locator(f"[data-state] [data-broadcast='{broadcast_id}']")

    def card_in(self, state: str, broadcast_id: str) -> Locator:
        """The card of a broadcast, if it is in this column."""
        return self.page.locator(f"[data-state='{state}'] [data-broadcast='{broadcast_id}']")

    @property
    def details(self) -> Locator:
        """What is shown beside the board of one broadcast."""
        return self.page.locator("#details")

    async def shows_details_of(self, broadcast_id: str) -> None:
        """Wait until the details are those of this broadcast."""
        await expect(self.details).to_have_attribute("data-broadcast", broadcast_id)
        await expect(self.details).to_be_visible()

    async def shows_no_details(self) -> None:
        """Wait until no broadcast is selected."""
        await expect(self.details).not_to_have_attribute("data-broadcast", re.compile(""))

    async def columns(self) -> dict[str, set[str]]:
        """Which broadcasts are in which column."""
        read: Mapping[str, list[str]] = await self.page.evaluate(_READ_COLUMNS)
        assert sum(map(len, read.values())) == len(set().union(*read.values())), f"a broadcast is shown twice: {read}"
        return {state: set(ids) for state, ids in read.items()}

    async def shows(self, views: Iterable[Json]) -> None:
        """Wait until the board is exactly that of these broadcasts."""
        wanted = columns_of(views)

        async def shown() -> bool:
            return await self.columns() == wanted

        await eventually_answered(shown, f"the page shows {wanted}", WITHIN_S)

    async def counts(self, state: str, number: int) -> None:
        """Wait until a column says that it has so many broadcasts, which may be more than it shows."""
        await expect(self.page.locator(f"[data-state='{state}'] .column-count")).to_have_text(str(number))

    async def renders(self) -> int:
        """How often the page has been drawn."""
        return int(await self.page.evaluate("document.documentElement.dataset.renders"))

    async def mark(self) -> None:
        """Make the page one that would be noticed to have been loaded again."""
        await self.page.evaluate("window.marked = true")

    async def not_reloaded(self) -> None:
        """It is still the page that was marked."""
        assert await self.page.evaluate("window.marked === true"), "the page was loaded again"


def columns_of(views: Iterable[Json]) -> dict[str, set[str]]:
    """In which column each of these broadcasts belongs."""
    columns: dict[str, set[str]] = {state: set() for state in COLUMNS}
    for view in views:
        state = "ended" if view["status"] in ("cancelled", "expired") else view["status"]
        columns[state].add(view["broadcast_id"])
    return columns


def views_of(answer: Json) -> list[Any]:
    """The broadcasts in an answer about a board."""
    return list(answer["data"]["broadcasts"].values())
