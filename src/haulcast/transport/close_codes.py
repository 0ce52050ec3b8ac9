"""The codes that haulcast closes a WebSocket with.

The number says what a client should do: 4000-4099 do not come back unchanged, 4100-4199 back off first,
4200-4299 come back at once or when told. RFC 6455, section 7.4.2, leaves 4000-4999 to applications.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why the server closed a connection."""

    BAD_TOKEN = 4001
    """The token is missing, not valid, or has expired: get a new one first."""
    FORBIDDEN = 4003
    """The page's origin is not allowed, or the token's tenant does not exist."""
    HELLO_EXPECTED = 4004
    """The first frame was not a hello, or none came in time."""
    MISUSE = 4005
    """A binary frame: the protocol has text frames only."""
    REPLACED = 4009
    """The same user has opened more connections than are kept; the oldest went."""
    SLOW_CONSUMER = 4100
    """The client reads slower than it is sent to, and more than the bound was waiting."""
    RATE_LIMITED = 4129
    """The client went on flooding after it had been told to slow down."""
    DRAINING = 4200
    """The server is about to stop. The reason carries `retry_in_s=N`."""
    NODE_LOST = 4201
    """The others have given this node up, so what it tells may be old. The reason carries `retry_in_s=0`."""
    HEARTBEAT_LOST = 4202
    """Nothing was heard from the client for too long."""
