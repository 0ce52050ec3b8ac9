"""How settings are changed: what the form offers, what is said before it is saved, and what becomes of two at once."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.acceptance.network import Network, sign
from tests.acceptance.phone import Json
from tests.browser.conftest import OpenPage
from tests.browser.console import Console
from tests.browser.panel import Panel
from tests.browser.stage import Stage, stage, token
from tests.browser.test_console_control import REFUSED
from tests.browser.watch import Watch


@pytest_asyncio.fixture(loop_scope="session")
async def played() -> AsyncIterator[Stage]:
    """A server that says what the test wants, also of settings that this page does not know."""
    async with stage() as played:
        later: Json = {"moon_phase": 0.5, "night_only": False, "motto": "Go", "depots": [{"id": 1}], "cap": None}
        played.controls.content["settings"] |= later
        played.controls.defaults |= later
        yield played


@pytest_asyncio.fixture(loop_scope="session")
async def panel(played: Stage, page: Page) -> Panel:
    """The panel of an operator, open on the settings of the stage."""
    await Console(page, played.url).open(token())
    panel = Panel(page)
    await panel.open("Settings")
    await expect(panel.field("wave_interval_s")).to_have_value("15")
    return panel


async def open_for(network: Network, page: Page, user: str) -> Panel:
    """The panel of somebody of a real tenant, open on the settings."""
    await Console(page, network.url).open(sign(network.tenant, "operator", user))
    panel = Panel(page)
    await panel.open("Settings")
    await expect(panel.field("wave_interval_s")).to_have_value("15")
    return panel


async def settings_of(network: Network) -> Json:
    """What the server says."""
    status, answer = await network.rest("GET", "/v1/settings", "operator", "op")
    assert status == 200, answer
    return answer


# --- With the real thing ---


async def test_what_differs_is_shown_before_it_is_saved_and_then_it_holds(network: Network, page: Page) -> None:
    panel = await open_for(network, page, "op")
    await panel.field("wave_interval_s").fill("20")
    await panel.field("wave_radii_km").fill("5, 12.5, everybody")
    await panel.field("requests_per_s").fill("30")
    await panel.field("max_offers_per_wave").fill("501")
    await panel.field("max_offers_per_wave").fill("500")
    await panel.review()
    await expect(panel.changes).to_have_text(
        [
            "Wave interval: 15 s → 20 s",
            "Wave radii: 10, 25, 50, 75, everybody km → 5, 12.5, everybody km",
            "Requests of a phone, per second: the server\u2019s own → 30",
        ]
    )
    assert (await settings_of(network))["version"] == 1, "nothing is saved yet"
    await panel.save()
    await expect(panel.status).to_contain_text("Saved as version 2")
    await expect(panel.facts).to_contain_text("version 2")
    answer = await settings_of(network)
    assert answer["settings"]["wave_interval_s"] == 20
    assert answer["settings"]["wave_radii_km"] == [5, 12.5, None]
    assert answer["settings"]["max_offers_per_wave"] == 500
    await expect(panel.field("wave_interval_s")).to_have_value("20")

    await panel.default("wave_interval_s").click()
    await expect(panel.field("wave_interval_s")).to_have_value("15")
    await panel.review()
    await expect(panel.changes).to_have_text(["Wave interval: 20 s → 15 s"])


async def test_what_the_server_does_not_allow_is_said_at_the_field(network: Network, page: Page, watch: Watch) -> None:
    """And what was written stays."""
    watch.expect(REFUSED)
    panel = await open_for(network, page, "op")
    for name, text, allowed in (
        ("wave_interval_s", "9999", "expected 0.1 to 3600"),
        ("wave_radii_km", "50, 10", "growing radii"),
        ("max_offers_per_wave", "1.5", "expected"),
        ("default_expiry_s", "1", "expected 10 to 86400"),
    ):
        field = panel.field(name)
        await field.fill(text)
        await panel.review()
        await panel.save()
        await expect(panel.problem(name)).to_contain_text(allowed)
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(re.compile(allowed))
        await expect(field).to_be_focused()
        await expect(field).to_have_value(text)
        await page.get_by_role("button", name="Discard").click()
        await expect(panel.problem(name)).to_be_empty()
    assert (await settings_of(network))["version"] == 1


async def test_whoever_is_second_is_shown_what_the_first_has_changed_and_saves_on_top(
    network: Network, page: Page, open_page: OpenPage
) -> None:
    """Two operators at once: nothing is lost, and nothing is overwritten unseen."""
    first = await open_for(network, page, "asha")
    second = await open_for(network, await open_page(), "ravi")
    await second.field("wave_interval_s").fill("30")
    await second.field("toggle_limit").fill("7")
    await first.field("wave_interval_s").fill("20")
    await first.review()
    await first.save()
    await expect(first.status).to_contain_text("Saved as version 2")

    await expect(second.conflict).to_contain_text("Somebody else has changed the settings (version 2)")
    await expect(second.conflict).to_contain_text("Wave interval: 15 s → 20 s")
    await expect(second.field("wave_interval_s")).to_have_value("30")
    await second.review()
    await expect(second.page.locator("#settings-save")).to_be_disabled()
    await second.page.get_by_role("button", name="Keep theirs").click()
    await expect(second.conflict).to_be_hidden()
    await expect(second.changes).to_have_text(["Wave interval: 20 s → 30 s", "Most switches on- and offline: 10 → 7"])
    await second.save()
    await expect(second.status).to_contain_text("Saved as version 3")
    await expect(first.field("wave_interval_s")).to_have_value("30")
    await expect(first.conflict).to_be_hidden()
    assert (await settings_of(network))["settings"]["toggle_limit"] == 7

    await first.open("History")
    await expect(first.entries("history")).to_have_count(2)
    await expect(first.entries("history").first).to_contain_text("ravi (operator) changed settings")
    await expect(first.entries("history").first).to_contain_text("Wave interval: 20 s → 30 s")
    await expect(first.entries("history").last).to_contain_text("asha (operator) changed settings")


async def test_history_and_audit_say_who_did_what_and_how_the_nodes_answered(network: Network, page: Page) -> None:
    """What is done while somebody looks is added at the top, and older pages are there for the asking."""
    for number in range(23):
        body = {"expected_version": number + 1, "settings": {"max_offers_per_wave": number + 1}}
        status, answer = await network.rest("PATCH", "/v1/settings", "operator", "asha", body, f"k{number}")
        assert status == 200, answer
    panel = await open_for(network, page, "ravi")
    await panel.open("History")
    entries = panel.entries("history")
    await expect(entries).to_have_count(20)
    await expect(entries.first).to_contain_text("asha (operator) changed settings")
    await expect(entries.first).to_contain_text("Most offers in a wave: 22 → 23")
    await page.get_by_role("button", name="More", exact=True).click()
    await expect(entries).to_have_count(23)
    await expect(page.get_by_role("button", name="More", exact=True)).to_be_hidden()

    await panel.press_pause()
    await panel.says("Paused")
    await expect(entries).to_have_count(23)
    await panel.open("Audit")
    entries = panel.entries("audit")
    await expect(entries.first).to_contain_text("ravi (operator) paused dispatch")
    await expect(entries.first).to_contain_text("Paused: no → yes")
    await expect(entries.first).to_contain_text("followed after")
    await panel.pause.click()
    await expect(entries.first).to_contain_text("resumed dispatch")
    await expect(entries.nth(1)).to_contain_text("paused dispatch")
    await page.get_by_role("button", name="More", exact=True).click()
    await expect(entries).to_have_count(25)


# --- With a server that says what the test wants ---


async def test_settings_of_a_later_server_can_be_changed(played: Stage, panel: Panel, page: Page) -> None:
    """They go by their own names, and their values are what JSON says they are."""
    await expect(panel.field("moon_phase")).to_have_value("0.5")
    await panel.field("moon_phase").fill("0.75")
    await page.get_by_role("checkbox", name="night_only").check()
    await panel.field("motto").fill("")
    await panel.field("depots").fill('[{"id": 1}, {"id": 2}]')
    await panel.field("cap").fill("12")
    await panel.review()
    await expect(panel.changes).to_have_text(
        [
            "moon_phase: 0.5 → 0.75",
            "night_only: no → yes",
            "motto: Go → nothing",
            'depots: [{"id":1}] → [{"id":1},{"id":2}]',
            "cap: nothing → 12",
        ]
    )
    await panel.save()
    await expect(panel.status).to_contain_text("Saved as version 8")
    assert {*played.controls.log[-1]["data"]["settings"]} == {"moon_phase", "night_only", "motto", "depots", "cap"}
    settings = played.controls.content["settings"]
    assert settings["depots"] == [{"id": 1}, {"id": 2}]
    assert (settings["moon_phase"], settings["night_only"], settings["motto"], settings["cap"]) == (0.75, True, "", 12)


async def test_what_cannot_be_read_is_said_before_it_is_sent(played: Stage, panel: Panel) -> None:
    for name, text in (("wave_interval_s", "soon"), ("wave_radii_km", "1,,2"), ("depots", "[1"), ("toggle_limit", "")):
        field = panel.field(name)
        await field.fill(text)
        await panel.review()
        await expect(panel.problem(name)).to_contain_text("expected")
        await expect(field).to_be_focused()
        await panel.page.get_by_role("button", name="Discard").click()
    assert played.controls.keys == []


async def test_what_was_begun_stays_when_something_else_changes(played: Stage, panel: Panel, page: Page) -> None:
    """A field that was not touched follows; a command that changes no setting is no conflict."""
    field = panel.field("wave_interval_s")
    await field.press("End")
    await page.keyboard.type(".")  # which comes to the same
    await played.controls.put(paused=True)
    await expect(panel.facts).to_contain_text("version 8")
    await page.keyboard.type("05")
    await expect(field).to_have_value("15.05")
    await expect(field).to_be_focused()
    await expect(panel.conflict).to_be_hidden()
    await page.locator("#panel-close").click()
    await panel.open("Settings")
    await expect(field).to_have_value("15.05")
    await panel.review()
    await panel.save()
    await expect(panel.status).to_contain_text("Saved as version 9")
    await played.controls.put(wave_interval_s=15)
    await expect(field).to_have_value("15")


async def test_what_comes_to_the_same_as_theirs_is_no_conflict_any_more(
    played: Stage, panel: Panel, page: Page
) -> None:
    await panel.field("wave_interval_s").fill("20")
    await played.controls.put(wave_interval_s=20, toggle_limit=5)
    await expect(panel.conflict).to_contain_text("Most switches on- and offline: 10 → 5")
    await page.get_by_role("button", name="Keep theirs").click()
    await expect(panel.conflict).to_be_hidden()
    await expect(panel.field("toggle_limit")).to_have_value("5")
    await expect(page.get_by_role("button", name="Discard")).to_be_hidden()


async def test_who_is_late_without_knowing_is_told_by_the_server(played: Stage, panel: Panel, watch: Watch) -> None:
    """The refusal is ahead of the news that explain it."""
    watch.expect(REFUSED)
    await panel.field("wave_interval_s").fill("20")
    await panel.review()
    delta = played.controls.change_untold(wave_interval_s=40)
    await panel.save()
    await expect(panel.status).to_contain_text("Not saved")
    await played.controls._tell(delta)
    await expect(panel.conflict).to_contain_text("Wave interval: 15 s → 40 s")
    await panel.page.get_by_role("button", name="Keep theirs").click()
    await panel.review()
    await expect(panel.changes).to_have_text(["Wave interval: 40 s → 20 s"])
    await panel.save()
    await expect(panel.status).to_contain_text("Saved as version 9")
    assert played.controls.content["settings"]["wave_interval_s"] == 20


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "{{motto}}"])
async def test_text_is_text(text: str, played: Stage, panel: Panel, page: Page) -> None:
    """Whatever the server says is shown as it is, and makes nothing on the page."""
    await played.controls.put(motto=text)
    await played.controls.announce(text, 60)
    await expect(panel.field("motto")).to_have_value(text)
    await panel.open("Audit")
    await expect(panel.entries("audit").last).to_contain_text(text)
    await panel.open("Announcements")
    await expect(panel.announcements).to_contain_text(text)
    await expect(page.locator("#panel img")).to_have_count(0)
