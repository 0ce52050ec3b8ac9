"""Frames, and what the end of a connection means: the part of the protocol that needs no I/O.

1. A request is `{id, type, data}`. Its id is the client's own and makes it idempotent: sent again, on this connection
   or the next, it is answered the same and done once. So whatever was in flight when a connection broke is sent again.
2. The close code says whether to come back. 4000-4099: not unchanged (4001: once more with a new token). 4100-4199:
   wait first. 4200-4299: at once, or after the `retry_in_s` of the reason. No code, or any that a network makes: wait,
   briefly.
3. Waiting is exponential with full jitter, so that clients thrown off together do not come back together. A connection
   counts as a success, and starts the waiting anew, only once it has lasted `SETTLED_S`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgspec

from .errors import ConnectionClosed, ProtocolError, ServerError

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object as it comes off the wire; its shape depends on the request or the topic."""

SUBPROTOCOL = "haulcast.v1.json"
MAX_FRAME_BYTES = 64 * 1024
"""The longest frame that the server takes."""
SETTLED_S = 5.0

_GIVE_UP = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""Codes of RFC 6455 by which the other side says that this side broke the protocol."""


class Version(NamedTuple):
    """How new a topic's state is. Compares as a tuple: a later owner's word outranks an earlier one's."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request: `error` or, if that is None, `data`. `to`: None if the server could not read the id."""

    to: str | None
    data: JsonObject
    error: ServerError | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A topic's whole state."""

    topic: str
    version: Version
    server_time_ms: int
    data: JsonObject


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed in a topic between two versions; the keys are JSON Pointers (RFC 6901) into its state."""

    topic: str
    base: Version
    version: Version
    server_time_ms: int
    set: JsonObject
    delete: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell the user. `replayed`: the client found it in a snapshot, having missed the event itself."""

    topic: str
    event: str
    data: JsonObject
    version: Version
    server_time_ms: int
    replayed: bool = False


ANNOUNCEMENT = "announcement"
"""The name of the event that an announcement is to the user; it has no topic, and (0, 0) as its version."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the operators have to say to everybody of the user's role. The same may come more than once."""

    announcement_id: str
    server_time_ms: int
    data: JsonObject

    def event(self) -> Event:
        """What the user gets."""
        return Event("", ANNOUNCEMENT, self.data, Version(0, 0), self.server_time_ms)


Frame: TypeAlias = Reply | Snapshot | Delta | Event | Announcement


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str = ""
    retry: bool = False
    data: JsonObject = {}


class _Incoming(msgspec.Struct, frozen=True):
    """All kinds of frames in one, to check the types of whatever is there."""

    type: str | None = None
    re: str | None = None
    ok: bool | None = None
    error: _Error | None = None
    topic: str = ""
    base: Version | None = msgspec.field(name="from", default=None)
    version: Version | None = None
    server_time: int = 0
    event: str = ""
    data: JsonObject = {}


class _Patch(msgspec.Struct, frozen=True):
    set: JsonObject = {}
    delete: tuple[str, ...] = msgspec.field(name="del", default=())


class _Announcement(msgspec.Struct, frozen=True):
    announcement_id: str
    text: str
    at: int
    expires_at: int


_decode = msgspec.json.Decoder(_Incoming).decode


def decode(text: str) -> Frame | None:
    """The frame, or None if it is of a kind that this client does not know. Raises `ProtocolError`."""
    try:
        raw = _decode(text)
        if raw.ok is not None:
            return _reply(raw)
        if raw.type in ("snapshot", "delta", "event"):
            return _topic_frame(raw)
        if raw.type == ANNOUNCEMENT:
            announced = msgspec.convert(raw.data, _Announcement)
            return Announcement(announced.announcement_id, raw.server_time, raw.data)
        return None
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise ProtocolError(f"a frame that is not the protocol: {error}") from error


def _reply(raw: _Incoming) -> Reply:
    if raw.ok:
        return Reply(raw.re, raw.data)
    if raw.error is None:
        raise ProtocolError("a refusal without an error")
    error = raw.error
    return Reply(raw.re, {}, ServerError(error.code, error.message, error.retry, error.data))


