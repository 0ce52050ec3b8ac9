"""Operators' commands on virtual time: they reach every actor of every node between two messages, or it is told which
nodes they have not reached, and what was missed heals."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from haulcast.actors.broadcast_actor import BroadcastActor
from haulcast.actors.bus import NodeBus
from haulcast.actors.control import ANSWER_WITHIN_S, COMPARE_EVERY_S
from haulcast.actors.failover import LOOK_EVERY_S
from haulcast.domain.control import (
    Announce,
    Audience,
    ControlCommand,
    PatchSettings,
    Pause,
    ReloadSettings,
    Resume,
    SwitchMode,
    TenantControl,
)
from haulcast.domain.events import WaveSent
from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.replies import Done, Json, Refusal, Refused, Reply
from haulcast.errors import ErrorCode, JournalUnavailable, RequestError
from haulcast.ports import Kind, Origin, RequestKey, Role
from tests.sim.conftest import Logs
from tests.sim.test_cluster import FAILOVER_S
from tests.sim.world import ACME, Node, World, data, outcome, outcomes


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Three nodes that know each other."""
    async with World.open(nodes=3) as world:
        yield world


def origin(request: str, what: object = None) -> Origin:
    return Origin(RequestKey(ACME, Role.OPERATOR, "op", request), f"{what or request}")


async def command(
    node: Node, command: ControlCommand, request: str | None = None, expected: int | None = None
) -> Reply:
    """Give a command at a node, under a new id unless told otherwise."""
    number = len(node.listener.changed)
    return await node.dispatch.controller.carry_out(
        ACME, command, origin(request or f"{command}{node.incarnation}{number}", command), expected
    )


def statuses(reply: Reply) -> dict[int, str]:
    nodes: Any = data(reply)["nodes"]
    return {each["node"]: each["status"] for each in nodes}


async def versions(world: World) -> list[int]:
    """What each actor's dispatch is known to have in force, by node."""
    return [node.dispatch.controller._version(ACME) for node in world.nodes if node.running]


async def broadcasts(world: World) -> list[BroadcastId]:
    """Two at each node, so that each knows of the tenant."""
    ids = []
    for number, node in enumerate(world.nodes):
        for each in range(2):
            reply = await world.create(f"c{number}.{each}", node=node)
            ids.append(BroadcastId(str(data(reply)["broadcast_id"])))
    await asyncio.sleep(0.01)
    return ids


@contextmanager
def deaf(node: Node, *kinds: Kind) -> Iterator[None]:
    """Messages of these kinds to this node are lost, and it notices nothing. Unrealistic in that all others arrive."""
    real = NodeBus.send

    def send(bus: NodeBus, to: int, kind: Kind, payload: bytes) -> None:
        if not (to == node.incarnation and kind in kinds):
            real(bus, to, kind, payload)

    with patch.object(NodeBus, "send", send):
        yield


def waves(world: World, broadcast_id: BroadcastId) -> list[tuple[int, int]]:
    """The waves that were sent, with their times."""
    return [
        (event.wave, event.at_ms)
        for write in world.journal.landed
        if write.broadcast_id == broadcast_id
        for event in write.events
        if isinstance(event, WaveSent)
    ]


async def test_a_command_is_acknowledged_by_every_node_when_all_their_actors_have_it(world: World) -> None:
    await broadcasts(world)
    reply = await command(world.nodes[0], Pause())
    assert set(statuses(reply).values()) == {"acked"}
    assert len(statuses(reply)) == 3
    assert data(reply)["complete"] is True
    for node in world.nodes:
        actors = [cell.actor for cell, _ in node.dispatch.registry._cells.values()]
        assert len(actors) == 2
        assert all(actor is not None and actor._control.paused for actor in actors)


async def test_while_an_actor_is_busy_with_a_message_its_node_has_not_followed(world: World) -> None:
    """What was decided before is not touched: the change waits until the checkpoint under way has landed, and so does
    the acknowledgement."""
    await world.transporters(1)
    ids = await broadcasts(world)
    world.journal.before_s = 3.0
    accept = world.accept(ids[0], "t0", node=world.nodes[0])
    await asyncio.sleep(0.1)
    giving = asyncio.create_task(command(world.nodes[1], Pause()))
    await asyncio.sleep(1.0)
    busy = next(cell.actor for cell, _ in world.nodes[0].dispatch.registry._cells.values() if cell.busy)
    assert busy is not None
    assert not busy._control.paused
    assert not giving.done()
    await asyncio.wait([accept])
    reply = await giving
    assert data(reply)["complete"] is True
    assert busy._control.paused


