"""Brings the city to life on a server, and to rest again: connect, live, drain, disconnect."""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial

import aiohttp

from haulcast.client import Topic
from haulcast.ports import Role

from .city import City
from .people import Customer, Driver, Transporter
from .phone import Phone
from .record import Recorder
from .server import SERVICE, Server

CONNECTING_AT_ONCE = 20
DRIVERS_WITH_PHONES = 0.25
TRIPS_END_WITHIN_S = 30.0
LAST_WORDS_S = 0.5
"""How long everybody stays connected after everything is over, to hear of it."""
SHOWN = 200


class Board:
    """The newest broadcasts, as their customers see them."""

    def __init__(self) -> None:
        self._shown: deque[tuple[Phone, str]] = deque(maxlen=SHOWN)

    def show(self, phone: Phone, broadcast_id: str) -> None:
        """A broadcast has been created."""
        self._shown.append((phone, f"broadcast:{broadcast_id}"))

    def newest(self, count: int) -> list[tuple[Topic, int]]:
        """The `count` newest that are known, newest first, each with the server's time."""
        found = (
            (phone.client.topics[topic], phone.client.server_now_ms())
            for phone, topic in reversed(self._shown)
            if topic in phone.client.topics
        )
        return [each for each, _ in zip(found, range(count), strict=False)]


class Town:
    """A city on a server. `stopping`: no more broadcasts; `hurry`: take back those that are live."""

    def __init__(self, city: City) -> None:
        self.phase = "connecting"
        """What is going on, for the screen."""
        self.begun = asyncio.Event()
        """Everybody is connected."""
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self._city = city

    async def live(self, server: Server, recorder: Recorder, board: Board, seconds: float | None) -> None:
        """Live for `seconds`, or until `stopping` is set, and until everything under way has ended.

        Raises an `ExceptionGroup` if the server ends meanwhile or anybody fails.
        """
        async with AsyncExitStack() as phones:
            session = await phones.enter_async_context(server.session())
            connect = partial(_connect, phones, session, server, recorder)
            drivers = await connect(Role.DRIVER, self._drivers_with_phones())
            transporters = await connect(Role.TRANSPORTER, [each.transporter_id for each in self._city.companies])
            customers = await connect(Role.CUSTOMER, self._city.customers)
            fleets = [
                Transporter(transporters[company.transporter_id], company, self._city, frozenset(drivers))
                for company in self._city.companies
            ]
            shoppers = [
                Customer(phone, self._city, self.stopping, self.hurry, board.show) for phone in customers.values()
            ]
            async with asyncio.TaskGroup() as life:
                residents = [life.create_task(server.ended())]
                residents += [life.create_task(Driver(phone, self._city).live()) for phone in drivers.values()]
                residents += [life.create_task(each.live()) for each in fleets]
                shopping = [life.create_task(each.live()) for each in shoppers]
                await self._let_live(seconds)
                self.phase = "draining: waiting for broadcasts to end"
                await asyncio.wait(shopping, timeout=self._city.longest_expiry_s + 20)
                self.phase = "draining: waiting for trips to end"
                with suppress(TimeoutError):
                    async with asyncio.timeout(TRIPS_END_WITHIN_S):
                        while any(each.busy for each in fleets):
                            await asyncio.sleep(0.1)
                await asyncio.sleep(LAST_WORDS_S)
                for task in (*residents, *shopping):
                    task.cancel()
            self.phase = "disconnecting"
        self.phase = "waiting for the server to let go"

    async def _let_live(self, seconds: float | None) -> None:
        self.phase = "running"
        self.begun.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        self.stopping.set()

    def _drivers_with_phones(self) -> list[str]:
        rng = self._city.source("drivers")
        drivers = [driver for company in self._city.companies for driver in company.drivers]
        return rng.sample(drivers, round(DRIVERS_WITH_PHONES * len(drivers)))


async def _connect(
    phones: AsyncExitStack,
    session: aiohttp.ClientSession,
    server: Server,
    recorder: Recorder,
    role: Role,
    users: Iterable[str],
) -> dict[str, Phone]:
    """Phones for all these users, switched off again when the stack unwinds."""
    limit = asyncio.Semaphore(CONNECTING_AT_ONCE)

    async def connect(user: str) -> Phone:
        phone = Phone.connected(SERVICE, server.token(role, user), session, user, role, recorder)
        async with limit:
            return await phones.enter_async_context(phone)

    async with asyncio.TaskGroup() as connecting:
        tasks = {user: connecting.create_task(connect(user)) for user in users}
    return {user: task.result() for user, task in tasks.items()}
