"""What every journal promises across broadcasts: one live for a customer, one active trip for a vehicle or driver."""

import pytest

from haulcast.domain.events import Event
from haulcast.domain.ids import BroadcastId, CustomerId, TransporterId
from haulcast.domain.replies import Refusal
from haulcast.domain.states import TripStatus
from haulcast.ports import Conflict, Journal
from tests.contract.hauls import ACME, Haul, land, logged, nothing_of, only, searching

ANSWERED = logged("r1")


async def test_a_customer_has_one_live_broadcast(journal: Journal) -> None:
    await searching(journal)
    second = Haul(BroadcastId("b2"), CustomerId("c1"))
    write = second.write(second.created(), reply=ANSWERED)
    assert await only(journal, write) == Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": "b1"})
    assert await nothing_of(journal, write)
    assert await journal.read_broadcast(ACME, BroadcastId("b2")) is None
    assert await journal.read_events(ACME, BroadcastId("b2")) == []


@pytest.mark.parametrize("ending", ["fully_filled", "cancelled", "expired", "partially_filled and cancelled"])
async def test_the_customer_is_free_again_once_the_broadcast_has_ended(journal: Journal, ending: str) -> None:
    """Partially filled is not an end; each terminal state is."""
    haul = await searching(journal)
    second = Haul(BroadcastId("b2"), CustomerId("c1"))
    creation = second.write(second.created())
    if ending in ("fully_filled", "partially_filled and cancelled"):
        await land(journal, haul.step(haul.assigned(1, "t1")))
    assert isinstance(await only(journal, creation), Conflict)
    last: dict[str, Event] = {"fully_filled": haul.assigned(2, "t2"), "expired": haul.expired()}
    await land(journal, haul.step(last.get(ending, haul.cancelled())))
    assert haul.state is not None
    assert not haul.state.live
    await land(journal, creation)


async def test_an_ended_broadcast_goes_on_beside_the_customers_next_one(journal: Journal) -> None:
    """Its trips still move, which does not make it live."""
    haul = await searching(journal)
    await land(journal, haul.step(haul.assigned(1, "t1")), haul.step(haul.cancelled()))
    second = Haul(BroadcastId("b2"), CustomerId("c1"))
    await land(journal, second.step(second.created()), haul.step(haul.trip(1, TripStatus.EN_ROUTE)))
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


@pytest.mark.parametrize(
    ("vehicle_id", "driver_id", "code", "data"),
    [
        ("nowhere", "t1d1", Refusal.VEHICLE_NOT_OWNED, {}),
        ("t2v1", "t1d1", Refusal.VEHICLE_NOT_OWNED, {}),
        ("t1van", "t1d1", Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": "van"}),
        ("t1v1", "t1d2", Refusal.VEHICLE_BUSY, {}),
        ("t1v2", "nobody", Refusal.DRIVER_NOT_OWNED, {}),
        ("t1v2", "t2d1", Refusal.DRIVER_NOT_OWNED, {}),
        ("t1v2", "t1d1", Refusal.DRIVER_BUSY, {}),
        # Several at once: the first of them in the order of the contract.
        ("t2van", "nobody", Refusal.VEHICLE_NOT_OWNED, {}),
        ("t1van", "nobody", Refusal.VEHICLE_TYPE_MISMATCH, {"vehicle_type": "van"}),
        ("t1v1", "t2d1", Refusal.VEHICLE_BUSY, {}),
        ("t1v1", "t1d1", Refusal.VEHICLE_BUSY, {}),
    ],
)
async def test_an_assignment_needs_a_free_vehicle_and_a_free_driver_of_the_transporter(
    journal: Journal, vehicle_id: str, driver_id: str, code: Refusal, data: dict[str, str]
) -> None:
    """t1v1 and t1d1 are on a trip of another broadcast. The refused write leaves nothing of itself."""
    busy = await searching(journal, 2)
    haul = await searching(journal)
    await land(journal, busy.step(busy.assigned(1, "t1")))
    write = haul.write(haul.offered("t3"), haul.assigned_to(1, "t1", vehicle_id, driver_id), reply=ANSWERED)
    assert await only(journal, write) == Conflict(code, {**data})
    assert await nothing_of(journal, write)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert len(await journal.read_events(ACME, haul.broadcast_id)) == 2
    assert await journal.read_offers(ACME, TransporterId("t3"), 0) == []


async def test_a_vehicle_on_a_trip_that_has_been_sold_is_not_owned_rather_than_busy(journal: Journal) -> None:
    """Ownership and type are those of now; they come before being busy."""
    haul = await searching(journal)
    await land(journal, haul.step(haul.assigned(1, "t1")))
    write = haul.write(haul.assigned_to(2, "t2", "t1v1", "t2d1"))
    assert await only(journal, write) == Conflict(Refusal.VEHICLE_NOT_OWNED, {})


@pytest.mark.parametrize("last", [TripStatus.DELIVERED, TripStatus.CANCELLED])
@pytest.mark.parametrize(
    ("vehicle", "driver", "code"), [("v1", "d2", Refusal.VEHICLE_BUSY), ("v2", "d1", Refusal.DRIVER_BUSY)]
)
async def test_the_end_of_a_trip_and_nothing_before_frees_its_vehicle_and_driver(
    journal: Journal, vehicle: str, driver: str, code: Refusal, last: TripStatus
) -> None:
    haul, second = await searching(journal), await searching(journal, 2)
    await land(journal, haul.step(haul.assigned(1, "t1")))
    write = second.write(second.assigned(1, "t1", vehicle, driver))
    for status in (TripStatus.EN_ROUTE, TripStatus.AT_PICKUP, TripStatus.LOADED):
        await land(journal, haul.step(haul.trip(1, status)))
        assert await only(journal, write) == Conflict(code, {})
    await land(journal, haul.step(haul.cancelled()))
    assert await only(journal, write) == Conflict(code, {})
    await land(journal, haul.step(haul.trip(1, last)))
    await land(journal, write)


async def test_one_broadcast_cannot_have_a_driver_twice_either(journal: Journal) -> None:
    haul = await searching(journal)
    await land(journal, haul.step(haul.assigned(1, "t1")))
    assert await only(journal, haul.write(haul.assigned(2, "t1", "v2"))) == Conflict(Refusal.DRIVER_BUSY, {})
    await land(journal, haul.step(haul.assigned(2, "t1", "v2", "d2")))
