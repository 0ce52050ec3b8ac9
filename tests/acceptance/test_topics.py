"""What phones show: B1, B3 and B8. That deltas fit and versions never go back, every phone of every test checks."""

import asyncio
import random

from haulcast.app import Node
from haulcast.client import Client
from tests.acceptance.cut import line_to
from tests.acceptance.network import TRUCK, Network, accept_of, haul, north_of_pickup, offered
from tests.acceptance.phone import Json, Phone, Version, View, eventually
from tests.acceptance.server import Server

CUSTOMERS = 4
TRANSPORTERS = 8
STORM_ROUNDS = 60
RESUMED = 8
"""As many topics as a phone asks for again."""


class Storm:
    """Customers and transporters who do whatever comes to their minds, each one thing after the other.

    `refusals` that users can bring about in such a muddle are no faults; any other is.
    """

    REFUSALS = frozenset(
        {
            "ACTIVE_BROADCAST_EXISTS",
            "BROADCAST_CANCELLED",
            "BROADCAST_FULLY_FILLED",
            "BROADCAST_EXPIRED",
            "REQUEST_ALREADY_TAKEN",
            "VEHICLE_BUSY",
            "DRIVER_BUSY",
            "TRIP_TRANSITION_INVALID",
        }
    )

    def __init__(self, rng: random.Random) -> None:
        self.over = False
        self._rng = rng

    async def customer(self, phone: Phone, rounds: int) -> None:
        """Broadcasts, and now and then takes it back."""
        for _ in range(rounds):
            if self.over:
                return
            live = [topic for topic, view in phone.views.items() if view.state["ended_at"] is None]
            if live and self._rng.random() < 0.3:
                await self._ask(phone, "broadcast.cancel", {"broadcast_id": live[0].removeprefix("broadcast:")})
            elif not live:
                await self._ask(phone, "broadcast.create", haul({TRUCK: self._rng.randint(1, 3)}))
            await self._pause()

    async def transporter(self, phone: Phone, rounds: int) -> None:
        """Accepts, declines, moves, drives on, and gives up."""
        for _ in range(rounds):
            if self.over:
                return
            open_ = [id_ for id_ in phone.offers if phone.has_offer(id_)]
            what = self._rng.random()
            if open_ and what < 0.5:
                await self._ask(phone, "offer.accept", accept_of(phone.user, self._rng.choice(open_)))
            elif open_ and what < 0.6:
                await self._ask(phone, "offer.decline", {"broadcast_id": self._rng.choice(open_)})
            elif phone.trips and what < 0.9:
                status = self._rng.choice(["en_route", "at_pickup", "loaded", "delivered", "delivered", "cancelled"])
                await self._ask(phone, "trip.update", {"trip_id": next(iter(phone.trips)), "status": status})
            else:
                lat, lng = north_of_pickup(self._rng.uniform(0, 9))
                await self._ask(phone, "location", {"vehicle_id": f"{phone.user}-v", "lat": lat, "lng": lng})
            await self._pause()

    async def _ask(self, phone: Phone, request_type: str, data: Json) -> None:
        reply = await phone.ask(request_type, data)
        while not reply["ok"] and reply["error"]["code"] == "RATE_LIMITED":
            # A phone on a fast machine waits as it is told to; how long is the server's to say.
            await asyncio.sleep(reply["error"]["data"]["retry_after_ms"] / 1000)
            reply = await phone.ask(request_type, data)
        assert reply["ok"] or reply["error"]["code"] in self.REFUSALS, reply

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.002, 0.02))  # below the rate limit, in no order


async def fresh_view(network: Network, role: str, user: str, topic: str) -> tuple[Version, Json]:
    """What somebody who subscribes only now is shown, and its version."""
    phone = await network.phone(role, user)
    await phone.do("subscribe", {"topic": topic})
    view = phone.views[topic]
    await phone.close()
    return view.version, view.state


