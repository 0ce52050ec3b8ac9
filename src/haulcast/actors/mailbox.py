"""A bounded mailbox: first in, first out, with room that only the system's own messages may use.

1. Clients' messages are taken while fewer than `capacity` wait; then `offer` says no and the caller answers BUSY.
2. Timers and control have `reserved` places more, so a flood of requests can never keep a deadline from being heard.
3. There is one reader. A message that the reader gives back is read next.
"""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

M = TypeVar("M")


class Mailbox(Generic[M]):
    """Messages for one actor, bounded in messages."""

    __slots__ = ("_capacity", "_messages", "_reader", "_reserved")

    def __init__(self, capacity: int = 1024, reserved: int = 64) -> None:
        self._capacity = capacity
        self._reserved = reserved
        self._messages: list[M] = []  # a deque takes 760 bytes, and nearly all are empty nearly always
        self._reader: asyncio.Future[None] | None = None  # set while the reader waits

    def __len__(self) -> int:
        return len(self._messages)

    def offer(self, message: M) -> bool:
        """Take a client's message, or say False when full."""
        return self._put(message, self._capacity)

    def offer_control(self, message: M) -> bool:
        """Take a message of the system's own, or say False when even the reserved room is full."""
        return self._put(message, self._capacity + self._reserved)

    def give_back(self, message: M) -> None:
        """Have `message`, which was read, read again before all others."""
        self._messages.insert(0, message)
        self._wake()

    async def get(self) -> M:
        """The next message; waits for one."""
        while not self._messages:
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._messages.pop(0)

    def drain(self) -> Iterator[M]:
        """Take out everything that waits."""
        while self._messages:
            yield self._messages.pop(0)

    def _put(self, message: M, bound: int) -> bool:
        if len(self._messages) >= bound:
            return False
        self._messages.append(message)
        self._wake()
        return True

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
