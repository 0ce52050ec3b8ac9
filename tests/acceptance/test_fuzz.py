"""D5: whatever bytes arrive, on either door, the server neither dies nor fails nor logs an error, and serves the next.

Hypothesis thinks up what is sent; the server is a process of its own, and everything goes over real sockets.
"""

import base64
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.http import ROUTES, Route
from haulcast.transport.http_edge import IDEMPOTENCY_KEY
from tests.acceptance.bad_input.wrong import GOOD
from tests.acceptance.network import sign
from tests.acceptance.server import Server

TIMEOUT_S = 10.0
TENANT = "fuzz"
FEW = settings(max_examples=int(os.environ.get("HAULCAST_TEST_FUZZ_EXAMPLES", "150")))
"""Of each test; together they take some 15 s."""
TOKENS = {role: sign(TENANT, role, f"some-{role}") for role in Role}
TEXT, CLOSE = 0x1, 0x8


@pytest.fixture(scope="module")
def target(shared_server: Server) -> Iterator[Server]:
    """The server, looked at once more when all has been thrown at it."""
    with Socket.open(shared_server) as caller:
        caller.hello(Role.OPERATOR)
    yield shared_server
    shared_server.check_log()


@pytest.fixture(autouse=True)
def unharmed(target: Server) -> Iterator[None]:
    """Nothing was logged as an error, and the server answers."""
    yield
    target.check_log()
    with Socket.open(target) as caller:
        caller.hello(Role.CUSTOMER)
        caller.ping()


