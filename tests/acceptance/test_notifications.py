"""Who hears what, and when: A2 to A5, A9 to A11, A13, A14, A19 and A20 between one customer and a few transporters."""

import asyncio
from collections.abc import Awaitable

from tests.acceptance.books import Books
from tests.acceptance.network import DROP, TRUCK, Network, accept_of, haul, north_of_pickup, offered
from tests.acceptance.phone import Json, Phone, eventually
from tests.acceptance.server import Server

COLLISIONS = 30


async def test_an_accept_is_told_to_everybody_concerned(network: Network) -> None:
    """A14: driver and transporter get the trip, the customer and a watching operator the truck; each sees it in the
    state as well as in the event."""
    customer, transporter = await network.phone("customer", "c1"), await network.transporter("t1", km=2)
    driver, operator = await network.phone("driver", "t1-d"), await network.phone("operator", "op")
    broadcast_id = (await customer.do("broadcast.create", haul(note="two pallets")))["broadcast_id"]
    topic = f"broadcast:{broadcast_id}"
    await operator.do("subscribe", {"topic": topic})
    await offered(broadcast_id, transporter)
    offer = transporter.offers[broadcast_id]
    assert (offer["note"], offer["open_trucks"], offer["vehicle_id"]) == ("two pallets", {TRUCK: 1}, "t1-v")
    assert 1990 <= offer["distance_m"] <= 2010

    won = await transporter.do("offer.accept", accept_of("t1", broadcast_id))
    for phone in (transporter, driver):
        trip = (await phone.hears("trip_assigned", trip_id=won["trip_id"])).data
        assert phone.trips == {won["trip_id"]: trip}
        assert (trip["drop"]["lat"], trip["vehicle_id"], trip["status"]) == (DROP[0], "t1-v", "assigned")
    for phone in (customer, operator):
        confirmed = (await phone.hears("truck_confirmed")).data
        assert (confirmed["driver_id"], confirmed["remaining_requests"]) == ("t1-d", 0)
        assert phone.state(topic)["trips"][won["trip_id"]]["request_id"] == won["request_id"]
        assert phone.state(topic)["status"] == "fully_filled"
    assert len(customer.heard()) == len(operator.heard()) == 1
    assert not driver.heard("offer", "truck_confirmed")
    await transporter.loses_offers()


async def test_the_closing_of_an_offer_is_told_with_its_reason(network: Network) -> None:
    """A10: on filling and on cancelling, those who were offered hear `offer_closed`; a winner hears that the trip goes
    on, and never that anything was cancelled; who was away finds the closed offer and its reason on coming back."""
    customer = await network.phone("customer", "c1")
    winner, loser, away = [await network.transporter(name) for name in ("t1", "t2", "t3")]
    driver = await network.phone("driver", "t1-d")
    broadcast_id = (await customer.do("broadcast.create", haul({TRUCK: 2})))["broadcast_id"]
    await offered(broadcast_id, winner, loser, away)
    await away.close()
    trip_id = (await winner.do("offer.accept", accept_of("t1", broadcast_id)))["trip_id"]
    await eventually(lambda: loser.offers[broadcast_id]["open_trucks"] == {TRUCK: 1})
    cancelled = await customer.do("broadcast.cancel", {"broadcast_id": broadcast_id})
    assert (cancelled["status"], cancelled["assigned"]) == ("cancelled", 1)

    assert (await customer.hears("broadcast_cancelled")).data == {"reason": "customer_cancelled", "assigned": 1}
    closed = await loser.hears("offer_closed")
    assert closed.data == {"broadcast_id": broadcast_id, "reason": "customer_cancelled"}
    for phone in (winner, driver):
        await phone.hears("trip_continues", trip_id=trip_id)
        assert not phone.heard("offer_closed")
        assert phone.trips[trip_id]["status"] == "assigned"
        assert "cancel" not in str(phone.state(phone.greeting["topics"][0]))
    assert winner.offers == {}
    back = await network.phone("transporter", "t3")
    offer = back.offers[broadcast_id]
    assert (offer["status"], offer["reason"]) == ("closed", "customer_cancelled")
    assert offer["closed_at"] is not None

    filled_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(filled_id, loser, back)
    await loser.do("offer.accept", accept_of("t2", filled_id))
    assert (await back.hears("offer_closed", broadcast_id=filled_id)).data["reason"] == "filled"
    assert not winner.heard("offer", broadcast_id=filled_id), "a vehicle on a trip is not offered anything"


