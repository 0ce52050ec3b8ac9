"""The data of replies, over WebSocket and REST alike."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from haulcast.domain.ranking import LeftOutReason
from haulcast.domain.replies import Refusal
from haulcast.domain.states import BroadcastStatus, EndReason, TripStatus
from haulcast.domain.waves import MAX_LEFT_OUT
from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.wire import Version

from .views import BroadcastView, Count, FeedView, RequestView, SettingsShown, Time


class Empty(Struct):
    """Nothing more to say."""


class Greeting(Struct):
    """Whom the connection speaks for, and what it is subscribed to."""

    session: str
    role: Role
    user: str
    tenant: str
    server_time: Time
    heartbeat_s: float
    topics: list[str]
    resumed: Annotated[list[str], Meta(description="those that go on from the version held, without a snapshot")]


class Pong(Struct):
    """The server's time."""

    server_time: Time


class Subscribed(Struct):
    """The topic, and the version of the snapshot that was sent."""

    topic: str
    version: Version


class Unsubscribed(Struct):
    """The topic."""

    topic: str


class Created(Struct):
    """The new broadcast."""

    broadcast_id: str
    status: BroadcastStatus
    expires_at: Time
    requests: list[RequestView]


class Cancelled(Struct):
    """The broadcast as it ended; `assigned` trucks go on with their trips."""

    broadcast_id: str
    status: BroadcastStatus
    assigned: Count


class AcceptStatus(StrEnum):
    """What an accept has led to: it waits, or the broadcast has this status with the truck that was won."""

    PENDING = "pending"
    PARTIALLY_FILLED = "partially_filled"
    FULLY_FILLED = "fully_filled"


class Accepted(Struct, omit_defaults=True):
    """The truck that was won, with its three ids; or, if `status` is `pending`, when that is decided."""

    broadcast_id: str
    status: AcceptStatus
    remaining_requests: Count
    request_id: str | UnsetType = UNSET
    assignment_id: str | UnsetType = UNSET
    trip_id: str | UnsetType = UNSET
    decided_at: Time | UnsetType = UNSET


class Declined(Struct):
    """The broadcast."""

    broadcast_id: str


class Availability(Struct):
    """Whether the transporter is online now, and whether that changed."""

    online: bool
    changed: bool


class TripUpdated(Struct):
    """The trip's status now."""

    trip_id: str
    status: TripStatus


class Broadcasts(Struct):
    """Newest first, at most 50."""

    broadcasts: list[BroadcastView]


class LeftOutView(Struct):
    """A transporter that a wave did not reach, by its nearest vehicle of a type asked for."""

    transporter_id: str
    vehicle_id: str
    vehicle_type: str
    distance_m: Annotated[int, Meta(ge=0, description="from that vehicle to the pickup, as the crow flies")]
    reason: LeftOutReason


class TimelineEntry(Struct, omit_defaults=True):
    """One thing that happened. What it has besides `seq`, `at` and `event` depends on the event."""

    seq: int
    at: Time
    event: str
    expires_at: Time | UnsetType = UNSET
    wave: Count | UnsetType = UNSET
    notified: Count | UnsetType = UNSET
    radius_m: Annotated[float | None, Meta(description="how far the wave reached; null: everybody")] | UnsetType = UNSET
    left_out: (
        Annotated[list[LeftOutView], Meta(max_length=MAX_LEFT_OUT, description="nearest first; operators only")]
        | UnsetType
    ) = UNSET
    reason: EndReason | UnsetType = UNSET
    trip_id: str | UnsetType = UNSET
    assignment_id: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    status: TripStatus | UnsetType = UNSET
    transporter_id: str | UnsetType = UNSET
    vehicle_id: str | UnsetType = UNSET
    vehicle_type: str | UnsetType = UNSET
    driver_id: str | UnsetType = UNSET
    decided_at: Time | UnsetType = UNSET
    vehicle_ids: Annotated[list[str], Meta(description="of the accepts that have lost")] | UnsetType = UNSET
    code: Refusal | UnsetType = UNSET
    assigned_at: Time | UnsetType = UNSET
    updated_at: Time | UnsetType = UNSET


class BroadcastDetail(BroadcastView):
    """A broadcast and all that has happened to it."""

    timeline: list[TimelineEntry]


class TransporterShown(Struct):
    """A transporter of the fleet."""

    transporter_id: str
    name: str


class VehicleShown(Struct):
    """A vehicle of the fleet."""

    vehicle_id: str
    transporter_id: str
    vehicle_type: str


class DriverShown(Struct):
    """A driver of the fleet."""

    driver_id: str
    transporter_id: str
    name: str


