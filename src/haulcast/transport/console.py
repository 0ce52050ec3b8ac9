"""The operator console: a page of static files in `console/`, served by every node at `/console/`.

1. What is served is a table that is read once, at the start: a name that is not in it does not exist, so no name leads
   out of it.
2. The page holds no secrets and is served to everybody. All that it shows it asks for like any other client, with an
   operator's token.
3. The page may load and call nothing but this server, and images of the tile server if there is one. Scripts cannot be
   injected: there is no inline code, and the browser refuses to make elements from strings (trusted types).
"""

from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from importlib import resources
from typing import NamedTuple

from aiohttp import ETag, hdrs, web
from aiohttp.helpers import ETAG_ANY
from aiohttp.typedefs import Handler

from haulcast import __version__

from .codec import dumps
from .tiles import Tiles

PATH = "/console"
INDEX = "index.html"
CONFIG = "config.json"
_TYPES: Mapping[str, str] = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}


class Asset(NamedTuple):
    """A file as it is served."""

    body: bytes
    content_type: str
    tag: str

    @classmethod
    def of(cls, name: str, body: bytes) -> "Asset":
        """The file of that name, which has a known suffix."""
        return cls(body, _TYPES[name[name.rindex(".") :]], blake2b(body, digest_size=12).hexdigest())


@cache
def _files() -> Mapping[str, Asset]:
    """What is in `console/`, by name."""
    folder = resources.files(__package__) / "console"
    return {file.name: Asset.of(file.name, file.read_bytes()) for file in folder.iterdir() if file.is_file()}


class Console:
    """Serves the page."""

    def __init__(self, tiles: Tiles | None) -> None:
        chosen = None if tiles is None else {"url": tiles.url, "attribution": tiles.attribution}
        config = dumps({"version": __version__, "tiles": chosen})
        self._assets = {**_files(), CONFIG: Asset.of(CONFIG, config)}
        self._headers = {
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.CONTENT_SECURITY_POLICY: _policy(tiles),
            hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff",
            hdrs.REFERRER_POLICY: "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    def routes(self) -> Mapping[str, Handler]:
        """What answers GET and HEAD at each path."""
        return {PATH: self.redirect, f"{PATH}/": self.serve, f"{PATH}/{{asset}}": self.serve}

    async def redirect(self, http: web.Request) -> web.StreamResponse:
        """To the page itself; relative, so that it holds behind a proxy's prefix too."""
        return web.Response(status=308, headers={**self._headers, hdrs.LOCATION: f"{PATH[1:]}/"})

    async def serve(self, http: web.Request) -> web.StreamResponse:
        """A file of the page."""
        asset = self._assets.get(http.match_info.get("asset", INDEX))
        if asset is None:
            raise web.HTTPNotFound
        response = web.Response(headers=self._headers)
        response.etag = ETag(asset.tag)
        if any(held.value in (asset.tag, ETAG_ANY) for held in http.if_none_match or ()):
            response.set_status(304)
            return response
        response.content_type, response.charset = asset.content_type, "utf-8"
        response.body = asset.body
        return response


def _policy(tiles: Tiles | None) -> str:
    images = "'self' data:" if tiles is None else f"'self' data: {tiles.origin}"
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src {images}",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
