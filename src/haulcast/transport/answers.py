"""What an outcome means to the client, whether it came by WebSocket or by REST."""

import asyncio
from collections.abc import Mapping

import structlog

from haulcast.domain.replies import Refused, Reply
from haulcast.errors import ErrorCode, RequestError, StoreUnavailable

log = structlog.get_logger()


def refusal(reply: Reply) -> RequestError | None:
    """The error that a refusal of the core is; None for a yes."""
    return RequestError(reply.code, **reply.data) if isinstance(reply, Refused) else None


def error_of(error: BaseException, request_type: str, request_id: str | None, who: Mapping[str, str]) -> RequestError:
    """What to answer when a request ended with `error`, which is logged. Neither says anything of the content."""
    about = {"type": request_type, "request_id": request_id, **who}
    if isinstance(error, RequestError):
        if error.reason:
            about["reason"] = error.reason
        # A flood must not fill the log as well.
        tell = log.debug if error.code is ErrorCode.RATE_LIMITED else log.info
        tell("request_refused", code=error.code, **about)
        return error
    if isinstance(error, StoreUnavailable | TimeoutError | asyncio.CancelledError):
        log.warning("request_unavailable", reason=type(error).__name__, **about)
        return RequestError(ErrorCode.UNAVAILABLE)
    log.error("request_failed", exc_info=error, **about)
    return RequestError(ErrorCode.INTERNAL)
