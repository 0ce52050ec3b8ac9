"""What only REST offers: looking things up, and setting up fleets and tenants."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from haulcast.domain import events as e
from haulcast.domain.control import changes_view, settings_view
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, VehicleId
from haulcast.domain.modes import MODES
from haulcast.domain.ranking import LeftOut
from haulcast.domain.replies import Done, Json, Refusal, Reply
from haulcast.domain.settings import InvalidSetting, TenantSettings
from haulcast.domain.views import broadcast_view, trip_view
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import ControlRecord, FleetConflict, Kind, Role, Vitals

from . import wire
from .auth import Principal
from .codec import encoded
from .fleet_cache import Changed, FleetCache
from .services import Services

MAX_LISTED = 50
SETTINGS_COMMANDS = frozenset({"patch_settings", "switch_mode"})
"""The commands that change settings, as the audit calls them."""


class Queries:
    """Each method answers one request of `wire.REST_REQUESTS` for a principal whose role may ask it."""

    def __init__(self, services: Services, fleet: FleetCache) -> None:
        self._services = services
        self._journal = services.journal
        self._fleet = fleet

    async def list_broadcasts(self, principal: Principal, request: wire.BroadcastList) -> Reply:
        """The newest broadcasts, newest first."""
        customer = principal.user_id if principal.role is Role.CUSTOMER else None
        stored = await self._journal.list_broadcasts(principal.tenant_id, customer, MAX_LISTED)
        return Done({"broadcasts": [broadcast_view(one.state) for one in stored]})

    async def get_broadcast(self, principal: Principal, request: wire.BroadcastGet) -> Reply:
        """One broadcast and its timeline."""
        broadcast_id = BroadcastId(request.broadcast_id)
        stored = await self._journal.read_broadcast(principal.tenant_id, broadcast_id)
        if stored is None or (principal.role is Role.CUSTOMER and stored.state.customer_id != principal.user_id):
            raise RequestError(Refusal.BROADCAST_NOT_FOUND)
        events = await self._journal.read_events(principal.tenant_id, broadcast_id)
        to_operator = principal.role is not Role.CUSTOMER
        timeline = [timeline_entry(seq, event, to_operator) for seq, event in enumerate(events, start=1)]
        return Done({**broadcast_view(stored.state), "timeline": timeline})

    async def list_offers(self, principal: Principal, request: wire.OfferList) -> Reply:
        """What the transporter's feed shows."""
        return Done(await self._services.hub.feed_view(principal.tenant_id, TransporterId(principal.user_id)))

    async def get_topic(self, principal: Principal, request: wire.TopicGet) -> Reply:
        """What a topic shows now."""
        data = await self._services.hub.read(principal, request.topic)
        return Done({"topic": request.topic, "server_time": self._services.clock.now_ms(), "data": encoded(data)})

    async def list_nodes(self, principal: Principal, request: wire.NodeList) -> Reply:
        """All live nodes. An operator is told of the own tenant's broadcasts only."""
        tenant_id = None if principal.role is Role.ADMIN else principal.tenant_id
        found = await self._services.nodes.ask(tenant_id)
        nodes: list[Json] = [
            {"node": status.node, "answered": status.vitals is not None, **_vitals_view(status.vitals)}
            for status in found
        ]
        return Done({"server_time": self._services.clock.now_ms(), "nodes": nodes})

    async def get_settings(self, principal: Principal) -> Reply:
        """What the journal says, not what this node has heard."""
        control = await self._services.tenants.read(principal.tenant_id)
        return Done(
            {
                "version": control.version,
                "paused": control.paused,
                "settings": settings_view(control.settings),
                "defaults": settings_view(TenantSettings()),
                "modes": list(MODES),
            }
        )

    async def list_settings(self, principal: Principal, request: wire.SettingsHistory) -> Reply:
        """The commands that change settings."""
        return await self._list_control(principal, request, SETTINGS_COMMANDS)

    async def list_control(self, principal: Principal, request: wire.ControlLog) -> Reply:
        """All commands."""
        return await self._list_control(principal, request, None)

    async def _list_control(self, principal: Principal, page: wire.Page, commands: frozenset[str] | None) -> Reply:
        found = await self._journal.read_control_log(
            principal.tenant_id, before=page.before, limit=page.limit + 1, commands=commands
        )
        shown, more = found[: page.limit], len(found) > page.limit
        return Done({"entries": [_entry(record) for record in shown], "next": shown[-1].number if more else None})

    async def put_transporter(self, principal: Principal, request: wire.TransporterPut) -> Reply:
        """Create or replace a transporter."""
        transporter_id = TransporterId(request.transporter_id)
        await self._put(principal.tenant_id, Transporter(transporter_id, request.name))
        return Done({"transporter_id": transporter_id, "name": request.name})

    async def put_vehicle(self, principal: Principal, request: wire.VehiclePut) -> Reply:
        """Create or replace a vehicle."""
        vehicle_id, transporter_id = VehicleId(request.vehicle_id), TransporterId(request.transporter_id)
        try:
            await self._put(principal.tenant_id, Vehicle(vehicle_id, transporter_id, request.vehicle_type))
        finally:
            self._tell(Changed(principal.tenant_id, vehicles=[vehicle_id], transporters=[transporter_id]))
        return Done({"vehicle_id": vehicle_id, "transporter_id": transporter_id, "vehicle_type": request.vehicle_type})

    async def put_driver(self, principal: Principal, request: wire.DriverPut) -> Reply:
        """Create or replace a driver."""
        driver_id, transporter_id = DriverId(request.driver_id), TransporterId(request.transporter_id)
        try:
            await self._put(principal.tenant_id, Driver(driver_id, transporter_id, request.name))
        finally:
            self._tell(Changed(principal.tenant_id, drivers=[driver_id], transporters=[transporter_id]))
        return Done({"driver_id": driver_id, "transporter_id": transporter_id, "name": request.name})

    async def put_tenant(self, principal: Principal, request: wire.TenantPut) -> Reply:
        """Create a tenant; once more with the same settings changes nothing."""
        tenant_id = TenantId(request.tenant_id)
        settings = _settings(request.settings)
        created = await self._journal.create_tenant(tenant_id, settings)
        if not created and (await self._services.tenants.read(tenant_id)).settings != settings:
            raise RequestError(ErrorCode.TENANT_EXISTS)
        return Done({"tenant_id": tenant_id, "created": created, "settings": settings_view(settings)})

    def _tell(self, changed: Changed) -> None:
        """Have every node take note of what was changed, or may have been: the outcome of a put is not always known."""
        self._fleet.forget(changed)
        self._services.hub.fleet_changed(changed)
        if self._services.bus.peers:
            self._services.bus.broadcast(Kind.FLEET, changed.to_bytes())

    async def _put(self, tenant_id: TenantId, item: FleetItem) -> None:
        try:
            await self._journal.put_fleet(tenant_id, [item])
        except FleetConflict as conflict:
            raise RequestError(Refusal.TRANSPORTER_NOT_FOUND, transporter_id=conflict.transporter_id) from None


