"""`fleet:{transporter}` over several hubs: drivers come and go, stores fail, messages are lost, nodes die."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haulcast.client.protocol import Delta, Snapshot
from haulcast.domain.commands import UpdateTrip
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TransporterId, VehicleId
from haulcast.domain.states import TripStatus
from haulcast.errors import RequestError
from haulcast.ports import Kind, Role
from haulcast.tasks import TaskSet
from haulcast.transport import attendance, fleets
from haulcast.transport.auth import Principal
from haulcast.transport.fleet_cache import Changed
from tests.sim.hubs import ACME, TRUCK, Hubs, Owner, Phone
from tests.sim.test_hubs import accept, wave
from tests.sim.virtual_time import START_MS, on_virtual_time

FLEET = "fleet:t0"
AT_ONCE_S = 0.1
"""What is gathered for 50 ms, and read."""


@pytest.fixture
async def world() -> AsyncIterator[Hubs]:
    """Two hubs that tell each other who is there."""
    world, tasks = Hubs(), TaskSet()
    await open_for_drivers(world, tasks)
    yield world
    await tasks.close()
    await world.close()


async def open_for_drivers(world: Hubs, tasks: TaskSet) -> None:
    await world.add_fleet(2)
    for hub in world.hubs:
        tasks.start(hub.attendance.run(), "attendance")


async def watcher(world: Hubs, hub: int = 0) -> Phone:
    phone = Phone(world, Role.TRANSPORTER, "t0", FLEET)
    await phone.connect(hub)
    return phone


async def driver(world: Hubs, hub: int, user: str = "t0-d") -> Phone:
    phone = Phone(world, Role.DRIVER, user)
    await phone.connect(hub)
    return phone


def shown(phone: Phone) -> dict[str, dict[str, dict[str, object]]]:
    assert phone.faults == []
    assert phone.gaps == 0
    state: dict[str, dict[str, dict[str, object]]] = phone.held.topics[FLEET].state
    return state


def online(phone: Phone, user: str = "t0-d") -> object:
    return shown(phone)["drivers"][user]["online"]


def of_fleet(phone: Phone) -> list[Snapshot | Delta]:
    return [frame for frame in phone.frames if frame.topic == FLEET and isinstance(frame, Snapshot | Delta)]


async def put(world: Hubs, hub: int, *items: FleetItem) -> None:
    """As the handler of a PUT does it at one node."""
    await world.journal.put_fleet(ACME, items)
    for item in items:
        changed = Changed(ACME, transporters=[item.transporter_id])
        match item:
            case Vehicle():
                changed.vehicles.append(item.vehicle_id)
            case Driver():
                changed.drivers.append(item.driver_id)
            case Transporter():
                continue
        world.hubs[hub].fleet_changed(changed)
        world.links[hub].broadcast(Kind.FLEET, changed.to_bytes())


# --- Coming and going ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", [0, 1])
async def test_a_driver_who_comes_and_goes_at_any_node_is_told_of_at_once(world: Hubs, hub: int) -> None:
    phone = await watcher(world)
    assert shown(phone) == {
        "drivers": {"t0-d": {"driver_id": "t0-d", "online": False, "trip_id": None}},
        "vehicles": {"t0-v": {"vehicle_id": "t0-v", "vehicle_type": TRUCK, "trip_id": None}},
    }
    first, second = await driver(world, hub), await driver(world, hub)
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone)
    first.disconnect()
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone)
    second.disconnect()
    await asyncio.sleep(AT_ONCE_S)
    assert not online(phone)
    _, *deltas = of_fleet(phone)
    assert [delta.set for delta in deltas if isinstance(delta, Delta)] == [
        {"/drivers/t0-d/online": True},
        {"/drivers/t0-d/online": False},
    ]


async def test_a_driver_at_two_nodes_has_gone_when_both_are_left(world: Hubs) -> None:
    phone = await watcher(world)
    here, there = await driver(world, 0), await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    here.disconnect()
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone)
    there.disconnect()
    await asyncio.sleep(AT_ONCE_S)
    assert not online(phone)


async def test_what_changes_within_50_ms_leaves_as_one_delta_and_a_flapping_driver_floods_nobody(world: Hubs) -> None:
    more = [Driver(DriverId(f"d{number}"), TransporterId("t0")) for number in range(40)]
    await world.journal.put_fleet(ACME, more)
    phone = await watcher(world)
    for each in more:
        world.hubs[0].attendance.note(ACME, each.driver_id, connected=True)
        await asyncio.sleep(0.001)
    await asyncio.sleep(AT_ONCE_S)
    assert [type(frame) for frame in of_fleet(phone)] == [Snapshot, Delta]
    assert all(online(phone, each.driver_id) for each in more)
    began_s = world.clock.monotonic_s()
    for _ in range(200):
        (await driver(world, 1)).disconnect()
    took_s = world.clock.monotonic_s() - began_s
    await asyncio.sleep(1)
    assert not online(phone)
    assert took_s > 0.3
    assert len(of_fleet(phone)) <= 3 + took_s / fleets.GATHERED_S


async def test_another_fleet_s_driver_leaves_nothing_to_do(world: Hubs) -> None:
    phone = await watcher(world)
    reads = world.journal.reads
    other = await driver(world, 1, "t1-d")
    other.disconnect()
    await asyncio.sleep(1)
    assert len(of_fleet(phone)) == 1
    assert world.journal.reads == reads + 1  # that driver's own topic


async def test_without_a_subscriber_anywhere_nothing_is_read(world: Hubs) -> None:
    reads = world.journal.reads
    for hub in (0, 1):
        await driver(world, hub)
    await asyncio.sleep(1)
    assert world.journal.reads == reads + 2


# --- What else a fleet shows -----------------------------------------------------------------------------------------


async def test_a_trip_shows_from_its_beginning_to_its_end(world: Hubs) -> None:
    phone = await watcher(world, 1)
    owner = Owner(world, BroadcastId("b1"))
    await owner.create("c1")
    await owner.do(wave(owner, 0, 1))
    await owner.do(accept(0))
    await asyncio.sleep(AT_ONCE_S)
    assert owner.state is not None
    [trip] = owner.state.trips
    assert shown(phone)["drivers"]["t0-d"]["trip_id"] == shown(phone)["vehicles"]["t0-v"]["trip_id"] == trip.trip_id
    before = len(of_fleet(phone))
    await owner.do(UpdateTrip(DriverId("t0-d"), trip.trip_id, TripStatus.EN_ROUTE, by_driver=True))
    await asyncio.sleep(AT_ONCE_S)
    assert len(of_fleet(phone)) == before
    await owner.do(UpdateTrip(DriverId("t0-d"), trip.trip_id, TripStatus.DELIVERED, by_driver=True))
    await asyncio.sleep(AT_ONCE_S)
    assert shown(phone)["drivers"]["t0-d"]["trip_id"] is shown(phone)["vehicles"]["t0-v"]["trip_id"] is None


async def test_what_changes_hands_leaves_one_fleet_and_comes_to_the_other(world: Hubs) -> None:
    phone, other = await watcher(world), Phone(world, Role.TRANSPORTER, "t1", "fleet:t1")
    await other.connect(1)
    t1 = TransporterId("t1")
    await put(world, 0, Vehicle(VehicleId("t0-v"), t1, TRUCK), Driver(DriverId("t0-d"), t1))
    await asyncio.sleep(AT_ONCE_S)
    assert shown(phone) == {"drivers": {}, "vehicles": {}}
    state = other.held.topics["fleet:t1"].state
    assert {"t0-d", "t1-d"} == {*state["drivers"]}
    assert {"t0-v", "t1-v"} == {*state["vehicles"]}


async def test_what_is_put_behind_the_servers_backs_is_found_within_a_minute(world: Hubs) -> None:
    phone = await watcher(world)
    await world.journal.put_fleet(ACME, [Driver(DriverId("new"), TransporterId("t0"))])
    world.hubs[0].sweep()  # once a minute
    await asyncio.sleep(AT_ONCE_S)
    assert not online(phone, "new")


# --- Who may see it, and coming back ---------------------------------------------------------------------------------


async def test_it_is_its_transporter_s_and_the_operators(world: Hubs) -> None:
    for role, user in ((Role.OPERATOR, "op"), (Role.ADMIN, "root"), (Role.TRANSPORTER, "t0")):
        phone = Phone(world, role, user, FLEET)
        await phone.connect(0)
        shown(phone)
    for role, user in (
        (Role.TRANSPORTER, "t1"),
        (Role.CUSTOMER, "t0"),
        (Role.DRIVER, "t0"),
        (Role.DRIVER, "t0-d"),
    ):
        phone = Phone(world, role, user)
        await phone.connect(0)
        with pytest.raises(RequestError, match="TOPIC_NOT_FOUND"):
            await phone.subscribe(FLEET)
        with pytest.raises(RequestError, match="TOPIC_NOT_FOUND"):
            await world.hubs[0].read(Principal(ACME, role, user, START_MS * 2), FLEET)


async def test_who_comes_back_soon_is_sent_what_they_lack_and_no_snapshot(world: Hubs) -> None:
    phone = await watcher(world)
    phone.disconnect()
    await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    await phone.connect(0)
    assert online(phone)
    assert [type(frame) for frame in of_fleet(phone)] == [Snapshot, Delta]


async def test_a_second_subscriber_is_shown_what_the_first_is(world: Hubs) -> None:
    """Whatever had changed unnoticed, the first is told before the second is sent it."""
    phone = await watcher(world)
    await world.journal.put_fleet(ACME, [Driver(DriverId("new"), TransporterId("t0"))])
    operator = Phone(world, Role.OPERATOR, "op", FLEET)
    await operator.connect(0)
    assert shown(phone) == shown(operator)
    assert phone.held.topics[FLEET].version == operator.held.topics[FLEET].version
    await driver(world, 1, "new")
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone, "new")
    assert shown(phone) == shown(operator)


async def test_who_comes_while_the_fleet_is_read_for_the_first_time_is_not_missed() -> None:
    """At whichever moment of the reading."""
    for half_ms in range(40):
        world = Hubs()
        await world.add_fleet(1)
        phone = Phone(world, Role.TRANSPORTER, "t0", FLEET)
        connecting = asyncio.create_task(phone.connect(0))
        await asyncio.sleep(half_ms / 2_000)
        world.hubs[0].attendance.note(ACME, DriverId("t0-d"), connected=True)
        await connecting
        await asyncio.sleep(AT_ONCE_S)
        assert online(phone)
        await world.close()


# --- What fails ------------------------------------------------------------------------------------------------------


async def test_a_node_that_dies_takes_its_drivers_along(world: Hubs) -> None:
    phone = await watcher(world)
    await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone)
    del world.links[0].others[1]
    world.hubs[0].peers_changed()
    await asyncio.sleep(AT_ONCE_S)
    assert not online(phone)


async def test_a_node_that_was_given_up_and_joins_anew_brings_its_drivers_back(world: Hubs) -> None:
    phone = await watcher(world)
    await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    hub = world.links[0].others.pop(1)
    world.hubs[0].peers_changed()
    await asyncio.sleep(AT_ONCE_S)
    world.links[1].me = 7
    world.hubs[1].refresh()
    await asyncio.sleep(AT_ONCE_S)
    assert not online(phone)  # it has said so, but is not known yet
    world.links[0].others[7] = hub
    world.hubs[0].peers_changed()
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone)


async def test_while_nobody_knows_who_is_elsewhere_what_was_shown_stays_and_is_put_right_later(world: Hubs) -> None:
    """Also who asks meanwhile is answered: with what is known."""
    phone = await watcher(world)
    there = await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    world.presence.away = True
    there.disconnect()
    world.hubs[0].refresh()
    await asyncio.sleep(1)
    assert online(phone)
    second = Phone(world, Role.OPERATOR, "op", FLEET)
    await second.connect(0)
    assert online(second)
    fresh = Phone(world, Role.OPERATOR, "op", FLEET)
    await fresh.connect(1)
    assert not online(fresh)
    here = await driver(world, 1)
    world.presence.away = False
    await asyncio.sleep(2 * attendance.RETRY_S + AT_ONCE_S)
    assert all(map(online, (phone, second, fresh)))
    here.disconnect()
    await asyncio.sleep(AT_ONCE_S)
    assert not any(map(online, (phone, second, fresh)))


async def test_who_asks_while_nobody_knows_who_is_elsewhere_is_told_when_it_is_known(world: Hubs) -> None:
    await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    world.presence.away = True
    phone = await watcher(world)
    assert not online(phone)
    world.presence.away = False
    await asyncio.sleep(1 + AT_ONCE_S)
    assert online(phone)


async def test_what_could_not_be_noted_is_noted_within_a_second_after_it_can_be(world: Hubs) -> None:
    phone = await watcher(world)
    await driver(world, 1, "t1-d")
    await asyncio.sleep(AT_ONCE_S)
    world.presence.away = True
    await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    world.presence.away = False
    await asyncio.sleep(attendance.RETRY_S + AT_ONCE_S)
    assert online(phone)


async def test_a_journal_that_is_away_loses_no_change(world: Hubs) -> None:
    phone = await watcher(world)
    there = await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    world.journal.away = True
    there.disconnect()
    await asyncio.sleep(3)
    assert online(phone)
    world.journal.away = False
    await asyncio.sleep(1 + AT_ONCE_S)
    assert not online(phone)


async def test_what_presence_has_forgotten_is_noted_anew(world: Hubs) -> None:
    phone = await watcher(world)
    there = await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)
    world.presence.forget_everything()
    world.hubs[0].refresh()
    await asyncio.sleep(AT_ONCE_S)
    assert not online(phone)
    await asyncio.sleep(attendance.SYNC_EVERY_S + AT_ONCE_S)
    assert online(phone)
    there.disconnect()
    await asyncio.sleep(2 * attendance.SYNC_EVERY_S)
    assert world.presence._drivers == {}
    assert world.hubs[1].attendance._here == {}


async def test_a_message_that_was_lost_is_made_up_for(world: Hubs) -> None:
    phone = await watcher(world)
    world.links[1].cut = True
    await driver(world, 1)
    await asyncio.sleep(1)
    assert not online(phone)
    world.hubs[0].refresh()  # the bus notices
    await asyncio.sleep(AT_ONCE_S)
    assert online(phone)


async def test_thousands_of_drivers_are_told_of_in_parts(world: Hubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "AT_ONCE", 7)
    crowd = [Driver(DriverId(f"d{number}"), TransporterId("t0")) for number in range(100)]
    await world.journal.put_fleet(ACME, crowd)
    phone = await watcher(world)
    await driver(world, 1)
    await asyncio.sleep(AT_ONCE_S)  # it has been compared once, and will not be for 5 s
    for each in crowd:
        world.hubs[1].attendance.note(ACME, each.driver_id, connected=True)
    await asyncio.sleep(1)
    assert all(online(phone, each.driver_id) for each in crowd)


# --- All of it -------------------------------------------------------------------------------------------------------

STEPS = st.tuples(
    st.sampled_from(
        ("come", "come", "go", "watch", "leave", "put", "hold", "release", "forget", "away", "wait", "wait")
    ),
    st.integers(0, 3),
    st.integers(0, 1),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_all_come_to_show_who_is_there(steps: list[tuple[str, int, int]]) -> None:
    async def play() -> None:
        world, tasks = Hubs(), TaskSet()
        await open_for_drivers(world, tasks)
        drivers = [Phone(world, Role.DRIVER, user) for user in ("t0-d", "t0-d", "t1-d", "nobody")]
        watchers = [Phone(world, Role.OPERATOR, f"op{number}", FLEET) for number in range(4)]
        for what, number, hub in steps:
            match what:
                case "come":
                    await drivers[number].connect(hub)
                case "go":
                    drivers[number].disconnect()
                case "watch":
                    await watchers[number].connect(hub)
                case "leave":
                    watchers[number].disconnect()
                case "put":
                    await put(world, hub, Driver(DriverId("t0-d"), TransporterId(f"t{number % 2}")))
                case "hold":
                    world.links[hub].hold()
                case "release":
                    world.links[hub].release()
                case "forget":
                    world.presence.forget_everything()
                case "away":
                    world.journal.away, world.presence.away = number in (1, 3), number in (2, 3)
                case _:
                    await asyncio.sleep((0.001, 0.02, 0.1, 2)[number])
        world.journal.away = world.presence.away = False
        for link in world.links:
            link.release()
        await asyncio.sleep(2 * attendance.SYNC_EVERY_S)
        for number, phone in enumerate(watchers):
            if not phone.connected:
                await phone.connect(number % 2)
        driven = await world.journal.read_driver(ACME, DriverId("t0-d"))
        assert driven is not None
        there = any(phone.connected for phone in drivers[:2])
        mine = {"t0-d": {"driver_id": "t0-d", "online": there, "trip_id": None}}
        for phone in watchers:
            assert shown(phone)["drivers"] == (mine if driven.transporter_id == "t0" else {})
        await tasks.close()
        await world.close()

    on_virtual_time(play)
