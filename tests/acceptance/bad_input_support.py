"""What the tests of bad input share: a node within the process, what it logs and counts, wrong values for fields."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import time, time_ns
from typing import Any, Self

import aiohttp
import jwt
import msgspec
import structlog
from msgspec import inspect

from haulcast.app import Node
from haulcast.config import Config, Environment
from haulcast.ports import Role
from haulcast.transport import wire
from haulcast.transport.auth import Algorithm, Key, KeyRing
from haulcast.transport.session import Limits

WITHIN_S = 5.0
MARKER = "zzMARKERzz"
"""Stands in what is sent, and must never stand in a log."""
ORIGIN = "https://app.example"
KEYS = (
    Key("k1", Algorithm.HS256, "the first secret of these tests, which is long enough for each of the algorithms"),
    Key("k2", Algorithm.HS256, "the second secret of these tests, as long"),
)
SUBPROTOCOL = "haulcast.v1.json"


@dataclass(frozen=True, slots=True)
class Counted:
    """A sample of `/metrics` that has to grow by one."""

    name: str
    labels: Mapping[str, str]

    def value_in(self, text: str) -> float:
        """The sample's value in Prometheus' text format; 0 if it is not there."""
        labels = ",".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        start = f"\n{self.name}{{{labels}}} " if labels else f"\n{self.name} "
        _, _, rest = text.partition(start)
        return float(rest.split("\n", 1)[0]) if rest else 0.0

    @classmethod
    def frame(cls, code: str) -> Self:
        """A frame that was refused unread."""
        return cls("haulcast_bad_frames_total", {"code": code})

    @classmethod
    def request(cls, request_type: str, code: str) -> Self:
        """A request that was refused."""
        return cls("haulcast_requests_total", {"type": request_type, "outcome": code})

    @classmethod
    def close(cls, code: int) -> Self:
        """A connection that was closed."""
        return cls("haulcast_closes_total", {"code": str(code)})


class Line:
    """A WebSocket, greeted or not."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, frame: str | Mapping[str, Any]) -> None:
        """Send a frame."""
        await self.ws.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def hear(self) -> dict[str, Any]:
        """The next reply; what is told of topics meanwhile is passed over."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                message = await self.ws.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, (message, self.ws.close_code)
                frame: dict[str, Any] = message.json()
                if "re" in frame:
                    return frame

    async def ask(self, request_type: str, data: Mapping[str, Any] | None = None, id: str = "q") -> dict[str, Any]:
        """A request and its reply."""
        await self.say({"id": id, "type": request_type, "data": data or {}})
        reply = await self.hear()
        assert reply["re"] == id, reply
        return reply

    async def do(self, request_type: str, data: Mapping[str, Any] | None = None, id: str = "q") -> dict[str, Any]:
        """The data of a good reply."""
        reply = await self.ask(request_type, data, id)
        assert reply["ok"], reply
        answer: dict[str, Any] = reply["data"]
        return answer

    async def goes_on(self) -> None:
        """The connection still works."""
        assert (await self.ask("ping", id="still here?"))["ok"]

    async def closed(self) -> int | None:
        """The code of the end."""
        async with asyncio.timeout(WITHIN_S):
            while not self.ws.closed:
                await self.ws.receive()
        return self.ws.close_code


class Bench:
    """A production node with the tenants `acme` and `rival`, and all that it says about itself."""

    def __init__(self, node: Node, session: aiohttp.ClientSession, logs: list[Any]) -> None:
        self.url = f"http://127.0.0.1:{node.port}"
        self.port = node.port
        self.session = session
        self.logs = logs
        self._open: list[Line] = []

    # --- Talking ---

    async def connect(self, **headers: str) -> Line:
        """A WebSocket that has said nothing yet."""
        line = Line(
            await self.session.ws_connect(f"{self.url}/v1/ws", protocols=(SUBPROTOCOL,), headers=headers, autoping=True)
        )
        self._open.append(line)
        return line

    async def greeted(self, role: str, user: str, tenant: str = "acme") -> Line:
        """A WebSocket that has said hello."""
        line = await self.connect()
        await line.do("hello", {"token": token(role, user, tenant)})
        return line

    async def rest(
        self, method: str, path: str, bearer: str | None, body: Any = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body and headers of a REST call; `body` may be bytes."""
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.request(method, self.url + path, data=data, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None, response.headers

    async def hang_up(self) -> None:
        """Close what is still open."""
        for line in self._open:
            await line.ws.close()

    # --- What it says about itself ---

    async def values(self, *counted: Counted) -> list[float]:
        """Samples of `/metrics`; 0 for what is not there yet."""
        async with self.session.get(f"{self.url}/metrics") as response:
            text = await response.text()
        return [one.value_in(text) for one in counted]

    def lines(self) -> list[Any]:
        """What is logged at the level that servers log at."""
        return [line for line in self.logs if line["log_level"] != "debug"]

    @asynccontextmanager
    async def notices(
        self, *counted: Counted, hidden: tuple[str, ...] = (), logged: bool = True
    ) -> AsyncIterator[None]:
        """What is done inside leads to one line in the log (none, unless `logged`), which shows neither `MARKER` nor
        `hidden`, is counted once in each of `counted`, and leaves a server that still serves."""
        lines, seen = len(self.lines()), len(self.logs)
        before = await self.values(*counted)
        yield
        async with asyncio.timeout(WITHIN_S):
            while logged and len(self.lines()) == lines:
                await asyncio.sleep(0.001)
        line = await self.greeted("operator", "good")
        await line.goes_on()
        await line.ws.close()
        async with asyncio.timeout(WITHIN_S):
            while (after := await self.values(*counted)) == before:
                await asyncio.sleep(0.01)
        assert after == [value + 1 for value in before], counted
        new = self.lines()[lines:]
        assert len(new) == logged, new
        shown = repr(self.logs[seen:])
        assert not [secret for secret in (MARKER, *hidden) if secret in shown], shown


@contextmanager
def captured_logs() -> Iterator[list[Any]]:
    """What everything in this process logs, from now on. Nothing may be worse than information."""
    with structlog.testing.capture_logs() as logs:
        libraries = _Libraries(logs)
        logging.getLogger().addHandler(libraries)
        try:
            yield logs
        finally:
            logging.getLogger().removeHandler(libraries)
    assert not [line for line in logs if line["log_level"] not in ("debug", "info")]


@asynccontextmanager
async def bench(data_dir: Path, limits: Limits, logs: list[Any]) -> AsyncIterator[Bench]:
    """A bench with a node of these limits, which logs into `logs`."""
    config = Config(Environment.PRODUCTION, "127.0.0.1", 0, data_dir, KEYS, frozenset({ORIGIN}), "info")
    async with AsyncExitStack() as cleanup:
        node = await Node.start(config, limits=limits)
        cleanup.push_async_callback(node.stop)
        session = await cleanup.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        made = Bench(node, session, logs)
        cleanup.push_async_callback(made.hang_up)
        for tenant in ("acme", "rival"):
            status, answer, _ = await made.rest("PUT", f"/v1/tenants/{tenant}", token("admin", "root"))
            assert status == 201, answer
        yield made


class _Libraries(logging.Handler):
    """What libraries log, among the rest."""

    def __init__(self, logs: list[Any]) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._logs.append(
            {"log_level": record.levelname.lower(), "event": record.getMessage(), "exc_info": record.exc_info}
        )


# --- Tokens ----------------------------------------------------------------------------------------------------------


def token(role: str, user: str, tenant: str = "acme") -> str:
    """A good one."""
    return KeyRing(KEYS).sign(tenant=tenant, role=Role(role), user=user, now_ms=time_ns() // 1_000_000)


def forged(
    secret: str = KEYS[0].material, headers: Mapping[str, Any] | None = None, algorithm: str = "HS256", **claims: Any
) -> str:
    """One that is made to order. A claim that is None is left out."""
    said = {"sub": MARKER, "tenant": "acme", "role": "customer", "exp": time() + 3600, **claims}
    kept = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(kept, secret, algorithm, {"kid": "k1"} if headers is None else dict(headers))


# --- Wrong values ----------------------------------------------------------------------------------------------------

GOOD: Mapping[type[wire.Request], dict[str, Any]] = {
    wire.Hello: {"token": "x", "resume": {"feed:t1": [1, 1]}},
    wire.Ping: {},
    wire.Subscribe: {"topic": "feed:t1"},
    wire.Unsubscribe: {"topic": "feed:t1"},
    wire.Ack: {"topic": "feed:t1", "version": [1, 0]},
    wire.BroadcastCreate: {
        "pickup": {"lat": 12.97, "lng": 77.59, "address": MARKER},
        "drop": {"lat": 13.08, "lng": 80.27, "address": MARKER},
        "trucks": [{"vehicle_type": "truck_14ft", "count": 1}],
        "expires_in_s": 300,
        "note": MARKER,
    },
    wire.BroadcastCancel: {"broadcast_id": "b1"},
    wire.OfferAccept: {"broadcast_id": "b1", "vehicle_id": "v1", "driver_id": "d1"},
    wire.OfferDecline: {"broadcast_id": "b1"},
    wire.TransporterOnline: {},
    wire.TransporterOffline: {},
    wire.Location: {"vehicle_id": "v1", "lat": 12.97, "lng": 77.59},
    wire.TripUpdate: {"trip_id": "b1-1-t", "status": "loaded"},
    wire.AvailabilityPut: {"online": True},
    wire.BroadcastList: {},
    wire.BroadcastGet: {"broadcast_id": "b1"},
    wire.OfferList: {},
    wire.TransporterPut: {"transporter_id": "t1", "name": MARKER},
    wire.VehiclePut: {"vehicle_id": "v1", "transporter_id": "t1", "vehicle_type": "truck_14ft"},
    wire.DriverPut: {"driver_id": "d1", "transporter_id": "t1", "name": MARKER},
    wire.TenantPut: {"tenant_id": "zenith", "settings": {"wave_radii_km": [5, None], "wave_interval_s": 3}},
}
"""Data of each request that has nothing wrong with its form, every field given."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """Data with one thing wrong: `what`, at `path` (as errors name it)."""

    what: str
    path: str
    data: Any = field(repr=False)


def wrongs(struct: type[wire.Request]) -> Iterator[Wrong]:
    """One `Wrong` for each way in which each field of the struct can be wrong."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    yield from _in_fields(info, GOOD[struct], "")


def _in_fields(info: inspect.StructType, good: Mapping[str, Any], at: str) -> Iterator[Wrong]:
    for one in info.fields:
        path = f"{at}.{one.encode_name}" if at else one.encode_name
        if one.required:
            left = {name: value for name, value in good.items() if name != one.encode_name}
            yield Wrong("missing", path, left)
        value = good.get(one.encode_name)
        for what, inner, bad in _bad_values(one.type, value, path):
            yield Wrong(what, inner, {**good, one.encode_name: bad})


def _bad_values(info: inspect.Type, good: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """What, where, and the bad value."""
    if isinstance(info, inspect.Metadata):
        yield from _bad_values(info.type, good, path)
        return
    if isinstance(info, inspect.UnionType):
        [inner] = [one for one in info.types if not isinstance(one, inspect.NoneType)]
        nullable = any(isinstance(one, inspect.NoneType) for one in info.types)
        cases = _bad_values(inner, good, path)
        yield from ((what, at, bad) for what, at, bad in cases if not (nullable and bad is None))
        return
    yield "null", path, None
    match info:
        case inspect.StrType():
            yield "number for text", path, 7
            if info.pattern is not None and info.pattern.startswith("^[A-Za-z0-9]"):
                yield "not an id", path, f"{MARKER} ' OR 1=1 --"
                yield "path for an id", path, f"../{MARKER}"
                yield "line end in an id", path, f"{MARKER}\n"
            elif info.pattern is not None:
                yield "NUL", path, f"{MARKER}\0"
            if info.min_length or (info.pattern and info.pattern.startswith("^[A-Za-z0-9]")):
                yield "empty", path, ""
            if info.max_length is not None:
                yield "too long", path, MARKER + "x" * info.max_length
        case inspect.IntType() | inspect.FloatType():
            yield "text for number", path, MARKER
            yield "bool for number", path, True
            for bound, step in ((info.ge, -1), (info.le, 1)):
                if bound is not None:
                    yield f"beyond {bound}", path, bound + step
            if isinstance(info, inspect.IntType):
                yield "huge", path, 2**70
                yield "fraction", path, 1.5
            else:
                yield "beyond any float", path, inf
        case inspect.BoolType():
            yield "text for bool", path, MARKER
        case inspect.EnumType():
            yield "no such word", path, MARKER
        case inspect.StructType():
            yield "text for object", path, MARKER
            yield "list for object", path, [MARKER]
            if isinstance(good, dict):
                yield from ((wrong.what, wrong.path, wrong.data) for wrong in _in_fields(info, good, path))
        case inspect.VarTupleType() | inspect.ListType():
            yield "text for list", path, MARKER
            yield "object for list", path, {"0": MARKER}
            if info.min_length:
                yield "none at all", path, []
            if info.max_length is not None:
                yield "too many", path, good * (info.max_length + 1)
            for what, at, bad in _bad_values(info.item_type, good[0], f"{path}[0]"):
                yield what, at, [bad]
        case inspect.TupleType():
            yield "too short", path, good[:-1]
            yield "too long", path, [*good, 1]
            for what, at, bad in _bad_values(info.item_types[1], good[1], f"{path}[1]"):
                yield what, at, [good[0], bad]
        case inspect.DictType():
            yield "list for object", path, [MARKER]
            yield "empty key", path, {"": next(iter(good.values()))}
            if info.max_length is not None:
                yield "too many", path, {f"t{n}": next(iter(good.values())) for n in range(info.max_length + 1)}
            for what, at, bad in _bad_values(info.value_type, next(iter(good.values())), f"{path}[...]"):
                yield what, at, {next(iter(good)): bad}
        case other:
            raise NotImplementedError(f"{path}: {other}")


def encode(value: Any) -> str:
    """JSON, in which what is beyond any float is written as a number all the same."""
    return json.dumps(value).replace("Infinity", "1e999")


def frame(struct: type[wire.Request], data: Any, id: str = "q") -> str:
    """The frame of a request with this data."""
    return f'{{"id":{json.dumps(id)},"type":"{wire.TYPE_OF[struct]}","data":{encode(data)}}}'


def check_good(struct: type[wire.Request]) -> None:
    """The good data is good, and gives every field."""
    assert msgspec.convert(GOOD[struct], struct) is not None
    assert set(GOOD[struct]) == set(struct.__struct_fields__), struct
