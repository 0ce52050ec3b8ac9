"""One client's WebSocket: feeds frames and times to the pure `Session` and carries out what it says.

1. `run` is the connection's one task: it reads until the end, and leaves nothing behind: no task, no timer, no
   subscription. What it waits for besides frames is only the greeting.
2. A reply goes out from the callback of its future, without a task. An answer that comes after the end is dropped; what
   was asked for goes on.
3. `close` may be called from anywhere, returns at once and does not change any collection of connections: the rest
   happens in a task that `run` waits for. A peer that does not take part is cut off after `close_within_s`.
4. The reply to hello is the first frame that a client gets; snapshots wait for it.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from secrets import token_hex

import structlog
from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from haulcast.domain.ids import TransporterId
from haulcast.domain.replies import Done, Json, Reply
from haulcast.errors import Code, ErrorCode, RequestError
from haulcast.ports import Role
from haulcast.tasks import TaskSet

from . import session as s
from . import wire
from .answers import error_of, refusal
from .auth import Principal
from .close_codes import CloseCode
from .codec import encode_error, encode_reply, frame, ping_frame, pong_frame
from .handlers import Caller, Handlers
from .outbox import Flusher, Outbox
from .services import Services

log = structlog.get_logger()

HEARD_EVERY_S = 10.0
"""How often presence is told, at most, that a transporter is there; it wants to hear every 120 s."""
_MIN_TIMER_S = 0.001

_CLOSES: Mapping[Code, CloseCode] = {
    ErrorCode.UNAUTHENTICATED: CloseCode.BAD_TOKEN,
    ErrorCode.TENANT_NOT_FOUND: CloseCode.FORBIDDEN,
}
"""The refusals of a hello that end the connection. After others the client may try again."""


class Connection:
    """One client's WebSocket, from its upgrade to its end. Compared by identity."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        services: Services,
        handlers: Handlers,
        flusher: Flusher,
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._services = services
        self._handlers = handlers
        self._limits = services.limits
        self._clock = services.clock
        self._metrics = services.metrics
        self._outbox = Outbox(transport, flusher, services.limits.max_queued_bytes, self._overflow)
        self._tasks = TaskSet(services.limits.max_in_flight)
        self._session = s.Session(services.limits, services.clock.monotonic_s())
        self._caller: Caller | None = None  # set by a hello
        self._attached = False  # whether the hub knows this connection
        self._heard_at = -HEARD_EVERY_S
        self._timer: asyncio.TimerHandle | None = None  # for the session's next deadline, or earlier
        self._timer_at = 0.0
        self._closing: asyncio.Task[None] | None = None
        self._cut: asyncio.TimerHandle | None = None  # ends a close that takes too long

    # --- What others see ---

    @property
    def principal(self) -> Principal:
        """Whom the connection speaks for. Only a greeted connection has one."""
        assert self._caller is not None
        return self._caller.principal

    def send(self, frames: bytes, *, snapshot: bool = False) -> None:
        """Queue one or more finished frames; they leave at the end of this tick. A snapshot may be of any size."""
        self._outbox.send(frames, snapshot=snapshot)

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close, after what was sent before. Only the first call counts."""
        for output in self._session.close(code, reason):
            self._carry_out(output)

    def replace(self) -> None:
        """A newer connection of the same user takes this one's place."""
        self._leave()
        self.close(CloseCode.REPLACED, "too many connections of this user")

    async def run(self) -> None:
        """Serve the client until the connection has ended."""
        try:
            self._arm()
            while self._session.state is not s.State.CLOSING:
                message = await self._socket.receive()
                now = self._clock.monotonic_s()
                if message.type is WSMsgType.TEXT:
                    outputs = self._session.on_text(message.data, now)
                elif message.type is WSMsgType.PING:
                    outputs = self._session.on_ping(message.data, now)
                elif message.type is WSMsgType.PONG:
                    outputs = self._session.on_pong(now)
                elif message.type is WSMsgType.BINARY:
                    outputs = self._session.on_binary()
                else:
                    if isinstance(message.data, WebSocketError):  # too large, not UTF-8, or no WebSocket frame at all
                        self._metrics.closes.labels(str(int(message.data.code))).inc()
                        log.info("connection_closing", code=int(message.data.code), **self._who())
                    break
                self._heard(now)
                for output in outputs:
                    if isinstance(output, s.Greet):
                        await self._greet(output)
                        self._arm()  # whatever else is heard only puts the deadline off
                    else:
                        self._carry_out(output)
        except Exception:
            log.exception("connection_failed", **self._who())
            self.close(WSCloseCode.INTERNAL_ERROR)
        finally:
            await self._end()

    # --- Carrying out what the session says ---

    def _carry_out(self, output: s.Output) -> None:
        match output:
            case s.Request(request_id, request):
                self._serve(request_id, request)
            case s.Error(request_id, error):
                self._metrics.bad_frames.labels(error.code).inc()
                # What ends the connection is told by its closing; a line for each frame would make a flood worse.
                ends = self._session.state is s.State.CLOSING
                write = log.debug if ends or error.code is ErrorCode.RATE_LIMITED else log.info
                write("frame_refused", code=error.code, request_id=request_id, **self._who())
                self.send(frame(encode_error(request_id, error)))
            case s.SendPing():
                self.send(ping_frame())
            case s.SendPong(payload):
                self.send(pong_frame(payload))
            case s.Close(code, reason):
                self._begin_close(code, reason)
            case s.Greet():
                raise AssertionError("only a frame leads to a greeting, and run sees to it")

    def _serve(self, request_id: str | None, request: wire.Request) -> None:
        assert self._caller is not None
        started = self._clock.monotonic_s()
        try:
            answer = self._handlers.handle(self._caller, request_id, request)
        except Exception as error:
            self._settle(request_id, request, started, error)
            return
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(partial(self._answered, request_id, request, started))
        else:
            self._settle(request_id, request, started, answer)
            self._outbox.flush_now()  # nothing else comes of it, so there is nothing to wait for

    def _answered(
        self, request_id: str | None, request: wire.Request, started: float, future: "asyncio.Future[Reply]"
    ) -> None:
        if future.cancelled() and self._session.state is s.State.CLOSING:
            return  # it has ended with the connection, and nobody is left to be told
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        self._settle(request_id, request, started, future.result() if error is None else error)

    def _settle(
        self, request_id: str | None, request: wire.Request, started: float, outcome: Reply | BaseException
    ) -> None:
        """Answer a request."""
        request_type = wire.TYPE_OF[type(request)]
        payload = b""
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            error = refusal(outcome)
            if isinstance(outcome, Done):
                payload = encode_reply(request_id, outcome.data)
        except BaseException as exception:
            error = error_of(exception, request_type, request_id, self._who())
        self._metrics.requests.observe(
            request_type, "ok" if error is None else error.code, self._clock.monotonic_s() - started
        )
        if isinstance(request, wire.Ack):
            # Silent, unless it could not have been meant: a topic may end while its last ack is on the way.
            if error is not None and error.code is ErrorCode.BAD_REQUEST:
                self.send(frame(encode_error(request_id, error)))
            return
        self.send(frame(payload if error is None else encode_error(request_id, error)))
        self._session.finished()

    # --- Hello ---

    async def _greet(self, greet: s.Greet) -> None:
        started = self._clock.monotonic_s()
        self._outbox.hold()
        try:
            async with asyncio.timeout(self._limits.greeting_within_s):
                data = await self._introduce(greet)
        except Exception as exception:
            self._leave()
            code = _CLOSES.get(exception.code) if isinstance(exception, RequestError) else None
            if code is not None and isinstance(exception, RequestError):
                error = exception  # told by the closing
            else:
                error = error_of(exception, "hello", greet.request_id, self._who())
            self._outbox.release(frame(encode_error(greet.request_id, error)), keep=False)
            if code is None:
                self._session.not_greeted(self._clock.monotonic_s())
            else:
                self.close(code, error.message)
            outcome: str = error.code
        else:
            now = self._clock.monotonic_s()
            token_ends = now + (self.principal.expires_at_ms - self._clock.now_ms()) / 1000
            self._session.greeted(token_ends, now)
            self._outbox.release(frame(encode_reply(greet.request_id, data)))
            self._heard(now)
            outcome = "ok"
        self._metrics.requests.observe("hello", outcome, self._clock.monotonic_s() - started)

    async def _introduce(self, greet: s.Greet) -> dict[str, Json]:
        """Find out who is there and attach them. What the reply to hello says."""
        principal = self._services.keys.verify(greet.token, self._clock.now_ms())
        if principal.role is not Role.ADMIN:  # an admin belongs to the deployment
            await self._services.tenants.settings_of(principal.tenant_id)
        self._caller = Caller(principal, self, self._tasks)
        self._services.hub.attach(self)
        self._attached = True
        self._metrics.connections.inc()
        topics = await self._services.hub.greet(self, greet.resume)
        surplus = self._services.hub.surplus(self)
        if isinstance(surplus, Connection):
            surplus.replace()
        return {
            "session": token_hex(8),
            "role": principal.role,
            "user": principal.user_id,
            "tenant": principal.tenant_id,
            "server_time": self._clock.now_ms(),
            "heartbeat_s": self._limits.ping_after_s,
            "topics": topics,
        }

    def _leave(self) -> None:
        """Be sent nothing more by the hub."""
        if self._attached:
            self._attached = False
            self._services.hub.detach(self)
            self._metrics.connections.dec()

    def _heard(self, now: float) -> None:
        """Tell presence that a transporter is there."""
        if self._attached and now - self._heard_at >= HEARD_EVERY_S and self.principal.role is Role.TRANSPORTER:
            self._heard_at = now
            principal = self.principal
            self._services.availability.heard_from(principal.tenant_id, TransporterId(principal.user_id))

    # --- Time ---

    def _arm(self) -> None:
        """Have the timer ring at the session's next deadline. One that rings too early is harmless and arms itself
        again, so a deadline that only moved away costs nothing."""
        due = self._session.next_deadline()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        wait_s = max(_MIN_TIMER_S, due - self._clock.monotonic_s())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        for output in self._session.on_time(self._clock.monotonic_s()):
            self._carry_out(output)
        self._arm()

    # --- The end ---

    def _overflow(self) -> None:
        self._metrics.slow_consumers.inc()
        self.close(CloseCode.SLOW_CONSUMER, "not reading fast enough")

    def _begin_close(self, code: int, reason: str) -> None:
        self._metrics.closes.labels(str(int(code))).inc()
        log.info("connection_closing", code=int(code), reason=reason, **self._who())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outbox.flush_now()
        self._outbox.close()
        loop = asyncio.get_running_loop()
        self._closing = loop.create_task(self._shut(code, reason))
        self._cut = loop.call_later(self._limits.close_within_s, self._transport.abort)

    async def _shut(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())

    async def _end(self) -> None:
        """Leave nothing behind."""
        self._leave()
        self._session.close(WSCloseCode.GOING_AWAY, "")  # from here on nothing leads to anything
        self._outbox.close()
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._tasks.close()
            if self._closing is not None:
                await asyncio.gather(self._closing, return_exceptions=True)
        finally:
            if self._cut is not None:
                self._cut.cancel()
            if self._transport.get_write_buffer_size():
                self._transport.abort()  # nobody is left to wait for the peer to read

    def _who(self) -> dict[str, str]:
        """Whom a log line is about."""
        if self._caller is None:
            return {}
        return {"tenant": self._caller.principal.tenant_id, "user": self._caller.principal.user_id}
