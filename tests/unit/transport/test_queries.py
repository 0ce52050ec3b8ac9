from dataclasses import replace
from typing import Any

import pytest

from haulcast.domain.broadcast import WaitingAccept
from haulcast.domain.events import AcceptsLost, AcceptWaiting, Event, WaveHeld, WaveSent
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.replies import Done, Refusal
from haulcast.domain.states import TripStatus
from haulcast.errors import RequestError
from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.codec import dumps
from haulcast.transport.handlers import Caller, Handlers
from tests.contract.hauls import FLEET, Haul, another, land
from tests.unit.transport.fakes import ACME, World, principal

OTHER = TenantId("other")


def caller(role: Role, user_id: str, tenant_id: TenantId = ACME) -> Caller:
    return Caller(principal(role, user_id, tenant_id))


@pytest.fixture
async def world() -> World:
    """The broadcasts b1 to b3 of the customers c1 to c3, b3 being another tenant's."""
    world = World()
    await world.journal.put_fleet(ACME, FLEET)
    for haul in (another(1), another(2, at_ms=another(1).at_ms + 1), another(3, tenant=OTHER)):
        await land(world.journal, haul.step(haul.created()))
    return world


async def ask(world: World, who: Caller, request: wire.Request) -> Any:
    reply = await Handlers(world.services).carry_out(who, None, request)
    assert isinstance(reply, Done)
    dumps(reply.data)  # it can be told
    return reply.data


@pytest.mark.parametrize(
    ("who", "shown"),
    [
        (caller(Role.CUSTOMER, "c1"), ["b1"]),
        (caller(Role.CUSTOMER, "nobody"), []),
        (caller(Role.CUSTOMER, "c3"), []),
        (caller(Role.OPERATOR, "op1"), ["b2", "b1"]),
        (caller(Role.OPERATOR, "c1"), ["b2", "b1"]),
        (caller(Role.OPERATOR, "op1", OTHER), ["b3"]),
    ],
)
async def test_a_customer_is_listed_their_own_and_an_operator_the_tenants(
    world: World, who: Caller, shown: list[str]
) -> None:
    listed = await ask(world, who, wire.BroadcastList())
    assert [one["broadcast_id"] for one in listed["broadcasts"]] == shown


@pytest.mark.parametrize(
    ("who", "shown"),
    [
        (caller(Role.CUSTOMER, "c1"), True),
        (caller(Role.CUSTOMER, "c2"), False),
        (caller(Role.CUSTOMER, "c1", OTHER), False),
        (caller(Role.OPERATOR, "op1"), True),
        (caller(Role.OPERATOR, "op1", OTHER), False),
    ],
)
async def test_one_broadcast_is_shown_to_its_customer_and_the_tenants_operators(
    world: World, who: Caller, shown: bool
) -> None:
    request = wire.BroadcastGet("b1")
    if shown:
        assert (await ask(world, who, request))["broadcast_id"] == "b1"
    else:
        with pytest.raises(RequestError) as caught:
            await ask(world, who, request)
        assert caught.value.code is Refusal.BROADCAST_NOT_FOUND


async def test_the_timeline_tells_what_happened_but_not_who_was_offered_or_declined(world: World) -> None:
    haul = Haul(broadcast_id=another(4).broadcast_id, customer_id=another(4).customer_id)
    events: list[Event] = [
        haul.created(),
        haul.wave("t1"),
        haul.offered("t2"),
        haul.declined("t2"),
        haul.assigned(1, "t1"),
        haul.trip(1, TripStatus.EN_ROUTE),
        haul.cancelled(),
    ]
    for event in events:
        await land(world.journal, haul.step(event))
    timeline = (await ask(world, caller(Role.CUSTOMER, "c4"), wire.BroadcastGet("b4")))["timeline"]
    assert [(entry["seq"], entry["event"]) for entry in timeline] == [
        (1, "created"),
        (2, "wave_sent"),
        (3, "offered"),
        (4, "declined"),
        (5, "truck_assigned"),
        (6, "trip_updated"),
        (7, "cancelled"),
    ]
    assert all(entry["at"] == haul.at_ms for entry in timeline)
    assert (timeline[1]["wave"], timeline[1]["notified"]) == (1, 1)
    assert timeline[4]["vehicle_id"] == "t1v1"
    assert timeline[5]["status"] == "en_route"
    assert timeline[6]["reason"] == "customer_cancelled"
    assert "t2" not in repr(timeline)


