"""Everything that the server says, as typed structs: the other half of `wire`.

Nothing is encoded with them: replies and views are built where they are decided, as plain JSON. They are what the
specifications (`specs`) are generated from, and what the tests hold every frame to that a real server sends.

1. `REPLIES` has the data of the reply to each request, `SNAPSHOTS` the data of each kind of topic, `EVENTS` that of
   each event.
2. A field with a default is one that may be absent. Clients ignore fields that they do not know.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

from haulcast.domain.ranking import LeftOutReason
from haulcast.domain.routes import RouteFault, RouteKind
from haulcast.domain.states import BroadcastStatus, EndReason, RequestStatus, TripStatus
from haulcast.domain.waves import MAX_LEFT_OUT
from haulcast.ports import Role

from . import wire
from .wire import Version

Time = Annotated[int, Meta(description="milliseconds since 1970, on the server's clock")]
Count = Annotated[int, Meta(ge=0)]


class Empty(Struct):
    """Nothing more to say."""


# --- Views -----------------------------------------------------------------------------------------------------------


class PlaceView(Struct):
    """A place."""

    lat: float
    lng: float
    address: str


class TripView(Struct):
    """A truck that was won: its assignment and how far its trip has come."""

    trip_id: str
    assignment_id: str
    request_id: str
    status: TripStatus
    transporter_id: str
    vehicle_id: str
    vehicle_type: str
    driver_id: str
    assigned_at: Time
    updated_at: Time


class HaulView(TripView):
    """A trip with where it goes, for those who drive it."""

    broadcast_id: str
    pickup: PlaceView
    drop: PlaceView
    note: str


class RequestView(Struct):
    """One truck asked for."""

    request_id: str
    vehicle_type: str
    status: RequestStatus


class BroadcastView(Struct):
    """A broadcast, as its customer and the operators see it."""

    broadcast_id: str
    customer_id: str
    status: BroadcastStatus
    end_reason: EndReason | None
    pickup: PlaceView
    drop: PlaceView
    note: str
    created_at: Time
    expires_at: Time
    ended_at: Time | None
    wave: Annotated[int, Meta(ge=0, description="the last wave that was sent; 0: none yet")]
    notified: Annotated[int, Meta(ge=0, description="transporters who were offered it so far")]
    remaining_requests: Count
    requests: Annotated[dict[str, RequestView], Meta(description="by request_id")]
    trips: Annotated[dict[str, TripView], Meta(description="of the trucks that were won, by trip_id; ended ones too")]


class OfferStatus(StrEnum):
    """Whether an offer can still be accepted."""

    OPEN = "open"
    CLOSED = "closed"


class OfferView(Struct, omit_defaults=True):
    """A broadcast, as one transporter sees it. A closed one has `reason` and `closed_at`."""

    broadcast_id: str
    status: OfferStatus
    pickup: PlaceView
    drop: PlaceView
    note: str
    expires_at: Time
    open_trucks: Annotated[dict[str, Count], Meta(description="trucks that can still be won, by vehicle type")]
    remaining_requests: Count
    wave: Count
    vehicle_id: Annotated[str, Meta(description="the recipient's nearest vehicle that fits")]
    distance_m: Annotated[int, Meta(ge=0, description="from that vehicle to the pickup, as the crow flies")]
    offered_at: Time
    reason: EndReason | UnsetType = UNSET
    closed_at: Time | UnsetType = UNSET


class FeedView(Struct):
    """What a transporter works with."""

    offers: Annotated[dict[str, OfferView], Meta(description="by broadcast_id")]
    trips: Annotated[dict[str, HaulView], Meta(description="the active ones, by trip_id")]


class DriverView(Struct):
    """What a driver works with."""

    trips: Annotated[dict[str, HaulView], Meta(description="the active ones, by trip_id")]


class RouteStatus(StrEnum):
    """Whether the ways to a pickup could be found out the last time."""

    OK = "ok"
    FAILING = "failing"


class WayView(Struct):
    """Where a vehicle was, and how far from the pickup; null: there is no road."""

    transporter_id: str
    lat: float
    lng: float
    distance_m: Count | None
    duration_s: Count | None


class RouteView(Struct, omit_defaults=True):
    """The ways of the nearest vehicles to the pickup. `failing`, with a `reason`: those that were known last."""

    status: RouteStatus
    source: RouteKind
    updated_at: Annotated[Time | None, Meta(description="when `vehicles` were found out; null: never")]
    vehicles: Annotated[dict[str, WayView], Meta(description="by vehicle_id")]
    reason: RouteFault | UnsetType = UNSET


class BoardEntry(BroadcastView, omit_defaults=True):
    """A broadcast as operators see it on the board. `route` is there while it is live and something is known of it."""

    route: RouteView | UnsetType = UNSET


class DriverState(Struct):
    """A driver of a fleet."""

    driver_id: str
    online: Annotated[bool, Meta(description="whether the driver has a connection")]
    trip_id: Annotated[str | None, Meta(description="the active trip")]


class VehicleState(Struct):
    """A vehicle of a fleet."""

    vehicle_id: str
    vehicle_type: str
    trip_id: Annotated[str | None, Meta(description="the active trip")]


class FleetView(Struct):
    """Who of a transporter's drivers is there, and what is under way."""

    drivers: Annotated[dict[str, DriverState], Meta(description="by driver_id")]
    vehicles: Annotated[dict[str, VehicleState], Meta(description="by vehicle_id")]


