"""Who is connected to this node, and who of them has subscribed to what.

1. A topic exists here while somebody has subscribed to it, and a while longer: who comes back soon is sent the steps
   that they lack. Each subscriber has the version that it was sent last, or `NOT_YET` while its first snapshot is being
   read: no delta comes after that one.
2. A subscription that is asked for several times at once lasts if one of them succeeds.
3. `broadcast:{id}` carries the broadcast's own version. A feed gathers many broadcasts and counts by itself; it starts
   at the highest version that any feed had which is no longer here.
4. A user may have `MAX_CONNECTIONS` connections; the oldest goes when one more has been greeted.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from haulcast.domain.ids import TenantId
from haulcast.ports import Role

from .auth import Principal
from .ring import Ring
from .topics import TopicKey, TopicVersion, is_board

MAX_CONNECTIONS = 5
MAX_TOPICS = 32
"""Of one connection."""
MAX_LINGERING = 10_000
"""Topics without a subscriber. One takes about 1 kB, and 10 kB when much has happened in it."""
NOT_YET: TopicVersion = (2**63, 0)


class Connection(Protocol):
    """What the hub needs of a client's connection."""

    @property
    def principal(self) -> Principal:
        """Whose it is."""
        ...

    def send(self, frames: bytes, *, snapshot: bool = False, yielding: bool = False) -> None:
        """Send finished frames, in order, soon. Never blocks. A snapshot may be of any size. What yields waits until
        all that does not has left."""
        ...


MAX_OWED = 100


class Topic:
    """A topic that somebody has subscribed to, or had just now. Nothing that was sent of it is newer than `version`."""

    __slots__ = (
        "counted",
        "customer_id",
        "key",
        "label",
        "lasts",
        "owed",
        "reading",
        "ring",
        "subscribers",
        "version",
        "yields",
    )

    def __init__(self, key: TopicKey, retired: TopicVersion) -> None:
        name = key[1]
        self.key = key
        self.label = name.encode()
        self.counted = not name.startswith("broadcast:")
        self.yields = is_board(name)  # to replies, offers and whatever else its subscribers are sent
        self.version = retired if self.counted else (0, 0)
        self.subscribers: dict[Connection, TopicVersion] = {}
        self.owed: list[tuple[bytes, bytes]] = []
        """Events, by name and data, that are to be told after the snapshot that is being read; `owe` bounds them."""
        self.reading: dict[Connection, int] = {}  # how many of its subscribes are under way
        self.ring = Ring()  # the steps that led to `version`
        self.lasts = False  # whether a snapshot of it has been sent, and something may follow
        self.customer_id: str | None = None  # whose broadcast it is, once a snapshot has been sent

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.key[1]

    @property
    def shown(self) -> list[Connection]:
        """Those who have been sent something."""
        return [connection for connection, had in self.subscribers.items() if had != NOT_YET]

    def owe(self, event: tuple[bytes, bytes]) -> None:
        """Tell an event after the snapshot that is being read; of more than `MAX_OWED` the last."""
        self.owed = [*self.owed, event][-MAX_OWED:]

    def send(self, version: TopicVersion, frames: bytes, *, large: bool = False) -> None:
        """Send the frames that lead to `version` to all who are not there yet. `large`: they may be of any size."""
        for connection, had in self.subscribers.items():
            if had < version:
                self.subscribers[connection] = version
                connection.send(frames, snapshot=large, yielding=self.yields)

    def send_snapshot(self, to: Iterable[Connection], version: TopicVersion, frame: bytes) -> None:
        """Send a snapshot to those of `to` who are still subscribed."""
        for connection in to:
            if connection in self.subscribers:
                self.subscribers[connection] = version
                connection.send(frame, snapshot=True, yielding=self.yields)


