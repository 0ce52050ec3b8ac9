"""Who can be dispatched: transporters, the vehicles they own and the drivers they employ."""

from dataclasses import dataclass
from typing import TypeAlias

from .ids import DriverId, TransporterId, VehicleId


@dataclass(frozen=True, slots=True)
class Transporter:
    """A company, or an owner-driver, that takes hauls."""

    transporter_id: TransporterId
    name: str = ""


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A truck. `vehicle_type` is what broadcasts ask for; matching is by equality."""

    vehicle_id: VehicleId
    transporter_id: TransporterId
    vehicle_type: str


@dataclass(frozen=True, slots=True)
class Driver:
    """Somebody who drives for one transporter."""

    driver_id: DriverId
    transporter_id: TransporterId
    name: str = ""


FleetItem: TypeAlias = Transporter | Vehicle | Driver
