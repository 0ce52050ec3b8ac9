"""JSON text to typed requests, and replies to JSON.

1. A frame is decoded in two steps: its envelope (id, type, the untouched bytes of data), then data as its type says.
2. Whatever is wrong with a frame is a `RequestError`: BAD_JSON when it is no JSON object, UNKNOWN_TYPE, or BAD_REQUEST
   with the field's path in `data["field"]` (`data.pickup.lat`) and what is expected there in the message.
3. The id of a bad frame is still found where it can be, so that the client knows which request was meant.
4. JSON has no NaN and no infinity; neither gets in (a number too large for a float is out of range).
5. What goes out is encoded once to bytes, and framed once (`frame`), whoever it goes to.
"""

import re
from collections.abc import Mapping, Sequence
from struct import Struct as Packing
from typing import TypeVar, cast

import msgspec
import orjson
from msgspec import UNSET, Raw, Struct, UnsetType

from haulcast.domain.replies import Json
from haulcast.errors import ERRORS, ErrorCode, RequestError

from .wire import ENUMS, FORMS, REQUESTS, Ack, Request, RequestId

R = TypeVar("R", bound=Request)


class BadFrame(Exception):
    """A frame that cannot be carried out: the error to answer with, and the id to answer to if it could be read."""

    def __init__(self, request_id: str | None, error: RequestError) -> None:
        super().__init__(str(error))
        self.request_id = request_id
        self.error = error


class _Envelope(Struct):
    type: str
    id: RequestId | UnsetType = UNSET
    data: Raw = Raw(b"{}")


class _OnlyId(Struct):
    id: RequestId


_envelope = msgspec.json.Decoder(_Envelope)
_only_id = msgspec.json.Decoder(_OnlyId)
_DECODERS: Mapping[str, msgspec.json.Decoder[Request]] = {
    name: msgspec.json.Decoder(struct) for name, struct in REQUESTS.items()
}


def decode_frame(text: str) -> tuple[str | None, Request]:
    """The id (None only for an `ack` without one) and the typed request of a text frame. Raises `BadFrame`."""
    try:
        envelope = _envelope.decode(text)
    except msgspec.ValidationError as error:
        raise BadFrame(_id_of(text), _bad_request(error, "")) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadFrame(None, _bad_json(error)) from None
    request_id = None if envelope.id is UNSET else envelope.id
    decoder = _DECODERS.get(envelope.type)
    if decoder is None:
        raise BadFrame(request_id, RequestError(ErrorCode.UNKNOWN_TYPE))
    if request_id is None and decoder.type is not Ack:
        raise BadFrame(None, RequestError(ErrorCode.BAD_REQUEST, "id: a required field is missing", field="id"))
    try:
        return request_id, decoder.decode(envelope.data)
    except msgspec.ValidationError as error:
        raise BadFrame(request_id, _bad_request(error, "data")) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadFrame(request_id, _bad_json(error)) from None


def request_id_of(text: str) -> str | None:
    """Only the id of a text frame, for a frame that is refused unread."""
    return _id_of(text)


def is_request_id(text: str) -> bool:
    """Whether a client may use `text` as the id of a request."""
    try:
        msgspec.convert(text, RequestId)
    except msgspec.ValidationError:
        return False
    return True


def decode_body(body: bytes, fields: Mapping[str, str], struct: type[R]) -> R:
    """The typed request of a REST call: the JSON object in `body` (empty: {}) with `fields` from the path.

    Raises `RequestError` BAD_JSON or BAD_REQUEST; a field is named `body.pickup.lat` or `path.broadcast_id`.
    """
    try:
        given = msgspec.json.decode(body, type=dict[str, Raw]) if body else {}
        complete = msgspec.json.encode({**given, **fields})
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise _bad_json(error) from None
    try:
        return msgspec.json.decode(complete, type=struct)
    except msgspec.ValidationError as error:
        raise _bad_request(error, "body", frozenset(fields)) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise _bad_json(error) from None