async def test_snapshot_and_deltas_come_to_what_a_fresh_snapshot_says(server: Server, network: Network) -> None:
    """B1: after a storm of commands, everything that a phone has pieced together from the first snapshot on is what the
    journal says: all feeds, driver topics and broadcasts, for the users themselves and for an operator who watched."""
    rng = random.Random(1)
    customers = [await network.phone("customer", f"c{number}") for number in range(CUSTOMERS)]
    transporters = [await network.transporter(f"t{number}") for number in range(TRANSPORTERS)]
    drivers = [await network.phone("driver", f"{phone.user}-d") for phone in transporters]
    operator = await network.phone("operator", "op")
    for phone in (*transporters, *drivers):
        await operator.do("subscribe", {"topic": phone.greeting["topics"][0]})
    board = f"board:{network.tenant}"
    await operator.do("subscribe", {"topic": board})
    storm = Storm(rng)
    watching = asyncio.create_task(watch_all(operator, customers))
    await asyncio.gather(
        *(storm.customer(phone, STORM_ROUNDS) for phone in customers),
        *(storm.transporter(phone, STORM_ROUNDS) for phone in transporters),
    )
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert sum(len(phone.views) for phone in customers) > 2 * CUSTOMERS
    assert sum(len(phone.heard("trip_assigned")) for phone in transporters) > TRANSPORTERS

    for phone in (*transporters, *drivers):
        topic = phone.greeting["topics"][0]
        _, state = await fresh_view(network, phone.role, phone.user, topic)
        await phone.comes_to(topic, state)
        await operator.comes_to(topic, state)
    for phone in customers:
        for topic in phone.views:
            version, state = await fresh_view(network, "customer", phone.user, topic)
            for watcher in (phone, operator):
                if topic in watcher.views:
                    await watcher.comes_to(topic, state, version)
    _, state = await fresh_view(network, "operator", "op2", board)
    assert {f"broadcast:{id_}" for id_ in state["broadcasts"]} == {
        topic for phone in customers for topic in phone.views
    }
    wanted = without_routes(state)
    await eventually(lambda: without_routes(operator.state(board)) == wanted, "both boards say the same")


def without_routes(board: Json) -> Json:
    """What the owners say: ways to the pickup are found out by each node for itself, when it comes to it."""
    return {id_: {**entry, "route": None} for id_, entry in board["broadcasts"].items()}


async def watch_all(operator: Phone, customers: list[Phone]) -> None:
    """Subscribe to every broadcast that is live, as it comes, until cancelled."""
    while True:
        for topic, view in [item for phone in customers for item in phone.views.items()]:
            if topic not in operator.views and view.state["ended_at"] is None:
                await operator.ask("subscribe", {"topic": topic})
        await asyncio.sleep(0.005)


async def test_versions_never_go_back_however_connections_break(own_server: Server) -> None:
    """B1, B3: a phone that comes back again and again, and the reference client on a line that is cut, never show an
    older version than before, not even after the server was killed and started again, and both end with what a fresh
    snapshot says."""
    server, rng = own_server, random.Random(2)
    await asyncio.to_thread(server.start)
    async with line_to(server.port) as line, Network(line.url, "acme") as unsteady:
        async with Network(server.url, "acme") as network:
            await network.hire_many(server.journal, [f"t{number}" for number in range(3)])
        client = await unsteady.client("transporter", "t0")
        watching = asyncio.create_task(versions_of(client, "feed:t0"))
        shown: dict[str, dict[str, View]] = {"t0": {}, "c0": {}}
        for life in range(2):
            async with Network(server.url, "acme") as network:
                customers = [await network.phone("customer", f"c{number}") for number in range(2)]
                transporters = [await network.on_duty(f"t{number}") for number in range(3)]
                storm = Storm(rng)
                storming = [
                    *(asyncio.create_task(storm.customer(phone, 10_000)) for phone in customers),
                    *(asyncio.create_task(storm.transporter(phone, 10_000)) for phone in transporters),
                ]
                connections = client.connections
                line.cut()
                await asyncio.gather(
                    come_back(network, "transporter", "t0", shown["t0"]),
                    come_back(network, "customer", "c0", shown["c0"]),
                )
                await is_back(client, connections)
                storm.over = True
                await asyncio.gather(*storming)
            if life == 0:
                server.kill()
                await asyncio.to_thread(server.start)
        async with Network(server.url, "acme") as network:
            version, state = await fresh_view(network, "transporter", "t0", "feed:t0")
        assert version >= shown["t0"]["feed:t0"].version
        await eventually(lambda: client.topics["feed:t0"].state == state, within_s=20)
        watching.cancel()
        versions = await watching
        assert len(versions) > 2  # it did see the feed move
        assert versions == sorted(versions)
        assert len({epoch for epoch, _ in versions}) >= 2  # a start gives another, on a cluster so does a subscription


async def come_back(network: Network, role: str, user: str, shown: dict[str, View]) -> None:
    """Connect again and again, each time until something has changed, and note what is held then in `shown`."""
    for _ in range(20):
        phone = await network.phone(role, user, dict([*shown.items()][-RESUMED:]))
        first = {topic: view.version for topic, view in phone.views.items()}
        await changes(phone, first)
        await phone.close()
        for topic, view in phone.views.items():
            if topic in shown:
                assert first.get(topic, view.version) >= shown[topic].version
            shown[topic] = view


