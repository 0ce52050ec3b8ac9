"""Tenants are kept apart, by trying: every request, in every way that it can be made, by every role that may make it,
with the names of what is another tenant's (docs/guarantees.md).

**A new request needs a row in `ATTEMPTS`**, under its name in `wire.REQUESTS` or `wire.REST_REQUESTS`; a new route to a
request that has one needs nothing. A row tries

1. each id that the request takes, with what the other tenant has by that name: `"{broadcast}"`, `"{cancelled}"` (that
   one's id), `"{trip}"`, `"{vehicle}"`, `"{driver}"`, `"{transporter}"`, `"{tenant}"`; `"{t1_vehicle}"` and
   `"{t1_driver}"` are its t1's, where the attacker's t1 has no such; `"{own_broadcast}"` is the attacker's;
2. names that both have (`t1`, `t1-v`, `t1-w`, `t1-d`, `c1`), which have to mean the attacker's own;
3. for a command whose answers are kept, exactly what the other tenant's user of the same name has sent before, under
   the same id.

Every attempt names the other tenant besides, in its data and in the address. What is looked at afterwards is the same
for all; `two_tenants` says what there is, and how the other tenant notices.
"""

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from haulcast.errors import ERRORS
from haulcast.ports import Role
from haulcast.storage.redis.keys import KEYS
from haulcast.transport import wire
from haulcast.transport.handlers import HANDLERS, LOGGED
from haulcast.transport.http import ROUTES, Route
from haulcast.transport.snapshots import KINDS
from tests.acceptance.deployment import Cluster
from tests.acceptance.network import DROP, PICKUP, TRUCK, Network, north_of_pickup
from tests.acceptance.phone import Json
from tests.acceptance.server import Server
from tests.acceptance.two_tenants import SAID, SETTINGS, Attacker, Victim

_numbers = count(1)

STRUCTS: Mapping[str, type[wire.Request]] = {**wire.REQUESTS, **wire.REST_REQUESTS}
OWN = "it goes through, and concerns the attacker's own"
EVERYBODY = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request, by each of these roles. `expected`: the code that refuses it, or `OWN`."""

    roles: Collection[Role]
    data: Mapping[str, Any]
    expected: str
    id: str | None = None
    """The id or `Idempotency-Key`: that of the victim's own request, for what repeats it. None: a new one."""
    shows: Callable[[Json], bool] = lambda answer: True
    """What else has to hold for the answer's data."""


CUSTOMER, TRANSPORTER, DRIVER = {Role.CUSTOMER}, {Role.TRANSPORTER}, {Role.DRIVER}
OPERATOR, ADMIN = {Role.OPERATOR}, {Role.ADMIN}
OVERSEERS = OPERATOR | ADMIN
_FAR = dict(zip(("lat", "lng"), north_of_pickup(9.0), strict=True))


def _nothing(answer: Json) -> bool:
    """Of a topic that its tenant has by no such name: it is there, and empty."""
    return "data" not in answer or not any(answer["data"].values())


def _first(answer: Json) -> bool:
    """Of a command: it is the attacker's first, and the victim's under the same id is none of it."""
    return bool(answer["number"] == 1)


def _commanded(request_type: str, **data: Any) -> "tuple[Attempt, ...]":
    """A command that the victim's operator has given to the letter, and an admin's."""
    return (Attempt(OPERATOR, data, OWN, id=request_type, shows=_first), Attempt(ADMIN, data, OWN))


TOPICS: Mapping[str, Mapping[str, Collection[Role]]] = {
    # kind: names, and who may see what the own tenant has by that name
    "broadcast": {"{broadcast}": (), "{cancelled}": ()},
    "feed": {"t1": TRANSPORTER | OVERSEERS, "{transporter}": OVERSEERS},
    "driver": {"t1-d": DRIVER | OVERSEERS, "{driver}": OVERSEERS},
    "fleet": {"t1": TRANSPORTER | OVERSEERS, "{transporter}": OVERSEERS},
    "board": {"{tenant}": ()},
    "control": {"{tenant}": ()},
}
NAMES = tuple(f"{kind}:{name}" for kind, names in TOPICS.items() for name in names)

