"""From a typed request and whom it comes from to the ports, and back to a reply.

1. `HANDLERS` is the one table: which roles may ask for what, and the function that sees to it.
2. A handler returns its reply, or a future of one when something has to be waited for; it raises `RequestError` for no.
3. Ping, a position and an accept start no task as long as the vehicle is in the fleet cache: a task would cost 3 to
   6 us on top of the 13 us from frame to reply (measured). What has to read first runs as a task, of a bounded set.
4. A command goes to the dispatcher with its origin: the client's id in the client's own name space, and a fingerprint
   of what was asked, so that the same id with another content is noticed.
5. The reply to a command is the core's and was stored; a refusal becomes an error only on its way out.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec

from haulcast.domain.broadcast import Place
from haulcast.domain.commands import Accept, Cancel, Create, Decline, TruckSpec, UpdateTrip
from haulcast.domain.control import (
    Announce,
    ControlCommand,
    PatchSettings,
    Pause,
    ReloadSettings,
    Resume,
    SwitchMode,
)
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TransporterId, TripId, VehicleId, broadcast_of
from haulcast.domain.replies import Done, Refusal, Reply
from haulcast.domain.settings import InvalidSetting
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Origin, RequestKey, Role
from haulcast.tasks import TaskSet

from . import queries, wire
from .auth import Principal
from .fleet_cache import Changed, FleetCache
from .services import Services, Subscriber

Answer: TypeAlias = "Reply | asyncio.Future[Reply]"
_DONE = Done()


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request comes from. Over REST there is no connection; `tasks` end with the connection."""

    principal: Principal
    connection: Subscriber | None = None
    tasks: TaskSet | None = None


