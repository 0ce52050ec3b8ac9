"""What topics show."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from haulcast.domain.control import Audience
from haulcast.domain.routes import RouteFault, RouteKind
from haulcast.domain.settings import ActiveBroadcastPolicy
from haulcast.domain.states import BroadcastStatus, EndReason, RequestStatus, TripStatus

Time = Annotated[int, Meta(description="milliseconds since 1970, on the server's clock")]
Count = Annotated[int, Meta(ge=0)]


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
    decided_at: Annotated[Time, Meta(description="while an accept of the recipient waits: until when")] | UnsetType = (
        UNSET
    )


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
    dispatch_mode: str
    accept_window_s: float
    active_broadcast_policy: ActiveBroadcastPolicy
    requests_per_s: float | None
    request_burst: int | None
    announcements_per_hour: int


class Announced(Struct):
    """What is announced, as those are told for whom it is. It may be told more than once: the id tells."""

    announcement_id: str
    text: str
    at: Time
    expires_at: Time


class AnnouncementView(Announced):
    """An announcement as operators see it."""

    audience: Audience


class NodeVersion(Struct):
    """A live node."""

    node: Count
    version: Annotated[int, Meta(ge=0, description="the control version that all its broadcasts are dispatched by")]


class ControlView(Struct):
    """What is in force for a tenant, and which nodes have come to it."""

    version: Annotated[int, Meta(ge=1, description="the control version: every command raises it by one")]
    paused: bool
    settings: SettingsShown
    modes: Annotated[list[str], Meta(description="what `dispatch_mode` can be")]
    announcements: Annotated[dict[str, AnnouncementView], Meta(description="the valid ones, by announcement_id")]
    nodes: Annotated[dict[str, NodeVersion], Meta(description="all that live, by their number")]


SNAPSHOTS: Mapping[str, type[Struct]] = {
    "broadcast": BroadcastView,
    "feed": FeedView,
    "driver": DriverView,
    "fleet": FleetView,
    "board": BoardView,
    "control": ControlView,
}
"""The content of a topic, by what its name begins with."""
