"""`haulcast demo`: start a server or a cluster, let the city live on it, drain, look for leaks, stop, and have the run
judged.

The first Ctrl-C, SIGTERM or SIGHUP ends the run early: customers take back what is live, and the run is judged as
ever. The second one only stops the server.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from math import ceil
from typing import Any

import aiohttp
import uvloop
from rich.console import Console

from haulcast import config
from haulcast.config import Config
from haulcast.errors import ConfigError

from .chaos import Chaos
from .checker import check
from .city import City
from .control import Operator
from .failover import Failover, Figures
from .process import ServerFailed
from .record import Recorder
from .result import Result
from .screen import Screen, console_url, show_console
from .server import Cluster, Server, cluster, embedded_server
from .town import Board, Town

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run; the last one comes when the terminal is closed."""
LONGEST_EXPIRY_S = 40
WAVE_INTERVAL_S = 4
"""Shorter than the 15 s that tenants have by default, so that a short run shows waves grow."""
SETTLE_WITHIN_S = 15.0
"""How long the server may take to let go of what nobody uses any more; an actor stays for some seconds."""
TOLD_EVERY_S = 5.0
DATA = "demo"
"""Where in the data directory the demo keeps its own, apart from what any other server has there."""
LEAKY = ("actors", "timers", "tasks")
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def run_demo(args: argparse.Namespace) -> int:
    """Run the demo. 0: everything held; 1: an invariant broke, something leaked, or the server failed."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(_demo(args))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("haulcast demo: interrupted, nothing was checked", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ServerFailed, BaseExceptionGroup) as error:
        print(f"haulcast demo: {_server_failure(error)}", file=sys.stderr)
        return EXIT_FAILED
    print(json.dumps(result.plain()) if args.json else "\n".join(result.lines()))
    return 0 if result.fine else EXIT_FAILED


async def _demo(args: argparse.Namespace) -> Result:
    settings = config.load()
    if settings.environment is config.Environment.PRODUCTION:
        raise ConfigError("the demo signs its own tokens, which production does not let it: unset HAULCAST_ENV")
    if args.chaos and not args.cluster:
        raise ConfigError("--chaos is for several nodes: give --cluster too")
    settings = replace(settings, data_dir=settings.data_dir / DATA)
    tenant = time.strftime("demo-%Y%m%d-%H%M%S")
    longest_expiry_s = LONGEST_EXPIRY_S if args.seconds is None else min(LONGEST_EXPIRY_S, ceil(args.seconds))
    city = City(args.seed, args.transporters, args.customers, longest_expiry_s)
    recorder, board, town = Recorder(), Board(), Town(city)
    with _signals(town):
        async with _server(args, settings, tenant) as server:
            await server.create_tenant({"wave_interval_s": WAVE_INTERVAL_S})
            await server.import_fleet(city.companies)
            before = await server.counts()
            async with _shown(args.json, server, town, board, recorder), asyncio.TaskGroup() as run:
                chaos = run.create_task(_chaos(args, server, city, town.stopping))
                control = run.create_task(_control(args, server, town, recorder))
                await town.live(server, recorder, board, args.seconds)
                await control
                measured = await chaos
                leaks = await _leaks(server, before)
            now_ms = time.time_ns() // 1_000_000
            await server.stop()
            kept = await server.kept()
    records = recorder.plain()
    result = Result(check(records, kept, now_ms), recorder, leaks, measured)
    if not result.fine:
        _keep(records, server)
    return result


async def _chaos(
    args: argparse.Namespace, server: Server, city: City, stopping: asyncio.Event
) -> Mapping[str, Figures]:
    """Let it rage if it is asked for; what was measured of it."""
    if not args.chaos or not isinstance(server, Cluster):
        return {}
    return await Chaos(server, city.source("chaos"), Failover(server) if args.json else None).rage(stopping)


async def _control(args: argparse.Namespace, server: Server, town: Town, recorder: Recorder) -> None:
    """Have an operator at work if one is asked for."""
    if args.control:
        async with aiohttp.ClientSession() as http:
            await Operator(server, recorder, http).work(town.begun, town.stopping)


def _server(args: argparse.Namespace, settings: Config, tenant: str) -> AbstractAsyncContextManager[Server]:
    port = args.port or (settings.port if os.environ.get("HAULCAST_PORT") else None)
    if args.cluster:
        return cluster(settings, tenant, port, args.cluster)
    return embedded_server(settings, tenant, port)


@contextmanager
def _signals(town: Town) -> Iterator[None]:
    """The first signal stops the town, a second one everything."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None

    def stop() -> None:
        if town.hurry.is_set():
            main.cancel()
        town.stopping.set()
        town.hurry.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _shown(as_json: bool, server: Server, town: Town, board: Board, recorder: Recorder) -> AsyncIterator[None]:
    """Show the run while the block lasts: on a screen, or as lines where there is none."""
    console = Console()
    if as_json or not console.is_terminal:
        urls = " ".join(node.url for node in server.nodes)
        print(f"server {urls}, tenant {server.tenant}, log {server.log_path}", flush=True)
        if not as_json:  # with a token in it, which has no business in a result
            print(f"console {console_url(server)}", flush=True)
        showing = asyncio.create_task(_tell(town, recorder))
    else:
        above = show_console(console, console_url(server))
        showing = asyncio.create_task(Screen(console, server, town, board, recorder, above).show())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait([showing])


async def _tell(town: Town, recorder: Recorder) -> None:
    while True:
        await asyncio.sleep(TOLD_EVERY_S)
        offers, won, lost = recorder.offers_delivered, recorder.accepts_won, recorder.accepts_lost
        print(f"{town.phase}: {offers} offers delivered, {won} accepts won, {lost} lost", flush=True)


async def _leaks(server: Server, before: Mapping[str, Any]) -> dict[str, int]:
    """What the server still has more of than before, once it has had time to let go."""
    deadline = time.monotonic() + SETTLE_WITHIN_S
    while True:
        now = await server.counts()
        leaks = {what: max(0, now[what] - before[what]) for what in LEAKY}
        if not any(leaks.values()) or time.monotonic() >= deadline:
            return leaks
        await asyncio.sleep(0.2)


def _keep(records: list[dict[str, Any]], server: Server) -> None:
    """Leave what is needed to find out what went wrong."""
    path = server.log_path.with_suffix(".records.jsonl")
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"haulcast demo: the server's log is {server.log_path}, what its clients saw is {path}", file=sys.stderr)


def _server_failure(error: BaseException) -> BaseException:
    """The `ServerFailed` in what was raised; anything else is a bug of the demo and raised again."""
    inner: BaseException | None = error
    while isinstance(inner, BaseExceptionGroup):
        found = inner.subgroup(ServerFailed)
        inner = None if found is None else found.exceptions[0]
    if not isinstance(inner, ServerFailed):
        raise error
    return inner
