"""Customers and transporters of a simulated cluster, who behave as the reference client does.

1. A request keeps its id until it is answered: not answered in time, or with an error that says `retry`, it is sent
   again, to whichever server. Some are sent to two servers at once, and some again although they were answered.
2. A request that a server carries out under a broadcast id of its own (`Create`) gets a new one each time.
3. An accept that was answered with `pending` is looked for in the journal until it waits no more: its winner drives.
4. Each client draws from a generator of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from haulcast.actors.roster import Roster
from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Accept, Cancel, Command, Create, Decline, TruckSpec, UpdateTrip
from haulcast.domain.fleet import Vehicle
from haulcast.domain.ids import BroadcastId, CustomerId, DriverId, TransporterId, TripId, VehicleId
from haulcast.domain.replies import Done, Reply
from haulcast.domain.states import TripStatus
from haulcast.errors import ERRORS, HaulcastError, RequestError
from haulcast.ports import Origin, RequestKey, Role
from tests.sim.chronicle import Request, WatchedJournal
from tests.sim.cluster_servers import Server
from tests.sim.processes import ProcessLoop
from tests.sim.world import ACME, DROP, PICKUP, TRUCK, World, north

EXPIRIES_S = (1, 3, 6, 12, 20)
HAULS = (
    (TruckSpec(TRUCK, 1),),
    (TruckSpec(TRUCK, 2),),
    (TruckSpec(TRUCK, 3),),
    (TruckSpec(TRUCK, 1), TruckSpec("van", 1)),
)
FEED_LENGTH = 6
_LOOK_EVERY_S = 0.2
_LATER_S = 10.0
"""When, at the latest, somebody who has been answered asks once more."""
LATECOMER = "t5"
TRANSPORTERS = ("t0", "t1", "t2", "t3", "t4", LATECOMER)
CUSTOMERS = ("c0", "c1", "c2")


class Clients:
    """All clients of a schedule. They begin nothing new after `busy_s`, and want their answers until `until_s`."""

    def __init__(
        self,
        seed: str,
        world: World,
        journal: WatchedJournal,
        servers: Sequence[Server],
        trace: list[tuple[object, ...]],
        loop: ProcessLoop,
        busy_s: float,
        until_s: float,
    ) -> None:
        self._seed = seed
        self._world = world
        self._journal = journal
        self._servers = servers
        self._trace = trace
        self._loop = loop
        self._busy_s = busy_s
        self._until_s = until_s
        self._broadcasts = 0
        self.requests: dict[RequestKey, Request] = {}

    async def run(self) -> None:
        """Until nobody wants anything any more."""
        async with asyncio.TaskGroup() as group:
            for name in CUSTOMERS:
                group.create_task(self._customer(name, Random(f"{self._seed} {name}")))
            for name in TRANSPORTERS:
                group.create_task(self._transporter(name, group, Random(f"{self._seed} {name}")))
            group.create_task(self._come_online(Random(f"{self._seed} online")))

    # --- What they do ---

    async def _customer(self, name: str, random: Random) -> None:
        rounds = 0
        while await self._pause(random, 2.0):
            rounds += 1
            trucks = random.choice(HAULS)
            expires_in_s = random.choice(EXPIRIES_S)

            def create(trucks: tuple[TruckSpec, ...] = trucks, expires_in_s: int = expires_in_s) -> Create:
                self._broadcasts += 1
                broadcast_id = BroadcastId(f"b{self._broadcasts}")
                return Create(ACME, broadcast_id, CustomerId(name), PICKUP, DROP, trucks, expires_in_s)

            reply = await self._request(random, Role.CUSTOMER, name, f"create {rounds}", create)
            if isinstance(reply, Done) and random.random() < 0.3:
                broadcast_id = BroadcastId(str(reply.data["broadcast_id"]))
                await asyncio.sleep(random.expovariate(0.5))
                cancel = Cancel(CustomerId(name))
                await self._request(random, Role.CUSTOMER, name, f"cancel {rounds}", lambda: cancel, broadcast_id)  # noqa: B023

    async def _transporter(self, name: str, group: asyncio.TaskGroup, random: Random) -> None:
        rounds = 0
        while await self._pause(random, 0.7):
            rounds += 1
            feed = [one.state for one in await self._journal.list_broadcasts(ACME, None, FEED_LENGTH)]
            wanted = [state for state in feed if state.live] or feed
            for number, state in enumerate(random.sample(wanted, min(len(wanted), random.choice((1, 1, 1, 2))))):
                if random.random() < 0.1:
                    command: Command = Decline(TransporterId(name))
                else:
                    command = self._accept(name, random, state)
                own = Random(random.random())
                group.create_task(self._want(own, name, f"{rounds}.{number}", state.broadcast_id, command))

    def _accept(self, name: str, random: Random, state: Broadcast) -> Accept:
        kind = random.choice(state.requests).vehicle_type
        vehicle = random.choice((f"{name}-v", f"{name}-v", f"{name}-v2")) if kind == TRUCK else f"{name}-van"
        driver = random.choice((f"{name}-d", f"{name}-d", f"{name}-d2"))
        return Accept(TransporterId(name), VehicleId(vehicle), kind, DriverId(driver))

    async def _want(self, random: Random, name: str, what: str, broadcast_id: BroadcastId, command: Command) -> None:
        """Ask, and drive what was won."""
        reply = await self._request(random, Role.TRANSPORTER, name, what, lambda: command, broadcast_id)
        if not isinstance(command, Accept) or not isinstance(reply, Done) or reply.data["status"] == "pending":
            return
        if reply.data["status"] == "pending":
            trip_id = await self._decided(broadcast_id, command)
            if trip_id is None:
                return
        else:
            trip_id = TripId(str(reply.data["trip_id"]))
        driver_id = command.driver_id
        end = random.choice((TripStatus.DELIVERED, TripStatus.CANCELLED))
        for number, status in enumerate((TripStatus.LOADED, end)):
            await asyncio.sleep(random.expovariate(1.0))
            update = UpdateTrip(driver_id, trip_id, status, by_driver=True)
            update_name = f"{what} {trip_id} {number}"
            await self._request(random, Role.DRIVER, driver_id, update_name, lambda: update, broadcast_id)  # noqa: B023

    async def _decided(self, broadcast_id: BroadcastId, command: Accept) -> TripId | None:
        """The trip of an accept that waited; None if it has not won."""
        while self._loop.time() < self._until_s:
            stored = await self._journal.read_broadcast(ACME, broadcast_id)
            assert stored is not None
            trips = (trip for trip in stored.state.trips if trip.active and trip.vehicle_id == command.vehicle_id)
            if (trip := next(trips, None)) is not None:
                return trip.trip_id
            if all(accept.vehicle_id != command.vehicle_id for accept in stored.state.waiting):
                return None
            await asyncio.sleep(_LOOK_EVERY_S)
        return None

    async def _come_online(self, random: Random) -> None:
        """One transporter comes late, and others go and come, at any server; nobody waits for the answer."""
        while await self._pause(random, 2.0):
            name = TransporterId(random.choice((LATECOMER, *TRANSPORTERS)))
            run = random.choice(self._servers).now
            if run.up:
                run.process.spawn(_toggle(run.dispatch.availability, name, random.random() < 0.3))

    # --- How they ask ---

    async def _request(
        self,
        random: Random,
        role: Role,
        user: str,
        name: str,
        command: Callable[[], Command],
        broadcast_id: BroadcastId | None = None,
    ) -> Reply | None:
        """Ask until there is an answer; now and then at two servers at once, or once more afterwards."""
        key = RequestKey(ACME, role, user, name)
        request = self.requests[key] = Request(key, command())
        fingerprint = _fingerprint(request.command, broadcast_id)
        attempts = [self._attempt(Random(random.random()), request, command, fingerprint, broadcast_id)]
        if random.random() < 0.15:
            attempts.append(self._attempt(Random(random.random()), request, command, fingerprint, broadcast_id))
        replies = await asyncio.gather(*attempts)
        if random.random() < 0.1:
            await asyncio.sleep(min(random.expovariate(0.5), _LATER_S))
            await self._attempt(random, request, command, fingerprint, broadcast_id)
        return replies[0]

    async def _attempt(
        self,
        random: Random,
        request: Request,
        command: Callable[[], Command],
        fingerprint: str,
        broadcast_id: BroadcastId | None,
    ) -> Reply | None:
        request.open += 1
        while self._loop.time() < self._until_s:
            asked = command()
            to = asked.broadcast_id if isinstance(asked, Create) else broadcast_id
            assert to is not None
            server = random.choice(self._servers)
            heard: asyncio.Future[Reply | RequestError] = self._loop.create_future()
            request.sent_at_ms.append(self._world.clock.now_ms())
            self._trace.append((self._loop.time(), "ask", server.number, request.key, to))
            server.ask(asked, Origin(request.key, fingerprint), to, lambda answer: _hear(heard, answer))  # noqa: B023
            answer: Reply | RequestError | None = None
            await asyncio.wait([heard], timeout=random.choice((0.3, 2.0, 7.0)))
            if heard.done():
                answer = heard.result()
            self._trace.append((self._loop.time(), "hear", request.key, str(answer)))
            if isinstance(answer, RequestError):
                request.errors.append(answer.code)
                if not ERRORS[answer.code].retry:
                    break
            elif answer is not None:
                request.replies.append((self._world.clock.now_ms(), answer))
                request.undurable |= request.key not in self._journal.reported_replies
                request.open -= 1
                return answer
            await asyncio.sleep(random.uniform(0.02, 0.5))
        return None

    async def _pause(self, random: Random, mean_s: float) -> bool:
        """Whether there is time for more."""
        await asyncio.sleep(random.expovariate(1 / mean_s))
        return self._world.clock.monotonic_s() < self._busy_s


async def settle_fleet(world: World) -> None:
    """Transporters near and far, each with a second truck and a van in the yard; the last is not online yet."""
    for number, name in enumerate(TRANSPORTERS):
        if name == LATECOMER:
            await world.offline(name)
        else:
            assert world.presence is not None
            vehicle = await world.offline(name)
            await world.presence.go_online(ACME, vehicle.transporter_id)
            world.presence.report(ACME, vehicle, north(1 + 8 * number))
        await world.spare_vehicle(name, f"{name}-v2")
        await world.spare_vehicle(name, f"{name}-van", "van")
        await world.spare_driver(name, f"{name}-d2")


def _fingerprint(command: Command, broadcast_id: BroadcastId | None) -> str:
    if isinstance(command, Create):
        return str(replace(command, broadcast_id=BroadcastId("")))
    return f"{broadcast_id} {command}"


def _hear(heard: "asyncio.Future[Reply | RequestError]", answer: Reply | RequestError) -> None:
    if not heard.done():
        heard.set_result(answer)


async def _toggle(availability: Roster, name: TransporterId, goes: bool) -> None:
    try:
        if goes:
            await availability.go_offline(ACME, name)
        else:
            await availability.go_online(ACME, name)
            availability.report(ACME, Vehicle(VehicleId(f"{name}-v"), name, TRUCK), north(3))
    except HaulcastError:
        return
