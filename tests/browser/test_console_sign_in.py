"""Who may see the console, and how they say who they are."""

import re
from time import time

import pytest
from playwright.async_api import Locator, Page, expect

from tests.acceptance.network import Network, sign
from tests.browser.console import Console
from tests.browser.watch import Watch

REFUSED = r"status of 40[134]"
"""What the browser says on the console about an answer that refuses."""


async def test_a_link_with_a_token_signs_in_and_the_token_leaves_the_address(network: Network, page: Page) -> None:
    console = Console(page, network.url)
    await console.open(sign(network.tenant, "operator", "op"))
    assert page.url == console.url
    assert await page.evaluate("history.length") <= 2, "the address with the token is not to be gone back to"


async def test_a_token_that_is_pasted_signs_in(network: Network, page: Page) -> None:
    console = Console(page, network.url)
    await console.open()
    await sign_in(page, sign(network.tenant, "operator", "op"))
    await console.connected("live")


async def test_a_sign_in_lasts_as_long_as_the_tab(network: Network, page: Page) -> None:
    """A reload needs no token; another tab does."""
    console = Console(page, network.url)
    await console.open(sign(network.tenant, "operator", "op"))
    await page.reload()
    await console.connected("live")
    other = await page.context.new_page()
    await other.goto(console.url)
    await expect(token_field(other)).to_be_visible()


async def test_signing_out_forgets_the_token(network: Network, page: Page) -> None:
    console = Console(page, network.url)
    await console.open(sign(network.tenant, "operator", "op"))
    await page.get_by_role("button", name="Sign out").click()
    await expect(token_field(page)).to_be_visible()
    assert await page.evaluate("sessionStorage.length + localStorage.length") == 0
    await page.reload()
    await expect(token_field(page)).to_be_visible()


@pytest.mark.parametrize("role", ["customer", "transporter", "driver"])
async def test_only_operators_and_admins_get_in(role: str, network: Network, page: Page, watch: Watch) -> None:
    """The others are told which role they have, and which they need."""
    watch.expect(REFUSED)
    await Console(page, network.url).open()
    await sign_in(page, sign(network.tenant, role, "u1"))
    await expect(page.get_by_role("alert")).to_contain_text(re.compile(f"{role}.*operator", re.DOTALL))
    await expect(token_field(page)).to_be_visible()


@pytest.mark.parametrize("bad", ["not a token", "a.b.c", "signature", "expired"])
async def test_a_token_that_is_not_good_is_refused_with_a_reason(
    bad: str, network: Network, page: Page, watch: Watch
) -> None:
    watch.expect(REFUSED)
    token = bad
    if bad == "signature":
        token = sign(network.tenant, "operator", "op")[:-8] + "AAAAAAAA"
    elif bad == "expired":
        token = sign(network.tenant, "operator", "op", lifetime_s=-60)
    await Console(page, network.url).open()
    await sign_in(page, token)
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await expect(token_field(page)).to_be_visible()


async def test_when_the_token_expires_the_console_asks_for_another(network: Network, page: Page, watch: Watch) -> None:
    """And goes on where it was with that."""
    watch.expect(REFUSED)
    console = Console(page, network.url)
    began_s = time()
    await console.open(sign(network.tenant, "operator", "op", lifetime_s=3))
    await expect(page.get_by_role("alert")).to_contain_text("expired")
    assert time() - began_s > 1.5
    await sign_in(page, sign(network.tenant, "operator", "op"))
    await console.connected("live")


def token_field(page: Page) -> Locator:
    """Where a token is pasted."""
    return page.get_by_label(re.compile("token", re.IGNORECASE))


async def sign_in(page: Page, token: str) -> None:
    """Paste a token, and press Enter."""
    await token_field(page).fill(token)
    await page.get_by_role("button", name=re.compile("sign in", re.IGNORECASE)).click()
