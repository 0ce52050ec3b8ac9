import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from haulcast.domain.broadcast import Place
from haulcast.domain.commands import Accept, Cancel, Create, Decline, TruckSpec, UpdateTrip
from haulcast.domain.control import (
    Announce,
    Audience,
    ControlCommand,
    PatchSettings,
    Pause,
    ReloadSettings,
    Resume,
    SwitchMode,
    settings_view,
)
from haulcast.domain.fleet import Transporter, Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TransporterId, TripId, VehicleId
from haulcast.domain.modes import MODES
from haulcast.domain.replies import Done, Refusal, Reply
from haulcast.domain.settings import TenantSettings
from haulcast.domain.states import TripStatus
from haulcast.errors import Code, ErrorCode, RequestError
from haulcast.ports import Kind, RequestKey, Role
from haulcast.tasks import TaskSet
from haulcast.transport import wire
from haulcast.transport.fleet_cache import FleetCache
from haulcast.transport.handlers import HANDLERS, LOGGED, Caller, Handlers, fingerprint
from tests.unit.transport.fakes import ACME, World, principal

CUSTOMER = Caller(principal(Role.CUSTOMER, "c1"))
T1 = Caller(principal(Role.TRANSPORTER, "t1"))
T2 = Caller(principal(Role.TRANSPORTER, "t2"))
D1 = Caller(principal(Role.DRIVER, "d1"))
OPERATOR = Caller(principal(Role.OPERATOR, "op1"))
ADMIN = Caller(principal(Role.ADMIN, "root", ACME))
ACCEPT = wire.OfferAccept("b1", "v1", "d1")
V1 = Vehicle(VehicleId("v1"), TransporterId("t1"), "flatbed")
HERE = wire.Location("v1", 28.6, 77.2)

SAMPLES: dict[type[wire.Request], dict[str, Any]] = {
    wire.Subscribe: {"topic": "x"},
    wire.Unsubscribe: {"topic": "x"},
    wire.Ack: {"topic": "x", "version": (1, 1)},
    wire.BroadcastCreate: {
        "pickup": wire.Place(1.0, 2.0, "Gate 4"),
        "drop": wire.Place(3.0, 4.0),
        "trucks": (wire.Truck("flatbed", 2), wire.Truck("reefer", 1)),
        "expires_in_s": 60,
        "note": "fragile",
    },
    wire.BroadcastCancel: {"broadcast_id": "b1"},
    wire.OfferAccept: {"broadcast_id": "b1", "vehicle_id": "v1", "driver_id": "d1"},
    wire.OfferDecline: {"broadcast_id": "b1"},
    wire.Location: {"vehicle_id": "v1", "lat": 28.6, "lng": 77.2},
    wire.TripUpdate: {"trip_id": "b1-2-t", "status": TripStatus.LOADED},
    wire.SettingsPatch: {"settings": wire.Settings(wave_interval_s=3.0), "expected_version": 7},
    wire.ControlSwitchMode: {"mode": "blast"},
    wire.ControlAnnounce: {"audience": Audience.DRIVER, "text": "Fog", "lifetime_s": 60},
    wire.ControlDrainNode: {"node": 3},
    wire.AvailabilityPut: {"online": True},
    wire.BroadcastGet: {"broadcast_id": "b1"},
    wire.TopicGet: {"topic": "feed:t1"},
    wire.TransporterPut: {"transporter_id": "t1"},
    wire.VehiclePut: {"vehicle_id": "v1", "transporter_id": "t1", "vehicle_type": "flatbed"},
    wire.DriverPut: {"driver_id": "d1", "transporter_id": "t1"},
    wire.TenantPut: {"tenant_id": "new"},
}


def sample(struct: type[wire.Request]) -> wire.Request:
    return struct(**SAMPLES.get(struct, {}))


@pytest.fixture
async def world() -> World:
    world = World()
    await world.add_fleet()
    return world


@pytest.fixture
def handlers(world: World) -> Handlers:
    return Handlers(world.services)


async def refused(handlers: Handlers, caller: Caller, request: wire.Request) -> Code:
    with pytest.raises(RequestError) as caught:
        await handlers.carry_out(caller, "r1", request)
    return caught.value.code


