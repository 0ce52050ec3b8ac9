"""The control panel as a test uses it: what it says, and what can be pressed."""

import re

from playwright.async_api import Locator, Page, expect

_WRITE_DOWN = """() => {
    window.said = {};
    for (const id of ['control-state', 'control-note']) {
        const host = document.getElementById(id);
        const said = (window.said[id] = [host.textContent]);
        const write = () => said.at(-1) === host.textContent || said.push(host.textContent);
        new MutationObserver(write).observe(host, {childList: true, characterData: true, subtree: true});
    }
}"""


class Panel:
    """The control panel in one page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.state = page.locator("#control-state")
        """What is said to be in force: `Running`, `Paused`, or what is being done."""
        self.facts = page.locator("#control-facts")
        self.note = page.locator("#control-note")
        self.why = page.locator("#control-why")
        """Why nothing can be pressed."""
        self.pause = page.locator("#control-pause")
        """Which also resumes."""
        self.reload = page.locator("#control-reload")
        self.mode = page.locator("#control-mode-choice")
        self.switch = page.locator("#control-switch")
        self.question = page.get_by_role("dialog")
        self.status = page.locator("#settings-status")
        self.conflict = page.locator("#settings-conflict")
        self.changes = page.locator("#settings-changes li")
        self.drained = page.locator("#drain-status")

    async def open(self, view: str) -> None:
        """Have it open on `Settings`, `Announcements`, `History` or `Audit`."""
        tab, toggle = self.page.locator("[data-tab='control']"), self.page.locator("#panel-toggle")
        if await tab.is_visible():  # on a phone
            await tab.click()
        elif await toggle.get_attribute("aria-expanded") == "false":
            await toggle.click()
        await self.page.get_by_role("button", name=view, exact=True).click()

    async def confirm(self, answer: str) -> None:
        """Answer the question in the page."""
        await expect(self.question).to_be_visible()
        await self.question.get_by_role("button", name=answer).click()
        await expect(self.question).to_be_hidden()

    async def press_pause(self) -> None:
        """Pause, and say that it is meant."""
        await self.pause.click()
        await self.confirm("Pause")

    async def says(self, state: str) -> None:
        """Wait until exactly this is said to be in force."""
        await expect(self.state).to_have_text(state)

    async def watch_states(self) -> None:
        """Write down from now on all that is said to be in force, and of commands."""
        await self.page.evaluate(_WRITE_DOWN)

    async def states(self) -> list[str]:
        """What was said since to be in force, in order."""
        states: list[str] = await self.page.evaluate("window.said['control-state']")
        return states

    async def notes(self) -> list[str]:
        """What was said since of commands, in order."""
        notes: list[str] = await self.page.evaluate("window.said['control-note']")
        return notes

    # --- Settings ---

    def field(self, name: str) -> Locator:
        """The field of a setting."""
        return self.page.locator(f"#setting-{name}")

    def problem(self, name: str) -> Locator:
        """What is said to be wrong with it."""
        return self.page.locator(f"#setting-{name}-problem")

    def default(self, name: str) -> Locator:
        """What sets it to its default."""
        return self.page.locator(f"[data-setting='{name}'] .field-default")

    async def review(self) -> None:
        """Look at what will be different."""
        await self.page.get_by_role("button", name=re.compile("^Review")).click()

    async def save(self) -> None:
        """Save what is being looked at."""
        await self.page.locator("#settings-save").click()

    # --- Lists ---

    def entries(self, of: str) -> Locator:
        """The entries of the `history` or the `audit`."""
        return self.page.locator(f"#{of}-list > li")

    @property
    def announcements(self) -> Locator:
        """What is announced now."""
        return self.page.locator("#announce-list > li")

    async def announce(self, text: str, audience: str = "driver", lifetime: str = "1 hour") -> None:
        """Announce something."""
        await self.page.get_by_label("To every").select_option(audience)
        await self.page.get_by_label("Text").fill(text)
        await self.page.get_by_label("Valid for").select_option(label=lifetime)
        await self.page.get_by_role("button", name="Announce", exact=True).click()
