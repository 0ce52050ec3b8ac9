"""The same request id gets the same answer and does nothing twice, whenever and wherever it comes again."""

import asyncio

import pytest

from haulcast.domain.commands import Accept, Create
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Done, Refusal, Refused, Reply
from haulcast.domain.states import TripStatus
from tests.sim.faults import bug
from tests.sim.world import ACME, TRUCK, World, data, outcome


async def test_a_request_sent_again_while_the_first_is_under_way_gets_its_answer(world: World) -> None:
    await world.transporters(2)
    with world.journal.slow(before_s=0.1, after_s=0.1):
        broadcast = await world.broadcast(trucks={TRUCK: 2})
        await asyncio.sleep(1)
        replies = await asyncio.gather(*[world.accept(broadcast, "t0", request="once") for _ in range(5)])
    assert [data(reply) for reply in replies] == [data(replies[0])] * 5
    assert len((await world.state(broadcast)).trips) == 1


async def test_a_creation_sent_again_while_the_first_is_under_way_names_the_same_broadcast(world: World) -> None:
    with world.journal.slow(before_s=0.1, after_s=0.1):
        replies = await asyncio.gather(*[world.create(request="once") for _ in range(5)])
    assert len({data(reply)["broadcast_id"] for reply in replies}) == 1
    assert len(await world.journal.list_broadcasts(ACME, None, 10)) == 1
    assert len(world.node.dispatch.registry) == 1


@pytest.mark.parametrize("later", ["at once", "after the end", "after a restart", "after a crash"])
async def test_a_request_sent_again_later_is_answered_the_same(world: World, later: str) -> None:
    await world.transporters(3)
    broadcast = await world.broadcast()
    await asyncio.gather(world.accept(broadcast, "t0"), world.accept(broadcast, "t1"), world.cancel(broadcast))
    first = list(world.asks)
    events = await world.journal.read_events(ACME, broadcast)
    if later == "after the end":
        await asyncio.sleep(10)
        assert world.node.leftovers() == {}
    elif later != "at once":
        await (world.node.stop() if later == "after a restart" else world.node.crash())
        await world.boot()
    again: list[Reply] = list(await asyncio.gather(*[world.resend(ask) for ask in first]))
    assert again == [ask.reply for ask in first]
    assert await world.journal.read_events(ACME, broadcast) == events
    assert len(await world.journal.list_broadcasts(ACME, None, 10)) == 1
    await asyncio.sleep(10)
    assert world.node.leftovers() == {}


async def test_a_refusal_is_an_answer_too_and_stays_one_when_the_reason_is_gone(world: World) -> None:
    await world.transporter("t1")
    first, second = await world.broadcast("c1"), await world.broadcast("c2")
    await world.accept(first, "t1", request="first")
    assert await outcome(world.accept(second, "t1", request="r")) == Refusal.VEHICLE_BUSY
    await world.cancel(first)
    await world.update_trip(first, "t1-d", TripStatus.DELIVERED)
    assert await outcome(world.accept(second, "t1", request="r")) == Refusal.VEHICLE_BUSY
    assert await outcome(world.accept(second, "t1", request="another")) == "ok"


async def test_an_id_used_for_something_else_is_refused_and_does_nothing(world: World) -> None:
    await world.transporter("t1")
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    await world.spare_vehicle("t1", "t1-v2")
    assert await outcome(world.accept(broadcast, "t1", request="r")) == "ok"
    assert await outcome(world.accept(broadcast, "t1", vehicle="t1-v2", request="r")) == Refusal.ID_REUSED
    assert await outcome(world.decline(broadcast, "t1")) == "ok"
    assert len((await world.state(broadcast)).trips) == 1


async def test_a_creation_under_an_id_used_for_another_is_refused(world: World) -> None:
    await world.create("c1", request="r")
    assert await outcome(world.create("c1", {TRUCK: 2}, request="r")) == Refusal.ID_REUSED


async def test_the_ids_of_two_users_are_not_the_same_id(world: World) -> None:
    await world.transporters(2)
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    replies = await asyncio.gather(*[world.accept(broadcast, name, request="r") for name in ("t0", "t1")])
    assert {data(reply)["remaining_requests"] for reply in replies} == {0, 1}


async def test_a_command_for_a_broadcast_that_never_was_is_refused_and_leaves_nothing_behind(world: World) -> None:
    await world.transporter("t1")
    assert await world.accept(BroadcastId("b99"), "t1") == Refused(Refusal.BROADCAST_NOT_FOUND)
    await asyncio.sleep(0)
    assert world.node.leftovers() == {}


@pytest.mark.parametrize("command", [Create, Accept])
async def test_a_message_whose_actor_died_after_the_commit_is_answered_with_what_was_committed(
    world: World, command: type[Create] | type[Accept]
) -> None:
    """The publisher breaks its promise and raises: the actor dies of it, and the message is handled once more."""
    world.expected_logs.add("actor_died")
    await world.transporters(2)
    if command is Create:
        world.node.publisher.broken = 1
        reply = await world.create(trucks={TRUCK: 2})
        broadcast = BroadcastId(str(data(reply)["broadcast_id"]))
    else:
        broadcast = await world.broadcast(trucks={TRUCK: 2})
        world.node.publisher.broken = 1
        reply = await world.accept(broadcast, "t0")
        assert [trip.trip_id for trip in (await world.state(broadcast)).trips] == [data(reply)["trip_id"]]
    assert world.node.metric("actor_restarts_total") == 1
    assert world.node.metric("messages_quarantined_total") == 0
    await asyncio.sleep(20)
    assert await outcome(world.accept(broadcast, "t1")) == "ok"
    assert len(await world.journal.list_broadcasts(ACME, None, 10)) == 1


async def test_a_broadcast_id_that_is_taken_is_refused_without_harm(world: World) -> None:
    broadcast = await world.broadcast()
    reply = await world.create("c2", broadcast_id=broadcast)
    assert reply == Refused(Refusal.ACTIVE_BROADCAST_EXISTS, {"broadcast_id": broadcast})
    assert isinstance(await world.cancel(broadcast), Done)


async def test_a_message_that_dies_before_its_commit_is_simply_handled_again(world: World) -> None:
    world.expected_logs.add("actor_died")
    with bug(lambda command: isinstance(command, Create), times=2):
        assert await outcome(world.create()) == "ok"