class Closed(Exception):
    """The server has ended the connection, with this code if it said one."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(code)
        self.code = code
        assert code != 1011, "the server failed"


class Socket:
    """A WebSocket that can say anything, well formed or not."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    @classmethod
    @contextmanager
    def open(cls, server: Server) -> Iterator["Socket"]:
        """Connect and shake hands."""
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
            key = base64.b64encode(os.urandom(16)).decode()
            connection.sendall(
                f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                "Sec-WebSocket-Protocol: haulcast.v1.json\r\n\r\n".encode()
            )
            made = cls(connection)
            while b"\r\n\r\n" not in made._buffer:
                made._more()
            head, _, made._buffer = made._buffer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
            yield made

    def hello(self, role: Role) -> None:
        """Be somebody."""
        self.say(json.dumps({"id": "hello", "type": "hello", "data": {"token": TOKENS[role]}}))
        assert self.reply_to("hello")["ok"]

    def ping(self) -> None:
        """The server answers. Raises `Closed`."""
        self.say('{"id":"fuzz-ping","type":"ping"}')
        reply = self.reply_to("fuzz-ping")
        assert reply["ok"] or reply["error"]["code"] == "RATE_LIMITED", reply

    def say(self, text: str) -> None:
        """Send a text frame."""
        self.send(TEXT, text.encode())

    def send(self, opcode: int, payload: bytes, final: bool = True, reserved: int = 0) -> None:
        """Send a frame of any kind."""
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.raw(bytes([final << 7 | reserved << 4 | opcode]) + length + b"\0\0\0\0" + payload)

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Closed from error

    def hang_up(self) -> None:
        """Send nothing more, but go on reading."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reply_to(self, request_id: str) -> dict[str, Any]:
        """The reply, after whatever comes before it; none of it may be a failure of the server."""
        while True:
            frame = self.frame()
            if frame.get("re") == request_id:
                return frame

    def frame(self) -> dict[str, Any]:
        """The next frame with JSON in it. Raises `Closed`."""
        while True:
            opcode, payload = self._frame()
            if opcode == CLOSE:
                raise Closed(int.from_bytes(payload[:2], "big"))
            if opcode == TEXT:
                frame: dict[str, Any] = json.loads(payload)
                assert frame.get("error", {}).get("code") != "INTERNAL", frame
                return frame

    def until_closed(self) -> int | None:
        """Read to the end; the code that it was closed with, if there was one."""
        try:
            while True:
                self.frame()
        except Closed as closed:
            return closed.code

    def _frame(self) -> tuple[int, bytes]:
        first, length = self._take(2)
        if length == 126:
            length = int.from_bytes(self._take(2), "big")
        elif length == 127:
            length = int.from_bytes(self._take(8), "big")
        return first & 0x0F, self._take(length)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _more(self) -> None:
        try:
            data = self._socket.recv(65_536)
        except ConnectionError as error:
            raise Closed from error
        if not data:
            raise Closed
        self._buffer += data


def still_serves(server: Server, caller: Socket) -> None:
    """The connection goes on, or has been closed and another one is served."""
    try:
        caller.ping()
    except Closed:
        with Socket.open(server) as another:
            another.hello(Role.OPERATOR)
            another.ping()


# --- What is thrown --------------------------------------------------------------------------------------------------

roles = st.sampled_from(Role)
odd_texts = st.text(st.characters(exclude_categories=()), max_size=80) | st.sampled_from(
    ["", "\0", "..", "feed:", "broadcast:\0", "driver:some-driver", "01k9zzzzzzzzzzzzzzzzzzzzzz-1-t", "-", "a" * 65]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | odd_texts
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_texts, inner, max_size=4), max_leaves=12
)


@st.composite
def mutated(draw: st.DrawFn, struct: type[wire.Request]) -> Any:
    """Data of the request in which up to three things are not what they were."""
    data: Any = deepcopy(GOOD[struct])
    for _ in range(draw(st.integers(0, 3))):
        at, key = draw(st.sampled_from(places(data))) if places(data) else (data, draw(odd_texts))
        if isinstance(at, dict) and draw(st.booleans()):
            at.pop(key, None)
            at[draw(odd_texts)] = draw(json_values)
        else:
            at[key] = draw(json_values)
    return data


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside `data`."""
    if isinstance(data, dict):
        found: list[tuple[Any, Any]] = [(data, key) for key in data]
    elif isinstance(data, list):
        found = [(data, index) for index in range(len(data))]
    else:
        return []
    return found + [place for at, key in found for place in places(at[key])]


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A request with something wrong, or nothing. JSON of Python, so with NaN and halves of surrogates."""
    name, struct = draw(st.sampled_from(sorted(wire.REQUESTS.items())))
    request: dict[str, Any] = {
        "id": draw(st.uuids().map(str) | odd_texts),
        "type": name if draw(st.integers(0, 9)) else draw(odd_texts),
        "data": draw(mutated(struct) | json_values),
    }
    for key in draw(st.lists(st.sampled_from(("id", "type", "data")), max_size=1)):
        if draw(st.booleans()):
            del request[key]
        else:
            request[key] = draw(json_values)
    return json.dumps(request)


frames = st.tuples(
    st.integers(0, 15),
    st.binary(max_size=200),
    st.booleans(),
    st.sampled_from((0, 0, 0, 1, 4)),
)

# --- The WebSocket ---------------------------------------------------------------------------------------------------


@FEW
@given(role=roles, sent=st.lists(frames, min_size=1, max_size=4))
def test_any_frames(target: Server, role: Role, sent: list[tuple[int, bytes, bool, int]]) -> None:
    """Of any opcode and content, in pieces or not, with reserved bits or not."""
    with Socket.open(target) as caller:
        caller.hello(role)
        try:
            for opcode, payload, final, reserved in sent:
                caller.send(opcode, payload, final, reserved)
        except Closed:
            pass
        still_serves(target, caller)


@FEW
@given(sent=st.binary(min_size=1, max_size=300), greeted=st.booleans())
def test_any_bytes_on_a_websocket(target: Server, sent: bytes, greeted: bool) -> None:
    """Whether or not they are frames."""
    with Socket.open(target) as caller:
        if greeted:
            caller.hello(Role.DRIVER)
        caller.raw(sent)
        caller.hang_up()
        caller.until_closed()


@FEW
@given(role=roles, sent=st.lists(json_values.map(json.dumps), min_size=1, max_size=4))
def test_any_json(target: Server, role: Role, sent: list[str]) -> None:
    """After the hello."""
    with Socket.open(target) as caller:
        caller.hello(role)
        for text in sent:
            caller.say(text)
        still_serves(target, caller)


@FEW
@given(text=json_values.map(json.dumps) | requests() | st.text(max_size=50))
def test_anything_instead_of_a_hello(target: Server, text: str) -> None:
    """Before it."""
    with Socket.open(target) as caller:
        caller.say(text)
        assert caller.until_closed() in (4004, 4001)


@FEW
@given(role=roles, sent=st.lists(requests(), min_size=1, max_size=6))
def test_requests_with_something_wrong(target: Server, role: Role, sent: list[str]) -> None:
    """Or with nothing wrong: from any role, for anything."""
    with Socket.open(target) as caller:
        caller.hello(role)
        for text in sent:
            caller.say(text)
        still_serves(target, caller)


# --- REST ------------------------------------------------------------------------------------------------------------

header_values = st.binary(max_size=40).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))
header_names = st.sampled_from(
    [
        b"Content-Type",
        b"Content-Encoding",
        b"Transfer-Encoding",
        b"Content-Length",
        b"Origin",
        b"Expect",
        b"Upgrade",
        b"Host",
        b"Authorization",
        b"Access-Control-Request-Method",
        IDEMPOTENCY_KEY.encode(),
    ]
) | st.binary(min_size=1, max_size=12)


def answer_to(server: Server, request: bytes) -> bytes:
    """What comes back when these bytes are all that the client sends; nothing of it may be a failure of the server."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
        answer = b""
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65_536):
                answer += data
        except ConnectionError:
            pass
    assert b" 500 " not in answer.split(b"\r\n", 1)[0], answer
    assert b'"INTERNAL"' not in answer, answer
    return answer


