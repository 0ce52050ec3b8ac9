"""A Redis of a test's own, that it may kill, and ways to it that fail."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis

from haulcast.demo.stores import PrivateRedis
from tests.proxy import Proxy


@contextmanager
def private_redis(directory: Path) -> Iterator[PrivateRedis]:
    """Started; ended at the end, whatever the test has done to it."""
    redis = PrivateRedis(directory)
    redis.start()
    try:
        yield redis
    finally:
        redis.stop()


@asynccontextmanager
async def proxy_to(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy, and the address by which a store is reached through it."""
    parts = urlsplit(url)
    assert parts.port is not None
    async with Proxy(parts.port) as proxy:
        credentials = parts.netloc.rpartition("@")[0]
        there = f"127.0.0.1:{proxy.port}"
        yield proxy, parts._replace(netloc=f"{credentials}@{there}" if credentials else there).geturl()


@asynccontextmanager
async def admin(url: str) -> AsyncIterator["Redis"]:
    """A client that belongs to nobody under test."""
    async with Redis.from_url(url) as redis:
        yield redis


@contextmanager
def promptly(within_s: float = 1.5) -> Iterator[None]:
    """What is done within has to end in time: a second, and something for a machine that is busy."""
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < within_s


async def used_while_flushed(url: str, use: Callable[[], Awaitable[None]]) -> None:
    """Have five use an adapter over and over while its Redis, scripts included, is emptied fifty times. Each gets
    through at least once, and in the end Redis is empty."""
    stopped = False

    async def go_on() -> int:
        turns = 0
        while not stopped:
            await use()
            turns += 1
        return turns

    async with admin(url) as redis:
        going = [asyncio.create_task(go_on()) for _ in range(5)]
        for _ in range(50):
            await redis.flushdb()
            await redis.script_flush()
            await asyncio.sleep(0.003)
        stopped = True
        assert all(await asyncio.gather(*going))
        await redis.flushdb()
