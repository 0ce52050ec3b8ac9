"""The commands. Each says what came of it and returns the exit code."""

import argparse
import asyncio
import json
import secrets
import sys
from typing import Any, TypeAlias

from haulcast import config
from haulcast.ports import Role

from . import show
from .access import find_access
from .api import Api, NoAnswer, NotReached, ServerRefused
from .values import chosen

EXIT_DONE = 0
EXIT_REFUSED = 1
EXIT_INCOMPLETE = 3
"""It holds, and some live node has not answered yet."""

Data: TypeAlias = dict[str, Any]
_MEANWHILE = 100
"""How far back it is looked for what others changed."""


def operate(arguments: argparse.Namespace) -> int:
    """Carry out what `arguments.operation` names. Raises `ConfigError`."""
    access = find_access(
        config.load(),
        Role.ADMIN if arguments.operation == "drain_node" else Role.OPERATOR,
        arguments.url,
        arguments.token_file,
        arguments.tenant,
        arguments.user,
    )
    return asyncio.run(Operation(arguments, access.tenant).run(Api(access, _notice)))


class Operation:
    """One command; `tenant` is what the token names."""

    def __init__(self, arguments: argparse.Namespace, tenant: str | None) -> None:
        self._arguments = arguments
        self._tenant = tenant and show.plain(tenant)
        self._json: bool = arguments.json

    async def run(self, api: Api) -> int:
        """Carry it out, and say what came of it."""
        try:
            async with api:
                match self._arguments.operation:
                    case "show":
                        return await self._show(api)
                    case "set":
                        return await self._set(api)
                    case "history":
                        return await self._log(api, "/v1/settings/history")
                    case "log":
                        return await self._log(api, "/v1/control")
                    case command:
                        return await self._command(api, "POST", f"/v1/control/{command}", self._fields())
        except ServerRefused as error:
            self._say_refused(error)
        except (NoAnswer, NotReached) as error:
            _notice(str(error))
        return EXIT_REFUSED

    async def _show(self, api: Api) -> int:
        reply = await api.get("/v1/settings")
        tenant = f"{self._tenant}: " if self._tenant else ""
        self._say(reply, show.settings_text(reply, tenant))
        return EXIT_DONE

    async def _set(self, api: Api) -> int:
        before = await api.get("/v1/settings")
        settings = chosen(self._arguments.settings, before["settings"])
        expected = before["version"] if self._arguments.expect is None else self._arguments.expect
        difference = show.difference_text(before["settings"], settings)
        if not difference and self._arguments.id is None:  # with an id it may be asked for the second time
            self._say({"changes": {}, "version": before["version"]}, f"it is so already (version {before['version']})")
            return EXIT_DONE
        if not self._json:
            print(f"version {before['version']}:\n{difference or 'nothing is different'}")
        try:
            body = {"settings": settings, "expected_version": expected}
            again = f" --expect {expected}"
            return await self._command(api, "PATCH", "/v1/settings", body, again, told=bool(difference))
        except ServerRefused as error:
            if error.code == "VERSION_MISMATCH":
                await self._say_meanwhile(api, expected, error)
                return EXIT_REFUSED
            raise

    async def _say_meanwhile(self, api: Api, expected: int, error: ServerRefused) -> None:
        self._say_refused(error)
        log = await api.get("/v1/control", limit=_MEANWHILE)
        others = [entry for entry in log["entries"] if (entry["version"] or 0) > expected]
        if others:
            print(f"since version {expected}:\n{show.meanwhile_text(others)}", file=sys.stderr)
        _notice("nothing was set; look at it again, and repeat if it is still wanted")

    async def _log(self, api: Api, path: str) -> int:
        log = await api.get(path, limit=self._arguments.limit, before=self._arguments.before)
        if self._tenant:
            _notice(f"the tenant is {self._tenant}")
        self._say(log, show.log_text(log["entries"], log["next"]))
        return EXIT_DONE

    async def _command(self, api: Api, method: str, path: str, body: Data, again: str = "", told: bool = False) -> int:
        """`again`: what it takes besides the id to ask for the same again. `told`: what changes was shown before."""
        command_id = self._arguments.id or secrets.token_hex(8)
        tenant = f"the tenant is {self._tenant}, " if self._tenant else ""
        _notice(f"{tenant}the id of this command is {command_id}")
        try:
            reply = await api.command(method, path, body, command_id)
        except NoAnswer as error:
            again = f"--id {command_id}{again}"
            raise NoAnswer(f"{error}. Whether it holds is not known: ask again, the same with {again}") from None
        self._say({"id": command_id, **reply}, show.answer_text(reply, changes=not told))
        return EXIT_DONE if reply["complete"] else EXIT_INCOMPLETE

    def _fields(self) -> Data:
        """The body of the command."""
        arguments = self._arguments
        match arguments.operation:
            case "switch_mode":
                return {"mode": arguments.mode}
            case "announce":
                return {"audience": arguments.to, "text": arguments.text, "lifetime_s": arguments.lifetime}
            case "drain_node":
                return {"node": arguments.node}
            case _:
                return {}

    def _say(self, data: Data, text: str) -> None:
        print(json.dumps(data) if self._json else text)

    def _say_refused(self, error: ServerRefused) -> None:
        if self._json:
            print(json.dumps({"error": {"code": error.code, "message": error.message, "data": dict(error.data)}}))
        after_ms = error.data.get("retry_after_ms")
        why = show.plain(str(error)).removeprefix("body.")
        _notice(why + (f"; again in {after_ms / 1000:.0f} s" if after_ms else ""))


def _notice(text: str) -> None:
    print(f"haulcast: {text}", file=sys.stderr, flush=True)