WATCHING = tuple(
    attempt
    for kind, names in TOPICS.items()
    for name, may in names.items()
    for attempt in (
        Attempt(EVERYBODY - {*may}, {"topic": f"{kind}:{name}"}, "TOPIC_NOT_FOUND"),
        Attempt(may, {"topic": f"{kind}:{name}"}, OWN, shows=_nothing if "{" in name else lambda answer: True),
    )
)

ATTEMPTS: Mapping[str, tuple[Attempt, ...]] = {
    "hello": (Attempt(EVERYBODY, {"resume": dict.fromkeys(NAMES, (0, 1))}, OWN),),
    "ping": (Attempt(EVERYBODY, {}, OWN),),
    "subscribe": WATCHING,
    "unsubscribe": tuple(Attempt(EVERYBODY, {"topic": name}, OWN) for name in NAMES),
    "ack": tuple(Attempt(EVERYBODY, {"topic": name, "version": (0, 1)}, OWN) for name in NAMES),
    "broadcast.create": (
        Attempt(
            CUSTOMER,
            {  # to the letter what the victim's c1 has sent
                "pickup": {"lat": PICKUP[0], "lng": PICKUP[1], "address": "{address}"},
                "drop": {"lat": DROP[0], "lng": DROP[1], "address": ""},
                "trucks": [{"vehicle_type": TRUCK, "count": 2}],
                "note": "{note}",
            },
            OWN,
            id="broadcast.create",
        ),
    ),
    "broadcast.cancel": (
        Attempt(CUSTOMER, {"broadcast_id": "{broadcast}"}, "BROADCAST_NOT_FOUND"),
        Attempt(CUSTOMER, {"broadcast_id": "{cancelled}"}, "BROADCAST_NOT_FOUND", id="broadcast.cancel"),
    ),
    "offer.accept": (
        Attempt(
            TRANSPORTER,
            {"broadcast_id": "{broadcast}", "vehicle_id": "t1-w", "driver_id": "t1-d"},
            "BROADCAST_NOT_FOUND",
        ),
        Attempt(
            TRANSPORTER,
            {"broadcast_id": "{broadcast}", "vehicle_id": "t1-v", "driver_id": "t1-d"},
            "BROADCAST_NOT_FOUND",
            id="offer.accept",
        ),
        Attempt(
            TRANSPORTER,
            {"broadcast_id": "{own_broadcast}", "vehicle_id": "{vehicle}", "driver_id": "t1-d"},
            "VEHICLE_NOT_OWNED",
        ),
        Attempt(
            TRANSPORTER,
            {"broadcast_id": "{own_broadcast}", "vehicle_id": "t1-v", "driver_id": "{driver}"},
            "DRIVER_NOT_OWNED",
        ),
        Attempt(
            TRANSPORTER,
            {"broadcast_id": "{own_broadcast}", "vehicle_id": "{t1_vehicle}", "driver_id": "t1-d"},
            "VEHICLE_NOT_OWNED",
        ),
        Attempt(
            TRANSPORTER,
            {"broadcast_id": "{own_broadcast}", "vehicle_id": "t1-v", "driver_id": "{t1_driver}"},
            "DRIVER_NOT_OWNED",
        ),
        # Both are on a trip of the victim's.
        Attempt(TRANSPORTER, {"broadcast_id": "{own_broadcast}", "vehicle_id": "t1-v", "driver_id": "t1-d"}, OWN),
    ),
    "offer.decline": (
        Attempt(TRANSPORTER, {"broadcast_id": "{broadcast}"}, "BROADCAST_NOT_FOUND"),
        Attempt(TRANSPORTER, {"broadcast_id": "{cancelled}"}, "BROADCAST_NOT_FOUND", id="offer.decline"),
    ),
    "transporter.online": (Attempt(TRANSPORTER, {}, OWN, shows=lambda answer: answer["changed"] is False),),
    "transporter.offline": (Attempt(TRANSPORTER, {}, OWN, shows=lambda answer: answer["changed"] is True),),
    "location": (
        Attempt(TRANSPORTER | DRIVER, {"vehicle_id": "{vehicle}", **_FAR}, "VEHICLE_NOT_OWNED"),
        Attempt(TRANSPORTER | DRIVER, {"vehicle_id": "{t1_vehicle}", **_FAR}, "VEHICLE_NOT_OWNED"),
        Attempt(TRANSPORTER | DRIVER, {"vehicle_id": "t1-w", **_FAR}, OWN),
        Attempt(TRANSPORTER | DRIVER, {"vehicle_id": "t1-v", **_FAR}, OWN),
    ),
    "trip.update": (
        Attempt(TRANSPORTER | DRIVER, {"trip_id": "{trip}", "status": "delivered"}, "TRIP_NOT_FOUND"),
        Attempt(TRANSPORTER | DRIVER, {"trip_id": "{trip}", "status": "en_route"}, "TRIP_NOT_FOUND", id="trip.update"),
    ),
    "settings.get": (Attempt(OVERSEERS, {}, OWN, shows=lambda answer: answer["version"] == 1),),
    "settings.patch": (
        Attempt(
            OPERATOR,
            {"settings": {"reminder_lead_s": 60}, "expected_version": 1},
            OWN,
            id="settings.patch",
            shows=lambda answer: (answer["number"], answer["version"]) == (1, 2),
        ),
        Attempt(ADMIN, {"settings": {"toggle_limit": 9}, "expected_version": 2}, OWN),
    ),
    "control.pause": _commanded("control.pause"),
    "control.resume": _commanded("control.resume"),
    "control.reload_settings": _commanded("control.reload_settings"),
    "control.switch_mode": _commanded("control.switch_mode", mode="progressive"),
    "control.announce": (
        Attempt(OPERATOR, {"audience": "driver", "text": "{note}"}, OWN, id="control.announce", shows=_first),
        Attempt(ADMIN, {"audience": "transporter", "text": SAID}, OWN),
        Attempt(OPERATOR, {"audience": "customer", "text": SAID}, OWN),
    ),
    # A node is everybody's: only an admin may, and this one is none.
    "control.drain_node": (Attempt(ADMIN, {"node": 0}, "NODE_NOT_FOUND", id="control.drain_node"),),
    "settings.history": (Attempt(OVERSEERS, {}, OWN, shows=lambda answer: answer["entries"] == []),),
    "control.log": (Attempt(OVERSEERS, {}, OWN, shows=lambda answer: answer["entries"] == []),),
    "availability.put": (
        Attempt(TRANSPORTER, {"online": True}, OWN, shows=lambda answer: answer["changed"] is False),
        Attempt(TRANSPORTER, {"online": False}, OWN, shows=lambda answer: answer["changed"] is True),
    ),
    "broadcast.list": (
        Attempt(CUSTOMER, {}, OWN, shows=lambda answer: answer["broadcasts"] == []),
        Attempt(OVERSEERS, {}, OWN, shows=lambda answer: len(answer["broadcasts"]) == 1),
    ),
    "broadcast.get": (
        Attempt(CUSTOMER | OVERSEERS, {"broadcast_id": "{broadcast}"}, "BROADCAST_NOT_FOUND"),
        Attempt(CUSTOMER | OVERSEERS, {"broadcast_id": "{cancelled}"}, "BROADCAST_NOT_FOUND"),
        Attempt(OVERSEERS, {"broadcast_id": "{own_broadcast}"}, OWN),
    ),
    "offer.list": (Attempt(TRANSPORTER, {}, OWN, shows=lambda answer: len(answer["offers"]) == 1),),
    "topic.get": WATCHING,
    "node.list": (
        # An admin is told how many broadcasts there are in all; an operator of the own.
        Attempt(OPERATOR, {}, OWN, shows=lambda answer: sum(n["active_broadcasts"] for n in answer["nodes"]) == 1),
        Attempt(ADMIN, {}, OWN),
    ),
    "transporter.put": (
        Attempt(OPERATOR, {"transporter_id": "{transporter}", "name": SAID}, OWN),
        Attempt(OPERATOR, {"transporter_id": "t1", "name": SAID}, OWN),
    ),
    "vehicle.put": (
        Attempt(
            OPERATOR,
            {"vehicle_id": "v9", "transporter_id": "{transporter}", "vehicle_type": TRUCK},
            "TRANSPORTER_NOT_FOUND",
        ),
        Attempt(OPERATOR, {"vehicle_id": "{vehicle}", "transporter_id": "t1", "vehicle_type": "van"}, OWN),
        Attempt(OPERATOR, {"vehicle_id": "t1-w", "transporter_id": "t1", "vehicle_type": "van"}, OWN),
    ),
    "driver.put": (
        Attempt(
            OPERATOR,
            {"driver_id": "d9", "transporter_id": "{transporter}", "name": SAID},
            "TRANSPORTER_NOT_FOUND",
        ),
        Attempt(OPERATOR, {"driver_id": "{driver}", "transporter_id": "t1", "name": SAID}, OWN),
        Attempt(OPERATOR, {"driver_id": "t1-d", "transporter_id": "t1", "name": SAID}, OWN),
    ),
    "tenant.put": (
        # An admin is the deployment's, and may learn that a tenant exists; nothing changes one that does.
        Attempt(ADMIN, {"tenant_id": "{tenant}", "settings": {"wave_radii_km": [1]}}, "TENANT_EXISTS"),
        Attempt(
            ADMIN, {"tenant_id": "{tenant}", "settings": SETTINGS}, OWN, shows=lambda answer: not answer["created"]
        ),
    ),
}


