"""Field-level deltas of views: which JSON Pointers (RFC 6901) to set and which to delete. Lists count as one value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .replies import Json


@dataclass(frozen=True, slots=True)
class Delta:
    """What leads from one view to another."""

    set: Mapping[str, Json] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.gone)


def difference(before: Mapping[str, Json], after: Mapping[str, Json]) -> Delta:
    """What leads from `before` to `after`."""
    changed: dict[str, Json] = {}
    gone: list[str] = []
    for at, value in _differ("", before, after):
        if value is _GONE:
            gone.append(at)
        else:
            changed[at] = value
    return Delta(changed, tuple(gone))


def pointer(*path: str) -> str:
    """The JSON Pointer of a path of keys."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def path_of(at: str) -> list[str]:
    """The keys of a JSON Pointer."""
    return [key.replace("~1", "/").replace("~0", "~") for key in at.split("/")[1:]]


_GONE: Json = object()  # type: ignore[assignment]  # a marker that no JSON value equals


def _differ(at: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    for key, new in after.items():
        old = before.get(key, _GONE)
        if old is new or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differ(at + pointer(key), old, new)
        else:
            yield at + pointer(key), new
    for key in before.keys() - after.keys():
        yield at + pointer(key), _GONE