class BoardView(Struct):
    """What operators watch."""

    broadcasts: Annotated[
        dict[str, BoardEntry], Meta(description="live, or ended in the last ten minutes, by broadcast_id")
    ]


SNAPSHOTS: Mapping[str, type[Struct]] = {
    "broadcast": BroadcastView,
    "feed": FeedView,
    "driver": DriverView,
    "fleet": FleetView,
    "board": BoardView,
}
"""The content of a topic, by what its name begins with."""


# --- Events ----------------------------------------------------------------------------------------------------------


class TruckConfirmed(TripView):
    """A truck was won."""

    remaining_requests: Count


class ExpiryReminder(Struct):
    """The broadcast expires soon."""

    expires_at: Time
    remaining_requests: Count


class BroadcastEnded(Struct):
    """The broadcast was cancelled or has expired; `assigned` trucks go on with their trips."""

    reason: EndReason
    assigned: Count


class OfferNews(Struct):
    """There is a new offer: the delta before has it."""

    broadcast_id: str


class OfferClosed(Struct):
    """The offer is over."""

    broadcast_id: str
    reason: EndReason


_TRIP_EVENTS: Mapping[str, type[Struct]] = {
    "trip_assigned": HaulView,
    "trip_updated": HaulView,
    "trip_continues": HaulView,
}
EVENTS: Mapping[str, Mapping[str, type[Struct]]] = {
    "broadcast": {
        "truck_confirmed": TruckConfirmed,
        "trip_updated": TripView,
        "expiry_reminder": ExpiryReminder,
        "broadcast_cancelled": BroadcastEnded,
        "broadcast_expired": BroadcastEnded,
    },
    "feed": {"offer": OfferNews, "offer_closed": OfferClosed, **_TRIP_EVENTS},
    "driver": _TRIP_EVENTS,
}
"""The data of each event, by what the name of its topic begins with, and its own."""


# --- Replies ---------------------------------------------------------------------------------------------------------


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


class Accepted(Struct):
    """The truck that was won."""

    broadcast_id: str
    request_id: str
    assignment_id: str
    trip_id: str
    status: BroadcastStatus
    remaining_requests: Count


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


class SettingsShown(Struct):
    """All settings of a tenant."""

    wave_radii_km: list[float | None]
    wave_interval_s: float
    max_offers_per_wave: int
    default_expiry_s: int
    min_expiry_s: int
    max_expiry_s: int
    reminder_lead_s: int
    toggle_limit: int
    toggle_window_s: int


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
    wire.AvailabilityPut: Availability,
    wire.BroadcastList: Broadcasts,
    wire.BroadcastGet: BroadcastDetail,
    wire.OfferList: FeedView,
    wire.TopicGet: TopicShown,
    wire.NodeList: Nodes,
    wire.TransporterPut: TransporterShown,
    wire.VehiclePut: VehicleShown,
    wire.DriverPut: DriverShown,
    wire.TenantPut: TenantShown,
}
"""The data of the reply to each request, over WebSocket and REST alike. An ack has none."""


# --- Frames ----------------------------------------------------------------------------------------------------------


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
