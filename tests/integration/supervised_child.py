"""Stands in for a node under the supervisor: listens where a node does, is ready, says who it is, and ends when told.

SIGUSR1 drains it: it ends by itself, as if an admin had asked for that. With the argument `stubborn` it does not end
when told; with `lame` it is never ready if the file LAME exists.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import web


async def main(stubborn: bool, is_lame: Callable[[], bool]) -> None:
    """Listen on both ports until SIGTERM."""
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, (lambda: None) if stubborn else ending.set)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ending.set)

    async def ready(_: web.Request) -> web.Response:
        return web.Response(status=503 if is_lame() else 200)

    async def pid(_: web.Request) -> web.Response:
        return web.Response(text=str(os.getpid()), headers={"Connection": "close"})

    application = web.Application()
    application.router.add_get("/health/ready", ready)
    application.router.add_get("/pid", pid)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["HAULCAST_PORT"]), reuse_port=True).start()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["HAULCAST_NODE_PORT"])).start()
    await ending.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main("stubborn" in sys.argv, Path(sys.argv[2]).exists if "lame" in sys.argv else lambda: False))