async def test_the_customer_is_reminded_before_the_end(network: Network) -> None:
    """A9: one event, the tenant's lead before the expiry, and none for a broadcast that is shorter than that. The
    countdown needs nothing else: `expires_at` stands beside `server_time`. Waits two seconds of real time, as no lead
    can be shorter than one."""
    await network.create_tenant(min_expiry_s=1, reminder_lead_s=1)
    short, long = await network.phone("customer", "c1"), await network.phone("customer", "c2")
    created = await long.do("broadcast.create", haul({TRUCK: 3}, expires_in_s=2))
    await short.do("broadcast.create", haul(expires_in_s=1))
    reminder = await long.hears("expiry_reminder")
    assert reminder.data == {"expires_at": created["expires_at"], "remaining_requests": 3}
    assert 1000 - 50 <= created["expires_at"] - reminder.server_time <= 1000
    await long.hears("broadcast_expired")
    assert [heard.event for heard in long.heard()] == ["expiry_reminder", "broadcast_expired"]
    assert [heard.event for heard in short.heard()] == ["broadcast_expired"]


async def test_who_comes_online_late_is_offered_what_is_live_once(network: Network) -> None:
    """A11: on coming online, or when the position first comes, matching broadcasts within reach are offered; doing it
    again offers nothing again; and nobody toggles more than ten times in five minutes."""
    customer = await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await eventually(lambda: customer.state(f"broadcast:{broadcast_id}")["wave"] == 1)
    late = await network.transporter("t1", km=3)
    await offered(broadcast_id, late)
    for _ in range(4):
        assert (await late.do("transporter.offline"))["changed"]
        assert await late.do("transporter.offline") == {"online": False, "changed": False}
        assert (await late.do("transporter.online"))["changed"]
        assert await late.do("transporter.online") == {"online": True, "changed": False}
    await late.do("transporter.offline")
    error = await late.refused("transporter.online")
    assert (error["code"], error["retry"]) == ("TOO_MANY_TOGGLES", True)
    assert 0 < error["data"]["retry_after_ms"] <= 300_000
    # Far away, of another type, or without a position: not offered, until the position comes.
    far, van = await network.transporter("t2", km=30), await network.transporter("t3", kind="van")
    await network.hire("t4", {"t4-v": TRUCK}, ["t4-d"])
    lost = await network.phone("transporter", "t4")
    await lost.do("transporter.online")
    lat, lng = north_of_pickup(1)
    await lost.do("location", {"vehicle_id": "t4-v", "lat": lat, "lng": lng})
    await offered(broadcast_id, lost)
    assert far.offers == van.offers == {}
    assert len(late.heard("offer")) == len(lost.heard("offer")) == 1
    assert customer.state(f"broadcast:{broadcast_id}")["notified"] == 2


async def test_trucks_of_several_types_are_raced_for_by_type(network: Network) -> None:
    """A13: each transporter is matched by what it drives, and a type that is taken is taken for that type only."""
    customer = await network.phone("customer", "c1")
    van, truck, tanker = [
        await network.transporter(name, kind=kind) for name, kind in (("t1", "van"), ("t2", TRUCK), ("t3", "tanker"))
    ]
    await network.hire("t1", {"t1-spare": "van", "t1-tanker": "tanker"}, ["t1-d2"])
    broadcast_id = (await customer.do("broadcast.create", haul({"van": 1, TRUCK: 2})))["broadcast_id"]
    await offered(broadcast_id, van, truck)
    assert van.offers[broadcast_id]["open_trucks"] == {"van": 1, TRUCK: 2}
    won = await van.do("offer.accept", accept_of("t1", broadcast_id))
    assert (won["status"], won["remaining_requests"]) == ("partially_filled", 2)
    assert customer.state(f"broadcast:{broadcast_id}")["requests"][won["request_id"]]["vehicle_type"] == "van"
    again = {"broadcast_id": broadcast_id, "driver_id": "t1-d2"}
    taken = await van.refused("offer.accept", {**again, "vehicle_id": "t1-spare"})
    assert (taken["code"], taken["data"]) == ("REQUEST_ALREADY_TAKEN", {"remaining_requests": 2})
    assert (await van.refused("offer.accept", {**again, "vehicle_id": "t1-tanker"}))["code"] == "VEHICLE_TYPE_MISMATCH"
    assert (await truck.do("offer.accept", accept_of("t2", broadcast_id)))["remaining_requests"] == 1
    assert (await tanker.refused("offer.accept", accept_of("t3", broadcast_id)))["code"] == "NOT_OFFERED"
    assert tanker.offers == {}


