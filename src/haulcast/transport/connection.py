"""One client's WebSocket: feeds frames and times to the pure `Session` and carries out what it says.

1. There is no task for a connection. What comes is handled as it comes, and a reply goes out from the callback of its
   future. Only a greeting is waited for; until it is over nothing more is read, and what came with the hello waits.
2. An answer that comes after the end is dropped; what was asked for goes on.
3. `close` may be called from anywhere, returns at once and does not change any collection of connections. It ends when
   the peer has said goodbye too, or after `close_within_s`.
4. The end leaves nothing behind: no task, no timer, no subscription. `on_end` is called when all of it is gone.
5. The reply to hello is the first frame that a client gets; snapshots wait for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_hex

import structlog
from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType

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
from .codec import close_frame, encode_error, encode_reply, frame, ping_frame, pong_frame
from .handlers import Caller, Handlers
from .outbox import Flusher, Outbox
from .services import Services
from .upgrade import broken_code, reader

log = structlog.get_logger()

HEARD_EVERY_S = 10.0
"""How often presence is told, at most, that a transporter is there; it wants to hear every 120 s."""
MAX_WAITING = 200
"""Messages that may come with a hello before it is answered; more is a flood."""
_SLICE_BYTES = 4096
_MIN_TIMER_S = 0.001

_CLOSES: Mapping[Code, CloseCode] = {
    ErrorCode.UNAUTHENTICATED: CloseCode.BAD_TOKEN,
    ErrorCode.TENANT_NOT_FOUND: CloseCode.FORBIDDEN,
}
"""The refusals of a hello that end the connection. After others the client may try again."""


class Connection(asyncio.Protocol):
    """One client's WebSocket, from its upgrade to its end. Compared by identity."""

    __slots__ = (
        "__weakref__",
        "_attached",
        "_caller",
        "_clock",
        "_cut",
        "_ending",
        "_greeting",
        "_greetings",
        "_handlers",
        "_heard_at",
        "_ignored_bytes",
        "_limits",
        "_metrics",
        "_on_end",
        "_on_lost",
        "_outbox",
        "_principal",
        "_reader",
        "_services",
        "_session",
        "_tasks",
        "_timer",
        "_timer_at",
        "_transport",
        "_unfinished_bytes",
        "_waiting",
        "send",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        services: Services,
        handlers: Handlers,
        flusher: Flusher,
        greetings: asyncio.Semaphore,
        on_lost: "Callable[[Connection], None]",
        on_end: "Callable[[Connection], None]",
    ) -> None:
        """`on_lost` is to call `clear_away` soon, and `on_end` is called when all of it is done."""
        self._transport = transport
        self._services = services
        self._handlers = handlers
        self._limits = services.limits
        self._clock = services.clock
        self._metrics = services.metrics
        self._greetings = greetings
        self._on_lost = on_lost
        self._on_end = on_end
        self._reader = reader(self._take, self._break, services.limits.max_frame_bytes)
        self._outbox = Outbox(transport, flusher, services.limits.max_queued_bytes, self._overflow)
        self.send = self._outbox.send
        """Queues one or more finished frames; they leave at the end of this tick. A snapshot may be of any size."""
        self._tasks = TaskSet(services.limits.max_in_flight)
        self._session = s.Session(services.limits, services.clock.monotonic_s())
        self._principal: Principal | None = None  # set by a hello; stays after the end, for who was just serving it
        self._caller: Caller | None = None  # the same with what ends with the connection
        self._attached = False  # whether the hub knows this connection
        self._heard_at = -HEARD_EVERY_S
        self._greeting: asyncio.Task[None] | None = None  # while a hello is answered
        self._waiting: list[WSMessage] = []  # what came meanwhile, at most MAX_WAITING
        self._ignored_bytes = 0  # what has come since this side began to close
        self._unfinished_bytes = 0  # what has come since the last whole message
        self._ending: asyncio.Task[None]  # waits for what was under way at the end
        self._timer: asyncio.TimerHandle | None = None  # for the session's next deadline, or earlier
        self._timer_at = 0.0
        self._cut: asyncio.TimerHandle | None = None  # ends a close that takes too long
        self._arm()

    # --- What others see ---

    @property
    def principal(self) -> Principal:
        """Whom the connection speaks for, or spoke for when it was there. Only a greeted connection has one."""
        assert self._principal is not None
        return self._principal

    def close(self, code: int, reason: str = "") -> None:
        """Begin to close, after what was sent before. Only the first call counts."""
        for output in self._session.close(code, reason):
            self._carry_out(output)

    def replace(self) -> None:
        """A newer connection of the same user takes this one's place."""
        self._leave()
        self.close(CloseCode.REPLACED, "too many connections of this user")

    # --- What comes in ---

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. In slices, so that who floods is noticed before all of it has been parsed. Frames
        without end or content make no message, and would be bounded by nothing."""
        for start in range(0, len(data), _SLICE_BYTES):
            part = data[start : start + _SLICE_BYTES]
            if self._session.state is s.State.CLOSING:
                self._ignored_bytes += len(part)
                if self._ignored_bytes > self._limits.max_frame_bytes:
                    self._transport.abort()
                    return
            self._unfinished_bytes += len(part)
            self._reader.feed_data(part)
            if self._unfinished_bytes > 2 * self._limits.max_frame_bytes:
                self._break(WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, ""))
                return

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`. Told only of what `Outbox` has set limits for."""
        self._outbox.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. From here on nothing leads to anything; what remains to be done is `clear_away`."""
        self._session.close(WSCloseCode.GOING_AWAY, "")
        self._outbox.close()
        self._on_lost(self)

    def clear_away(self) -> None:
        """Let go of everything, once the connection is lost."""
        self._leave()
        for timer in (self._timer, self._cut):
            if timer is not None:
                timer.cancel()
        if self._greeting is not None:
            self._greeting.cancel()
        if self._greeting is not None or self._tasks:
            self._ending = asyncio.get_running_loop().create_task(self._end())
        else:
            self._let_go()

    async def _end(self) -> None:
        if self._greeting is not None:
            await asyncio.wait([self._greeting])
            self._leave()
        await self._tasks.close()
        self._let_go()

    def _let_go(self) -> None:
        """Hold nothing that holds this connection, so that it is freed now: the collector comes late."""
        del self._reader
        self._timer = self._cut = self._caller = None
        self._waiting.clear()
        self._on_end(self)

    def _take(self, message: WSMessage) -> None:
        """A message has come."""
        self._unfinished_bytes = 0
        if self._greeting is not None and self._session.state is not s.State.CLOSING:
            self._waiting.append(message)
            if len(self._waiting) > MAX_WAITING:
                self.close(CloseCode.RATE_LIMITED, "too many requests")
            return
        try:
            self._handle(message)
        except Exception:
            log.exception("connection_failed", **self._who())
            self.close(WSCloseCode.INTERNAL_ERROR)

    def _handle(self, message: WSMessage) -> None:
        now = self._clock.monotonic_s()
        match message.type:
            case WSMsgType.TEXT:
                outputs = self._session.on_text(message.data, now)
            case WSMsgType.PING:
                outputs = self._session.on_ping(message.data, now)
            case WSMsgType.PONG:
                outputs = self._session.on_pong(now)
            case WSMsgType.BINARY:
                outputs = self._session.on_binary()
            case _:
                self._say_goodbye(message.data)
                return
        self._heard(now)
        for output in outputs:
            self._carry_out(output)

    def _break(self, error: BaseException) -> None:
        """What came is too large, not UTF-8, or no WebSocket at all: nothing that follows can be understood."""
        code = broken_code(error)
        if self._session.close(code, ""):
            self._log_closing(code)
        self._say_goodbye(code)

    def _say_goodbye(self, code: int) -> None:
        """The peer has closed, or must be: answer, unless this side has closed before, and end the connection."""
        self._leave()
        if self._cut is None:
            self._session.close(code, "")
            self._shut(code)
        self._transport.close()

    # --- Carrying out what the session says ---

    def _carry_out(self, output: s.Output) -> None:
        match output:
            case s.Request(request_id, request):
                self._serve(request_id, request, self._clock.monotonic_s())
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
                self._transport.pause_reading()
                self._greeting = asyncio.get_running_loop().create_task(self._greet(output))
                self._greeting.add_done_callback(self._greeted)

    def _serve(self, request_id: str | None, request: wire.Request, started: float) -> None:
        assert self._caller is not None
        try:
            answer = self._handlers.handle(self._caller, request_id, request)
        except Exception as error:
            self._settle(request_id, request, started, error, now=True)
            return
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(partial(self._answered, request_id, request, started))
        else:
            self._settle(request_id, request, started, answer, now=True)

    def _answered(
        self, request_id: str | None, request: wire.Request, started: float, future: "asyncio.Future[Reply]"
    ) -> None:
        if future.cancelled() and self._session.state is s.State.CLOSING:
            return  # it has ended with the connection, and nobody is left to be told
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        self._settle(request_id, request, started, future.result() if error is None else error)

    def _settle(
        self,
        request_id: str | None,
        request: wire.Request,
        started: float,
        outcome: Reply | BaseException,
        *,
        now: bool = False,
    ) -> None:
        """Answer a request; `now`, if its outcome was known at once and so nothing else comes of it."""
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
        self.send(frame(payload if error is None else encode_error(request_id, error)), now=now)
        self._session.finished()

    # --- Hello ---

    def _greeted(self, greeting: "asyncio.Task[None]") -> None:
        """Go on with what came meanwhile, and with what comes."""
        self._greeting = None
        if greeting.cancelled() or self._transport.is_closing():
            return
        if (error := greeting.exception()) is not None:
            log.error("connection_failed", exc_info=error, **self._who())
            self.close(WSCloseCode.INTERNAL_ERROR)
        self._arm()
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._take(message)
        if self._greeting is None:
            self._transport.resume_reading()

    async def _greet(self, greet: s.Greet) -> None:
        started = self._clock.monotonic_s()
        self._outbox.hold()
        try:
            async with asyncio.timeout(self._limits.greeting_within_s):
                async with self._greetings:
                    resumed = await self._introduce(greet.token, greet.resume)
                topics = await self._services.hub.resume(self, greet.resume)
            resumed = [name for name in resumed if name in topics]
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
            self._outbox.release(frame(encode_reply(greet.request_id, self._welcome(topics, resumed))))
            self._heard(now)
            outcome = "ok"
        self._metrics.requests.observe("hello", outcome, self._clock.monotonic_s() - started)

    async def _introduce(self, token: str, held: Mapping[str, tuple[int, int]]) -> list[str]:
        """Find out who is there, attach them, and show them what is their own. The topics that go on from what they
        hold."""
        principal = self._services.keys.verify(token, self._clock.now_ms())
        control = None
        if principal.role is not Role.ADMIN:  # an admin belongs to the deployment
            control = await self._services.tenants.control_of(principal.tenant_id)
            self._session.limit(self._services.rates.of(principal.tenant_id, principal.role, control.settings))
        self._principal = principal
        self._caller = Caller(principal, self, self._tasks)
        self._services.hub.attach(self)
        self._attached = True
        self._metrics.connections.inc()
        if control is not None:  # what is announced from here on comes by itself
            self._services.hub.announce(self, control)
        resumed = await self._services.hub.greet(self, held)
        surplus = self._services.hub.surplus(self)
        if isinstance(surplus, Connection):
            surplus.replace()
        return resumed

    def _welcome(self, topics: list[str], resumed: list[str]) -> dict[str, Json]:
        """What the reply to hello says."""
        return {
            "session": token_hex(8),
            "role": self.principal.role,
            "user": self.principal.user_id,
            "tenant": self.principal.tenant_id,
            "server_time": self._clock.now_ms(),
            "heartbeat_s": self._limits.ping_after_s,
            "topics": topics,
            "resumed": resumed,
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
        self._log_closing(code, reason)
        self._shut(code, reason)
        self._transport.resume_reading()  # a peer that is being greeted may say goodbye as well

    def _shut(self, code: int, reason: str = "") -> None:
        """Send the close frame as the last thing, and end this half of the connection, at which most clients end theirs
        even if they do not look at the frame. Whoever does not is cut off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._outbox.flush_now()
        self._outbox.close()
        self._transport.write(close_frame(code, reason))
        self._transport.write_eof()
        self._cut = asyncio.get_running_loop().call_later(self._limits.close_within_s, self._transport.abort)

    def _log_closing(self, code: int, reason: str = "") -> None:
        self._metrics.closes.labels(str(int(code))).inc()
        log.info("connection_closing", code=int(code), reason=reason, **self._who())

    def _who(self) -> dict[str, str]:
        """Whom a log line is about."""
        if self._principal is None:
            return {}
        return {"tenant": self._principal.tenant_id, "user": self._principal.user_id}
