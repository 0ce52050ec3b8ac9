"""What is to be done once a decision is durable. None of it is done if the write fails."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from .broadcast import Offer, Trip
from .ids import TransporterId
from .replies import Json


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
class ShowTrip:
    """Tell the transporter and the driver of a trip."""

    trip: Trip
    news: TripNews


@dataclass(frozen=True, slots=True)
class TellWatchers:
    """Tell the customer and whoever else watches the broadcast."""

    news: CustomerNews
    data: dict[str, Json]


Effect: TypeAlias = SeekCandidates | OpenOffers | AmendOffers | CloseOffers | DropOffers | ShowTrip | TellWatchers
