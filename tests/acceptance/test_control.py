"""Operators change how dispatch works while it runs, and everybody who is connected, at whichever node, notices."""

import asyncio
from itertools import count

import pytest

from tests.acceptance.network import TRUCK, Network, accept_of, haul, offered
from tests.acceptance.phone import Json, Phone, eventually, eventually_answered

_numbers = count(1)


async def operated(network: Network, **settings: object) -> Phone:
    """The tenant with an operator, who has the control topic open."""
    await network.create_tenant(wave_radii_km=[50], reminder_lead_s=1, **settings)
    operator = await network.phone("operator", "op")
    await operator.do("subscribe", {"topic": f"control:{network.tenant}"})
    return operator


def control(operator: Phone) -> Json:
    """What is in force, as the operator is shown it."""
    (topic,) = [name for name in operator.views if name.startswith("control:")]
    return operator.state(topic)


async def commanded(operator: Phone, command: str, **data: object) -> Json:
    """A command that every node has followed."""
    answer = await operator.do(f"control.{command}", data)
    assert answer["complete"], answer
    return answer


# --- What is in force ------------------------------------------------------------------------------------------------


async def test_a_change_is_shown_to_every_operator_with_the_nodes_that_have_followed(network: Network) -> None:
    operator = await operated(network)
    other = await network.phone("operator", "op2")
    await other.do("subscribe", {"topic": f"control:{network.tenant}"})
    answer = await commanded(operator, "pause")
    assert answer["changes"] == {"paused": {"from": False, "to": True}}
    for phone in (operator, other):
        await eventually(lambda: control(phone)["paused"], "the pause is shown")  # noqa: B023
        await eventually(
            lambda: {node["version"] for node in control(phone)["nodes"].values()} == {answer["version"]},  # noqa: B023
            "every node is shown to have followed",
        )
        assert {int(node) for node in control(phone)["nodes"]} == {each["node"] for each in answer["nodes"]}
    status, polled = await network.rest("GET", f"/v1/topics/control:{network.tenant}", "operator", "op")
    assert (status, polled["data"]) == (200, control(operator))


async def test_settings_are_changed_on_the_version_that_was_read_or_not_at_all(network: Network) -> None:
    operator = await operated(network)
    was = await operator.do("settings.get")
    patch = {"settings": {"max_expiry_s": 600}, "expected_version": was["version"]}
    first = await operator.do("settings.patch", patch, id="first")
    reply = await operator.ask("settings.patch", {**patch, "settings": {"max_expiry_s": 700}})
    assert (reply["error"]["code"], reply["error"]["data"]) == ("VERSION_MISMATCH", {"version": first["version"]})
    assert await operator.do("settings.patch", patch, id="first") == first
    status, history = await network.rest("GET", "/v1/settings/history", "operator", "op")
    assert status == 200
    (entry,) = history["entries"]
    assert entry["by"] == {"role": "operator", "user": "op"}
    assert entry["changes"] == {"max_expiry_s": {"from": 86_400, "to": 600}}
    customer = await network.phone("customer", "c1")
    refused = await customer.ask("broadcast.create", haul(expires_in_s=700))
    assert (refused["error"]["code"], refused["error"]["data"]["max"]) == ("EXPIRY_OUT_OF_RANGE", 600)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"wave_interval_s": 0}, "data.settings.wave_interval_s"),
        ({"default_expiry_s": 100_000}, "data.settings.default_expiry_s"),
        ({"dispatch_mode": "teleport"}, "data.settings.dispatch_mode"),
        ({"active_broadcast_policy": "both"}, "data.settings.active_broadcast_policy"),
        ({"radius": 5}, "data.settings.radius"),
        ({"toggle_limit": "many"}, "data.settings.toggle_limit"),
    ],
)
async def test_a_setting_that_cannot_work_is_named_with_what_can_and_nothing_changes(
    network: Network, settings: Json, field: str
) -> None:
    operator = await operated(network)
    before = await operator.do("settings.get")
    data = {"settings": {"min_expiry_s": 20, **settings}, "expected_version": before["version"]}
    error = (await operator.ask("settings.patch", data))["error"]
    assert (error["code"], error["data"]["field"]) == ("BAD_REQUEST", field)
    assert error["message"].startswith(field)
    assert await operator.do("settings.get") == before


# --- Paused ----------------------------------------------------------------------------------------------------------