async def test_a_node_that_the_message_did_not_reach_heals_by_itself(world: World) -> None:
    """It compares versions every two seconds. That the others could not tell it does not keep it from following."""
    await broadcasts(world)
    world.expected_logs |= {"control_was_missed", "control_unanswered"}
    victim = world.nodes[2]
    with deaf(victim, Kind.CONTROL):
        giving = asyncio.create_task(command(world.nodes[0], Pause()))
        await asyncio.sleep(COMPARE_EVERY_S + 0.1)
        assert victim.dispatch.controller._version(ACME) == 2
        assert victim.metric("control_healed_total") == 1
        assert (await giving) is not None
    assert statuses(giving.result())[victim.incarnation] == "acked"


async def test_who_does_not_answer_within_five_seconds_is_named(world: World) -> None:
    await broadcasts(world)
    world.expected_logs |= {"control_was_missed", "control_unanswered"}
    victim = world.nodes[2]
    with patch.object(type(victim.dispatch.controller), "_compare", _nothing), deaf(victim, Kind.CONTROL):
        began_s = world.clock.monotonic_s()
        reply = await command(world.nodes[0], Pause())
        assert world.clock.monotonic_s() - began_s == pytest.approx(ANSWER_WITHIN_S, abs=0.1)
    assert data(reply)["complete"] is False
    assert [node for node, status in statuses(reply).items() if status == "silent"] == [victim.incarnation]
    (record,) = await world.journal.read_control_log(ACME, before=None, limit=10)
    assert record.outcome is not None
    assert record.outcome["complete"] is False
    await asyncio.sleep(COMPARE_EVERY_S + 0.1)
    assert await versions(world) == [2, 2, 2]


async def test_an_acknowledgement_that_was_lost_is_asked_for_again(world: World) -> None:
    await broadcasts(world)
    asking = world.nodes[0]
    with deaf(asking, Kind.CONTROLLED):
        giving = asyncio.create_task(command(asking, Pause()))
        await asyncio.sleep(0.5)
        assert not giving.done()
    assert set(statuses(await giving).values()) == {"acked"}


async def test_what_the_others_have_in_force_is_known_in_the_end_also_by_who_did_not_hear_it(world: World) -> None:
    """Nobody but the node that was given the command waits for the acknowledgements; where somebody looks on, what is
    shown of them heals."""
    await broadcasts(world)
    first, second, third = world.nodes
    second.listener.watched = (ACME,)
    with deaf(second, Kind.CONTROLLED):
        assert data(await command(first, Pause()))["complete"] is True
        await asyncio.sleep(0.1)
    assert second.dispatch.controller._others[third.incarnation].get(ACME, 0) < 2
    await asyncio.sleep(COMPARE_EVERY_S + 0.1)
    state = await second.dispatch.controller.state_of(ACME)
    assert state.nodes == {node.incarnation: 2 for node in world.nodes}


async def test_a_node_that_dies_meanwhile_is_gone_and_nobody_waits_for_it(world: World) -> None:
    await broadcasts(world)
    victim = world.nodes[2]
    with deaf(victim, Kind.CONTROL):
        giving = asyncio.create_task(command(world.nodes[0], Pause()))
        await asyncio.sleep(0.1)
        await victim.crash()
        reply = await giving
    assert statuses(reply)[victim.incarnation] == "gone"
    assert data(reply)["complete"] is True


async def test_the_same_command_id_is_carried_out_once_wherever_it_is_given(world: World) -> None:
    first, second, third = world.nodes
    replies = await asyncio.gather(*(command(node, Pause(), "once") for node in (first, second, third, first)))
    assert {data(reply)["version"] for reply in replies} == {2}
    assert {data(reply)["number"] for reply in replies} == {1}
    later = await command(second, Pause(), "once")
    assert data(later)["version"] == 2
    assert await second.dispatch.controller.carry_out(ACME, Resume(), origin("once", "other"), None) == Refused(
        Refusal.ID_REUSED
    )
    assert [record.command for record in await world.journal.read_control_log(ACME, before=None, limit=10)] == ["pause"]


