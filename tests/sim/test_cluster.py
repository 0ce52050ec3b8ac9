"""Several nodes over one journal: a command finds its broadcast, and nothing is lost when a node goes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import pytest

from haulcast.actors.cell import MAX_KILLS
from haulcast.actors.failover import LOOK_EVERY_S, OVERDUE_MS, SWEEP_EVERY_S
from haulcast.actors.membership import LEASE_TTL_S, RENEW_EVERY_S
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Done
from haulcast.ports import Claim, Fenced, Kind, Ownership
from tests.sim.world import ACME, Node, World, data, outcome, outcomes

FAILOVER_S = LEASE_TTL_S + RENEW_EVERY_S + 2 * LOOK_EVERY_S


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three nodes that know each other."""
    async with World.open(nodes=3) as world:
        yield world


async def owner(world: World, broadcast_id: BroadcastId) -> int:
    """The incarnation that owns a broadcast."""
    found = await world.journal.read_owner(ACME, broadcast_id)
    assert found is not None
    return found.incarnation


async def create_on(world: World, node: Node, customer: str, expires_in_s: int | None = None) -> BroadcastId:
    """A broadcast that was created on `node`, and whose first wave has gone out."""
    reply = await world.create(customer, node=node, expires_in_s=expires_in_s)
    await asyncio.sleep(0.01)
    return BroadcastId(str(data(reply)["broadcast_id"]))


async def test_a_command_is_carried_out_by_the_owner_whichever_node_it_reaches(world: World) -> None:
    first, second, third = world.nodes
    await world.transporters(3)
    broadcast_id = await create_on(world, first, "c1")
    assert await outcome(world.accept(broadcast_id, "t1", node=second)) == "ok"
    assert await outcome(world.accept(broadcast_id, "t2", node=third)) == "REQUEST_ALREADY_TAKEN"
    assert await owner(world, broadcast_id) == first.incarnation
    assert {one.incarnation for one in world.changes(broadcast_id)} == {first.incarnation}


async def test_a_race_over_all_nodes_has_one_winner(world: World) -> None:
    await world.transporters(60)
    broadcast_id = await create_on(world, world.nodes[0], "c1")
    accepts = [world.accept(broadcast_id, f"t{n}", node=world.nodes[n % 3]) for n in range(60)]
    assert sorted(await outcomes(*accepts)).count("ok") == 1


async def test_what_does_not_exist_is_refused_by_every_node(world: World) -> None:
    for node in world.nodes:
        assert await outcome(world.accept(BroadcastId("b404"), "t1", node=node)) == "BROADCAST_NOT_FOUND"
    assert all(len(node.dispatch.registry) == 0 for node in world.nodes)


async def test_the_same_id_at_another_node_gets_the_same_answer(world: World) -> None:
    first, second, third = world.nodes
    await world.transporters(1)
    broadcast_id = await create_on(world, first, "c1")
    won = await world.accept(broadcast_id, "t0", request="r", node=second)
    assert await world.accept(broadcast_id, "t0", request="r", node=third) == won
    created = await world.create("c2", request="rc", node=first)
    again = await world.create("c2", request="rc", node=second)
    assert again == created


async def test_the_broadcasts_of_a_dead_node_go_on_at_others(world: World) -> None:
    first, second, third = world.nodes
    await world.transporters(2)
    ids = [await create_on(world, first, f"c{n}") for n in range(20)]
    await first.crash()
    await asyncio.sleep(FAILOVER_S)
    owners = {await owner(world, one) for one in ids}
    assert owners == {second.incarnation, third.incarnation}  # both have a share
    assert len(second.dispatch.registry) + len(third.dispatch.registry) == 20
    assert await outcome(world.accept(ids[0], "t0", node=second)) == "ok"
    assert await outcome(world.accept(ids[1], "t1", node=third)) == "ok"


async def test_a_deadline_of_a_dead_node_rings_within_the_failover_bound(world: World) -> None:
    first = world.nodes[0]
    broadcast_id = await create_on(world, first, "c1", expires_in_s=60)
    state = await world.state(broadcast_id)
    await asyncio.sleep(58.9)
    await first.crash()
    await asyncio.sleep(1.1 + FAILOVER_S)
    ended = await world.state(broadcast_id)
    assert not ended.live
    assert ended.ended_at_ms is not None
    assert ended.ended_at_ms - state.expires_at_ms <= FAILOVER_S * 1000


