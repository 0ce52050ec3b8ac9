"""A dispatch network for one story: a tenant of its own on some server, its fleet, and its users' phones.

Places are given in kilometres north of `PICKUP`. A transporter `t1` has the vehicle `t1-v` and the driver `t1-d`
unless a story says otherwise. On a cluster its phones are spread over the nodes, and so are its REST calls.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import cycle
from time import time_ns
from types import TracebackType
from typing import Any, Self

import aiohttp

from haulcast.client import Client
from haulcast.config import DEVELOPMENT_KEY
from haulcast.domain.fleet import Driver, FleetItem, Transporter, Vehicle
from haulcast.domain.ids import DriverId, TenantId, TransporterId, VehicleId
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing
from tests.acceptance.books import Tables
from tests.acceptance.phone import Json, Phone, Version, View, eventually

PICKUP = (12.9716, 77.5946)
DROP = (13.0827, 80.2707)
TRUCK = "truck_14ft"
_KM_PER_DEGREE = 111.195
_KEYS = KeyRing((DEVELOPMENT_KEY,))


def north_of_pickup(km: float) -> tuple[float, float]:
    """The place that many kilometres north of where hauls begin."""
    return PICKUP[0] + km / _KM_PER_DEGREE, PICKUP[1]


def sign(tenant: str, role: str, user: str, lifetime_s: int = 3600) -> str:
    """A token as the development key makes it."""
    return _KEYS.sign(tenant=tenant, role=Role(role), user=user, now_ms=time_ns() // 1_000_000, lifetime_s=lifetime_s)


def haul(trucks: Mapping[str, int] | None = None, **more: Any) -> Json:
    """The data of a `broadcast.create`: one truck, if nothing else is said."""
    return {
        "pickup": {"lat": PICKUP[0], "lng": PICKUP[1], "address": "MG Road"},
        "drop": {"lat": DROP[0], "lng": DROP[1]},
        "trucks": [{"vehicle_type": kind, "count": number} for kind, number in (trucks or {TRUCK: 1}).items()],
        **more,
    }


def accept_of(transporter: str, broadcast_id: str) -> Json:
    """The data of an `offer.accept` with the transporter's vehicle and driver."""
    return {"broadcast_id": broadcast_id, "vehicle_id": f"{transporter}-v", "driver_id": f"{transporter}-d"}


class Network:
    """One tenant, for the time of an `async with`. At its end all phones hang up and are checked.

    `url` names the servers that share the work, separated by commas. The n-th phone calls the n-th of them, beginning
    again after the last, and the n-th REST call does the same.
    """

    def __init__(self, url: str, tenant: str) -> None:
        urls = url.split(",")
        self.url = urls[0]
        self._for_phones, self._for_calls = cycle(urls), cycle(urls)
        self.tenant = tenant
        self.phones: list[Phone] = []
        self._cleanup = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.session = await self._cleanup.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.gather(*(phone.close() for phone in self.phones))
        finally:
            await self._cleanup.aclose()
        if error is None:
            for phone in self.phones:
                phone.check()

    # --- Connections ---

    async def phone(
        self,
        role: str,
        user: str,
        held: Mapping[str, View] | None = None,
        claims: Mapping[str, Version] | None = None,
    ) -> Phone:
        """A raw connection."""
        url = next(self._for_phones)
        phone = await Phone.open(self.session, url, role, user, sign(self.tenant, role, user), held, claims)
        self.phones.append(phone)
        return phone

    async def client(self, role: str, user: str) -> Client:
        """The reference client, which comes back by itself."""
        client = Client(next(self._for_phones), sign(self.tenant, role, user), session=self.session)
        return await self._cleanup.enter_async_context(client)

    async def rest(
        self, method: str, path: str, role: str, user: str, body: Json | None = None, key: str | None = None
    ) -> tuple[int, Json]:
        """The status and the body of a REST call."""
        headers = {"Authorization": f"Bearer {sign(self.tenant, role, user)}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        url = next(self._for_calls) + path
        async with self.session.request(method, url, json=body, headers=headers) as response:
            answer: Json = await response.json()
            return response.status, answer

    async def health(self) -> Json:
        """What `/health/detailed` says."""
        async with self.session.get(f"{self.url}/health/detailed") as response:
            answer: Json = await response.json()
            return answer

    async def health_is(self, field: str, value: Any) -> bool:
        """Whether `/health/detailed` says so."""
        return bool((await self.health())[field] == value)

    # --- Setting up ---

    async def create_tenant(self, **settings: Any) -> None:
        """Have an admin make the tenant, with these settings."""
        status, body = await self.rest("PUT", f"/v1/tenants/{self.tenant}", "admin", "root", {"settings": settings})
        assert status == 201, body

    async def hire(self, transporter: str, vehicles: Mapping[str, str], drivers: Iterable[str]) -> None:
        """Have an operator put a transporter with its vehicles (id: type) and drivers into the fleet."""
        calls: list[tuple[str, Json]] = [(f"transporters/{transporter}", {"name": f"Transporter {transporter}"})]
        calls += [
            (f"vehicles/{vehicle}", {"transporter_id": transporter, "vehicle_type": kind})
            for vehicle, kind in vehicles.items()
        ]
        calls += [(f"drivers/{driver}", {"transporter_id": transporter, "name": "Asha"}) for driver in drivers]
        for path, body in calls:
            status, answer = await self.rest("PUT", f"/v1/fleet/{path}", "operator", "op", body)
            assert status == 200, answer

    async def hire_many(self, journal: Tables, transporters: Iterable[str], kind: str = TRUCK) -> None:
        """Put many transporters, each with a vehicle and a driver, into the journal beside the server that runs."""
        items: list[FleetItem] = []
        for name in transporters:
            owner = TransporterId(name)
            items += [
                Transporter(owner, name),
                Vehicle(VehicleId(f"{name}-v"), owner, kind),
                Driver(DriverId(f"{name}-d"), owner, "Asha"),
            ]
        store = await journal.open()
        try:
            await store.put_fleet(TenantId(self.tenant), items)
        finally:
            await store.close()

    async def on_duty(self, transporter: str, km: float = 1.0, vehicle: str | None = None) -> Phone:
        """A transporter of the fleet comes online, with its vehicle that far from the pickup."""
        phone = await self.phone("transporter", transporter)
        await self.come_online(phone, km, vehicle)
        return phone

    async def come_online(self, phone: Phone, km: float = 1.0, vehicle: str | None = None) -> None:
        """A connected transporter comes online."""
        lat, lng = north_of_pickup(km)
        await phone.do("location", {"vehicle_id": vehicle or f"{phone.user}-v", "lat": lat, "lng": lng})
        await phone.do("transporter.online")

    async def transporter(self, name: str, km: float = 1.0, kind: str = TRUCK) -> Phone:
        """A new transporter with one vehicle and one driver, online."""
        await self.hire(name, {f"{name}-v": kind}, [f"{name}-d"])
        return await self.on_duty(name, km)


async def offered(broadcast_id: str, *phones: Phone) -> None:
    """Wait until all these transporters have the offer open on their feeds."""
    await eventually(lambda: all(phone.has_offer(broadcast_id) for phone in phones), f"all are offered {broadcast_id}")
