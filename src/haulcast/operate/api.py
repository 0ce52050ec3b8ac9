"""The REST calls of an operator.

1. What breaks on the way (a connection, a proxy, a node that stops) is asked again for `REPEAT_FOR_S`, under the same
   id, so that a command is carried out once. So is a refusal that says `retry`, unless it says to come back later.
2. A try may take `ANSWER_WITHIN_S`, and the last one what is left.
3. If already the first try does not get through to anybody, nothing has been asked, and that is said at once.
4. Redirects are not followed: a token goes to the address that it is meant for.
"""

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeAlias

import aiohttp
import msgspec

from .access import Access

REPEAT_FOR_S = 15.0
ANSWER_WITHIN_S = 7.0
"""A node waits 5 s for the others, and the journal takes its time."""
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 2.0
_PASSING = frozenset({502, 503, 504})
"""What a proxy says when it does not reach the server."""

Data: TypeAlias = dict[str, Any]


class ServerRefused(Exception):
    """The server said no."""

    def __init__(self, code: str, message: str, data: Mapping[str, Any], retry: bool = False) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data
        self.retry = retry


class NoAnswer(Exception):
    """There was none in time. Whether a command was carried out is not known."""


class NotReached(Exception):
    """Nobody is there: nothing was asked."""


class _Broken(Exception):
    """Something on the way broke; it may be asked again."""


class Api:
    """One server, for the time of an `async with`. `notice` is told when something has to be repeated."""

    def __init__(self, access: Access, notice: Callable[[str], None]) -> None:
        self._access = access
        self._notice = notice

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._access.token}"})
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def get(self, path: str, **query: int | None) -> Data:
        """What there is. Raises `ServerRefused`, `NoAnswer`, `NotReached`."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return await self._ask("GET", path, query=given)

    async def command(self, method: str, path: str, body: Data, command_id: str) -> Data:
        """Have something done, once. Raises `ServerRefused`, `NoAnswer`, `NotReached`."""
        return await self._ask(method, path, body=body, headers={"Idempotency-Key": command_id})

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Data | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Data:
        loop = asyncio.get_running_loop()
        give_up_at, wait_s, tries = loop.time() + REPEAT_FOR_S, _FIRST_WAIT_S, 0
        while True:
            tries += 1
            try:
                within_s = min(ANSWER_WITHIN_S, give_up_at - loop.time())
                return await self._once(method, path, query, body, headers, within_s)
            except aiohttp.ClientConnectorError as error:
                if tries == 1:
                    raise NotReached(f"nobody answers at {self._access.url}: {_why(error)}") from None
                why, pause_s, refusal = "it is not there now", wait_s, None
            except _Broken as broken:
                why, pause_s, refusal = str(broken), wait_s, None
            except ServerRefused as error:
                if not error.retry:
                    raise
                after_ms = error.data.get("retry_after_ms", 0)
                why, pause_s, refusal = error.message, max(wait_s, after_ms / 1000), error
            if loop.time() + pause_s >= give_up_at:
                if refusal is not None:
                    raise refusal
                raise NoAnswer(f"no answer from {self._access.url} within {REPEAT_FOR_S:g} s: {why}")
            if tries == 1:
                self._notice(f"{why}; asking again for up to {REPEAT_FOR_S:g} s")
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.0))
            wait_s = min(_LONGEST_WAIT_S, wait_s * 2)

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Data | None,
        headers: Mapping[str, str] | None,
        within_s: float,
    ) -> Data:
        try:
            async with self._session.request(
                method,
                self._access.url + path,
                params=query,
                json=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within_s),
            ) as response:
                status, content = response.status, await response.read()
        except aiohttp.ClientConnectorError:
            raise
        except TimeoutError:  # before OSError, which it is as well
            raise _Broken(f"no answer for {within_s:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Broken(f"the connection broke ({type(error).__name__})") from None
        try:
            answer = msgspec.json.decode(content, type=Data)
            if status < 300:
                return answer
            said = answer["error"]
            raise ServerRefused(said["code"], said["message"], said["data"], said["retry"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            if status in _PASSING:
                raise _Broken(f"a proxy answers {status}") from None
            raise ServerRefused(f"HTTP {status}", f"what is at {self._access.url} is not haulcast", {}) from None


def _why(refused: aiohttp.ClientConnectorError) -> str:
    """In words: some libraries write addresses where an error has its text."""
    if isinstance(refused, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(refused, aiohttp.ClientSSLError):
        return "what is there does not speak TLS as it should; is it http instead of https?"
    error = refused.os_error
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
