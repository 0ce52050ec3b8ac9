"""REST: the same requests as over WebSocket, by one table of routes.

1. A route names the wire struct that its body (for GET: its query) and the parameters of its path are read into.
   Everything else (who may, what happens) is the handlers' business.
2. `Idempotency-Key` stands for the request's id: commands whose answers are kept cannot do without.
3. Every answer is JSON, errors included: `{"error": {code, message, retry, data}}` with the status of `ERRORS`.
4. Pages of allowed origins may call (CORS); there are no cookies, so nothing happens in anybody's name without a token.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil

from aiohttp import ETag, hdrs, web
from aiohttp.helpers import ETAG_ANY
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from haulcast.domain.ids import TenantId, TransporterId
from haulcast.domain.replies import Json
from haulcast.domain.settings import TenantSettings
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Role

from . import wire
from .answers import error_of, refusal
from .auth import Principal
from .close_codes import CloseCode
from .codec import decode_body, decode_query, dumps, is_request_id
from .console import Console
from .handlers import LOGGED, Caller, Handlers
from .http_edge import (
    IDEMPOTENCY_KEY,
    JSON_TYPE,
    AiohttpLog,
    edge_middleware,
    error_response,
    expectation,
    hide_versions,
    nowhere,
)
from .rates import PHONES
from .services import Services
from .session import Rate, TokenBucket
from .websocket import WebSockets

BODY_WITHIN_S = 10.0
MAX_BUCKETS = 10_000
"""Callers whose rate is remembered; a bucket takes about 300 bytes, and is full again after two seconds anyway."""


@dataclass(frozen=True, slots=True)
class Route:
    """A REST call. Parameters in `{braces}` of the path fill the fields of `request` that have their name. `tagged` is
    the part of the reply of which the answer's ETag tells whether it has changed."""

    method: str
    path: str
    request: type[wire.Request]
    status: Callable[[Mapping[str, Json]], int] = lambda data: 200
    tagged: str | None = None


def _created(data: Mapping[str, Json]) -> int:
    return 201


def _created_if_new(data: Mapping[str, Json]) -> int:
    return 201 if data["created"] else 200


def _accepted(data: Mapping[str, Json]) -> int:
    """It holds, but not every node has said that it has followed."""
    return 200 if data["complete"] else 202


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/broadcasts", wire.BroadcastCreate, _created),
    Route("GET", "/v1/broadcasts", wire.BroadcastList),
    Route("GET", "/v1/broadcasts/{broadcast_id}", wire.BroadcastGet),
    Route("POST", "/v1/broadcasts/{broadcast_id}/cancel", wire.BroadcastCancel),
    Route("POST", "/v1/broadcasts/{broadcast_id}/accept", wire.OfferAccept),
    Route("POST", "/v1/broadcasts/{broadcast_id}/decline", wire.OfferDecline),
    Route("GET", "/v1/offers", wire.OfferList),
    Route("GET", "/v1/topics/{topic}", wire.TopicGet, tagged="data"),
    Route("GET", "/v1/nodes", wire.NodeList),
    Route("PUT", "/v1/availability", wire.AvailabilityPut),
    Route("POST", "/v1/location", wire.Location),
    Route("POST", "/v1/trips/{trip_id}/update", wire.TripUpdate),
    Route("PUT", "/v1/fleet/transporters/{transporter_id}", wire.TransporterPut),
    Route("PUT", "/v1/fleet/vehicles/{vehicle_id}", wire.VehiclePut),
    Route("PUT", "/v1/fleet/drivers/{driver_id}", wire.DriverPut),
    Route("GET", "/v1/settings", wire.SettingsGet),
    Route("PATCH", "/v1/settings", wire.SettingsPatch, _accepted),
    Route("GET", "/v1/settings/history", wire.SettingsHistory),
    Route("GET", "/v1/control", wire.ControlLog),
    Route("POST", "/v1/control/pause", wire.ControlPause, _accepted),
    Route("POST", "/v1/control/resume", wire.ControlResume, _accepted),
    Route("POST", "/v1/control/reload_settings", wire.ControlReloadSettings, _accepted),
    Route("POST", "/v1/control/switch_mode", wire.ControlSwitchMode, _accepted),
    Route("POST", "/v1/control/announce", wire.ControlAnnounce, _accepted),
    Route("POST", "/v1/control/drain_node", wire.ControlDrainNode, _accepted),
    Route("PUT", "/v1/tenants/{tenant_id}", wire.TenantPut, _created_if_new),
)


