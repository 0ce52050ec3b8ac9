"""The fleet of a transporter, live: A15, B1, B4, B8. On a cluster everybody is at another node than the next."""

import asyncio

from tests.acceptance.network import TRUCK, Network, accept_of, haul, offered
from tests.acceptance.phone import Json, Phone, eventually
from tests.acceptance.server import Server

FLEET = "fleet:t1"


def of(phone: Phone, driver: str = "t1-d") -> Json:
    """What the fleet shows of a driver."""
    shown: Json = phone.state(FLEET)["drivers"].get(driver, {})
    return shown


async def watched(network: Network) -> list[Phone]:
    """The fleet of t1, a vehicle and two drivers, before the eyes of its transporter and of an operator."""
    await network.hire("t1", {"t1-v": TRUCK}, ["t1-d", "t1-e"])
    phones = [await network.phone("transporter", "t1"), await network.phone("operator", "op")]
    for phone in phones:
        await phone.do("subscribe", {"topic": FLEET})
    return phones


async def test_drivers_who_come_and_go_are_told_of_at_once(network: Network) -> None:
    """A15: whoever has a connection is online, at whichever node; who closes one of two is still there."""
    phones = await watched(network)
    assert phones[0].greeting["topics"] == ["feed:t1"]  # nobody is given the fleet who does not ask for it
    for phone in phones:
        await phone.comes_to(
            FLEET,
            {
                "drivers": {
                    driver: {"driver_id": driver, "online": False, "trip_id": None} for driver in ("t1-d", "t1-e")
                },
                "vehicles": {"t1-v": {"vehicle_id": "t1-v", "vehicle_type": TRUCK, "trip_id": None}},
            },
        )
    snapshots = [phone.views[FLEET].snapshots for phone in phones]
    first, second = await network.phone("driver", "t1-d"), await network.phone("driver", "t1-d")
    other = await network.phone("driver", "t1-e")
    await eventually(lambda: all(of(phone)["online"] and of(phone, "t1-e")["online"] for phone in phones))
    await first.close()
    await other.close()
    await eventually(lambda: all(not of(phone, "t1-e")["online"] for phone in phones))
    assert all(of(phone)["online"] for phone in phones)
    await second.close()
    await eventually(lambda: all(not of(phone)["online"] for phone in phones))
    assert snapshots == [phone.views[FLEET].snapshots for phone in phones]  # all that by deltas
    status, polled = await network.rest("GET", f"/v1/topics/{FLEET}", "operator", "op")
    assert (status, polled["data"]) == (200, phones[0].state(FLEET))


async def test_a_trip_shows_on_its_driver_and_vehicle_while_it_lasts(network: Network) -> None:
    """B1: and what is put into the fleet shows too."""
    phones = await watched(network)
    transporter, customer = await network.on_duty("t1"), await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, transporter)
    trip_id = (await transporter.do("offer.accept", accept_of("t1", broadcast_id)))["trip_id"]

    def shows(trip: str | None) -> bool:
        vehicles = [phone.state(FLEET)["vehicles"]["t1-v"] for phone in phones]
        return all(entry["trip_id"] == trip for entry in (*map(of, phones), *vehicles))

    await eventually(lambda: shows(trip_id), "the trip shows")
    assert all(of(phone, "t1-e")["trip_id"] is None for phone in phones)
    await transporter.do("trip.update", {"trip_id": trip_id, "status": "delivered"})
    await eventually(lambda: shows(None), "the trip does not show any more")
    await network.hire("t2", {"t1-v": TRUCK, "t2-v": TRUCK}, ["t1-d"])
    await network.hire("t1", {"t1-w": "van"}, [])
    for phone in phones:
        await phone.comes_to(
            FLEET,
            {
                "drivers": {"t1-e": {"driver_id": "t1-e", "online": False, "trip_id": None}},
                "vehicles": {"t1-w": {"vehicle_id": "t1-w", "vehicle_type": "van", "trip_id": None}},
            },
        )


async def test_a_fleet_is_shown_to_its_transporter_and_to_operators_of_the_tenant(
    server: Server, network: Network
) -> None:
    """B8: to all others it does not exist; by the same name another tenant has another fleet."""
    await watched(network)
    await network.hire("t2", {}, ["t2-d"])
    for role, user in (("transporter", "t2"), ("customer", "t1"), ("driver", "t1"), ("driver", "t1-d")):
        phone = await network.phone(role, user, claims={FLEET: (0, 1)})
        refused = await phone.refused("subscribe", {"topic": FLEET})
        assert (refused["code"], refused["data"]) == ("TOPIC_NOT_FOUND", {"topic": FLEET})
        assert FLEET not in phone.views
        status, body = await network.rest("GET", f"/v1/topics/{FLEET}", role, user)
        assert (status, body["error"]["code"]) == (404, "TOPIC_NOT_FOUND")
    async with Network(server.url, f"{network.tenant}-other") as foreign:
        for role, user in (("transporter", "t1"), ("operator", "op")):
            phone = await foreign.phone(role, user)
            await phone.do("subscribe", {"topic": FLEET})
            await network.phone("driver", "t1-d")
            assert phone.state(FLEET) == {"drivers": {}, "vehicles": {}}


async def test_who_comes_back_to_a_fleet_is_sent_what_they_lack(server: Server, network: Network) -> None:
    """B3: to the node where they were, and after a while in which drivers came and went."""
    [transporter, _] = await watched(network)
    async with Network(server.url.split(",")[0], network.tenant) as same:
        held = await same.phone("transporter", "t1")
        await held.do("subscribe", {"topic": FLEET})
        watcher = await same.phone("operator", "op2")
        await watcher.do("subscribe", {"topic": FLEET})
        await held.follows(FLEET)
        await eventually(lambda: held.views[FLEET].version == watcher.views[FLEET].version)
        await held.close()
        drivers = [await network.phone("driver", user) for user in ("t1-d", "t1-e")]
        await eventually(lambda: of(watcher)["online"] and of(watcher, "t1-e")["online"])
        await drivers[1].close()
        await eventually(lambda: not of(watcher, "t1-e")["online"])
        back = await same.phone("transporter", "t1", held.views)
        assert set(back.greeting["resumed"]) == {"feed:t1", FLEET}
        await back.comes_to(FLEET, watcher.state(FLEET), watcher.views[FLEET].version)
        assert back.views[FLEET].snapshots == 0
    await eventually(lambda: of(transporter)["online"] and not of(transporter, "t1-e")["online"])


async def test_a_crowd_of_drivers_who_come_and_go_ends_as_they_are(network: Network) -> None:
    """However fast: what is shown in the end is who is there."""
    phones = await watched(network)
    drivers = [f"d{number}" for number in range(20)]
    await network.hire("t1", {}, drivers)

    async def come_and_go(user: str, times: int) -> None:
        for _ in range(times):
            await (await network.phone("driver", user)).close()
        if times % 2:
            await network.phone("driver", user)

    await asyncio.gather(*(come_and_go(user, 3 + number % 2) for number, user in enumerate(drivers)))
    online = {user for number, user in enumerate(drivers) if not number % 2}
    await eventually(
        lambda: all(online == {user for user in drivers if of(phone, user).get("online")} for phone in phones)
    )