def timeline_entry(seq: int, event: e.Event, to_operator: bool) -> Mapping[str, Json]:
    """One event as a customer or an operator is shown it. Who was offered the haul or declined is not their business:
    only how many were. Who was left out of a wave, and who waited and lost, is the operator's alone."""
    entry: dict[str, Json] = {"seq": seq, "at": event.at_ms, "event": e.EVENT_NAMES[type(event)]}
    match event:
        case e.Created():
            entry["expires_at"] = event.expires_at_ms
        case e.WaveSent():
            entry.update(wave=event.wave, notified=len(event.offers))
            if event.radius_m != 0:
                entry["radius_m"] = event.radius_m
                if to_operator:
                    entry["left_out"] = [left_out_view(each) for each in event.left_out]
        case e.Offered():
            entry.update(wave=event.offer.wave, notified=1)
        case e.AcceptWaiting(accept=accept):
            entry["decided_at"] = event.decide_at_ms
            if to_operator:
                entry.update(
                    transporter_id=accept.transporter_id,
                    vehicle_id=accept.vehicle_id,
                    vehicle_type=accept.vehicle_type,
                    driver_id=accept.driver_id,
                )
        case e.AcceptsLost():
            if to_operator:
                entry.update(vehicle_ids=event.vehicle_ids, code=event.code)
        case e.TruckAssigned():
            entry.update(trip_view(event.trip))
        case e.TripUpdated():
            entry.update(trip_id=event.trip_id, status=event.status)
        case e.Cancelled() | e.Expired():
            entry["reason"] = event.reason
        case e.WaveHeld() | e.Declined() | e.Reminded():
            pass
    return entry


def _vitals_view(vitals: Vitals | None) -> Mapping[str, Json]:
    return {} if vitals is None else asdict(vitals)


def left_out_view(left_out: LeftOut) -> Json:
    """A transporter that a wave did not reach, as operators are shown it."""
    return {
        "transporter_id": left_out.transporter_id,
        "vehicle_id": left_out.vehicle_id,
        "vehicle_type": left_out.vehicle_type,
        "distance_m": left_out.distance_m,
        "reason": left_out.reason,
    }


def _settings(settings: wire.Settings) -> TenantSettings:
    try:
        return TenantSettings(**given(settings))
    except InvalidSetting as error:
        raise invalid(f"body.settings.{error.field}", error) from None


def given(settings: wire.Settings) -> dict[str, Any]:
    """Those settings that were given, by name."""
    fields = ((name, getattr(settings, name)) for name in settings.__struct_fields__)
    return {name: value for name, value in fields if value is not msgspec.UNSET}


def invalid(field: str, error: InvalidSetting) -> RequestError:
    """The answer to a setting that cannot work; `field` is how its request calls it."""
    return RequestError(ErrorCode.BAD_REQUEST, f"{field}: expected {error.allowed}", field=field)


def _entry(record: ControlRecord) -> Json:
    """A command as the audit shows it."""
    return {
        "number": record.number,
        "at": record.at_ms,
        "by": {"role": record.by.role, "user": record.by.user_id},
        "command": record.command,
        "data": record.data,
        "version": record.version,
        "changes": changes_view(record.changes),
        "outcome": record.outcome,
    }