class Edge:
    """Everything of `transport` that serves clients, as one aiohttp application.

    Runners take `access_log=None` and `logger=aiohttp_log` (addresses and payloads stay out of logs), and no
    `handler_cancellation`.
    """

    def __init__(self, services: Services) -> None:
        self._handlers = Handlers(services)
        self._websockets = WebSockets(services, self._handlers)
        self.app = web.Application(
            middlewares=[edge_middleware(services)],
            client_max_size=services.limits.max_frame_bytes,
        )
        self.aiohttp_log = AiohttpLog(services.metrics)
        router = self.app.router
        expect = expectation(services.metrics)
        router.add_route("GET", "/v1/ws", self._websockets.handle, expect_handler=expect)
        rest = Rest(services, self._handlers)
        for route in ROUTES:
            router.add_route(route.method, route.path, rest.serve(route), expect_handler=expect)
        operations = Operations(services)
        router.add_get("/health/live", operations.live, expect_handler=expect)
        router.add_get("/health/ready", operations.ready, expect_handler=expect)
        router.add_get("/health/detailed", operations.detailed, expect_handler=expect)
        router.add_get("/metrics", operations.metrics, expect_handler=expect)
        for path, page in Console(services.tiles).routes().items():
            router.add_get(path, page, expect_handler=expect)
        router.add_route(hdrs.METH_ANY, "/{path:.*}", nowhere, expect_handler=expect)
        self.app.on_response_prepare.append(hide_versions)
        self.app.on_shutdown.append(self._shut_down)

    async def close(self, spread_s: float = 0.0, retry_in_s: int = 1) -> None:
        """Tell all WebSockets to come back later (4200), evenly over `spread_s`; returns when all have ended."""
        await self._websockets.drain(spread_s, retry_in_s)
        await self._handlers.close()

    def dismiss(self, code: CloseCode, over_s: float = 0.0) -> None:
        """Send all clients that are connected now away, to come back at once, evenly over `over_s`. The node goes on
        and takes whoever comes."""
        self._websockets.dismiss(code, over_s)

    def fleet_changed(self, sender: int, payload: bytes) -> None:
        """Take note of a fleet change that another node tells of (`Kind.FLEET`). Raises `msgspec.MsgspecError`."""
        self._handlers.fleet_changed(sender, payload)

    async def _shut_down(self, app: web.Application) -> None:
        await self.close()


