"""What every journal promises of ownership: who takes a broadcast over, from whom, and what that fences."""

import asyncio

from haulcast.domain.ids import BroadcastId
from haulcast.domain.states import TripStatus
from haulcast.ports import Claim, Fenced, Journal, Ownership, Stored
from tests.contract.hauls import ACME, NOW_MS, OTHER, Haul, another, ids, land, only

# --- Incarnations ----------------------------------------------------------------------------------------------------


async def test_an_incarnation_is_never_given_twice(journal: Journal) -> None:
    given = [await journal.next_incarnation() for _ in range(5)]
    assert given == sorted(set(given))


async def test_a_node_is_lost_once_it_has_been_marked_and_stays_so(journal: Journal) -> None:
    assert not await journal.is_lost(3)
    await journal.mark_lost(3)
    await journal.mark_lost(3)
    assert await journal.is_lost(3)
    assert not await journal.is_lost(4)


# --- Claims ----------------------------------------------------------------------------------------------------------


async def test_a_claim_raises_the_epoch_and_gives_the_state_with_its_offers(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1", "t2")), haul.step(haul.declined("t1")))
    state = haul.stored.state
    assert await journal.claim([haul.claim()], 2) == [Stored(2, state)]
    assert await journal.claim([haul.claim(2)], 2) == [Stored(3, state)]
    assert await journal.read_broadcast(ACME, haul.broadcast_id) == Stored(3, state)


async def test_the_owner_is_whoever_created_it_and_then_whoever_claimed_it_last(journal: Journal) -> None:
    haul = another(1)
    assert await journal.read_owner(ACME, haul.broadcast_id) is None
    await land(journal, haul.step(haul.created()))
    assert await journal.read_owner(ACME, haul.broadcast_id) == Ownership(1, 1)
    await journal.claim([haul.claim()], 7)
    assert await journal.read_owner(ACME, haul.broadcast_id) == Ownership(2, 7)
    assert await journal.read_owner(OTHER, haul.broadcast_id) is None


async def test_a_claim_names_the_epoch_that_it_has_seen_and_another_one_is_left_alone(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()))
    for epoch in (0, 2):
        assert await journal.claim([haul.claim(epoch)], 2) == []
    assert await journal.read_owner(ACME, haul.broadcast_id) == Ownership(1, 1)


async def test_of_two_that_claim_what_both_have_seen_one_gets_it(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()))
    both = await asyncio.gather(journal.claim([haul.claim()], 2), journal.claim([haul.claim()], 3))
    assert sorted(len(claimed) for claimed in both) == [0, 1]
    winner = 2 if both[0] else 3
    assert await journal.read_owner(ACME, haul.broadcast_id) == Ownership(2, winner)


async def test_many_are_claimed_at_once_each_on_its_own_merits_and_given_in_the_order_asked(journal: Journal) -> None:
    hauls = {n: another(n, at_ms=NOW_MS - n) for n in range(1, 6)}
    hauls[4].tenant_id = OTHER
    for haul in hauls.values():
        await land(journal, haul.step(haul.created()), haul.step(haul.wave(f"t{haul.broadcast_id}")))
    await journal.claim([hauls[2].claim()], 3)
    claims = [hauls[n].claim() for n in (5, 2, 1, 4)]
    claimed = await journal.claim([*claims, Claim(ACME, BroadcastId("nothing"), 1)], 2)
    assert claimed == [Stored(2, hauls[n].stored.state) for n in (5, 1, 4)]
    assert await journal.read_broadcast(ACME, hauls[3].broadcast_id) == hauls[3].stored
    assert await journal.claim([], 2) == []


async def test_a_claim_fences_the_former_owner_and_lets_the_new_one_write(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()))
    (claimed,) = await journal.claim([haul.claim()], 2)
    assert await only(journal, haul.write(haul.wave("t1"))) == Fenced()
    successor = Haul(epoch=claimed.epoch, incarnation=2, state=claimed.state)
    await land(journal, successor.step(successor.wave("t1")))


async def test_a_claim_by_the_owner_itself_fences_its_older_writes(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()))
    await journal.claim([haul.claim()], haul.incarnation)
    assert await only(journal, haul.write(haul.wave("t1"))) == Fenced()


async def test_an_ended_broadcast_can_be_claimed(journal: Journal) -> None:
    """Its trips still have to be written by somebody."""
    haul = another(1)
    await land(journal, haul.step(haul.created()), haul.step(haul.assigned(1, "t1")), haul.step(haul.cancelled()))
    (claimed,) = await journal.claim([haul.claim()], 2)
    successor = Haul(epoch=claimed.epoch, incarnation=2, state=claimed.state)
    await land(journal, successor.step(successor.trip(1, TripStatus.DELIVERED)))


# --- Orphans ---------------------------------------------------------------------------------------------------------


