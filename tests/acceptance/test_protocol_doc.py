"""docs/protocol.md holds: its examples are played against a server, and it leaves nothing out."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from haulcast.app import Node
from haulcast.clock import SystemClock
from haulcast.config import load
from haulcast.errors import ERRORS
from haulcast.ports import Role
from haulcast.transport import outgoing, wire
from haulcast.transport.auth import KeyRing
from haulcast.transport.close_codes import CloseCode
from haulcast.transport.handlers import HANDLERS, LOGGED
from haulcast.transport.http import ROUTES
from tests.acceptance.protocol_support import (
    Answer,
    Call,
    Close,
    Example,
    Frame,
    Names,
    Send,
    check_frame,
    check_reply,
    read_examples,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = read_examples(DOCUMENT)
WITHIN_S = 5.0
FLEET = {"t7": ("v71", "d71", None), "t8": ("v81", "d81", 12.9896), "t9": ("v91", "d91", 12.9986)}
"""Each transporter with its vehicle, its driver, and the latitude where the vehicle stands when the day begins."""
METRO_FLEET = {"t61": ("v611", "d611", 12.9806), "t62": ("v621", "d621", 12.9896)}
METRO = {"op61", "c61", *METRO_FLEET}
"""Who is in the network `metro`, where the best match wins; all others are in `acme`."""


class LeapingClock(SystemClock):
    """The machine's clock, but its wall time can be told to leap: nobody waits four minutes for a reminder."""

    ahead_ms = 0

    def now_ms(self) -> int:
        """See `Clock`."""
        return super().now_ms() + self.ahead_ms


