"""What every journal promises of a commit: outcomes, their order, and that a write lands as a whole or not at all."""

from dataclasses import replace

import pytest

from haulcast.domain.events import Event
from haulcast.domain.ids import BroadcastId, CustomerId, TenantId, TransporterId
from haulcast.domain.replies import Done, Refusal, Refused
from haulcast.domain.states import TripStatus
from haulcast.ports import Conflict, Duplicate, Fence, Fenced, Journal, Landed, Write
from tests.contract.hauls import ACME, NOW_MS, OTHER, Haul, another, land, log_only, logged, nothing_of, only, searching

ANSWERED = logged("r1")


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


async def test_an_offer_that_is_made_or_declined_as_the_broadcast_ends_ends_with_it(journal: Journal) -> None:
    haul = await searching(journal)
    await land(journal, haul.step(haul.declined("t1"), haul.offered("t3"), haul.cancelled()))
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored
    for transporter, declined in (("t1", True), ("t2", False), ("t3", False)):
        ((_, offer),) = await journal.read_offers(ACME, TransporterId(transporter), NOW_MS - 1)
        assert offer.declined is declined
        assert await journal.read_offers(ACME, TransporterId(transporter), NOW_MS) == []


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
    assert await only(journal, refusal("r1", Fence(2, 1, 2))) == Fenced()
    assert await only(journal, refusal("r1", Fence(1, 1, 2))) == Landed()
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == haul.stored


async def test_a_refusal_is_fenced_by_the_ownership_and_not_by_the_state(journal: Journal) -> None:
    """It follows from the state that its owner had in mind, which may have moved on, even in the same batch."""
    haul = await searching(journal)

    def refusal(request: str, seq: int = 2) -> Write:
        return Write(f"w-{request}", NOW_MS, ACME, haul.broadcast_id, logged(request), Fence(1, 1, seq))

    await land(journal, refusal("r1"), haul.step(haul.assigned(1, "t1")), refusal("r2"), refusal("r3", 3))
    await land(journal, refusal("r4"), refusal("r5", 99))
    await journal.claim([haul.claim()], 2)
    assert await journal.commit([refusal("r6", 3), log_only(logged("r7"))]) == [Fenced(), Landed()]


async def test_a_refusal_follows_the_creation_in_its_batch(journal: Journal) -> None:
    haul = another(1)
    creation = haul.step(haul.created())
    refusals = [
        Write(f"w{owner}", NOW_MS, ACME, haul.broadcast_id, logged(f"r{owner}"), Fence(1, owner, 1)) for owner in (1, 2)
    ]
    assert await journal.commit([creation, *refusals]) == [Landed(), Landed(), Fenced()]


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
    (claimed,) = await journal.claim([haul.claim()], 2)
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