async def test_orphans_are_live_broadcasts_of_others_those_due_soonest_first(journal: Journal) -> None:
    late, soon, sooner, mine, ended, elsewhere = (another(n) for n in (1, 2, 3, 4, 5, 6))
    elsewhere.tenant_id = OTHER
    mine.incarnation = 7
    for haul, at_ms in ((late, 40_000), (soon, 20_000), (sooner, 10_000), (mine, 0), (ended, 0), (elsewhere, 30_000)):
        haul.at_ms = NOW_MS + at_ms
        await land(journal, haul.step(haul.created()))
    await land(journal, ended.step(ended.cancelled()))
    assert ids(await journal.claim_orphans(7, {7}, 2)) == ["b3", "b2"]
    rest = await journal.claim_orphans(7, {7}, 10)
    assert ids(rest) == ["b6", "b1"]
    assert [stored.epoch for stored in rest] == [2, 2]
    assert rest[0].state == elsewhere.state
    assert await journal.claim_orphans(7, {7}, 10) == []
    assert len(await journal.claim_orphans(8, {8}, 10)) == 5


async def test_orphans_come_with_their_offers_and_are_fenced(journal: Journal) -> None:
    haul = another(1)
    await land(journal, haul.step(haul.created()), haul.step(haul.wave("t1", "t2")))
    assert await journal.claim_orphans(7, {7}, 10) == [Stored(2, haul.stored.state)]
    assert await journal.read_owner(ACME, haul.broadcast_id) == Ownership(2, 7)
    assert await only(journal, haul.write(haul.declined("t1"))) == Fenced()


async def test_the_deadline_that_orders_orphans_moves_with_the_state(journal: Journal) -> None:
    first, second = another(1), another(2, at_ms=NOW_MS + 5_000)
    await land(journal, first.step(first.created()), second.step(second.created()))
    await land(journal, first.step(first.wave("t1")))  # its next wave is due 15 s after NOW_MS
    assert ids(await journal.claim_orphans(7, {7}, 10)) == ["b2", "b1"]


async def test_what_the_living_own_is_no_orphan(journal: Journal) -> None:
    for number in range(1, 5):
        haul = another(number)
        haul.incarnation = number
        await land(journal, haul.step(haul.created()))
    assert ids(await journal.claim_orphans(7, {1, 3, 7}, 10)) == ["b2", "b4"]
    assert ids(await journal.claim_orphans(7, [7, 1], 10)) == ["b3"]


async def test_what_is_overdue_is_taken_from_the_living_too_but_not_from_oneself(journal: Journal) -> None:
    for number, at_ms in ((1, 0), (2, 10), (3, 20), (4, 0), (5, 30)):  # the first wave is due at once
        haul = another(number, at_ms=NOW_MS + at_ms)
        haul.incarnation = 7 if number == 4 else 9 if number == 5 else 8
        await land(journal, haul.step(haul.created()))
    assert ids(await journal.claim_orphans(7, {7, 8}, 1, overdue_before_ms=NOW_MS + 10)) == ["b1"]
    assert ids(await journal.claim_orphans(7, {7, 8}, 10, overdue_before_ms=NOW_MS + 10)) == ["b5"]
    assert ids(await journal.claim_orphans(7, {7, 8, 9}, 10, overdue_before_ms=NOW_MS + 11)) == ["b2"]
    assert await journal.claim_orphans(7, {7, 8, 9}, 10, overdue_before_ms=0) == []


async def test_a_node_can_ask_what_it_owns(journal: Journal) -> None:
    mine, others, ended = another(1), another(2), another(3)
    mine.incarnation = ended.incarnation = 7
    await land(journal, *(haul.step(haul.created()) for haul in (mine, others, ended)))
    await land(journal, ended.step(ended.cancelled()))
    assert await journal.list_owned(7) == [Claim(ACME, mine.broadcast_id, 1)]
    assert await journal.list_owned(8) == []


async def test_when_orphans_are_split_each_falls_to_exactly_one_whoever_asks_first(journal: Journal) -> None:
    everything = {f"b{number}" for number in range(1, 61)}
    dead = [another(number) for number in range(1, 61)]
    for haul in dead:
        haul.incarnation = 99
    await land(journal, *(haul.step(haul.created()) for haul in dead))
    alive = (11, 12, 13)
    shares = {member: set(ids(await journal.claim_orphans(member, alive, 100, share=True))) for member in alive}
    assert set.union(*shares.values()) == everything
    assert sum(map(len, shares.values())) == len(everything)
    assert all(shares.values())
    for member in reversed(alive):
        assert await journal.claim_orphans(member, alive, 100, share=True) == []


async def test_a_share_is_the_same_whoever_has_asked_before_and_however_often(journal: Journal) -> None:
    """What falls to 12 does not depend on 11 having been there, nor on how many are claimed at once."""
    hauls = [another(number, at_ms=NOW_MS + number) for number in range(1, 31)]
    await land(journal, *(haul.step(haul.created()) for haul in hauls))
    one_by_one: list[str] = []
    while some := ids(await journal.claim_orphans(12, (13, 11, 12), 1, share=True)):
        one_by_one += some
    others = ids(await journal.claim_orphans(11, (11, 12, 13), 100, share=True))
    others += ids(await journal.claim_orphans(13, (11, 12, 13), 100, share=True))
    assert one_by_one
    assert sorted(one_by_one + others) == sorted(haul.broadcast_id for haul in hauls)
