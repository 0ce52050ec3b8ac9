"""The output gate: nothing is told to anybody before it is durable, and what is durable is told once."""

import asyncio

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Accept, Cancel
from haulcast.domain.events import TruckAssigned
from haulcast.domain.ids import BroadcastId
from haulcast.domain.replies import Refusal
from haulcast.ports import Write
from tests.sim.world import ACME, TRUCK, World, outcome, outcomes


async def test_neither_reply_nor_news_leave_while_the_commit_is_under_way_even_when_it_has_landed(
    world: World,
) -> None:
    await world.transporters(3)
    with world.journal.slow(before_s=1, after_s=1):
        created = world.create()
        await asyncio.sleep(1.9)
        assert len(world.journal.landed) == 1
        assert not created.done()
        assert world.published == []
        await asyncio.sleep(0.2)
        assert await outcome(created) == "ok"
        broadcast = BroadcastId("b1")
        await asyncio.sleep(5)
        published = len(world.published)
        accepts = [world.accept(broadcast, name) for name in ("t0", "t1")]
        await asyncio.sleep(1.9)
        assert (await world.state(broadcast)).trips != ()
        assert [accept.done() for accept in accepts] == [False, False]
        assert len(world.published) == published
        assert await outcome(accepts[0]) == "ok"
        assert len(world.published) == published + 1
        assert await outcome(accepts[1]) == Refusal.REQUEST_ALREADY_TAKEN


async def test_a_published_change_says_what_became_of_what_before_it(world: World) -> None:
    await world.transporters(2)
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    await asyncio.gather(*[world.accept(broadcast, name) for name in ("t0", "t1")])
    before: Broadcast | None = None
    for published in world.changes(broadcast):
        assert published.change.before == before
        before = published.change.after
    assert before == await world.state(broadcast)


async def test_while_commits_fail_nothing_leaves_at_all_and_then_everything_does(world: World) -> None:
    world.expected_logs.add("commit_failed")
    await world.transporters(2)
    broadcast = await world.broadcast("c1", expires_in_s=100)
    published = len(world.published)
    with world.journal.unavailable():
        asked = [
            world.accept(broadcast, "t0"),
            world.accept(broadcast, "t1"),
            world.cancel(broadcast),
            world.create("c2"),
            world.accept(BroadcastId("b99"), "t1"),
        ]
        await asyncio.sleep(200)
        assert not any(future.done() for future in asked)
        assert len(world.published) == published
    ended = await outcomes(*asked)
    # The first accept was decided before the broadcast's deadline, and counts however long its commit took.
    assert ended == ["ok", "REQUEST_ALREADY_TAKEN", "BROADCAST_FULLY_FILLED", "ok", "BROADCAST_NOT_FOUND"]
    await asyncio.sleep(10)
    assert sum(isinstance(event, TruckAssigned) for event in await world.journal.read_events(ACME, broadcast)) == 1


async def test_a_commit_whose_answer_is_lost_is_recognised_and_told_once(world: World) -> None:
    world.expected_logs.add("commit_failed")
    await world.transporters(2)
    with world.journal.losing_answers(times=3):
        broadcast = await world.broadcast(trucks={TRUCK: 2})
    with world.journal.losing_answers(times=3):
        ended = await outcomes(world.accept(broadcast, "t0"), world.accept(broadcast, "t1"))
    assert ended == ["ok", "ok"]
    await asyncio.sleep(1)
    assert [published.version for published in world.changes(broadcast)] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert world.node.metric("actor_restarts_total") == 0


async def test_a_refusal_does_not_hold_up_the_next_message(world: World) -> None:
    transporters = await world.transporters(200)
    broadcast = await world.broadcast()
    with world.journal.slow(before_s=1):
        started_ms = world.clock.now_ms()
        await asyncio.gather(*[world.accept(broadcast, transporter) for transporter in transporters])
        assert world.clock.now_ms() - started_ms == 2_000
    assert [len(batch) for batch in world.journal.batches[-2:]] == [1, 199]


async def test_what_many_broadcasts_decide_at_once_is_one_commit(world: World) -> None:
    await asyncio.gather(*[world.create(f"c{n}") for n in range(100)])
    assert len(world.journal.batches[0]) == 100


async def test_a_poisoned_checkpoint_fails_alone_in_its_batch(world: World) -> None:
    world.expected_logs |= {"actor_died", "message_quarantined"}

    def of_c1(write: Write) -> bool:
        return write.state is not None and write.state.customer_id == "c1"

    with world.journal.poisoned(of_c1):
        ended = await outcomes(*[world.create(f"c{n}") for n in range(4)])
    assert ended == ["ok", "INTERNAL", "ok", "ok"]
    assert await outcome(world.create("c1")) == "ok"


async def test_a_poisoned_refusal_is_answered_internal_and_harms_nobody(world: World) -> None:
    world.expected_logs.add("reply_not_logged")
    await world.transporters(3)
    broadcast = await world.broadcast()
    with world.journal.poisoned(lambda write: write.logged is not None and write.logged.origin.key.user_id == "t1"):
        ended = await outcomes(*[world.accept(broadcast, transporter) for transporter in ("t0", "t1", "t2")])
    assert ended == ["ok", "INTERNAL", "REQUEST_ALREADY_TAKEN"]
    assert world.node.metric("actor_restarts_total") == 0


async def test_a_client_that_goes_away_does_not_take_its_command_back(world: World) -> None:
    await world.transporters(2)
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    with world.journal.slow(before_s=1):
        under_way, waiting = world.accept(broadcast, "t0"), world.accept(broadcast, "t1")
        await asyncio.sleep(0.5)
        under_way.cancel()
        waiting.cancel()
        await asyncio.sleep(5)
    assert len((await world.state(broadcast)).trips) == 2


async def test_decisions_are_counted_by_command_and_outcome(world: World) -> None:
    await world.transporters(3)
    broadcast = await world.broadcast()
    await asyncio.gather(*[world.accept(broadcast, name) for name in ("t0", "t1", "t2")])
    await outcome(world.cancel(broadcast))
    counted = {
        (sample.labels["command"], sample.labels["outcome"]): sample.value
        for metric in world.node.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "haulcast_decisions_total"
    }
    assert counted == {
        ("Create", "ok"): 1,
        (Accept.__name__, "ok"): 1,
        (Accept.__name__, "REQUEST_ALREADY_TAKEN"): 2,
        (Cancel.__name__, "BROADCAST_FULLY_FILLED"): 1,
    }
