"""Topics as frames: snapshots, field-level deltas and events, encoded once for all who get the same.

A delta names the fields that changed by JSON Pointers (RFC 6901) into the snapshot's data. `from` is the version it
builds on, so a client that missed something notices.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from haulcast.domain.replies import Json

from .codec import dumps, frame

TopicVersion: TypeAlias = tuple[int, int]
"""`(epoch, seq)`: never goes back."""


def snapshot_frame(topic: str, version: TopicVersion, now_ms: int, data: Mapping[str, Json]) -> bytes:
    """The finished frame of a snapshot."""
    return _finish({"type": "snapshot", "topic": topic, "version": version, "server_time": now_ms, "data": data})


def event_frame(topic: str, version: TopicVersion, now_ms: int, event: str, data: Mapping[str, Json]) -> bytes:
    """The finished frame of an event."""
    return _finish(
        {
            "type": "event",
            "topic": topic,
            "version": version,
            "event": event,
            "server_time": now_ms,
            "data": data,
        }
    )


def delta_frame(
    topic: str,
    since: TopicVersion,
    version: TopicVersion,
    now_ms: int,
    changed: Mapping[str, Json],
    gone: tuple[str, ...] = (),
) -> bytes:
    """The finished frame of a delta that sets the pointers of `changed` and deletes those of `gone`."""
    return _finish(
        {
            "type": "delta",
            "topic": topic,
            "from": since,
            "version": version,
            "server_time": now_ms,
            "data": {"set": changed, "del": gone},
        }
    )


@dataclass(frozen=True, slots=True)
class FeedUpdate:
    """A delta and an event whose data is the same for many feeds: encoded once, then framed for each topic.

    A delta and its event cost each recipient two joins of bytes (about 1.5 us) instead of two encodings (about 6 us).
    `delta` and `event` are the encoded `data` of the two frames; without `event` there is only the delta.
    """

    delta: bytes
    now_ms: int
    event_name: str = ""
    event: bytes = b""

    def frames(self, topic: str, since: TopicVersion, version: TopicVersion, delta: bytes | None = None) -> bytes:
        """The finished frames for one topic; `delta` replaces the shared one for a recipient with data of its own."""
        name = topic.encode()
        frames = frame(
            b'{"type":"delta","topic":"%b","from":[%d,%d],"version":[%d,%d],"server_time":%d,"data":%b}'
            % (name, *since, *version, self.now_ms, self.delta if delta is None else delta)
        )
        if not self.event_name:
            return frames
        return frames + frame(
            b'{"type":"event","topic":"%b","version":[%d,%d],"event":"%b","server_time":%d,"data":%b}'
            % (name, *version, self.event_name.encode(), self.now_ms, self.event)
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


def _finish(message: Mapping[str, Json]) -> bytes:
    return frame(dumps(message))