def decode_query(query: Mapping[str, str], path: Mapping[str, str], struct: type[R]) -> R:
    """The typed request of a GET, from its query and the parameters of its path: a field is named `query.limit` or
    `path.broadcast_id`. Raises `RequestError` BAD_REQUEST."""
    try:
        return msgspec.convert({**query, **path}, struct, strict=False)
    except msgspec.ValidationError as error:
        raise _bad_request(error, "query", frozenset(path)) from None


def encode_reply(request_id: str | None, data: Mapping[str, Json]) -> bytes:
    """The payload of a reply that says yes."""
    return dumps({"re": request_id, "ok": True, "data": data})


def encode_error(request_id: str | None, error: RequestError) -> bytes:
    """The payload of a reply that says no."""
    return dumps({"re": request_id, "ok": False, "error": error_body(error)})


def error_body(error: RequestError) -> dict[str, Json]:
    """An error as every client sees it, over WebSocket and REST."""
    return {
        "code": error.code,
        "message": error.message,
        "retry": ERRORS[error.code].retry,
        "data": error.data,
    }


def dumps(value: Json) -> bytes:
    """JSON, as compact as it gets. Any `Mapping` and `Sequence` will do, enums by their value."""
    return orjson.dumps(value, _plain)


def encoded(data: bytes) -> Json:
    """JSON that is encoded already, as a value inside of what `dumps` takes."""
    return cast(Json, orjson.Fragment(data))


def _plain(value: object) -> dict[str, Json] | list[Json]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# --- Frames (RFC 6455, section 5.2): finished, unmasked, as a server sends them --------------------------------------

_TEXT, _CLOSE, _PING, _PONG = 0x81, 0x88, 0x89, 0x8A
_SHORT, _MEDIUM, _LONG = Packing("!BB").pack, Packing("!BBH").pack, Packing("!BBQ").pack


def frame(payload: bytes) -> bytes:
    """A text frame with this payload (UTF-8), ready for any number of sockets."""
    return _header(_TEXT, len(payload)) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; its reason is at most 123 bytes of UTF-8. A code of 0 is none."""
    payload = code.to_bytes(2) + reason.encode() if code else b""
    return _header(_CLOSE, len(payload)) + payload


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping; its payload is at most 125 bytes."""
    return _header(_PING, len(payload)) + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload (at most 125 bytes)."""
    return _header(_PONG, len(payload)) + payload


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return _SHORT(first, length)
    if length < 65_536:
        return _MEDIUM(first, 126, length)
    return _LONG(first, 127, length)


# --- What is wrong with a request, in words --------------------------------------------------------------------------

_AT = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.+)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>.+)`$")


def _bad_json(error: Exception) -> RequestError:
    if isinstance(error, RecursionError):
        return RequestError(ErrorCode.BAD_JSON, "The message is nested too deeply.")
    return RequestError(ErrorCode.BAD_JSON)


def _bad_request(error: msgspec.ValidationError, root: str, path_fields: frozenset[str] = frozenset()) -> RequestError:
    """The decoder's complaint ("Expected `float` <= 90.0 - at `$.pickup.lat`") as this protocol's error."""
    found = _AT.match(str(error))
    assert found is not None  # every part of the pattern is optional
    what, path = found["what"], found["path"] or ""
    if missing := _MISSING.match(what):
        path, what = f"{path}.{missing['name']}", "a required field is missing"
    elif unknown := _UNKNOWN.match(what):
        path, what = f"{path}.{unknown['name']}", "there is no such field"
    elif "matching regex" in what:
        what = next(f"expected {words}" for pattern, words in FORMS.items() if repr(pattern)[1:-1] in what)
    elif what.startswith("Invalid enum value"):
        what = "expected one of " + ", ".join(ENUMS[path.rpartition(".")[2]])
    if not root and not path:
        return RequestError(ErrorCode.BAD_JSON)
    if found["key"]:
        what = f"a key is not allowed: {what}"
    first = path.lstrip(".").partition(".")[0]
    field = (("path" if first in path_fields else root) + path).lstrip(".")
    return RequestError(ErrorCode.BAD_REQUEST, f"{field}: {what[:1].lower()}{what[1:]}", field=field)


def _id_of(text: str) -> str | None:
    try:
        return _only_id.decode(text).id
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
