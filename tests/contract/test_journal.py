"""What every journal promises of a commit: outcomes, their order, and that a write lands as a whole or not at all."""

from dataclasses import replace

import pytest

from haulcast.domain.events import Event
from haulcast.domain.ids import BroadcastId, CustomerId, TenantId, TransporterId
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.states import TripStatus
from haulcast.ports import Conflict, Duplicate, Fence, Fenced, Journal, Landed, Write
from tests.contract.hauls import ACME, NOW_MS, OTHER, Haul, another, land, log_only, logged, only

ANSWERED = logged("r1")


async def searching(journal: Journal, number: int = 1, *, trucks: int = 2) -> Haul:
    """A haul that t1 and t2 have been offered."""
    haul = another(number, trucks=trucks)
    await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1", "t2")))
    return haul


async def nothing_of(journal: Journal, write: Write) -> bool:
    """Whether neither the write's reply nor its trip is there."""
    if write.logged is not None:
        probe = log_only(write.logged)
        if await only(journal, probe) != Landed():
            return False
    trip = write.assigned
    trips = [] if trip is None else await journal.read_trips(write.tenant_id, transporter_id=trip.transporter_id)
    return trip not in [found for _, found in trips]


# --- Landed ----------------------------------------------------------------------------------------------------------


async def test_an_empty_batch_has_no_outcomes(journal: Journal) -> None:
    assert await journal.commit([]) == []


async def test_what_landed_is_read_back_equal(journal: Journal) -> None:
    """State, offers in all their fields, events and ownership come back as they were written."""
    haul = another(1)
    steps: list[tuple[Event, ...]] = [
        (haul.created(),),
        (haul.wave("t1", "t2"),),
        (haul.declined("t2"), haul.offered("t3")),
        (haul.assigned(1, "t1"),),
        (haul.trip(1, TripStatus.LOADED),),
    ]
    for events in steps:
        await land(journal, haul.step(*events))
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert await journal.read_events(ACME, haul.broadcast_id) == [event for events in steps for event in events]


async def test_a_write_sees_those_before_it_in_the_batch(journal: Journal) -> None:
    first, second = another(1), another(2)
    customer_again = Haul(BroadcastId("b3"), CustomerId("c1"))
    outcomes = await journal.commit(
        [
            first.step(first.created(), reply=ANSWERED),
            second.step(second.created()),
            first.step(first.wave("t1")),
            log_only(ANSWERED),
            customer_again.write(customer_again.created()),
            first.step(first.assigned(1, "t1")),
            second.write(second.wave("t1"), second.assigned(1, "t1")),
            first.step(first.trip(1, TripStatus.DELIVERED)),
            second.step(second.wave("t1"), second.assigned(1, "t1")),
            first.step(first.cancelled()),
            customer_again.step(customer_again.created()),
        ]
    )
    assert outcomes == [
        Landed(),
        Landed(),
        Landed(),
        Duplicate("f", ANSWERED.reply),
        Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": "b1"}),
        Landed(),
        Conflict(Refusal.VEHICLE_BUSY, {}),
        Landed(),
        Landed(),
        Landed(),
        Landed(),
    ]
    for haul in (first, second, customer_again):
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


async def test_a_wave_of_500_offers_lands(journal: Journal) -> None:
    haul = another(1)
    transporters = [f"many{n:03}" for n in range(500)]
    await land(journal, haul.step(haul.created()), haul.step(haul.wave(*transporters)))
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    ((state, offer),) = await journal.read_offers(ACME, TransporterId("many499"), 0)
    assert (state.broadcast_id, offer.distance_m) == ("b1", 499)


# --- Duplicate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Done(),
        Done({"n": 1, "f": 1.5, "s": "ü", "b": True, "none": None, "list": [1, {"deep": []}]}),
        Refused(Refusal.NOT_OFFERED),
        Refused(Refusal.TRIP_TRANSITION_INVALID, {"status": TripStatus.LOADED, "allowed": ["delivered"]}),
    ],
)
async def test_a_request_answered_before_gets_the_same_reply(journal: Journal, reply: Done | Refused) -> None:
    await land(journal, log_only(logged("r1", reply, fingerprint="first")))
    again = log_only(logged("r1", Done({"other": 1}), fingerprint="second"))
    assert await only(journal, again) == Duplicate("first", reply)


