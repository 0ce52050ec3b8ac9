"""People in a city whose dispatch is paused and resumed, and whose accepts may have to wait. On virtual time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from haulcast.client import Event, Version
from haulcast.demo.city import CENTRE, City, Company, Truck
from haulcast.demo.people import Customer, Transporter
from haulcast.demo.phone import Answer, Phone
from haulcast.demo.record import Outcome
from tests.sim.virtual_time import on_virtual_time

PLACE = {"lat": CENTRE.lat, "lng": CENTRE.lng}
PENDING = Answer(Outcome.OK, {"status": "pending", "remaining_requests": 1})
TAKEN = Answer(Outcome.REFUSED, code="REQUEST_ALREADY_TAKEN")
PAUSED = Answer(Outcome.REFUSED, code="TENANT_PAUSED")
ALL_DAY_S = 60.0


class Decided(Random):
    """Always takes an offer, and never tries what it must not."""

    def random(self) -> float:
        return 0.5


class FakePhone:
    """Answers each request with the next of the answers that there are for it, and tells what it is told to."""

    def __init__(self, user: str, **answers: list[Answer]) -> None:
        self.user = user
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.offers: dict[str, Any] = {}
        self.client = SimpleNamespace(
            topics={f"feed:{user}": SimpleNamespace(state={"offers": self.offers, "trips": {}})},
            location=self._nothing,
            go_online=self._nothing,
            go_offline=self._nothing,
        )
        self._answers = answers
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def ask(self, request_type: str, data: Mapping[str, Any]) -> Answer:
        self.asked.append((request_type, data))
        answers = self._answers.get(request_type.replace(".", "_"))
        return answers.pop(0) if answers else Answer(Outcome.OK)

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self._events.get()

    async def hear(self, event: str, **data: Any) -> None:
        """It is told, and has time to do something about it."""
        self._events.put_nowait(Event(f"feed:{self.user}", event, data, Version(1, 1), 0))
        await asyncio.sleep(ALL_DAY_S)

    async def offered(self, broadcast_id: str) -> bool:
        """Whether an offer was accepted."""
        open_trucks = {"mini": 1}
        self.offers[broadcast_id] = {"status": "open", "open_trucks": open_trucks}
        before = len(self.accepted)
        await self.hear("offer", broadcast_id=broadcast_id, open_trucks=open_trucks)
        return len(self.accepted) > before

    @property
    def accepted(self) -> list[str]:
        """The broadcasts, in order."""
        return [data["broadcast_id"] for kind, data in self.asked if kind == "offer.accept"]

    async def _nothing(self, *_: object) -> None:
        pass


def of(phone: FakePhone) -> Phone:
    return cast(Phone, phone)


def test_a_truck_that_waits_for_a_decision_is_spoken_for_and_free_again_when_it_has_lost() -> None:
    async def story() -> None:
        phone = FakePhone("t1", offer_accept=[PENDING, PENDING, TAKEN, PENDING, PENDING])
        truck = Truck("v1", "mini", CENTRE, CENTRE, CENTRE)
        company = Company("t1", "Amber Haulage", (truck,), ("d1",), 0.0)
        city = cast(City, SimpleNamespace(source=lambda _: Decided()))
        living = asyncio.create_task(Transporter(of(phone), company, city, frozenset({"d1"})).live())
        assert await phone.offered("b1")
        assert not await phone.offered("b2")
        await phone.hear("accept_lost", broadcast_id="b1", vehicle_id="v1")
        assert await phone.offered("b3")
        trip = {"broadcast_id": "b3", "trip_id": "b3-1", "vehicle_id": "v1", "driver_id": "d1", "pickup": PLACE}
        await phone.hear("trip_assigned", **trip)
        assert truck.trip_id == "b3-1"
        assert not await phone.offered("b4"), "it is on the road"
        await phone.hear("trip_updated", **trip, status="delivered")
        assert await phone.offered("b5")
        assert await phone.offered("b6"), "the accept of b5 was refused"
        await phone.hear("offer_closed", broadcast_id="b6", reason="expired")
        assert await phone.offered("b7")
        living.cancel()
        await asyncio.wait([living])

    on_virtual_time(story)


def test_a_customer_who_is_refused_because_dispatch_is_paused_comes_back_with_the_same_order() -> None:
    async def story() -> None:
        created = Answer(Outcome.OK, {"broadcast_id": "b1"})
        phone = FakePhone("c1", broadcast_create=[*[PAUSED] * 6, created])
        city, stopping, shown = City(1, 1, 1, 40), asyncio.Event(), asyncio.Event()
        customer = Customer(of(phone), city, stopping, asyncio.Event(), lambda _phone, _id: shown.set())
        living = asyncio.create_task(customer.live())
        await shown.wait()
        stopping.set()
        await living
        orders = [data for kind, data in phone.asked if kind == "broadcast.create"]
        assert len(orders) >= 4
        assert all(order == orders[0] for order in orders)

    on_virtual_time(story)


def test_a_customer_who_is_refused_until_the_city_stops_goes_home() -> None:
    async def story() -> None:
        phone = FakePhone("c1", broadcast_create=[PAUSED] * 1_000)
        stopping = asyncio.Event()
        customer = Customer(of(phone), City(1, 1, 1, 40), stopping, asyncio.Event(), lambda _phone, _id: None)
        living = asyncio.create_task(customer.live())
        await asyncio.sleep(10.0)
        assert phone.asked
        stopping.set()
        await living

    on_virtual_time(story)
