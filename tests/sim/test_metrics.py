"""What the business asks for is counted once, by the owner, and not before it is durable."""

import asyncio

from haulcast.domain.ids import BroadcastId
from haulcast.domain.states import EndReason, TripStatus

from .world import TRUCK, Node, World


def ended(world: World) -> dict[str, float]:
    """Broadcasts ended by reason, over all nodes; reasons without any are left out."""
    counts = {reason.value: sum(_ended(node, reason) for node in world.nodes) for reason in EndReason}
    return {reason: count for reason, count in counts.items() if count}


def _ended(node: Node, reason: EndReason) -> float:
    value = node.metrics.registry.get_sample_value("haulcast_broadcasts_ended_total", {"reason": reason})
    assert value is not None, "every reason is there from the start"
    return value


async def test_every_reason_to_end_is_counted_under_its_name(world: World) -> None:
    await world.transporters(2)
    filled = await world.broadcast("c1")
    await world.accept(filled, "t0")
    await world.broadcast("c2", {TRUCK: 2}, expires_in_s=60)
    partly = await world.broadcast("c3", {TRUCK: 2}, expires_in_s=60)
    await world.accept(partly, "t1")
    assert ended(world) == {"filled": 1}
    await asyncio.sleep(70)
    cancelled = await world.broadcast("c4", {TRUCK: 3})
    await world.cancel(cancelled, "c4")
    await world.cancel(cancelled, "c4")
    assert ended(world) == {"filled": 1, "no_vehicles_available": 1, "expired": 1, "customer_cancelled": 1}
    assert world.node.metric("trucks_requested_total") == 1 + 2 + 2 + 3
    assert world.node.metric("trucks_assigned_total") == 2


async def test_what_is_asked_again_is_counted_once(world: World) -> None:
    await world.transporters(1)
    await world.create(request="create", broadcast_id=BroadcastId("b"))
    await world.create(request="create", broadcast_id=BroadcastId("again"))
    await asyncio.sleep(0.001)
    await world.accept(BroadcastId("b"), "t0", request="accept")
    await world.accept(BroadcastId("b"), "t0", request="accept")
    assert (world.node.metric("trucks_requested_total"), world.node.metric("trucks_assigned_total")) == (1, 1)
    assert ended(world) == {"filled": 1}


async def test_nothing_is_counted_before_it_is_durable(world: World) -> None:
    await world.transporters(1)
    broadcast = await world.broadcast()
    with world.journal.slow(before_s=1):
        accept = world.accept(broadcast, "t0")
        await asyncio.sleep(0.5)
        assert (world.node.metric("trucks_assigned_total"), ended(world)) == (0, {})
        await accept
    assert (world.node.metric("trucks_assigned_total"), ended(world)) == (1, {"filled": 1})


async def test_an_answer_that_was_lost_does_not_count_twice(world: World) -> None:
    await world.transporters(1)
    broadcast = await world.broadcast()
    world.expected_logs.add("commit_failed")
    with world.journal.losing_answers(2):
        await world.accept(broadcast, "t0")
    assert (world.node.metric("trucks_assigned_total"), ended(world)) == (1, {"filled": 1})


async def test_what_happens_after_the_end_does_not_count_it_again(world: World) -> None:
    await world.transporters(1)
    broadcast = await world.broadcast()
    await world.accept(broadcast, "t0")
    await world.update_trip(broadcast, "t0-d", TripStatus.LOADED)
    second = await world.boot()
    await world.steal(broadcast, second)
    await world.update_trip(broadcast, "t0-d", TripStatus.DELIVERED)
    assert (await world.state(broadcast)).trips[0].status is TripStatus.DELIVERED
    assert ended(world) == {"filled": 1}
