"""What a view shows of many entities, put together from whole states and deltas that come in any order.

1. An entity (a broadcast) is a view: fields by name. Each has the version that it is at, `(epoch, seq)`.
2. A write that is older than what stands is rejected, and counted. What has been rejected changes nothing.
3. A seq is written once, so the content of (1, 9) is that of (2, 9): a delta fits if the seq does.
4. Whatever changes comes back as a field-level delta. Nothing is copied that did not change.
5. The store is bounded: beyond `capacity` the entity goes that was written longest ago, ended ones first.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from .delta import Delta, difference, path_of
from .replies import Json

Version: TypeAlias = tuple[int, int]
Fields: TypeAlias = Mapping[str, Json]


_MISSING: Json = object()  # type: ignore[assignment]  # a marker that no JSON value equals


class Gap(Exception):
    """A delta does not fit what stands: something was missed before it."""


class _Entity:
    __slots__ = ("fields", "version")

    def __init__(self) -> None:
        self.fields: dict[str, Json] = {}
        self.version: Version = (0, 0)


class Store:
    """All entities of one view, by their keys, in the order in which they were written last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entities: OrderedDict[str, _Entity] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()  # those of them that `end` was said of, in that order
        self.rejected = 0
        """Writes that were older than what stood."""

    def __len__(self) -> int:
        return len(self._entities)

    def __contains__(self, key: str) -> bool:
        return key in self._entities

    def __iter__(self) -> Iterator[str]:
        return iter(self._entities)

    def fields(self, key: str) -> Fields:
        """An entity's view. Raises `KeyError`."""
        return self._entities[key].fields

    def version(self, key: str) -> Version:
        """What an entity is at; (0, 0) if it is not there."""
        entity = self._entities.get(key)
        return (0, 0) if entity is None else entity.version

    def write(self, key: str, version: Version, fields: Fields) -> Delta:
        """Replace an entity, or add it. What changed; nothing if it is at a newer version."""
        entity = self._entities.get(key) or _Entity()
        if version < entity.version:
            self.rejected += 1
            return Delta()
        delta = difference(entity.fields, fields)
        entity.fields = dict(fields)
        self._note(key, entity, version)
        return delta

    def amend(self, key: str, since: int, version: Version, delta: Delta) -> Delta:
        """Apply what has changed since seq `since`, all of it or nothing. What changed: nothing if it is known. Raises
        `Gap`."""
        if version <= self.version(key):
            self.rejected += 1
            return Delta()
        entity = self._entities.get(key)
        if entity is None or entity.version[1] != since:
            raise Gap
        fields = dict(entity.fields)
        for at, value in delta.set.items():
            *parents, last = path_of(at)
            _inside(fields, parents)[last] = value
        for at in delta.gone:
            *parents, last = path_of(at)
            if _inside(fields, parents).pop(last, _MISSING) is _MISSING:
                raise Gap
        entity.fields = fields
        self._note(key, entity, version)
        return delta

    def end(self, key: str) -> None:
        """Nothing follows on an entity: it is the first to go when there are too many."""
        if key in self._entities:
            self._ended[key] = None

    def drop(self, key: str) -> bool:
        """Forget an entity; whether it was there."""
        self._ended.pop(key, None)
        return self._entities.pop(key, None) is not None

    def shrink(self) -> list[str]:
        """Forget what is beyond the capacity; which."""
        gone: list[str] = []
        while len(self._entities) > self._capacity:
            key = next(iter(self._ended or self._entities))
            self.drop(key)
            gone.append(key)
        return gone

    def _note(self, key: str, entity: _Entity, version: Version) -> None:
        self._entities[key] = entity
        self._entities.move_to_end(key)
        entity.version = version


def _inside(fields: dict[str, Json], parents: list[str]) -> dict[str, Json]:
    """The object at a path, to be changed: whoever else holds it, or one that it is in, keeps what it was. Raises
    `Gap`."""
    for key in parents:
        inner = fields.get(key)
        if not isinstance(inner, dict):
            raise Gap
        fields[key] = fields = dict(inner)
    return fields
