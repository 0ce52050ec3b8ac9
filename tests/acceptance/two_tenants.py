"""Two tenants on one server: a victim that has something of everything, and an attacker that knows all its names.

1. Both have users, vehicles and drivers of the same names, at the same places. What the victim has besides is named in
   `Victim.names`, for the attacker to ask for.
2. Whatever only the victim knows says so: each of its own ids has `Victim.own` in it, each text that it wrote
   `Victim.secret`. The ids of its broadcasts are random anyway.
3. The attacker may be told again what it has said itself, word for word, and nothing else of the victim's.
4. The victim looks twice: by reading everything before and after, and by what its open connections were sent meanwhile.
   To know that nothing more is on its way it goes on working, and waits until every connection has heard of that.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.acceptance.network import PICKUP, TRUCK, Network, accept_of, haul, north_of_pickup, offered
from tests.acceptance.phone import Json, Phone, eventually, eventually_answered

SETTINGS: Json = {"wave_radii_km": [20.0], "reminder_lead_s": 60}
"""One wave: nothing happens in either tenant but what somebody does."""
SAID = "said by the attacker"
"""What the texts of the attacker have in them."""

T1_WAITS_KM, T1_DRIVES_KM, ONLY_KM = 3.0, 1.0, 2.0


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, keys included; those of a JSON Pointer one by one."""
    if isinstance(value, str):
        yield from value.split("/") if value.startswith("/") else [value]
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from strings(key)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """The value with `{names}` put into its texts, keys included."""
    if isinstance(value, str):
        return value.format_map(names)
    if isinstance(value, Mapping):
        return {filled(key, names): filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [filled(inner, names) for inner in value]
    return value


async def staffed(network: Network, text: str) -> tuple[Phone, Phone]:
    """What is the same in both: t1, online with a vehicle near and one farther off, two drivers of whom one is there.
    The phones of t1 and of the driver."""
    await network.create_tenant(**SETTINGS)
    await network.hire("t1", {"t1-v": TRUCK, "t1-w": TRUCK}, ["t1-d", "t1-e"])
    body = {"transporter_id": "t1", "name": text}
    for path in ("transporters/t1", "drivers/t1-d"):
        assert (await network.rest("PUT", f"/v1/fleet/{path}", "operator", "op", body))[0] == 200
    transporter = await network.phone("transporter", "t1")
    await moved(transporter, "t1-w", T1_WAITS_KM)
    await network.come_online(transporter, T1_DRIVES_KM)
    return transporter, await network.phone("driver", "t1-d")


async def moved(phone: Phone, vehicle: str, km: float) -> None:
    """A vehicle is that far from the pickup."""
    lat, lng = north_of_pickup(km)
    await phone.do("location", {"vehicle_id": vehicle, "lat": lat, "lng": lng})


class Victim:
    """A tenant with a cancelled broadcast and a live one, half filled; its trip is under way.

    Each command was sent under its own type as its id, by those users whose names the attacker has too.
    """

    def __init__(self, network: Network, number: int) -> None:
        self.network = network
        self.own, self.secret = f"only{number}x", f"secret{number}x"
        self.texts = (f"{self.secret} note", f"{self.secret} address")
        self.names: dict[str, str] = {}
        self.phones: list[Phone] = []
        self._seen: dict[Phone, int] = {}  # frames up to when it was left in peace
        self._later = ""  # the broadcast with which it went on

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody else may be shown any text with."""
        return (self.network.tenant, self.own, self.secret, self.names["broadcast"], self.names["cancelled"])

    def haul(self, trucks: int) -> Json:
        """The data of a `broadcast.create`."""
        note, address = self.texts
        pickup = {"lat": PICKUP[0], "lng": PICKUP[1], "address": address}
        return haul({TRUCK: trucks}, pickup=pickup, note=note)

    async def settle_down(self) -> None:
        """Come to have all of it, and be shown all of it."""
        network, own = self.network, self.own
        t1, driver = await staffed(network, f"{self.secret} name")
        await network.hire("t1", {f"{own}-w": TRUCK}, [f"{own}-e"])
        await moved(t1, f"{own}-w", T1_WAITS_KM + 1)
        only = await network.transporter(f"{own}-t", ONLY_KM)
        c1, c2 = await network.phone("customer", "c1"), await network.phone("customer", "c2")
        operator = await network.phone("operator", "op")
        self.phones = [t1, driver, only, c1, c2, operator]
        await self._command(operator)
        topics = ("feed:t1", "fleet:t1", f"feed:{own}-t", f"fleet:{own}-t")
        for topic in (f"board:{network.tenant}", f"control:{network.tenant}", *topics):
            await operator.do("subscribe", {"topic": topic})
        await t1.do("subscribe", {"topic": "fleet:t1"})
        await only.do("subscribe", {"topic": f"fleet:{own}-t"})

        cancelled = (await c1.do("broadcast.create", self.haul(1)))["broadcast_id"]
        await offered(cancelled, t1, only)
        await t1.do("offer.decline", {"broadcast_id": cancelled}, id="offer.decline")
        await c1.do("broadcast.cancel", {"broadcast_id": cancelled}, id="broadcast.cancel")
        broadcast = (await c1.do("broadcast.create", self.haul(2), id="broadcast.create"))["broadcast_id"]
        await offered(broadcast, t1, only)
        trip = (await t1.do("offer.accept", accept_of("t1", broadcast), id="offer.accept"))["trip_id"]
        for phone in (driver, t1):
            await phone.do("trip.update", {"trip_id": trip, "status": "en_route"}, id="trip.update")
        self.names = {
            "tenant": network.tenant,
            "broadcast": broadcast,
            "cancelled": cancelled,
            "trip": trip,
            "transporter": f"{own}-t",
            "vehicle": f"{own}-t-v",
            "driver": f"{own}-t-d",
            "t1_vehicle": f"{own}-w",
            "t1_driver": f"{own}-e",
            "note": self.texts[0],
            "address": self.texts[1],
        }
        await eventually_answered(self._shows_all, "every connection of the victim is shown what there is")
        self._seen = {phone: len(phone.frames) for phone in self.phones}

    async def _command(self, operator: Phone) -> None:
        """Every command of an operator once; dispatch goes on as before."""
        for command, data in (
            ("settings.patch", {"settings": {"reminder_lead_s": 60}, "expected_version": 1}),
            ("control.pause", {}),
            ("control.reload_settings", {}),
            ("control.switch_mode", {"mode": "progressive"}),
            ("control.resume", {}),
            ("control.announce", {"audience": "driver", "text": self.texts[0]}),
        ):
            assert (await operator.do(command, data, id=command))["complete"]

    async def state(self) -> Json:
        """Everything as its own users read it."""
        names, network = self.names, self.network
        asked = [(role, user, f"/v1/topics/{topic}") for role, user, topic in self._topics()]
        for role, user in (("customer", "c1"), ("customer", "c2"), ("operator", "op")):
            asked.append((role, user, "/v1/broadcasts"))
        for broadcast in (names["broadcast"], names["cancelled"]):
            asked += [
                (role, user, f"/v1/broadcasts/{broadcast}") for role, user in (("customer", "c1"), ("operator", "op"))
            ]
        asked += [("transporter", user, "/v1/offers") for user in ("t1", names["transporter"])]
        asked += [("operator", "op", path) for path in ("/v1/settings", "/v1/settings/history", "/v1/control")]
        read: Json = {}
        for role, user, path in asked:
            status, answer = await network.rest("GET", path, role, user)
            assert status == 200, (path, answer)
            read[f"{role} {user} {path}"] = _lasting(answer)
        path = f"/v1/tenants/{network.tenant}"
        read["settings"] = await network.rest("PUT", path, "admin", "root", {"settings": SETTINGS})
        return read

    async def go_on(self) -> None:
        """Work as if nothing had been, with what it had: everybody is there, and every vehicle where it was. Returns
        when every connection has been sent something of it."""
        names, network = self.names, self.network
        t1, driver, only, c1, c2, operator = self.phones
        self._later = later = (await c2.do("broadcast.create", self.haul(1)))["broadcast_id"]
        await offered(later, t1, only)
        for phone, vehicle, km in ((t1, "t1-w", T1_WAITS_KM), (only, names["vehicle"], ONLY_KM)):
            offer = phone.offers[later]
            assert (offer["vehicle_id"], round(offer["distance_m"] / 1000, 2)) == (vehicle, km), offer
        await driver.do("trip.update", {"trip_id": names["trip"], "status": "at_pickup"})
        await network.phone("driver", names["driver"])

        def heard() -> bool:
            trips = [phone.state(topic).get("trips", {}) for phone in (t1, driver, c1) for topic in phone.views]
            fleets = [phone.state(f"fleet:{names['transporter']}") for phone in (only, operator)]
            return (
                all(each[names["trip"]]["status"] == "at_pickup" for each in trips if names["trip"] in each)
                and all(fleet["drivers"][names["driver"]]["online"] for fleet in fleets)
                and later in operator.state(f"board:{network.tenant}")["broadcasts"]
                and f"broadcast:{later}" in c2.views
            )

        await eventually(heard, "the victim's connections hear of what it does")

    def disturbances(self) -> list[Json]:
        """What its connections were sent since they were left in peace, but for what came of `go_on` and for the ways
        to pickups, which a board looks for in its own time."""
        coming = f"/drivers/{self.names['driver']}/online"
        return [
            frame
            for phone, seen in self._seen.items()
            for frame in phone.frames[seen:]
            if not any(due in json.dumps(frame) for due in (self._later, coming, '"at_pickup"')) and not _of_ways(frame)
        ]

    def _topics(self) -> Iterator[tuple[str, str, str]]:
        """Everything that its connections show: role, user, topic."""
        for phone in self.phones:
            yield from ((phone.role, phone.user, topic) for topic in phone.views)

    async def _shows_all(self) -> bool:
        for phone in self.phones:
            for topic, view in [*phone.views.items()]:
                _, answer = await self.network.rest("GET", f"/v1/topics/{topic}", phone.role, phone.user)
                if _lasting(answer)["data"] != _lasting({"data": view.state})["data"]:
                    return False
        return True


def _of_ways(frame: Json) -> bool:
    """Whether a frame changes nothing but ways to pickups."""
    pointers = [*frame["data"].get("set", ()), *frame["data"].get("del", ())] if frame["type"] == "delta" else []
    return bool(pointers) and all("/route" in pointer for pointer in pointers)


def _lasting(answer: Json) -> Json:
    """An answer without the time, and without the ways to pickups that a board may find out at any time."""
    kept = {key: value for key, value in answer.items() if key != "server_time"}
    if isinstance(kept.get("data"), dict) and "broadcasts" in kept["data"]:
        entries = kept["data"]["broadcasts"].items()
        shown = {id_: {name: value for name, value in entry.items() if name != "route"} for id_, entry in entries}
        kept["data"] = {**kept["data"], "broadcasts": shown}
    return kept


class Attacker:
    """A tenant with the same names and a live broadcast of c2. One phone for each role, which listens to all it can."""

    USERS: Mapping[str, str] = {
        "customer": "c1",
        "transporter": "t1",
        "driver": "t1-d",
        "operator": "op",
        "admin": "root",
    }

    def __init__(self, network: Network, victim: Victim) -> None:
        self.network = network
        self.phones: dict[str, Phone] = {}
        self.names: dict[str, str] = {}
        self._victim = victim
        self._said: set[str] = set()

    async def get_ready(self) -> None:
        """Come to have all of it."""
        network = self.network
        transporter, driver = await staffed(network, SAID)
        others = {role: await network.phone(role, self.USERS[role]) for role in ("customer", "operator", "admin")}
        self.phones = {"transporter": transporter, "driver": driver, **others}
        await network.phone("driver", "t1-e")  # who is at home in the other tenant
        c2 = await network.phone("customer", "c2")
        created = await c2.do("broadcast.create", haul({TRUCK: 2}, note=SAID))
        self.names = {**self._victim.names, "own_broadcast": created["broadcast_id"]}
        await offered(created["broadcast_id"], transporter)
        for topic in (f"board:{network.tenant}", "feed:t1", "fleet:t1", "driver:t1-d"):
            await self.phones["operator"].do("subscribe", {"topic": topic})
        await transporter.do("subscribe", {"topic": "fleet:t1"})

    def says(self, data: Mapping[str, Any]) -> Json:
        """The data with the victim's names put in. From now on what it says may be heard again."""
        said: Json = filled(data, self.names)
        self._said.update(strings(said))
        return said

    def leaks(self, answer: Any) -> list[str]:
        """The texts in an answer or a frame that are the victim's and were not said before."""
        secrets = self._victim.secrets
        return [
            text for text in strings(answer) if text not in self._said and any(secret in text for secret in secrets)
        ]

    async def overheard(self) -> list[str]:
        """What leaked in frames that nobody has asked for, on any connection."""
        for phone in self.phones.values():
            await phone.do("ping")
        return [text for phone in self.network.phones for frame in phone.frames for text in self.leaks(frame)]
