"""Stopping as planned, refusing to start, and what an operator can see: D2, D4 and D6, with A4 for those cut short."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from math import nan
from pathlib import Path

import pytest

from haulcast import app
from haulcast.app import Node
from haulcast.config import DEVELOPMENT_KEY, load
from haulcast.domain.ids import TenantId
from haulcast.errors import JournalUnavailable
from haulcast.transport.session import Limits
from tests.acceptance.books import Books
from tests.acceptance.deployment import Deployment
from tests.acceptance.network import TRUCK, Network, accept_of, haul, offered
from tests.acceptance.phone import Gone, Json, Phone, eventually, eventually_answered
from tests.acceptance.server import Server, run_to_its_end

RACERS = 60
STRONG = json.dumps([{"kid": "k1", "alg": "HS256", "secret": "a-secret-of-this-test-and-of-nothing-else"}])


async def test_a_planned_stop_answers_or_says_when_to_come_back(own_server: Server, deployment: Deployment) -> None:
    """D2, A4: at SIGTERM with commands in flight on many sockets, each command is answered, or its connection is closed
    by 4200 with `retry_in_s` and the same id gets its answer from the next server, which goes on with the broadcasts.
    The process ends with 0; what was confirmed is in the journal, and what is in the journal was answered, unless the
    answer was on its way between two nodes that both stopped."""
    server = own_server
    await asyncio.to_thread(server.start)
    names = [f"t{number}" for number in range(RACERS)]
    async with Network(server.url, "acme") as network:
        await network.hire_many(server.journal, names)
        racers = await asyncio.gather(*(network.on_duty(name) for name in names))
        customers = [await network.phone("customer", f"c{number}") for number in range(3)]
        created = [await customer.do("broadcast.create", haul({TRUCK: 5})) for customer in customers]
        ids = [data["broadcast_id"] for data in created]
        for broadcast_id in ids:
            await offered(broadcast_id, *racers)
        asked = [(phone, broadcast_id) for broadcast_id in ids for phone in racers]
        half = len(asked) // 2
        replies = await send_all(asked[:half])
        server.terminate()
        replies += await send_all(asked[half:])
        while not any(phone.close_code for phone in racers):  # until the last moment, under new ids
            replies += await send_all([(phone, ids[0]) for phone in racers], f"late{len(replies)}-")
            await asyncio.sleep(0.02)  # as fast as a phone may ask
        answers = await asyncio.gather(*replies, return_exceptions=True)
        await asyncio.to_thread(server.ended)
        assert all(isinstance(answer, dict | Gone) for answer in answers)
        for phone in (*racers, *customers):
            code, reason = await phone.closed()
            assert code == 4200
            assert re.fullmatch(r"retry_in_s=\d+", reason)
        for answer in answers:
            if isinstance(answer, dict) and not answer["ok"]:
                assert answer["error"]["code"] in ("REQUEST_ALREADY_TAKEN", "VEHICLE_BUSY", "DRAINING")
                assert answer["error"]["retry"] == (answer["error"]["code"] == "DRAINING")

    books = Books(server.journal, "acme")
    first = {(phone.user, id_): answer for (phone, id_), answer in zip(asked, answers, strict=False)}
    confirmed = {answer["data"]["trip_id"] for answer in answers if isinstance(answer, dict) and answer["ok"]}
    carried_out = {assignment.trip_id for assignment in books.assignments()}
    assert confirmed <= carried_out
    if deployment is Deployment.EMBEDDED:
        unanswered = {asked for asked, answer in first.items() if isinstance(answer, Gone)}
        assert confirmed == carried_out
        assert not unanswered & books.replies().keys(), "what was carried out was answered"
    await asyncio.to_thread(server.start)
    async with Network(server.url, "acme") as network:
        for phone in await asyncio.gather(*(network.phone("transporter", name) for name in names)):
            for broadcast_id in ids:
                again = await phone.ask("offer.accept", accept_of(phone.user, broadcast_id), broadcast_id)
                before = first[phone.user, broadcast_id]
                assert again["ok"] or again["error"]["code"] in ("REQUEST_ALREADY_TAKEN", "VEHICLE_BUSY")
                if isinstance(before, dict) and (before["ok"] or not before["error"]["retry"]):
                    assert {**again, "re": None} == {**before, "re": None}
    assert sorted(books.statuses().values()) == ["fully_filled"] * 3
    await asyncio.to_thread(server.stop)


async def send_all(asked: list[tuple[Phone, str]], prefix: str = "") -> "list[asyncio.Future[Json]]":
    """Send an accept for each, in one turn of the loop; the replies to come."""
    return await asyncio.gather(
        *(phone.post("offer.accept", accept_of(phone.user, id_), f"{prefix}{id_}") for phone, id_ in asked)
    )


async def test_a_planned_stop_does_not_wait_for_whoever_keeps_coming(tmp_path: Path) -> None:
    """D2: clients that open one connection after the other, and answer no close, do not keep a server from ending."""
    config = load({"HAULCAST_PORT": "0", "HAULCAST_DATA_DIR": str(tmp_path)})
    node = await Node.start(config, limits=Limits(close_within_s=0.3))
    upgrade = (
        b"GET /v1/ws HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    opened: list[asyncio.StreamWriter] = []

    async def keep_coming() -> None:
        while True:
            with suppress(OSError):
                _reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
                writer.write(upgrade)
                opened.append(writer)
            await asyncio.sleep(0.05)  # often enough that there is always one

    coming = asyncio.create_task(keep_coming())
    try:
        while len(opened) < 5:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            await node.stop()
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        for writer in opened:
            writer.close()


def test_a_data_directory_has_one_server(server: Server) -> None:
    """D6: a second server on the same data says so, ends with 2, and leaves the first one alone."""
    second = run_to_its_end(HAULCAST_PORT="0", HAULCAST_DATA_DIR=str(server.data_dir))
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "is served by another process" in second.stderr
    assert str(server.data_dir) in second.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"HAULCAST_ENV": "production", "HAULCAST_ORIGINS": ""}, "HAULCAST_JWT_KEYS"),
        ({"HAULCAST_ENV": "production", "HAULCAST_JWT_KEYS": STRONG}, "HAULCAST_ORIGINS"),
        ({"HAULCAST_DATADIR": "/tmp"}, "HAULCAST_DATADIR"),
    ],
    ids=["development-key", "any-origin", "unknown-variable"],
)
def test_a_configuration_that_cannot_be_meant_is_refused(settings: dict[str, str], says: str) -> None:
    """D6: production without keys and origins of its own, or a setting that does not exist: exit code 2 and one line
    that names the variable to change, and no secret."""
    refused = run_to_its_end(**settings)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("haulcast: ")
    assert refused.stderr.count("\n") == 1
    assert says in refused.stderr
    assert "secret-of-this-test" not in refused.stderr
    assert DEVELOPMENT_KEY.material not in refused.stderr


def above(floor: float) -> Callable[[float], bool]:
    """More than `floor`."""
    return lambda value: value > floor


def exactly(expected: float) -> Callable[[float], bool]:
    """`expected` and nothing else."""
    return lambda value: value == expected


METRICS: dict[str, Callable[[float], bool]] = {
    "haulcast_ready": exactly(1),
    "haulcast_build_info": exactly(1),
    "haulcast_trucks_requested_total": exactly(2),
    "haulcast_trucks_assigned_total": exactly(1),
    "haulcast_broadcasts_ended_total": exactly(1),
    "haulcast_vehicles": exactly(2),
    "haulcast_transporters_online": exactly(2),
    "haulcast_decisions_total": exactly(4),
    "haulcast_gate_wait_seconds_count": above(3),
    "haulcast_commit_batch_writes_count": above(3),
    "haulcast_commit_latency_seconds_count": above(3),
    "haulcast_commit_failures_total": exactly(0),
    "haulcast_wave_offers_count": above(0),
    "haulcast_wave_offers_sum": exactly(2),
    "haulcast_timer_lateness_seconds_count": above(0),
    "haulcast_mailbox_depth_count": above(3),
    "haulcast_mailbox_full_total": exactly(0),
    "haulcast_actor_restarts_total": exactly(0),
    "haulcast_messages_quarantined_total": exactly(0),
    "haulcast_lookup_failures_total": exactly(0),
    "haulcast_commands_forwarded_total": exactly(0),
    "haulcast_commands_moved_total": exactly(0),
    "haulcast_control_seconds_count": exactly(0),
    "haulcast_control_unanswered_total": exactly(0),
    "haulcast_control_healed_total": exactly(0),
    "haulcast_nodes_lost_total": exactly(0),
    "haulcast_broadcasts_taken_over_total": exactly(0),
    "haulcast_broadcasts_handed_over_total": exactly(0),
    "haulcast_bus_datagrams_sent_total": exactly(0),
    "haulcast_bus_missed_total": exactly(0),
    "haulcast_bus_datagrams_dropped_total": exactly(0),
    "haulcast_redis_commands_total": exactly(0),
    "haulcast_peers": exactly(0),
    "haulcast_lease_left_seconds": above(0),
    "haulcast_connections": exactly(3),
    "haulcast_requests_total": above(8),
    "haulcast_request_latency_seconds_count": above(8),
    "haulcast_bad_frames_total": exactly(1),
    "haulcast_frames_sent_total": above(10),
    "haulcast_bytes_sent_total": above(1000),
    "haulcast_closes_total": exactly(1),
    "haulcast_slow_consumers_total": exactly(0),
    "haulcast_deliveries_total": exactly(2),
    "haulcast_board_broadcasts": exactly(0),
    "haulcast_board_drift_total": exactly(0),
    "haulcast_board_rejected_total": exactly(0),
    "haulcast_routes_failed_total": exactly(0),
    "haulcast_topics": exactly(2),
    "haulcast_actors": exactly(1),
    "haulcast_timers": exactly(1),
    "haulcast_tasks": above(3),
    "haulcast_loop_lag_seconds_count": above(0),
    "process_cpu_seconds_total": above(0),
    "process_resident_memory_bytes": above(10e6),
    "process_virtual_memory_bytes": above(10e6),
    "process_start_time_seconds": above(1.7e9),
    "process_open_fds": above(5),
    "process_max_fds": above(100),
}
"""Every metric, and what is sane for it, summed over its labels, after the story below."""


async def test_metrics_tell_what_has_happened(own_server: Server) -> None:
    """D4: every metric is there under its name, with the value that the traffic before leads to, and no other is."""
    server = own_server
    await asyncio.to_thread(server.start)
    async with Network(server.url, "acme") as network:
        await network.create_tenant(wave_radii_km=[10, 20], wave_interval_s=0.1)
        winner, loser = await network.transporter("t1"), await network.transporter("t2")
        customer, rude = await network.phone("customer", "c1"), await network.phone("customer", "c2")
        await rude.ws.send_bytes(b"")
        assert await rude.closed() == (4005, "text frames only")
        broadcast_id = (await customer.do("broadcast.create", haul({TRUCK: 2})))["broadcast_id"]
        await offered(broadcast_id, winner, loser)
        await eventually(lambda: customer.state(f"broadcast:{broadcast_id}")["wave"] == 2)
        won = await winner.do("offer.accept", accept_of("t1", broadcast_id))
        await winner.do("trip.update", {"trip_id": won["trip_id"], "status": "delivered"})
        assert (await loser.refused("no.such.request"))["code"] == "UNKNOWN_TYPE"
        await customer.do("broadcast.cancel", {"broadcast_id": broadcast_id})
        await eventually_answered(lambda: sampled(network), "what is sampled has been sampled")
        kinds, found = await metrics_of(network)
        wrong = {name: found.get(name) for name, sane in METRICS.items() if not sane(found.get(name, nan))}
        assert not wrong
        assert kinds == {re.sub(r"_(count|sum)$", "", name) for name in METRICS}
    await asyncio.to_thread(server.stop)


async def test_readiness_is_a_metric_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4: `haulcast_ready` is what `/health/ready` says, be it the journal, the lease or a stop that keeps the node
    from being ready. What concerns the journal it says as soon as the node has looked again."""
    monkeypatch.setattr(app, "_WATCH_EVERY_S", 0.01)
    node = await Node.start(load({"HAULCAST_PORT": "0", "HAULCAST_DATA_DIR": str(tmp_path)}))

    def gauge() -> float | None:
        return node.metrics.registry.get_sample_value("haulcast_ready")

    async def both_say(ready: bool) -> bool:
        assert await node.ready() == ready
        return gauge() == ready

    async def unavailable(_tenant_id: TenantId) -> None:
        raise JournalUnavailable("as this test wants it")

    try:
        assert gauge() == 1
        with monkeypatch.context() as broken:
            broken.setattr(node._journal, "read_tenant", unavailable)
            await eventually_answered(lambda: both_say(False), "the journal does not answer")
        await eventually_answered(lambda: both_say(True), "the journal answers again")
        for whose, name, value in ((node._membership, "_until_s", 0.0), (node, "_draining", True)):
            with monkeypatch.context() as broken:
                broken.setattr(whose, name, value)
                assert gauge() == 0, f"it holds no lease, or it stops: {name}"
        assert gauge() == 1
    finally:
        await node.stop()


async def sampled(network: Network) -> bool:
    """Whether what is sampled by the clock has been sampled."""
    _, found = await metrics_of(network)
    return found["haulcast_loop_lag_seconds_count"] > 0


async def metrics_of(network: Network) -> tuple[set[str], dict[str, float]]:
    """The names of all metrics that `/metrics` declares, and its samples, each summed over its labels."""
    async with network.session.get(f"{network.url}/metrics") as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    declared = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    values: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, value = line.partition("{")[0].partition(" ")[0], line.rpartition(" ")[2]
            values[name] = values.get(name, 0.0) + float(value)
    return {name for name in declared if not name.endswith("_created")}, values
