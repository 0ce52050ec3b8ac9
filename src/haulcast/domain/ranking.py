"""Whom a wave reaches first: the nearest, with ties broken by id so that every run and every node agrees; and who is
left out of it, in the same order."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from .ids import TransporterId, VehicleId


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A transporter that could serve a broadcast, with the nearest of its vehicles that match."""

    distance_m: int
    transporter_id: TransporterId
    vehicle_id: VehicleId
    vehicle_type: str


class LeftOutReason(StrEnum):
    """Why a vehicle brought its transporter no offer: the first of these that holds."""

    TYPE_FILLED = "type_filled"
    """The last truck of its type was won while the wave was looked up."""
    OFFLINE = "offline"
    """Its transporter is not online."""
    ON_TRIP = "on_trip"
    """It is engaged."""
    NO_SIGNAL = "no_signal"
    """Its position is too old."""
    OUT_OF_RANGE = "out_of_range"
    """It matches, beyond the radius of the wave."""
    OVER_LIMIT = "over_limit"
    """It matches, but the wave took only so many, who were nearer."""


@dataclass(frozen=True, slots=True, order=True)
class LeftOut:
    """A transporter that a wave did not reach, with its nearest vehicle of a type asked for, and why not."""

    distance_m: int
    transporter_id: TransporterId
    vehicle_id: VehicleId
    vehicle_type: str
    reason: LeftOutReason


Ranked = TypeVar("Ranked", Candidate, LeftOut)


def rank(found: Iterable[Ranked], exclude: Collection[TransporterId], limit: int) -> tuple[Ranked, ...]:
    """The `limit` nearest transporters not in `exclude`, each once with its nearest vehicle."""
    nearest: dict[TransporterId, Ranked] = {}
    if limit > 0:
        for each in sorted(found):
            if each.transporter_id not in exclude:
                nearest.setdefault(each.transporter_id, each)
                if len(nearest) == limit:
                    break
    return tuple(nearest.values())


def over_limit(candidate: Candidate) -> LeftOut:
    """A candidate for whom there was no place left."""
    return LeftOut(
        candidate.distance_m,
        candidate.transporter_id,
        candidate.vehicle_id,
        candidate.vehicle_type,
        LeftOutReason.OVER_LIMIT,
    )
