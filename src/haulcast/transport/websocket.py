"""`GET /v1/ws`: accepts WebSockets, and keeps all of this node's until each has ended."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

import structlog
from aiohttp import HttpVersion11, hdrs, web

from haulcast.errors import ErrorCode, RequestError

from .close_codes import CloseCode
from .connection import Connection
from .handlers import Handlers
from .origins import Origins
from .outbox import Flusher
from .services import Services
from .upgrade import accept, take_over

log = structlog.get_logger()

SUBPROTOCOL = "haulcast.v1.json"
UPGRADES_AT_ONCE = 8
GREETINGS_AT_ONCE = 8
"""When thousands come back at once, those who are connected are served between so many newcomers and the next."""
CLEARED_AWAY_PER_TURN = 50
"""And when thousands are lost at once, between so many and the next: each takes about 20 us."""
_DRAIN_STEP_S = 0.05


class WebSockets:
    """The node's WebSocket end. Once draining, it only tells newcomers to go elsewhere."""

    def __init__(self, services: Services, handlers: Handlers) -> None:
        self._services = services
        self._handlers = handlers
        self._origins = Origins(services.origins)
        self._flusher = Flusher(services.metrics)
        self._upgrades = asyncio.Semaphore(UPGRADES_AT_ONCE)
        self._greetings = asyncio.Semaphore(GREETINGS_AT_ONCE)
        self._connections: set[Connection] = set()
        self._lost: deque[Connection] = deque()  # those of them that are still to be cleared away
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining_hint: str | None = None  # once draining: the reason that sockets are closed with

    def __len__(self) -> int:
        """How many WebSockets are open, greeted or not."""
        return len(self._connections)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Make a WebSocket of the request's connection."""
        offered = _offered_protocols(request)
        if offered and SUBPROTOCOL not in offered:
            raise RequestError(
                ErrorCode.BAD_REQUEST,
                f"{hdrs.SEC_WEBSOCKET_PROTOCOL}: expected {SUBPROTOCOL}",
                field=str(hdrs.SEC_WEBSOCKET_PROTOCOL),
            )
        if not _is_handshake(request):
            raise RequestError(ErrorCode.BAD_REQUEST, "expected a WebSocket handshake, version 13", field="Upgrade")
        async with self._upgrades:
            await asyncio.sleep(0)  # so many in a turn of the loop, however many have come in it
            response, transport = await accept(request, SUBPROTOCOL if offered else None)
        if transport is None:  # gone already
            return response
        connection = Connection(
            transport, self._services, self._handlers, self._flusher, self._greetings, self._on_lost, self._on_end
        )
        self._connections.add(connection)
        self._empty.clear()
        if self._draining_hint is not None:
            connection.close(CloseCode.DRAINING, self._draining_hint)
        elif not self._origins.allow(request.headers.get(hdrs.ORIGIN), request.host):
            connection.close(CloseCode.FORBIDDEN, "origin not allowed")
        take_over(request, transport, connection)  # who was refused before this is not listened to
        return response

    def _on_lost(self, connection: Connection) -> None:
        if not self._lost:
            asyncio.get_running_loop().call_soon(self._clear_away)
        self._lost.append(connection)

    def _clear_away(self) -> None:
        for _ in range(min(len(self._lost), CLEARED_AWAY_PER_TURN)):
            self._lost.popleft().clear_away()
        if self._lost:
            asyncio.get_running_loop().call_soon(self._clear_away)

    def _on_end(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def dismiss(self, code: CloseCode, spread_s: float, retry_in_s: int = 0) -> None:
        """Close every WebSocket that is open now with the hint to come back, evenly over `spread_s`. Newcomers are
        served."""
        connections = list(self._connections)
        steps = max(1, min(int(spread_s / _DRAIN_STEP_S), len(connections)))
        loop = asyncio.get_running_loop()
        for step in range(steps):
            loop.call_later(step * spread_s / steps, _close, connections[step::steps], code, _hint(retry_in_s))

    async def drain(self, spread_s: float, retry_in_s: int = 1) -> None:
        """Close every WebSocket with the hint to come back, evenly over `spread_s`; returns when all have ended,
        or after a while when others keep coming."""
        self._draining_hint = _hint(retry_in_s)
        self.dismiss(CloseCode.DRAINING, spread_s, retry_in_s)
        try:
            async with asyncio.timeout(spread_s + 2 * self._services.limits.close_within_s):
                await self._empty.wait()
        except TimeoutError:
            log.warning("sockets_left_open", count=len(self._connections))


def _close(connections: Iterable[Connection], code: CloseCode, reason: str) -> None:
    for connection in connections:
        connection.close(code, reason)


def _is_handshake(request: web.Request) -> bool:
    if request.version < HttpVersion11 or request.headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        return False
    try:
        return bool(web.WebSocketResponse(protocols=(SUBPROTOCOL,)).can_prepare(request))
    except ValueError:  # a key that is not ASCII
        return False


def _hint(retry_in_s: int) -> str:
    return f"retry_in_s={retry_in_s}"


def _offered_protocols(request: web.Request) -> Sequence[str]:
    lines = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())
    return [name.strip() for line in lines for name in line.split(",") if name.strip()]
