"""REST: the same requests as over WebSocket, by one table of routes.

1. A route names the wire struct that its body, and the parameters of its path, are read into. Everything else (who
   may, what happens) is the handlers' business.
2. `Idempotency-Key` stands for the request's id: commands whose answers are kept cannot do without.
3. Every answer is JSON, errors included: `{"error": {code, message, retry, data}}` with the status of `ERRORS`.
4. Pages of allowed origins may call (CORS); there are no cookies, so nothing happens in anybody's name without a token.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from haulcast.domain.ids import TransporterId
from haulcast.domain.replies import Json
from haulcast.errors import ERRORS, ErrorCode, RequestError
from haulcast.ports import Role

from . import wire
from .answers import error_of, refusal
from .auth import Principal
from .codec import decode_body, dumps, error_body, is_request_id
from .handlers import LOGGED, Caller, Handlers
from .metrics import TransportMetrics
from .origins import Origins
from .services import Services
from .websocket import WebSockets

log = structlog.get_logger()

IDEMPOTENCY_KEY = "Idempotency-Key"
JSON_TYPE = "application/json"
CORS_MAX_AGE_S = 600


@dataclass(frozen=True, slots=True)
class Route:
    """A REST call. Parameters in `{braces}` of the path fill the fields of `request` that have their name."""

    method: str
    path: str
    request: type[wire.Request]
    status: Callable[[Mapping[str, Json]], int] = lambda data: 200


def _created(data: Mapping[str, Json]) -> int:
    return 201


def _created_if_new(data: Mapping[str, Json]) -> int:
    return 201 if data["created"] else 200


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/broadcasts", wire.BroadcastCreate, _created),
    Route("GET", "/v1/broadcasts", wire.BroadcastList),
    Route("GET", "/v1/broadcasts/{broadcast_id}", wire.BroadcastGet),
    Route("POST", "/v1/broadcasts/{broadcast_id}/cancel", wire.BroadcastCancel),
    Route("POST", "/v1/broadcasts/{broadcast_id}/accept", wire.OfferAccept),
    Route("POST", "/v1/broadcasts/{broadcast_id}/decline", wire.OfferDecline),
    Route("GET", "/v1/offers", wire.OfferList),
    Route("PUT", "/v1/availability", wire.AvailabilityPut),
    Route("POST", "/v1/location", wire.Location),
    Route("POST", "/v1/trips/{trip_id}/update", wire.TripUpdate),
    Route("PUT", "/v1/fleet/transporters/{transporter_id}", wire.TransporterPut),
    Route("PUT", "/v1/fleet/vehicles/{vehicle_id}", wire.VehiclePut),
    Route("PUT", "/v1/fleet/drivers/{driver_id}", wire.DriverPut),
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
            middlewares=[_edge(services)],
            client_max_size=services.limits.max_frame_bytes,
        )
        self.aiohttp_log = AiohttpLog(services.metrics)
        router = self.app.router
        router.add_get("/v1/ws", self._websockets.handle)
        rest = Rest(services, self._handlers)
        for route in ROUTES:
            router.add_route(route.method, route.path, rest.serve(route))
        operations = Operations(services)
        router.add_get("/health/live", operations.live)
        router.add_get("/health/ready", operations.ready)
        router.add_get("/health/detailed", operations.detailed)
        router.add_get("/metrics", operations.metrics)
        self.app.on_response_prepare.append(_hide_versions)
        self.app.on_shutdown.append(self._shut_down)

    async def close(self, spread_s: float = 0.0, retry_in_s: int = 1) -> None:
        """Tell all WebSockets to come back later (4200), evenly over `spread_s`; returns when all have ended."""
        await self._websockets.drain(spread_s, retry_in_s)
        await self._handlers.close()

    async def _shut_down(self, app: web.Application) -> None:
        await self.close()


class Rest:
    """Serves the routes."""

    def __init__(self, services: Services, handlers: Handlers) -> None:
        self._services = services
        self._handlers = handlers

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
            self._services.metrics.requests.labels(request_type, outcome).inc()
            latency_s = self._services.clock.monotonic_s() - started
            self._services.metrics.request_latency_s.labels(request_type).observe(latency_s)
            return response

        return handle

    async def _call(self, route: Route, request_type: str, http: web.Request) -> web.Response:
        """Carry out one call. Raises `RequestError`, already logged."""
        who: dict[str, str] = {}
        request_id: str | None = None
        try:
            principal = await self._authenticate(http)
            who.update(tenant=principal.tenant_id, user=principal.user_id)
            request_id = _request_id(http, required=route.request in LOGGED)
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
        return web.Response(body=dumps(reply.data), status=route.status(reply.data), content_type=JSON_TYPE)

    async def _authenticate(self, http: web.Request) -> Principal:
        scheme, _, token = http.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() != "bearer":
            raise RequestError(ErrorCode.UNAUTHENTICATED)
        principal = self._services.keys.verify(token.strip(), self._services.clock.now_ms())
        if principal.role is not Role.ADMIN:  # an admin belongs to the deployment, and makes the tenants
            await self._services.tenants.settings_of(principal.tenant_id)
        return principal


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


def error_response(error: RequestError, status: int | None = None) -> web.Response:
    """An error as the body of an HTTP response."""
    spec = ERRORS[error.code]
    headers = {}
    if error.code is ErrorCode.UNAUTHENTICATED:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if spec.retry:
        headers[hdrs.RETRY_AFTER] = str(_retry_after_s(error))
    body = dumps({"error": error_body(error)})
    return web.Response(body=body, status=status or spec.http_status, headers=headers, content_type=JSON_TYPE)


def _retry_after_s(error: RequestError) -> int:
    """In whole seconds, which is all that the header can say."""
    wait_ms = error.data.get("retry_after_ms")
    return max(1, ceil(wait_ms / 1000)) if isinstance(wait_ms, int | float) else 1


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
    try:
        return await http.read()
    except (web.RequestPayloadError, ConnectionResetError):
        message = "body: it is not complete, or not encoded as its headers say"
        raise RequestError(ErrorCode.BAD_REQUEST, message, field="body") from None


# --- What holds for every address ------------------------------------------------------------------------------------


async def _hide_versions(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "haulcast"


def _edge(services: Services) -> Middleware:
    """CORS, and errors of aiohttp itself (no such address, body too large) in the form of all others."""
    origins = Origins(services.origins)

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        allowed = origin is not None and origins.allow(origin, request.host)
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            response: web.StreamResponse = web.Response(status=204)
            if allowed:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, PUT"
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = f"Authorization, Content-Type, {IDEMPOTENCY_KEY}"
                response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(CORS_MAX_AGE_S)
        else:
            response = await _answer(request, handler, services.metrics)
        if not response.prepared:  # a WebSocket that has ended is
            response.headers[hdrs.VARY] = hdrs.ORIGIN
            if origin is not None and allowed:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
                response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
        return response

    return edge


async def _answer(request: web.Request, handler: Handler, metrics: TransportMetrics) -> web.StreamResponse:
    """Have the request handled. What no route has answered is refused here: logged and counted as type `http`."""
    status: int | None = None
    headers: dict[str, str] = {}
    failure: Exception
    try:
        return await handler(request)
    except web.HTTPNotFound:
        failure = RequestError(ErrorCode.NOT_FOUND)
    except web.HTTPMethodNotAllowed as refused:
        methods = headers[hdrs.ALLOW] = ", ".join(sorted(refused.allowed_methods))
        failure, status = RequestError(ErrorCode.NOT_FOUND, f"This address takes {methods}."), refused.status
    except web.HTTPRequestEntityTooLarge as refused:
        failure, status = RequestError(ErrorCode.BAD_REQUEST, "body: it is too large", field="body"), refused.status
    except web.HTTPException as refused:  # whatever else aiohttp finds wrong with a request
        if refused.status < 400:
            raise
        failure, status = RequestError(ErrorCode.BAD_REQUEST), refused.status
    except Exception as exception:
        failure = exception
    error = error_of(failure, "http", None, {})
    metrics.requests.labels("http", error.code).inc()
    response = error_response(error, status)
    response.headers.update(headers)
    return response


class AiohttpLog(logging.Logger):
    """What aiohttp itself has to say. Of what is not HTTP it would log the peer's address and quote what came, perhaps
    a token."""

    def __init__(self, metrics: TransportMetrics) -> None:
        super().__init__("haulcast.http", logging.WARNING)
        self._metrics = metrics

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """See `logging.Logger`."""
        error = kwargs.get("exc_info")
        if isinstance(error, web.RequestPayloadError):
            pass  # the rest of a body whose request has been answered
        elif isinstance(error, HttpProcessingError):
            self._metrics.requests.labels("http", ErrorCode.BAD_REQUEST).inc()
            log.info("http_unreadable", error=type(error).__name__)
        else:
            log.error("http_failed", exc_info=error)
