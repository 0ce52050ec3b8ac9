"""A customer's new broadcast takes the place of the one that is live, if the tenant has it so."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from haulcast.actors.placement import CARRY_S
from haulcast.domain.effects import CloseOffers, CustomerNews, ShowTrip, TellWatchers, TripNews
from haulcast.domain.ids import BroadcastId, TransporterId
from haulcast.domain.replies import Done, Refused
from haulcast.domain.settings import ActiveBroadcastPolicy, TenantSettings
from haulcast.domain.states import BroadcastStatus, EndReason
from tests.sim.world import ACME, TRUCK, World, data, outcome, outcomes

SETTINGS = TenantSettings(active_broadcast_policy=ActiveBroadcastPolicy.REPLACE)


@pytest.fixture(params=[1, 3])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """One node, or three, whose tenant has broadcasts replaced."""
    async with World.open(SETTINGS, nodes=request.param) as world:
        yield world


async def live(world: World) -> list[BroadcastId]:
    """The live broadcasts in the journal."""
    found = await world.journal.list_broadcasts(ACME, None, 1_000)
    return [stored.state.broadcast_id for stored in found if stored.state.live]


async def test_a_second_broadcast_cancels_the_first_and_everybody_concerned_hears_why(world: World) -> None:
    await world.transporters(2)
    first = await world.broadcast(trucks={TRUCK: 2})
    await world.accept(first, "t0")
    second = data(await world.create(node=world.nodes[0]))["broadcast_id"]
    assert await live(world) == [second]
    state = await world.state(first)
    assert (state.status, state.end_reason) == (BroadcastStatus.CANCELLED, EndReason.REPLACED)
    effects = world.changes(first)[-1].change.effects
    assert CloseOffers((TransporterId("t1"),)) in effects
    assert [effect.news for effect in effects if isinstance(effect, ShowTrip)] == [TripNews.TRIP_CONTINUES]
    told = TellWatchers(CustomerNews.BROADCAST_CANCELLED, {"reason": EndReason.REPLACED, "assigned": 1})
    assert told in effects


async def test_a_create_sent_again_is_answered_the_same_and_cancels_nothing(world: World) -> None:
    await world.broadcast()
    reply = await world.create(request="mine")
    mine = world.asks[-1]
    assert await world.resend(mine) == reply
    assert await live(world) == [data(reply)["broadcast_id"]]
    third = data(await world.create())["broadcast_id"]
    assert await world.resend(mine) == reply
    assert await live(world) == [third]


async def test_the_same_create_many_times_at_once_replaces_once(world: World) -> None:
    first = await world.broadcast()
    replies = await asyncio.gather(
        *(world.create(request="mine", node=world.nodes[n % len(world.nodes)]) for n in range(6))
    )
    assert all(reply == replies[0] for reply in replies)
    assert await live(world) == [data(replies[0])["broadcast_id"]]
    found = await world.journal.list_broadcasts(ACME, None, 100)
    assert {stored.state.broadcast_id for stored in found} == {first, data(replies[0])["broadcast_id"]}


async def test_of_many_that_race_each_other_exactly_one_stays(world: World) -> None:
    first = await world.broadcast()
    ended = await outcomes(*(world.create(node=world.nodes[n % len(world.nodes)]) for n in range(12)))
    assert Counter(ended) == {"ok": 12}
    assert len(await live(world)) == 1
    found = await world.journal.list_broadcasts(ACME, None, 100)
    reasons = Counter(stored.state.end_reason for stored in found if not stored.state.live)
    assert reasons == {EndReason.REPLACED: 12}
    assert first not in await live(world)


async def test_a_create_that_could_not_be_carried_out_cancels_nothing(world: World) -> None:
    first = await world.broadcast()
    assert await outcome(world.create(expires_in_s=1)) == "EXPIRY_OUT_OF_RANGE"
    assert await live(world) == [first]


async def test_one_that_ends_by_itself_meanwhile_will_do(world: World) -> None:
    await world.transporter("t1")
    first = await world.broadcast()
    second, accepted = world.create(), world.accept(first, "t1")
    ended = await outcomes(second, accepted)
    assert ended[0] == "ok"
    assert await live(world) == [data(await second)["broadcast_id"]]


async def test_another_customer_s_broadcast_is_nobody_s_to_replace(world: World) -> None:
    first = await world.broadcast("c1")
    second = data(await world.create("c2"))["broadcast_id"]
    assert {*await live(world)} == {first, second}


async def test_where_it_is_not_so_the_second_is_refused() -> None:
    async with World.open() as world:
        first = await world.broadcast()
        assert await outcome(world.create()) == "ACTIVE_BROADCAST_EXISTS"
        assert await live(world) == [first]


async def test_the_owner_of_the_first_that_is_dead_is_inherited_from() -> None:
    async with World.open(SETTINGS, nodes=3) as world:
        reply = await world.create(node=world.nodes[0])
        await world.nodes[0].crash()
        second = await world.create(node=world.nodes[1])
        assert isinstance(second, Done)
        assert await live(world) == [second.data["broadcast_id"]]
        assert (await world.state(BroadcastId(str(data(reply)["broadcast_id"])))).end_reason is EndReason.REPLACED


@pytest.mark.parametrize("change", [{"active_broadcast_policy": ActiveBroadcastPolicy.REJECT}, {"paused": True}])
async def test_who_was_refused_meanwhile_does_not_lose_what_was_to_be_replaced(change: Mapping[str, Any]) -> None:
    """The first try to replace is held up on its way to the owner; the same request, sent again to another node, is
    refused by what operators have changed since. That is final: the first one must not end the broadcast any more."""
    async with World.open(SETTINGS, nodes=3) as world:
        first, second, third = world.nodes
        kept = data(await world.create(node=first))["broadcast_id"]
        second.cluster.cut = True
        held_up = world.create(request="mine", node=second)
        await asyncio.sleep(0.5)
        await world.configure(**change)
        refused = await world.create(request="mine", node=third)
        assert isinstance(refused, Refused)
        second.cluster.cut = False
        assert await held_up == refused
        await asyncio.sleep(CARRY_S)
        assert await live(world) == [kept]


async def test_what_cannot_be_cancelled_in_time_is_not_known() -> None:
    async with World.open(SETTINGS, nodes=2) as world:
        first = await world.create(node=world.nodes[0])
        world.nodes[1].cluster.cut = True  # it cannot ask the owner, which lives
        began_s = world.clock.monotonic_s()
        assert await outcome(world.create(node=world.nodes[1])) == "UNAVAILABLE"
        assert world.clock.monotonic_s() - began_s < CARRY_S + 1
        world.nodes[1].cluster.cut = False
        await asyncio.sleep(10)
        assert len(await live(world)) == 1
        assert isinstance(first, Done)