async def test_a_command_to_a_dead_owner_is_answered_by_its_heir(world: World) -> None:
    first, second, _ = world.nodes
    await world.transporters(1)
    broadcast_id = await create_on(world, first, "c1")
    await first.crash()
    asked_at_s = world.clock.monotonic_s()
    assert await outcome(world.accept(broadcast_id, "t0", node=second)) == "ok"
    assert world.clock.monotonic_s() - asked_at_s < 3


async def test_a_node_that_stood_still_beyond_its_lease_writes_nothing_and_joins_anew(world: World) -> None:
    first = world.nodes[0]
    await world.transporters(2)
    broadcast_id = await create_on(world, first, "c1")
    before = first.incarnation
    first.cluster.cut = True  # it does not renew; what it believes of its lease runs out as it would asleep
    with world.journal.deaf():
        await asyncio.sleep(LEASE_TTL_S + FAILOVER_S)
        assert not first.dispatch.membership.held
        parked = world.accept(broadcast_id, "t0", node=first)  # its actor is still there
        await asyncio.sleep(1)
        assert not parked.done()
    first.cluster.cut = False
    assert await outcome(parked) == "ok"
    await asyncio.sleep(1)
    assert first.incarnation > before
    assert await owner(world, broadcast_id) != before
    assert first.dispatch.membership.held
    assert await outcome(world.accept(broadcast_id, "t1", node=first)) == "REQUEST_ALREADY_TAKEN"


async def test_a_node_cut_off_from_the_others_serves_until_it_is_given_up_and_not_longer(world: World) -> None:
    first, second, _ = world.nodes
    await world.transporters(2)
    broadcast_id = await create_on(world, first, "c1")
    first.cluster.cut = True
    assert await outcome(world.accept(broadcast_id, "t0", node=first)) == "ok"
    await asyncio.sleep(FAILOVER_S + 1)
    assert first.dispatch.membership.lost
    assert len(first.dispatch.registry) == 0
    assert first.given_up == 1
    assert await outcome(world.accept(broadcast_id, "t1", node=second)) == "REQUEST_ALREADY_TAKEN"
    first.cluster.cut = False
    await asyncio.sleep(1)
    assert first.dispatch.membership.held
    assert await outcome(world.accept(broadcast_id, "t1", node=first)) == "REQUEST_ALREADY_TAKEN"


async def test_what_a_node_wrote_that_was_cut_off_is_read_by_all_once_it_can_write_nothing_more(world: World) -> None:
    """It tells nobody, and goes on with what one has not claimed yet when another one has claimed its share."""
    first, second, third = world.nodes
    await world.transporters(20)
    ids = [await create_on(world, first, f"c{n}") for n in range(20)]
    claim = second.dispatch._failover._claim
    await asyncio.sleep(0.05)  # so that it does not learn of it in the very instant in which the others claim

    async def claim_late(**how: Any) -> None:
        await asyncio.sleep(1)
        await claim(**how)

    first.cluster.cut = True
    with patch.object(second.dispatch._failover, "_claim", claim_late):
        while third.incarnation not in [await owner(world, one) for one in ids]:
            await asyncio.sleep(0.01)
        [still, *_] = [one for one in ids if await owner(world, one) == first.incarnation]
        assert await outcome(world.accept(still, "t0", node=first)) == "ok"
        written_s = world.clock.monotonic_s()
        await asyncio.sleep(FAILOVER_S)
    assert third.missed_at_s[-1] > written_s
    assert third.missed_at_s[-1] < written_s + 2
    assert third.metric("nodes_lost_total") == 1


