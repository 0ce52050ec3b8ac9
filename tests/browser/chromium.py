"""The Chromium of this machine, found and started."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"no Chromium: none of {', '.join(COMMANDS)} in PATH starts; run scripts/browser.sh"

# Nothing but the pages of the tests: no look for updates, no QUIC, no greeting.
_ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


def find_chromium(path: str | None = None) -> str | None:
    """The Chromium in `path` (default: PATH) that starts. What stands in for a snap that is missing does not."""
    for command in COMMANDS:
        if found := shutil.which(command, path=path):
            asked = subprocess.run([found, "--version"], capture_output=True, timeout=30, check=False)
            if asked.returncode == 0:
                return found
    return None


@asynccontextmanager
async def chromium(executable: str) -> AsyncIterator[Browser]:
    """It runs, headless, until the end of the `async with`, and in the loop of that. Root has no sandbox."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable, args=_ARGUMENTS, chromium_sandbox=os.geteuid() != 0
        )
        try:
            yield browser
        finally:
            await browser.close()
