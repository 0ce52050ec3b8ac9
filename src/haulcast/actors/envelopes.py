"""What nodes ask of each other, as bytes.

1. An ask carries a client's command with its origin, so that whichever node carries it out logs the answer under the
   client's own id: asked twice, it is done once.
2. An answer is one of: the reply, an error (a code and its data), or whose the broadcast is instead.
3. Shapes may get fields with defaults; nodes of two versions understand each other while one replaces the other.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from haulcast.domain.commands import Accept, Cancel, Command, Create, Decline, UpdateTrip
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TenantId, TransporterId
from haulcast.domain.replies import Done, Refusal, Refused, Reply
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Claim, Origin, Ownership

_COMMANDS: Mapping[str, type[Command]] = {
    "create": Create,
    "cancel": Cancel,
    "accept": Accept,
    "decline": Decline,
    "update_trip": UpdateTrip,
}
"""The commands of clients; all others are an actor's own."""
_NAMES = {command: name for name, command in _COMMANDS.items()}
_DECODERS = {name: msgspec.msgpack.Decoder(command) for name, command in _COMMANDS.items()}
_encoder = msgspec.msgpack.Encoder()


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """A command for the owner of a broadcast. `number` is the asking node's own."""

    number: int
    tenant_id: TenantId
    broadcast_id: BroadcastId
    name: str
    body: msgspec.Raw
    origin: Origin

    @property
    def command(self) -> Command:
        """Raises `msgspec.MsgspecError`, also for a command of a later version."""
        if self.name not in _DECODERS:
            raise msgspec.ValidationError(f"unknown command {self.name}")
        command: Command = _DECODERS[self.name].decode(self.body)
        return command


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What became of an ask. Exactly one of `done`, `refused`, `error` and `owner` is set."""

    number: int
    done: dict[str, Any] | None = None
    refused: Refusal | None = None
    error: str | None = None
    data: dict[str, Any] = {}
    owner: Ownership | None = None


class Adopt(msgspec.Struct, array_like=True, frozen=True):
    """Broadcasts that a node which is about to leave wants another to claim."""

    number: int
    claims: list[Claim]


class Adopted(msgspec.Struct, array_like=True, frozen=True):
    """Those that the other has claimed, with the epoch that each has now."""

    number: int
    claims: list[Claim]


class Appeared(msgspec.Struct, array_like=True, frozen=True):
    """Vehicles of a transporter that can be found now, with their positions."""

    tenant_id: TenantId
    transporter_id: TransporterId
    vehicles: list[tuple[Vehicle, Point]]


def ask(number: int, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin) -> bytes:
    """An `Ask`, encoded."""
    body = msgspec.Raw(_encoder.encode(command))
    return encode(Ask(number, tenant_id, broadcast_id, _NAMES[type(command)], body, origin))


def answer(number: int, outcome: Reply | BaseException) -> Answer:
    """An answer with the reply, or with what went wrong instead."""
    match outcome:
        case Done(data):
            return Answer(number, done=dict(data))
        case Refused(code, data):
            return Answer(number, refused=code, data=dict(data))
        case RequestError() as error:
            return Answer(number, error=error.code, data=dict(error.data))
        case _:
            return Answer(number, error=ErrorCode.UNAVAILABLE)


def outcome(answered: Answer) -> Reply | RequestError:
    """The reply or the error that an answer without `owner` carries."""
    if answered.done is not None:
        return Done(answered.done)
    if answered.refused is not None:
        return Refused(answered.refused, answered.data)
    try:
        code = ErrorCode(answered.error or "")
    except ValueError:
        code = ErrorCode.UNAVAILABLE
    return RequestError(code, **answered.data)


def encode(message: msgspec.Struct) -> bytes:
    """The bytes of a message."""
    return _encoder.encode(message)


decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_adopt = msgspec.msgpack.Decoder(Adopt).decode
decode_adopted = msgspec.msgpack.Decoder(Adopted).decode
decode_appeared = msgspec.msgpack.Decoder(Appeared).decode
