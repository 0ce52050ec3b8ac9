"""The inhabitants: what customers, transporters and drivers do with their phones.

Each lives in one task, until it is cancelled or (customers) has nothing more to do. Whatever one starts ends with it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

from haulcast.client import ClientError, Event

from .city import City, Company, Order, Place, Truck
from .phone import Answer, Phone
from .record import Outcome

REPORT_EVERY_S = 5.0
PAUSED_REST_S = (0.3, 1.0)
"""How long a customer waits who was told that dispatch is paused."""
REST_S = 7.0
"""How long a customer rests between broadcasts, on average."""
ENDED_TRIP = frozenset({"delivered", "cancelled"})
TRIP_STEPS = ("en_route", "at_pickup", "loaded", "delivered")


class Customer:
    """Broadcasts one haul after the other, until `stopping`; takes a live one back when `hurry` is set."""

    def __init__(
        self,
        phone: Phone,
        city: City,
        stopping: asyncio.Event,
        hurry: asyncio.Event,
        show: Callable[[Phone, str], None],
    ) -> None:
        self._phone = phone
        self._city = city
        self._rng = city.source(phone.user)
        self._stopping = stopping
        self._hurry = hurry
        self._show = show
        self._over: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def live(self) -> None:
        """Until the city stops and the last broadcast has ended."""
        listening = asyncio.create_task(self._listen())
        try:
            if not await _within(self._stopping, self._rng.uniform(0, 3)):
                while True:
                    await self._broadcast(self._city.order(self._rng))
                    if await _within(self._stopping, self._rng.expovariate(1 / REST_S)):
                        break
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    async def _broadcast(self, order: Order) -> None:
        data = {
            "pickup": _place(order.pickup),
            "drop": _place(order.drop),
            "trucks": [{"vehicle_type": kind, "count": number} for kind, number in order.trucks.items()],
            "expires_in_s": order.expires_in_s,
        }
        while True:
            taps = [self._phone.ask("broadcast.create", data) for _ in range(2 if order.twice else 1)]
            answers = await asyncio.gather(*taps)
            created = [answer.data["broadcast_id"] for answer in answers if answer.ok]
            paused = any(answer.code == "TENANT_PAUSED" for answer in answers)
            if created or not paused or await _within(self._stopping, self._rng.uniform(*PAUSED_REST_S)):
                break
        for broadcast_id in created:
            self._show(self._phone, broadcast_id)
            await self._see_it_through(broadcast_id, order)

    async def _see_it_through(self, broadcast_id: str, order: Order) -> None:
        over = self._over[broadcast_id]
        if order.cancel_after_s is not None and not await _within(over, order.cancel_after_s):
            await self._cancel(broadcast_id)
        hurried = asyncio.create_task(self._cancel_in_a_hurry(broadcast_id))
        try:
            await _within(over, order.expires_in_s + 5)
        finally:
            hurried.cancel()
            await asyncio.wait([hurried])
            self._over.pop(broadcast_id, None)

    async def _cancel_in_a_hurry(self, broadcast_id: str) -> None:
        await self._hurry.wait()
        await self._cancel(broadcast_id)

    async def _cancel(self, broadcast_id: str) -> None:
        await self._phone.ask("broadcast.cancel", {"broadcast_id": broadcast_id})

    async def _listen(self) -> None:
        async for event in self._phone.events():
            full = event.event == "truck_confirmed" and event.data.get("remaining_requests") == 0
            if full or event.event in ("broadcast_cancelled", "broadcast_expired"):
                self._over[event.topic.partition(":")[2]].set()


class Transporter:
    """Watches its feed, races for what it can carry, and drives what it has won unless the driver has a phone."""

    def __init__(self, phone: Phone, company: Company, city: City, drivers_with_phones: frozenset[str]) -> None:
        self._phone = phone
        self._company = company
        self._rng = city.source(f"{phone.user}/phone")
        self._drivers_with_phones = drivers_with_phones
        self._idle_drivers = [*company.drivers]
        self._idle_trucks = [*company.trucks]
        self._reserved: dict[tuple[str, str], tuple[Truck, str]] = {}
        """What an accept has spoken for until it is won or lost: by broadcast and vehicle, with the driver."""

    @property
    def busy(self) -> bool:
        """Whether a trip is under way."""
        feed = self._phone.client.topics.get(f"feed:{self._phone.user}")
        return feed is not None and bool(feed.state["trips"])

    async def live(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as errands:
            errands.create_task(self._come_and_go())
            async for event in self._phone.events():
                if event.event == "offer":
                    errands.create_task(self._consider(event))
                elif event.event == "trip_assigned":
                    self._win(event.data)
                    if event.data["driver_id"] not in self._drivers_with_phones:
                        errands.create_task(drive(self._phone, self._rng, event.data))
                elif event.event == "accept_lost":
                    self._give_up(event.data["broadcast_id"], event.data["vehicle_id"])
                elif event.event == "offer_closed":
                    for truck in self._company.trucks:
                        self._give_up(event.data["broadcast_id"], truck.vehicle_id)
                elif event.event == "trip_updated" and event.data["status"] in ENDED_TRIP:
                    self._free(event.data)

    async def _come_and_go(self) -> None:
        """Online, with now and then a break; positions all the time."""
        await asyncio.sleep(self._company.online_after_s)
        client, loop = self._phone.client, asyncio.get_running_loop()
        break_at = loop.time() + self._rng.uniform(60, 180)
        online = False
        while True:
            with suppress(ClientError):
                if loop.time() >= break_at:
                    await client.go_offline()
                    online, break_at = False, loop.time() + self._rng.uniform(90, 240)
                for truck in self._company.trucks:
                    await client.location(truck.vehicle_id, truck.position.lat, truck.position.lng)
                    truck.move(self._rng, REPORT_EVERY_S)
                if not online:
                    await client.go_online()
                    online = True
            await asyncio.sleep(self._rng.uniform(0.8, 1.2) * REPORT_EVERY_S)

    async def _consider(self, event: Event) -> None:
        """Think for a moment, then accept (most), decline or forget about it."""
        offer = event.data
        mood = self._rng.random()
        await asyncio.sleep(0.7 + self._rng.expovariate(1 / 1.5))
        if mood < 0.3:
            return
        if mood < 0.4:
            await self._phone.ask("offer.decline", {"broadcast_id": offer["broadcast_id"]})
            return
        while True:
            shown = self._shown(offer["broadcast_id"])
            if shown is None or (shown["status"] != "open" and self._rng.random() < 0.5):
                return  # seen in time; the other half has the thumb on the button already
            answer = await self._accept(offer["broadcast_id"], shown["open_trucks"] or offer["open_trucks"])
            if answer is None or not answer.ok or answer.data["status"] == "pending":
                return
            if not answer.data["remaining_requests"]:
                return
            await asyncio.sleep(self._rng.uniform(0.3, 1))

    async def _accept(self, broadcast_id: str, wanted: Mapping[str, int]) -> Answer | None:
        """Try to win a truck; None if there is none to offer."""
        truck = next((truck for truck in self._idle_trucks if truck.vehicle_type in wanted), None)
        if truck is None or not self._idle_drivers:
            if self._rng.random() < 0.9:
                return None
            return await self._book_twice(broadcast_id, wanted)
        driver = self._idle_drivers.pop(0)
        self._idle_trucks.remove(truck)
        self._reserved[broadcast_id, truck.vehicle_id] = truck, driver
        answer = await self._send_accept(broadcast_id, truck, driver)
        if answer.outcome is Outcome.REFUSED:
            self._give_up(broadcast_id, truck.vehicle_id)
        return answer

    async def _book_twice(self, broadcast_id: str, wanted: Mapping[str, int]) -> Answer | None:
        """Some try it with a truck that is on the road. They must not get away with it."""
        trucks = [truck for truck in self._company.trucks if truck.vehicle_type in wanted]
        if not trucks or not self._company.drivers:
            return None
        return await self._send_accept(broadcast_id, trucks[0], self._rng.choice(self._company.drivers))

    async def _send_accept(self, broadcast_id: str, truck: Truck, driver: str) -> Answer:
        data = {"broadcast_id": broadcast_id, "vehicle_id": truck.vehicle_id, "driver_id": driver}
        return await self._phone.ask("offer.accept", data)

    def _give_up(self, broadcast_id: str, vehicle_id: str) -> None:
        """An accept has not won: truck and driver are free again."""
        reserved = self._reserved.pop((broadcast_id, vehicle_id), None)
        if reserved is not None:
            self._idle_trucks.append(reserved[0])
            self._idle_drivers.append(reserved[1])

    def _win(self, trip: Mapping[str, Any]) -> None:
        """A truck is on its way."""
        self._reserved.pop((trip["broadcast_id"], trip["vehicle_id"]), None)
        for truck in self._company.trucks:
            if truck.vehicle_id == trip["vehicle_id"]:
                truck.trip_id = trip["trip_id"]
                truck.destination = Place(trip["pickup"]["lat"], trip["pickup"]["lng"])
                if truck in self._idle_trucks:
                    self._idle_trucks.remove(truck)
        if trip["driver_id"] in self._idle_drivers:
            self._idle_drivers.remove(trip["driver_id"])

    def _shown(self, broadcast_id: str) -> Mapping[str, Any] | None:
        """The offer as the feed has it now."""
        feed = self._phone.client.topics[f"feed:{self._phone.user}"]
        offer: Mapping[str, Any] | None = feed.state["offers"].get(broadcast_id)
        return offer

    def _free(self, trip: Mapping[str, Any]) -> None:
        for truck in self._company.trucks:
            if truck.vehicle_id == trip["vehicle_id"] and truck not in self._idle_trucks:
                truck.trip_id = None
                self._idle_trucks.append(truck)
        if trip["driver_id"] not in self._idle_drivers:
            self._idle_drivers.append(trip["driver_id"])


class Driver:
    """Drives the trips that come in on a phone of its own."""

    def __init__(self, phone: Phone, city: City) -> None:
        self._phone = phone
        self._rng = city.source(phone.user)

    async def live(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as trips:
            async for event in self._phone.events():
                if event.event == "trip_assigned":
                    trips.create_task(drive(self._phone, self._rng, event.data))


async def drive(phone: Phone, rng: Random, trip: Mapping[str, Any]) -> None:
    """Take a trip from the pickup to its end: mostly delivered, sometimes cancelled on the way."""
    breaks_down_before = rng.choice(TRIP_STEPS) if rng.random() < 0.12 else None
    for status in TRIP_STEPS:
        await asyncio.sleep(rng.uniform(0.4, 1.4))
        if status == breaks_down_before:
            status = "cancelled"
        elif status in ("en_route", "at_pickup") and rng.random() < 0.1:
            continue  # forgot to tap
        answer = await phone.ask("trip.update", {"trip_id": trip["trip_id"], "status": status})
        if status in ENDED_TRIP or answer.outcome is Outcome.REFUSED:
            return


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it came true within that time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def _place(place: Place) -> dict[str, Any]:
    return {"lat": place.lat, "lng": place.lng, "address": f"{place.lat:.3f}, {place.lng:.3f}"}
