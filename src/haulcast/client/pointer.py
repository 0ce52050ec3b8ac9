"""Deltas by JSON Pointer (RFC 6901): new states that share what has not changed with the old ones."""

from collections.abc import Iterable, Mapping
from typing import Any

from .protocol import JsonObject


class PatchError(Exception):
    """A pointer leads nowhere."""


def patch(state: JsonObject, set_: Mapping[str, Any], delete: Iterable[str]) -> JsonObject:
    """`state` without what `delete` points to (where it exists) and with what `set_` gives; deletes come first.

    `state` itself stays as it is: only the objects on the way to a pointer are copied. Raises `PatchError` if something
    on the way is missing.
    """
    result: Any = state
    for pointer in delete:
        result = _deleted(result, _tokens(pointer))
    for pointer, value in set_.items():
        result = _replaced(result, _tokens(pointer), value)
    if not isinstance(result, dict):
        raise PatchError("a topic's state is an object")
    return result


def _tokens(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise PatchError(f"not a JSON Pointer: {pointer!r}")
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _replaced(node: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    head, *rest = tokens
    if isinstance(node, dict) and (head in node or not rest):
        return {**node, head: _replaced(node.get(head), rest, value)}
    if isinstance(node, list):
        index = _index(node, head)
        return [*node[:index], _replaced(node[index], rest, value), *node[index + 1 :]]
    raise PatchError(f"nothing at {head!r}")


def _deleted(node: Any, tokens: list[str]) -> Any:
    if not tokens:
        raise PatchError("the whole state cannot be deleted")
    head, *rest = tokens
    if isinstance(node, dict):
        if rest and head not in node:
            raise PatchError(f"nothing at {head!r}")
        if rest:
            return {**node, head: _deleted(node[head], rest)}
        return {key: value for key, value in node.items() if key != head}
    if isinstance(node, list):
        index = _index(node, head)
        return [*node[:index], *([_deleted(node[index], rest)] if rest else []), *node[index + 1 :]]
    raise PatchError(f"nothing at {head!r}")


def _index(node: list[Any], token: str) -> int:
    if not (token.isascii() and token.isdecimal()) or int(token) >= len(node):
        raise PatchError(f"no element {token!r}")
    return int(token)
