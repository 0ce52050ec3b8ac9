"""Topics as frames: snapshots, field-level deltas and events, encoded once for all who get the same.

A delta names the fields that changed by JSON Pointers (RFC 6901) into the snapshot's data. `from` is the version it
builds on, so a client that missed something notices.

What a frame says (`data`) comes encoded; a topic's name and its versions are joined in here. A delta and its event cost
each recipient two joins of bytes (about 1.5 us) instead of two encodings (about 6 us).
"""

from typing import TypeAlias

from haulcast.domain.delta import Delta
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId

from .codec import dumps, frame

TopicVersion: TypeAlias = tuple[int, int]
"""`(epoch, seq)`: never goes back."""
TopicKey: TypeAlias = tuple[TenantId, str]
"""A topic's name is its own only within its tenant."""
_BOARD = "board:"
_CONTROL = "control:"
_FEED = "feed:"
_FLEET = "fleet:"


def broadcast_topic(broadcast_id: BroadcastId) -> str:
    """What shows a broadcast to its customer and to operators."""
    return f"broadcast:{broadcast_id}"


def feed_topic(transporter_id: TransporterId) -> str:
    """What shows a transporter its offers and trips."""
    return f"{_FEED}{transporter_id}"


def fleet_topic(transporter_id: TransporterId) -> str:
    """What shows a transporter its drivers and vehicles."""
    return f"{_FLEET}{transporter_id}"


def fleet_beside(feed: str) -> str:
    """The fleet's topic of the transporter whose feed that is."""
    return _FLEET + feed.removeprefix(_FEED)


def is_fleet(name: str) -> bool:
    """Whether a topic is a fleet's."""
    return name.startswith(_FLEET)


def driver_topic(driver_id: DriverId) -> str:
    """What shows a driver the trips."""
    return f"driver:{driver_id}"


def board_topic(tenant_id: TenantId) -> str:
    """What shows operators all broadcasts of their tenant."""
    return f"{_BOARD}{tenant_id}"


def is_board(name: str) -> bool:
    """Whether a topic is a board."""
    return name.startswith(_BOARD)


def control_topic(tenant_id: TenantId) -> str:
    """What shows operators what is in force for their tenant."""
    return f"{_CONTROL}{tenant_id}"


def is_control(name: str) -> bool:
    """Whether a topic shows what is in force."""
    return name.startswith(_CONTROL)


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


def encode_delta(delta: Delta) -> bytes:
    """The `data` of a delta."""
    return dumps({"set": delta.set, "del": delta.gone})
