"""Takes the pictures of the console that the documents show: `python -m tests.browser.screenshots docs/`.

A city lives on three nodes, as in `make cluster`, until its board is lively; then the same moment is taken by day, by
night and on a phone. Not a test: what there is to see is looked at.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, expect

from tests.acceptance.network import sign
from tests.acceptance.phone import eventually_answered
from tests.acceptance.server import environment
from tests.browser.chromium import MISSING, chromium, find_chromium
from tests.browser.console import Console

DEMO = (sys.executable, "-m", "haulcast", "demo", "--cluster", "--json", "--customers", "40", "--transporters", "30")
DESK = {"viewport": {"width": 1440, "height": 840}}
SCREENS: Mapping[str, Mapping[str, Any]] = {
    "console-light.png": {**DESK, "color_scheme": "light"},
    "console-dark.png": {**DESK, "color_scheme": "dark"},
    "console-phone.png": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True},
}
LARGEST_BYTES = 300_000
LIVELY = {"searching": 3, "partially_filled": 2, "fully_filled": 40, "ended": 10}
"""How many broadcasts each column should show, which is forty at most."""
LIVELY_WITHIN_S = 120.0


@asynccontextmanager
async def city(directory: str) -> AsyncIterator[tuple[str, str]]:
    """A city that lives until the end of the `async with`; the address of its first node and its tenant."""
    env = environment(HAULCAST_DATA_DIR=directory)
    process = await asyncio.create_subprocess_exec(*DEMO, env=env, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            told, _, rest = line.decode().partition(", tenant ")
            if told.startswith("server "):
                yield told.split()[1], rest.split(",")[0]
                break
    finally:
        process.send_signal(signal.SIGINT)  # the first asks the city to go home, the second sends it
        await asyncio.sleep(1.0)
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


async def is_lively(console: Console) -> bool:
    """Whether there is enough to see."""
    columns = await console.columns()
    return all(len(columns[state]) >= number for state, number in LIVELY.items())


async def take(browser: Browser, url: str, tenant: str, directory: Path) -> None:
    """Take all pictures at about the same moment."""
    pages: dict[str, Console] = {}
    for name, options in SCREENS.items():
        page = await browser.new_page(**options, locale="en-GB")
        pages[name] = Console(page, url)
        await pages[name].open(sign(tenant, "operator", "op"))
    first = next(iter(pages.values()))
    await eventually_answered(lambda: is_lively(first), "the board is lively", LIVELY_WITHIN_S)
    for name, console in pages.items():
        if name != "console-phone.png":
            found = console.page.locator("[data-state='partially_filled'] [data-broadcast]").first
            broadcast_id = await found.get_attribute("data-broadcast") or ""
            await console.card(broadcast_id).click()  # another may be the first by now
            await console.shows_details_of(broadcast_id)
            await expect(console.details.locator("[data-event]").first).to_be_attached()
        path = directory / name
        await console.page.screenshot(path=path)
        size = path.stat().st_size
        print(f"{path}: {size // 1000} kB" + (" is too large" if size > LARGEST_BYTES else ""))


async def main(directory: Path) -> None:
    """Start everything, and leave nothing behind."""
    executable = find_chromium()
    if executable is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory(prefix="haulcast-city-") as data:
        async with city(data) as (url, tenant), chromium(executable) as browser:
            await take(browser, url, tenant, directory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the pictures go")
    asyncio.run(main(parser.parse_args().directory))
