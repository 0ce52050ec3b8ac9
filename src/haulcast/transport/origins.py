"""Which web pages may talk to this server. Browsers say where a page comes from in `Origin`; others say nothing."""

from collections.abc import Collection
from urllib.parse import urlsplit


class Origins:
    """The allowed origins: those listed, and the server's own pages. "*" allows all."""

    def __init__(self, listed: Collection[str]) -> None:
        self._listed = frozenset(origin.rstrip("/").lower() for origin in listed)

    def allow(self, origin: str | None, host: str) -> bool:
        """Whether a request with this `Origin` header (None: it has none) to this `Host` may be served."""
        if origin is None or "*" in self._listed or origin.lower() in self._listed:
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower() != ""
        except ValueError:
            return False