async def test_what_a_dead_node_said_and_was_held_up_on_the_way_counts_no_more(world: World) -> None:
    """Views have been read since, and show what came after it."""
    first, second, _ = world.nodes
    sender, receiver = (node.dispatch.membership._bus for node in (first, second))
    heard: list[bytes] = []
    receiver.handle(Kind.NEWS, lambda _sender, payload: heard.append(payload))
    held_up: list[bytes] = []
    with patch.object(first.cluster, "post", lambda _to, datagram: held_up.append(datagram)):
        sender.send(second.incarnation, Kind.NEWS, b"an offer")
        await asyncio.sleep(0.01)
    await first.crash()
    await asyncio.sleep(FAILOVER_S)
    missed = len(second.missed_at_s)
    for datagram in held_up:
        receiver._receive(datagram)
    assert held_up
    assert heard == []
    assert len(second.missed_at_s) == missed


async def test_without_the_store_of_hints_owners_go_on_and_nobody_is_given_up(world: World) -> None:
    await world.transporters(3)
    ids = [await create_on(world, node, f"c{n}", expires_in_s=60) for n, node in enumerate(world.nodes)]
    incarnations = [node.incarnation for node in world.nodes]
    for node in world.nodes:
        node.cluster.cut = True
    await asyncio.sleep(30)
    for n, node in enumerate(world.nodes):
        assert await outcome(world.accept(ids[n], f"t{n}", node=node)) == "ok"
    late = [await create_on(world, node, f"d{n}", expires_in_s=60) for n, node in enumerate(world.nodes)]
    await asyncio.sleep(61)
    assert [(await world.state(one)).live for one in late] == [False] * 3
    for node in world.nodes:
        node.cluster.cut = False
    await asyncio.sleep(2)
    assert [node.incarnation for node in world.nodes] == incarnations
    assert all(node.dispatch.membership.held for node in world.nodes)


@pytest.mark.parametrize("ms", range(0, 600, 50))
async def test_nobody_is_given_up_after_an_outage_that_outlasted_every_lease(world: World, ms: int) -> None:
    incarnations = [node.incarnation for node in world.nodes]
    for node in world.nodes:
        node.cluster.cut = True
    await asyncio.sleep(5 + ms / 1000)
    for node in world.nodes:
        node.cluster.cut = False
    await asyncio.sleep(5)
    assert [node.incarnation for node in world.nodes] == incarnations
    assert [node.metric("nodes_lost_total") for node in world.nodes] == [0, 0, 0]


@pytest.mark.parametrize("call", ["mark_lost", "claim_orphans"])
async def test_a_takeover_in_which_the_journal_fails_is_tried_again_at_once(world: World, call: str) -> None:
    first, second, third = world.nodes
    broadcast_id = await create_on(world, first, "c1")
    await third.stop()
    await asyncio.sleep(3)
    await first.crash()
    with world.journal.failing_once(call):
        await asyncio.sleep(FAILOVER_S + LEASE_TTL_S)
    assert await owner(world, broadcast_id) == second.incarnation
    assert second.metric("nodes_lost_total") == 1
    assert await world.journal.is_lost(first.incarnation)


async def test_what_was_claimed_by_a_claim_whose_answer_was_lost_still_comes_to_its_end(world: World) -> None:
    first, second, third = world.nodes
    await third.stop()
    broadcast_id = await create_on(world, first, "c1", expires_in_s=60)
    await asyncio.sleep(1)
    await first.crash()
    world.journal.takeovers_losing = 1
    await asyncio.sleep(2 * FAILOVER_S)
    assert world.journal.takeovers_losing == 0
    assert await owner(world, broadcast_id) == second.incarnation
    assert len(second.dispatch.registry) == 1
    await asyncio.sleep(60)
    assert not (await world.state(broadcast_id)).live


async def test_of_two_nodes_that_stop_at_once_none_leaves_its_broadcasts_to_the_other(world: World) -> None:
    first, second, third = world.nodes
    ids = [await create_on(world, node, f"{n}-c{node.incarnation}") for n in range(10) for node in (first, second)]
    await asyncio.gather(first.stop(), second.stop())
    assert {await owner(world, one) for one in ids} == {third.incarnation}


async def test_a_store_of_hints_that_has_forgotten_everything_is_filled_again(world: World) -> None:
    third = world.nodes[2]
    await world.transporters(3)
    ids = [await create_on(world, node, f"c{n}") for n, node in enumerate(world.nodes)]
    incarnations = [node.incarnation for node in world.nodes]
    world.store.members.clear()
    world.store.directory.clear()
    world.store.tombstones.clear()
    await asyncio.sleep(5)
    assert [node.incarnation for node in world.nodes] == incarnations
    assert sorted(world.store.members) == incarnations
    assert [await owner(world, one) for one in ids] == incarnations
    assert await outcome(world.accept(ids[0], "t0", node=third)) == "ok"


