"""The ways of trucks to their pickup on the board, from a routing server that may fail or hang: B2 and B6."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from haulcast.app import Node
from haulcast.config import load
from haulcast.transport import collector
from tests.acceptance.network import TRUCK, Network, accept_of, haul, north_of_pickup, offered
from tests.acceptance.phone import Json, Phone, eventually

METRES_PER_ORIGIN = 1_000


class Osrm:
    """A routing server: the n-th origin is n km away, and a kilometre takes a minute. `status` 0: it never answers."""

    def __init__(self) -> None:
        self.status = 200
        self.waiting = 0
        self.url = ""
        self._released = asyncio.Event()

    async def table(self, request: web.Request) -> web.Response:
        """GET /table/v1/driving/..."""
        origins = request.match_info["places"].count(";")
        assert request.query["destinations"] == "0"
        assert request.query["sources"] == ";".join(str(number + 1) for number in range(origins))
        if self.status == 0:
            self.waiting += 1
            try:
                await self._released.wait()
            finally:
                self.waiting -= 1
        if self.status != 200:
            return web.json_response({"code": "NoTable", "message": "as this test wants it"}, status=self.status or 503)
        rows = [[60.0 * (number + 1)] for number in range(origins)]
        return web.json_response(
            {"code": "Ok", "durations": rows, "distances": [[METRES_PER_ORIGIN * row[0] / 60] for row in rows]}
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Until the context ends, which lets go whoever still waits."""
        app = web.Application()
        app.router.add_get("/table/v1/driving/{places}", self.table)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield
        finally:
            self._released.set()
            await runner.cleanup()


@pytest.fixture
async def osrm() -> AsyncIterator[Osrm]:
    osrm = Osrm()
    async with osrm.serving():
        yield osrm


@pytest.fixture
async def node(
    osrm: Osrm, tmp_path: Path, own_stores: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    """A node that asks that server, every now and then."""
    monkeypatch.setattr(collector, "CADENCE_S", 0.05)
    node = await Node.start(
        load({"HAULCAST_PORT": "0", "HAULCAST_DATA_DIR": str(tmp_path), "HAULCAST_OSRM_URL": osrm.url, **own_stores})
    )
    with capture_logs() as logs:
        yield node
        await node.stop()
    assert not [line for line in logs if line["log_level"] in ("error", "critical")]


@pytest.fixture
async def network(node: Node) -> AsyncIterator[Network]:
    async with Network(f"http://127.0.0.1:{node.port}", "acme") as network:
        yield network


def route_on(board: Json, broadcast_id: str) -> Json:
    """The route of a broadcast on a board; empty if there is none."""
    route: Json = board["broadcasts"].get(broadcast_id, {}).get("route", {})
    return route


def has_heard(operator: Phone, broadcast_id: str) -> bool:
    """Whether the board shows that the broadcast was offered to somebody."""
    entry: Json = operator.state("board:acme")["broadcasts"].get(broadcast_id, {})
    return bool(entry.get("notified"))


async def watching(network: Network) -> tuple[Phone, Callable[[str], Json]]:
    """An operator at the board, and what it says of the route of a broadcast."""
    operator = await network.phone("operator", "op")
    await operator.do("subscribe", {"topic": "board:acme"})
    return operator, lambda broadcast_id: route_on(operator.state("board:acme"), broadcast_id)


def failed(node: Node, reason: str) -> float:
    value = node.metrics.registry.get_sample_value("haulcast_routes_failed_total", {"reason": reason})
    assert value is not None
    return value


async def test_operators_see_ways_by_road_and_when_they_cannot_be_found(
    node: Node, network: Network, osrm: Osrm
) -> None:
    """B2, B6: the ways come and go beside what the owner says; a source that fails shows, with what was known; and with
    the end of the broadcast they go. Nobody but operators sees them."""
    operator, route = await watching(network)
    customer, transporter = await network.phone("customer", "c1"), await network.transporter("t1", km=2)
    id_ = (await customer.do("broadcast.create", haul({TRUCK: 2})))["broadcast_id"]
    await offered(id_, transporter)
    await eventually(lambda: route(id_))
    good: dict[str, Any] = route(id_)
    assert (good["status"], good["source"]) == ("ok", "road")
    assert {**good["vehicles"]["t1-v"], "lat": 0, "lng": 0} == {
        "transporter_id": "t1",
        "lat": 0,
        "lng": 0,
        "distance_m": METRES_PER_ORIGIN,
        "duration_s": 60,
    }

    osrm.status = 503
    lat, lng = north_of_pickup(3)
    await transporter.do("location", {"vehicle_id": "t1-v", "lat": lat, "lng": lng})
    await eventually(lambda: route(id_).get("status") == "failing")
    assert route(id_) == {**good, "status": "failing", "reason": "unavailable"}
    await eventually(lambda: failed(node, "unavailable") > 1)
    await transporter.do("offer.accept", accept_of("t1", id_))
    await eventually(lambda: operator.state("board:acme")["broadcasts"][id_]["status"] == "partially_filled")
    assert route(id_)["vehicles"] == good["vehicles"]

    osrm.status = 200
    await eventually(lambda: route(id_).get("status") == "ok")
    assert route(id_)["vehicles"]["t1-v"]["lat"] > good["vehicles"]["t1-v"]["lat"]
    await customer.do("broadcast.cancel", {"broadcast_id": id_})
    await eventually(lambda: not route(id_))
    assert operator.state("board:acme")["broadcasts"][id_]["status"] == "cancelled"
    assert "route" not in customer.state(f"broadcast:{id_}")


async def test_a_routing_server_that_hangs_delays_no_event_and_no_stop(
    node: Node, network: Network, osrm: Osrm
) -> None:
    """B6: while questions hang, offers, replies and the board go on, and the node stops without waiting for them."""
    osrm.status = 0
    operator, route = await watching(network)
    transporter = await network.transporter("t1", km=2)
    customers = [await network.phone("customer", f"c{number}") for number in range(10)]
    hung_from_the_start = True
    for customer in customers:
        id_ = (await customer.do("broadcast.create", haul()))["broadcast_id"]
        await offered(id_, transporter)
        await eventually(partial(has_heard, operator, id_), "the board shows the offer")
        if customer is customers[0]:
            await eventually(lambda: osrm.waiting)
        hung_from_the_start &= osrm.waiting > 0 or failed(node, "timeout") > 0
    assert hung_from_the_start
    await eventually(lambda: any(route(id_).get("reason") == "timeout" for id_ in transporter.offers))
    await eventually(lambda: osrm.waiting)
    async with asyncio.timeout(10):
        await node.stop()
    assert failed(node, "timeout") > 0
