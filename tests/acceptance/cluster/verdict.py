"""What a story has to come to, whatever happened in it: what its users wrote down, against what the stores hold.

The demo's checker judges races, trips, histories and confirmations; here is what it has no eye for: several answers to
one id, answers that are on record, deadlines, and what is left in Redis.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Set
from typing import Any

import asyncpg
from redis import Redis

from haulcast.demo.checker import check
from haulcast.demo.evidence import Kept
from haulcast.demo.kept import PostgresTables
from haulcast.demo.record import Asked, Outcome
from haulcast.storage.redis.keys import KEYS, OWNER
from tests.acceptance.cluster.crowd import Crowd
from tests.acceptance.cluster.roaming import REPEATED, User
from tests.acceptance.phone import eventually

FAILOVER_BOUND_S = 5.0
ANSWERED_AGAIN_WITHIN_S = 10.0
_POSITIVE = REPEATED | {"trip.update"}
_REPLIES = "SELECT user_id, request_id, reply FROM request_log WHERE tenant_id = $1"


async def judge(crowd: Crowd, outage_s: float = 0.0) -> None:
    """Let the crowd finish, ask everything once more at some node, and judge. Whatever was due while it could not be
    written, for `outage_s`, may be so much later."""
    await crowd.finish()
    await asyncio.gather(*(_ask_again(user) for user in crowd.users))
    async with PostgresTables.opened(crowd.url) as tables:
        kept = await tables.kept(crowd.tenant)
    replies = await _replies(crowd)
    verdict = check(crowd.recorder.plain(), kept, time.time_ns() // 1_000_000)
    evidence = [str(violation) for violation in verdict.violations]
    for user in crowd.users:
        evidence += _of_user(user)
    evidence += _lost(crowd)
    evidence += _unkept(crowd, kept, replies)
    evidence += _late(kept, (FAILOVER_BOUND_S + outage_s) * 1000)
    assert not evidence, "\n".join(evidence)
    running = [node for node in crowd.nodes.all if node.running]
    living = set(await asyncio.gather(*(asyncio.to_thread(node.incarnation) for node in running)))
    with Redis.from_url(crowd.nodes.redis.url) as redis:
        try:
            await eventually(lambda: not _foreign(redis, living), "Redis holds nothing of what is over")
        except AssertionError as error:
            raise AssertionError(f"{error}: {_foreign(redis, living)}") from None


async def _ask_again(user: User) -> None:
    """Every command that was answered once more, at whichever node runs: it must be answered, as before."""
    nodes = [node for node in user.nodes if node.running]
    for request_id, (request_type, _) in user.requests.items():
        if request_id in user.answers and request_type in REPEATED:
            async with asyncio.timeout(ANSWERED_AGAIN_WITHIN_S):
                while await user.call(user.rng.choice(nodes), request_id) is None:
                    await asyncio.sleep(0.05)


def _of_user(user: User) -> Iterator[str]:
    """Frames that were not as they should be, and answers that changed."""
    for node, phone in user.phones:
        for fault in (*phone.faults, *map(str, phone.unasked)):
            yield f"{user.name} at node {node.number}: {fault}"
    for request_id, answers in user.answers.items():
        if any((answer.ok, answer.body) != (answers[0].ok, answers[0].body) for answer in answers):
            yield f"{user.name}'s {request_id} was answered {answers}"


def _lost(crowd: Crowd) -> Iterator[str]:
    """Requests that nobody answered, though nodes were there to do so."""
    for record in crowd.recorder.records:
        if isinstance(record, Asked) and record.outcome is Outcome.LOST:
            yield f"{record.user}'s {record.type} {record.id} was not answered"


def _unkept(crowd: Crowd, kept: Kept, replies: Mapping[tuple[str, str], Any]) -> Iterator[str]:
    """Good answers, each at whichever node, that are not on record, or did not come true."""
    statuses = {row["broadcast_id"]: row["status"] for row in kept.broadcasts}
    for user in crowd.users:
        for request_id, answers in user.answers.items():
            request_type = user.requests[request_id][0]
            for answer in answers:
                if not answer.ok or request_type not in _POSITIVE:
                    continue
                if replies.get((user.name, request_id), {}).get("done") != answer.body:
                    yield f"{user.name}'s {request_id} was answered {answer}, on record is something else"
                if request_type == "broadcast.cancel":
                    status = statuses[answer.body["broadcast_id"]]
                    if status != answer.body["status"]:
                        yield f"{user.name} was told {answer.body}, and the broadcast is {status}"


def _late(kept: Kept, bound_ms: float) -> Iterator[str]:
    """Broadcasts that ended too long after their deadline, or not at all."""
    for row in kept.broadcasts:
        if row["ended_at_ms"] is None or row["ended_at_ms"] > row["expires_at_ms"] + bound_ms:
            yield f"{row['broadcast_id']} was due at {row['expires_at_ms']} and ended at {row['ended_at_ms']}"


def _foreign(redis: "Redis", living: Set[int]) -> list[str]:
    """Keys that nobody knows, that stay for ever, or that tell of a broadcast, though none is live. What a node had to
    say that was killed before it could take it back goes by its own time to live."""
    return [
        name
        for name in (key.decode() for key in redis.scan_iter(count=1_000))
        if not any(key.matches(name) for key in KEYS)
        or (OWNER.matches(name) and _owner(redis, name) in living)
        or redis.pttl(name) == -1  # -2: it has just gone
    ]


def _owner(redis: "Redis", name: str) -> int | None:
    value = redis.get(name)
    return int(value.split()[1]) if isinstance(value, bytes) else None


async def _replies(crowd: Crowd) -> dict[tuple[str, str], Any]:
    connection = await asyncpg.connect(crowd.url, server_settings={"search_path": "haulcast", "row_security": "off"})
    try:
        rows = await connection.fetch(_REPLIES, crowd.tenant)
    finally:
        await connection.close()
    return {(row["user_id"], row["request_id"]): json.loads(row["reply"]) for row in rows}