class Rest:
    """Serves the routes."""

    def __init__(self, services: Services, handlers: Handlers) -> None:
        self._services = services
        self._handlers = handlers
        self._buckets: OrderedDict[tuple[TenantId, Role, str], TokenBucket] = OrderedDict()  # latest callers last

    def serve(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The aiohttp handler of one route."""
        request_type = wire.TYPE_OF[route.request]

        async def handle(http: web.Request) -> web.StreamResponse:
            started = self._services.clock.monotonic_s()
            try:
                response = await self._call(route, request_type, http)
                outcome = "ok"
            except RequestError as error:
                response = error_response(error)
                outcome = error.code
            self._services.metrics.requests.observe(request_type, outcome, self._services.clock.monotonic_s() - started)
            return response

        return handle

    async def _call(self, route: Route, request_type: str, http: web.Request) -> web.Response:
        """Carry out one call. Raises `RequestError`, already logged."""
        who: dict[str, str] = {}
        request_id: str | None = None
        try:
            principal, rate = await self._authenticate(http)
            who.update(tenant=principal.tenant_id, user=principal.user_id)
            self._count(principal, rate)
            request_id = _request_id(http, required=route.request in LOGGED)
            if http.method == hdrs.METH_GET:
                request = decode_query(http.query, http.match_info, route.request)
            else:
                request = decode_body(await _body(http), http.match_info, route.request)
            if principal.role is Role.TRANSPORTER:
                self._services.availability.heard_from(principal.tenant_id, TransporterId(principal.user_id))
            reply = await self._handlers.carry_out(Caller(principal), request_id, request)
            error = refusal(reply)
        except web.HTTPException:
            raise
        except Exception as exception:
            raise error_of(exception, request_type, request_id, who) from None
        if error is not None:
            raise error
        response = web.Response(content_type=JSON_TYPE)
        if route.tagged is not None:
            tag = blake2b(dumps(reply.data[route.tagged]), digest_size=12).hexdigest()
            response.etag = ETag(tag)
            response.headers[hdrs.CACHE_CONTROL] = "private, no-cache"
            if any(held.value in (tag, ETAG_ANY) for held in http.if_none_match or ()):
                response.set_status(304)
                return response
        response.set_status(route.status(reply.data))
        response.body = dumps(reply.data)
        return response

    def _count(self, principal: Principal, rate: Rate) -> None:
        """Hold phones to the rate that they have on a WebSocket. Raises `RequestError` RATE_LIMITED. Operators may load
        a whole fleet."""
        if principal.role not in PHONES:
            return
        now = self._services.clock.monotonic_s()
        user = (principal.tenant_id, principal.role, principal.user_id)
        bucket = self._buckets.pop(user, None) or TokenBucket(rate, now)
        self._buckets[user] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if wait_s := bucket.take(now):
            raise RequestError(ErrorCode.RATE_LIMITED, retry_after_ms=ceil(wait_s * 1000))

    async def _authenticate(self, http: web.Request) -> tuple[Principal, Rate]:
        """Who calls, and how often they may."""
        scheme, _, token = http.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer":
            raise RequestError(ErrorCode.UNAUTHENTICATED)
        principal = self._services.keys.verify(token.strip(), self._services.clock.now_ms())
        settings = TenantSettings()
        if principal.role is not Role.ADMIN:  # an admin belongs to the deployment, and makes the tenants
            settings = (await self._services.tenants.control_of(principal.tenant_id)).settings
        return principal, self._services.rates.of(principal.tenant_id, principal.role, settings)


class Operations:
    """What load balancers, Prometheus and operators ask, without a token."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def live(self, http: web.Request) -> web.Response:
        """Whether the process should be left running."""
        return _health(self._services.health.live())

    async def ready(self, http: web.Request) -> web.Response:
        """Whether it should be sent clients."""
        return _health(await self._services.health.ready())

    async def detailed(self, http: web.Request) -> web.Response:
        """How each part is."""
        return web.Response(body=dumps(await self._services.health.detailed()), content_type=JSON_TYPE)

    async def metrics(self, http: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(
            body=generate_latest(self._services.registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
        )


def _health(fine: bool) -> web.Response:
    body = dumps({"status": "ok" if fine else "unavailable"})
    return web.Response(body=body, status=200 if fine else 503, content_type=JSON_TYPE)


def _request_id(http: web.Request, *, required: bool) -> str | None:
    key = http.headers.get(IDEMPOTENCY_KEY)
    if key is None and not required:
        return None
    if key is None or not is_request_id(key):
        raise RequestError(
            ErrorCode.BAD_REQUEST,
            f"header.{IDEMPOTENCY_KEY}: expected 1 to 64 printable ASCII characters",
            field=f"header.{IDEMPOTENCY_KEY}",
        )
    return key


async def _body(http: web.Request) -> bytes:
    if http.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        message = "body: expected plain JSON, without a Content-Encoding"
        raise RequestError(ErrorCode.BAD_REQUEST, message, field="body")
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            return await http.read()
    except TimeoutError:
        message = f"body: it did not come within {BODY_WITHIN_S:.0f} s"
        raise RequestError(ErrorCode.BAD_REQUEST, message, field="body") from None
    except (web.RequestPayloadError, ConnectionResetError):
        message = "body: it is not complete"
        raise RequestError(ErrorCode.BAD_REQUEST, message, field="body") from None
