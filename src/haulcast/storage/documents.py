"""How domain values become JSON documents and values again.

1. Writing is orjson's, which takes dataclasses and enums as they are; reading is typed by msgspec, so that a document
   either is the value it claims to be or is `Unreadable`.
2. A field that was added later must have a default: documents without it are read with the default. Fields of a
   state or an event that are not known any more are passed over.
3. A broadcast is written without its offers, which adapters keep one by one.
4. An event's type stands beside its document, by the name that `EVENT_TYPES` gives it.
5. A reply is `{"done": data}` or `{"refused": code, "data": data}`.
6. Settings have versions, and a module of their own: `settings_documents.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import orjson

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.events import EVENT_NAMES, EVENT_TYPES, Event
from haulcast.domain.replies import Done, Refusal, Refused, Reply

D = TypeVar("D")
T = TypeVar("T")


class Unreadable(ValueError):
    """A document is not what it should be."""


def write_state(state: Broadcast) -> str:
    """A broadcast without its offers."""
    # A third of the time that dataclasses.replace would take to leave them out.
    return orjson.dumps(dict(zip(_STORED_FIELDS, _stored_values(state), strict=True))).decode()


def read_state(document: str) -> Broadcast:
    """A broadcast whose offers are empty. Raises `Unreadable`."""
    return decoded("broadcast", _STATE.decode, document)


def write_event(event: Event) -> tuple[str, str]:
    """The event's name and its document."""
    return EVENT_NAMES[type(event)], orjson.dumps(event).decode()


def read_event(name: str, document: str) -> Event:
    """The event of that name. Raises `Unreadable`."""
    decoder = _EVENTS.get(name)
    if decoder is None:
        raise Unreadable(f"there is no event called {name!r}")
    event: Event = decoded(name, decoder.decode, document)
    return event


def write_reply(reply: Reply) -> str:
    """A reply, tagged."""
    if isinstance(reply, Done):
        return orjson.dumps({"done": reply.data}).decode()
    return orjson.dumps({"refused": reply.code, "data": reply.data}).decode()


def read_reply(document: str) -> Reply:
    """A reply whose data are lists and dicts. Raises `Unreadable`."""
    tagged = decoded("reply", _REPLY.decode, document)
    if tagged.done is not None and tagged.refused is None:
        return Done(tagged.done)
    if tagged.refused is not None and tagged.done is None:
        return Refused(tagged.refused, tagged.data)
    raise Unreadable("a reply is either done or refused")


def decoded(what: str, decode: Callable[[D], T], document: D) -> T:
    """What `decode` makes of a document. Raises `Unreadable`, which says `what` it was to be."""
    try:
        return decode(document)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unreadable(f"{what}: {error}") from error


class _TaggedReply(msgspec.Struct, forbid_unknown_fields=True):
    done: dict[str, Any] | None = None
    refused: Refusal | None = None
    data: dict[str, Any] = {}


_STORED_FIELDS = tuple(field.name for field in fields(Broadcast) if field.name != "offers")
_stored_values = attrgetter(*_STORED_FIELDS)
_STATE = msgspec.json.Decoder(Broadcast)
_REPLY = msgspec.json.Decoder(_TaggedReply)
_EVENTS: Mapping[str, msgspec.json.Decoder[Any]] = {
    name: msgspec.json.Decoder(event) for name, event in EVENT_TYPES.items()
}