async def test_a_customer_has_one_active_broadcast(network: Network) -> None:
    """A3: however many connections, keys and ways at once, one is created and the others name it; every terminal state
    makes room for the next. The expiry is awaited in real time, one second."""
    await network.create_tenant(min_expiry_s=1, max_expiry_s=300)
    transporter = await network.transporter("t1")
    phones = [await network.phone("customer", "c1") for _ in range(4)]

    async def by_rest(number: int) -> tuple[bool, str]:
        path, key = "/v1/broadcasts", f"rest{number}"
        status, body = await network.rest("POST", path, "customer", "c1", haul(), key)
        assert status in (201, 409)
        return status == 201, body["broadcast_id"] if status == 201 else body["error"]["data"]["broadcast_id"]

    async def by_socket(phone: Phone) -> tuple[bool, str]:
        reply = await phone.ask("broadcast.create", haul())
        assert reply["ok"] or reply["error"]["code"] == "ACTIVE_BROADCAST_EXISTS"
        return reply["ok"], (reply["data"] if reply["ok"] else reply["error"]["data"])["broadcast_id"]

    answers = await asyncio.gather(*map(by_socket, phones * 3), *map(by_rest, range(4)))
    assert sum(new for new, _ in answers) == 1
    [first] = {broadcast_id for _, broadcast_id in answers}
    for phone in phones:
        await phone.follows(f"broadcast:{first}")

    await phones[0].do("broadcast.cancel", {"broadcast_id": first})
    second = (await phones[0].do("broadcast.create", haul()))["broadcast_id"]
    await offered(second, transporter)
    await transporter.do("offer.accept", accept_of("t1", second))
    third = (await phones[0].do("broadcast.create", haul(expires_in_s=1)))["broadcast_id"]
    refused = await phones[1].refused("broadcast.create", haul())
    assert (refused["code"], refused["data"]) == ("ACTIVE_BROADCAST_EXISTS", {"broadcast_id": third})
    for phone in phones:
        await phone.hears("broadcast_expired")
    fourth = (await phones[0].do("broadcast.create", haul()))["broadcast_id"]
    assert len({first, second, third, fourth}) == 4


