"""The console for everybody: what axe-core finds that keeps somebody out."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.conftest import OpenPage
from tests.browser.console import Console
from tests.browser.stage import LIFETIME_MS, Stage, broadcast_view, now_ms, stage, token

SCREENS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "has_touch": True},
    "dark phone": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}, "has_touch": True},
}
TOO_MUCH = ("serious", "critical")


@pytest_asyncio.fixture(loop_scope="session")
async def played() -> AsyncIterator[Stage]:
    """A server with some of everything on its board."""
    async with stage() as played:
        late = now_ms() - LIFETIME_MS + 20_000
        played.put(
            [
                broadcast_view("b1", wave=1, notified=3, note="Glass, handle with care"),
                broadcast_view("b2", trucks=3, created_at=late, expires_at=late + LIFETIME_MS, wave=2, notified=12),
                broadcast_view("b3", status="partially_filled", trips=trip("b3"), trucks=2),
                broadcast_view("b4", status="fully_filled", trips=trip("b4"), ended_at=now_ms(), end_reason="filled"),
                broadcast_view("b5", status="cancelled", ended_at=now_ms(), end_reason="customer_cancelled"),
                broadcast_view("b6", status="expired", ended_at=now_ms(), end_reason="no_vehicles_available"),
            ]
        )
        yield played


def trip(broadcast_id: str) -> dict[str, Any]:
    """The trips of a broadcast whose first truck was found."""
    request_id = f"{broadcast_id}-1"
    return {
        f"{request_id}-t": {
            "trip_id": f"{request_id}-t",
            "assignment_id": f"{request_id}-a",
            "request_id": request_id,
            "status": "assigned",
            "transporter_id": "t7",
            "vehicle_id": "v71",
            "vehicle_type": "truck_14ft",
            "driver_id": "d71",
            "assigned_at": now_ms(),
            "updated_at": now_ms(),
        }
    }


@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS.keys())
async def test_nothing_keeps_anybody_out(screen: dict[str, Any], played: Stage, open_page: OpenPage) -> None:
    """On the sign-in page, on the board and in the details: no finding that is serious or critical."""
    page = await open_page(reduced_motion="reduce", **screen)
    console = Console(page, played.url)
    await console.open()
    await check(page, "sign-in")
    await console.open(token())
    await page.reload()  # the address before differed in its fragment alone
    await console.connected("live")
    await console.shows(played.board["broadcasts"].values())
    await check(page, "board")
    await console.card("b3").click()
    await console.shows_details_of("b3")
    await check(page, "details")


async def check(page: Page, what: str) -> None:
    """Fail with what axe-core finds."""
    found = (await Axe().run(page)).response["violations"]
    bad = [
        f"{finding['impact']} {finding['id']}: {node['html'][:200]}\n    {node['failureSummary']}"
        for finding in found
        for node in finding["nodes"]
        if finding["impact"] in TOO_MUCH
    ]
    assert not bad, f"{what}:\n" + "\n".join(bad)
