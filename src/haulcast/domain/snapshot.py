"""What a view shows of many entities, put together from what several sources say of them, in any order.

1. An entity (a broadcast) is a view: fields by name. They live in clusters, and each cluster has one source: `CLUSTERS`
   says which. A source that writes a field of another's cluster is at fault: `WrongSource`.
2. Each source counts its own versions, and what it writes speaks for all of its clusters: they are at its version. A
   write that is older than what its source said before is rejected, and counted for each cluster that it names. What
   has been rejected changes nothing.
3. The owner's versions are `(epoch, seq)`. A seq is written once, so the content of (1, 9) is that of (2, 9): a delta
   fits if the seq does.
4. An entity comes and goes with its owner's word. Of one that is not there, or has ended, a collector has nothing to
   say, and what it said goes.
5. Whatever changes comes back as a field-level delta. Nothing is copied that did not change.
6. The store is bounded: beyond `capacity` the entity goes whose owner wrote it longest ago, ended ones first.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from .delta import Delta, difference, path_of
from .replies import Json

Version: TypeAlias = tuple[int, int]
Fields: TypeAlias = Mapping[str, Json]


class Source(StrEnum):
    """Who writes."""

    OWNER = "owner"
    """Whoever owns the broadcast."""
    ROUTES = "routes"
    """The collector of ways to the pickup."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Fields that belong together, and who alone writes them."""

    source: Source
    fields: tuple[str, ...]


CLUSTERS: Mapping[str, Cluster] = {
    "lifecycle": Cluster(
        Source.OWNER,
        (
            *("broadcast_id", "customer_id", "status", "end_reason", "pickup", "drop", "note"),
            *("created_at", "expires_at", "ended_at"),
        ),
    ),
    "fill": Cluster(Source.OWNER, ("remaining_requests", "requests")),
    "reach": Cluster(Source.OWNER, ("wave", "notified")),
    "trips": Cluster(Source.OWNER, ("trips",)),
    "route": Cluster(Source.ROUTES, ("route",)),
}

_CLUSTER_OF = {field: name for name, cluster in CLUSTERS.items() for field in cluster.fields}
_MISSING: Json = object()  # type: ignore[assignment]  # a marker that no JSON value equals


class Gap(Exception):
    """A delta does not fit what stands: something was missed before it."""


class WrongSource(Exception):
    """A source wrote a field of another's cluster."""


class _Entity:
    __slots__ = ("changed_ms", "fields", "versions")

    def __init__(self) -> None:
        self.fields: dict[str, Json] = {}
        self.versions: dict[Source, Version] = {}
        self.changed_ms: dict[str, int] = {}  # by cluster


class Store:
    """All entities of one view, by their keys, in the order in which their owners wrote them last. `rejected` is called
    with each cluster that a rejected write names; `now_ms` is when a write is made."""

    def __init__(self, capacity: int, rejected: Callable[[str], None]) -> None:
        self._capacity = capacity
        self._rejected = rejected
        self._entities: OrderedDict[str, _Entity] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()  # those of them that `end` was said of, in that order

    def __len__(self) -> int:
        return len(self._entities)

    def __contains__(self, key: str) -> bool:
        return key in self._entities

    def __iter__(self) -> Iterator[str]:
        return iter(self._entities)

    def fields(self, key: str) -> Fields:
        """An entity's view. Raises `KeyError`."""
        return self._entities[key].fields

    def version(self, key: str, cluster: str = "lifecycle") -> Version:
        """What a cluster of an entity is at; (0, 0) if nothing was written."""
        entity = self._entities.get(key)
        return (0, 0) if entity is None else entity.versions.get(CLUSTERS[cluster].source, (0, 0))

    def changed_ms(self, key: str, cluster: str) -> int | None:
        """When a cluster of an entity changed last; None if it never did."""
        entity = self._entities.get(key)
        return None if entity is None else entity.changed_ms.get(cluster)

    def write(self, key: str, source: Source, version: Version, fields: Fields, now_ms: int) -> Delta:
        """Replace all that a source says of an entity; its owner adds it. What changed: nothing if what stands is
        newer. Raises `WrongSource`."""
        named = _clusters(source, fields)
        entity = self._entities.get(key)
        if entity is None and source is Source.OWNER:
            entity = _Entity()
        known = source is Source.OWNER or key not in self._ended
        if entity is None or not known or version < entity.versions.get(source, (0, 0)):
            self._reject(named)
            return Delta()
        before, others = _split(entity.fields, source)
        delta = difference(before, fields)
        entity.fields = {**others, **fields} if source is not Source.OWNER else {**fields, **others}
        self._note(key, entity, source, version, delta, now_ms)
        return delta

    def amend(self, key: str, since: int, version: Version, delta: Delta, now_ms: int) -> Delta:
        """Apply what its owner has changed since seq `since`, all of it or nothing. What changed: nothing if it is
        known. Raises `Gap`, `WrongSource`."""
        named = _clusters(Source.OWNER, _fields_of(delta))
        if version <= self.version(key):
            self._reject(named)
            return Delta()
        entity = self._entities.get(key)
        if entity is None or entity.versions[Source.OWNER][1] != since:
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
        self._note(key, entity, Source.OWNER, version, delta, now_ms)
        return delta

    def end(self, key: str) -> None:
        """Nothing follows on an entity: what collectors said of it goes, and it is the first to go when there are too
        many."""
        entity = self._entities.get(key)
        if entity is not None:
            self._ended[key] = None
            entity.fields, _ = _split(entity.fields, Source.OWNER)

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

    def _note(self, key: str, entity: _Entity, source: Source, version: Version, delta: Delta, now_ms: int) -> None:
        if source is Source.OWNER:
            self._entities[key] = entity
            self._entities.move_to_end(key)
        entity.versions[source] = version
        for name in _clusters(source, _fields_of(delta)):
            entity.changed_ms[name] = now_ms

    def _reject(self, named: Iterable[str]) -> None:
        for name in named:
            self._rejected(name)


def _fields_of(delta: Delta) -> Iterator[str]:
    return (path_of(at)[0] for at in (*delta.set, *delta.gone))


def _clusters(source: Source, fields: Iterable[str]) -> dict[str, None]:
    """The clusters of these fields, in order, which have to be the source's. Raises `WrongSource`."""
    named = dict.fromkeys(map(_cluster_of, fields))
    for name in named:
        if CLUSTERS[name].source is not source:
            raise WrongSource(f"{source} writes {name}, which is of {CLUSTERS[name].source}")
    return named


def _cluster_of(field: str) -> str:
    """An owner of a later version may show more than is known here."""
    return _CLUSTER_OF.get(field, "lifecycle")


def _split(fields: Fields, source: Source) -> tuple[dict[str, Json], dict[str, Json]]:
    """What a source said, and what others did."""
    own: dict[str, Json] = {}
    others: dict[str, Json] = {}
    for field, value in fields.items():
        (own if CLUSTERS[_cluster_of(field)].source is source else others)[field] = value
    return own, others


def _inside(fields: dict[str, Json], parents: list[str]) -> dict[str, Json]:
    """The object at a path, to be changed: whoever else holds it, or one that it is in, keeps what it was. Raises
    `Gap`."""
    for key in parents:
        inner = fields.get(key)
        if not isinstance(inner, dict):
            raise Gap
        fields[key] = fields = dict(inner)
    return fields