async def test_cancel_and_accept_at_once_have_one_outcome_that_both_hear(server: Server, network: Network) -> None:
    """A5: either the truck was found first, and the customer hears of it and is told so, or the broadcast was cancelled
    first, and the transporter is told that; the state on both phones and in the journal is the same."""
    books = Books(server.journal, network.tenant)
    outcomes = set()
    for number in range(COLLISIONS):
        customer, transporter = await network.phone("customer", f"c{number}"), await network.transporter(f"t{number}")
        broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
        await offered(broadcast_id, transporter)
        cancel = customer.ask("broadcast.cancel", {"broadcast_id": broadcast_id})
        accept = transporter.ask("offer.accept", accept_of(transporter.user, broadcast_id))
        if number % 2:
            # With a growing start: the customer's node has the broadcast, and an accept elsewhere has farther to go.
            accepted, cancelled = await asyncio.gather(accept, later(cancel, number // 6 * 0.002))
        else:
            cancelled, accepted = await asyncio.gather(cancel, accept)
        assert accepted["ok"] != cancelled["ok"]
        if accepted["ok"]:
            assert cancelled["error"]["code"] == "BROADCAST_FULLY_FILLED"
            heard, status = await customer.hears("truck_confirmed"), "fully_filled"
            await transporter.hears("trip_assigned", trip_id=heard.data["trip_id"])
            await transporter.loses_offers()
        else:
            assert accepted["error"]["code"] == "BROADCAST_CANCELLED"
            heard, status = await customer.hears("broadcast_cancelled"), "cancelled"
            await transporter.hears("offer_closed", reason="customer_cancelled")
            assert not transporter.trips
        assert len(customer.heard()) == 1
        assert customer.state(f"broadcast:{broadcast_id}")["status"] == books.statuses()[broadcast_id] == status
        assert len(books.assignments()) == len([s for s in books.statuses().values() if s == "fully_filled"])
        outcomes.add(status)
        await customer.close()
        await transporter.close()
    assert outcomes == {"fully_filled", "cancelled"}


async def later(asking: Awaitable[Json], delay_s: float) -> Json:
    """Ask a little later."""
    await asyncio.sleep(delay_s)
    return await asking


async def test_the_same_id_is_answered_the_same_wherever_it_comes_in(server: Server, network: Network) -> None:
    """A4: on the same connection, on another and over REST a command is carried out once and answered the same, also
    when it was refused; an id that is used for something else is not taken; somebody else's same id is another one."""
    customer, other = await network.phone("customer", "c1"), await network.phone("customer", "c1")
    transporter, loser = await network.transporter("t1"), await network.transporter("t2")
    created = await customer.do("broadcast.create", haul(), id="create")
    broadcast_id = created["broadcast_id"]
    assert await customer.do("broadcast.create", haul(), id="create") == created
    assert await other.do("broadcast.create", haul(), id="create") == created
    assert await network.rest("POST", "/v1/broadcasts", "customer", "c1", haul(), "create") == (201, created)

    await offered(broadcast_id, transporter, loser)
    accept, path = accept_of("t1", broadcast_id), f"/v1/broadcasts/{broadcast_id}/accept"
    body = {key: accept[key] for key in ("vehicle_id", "driver_id")}
    elsewhere = await network.phone("transporter", "t1")
    # All at once: whichever comes first is carried out, and all get its answer.
    *replies, (status, by_rest) = await asyncio.gather(
        transporter.do("offer.accept", accept, id="accept"),
        elsewhere.do("offer.accept", accept, id="accept"),
        network.rest("POST", path, "transporter", "t1", body, "accept"),
    )
    assert (status, replies) == (200, [by_rest, by_rest])
    refusal = await loser.refused("offer.accept", accept_of("t2", broadcast_id), id="accept")
    assert refusal["code"] == "REQUEST_ALREADY_TAKEN"
    assert await loser.refused("offer.accept", accept_of("t2", broadcast_id), id="accept") == refusal

    # What has changed since then does not change the answer.
    await transporter.do("trip.update", {"trip_id": by_rest["trip_id"], "status": "delivered"}, id="done")
    assert await elsewhere.do("offer.accept", accept, id="accept") == by_rest
    assert (await transporter.refused("offer.decline", {"broadcast_id": broadcast_id}, id="accept"))[
        "code"
    ] == "ID_REUSED"
    changed = await network.rest("POST", "/v1/broadcasts", "customer", "c1", haul({TRUCK: 2}), "create")
    assert (changed[0], changed[1]["error"]["code"]) == (409, "ID_REUSED")
    no_key = await network.rest("POST", "/v1/broadcasts", "customer", "c1", haul())
    assert (no_key[0], no_key[1]["error"]["data"]["field"]) == (400, "header.Idempotency-Key")
    books = Books(server.journal, network.tenant)
    assert (len(books.statuses()), len(books.assignments())) == (1, 1)
    assert len(customer.heard("truck_confirmed")) == 1


async def test_each_obstacle_to_an_accept_has_its_own_code(network: Network) -> None:
    """A2: vehicle and driver must be the transporter's own, of the type asked for and on no other active trip."""
    transporter, _ = await network.transporter("t1"), await network.transporter("t2")
    await network.hire("t1", {"spare": TRUCK, "van": "van"}, ["d2"])
    first, second = [await network.phone("customer", name) for name in ("c1", "c2")]
    busy_id = (await first.do("broadcast.create", haul()))["broadcast_id"]
    broadcast_id = (await second.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, transporter)
    await transporter.do("offer.accept", accept_of("t1", busy_id))
    for vehicle_id, driver_id, code in (
        ("t1-v", "d2", "VEHICLE_BUSY"),
        ("spare", "t1-d", "DRIVER_BUSY"),
        ("t2-v", "d2", "VEHICLE_NOT_OWNED"),
        ("no-such-vehicle", "d2", "VEHICLE_NOT_OWNED"),
        ("spare", "t2-d", "DRIVER_NOT_OWNED"),
        ("spare", "no-such-driver", "DRIVER_NOT_OWNED"),
        ("van", "d2", "VEHICLE_TYPE_MISMATCH"),
    ):
        wanted = {"broadcast_id": broadcast_id, "vehicle_id": vehicle_id, "driver_id": driver_id}
        assert (await transporter.refused("offer.accept", wanted))["code"] == code
    missing = {"broadcast_id": "no-such-broadcast", "vehicle_id": "spare", "driver_id": "d2"}
    assert (await transporter.refused("offer.accept", missing))["code"] == "BROADCAST_NOT_FOUND"
    ok = {"broadcast_id": broadcast_id, "vehicle_id": "spare", "driver_id": "d2"}
    assert (await transporter.do("offer.accept", ok))["status"] == "fully_filled"


async def test_a_vehicle_that_changes_hands_is_its_new_owners(network: Network) -> None:
    """A2: what counts is whose the vehicle is when the accept is written, not when it was last looked up."""
    before, after = await network.transporter("t1"), await network.transporter("t2")
    customer = await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul({TRUCK: 2})))["broadcast_id"]
    await offered(broadcast_id, before, after)
    await network.hire("t2", {"t1-v": TRUCK}, [])
    assert (await before.refused("offer.accept", accept_of("t1", broadcast_id)))["code"] == "VEHICLE_NOT_OWNED"
    wanted = {"broadcast_id": broadcast_id, "vehicle_id": "t1-v", "driver_id": "t2-d"}
    assert (await after.do("offer.accept", wanted))["status"] == "partially_filled"