def test_every_request_has_a_handler_that_takes_it() -> None:
    """hello alone is the connection's own business."""
    assert set(HANDLERS) == set(wire.TYPE_OF) - {wire.Hello}
    for struct, (_, handler) in HANDLERS.items():
        taken = inspect.get_annotations(handler, eval_str=True)["request"]
        assert issubclass(struct, taken), handler


ALLOWED: Mapping[type[wire.Request], str] = {
    wire.Ping: "ctoda",
    wire.Subscribe: "ctoda",
    wire.Unsubscribe: "ctoda",
    wire.Ack: "ctoda",
    wire.BroadcastCreate: "c",
    wire.BroadcastCancel: "c",
    wire.OfferAccept: "t",
    wire.OfferDecline: "t",
    wire.TransporterOnline: "t",
    wire.TransporterOffline: "t",
    wire.Location: "td",
    wire.TripUpdate: "td",
    wire.SettingsGet: "oa",
    wire.SettingsPatch: "oa",
    wire.ControlPause: "oa",
    wire.ControlResume: "oa",
    wire.ControlReloadSettings: "oa",
    wire.ControlSwitchMode: "oa",
    wire.ControlAnnounce: "oa",
    wire.ControlDrainNode: "a",
    wire.AvailabilityPut: "t",
    wire.BroadcastList: "coa",
    wire.BroadcastGet: "coa",
    wire.OfferList: "t",
    wire.TopicGet: "ctdoa",
    wire.NodeList: "oa",
    wire.SettingsHistory: "oa",
    wire.ControlLog: "oa",
    wire.TransporterPut: "o",
    wire.VehiclePut: "o",
    wire.DriverPut: "o",
    wire.TenantPut: "a",
}
"""The first letters of the roles that the protocol gives each request."""


class TestRoles:
    @pytest.mark.parametrize("role", list(Role))
    @pytest.mark.parametrize("struct", list(HANDLERS))
    async def test_only_the_roles_of_the_protocol_get_through(
        self, handlers: Handlers, world: World, struct: type[wire.Request], role: Role
    ) -> None:
        if role.value[0] in ALLOWED[struct]:
            assert role in HANDLERS[struct][0]
        else:
            assert await refused(handlers, Caller(principal(role, "t1")), sample(struct)) is ErrorCode.FORBIDDEN
            assert world.dispatcher.asked == []
            assert (world.controller.asked, world.controller.drained) == ([], [])


