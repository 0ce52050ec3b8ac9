"""How the files of the console are served."""

from collections.abc import Mapping
from importlib import resources

import pytest
from yarl import URL

from tests.acceptance.network import Network

FILES = sorted(file.name for file in (resources.files("haulcast.transport") / "console").iterdir())

DIRECTIVES: Mapping[str, str] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}


@pytest.mark.parametrize("name", ["", "config.json", *FILES])
async def test_every_file_says_what_a_page_may_do(name: str, network: Network) -> None:
    """Nothing but what is its own: no inline code, no other host, no frame around it, no guessing of types."""
    async with network.session.get(f"{network.url}/console/{name}") as response:
        assert response.status == 200
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        assert policy == DIRECTIVES
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-cache"
        assert "Set-Cookie" not in response.headers
        tag = response.headers["ETag"]
        assert await response.read()
    async with network.session.get(f"{network.url}/console/{name}", headers={"If-None-Match": tag}) as response:
        assert response.status == 304
        assert "Content-Security-Policy" in response.headers


@pytest.mark.parametrize("name", ["../console.py", "%2e%2e/console.py", "..%2fconsole.py", "none.js", "a/b.js", ".git"])
async def test_there_is_no_other_file(name: str, network: Network) -> None:
    url = URL(f"{network.url}/console/{name}", encoded=True)  # as it stands: not what it would lead to
    async with network.session.get(url) as response:
        assert response.status == 404


async def test_the_address_without_a_slash_leads_to_the_page(network: Network) -> None:
    async with network.session.get(f"{network.url}/console") as response:
        assert response.status == 200
        assert response.url.path == "/console/"
