"""The accept paths that haulcast is compared with: what users run in its place, each over tables of its own.

All check what haulcast checks where it writes, no more and no less: vehicle and driver are the transporter's, the type
is the one asked for, neither is on an active trip, the request is still open, the broadcast has not expired. All write
the request, an assignment, a trip and the broadcast. None logs the answer under the request's id, as haulcast does.

Where there is a choice it is made in their favour: one tenant, keys that need no search, statements prepared once, no
scan of a whole table (under SERIALIZABLE it conflicts with every write), no reset of a connection that is given back,
no news to anybody.
"""

import asyncio
import secrets
from collections.abc import Mapping
from random import uniform
from typing import Any, Protocol

import asyncpg
from redis.asyncio import Redis

from haulcast.domain.commands import Accept
from haulcast.domain.ids import BroadcastId, assignment_id, request_id, trip_id
from haulcast.domain.replies import Done, Refusal, Refused, Reply
from haulcast.errors import ErrorCode, RequestError

from . import accept_queries as sql

RETRIES = 3
"""How often a transaction is tried again that could not be serialized."""
RETRY_AFTER_S = 0.01
"""At most; times the number of the try, drawn anew each time."""
LOCK_FOR_MS = 8_000
LOCK_RETRIES = 10
LOCK_RETRY_AFTER_S = 0.2
LOCK_JITTER_S = 0.1
"""Retries, pause and jitter: the defaults of node-redlock."""

UNLOCK = """
-- KEYS: the lock. ARGV: the token of whoever wants to release it. Only its holder does.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
"""

_CONTENDED = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class Path(Protocol):
    """A way to decide an accept."""

    async def accept(self, broadcast_id: BroadcastId, command: Accept, now_ms: int) -> Reply:
        """Decide it durably. Raises `RequestError(BUSY)` if it came to no decision: the phone has to try again."""
        ...


class Serializable:
    """A SERIALIZABLE transaction that reads everything, checks it, and then writes, the request optimistically."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def accept(self, broadcast_id: BroadcastId, command: Accept, now_ms: int) -> Reply:
        """See `Path`."""
        for attempt in range(1, RETRIES + 2):
            try:
                async with self._pool.acquire() as db, db.transaction(isolation="serializable"):
                    return await _read_and_write(db, broadcast_id, command, now_ms)
            except asyncpg.UniqueViolationError as error:
                return _busy(error)
            except _CONTENDED:
                await asyncio.sleep(uniform(0, RETRY_AFTER_S) * attempt)
        raise RequestError(ErrorCode.BUSY)


class Locked:
    """A path behind a lock in Redis. Who does not get it tries again as Redlock's client does, and then gives up."""

    def __init__(self, redis: Redis, path: Path) -> None:
        self._redis = redis
        self._unlock = redis.register_script(UNLOCK)
        self._path = path

    async def accept(self, broadcast_id: BroadcastId, command: Accept, now_ms: int) -> Reply:
        """See `Path`."""
        key, token = f"lock:truck-request:{request_id(broadcast_id, 1)}", secrets.token_hex(16)
        for _ in range(LOCK_RETRIES + 1):
            if await self._redis.set(key, token, nx=True, px=LOCK_FOR_MS):
                break
            await asyncio.sleep(LOCK_RETRY_AFTER_S + uniform(-LOCK_JITTER_S, LOCK_JITTER_S))
        else:
            raise RequestError(ErrorCode.BUSY)
        try:
            return await self._path.accept(broadcast_id, command, now_ms)
        finally:
            await self._unlock(keys=[key], args=[token])


class Conditional:
    """One READ COMMITTED statement that writes if all conditions hold. A no is always "taken": it does not ask why."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def accept(self, broadcast_id: BroadcastId, command: Accept, now_ms: int) -> Reply:
        """See `Path`."""
        request = request_id(broadcast_id, 1)
        try:
            open_trucks = await self._pool.fetchval(
                sql.TAKE_IF_ALL_HOLDS,
                request,
                command.transporter_id,
                command.vehicle_id,
                command.driver_id,
                assignment_id(request),
                trip_id(request),
                now_ms,
            )
        except asyncpg.UniqueViolationError as error:
            return _busy(error)
        return _TAKEN if open_trucks is None else _won(broadcast_id, open_trucks)


async def _read_and_write(db: Any, broadcast_id: BroadcastId, command: Accept, now_ms: int) -> Reply:
    request = request_id(broadcast_id, 1)
    broadcast = await db.fetchrow(sql.BROADCAST, broadcast_id)
    wanted = await db.fetchrow(sql.TRUCK_REQUEST, request)
    if broadcast is None or wanted is None:
        return Refused(Refusal.BROADCAST_NOT_FOUND)
    if wanted["status"] != "searching":
        return _TAKEN
    if now_ms >= broadcast["expires_at_ms"]:
        return Refused(Refusal.BROADCAST_EXPIRED)
    vehicle = await db.fetchrow(sql.VEHICLE, command.vehicle_id)
    driver = await db.fetchrow(sql.DRIVER, command.driver_id)
    vehicle_trip = await db.fetchrow(sql.TRIP_OF_VEHICLE, command.vehicle_id)
    driver_trip = await db.fetchrow(sql.TRIP_OF_DRIVER, command.driver_id)
    refusal = _unassignable(command, wanted["vehicle_type"], vehicle, driver, vehicle_trip, driver_trip)
    if refusal is not None:
        return Refused(refusal)
    if await db.fetchval(sql.TAKE_IF_SEARCHING, request, command.transporter_id) is None:
        return _TAKEN
    assignment = assignment_id(request)
    await db.execute(
        sql.ASSIGN,
        assignment,
        broadcast_id,
        request,
        command.transporter_id,
        command.vehicle_id,
        command.driver_id,
        now_ms,
    )
    await db.execute(sql.BEGIN_TRIP, trip_id(request), assignment, command.vehicle_id, command.driver_id, now_ms)
    return _won(broadcast_id, await db.fetchval(sql.COUNT_DOWN, broadcast_id))


def _unassignable(
    command: Accept,
    vehicle_type: str,
    vehicle: Mapping[str, Any] | None,
    driver: Mapping[str, Any] | None,
    vehicle_trip: object | None,
    driver_trip: object | None,
) -> Refusal | None:
    if vehicle is None or vehicle["transporter_id"] != command.transporter_id:
        return Refusal.VEHICLE_NOT_OWNED
    if vehicle["vehicle_type"] != vehicle_type:
        return Refusal.VEHICLE_TYPE_MISMATCH
    if vehicle_trip is not None:
        return Refusal.VEHICLE_BUSY
    if driver is None or driver["transporter_id"] != command.transporter_id:
        return Refusal.DRIVER_NOT_OWNED
    if driver_trip is not None:
        return Refusal.DRIVER_BUSY
    return None


_TAKEN = Refused(Refusal.REQUEST_ALREADY_TAKEN, {"remaining_requests": 0})


def _busy(error: asyncpg.UniqueViolationError) -> Refused:
    """Somebody else's trip with this vehicle or driver began in that moment."""
    return Refused(Refusal.DRIVER_BUSY if error.constraint_name == "trips_active_driver" else Refusal.VEHICLE_BUSY)


def _won(broadcast_id: BroadcastId, open_trucks: int) -> Done:
    request = request_id(broadcast_id, 1)
    return Done(
        {
            "broadcast_id": broadcast_id,
            "request_id": request,
            "assignment_id": assignment_id(request),
            "trip_id": trip_id(request),
            "status": "partially_filled" if open_trucks else "fully_filled",
            "remaining_requests": open_trucks,
        }
    )
