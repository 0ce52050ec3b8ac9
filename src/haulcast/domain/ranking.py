"""Whom a wave reaches first: the nearest, with ties broken by id so that every run and every node agrees."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .ids import TransporterId, VehicleId


@dataclass(frozen=True, slots=True, order=True)
class Candidate:
    """A transporter that could serve a broadcast, with the nearest of its vehicles that match."""

    distance_m: int
    transporter_id: TransporterId
    vehicle_id: VehicleId
    vehicle_type: str


def rank(candidates: Iterable[Candidate], exclude: Collection[TransporterId], limit: int) -> tuple[Candidate, ...]:
    """The `limit` nearest transporters not in `exclude`, each once with its nearest vehicle."""
    nearest: dict[TransporterId, Candidate] = {}
    for candidate in sorted(candidates):
        if candidate.transporter_id not in exclude:
            nearest.setdefault(candidate.transporter_id, candidate)
            if len(nearest) == limit:
                break
    return tuple(nearest.values())
