"""The protocol of one connection, without any I/O: frames and times in, what is to be done out.

1. `AWAITING_HELLO`: the first frame is a hello and comes within 5 s, or the connection closes (4004). The hello leads
   to one `Greet`; whoever carries it out calls `greeted` or `not_greeted`, and until then the session is `GREETING`.
2. `OPEN`: every good request leads to one `Request`, in order; whoever carries it out calls `finished` when it has been
   answered. At most `max_in_flight` are under way, more are answered BUSY.
3. A frame that cannot be read is answered with an error and the connection goes on; only a binary frame ends it (4005).
4. Every frame, pings included, takes one token of a bucket (50/s, burst 100, or less if the tenant has set it). Without
   one it is refused unread; more than 200 refusals within 10 s close the connection (4129).
5. Whoever has been silent for 25 s is pinged, and closed after 60 s (4202). The connection ends with its token (4001).
6. `CLOSING`: one `Close` has been given out. Nothing leads to anything any more.

Times are seconds on one monotonic clock. `next_deadline` says when `on_time` has something to do.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from math import ceil, inf
from typing import TypeAlias

from haulcast.errors import ErrorCode, RequestError

from . import wire
from .close_codes import CloseCode
from .codec import BadFrame, decode_frame, request_id_of


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one connection."""

    hello_within_s: float = 5.0
    greeting_within_s: float = 10.0
    """How long a hello may take to be answered, before it is answered UNAVAILABLE."""
    max_frame_bytes: int = 65_536
    """Inbound; more is closed with 1009 by the WebSocket layer. Also the bound of a REST body."""
    max_queued_bytes: int = 1_048_576
    """Outbound: frames not yet taken by the operating system."""
    requests_per_s: float = 50.0
    burst_requests: int = 100
    max_refusals: int = 200
    refusal_window_s: float = 10.0
    max_in_flight: int = 64
    ping_after_s: float = 25
    silence_s: float = 60
    close_within_s: float = 5.0
    """How long a peer has to answer a close, before the connection is cut."""


@dataclass(frozen=True, slots=True)
class Error:
    """Answer with an error."""

    request_id: str | None
    error: RequestError


@dataclass(frozen=True, slots=True)
class Greet:
    """Find out whom `token` speaks for, then call `greeted` or `not_greeted`."""

    request_id: str
    token: str = field(repr=False)
    resume: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Request:
    """Carry `request` out, answer it, then call `finished`; but an `Ack` is not answered and not counted."""

    request_id: str | None
    request: wire.Request


@dataclass(frozen=True, slots=True)
class SendPing:
    """Send a WebSocket ping."""


@dataclass(frozen=True, slots=True)
class SendPong:
    """Answer a WebSocket ping."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection, after what was sent before."""

    code: int
    reason: str


Output: TypeAlias = Error | Greet | Request | SendPing | SendPong | Close


class State(Enum):
    """How far a session has come."""

    AWAITING_HELLO = auto()
    GREETING = auto()
    OPEN = auto()
    CLOSING = auto()


@dataclass(slots=True)
class Rate:
    """At most `burst` requests at once and `per_s` in the long run. Changing it changes it for every bucket of it."""

    per_s: float
    burst: int