# --- Every request, route, role and id has its attempt ---------------------------------------------------------------


def test_every_request_and_every_route_is_tried() -> None:
    """Whoever adds one is told so here: see the top of the file."""
    assert set(ATTEMPTS) == set(STRUCTS)
    assert {wire.TYPE_OF[route.request] for route in ROUTES} <= set(ATTEMPTS)
    assert set(TOPICS) == set(KINDS)


@pytest.mark.parametrize("request_type", ATTEMPTS)
def test_a_row_tries_every_role_that_may_and_every_id_that_the_request_takes(request_type: str) -> None:
    """And for a command whose answer is kept also what somebody else has sent under the same id."""
    row = ATTEMPTS[request_type]
    struct = STRUCTS[request_type]
    may = EVERYBODY if struct is wire.Hello else HANDLERS[struct][0]
    assert {role for attempt in row for role in attempt.roles} == may
    named = {name for attempt in row for name, value in attempt.data.items() if "{" in str(value)}
    takes = {name for name in struct.__struct_fields__ if name.endswith("_id") or name in ("topic", "resume")}
    assert takes <= named
    assert struct not in LOGGED or any(attempt.id == request_type for attempt in row)


# --- Trying ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """How a request is made: over a WebSocket, or by a route."""

    request_type: str
    route: Route | None = None

    @property
    def struct(self) -> type[wire.Request]:
        """What is asked."""
        return STRUCTS[self.request_type]

    def __str__(self) -> str:
        return self.request_type if self.route is None else f"{self.route.method} {self.route.path}"

    async def take(self, attacker: Attacker, role: Role, attempt: Attempt) -> tuple[str, Json]:
        """The outcome of an attempt: `OWN` or the code of the error, and all of the answer."""
        data = attacker.says({"tenant_id": "{tenant}", **attempt.data})
        phone, user = attacker.phones[role], attacker.USERS[role]
        if self.route is not None:
            path = re.sub(r"{(\w+)}", lambda name: str(data[name[1]]), self.route.path)
            body = {name: value for name, value in data.items() if f"{{{name}}}" not in self.route.path}
            status, answer = await attacker.network.rest(
                self.route.method,
                f"{path}?tenant_id={attacker.names['tenant']}",
                role,
                user,
                None if self.route.method == "GET" else body,
                key=attempt.id or f"new{next(_numbers)}",
            )
            if "error" not in answer:
                assert status < 300
                return OWN, answer
            assert status == ERRORS[answer["error"]["code"]].http_status
            return answer["error"]["code"], answer
        if self.request_type == "hello":
            claims = {topic: (epoch, seq) for topic, (epoch, seq) in data["resume"].items()}
            return OWN, (await attacker.network.phone(role, user, claims=claims)).greeting
        if self.request_type == "ack":
            await phone.acknowledge(data["topic"], data["version"])
            return OWN, {}
        reply = await phone.ask(self.request_type, data, id=attempt.id)
        return (OWN if reply["ok"] else reply["error"]["code"]), reply


