"""A client whose user writes everything down."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any, Self

import aiohttp

from haulcast.client import Client, ClientError, Event, ServerError

from .record import Asked, Heard, Outcome, Recorder, Stayed

PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `data` is the error's if it was one."""

    outcome: Outcome
    data: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.outcome is Outcome.OK


class Phone:
    """One user with one connection."""

    def __init__(self, client: Client, user: str, role: str, recorder: Recorder) -> None:
        self.client = client
        self.user = user
        self.role = role
        self._recorder = recorder
        self._numbers = count(1)

    @classmethod
    @asynccontextmanager
    async def connected(
        cls, url: str, token: str, session: aiohttp.ClientSession, user: str, role: str, recorder: Recorder
    ) -> AsyncIterator[Self]:
        """A phone that is switched on; when it is switched off again, how it was connected is written down."""
        async with Client(url, token, session=session, max_events=10_000, open_timeout_s=30) as client:
            since_ms = client.greeting["server_time"]
            try:
                yield cls(client, user, role, recorder)
            finally:
                stayed = Stayed(user, role, since_ms, client.server_now_ms(), client.connections, client.events_dropped)
                recorder.add(stayed)

    async def ask(self, request_type: str, data: Mapping[str, Any]) -> Answer:
        """Ask, and write down what was answered. Never raises for what was."""
        request_id = f"{self.user}-{next(self._numbers)}"
        began_s = perf_counter()  # uvloop's own time has whole milliseconds only
        answer = Answer(Outcome.ABANDONED)
        try:
            reply = await self.client.request(request_type, data, id=request_id, timeout_s=PATIENCE_S)
            answer = Answer(Outcome.OK, reply)
        except ServerError as error:
            # What may yet succeed was not refused: it may even have been done, its outcome is not known.
            outcome = Outcome.LOST if error.retry else Outcome.REFUSED
            answer = Answer(outcome, error.data, error.code)
        except ClientError:
            answer = Answer(Outcome.LOST)
        finally:
            latency_ms = (perf_counter() - began_s) * 1000
            self._recorder.add(
                Asked(
                    user=self.user,
                    role=self.role,
                    type=request_type,
                    id=request_id,
                    data=data,
                    outcome=answer.outcome,
                    reply=answer.data,
                    code=answer.code,
                    latency_ms=latency_ms,
                )
            )
        return answer

    async def events(self) -> AsyncIterator[Event]:
        """The client's events, each written down before it is handed on."""
        async for event in self.client.events():
            kind, _, subject = event.topic.partition(":")
            self._recorder.add(
                Heard(
                    user=self.user,
                    role=self.role,
                    event=event.event,
                    broadcast_id=subject if kind == "broadcast" else event.data.get("broadcast_id", ""),
                    trip_id=event.data.get("trip_id"),
                    vehicle_id=event.data.get("vehicle_id"),
                    reason=event.data.get("reason"),
                    remaining_requests=event.data.get("remaining_requests"),
                    replayed=event.replayed,
                )
            )
            yield event
