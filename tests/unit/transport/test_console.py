"""The console's page: what is served, with what headers, and that no name leads to anything else."""

import re
from collections.abc import AsyncIterator
from importlib import resources

import pytest
from yarl import URL

from haulcast.transport.tiles import Tiles
from tests.unit.transport.test_edge import Server, serving

FILES = sorted(
    file.name for file in (resources.files("haulcast.transport") / "console").iterdir() if not file.name.startswith(".")
)
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
    "json": "application/json; charset=utf-8",
}
POLICY = {
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


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


def policy_of(headers: dict[str, str]) -> dict[str, str]:
    """The content security policy, by directive."""
    parts = (part.strip().partition(" ") for part in headers["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize("name", ["", *FILES, "config.json"])
async def test_every_file_is_served_without_a_token_and_with_strict_headers(server: Server, name: str) -> None:
    async with server.http.get(f"{server.url}/console/{name}") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == TYPES[(name or "index.html").rsplit(".", 1)[1]]
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert policy_of(dict(response.headers)) == POLICY
        assert await response.read()


async def test_what_a_browser_has_already_is_not_sent_again(server: Server) -> None:
    async with server.http.get(f"{server.url}/console/main.js") as first:
        tag = first.headers["ETag"]
    async with server.http.get(f"{server.url}/console/main.js", headers={"If-None-Match": tag}) as second:
        assert (second.status, await second.read(), second.headers["ETag"]) == (304, b"", tag)
        assert policy_of(dict(second.headers)) == POLICY
    async with server.http.get(f"{server.url}/console/dom.js", headers={"If-None-Match": tag}) as other:
        assert other.status == 200


async def test_the_address_without_its_slash_leads_to_the_page(server: Server) -> None:
    async with server.http.get(f"{server.url}/console", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (308, "console/")
    async with server.http.get(f"{server.url}/console") as page:
        assert page.url.path == "/console/"
        assert "<!doctype html>" in await page.text()


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "index.html/",
        "../config.json",
        "..%2fconsole.py",
        "%2e%2e/console.py",
        "..%2f..%2fconfig.py",
        "%2fetc%2fpasswd",
        "..%5cconsole.py",
        "main.js%00.css",
        "//main.js",
        "./../console.py",
        "__init__.py",
        "INDEX.HTML",
    ],
)
async def test_no_name_leads_out_of_the_table(server: Server, name: str) -> None:
    async with server.http.get(URL(f"{server.url}/console/{name}", encoded=True)) as response:
        assert response.status == 404
        body = await response.json()
        assert body["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/console", "/console/", "/console/main.js"])
async def test_it_can_only_be_read(server: Server, method: str, path: str) -> None:
    async with server.http.request(method, server.url + path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"


async def test_head_tells_the_same_without_the_file(server: Server) -> None:
    async with server.http.get(f"{server.url}/console/") as whole, server.http.head(f"{server.url}/console/") as head:
        assert head.status == 200
        assert head.headers["ETag"] == whole.headers["ETag"]
        assert await head.read() == b""


async def test_without_tiles_the_page_is_told_of_none(server: Server) -> None:
    async with server.http.get(f"{server.url}/console/config.json") as response:
        assert (await response.json())["tiles"] is None


async def test_a_tile_server_is_all_that_images_may_come_from_besides() -> None:
    tiles = Tiles.parse("https://Tiles.example.com:8443/a/{z}/{x}/{y}.png?key=k;script-src", "© them")
    async with serving(lambda world: world.with_(tiles=tiles)) as server:
        async with server.http.get(f"{server.url}/console/config.json") as response:
            assert (await response.json())["tiles"] == {"url": tiles.url, "attribution": "© them"}
            policy = policy_of(dict(response.headers))
        assert policy == {**POLICY, "img-src": "'self' data: https://tiles.example.com:8443"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tiles.example.com/{z}/{x}/{y}", "http"),
        ("ftp://tiles.example.com/{z}/{x}/{y}", "http"),
        ("https://user:word@tiles.example.com/{z}/{x}/{y}", "user"),
        ("https://tiles.example.com; script-src */{z}/{x}/{y}", "http"),
        ("https://tiles.example.com/{z}/{x}/{y}\r\nSet-Cookie: a", "printable"),
        ("https://{s}.example.com/{z}/{x}/{y}", "http"),
        ("https://[::1]:8080/{z}/{x}/{y}", "http"),
        ("https://tiles.example.com/{z}/{x}", r"\{y\}"),
        ("https://tiles.example.com/", r"\{z\}, \{x\}, \{y\}"),
    ],
)
def test_an_address_of_tiles_that_cannot_be_one_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Tiles.parse(url, "")


def source(name: str) -> str:
    return (resources.files("haulcast.transport") / "console" / name).read_text()


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_scripts_load_nothing_but_each_other_and_never_make_markup_from_text(name: str) -> None:
    text = source(name)
    for imported in re.findall(r"from '([^']+)'", text):
        assert imported.removeprefix("./") in FILES, imported
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert 20 <= len(text.splitlines()) <= 400
    assert text.startswith("/**"), "it opens with what it is about"


def test_the_page_has_no_code_of_its_own_and_loads_nothing_from_elsewhere() -> None:
    page = source("index.html")
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"\son\w+=|\sstyle=|<style", page)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address in FILES, address
    assert "http" not in source("console.css")
