"""Many accept, one wins: A1, A2 and A13 with 200 transporters on 200 sockets."""

import asyncio
from collections import Counter

import pytest

from tests.acceptance.books import Books
from tests.acceptance.network import TRUCK, Network, accept_of, haul, offered
from tests.acceptance.phone import Json, Phone, eventually
from tests.acceptance.server import Server

RACERS = 200
ROUNDS = 50
TRUCKS = 20


@pytest.fixture
async def racers(server: Server, network: Network) -> list[Phone]:
    """200 transporters, all online within 10 km of the pickup."""
    names = [f"t{number}" for number in range(RACERS)]
    await network.hire_many(server.journal, names)
    return await asyncio.gather(*(network.on_duty(name, km=1 + number / 100) for number, name in enumerate(names)))


async def race(racers: list[Phone], broadcast_id: str) -> list[Json]:
    """All accept in one turn of the loop: every frame is written before any answer can be read. The replies."""
    await offered(broadcast_id, *racers)
    replies = await asyncio.gather(
        *(phone.post("offer.accept", accept_of(phone.user, broadcast_id)) for phone in racers)
    )
    async with asyncio.timeout(20):
        return await asyncio.gather(*replies)


async def test_of_200_accepts_for_one_truck_exactly_one_wins_fifty_times_over(
    server: Server, network: Network, racers: list[Phone]
) -> None:
    """A1: one wins, all others hear REQUEST_ALREADY_TAKEN with nothing remaining, the customer hears of one truck.
    A10: the losers' offers close because the truck was found. A19: a delivered trip frees its truck for the next."""
    customer = await network.phone("customer", "c1")
    books = Books(server.journal, network.tenant)
    for _ in range(ROUNDS):
        broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
        replies = await race(racers, broadcast_id)
        [(winner, won)] = [(phone, reply["data"]) for phone, reply in zip(racers, replies, strict=True) if reply["ok"]]
        assert (won["status"], won["remaining_requests"]) == ("fully_filled", 0)
        errors = [reply["error"] for reply in replies if not reply["ok"]]
        assert len(errors) == RACERS - 1
        assert all(error["code"] == "REQUEST_ALREADY_TAKEN" for error in errors), Counter(e["code"] for e in errors)
        assert all(error["data"] == {"remaining_requests": 0} and not error["retry"] for error in errors)
        confirmed = await customer.hears("truck_confirmed", trip_id=won["trip_id"])
        assert confirmed.data["transporter_id"] == winner.user
        for loser in racers:
            if loser is not winner:
                closed = await loser.hears("offer_closed", broadcast_id=broadcast_id)
                assert closed.data["reason"] == "filled"
        assert broadcast_id not in winner.offers
        await winner.do("trip.update", {"trip_id": won["trip_id"], "status": "delivered"})
    assert len(customer.heard("truck_confirmed")) == ROUNDS
    assert Counter(a.broadcast_id for a in books.assignments()) == Counter(dict.fromkeys(books.statuses(), 1))
    assert list(books.statuses().values()) == ["fully_filled"] * ROUNDS


async def test_of_200_accepts_for_20_trucks_exactly_20_win_with_20_vehicles(
    server: Server, network: Network, racers: list[Phone]
) -> None:
    """A1, A13: each truck request is raced for on its own, and none is given twice."""
    customer = await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul({TRUCK: TRUCKS})))["broadcast_id"]
    replies = await race(racers, broadcast_id)
    won = [reply["data"] for reply in replies if reply["ok"]]
    assert len(won) == len({data["request_id"] for data in won}) == len({data["trip_id"] for data in won}) == TRUCKS
    assert sorted(data["remaining_requests"] for data in won) == list(range(TRUCKS))
    assert {reply["error"]["code"] for reply in replies if not reply["ok"]} == {"REQUEST_ALREADY_TAKEN"}
    await eventually(lambda: len(customer.heard("truck_confirmed")) == TRUCKS)
    confirmed = customer.heard("truck_confirmed")
    assert [heard.data["remaining_requests"] for heard in confirmed] == list(reversed(range(TRUCKS)))
    assert len({heard.data["vehicle_id"] for heard in confirmed}) == TRUCKS
    assignments = Books(server.journal, network.tenant).assignments()
    assert len({a.vehicle_id for a in assignments}) == len({a.driver_id for a in assignments}) == TRUCKS
    assert customer.state(f"broadcast:{broadcast_id}")["status"] == "fully_filled"


async def test_one_vehicle_in_many_races_at_once_wins_one(server: Server, network: Network) -> None:
    """A2: a vehicle and its driver are on one active trip at most, across broadcasts decided at the same moment and
    asked for over several connections; the others are told which of the two is busy, and their trucks stay open."""
    await network.hire("t1", {"v1": TRUCK, "v2": TRUCK}, ["d1"])
    phones = [await network.on_duty("t1", vehicle="v1"), *[await network.phone("transporter", "t1") for _ in range(3)]]
    customers = [await network.phone("customer", f"c{number}") for number in range(8)]
    books = Books(server.journal, network.tenant)
    for _ in range(20):
        created = await asyncio.gather(*(customer.do("broadcast.create", haul()) for customer in customers))
        ids = [data["broadcast_id"] for data in created]
        for id_ in ids:
            await offered(id_, *phones)
        # The same driver with both vehicles: half of the races are about v1, half about v2, all of them about d1.
        wants = [{"broadcast_id": id_, "vehicle_id": f"v{1 + n % 2}", "driver_id": "d1"} for n, id_ in enumerate(ids)]
        replies = await asyncio.gather(
            *(phones[n % len(phones)].ask("offer.accept", want) for n, want in enumerate(wants))
        )
        [won] = [reply["data"] for reply in replies if reply["ok"]]
        codes = Counter(reply["error"]["code"] for reply in replies if not reply["ok"])
        assert codes == {"VEHICLE_BUSY": 3, "DRIVER_BUSY": 4}
        assert sum(assignment.trip_status == "assigned" for assignment in books.assignments()) == 1
        await phones[0].do("trip.update", {"trip_id": won["trip_id"], "status": "cancelled"})
        for customer, id_ in zip(customers, ids, strict=True):
            if id_ != won["broadcast_id"]:
                assert (await customer.do("broadcast.cancel", {"broadcast_id": id_}))["assigned"] == 0