async def test_while_dispatch_is_paused_nothing_new_begins_and_everything_else_goes_on(network: Network) -> None:
    """No new broadcast, whoever asks at whichever node; accepts, cancels, trips and expiries as always."""
    operator = await operated(network, min_expiry_s=1)
    t1, t2 = await network.transporter("t1", 1.0), await network.transporter("t2", 2.0)
    customers = [await network.phone("customer", f"c{number}") for number in range(4)]
    hauls = [await phone.do("broadcast.create", haul(expires_in_s=300)) for phone in customers[:2]]
    short = await customers[2].do("broadcast.create", haul(expires_in_s=4))
    won, cancelled = (each["broadcast_id"] for each in hauls)
    await offered(won, t1, t2)
    await offered(cancelled, t1, t2)
    await commanded(operator, "pause")
    refused = await customers[3].ask("broadcast.create", haul())
    assert (refused["error"]["code"], refused["error"]["retry"]) == ("TENANT_PAUSED", False)
    trip = await t1.do("offer.accept", accept_of("t1", won))
    await t1.do("trip.update", {"trip_id": trip["trip_id"], "status": "en_route"})
    await customers[1].do("broadcast.cancel", {"broadcast_id": cancelled})
    topic = f"broadcast:{short['broadcast_id']}"
    await eventually(lambda: customers[2].state(topic)["status"] == "expired", "it expires in time")
    await commanded(operator, "resume")
    assert (await customers[3].do("broadcast.create", haul()))["status"] == "searching"


# --- Dispatch modes --------------------------------------------------------------------------------------------------


async def test_in_the_mode_blast_everybody_is_offered_it_at_once(network: Network) -> None:
    operator = await operated(network, wave_interval_s=600)
    far = await network.transporter("far", 500.0)
    near = await network.transporter("near", 1.0)
    customer = await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, near)
    assert not far.has_offer(broadcast_id)
    await commanded(operator, "switch_mode", mode="blast")  # also those that have sent their last wave
    await offered(broadcast_id, far)


async def test_in_the_mode_best_match_the_nearest_of_those_who_accept_wins(network: Network) -> None:
    """Both are answered that it is pending. When the window is over one hears of the trip, the other that the truck is
    another's, and the customer of the nearer one's truck. What is asked again is answered as before."""
    operator = await operated(network, dispatch_mode="best_match", accept_window_s=1.0)
    far, near = await network.transporter("far", 8.0), await network.transporter("near", 2.0)
    customer = await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, far, near)
    pending = await far.do("offer.accept", accept_of("far", broadcast_id), id="mine")
    assert (pending["status"], pending["broadcast_id"]) == ("pending", broadcast_id)
    assert (await near.do("offer.accept", accept_of("near", broadcast_id)))["decided_at"] == pending["decided_at"]
    assert far.offers[broadcast_id]["decided_at"] == pending["decided_at"]
    await eventually(lambda: near.heard("trip_assigned"), "the nearer one hears of the trip")
    await eventually(lambda: far.heard("accept_lost"), "the other hears that it has lost")
    (lost,) = far.heard("accept_lost")
    assert (lost.data["code"], lost.data["remaining_requests"]) == ("REQUEST_ALREADY_TAKEN", 0)
    assert not far.heard("trip_assigned")
    await eventually(lambda: customer.heard("truck_confirmed"), "the customer hears of the truck")
    assert customer.heard("truck_confirmed")[0].data["transporter_id"] == "near"
    assert await far.do("offer.accept", accept_of("far", broadcast_id), id="mine") == pending
    assert (await operator.do("settings.get"))["settings"]["dispatch_mode"] == "best_match"


async def test_an_accept_that_waits_is_decided_although_the_mode_has_changed(network: Network) -> None:
    operator = await operated(network, dispatch_mode="best_match", accept_window_s=1.0)
    t1 = await network.transporter("t1", 2.0)
    customer = await network.phone("customer", "c1")
    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, t1)
    assert (await t1.do("offer.accept", accept_of("t1", broadcast_id)))["status"] == "pending"
    await commanded(operator, "switch_mode", mode="progressive")
    await eventually(lambda: t1.heard("trip_assigned"), "it hears of the trip")


# --- Replacing -------------------------------------------------------------------------------------------------------


async def test_by_the_policy_replace_a_second_broadcast_takes_the_place_of_the_first(network: Network) -> None:
    """Whoever has a truck in the first keeps it; the others hear that it was replaced."""
    await operated(network, active_broadcast_policy="replace")
    t1, t2 = await network.transporter("t1", 1.0), await network.transporter("t2", 2.0)
    customer, elsewhere = await network.phone("customer", "c1"), await network.phone("customer", "c1")
    first = (await customer.do("broadcast.create", haul({TRUCK: 2})))["broadcast_id"]
    await offered(first, t1, t2)
    trip = await t1.do("offer.accept", accept_of("t1", first))
    second = await elsewhere.do("broadcast.create", haul(), id="second")
    assert second["status"] == "searching"
    await eventually(lambda: t2.heard("offer_closed"), "the others hear that it is over")
    assert t2.heard("offer_closed")[0].data == {"broadcast_id": first, "reason": "replaced"}
    await eventually(lambda: customer.heard("broadcast_cancelled"), "the customer hears of it")
    assert customer.heard("broadcast_cancelled")[0].data == {"reason": "replaced", "assigned": 1}
    await t1.do("trip.update", {"trip_id": trip["trip_id"], "status": "en_route"})
    assert await customer.do("broadcast.create", haul(), id="second") == second
    status, body = await network.rest("GET", "/v1/broadcasts", "customer", "c1")
    assert status == 200
    assert [one["broadcast_id"] for one in body["broadcasts"]] == [second["broadcast_id"], first]
    assert body["broadcasts"][0]["status"] == "searching"