class TokenBucket:
    """What is left of a rate for one caller. It begins full."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, now: float) -> float:
        """0 if there was a token to take, else the seconds until there is one."""
        self._tokens = min(self.rate.burst, self._tokens + max(0.0, now - self._at) * self.rate.per_s)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate.per_s


class Session:
    """One connection's state. Methods return what is to be done, in order, and never raise for what a peer sent."""

    __slots__ = (
        "_bucket",
        "_heard_at",
        "_hello_due",
        "_in_flight",
        "_limits",
        "_pinged_at",
        "_refused_at",
        "_token_ends",
        "state",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._bucket = TokenBucket(Rate(limits.requests_per_s, limits.burst_requests), now)
        self._refused_at: deque[float] | None = None  # the last max_refusals + 1; most connections never have one
        self._in_flight = 0
        self._heard_at = now
        self._pinged_at = now
        self._hello_due = now + limits.hello_within_s
        self._token_ends = inf
        self.state = State.AWAITING_HELLO

    # --- What comes in ---

    def on_text(self, text: str, now: float) -> list[Output]:
        """A text frame has come."""
        if self.state is State.CLOSING:
            return []
        self._heard_at = now
        if wait_s := self._bucket.take(now):
            return self._refuse(request_id_of(text), wait_s, now)
        try:
            request_id, request = decode_frame(text)
        except BadFrame as bad:
            return self._error(bad.request_id, bad.error)
        if isinstance(request, wire.Hello):
            return self._hello(request_id, request)
        if self.state is not State.OPEN:
            return self._error(request_id, RequestError(ErrorCode.HELLO_REQUIRED))
        if isinstance(request, wire.Ack):
            return [Request(request_id, request)]
        if self._in_flight >= self._limits.max_in_flight:
            return self._error(request_id, RequestError(ErrorCode.BUSY))
        self._in_flight += 1
        return [Request(request_id, request)]

    def on_ping(self, payload: bytes, now: float) -> list[Output]:
        """A WebSocket ping has come."""
        if self.state is State.CLOSING:
            return []
        self._heard_at = now
        if self._bucket.take(now):
            # Unanswered rather than refused: a pong is owed only to the latest ping (RFC 6455, section 5.5.3).
            return self._count_refusal(now)
        return [SendPong(payload)]

    def on_pong(self, now: float) -> list[Output]:
        """A WebSocket pong has come, asked for or not."""
        if self.state is State.CLOSING:
            return []
        self._heard_at = now
        return self._count_refusal(now) if self._bucket.take(now) else []

    def on_binary(self) -> list[Output]:
        """A binary frame has come."""
        return self.close(CloseCode.MISUSE, "text frames only")

    def on_time(self, now: float) -> list[Output]:
        """Do whatever is due."""
        if self.state is State.CLOSING:
            return []
        if self.state is State.AWAITING_HELLO and now >= self._hello_due:
            return self.close(CloseCode.HELLO_EXPECTED, "no hello in time")
        if now >= self._token_ends:
            return self.close(CloseCode.BAD_TOKEN, "token expired")
        if self.state is not State.OPEN:
            return []
        if now >= self._heard_at + self._limits.silence_s:
            return self.close(CloseCode.HEARTBEAT_LOST, "nothing heard")
        if now >= self._ping_due():
            self._pinged_at = now
            return [SendPing()]
        return []

    def next_deadline(self) -> float | None:
        """When `on_time` has something to do next, if nothing else happens before; None: never."""
        if self.state is State.AWAITING_HELLO:
            return self._hello_due
        if self.state is State.OPEN:
            return min(self._ping_due(), self._heard_at + self._limits.silence_s, self._token_ends)
        return None

    # --- What has become of it ---

    def limit(self, rate: Rate) -> None:
        """This rate holds from now on."""
        self._bucket.rate = rate

    def greeted(self, token_ends: float, now: float) -> None:
        """The hello was answered; the token is good until `token_ends`."""
        if self.state is State.GREETING:
            self.state = State.OPEN
            self._token_ends = token_ends
            self._pinged_at = now

    def not_greeted(self, now: float) -> None:
        """The hello was answered with an error after which the client may try again."""
        if self.state is State.GREETING:
            self.state = State.AWAITING_HELLO
            self._hello_due = now + self._limits.hello_within_s

    def finished(self) -> None:
        """One `Request` has been answered."""
        self._in_flight -= 1
        assert self._in_flight >= 0

    def close(self, code: int, reason: str) -> list[Output]:
        """The connection is to end, whoever wants it; only the first call counts."""
        if self.state is State.CLOSING:
            return []
        self.state = State.CLOSING
        return [Close(code, reason)]

    # --- Inside ---

    def _hello(self, request_id: str | None, hello: wire.Hello) -> list[Output]:
        assert request_id is not None  # only an ack may do without
        if self.state is not State.AWAITING_HELLO:
            return self._error(request_id, RequestError(ErrorCode.ALREADY_GREETED))
        self.state = State.GREETING
        return [Greet(request_id, hello.token, hello.resume)]

    def _error(self, request_id: str | None, error: RequestError) -> list[Output]:
        """An error in answer to a frame; it ends the connection if that frame had to be a hello."""
        answer = Error(request_id, error)
        if self.state is State.AWAITING_HELLO:
            return [answer, *self.close(CloseCode.HELLO_EXPECTED, "the first frame is a hello")]
        return [answer]

    def _refuse(self, request_id: str | None, wait_s: float, now: float) -> list[Output]:
        error = RequestError(ErrorCode.RATE_LIMITED, retry_after_ms=ceil(wait_s * 1000))
        return [Error(request_id, error), *self._count_refusal(now)]

    def _count_refusal(self, now: float) -> list[Output]:
        if self._refused_at is None:
            self._refused_at = deque(maxlen=self._limits.max_refusals + 1)
        self._refused_at.append(now)
        full = len(self._refused_at) == self._refused_at.maxlen
        if full and now - self._refused_at[0] <= self._limits.refusal_window_s:
            return self.close(CloseCode.RATE_LIMITED, "too many requests")
        return []

    def _ping_due(self) -> float:
        return max(self._heard_at, self._pinged_at) + self._limits.ping_after_s
