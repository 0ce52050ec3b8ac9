"""A simulated city for load: transporters who report, race and drive, and customers who broadcast hauls.

1. Customers broadcast at a Poisson rate that does not wait for answers. Of those who are offered a haul, some look
   away, some decline, and several race; the winner takes the trip through its states to its end. Some customers cancel
   early, and whoever has waited long enough does. So everything is over soon after the last broadcast.
2. Every latency counts from when the request was due: for broadcasts and positions by the schedule, for the rest by
   what was heard before. The client's timers, which have whole milliseconds, add up to one.
3. Who wants what comes from the seed; who wins does not.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine
from math import ceil, cos, radians
from random import Random
from time import perf_counter
from typing import Any

import msgspec

from .histogram import Histogram
from .line import Phone, Refused

TYPES = ("mini", "tipper", "flatbed")
VEHICLES = 2
"""Of a transporter, all of its one type, each with a driver."""
SOUTH_WEST = (18.4, 73.7)
"""The corner of the city: degrees of latitude and longitude."""
DEGREE_KM = 111.2
REPORT_EVERY_S = 5.0
LOOKS_AWAY, DECLINES = 0.3, 0.15
HASTY = 0.5
"""The share of those who accept although they have seen that the offer is closed: the thumb is on its way."""
CANCELS_EARLY = 0.1
EARLY_S = (0.2, 1.0)
PATIENCE_S = 5.0
THINKS_S = (0.1, 0.6)
STEP_S = (0.1, 0.5)
STEPS = ("en_route", "at_pickup", "loaded", "delivered")
CONNECTING_AT_ONCE = 50
NOBODY_LEFT = "(no customer was left)"
"""Stands among the refusals for broadcasts that were due while all customers had one."""


class _Event(msgspec.Struct):
    event: str
    data: dict[str, Any]


_decode_event = msgspec.json.Decoder(_Event).decode


class City:
    """A share of a city: so many transporters and customers, each with a connection."""

    def __init__(self, rng: Random, share_per_s: float, side_km: float) -> None:
        self.rng = rng
        self.side_km = side_km
        self.latencies: dict[str, Histogram] = defaultdict(Histogram)
        self.refused: Counter[str] = Counter()
        self._per_s = share_per_s
        self._transporters: list[Transporter] = []
        self._idle: deque[Customer] = deque()
        self._tasks: asyncio.TaskGroup | None = None
        """While the city lives."""

    async def connect(self, urls: list[str], transporters: dict[str, tuple[str, str]], customers: list[str]) -> None:
        """Connect transporters, by id their token and type of vehicle, and customers, by their token."""
        limit = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one(resident: "Resident", number: int, token: str) -> None:
            async with limit:
                resident.phone = await Phone.connect(urls[number % len(urls)], token, resident.hear)

        self._transporters = [Transporter(self, name, kind) for name, (_, kind) in transporters.items()]
        self._idle.extend(Customer(self) for _ in customers)
        tokens = [*(token for token, _ in transporters.values()), *customers]
        residents: list[Resident] = [*self._transporters, *self._idle]
        await asyncio.gather(*(one(*each) for each in zip(residents, range(len(tokens)), tokens, strict=True)))

    async def wake(self) -> None:
        """Have everybody online, with fresh positions."""
        limit = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one(transporter: Transporter) -> None:
            async with limit:
                await transporter.phone.do("transporter.online", {})
                await transporter.report(perf_counter())

        await asyncio.gather(*map(one, self._transporters))

    async def live(self, seconds: float) -> tuple[dict[str, Histogram], Counter[str]]:
        """Broadcast for so long, and until every trip has ended. Latencies by request, refusals by code."""
        self.latencies, self.refused = defaultdict(Histogram), Counter()
        began_s = perf_counter()
        over_s = began_s + seconds
        async with asyncio.TaskGroup() as self._tasks:
            for transporter in self._transporters:
                self.start(transporter.keep_reporting(began_s + self.rng.uniform(0, REPORT_EVERY_S), over_s))
            async with asyncio.TaskGroup() as broadcasts:
                due_s = began_s
                while (due_s := due_s + self.rng.expovariate(self._per_s)) < over_s:
                    await until(due_s)
                    if self._idle:
                        broadcasts.create_task(self._broadcast(self._idle.popleft(), due_s))
                    else:
                        self.refused[NOBODY_LEFT] += 1
            self._tasks = None
        return dict(self.latencies), self.refused

    def start(self, doing: Coroutine[Any, Any, None]) -> None:
        """What is begun by a frame, or goes on by itself; nothing is, once all broadcasts are over."""
        if self._tasks is None:
            doing.close()
        else:
            self._tasks.create_task(doing)

    async def ask(self, phone: Phone, request: str, data: dict[str, Any], due_s: float) -> dict[str, Any] | None:
        """Ask when it is due; the reply, or None if it was refused."""
        await until(due_s)
        try:
            reply: dict[str, Any] | None = await phone.do(request, data)
        except Refused as error:
            self.refused[error.code] += 1
            reply = None
        self.latencies[request].add(perf_counter() - due_s)
        return reply

    def place(self, rng: Random) -> dict[str, float]:
        """Anywhere in the city."""
        lat = SOUTH_WEST[0] + rng.random() * self.side_km / DEGREE_KM
        return {"lat": lat, "lng": SOUTH_WEST[1] + rng.random() * self.side_km / DEGREE_KM / cos(radians(lat))}

    async def _broadcast(self, customer: "Customer", due_s: float) -> None:
        await customer.broadcast(due_s)
        self._idle.append(customer)


class Customer:
    """Who broadcasts hauls."""

    def __init__(self, city: City) -> None:
        self.phone: Phone
        self._city = city
        self._filled = asyncio.Event()

    def hear(self, frame: bytes) -> None:
        """Called with each frame."""
        if b'"/status":"fully_filled"' in frame:
            self._filled.set()

    async def broadcast(self, due_s: float) -> None:
        """Look for trucks, and take it back if they take too long."""
        city, rng = self._city, self._city.rng
        patience_s = rng.uniform(*EARLY_S) if rng.random() < CANCELS_EARLY else PATIENCE_S
        trucks = [{"vehicle_type": rng.choice(TYPES), "count": rng.choice((1, 1, 2))}]
        haul = {"pickup": city.place(rng), "drop": city.place(rng), "trucks": trucks}
        self._filled.clear()
        created = await city.ask(self.phone, "broadcast.create", haul, due_s)
        if created is None:
            return
        over_s = perf_counter() + patience_s
        try:
            async with asyncio.timeout(patience_s):
                await self._filled.wait()
        except TimeoutError:
            await city.ask(self.phone, "broadcast.cancel", {"broadcast_id": created["broadcast_id"]}, over_s)


class Transporter:
    """Who races for them, and drives."""

    def __init__(self, city: City, name: str, kind: str) -> None:
        self.phone: Phone
        self.kind = kind
        self._city = city
        self._rng = Random(city.rng.random())
        self._homes = {f"{name}-v{number}": city.place(self._rng) for number in range(VEHICLES)}
        self._idle = deque((vehicle, f"{name}-d{number}") for number, vehicle in enumerate(self._homes))
        """Vehicles on no trip, each with its driver."""
        self._closed: set[str] = set()  # broadcasts that are over

    def hear(self, frame: bytes) -> None:
        """Called with each frame."""
        if b'"event":"offer' not in frame:
            return
        event = _decode_event(frame)
        if event.event == "offer":
            self._city.start(self._consider(event.data["broadcast_id"], perf_counter()))
        else:
            self._closed.add(event.data["broadcast_id"])

    async def keep_reporting(self, due_s: float, over_s: float) -> None:
        """Report where the vehicles are, from then to then."""
        while due_s < over_s:
            await self.report(due_s)
            due_s += REPORT_EVERY_S

    async def report(self, due_s: float) -> None:
        """Report once."""
        for vehicle, home in self._homes.items():
            moved = {name: degrees + self._rng.uniform(-0.001, 0.001) for name, degrees in home.items()}
            await self._city.ask(self.phone, "location", {"vehicle_id": vehicle, **moved}, due_s)

    async def _consider(self, broadcast_id: str, heard_s: float) -> None:
        mood = self._rng.random()
        if mood < LOOKS_AWAY:
            return
        due_s = heard_s + self._rng.uniform(*THINKS_S)
        which = {"broadcast_id": broadcast_id}
        if mood < LOOKS_AWAY + DECLINES:
            await self._city.ask(self.phone, "offer.decline", which, due_s)
            return
        hasty = self._rng.random() < HASTY
        await until(due_s)
        if not self._idle or (broadcast_id in self._closed and not hasty):
            return
        vehicle, driver = self._idle.popleft()
        ids = {**which, "vehicle_id": vehicle, "driver_id": driver}
        won = await self._city.ask(self.phone, "offer.accept", ids, due_s)
        if won is not None:
            await self._drive(won["trip_id"])
        self._idle.append((vehicle, driver))

    async def _drive(self, trip_id: str) -> None:
        for status in STEPS:
            due_s = perf_counter() + self._rng.uniform(*STEP_S)
            await self._city.ask(self.phone, "trip.update", {"trip_id": trip_id, "status": status}, due_s)


Resident = Customer | Transporter


async def until(due_s: float) -> None:
    """Sleep, never too short: uvloop's timers have whole milliseconds."""
    while (left_s := due_s - perf_counter()) > 0:
        await asyncio.sleep(ceil(left_s * 1000) / 1000)
