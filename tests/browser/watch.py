"""What goes wrong in a page: a test fails with it unless it has said that it comes.

1. Exceptions that nobody caught, rejected promises, errors on the console and a page that crashes are faults. A
   violation of the page's Content-Security-Policy is among them: the browser reports it on the console.
2. So is every request to another host than the page's own.
3. `expect` takes what a fault may say, for as long as the test lasts: a refused connection, say. It need not come.
"""

import re
from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, WebError, WebSocket

NETWORK_FAILED = r"Failed to load resource: net::ERR_|WebSocket connection to .* failed"
"""What the browser itself says on the console when nobody is there."""


class Watch:
    """Sees all pages of the contexts that it is put over."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._expected: list[re.Pattern[str]] = []

    def over(self, context: BrowserContext) -> None:
        """Look at everything that happens in this context from now on."""
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("page", self._on_page)
        context.on("request", self._on_request)

    def expect(self, *patterns: str) -> None:
        """Faults in which one of these is found are none."""
        self._expected += map(re.compile, patterns)

    def check(self) -> None:
        """Nothing went wrong but what was expected."""
        faults = [fault for fault in self.faults if not any(known.search(fault) for known in self._expected)]
        assert not faults, "in the page:\n" + "\n".join(faults)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_error(self, error: WebError) -> None:
        self.faults.append(f"uncaught: {error.error}")

    def _on_page(self, page: Page) -> None:
        page.on("crash", lambda _: self.faults.append("the page crashed"))
        page.on("websocket", lambda socket: self._on_websocket(page, socket))

    def _on_request(self, request: Request) -> None:
        self._check_host(request.frame.page.url, request.url)

    def _on_websocket(self, page: Page, socket: WebSocket) -> None:
        self._check_host(page.url, socket.url)

    def _check_host(self, page_url: str, url: str) -> None:
        own = urlsplit(page_url).netloc
        if own and urlsplit(url).netloc not in ("", own):
            self.faults.append(f"request to another host: {url}")
