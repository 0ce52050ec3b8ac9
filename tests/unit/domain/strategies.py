"""Builders and hypothesis strategies for the core: a broadcast under way, its commands, settings and times.

The ids are such that no two kinds share one: transporter `t1` owns the vehicles `t1:van`, `t1:truck`... and employs
the driver `t1:driver`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from haulcast.domain.broadcast import Broadcast, Place, Trip
from haulcast.domain.commands import Accept, Appear, Command, Create, SendWave, TruckSpec, UpdateTrip
from haulcast.domain.control import TenantControl
from haulcast.domain.decide import decide
from haulcast.domain.decision import Decision
from haulcast.domain.events import Event
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TenantId, TransporterId, TripId, VehicleId
from haulcast.domain.modes import MODES
from haulcast.domain.ranking import Candidate, LeftOut, LeftOutReason
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import TripStatus
from haulcast.domain.waves import offers_per_wave, radius_m

NOW_MS = 1_790_000_000_000
TENANT = TenantId("acme")
CUSTOMER = CustomerId("c1")
STRANGER = CustomerId("c2")
BROADCAST = BroadcastId("01k9haul")
PICKUP = Place(19.076, 72.8777, "Dock 4")
DROP = Place(18.5204, 73.8567, "Yard 7")
TYPES = ("van", "truck", "trailer")
T1, T2, T3, T4, T5, T6 = TRANSPORTERS = tuple(TransporterId(f"t{number}") for number in range(1, 7))


# --- Builders --------------------------------------------------------------------------------------------------------


def vehicle_of(transporter: TransporterId, vehicle_type: str = "van") -> VehicleId:
    return VehicleId(f"{transporter}:{vehicle_type}")


def driver_of(transporter: TransporterId) -> DriverId:
    return DriverId(f"{transporter}:driver")


def create(*vehicle_types: str, expires_in_s: int | None = 300) -> Create:
    """The creation of a broadcast that wants one truck of each of `vehicle_types`, in this order."""
    return Create(
        TENANT,
        BROADCAST,
        CUSTOMER,
        PICKUP,
        DROP,
        tuple(TruckSpec(vehicle_type, 1) for vehicle_type in vehicle_types),
        expires_in_s,
        "two pallets",
    )


def candidate(transporter: TransporterId, vehicle_type: str = "van", distance_m: int = 1_000) -> Candidate:
    return Candidate(distance_m, transporter, vehicle_of(transporter, vehicle_type), vehicle_type)


def left_out(
    transporter: TransporterId,
    reason: LeftOutReason = LeftOutReason.ON_TRIP,
    vehicle_type: str = "van",
    distance_m: int = 1_000,
) -> LeftOut:
    return LeftOut(distance_m, transporter, vehicle_of(transporter, vehicle_type), vehicle_type, reason)


def accept(transporter: TransporterId, vehicle_type: str = "van") -> Accept:
    return Accept(transporter, vehicle_of(transporter, vehicle_type), vehicle_type, driver_of(transporter))


def found(
    wave: int,
    *candidates: Candidate,
    more: bool = False,
    left_out: Iterable[LeftOut] = (),
    settings: TenantSettings | None = None,
) -> SendWave:
    """What a lookup under `settings` (the default ones) found for `wave`."""
    settings = settings or TenantSettings()
    return SendWave(wave, radius_m(settings, wave), offers_per_wave(settings), candidates, more, tuple(left_out))


class Run:
    """A broadcast under way: decides each command at `now_ms`, folds its events, and keeps them all."""

    def __init__(self, settings: TenantSettings | None = None, now_ms: int = NOW_MS) -> None:
        self.control = TenantControl(settings or TenantSettings())
        self.now_ms = now_ms
        self.current: Broadcast | None = None
        self.events: list[Event] = []

    @property
    def settings(self) -> TenantSettings:
        return self.control.settings

    @property
    def state(self) -> Broadcast:
        assert self.current is not None
        return self.current

    def decide(self, command: Command) -> Decision:
        """What `command` would lead to now; changes nothing."""
        return decide(self.current, command, self.control, self.now_ms)

    def do(self, command: Command) -> Decision:
        """Decide `command` and make it so."""
        decision = self.decide(command)
        for event in decision.events:
            self.current = evolve(self.current, event)
            self.events.append(event)
        return decision

    def configure(self, *, paused: bool | None = None, **settings: Any) -> "Run":
        """The same broadcast, with other settings in force."""
        self.control = TenantControl(
            replace(self.settings, **settings),
            self.control.paused if paused is None else paused,
            self.control.version + 1,
        )
        return self

    def at(self, now_ms: int) -> "Run":
        """The same broadcast, with the clock set to `now_ms`."""
        self.now_ms = now_ms
        return self

    def send_wave(self, *candidates: Candidate, more: bool = False, left_out: Iterable[LeftOut] = ()) -> Decision:
        """Send the next wave to `candidates`."""
        return self.do(found(self.state.wave + 1, *candidates, more=more, left_out=left_out, settings=self.settings))

    def trip(self, number: int = 1) -> Trip:
        """The trip of the `number`-th truck."""
        trip = self.state.requests[number - 1].trip
        assert trip is not None
        return trip

    def move(self, status: TripStatus, number: int = 1) -> Decision:
        """The transporter of the `number`-th truck's trip reports `status`."""
        trip = self.trip(number)
        return self.do(UpdateTrip(trip.transporter_id, trip.trip_id, status))


