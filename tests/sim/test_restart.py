"""What a node leaves is the journal, and whoever starts from it goes on where everything stood."""

import asyncio
from collections import Counter

import pytest

from haulcast.domain.commands import Appear
from haulcast.domain.evolve import replay
from haulcast.domain.ids import BroadcastId, TransporterId, VehicleId
from haulcast.domain.ranking import Candidate
from haulcast.domain.replies import Reply
from haulcast.domain.states import BroadcastStatus, TripStatus
from tests.sim.conftest import Logs
from tests.sim.test_deadlines import offered
from tests.sim.world import ACME, TRUCK, Node, World, data, outcome, outcomes


async def end(node: Node, how: str) -> None:
    """A planned stop or a crash."""
    await (node.stop() if how == "stop" else node.crash())


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_every_live_broadcast_goes_on_and_can_be_accepted_cancelled_and_expires(world: World, how: str) -> None:
    await world.transporters(3)
    accepted, cancelled, expiring = [await world.broadcast(f"c{n}", expires_in_s=60) for n in range(3)]
    filled = await world.broadcast("c3")
    await world.accept(filled, "t2")
    await end(world.node, how)
    node = await world.boot()
    assert len(node.dispatch.registry) == 3
    assert await outcome(world.accept(accepted, "t0")) == "ok"
    assert await outcome(world.cancel(cancelled, "c1")) == "ok"
    await asyncio.sleep(60)
    assert (await world.state(expiring)).status is BroadcastStatus.EXPIRED
    await asyncio.sleep(6)
    assert node.leftovers() == {}
    for broadcast in (accepted, cancelled, expiring, filled):
        assert replay(await world.journal.read_events(ACME, broadcast)) == await world.state(broadcast)


async def test_more_broadcasts_than_one_claim_takes_all_go_on(world: World) -> None:
    await asyncio.gather(*[world.create(f"c{n}", expires_in_s=30) for n in range(1_100)])
    await world.node.stop()
    world.journal.claims_take_s = 0.5  # all together longer than a lease
    node = await world.boot()
    assert len(node.dispatch.registry) == 1_100
    await asyncio.sleep(40)
    assert node.leftovers() == {}
    assert {one.state.status for one in await world.journal.list_broadcasts(ACME, None, 2_000)} == {
        BroadcastStatus.EXPIRED
    }


async def test_a_deadline_that_passed_while_nobody_was_there_fires_at_once(world: World) -> None:
    broadcast = await world.broadcast(expires_in_s=30)
    reminded = await world.broadcast("c2", expires_in_s=100)
    await world.node.stop()
    await asyncio.sleep(50)
    await world.boot()
    started_ms = world.clock.now_ms()
    await asyncio.sleep(0.05)
    assert (await world.state(broadcast)).ended_at_ms == started_ms
    assert world.changes(reminded)[-1].at_ms == started_ms
    assert (await world.state(reminded)).reminder_at_ms is None


async def test_a_wave_that_is_late_goes_out_at_once_and_the_next_keeps_the_full_distance(world: World) -> None:
    for name, km in (("in1", 5), ("in2", 20), ("in3", 40), ("in4", 70), ("in5", 400)):
        await world.transporter(name, km=km)
    broadcast = await world.broadcast()
    await asyncio.sleep(20)
    await world.node.stop()
    await asyncio.sleep(80)
    await world.boot()
    await asyncio.sleep(60)
    waves = [(round(at_s, 1), number, to) for at_s, number, to in offered(world, broadcast)]
    assert waves == [(0, 1, ["in1"]), (15, 2, ["in2"]), (100, 3, ["in3"]), (115, 4, ["in4"]), (130, 5, ["in5"])]


async def test_the_version_of_a_broadcast_goes_on_under_a_higher_epoch(world: World) -> None:
    await world.transporters(2)
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    await world.accept(broadcast, "t0")
    await world.node.stop()
    await world.boot()
    await world.accept(broadcast, "t1")
    assert [published.version for published in world.changes(broadcast)] == [(1, 1), (1, 2), (1, 3), (2, 4)]


async def test_a_vehicle_on_a_trip_is_not_offered_anything_after_a_restart(world: World) -> None:
    await world.transporters(2)
    await world.accept(await world.broadcast("c1"), "t0")
    await world.node.crash()
    await world.boot()
    broadcast = await world.broadcast("c2")
    assert [to for _, _, to in offered(world, broadcast)] == [["t1"]]


async def test_a_trip_of_a_broadcast_that_ended_before_the_restart_goes_on(world: World) -> None:
    await world.transporter("t0")
    broadcast = await world.broadcast()
    await world.accept(broadcast, "t0")
    await world.node.stop()
    await world.boot()
    assert world.node.leftovers() == {}
    assert await outcome(world.update_trip(broadcast, "t0-d", TripStatus.LOADED)) == "ok"


