"""What the city lives on: one embedded server, or the nodes of a cluster over a Postgres and a Redis of their own.

Phones know one name, `SERVICE`, as they would in the world, where a load balancer stands behind it. Here it leads to
the nodes in turn; who finds that one does not answer tries the next.
"""

import asyncio
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from haulcast.config import Config
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing

from .city import NOWHERE, Company
from .evidence import Kept
from .kept import PostgresTables, kept_in_sqlite
from .process import Process, ServerFailed
from .stores import PrivatePostgres, PrivateRedis, StoreFailed, free_port

S = TypeVar("S", bound="Server")

SERVICE = "http://haulcast"
TOKEN_LIFETIME_S = 7 * 86_400
IMPORTS_AT_ONCE = 8
_NOT_INHERITED = ("HAULCAST_DATABASE_URL", "HAULCAST_REDIS_URL", "HAULCAST_NODE_PORT")


class Server:
    """Running nodes, as their clients and their operator see them."""

    def __init__(self, config: Config, tenant: str, nodes: Sequence[Process]) -> None:
        self.tenant = tenant
        self.nodes = nodes
        self._keys = KeyRing(config.keys, config.audience)

    @property
    def url(self) -> str:
        """The address of a node that runs."""
        return next((node.url for node in self.nodes if node.running), self.nodes[0].url)

    @property
    def log_path(self) -> Path:
        """The log of the first node; those of the others are beside it."""
        return self.nodes[0].log_path

    def session(self, headers: Mapping[str, str] | None = None) -> aiohttp.ClientSession:
        """What reaches the nodes at `SERVICE`. Without aiohttp's bound of 100 connections."""
        connector = aiohttp.TCPConnector(limit=0, resolver=_InTurn(self.nodes), use_dns_cache=False)
        return aiohttp.ClientSession(connector=connector, headers=headers)

    def token(self, role: Role, user: str, tenant: str | None = None) -> str:
        """A token, of the demo's tenant unless another is named."""
        now_ms = time.time_ns() // 1_000_000
        return self._keys.sign(
            tenant=tenant or self.tenant, role=role, user=user, now_ms=now_ms, lifetime_s=TOKEN_LIFETIME_S
        )

    async def ended(self) -> None:
        """Wait until a node has ended by itself, and raise `ServerFailed`."""
        async with asyncio.TaskGroup() as watches:
            for node in self.nodes:
                watches.create_task(node.died())

    async def counts(self) -> Mapping[str, int]:
        """The figures in all nodes' `/health/detailed`, added up."""
        total: Counter[str] = Counter()
        for node in self.nodes:
            if node.running:
                total.update({name: value for name, value in (await node.detailed()).items() if type(value) is int})
        return total

    async def create_tenant(self, settings: Mapping[str, object], tenant: str | None = None) -> None:
        """Bring a tenant, the demo's unless another is named, into being with settings of its own, as an admin."""
        url = f"{SERVICE}/v1/tenants/{tenant or self.tenant}"
        async with self.session(headers=self._bearer(Role.ADMIN)) as http:
            await self._call(http, "PUT", url, {"settings": settings})

    async def import_fleet(self, companies: Iterable[Company]) -> None:
        """Make the companies known, through the REST API."""
        limit = asyncio.Semaphore(IMPORTS_AT_ONCE)

        async def import_company(http: aiohttp.ClientSession, company: Company) -> None:
            owner = {"transporter_id": company.transporter_id}
            fleet = f"{SERVICE}/v1/fleet"
            async with limit:
                await self._call(http, "PUT", f"{fleet}/transporters/{company.transporter_id}", {"name": company.name})
                for truck in company.trucks:
                    vehicle = {**owner, "vehicle_type": truck.vehicle_type}
                    await self._call(http, "PUT", f"{fleet}/vehicles/{truck.vehicle_id}", vehicle)
                for driver in company.drivers:
                    await self._call(http, "PUT", f"{fleet}/drivers/{driver}", owner)

        async with self.session(headers=self._bearer(Role.OPERATOR)) as http, asyncio.TaskGroup() as imports:
            for company in companies:
                imports.create_task(import_company(http, company))

    async def start(self) -> None:
        """Start all nodes. Raises `ServerFailed`."""
        async with asyncio.TaskGroup() as starts:
            for node in self.nodes:
                starts.create_task(node.start())

    async def stop(self) -> None:
        """Stop all nodes. Raises `ServerFailed` if one does not stop as it should."""
        codes = await asyncio.gather(*(node.stop() for node in self.nodes))
        for node, code in zip(self.nodes, codes, strict=True):
            if code:
                raise ServerFailed(f"the server has stopped with {code} instead of 0; its log is {node.log_path}")

    async def kept(self) -> Kept:
        """What the journal kept of the demo's tenant."""
        raise NotImplementedError

    def _bearer(self, role: Role, user: str = "demo", tenant: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(role, user, tenant)}"}

    async def _call(
        self,
        http: aiohttp.ClientSession,
        method: str,
        url: str,
        body: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
    ) -> Mapping[str, str]:
        """What is answered, which must be that it is done."""
        async with http.request(method, url, json=body, headers=headers) as response:
            if response.status not in (200, 201):
                raise self.nodes[0].failed(f"{method} {url} was answered {await response.text()}")
            answer: Mapping[str, str] = await response.json()
            return answer


