"""What operators set, as it reaches clients: the topic `control:{tenant}`, and announcements.

1. The topic shows what is in force at this node, and which version each live node has. Whenever either changes the
   difference is told; what makes none is not.
2. An announcement is encoded once and handed to everybody of its role who is connected here, some at a time. Who
   connects later is told what is still valid. Nobody says that it was seen, so it may come twice: it has an id.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Iterator
from functools import lru_cache
from itertools import islice

from haulcast.domain.control import MAX_ANNOUNCEMENTS, Announcement, TenantControl, settings_view
from haulcast.domain.delta import difference
from haulcast.domain.ids import TenantId
from haulcast.domain.modes import MODES
from haulcast.domain.replies import Json
from haulcast.ports import Clock, ControlState, Role

from .codec import dumps, frame
from .delivery import RECIPIENTS_PER_TURN
from .subscriptions import Connection
from .topics import TopicKey, control_topic, encode_delta

StateOf = Callable[[TenantId], Awaitable[ControlState]]
"""Tells what is in force. Raises `RequestError` TENANT_NOT_FOUND, `JournalUnavailable`."""


class Controls:
    """The control topics of this node. `tell` is called with a topic and the data of its delta, encoded."""

    def __init__(self, state_of: StateOf, clock: Clock, tell: Callable[[TopicKey, bytes], None]) -> None:
        self._state_of = state_of
        self._clock = clock
        self._tell = tell
        self._shown: dict[TenantId, dict[str, Json]] = {}  # what the subscribers of each topic have

    @property
    def watched(self) -> Collection[TenantId]:
        """The tenants whose topic is here."""
        return self._shown.keys()

    async def open(self, tenant_id: TenantId) -> bytes:
        """The content, encoded. Whoever had an older one has been told."""
        self.show(tenant_id, await self._state_of(tenant_id), opened=True)
        return dumps(self._shown[tenant_id])

    def show(self, tenant_id: TenantId, state: ControlState, *, opened: bool = False) -> None:
        """This is so now."""
        before = self._shown.get(tenant_id)
        if before is None and not opened:
            return
        self._shown[tenant_id] = now = control_view(state, self._clock.now_ms())
        if before is not None and (delta := difference(before, now)):
            self._tell((tenant_id, control_topic(tenant_id)), encode_delta(delta))

    def sweep(self, wanted: Container[TopicKey]) -> None:
        """Forget all but those whose topics are wanted."""
        for tenant_id in [*self._shown]:
            if (tenant_id, control_topic(tenant_id)) not in wanted:
                del self._shown[tenant_id]


def control_view(state: ControlState, now_ms: int) -> dict[str, Json]:
    """The content of `control:{tenant}`."""
    control = state.control
    return {
        "version": control.version,
        "paused": control.paused,
        "settings": settings_view(control.settings),
        "modes": list(MODES),
        "announcements": {
            each.announcement_id: {"audience": each.audience, **announcement_view(each)}
            for each in control.announcements
            if now_ms < each.expires_at_ms
        },
        "nodes": {str(node): {"node": node, "version": version} for node, version in sorted(state.nodes.items())},
    }


def announcement_view(announcement: Announcement) -> dict[str, Json]:
    """An announcement as those are shown it whom it is for."""
    return {
        "announcement_id": announcement.announcement_id,
        "text": announcement.text,
        "at": announcement.at_ms,
        "expires_at": announcement.expires_at_ms,
    }


def announcement_frame(announcement: Announcement, now_ms: int) -> bytes:
    """The finished frame of an announcement."""
    return frame(b'{"type":"announcement","server_time":%d,"data":%b}' % (now_ms, _encoded(announcement)))


@lru_cache(MAX_ANNOUNCEMENTS)
def _encoded(announcement: Announcement) -> bytes:
    """Once for all who come while it is valid."""
    return dumps(announcement_view(announcement))


def new_announcements(before: TenantControl, after: TenantControl, now_ms: int) -> list[Announcement]:
    """What was announced in between and is still valid."""
    return [each for each in after.announcements if each not in before.announcements and now_ms < each.expires_at_ms]


def hand_out(frames: bytes, connections: Iterator[Connection]) -> None:
    """Send finished frames to very many, some in each turn of the loop."""
    some = list(islice(connections, RECIPIENTS_PER_TURN))
    for connection in some:
        connection.send(frames)
    if some:
        asyncio.get_running_loop().call_soon(hand_out, frames, connections)


def of_role(connections: Iterable[Connection], tenant_id: TenantId, role: Role) -> list[Connection]:
    """Those of them who are of a tenant's role."""
    return [
        connection
        for connection in connections
        if connection.principal.role is role and connection.principal.tenant_id == tenant_id
    ]
