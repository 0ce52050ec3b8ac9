"""The requests by name. Each returns the data of its reply; all may raise `ServerError`, `RequestTimeout` and
`ConnectionClosed`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .protocol import JsonObject

Place: TypeAlias = tuple[float, float] | Mapping[str, Any]
"""(latitude, longitude), or an object with `lat`, `lng` and, if wanted, `address`."""
Trucks: TypeAlias = Mapping[str, int] | Sequence[Mapping[str, Any]]
"""How many of each vehicle type, or the list of objects with `vehicle_type` and `count` that goes over the wire."""


class Requests(ABC):
    """Every request that the server knows, over `request`."""

    @abstractmethod
    async def request(
        self,
        request_type: str,
        data: Mapping[str, Any] | None = None,
        id: str | None = None,
        timeout_s: float | None = None,
    ) -> JsonObject:
        """Ask and wait for the answer's data."""

    async def create_broadcast(
        self,
        pickup: Place,
        drop: Place,
        trucks: Trucks,
        *,
        expires_in_s: int | None = None,
        note: str | None = None,
        id: str | None = None,
        timeout_s: float | None = None,
    ) -> JsonObject:
        """As customer: look for trucks. Answers `broadcast_id`, `status`, `expires_at` and `requests`; the topic
        `broadcast:{id}` is subscribed to."""
        data: JsonObject = {"pickup": _place(pickup), "drop": _place(drop), "trucks": _trucks(trucks)}
        if expires_in_s is not None:
            data["expires_in_s"] = expires_in_s
        if note is not None:
            data["note"] = note
        return await self.request("broadcast.create", data, id, timeout_s)

    async def cancel(self, broadcast_id: str, *, id: str | None = None, timeout_s: float | None = None) -> JsonObject:
        """As customer: take a broadcast back. Answers `broadcast_id`, `status` and how many trucks are `assigned`."""
        return await self.request("broadcast.cancel", {"broadcast_id": broadcast_id}, id, timeout_s)

    async def accept(
        self,
        broadcast_id: str,
        vehicle_id: str,
        driver_id: str,
        *,
        id: str | None = None,
        timeout_s: float | None = None,
    ) -> JsonObject:
        """As transporter: take one truck of an offer. Answers `request_id`, `assignment_id`, `trip_id`, `status` and
        `remaining_requests`, or raises `ServerError` with REQUEST_ALREADY_TAKEN, VEHICLE_BUSY and the like. Where not
        the first wins but the best, `status` is `pending` and there are no ids: at `decided_at` comes an event, either
        `trip_assigned` or `accept_lost`."""
        data = {"broadcast_id": broadcast_id, "vehicle_id": vehicle_id, "driver_id": driver_id}
        return await self.request("offer.accept", data, id, timeout_s)

    async def decline(self, broadcast_id: str, *, id: str | None = None, timeout_s: float | None = None) -> JsonObject:
        """As transporter: have an offer taken off the feed."""
        return await self.request("offer.decline", {"broadcast_id": broadcast_id}, id, timeout_s)

    async def go_online(self, timeout_s: float | None = None) -> JsonObject:
        """As transporter: get offers, from now on and after every reconnect. Answers `online` and `changed`."""
        return await self.request("transporter.online", timeout_s=timeout_s)

    async def go_offline(self, timeout_s: float | None = None) -> JsonObject:
        """As transporter: get no more offers. Answers `online` and `changed`."""
        return await self.request("transporter.offline", timeout_s=timeout_s)

    async def location(self, vehicle_id: str, lat: float, lng: float, timeout_s: float | None = None) -> None:
        """As transporter or driver: say where a vehicle is. It is believed for 60 s, so report every 30 s or so."""
        await self.request("location", {"vehicle_id": vehicle_id, "lat": lat, "lng": lng}, timeout_s=timeout_s)

    async def update_trip(
        self, trip_id: str, status: str, *, id: str | None = None, timeout_s: float | None = None
    ) -> JsonObject:
        """As transporter or driver of a trip: say how far it has come: `en_route`, `at_pickup`, `loaded`, `delivered`
        or `cancelled`. Steps may be left out."""
        return await self.request("trip.update", {"trip_id": trip_id, "status": status}, id, timeout_s)

    # --- Operators ---

    async def get_settings(self, timeout_s: float | None = None) -> JsonObject:
        """As operator: what is in force. Answers `version`, `paused`, `settings`, `defaults` and `modes`."""
        return await self.request("settings.get", timeout_s=timeout_s)

    async def patch_settings(
        self,
        settings: Mapping[str, Any],
        expected_version: int,
        *,
        id: str | None = None,
        timeout_s: float | None = None,
    ) -> JsonObject:
        """As operator: change some settings, if nobody has changed anything since `expected_version`; else raises
        `ServerError` VERSION_MISMATCH with the `version` that it is by now. Answers as all commands of operators do:
        `command`, `number`, `version`, `changes`, `complete`, and how each of the `nodes` has followed."""
        data = {"settings": dict(settings), "expected_version": expected_version}
        return await self.request("settings.patch", data, id, timeout_s)

    async def pause(
        self, *, expected_version: int | None = None, id: str | None = None, timeout_s: float | None = None
    ) -> JsonObject:
        """As operator: no new broadcasts and no new waves."""
        return await self.request("control.pause", _expected(expected_version), id, timeout_s)

    async def resume(
        self, *, expected_version: int | None = None, id: str | None = None, timeout_s: float | None = None
    ) -> JsonObject:
        """As operator: go on where it was paused."""
        return await self.request("control.resume", _expected(expected_version), id, timeout_s)

    async def reload_settings(
        self, *, expected_version: int | None = None, id: str | None = None, timeout_s: float | None = None
    ) -> JsonObject:
        """As operator: have every node read again what is in force."""
        return await self.request("control.reload_settings", _expected(expected_version), id, timeout_s)

    async def switch_mode(
        self, mode: str, *, expected_version: int | None = None, id: str | None = None, timeout_s: float | None = None
    ) -> JsonObject:
        """As operator: dispatch in another way from now on; `get_settings` has the `modes`."""
        data = {"mode": mode, **_expected(expected_version)}
        return await self.request("control.switch_mode", data, id, timeout_s)

    async def announce(
        self,
        audience: str,
        text: str,
        *,
        lifetime_s: int | None = None,
        expected_version: int | None = None,
        id: str | None = None,
        timeout_s: float | None = None,
    ) -> JsonObject:
        """As operator: say something to everybody of one role (`customer`, `transporter` or `driver`), also to those
        who connect within `lifetime_s`."""
        data: JsonObject = {"audience": audience, "text": text, **_expected(expected_version)}
        if lifetime_s is not None:
            data["lifetime_s"] = lifetime_s
        return await self.request("control.announce", data, id, timeout_s)

    async def drain_node(self, node: int, *, id: str | None = None, timeout_s: float | None = None) -> JsonObject:
        """As admin: have a node hand over what it has, and stop."""
        return await self.request("control.drain_node", {"node": node}, id, timeout_s)

    async def ping(self, timeout_s: float | None = None) -> int:
        """The server's time in milliseconds."""
        server_time_ms: int = (await self.request("ping", timeout_s=timeout_s))["server_time"]
        return server_time_ms


def _expected(version: int | None) -> JsonObject:
    return {} if version is None else {"expected_version": version}


def _place(place: Place) -> JsonObject:
    if isinstance(place, tuple):
        lat, lng = place
        return {"lat": lat, "lng": lng}
    return dict(place)


def _trucks(trucks: Trucks) -> list[JsonObject]:
    if isinstance(trucks, Mapping):
        return [{"vehicle_type": vehicle_type, "count": count} for vehicle_type, count in trucks.items()]
    return [dict(truck) for truck in trucks]
