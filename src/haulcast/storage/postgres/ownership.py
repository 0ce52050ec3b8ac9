"""Who owns which broadcast, and which nodes have been given up."""

from collections.abc import Collection, Sequence

from haulcast.ports import Claim, Stored

from . import queries, reads
from .connections import Link


async def next_incarnation(link: Link) -> int:
    (row,) = await link.fetch(queries.NEXT_INCARNATION)
    incarnation: int = row["incarnation"]
    return incarnation


async def mark_lost(link: Link, incarnation: int) -> None:
    await link.fetch(queries.MARK_LOST, incarnation)


async def is_lost(link: Link, incarnation: int) -> bool:
    (row,) = await link.fetch(queries.LOST, incarnation)
    lost: bool = row["lost"]
    return lost


async def list_owned(link: Link, incarnation: int) -> list[Claim]:
    rows = await link.fetch(queries.OWNED, incarnation)
    return [Claim(row["tenant_id"], row["broadcast_id"], row["epoch"]) for row in rows]


async def claim(link: Link, claims: Sequence[Claim], incarnation: int) -> list[Stored]:
    """In the order of the claims. A single one that cannot be read is an error for whoever needs it."""
    if not claims:
        return []
    rows = await link.fetch(
        queries.CLAIM,
        [claim.tenant_id for claim in claims],
        [claim.broadcast_id for claim in claims],
        [claim.epoch for claim in claims],
        incarnation,
    )
    return await reads.with_offers(link, sorted(rows, key=lambda row: int(row["n"])), all_or_none=len(claims) == 1)


async def claim_orphans(
    link: Link, incarnation: int, alive: Collection[int], limit: int, share: bool, overdue_before_ms: int | None
) -> list[Stored]:
    """Those due soonest first."""
    rows = await link.fetch(queries.CLAIM_ORPHANS, incarnation, list(alive), limit, share, overdue_before_ms)
    rows.sort(key=lambda row: (row["next_deadline_at_ms"], row["tenant_id"], row["broadcast_id"]))
    return await reads.with_offers(link, rows, all_or_none=False)
