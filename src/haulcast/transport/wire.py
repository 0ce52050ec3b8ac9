"""Every request that a client can make, as a typed and bounded struct. What is not allowed here never gets further.

1. `REQUESTS` holds what comes over a WebSocket, `REST_REQUESTS` what only REST asks: the name of a type, its struct.
2. Fields that a struct does not know are ignored, so that a newer client can talk to an older server.
3. A field with a default is left out when the struct is encoded again (`omit_defaults`). The fingerprint of a request
   relies on it: a field that is added later, with a default, does not change what older requests look like.
4. The bounds keep what is stored small and printable; what a tenant may choose (expiry) is checked by the core.
"""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from haulcast.domain.control import Audience
from haulcast.domain.ids import ID_FORM, ID_PATTERN
from haulcast.domain.settings import ActiveBroadcastPolicy
from haulcast.domain.states import TripStatus

MAX_TRUCKS = 100
"""Trucks in one broadcast, over all vehicle types."""
MAX_RESUMED_TOPICS = 32

# `$` alone also matches before a final newline in Python; the lookahead is the same to a JSON Schema validator.
_ID = ID_PATTERN.removesuffix("$") + r"(?!\n)$"
_TOPIC = "^[a-z]+:" + _ID.removeprefix("^")
# Postgres stores no NUL in a text.
_TEXT = r"^[^\u0000]*$"

_REQUEST_ID = r"^[\x20-\x7e]{1,64}(?!\n)$"
FORMS: Mapping[str, str] = {
    _ID: ID_FORM,
    _TOPIC: f"a kind, a colon, and {ID_FORM}",
    _REQUEST_ID: "1 to 64 printable ASCII characters",
    _TEXT: "text without NUL characters",
}
"""The patterns in words, for whoever is told that something does not match one."""

Id: TypeAlias = Annotated[str, Meta(pattern=_ID, max_length=64)]
RequestId: TypeAlias = Annotated[str, Meta(pattern=_REQUEST_ID, description="1..64 printable ASCII")]
Topic: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Latitude: TypeAlias = Annotated[float, Meta(ge=-90.0, le=90.0, description="degrees, WGS 84")]
Longitude: TypeAlias = Annotated[float, Meta(ge=-180.0, le=180.0, description="degrees, WGS 84")]
Counter: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Version: TypeAlias = tuple[Counter, Counter]
"""Epoch and seq: orders everything that is said on a topic."""


class Request(Struct, frozen=True, omit_defaults=True):
    """What all requests have in common."""


# --- WebSocket -------------------------------------------------------------------------------------------------------


class Hello(Request, frozen=True):
    """The first request on a connection: who is there. `resume` names topics to subscribe, with the version held."""

    token: Annotated[str, Meta(min_length=1, max_length=8192)]
    resume: Annotated[dict[Topic, Version], Meta(max_length=MAX_RESUMED_TOPICS)] = {}


class Ping(Request, frozen=True):
    """Ask for the server's time."""


class Subscribe(Request, frozen=True):
    """Follow a topic: a snapshot, then every change."""

    topic: Topic


class Unsubscribe(Request, frozen=True):
    """Stop following a topic."""

    topic: Topic


class Ack(Request, frozen=True):
    """The client has applied everything on the topic up to this version. Not answered."""

    topic: Topic
    version: Version


class Place(Struct, frozen=True, omit_defaults=True):
    """Where a truck is wanted or goes to."""

    lat: Latitude
    lng: Longitude
    address: Annotated[str, Meta(max_length=200, pattern=_TEXT)] = ""


class Truck(Struct, frozen=True):
    """How many trucks of one vehicle type."""

    vehicle_type: Id
    count: Annotated[int, Meta(ge=1, le=MAX_TRUCKS)]


class BroadcastCreate(Request, frozen=True):
    """A customer broadcasts a haul."""

    pickup: Place
    drop: Place
    trucks: Annotated[tuple[Truck, ...], Meta(min_length=1, max_length=20)]
    expires_in_s: Annotated[int, Meta(ge=1, le=604_800, description="seconds")] | None = None
    note: Annotated[str, Meta(max_length=500, pattern=_TEXT)] = ""

    def __post_init__(self) -> None:
        total = sum(truck.count for truck in self.trucks)
        if total > MAX_TRUCKS:
            # In the words and with the path that the decoder gives its own complaints.
            raise ValueError(f"Expected at most {MAX_TRUCKS} trucks in all, got {total} - at `$.trucks`")


class BroadcastCancel(Request, frozen=True):
    """The customer takes a broadcast back."""

    broadcast_id: Id


class OfferAccept(Request, frozen=True):
    """A transporter takes one truck of a broadcast."""

    broadcast_id: Id
    vehicle_id: Id
    driver_id: Id


class OfferDecline(Request, frozen=True):
    """A transporter does not want an offer."""

    broadcast_id: Id


class TransporterOnline(Request, frozen=True):
    """The transporter wants offers."""


class TransporterOffline(Request, frozen=True):
    """The transporter wants no offers."""


class Location(Request, frozen=True):
    """Where a vehicle is."""

    vehicle_id: Id
    lat: Latitude
    lng: Longitude


class TripUpdate(Request, frozen=True):
    """How far a trip has come."""

    trip_id: Id
    status: TripStatus


