"""What else frames are made of."""

from typing import Any

from msgspec import Struct, field


class Error(Struct):
    """Why not. `retry`: the same request, with the same id, may succeed later without anything being changed."""

    code: str
    message: str
    retry: bool
    data: dict[str, Any]


class ErrorBody(Struct):
    """An error over REST."""

    error: Error


class Patch(Struct):
    """What changed: JSON Pointers (RFC 6901) into the snapshot's data."""

    set: dict[str, Any] = {}
    delete: list[str] = field(name="del", default_factory=list)