async def test_requests_of_other_users_roles_and_tenants_are_other_requests(journal: Journal) -> None:
    await land(
        journal,
        log_only(logged("r1")),
        log_only(logged("r2")),
        log_only(logged("r1", user="c2")),
        log_only(logged("r1", tenant=OTHER)),
    )


async def test_a_duplicate_writes_nothing(journal: Journal) -> None:
    haul = await searching(journal)
    await land(journal, log_only(ANSWERED))
    write = haul.write(haul.offered("t3"), haul.declined("t1"), haul.assigned(1, "t1"), reply=ANSWERED)
    assert isinstance(await only(journal, write), Duplicate)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert len(await journal.read_events(ACME, haul.broadcast_id)) == 2
    assert await journal.read_trips(ACME, transporter_id=TransporterId("t1")) == []
    assert await journal.read_offers(ACME, TransporterId("t3"), 0) == []


# --- Fenced ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", [Fence(2, 1, 2), Fence(1, 2, 2), Fence(1, 1, 1), Fence(1, 1, 3), Fence(1, 1, 0)])
async def test_a_write_with_another_epoch_owner_or_state_is_fenced_and_writes_nothing(
    journal: Journal, fence: Fence
) -> None:
    haul = await searching(journal)
    stale = Haul(epoch=fence.epoch, incarnation=fence.incarnation)
    if fence.seq >= 1:
        stale.step(stale.created())
    if fence.seq >= 2:
        stale.step(stale.wave("t1", "t2"))
    if fence.seq >= 3:
        stale.step(stale.offered("t4"))
    events = (stale.created(),) if fence.seq == 0 else (stale.offered("t3"),)
    write = stale.write(*events, reply=ANSWERED)
    assert write.fence == fence
    assert await only(journal, write) == Fenced()
    assert await nothing_of(journal, write)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert len(await journal.read_events(ACME, haul.broadcast_id)) == 2
    assert await journal.read_offers(ACME, TransporterId("t3"), 0) == []


async def test_a_write_that_follows_a_broadcast_that_does_not_exist_is_fenced(journal: Journal) -> None:
    haul = another(1)
    haul.step(haul.created())
    assert await only(journal, haul.write(haul.wave("t1"))) == Fenced()
    assert await journal.read_broadcast(ACME, haul.broadcast_id) is None


async def test_a_reply_alone_may_carry_a_fence(journal: Journal) -> None:
    haul = await searching(journal)

    def refusal(request: str, fence: Fence) -> Write:
        return Write(f"w-{request}", NOW_MS, ACME, haul.broadcast_id, logged(request), fence)

    assert await only(journal, refusal("r1", Fence(1, 2, 2))) == Fenced()
    assert await only(journal, refusal("r1", Fence(1, 1, 2))) == Landed()
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


# --- Conflict --------------------------------------------------------------------------------------------------------


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


# --- Precedence and isolation ----------------------------------------------------------------------------------------


async def test_a_duplicate_comes_before_a_fence_and_a_fence_before_a_conflict(journal: Journal) -> None:
    haul = await searching(journal)
    await land(journal, log_only(ANSWERED))
    stale = Haul(incarnation=2, state=haul.state)
    wrong = stale.assigned_to(1, "t1", "nowhere", "nobody")
    assert isinstance(await only(journal, stale.write(wrong, reply=ANSWERED)), Duplicate)
    assert await only(journal, stale.write(wrong)) == Fenced()
    assert await only(journal, haul.write(wrong)) == Conflict(Refusal.VEHICLE_NOT_OWNED, {})