async def test_a_command_that_was_recorded_by_a_node_that_died_is_seen_through_by_the_next_that_is_asked(
    world: World,
) -> None:
    await broadcasts(world)
    first, second, _ = world.nodes
    with deaf(second, Kind.CONTROL), deaf(world.nodes[2], Kind.CONTROL):
        giving = asyncio.create_task(command(first, Pause(), "once"))
        await asyncio.sleep(0.1)
        giving.cancel()
        await first.crash()
    reply = await command(second, Pause(), "once")
    assert data(reply)["version"] == 2
    assert data(reply)["complete"] is True
    (record,) = await world.journal.read_control_log(ACME, before=None, limit=10)
    assert record.outcome == {"complete": True, "nodes": data(reply)["nodes"]}


async def test_a_command_on_another_version_than_was_expected_is_refused_and_changes_nothing(world: World) -> None:
    first, second, _ = world.nodes
    await command(first, SwitchMode("blast"), expected=1)
    with pytest.raises(RequestError) as refused:
        await command(second, PatchSettings({"wave_interval_s": 20.0}), expected=1)
    assert refused.value.code is ErrorCode.VERSION_MISMATCH
    assert refused.value.data == {"version": 2}
    control = await world.journal.read_tenant(ACME)
    assert control is not None
    assert (control.version, control.settings.wave_interval_s) == (2, 15.0)
    # Sent again under its own id, it is the command that has been carried out, and no other version.
    again = await command(first, SwitchMode("blast"), request=f"{SwitchMode('blast')}{first.incarnation}0", expected=1)
    assert data(again)["version"] == 2


@pytest.mark.parametrize("expected", [None, 1])
async def test_a_command_given_twice_at_once_is_never_refused_for_what_it_has_changed_itself(
    world: World, expected: int | None
) -> None:
    """Of a refusal it is promised that nothing was changed, also if the second node looks just between the first one's
    record and its own."""
    first, second, _ = world.nodes
    read_tenant = world.journal.read_tenant

    async def late(tenant_id: TenantId) -> TenantControl | None:
        if asyncio.current_task() is slower:
            await faster
        return await read_tenant(tenant_id)

    await command(first, PatchSettings({"announcements_per_hour": 1}))
    expected = None if expected is None else expected + 1
    announce = Announce("a1", Audience.DRIVER, "Ice on the pass.", 60)
    with patch.object(world.journal, "read_tenant", late):
        slower = asyncio.create_task(command(second, announce, "once", expected))
        faster = asyncio.create_task(command(first, announce, "once", expected))
        replies = await asyncio.gather(slower, faster)
    assert [data(reply)["version"] for reply in replies] == [3, 3]


async def test_a_node_that_cannot_read_what_it_is_told_of_says_so_and_follows_when_it_can(
    world: World, logs: Logs
) -> None:
    """That is no error of anybody: it is asked again, and looks again by itself."""
    await broadcasts(world)
    read_tenant = world.journal.read_tenant
    failures = iter([False, True])  # the node that is asked reads first, then the two others

    async def failing(tenant_id: TenantId) -> TenantControl | None:
        if next(failures, False):
            raise JournalUnavailable("out of reach")
        return await read_tenant(tenant_id)

    with patch.object(world.journal, "read_tenant", failing):
        reply = await command(world.nodes[0], Pause())
    assert set(statuses(reply).values()) == {"acked"}
    wrong = [entry["event"] for entry in logs if entry["log_level"] in ("warning", "error")]
    assert wrong.count("control_not_read") == 1
    assert {*wrong} <= {"control_not_read", "control_was_missed"}


async def test_commands_to_one_tenant_at_once_are_carried_out_one_after_the_other(world: World) -> None:
    await broadcasts(world)
    replies = await asyncio.gather(
        *(command(world.nodes[n % 3], PatchSettings({"wave_interval_s": 20.0 + n}), f"p{n}") for n in range(15))
    )
    assert {data(reply)["version"] for reply in replies} == set(range(2, 17))
    control = await world.journal.read_tenant(ACME)
    assert control is not None
    assert control.version == 16
    assert await versions(world) == [16, 16, 16]
    for node in world.nodes:
        actors = [cell.actor for cell, _ in node.dispatch.registry._cells.values()]
        assert all(actor is not None and actor._control == control for actor in actors)


async def test_nothing_is_told_of_a_command_that_could_not_be_recorded(world: World) -> None:
    await broadcasts(world)
    with world.journal.failing_once("record_control"), pytest.raises(JournalUnavailable):
        await command(world.nodes[0], Pause(), "later")
    await asyncio.sleep(3)
    assert await versions(world) == [1, 1, 1]
    assert set(statuses(await command(world.nodes[0], Pause(), "later")).values()) == {"acked"}


