"""Whatever clients, nodes and the journal do, in whatever order: what was promised holds.

A history is a list of steps, each a name, two numbers that choose among what there is, and a pause. It runs on a loop
of its own, so that every run of the same history is the same to the microsecond.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from haulcast.domain.broadcast import Trip
from haulcast.domain.commands import Accept
from haulcast.domain.events import Expired, Offered, TruckAssigned, WaveSent
from haulcast.domain.evolve import replay
from haulcast.domain.ids import BroadcastId, TransporterId
from haulcast.domain.replies import Done, Reply
from haulcast.domain.states import ACTIVE_TRIP, BroadcastStatus, RequestStatus, TripStatus
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import RequestKey
from tests.sim.virtual_time import on_virtual_time
from tests.sim.world import ACME, TRUCK, Ask, Node, World

CUSTOMERS = 3
TRANSPORTERS = 4
UNKNOWN_OUTCOMES = {ErrorCode.UNAVAILABLE, ErrorCode.DRAINING, ErrorCode.BUSY}
HARMLESS_LOGS = {
    "commit_failed",
    "actor_died",
    "actor_start_failed",
    "message_quarantined",
    "nodes_lost",
    "drain_timed_out",
    "adoption_failed",
    "handover_timed_out",
    "commits_abandoned",
}

Step = tuple[str, int, int, float]


class History:
    """A world, and what the steps of a history do to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.restarted = False
        self.disturbed = False  # commits failed or were slow, or a node was away

    @property
    def running(self) -> list[Node]:
        """The nodes that clients can reach."""
        return [node for node in self.world.nodes if node.running]

    async def settle_in(self) -> None:
        """Transporters near and far, each with a second truck and a van in the yard."""
        for n in range(TRANSPORTERS):
            name = f"t{n}"
            await self.world.transporter(name, km=1 + 8 * n)
            await self.world.spare_vehicle(name, f"{name}-v2")
            await self.world.spare_vehicle(name, f"{name}-van", "van")
            await self.world.spare_driver(name, f"{name}-d2")

    async def create(self, x: int, y: int) -> None:
        trucks: Mapping[str, int] = ({TRUCK: 1}, {TRUCK: 2}, {TRUCK: 1, "van": 1})[x // CUSTOMERS % 3]
        self.world.create(f"c{x % CUSTOMERS}", trucks, expires_in_s=(10, 20, 40, 90)[y % 4], node=self._node(y))

    async def accept(self, x: int, y: int) -> None:
        name = f"t{x % TRANSPORTERS}"
        vehicle, vehicle_type = ((f"{name}-v", TRUCK), (f"{name}-v2", TRUCK), (f"{name}-van", "van"), ("t0-v", TRUCK))[
            x // TRANSPORTERS % 4
        ]
        driver = (f"{name}-d", f"{name}-d2", "t0-d")[y // 8 % 3]
        if broadcast := await self._broadcast(y):
            self.world.accept(
                broadcast, name, vehicle=vehicle, vehicle_type=vehicle_type, driver=driver, node=self._node(x)
            )

    async def accept_by_all(self, x: int, y: int) -> None:
        if broadcast := await self._broadcast(y):
            for n in range(TRANSPORTERS):
                self.world.accept(broadcast, f"t{n}", node=self._node(x + n))

    async def cancel(self, x: int, y: int) -> None:
        if broadcast := await self._broadcast(y):
            self.world.cancel(broadcast, (await self.world.state(broadcast)).customer_id, node=self._node(x))

    async def decline(self, x: int, y: int) -> None:
        if broadcast := await self._broadcast(y):
            self.world.decline(broadcast, f"t{x % TRANSPORTERS}")

    async def update_trip(self, x: int, y: int) -> None:
        if broadcast := await self._broadcast(y):
            for number, request in enumerate((await self.world.state(broadcast)).requests, start=1):
                if request.trip is not None:
                    status = (TripStatus.DELIVERED, TripStatus.LOADED, TripStatus.CANCELLED)[x % 3]
                    self.world.update_trip(broadcast, request.trip.driver_id, status, truck=number)

    async def resend(self, x: int, y: int) -> None:
        if self.world.asks:
            self.world.resend(self.world.asks[-1 - x % len(self.world.asks)])

    async def online(self, x: int, y: int) -> None:
        availability = self._node(y).dispatch.availability
        with suppress(RequestError):
            await availability.go_online(ACME, TransporterId(f"t{x % TRANSPORTERS}"))

    async def offline(self, x: int, y: int) -> None:
        availability = self._node(y).dispatch.availability
        with suppress(RequestError):
            await availability.go_offline(ACME, TransporterId(f"t{x % TRANSPORTERS}"))

    async def fail_commits(self, x: int, y: int) -> None:
        self.disturbed = True
        self.world.journal.failing = 1 + x % 4

    async def lose_answers(self, x: int, y: int) -> None:
        self.disturbed = True
        self.world.journal.losing = 1 + x % 4

    async def fail_claims(self, x: int, y: int) -> None:
        self.disturbed = True
        self.world.journal.claims_failing = x % 4
        self.world.journal.claims_losing = y % 3

    async def slow_down(self, x: int, y: int) -> None:
        self.disturbed = True
        self.world.journal.before_s = (0, 0.003, 0.3)[x % 3]
        self.world.journal.after_s = (0, 0.003, 0.3)[y % 3]

    async def stop(self, x: int, y: int) -> None:
        self.restarted = self.disturbed = True
        await self._node(x).stop(timeout_s=1)
        await self._keep_one()

    async def crash(self, x: int, y: int) -> None:
        self.restarted = self.disturbed = True
        await self._node(x).crash()
        await asyncio.sleep((0, 0, 12)[y % 3])
        await self._keep_one()

    async def second_node(self, x: int, y: int) -> None:
        self.restarted = self.disturbed = True
        if len(self.running) < 3:
            await self.world.boot()

    async def end(self) -> None:
        """Have all come to rest, and every trip to its end, at one node."""
        self.world.journal.failing = self.world.journal.losing = 0
        self.world.journal.claims_failing = self.world.journal.claims_losing = 0
        self.world.journal.before_s = self.world.journal.after_s = 0
        await asyncio.sleep(10)
        for node in self.running:
            await node.stop()
        await self.world.boot()
        await asyncio.sleep(100)
        for broadcast, trip in await self._trips():
            await self.world.update_trip(
                broadcast, trip.driver_id, TripStatus.DELIVERED, truck=int(trip.trip_id.split("-")[1])
            )
        await asyncio.sleep(10)

    def _node(self, choice: int) -> Node:
        return self.running[choice % len(self.running)]

    async def _keep_one(self) -> None:
        if not self.running:
            await self.world.boot()

    async def _broadcast(self, choice: int) -> BroadcastId | None:
        """One of the newest, so that most steps concern something that lives."""
        newest = await self.world.journal.list_broadcasts(ACME, None, 4)
        return newest[choice % len(newest)].state.broadcast_id if newest else None

    async def _trips(self) -> list[tuple[BroadcastId, Trip]]:
        return [
            (state.broadcast_id, trip)
            for n in range(TRANSPORTERS)
            for state, trip in await self.world.journal.read_trips(ACME, transporter_id=TransporterId(f"t{n}"))
        ]


Action = Callable[[History, int, int], Awaitable[None]]

CLIENTS: dict[str, Action] = {
    "create": History.create,
    "accept": History.accept,
    "accept_by_all": History.accept_by_all,
    "cancel": History.cancel,
    "decline": History.decline,
    "update_trip": History.update_trip,
    "resend": History.resend,
    "online": History.online,
    "offline": History.offline,
}
FAULTS: dict[str, Action] = {
    "fail_commits": History.fail_commits,
    "lose_answers": History.lose_answers,
    "fail_claims": History.fail_claims,
    "slow_down": History.slow_down,
    "stop": History.stop,
    "crash": History.crash,
}
RIVALS: dict[str, Action] = {"second_node": History.second_node}

PAUSES = (0, 0, 0, 0.001, 0.01, 0.1, 1, 5, 15)


def histories(actions: Mapping[str, Action]) -> st.SearchStrategy[list[Step]]:
    """Histories of these actions; what clients do most, and early, comes more often."""
    names = [*actions, "create", "create", "accept", "accept_by_all"]
    step = st.tuples(st.sampled_from(names), st.integers(0, 47), st.integers(0, 47), st.sampled_from(PAUSES))
    return st.lists(step, min_size=1, max_size=30)


def play(steps: list[Step], check_more: Callable[[History], None] = lambda _history: None) -> None:
    """Run a history and check what must hold of every one."""
    actions = {**CLIENTS, **FAULTS, **RIVALS}

    async def run() -> None:
        async with World.open() as world:
            history = History(world)
            await history.settle_in()
            for name, x, y, pause_s in steps:
                await actions[name](history, x, y)
                await asyncio.sleep(pause_s)
            await history.end()
            assert world.node.leftovers() == {}
            assert await world.journal.engaged_vehicles() == []
            assert world.node.presence.engaged(ACME) == set()
            check_answers(world)
            check_order_of_landing(world)
            await check_events(world)
            check_publications(world)
            check_more(history)

    with capture_logs() as logs:
        on_virtual_time(run)
    wrong = {entry["event"] for entry in logs if entry["log_level"] in ("warning", "error")}
    assert wrong <= HARMLESS_LOGS


def check_answers(world: World) -> None:
    """Every ask is answered, the same request the same, and whoever was told to have won has won."""
    said: dict[RequestKey, list[tuple[Ask, Reply]]] = defaultdict(list)
    for ask in world.asks:
        error = ask.future.exception()
        if error is None:
            said[ask.origin.key].append((ask, ask.future.result()))
        else:
            assert isinstance(error, RequestError)
            assert error.code in UNKNOWN_OUTCOMES
    won: dict[object, RequestKey] = {}
    for key, answers in said.items():
        assert all(reply == answers[0][1] for _, reply in answers)
        ask, reply = answers[0]
        if isinstance(ask.command, Accept) and isinstance(reply, Done):
            assert won.setdefault(reply.data["request_id"], key) == key
            trips = [
                event.trip
                for write in world.journal.landed
                for event in write.events
                if isinstance(event, TruckAssigned)
            ]
            [trip] = [trip for trip in trips if trip.trip_id == reply.data["trip_id"]]
            assert (trip.transporter_id, trip.vehicle_id, trip.driver_id) == (
                ask.command.transporter_id,
                ask.command.vehicle_id,
                ask.command.driver_id,
            )


def check_order_of_landing(world: World) -> None:
    """At no moment was a vehicle or a driver on two trips, or had a customer two live broadcasts."""
    engaged: dict[str, str] = {}
    active: dict[str, str] = {}
    for write in world.journal.landed:
        if write.assigned is not None:
            for what in (write.assigned.vehicle_id, write.assigned.driver_id):
                assert engaged.setdefault(what, write.assigned.trip_id) == write.assigned.trip_id
        for update in write.trip_updates:
            if update.status not in ACTIVE_TRIP:
                engaged = {what: trip for what, trip in engaged.items() if trip != update.trip_id}
        if write.state is not None:
            if write.state.live:
                assert active.setdefault(write.state.customer_id, write.broadcast_id) == write.broadcast_id
            elif active.get(write.state.customer_id) == write.broadcast_id:
                del active[write.state.customer_id]
    assert engaged == active == {}


async def check_events(world: World) -> None:
    """The events give the state; nobody was offered twice; nothing happened after the expiry that may not."""
    for listed in await world.journal.list_broadcasts(ACME, None, 1_000):
        stored = await world.journal.read_broadcast(ACME, listed.state.broadcast_id)
        assert stored is not None
        state = stored.state
        events = await world.journal.read_events(ACME, state.broadcast_id)
        assert replay(events) == state
        assert not state.live
        assert all(request.status is not RequestStatus.SEARCHING for request in state.requests)
        offered = [offer.transporter_id for event in events if isinstance(event, WaveSent) for offer in event.offers]
        offered += [event.offer.transporter_id for event in events if isinstance(event, Offered)]
        assert len(offered) == len(set(offered)) == len(state.offers) == state.notified
        for event in events:
            if isinstance(event, Expired):
                assert event.at_ms >= state.expires_at_ms
            elif isinstance(event, TruckAssigned | WaveSent | Offered):
                assert event.at_ms < state.expires_at_ms


def check_publications(world: World) -> None:
    """Each node speaks of a broadcast in the order of its versions, and no step is told twice."""
    told: dict[BroadcastId, list[int]] = defaultdict(list)
    versions: dict[tuple[int, BroadcastId], list[tuple[int, int]]] = defaultdict(list)
    for published in world.published:
        broadcast = published.change.after.broadcast_id
        told[broadcast].append(published.change.after.seq)
        versions[published.incarnation, broadcast].append(published.version)
        before = published.change.before
        assert (0 if before is None else before.seq) < published.change.after.seq
    assert all(len(seqs) == len(set(seqs)) for seqs in told.values())
    assert all(earlier < later for line in versions.values() for earlier, later in pairwise(line))


def nothing_is_late_or_untold(history: History) -> None:
    """With one node that stays and a journal that works, all that lands is published, and expiries are on time."""
    world = history.world
    checkpoints = [(write.broadcast_id, write.state.seq) for write in world.journal.landed if write.state is not None]
    published = [(one.change.after.broadcast_id, one.change.after.seq) for one in world.published]
    if not history.restarted:
        assert published == checkpoints
    if not history.disturbed:
        ends = [one for one in world.published if one.change.before is not None and one.change.before.live]
        expiries = [one for one in ends if one.change.after.status is BroadcastStatus.EXPIRED]
        assert all(one.at_ms - one.change.after.expires_at_ms <= 50 for one in expiries)


def versions_never_go_back(history: History) -> None:
    """As long as one node follows another, everything said about a broadcast comes in the order of its versions."""
    versions: dict[BroadcastId, list[tuple[int, int]]] = defaultdict(list)
    for published in history.world.published:
        versions[published.change.after.broadcast_id].append(published.version)
    for line in versions.values():
        assert all(earlier < later for earlier, later in pairwise(line))
        assert all(earlier[1] < later[1] for earlier, later in pairwise(line))
    nothing_is_late_or_untold(history)


@settings(max_examples=200)
@given(histories(CLIENTS))
def test_histories_of_one_node_and_a_journal_that_works(steps: list[Step]) -> None:
    play(steps, versions_never_go_back)


@settings(max_examples=400)
@given(histories({**CLIENTS, **FAULTS}))
def test_histories_with_faults_stops_and_crashes(steps: list[Step]) -> None:
    play(steps, versions_never_go_back)


@settings(max_examples=200)
@example([("create", 0, 3, 0), ("second_node", 0, 0, 0), ("accept_by_all", 0, 0, 0), ("cancel", 1, 0, 30)])
@example([("create", 0, 0, 0), ("fail_claims", 0, 1, 0), ("second_node", 0, 0, 0), ("stop", 0, 0, 0)])
@given(histories({**CLIENTS, **FAULTS, **RIVALS}))
def test_histories_with_several_nodes_that_take_broadcasts_from_one_another(steps: list[Step]) -> None:
    play(steps)
