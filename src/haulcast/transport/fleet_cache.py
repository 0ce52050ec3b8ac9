"""Whose vehicle is it: a small memory of the fleet, so that positions and accepts need no query.

1. Only what exists is remembered, for at most `ttl_s`; what was not found is asked for again each time.
2. What was changed on this node is forgotten at once, and what was changed on another as soon as that says so, or
   within `ttl_s` if its word is lost. An accept is checked again where it is written, so the cache can delay a yes but
   never wrongly grant one.
3. A read that was under way while something was forgotten is used but not remembered.
"""

from typing import Generic, TypeVar

import msgspec
import structlog

from haulcast.domain.fleet import Driver, Vehicle
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.ports import Clock, Journal

K = TypeVar("K")
V = TypeVar("V")

log = structlog.get_logger()

TTL_S = 60.0
MAX_ENTRIES = 100_000
"""Of each kind; an entry takes about 430 bytes (measured)."""


class Changed(msgspec.Struct, frozen=True, array_like=True):
    """What nodes tell each other: these have been changed."""

    tenant_id: TenantId
    vehicles: list[VehicleId] = []
    drivers: list[DriverId] = []
    transporters: list[TransporterId] = []
    """Whose they are by now. Whose they were is not told."""

    def to_bytes(self) -> bytes:
        """As it travels."""
        return _encode(self)

    @staticmethod
    def from_bytes(payload: bytes) -> "Changed":
        """What travelled. Raises `msgspec.MsgspecError`."""
        return _decode(payload)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Changed).decode


class _Memory(Generic[K, V]):
    """Values with a time to live, at most `max_entries`: the oldest goes first."""

    def __init__(self, ttl_s: float, max_entries: int) -> None:
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._entries: dict[K, tuple[float, V]] = {}  # in the order of their deadlines

    def get(self, key: K, now: float) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._entries[key]
            return None
        return entry[1]

    def put(self, key: K, value: V, now: float) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (now + self._ttl_s, value)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)


class FleetCache:
    """Vehicles and drivers of all tenants, as the journal had them lately."""

    def __init__(self, journal: Journal, clock: Clock, ttl_s: float = TTL_S, max_entries: int = MAX_ENTRIES) -> None:
        self._journal = journal
        self._clock = clock
        self._vehicles: _Memory[tuple[TenantId, VehicleId], Vehicle] = _Memory(ttl_s, max_entries)
        self._drivers: _Memory[tuple[TenantId, DriverId], Driver] = _Memory(ttl_s, max_entries)
        self._changes = 0  # how often something was forgotten

    def vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
        """The vehicle, if it is remembered."""
        return self._vehicles.get((tenant_id, vehicle_id), self._clock.monotonic_s())

    def driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
        """The driver, if remembered."""
        return self._drivers.get((tenant_id, driver_id), self._clock.monotonic_s())

    async def read_vehicle(self, tenant_id: TenantId, vehicle_id: VehicleId) -> Vehicle | None:
        """The vehicle as the journal has it now."""
        changes = self._changes
        vehicle = await self._journal.read_vehicle(tenant_id, vehicle_id)
        if vehicle is not None and changes == self._changes:
            self._vehicles.put((tenant_id, vehicle_id), vehicle, self._clock.monotonic_s())
        return vehicle

    async def read_driver(self, tenant_id: TenantId, driver_id: DriverId) -> Driver | None:
        """The driver as the journal has them now."""
        changes = self._changes
        driver = await self._journal.read_driver(tenant_id, driver_id)
        if driver is not None and changes == self._changes:
            self._drivers.put((tenant_id, driver_id), driver, self._clock.monotonic_s())
        return driver

    def forget(self, changed: Changed) -> None:
        """These are not as they were."""
        self._changes += 1
        for vehicle_id in changed.vehicles:
            self._vehicles.forget((changed.tenant_id, vehicle_id))
        for driver_id in changed.drivers:
            self._drivers.forget((changed.tenant_id, driver_id))