WAYS = [*map(Way, wire.REQUESTS), *(Way(wire.TYPE_OF[route.request], route) for route in ROUTES)]


@pytest.fixture
async def tenants(server: Server) -> AsyncIterator[tuple[Victim, Attacker]]:
    """The victim at peace. The attacker is yet to get ready."""
    number = next(_numbers)
    async with (
        Network(server.url, f"victim{number}x") as theirs,
        Network(server.url, f"attacker{number}x") as own,
    ):
        victim = Victim(theirs, number)
        await victim.settle_down()
        yield victim, Attacker(own, victim)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_whatever_is_tried_another_tenant_is_neither_seen_nor_touched(
    server: Server, tenants: tuple[Victim, Attacker], way: Way
) -> None:
    """Neither by the answer nor by anything that comes unasked; the other's state is the same, its connections are sent
    nothing, and it goes on as if nothing had been. Metrics name nobody, and the log repeats nothing that was said."""
    victim, attacker = tenants
    before = await victim.state()
    await attacker.get_ready()
    refused = False
    for attempt in ATTEMPTS[way.request_type]:
        for role in sorted(attempt.roles):
            outcome, answer = await way.take(attacker, role, attempt)
            assert outcome == attempt.expected, (role, attempt, answer)
            assert attacker.leaks(answer) == [], (role, attempt, answer)
            refused = refused or (outcome != OWN and way.struct not in LOGGED)  # those have the journal for it
            if outcome == OWN:
                assert attempt.shows(answer.get("data", {}) if way.route is None else answer), (role, attempt, answer)
    assert await victim.state() == before
    await victim.go_on()
    assert victim.disturbances() == []
    assert await attacker.overheard() == []
    await metrics_name_nobody(server, victim, attacker)
    log_repeats_nothing(server, victim, attacker, refused)