@st.composite
def bodies(draw: st.DrawFn, route: Route) -> bytes:
    """A body for the route, or anything else."""
    data = draw(mutated(route.request) | json_values)
    return draw(st.sampled_from((json.dumps(data).encode(), draw(st.binary(max_size=100)))))


@st.composite
def calls(draw: st.DrawFn) -> bytes:
    """A REST call with something wrong, or nothing."""
    route = draw(st.sampled_from(ROUTES))
    method = (
        route.method if draw(st.integers(0, 4)) else draw(st.sampled_from(("GET", "POST", "PUT", "OPTIONS", "HEAD")))
    )
    segments = [
        draw(st.sampled_from(("b1", "t1", "%00", "%ff", "..", "01k9zzzzzzzzzzzzzzzzzzzzzz-1-t", "%F0%9F%9A%9A")))
        if segment.startswith("{")
        else segment
        for segment in route.path.split("/")
    ]
    body = draw(bodies(route))
    head = [
        f"{method} {'/'.join(segments)} HTTP/1.1".encode(),
        b"Host: x",
        f"Authorization: Bearer {TOKENS[draw(roles)]}".encode(),
        f"{IDEMPOTENCY_KEY}: {draw(st.uuids())}".encode(),
        f"Content-Length: {len(body)}".encode(),
    ]
    for name, value in draw(st.lists(st.tuples(header_names, header_values), max_size=2)):
        head.append(name + b": " + value)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@FEW
@given(call=calls())
def test_any_call(target: Server, call: bytes) -> None:
    """Any route, any role, headers and bodies of any kind."""
    answer_to(target, call)


@FEW
@given(sent=st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"GET /v1/offers HTTP/1.1\r\n" + tail))
def test_any_bytes_on_the_port(target: Server, sent: bytes) -> None:
    """Whether or not they are HTTP."""
    answer_to(target, sent)
