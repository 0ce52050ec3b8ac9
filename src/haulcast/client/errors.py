"""What the client raises.

ClientError
├── ServerError        a request was answered with an error
├── RequestTimeout     a request was not answered in time (a TimeoutError too)
├── ConnectionClosed   the connection is closed for good
└── ProtocolError      the server sent something that is not the protocol
"""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Something between the client and the server went wrong."""


class ServerError(ClientError):
    """The server answered with an error. `retry`: the same request under the same id may succeed later."""

    def __init__(
        self, code: str, message: str = "", retry: bool = False, data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message
        self.retry = retry
        self.data = dict(data or {})


class RequestTimeout(ClientError, TimeoutError):
    """No answer came in time, so the outcome is not known: ask again under `request_id`, nothing is done twice."""

    def __init__(self, request_type: str, request_id: str, timeout_s: float) -> None:
        super().__init__(f"{request_type} ({request_id}) was not answered within {timeout_s:g} s")
        self.request_id = request_id


class ConnectionClosed(ClientError):
    """The connection is closed and the client does not come back. `code` is the WebSocket's close code, if any."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason if code is None else f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class ProtocolError(ClientError):
    """The server sent something that is not the protocol."""
