"""Measures what it costs to keep broadcasts that nothing happens to: commands to Redis per second.

One node in this process, over a private Postgres and Redis. It is asked for broadcasts of as many customers, far from
any vehicle, whose only wave has gone out and who expire in an hour; then nothing is done for a while, and the commands
that the node sends are counted. A lease belongs to the node, so the figure must be the same for any number.

    python -m bench.leases [--broadcasts 100 10000] [--seconds 10]
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from haulcast import log
from haulcast.app import Node
from haulcast.config import load
from haulcast.demo.stores import PrivatePostgres, PrivateRedis
from haulcast.domain.broadcast import Place
from haulcast.domain.commands import Create, TruckSpec
from haulcast.domain.ids import BroadcastId, CustomerId, TenantId
from haulcast.domain.replies import Reply
from haulcast.domain.settings import TenantSettings
from haulcast.ports import Origin, RequestKey, Role
from haulcast.storage.postgres import PostgresJournal

TENANT = TenantId("bench")
SEA = Place(0.0, -30.0)
SETTLED_BELOW_PER_S = 50
AT_ONCE = 500


async def measure(database_url: str, redis_url: str, numbers: list[int], seconds: float) -> None:
    """Print a line for each number of broadcasts, in rising order."""
    journal = await PostgresJournal.open(database_url)
    await journal.create_tenant(TENANT, TenantSettings(wave_radii_km=(1.0,)))
    await journal.close()
    environ = {"HAULCAST_PORT": "0", "HAULCAST_DATABASE_URL": database_url, "HAULCAST_REDIS_URL": redis_url}
    node = await Node.start(load(environ))
    try:
        have = 0
        for number in sorted(numbers):
            for start in range(have, number, AT_ONCE):
                await asyncio.gather(*(create(node, n) for n in range(start, min(start + AT_ONCE, number))))
            have = number
            await settled(node)
            before, started_s = commands(node), asyncio.get_running_loop().time()
            await asyncio.sleep(seconds)
            per_s = (commands(node) - before) / (asyncio.get_running_loop().time() - started_s)
            print(f"{len(node.dispatch.registry):>6} idle broadcasts: {per_s:6.1f} commands to Redis per second")
    finally:
        await node.stop()


async def settled(node: Node) -> None:
    """Wait until every first wave has gone out."""
    while True:
        before = commands(node)
        await asyncio.sleep(1)
        if commands(node) - before < SETTLED_BELOW_PER_S:
            return


def commands(node: Node) -> float:
    """How many commands it has sent to Redis so far."""
    value = node.metrics.registry.get_sample_value("haulcast_redis_commands_total")
    assert value is not None
    return value


def create(node: Node, number: int) -> "asyncio.Future[Reply]":
    """One broadcast of a customer of its own."""
    command = Create(
        TENANT, BroadcastId(f"b{number}"), CustomerId(f"c{number}"), SEA, SEA, (TruckSpec("mini", 1),), 3_600
    )
    origin = Origin(RequestKey(TENANT, Role.CUSTOMER, command.customer_id, "r1"), "f")
    return node.dispatch.dispatcher.create(command, origin)


def main() -> None:
    """Parse the command line, start the stores, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broadcasts", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    log.configure("warning")
    with tempfile.TemporaryDirectory() as directory:
        postgres, redis = PrivatePostgres(Path(directory)), PrivateRedis(Path(directory))
        try:
            postgres.start()
            redis.start()
            asyncio.run(measure(postgres.url, redis.url, arguments.broadcasts, arguments.seconds))
        finally:
            redis.stop()
            postgres.stop()


if __name__ == "__main__":
    main()