async def test_only_operators_are_shown_who_was_left_out_of_a_wave(world: World) -> None:
    haul = Haul(broadcast_id=another(4).broadcast_id, customer_id=another(4).customer_id)
    for event in (haul.created(), haul.wave("t1"), replace(haul.wave("t2"), radius_m=None, left_out=())):
        await land(world.journal, haul.step(event))
    request = wire.BroadcastGet("b4")
    of_operator = (await ask(world, caller(Role.OPERATOR, "op1"), request))["timeline"]
    assert [entry["radius_m"] for entry in of_operator[1:]] == [10_000.0, None]
    assert [entry["left_out"] for entry in of_operator[1:]] == [
        [
            {
                "transporter_id": "t9",
                "vehicle_id": "t9v1",
                "vehicle_type": "truck_14ft",
                "distance_m": 9_500,
                "reason": "on_trip",
            }
        ],
        [],
    ]
    of_customer = (await ask(world, caller(Role.CUSTOMER, "c4"), request))["timeline"]
    assert [entry["radius_m"] for entry in of_customer[1:]] == [10_000.0, None]
    assert all("left_out" not in entry for entry in of_customer)
    assert "t9" not in repr(of_customer)


async def test_only_operators_are_shown_who_waited_and_lost(world: World) -> None:
    haul = Haul(broadcast_id=another(4).broadcast_id, customer_id=another(4).customer_id)
    truck = haul.vehicle_type
    waiting = WaitingAccept(TransporterId("t1"), VehicleId("t1v1"), truck, DriverId("t1d1"), haul.at_ms)
    for event in (
        haul.created(),
        haul.wave("t1"),
        AcceptWaiting(haul.at_ms, waiting, haul.at_ms + 3_000),
        AcceptsLost(haul.at_ms, (waiting.vehicle_id,), Refusal.DRIVER_BUSY),
        WaveHeld(haul.at_ms),
    ):
        await land(world.journal, haul.step(event))
    request = wire.BroadcastGet("b4")
    of_operator = (await ask(world, caller(Role.OPERATOR, "op1"), request))["timeline"][2:]
    assert of_operator == [
        {
            "seq": 3,
            "at": haul.at_ms,
            "event": "accept_waiting",
            "decided_at": haul.at_ms + 3_000,
            "transporter_id": "t1",
            "vehicle_id": "t1v1",
            "vehicle_type": truck,
            "driver_id": "t1d1",
        },
        {"seq": 4, "at": haul.at_ms, "event": "accepts_lost", "vehicle_ids": ("t1v1",), "code": "DRIVER_BUSY"},
        {"seq": 5, "at": haul.at_ms, "event": "wave_held"},
    ]
    of_customer = (await ask(world, caller(Role.CUSTOMER, "c4"), request))["timeline"][2:]
    assert of_customer[0] == {
        "seq": 3,
        "at": haul.at_ms,
        "event": "accept_waiting",
        "decided_at": haul.at_ms + 3_000,
    }
    assert of_customer[1] == {"seq": 4, "at": haul.at_ms, "event": "accepts_lost"}


async def test_who_waits_sees_it_on_the_offer(world: World) -> None:
    haul = Haul(broadcast_id=another(4).broadcast_id, customer_id=another(4).customer_id)
    waiting = WaitingAccept(TransporterId("t1"), VehicleId("t1v1"), haul.vehicle_type, DriverId("t1d1"), haul.at_ms)
    for event in (haul.created(), haul.wave("t1", "t2"), AcceptWaiting(haul.at_ms, waiting, haul.at_ms + 3_000)):
        await land(world.journal, haul.step(event))
    shown = [
        (await ask(world, caller(Role.TRANSPORTER, each), wire.OfferList()))["offers"]["b4"].get("decided_at")
        for each in ("t1", "t2")
    ]
    assert shown == [haul.at_ms + 3_000, None]


async def test_of_a_wave_from_before_this_was_recorded_the_timeline_says_neither(world: World) -> None:
    haul = Haul(broadcast_id=another(4).broadcast_id, customer_id=another(4).customer_id)
    await land(world.journal, haul.step(haul.created()))
    await land(world.journal, haul.step(WaveSent(haul.at_ms, 1, (), None)))
    timeline = (await ask(world, caller(Role.OPERATOR, "op1"), wire.BroadcastGet("b4")))["timeline"]
    assert timeline[1] == {"seq": 2, "at": haul.at_ms, "event": "wave_sent", "wave": 1, "notified": 0}


async def test_offers_are_those_of_the_feed(world: World) -> None:
    haul = Haul(broadcast_id=another(4).broadcast_id, customer_id=another(4).customer_id)
    await land(world.journal, haul.step(haul.created()), haul.step(haul.wave("t1")))
    assert list((await ask(world, caller(Role.TRANSPORTER, "t1"), wire.OfferList()))["offers"]) == ["b4"]
    assert (await ask(world, caller(Role.TRANSPORTER, "t2"), wire.OfferList()))["offers"] == {}
