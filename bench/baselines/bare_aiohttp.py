"""aiohttp alone: it answers every text frame with one of the size of haulcast's reply, by its documented `send_str`.

No authentication, no validation, no limit, no metrics: what a WebSocket request costs before a server does anything.
"""

import asyncio
import gc
import os

import uvloop
from aiohttp import WSMsgType, web

REPLY = '{"re":"r1234","ok":true,"data":{"server_time":1790000000000}}'


async def answer(request: web.Request) -> web.WebSocketResponse:
    """Serve one socket."""
    socket = web.WebSocketResponse(compress=False, protocols=("haulcast.v1.json",))
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(REPLY)
    return socket


async def main() -> None:
    """Listen on `PORT` until killed."""
    app = web.Application()
    app.router.add_get("/v1/ws", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["PORT"]), backlog=1024).start()
    gc.freeze()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