class TestCommands:
    async def test_create(self, handlers: Handlers, world: World) -> None:
        handlers.handle(CUSTOMER, "r1", sample(wire.BroadcastCreate))
        (broadcast_id, command, origin) = world.dispatcher.asked[0]
        assert broadcast_id == "b-new"
        assert command == Create(
            ACME,
            BroadcastId("b-new"),
            CustomerId("c1"),
            Place(1.0, 2.0, "Gate 4"),
            Place(3.0, 4.0),
            (TruckSpec("flatbed", 2), TruckSpec("reefer", 1)),
            60,
            "fragile",
        )
        assert origin.key == RequestKey(ACME, Role.CUSTOMER, "c1", "r1")

    @pytest.mark.parametrize(
        ("caller", "request_", "broadcast_id", "command"),
        [
            (CUSTOMER, sample(wire.BroadcastCancel), "b1", Cancel(CustomerId("c1"))),
            (T1, sample(wire.OfferDecline), "b1", Decline(TransporterId("t1"))),
            (T1, sample(wire.TripUpdate), "b1", UpdateTrip(TransporterId("t1"), TripId("b1-2-t"), TripStatus.LOADED)),
            (D1, sample(wire.TripUpdate), "b1", UpdateTrip(DriverId("d1"), TripId("b1-2-t"), TripStatus.LOADED, True)),
        ],
    )
    async def test_go_to_their_broadcast_in_the_name_of_who_is_there(
        self, handlers: Handlers, world: World, caller: Caller, request_: wire.Request, broadcast_id: str, command: Any
    ) -> None:
        answer = handlers.handle(caller, "r9", request_)
        assert answer is world.dispatcher.futures[0]
        asked_id, asked, origin = world.dispatcher.asked[0]
        assert (asked_id, asked) == (broadcast_id, command)
        assert origin.key == RequestKey(ACME, caller.principal.role, caller.principal.user_id, "r9")

    async def test_reply_is_that_of_the_dispatcher(self, handlers: Handlers, world: World) -> None:
        waiting = asyncio.ensure_future(handlers.carry_out(CUSTOMER, "r1", sample(wire.BroadcastCancel)))
        await asyncio.sleep(0)
        world.dispatcher.futures[0].set_result(Done({"assigned": 1}))
        assert await waiting == Done({"assigned": 1})

    async def test_whoever_stops_waiting_does_not_take_the_command_back(self, handlers: Handlers, world: World) -> None:
        waiting = asyncio.ensure_future(handlers.carry_out(CUSTOMER, "r1", sample(wire.BroadcastCancel)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not world.dispatcher.futures[0].cancelled()
        world.dispatcher.futures[0].set_exception(RequestError(ErrorCode.BUSY))  # and nobody complains of it

    def test_those_whose_answers_are_kept_go_to_actors_or_to_all_nodes(self) -> None:
        assert {wire.TYPE_OF[struct] for struct in LOGGED} == {
            "broadcast.create",
            "broadcast.cancel",
            "offer.accept",
            "offer.decline",
            "trip.update",
            "settings.patch",
            "control.pause",
            "control.resume",
            "control.reload_settings",
            "control.switch_mode",
            "control.announce",
            "control.drain_node",
        }


class TestControl:
    @pytest.mark.parametrize("caller", [OPERATOR, ADMIN])
    @pytest.mark.parametrize(
        ("request_", "command", "expected_version"),
        [
            (sample(wire.SettingsPatch), PatchSettings({"wave_interval_s": 3.0}), 7),
            (wire.ControlPause(), Pause(), None),
            (wire.ControlPause(expected_version=2), Pause(), 2),
            (wire.ControlResume(), Resume(), None),
            (wire.ControlReloadSettings(), ReloadSettings(), None),
            (sample(wire.ControlSwitchMode), SwitchMode("blast"), None),
            (sample(wire.ControlAnnounce), Announce("b-new", Audience.DRIVER, "Fog", 60), None),
        ],
    )
    async def test_a_command_goes_to_the_tenant_that_the_token_names(
        self,
        handlers: Handlers,
        world: World,
        caller: Caller,
        request_: wire.Request,
        command: ControlCommand,
        expected_version: int | None,
    ) -> None:
        assert await handlers.carry_out(caller, "r1", request_) == world.controller.reply
        [(tenant, asked, origin, version)] = world.controller.asked
        assert (tenant, asked, version) == (ACME, command, expected_version)
        assert origin.key == RequestKey(ACME, caller.principal.role, caller.principal.user_id, "r1")

    async def test_a_setting_that_is_set_to_nothing_is_not_one_that_is_left_out(
        self, handlers: Handlers, world: World
    ) -> None:
        unlimited = wire.Settings(requests_per_s=None)
        await handlers.carry_out(OPERATOR, "r1", wire.SettingsPatch(settings=unlimited, expected_version=1))
        assert world.controller.asked[0][1] == PatchSettings({"requests_per_s": None})

    async def test_draining_goes_to_the_node(self, handlers: Handlers, world: World) -> None:
        await handlers.carry_out(ADMIN, "r1", sample(wire.ControlDrainNode))
        [(node, origin)] = world.controller.drained
        assert (node, origin.key.request_id) == (3, "r1")

    async def test_what_is_in_force_is_what_the_journal_says(self, handlers: Handlers, world: World) -> None:
        reply = await handlers.carry_out(OPERATOR, None, wire.SettingsGet())
        assert isinstance(reply, Done)
        assert (reply.data["version"], reply.data["paused"], reply.data["modes"]) == (1, False, [*MODES])
        assert reply.data["settings"] == reply.data["defaults"] == settings_view(TenantSettings())


class TestFingerprint:
    def test_differs_with_the_type_and_with_every_field(self) -> None:
        prints = [fingerprint(sample(struct)) for struct in HANDLERS]
        prints.append(fingerprint(wire.OfferAccept("b1", "v1", "d2")))
        assert len(set(prints)) == len(prints)
        assert all(len(one) == 32 for one in prints)

    def test_is_the_same_however_it_was_written(self) -> None:
        written = msgspec.json.decode(b'{ "driver_id":"d1", "x":1, "vehicle_id":"v1","broadcast_id":"b1"}')
        assert fingerprint(msgspec.convert(written, wire.OfferAccept)) == fingerprint(ACCEPT)

    def test_never_changes_from_one_version_to_the_next(self) -> None:
        """A client may send a request again, days later, to a newer server."""
        assert fingerprint(ACCEPT) == "67a3ac4dfa84ec977c4793fb420269e1"
        assert fingerprint(sample(wire.BroadcastCreate)) == "bd1a7bd9905a4c1a49e77941934f3154"


async def remembered(handlers: Handlers) -> None:
    """Have v1 and d1 in the cache."""
    await handlers.carry_out(D1, None, HERE)


class TestAccept:
    EXPECTED = Accept(TransporterId("t1"), VehicleId("v1"), "flatbed", DriverId("d1"))

    async def test_with_a_known_vehicle_starts_no_task(self, handlers: Handlers, world: World) -> None:
        await remembered(handlers)
        tasks = asyncio.all_tasks()
        answer = handlers.handle(T1, "r1", ACCEPT)
        assert asyncio.all_tasks() == tasks
        assert answer is world.dispatcher.futures[0]
        assert world.dispatcher.asked[0][:2] == ("b1", self.EXPECTED)

    async def test_with_an_unknown_vehicle_reads_it_first(self, handlers: Handlers, world: World) -> None:
        waiting = asyncio.ensure_future(handlers.carry_out(T1, "r1", ACCEPT))
        while not world.dispatcher.futures:
            await asyncio.sleep(0)
        world.dispatcher.futures[0].set_result(Done())
        assert await waiting == Done()
        assert world.dispatcher.asked[0][:2] == ("b1", self.EXPECTED)

    @pytest.mark.parametrize("vehicle_id", ["v2", "v-none"])
    @pytest.mark.parametrize("known", [False, True])
    async def test_with_a_vehicle_of_somebody_else_is_left_to_the_actor_to_refuse(
        self, handlers: Handlers, world: World, vehicle_id: str, known: bool
    ) -> None:
        """Sent again, it is answered as it was the first time, even if the vehicle has been sold since."""
        if known:
            await handlers.carry_out(T2, None, wire.Location("v2", 1.0, 1.0))
        handlers.handle(T1, "r1", wire.OfferAccept("b1", vehicle_id, "d1"))
        while not world.dispatcher.asked:
            await asyncio.sleep(0)
        assert world.dispatcher.asked[0][1] == Accept(TransporterId("t1"), VehicleId(vehicle_id), None, DriverId("d1"))

    async def test_of_a_vehicle_that_was_bought_on_another_node_is_not_refused(
        self, handlers: Handlers, world: World
    ) -> None:
        """The cache may still have the old owner: a no is never said on its word."""
        await handlers.carry_out(T2, None, wire.Location("v2", 1.0, 1.0))
        await world.journal.put_fleet(ACME, [Vehicle(VehicleId("v2"), TransporterId("t1"), "reefer")])
        handlers.handle(T1, "r1", wire.OfferAccept("b1", "v2", "d1"))
        while not world.dispatcher.asked:
            await asyncio.sleep(0)
        assert world.dispatcher.asked[0][1] == Accept(TransporterId("t1"), VehicleId("v2"), "reefer", DriverId("d1"))


class TestLocation:
    @pytest.mark.parametrize("caller", [T1, D1])
    async def test_of_ones_own_vehicle_is_reported(self, handlers: Handlers, world: World, caller: Caller) -> None:
        assert await handlers.carry_out(caller, None, HERE) == Done()
        assert world.availability.reports == [(V1, Point(28.6, 77.2))]

    @pytest.mark.parametrize("caller", [T1, D1])
    async def test_with_a_known_vehicle_starts_no_task_and_reads_nothing(
        self, handlers: Handlers, world: World, caller: Caller
    ) -> None:
        await remembered(handlers)
        tasks, reads = asyncio.all_tasks(), world.journal.fleet_reads
        assert handlers.handle(caller, None, HERE) == Done()
        assert (asyncio.all_tasks(), world.journal.fleet_reads) == (tasks, reads)
        assert len(world.availability.reports) == 2

    @pytest.mark.parametrize(
        "caller", [T2, Caller(principal(Role.DRIVER, "d2")), Caller(principal(Role.DRIVER, "d-none"))]
    )
    @pytest.mark.parametrize("known", [False, True])
    async def test_of_somebody_elses_vehicle_is_refused(
        self, handlers: Handlers, world: World, caller: Caller, known: bool
    ) -> None:
        if known:
            await remembered(handlers)
            world.availability.reports.clear()
        assert await refused(handlers, caller, HERE) is Refusal.VEHICLE_NOT_OWNED
        assert world.availability.reports == []

    async def test_of_a_vehicle_of_another_tenant_is_refused(self, handlers: Handlers) -> None:
        await remembered(handlers)
        other = Caller(principal(Role.TRANSPORTER, "t1", type(ACME)("other")))
        assert await refused(handlers, other, HERE) is Refusal.VEHICLE_NOT_OWNED


class OneBus:
    """A bus that leads to the handlers of one other node."""

    peers = frozenset({2})

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def send(self, to: int, kind: Kind, payload: bytes) -> None:
        raise AssertionError("all nodes have to know")

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        assert kind is Kind.FLEET
        self._handlers.fleet_changed(1, payload)


class TestFleet:
    async def test_a_change_on_this_node_is_seen_at_once(self, handlers: Handlers, world: World) -> None:
        await remembered(handlers)
        await handlers.carry_out(OPERATOR, None, wire.VehiclePut("v1", "t2", "flatbed"))
        assert await refused(handlers, T1, HERE) is Refusal.VEHICLE_NOT_OWNED
        await handlers.carry_out(T2, None, HERE)

    async def test_a_driver_who_changes_employer_is_seen_at_once(self, handlers: Handlers, world: World) -> None:
        await remembered(handlers)
        await handlers.carry_out(OPERATOR, None, wire.DriverPut("d1", "t2"))
        assert await refused(handlers, D1, HERE) is Refusal.VEHICLE_NOT_OWNED

    @pytest.mark.parametrize("put", [wire.VehiclePut("v1", "t2", "flatbed"), wire.DriverPut("d1", "t2")])
    async def test_a_change_on_another_node_is_seen_as_soon_as_that_says_so(
        self, handlers: Handlers, world: World, put: wire.Request
    ) -> None:
        await remembered(handlers)
        caller = T1 if isinstance(put, wire.VehiclePut) else D1
        other = Handlers(world.with_(bus=OneBus(handlers)))
        await other.carry_out(OPERATOR, None, put)
        assert await refused(handlers, caller, HERE) is Refusal.VEHICLE_NOT_OWNED

    async def test_a_change_on_another_node_is_seen_within_a_minute_even_if_its_word_is_lost(
        self, handlers: Handlers, world: World
    ) -> None:
        await remembered(handlers)
        await world.journal.put_fleet(ACME, [Vehicle(VehicleId("v1"), TransporterId("t2"), "flatbed")])
        world.clock.s += 59.9
        assert await handlers.carry_out(T1, None, HERE) == Done()
        world.clock.s += 0.2
        assert await refused(handlers, T1, HERE) is Refusal.VEHICLE_NOT_OWNED

    async def test_a_read_that_a_change_overtook_is_not_remembered(self, handlers: Handlers, world: World) -> None:
        world.journal.gate.clear()
        slow = asyncio.ensure_future(handlers.carry_out(T1, None, HERE))
        while not world.journal.fleet_reads:
            await asyncio.sleep(0)
        await handlers.carry_out(OPERATOR, None, wire.VehiclePut("v1", "t2", "flatbed"))
        world.journal.gate.set()
        await slow
        assert await refused(handlers, T1, HERE) is Refusal.VEHICLE_NOT_OWNED

    async def test_an_unknown_transporter_is_named(self, handlers: Handlers) -> None:
        with pytest.raises(RequestError) as caught:
            await handlers.carry_out(OPERATOR, None, wire.VehiclePut("v9", "t9", "flatbed"))
        assert caught.value.code is Refusal.TRANSPORTER_NOT_FOUND
        assert caught.value.data == {"transporter_id": "t9"}


class TestTenants:
    async def put(self, handlers: Handlers, **settings: Any) -> Reply:
        return await handlers.carry_out(ADMIN, None, wire.TenantPut("new", wire.Settings(**settings)))

    async def test_created_once_and_the_same_again_changes_nothing(self, handlers: Handlers) -> None:
        first, second = await self.put(handlers, toggle_limit=3), await self.put(handlers, toggle_limit=3)
        assert isinstance(first, Done)
        assert isinstance(second, Done)
        assert (first.data["created"], second.data["created"]) == (True, False)
        assert first.data["settings"] == second.data["settings"]

    async def test_other_settings_are_refused(self, handlers: Handlers) -> None:
        await self.put(handlers, wave_radii_km=(5.0, None))
        with pytest.raises(RequestError) as caught:
            await self.put(handlers)
        assert caught.value.code is ErrorCode.TENANT_EXISTS

    async def test_a_setting_that_cannot_work_is_named(self, handlers: Handlers) -> None:
        with pytest.raises(RequestError) as caught:
            await self.put(handlers, wave_radii_km=(5.0, 4.0))
        assert caught.value.data == {"field": "body.settings.wave_radii_km"}


class TestTasks:
    async def test_more_lookups_than_allowed_are_busy(self, world: World) -> None:
        handlers = Handlers(world.with_(max_tasks=1))
        world.journal.gate.clear()
        waiting = asyncio.ensure_future(handlers.carry_out(T1, None, HERE))
        await asyncio.sleep(0)
        assert await refused(handlers, T2, wire.Location("v2", 1.0, 1.0)) is ErrorCode.BUSY
        world.journal.gate.set()
        await waiting
        await handlers.carry_out(T2, None, wire.Location("v2", 1.0, 1.0))

    async def test_close_leaves_none_and_answers_who_waits(self, world: World, handlers: Handlers) -> None:
        world.journal.gate.clear()
        waiting = asyncio.ensure_future(handlers.carry_out(T1, None, HERE))
        await asyncio.sleep(0)
        await handlers.close()
        assert asyncio.all_tasks() <= {asyncio.current_task(), waiting}
        with pytest.raises(RequestError) as caught:
            await waiting
        assert caught.value.code is ErrorCode.UNAVAILABLE
        assert await refused(handlers, T1, HERE) is ErrorCode.DRAINING

    async def test_a_refused_task_leaves_no_coroutine_behind(self) -> None:
        """A coroutine that is never awaited warns, and a warning is an error here."""
        tasks = TaskSet(0)
        with pytest.raises(RequestError):
            tasks.spawn(asyncio.sleep(0))


async def test_switching_online_tells_whether_it_changed_anything(handlers: Handlers) -> None:
    def says(online: bool, changed: bool) -> Done:
        return Done({"online": online, "changed": changed})

    assert await handlers.carry_out(T1, None, wire.TransporterOnline()) == says(True, True)
    assert await handlers.carry_out(T1, None, wire.AvailabilityPut(online=True)) == says(True, False)
    assert await handlers.carry_out(T1, None, wire.TransporterOffline()) == says(False, True)
    assert await handlers.carry_out(T1, None, wire.AvailabilityPut(online=False)) == says(False, False)


async def test_the_fleet_memory_is_bounded(world: World) -> None:
    await world.journal.put_fleet(
        ACME,
        [
            Transporter(TransporterId("t1")),
            *(Vehicle(VehicleId(f"x{number}"), TransporterId("t1"), "flatbed") for number in range(5)),
        ],
    )
    cache = FleetCache(world.journal, world.clock, max_entries=3)
    for number in (0, 1, 2, 0, 3, 4):
        await cache.read_vehicle(ACME, VehicleId(f"x{number}"))
    assert [number for number in range(5) if cache.vehicle(ACME, VehicleId(f"x{number}"))] == [0, 3, 4]
