"""The queue between a connection and the user's `async for`.

It holds at most `limit` events. When it is full the oldest is dropped and counted: the states in `client.topics` stay
right, and of what an event asks for (an offer to be taken) the oldest is the least worth. It belongs to one consumer;
several share the events out among them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from .protocol import Event


class EventQueue(AsyncIterator[Event]):
    """Events in order. Ends after the last one, by raising what `end` was given, if anything."""

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._events: deque[Event] = deque(maxlen=limit)
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, event: Event) -> None:
        """Add an event; never blocks."""
        if len(self._events) == self._events.maxlen:
            self.dropped += 1
        self._events.append(event)
        self._wake(1)

    def end(self, error: BaseException | None = None) -> None:
        """No more events come. The first call counts."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake(len(self._waiting))

    async def __anext__(self) -> Event:
        while not self._events:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                # Woken and cancelled at once: the event is somebody else's.
                if turn.done() and not turn.cancelled():
                    self._wake(1)
                raise
            finally:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        return self._events.popleft()

    def _wake(self, count: int) -> None:
        while count and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1