def begun(
    *vehicle_types: str,
    offered: Iterable[TransporterId] = (),
    settings: TenantSettings | None = None,
    expires_in_s: int = 300,
) -> Run:
    """A broadcast for `vehicle_types`; if there are `offered`, its first wave has reached them with such vehicles.

    The n-th of them stands n km away and has a vehicle of the n-th type, beginning again after the last.
    """
    run = Run(settings)
    run.do(create(*vehicle_types, expires_in_s=expires_in_s))
    if reached := tuple(offered):
        run.send_wave(
            *(
                candidate(transporter, vehicle_types[number % len(vehicle_types)], (number + 1) * 1_000)
                for number, transporter in enumerate(reached)
            )
        )
    return run


# --- Strategies ------------------------------------------------------------------------------------------------------

transporters = st.sampled_from(TRANSPORTERS)
vehicle_types = st.sampled_from(TYPES)
distances_m = st.integers(0, 120_000)


@st.composite
def tenant_settings(draw: st.DrawFn) -> TenantSettings:
    """Settings that work, small enough for their limits to be met."""
    radii: list[float | None] = [*sorted(draw(st.sets(st.integers(1, 100), max_size=4)))]
    if not radii or draw(st.booleans()):
        radii.append(None)
    low, default, high = sorted(draw(st.lists(st.integers(1, 600), min_size=3, max_size=3)))
    return TenantSettings(
        wave_radii_km=tuple(radii),
        wave_interval_s=draw(st.sampled_from((0.1, 1.0, 15.0, 60.0))),
        max_offers_per_wave=draw(st.integers(1, 5)),
        default_expiry_s=default,
        min_expiry_s=low,
        max_expiry_s=high,
        reminder_lead_s=draw(st.integers(1, 90)),
        dispatch_mode=draw(st.sampled_from([*MODES])),
        accept_window_s=draw(st.sampled_from((0.1, 3.0, 60.0))),
    )


creates = st.builds(
    Create,
    tenant_id=st.just(TENANT),
    broadcast_id=st.just(BROADCAST),
    customer_id=st.just(CUSTOMER),
    pickup=st.just(PICKUP),
    drop=st.just(DROP),
    trucks=st.lists(st.builds(TruckSpec, vehicle_types, st.integers(1, 3)), min_size=1, max_size=2).map(tuple),
    expires_in_s=st.none() | st.integers(1, 600),
    note=st.just(""),
)

candidates = st.builds(candidate, transporters, vehicle_types, distances_m)
lefts_out = st.builds(left_out, transporters, st.sampled_from(LeftOutReason), vehicle_types, distances_m)
accepts = st.builds(accept, transporters, vehicle_types)
appearances = st.builds(Appear, candidates)
trip_statuses = st.sampled_from(TripStatus)


def trip_updates(trip_ids: Iterable[TripId]) -> st.SearchStrategy[UpdateTrip]:
    """Somebody, perhaps a stranger, reports how far one of `trip_ids` has come."""
    somebody = transporters | transporters.map(driver_of)
    return st.builds(UpdateTrip, somebody, st.sampled_from([*trip_ids]), trip_statuses)