class Embedded(Server):
    """One node with a journal of its own."""

    def __init__(self, config: Config, tenant: str, node: Process) -> None:
        super().__init__(config, tenant, [node])
        self._journal_path = config.journal_path

    async def kept(self) -> Kept:
        """See `Server`."""
        return await asyncio.to_thread(kept_in_sqlite, self._journal_path, self.tenant)


class Cluster(Server):
    """Nodes that share a journal."""

    def __init__(self, config: Config, tenant: str, nodes: Sequence[Process], postgres_url: str) -> None:
        super().__init__(config, tenant, nodes)
        self._postgres_url = postgres_url

    def tables(self) -> AbstractAsyncContextManager[PostgresTables]:
        """The journal's tables, while the block lasts."""
        return PostgresTables.opened(self._postgres_url)

    async def start(self) -> None:
        """See `Server`. Then each node does a bit of everything in a tenant of its own: what a node starts when it is
        first needed, and keeps, is not to look like a leak."""
        await super().start()
        tenant = f"{self.tenant}-start"
        operator = self._bearer(Role.OPERATOR, tenant=tenant)
        transporter = self._bearer(Role.TRANSPORTER, "t1", tenant)
        place = {"lat": NOWHERE.lat, "lng": NOWHERE.lng}
        haul = {"pickup": place, "drop": place, "trucks": [{"vehicle_type": "mini", "count": 1}]}
        truck = {"transporter_id": "t1", "vehicle_type": "mini"}
        async with aiohttp.ClientSession() as http:
            await self._call(http, "PUT", f"{self.url}/v1/fleet/transporters/t1", {"name": ""}, operator)
            await self._call(http, "PUT", f"{self.url}/v1/fleet/vehicles/v1", truck, operator)
            for number, node in enumerate(self.nodes):
                customer = self._bearer(Role.CUSTOMER, f"c{number}", tenant)
                once = {**customer, "Idempotency-Key": "create"}
                created = await self._call(http, "POST", f"{node.url}/v1/broadcasts", haul, once)
                elsewhere = f"{self.nodes[number - 1].url}/v1/broadcasts/{created['broadcast_id']}"
                await self._call(http, "POST", f"{elsewhere}/cancel", {}, {**customer, "Idempotency-Key": "cancel"})
                await self._call(http, "POST", f"{node.url}/v1/location", {"vehicle_id": "v1", **place}, transporter)

    async def kept(self) -> Kept:
        """See `Server`."""
        async with self.tables() as tables:
            return await tables.kept(self.tenant)


class _InTurn(AbstractResolver):
    """Resolves every name to all nodes, beginning with another one each time."""

    def __init__(self, nodes: Sequence[Process]) -> None:
        self._nodes = nodes
        self._turns = count()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver`."""
        first = next(self._turns) % len(self._nodes)
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=node.port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for node in (*self._nodes[first:], *self._nodes[:first])
        ]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def embedded_server(config: Config, tenant: str, port: int | None) -> AsyncIterator[Server]:
    """One server on the embedded journal, ready, until the block ends. Without `port` it takes a free one."""
    config = replace(config, database_url=None, redis_url=None)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    environ = _environ(HAULCAST_DATA_DIR=str(config.data_dir))
    node = Process(port or free_port(), config.data_dir / f"{tenant}.log", environ)
    async with _running(Embedded(config, tenant, node)) as server:
        yield server


@asynccontextmanager
async def cluster(config: Config, tenant: str, port: int | None, nodes: int) -> AsyncIterator[Cluster]:
    """So many nodes, ready, with their stores, until the block ends. Without `port` they take free ones.

    Their journal is in a temporary directory. Raises `ServerFailed`, also if a store is missing.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="haulcast-cluster-") as directory:
        postgres, redis = PrivatePostgres(Path(directory)), PrivateRedis(Path(directory))
        try:
            try:
                await asyncio.to_thread(postgres.start)
                await asyncio.to_thread(redis.start)
            except StoreFailed as error:
                raise ServerFailed(str(error)) from None
            environ = _environ(HAULCAST_DATABASE_URL=postgres.url, HAULCAST_REDIS_URL=redis.url)
            processes = [
                Process(
                    port + number - 1 if port else free_port(), config.data_dir / f"{tenant}-node{number}.log", environ
                )
                for number in range(1, nodes + 1)
            ]
            async with _running(Cluster(config, tenant, processes, postgres.url)) as server:
                yield server
        finally:
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(postgres.kill)


@asynccontextmanager
async def _running(server: S) -> AsyncIterator[S]:
    try:
        await server.start()
        yield server
    finally:
        await asyncio.gather(*(node.stop() for node in server.nodes))


def _environ(**settings: str) -> Mapping[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return {**inherited, **settings}
