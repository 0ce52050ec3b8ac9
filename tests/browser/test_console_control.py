"""What the control panel says is in force, and what becomes of commands: on a server that says what the test wants."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.acceptance.phone import eventually
from tests.browser.conftest import OpenPage
from tests.browser.console import WITHIN_S, Console
from tests.browser.controls import Refuse
from tests.browser.panel import Panel
from tests.browser.stage import CONTROL, Stage, stage, token
from tests.browser.watch import NETWORK_FAILED, Watch

REFUSED = r"status of 4\d\d"
"""What the browser says on the console about an answer that refuses."""


@pytest_asyncio.fixture(loop_scope="session")
async def played() -> AsyncIterator[Stage]:
    """A server that says what the test wants, with three nodes."""
    async with stage() as played:
        yield played


@pytest_asyncio.fixture(loop_scope="session")
async def panel(played: Stage, page: Page) -> Panel:
    """The panel of an operator, who sees that dispatch runs."""
    await Console(page, played.url).open(token())
    panel = Panel(page)
    await panel.says("Running")
    return panel


async def test_nothing_is_said_to_be_paused_before_the_server_says_so(played: Stage, panel: Panel) -> None:
    """A server that has carried the command out and tells nobody: until it does, it is being paused."""
    played.controls.told.clear()
    await panel.watch_states()
    await panel.press_pause()
    await panel.says("Pausing …")
    await eventually(lambda: played.controls.log, "it is carried out")
    await expect(panel.pause).to_be_disabled()
    await expect(panel.facts).to_contain_text("version 7")
    assert await panel.states() == ["Running", "Pausing …"]
    played.controls.told.set()
    await panel.says("Paused")
    await expect(panel.facts).to_contain_text("version 8")
    await expect(panel.pause).to_have_text("Resume")
    await expect(panel.pause).to_be_enabled()


async def test_an_answer_that_is_ahead_of_the_topic_is_not_what_is_shown(played: Stage, panel: Panel) -> None:
    """What is in force the topic says, also when the command was answered by another node."""
    answered = asyncio.Event()
    tell = played.controls._tell

    async def late(data: dict[str, object]) -> None:
        answered.set()
        asyncio.get_running_loop().call_later(1.0, lambda: waiting.append(asyncio.ensure_future(tell(data))))

    waiting: list[asyncio.Future[None]] = []
    played.controls._tell = late
    await panel.watch_states()
    await panel.press_pause()
    await answered.wait()
    await panel.says("Paused")
    states = await panel.states()
    assert states[:2] == ["Running", "Pausing …"], states
    assert all("Running" not in state for state in states[1:]), states
    await asyncio.gather(*waiting)


async def test_pausing_is_asked_about_in_the_page(played: Stage, panel: Panel, page: Page) -> None:
    """Escape and Cancel mean no, and the focus is where it was."""
    await panel.pause.focus()
    await page.keyboard.press("Enter")
    await expect(panel.question).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(panel.question).to_be_hidden()
    await expect(panel.pause).to_be_focused()
    await panel.pause.click()
    await panel.confirm("Cancel")
    await panel.says("Running")
    assert played.controls.keys == []


async def test_a_node_that_is_silent_is_named_until_it_has_followed(played: Stage, panel: Panel) -> None:
    played.controls.behind = {3: "silent"}
    await panel.press_pause()
    await panel.says("Paused on 2 of 3 nodes")
    await expect(panel.note).to_have_text("Node 3 did not answer in time, and will follow.")
    played.controls.behind = {}
    await played.controls.follow(3)
    await panel.says("Paused")
    await expect(panel.note).to_have_text("Node 3 did not answer in time, and has followed since.")


async def test_a_node_that_is_gone_is_named(played: Stage, panel: Panel) -> None:
    played.controls.behind = {2: "gone"}
    await panel.press_pause()
    await panel.says("Paused")
    await expect(panel.note).to_have_text("Node 2 is gone: the others go on without.")


async def test_what_somebody_else_does_is_seen_as_it_goes_on(played: Stage, panel: Panel) -> None:
    """A second operator has pressed: what is being done, how far it is, and who is missing."""
    played.controls.behind = {2: "silent"}
    await played.controls.put(paused=True)
    await panel.says("Pausing … 2 of 3 nodes")
    await expect(panel.note).to_have_text("Waiting for node 2.")
    await played.controls.follow(2)
    await panel.says("Paused")
    await played.controls.put(paused=False)
    await panel.says("Resuming … 2 of 3 nodes")
    await played.controls.leave(2)
    await panel.says("Running")
    await expect(panel.note).to_have_text("Node 2 is gone: the others go on without.")


async def test_what_is_under_way_is_not_forgotten_over_what_follows(played: Stage, panel: Panel) -> None:
    """As long as a node has not followed, it has not. That it is paused is said also while something else is done."""
    played.controls.behind = {3: "silent"}
    await played.controls.put(paused=True)
    await panel.says("Pausing … 2 of 3 nodes")
    await played.controls.put(toggle_limit=5)
    await expect(panel.facts).to_have_text("progressive · version 9")
    await panel.says("Pausing … 2 of 3 nodes")
    await played.controls.follow(3)
    await panel.says("Paused")
    await played.controls.put(toggle_limit=6)
    await panel.says("Applying settings … 2 of 3 nodes")
    await expect(panel.facts).to_have_text("paused · progressive · version 10")


async def test_a_node_that_joins_later_undoes_nothing(played: Stage, panel: Panel) -> None:
    """It is told of, and not taken for a command that goes on."""
    await played.controls.put(paused=True)
    await panel.says("Paused")
    await played.controls._set({"/nodes/4": {"node": 4, "version": 0}})
    await panel.says("Paused on 3 of 4 nodes")
    await expect(panel.note).to_have_text("Waiting for node 4.")
    await played.controls.follow(4)
    await panel.says("Paused")
    await expect(panel.note).to_be_empty()


async def test_a_mode_is_one_of_those_that_the_server_has(played: Stage, panel: Panel) -> None:
    played.controls.content["modes"] = ["progressive", "moon_light"]
    await played.drop_sockets(1001)
    played.control_version = (2, 1)
    await expect(panel.mode.locator("option")).to_have_text(["progressive", "moon light"])
    await expect(panel.switch).to_be_hidden()
    played.controls.told.clear()
    await panel.mode.select_option("moon_light")
    await panel.switch.click()
    await panel.says("Switching to moon light …")
    await expect(panel.facts).to_contain_text("progressive")
    played.controls.told.set()
    await expect(panel.facts).to_contain_text("moon light")
    await panel.says("Running")
    await expect(panel.switch).to_be_hidden()


async def test_settings_are_reloaded(played: Stage, panel: Panel) -> None:
    played.controls.told.clear()
    await panel.reload.click()
    await panel.says("Applying settings …")
    played.controls.told.set()
    await panel.says("Running")
    assert [entry["command"] for entry in played.controls.log] == ["reload_settings"]


async def test_a_command_whose_answer_is_lost_is_sent_again_and_happens_once(
    played: Stage, panel: Panel, watch: Watch
) -> None:
    """Under the same key. That it is so is said, and in the end there is nothing to be said any more."""
    watch.expect(NETWORK_FAILED)
    played.controls.lost = 2
    await panel.watch_states()
    await panel.press_pause()
    await panel.says("Paused")
    await expect(panel.pause).to_be_enabled()
    await expect(panel.note).to_be_empty()
    assert any("The same command is sent again" in note for note in await panel.notes())
    assert len(played.controls.keys) == 3
    assert len({*played.controls.keys}) == 1
    assert [entry["command"] for entry in played.controls.log] == ["pause"]


async def test_a_command_of_which_the_server_does_not_know_the_outcome_is_sent_again(
    played: Stage, panel: Panel, watch: Watch
) -> None:
    watch.expect(r"status of 503")
    played.controls.refusal = Refuse(503, "UNAVAILABLE")
    await panel.press_pause()
    await panel.says("Paused")
    await expect(panel.pause).to_be_enabled()
    assert len(played.controls.keys) == 2
    assert len({*played.controls.keys}) == 1


@pytest.mark.timeout(120)
async def test_a_command_that_is_never_answered_is_given_up_and_the_servers_state_shown(
    played: Stage, panel: Panel, watch: Watch
) -> None:
    watch.expect(NETWORK_FAILED)
    played.controls.lost = 100
    await panel.press_pause()
    await expect(panel.note).to_contain_text("No answer came to 6 tries", timeout=60_000)
    await panel.says("Paused")
    await expect(panel.pause).to_be_enabled()
    assert len({*played.controls.keys}) == 1
    played.controls.lost = 0
    await panel.pause.click()
    await panel.says("Running")
    assert len({*played.controls.keys}) == 2


async def test_without_a_connection_nothing_can_be_pressed_and_it_is_said_why(
    played: Stage, panel: Panel, page: Page, watch: Watch
) -> None:
    watch.expect(NETWORK_FAILED)
    await page.context.set_offline(True)
    await played.drop_sockets(1001)
    await expect(panel.why).to_contain_text("Nothing can be changed without a connection")
    for button in (panel.pause, panel.reload):
        await expect(button).to_be_disabled()
    await panel.pause.click(force=True)
    await expect(panel.question).to_be_hidden()
    await panel.says("Running")
    await page.context.set_offline(False)
    await expect(panel.why).to_be_empty()
    await expect(panel.pause).to_be_enabled()


async def test_by_polling_commands_can_be_given_as_well(played: Stage, panel: Panel, page: Page) -> None:
    await played.drop_sockets(4004)
    await Console(page, played.url).connected("polling")
    await panel.press_pause()
    await panel.says("Paused")
    await expect(panel.pause).to_be_enabled()


@pytest.mark.parametrize(
    "data",
    [
        {"set": {"/paused": "yes"}},
        {"set": {"/nodes/3": {"node": 3}}},
        {"set": {"/settings": []}},
        {"del": ["/version"]},
        {"set": {"/nothing/here": 1}},
        {"set": {"/announcements/a": {"text": "<b>"}}},
    ],
)
async def test_what_is_malformed_is_dropped_whole(data: dict[str, object], played: Stage, panel: Panel) -> None:
    """And what is in force asked for again."""
    before = played.control_version
    played.control_version = (before[0], before[1] + 1)
    await played.say({**played._frame("delta", CONTROL), "from": before, "data": {"set": {}, "del": [], **data}})
    await expect(panel.page.locator("#diagnostics")).to_have_attribute("data-dropped", "1")
    await panel.says("Running")
    await played.controls.put(paused=True)
    await panel.says("Paused")


# --- Draining ---


async def test_an_operator_is_not_offered_to_drain(panel: Panel, page: Page) -> None:
    await expect(page.locator("[data-node='1']")).to_be_visible()
    await expect(page.get_by_role("button", name=re.compile("drain", re.IGNORECASE))).to_have_count(0)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refuse(409, "LAST_NODE", node=1), "Node 1 is the last one"),
        (Refuse(404, "NODE_NOT_FOUND", node=1), "Node 1 is not alive any more"),
        (Refuse(403, "FORBIDDEN"), "Your role may not do this"),
        (Refuse(418, "SOMETHING_NEW", "Not on Sundays."), "Not on Sundays. (SOMETHING_NEW)"),
    ],
)
async def test_why_a_node_cannot_be_drained_is_said_in_words(
    refusal: Refuse, words: str, played: Stage, page: Page, watch: Watch
) -> None:
    watch.expect(REFUSED)
    played.role = "admin"
    played.controls.refusal = refusal
    await Console(page, played.url).open(token("admin"))
    panel = Panel(page)
    await page.get_by_role("button", name="Drain node 1").click()
    await expect(panel.question).to_contain_text("Drain node 1?")
    await panel.confirm("Cancel")
    assert played.controls.keys == []
    await page.get_by_role("button", name="Drain node 1").click()
    await panel.confirm("Drain node 1")
    await expect(panel.drained).to_contain_text(words)


# --- Announcements ---


async def test_what_is_announced_is_listed_with_the_time_that_is_left(played: Stage, panel: Panel, page: Page) -> None:
    await panel.open("Announcements")
    await expect(page.locator("#panel-announce")).to_contain_text("Nothing is announced now")
    await panel.announce("<b>Fog</b> on the A4", lifetime="5 minutes")
    await expect(panel.announcements).to_have_count(1)
    await expect(panel.announcements).to_contain_text("<b>Fog</b> on the A4")
    await expect(panel.announcements).to_contain_text(re.compile(r"To every driver · [45]:\d\d left"))
    await expect(page.get_by_label("Text")).to_have_value("")
    await expect(page.locator("#announce-status")).to_have_text("Announced.")
    await played.controls.announce("Soon over", lifetime_s=2)
    await expect(panel.announcements).to_have_count(2)
    await expect(panel.announcements).to_have_count(1)


async def test_too_many_announcements_are_refused_with_the_wait(
    played: Stage, panel: Panel, page: Page, watch: Watch
) -> None:
    """What was written stays."""
    watch.expect(REFUSED)
    played.controls.refusal = Refuse(429, "TOO_MANY_ANNOUNCEMENTS", retry_after_ms=754_000)
    await panel.open("Announcements")
    await panel.announce("Once more")
    await expect(page.locator("#announce-status")).to_have_text(
        re.compile(r"Too many announcements: the next one may be made in 12:3\d\.")
    )
    await expect(page.get_by_label("Text")).to_have_value("Once more")


async def test_two_tabs_show_the_same_progress(played: Stage, panel: Panel, open_page: OpenPage) -> None:
    other_page = await open_page()
    await Console(other_page, played.url).open(token())
    other = Panel(other_page)
    await other.says("Running")
    played.controls.told.clear()
    played.controls.behind = {1: "silent"}
    await panel.press_pause()
    await panel.says("Pausing …")
    await other.says("Running")
    played.controls.told.set()
    await other.says("Pausing … 2 of 3 nodes")
    await played.controls.follow(1)
    await other.says("Paused")
    await panel.says("Paused")


@pytest.mark.timeout(60)
async def test_progress_is_drawn_five_times_a_second_at_most(played: Stage, panel: Panel, page: Page) -> None:
    """However often what is in force changes."""
    console = Console(page, played.url)
    before = await console.renders()
    began_s = asyncio.get_running_loop().time()
    for number in range(200):
        await played.controls.put(max_offers_per_wave=number + 1)
    await expect(panel.facts).to_contain_text("version 207", timeout=WITHIN_S * 1000)
    took_s = asyncio.get_running_loop().time() - began_s
    assert await console.renders() - before <= 5 * (took_s + 1)