async def test_a_planned_stop_hands_every_broadcast_over_and_loses_no_command(world: World) -> None:
    first, second, third = world.nodes
    await world.transporters(100)
    ids = [await create_on(world, first, f"c{n}") for n in range(100)]
    accepts = []

    async def keep_asking() -> None:
        for n, one in enumerate(ids):
            accepts.append(world.accept(one, f"t{n}", node=(first, second, third)[n % 3] if first.running else second))
            await asyncio.sleep(0.001)

    asking = asyncio.create_task(keep_asking())
    await asyncio.sleep(0.02)
    await first.dispatch.finish(10)
    assert {await owner(world, one) for one in ids if (await world.state(one)).live} <= {
        second.incarnation,
        third.incarnation,
    }
    await asking
    assert set(await outcomes(*accepts)) == {"ok"}
    first.running = False
    await first.dispatch.close()
    await first.cluster.close()
    assert first.incarnation not in world.store.members


async def test_a_stop_by_plan_is_no_death_for_the_others(world: World) -> None:
    first, second, third = world.nodes
    await first.stop()
    await asyncio.sleep(LEASE_TTL_S + FAILOVER_S)
    assert [node.metric("nodes_lost_total") for node in (second, third)] == [0, 0]


async def test_a_broadcast_that_nobody_adopts_goes_on_where_it_is(world: World) -> None:
    first, second, third = world.nodes
    await world.transporters(1)
    broadcast_id = await create_on(world, first, "c1")
    second.cluster.cut = third.cluster.cut = True
    handing = asyncio.create_task(first.dispatch._handover.run(10))
    await asyncio.sleep(0.5)
    accepted = world.accept(broadcast_id, "t0", node=first)  # frozen until nobody has answered
    assert await outcome(accepted) == "ok"
    second.cluster.cut = third.cluster.cut = False
    await handing


async def test_a_node_with_a_lease_whose_tombstone_was_forgotten_learns_of_it_from_the_journal(world: World) -> None:
    first = world.nodes[0]
    before = first.incarnation
    await world.journal.mark_lost(before)
    await asyncio.sleep(SWEEP_EVERY_S + 2)
    assert first.incarnation > before
    assert first.dispatch.membership.held


async def test_a_latecomer_is_offered_the_broadcasts_of_every_node(world: World) -> None:
    ids = [await create_on(world, node, f"c{n}") for n, node in enumerate(world.nodes)]
    vehicle = await world.offline("t9")
    availability = world.nodes[0].dispatch.availability
    await availability.go_online(ACME, vehicle.transporter_id)
    availability.report(ACME, vehicle, (await world.state(ids[0])).pickup.point)
    await asyncio.sleep(0.1)
    states: list[Broadcast] = [await world.state(one) for one in ids]
    assert all(vehicle.transporter_id in state.offers for state in states)


async def test_what_everybody_has_missed_is_swept_up_once_it_is_overdue(world: World) -> None:
    first = world.nodes[0]
    broadcast_id = await create_on(world, first, "c1", expires_in_s=60)
    first.dispatch.deadlines.stop()  # it lives, and yet its timers do not ring
    await asyncio.sleep(60 + OVERDUE_MS / 1000 + SWEEP_EVERY_S + 1)
    assert not (await world.state(broadcast_id)).live


async def test_idle_broadcasts_cost_the_store_of_hints_nothing(world: World) -> None:
    first = world.nodes[0]
    await create_on(world, first, "c0")
    before = first.cluster.calls
    await asyncio.sleep(10)
    with_one = first.cluster.calls - before
    for n in range(1, 200):
        await create_on(world, first, f"c{n}")
    before = first.cluster.calls
    await asyncio.sleep(10)
    assert first.cluster.calls - before <= with_one + 1