async def changes(phone: Phone, since: dict[str, Version]) -> None:
    """Wait until some topic is newer than it was."""
    await eventually(lambda: any(view.version > since.get(topic, (0, 0)) for topic, view in phone.views.items()))


async def is_back(client: Client, before: int) -> None:
    """Wait until the client has had more connections than before."""
    await eventually(lambda: client.connections > before, "the client has come back", within_s=20)


async def versions_of(client: Client, topic: str) -> list[Version]:
    """Every version of a topic that the client comes to show, until cancelled."""
    versions: list[Version] = []
    try:
        while True:
            if topic in client.topics and (not versions or client.topics[topic].version != versions[-1]):
                versions.append(client.topics[topic].version)
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        return versions


async def test_nobody_sees_what_is_not_theirs(server: Server, network: Network) -> None:
    """B8, C1: topics of another user or role do not exist for you, however you ask; a topic of the same name in another
    tenant is another topic; an operator sees all of one tenant."""
    customer, transporter = await network.phone("customer", "c1"), await network.transporter("t1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, transporter)
    await transporter.do("offer.accept", accept_of("t1", broadcast_id))
    broadcast = f"broadcast:{broadcast_id}"
    topics = [broadcast, "feed:t1", "driver:t1-d"]
    theirs = {"customer": topics[:1], "transporter": topics[1:2], "driver": topics[2:]}

    async def sees(phone: Phone, allowed: list[str]) -> None:
        for topic in (*topics, "broadcast:no-such", "nonsense"):
            if topic in allowed:
                assert (await phone.do("subscribe", {"topic": topic}))["topic"] == topic
            else:
                refused = await phone.refused("subscribe", {"topic": topic})
                assert (refused["code"], refused["data"]) == ("TOPIC_NOT_FOUND", {"topic": topic})
                assert topic not in phone.views

    watcher = await network.phone("operator", "op")
    for topic in topics:
        await watcher.do("subscribe", {"topic": topic})
    held = {topic: watcher.views[topic].version for topic in topics}
    users = (("customer", "c1"), ("transporter", "t1"), ("driver", "t1-d"))
    for role, user in users:
        await sees(await network.phone(role, user, claims=dict.fromkeys(topics, (0, 1))), theirs[role])
        await sees(await network.phone(role, f"{user}-neighbour", claims=held), [])
    await sees(await network.phone("operator", "op", claims=dict.fromkeys(topics, (0, 1))), topics)
    async with Network(server.url, f"{network.tenant}-other") as foreign:
        for role, user in (*users, ("operator", "op")):
            phone = await foreign.phone(role, user, claims=held)
            await sees(phone, topics[1:] if role == "operator" else [t for t in theirs[role] if t != broadcast])
            assert all(view.state in ({"trips": {}}, {"offers": {}, "trips": {}}) for view in phone.views.values())
        status, body = await foreign.rest("GET", f"/v1/broadcasts/{broadcast_id}", "operator", "op")
        assert (status, body["error"]["code"]) == (404, "BROADCAST_NOT_FOUND")
        for tenant, user in ((network, "c2"), (foreign, "c1")):
            path = f"/v1/broadcasts/{broadcast_id}/cancel"
            status, body = await tenant.rest("POST", path, "customer", user, {}, "cancel")
            assert (status, body["error"]["code"]) == (404, "BROADCAST_NOT_FOUND")


async def test_all_devices_of_a_customer_see_the_same(network: Network) -> None:
    """B1: the phone that did not ask is shown the new broadcast too, and one that comes later on connecting."""
    first, second = await network.phone("customer", "c1"), await network.phone("customer", "c1")
    transporter = await network.transporter("t1")
    broadcast_id = (await first.do("broadcast.create", haul({TRUCK: 2})))["broadcast_id"]
    topic = f"broadcast:{broadcast_id}"
    await offered(broadcast_id, transporter)
    third = await network.phone("customer", "c1")
    assert third.greeting["topics"] == [topic]
    await transporter.do("offer.accept", accept_of("t1", broadcast_id))
    for phone in (first, second, third):
        await phone.hears("truck_confirmed", remaining_requests=1)
    assert first.views[topic] == second.views[topic]
    assert first.views[topic].version == third.views[topic].version
    assert first.state(topic) == third.state(topic)


async def test_a_customer_who_comes_back_sees_every_broadcast_that_can_still_change(network: Network) -> None:
    """B1: also one that is filled, as long as its truck is on the way."""
    first = await network.phone("customer", "c1")
    transporter = await network.transporter("t1")
    broadcast_id = (await first.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, transporter)
    won = await transporter.do("offer.accept", accept_of("t1", broadcast_id))
    assert (await network.phone("customer", "c1")).greeting["topics"] == [f"broadcast:{broadcast_id}"]
    await transporter.do("trip.update", {"trip_id": won["trip_id"], "status": "delivered"})
    assert (await network.phone("customer", "c1")).greeting["topics"] == []


async def test_what_was_shown_is_acknowledged_in_silence(network: Network) -> None:
    """An acknowledgement of what was sent, be it a snapshot or a delta, is taken without an answer, whoever else
    watches the topic or does not; one of a version that was never sent is refused."""
    transporter = await network.transporter("t1")
    _, created = await network.rest("POST", "/v1/broadcasts", "customer", "c1", haul({TRUCK: 2}), "create")
    topic = f"broadcast:{created['broadcast_id']}"
    await offered(created["broadcast_id"], transporter)
    operator, customer = await network.phone("operator", "op"), await network.phone("customer", "c1")
    await operator.do("subscribe", {"topic": topic})
    for watcher in (operator, customer):
        await watcher.acknowledge(topic, watcher.views[topic].version)
    await transporter.do("offer.accept", accept_of("t1", created["broadcast_id"]))
    for watcher in (operator, customer):
        await watcher.hears("truck_confirmed")
        await watcher.acknowledge(topic, watcher.views[topic].version)
        assert not watcher.unasked
    epoch, seq = operator.views[topic].version
    await operator.acknowledge(topic, (epoch, seq + 1))
    [refused] = operator.unasked
    assert (refused["error"]["code"], refused["error"]["data"]) == ("BAD_REQUEST", {"field": "data.version"})
    operator.unasked.clear()


async def test_the_sixth_connection_of_a_user_replaces_the_first(node: Node, node_network: Network) -> None:
    """D5: five connections a user, the newest ones; the one that goes is told so by 4009 and not to come back."""
    phones = [await node_network.phone("customer", "c1") for _ in range(5)]
    assert node.hub.connection_count == 5
    phones.append(await node_network.phone("customer", "c1"))
    assert (await phones[0].closed())[0] == 4009
    broadcast_id = (await phones[5].do("broadcast.create", haul()))["broadcast_id"]
    for phone in phones[1:]:
        await phone.follows(f"broadcast:{broadcast_id}")
    assert phones[0].views == {}
    assert node.hub.connection_count == 5
    # Another role of the same name is another user.
    await node_network.phone("transporter", "c1")
    assert node.hub.connection_count == 6


async def test_who_comes_back_is_sent_what_they_lack_and_no_snapshot(node: Node, node_network: Network) -> None:
    """B3: with the events, A10: also that an offer was closed. What the phone held is enough for the rest."""
    customer, transporter = await node_network.phone("customer", "c1"), await node_network.transporter("t1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, transporter)
    await transporter.close()
    await customer.do("broadcast.cancel", {"broadcast_id": broadcast_id})
    back = await node_network.phone("transporter", "t1", transporter.views)
    assert back.greeting["resumed"] == back.greeting["topics"] == ["feed:t1"]
    await back.hears("offer_closed", broadcast_id=broadcast_id, reason="customer_cancelled")
    assert back.views["feed:t1"].snapshots == 0
    _, state = await fresh_view(node_network, "transporter", "t1", "feed:t1")
    assert back.feed == state


async def test_an_operator_at_any_node_sees_the_whole_board_by_socket_and_by_polling(network: Network) -> None:
    """B9, B10: what it shows of a broadcast is what the broadcast's own topic shows."""
    board = f"board:{network.tenant}"
    operators = [await network.phone("operator", f"op{number}") for number in range(3)]
    for operator in operators:
        await operator.do("subscribe", {"topic": board})
    customers = [await network.phone("customer", f"c{number}") for number in range(3)]
    transporter = await network.transporter("t1")
    created = [(await customer.do("broadcast.create", haul()))["broadcast_id"] for customer in customers]
    await offered(created[2], transporter)
    await transporter.do("offer.accept", accept_of("t1", created[2]))
    await customers[2].hears("truck_confirmed")
    shown = {topic.removeprefix("broadcast:"): view.state for phone in customers for topic, view in phone.views.items()}
    for operator in operators:
        await operator.comes_to(board, {"broadcasts": shown})
        status, polled = await network.rest("GET", f"/v1/topics/{board}", "operator", operator.user)
        assert (status, polled["data"]) == (200, {"broadcasts": shown})
    for role in ("customer", "transporter", "driver"):
        status, refused = await network.rest("GET", f"/v1/topics/{board}", role, "c1")
        assert (status, refused["error"]["code"]) == (404, "TOPIC_NOT_FOUND")
