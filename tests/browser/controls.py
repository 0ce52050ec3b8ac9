"""What operators set, on the stage: the topic `control:{tenant}`, the commands that change it, and their audit.

1. `content` is the truth. A command raises its version, and by default all nodes have followed when it is answered.
2. A test says what is to be otherwise: nodes that stay `behind`, answers that are held back, lost or refused.
3. A command happens once for each Idempotency-Key, as at the server; `keys` has every key that came, also again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from haulcast.client.pointer import patch
from haulcast.domain.control import settings_view
from haulcast.domain.modes import MODES
from haulcast.domain.settings import TenantSettings
from tests.acceptance.phone import Json

Tell = Callable[[Json], Awaitable[None]]
"""Tells the data of a delta."""


class Refuse(Exception):
    """The answer is this error, with this status."""

    def __init__(self, status: int, code: str, message: str = "", **data: Any) -> None:
        self.status = status
        self.error = {"code": code, "message": message, "retry": status >= 500, "data": data}


class Controls:
    """The tenant's control. `tell` is called with each change of the topic."""

    def __init__(self, tell: Tell, now_ms: Callable[[], int]) -> None:
        self._tell = tell
        self._now_ms = now_ms
        self.content: Json = {
            "version": 7,
            "paused": False,
            "settings": settings_view(TenantSettings()),
            "modes": [*MODES],
            "announcements": {},
            "nodes": {str(node): {"node": node, "version": 7} for node in (1, 2, 3)},
        }
        self.defaults = settings_view(TenantSettings())
        self.log: list[Json] = []
        """The audit, oldest first."""
        self.keys: list[str] = []
        self.behind: dict[int, str] = {}
        """Nodes that do not follow, and how the answer calls them: silent or gone."""
        self.lost = 0
        """So many answers do not arrive, from the next on; what was commanded happens."""
        self.told = asyncio.Event()
        """Until it is set, commands are carried out, and nobody is told."""
        self.told.set()
        self.refusal: Refuse | None = None
        """The next command is refused so."""
        self._answers: dict[str, Json] = {}

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get("/v1/settings", self._get_settings),
            web.patch("/v1/settings", self._patch),
            web.get("/v1/settings/history", self._get_history),
            web.get("/v1/control", self._get_log),
            web.post("/v1/control/{command}", self._post),
        ]

    async def put(self, **changes: Any) -> None:
        """Somebody else changes this: `paused`, or settings by name. All nodes follow."""
        await self._change(self._changed(changes), "patch_settings", {}, "other")

    async def follow(self, node: int) -> None:
        """A node that was behind has followed."""
        await self._set({f"/nodes/{node}/version": self.content["version"]})

    def change_untold(self, **settings: Any) -> Json:
        """Somebody else changes these settings. Returns the data of the delta, which is yet to be told."""
        sets = {"/version": self.content["version"] + 1, **self._changed(settings)}
        sets |= {f"/nodes/{node}/version": sets["/version"] for node in self.content["nodes"]}
        self.content = patch(self.content, sets, [])
        return {"set": sets, "del": []}

    async def leave(self, node: int) -> None:
        """A node is gone."""
        self.content = patch(self.content, {}, [f"/nodes/{node}"])
        await self._tell({"set": {}, "del": [f"/nodes/{node}"]})

    async def announce(self, text: str, lifetime_s: int, audience: str = "driver") -> None:
        """Somebody else announces something."""
        await self._change(self._announced(text, lifetime_s, audience), "announce", {}, "other")

    # --- Changes ---

    async def _set(self, sets: Json) -> None:
        self.content = patch(self.content, sets, [])
        await self._tell({"set": sets, "del": []})

    def _changed(self, changes: Mapping[str, Any]) -> Json:
        return {f"/{name}" if name == "paused" else f"/settings/{name}": value for name, value in changes.items()}

    def _announced(self, text: str, lifetime_s: int, audience: str) -> Json:
        at_ms, id = self._now_ms(), f"a{self.content['version']}"
        times = {"at": at_ms, "expires_at": at_ms + lifetime_s * 1000}
        return {f"/announcements/{id}": {"announcement_id": id, "audience": audience, "text": text, **times}}

    async def _change(self, sets: Json, command: str, data: Json, user: str) -> Json:
        before, version = self.content, self.content["version"] + 1
        nodes = [int(node) for node in before["nodes"]]
        followed = {f"/nodes/{node}/version": version for node in nodes if node not in self.behind}
        entry = {
            "number": len(self.log) + 1,
            "at": self._now_ms(),
            "by": {"role": "operator", "user": user},
            "command": command,
            "data": data,
            "version": version,
            "changes": {
                name.rpartition("/")[2]: {"from": _at(before, name), "to": value}
                for name, value in sets.items()
                if not name.startswith("/announcements")
            },
            "outcome": {
                "complete": "silent" not in self.behind.values(),
                "nodes": [
                    {"node": node, "status": self.behind[node]}
                    if node in self.behind
                    else {"node": node, "status": "acked", "after_ms": 4.2}
                    for node in nodes
                ],
            },
        }
        self.log.append(entry)
        await self.told.wait()
        await self._set({"/version": version, **sets, **followed})
        for node in [node for node, status in self.behind.items() if status == "gone"]:
            await self.leave(node)
        return entry

    # --- REST ---

    async def _get_settings(self, request: web.Request) -> web.Response:
        shown = {name: self.content[name] for name in ("version", "paused", "settings", "modes")}
        return web.json_response({**shown, "defaults": self.defaults})

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()

        def changed() -> Json:
            if body["expected_version"] != self.content["version"]:
                raise Refuse(412, "VERSION_MISMATCH", version=self.content["version"])
            return self._changed(body["settings"])

        return await self._command(request, "patch_settings", body, changed)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        command = request.match_info["command"]
        changes: Mapping[str, Callable[[], Json]] = {
            "pause": lambda: self._changed({"paused": True}),
            "resume": lambda: self._changed({"paused": False}),
            "reload_settings": dict,
            "switch_mode": lambda: self._changed({"dispatch_mode": body["mode"]}),
            "announce": lambda: self._announced(body["text"], body["lifetime_s"], body["audience"]),
            "drain_node": dict,
        }
        return await self._command(request, command, body, changes[command])

    async def _command(
        self, request: web.Request, command: str, data: Json, change: Callable[[], Json]
    ) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        try:
            if self.refusal is not None:
                refusal, self.refusal = self.refusal, None
                raise refusal
            if key not in self._answers:
                entry = await self._change(change(), command, data, "op")
                self._answers[key] = {
                    **{name: entry[name] for name in ("command", "number", "version", "changes")},
                    **entry["outcome"],
                }
        except Refuse as refuse:
            return web.json_response({"error": refuse.error}, status=refuse.status)
        answer = self._answers[key]
        if self.lost:
            self.lost -= 1
            return await _broken_off(request)
        return web.json_response(answer, status=200 if answer["complete"] else 202)

    async def _get_log(self, request: web.Request) -> web.Response:
        return self._page(request, self.log)

    async def _get_history(self, request: web.Request) -> web.Response:
        commands = ("patch_settings", "switch_mode")
        return self._page(request, [entry for entry in self.log if entry["command"] in commands])

    def _page(self, request: web.Request, log: list[Json]) -> web.Response:
        before, limit = int(request.query.get("before", 1_000_000)), int(request.query.get("limit", 50))
        older = [entry for entry in reversed(log) if entry["number"] < before]
        page = older[:limit]
        return web.json_response({"entries": page, "next": page[-1]["number"] if len(older) > limit else None})


async def _broken_off(request: web.Request) -> web.StreamResponse:
    """An answer whose connection breaks. It has begun, for Chromium itself asks again where none has."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b"{")
    assert request.transport is not None
    request.transport.abort()
    return response


def _at(content: Any, pointer: str) -> Any:
    for key in pointer.split("/")[1:]:
        content = content.get(key)
    return content