async def test_however_many_create_at_once_one_is_left_when_they_replace_each_other(network: Network) -> None:
    await operated(network, active_broadcast_policy="replace")
    phones = [await network.phone("customer", "c1") for _ in range(4)]
    replies = await asyncio.gather(*(phone.ask("broadcast.create", haul()) for phone in phones for _ in range(3)))
    created = {reply["data"]["broadcast_id"] for reply in replies if reply["ok"]}
    assert {reply["error"]["code"] for reply in replies if not reply["ok"]} <= {"UNAVAILABLE"}
    status, body = await network.rest("GET", "/v1/broadcasts", "customer", "c1")
    assert status == 200
    live = [one["broadcast_id"] for one in body["broadcasts"] if one["status"] == "searching"]
    assert len(live) == 1
    ended = {one["end_reason"] for one in body["broadcasts"] if one["broadcast_id"] not in live}
    assert created <= {one["broadcast_id"] for one in body["broadcasts"]}
    assert ended == {"replaced"}


# --- Announcements ---------------------------------------------------------------------------------------------------


async def test_an_announcement_reaches_everybody_of_its_role_and_those_who_come_before_it_expires(
    network: Network,
) -> None:
    operator = await operated(network)
    drivers = [await network.phone("driver", f"d{number}") for number in range(4)]
    others = [await network.phone("customer", "c1"), await network.phone("transporter", "t1")]
    answer = await commanded(operator, "announce", audience="driver", text="Snow on the pass", lifetime_s=600)
    short = await commanded(operator, "announce", audience="driver", text="Coffee", lifetime_s=10)
    late = await network.phone("driver", "late")
    for phone in (*drivers, late):
        await eventually(lambda: len(phone.announcements) == 2, "both are shown")  # noqa: B023
        assert [each["text"] for each in phone.announcements.values()] == ["Snow on the pass", "Coffee"]
    assert [phone.announcements for phone in others] == [{}, {}]
    assert answer["number"] < short["number"]
    (topic,) = [name for name in operator.views if name.startswith("control:")]
    await eventually(lambda: len(operator.state(topic)["announcements"]) == 2, "operators see them")


async def test_announcements_have_a_limit(network: Network) -> None:
    operator = await operated(network, announcements_per_hour=2)
    for _ in range(2):
        await commanded(operator, "announce", audience="customer", text="Hello")
    error = (await operator.ask("control.announce", {"audience": "customer", "text": "Hello"}))["error"]
    assert (error["code"], error["retry"]) == ("TOO_MANY_ANNOUNCEMENTS", True)
    assert 3_500_000 < error["data"]["retry_after_ms"] <= 3_600_000


# --- Who may ---------------------------------------------------------------------------------------------------------


async def test_only_operators_and_admins_command_and_only_admins_drain(network: Network) -> None:
    await operated(network)
    for role in ("customer", "transporter", "driver"):
        phone = await network.phone(role, "someone")
        for request, data in (
            ("control.pause", {}),
            ("settings.get", {}),
            ("settings.patch", {"settings": {}, "expected_version": 1}),
            ("control.announce", {"audience": "driver", "text": "x"}),
            ("control.drain_node", {"node": 1}),
        ):
            assert (await phone.ask(request, data))["error"]["code"] == "FORBIDDEN"
    operator = await network.phone("operator", "op")
    assert (await operator.ask("control.drain_node", {"node": 1}))["error"]["code"] == "FORBIDDEN"


async def test_a_command_to_a_tenant_that_does_not_exist_is_refused(network: Network) -> None:
    """An admin's token may name any tenant; in development, where tenants come into being, this one does."""
    admin = await network.phone("admin", "root")
    assert (await admin.ask("control.drain_node", {"node": 987_654}))["error"]["code"] == "NODE_NOT_FOUND"
    assert (await admin.do("settings.get"))["version"] == 1


async def test_every_command_is_on_record_with_its_outcome(network: Network) -> None:
    operator = await operated(network)
    await commanded(operator, "pause")
    await commanded(operator, "resume")
    await commanded(operator, "announce", audience="driver", text="Hello")

    async def audited() -> bool:
        _, log = await network.rest("GET", "/v1/control?limit=2", "operator", "op")
        return [entry["command"] for entry in log["entries"]] == ["announce", "resume"] and all(
            entry["outcome"]["complete"] for entry in log["entries"]
        )

    await eventually_answered(audited, "the newest commands are on record, with their outcome")
    _, page = await network.rest("GET", "/v1/control?limit=2", "operator", "op")
    _, rest = await network.rest("GET", f"/v1/control?limit=2&before={page['next']}", "operator", "op")
    assert [entry["command"] for entry in rest["entries"]] == ["pause"]
    assert rest["next"] is None
