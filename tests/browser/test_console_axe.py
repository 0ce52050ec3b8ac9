"""The console for everybody: what axe-core finds that keeps somebody out."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.console import Console
from tests.browser.controls import Refuse
from tests.browser.panel import Panel
from tests.browser.stage import LIFETIME_MS, Stage, broadcast_view, now_ms, stage, token
from tests.browser.test_console_control import REFUSED
from tests.browser.watch import NETWORK_FAILED, Watch

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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("screen", SCREENS.values(), ids=SCREENS.keys())
async def test_nothing_keeps_anybody_from_controlling(
    screen: dict[str, Any], played: Stage, open_page: OpenPage, watch: Watch
) -> None:
    """In the control panel, in each of its states: no finding that is serious or critical."""
    watch.expect(REFUSED, NETWORK_FAILED)
    played.role = "admin"
    page = await open_page(reduced_motion="reduce", **screen)
    panel, console, controls = Panel(page), Console(page, played.url), played.controls
    await console.open(token("admin"))
    await panel.says("Running")

    await panel.open("Settings")
    await check(page, "settings")
    await panel.field("wave_interval_s").fill("soon")
    await panel.review()
    await expect(panel.problem("wave_interval_s")).to_be_visible()
    await check(page, "a problem")
    await panel.field("wave_interval_s").fill("20")
    await panel.review()
    await expect(panel.changes).to_have_count(1)
    await check(page, "review")
    await controls.put(wave_interval_s=40)
    await expect(panel.conflict).to_be_visible()
    await check(page, "conflict")
    await page.get_by_role("button", name="Keep theirs").click()
    await panel.save()
    await expect(panel.status).to_contain_text("Saved")
    await check(page, "saved")

    await panel.pause.click()
    await expect(panel.question).to_be_visible()
    await check(page, "question")
    controls.behind = {2: "silent"}
    controls.told.clear()
    await panel.confirm("Pause")
    await panel.says("Pausing …")
    await check(page, "pausing")
    controls.told.set()
    await panel.says("Paused on 2 of 3 nodes")
    await check(page, "silent")
    controls.behind = {}
    await panel.mode.select_option("blast")
    await check(page, "another mode is chosen")

    await panel.open("Announcements")
    await panel.announce("Fog on the A4")
    await expect(panel.announcements).to_have_count(1)
    controls.refusal = Refuse(429, "TOO_MANY_ANNOUNCEMENTS", retry_after_ms=60_000)
    await panel.announce("Once more")
    await expect(page.locator("#announce-status")).to_contain_text("Too many")
    await check(page, "announcements")
    for view in ("History", "Audit"):
        await panel.open(view)
        await expect(panel.entries(view.lower()).first).to_be_visible()
        await check(page, view)

    if await page.locator("[data-tab='nodes']").is_visible():
        await page.locator("[data-tab='nodes']").click()
    controls.refusal = Refuse(409, "LAST_NODE", node=1)
    await page.get_by_role("button", name="Drain node 1").click()
    await panel.confirm("Drain node 1")
    await expect(panel.drained).to_contain_text("last")
    await check(page, "draining")
    await page.context.set_offline(True)
    await played.drop_sockets(1001)
    await console.connected("connecting", "stale")
    await panel.open("Settings")
    await expect(panel.why).to_contain_text("without a connection")
    await check(page, "no connection")


async def test_the_keyboard_is_enough_to_control(played: Stage, open_page: OpenPage) -> None:
    """From the top of the page to a mode that was switched, a setting that was changed and a pause that was meant."""
    page = await open_page()
    panel = Panel(page)
    await Console(page, played.url).open(token())
    await panel.says("Running")

    async def tab_to(wanted: Locator) -> None:
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await wanted.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"Tab does not lead to {wanted}")

    await tab_to(panel.pause)
    await page.keyboard.press("Enter")
    await expect(page.locator("#confirm-no")).to_be_focused()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await panel.says("Paused")
    await expect(panel.pause).to_be_focused()
    await tab_to(panel.mode)
    await page.keyboard.press("b")  # which chooses by the first letter
    await expect(panel.switch).to_be_enabled()
    await tab_to(panel.switch)
    await page.keyboard.press("Enter")
    await expect(panel.facts).to_contain_text("blast")
    await tab_to(page.locator("#panel-toggle"))
    await page.keyboard.press("Enter")
    await tab_to(panel.field("wave_interval_s"))
    await page.keyboard.type("20/")
    await expect(panel.field("wave_interval_s")).to_have_value("20/")
    await page.keyboard.press("Backspace")
    await page.keyboard.press("Enter")
    await expect(panel.changes).to_have_text(["Wave interval: 15 s → 20 s"])
    await tab_to(page.locator("#settings-save"))
    await page.keyboard.press("Enter")
    await expect(panel.status).to_contain_text("Saved")
    await expect(panel.status).to_be_focused()


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
