"""An actor may die of anything. Its broadcast goes on from the journal, and whoever waits is answered."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from haulcast.domain.commands import Accept, Cancel, Command, SendWave, Tick
from haulcast.domain.ids import BroadcastId
from haulcast.domain.states import BroadcastStatus
from haulcast.errors import JournalUnavailable
from tests.sim.conftest import Logs
from tests.sim.faults import bug, decided
from tests.sim.world import ACME, TRUCK, World, data, outcome, outcomes


def by(transporter: str) -> Callable[[Command], bool]:
    """Whether a command is an accept of this transporter."""
    return lambda command: isinstance(command, Accept) and command.transporter_id == transporter


def events(logs: Logs) -> Counter[str]:
    """What was logged as wrong, by name."""
    return Counter(entry["event"] for entry in logs if entry["log_level"] in ("warning", "error"))


async def test_an_actor_that_dies_of_a_message_is_reloaded_and_handles_it_again_with_all_that_wait(
    world: World, logs: Logs
) -> None:
    world.expected_logs.add("actor_died")
    await world.transporters(3)
    broadcast = await world.broadcast(trucks={TRUCK: 3})
    with bug(by("t1"), times=1):
        ended = await outcomes(*[world.accept(broadcast, name) for name in ("t0", "t1", "t2")])
    assert ended == ["ok", "ok", "ok"]
    # In the order in which they came: the message that killed was not overtaken.
    assert [trip.transporter_id for trip in (await world.state(broadcast)).trips] == ["t0", "t1", "t2"]
    assert events(logs) == {"actor_died": 1}
    assert world.node.metric("actor_restarts_total") == 1
    assert [published.version for published in world.changes(broadcast)] == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]


async def test_a_message_that_kills_three_actors_is_quarantined_and_the_broadcast_goes_on(
    world: World, logs: Logs
) -> None:
    world.expected_logs |= {"actor_died", "message_quarantined"}
    await world.transporters(3)
    broadcast = await world.broadcast(trucks={TRUCK: 3}, expires_in_s=30)
    with bug(by("t1")) as struck:
        ended = await outcomes(*[world.accept(broadcast, name) for name in ("t0", "t1", "t2")])
        assert ended == ["ok", "INTERNAL", "ok"]
        assert len(struck) == 3
    assert events(logs) == {"actor_died": 3, "message_quarantined": 1}
    [entry] = [entry for entry in logs if entry["event"] == "message_quarantined"]
    assert (entry["command"], entry["tenant"], entry["broadcast"]) == ("Accept", ACME, broadcast)
    assert world.node.metric("messages_quarantined_total") == 1
    await asyncio.sleep(31)
    state = await world.state(broadcast)
    assert (state.status, len(state.trips)) == (BroadcastStatus.EXPIRED, 2)
    await asyncio.sleep(6)
    assert world.node.leftovers() == {}


async def test_two_messages_that_kill_are_each_given_their_three_tries(world: World) -> None:
    world.expected_logs |= {"actor_died", "message_quarantined"}
    await world.transporters(3)
    broadcast = await world.broadcast(trucks={TRUCK: 3})
    with bug(lambda command: isinstance(command, Accept | Cancel) and not by("t2")(command)) as struck:
        ended = await outcomes(world.accept(broadcast, "t0"), world.cancel(broadcast), world.accept(broadcast, "t2"))
    assert ended == ["INTERNAL", "INTERNAL", "ok"]
    assert len(struck) == 6


@pytest.mark.parametrize("command", [Tick, SendWave])
async def test_a_wave_goes_out_though_its_message_killed_the_actor(
    world: World, command: type[Tick] | type[SendWave]
) -> None:
    world.expected_logs |= {"actor_died", "message_quarantined"}
    await world.transporter("near")
    await world.transporter("far", km=20)
    broadcast = await world.broadcast()
    with bug(lambda one: isinstance(one, command), times=4):
        await asyncio.sleep(20)
    assert (await world.state(broadcast)).wave == 2
    assert await outcome(world.accept(broadcast, "far")) == "ok"


async def test_a_broadcast_expires_however_often_its_tick_kills_its_actor(world: World) -> None:
    world.expected_logs |= {"actor_died", "message_quarantined"}
    broadcast = await world.broadcast(expires_in_s=10)
    with bug(lambda command: isinstance(command, Tick)):
        await asyncio.sleep(60)
        assert (await world.state(broadcast)).live
    await asyncio.sleep(5.1)
    assert (await world.state(broadcast)).status is BroadcastStatus.EXPIRED


async def test_a_broadcast_that_cannot_be_read_keeps_its_clients_waiting_only_while_the_journal_is_away(
    world: World,
) -> None:
    world.expected_logs |= {"actor_start_failed"}
    await world.transporter("t1")
    broadcast = await world.broadcast()
    await world.cancel(broadcast)
    await asyncio.sleep(6)
    world.journal.claims_failing = 6
    asked = world.accept(broadcast, "t1")
    await asyncio.sleep(0.3)
    assert not asked.done()
    assert await outcome(asked) == "BROADCAST_CANCELLED"


async def test_a_broadcast_that_is_broken_in_the_journal_is_answered_internal(world: World) -> None:
    world.expected_logs |= {"actor_start_failed"}
    await world.transporter("t1")
    broadcast = await world.broadcast()
    await world.cancel(broadcast)
    await asyncio.sleep(6)
    world.journal.claim_error = ValueError("no such document version")
    world.journal.claims_failing = 4
    ended = await outcomes(*[world.accept(broadcast, "t1") for _ in range(3)])
    assert ended == ["INTERNAL"] * 3


async def test_a_deadline_that_rang_while_its_actor_could_not_be_started_still_fires(world: World) -> None:
    world.expected_logs |= {"actor_died", "actor_start_failed"}
    await world.transporter("t1")
    broadcast = await world.broadcast(expires_in_s=10)
    await asyncio.sleep(9.9)
    world.journal.claim_error = ValueError("no such document version")
    world.journal.claims_failing = 8
    with bug(by("t1"), times=1):
        assert await outcome(world.accept(broadcast, "t1")) == "INTERNAL"
    await asyncio.sleep(30)
    assert (await world.state(broadcast)).status is BroadcastStatus.EXPIRED


async def test_a_full_mailbox_refuses_clients_with_busy_and_still_lets_the_clock_in(world: World) -> None:
    world.expected_logs.add("commit_failed")
    transporters = await world.transporters(1_100)
    await world.transporter("far", km=20)
    broadcast = await world.broadcast(trucks={TRUCK: 501})
    await asyncio.sleep(14)
    with world.journal.unavailable():
        asked = [asyncio.ensure_future(outcome(world.accept(broadcast, one))) for one in transporters[:500]]
        await asyncio.sleep(0.01)
        asked += [asyncio.ensure_future(outcome(world.accept(broadcast, one))) for one in transporters[500:]]
        await asyncio.sleep(0.01)
        refused = [future for future in asked if future.done()]
        assert {await future for future in refused} == {"BUSY"}
        assert len(asked) - len(refused) == 1 + 1_024
        assert world.node.metric("mailbox_full_total") == len(refused)
        await asyncio.sleep(2)
        cell, _ = world.node.dispatch.registry._cells[ACME, broadcast]
        assert [type(message.command) for message in cell.mailbox._messages].count(Tick) == 1
        assert await outcome(world.accept(broadcast, "far")) == "BUSY"
    with decided() as commands:
        ended = Counter(await asyncio.gather(*asked))
        await asyncio.sleep(1)
    # The wave was due before each of the thousand messages, and its tick came once.
    assert sum(isinstance(command, Tick) for command in commands) == 1
    assert ended["ok"] == 500
    # Those beyond the first wave's 500 were not offered anything yet.
    assert set(ended) == {"ok", "BUSY", "NOT_OFFERED"}


async def test_whoever_was_told_busy_may_ask_again_under_the_same_id(world: World) -> None:
    world.expected_logs.add("commit_failed")
    await world.transporter("t0")
    broadcast = await world.broadcast(trucks={TRUCK: 2})
    with world.journal.unavailable():
        asked = [world.decline(broadcast, "t0")]
        await asyncio.sleep(1)
        asked += [world.decline(broadcast, "t0") for _ in range(1_024)]
        assert await outcome(world.accept(broadcast, "t0", request="r")) == "BUSY"
    assert {await outcome(future) for future in asked} == {"ok"}
    assert data(await world.accept(broadcast, "t0", request="r"))["remaining_requests"] == 1


async def test_whoever_waits_when_the_node_is_cut_off_is_told_that_nothing_is_known(world: World) -> None:
    world.expected_logs.add("commit_failed")
    await world.transporters(3)
    broadcast = await world.broadcast()
    with world.journal.unavailable():
        asked = [world.accept(broadcast, name) for name in ("t0", "t1", "t2")]
        asked += [world.create("c2"), world.accept(BroadcastId("b99"), "t0")]
        await asyncio.sleep(1)
        await world.node.crash()
    assert await outcomes(*asked) == ["UNAVAILABLE"] * 5


async def test_a_command_taken_in_the_very_step_of_the_end_is_answered_too(world: World) -> None:
    await world.transporter("t0")
    asked = [world.create(), world.accept(BroadcastId("b99"), "t0")]
    await world.node.crash()
    await asyncio.sleep(0)
    assert all(future.done() for future in asked)
    assert world.node.leftovers() == {}


async def test_a_claim_whose_answer_was_lost_is_not_taken_for_another_owners(world: World) -> None:
    world.expected_logs |= {"actor_died", "actor_start_failed"}
    await world.transporter("t1")
    broadcast = await world.broadcast()
    world.journal.claims_losing = 2
    with bug(by("t1"), times=1):
        assert await outcome(world.accept(broadcast, "t1")) == "ok"


async def test_a_node_that_has_ended_refuses_at_once(world: World) -> None:
    broadcast = await world.broadcast()
    await world.node.crash()
    refused = [world.cancel(broadcast), world.create("c2")]
    assert all(future.done() for future in refused)
    assert await outcomes(*refused) == ["DRAINING"] * 2


async def test_the_journals_unavailability_is_no_reason_to_quarantine(world: World) -> None:
    world.expected_logs |= {"actor_died", "actor_start_failed"}
    await world.transporter("t1")
    broadcast = await world.broadcast()
    world.journal.claim_error = JournalUnavailable("out of reach")
    world.journal.claims_failing = 5
    with bug(by("t1"), times=1):
        assert await outcome(world.accept(broadcast, "t1")) == "ok"
