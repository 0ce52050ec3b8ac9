"""The browser that the tests use: where it comes from, and that nothing goes wrong in it unseen."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page

from tests.acceptance.phone import eventually
from tests.browser.chromium import COMMANDS, chromium, find_chromium
from tests.browser.watch import Watch

SCRIPT = Path(__file__).parents[2] / "scripts" / "browser.sh"
POLICY = "default-src 'self'; script-src 'self' 'nonce-good'; img-src data:; connect-src *"
CLEAN = "<!doctype html><title>clean</title><link rel=icon href='data:,'>"


Serve: TypeAlias = Callable[[str], str]
"""Makes this the page of the server, and returns its address."""


def put(directory: Path, **commands: str) -> None:
    """Commands of these names that do this, in the language of the shell."""
    for name, does in commands.items():
        path = directory / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)


def run_script(path: Path) -> "subprocess.CompletedProcess[str]":
    """The script with nothing else in PATH."""
    return subprocess.run(
        ["/bin/sh", SCRIPT], env={"PATH": str(path)}, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_any_chromium_in_path_will_do(command: str, tmp_path: Path) -> None:
    put(tmp_path, **{command: "exit 0"})
    assert find_chromium(str(tmp_path)) == str(tmp_path / command)
    assert run_script(tmp_path).returncode == 0


def test_what_does_not_start_is_no_chromium(tmp_path: Path) -> None:
    """Ubuntu has a command that says to install a snap."""
    put(tmp_path, chromium_browser="exit 1")
    assert find_chromium(str(tmp_path)) is None
    assert run_script(tmp_path).returncode == 2


def test_the_script_says_what_to_do_where_it_may_not(tmp_path: Path) -> None:
    """An ordinary user on Debian."""
    put(tmp_path, apt_get="exit 1", id="echo 1000")
    done = run_script(tmp_path)
    assert done.returncode == 2
    assert f"sudo {SCRIPT}" in done.stderr


def test_the_script_says_what_is_missing_where_it_cannot(tmp_path: Path) -> None:
    """Not Debian."""
    done = run_script(tmp_path)
    assert done.returncode == 2
    assert all(command in done.stderr for command in COMMANDS)


def test_the_script_installs_as_root(tmp_path: Path) -> None:
    link = f"{shutil.which('ln', path='/bin:/usr/bin')} -s /bin/true {tmp_path}/chromium"
    installing = f"""echo "$@" >>{tmp_path}/asked; case "$*" in *chromium*) {link};; esac"""
    put(tmp_path, id="echo 0", apt_get=installing)
    done = run_script(tmp_path)
    assert done.returncode == 0, done.stderr
    update, install = (tmp_path / "asked").read_text().splitlines()
    assert update.startswith("update")
    assert "--no-install-recommends" in install
    assert install.endswith(" chromium fonts-dejavu-core")


@pytest.mark.parametrize("does", ["exit 1", "exit 0"], ids=["fails", "brings nothing"])
def test_the_script_says_so_if_installing_does_not_help(does: str, tmp_path: Path) -> None:
    put(tmp_path, id="echo 0", apt_get=does)
    done = run_script(tmp_path)
    assert done.returncode == 1
    assert "skipped" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_process_is_left_behind(executable: str) -> None:
    before = descendants()
    async with chromium(executable) as browser:
        await (await browser.new_page()).goto("about:blank")
        started = descendants() - before
        assert len(started) > 1
    await eventually(lambda: not any(map(runs, started)), "all processes of the browser have ended")


# --- What goes wrong in a page ---


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[Serve]:
    """A server of pages that may do nothing but what their policy says."""
    pages: list[str] = []

    async def get(request: web.Request) -> web.Response:
        if request.path != "/":
            return web.Response(status=404)
        policy = {"Content-Security-Policy": POLICY}
        return web.Response(text=CLEAN + pages[-1], content_type="text/html", headers=policy)

    app = web.Application()
    app.router.add_get("/{path:.*}", get)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()

    def serve(html: str) -> str:
        pages.append(html)
        return site.name.replace(":0", f":{runner.addresses[0][1]}")

    yield serve
    await runner.cleanup()


async def test_a_clean_page_has_no_faults(page: Page, serve: Serve, watch: Watch) -> None:
    await page.goto(serve("<script nonce=good>console.warn('careful')</script>"))
    assert watch.faults == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ("<script nonce=good>throw Error('thrown')</script>", "uncaught: .*thrown"),
        ("<script nonce=good>Promise.reject(Error('rejected'))</script>", "uncaught: .*rejected"),
        ("<script nonce=good>console.error('told')</script>", "console: told"),
        ("<script>1</script>", "console: .*Content Security Policy"),
        ("<p style='color: red'>red", "console: .*Content Security Policy"),
        ("<script nonce=good>eval('1')</script>", "uncaught: .*unsafe-eval"),
        ("<script src=missing.js></script>", "console: .*404"),
        ("<script nonce=good>fetch('http://127.0.0.2:1/').catch(() => 0)</script>", "to another host: .*127.0.0.2"),
        ("<script nonce=good>new WebSocket('ws://127.0.0.2:1/')</script>", "to another host: .*127.0.0.2"),
    ],
)
async def test_what_goes_wrong_in_a_page_is_a_fault(
    html: str, fault: str, page: Page, serve: Serve, watch: Watch
) -> None:
    await page.goto(serve(html))
    await eventually(lambda: re.search(fault, "\n".join(watch.faults)), f"{fault} is seen")
    with pytest.raises(AssertionError, match=fault):
        watch.check()
    watch.expect("")


async def test_a_fault_that_is_expected_is_none(page: Page, serve: Serve, watch: Watch) -> None:
    watch.expect("told")
    await page.goto(serve("<script nonce=good>console.error('told')</script>"))
    await eventually(lambda: watch.faults, "it is seen")
    watch.check()


def descendants() -> set[int]:
    """The processes that this one has started, and those that they have started."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    news = {os.getpid()}
    while news:
        news = {process for process, parent in parents.items() if parent in news}
        found |= news
    return found


def runs(process: int) -> bool:
    """Whether it has not ended. A zombie has, and waits only for somebody to take note."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
