"""What is in force changes while broadcasts live: what was under way goes on under what is in force now."""

import asyncio

from haulcast.domain.commands import Tick
from haulcast.domain.control import TenantControl
from haulcast.domain.events import Offered, WaveHeld, WaveSent
from haulcast.domain.ids import BroadcastId
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import BroadcastStatus
from tests.sim.faults import decided
from tests.sim.test_cluster import create_on, owner
from tests.sim.virtual_time import START_MS
from tests.sim.world import ACME, World, outcome


async def waves(world: World, broadcast_id: BroadcastId) -> list[tuple[int, int, float | None, list[str]]]:
    """When each wave went out (in s), its number, how far it reached, and whom."""
    return [
        (
            round((event.at_ms - START_MS) / 1000),
            event.wave,
            event.radius_m,
            [offer.transporter_id for offer in event.offers],
        )
        for event in await world.journal.read_events(ACME, broadcast_id)
        if isinstance(event, WaveSent)
    ]


async def test_a_pause_holds_waves_and_nothing_else_and_then_they_go_on_once(world: World) -> None:
    await world.transporter("near")
    await world.transporter("far", km=20)
    broadcast = await world.broadcast(trucks={"truck": 2})
    await world.configure(paused=True)
    with decided() as commands:
        await asyncio.sleep(100)
        assert [type(command) for command in commands] == [Tick]  # that the wave is held
        assert await outcome(world.accept(broadcast, "near")) == "ok"
    await world.configure(paused=False)
    await asyncio.sleep(40)
    assert [wave[:3] for wave in await waves(world, broadcast)] == [
        (0, 1, 10_000.0),
        (100, 2, 25_000.0),
        (115, 3, 50_000.0),
        (130, 4, 75_000.0),
    ]
    events = await world.journal.read_events(ACME, broadcast)
    assert len([event for event in events if isinstance(event, WaveHeld)]) == 1


async def test_what_is_paused_expires_in_time(world: World) -> None:
    broadcast = await world.broadcast(expires_in_s=60)
    await world.configure(paused=True)
    await asyncio.sleep(60.1)
    state = await world.state(broadcast)
    assert (state.status, state.ended_at_ms) == (BroadcastStatus.EXPIRED, state.expires_at_ms)


async def test_a_wave_that_is_being_looked_up_when_the_pause_comes_is_held(world: World) -> None:
    await world.transporter("t1")
    world.node.presence.lookup_s = 2
    broadcast = await world.broadcast()
    await world.configure(paused=True)
    await asyncio.sleep(30)
    assert await waves(world, broadcast) == []
    await world.configure(paused=False)
    await asyncio.sleep(3)
    assert await waves(world, broadcast) == [(32, 1, 10_000.0, ["t1"])]


async def test_who_comes_online_in_a_pause_is_offered_what_had_reached_them(world: World) -> None:
    broadcast = await world.broadcast()
    await world.configure(paused=True)
    for name, km in (("near", 1), ("far", 20)):
        vehicle = await world.offline(name)
        await world.node.dispatch.availability.go_online(ACME, vehicle.transporter_id)
        position = world.positions.get(vehicle.transporter_id)
        assert position is None
        await world.transporter(name, km=km)
        world.node.dispatch.availability._tasks.start(  # as when the first position of a vehicle comes
            world.node.dispatch.availability._offer(ACME, vehicle.transporter_id), "offer_late"
        )
    await asyncio.sleep(20)
    events = await world.journal.read_events(ACME, broadcast)
    assert [event.offer.transporter_id for event in events if isinstance(event, Offered)] == ["near"]


async def test_what_was_looked_up_under_another_mode_is_looked_up_again(world: World) -> None:
    await world.transporter("near")
    await world.transporter("far", km=900)
    world.node.presence.lookup_s = 2
    broadcast = await world.broadcast()
    await world.configure(dispatch_mode="blast")
    await asyncio.sleep(20)
    assert await waves(world, broadcast) == [(4, 1, None, ["near", "far"])]


async def test_whom_no_wave_would_have_reached_a_switch_to_blast_reaches_at_once() -> None:
    async with World.open(TenantSettings(wave_radii_km=(10,))) as world:
        await world.transporter("far", km=900)
        broadcast = await world.broadcast()
        await asyncio.sleep(50)
        await world.configure(dispatch_mode="blast")
        await asyncio.sleep(50)
        assert await waves(world, broadcast) == [(0, 1, 10_000.0, []), (50, 2, None, ["far"])]


async def test_a_control_that_is_no_newer_changes_nothing(world: World) -> None:
    broadcast = await world.broadcast()
    await world.configure(dispatch_mode="blast")
    actor = world.node.dispatch.registry._cells[ACME, broadcast][0].actor
    assert actor is not None
    for version in (1, 2):
        actor.configure(TenantControl(paused=True, version=version))
    await asyncio.sleep(16)
    assert [wave[1:3] for wave in await waves(world, broadcast)] == [(1, 10_000.0), (2, None)]


async def test_nobody_takes_over_a_broadcast_because_its_wave_is_held() -> None:
    async with World.open(nodes=3) as world:
        first = world.nodes[0]
        broadcast = await create_on(world, first, "c1")
        await world.configure(paused=True)
        await asyncio.sleep(200)
        assert await owner(world, broadcast) == first.incarnation
        assert {one.change.epoch for one in world.changes(broadcast)} == {1}
