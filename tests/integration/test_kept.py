"""What the checker is given of a cluster's journal: the same as of the embedded one, in the order of commits."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from haulcast.demo.kept import PostgresTables
from tests.databases import migrated_database

TENANT = "demo-1"


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """An empty journal."""
    with migrated_database(postgres_url) as url:
        yield url


@pytest.fixture
async def writer(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may write whatever it likes."""
    writer = await asyncpg.connect(database, server_settings={"search_path": "haulcast"})
    yield writer
    await writer.close()


async def insert(writer: asyncpg.Connection, table: str, **row: Any) -> None:
    row = {"tenant_id": TENANT, **row}
    marks = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await writer.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", *row.values())


async def insert_event(writer: asyncpg.Connection, broadcast_id: str, seq: int, name: str) -> None:
    await insert(
        writer, "events", broadcast_id=broadcast_id, seq=seq, name=name, body=json.dumps({"at_ms": 5}), write_id="w"
    )


async def insert_broadcast(writer: asyncpg.Connection, broadcast_id: str, **more: Any) -> None:
    row = {"customer_id": f"c-{broadcast_id}", "status": "searching", "created_at_ms": 1, "expires_at_ms": 9, "seq": 1}
    row |= {"ended_at_ms": None, "epoch": 1, "owner": 7, "state": "{}"}
    await insert(writer, "broadcasts", broadcast_id=broadcast_id, **{**row, **more})


async def test_events_come_in_the_order_in_which_they_were_committed(database: str, writer: asyncpg.Connection) -> None:
    """Not in that in which they were written: a transaction that began first may end last."""
    slow = await asyncpg.connect(database, server_settings={"search_path": "haulcast"})
    try:
        async with slow.transaction():
            await insert_event(slow, "b1", 1, "created")
            await insert_event(writer, "b3", 1, "created")
            await insert_event(writer, "b2", 1, "created")
        await insert_event(writer, "b1", 2, "expired")
    finally:
        await slow.close()
    async with PostgresTables.opened(database) as tables:
        kept = await tables.kept(TENANT)
    assert [(event.broadcast_id, event.seq) for event in kept.events] == [("b3", 1), ("b2", 1), ("b1", 1), ("b1", 2)]
    assert kept.events[0].body == {"at_ms": 5}


async def test_rows_are_decoded_and_of_one_tenant(database: str, writer: asyncpg.Connection) -> None:
    await insert_broadcast(writer, "b1", state=json.dumps({"end_reason": "filled"}), ended_at_ms=5)
    await insert_broadcast(writer, "b2")
    await insert_broadcast(writer, "b3", tenant_id="another")
    reply = {
        "role": "transporter",
        "user_id": "t1",
        "request_id": "r1",
        "fingerprint": "f",
        "at_ms": 1,
        "write_id": "w",
    }
    await insert(writer, "request_log", reply=json.dumps({"done": {"trip_id": "x"}}), **reply)
    await insert(writer, "request_log", reply="{}", **{**reply, "role": "customer"})
    async with PostgresTables.opened(database) as tables:
        kept = await tables.kept(TENANT)
        owners = await tables.owners(TENANT)
    assert [(row["broadcast_id"], row["end_reason"]) for row in kept.broadcasts] == [("b1", "filled"), ("b2", None)]
    assert [row["reply"] for row in kept.replies] == [{"done": {"trip_id": "x"}}]
    assert owners == {"b2": 7}