async def test_a_trip_update_on_a_broadcast_long_ended_wakes_its_actor_for_a_few_seconds(world: World) -> None:
    await world.transporter("t0")
    broadcast = await world.broadcast()
    await world.accept(broadcast, "t0")
    await asyncio.sleep(3_600)
    assert world.node.leftovers() == {}
    for status in (TripStatus.EN_ROUTE, TripStatus.AT_PICKUP):
        assert await outcome(world.update_trip(broadcast, "t0-d", status)) == "ok"
        await asyncio.sleep(4.9)
        assert world.node.leftovers() == {"actors": 1, "deadlines": 1}
    await asyncio.sleep(0.2)
    assert world.node.leftovers() == {}
    assert await outcome(world.update_trip(broadcast, "t0-d", TripStatus.DELIVERED)) == "ok"
    assert await outcome(world.update_trip(broadcast, "t0-d", TripStatus.LOADED)) == "TRIP_TRANSITION_INVALID"


# --- Two nodes that both believe to be the owner ----------------------------------------------------------------------


async def test_a_former_owner_is_fenced_and_leaves_the_broadcast_to_its_new_owner(world: World) -> None:
    await world.transporters(4)
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    old, new = world.node, await world.boot()
    with world.journal.slow(before_s=0.1, after_s=0.1):
        asked = world.accept(broadcast, "t0", node=old)
        await asyncio.sleep(0.01)
        await world.steal(broadcast, new)
        late = world.accept(broadcast, "t3", node=old)
        assert await outcomes(asked, late) == ["ok", "ok"]
    assert old.leftovers() == {}
    assert await outcome(world.accept(broadcast, "t1", node=old)) == "REQUEST_ALREADY_TAKEN"
    assert [published.version for published in world.changes(broadcast)] == [(1, 1), (1, 2), (2, 3), (2, 4)]
    assert [published.incarnation for published in world.changes(broadcast)] == [1, 1, 2, 2]


async def test_a_former_owner_refuses_nobody_on_the_strength_of_an_old_state(world: World) -> None:
    await world.transporters(2)
    await world.offline("t9")
    broadcast = await world.broadcast()
    old, new = world.node, await world.boot()
    await world.steal(broadcast, new)
    appeared = Appear(Candidate(5, TransporterId("t9"), VehicleId("t9-v"), TRUCK))
    assert new.dispatch.registry.appear(ACME, broadcast, appeared)
    await asyncio.sleep(0.01)
    assert await outcome(world.accept(broadcast, "t9", node=old)) == "ok"  # the old state has no offer for t9


async def test_a_former_owners_deadlines_disturb_nobody(world: World) -> None:
    await world.transporter("t0", km=20)
    broadcast = await world.broadcast(expires_in_s=100)
    old, new = world.node, await world.boot()
    await world.steal(broadcast, new)
    await asyncio.sleep(110)
    assert (await world.state(broadcast)).status is BroadcastStatus.EXPIRED
    stored = await world.journal.read_broadcast(ACME, broadcast)
    assert stored is not None
    assert stored.epoch == 2
    assert {published.incarnation for published in world.changes(broadcast) if published.version > (1, 2)} == {2}
    assert old.leftovers() == new.leftovers() == {}


async def test_of_200_accepts_at_two_nodes_that_take_the_broadcast_from_each_other_one_wins(world: World) -> None:
    transporters = await world.transporters(200)
    broadcast = await world.broadcast()
    nodes = [world.node, await world.boot()]
    asked = [world.accept(broadcast, one, node=nodes[n % 2]) for n, one in enumerate(transporters)]
    for n in range(6):
        await world.steal(broadcast, nodes[(n + 1) % 2])
        await asyncio.sleep(0)
    assert Counter(await outcomes(*asked)) == {"ok": 1, "REQUEST_ALREADY_TAKEN": 199}


async def test_a_customer_who_asks_two_nodes_at_once_gets_one_broadcast(world: World) -> None:
    nodes = [world.node, await world.boot()]
    replies = await asyncio.gather(*[world.create("c1", request="r", node=node) for node in nodes])
    assert data(replies[0]) == data(replies[1])
    ended = await outcomes(*[world.create("c2", node=node) for node in nodes])
    assert sorted(ended) == ["ACTIVE_BROADCAST_EXISTS", "ok"]


# --- The planned stop -------------------------------------------------------------------------------------------------