class Talk:
    """One user's connection. Keeps the frames that no example has shown yet."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.asked: dict[str, str] = {}
        self.code: int | None = None
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def send(self, text: str) -> None:
        try:
            request = json.loads(text)
            self.asked[request.get("id", "")] = request["type"]
        except ValueError:
            pass  # an example of what is no JSON
        await self.socket.send_str(text)

    async def expect(self, names: Names, documented: dict[str, Any]) -> None:
        """Some frame that has come, or comes soon, looks like this one. It is used up."""
        nearest = "nothing like it came"
        try:
            async with asyncio.timeout(WITHIN_S):
                while True:
                    for frame in self.frames:
                        difference = names.difference(documented, frame)
                        if difference is None:
                            self.frames.remove(frame)
                            return
                        if _alike(frame, documented):
                            nearest = f"{difference}\nin {json.dumps(frame)}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"documented {json.dumps(documented)}\nbut {nearest}") from None

    async def closed(self) -> int | None:
        async with asyncio.timeout(WITHIN_S):
            await self._reading
        return self.code

    async def hang_up(self) -> None:
        await self.socket.close()
        await self._reading

    async def _read(self) -> None:
        async for message in self.socket:
            frame = message.json()
            check_frame(frame, self.asked)
            self.frames.append(frame)
            self._news.set()
        self.code = self.socket.close_code


def _alike(frame: Mapping[str, Any], documented: Mapping[str, Any]) -> bool:
    return all(frame.get(key) == documented.get(key) for key in ("re", "type", "event"))


class Day:
    """Plays the examples, one after the other, as the users in them."""

    def __init__(self, node: Node, clock: LeapingClock, session: aiohttp.ClientSession, keys: KeyRing) -> None:
        self._url = f"http://127.0.0.1:{node.port}"
        self._clock = clock
        self._session = session
        self._keys = keys
        self._names = Names()
        self._talks: dict[str, Talk] = {}

    async def play(self, example: Example) -> None:
        self._clock.ahead_ms += example.after_s * 1000
        if example.over_rest:
            await self._call(example)
            return
        if example.greets:
            self._talks[example.user] = await self._connect()
        elif example.user not in self._talks:
            await self.greet(example.role, example.user)
        talk = self._talks[example.user]
        for step in example.steps:
            match step:
                case Send(text):
                    text = re.sub(r'eyJ[^"]*', self._token(example.role, example.user), self._names.translate(text))
                    await talk.send(text)
                case Frame(value):
                    await talk.expect(self._names, value)
                case Close(code):
                    assert await talk.closed() == code
                    del self._talks[example.user]
                case _:
                    raise AssertionError("REST in a conversation")

    async def greet(self, role: str, user: str) -> None:
        """Connect somebody whose hello is not shown."""
        talk = self._talks[user] = await self._connect()
        await talk.send(json.dumps({"id": "hi", "type": "hello", "data": {"token": self._token(role, user)}}))
        async with asyncio.timeout(WITHIN_S):
            while not any(frame.get("re") == "hi" for frame in talk.frames):
                await asyncio.sleep(0.001)
        [hello] = [frame for frame in talk.frames if frame.get("re") == "hi"]
        assert hello["ok"], hello
        talk.frames.remove(hello)

    async def rest(
        self, role: str, user: str, method: str, path: str, body: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        sent = dict(headers or {})
        if user:
            sent["Authorization"] = f"Bearer {self._token(role, user)}"
        if body:
            sent["Content-Type"] = "application/json"
        url = self._url + path
        async with self._session.request(method, url, data=body or None, headers=sent) as response:
            return response.status, await response.json()

    async def hang_up(self) -> None:
        for talk in self._talks.values():
            await talk.hang_up()

    async def _call(self, example: Example) -> None:
        call, answer = example.steps
        assert isinstance(call, Call)
        assert isinstance(answer, Answer)
        path, body = self._names.translate(call.path), self._names.translate(call.body)
        give_up_at = asyncio.get_running_loop().time() + WITHIN_S
        while True:
            status, real = await self.rest(example.role, example.user, call.method, path, body, call.headers)
            difference = f"{status}: {real}" if status != answer.status else self._names.difference(answer.body, real)
            if difference is None:
                break
            # What one looks at may still be on its way to what is documented; a command is sent once.
            late = asyncio.get_running_loop().time() > give_up_at
            assert call.method == "GET", difference
            assert not late, difference
            await asyncio.sleep(0.02)
        request = route_of(call.method, call.path)
        if request is not None and status < 300:
            check_reply(request, real)

    async def _connect(self) -> Talk:
        return Talk(await self._session.ws_connect(f"{self._url}/v1/ws", protocols=("haulcast.v1.json",)))

    def _token(self, role: str, user: str) -> str:
        tenant = "metro" if user in METRO else "acme"
        return self._keys.sign(tenant=tenant, role=Role(role), user=user, now_ms=self._clock.now_ms())


def route_of(method: str, path: str) -> type[wire.Request] | None:
    """The request behind an address."""
    path = path.partition("?")[0]
    for route in ROUTES:
        if route.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", route.path), path):
            return route.request
    return None


@pytest.fixture
async def day(tmp_path: Path) -> AsyncIterator[Day]:
    """A server on which the networks of the document are about to begin their day."""
    config = load({"HAULCAST_PORT": "0", "HAULCAST_DATA_DIR": str(tmp_path)})
    clock = LeapingClock()
    async with AsyncExitStack() as cleanup:
        node = await Node.start(config, clock)
        cleanup.push_async_callback(node.stop)
        session = await cleanup.enter_async_context(aiohttp.ClientSession())
        day = Day(node, clock, session, KeyRing(config.keys))
        cleanup.push_async_callback(day.hang_up)
        settings = {"dispatch_mode": "best_match", "accept_window_s": 3.0}
        status, answer = await day.rest("admin", "root", "PUT", "/v1/tenants/metro", json.dumps({"settings": settings}))
        assert status == 201, answer
        for transporter, (vehicle, driver, lat) in {**FLEET, **METRO_FLEET}.items():
            where = {"transporter_id": transporter}
            operator = "op61" if transporter in METRO else "op1"
            calls: list[tuple[str, str, str, str, Mapping[str, Any]]] = [
                ("operator", operator, "PUT", f"/v1/fleet/transporters/{transporter}", {}),
                ("operator", operator, "PUT", f"/v1/fleet/vehicles/{vehicle}", {**where, "vehicle_type": "truck_14ft"}),
                ("operator", operator, "PUT", f"/v1/fleet/drivers/{driver}", where),
            ]
            if lat is not None:
                position = {"vehicle_id": vehicle, "lat": lat, "lng": 77.5946}
                calls.append(("transporter", transporter, "POST", "/v1/location", position))
                calls.append(("transporter", transporter, "PUT", "/v1/availability", {"online": True}))
            for role, user, method, path, body in calls:
                status, answer = await day.rest(role, user, method, path, json.dumps(body))
                assert status == 200, answer
        yield day


async def test_every_example_is_what_a_server_says(day: Day) -> None:
    """Whoever does not introduce themselves in the document is connected before it begins."""
    first = {example.user: example for example in reversed(EXAMPLES) if example.user}
    for example in first.values():
        if not (example.greets or example.over_rest):
            await day.greet(example.role, example.user)
    for example in EXAMPLES:
        try:
            await day.play(example)
        except AssertionError as error:
            raise AssertionError(f"docs/protocol.md, line {example.line}: {error}") from error


# --- Nothing is left out, and nothing made up ------------------------------------------------------------------------


def table_rows(heading: str) -> list[list[str]]:
    """The cells of the rows whose first begins with a code span, in the section of that heading."""
    level = heading.partition(" ")[0]
    section = re.split(rf"\n#{{1,{len(level)}}} ", DOCUMENT.partition(f"\n{heading}\n")[2])[0]
    rows = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return [re.split(r" ?\| ", row) for row in rows]


def code(cell: str) -> str:
    return cell.strip("`")


def roles(cell: str) -> set[str]:
    return {role.value for role in Role} if cell == "everybody" else set(cell.split(", "))


def test_every_request_is_described_with_its_roles_and_fields() -> None:
    rows = table_rows("## 3. The requests, one by one")
    table = {code(row[0]): roles(row[1]) for row in rows if code(row[0]) in wire.REQUESTS}
    allowed = {name: HANDLERS[struct][0] if struct in HANDLERS else set(Role) for name, struct in wire.REQUESTS.items()}
    assert table == allowed
    headings = re.findall(r"^### `([a-z._]+)`$", DOCUMENT, re.MULTILINE)
    assert sorted(headings) == sorted(wire.REQUESTS)
    for name, struct in wire.REQUESTS.items():
        fields = {field for row in table_rows(f"### `{name}`") for field in re.findall(r"`(\w+)`", row[0])}
        assert fields == set(struct.__struct_fields__), name


def test_every_request_has_an_example() -> None:
    sent = [step for example in EXAMPLES for step in example.steps if isinstance(step, Send)]
    types = {found[1] for step in sent if (found := re.search(r'"type":"([a-z._]+)"', step.text))}
    assert types == set(wire.REQUESTS)


def test_the_commands_whose_answers_are_kept_are_named() -> None:
    """Those that are kept for a day, and those of operators, which are kept for good."""
    lists = re.findall(r"\n\n(`[a-z._]+`(?:,\s`[a-z._]+`)*)\n\n", DOCUMENT)
    for_a_day, for_good = [{wire.REQUESTS[code(name)] for name in re.split(r",\s", found)} for found in lists]
    overseers = {Role.OPERATOR, Role.ADMIN}
    assert for_good == {request for request in LOGGED if HANDLERS[request][0] <= overseers}
    assert for_a_day == LOGGED - for_good


def test_every_route_is_described_with_its_roles_and_has_an_example() -> None:
    rows = table_rows("## 11. REST")
    table = {code(row[0]): roles(row[1]) for row in rows if code(row[0]).startswith(("GET", "PATCH", "POST", "PUT"))}
    assert table == {f"{route.method} {route.path}": HANDLERS[route.request][0] for route in ROUTES}
    calls = [step for example in EXAMPLES for step in example.steps if isinstance(step, Call)]
    assert {route_of(call.method, call.path) for call in calls} - {None} == {route.request for route in ROUTES}


def test_no_address_is_made_up() -> None:
    others = {"GET /v1/ws", "GET /health/live", "GET /health/ready", "GET /health/detailed", "GET /metrics"}
    named = set(re.findall(r"\b((?:GET|POST|PUT|PATCH|DELETE) /[^\s`]*)", DOCUMENT))
    assert others <= named
    for address in named - others:
        method, _, path = address.partition(" ")
        assert route_of(method, path) is not None, address


def test_every_error_is_described_as_it_is() -> None:
    rows = [row for row in table_rows("## 8. Errors") if len(row) == 4]
    assert [code(row[0]) for row in rows] == list(dict.fromkeys(code(row[0]) for row in rows))
    table = {code(row[0]): (int(row[1]), row[2] == "yes") for row in rows}
    assert table == {key.value: (spec.http_status, spec.retry) for key, spec in ERRORS.items()}


def test_no_error_code_is_made_up() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", DOCUMENT)) | set(re.findall(r'"code":"(\w+)"', DOCUMENT))
    assert named <= {key.value for key in ERRORS}


def test_every_close_code_is_described_and_none_is_made_up() -> None:
    described = {int(number) for number in re.findall(r"^\| (4\d{3}) \|", DOCUMENT, re.MULTILINE)}
    assert described == set(CloseCode)
    assert {int(number) for number in re.findall(r"\b4\d{3}\b", DOCUMENT)} <= set(CloseCode)


def test_every_event_is_described_with_its_topics_and_none_is_made_up() -> None:
    table = {code(row[0]): set(re.findall(r"`(\w+):`", row[1])) for row in table_rows("## 5. Events")}
    topics: dict[str, set[str]] = {}
    for kind, events in outgoing.EVENTS.items():
        for event in events:
            topics.setdefault(event, set()).add(kind)
    assert table == topics
    frames = [step.value for example in EXAMPLES for step in example.steps if isinstance(step, Frame)]
    shown = {frame["event"] for frame in frames if frame.get("type") == "event"}
    assert shown == set(topics)


def test_every_block_of_json_is_an_example() -> None:
    assert len(EXAMPLES) == DOCUMENT.count("```json")