class TenantShown(Struct):
    """A tenant, and whether this call made it."""

    tenant_id: str
    created: bool
    settings: SettingsShown


class TopicShown(Struct):
    """What a topic shows now: `data` is that of its snapshot."""

    topic: str
    server_time: Time
    data: dict[str, Any]


class NodeShown(Struct):
    """A live node. One that did not answer within a second has nothing but its number."""

    node: Count
    answered: bool
    active_broadcasts: Count | UnsetType = UNSET
    lease_age_ms: Count | UnsetType = UNSET
    lease_ttl_ms: Count | UnsetType = UNSET
    loop_lag_ms: float | UnsetType = UNSET
    draining: bool | UnsetType = UNSET


class Nodes(Struct):
    """All live nodes."""

    server_time: Time
    nodes: list[NodeShown]


class SettingsReply(Struct):
    """What is in force for the tenant."""

    version: Annotated[int, Meta(ge=1, description="the control version: every command raises it by one")]
    paused: bool
    settings: SettingsShown
    defaults: SettingsShown
    modes: Annotated[list[str], Meta(description="what `dispatch_mode` can be")]


class FollowStatus(StrEnum):
    """How a node has answered a command."""

    ACKED = "acked"
    """It has followed."""
    GONE = "gone"
    """It died before it could: its broadcasts go on elsewhere, as was commanded."""
    REFUSED = "refused"
    """It was to be drained, and would have been the last: others are drained at the same time."""
    SILENT = "silent"
    """It lives and has not answered in time. It follows as soon as it can."""


class Follow(Struct, omit_defaults=True):
    """One node's answer to a command."""

    node: Count
    status: FollowStatus
    after_ms: Annotated[int, Meta(ge=0, description="since the command was recorded")] | UnsetType = UNSET


class SettingChange(Struct, rename={"was": "from", "now": "to"}):
    """What a setting, or `paused`, was and is."""

    was: Any
    now: Any


class Controlled(Struct, omit_defaults=True):
    """A command holds. `complete`: no live node has failed to answer."""

    command: str
    number: Annotated[int, Meta(ge=1, description="its place in the audit")]
    complete: bool
    nodes: list[Follow]
    version: Annotated[int, Meta(ge=1, description="the control version that it led to")] | UnsetType = UNSET
    changes: Annotated[dict[str, SettingChange], Meta(description="by name")] | UnsetType = UNSET


class Commander(Struct):
    """Who gave a command."""

    role: Role
    user: str


class Outcome(Struct):
    """How the nodes answered a command."""

    complete: bool
    nodes: list[Follow]


class LogEntry(Struct):
    """A command as the audit has it. `outcome` is null until it is known."""

    number: Annotated[int, Meta(ge=1)]
    at: Time
    by: Commander
    command: str
    data: Annotated[dict[str, Any], Meta(description="what was asked")]
    version: int | None
    changes: Annotated[dict[str, SettingChange], Meta(description="by name")]
    outcome: Outcome | None


class Log(Struct):
    """Newest first. `next`: ask for what is `before` that to go on; null: there is no more."""

    entries: list[LogEntry]
    next: int | None


REPLIES: Mapping[type[wire.Request], type[Struct]] = {
    wire.Hello: Greeting,
    wire.Ping: Pong,
    wire.Subscribe: Subscribed,
    wire.Unsubscribe: Unsubscribed,
    wire.BroadcastCreate: Created,
    wire.BroadcastCancel: Cancelled,
    wire.OfferAccept: Accepted,
    wire.OfferDecline: Declined,
    wire.TransporterOnline: Availability,
    wire.TransporterOffline: Availability,
    wire.Location: Empty,
    wire.TripUpdate: TripUpdated,
    wire.SettingsGet: SettingsReply,
    wire.SettingsPatch: Controlled,
    wire.ControlPause: Controlled,
    wire.ControlResume: Controlled,
    wire.ControlReloadSettings: Controlled,
    wire.ControlSwitchMode: Controlled,
    wire.ControlAnnounce: Controlled,
    wire.ControlDrainNode: Controlled,
    wire.AvailabilityPut: Availability,
    wire.BroadcastList: Broadcasts,
    wire.BroadcastGet: BroadcastDetail,
    wire.OfferList: FeedView,
    wire.TopicGet: TopicShown,
    wire.NodeList: Nodes,
    wire.SettingsHistory: Log,
    wire.ControlLog: Log,
    wire.TransporterPut: TransporterShown,
    wire.VehiclePut: VehicleShown,
    wire.DriverPut: DriverShown,
    wire.TenantPut: TenantShown,
}
"""The data of the reply to each request, over WebSocket and REST alike. An ack has none."""
