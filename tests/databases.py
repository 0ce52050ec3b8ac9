"""Postgres databases for tests, on the server that the fixture `postgres_url` gives."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from os import getpid
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from haulcast.storage.postgres import migrate

T = TypeVar("T")

_numbers = count(1)


def blocking(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, for fixtures of a session, which may be set up while the loop of a test runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def renamed(url: str, database: str, *, user: str | None = None, password: str | None = None) -> str:
    """The same address with another database, and another user if one is given."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    if user is not None:
        credentials = f"{user}:{password}"
    return urlunsplit(parts._replace(netloc=f"{credentials}@{host}", path=f"/{database}"))


@asynccontextmanager
async def admin(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection as the address says, in haulcast's schema."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "haulcast"})
    try:
        yield connection
    finally:
        connection.terminate()


async def create_database(url: str, *, owner: str | None = None) -> str:
    """The address of a new, empty database on the server, which belongs to the user of `url` or to `owner`."""
    name = f"haulcast_test_{getpid()}_{next(_numbers)}"
    async with admin(url) as connection:
        await connection.execute(f"CREATE DATABASE {name}" + (f" OWNER {owner}" if owner else ""))
    return renamed(url, name)


async def drop_database(url: str) -> None:
    """Whoever is connected to it is disconnected."""
    name = urlsplit(url).path[1:]
    async with admin(renamed(url, "postgres")) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def migrated_database(url: str) -> Iterator[str]:
    """The address of a new database with haulcast's schema."""

    async def migrated() -> str:
        made = await create_database(url)
        await migrate(made)
        return made

    made = blocking(migrated())
    try:
        yield made
    finally:
        blocking(drop_database(made))


async def empty(url: str) -> None:
    """Delete every row of a migrated database, but keep the schema."""
    async with admin(url) as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'haulcast'::regnamespace"
            " AND relname NOT IN ('alembic_version', 'compatibility')"
        )
        await connection.execute(f"TRUNCATE {', '.join(row['relname'] for row in tables)}")
