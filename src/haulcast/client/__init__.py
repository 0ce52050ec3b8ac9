"""The reference client: a haulcast user's connection in Python. It shares no code with the server."""

from .client import Client
from .connection import Token
from .errors import ClientError, ConnectionClosed, ProtocolError, RequestTimeout, ServerError
from .protocol import Event, JsonObject, Version
from .topics import Topic

__all__ = [
    "Client",
    "ClientError",
    "ConnectionClosed",
    "Event",
    "JsonObject",
    "ProtocolError",
    "RequestTimeout",
    "ServerError",
    "Token",
    "Topic",
    "Version",
]