async def test_a_declined_offer_stays_away(network: Network) -> None:
    """A20: it leaves the feed, on every phone and for good; the others keep it."""
    declining, other = await network.transporter("t1"), await network.transporter("t2")
    customer, second_phone = await network.phone("customer", "c1"), await network.phone("transporter", "t1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, declining, second_phone, other)
    for _ in range(2):
        assert await declining.do("offer.decline", {"broadcast_id": broadcast_id}) == {"broadcast_id": broadcast_id}
    await second_phone.loses_offers()
    await declining.do("transporter.offline")
    await declining.do("transporter.online")
    assert (await network.phone("transporter", "t1")).offers == declining.offers == {}
    assert other.has_offer(broadcast_id)
    await customer.do("broadcast.cancel", {"broadcast_id": broadcast_id})
    await other.hears("offer_closed")
    assert not declining.heard("offer_closed")
    status, offers = await network.rest("GET", "/v1/offers", "transporter", "t1")
    assert (status, offers) == (200, {"offers": {}, "trips": {}})


async def test_the_end_of_a_trip_frees_its_driver_and_vehicle_for_good(own_server: Server) -> None:
    """A19: a trip goes through its states, told to all concerned; once it has ended, vehicle and driver can be had
    again; and both their being busy and their being free outlive a restart."""
    server = own_server
    await asyncio.to_thread(server.start)
    async with Network(server.url, "acme") as network:
        transporter, customer = await network.transporter("t1"), await network.phone("customer", "c1")
        driver = await network.phone("driver", "t1-d")
        broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
        await offered(broadcast_id, transporter)
        trip_id = (await transporter.do("offer.accept", accept_of("t1", broadcast_id)))["trip_id"]
        for asking, status in ((driver, "en_route"), (transporter, "at_pickup"), (driver, "loaded")):
            await asking.do("trip.update", {"trip_id": trip_id, "status": status})
            for phone in (transporter, driver, customer):
                await phone.hears("trip_updated", status=status)
        back = await driver.refused("trip.update", {"trip_id": trip_id, "status": "assigned"})
        assert (back["code"], back["data"]["allowed"]) == ("TRIP_TRANSITION_INVALID", ["cancelled", "delivered"])
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)

    async with Network(server.url, "acme") as network:
        transporter, driver = await network.on_duty("t1"), await network.phone("driver", "t1-d")
        assert transporter.trips[trip_id]["status"] == driver.trips[trip_id]["status"] == "loaded"
        customer = await network.phone("customer", "c1")
        await network.hire("t1", {"spare": TRUCK}, [])
        await network.come_online(transporter, vehicle="spare")
        second_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
        await offered(second_id, transporter)
        assert (await transporter.refused("offer.accept", accept_of("t1", second_id)))["code"] == "VEHICLE_BUSY"
        with_spare = {**accept_of("t1", second_id), "vehicle_id": "spare"}
        assert (await transporter.refused("offer.accept", with_spare))["code"] == "DRIVER_BUSY"
        await driver.do("trip.update", {"trip_id": trip_id, "status": "delivered"})
        for phone in (transporter, driver):
            await phone.hears("trip_updated", trip_id=trip_id, status="delivered")
            assert phone.trips == {}
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)

    async with Network(server.url, "acme") as network:
        transporter, driver = await network.on_duty("t1"), await network.phone("driver", "t1-d")
        assert transporter.trips == driver.trips == {}
        won = await transporter.do("offer.accept", accept_of("t1", second_id))
        await driver.hears("trip_assigned", trip_id=won["trip_id"])
    await asyncio.to_thread(server.stop)