async def test_nothing_of_an_ended_broadcast_stays_in_the_directory(world: World) -> None:
    first, second, _ = world.nodes
    await world.transporters(1)
    broadcast_id = await create_on(world, first, "c1")
    assert list(world.store.directory)
    assert isinstance(await world.accept(broadcast_id, "t0", node=second), Done)
    await asyncio.sleep(6)
    assert not world.store.directory


async def give_up(world: World, node: Node) -> None:
    """The others have given a node up; it has just learned of it, and is about to join anew."""
    before = node.incarnation
    await world.journal.mark_lost(before)
    world.store.members.pop(before)
    world.store.tombstones.add(before)
    while not node.dispatch.membership.lost:
        await asyncio.sleep(0.01)


async def test_a_creation_that_comes_between_two_incarnations_is_carried_out(world: World) -> None:
    first = world.nodes[0]
    await give_up(world, first)
    assert await outcome(world.create("c1", node=first)) == "ok"


async def test_an_actor_of_an_earlier_incarnation_decides_nothing(world: World) -> None:
    first, second, _third = world.nodes
    before = first.incarnation
    await world.transporters(1)
    broadcast_id = await create_on(world, second, "c1")
    await give_up(world, first)
    await asyncio.sleep(LOOK_EVERY_S)  # the others have claimed what they inherit
    assert first.dispatch.membership.lost
    [stored] = await world.journal.claim([Claim(ACME, broadcast_id, 1)], before)  # the answer comes only now
    first.dispatch.registry.adopt(stored)
    await asyncio.sleep(1)
    assert first.incarnation > before
    assert await outcome(world.accept(broadcast_id, "t0", node=first)) == "ok"
    assert [write for write in world.journal.landed if write.fence and write.fence.incarnation == before] == []


async def test_a_node_that_is_not_sure_of_its_lease_claims_nothing(world: World) -> None:
    first, second, _third = world.nodes
    await world.transporters(1)
    broadcast_id = await create_on(world, second, "c1")
    first.cluster.cut = True
    with world.journal.deaf():
        await asyncio.sleep(LEASE_TTL_S + FAILOVER_S)
        first.dispatch.membership.heirs = frozenset()  # it has heard of nobody for as long
        accepted = world.accept(broadcast_id, "t0", node=first)
        await asyncio.sleep(1)
        assert await world.journal.read_owner(ACME, broadcast_id) == Ownership(1, second.incarnation)
    first.cluster.cut = False
    assert await outcome(accepted) == "ok"


async def test_a_refusal_that_is_fenced_after_its_actor_has_gone_is_decided_by_the_new_owner(world: World) -> None:
    first, second, _third = world.nodes
    broadcast_id = await create_on(world, first, "c1")
    with world.journal.slow(before_s=0.2):
        refused = world.accept(broadcast_id, "t9", node=first)
        await asyncio.sleep(0.1)
        await world.steal(broadcast_id, second)
        first.dispatch.registry.leave([Claim(ACME, broadcast_id, 1)])
        assert await outcome(refused) == "NOT_OFFERED"


async def test_a_command_that_is_fenced_again_and_again_is_not_to_blame(world: World) -> None:
    first = world.nodes[0]
    await world.transporters(1)
    broadcast_id = await create_on(world, first, "c1")
    fenced = world.journal._fenced
    thefts = [Fenced()] * MAX_KILLS
    with patch.object(world.journal, "_fenced", lambda write: thefts.pop() if thefts else fenced(write)):
        assert await outcome(world.accept(broadcast_id, "t0", node=first)) == "ok"
    assert first.metric("messages_quarantined_total") == 0


async def test_nobody_takes_from_a_node_that_the_store_of_hints_has_just_forgotten(world: World) -> None:
    first, second, _third = world.nodes
    await world.transporters(1)
    broadcast_id = await create_on(world, first, "c1")
    first.cluster.cut = True  # it cannot register again at once
    world.store.members.clear()
    world.store.directory.clear()
    await asyncio.sleep(2.5 * RENEW_EVERY_S)
    accepted = world.accept(broadcast_id, "t0", node=second)
    await asyncio.sleep(RENEW_EVERY_S)
    assert await owner(world, broadcast_id) == first.incarnation
    first.cluster.cut = False
    assert await outcome(accepted) == "ok"
    assert await owner(world, broadcast_id) == first.incarnation