def _topic_frame(raw: _Incoming) -> Frame:
    if raw.version is None or not raw.topic:
        raise ProtocolError(f"{raw.type} without topic and version")
    if raw.type == "snapshot":
        return Snapshot(raw.topic, raw.version, raw.server_time, raw.data)
    if raw.type == "event":
        return Event(raw.topic, raw.event, raw.data, raw.version, raw.server_time)
    if raw.base is None:
        raise ProtocolError("a delta without the version it builds on")
    patch = msgspec.convert(raw.data, _Patch)
    return Delta(raw.topic, raw.base, raw.version, raw.server_time, patch.set, patch.delete)


def encode(request_type: str, data: JsonObject, request_id: str | None = None) -> str:
    """The frame of a request. Raises `ValueError` for one that no server would take."""
    frame: JsonObject = {"type": request_type, "data": data}
    if request_id is not None:
        if not (0 < len(request_id) <= 64 and request_id.isprintable()):
            raise ValueError(f"a request id has 1 to 64 printable characters: {request_id!r}")
        frame = {"id": request_id, **frame}
    encoded = msgspec.json.encode(frame)
    if len(encoded) > MAX_FRAME_BYTES:
        raise ValueError(f"{request_type} makes a frame of {len(encoded)} bytes; {MAX_FRAME_BYTES} are allowed")
    return encoded.decode()


def backoff_s(attempt: int, base_s: float, cap_s: float, random: Callable[[], float]) -> float:
    """How long to wait before `attempt` (from 0): full jitter, as in the AWS Architecture Blog's "Exponential Backoff
    And Jitter"."""
    return random() * min(cap_s, base_s * 2.0 ** min(attempt, 30))


def retry_delay_s(error: ServerError, attempt: int, random: Callable[[], float]) -> float:
    """How long to wait before a request refused with `retry` is sent again: at least what the server asked for."""
    asked_ms = error.data.get("retry_after_ms", 0)
    asked_s = asked_ms / 1000 if isinstance(asked_ms, int | float) else 0.0
    return asked_s + backoff_s(attempt, 0.1, 5.0, random)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended, or why there was none. `fatal`: coming back unchanged cannot help."""

    code: int | None
    reason: str = ""
    fatal: bool = False
    token_refused: bool = False


def refused_hello(error: ServerError) -> Ending:
    """What an error in answer to a hello means for the connection."""
    return Ending(None, str(error), fatal=not error.retry, token_refused=error.code == "UNAUTHENTICATED")


@dataclass(frozen=True, slots=True)
class ComeBack:
    """Connect again after `delay_s`, with a new token if `renew_token`."""

    delay_s: float
    renew_token: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not connect again."""

    error: ConnectionClosed


@dataclass(slots=True)
class Reconnect:
    """Decides after each connection what comes next. `renewable`: a new token can be asked for."""

    renewable: bool
    random: Callable[[], float]
    attempt: int = field(default=0, init=False)
    """Connections in a row that did not last."""
    renewed: bool = field(default=False, init=False)
    """A new token was asked for and no server has taken it yet."""

    def greeted(self) -> None:
        """The server has taken the token."""
        self.renewed = False

    def after(self, ending: Ending, lasted_s: float) -> ComeBack | GiveUp:
        """What to do after `ending` of a connection that was usable for `lasted_s`."""
        if lasted_s >= SETTLED_S:
            self.attempt = 0
        attempt, self.attempt = self.attempt, self.attempt + 1
        code = ending.code or 0
        if code == 4001 or ending.token_refused:
            if self.renewable and not self.renewed:
                self.renewed = True
                return ComeBack(0.0, renew_token=True)
            return GiveUp(ConnectionClosed(ending.code, ending.reason or "the token was refused"))
        if ending.fatal or 4000 <= code < 4100 or code in _GIVE_UP:
            return GiveUp(ConnectionClosed(ending.code, ending.reason))
        if 4100 <= code < 4200:
            return ComeBack(1.0 + backoff_s(attempt, 2.0, 60.0, self.random))
        if 4200 <= code < 4300:
            asked_s = retry_in_s(ending.reason)
            if asked_s is None and attempt == 0:
                return ComeBack(0.0)
            return ComeBack((asked_s or 0.0) + backoff_s(attempt, 0.25, 20.0, self.random))
        return ComeBack(backoff_s(attempt, 0.25, 20.0, self.random))


_RETRY_IN = re.compile(r"\bretry_in_s=(\d+(?:\.\d+)?)")


def retry_in_s(reason: str) -> float | None:
    """The hint in a close reason, if it has one."""
    found = _RETRY_IN.search(reason)
    return float(found[1]) if found else None
