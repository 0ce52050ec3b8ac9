"""Looks at the Redis of a cluster."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from statistics import median
from time import perf_counter
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from haulcast.storage.redis.keys import LEASES
from haulcast.store_url import StoreUrl

from .finding import Finding
from .redis_keys import look_at_keys

SUBJECT = "redis"
OLDEST_REDIS = (6, 2)
"""The first with GEOSEARCH."""
ANSWER_WITHIN_S = 5.0
SLOW_MS = 10.0
_ASKED_TIMES = 5


async def look_at_redis(url: str) -> list[Finding]:
    """What there is to say about it."""
    findings: list[Finding] = []
    try:
        # Keys may have any names; those that are no text come through, and can be asked about.
        redis = Redis.from_url(url, decode_responses=True, encoding_errors="surrogateescape")
        async with asyncio.timeout(ANSWER_WITHIN_S), redis:
            findings.extend([finding async for finding in _look(redis, url)])
    except TimeoutError:
        findings.append(_broken(url, f"has not answered within {ANSWER_WITHIN_S:g} s"))
    except (RedisError, OSError) as error:
        findings.append(_broken(url, f"cannot be used: {error}"))
    except ValueError:  # not repeated: there may be a password in the address
        findings.append(_broken(url, "the address is not understood"))
    return findings


async def _look(redis: Redis, url: str) -> AsyncIterator[Finding]:
    times_s = []
    for _ in range(_ASKED_TIMES):
        began_s = perf_counter()
        await redis.ping()
        times_s.append(perf_counter() - began_s)
    took_ms = median(times_s) * 1000
    info: Mapping[str, Any] = await redis.info()
    address = StoreUrl.parse(url)
    shown = f"Redis {info['redis_version']} at {address.shown}, answers in {took_ms:.1f} ms"
    if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < OLDEST_REDIS:
        wanted = ".".join(map(str, OLDEST_REDIS))
        yield Finding(SUBJECT, shown, f"too old: Redis {wanted} or newer is needed", fatal=True)
        return
    if took_ms > SLOW_MS:
        yield Finding(SUBJECT, shown, "slow: nodes that do not hear from it in time lose their lease")
    elif address.exposed:
        yield Finding(SUBJECT, shown, "reached over a network without TLS: use rediss://")
    else:
        yield Finding(SUBJECT, shown)
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        yield Finding(
            SUBJECT,
            f"maxmemory-policy is {policy}",
            "when its memory is full it forgets who is alive and who is where: set it to noeviction",
        )
    for finding in await look_at_keys(redis):
        yield finding
    seconds, _ = await redis.time()
    alive = await redis.zcount(LEASES(), seconds * 1000, "+inf")
    yield Finding("nodes", f"{alive} hold a lease")


def _broken(url: str, what: str) -> Finding:
    return Finding(SUBJECT, StoreUrl.parse(url).shown, f"{what}; check HAULCAST_REDIS_URL", fatal=True)
