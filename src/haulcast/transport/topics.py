"""Topics as frames: snapshots, field-level deltas and events, encoded once for all who get the same.

A delta names the fields that changed by JSON Pointers (RFC 6901) into the snapshot's data. `from` is the version it
builds on, so a client that missed something notices.

What a frame says (`data`) comes encoded; a topic's name and its versions are joined in here. A delta and its event cost
each recipient two joins of bytes (about 1.5 us) instead of two encodings (about 6 us).
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId
from haulcast.domain.replies import Json

from .codec import dumps, frame

TopicVersion: TypeAlias = tuple[int, int]
"""`(epoch, seq)`: never goes back."""
TopicKey: TypeAlias = tuple[TenantId, str]
"""A topic's name is its own only within its tenant."""


def broadcast_topic(broadcast_id: BroadcastId) -> str:
    """What shows a broadcast to its customer and to operators."""
    return f"broadcast:{broadcast_id}"


def feed_topic(transporter_id: TransporterId) -> str:
    """What shows a transporter its offers and trips."""
    return f"feed:{transporter_id}"


def driver_topic(driver_id: DriverId) -> str:
    """What shows a driver the trips."""
    return f"driver:{driver_id}"


def snapshot_frame(topic: bytes, version: TopicVersion, now_ms: int, data: bytes) -> bytes:
    """The finished frame of a snapshot."""
    return frame(
        b'{"type":"snapshot","topic":"%b","version":[%d,%d],"server_time":%d,"data":%b}'
        % (topic, *version, now_ms, data)
    )


def delta_frame(topic: bytes, since: TopicVersion, version: TopicVersion, now_ms: int, data: bytes) -> bytes:
    """The finished frame of a delta from `since` to `version`."""
    return frame(
        b'{"type":"delta","topic":"%b","from":[%d,%d],"version":[%d,%d],"server_time":%d,"data":%b}'
        % (topic, *since, *version, now_ms, data)
    )


def event_frame(topic: bytes, version: TopicVersion, now_ms: int, event: bytes, data: bytes) -> bytes:
    """The finished frame of an event that belongs to `version`."""
    return frame(
        b'{"type":"event","topic":"%b","version":[%d,%d],"event":"%b","server_time":%d,"data":%b}'
        % (topic, *version, event, now_ms, data)
    )


def encode_delta(changed: Mapping[str, Json], gone: tuple[str, ...] = ()) -> bytes:
    """The `data` of a delta."""
    return dumps({"set": changed, "del": gone})


def difference(before: Mapping[str, Json], after: Mapping[str, Json]) -> tuple[dict[str, Json], tuple[str, ...]]:
    """Which pointers to set and which to delete to get from `before` to `after`. Lists count as one value."""
    changed: dict[str, Json] = {}
    gone: list[str] = []
    for pointer, value in _differ("", before, after):
        if value is _GONE:
            gone.append(pointer)
        else:
            changed[pointer] = value
    return changed, tuple(gone)


def pointer(*path: str) -> str:
    """The JSON Pointer of a path of keys."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


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