async def test_the_customers_other_broadcast_comes_before_the_assignment(journal: Journal) -> None:
    await searching(journal)
    second = Haul(BroadcastId("b2"), CustomerId("c1"))
    write = second.write(second.created(), second.assigned_to(1, "t1", "nowhere", "nobody"))
    assert await only(journal, write) == Conflict(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": "b1"})


async def test_refused_writes_leave_the_others_of_their_batch_alone(journal: Journal) -> None:
    hauls = [await searching(journal, n) for n in range(1, 6)]
    stale = replace(hauls[1], incarnation=9)
    outcomes = await journal.commit(
        [
            hauls[0].step(hauls[0].assigned(1, "t1"), reply=logged("r1")),
            stale.write(stale.assigned_to(1, "t2", "t2v1", "t2d1"), reply=logged("r2")),
            hauls[2].write(hauls[2].assigned(1, "t1"), reply=logged("r3")),
            log_only(logged("r1")),
            hauls[4].step(hauls[4].assigned(1, "t2"), reply=logged("r4")),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Landed, Fenced, Conflict, Duplicate, Landed]
    for haul in hauls:
        assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    free, taken = [log_only(logged(request)) for request in ("r2", "r3")], log_only(logged("r4"))
    assert [type(one) for one in await journal.commit([*free, taken])] == [Landed, Landed, Duplicate]
    assert await journal.engaged_vehicles() == [(ACME, "t1v1"), (ACME, "t2v1")]


# --- Resubmission ----------------------------------------------------------------------------------------------------


async def test_a_checkpoint_sent_again_is_recognised(journal: Journal) -> None:
    """Its outcome was lost; it has landed, once."""
    haul = await searching(journal)
    write = haul.step(haul.declined("t2"), haul.assigned(1, "t1"))
    await land(journal, write)
    await land(journal, write)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    assert len(await journal.read_events(ACME, haul.broadcast_id)) == 4


async def test_a_reply_sent_again_is_recognised(journal: Journal) -> None:
    write = log_only(ANSWERED, "w-log")
    await land(journal, write)
    await land(journal, write)
    assert isinstance(await only(journal, log_only(ANSWERED)), Duplicate)


async def test_a_checkpoint_with_its_reply_sent_again_is_recognised(journal: Journal) -> None:
    haul = another(1)
    write = haul.step(haul.created(), reply=ANSWERED)
    await land(journal, write)
    await land(journal, write, write)


async def test_a_whole_batch_sent_again_is_recognised_though_later_steps_followed_in_it(journal: Journal) -> None:
    haul = another(1)
    batch = [haul.step(haul.created()), haul.step(haul.wave("t1")), haul.step(haul.declined("t1"))]
    await land(journal, *batch)
    await land(journal, *batch)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


async def test_a_checkpoint_sent_again_is_recognised_after_another_owner_went_on(journal: Journal) -> None:
    haul = await searching(journal)
    write = haul.step(haul.assigned(1, "t1"))
    await land(journal, write)
    claimed = await journal.claim(ACME, haul.broadcast_id, 2)
    assert claimed is not None
    successor = Haul(epoch=claimed.epoch, incarnation=2, state=claimed.state)
    await land(journal, successor.step(successor.offered("t3")))
    await land(journal, write)
    assert await only(journal, haul.write(haul.declined("t2"))) == Fenced()
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == successor.stored


async def test_a_refused_write_may_land_when_it_is_sent_again(journal: Journal) -> None:
    """Only what landed is remembered by its write id."""
    haul, second = await searching(journal), await searching(journal, 2)
    await land(journal, haul.step(haul.assigned(1, "t1")))
    write = second.write(second.assigned(1, "t1"), reply=ANSWERED)
    assert await only(journal, write) == Conflict(Refusal.VEHICLE_BUSY, {})
    await land(journal, haul.step(haul.trip(1, TripStatus.CANCELLED)), write)


# --- What no actor may ask -------------------------------------------------------------------------------------------


async def test_a_write_that_is_not_sound_is_a_programming_error_and_writes_nothing(journal: Journal) -> None:
    haul = await searching(journal)
    assert haul.state is not None
    sound = log_only(ANSWERED)
    fence = Fence(1, 1, 2)
    elsewhere = another(3)
    two = haul.write(haul.assigned(1, "t1"), haul.assigned(2, "t2"))
    unsound = [
        Write("x", NOW_MS, ACME, haul.broadcast_id, state=haul.state),
        Write("x", NOW_MS, ACME, haul.broadcast_id, fence=fence, events=(haul.offered("t3"),)),
        Write("x", NOW_MS, ACME, haul.broadcast_id, fence=fence, state=haul.state, events=(haul.offered("t3"),)),
        Write("x", NOW_MS, ACME, haul.broadcast_id, None, Fence(1, 1, 0), elsewhere.step(elsewhere.created()).state),
        Write("x", NOW_MS, TenantId("other"), haul.broadcast_id, None, fence, haul.state),
        two,
    ]
    for write in unsound:
        with pytest.raises(ValueError, match=f"write {write.write_id}"):
            await journal.commit([sound, write])
    await land(journal, sound)
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