async def test_a_planned_stop_answers_everybody_refuses_newcomers_and_leaves_what_lives_to_the_next(
    world: World,
) -> None:
    await world.transporters(10)
    broadcast = await world.broadcast(trucks={TRUCK: 3}, expires_in_s=60)
    ended = await world.broadcast("ended")
    await world.cancel(ended, "ended")
    node = world.node
    with world.journal.slow(before_s=0.1, after_s=0.1):
        asked = [world.accept(broadcast, f"t{n}") for n in range(5)]
        asked += [world.create(f"c{n}") for n in range(2, 5)]
        stopping = asyncio.create_task(node.dispatch.finish(10))
        await asyncio.sleep(0.01)
        late = [world.create("late"), world.accept(broadcast, "t9"), world.cancel(ended, "ended")]
        assert [await outcome(future) for future in late] == ["DRAINING"] * 3
        await stopping
    assert all(future.done() for future in asked)
    assert Counter(map(outcome_of, asked)) == {"ok": 6, "REQUEST_ALREADY_TAKEN": 2}
    await node.stop()
    assert node.leftovers() == {}
    new = await world.boot()
    assert len(new.dispatch.registry) == 3
    await asyncio.sleep(61)
    assert await outcome(world.accept(broadcast, "t9")) == "REQUEST_ALREADY_TAKEN"


def outcome_of(future: "asyncio.Future[Reply]") -> str:
    """How a command that has ended did."""
    return str(getattr(future.result(), "code", "ok"))


async def test_a_stop_while_the_journal_is_away_ends_in_time_and_says_that_nothing_is_known(
    world: World, logs: Logs
) -> None:
    world.expected_logs |= {"commit_failed", "drain_timed_out", "commits_abandoned"}
    await world.transporters(3)
    broadcast = await world.broadcast()
    with world.journal.unavailable():
        asked = [world.accept(broadcast, f"t{n}") for n in range(3)]
        asked += [world.create("c2"), world.accept(BroadcastId("b99"), "t0")]
        await asyncio.sleep(0)
        started_s = asyncio.get_running_loop().time()
        await world.node.stop(timeout_s=2)
        assert asyncio.get_running_loop().time() - started_s <= 4.1
    await asyncio.sleep(0)
    assert all(future.done() for future in asked)
    assert await outcomes(*asked) == ["UNAVAILABLE"] * 5
    await world.boot()
    assert await outcome(world.resend(world.asks[-5])) == "ok"


async def test_deadlines_that_come_during_a_stop_wait_for_the_next_node(world: World) -> None:
    await world.transporters(1)
    broadcast, expiring = await world.broadcast("c1"), await world.broadcast("c2", expires_in_s=30)
    await asyncio.sleep(29)
    with world.journal.slow(before_s=3):
        asked = world.accept(broadcast, "t0")
        await asyncio.sleep(0.1)
        await world.node.stop()
    assert await outcome(asked) == "ok"
    assert (await world.state(expiring)).live
    await world.boot()
    await asyncio.sleep(0.05)
    assert (await world.state(expiring)).status is BroadcastStatus.EXPIRED


async def test_a_wave_whose_commit_is_under_way_is_seen_through_by_a_planned_stop(world: World) -> None:
    await world.transporter("far", km=20)
    broadcast = await world.broadcast()
    with world.journal.slow(before_s=1):
        await asyncio.sleep(15.5)
        await world.node.stop()
    assert [to for _, _, to in offered(world, broadcast)] == [["far"]]


async def test_a_refusal_is_logged_by_a_planned_stop_though_nobody_waits_for_it_any_more(world: World) -> None:
    with world.journal.slow(before_s=1):
        asked = world.cancel(BroadcastId("b99"))
        await asyncio.sleep(0.1)
        asked.cancel()
        await world.node.stop()
    assert [write.logged is not None for write in world.journal.landed] == [True]


async def test_a_planned_stop_waits_for_refusals_that_are_still_being_logged(world: World) -> None:
    with world.journal.slow(before_s=1):
        asked = world.cancel(BroadcastId("b99"))
        await asyncio.sleep(0.1)
        await world.node.dispatch.finish(10)
        assert asked.done()
    assert await outcome(asked) == "BROADCAST_NOT_FOUND"


async def test_a_stop_takes_lookups_that_are_under_way_along(world: World) -> None:
    world.node.presence.lookup_s = 1_000
    await world.broadcast()
    assert world.node.leftovers()["tasks"] == 1
    await world.node.stop()
    assert world.node.leftovers() == {}
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_stop_right_after_the_start_leaves_nothing_running(world: World) -> None:
    await world.broadcast()
    await world.node.stop()
    node = await world.boot()
    await node.crash()
    assert node.leftovers() == {}
