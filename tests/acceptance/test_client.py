"""The reference client against a real server: the few lines of a first use, and a server that goes away and returns."""

import asyncio

import pytest

from haulcast.client import Client, Event, ServerError
from tests.acceptance.network import DROP, PICKUP, TRUCK, Network
from tests.acceptance.server import Server


async def hears(client: Client, *names: str) -> list[Event]:
    """The next events until there is one of each name, in the order of the names. The others are passed over."""
    heard: dict[str, Event] = {}
    async with asyncio.timeout(10):
        async for event in client.events():
            heard.setdefault(event.event, event)
            if heard.keys() >= {*names}:
                break
    return [heard[name] for name in names]


async def test_a_transporter_takes_a_haul_in_a_few_lines(server: Server, network: Network) -> None:
    """An offer event carries all that accepting takes, and the customer hears of the truck."""
    await network.hire("t1", {"t1-v": TRUCK}, ["t1-d"])
    customer = await network.client("customer", "c1")
    transporter = await network.client("transporter", "t1")
    await transporter.go_online()
    await transporter.location("t1-v", *PICKUP)
    created = await customer.create_broadcast(PICKUP, DROP, {TRUCK: 1}, expires_in_s=60)
    (offer,) = await hears(transporter, "offer")
    assert offer.data["open_trucks"] == {TRUCK: 1}
    won = await transporter.accept(offer.data["broadcast_id"], offer.data["vehicle_id"], "t1-d")
    assert won["status"] == "fully_filled"
    (confirmed,) = await hears(customer, "truck_confirmed")
    assert confirmed.data["trip_id"] == won["trip_id"]
    topic = customer.topics[f"broadcast:{created['broadcast_id']}"]
    assert topic.state["status"] == "fully_filled"
    assert 0 < topic.state["expires_at"] - customer.server_now_ms() <= 60_000
    await transporter.update_trip(won["trip_id"], "delivered")
    await hears(customer, "trip_updated")
    assert topic.over


async def test_a_restarted_server_is_met_again_as_it_was_left(own_server: Server) -> None:
    """Nobody has to do anything: the transporter is online again with its position, and hears of what it missed.

    A request made while the server is away is answered when it is back.
    """
    await asyncio.to_thread(own_server.start)
    async with Network(own_server.url, "acme") as network:
        await network.create_tenant(wave_interval_s=0.2)
        await network.hire("t1", {"t1-v": TRUCK, "t1-w": "crane"}, ["t1-d"])
        transporter = await network.client("transporter", "t1")
        first, second = await network.client("customer", "c1"), await network.client("customer", "c2")
        await transporter.location("t1-v", *PICKUP)
        await transporter.go_online()
        taken_back = await first.create_broadcast(PICKUP, DROP, {TRUCK: 1}, expires_in_s=60)
        await hears(transporter, "offer")
        await transporter.close()
        phone = await network.client("transporter", "t1")
        (again,) = await hears(phone, "offer")
        assert (again.data["broadcast_id"], again.replayed) == (taken_back["broadcast_id"], True)
        await phone.go_online()
        await phone.location("t1-v", *PICKUP)

        await asyncio.to_thread(own_server.stop)
        cancelling = asyncio.create_task(first.cancel(taken_back["broadcast_id"]))
        creating = asyncio.create_task(second.create_broadcast(PICKUP, DROP, {TRUCK: 1}, expires_in_s=60))
        await asyncio.to_thread(own_server.start)
        assert (await cancelling)["status"] == "cancelled"
        created = await creating

        closed, offer = await hears(phone, "offer_closed", "offer")
        assert closed.data == {"broadcast_id": taken_back["broadcast_id"], "reason": "customer_cancelled"}
        assert offer.data["broadcast_id"] == created["broadcast_id"]
        won = await phone.accept(created["broadcast_id"], "t1-v", "t1-d")
        assert won["status"] == "fully_filled"
        assert phone.connections == 2


async def test_operators_change_things_in_a_few_lines_and_phones_hear_of_announcements(
    server: Server, network: Network
) -> None:
    """An announcement is told once to everybody of its role: to who is there, and to who comes while it is valid."""
    operator = await network.client("operator", "op1")
    here, driver = await network.client("transporter", "t1"), await network.client("driver", "d1")
    before = await operator.get_settings()
    changed = await operator.patch_settings({"toggle_limit": 3}, before["version"])
    assert changed["complete"]
    assert changed["changes"] == {"toggle_limit": {"from": 10, "to": 3}}
    with pytest.raises(ServerError, match="VERSION_MISMATCH") as late:
        await operator.patch_settings({"toggle_limit": 4}, before["version"])
    assert late.value.data == {"version": changed["version"]}
    control = await operator.subscribe(f"control:{network.tenant}")
    assert control.state["settings"]["toggle_limit"] == 3
    announced = await operator.announce("transporter", "Fog on NH48", lifetime_s=60, id="fog")
    assert await operator.announce("transporter", "Fog on NH48", lifetime_s=60, id="fog") == announced
    for client in (here, await network.client("transporter", "t2")):
        (fog,) = await hears(client, "announcement")
        assert fog.data["text"] == "Fog on NH48"
        assert 0 < fog.data["expires_at"] - client.server_now_ms() <= 60_000
    for command in (operator.pause(), operator.resume(), operator.reload_settings(), operator.switch_mode("blast")):
        assert (await command)["complete"]
    async with asyncio.timeout(10):
        while control.state["version"] < announced["version"] + 4:
            await asyncio.sleep(0.01)
    assert control.state["settings"]["dispatch_mode"] == "blast"
    for client in (here, driver):
        await client.close()
        assert [event async for event in client.events()] == []
