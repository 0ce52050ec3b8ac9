"""What holds for every address: CORS, errors in one form, and what aiohttp would otherwise answer or log by itself.

1. `edge_middleware` sees every request that has an address, `nowhere` those whose address or method there is not.
2. `expectation` stands before it: aiohttp's own quotes the header, and fails if that is not UTF-8.
3. `AiohttpLog` hears of what never becomes a request.
Whatever is refused here is logged once and counted once, as a request of type `http`.
"""

import logging
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from haulcast.errors import ERRORS, ErrorCode, RequestError

from .answers import error_of
from .codec import dumps, error_body
from .metrics import TransportMetrics
from .origins import Origins
from .services import Services

log = structlog.get_logger()

IDEMPOTENCY_KEY = "Idempotency-Key"
JSON_TYPE = "application/json"
CORS_MAX_AGE_S = 600
_CORS_HEADERS = ", ".join((hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, IDEMPOTENCY_KEY, hdrs.IF_NONE_MATCH))


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


async def hide_versions(request: web.Request, response: web.StreamResponse) -> None:
    """Say no more in `Server` than a name. For `on_response_prepare`."""
    response.headers[hdrs.SERVER] = "haulcast"


def edge_middleware(services: Services) -> Middleware:
    """CORS, and errors of aiohttp itself (no such address, body too large) in the form of all others."""
    origins = Origins(services.origins)

    @web.middleware
    async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get(hdrs.ORIGIN)
        allowed = origin is not None and origins.allow(origin, request.host)
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            response: web.StreamResponse = web.Response(status=204)
            if allowed:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, PATCH, POST, PUT"
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _CORS_HEADERS
                response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(CORS_MAX_AGE_S)
        else:
            response = await _answer(request, handler, services.metrics)
        if not response.prepared:  # a WebSocket that has ended is
            response.headers[hdrs.VARY] = hdrs.ORIGIN
            if origin is not None and allowed:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
                response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = f"{hdrs.ETAG}, {hdrs.RETRY_AFTER}"
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
        too_large = f"body: expected at most {request.client_max_size:,} bytes"
        failure, status = RequestError(ErrorCode.BAD_REQUEST, too_large, field="body"), refused.status
    except web.HTTPException as refused:  # whatever else aiohttp finds wrong with a request
        if refused.status < 400:
            raise
        failure, status = RequestError(ErrorCode.BAD_REQUEST), refused.status
    except ConnectionResetError:  # the client has gone, and aiohttp knows what to do
        raise
    except Exception as exception:
        failure = exception
    response = _refuse(failure, metrics, status)
    response.headers.update(headers)
    return response


def _refuse(failure: Exception, metrics: TransportMetrics, status: int | None) -> web.Response:
    error = error_of(failure, "http", None, {})
    metrics.requests.count("http", error.code)
    return error_response(error, status)


async def nowhere(request: web.Request) -> web.StreamResponse:
    """The route of all addresses, after all others: there is nothing here, or nothing for this method."""
    allowed = {route.method for route in request.app.router.routes() if _leads(route, request.rel_url.raw_path)}
    raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound


def _leads(route: web.AbstractRoute, path: str) -> bool:
    info = route.get_info()
    if route.method == hdrs.METH_ANY:  # `nowhere` itself
        return False
    return info.get("path") == path or ("pattern" in info and info["pattern"].fullmatch(path) is not None)


def expectation(metrics: TransportMetrics) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    """What is done about an `Expect` header, for each route: None to go on."""

    async def expect(request: web.Request) -> web.StreamResponse | None:
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # of the answer, which is still to come
            return None
        message = "header.Expect: expected 100-continue"
        return _refuse(RequestError(ErrorCode.BAD_REQUEST, message, field="header.Expect"), metrics, 417)

    return expect


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
            self._metrics.requests.count("http", ErrorCode.BAD_REQUEST)
            log.info("http_unreadable", error=type(error).__name__)
        else:
            log.error("http_failed", exc_info=error)
