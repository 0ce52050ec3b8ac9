"""Topics whose subscribers may have missed something, until each has been read again.

1. Marking what is marked already is nothing. What is marked while it is being read is read once more.
2. One after the other is read, broadcasts first: whoever watches one waits for it.
3. A read that fails because a store is away is tried again after a pause. The mark stays, and so do the subscribers.
4. A customer can be marked too, as a topic of that kind: there may be new broadcasts to subscribe them to.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from haulcast.domain.ids import TenantId
from haulcast.errors import RequestError, StoreUnavailable
from haulcast.tasks import TaskSet

from .topics import TopicKey

RETRY_S = 1.0
_CUSTOMER = "customer:"

log = structlog.get_logger()


def customer_mark(tenant_id: TenantId, customer_id: str) -> TopicKey:
    """What marks a customer."""
    return tenant_id, _CUSTOMER + customer_id


def marked_customer(key: TopicKey) -> str | None:
    """The customer that is marked, if it is one."""
    return key[1].removeprefix(_CUSTOMER) if key[1].startswith(_CUSTOMER) else None


class Staleness:
    """The marks, and the task that works them off: there is one exactly while there are marks."""

    def __init__(self, read_again: Callable[[TopicKey], Awaitable[None]]) -> None:
        self._read_again = read_again
        self._first: dict[TopicKey, None] = {}
        self._then: dict[TopicKey, None] = {}
        self._tasks = TaskSet()
        self._working = False
        self._reading: TopicKey | None = None

    def __contains__(self, key: TopicKey) -> bool:
        """Whether it is marked, or being read."""
        return key in self._then or key in self._first or key == self._reading

    def __len__(self) -> int:
        return len(self._first) + len(self._then)

    def mark(self, keys: Iterable[TopicKey]) -> None:
        """Have these read again soon."""
        for key in keys:
            (self._then if key[1].startswith(("feed:", "driver:")) else self._first)[key] = None
        if len(self) and not self._working:
            self._working = True
            self._tasks.start(self._work(), "refresh")

    async def close(self) -> None:
        """End the task. What is marked from now on stays so."""
        await self._tasks.close()

    async def _work(self) -> None:
        try:
            while marks := self._first or self._then:
                key = next(iter(marks))
                del marks[key]
                self._reading = key
                try:
                    await self._read_again(key)
                except (StoreUnavailable, RequestError) as error:
                    marks[key] = None
                    log.warning("refresh_delayed", topic=key[1], reason=str(error))
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    log.exception("refresh_failed", topic=key[1])
                finally:
                    self._reading = None
        finally:
            self._working = False