async def test_what_an_actor_knows_changes_between_two_messages_only(world: World) -> None:
    """Whatever is handled, and however often it changes meanwhile: from the first look to the checkpoint it is one."""
    await world.transporters(6)
    ids = await broadcasts(world)
    seen: list[tuple[int, int]] = []
    real = BroadcastActor.handle

    async def handle(actor: BroadcastActor, message: Any) -> None:
        before = actor._control.version
        try:
            await real(actor, message)
        finally:
            seen.append((before, actor._control.version))

    world.journal.before_s = 0.05
    with patch.object(BroadcastActor, "handle", handle):
        asks = [world.accept(ids[n % 6], f"t{n % 6}", node=world.nodes[n % 3]) for n in range(30)]
        for number in range(10):
            await command(world.nodes[number % 3], PatchSettings({"wave_interval_s": 10.0 + number}))
        await asyncio.wait(asks)
        await asyncio.sleep(30)
    assert len({before for before, _ in seen}) > 1
    assert [pair for pair in seen if pair[0] != pair[1]] == []


async def test_paused_broadcasts_hold_their_wave_and_go_on_with_it_once(world: World) -> None:
    """Waves are due 15 s apart. Paused before the second, resumed 40 s later: it goes out at once, and the third a full
    interval after it. The expiry keeps its time."""
    node = world.nodes[0]
    created = await world.create("c1", node=node, expires_in_s=300)
    broadcast_id = BroadcastId(str(data(created)["broadcast_id"]))
    await asyncio.sleep(10)
    begun_ms = waves(world, broadcast_id)[0][1]
    await command(world.nodes[1], Pause())
    await asyncio.sleep(40)
    assert len(waves(world, broadcast_id)) == 1
    await command(world.nodes[2], Resume())
    resumed_ms = world.clock.now_ms()
    await asyncio.sleep(40)
    (_, first), (two, second), (three, third), *rest = waves(world, broadcast_id)
    assert (first, two, three) == (begun_ms, 2, 3)
    assert second - resumed_ms < 1_000
    assert third - second == 15_000
    assert len(rest) == 1
    state = await world.state(broadcast_id)
    await asyncio.sleep((state.expires_at_ms - world.clock.now_ms()) / 1000 + 0.1)
    assert not (await world.state(broadcast_id)).live


async def test_while_paused_nothing_new_begins_and_everything_else_goes_on(world: World) -> None:
    await world.transporters(2)
    first, second, third = world.nodes
    ids = await broadcasts(world)
    await command(first, Pause())
    assert await outcome(world.create("c9", node=second)) == "TENANT_PAUSED"
    assert await outcome(world.accept(ids[0], "t0", node=third)) == "ok"
    assert await outcome(world.cancel(ids[2], "c1.0", node=first)) == "ok"
    await command(third, Resume())
    assert await outcome(world.create("c9", node=second)) == "ok"


async def test_a_pause_holds_for_broadcasts_that_change_hands(world: World) -> None:
    """Their owner dies while dispatch is paused: whoever claims them sends no wave either, until it is resumed."""
    first = world.nodes[0]
    created = await world.create("c1", node=first, expires_in_s=300)
    broadcast_id = BroadcastId(str(data(created)["broadcast_id"]))
    await asyncio.sleep(1)
    await command(world.nodes[1], Pause())
    await first.crash()
    await asyncio.sleep(60)
    assert len(waves(world, broadcast_id)) == 1
    await command(world.nodes[2], Resume())
    await asyncio.sleep(1)
    assert [wave for wave, _ in waves(world, broadcast_id)] == [1, 2]


async def test_a_pause_outlives_a_restart(world: World) -> None:
    await command(world.nodes[0], Pause())
    for node in world.nodes:
        await node.stop()
    await world.boot()
    assert await outcome(world.create("c1")) == "TENANT_PAUSED"