async def metrics_name_nobody(server: Server, victim: Victim, attacker: Attacker) -> None:
    """No label is for a tenant, a user or a broadcast, and none has one as its value."""
    names = {*attacker.USERS.values(), "c2", "t1-v", "t1-w", "t1-e"}
    parts = (*victim.secrets, attacker.network.tenant, attacker.names["own_broadcast"], SAID)
    for url in server.url.split(","):
        async with attacker.network.session.get(f"{url}/metrics") as response:
            text = await response.text()
        assert "haulcast_requests_total" in text
        assert not [part for part in parts if part in text]
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                for label, value in sample.labels.items():
                    assert not re.search("tenant|user|customer|transporter|driver|vehicle|broadcast|trip", label), (
                        sample
                    )
                    assert value not in names, sample


def log_repeats_nothing(server: Server, victim: Victim, attacker: Attacker, refused: bool) -> None:
    """Whoever was refused is in the log, with tenant and user; what was said is not, nor any token."""
    log = server.log_text()
    assert not [text for text in (victim.secret, SAID, '"eyJ', "Bearer") if text in log]
    told = [line for line in log.splitlines() if f'"tenant": "{attacker.network.tenant}"' in line]
    assert any('"request_refused"' in line and '"user": ' in line for line in told) or not refused


# --- Redis -----------------------------------------------------------------------------------------------------------


async def test_what_redis_has_of_a_tenant_is_under_the_tenants_name(
    server: Server, tenants: tuple[Victim, Attacker]
) -> None:
    """By its key; and what is under no tenant's name are numbers of nodes."""
    assert isinstance(server, Cluster)
    victim, attacker = tenants
    await attacker.get_ready()
    await victim.go_on()
    found = set()
    async with Redis.from_url(server.redis_url, decode_responses=True) as redis:
        async for name in redis.scan_iter(count=1_000):
            [family] = [family for family in KEYS if family.matches(name)]
            held = await _held(redis, name)
            if "<tenant>" not in family.pattern:
                assert all(part.isdecimal() for part in held), (name, held)
                continue
            tenant = name.partition("{")[2].partition("}")[0].partition("/")[0]
            if tenant == victim.network.tenant:
                found.add(family)
            else:
                texts = [name, *held]
                assert not [text for text in texts if any(secret in text for secret in victim.secrets)], (name, held)
    assert found == {family for family in KEYS if "<tenant>" in family.pattern}


async def _held(redis: "Redis", name: str) -> list[str]:
    """The texts in a key, without scores."""
    match await redis.type(name):
        case "string":
            held: list[Any] = [await redis.get(name) or ""]
        case "hash":
            held = [part for pair in (await redis.hgetall(name)).items() for part in pair]
        case "list":
            held = [*await redis.lrange(name, 0, -1)]
        case "set":
            held = [*await redis.smembers(name)]
        case "zset":
            held = [*await redis.zrange(name, 0, -1)]
        case other:
            assert other == "none", f"{name} is a {other!r}"  # it has ended meanwhile
            held = []
    return [str(part) for part in held]
