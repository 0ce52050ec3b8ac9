"""What the suites of the stores that nodes share have in common: a clock that stands still, an emptied Redis."""

import asyncio
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis


class ManualClock:
    """Stands still but for `advance`."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def now_ms(self) -> int:
        return round(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


async def emptied(url: str) -> str:
    """The address of a Redis, now without keys. Its scripts stay known, unless a test wants otherwise."""
    async with Redis.from_url(url) as redis:
        await redis.flushdb()
    return url


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.005)