async def test_a_node_is_drained_by_another_or_by_itself_but_never_the_last(world: World) -> None:
    first, second, third = world.nodes
    draining = asyncio.create_task(first.dispatch.controller.drain(third.incarnation, origin("d1")))
    await asyncio.sleep(LOOK_EVERY_S + 0.1)
    assert third.drained
    await third.stop()
    assert statuses(await draining) == {third.incarnation: "acked"}
    assert statuses(await second.dispatch.controller.drain(second.incarnation, origin("d2"))) == {
        second.incarnation: "acked"
    }
    assert second.drained
    await second.stop()
    await asyncio.sleep(1)
    for node, code in ((first.incarnation, ErrorCode.LAST_NODE), (third.incarnation, ErrorCode.NODE_NOT_FOUND)):
        with pytest.raises(RequestError) as refused:
            await first.dispatch.controller.drain(node, origin(f"d{code}"))
        assert refused.value.code is code
    assert not first.drained
    assert isinstance(await first.dispatch.controller.drain(third.incarnation, origin("d1")), Done)


async def test_however_many_are_drained_at_once_one_stays(world: World) -> None:
    """Wherever it is asked for: each is told of the others by the store alone."""
    replies = await asyncio.gather(
        *(
            world.nodes[number].dispatch.controller.drain(node.incarnation, origin(f"d{number}"))
            for number, node in enumerate((world.nodes[1], world.nodes[2], world.nodes[0]))
        )
    )
    found = [status for reply in replies for status in statuses(reply).values()]
    assert sorted(found) == ["acked", "acked", "refused"]
    await asyncio.sleep(LOOK_EVERY_S + 0.1)
    assert sorted(node.drained for node in world.nodes) == [False, True, True]
    refused = next(reply for reply in replies if "refused" in statuses(reply).values())
    assert data(refused)["complete"] is False


async def test_a_node_that_was_given_up_has_caught_up_before_it_serves_again(world: World) -> None:
    """It is cut off, and given up; dispatch is paused, and complete is what the others answer. From the moment in which
    it is back nothing is created at it."""
    await broadcasts(world)
    world.expected_logs |= {"control_was_missed"}
    first, second, _ = world.nodes
    first.cluster.cut = True
    await asyncio.sleep(FAILOVER_S + 1)
    assert data(await command(second, Pause()))["complete"] is True
    first.cluster.cut = False
    created = [world.create(f"late{number}", node=first) for number in range(1)]
    for number in range(60):
        await asyncio.sleep(0.05)
        created.append(world.create(f"later{number}", node=first))
    assert set(await outcomes(*created)) <= {"TENANT_PAUSED", "UNAVAILABLE"}
    assert await outcome(world.create("last", node=first)) == "TENANT_PAUSED"


async def test_an_actor_that_cannot_be_started_keeps_no_node_from_following(world: World) -> None:
    """There is nothing in it that could decide under what was in force before."""
    world.expected_logs |= {"actor_died", "actor_start_failed"}
    await broadcasts(world)
    first, second, _ = world.nodes
    cell = next(cell for cell, _ in first.dispatch.registry._cells.values())
    victim = cell.actor

    async def cannot_start(_cell: object, _known: object) -> BroadcastActor:
        raise RuntimeError("cannot be started")

    real = BroadcastActor.handle

    async def handle(actor: BroadcastActor, message: Any) -> None:
        if actor is victim:
            raise RuntimeError("dies")
        await real(actor, message)

    cell._start = cannot_start
    with patch.object(BroadcastActor, "handle", handle):
        cell.ring()
        await asyncio.sleep(1)
        assert cell.actor is None
        assert data(await command(second, Pause()))["complete"] is True


async def test_the_same_id_is_answered_the_same_whichever_node_notes_the_outcome_first(world: World) -> None:
    """Two nodes see to one command, and one of them finds another outcome than the other has noted meanwhile."""
    await broadcasts(world)
    first, second, third = world.nodes
    noted: dict[str, Json] = {"complete": False, "nodes": [{"node": third.incarnation, "status": "silent"}]}
    with deaf(third, Kind.CONTROL):
        giving = asyncio.create_task(command(first, Pause(), "once"))
        await asyncio.sleep(0.2)
        await world.journal.finish_control(ACME, 1, noted)
    replies = [await giving, await command(second, Pause(), "once"), await command(first, Pause(), "once")]
    assert [reply for reply in replies if reply != replies[0]] == []
    assert {name: data(replies[0])[name] for name in noted} == noted


async def test_reloading_has_every_node_read_what_the_journal_says(world: World) -> None:
    await broadcasts(world)
    reply = await command(world.nodes[0], ReloadSettings())
    assert data(reply)["changes"] == {}
    assert set(statuses(reply).values()) == {"acked"}
    assert await versions(world) == [2, 2, 2]


async def _nothing(_control: object) -> None:
    """Nothing is compared."""
