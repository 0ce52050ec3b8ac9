"""What a fan-out of haulcast is made of: broadcasts whose trips move on, and offers that come and go.

1. `Trips` has `TOPICS` broadcasts, all trucks of which were won. A change is a `trip.update` by a transporter's phone:
   whoever watches the broadcast gets one delta and one event. Trips go up to `loaded` and never end, and so neither do
   the topics.
2. A broadcast has one checkpoint under way at a time, so what is to leave in one tick is four changes of four
   broadcasts, asked for at once by one phone: their checkpoints are one commit, and what follows from it is published
   in one turn of the loop. Phones take turns, as each may only ask so often.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count

from bench.kit.line import Phone
from bench.kit.servers import Haulcast

TENANT = "trips"
TOPICS = 4
LAT, LNG = 12.97, 77.59
TRUCK = "truck"
MOST_TRIPS = 100
"""Of one broadcast."""
_PHONES = 10
_STATUSES = ("en_route", "at_pickup", "loaded")
_AT_ONCE = 32
_HAUL = {"pickup": {"lat": LAT, "lng": LNG}, "drop": {"lat": 13.08, "lng": 80.27}}


class Trips:
    """Changes to tell of."""

    def __init__(self, haulcast: Haulcast, rounds: int, **settings: object) -> None:
        """`rounds`: how many times `TOPICS` changes will be made, at most. `settings`: of the tenant."""
        self._haulcast = haulcast
        self._settings = settings
        self._each = -(-rounds // (len(_STATUSES) * _PHONES))
        """How many trips of one broadcast a phone has."""
        self._phones: dict[str, Phone] = {}
        self._broadcasts: list[str] = []
        self._changes: Iterator[tuple[Phone, str, str]] = iter(())
        assert self._each * _PHONES <= MOST_TRIPS, "a broadcast has not so many trucks"

    async def create(self) -> list[str]:
        """Create the broadcasts; their topics."""
        transporters = [f"t{number}" for number in range(_PHONES)]
        trips_each = self._each * TOPICS
        fleet = {one: [(f"{one}-v{n}", TRUCK) for n in range(trips_each)] for one in transporters}
        await self._haulcast.create_tenant(TENANT, **self._settings)
        await self._haulcast.import_fleet(TENANT, fleet, drivers=trips_each)
        for transporter in transporters:
            phone = self._phones[transporter] = await self._phone("transporter", transporter)
            await phone.do("transporter.online", {})
            await phone.do("location", {"vehicle_id": f"{transporter}-v0", "lat": LAT, "lng": LNG})
        trucks = [{"vehicle_type": TRUCK, "count": self._each * _PHONES}]
        for number in range(TOPICS):
            customer = await self._phone("customer", f"c{number}")
            created = await customer.do("broadcast.create", {**_HAUL, "trucks": trucks}, id=f"create-{number}")
            self._broadcasts.append(created["broadcast_id"])
            customer.line.drop()
        return [f"broadcast:{broadcast}" for broadcast in self._broadcasts]

    async def assign(self) -> int:
        """Have all trucks won; how many changes that was for each of the topics' subscribers."""
        by_phone = await asyncio.gather(*map(self._accept, self._phones))
        self._changes = _in_turns(list(self._phones.values()), by_phone)
        return self._each * _PHONES * TOPICS

    async def change(self, at_once: int) -> None:
        """Make so many changes at once, of as many broadcasts. Raises `Refused`."""
        changes = [next(self._changes) for _ in range(at_once)]
        phone = changes[0][0]
        with phone.line.together():
            replies = [phone.ask("trip.update", {"trip_id": trip, "status": status}) for _, trip, status in changes]
        for reply in await asyncio.gather(*replies):
            if b'"ok":true' not in reply:
                raise RuntimeError(f"a change was refused: {reply.decode()}")

    async def _phone(self, role: str, user: str) -> Phone:
        return await Phone.connect(self._haulcast.url, self._haulcast.token(TENANT, role, user))

    async def _accept(self, transporter: str) -> list[Sequence[str]]:
        """The transporter's trips, one of each broadcast together."""
        phone, limit = self._phones[transporter], asyncio.Semaphore(_AT_ONCE)

        async def accept(broadcast: str, number: int) -> str:
            choice = {"vehicle_id": f"{transporter}-v{number}", "driver_id": f"{transporter}-d{number}"}
            async with limit:
                won = await phone.do("offer.accept", {"broadcast_id": broadcast, **choice}, id=f"accept-{number}")
            return str(won["trip_id"])

        accepts = [
            asyncio.gather(*(accept(broadcast, row * TOPICS + n) for n, broadcast in enumerate(self._broadcasts)))
            for row in range(self._each)
        ]
        return list(await asyncio.gather(*accepts))


def _in_turns(phones: Sequence[Phone], by_phone: Sequence[list[Sequence[str]]]) -> Iterator[tuple[Phone, str, str]]:
    """Changes, so that `TOPICS` in a row are of one phone and of all broadcasts."""
    for status in _STATUSES:
        for rows in zip(*by_phone, strict=True):
            for phone, row in zip(phones, rows, strict=True):
                for trip in row:
                    yield phone, trip, status


class Offers:
    """A broadcast near many transporters, made and cancelled over and over by one customer."""

    TENANT = "offers"

    def __init__(self, haulcast: Haulcast, transporters: Sequence[str]) -> None:
        """The vehicle of each transporter is `{transporter}-v`."""
        self._haulcast = haulcast
        self._transporters = transporters
        self._phone: Phone
        self._broadcast = ""
        self._ids = count(1)

    async def prepare(self) -> None:
        """Make the transporters known, and connect the customer."""
        await self._haulcast.create_tenant(self.TENANT, wave_radii_km=[5.0], max_offers_per_wave=10_000)
        await self._haulcast.import_fleet(self.TENANT, {one: [(f"{one}-v", TRUCK)] for one in self._transporters}, 0)
        token = self._haulcast.token(self.TENANT, "customer", "c")
        self._phone = await Phone.connect(self._haulcast.url, token)

    async def create(self) -> None:
        """Create a broadcast, which is offered to everybody."""
        data = {**_HAUL, "trucks": [{"vehicle_type": TRUCK, "count": 1}]}
        created = await self._phone.do("broadcast.create", data, id=f"create-{next(self._ids)}")
        self._broadcast = created["broadcast_id"]

    async def cancel(self) -> None:
        """Cancel it: everybody's offer is closed."""
        await self._phone.do("broadcast.cancel", {"broadcast_id": self._broadcast}, id=f"cancel-{next(self._ids)}")
