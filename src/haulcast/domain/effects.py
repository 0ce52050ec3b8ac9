"""What is to be done once a decision is durable. None of it is done if the write fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from .broadcast import Offer, Trip, WaitingAccept
from .geo import Point
from .ids import TransporterId, VehicleId
from .replies import Json, Refusal


class TripNews(StrEnum):
    """Why a trip is shown again."""

    TRIP_ASSIGNED = "trip_assigned"
    TRIP_UPDATED = "trip_updated"
    TRIP_CONTINUES = "trip_continues"
    """The broadcast has ended for everybody else; this truck's trip stands."""


class CustomerNews(StrEnum):
    """What the watchers of a broadcast are told besides its changed state."""

    TRUCK_CONFIRMED = "truck_confirmed"
    TRIP_UPDATED = "trip_updated"
    EXPIRY_REMINDER = "expiry_reminder"
    BROADCAST_CANCELLED = "broadcast_cancelled"
    BROADCAST_EXPIRED = "broadcast_expired"


@dataclass(frozen=True, slots=True)
class SeekCandidates:
    """Look for the nearest transporters that match and answer with `SendWave`."""

    wave: int
    radius_m: float | None
    vehicle_types: frozenset[str]
    limit: int


@dataclass(frozen=True, slots=True)
class MeasureAccepts:
    """Find out where these vehicles are, as far as that is known, and answer with `Match`."""

    vehicle_ids: tuple[VehicleId, ...]


@dataclass(frozen=True, slots=True)
class MatchOn:
    """More accepts are to be decided: answer with `Match` at once."""

    positions: Mapping[VehicleId, Point]


@dataclass(frozen=True, slots=True)
class OpenOffers:
    """Show the broadcast to these transporters."""

    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class AmendOffers:
    """The trucks still open have changed: show it to those who have the offer."""

    to: tuple[TransporterId, ...]


@dataclass(frozen=True, slots=True)
class CloseOffers:
    """The broadcast is over for these transporters, who won nothing in it; its state says why."""

    to: tuple[TransporterId, ...]


@dataclass(frozen=True, slots=True)
class DropOffers:
    """Take the offer off the feeds of these transporters: they declined it, or their trips stand in its place."""

    to: tuple[TransporterId, ...]


@dataclass(frozen=True, slots=True)
class ShowWaiting:
    """An accept of these transporters waits until `decided_at_ms`, or (None) does not wait any more: show it in the
    offer, which they have."""

    to: tuple[TransporterId, ...]
    decided_at_ms: int | None


@dataclass(frozen=True, slots=True)
class LoseAccepts:
    """Tell these, who waited, that they have not won, and why."""

    accepts: tuple[WaitingAccept, ...]
    code: Refusal


@dataclass(frozen=True, slots=True)
class ShowTrip:
    """Tell the transporter and the driver of a trip."""

    trip: Trip
    news: TripNews


@dataclass(frozen=True, slots=True)
class TellWatchers:
    """Tell the customer and whoever else watches the broadcast."""

    news: CustomerNews
    data: dict[str, Json]


Effect: TypeAlias = (
    SeekCandidates
    | MeasureAccepts
    | MatchOn
    | OpenOffers
    | AmendOffers
    | CloseOffers
    | DropOffers
    | ShowWaiting
    | LoseAccepts
    | ShowTrip
    | TellWatchers
)
