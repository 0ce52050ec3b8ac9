"""What the tests of bad input share: a node within the process, what it logs and counts, wrong values for fields."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time, time_ns
from typing import Any, Self

import aiohttp
import jwt
import structlog

from haulcast.app import Node
from haulcast.config import Config, Environment
from haulcast.ports import Role
from haulcast.transport.auth import Algorithm, Key, KeyRing
from haulcast.transport.session import Limits

WITHIN_S = 5.0
MARKER = "zzMARKERzz"
"""Stands in what is sent, and must never stand in a log."""
PING = '{"id":"q","type":"ping"'
"""The beginning of a frame. It wants a brace, at least."""
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
    config = Config(Environment.PRODUCTION, "127.0.0.1", 0, data_dir, KEYS, None, frozenset({ORIGIN}), "info")
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


# --- Answers ---


def check_error(reply: Mapping[str, Any], code: str, field: str | None, re_: str | None) -> None:
    """The reply is this error, and its message names the field."""
    assert reply["ok"] is False
    assert reply["re"] == re_
    check_error_body(reply["error"], code, field)


def check_error_body(error: Mapping[str, Any], code: str, field: str | None) -> None:
    assert set(error) == {"code", "message", "retry", "data"}
    assert error["code"] == code, error
    if field is not None:
        assert error["data"] == {"field": field}
        assert error["message"].startswith(f"{field}: ")