class Handlers:
    """Carries requests out. One for all connections and calls of a node."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._fleet = FleetCache(services.journal, services.clock)
        self._tasks = TaskSet(services.max_tasks)
        self._queries = queries.Queries(services, self._fleet)

    def handle(self, caller: Caller, request_id: str | None, request: wire.Request) -> Answer:
        """Carry out `request`. The answer to an ack is not to be sent. Raises `RequestError`."""
        roles, handler = HANDLERS[type(request)]
        if caller.principal.role not in roles:
            raise RequestError(ErrorCode.FORBIDDEN, f"The role {caller.principal.role} may not do this.")
        return handler(self, caller, request_id, request)

    async def carry_out(self, caller: Caller, request_id: str | None, request: wire.Request) -> Reply:
        """Carry out `request` and wait for its reply. Whoever stops waiting does not take the command back.
        Raises `RequestError`: UNAVAILABLE if the answer itself was cancelled, as at a stop."""
        answer = self.handle(caller, request_id, request)
        if not isinstance(answer, asyncio.Future):
            return answer
        answer.add_done_callback(_look_at)
        await asyncio.wait([answer])
        if answer.cancelled():
            raise RequestError(ErrorCode.UNAVAILABLE)
        return answer.result()

    def fleet_changed(self, sender: int, payload: bytes) -> None:
        """Take note of a fleet change that another node tells of. Raises `msgspec.MsgspecError`."""
        changed = Changed.from_bytes(payload)
        self._fleet.forget(changed)
        self._services.hub.fleet_changed(changed)

    async def close(self) -> None:
        """End what is under way."""
        await self._tasks.close()

    # --- Connections and topics ---

    def _ping(self, caller: Caller, request_id: str | None, request: wire.Ping) -> Answer:
        return Done({"server_time": self._services.clock.now_ms()})

    def _subscribe(self, caller: Caller, request_id: str | None, request: wire.Subscribe) -> Answer:
        # Only sockets subscribe: no route leads here without a connection.
        assert caller.connection is not None
        assert caller.tasks is not None
        return caller.tasks.spawn(self._subscribed(caller.connection, request.topic))

    async def _subscribed(self, connection: Subscriber, topic: str) -> Reply:
        version = await self._services.hub.subscribe(connection, topic)
        return Done({"topic": topic, "version": version})

    def _unsubscribe(self, caller: Caller, request_id: str | None, request: wire.Unsubscribe) -> Answer:
        assert caller.connection is not None
        self._services.hub.unsubscribe(caller.connection, request.topic)
        return Done({"topic": request.topic})

    def _ack(self, caller: Caller, request_id: str | None, request: wire.Ack) -> Answer:
        assert caller.connection is not None
        self._services.hub.ack(caller.connection, request.topic, request.version)
        return _DONE

    # --- Commands ---

    def _create(self, caller: Caller, request_id: str | None, request: wire.BroadcastCreate) -> Answer:
        command = Create(
            tenant_id=caller.principal.tenant_id,
            broadcast_id=self._services.new_broadcast_id(),
            customer_id=CustomerId(caller.principal.user_id),
            pickup=_place(request.pickup),
            drop=_place(request.drop),
            trucks=tuple(TruckSpec(truck.vehicle_type, truck.count) for truck in request.trucks),
            expires_in_s=request.expires_in_s,
            note=request.note,
        )
        return self._services.dispatcher.create(command, _origin(caller, request_id, request))

    def _cancel(self, caller: Caller, request_id: str | None, request: wire.BroadcastCancel) -> Answer:
        return self._services.dispatcher.ask(
            caller.principal.tenant_id,
            BroadcastId(request.broadcast_id),
            Cancel(CustomerId(caller.principal.user_id)),
            _origin(caller, request_id, request),
        )

    def _decline(self, caller: Caller, request_id: str | None, request: wire.OfferDecline) -> Answer:
        return self._services.dispatcher.ask(
            caller.principal.tenant_id,
            BroadcastId(request.broadcast_id),
            Decline(TransporterId(caller.principal.user_id)),
            _origin(caller, request_id, request),
        )

    def _update_trip(self, caller: Caller, request_id: str | None, request: wire.TripUpdate) -> Answer:
        user_id = caller.principal.user_id
        trip_id = TripId(request.trip_id)
        return self._services.dispatcher.ask(
            caller.principal.tenant_id,
            broadcast_of(trip_id),
            UpdateTrip(
                DriverId(user_id) if caller.principal.role is Role.DRIVER else TransporterId(user_id),
                trip_id,
                request.status,
                by_driver=caller.principal.role is Role.DRIVER,
            ),
            _origin(caller, request_id, request),
        )

    def _accept(self, caller: Caller, request_id: str | None, request: wire.OfferAccept) -> Answer:
        origin = _origin(caller, request_id, request)
        vehicle = self._fleet.vehicle(caller.principal.tenant_id, VehicleId(request.vehicle_id))
        if vehicle is not None and vehicle.transporter_id == caller.principal.user_id:
            return self._send_accept(vehicle.vehicle_type, origin, request)
        return self._tasks.spawn(self._accept_after_lookup(caller.principal, origin, request))

    async def _accept_after_lookup(self, principal: Principal, origin: Origin, request: wire.OfferAccept) -> Reply:
        vehicle = await self._fleet.read_vehicle(principal.tenant_id, VehicleId(request.vehicle_id))
        theirs = vehicle is not None and vehicle.transporter_id == principal.user_id
        return await self._send_accept(
            vehicle.vehicle_type if vehicle is not None and theirs else None, origin, request
        )

    def _send_accept(
        self, vehicle_type: str | None, origin: Origin, request: wire.OfferAccept
    ) -> "asyncio.Future[Reply]":
        # Also without a vehicle: a request that was answered before is to be answered the same, whoever owns it now.
        transporter_id = TransporterId(origin.key.user_id)
        command = Accept(transporter_id, VehicleId(request.vehicle_id), vehicle_type, DriverId(request.driver_id))
        return self._services.dispatcher.ask(origin.key.tenant_id, BroadcastId(request.broadcast_id), command, origin)

    # --- Availability ---

    def _online(self, caller: Caller, request_id: str | None, request: wire.TransporterOnline) -> Answer:
        return self._tasks.spawn(self._switch(caller.principal, online=True))

    def _offline(self, caller: Caller, request_id: str | None, request: wire.TransporterOffline) -> Answer:
        return self._tasks.spawn(self._switch(caller.principal, online=False))

    def _availability(self, caller: Caller, request_id: str | None, request: wire.AvailabilityPut) -> Answer:
        return self._tasks.spawn(self._switch(caller.principal, online=request.online))

    async def _switch(self, principal: Principal, *, online: bool) -> Reply:
        availability = self._services.availability
        switch = availability.go_online if online else availability.go_offline
        changed = await switch(principal.tenant_id, TransporterId(principal.user_id))
        return Done({"online": online, "changed": changed})

    def _location(self, caller: Caller, request_id: str | None, request: wire.Location) -> Answer:
        principal = caller.principal
        vehicle = self._fleet.vehicle(principal.tenant_id, VehicleId(request.vehicle_id))
        if vehicle is not None and vehicle.transporter_id == self._employer(principal):
            return self._report(principal, vehicle, request)
        return self._tasks.spawn(self._locate_after_lookup(principal, request))

    async def _locate_after_lookup(self, principal: Principal, request: wire.Location) -> Reply:
        vehicle = await self._fleet.read_vehicle(principal.tenant_id, VehicleId(request.vehicle_id))
        if principal.role is Role.DRIVER:
            driver = await self._fleet.read_driver(principal.tenant_id, DriverId(principal.user_id))
            owner = None if driver is None else driver.transporter_id
        else:
            owner = TransporterId(principal.user_id)
        if vehicle is None or vehicle.transporter_id != owner:
            raise _not_owned(request.vehicle_id)
        return self._report(principal, vehicle, request)

    def _employer(self, principal: Principal) -> TransporterId | None:
        """The transporter that the principal is or drives for, as far as it is remembered."""
        if principal.role is Role.TRANSPORTER:
            return TransporterId(principal.user_id)
        driver = self._fleet.driver(principal.tenant_id, DriverId(principal.user_id))
        return None if driver is None else driver.transporter_id

    def _report(self, principal: Principal, vehicle: Vehicle, request: wire.Location) -> Reply:
        self._services.availability.report(principal.tenant_id, vehicle, Point(request.lat, request.lng))
        return _DONE

    # --- Operators ---

    def _settings(self, caller: Caller, request_id: str | None, request: wire.SettingsGet) -> Answer:
        return self._tasks.spawn(self._queries.get_settings(caller.principal))

    def _command(self, caller: Caller, request_id: str | None, request: wire.ControlRequest) -> Answer:
        return self._tasks.spawn(self._carry_out(caller, _origin(caller, request_id, request), request))

    async def _carry_out(self, caller: Caller, origin: Origin, request: wire.ControlRequest) -> Reply:
        command = _COMMANDS[type(request)](self._services, request)
        try:
            return await self._services.controller.carry_out(
                caller.principal.tenant_id, command, origin, request.expected_version
            )
        except InvalidSetting as error:
            root = "body" if caller.connection is None else "data"
            name = "mode" if isinstance(request, wire.ControlSwitchMode) else f"settings.{error.field}"
            raise queries.invalid(f"{root}.{name}", error) from None

    def _drain_node(self, caller: Caller, request_id: str | None, request: wire.ControlDrainNode) -> Answer:
        return self._tasks.spawn(self._services.controller.drain(request.node, _origin(caller, request_id, request)))

    # --- REST only ---

    def _query(self, caller: Caller, request_id: str | None, request: wire.Request) -> Answer:
        return self._tasks.spawn(_QUERIES[type(request)](self._queries, caller.principal, request))


_EVERYBODY = frozenset(Role)
_CUSTOMER = frozenset({Role.CUSTOMER})
_TRANSPORTER = frozenset({Role.TRANSPORTER})
_FLEET = frozenset({Role.TRANSPORTER, Role.DRIVER})
_WATCHERS = frozenset({Role.CUSTOMER, Role.OPERATOR, Role.ADMIN})
_OPERATOR = frozenset({Role.OPERATOR})
_ADMIN = frozenset({Role.ADMIN})
_OVERSEERS = _OPERATOR | _ADMIN

# Any: each handler takes the struct that it stands beside; test_handlers.py holds the two together.
_Handler: TypeAlias = Callable[[Handlers, Caller, str | None, Any], Answer]
_Query: TypeAlias = Callable[[queries.Queries, Principal, Any], Coroutine[Any, Any, Reply]]

HANDLERS: Mapping[type[wire.Request], tuple[frozenset[Role], _Handler]] = {
    wire.Ping: (_EVERYBODY, Handlers._ping),
    wire.Subscribe: (_EVERYBODY, Handlers._subscribe),
    wire.Unsubscribe: (_EVERYBODY, Handlers._unsubscribe),
    wire.Ack: (_EVERYBODY, Handlers._ack),
    wire.BroadcastCreate: (_CUSTOMER, Handlers._create),
    wire.BroadcastCancel: (_CUSTOMER, Handlers._cancel),
    wire.OfferAccept: (_TRANSPORTER, Handlers._accept),
    wire.OfferDecline: (_TRANSPORTER, Handlers._decline),
    wire.TransporterOnline: (_TRANSPORTER, Handlers._online),
    wire.TransporterOffline: (_TRANSPORTER, Handlers._offline),
    wire.Location: (_FLEET, Handlers._location),
    wire.TripUpdate: (_FLEET, Handlers._update_trip),
    wire.SettingsGet: (_OVERSEERS, Handlers._settings),
    wire.SettingsPatch: (_OVERSEERS, Handlers._command),
    wire.ControlPause: (_OVERSEERS, Handlers._command),
    wire.ControlResume: (_OVERSEERS, Handlers._command),
    wire.ControlReloadSettings: (_OVERSEERS, Handlers._command),
    wire.ControlSwitchMode: (_OVERSEERS, Handlers._command),
    wire.ControlAnnounce: (_OVERSEERS, Handlers._command),
    wire.ControlDrainNode: (_ADMIN, Handlers._drain_node),
    wire.AvailabilityPut: (_TRANSPORTER, Handlers._availability),
    wire.BroadcastList: (_WATCHERS, Handlers._query),
    wire.BroadcastGet: (_WATCHERS, Handlers._query),
    wire.OfferList: (_TRANSPORTER, Handlers._query),
    wire.TopicGet: (_EVERYBODY, Handlers._query),
    wire.NodeList: (_OVERSEERS, Handlers._query),
    wire.SettingsHistory: (_OVERSEERS, Handlers._query),
    wire.ControlLog: (_OVERSEERS, Handlers._query),
    wire.TransporterPut: (_OPERATOR, Handlers._query),
    wire.VehiclePut: (_OPERATOR, Handlers._query),
    wire.DriverPut: (_OPERATOR, Handlers._query),
    wire.TenantPut: (_ADMIN, Handlers._query),
}

_QUERIES: Mapping[type[wire.Request], _Query] = {
    wire.BroadcastList: queries.Queries.list_broadcasts,
    wire.BroadcastGet: queries.Queries.get_broadcast,
    wire.OfferList: queries.Queries.list_offers,
    wire.TopicGet: queries.Queries.get_topic,
    wire.NodeList: queries.Queries.list_nodes,
    wire.SettingsHistory: queries.Queries.list_settings,
    wire.ControlLog: queries.Queries.list_control,
    wire.TransporterPut: queries.Queries.put_transporter,
    wire.VehiclePut: queries.Queries.put_vehicle,
    wire.DriverPut: queries.Queries.put_driver,
    wire.TenantPut: queries.Queries.put_tenant,
}

_COMMANDS: Mapping[type[wire.ControlRequest], Callable[[Services, Any], ControlCommand]] = {
    wire.SettingsPatch: lambda _, request: PatchSettings(queries.given(request.settings)),
    wire.ControlPause: lambda _, request: Pause(),
    wire.ControlResume: lambda _, request: Resume(),
    wire.ControlReloadSettings: lambda _, request: ReloadSettings(),
    wire.ControlSwitchMode: lambda _, request: SwitchMode(request.mode),
    wire.ControlAnnounce: lambda services, request: Announce(
        services.new_broadcast_id(), request.audience, request.text, request.lifetime_s
    ),
}
"""What each request of an operator asks for."""

LOGGED: frozenset[type[wire.Request]] = frozenset(
    {
        wire.BroadcastCreate,
        wire.BroadcastCancel,
        wire.OfferAccept,
        wire.OfferDecline,
        wire.TripUpdate,
        wire.SettingsPatch,
        wire.ControlPause,
        wire.ControlResume,
        wire.ControlReloadSettings,
        wire.ControlSwitchMode,
        wire.ControlAnnounce,
        wire.ControlDrainNode,
    }
)
"""The commands that are known again by their id, and cannot do without one: those to broadcasts for 24 hours, those of
operators for good."""


def _look_at(answer: "asyncio.Future[Reply]") -> None:
    """Take note of an error that nobody may be left to be told of, so that asyncio does not complain of it."""
    if not answer.cancelled():
        answer.exception()


def _origin(caller: Caller, request_id: str | None, request: wire.Request) -> Origin:
    assert request_id is not None  # the codec and the routes see to it
    principal = caller.principal
    return Origin(
        RequestKey(principal.tenant_id, principal.role, principal.user_id, request_id),
        fingerprint(request),
    )


def fingerprint(request: wire.Request) -> str:
    """16 bytes in hex that say what was asked: the same however the JSON was written, and whatever it came by."""
    digest = blake2b(wire.TYPE_OF[type(request)].encode(), digest_size=16)
    digest.update(b"\0" + msgspec.json.encode(request))
    return digest.hexdigest()


def _place(place: wire.Place) -> Place:
    return Place(place.lat, place.lng, place.address)


def _not_owned(vehicle_id: str) -> RequestError:
    return RequestError(Refusal.VEHICLE_NOT_OWNED, vehicle_id=vehicle_id)