class Subscriptions:
    """All connections and topics of a node."""

    def __init__(self) -> None:
        self.topics: dict[TopicKey, Topic] = {}
        self.by_connection: dict[Connection, dict[str, None]] = {}  # topics in the order in which they were joined
        self._by_user: dict[tuple[TenantId, Role, str], list[Connection]] = {}  # the oldest first
        self._retired: TopicVersion = (0, 0)
        # Topics without a subscriber, since when: whether they had none at the last sweep. The latest is last.
        self._lingering: OrderedDict[TopicKey, bool] = OrderedDict()

    @property
    def topic_count(self) -> int:
        """How many topics have a subscriber."""
        return len(self.topics) - len(self._lingering)

    def attach(self, connection: Connection) -> None:
        """Count a connection in."""
        self.by_connection[connection] = {}
        self._by_user.setdefault(_user(connection.principal), []).append(connection)

    def detach(self, connection: Connection) -> None:
        """Count a connection out, with all its subscriptions. Detaching twice is detaching."""
        names = self.by_connection.pop(connection, None)
        if names is None:
            return
        for name in names:
            self.leave(connection, name)
        user = _user(connection.principal)
        self._by_user[user].remove(connection)
        if not self._by_user[user]:
            del self._by_user[user]

    def of_user(self, tenant_id: TenantId, role: Role, user_id: str) -> list[Connection]:
        """A user's connections, the oldest first."""
        return list(self._by_user.get((tenant_id, role, user_id), ()))

    def surplus(self, connection: Connection) -> Connection | None:
        """The oldest connection of a user who has too many."""
        mine = self._by_user.get(_user(connection.principal), [])
        return mine[0] if len(mine) > MAX_CONNECTIONS else None

    def users(self, role: Role) -> list[tuple[TenantId, str]]:
        """The users of a role who are connected."""
        return [(tenant_id, user_id) for tenant_id, theirs, user_id in self._by_user if theirs is role]

    def names(self, connection: Connection) -> Mapping[str, None]:
        """What a connection has subscribed to, in the order in which it did; nothing if it is not attached."""
        return self.by_connection.get(connection, {})

    def make_room(self, connection: Connection, name: str) -> None:
        """End the oldest subscription of a connection for which `name` would be one too many."""
        mine = self.by_connection[connection]
        if name not in mine and len(mine) >= MAX_TOPICS:
            self.leave(connection, next(iter(mine)))

    def join(self, connection: Connection, name: str) -> Topic:
        """Subscribe an attached connection; `NOT_YET` if it was not subscribed before."""
        key = (connection.principal.tenant_id, name)
        topic = self.topics.get(key)
        if topic is None:
            topic = self.topics[key] = Topic(key, self._retired)
        self._lingering.pop(key, None)
        topic.subscribers.setdefault(connection, NOT_YET)
        self.by_connection[connection][name] = None
        return topic

    @contextmanager
    def joining(self, connection: Connection, name: str) -> Iterator[Topic]:
        """Subscribe an attached connection for the time in which its snapshot is read, and for good once it has been
        sent one."""
        topic = self.join(connection, name)
        topic.reading[connection] = topic.reading.get(connection, 0) + 1
        try:
            yield topic
        finally:
            topic.reading[connection] -= 1
            if not topic.reading[connection]:
                del topic.reading[connection]
                if topic.subscribers.get(connection) == NOT_YET:
                    self.leave(connection, name)

    def leave(self, connection: Connection, name: str) -> None:
        """End a subscription. Leaving twice is leaving."""
        self.by_connection.get(connection, {}).pop(name, None)
        key = (connection.principal.tenant_id, name)
        topic = self.topics.get(key)
        if topic is None:
            return
        topic.subscribers.pop(connection, None)
        if topic.subscribers or key in self._lingering:
            return
        self._lingering[key] = False
        if not topic.lasts:
            self.forget(key)
        elif len(self._lingering) > MAX_LINGERING:
            self.forget(next(iter(self._lingering)))

    def visit(self, key: TopicKey) -> None:
        """Keep a topic for a while, though nobody subscribes to it."""
        topic = self.topics.get(key)
        if topic is None:
            topic = self.topics[key] = Topic(key, self._retired)
        if not topic.subscribers:
            self._lingering[key] = False
            self._lingering.move_to_end(key)

    def forget(self, key: TopicKey) -> None:
        """A topic is gone, unless it has a subscriber."""
        if self._lingering.pop(key, None) is not None:
            topic = self.topics.pop(key)
            if topic.counted:  # a later life of it begins above all that was shown of this one
                self._retired = max(self._retired, (topic.version[0], topic.version[1] + 1))

    def sweep(self) -> None:
        """Forget the topics that had no subscriber at the last sweep either."""
        for key, before in [*self._lingering.items()]:
            if before:
                self.forget(key)
            else:
                self._lingering[key] = True


def _user(principal: Principal) -> tuple[TenantId, Role, str]:
    return principal.tenant_id, principal.role, principal.user_id