class Settings(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The settings that a tenant chooses; what is left out stays as it is. `TenantSettings` has the bounds."""

    wave_radii_km: tuple[float | None, ...] | UnsetType = UNSET
    wave_interval_s: float | UnsetType = UNSET
    max_offers_per_wave: int | UnsetType = UNSET
    default_expiry_s: int | UnsetType = UNSET
    min_expiry_s: int | UnsetType = UNSET
    max_expiry_s: int | UnsetType = UNSET
    reminder_lead_s: int | UnsetType = UNSET
    toggle_limit: int | UnsetType = UNSET
    toggle_window_s: int | UnsetType = UNSET
    dispatch_mode: str | UnsetType = UNSET
    accept_window_s: float | UnsetType = UNSET
    active_broadcast_policy: ActiveBroadcastPolicy | UnsetType = UNSET
    requests_per_s: float | UnsetType | None = UNSET
    request_burst: int | UnsetType | None = UNSET
    announcements_per_hour: int | UnsetType = UNSET


class SettingsGet(Request, frozen=True):
    """What is in force for the tenant."""


class ControlRequest(Request, frozen=True):
    """What operators' commands have in common. With `expected_version` a command is refused if the tenant's control
    version is another one by then."""

    expected_version: Counter | None = None


class SettingsPatch(ControlRequest, frozen=True, kw_only=True):
    """Change some settings."""

    settings: Settings
    expected_version: Counter


class ControlPause(ControlRequest, frozen=True):
    """No new broadcasts and no new waves."""


class ControlResume(ControlRequest, frozen=True):
    """Go on where it was paused."""


class ControlReloadSettings(ControlRequest, frozen=True):
    """Have every node read again what the journal says."""


class ControlSwitchMode(ControlRequest, frozen=True, kw_only=True):
    """Dispatch in another way from now on."""

    mode: Annotated[str, Meta(min_length=1, max_length=64)]


class ControlAnnounce(ControlRequest, frozen=True, kw_only=True):
    """Say something to everybody of one role of the tenant, also to those who connect within `lifetime_s`."""

    audience: Audience
    text: Annotated[str, Meta(min_length=1, max_length=500, pattern=_TEXT)]
    lifetime_s: Annotated[int, Meta(ge=10, le=604_800, description="seconds")] = 3_600


class ControlDrainNode(Request, frozen=True):
    """Have a node hand over what it has, and stop."""

    node: Counter


REQUESTS: Mapping[str, type[Request]] = {
    "hello": Hello,
    "ping": Ping,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "ack": Ack,
    "broadcast.create": BroadcastCreate,
    "broadcast.cancel": BroadcastCancel,
    "offer.accept": OfferAccept,
    "offer.decline": OfferDecline,
    "transporter.online": TransporterOnline,
    "transporter.offline": TransporterOffline,
    "location": Location,
    "trip.update": TripUpdate,
    "settings.get": SettingsGet,
    "settings.patch": SettingsPatch,
    "control.pause": ControlPause,
    "control.resume": ControlResume,
    "control.reload_settings": ControlReloadSettings,
    "control.switch_mode": ControlSwitchMode,
    "control.announce": ControlAnnounce,
    "control.drain_node": ControlDrainNode,
}

# --- REST only -------------------------------------------------------------------------------------------------------


class AvailabilityPut(Request, frozen=True):
    """`transporter.online` and `transporter.offline` in one."""

    online: bool


class BroadcastList(Request, frozen=True):
    """The newest broadcasts: a customer's own, an operator's tenant's."""


class BroadcastGet(Request, frozen=True):
    """One broadcast with what has happened to it."""

    broadcast_id: Id


class OfferList(Request, frozen=True):
    """What the transporter's feed shows."""


class TopicGet(Request, frozen=True):
    """What a topic shows now, for who polls."""

    topic: Annotated[str, Meta(pattern=_TOPIC, max_length=128)]


class NodeList(Request, frozen=True):
    """How the nodes of the deployment are."""


class Page(Request, frozen=True):
    """Part of a list that is ordered from the newest: what is older than `before`, the `next` of the page before it."""

    before: Counter | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 50


class SettingsHistory(Page, frozen=True):
    """Who changed which setting, and when."""


class ControlLog(Page, frozen=True):
    """Which commands operators have given, and how the nodes answered."""


class TransporterPut(Request, frozen=True):
    """Create or replace a transporter."""

    transporter_id: Id
    name: Annotated[str, Meta(max_length=200, pattern=_TEXT)] = ""


class VehiclePut(Request, frozen=True):
    """Create or replace a vehicle."""

    vehicle_id: Id
    transporter_id: Id
    vehicle_type: Id


class DriverPut(Request, frozen=True):
    """Create or replace a driver."""

    driver_id: Id
    transporter_id: Id
    name: Annotated[str, Meta(max_length=200, pattern=_TEXT)] = ""


class TenantPut(Request, frozen=True, forbid_unknown_fields=True):
    """Create a tenant."""

    tenant_id: Id
    settings: Settings = Settings()


REST_REQUESTS: Mapping[str, type[Request]] = {
    "availability.put": AvailabilityPut,
    "broadcast.list": BroadcastList,
    "broadcast.get": BroadcastGet,
    "offer.list": OfferList,
    "topic.get": TopicGet,
    "node.list": NodeList,
    "settings.history": SettingsHistory,
    "control.log": ControlLog,
    "transporter.put": TransporterPut,
    "vehicle.put": VehiclePut,
    "driver.put": DriverPut,
    "tenant.put": TenantPut,
}

TYPE_OF: Mapping[type[Request], str] = {
    struct: name for table in (REQUESTS, REST_REQUESTS) for name, struct in table.items()
}
"""The name of each struct: in metrics, logs and fingerprints."""

ENUMS: Mapping[str, tuple[str, ...]] = {
    "status": tuple(TripStatus),
    "audience": tuple(Audience),
    "active_broadcast_policy": tuple(ActiveBroadcastPolicy),
}
"""What a field may say where only certain words are allowed, for the error message."""
