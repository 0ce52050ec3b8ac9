"""Taking broadcasts over. A database has one process at a time, so orphans are what its earlier starts have left."""

import sqlite3
from collections.abc import Collection, Sequence

import orjson

from haulcast.domain.ids import BroadcastId, TenantId
from haulcast.domain.rendezvous import heir
from haulcast.ports import Claim, Stored

from . import queries, reads
from .database import transaction


def claim(connection: sqlite3.Connection, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
    """Claim those that are still at the epoch of their claim."""
    with transaction(connection):
        claimed = [_claim(connection, one, incarnation) for one in claims]
        return [one for one in claimed if one is not None]


def claim_orphans(
    connection: sqlite3.Connection,
    incarnation: int,
    alive: Collection[int],
    limit: int,
    share: bool,
    overdue_before_ms: int | None,
) -> list[Stored]:
    """Claim what is live and due soonest of the dead's, or of anybody's if it is overdue."""
    parameters = {
        "owner": incarnation,
        "alive": orjson.dumps(sorted(alive)).decode(),
        "overdue_before_ms": overdue_before_ms,
    }
    with transaction(connection):
        orphans: list[tuple[TenantId, BroadcastId, int]] = [
            orphan
            for orphan in connection.execute(queries.ORPHANS, parameters)
            if not share or heir(orphan[1], alive) == incarnation
        ]
        claimed = [_claim(connection, Claim(*orphan), incarnation) for orphan in orphans[:limit]]
        return [one for one in claimed if one is not None]


def _claim(connection: sqlite3.Connection, one: Claim, incarnation: int) -> Stored | None:
    parameters = {
        "tenant_id": one.tenant_id,
        "broadcast_id": one.broadcast_id,
        "epoch": one.epoch,
        "owner": incarnation,
    }
    rows = connection.execute(queries.CLAIM, parameters).fetchall()
    return reads.stored(connection, *rows[0]) if rows else None
