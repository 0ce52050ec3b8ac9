"""A small city that keeps all nodes busy while something happens to them: one tenant, everybody roaming.

1. Customers broadcast one haul after the other. Most have their pickup where the transporters are; some take them back
   soon; some have it where nobody is, so that only their deadline ends them.
2. Every transporter accepts whatever its feed shows as open, at once and once, with its one vehicle, and delivers soon
   whatever trip its feed shows.
3. On each node an operator has the board open, and comes back to it with what was held.
4. A story waits for what it wants to happen (`won_more`, `racing`), breaks something, and lets the city `finish`: no
   new hauls, live ones are taken back, and everything that is under way comes to its end. Then every board and every
   feed has to come to what the journal says, whatever was lost, doubled, resumed or failed over on the way.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import aiohttp
import asyncpg
import orjson

from haulcast.clock import SystemClock
from haulcast.demo.checker import LIVE
from haulcast.demo.kept import PostgresTables
from haulcast.demo.record import Recorder
from haulcast.domain.delta import difference
from haulcast.domain.ids import DriverId, TenantId, TransporterId
from haulcast.domain.views import broadcast_view
from haulcast.ports import Journal
from haulcast.storage.postgres import PostgresJournal
from haulcast.transport.board import ENDED_SHOWN_MS, MAX_SHOWN
from haulcast.transport.snapshots import Snapshots
from tests.acceptance.cluster.nodes import ClusterNode, Nodes
from tests.acceptance.cluster.roaming import Answer, User
from tests.acceptance.network import Network, accept_of, haul, north_of_pickup
from tests.acceptance.phone import Json, eventually, eventually_answered

CUSTOMERS = 9
TRANSPORTERS = 18
NOWHERE_KM = 3_000
REPORT_EVERY_S = 1.5
LOOK_EVERY_S = 0.03
ENDED_WITHIN_S = 40.0
CONVERGED_WITHIN_S = 30.0
"""Half of the time after which a board is compared with the journal anyway: what was lost has to be noticed."""


class Crowd:
    """The city, for the time of an `async with`."""

    def __init__(self, nodes: Nodes, tenant: str) -> None:
        self.nodes = nodes
        self.tenant = tenant
        self.recorder = Recorder()
        self.won = 0
        """Trips that transporters have been shown."""
        self.customers: list[User] = []
        self.transporters: list[User] = []
        self.operators: list[User] = []
        self.url = nodes.postgres.url
        self._cleanup = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._shopping: list[asyncio.Task[None]] = []
        self._working: list[asyncio.Task[None]] = []
        self._watching: list[asyncio.Task[None]] = []

    @property
    def users(self) -> list[User]:
        """Everybody."""
        return [*self.customers, *self.transporters, *self.operators]

    async def __aenter__(self) -> Self:
        self.session = await self._cleanup.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        )
        async with Network(self.nodes.all[1].url, self.tenant) as network:
            await network.create_tenant(
                wave_radii_km=[50], wave_interval_s=1, min_expiry_s=1, toggle_limit=1_000, reminder_lead_s=1
            )
            names = [f"t{number}" for number in range(TRANSPORTERS)]
            await asyncio.gather(*(network.hire(name, {f"{name}-v": "truck_14ft"}, [f"{name}-d"]) for name in names))
        tasks = await self._cleanup.enter_async_context(asyncio.TaskGroup())
        self._cleanup.callback(self._stop)
        self.transporters = [self.user("transporter", name, number) for number, name in enumerate(names)]
        self._working = [tasks.create_task(self._work(user, number)) for number, user in enumerate(self.transporters)]
        self.operators = [self.user("operator", f"op{number}", number) for number in range(len(self.nodes.all))]
        self._watching = [tasks.create_task(self._watch(user)) for user in self.operators]
        customers = [self.user("customer", f"c{number}", number) for number in range(CUSTOMERS)]
        self.customers += customers
        self._shopping = [tasks.create_task(self._shop(user)) for user in customers]
        await self.won_more(10)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(user.hang_up() for user in self.users), return_exceptions=True)
        await self._cleanup.__aexit__(kind, error, trace)

    def user(self, role: str, name: str, number: int) -> User:
        """Somebody of the city, who begins on that node."""
        return User(self.nodes.all, number % len(self.nodes.all), self.session, self.tenant, role, name, self.recorder)

    # --- What a story waits for ---

    async def won_more(self, trucks: int, within_s: float = 30.0) -> None:
        """Wait until so many more trucks are won than were at the beginning."""
        goal = self.won + trucks
        await eventually(lambda: self.won >= goal, f"{trucks} more trucks are won", within_s)

    async def racing(self, requests: int = 3) -> None:
        """Wait until so many accepts are under way at once."""

        def under_way() -> bool:
            return (
                sum(
                    user.requests[request_id][0] == "offer.accept"
                    for user in self.transporters
                    for request_id in user.waiting
                )
                >= requests
            )

        await eventually(under_way, f"{requests} accepts are under way")

    async def busiest(self) -> ClusterNode:
        """The node with the most live broadcasts, in the middle of a race."""
        incarnations = {await asyncio.to_thread(node.incarnation): node for node in self.nodes.all}
        while True:
            await self.racing()
            owners = [owner for owner in (await self.owners()).values() if owner in incarnations]
            if len(owners) >= 2:
                return incarnations[max(owners, key=owners.count)]

    async def lonely(self, node: ClusterNode, expires_in_s: int, count: int = 3) -> list[str]:
        """Broadcasts of that node, each of a customer of its own, which nothing but their deadline will end."""
        ids = []
        for _ in range(count):
            customer = self.user("customer", f"lonely{len(self.customers)}", node.number)
            self.customers.append(customer)
            answer = await customer.ask("broadcast.create", _haul_nowhere(expires_in_s))
            assert answer is not None
            assert answer.ok, answer
            ids.append(str(answer.body["broadcast_id"]))
        return ids

    def customer_of(self, broadcast_id: str) -> User:
        """Who was told that it was made."""
        return next(
            user
            for user in self.customers
            for answers in user.answers.values()
            if answers[0].body.get("broadcast_id") == broadcast_id
        )

    async def expired(self, broadcasts: list[str], within_s: float = 20.0) -> None:
        """Wait until all of these have, by the journal."""

        async def all_have() -> bool:
            statuses = await self.statuses()
            return all(statuses[broadcast_id] == "expired" for broadcast_id in broadcasts)

        await eventually_answered(all_have, "their deadlines fire", within_s)

    async def statuses(self) -> dict[str, str]:
        """The status of every broadcast, by the journal."""
        async with PostgresTables.opened(self.url) as tables:
            kept = await tables.kept(self.tenant)
        return {row["broadcast_id"]: row["status"] for row in kept.broadcasts}

    async def owners(self) -> dict[str, int]:
        """The incarnation that owns each live broadcast, by the journal."""
        async with PostgresTables.opened(self.url) as tables:
            return await tables.owners(self.tenant)

    async def finish(self) -> None:
        """Let everything come to its end, and hang up."""
        self._stopping.set()
        await asyncio.wait_for(asyncio.gather(*self._shopping), ENDED_WITHIN_S)

        async def over() -> bool:
            return not any(status in LIVE for status in (await self.statuses()).values())

        await eventually_answered(over, "every broadcast has ended", ENDED_WITHIN_S)
        await asyncio.wait_for(asyncio.gather(*self._working), ENDED_WITHIN_S)
        journal = await PostgresJournal.open(self.url)
        try:
            for user in (*self.operators, *self.transporters):
                await self._comes_to_the_truth(user, journal)
        finally:
            await journal.close()
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*(user.hang_up() for user in self.users))

    async def _comes_to_the_truth(self, user: User, journal: Journal) -> None:
        tenant_id, clock = TenantId(self.tenant), SystemClock()
        topic, truth = self._board, Json()
        last: Json = {}
        if user.role == "operator":
            listed = await journal.list_board(tenant_id, clock.now_ms() - ENDED_SHOWN_MS, None, MAX_SHOWN)
            truth["broadcasts"] = {one.state.broadcast_id: broadcast_view(one.state) for one in listed}
        else:
            topic = f"feed:{user.name}"
            truth = await Snapshots(journal, clock, _nobody).feed_view(tenant_id, TransporterId(user.name))
        truth = orjson.loads(orjson.dumps(truth))

        async def shown() -> bool:
            view = (await user.connected()).views.get(topic)
            last.clear()
            last.update({} if view is None else view.state)
            if "broadcasts" in last:  # `route` is nothing that the journal knows of
                last["broadcasts"] = {
                    broadcast_id: {field: value for field, value in entry.items() if field != "route"}
                    for broadcast_id, entry in last["broadcasts"].items()
                }
            return bool(last == truth)

        try:
            await eventually_answered(shown, f"{user.name} sees {topic} as the journal has it", CONVERGED_WITHIN_S)
        except AssertionError as error:
            wrong = difference(truth, last)
            raise AssertionError(f"{error}; it differs in {[*wrong.set][:10]} {wrong.gone[:10]}") from None

    @property
    def _board(self) -> str:
        return f"board:{self.tenant}"

    def _stop(self) -> None:
        for task in (*self._shopping, *self._working, *self._watching):
            task.cancel()

    # --- What they do ---

    async def _shop(self, customer: User) -> None:
        rng = customer.rng
        while not self._stopping.is_set():
            mood, expires_in_s = rng.random(), rng.randint(3, 5)
            if mood < 0.2:
                data = _haul_nowhere(expires_in_s)
            else:
                data = haul({"truck_14ft": rng.randint(1, 3)}, expires_in_s=expires_in_s)
            created = await customer.ask("broadcast.create", data)
            if created is not None and created.ok:
                broadcast_id = created.body["broadcast_id"]
                if mood > 0.8:
                    await asyncio.sleep(rng.uniform(0, 0.3))
                    await customer.ask("broadcast.cancel", {"broadcast_id": broadcast_id})
                await self._over(customer, f"broadcast:{broadcast_id}")
            await asyncio.sleep(rng.uniform(0.1, 0.6))

    async def _over(self, customer: User, topic: str) -> None:
        """The customer sees that it has ended; one that was over before it could be seen is not shown any more. When
        the city stops it is taken back."""
        taken_back = False
        async with asyncio.timeout(ENDED_WITHIN_S):
            while True:
                if self._stopping.is_set() and not taken_back:
                    await customer.ask("broadcast.cancel", {"broadcast_id": topic.partition(":")[2]})
                    taken_back = True
                phone = await customer.connected()
                if topic not in phone.views and topic not in phone.greeting["topics"]:
                    if await self._ended(topic.partition(":")[2]):
                        return
                elif topic in phone.views and phone.state(topic)["status"] not in LIVE:
                    return
                await asyncio.sleep(LOOK_EVERY_S)

    async def _ended(self, broadcast_id: str) -> bool:
        try:
            return (await self.statuses()).get(broadcast_id, "") not in LIVE
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # the journal may be what is broken
            return False

    async def _watch(self, operator: User) -> None:
        """Have the board open, until the city has come to its end."""
        operator.holds(self._board)
        while True:
            await operator.connected()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _work(self, transporter: User, number: int) -> None:
        """Until the city stops and nothing is under way any more."""
        clock: Callable[[], float] = asyncio.get_running_loop().time
        lat, lng = north_of_pickup(1 + number / 10)
        report_at, tried, won = 0.0, set[str](), set[str]()
        async with asyncio.TaskGroup() as errands:
            while not (self._stopping.is_set() and all(task.done() for task in self._shopping)):
                phone = await transporter.connected()
                if clock() >= report_at:
                    report_at = clock() + REPORT_EVERY_S
                    report = {"vehicle_id": f"{transporter.name}-v", "lat": lat, "lng": lng}
                    errands.create_task(self._report(transporter, report))
                feed = phone.views.get(f"feed:{transporter.name}")
                offers: dict[str, Any] = {} if feed is None else feed.state["offers"]
                for broadcast_id, offer in offers.items():
                    if offer["status"] == "open" and broadcast_id not in tried:
                        tried.add(broadcast_id)
                        errands.create_task(self._accept(transporter, broadcast_id))
                for trip_id in () if feed is None else feed.state["trips"].keys() - won:
                    won.add(trip_id)
                    self.won += 1
                    errands.create_task(self._deliver(transporter, trip_id))
                await asyncio.sleep(LOOK_EVERY_S)

    async def _report(self, transporter: User, report: Json) -> None:
        await transporter.ask("location", report)
        await transporter.ask("transporter.online", {})

    async def _accept(self, transporter: User, broadcast_id: str) -> Answer | None:
        await asyncio.sleep(transporter.rng.uniform(0, 0.1))
        return await transporter.ask("offer.accept", accept_of(transporter.name, broadcast_id))

    async def _deliver(self, transporter: User, trip_id: str) -> None:
        """A truck was won, whether at once or later."""
        await asyncio.sleep(transporter.rng.uniform(0.1, 0.4))
        await transporter.ask("trip.update", {"trip_id": trip_id, "status": "delivered"})


async def _nobody(_tenant_id: TenantId, _drivers: Collection[DriverId]) -> set[DriverId]:
    return set()  # a feed does not show who is online


def _haul_nowhere(expires_in_s: int) -> Json:
    lat, lng = north_of_pickup(NOWHERE_KM)
    return haul(expires_in_s=expires_in_s, pickup={"lat": lat, "lng": lng, "address": "Nowhere"})
