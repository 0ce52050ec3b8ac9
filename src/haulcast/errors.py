"""Every error that haulcast raises or answers with.

    HaulcastError
    ├── RequestError          answered to whoever asked: a code of `ERRORS`, a message, data
    ├── StoreUnavailable      a store cannot be reached; the same call may work later
    │   ├── JournalUnavailable    the durable one
    │   └── ClusterUnavailable    the one that nodes share hints in
    ├── JournalFault          the durable store has, or was given, what it cannot work with; trying again is no use
    ├── RoutesUnavailable     distances and times by road cannot be had now
    └── ConfigError           haulcast cannot start as it is configured (exit code 2)

`ERRORS` is the one table of codes: what each says, its HTTP status, and whether the same request may work later.
Codes of the core (`Refusal`) and codes of the edge (`ErrorCode`) stand in it side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from .domain.replies import Json, Refusal
from .domain.routes import RouteFault


class ErrorCode(StrEnum):
    """Why a request never reached a decision."""

    BAD_REQUEST = "BAD_REQUEST"
    BAD_JSON = "BAD_JSON"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    HELLO_REQUIRED = "HELLO_REQUIRED"
    ALREADY_GREETED = "ALREADY_GREETED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    TOPIC_NOT_FOUND = "TOPIC_NOT_FOUND"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    TENANT_EXISTS = "TENANT_EXISTS"
    TOO_MANY_TOPICS = "TOO_MANY_TOPICS"
    TOO_MANY_TOGGLES = "TOO_MANY_TOGGLES"
    VERSION_MISMATCH = "VERSION_MISMATCH"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    LAST_NODE = "LAST_NODE"
    RATE_LIMITED = "RATE_LIMITED"
    BUSY = "BUSY"
    DRAINING = "DRAINING"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


Code = ErrorCode | Refusal


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """`retry`: the same request, with the same id, may succeed later without anything being changed."""

    http_status: int
    message: str
    retry: bool = False


ERRORS: Mapping[Code, ErrorSpec] = MappingProxyType(
    {
        ErrorCode.BAD_REQUEST: ErrorSpec(400, "A field is missing or has a value that is not allowed."),
        ErrorCode.BAD_JSON: ErrorSpec(400, "The message is not one JSON object."),
        ErrorCode.UNKNOWN_TYPE: ErrorSpec(400, "There is no request of this type."),
        ErrorCode.HELLO_REQUIRED: ErrorSpec(401, "The first request on a connection is hello."),
        ErrorCode.ALREADY_GREETED: ErrorSpec(409, "This connection has said hello before."),
        ErrorCode.UNAUTHENTICATED: ErrorSpec(401, "The token is missing, expired or not valid."),
        ErrorCode.FORBIDDEN: ErrorSpec(403, "Your role may not do this."),
        ErrorCode.NOT_FOUND: ErrorSpec(404, "There is nothing at this address."),
        ErrorCode.TOPIC_NOT_FOUND: ErrorSpec(404, "There is no such topic for you."),
        ErrorCode.TENANT_NOT_FOUND: ErrorSpec(403, "There is no such tenant."),
        ErrorCode.TENANT_EXISTS: ErrorSpec(409, "The tenant exists, with other settings."),
        ErrorCode.TOO_MANY_TOPICS: ErrorSpec(429, "This connection has subscribed to too many topics."),
        ErrorCode.TOO_MANY_TOGGLES: ErrorSpec(429, "Going online and offline too often.", retry=True),
        ErrorCode.VERSION_MISMATCH: ErrorSpec(412, "It has changed since the version that you expected."),
        ErrorCode.NODE_NOT_FOUND: ErrorSpec(404, "There is no such live node."),
        ErrorCode.LAST_NODE: ErrorSpec(409, "There is no other node that could go on for this one."),
        ErrorCode.RATE_LIMITED: ErrorSpec(429, "Too many requests; slow down.", retry=True),
        ErrorCode.BUSY: ErrorSpec(503, "Too much is under way; try again shortly.", retry=True),
        ErrorCode.DRAINING: ErrorSpec(503, "This server is about to stop; reconnect.", retry=True),
        ErrorCode.UNAVAILABLE: ErrorSpec(503, "The outcome is not known; send the same id again.", retry=True),
        ErrorCode.INTERNAL: ErrorSpec(500, "Something went wrong here; it has been logged."),
        Refusal.BROADCAST_NOT_FOUND: ErrorSpec(404, "There is no such broadcast for you."),
        Refusal.ACTIVE_BROADCAST_EXISTS: ErrorSpec(409, "You have an active broadcast already."),
        Refusal.EXPIRY_OUT_OF_RANGE: ErrorSpec(422, "expires_in_s is outside what your network allows."),
        Refusal.REQUEST_ALREADY_TAKEN: ErrorSpec(409, "Somebody else was faster."),
        Refusal.ACCEPTS_FULL: ErrorSpec(409, "Too many accepts wait for a decision."),
        Refusal.BROADCAST_EXPIRED: ErrorSpec(410, "The broadcast has expired."),
        Refusal.BROADCAST_CANCELLED: ErrorSpec(410, "The customer has cancelled the broadcast."),
        Refusal.BROADCAST_FULLY_FILLED: ErrorSpec(409, "All trucks of the broadcast have been found."),
        Refusal.NOT_OFFERED: ErrorSpec(403, "This broadcast was not offered to you."),
        Refusal.VEHICLE_NOT_OWNED: ErrorSpec(403, "The vehicle is not one of yours."),
        Refusal.VEHICLE_TYPE_MISMATCH: ErrorSpec(409, "The broadcast does not ask for this type of vehicle."),
        Refusal.VEHICLE_BUSY: ErrorSpec(409, "The vehicle is on another trip."),
        Refusal.DRIVER_NOT_OWNED: ErrorSpec(403, "The driver is not one of yours."),
        Refusal.DRIVER_BUSY: ErrorSpec(409, "The driver is on another trip."),
        Refusal.TRIP_NOT_FOUND: ErrorSpec(404, "There is no such trip for you."),
        Refusal.TRIP_TRANSITION_INVALID: ErrorSpec(409, "The trip cannot go from its state to this one."),
        Refusal.ID_REUSED: ErrorSpec(409, "This id was used for another request."),
        Refusal.TRANSPORTER_NOT_FOUND: ErrorSpec(404, "There is no such transporter."),
        Refusal.TENANT_PAUSED: ErrorSpec(409, "Dispatch is paused: no new broadcasts for now."),
        Refusal.TOO_MANY_ANNOUNCEMENTS: ErrorSpec(429, "Too many announcements; wait a while.", retry=True),
    }
)


class HaulcastError(Exception):
    """Something that haulcast knows about went wrong."""


class RequestError(HaulcastError):
    """A request that is answered with an error. `message` says what is wrong here; the table's is the default.

    `reason` says more to whoever reads the log, and is not answered.
    """

    def __init__(self, code: Code, message: str | None = None, /, **data: Json) -> None:
        self.code = code
        self.message = message or ERRORS[code].message
        self.data = data
        self.reason = ""
        super().__init__(f"{code}: {self.message}")


class StoreUnavailable(HaulcastError):
    """A store cannot be reached now."""


class JournalUnavailable(StoreUnavailable):
    """The journal cannot be reached now."""


class ClusterUnavailable(StoreUnavailable):
    """The store that nodes share hints in cannot be reached now."""


class JournalFault(HaulcastError):
    """The journal has, or was given, what it cannot work with."""


class RoutesUnavailable(HaulcastError):
    """Distances and times by road cannot be had now: `fault` for users, the message for whoever reads the log."""

    def __init__(self, fault: RouteFault, message: str) -> None:
        self.fault = fault
        super().__init__(message)


class ConfigError(HaulcastError):
    """haulcast cannot start as it is configured. The message says what to change."""
