"""What belongs to another tenant does not exist."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest
import pytest_asyncio

from haulcast.transport import wire
from haulcast.transport.handlers import LOGGED
from haulcast.transport.http import ROUTES
from tests.acceptance.bad_input.bench import (
    WITHIN_S,
    Bench,
    Counted,
    token,
)
from tests.acceptance.bad_input.wrong import (
    GOOD,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def theirs(edge: Bench) -> Mapping[str, str]:
    """What `acme` has: a live broadcast with a trip, and who and what takes part. `rival` has a broadcast of its own,
    offered to its transporter; the names of users are the same in both."""
    broadcasts: dict[str, str] = {}
    trip = ""
    for tenant, prefix in (("acme", "a"), ("rival", "r")):
        operator = token("operator", "op1", tenant)
        fleet = {"transporter_id": "t1"}
        for path, body in (
            ("transporters/t1", {}),
            (f"vehicles/{prefix}v1", {**fleet, "vehicle_type": "truck_14ft"}),
            (f"drivers/{prefix}d1", fleet),
        ):
            assert (await edge.rest("PUT", f"/v1/fleet/{path}", operator, body))[0] == 200
        transporter = await edge.greeted("transporter", "t1", tenant)
        await transporter.do("location", {"vehicle_id": f"{prefix}v1", "lat": 12.97, "lng": 77.59})
        await transporter.do("transporter.online")
        customer = await edge.greeted("customer", "c1", tenant)
        data = {**GOOD[wire.BroadcastCreate], "trucks": [{"vehicle_type": "truck_14ft", "count": 2}]}
        broadcasts[tenant] = (await customer.do("broadcast.create", data, id="create"))["broadcast_id"]
        async with asyncio.timeout(WITHIN_S):
            while not (await edge.rest("GET", "/v1/offers", token("transporter", "t1", tenant)))[1]["offers"]:
                await asyncio.sleep(0.01)
        if tenant == "acme":
            accept = {"broadcast_id": broadcasts[tenant], "vehicle_id": "av1", "driver_id": "ad1"}
            trip = (await transporter.do("offer.accept", accept, id="accept"))["trip_id"]
            status, answer, _ = await edge.rest("PUT", "/v1/fleet/transporters/at9", operator, {})
            assert status == 200, answer
    return {
        "broadcast": broadcasts["acme"],
        "own": broadcasts["rival"],
        "vehicle": "av1",
        "driver": "ad1",
        "trip": trip,
        "transporter": "at9",
    }


NONE_SUCH = {
    "broadcast": "01k9zzzzzzzzzzzzzzzzzzzzzz",
    "vehicle": "no-such",
    "driver": "no-such",
    "trip": "01k9zzzzzzzzzzzzzzzzzzzzzz-1-t",
    "transporter": "no-such",
}
FOREIGN: Mapping[str, tuple[str, str, dict[str, str], str]] = {
    # what: role, type, data, code
    "cancel a broadcast": ("customer", "broadcast.cancel", {"broadcast_id": "broadcast"}, "BROADCAST_NOT_FOUND"),
    "accept an offer": (
        "transporter",
        "offer.accept",
        {"broadcast_id": "broadcast", "vehicle_id": "=rv1", "driver_id": "=rd1"},
        "BROADCAST_NOT_FOUND",
    ),
    "decline an offer": ("transporter", "offer.decline", {"broadcast_id": "broadcast"}, "BROADCAST_NOT_FOUND"),
    "accept with a vehicle": (
        "transporter",
        "offer.accept",
        {"broadcast_id": "own", "vehicle_id": "vehicle", "driver_id": "=rd1"},
        "VEHICLE_NOT_OWNED",
    ),
    "accept with a driver": (
        "transporter",
        "offer.accept",
        {"broadcast_id": "own", "vehicle_id": "=rv1", "driver_id": "driver"},
        "DRIVER_NOT_OWNED",
    ),
    "move a vehicle": (
        "transporter",
        "location",
        {"vehicle_id": "vehicle", "lat": "1", "lng": "1"},
        "VEHICLE_NOT_OWNED",
    ),
    "drive a vehicle": ("driver", "location", {"vehicle_id": "vehicle", "lat": "1", "lng": "1"}, "VEHICLE_NOT_OWNED"),
    "end a trip": ("transporter", "trip.update", {"trip_id": "trip", "status": "=cancelled"}, "TRIP_NOT_FOUND"),
    "watch a broadcast": ("customer", "subscribe", {"topic": "broadcast:broadcast"}, "TOPIC_NOT_FOUND"),
    "watch a broadcast as operator": ("operator", "subscribe", {"topic": "broadcast:broadcast"}, "TOPIC_NOT_FOUND"),
    "watch a feed": ("transporter", "subscribe", {"topic": "feed:transporter"}, "TOPIC_NOT_FOUND"),
    "watch a driver": ("driver", "subscribe", {"topic": "driver:driver"}, "TOPIC_NOT_FOUND"),
    "watch another kind": ("operator", "subscribe", {"topic": "board:broadcast"}, "TOPIC_NOT_FOUND"),
}
_USERS = {"customer": "c1", "transporter": "t1", "driver": "rd1", "operator": "op1"}


@pytest.mark.parametrize("what", FOREIGN)
async def test_what_is_another_tenants_does_not_exist(edge: Bench, theirs: Mapping[str, str], what: str) -> None:
    """C1: the answer is, but for the name that was asked for, that for something made up."""
    role, request_type, data, code = FOREIGN[what]
    line = await edge.greeted(role, _USERS[role], "rival")
    errors = []
    for number, names in enumerate((theirs, {**theirs, **NONE_SUCH})):
        sent = {key: named(value, names) for key, value in data.items()}
        async with edge.notices(Counted.request(request_type, code), logged=wire.REQUESTS[request_type] not in LOGGED):
            reply = await line.ask(request_type, sent, id=f"{what}-{number}")
        errors.append(nameless(reply["error"], sent))
    await line.goes_on()
    await line.ws.close()
    assert errors[0] == errors[1]


def named(value: str, names: Mapping[str, str]) -> Any:
    """A value of the table: a name, text after "=", a number, or a topic of a name."""
    if value.startswith("="):
        return value[1:]
    if value.isdigit():
        return int(value)
    kind, _, name = value.rpartition(":")
    return f"{kind}:{names[name]}" if kind else names[name]


def nameless(error: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """The error without the names that the client gave itself."""
    data = {key: "-" if value in sent.values() else value for key, value in error["data"].items()}
    return {**error, "data": data}


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "code"),
    [
        ("customer", "GET", "/v1/broadcasts/{broadcast}", None, "BROADCAST_NOT_FOUND"),
        ("operator", "GET", "/v1/broadcasts/{broadcast}", None, "BROADCAST_NOT_FOUND"),
        ("customer", "POST", "/v1/broadcasts/{broadcast}/cancel", {}, "BROADCAST_NOT_FOUND"),
        (
            "operator",
            "PUT",
            "/v1/fleet/vehicles/mine",
            {"transporter_id": "{transporter}", "vehicle_type": "x"},
            "TRANSPORTER_NOT_FOUND",
        ),
        ("operator", "PUT", "/v1/fleet/drivers/mine", {"transporter_id": "{transporter}"}, "TRANSPORTER_NOT_FOUND"),
    ],
)
async def test_no_address_leads_to_another_tenant(
    edge: Bench, theirs: Mapping[str, str], role: str, method: str, path: str, body: Any, code: str
) -> None:
    """C1, over REST."""
    route = next(
        one for one in ROUTES if one.method == method and re.fullmatch(re.sub("{.*?}", "[^/]+", one.path), path)
    )
    answers = []
    for number, names in enumerate((theirs, {**theirs, **NONE_SUCH})):
        sent = {key: value.format(**names) for key, value in body.items()} if body is not None else None
        async with edge.notices(Counted.request(wire.TYPE_OF[route.request], code), logged=route.request not in LOGGED):
            status, answer, _ = await edge.rest(
                method,
                path.format(**names),
                token(role, _USERS[role], "rival"),
                sent,
                **{"Idempotency-Key": f"{path}-{role}-{number}"[:64]},
            )
        answers.append((status, nameless(answer["error"], sent or {})))
    assert answers[0] == answers[1]


async def test_an_operator_sees_nothing_on_the_topics_of_another_tenant(edge: Bench, theirs: Mapping[str, str]) -> None:
    """C1: an operator may look at any feed of its own tenant; one of another is as empty as one that is not there."""
    line = await edge.greeted("operator", "op1", "rival")
    for topic in (f"driver:{theirs['driver']}", "driver:no-such"):
        await line.say({"id": "q", "type": "subscribe", "data": {"topic": topic}})
        async with asyncio.timeout(WITHIN_S):
            snapshot = (await line.ws.receive()).json()
        assert (snapshot["topic"], snapshot["data"]) == (topic, {"trips": {}})
        assert (await line.hear())["ok"]
