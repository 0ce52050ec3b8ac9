"""Which nodes there are, which of them probably owns what, and messages between them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from haulcast.domain.ids import BroadcastId, TenantId

from .journal import Ownership


class Standing(StrEnum):
    """What became of a node's lease."""

    HELD = "held"
    EXPIRED = "expired"
    """It has run out, or the store has forgotten it. Nobody has given the node up yet."""
    LOST = "lost"
    """The others have given this incarnation up. It must not write any more."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node that has registered and has not left. `alive`: it has a lease; `draining`: it is about to leave."""

    incarnation: int
    alive: bool
    draining: bool


class Cluster(Protocol):
    """Hints that nodes share. What is said here may be late, lost or forgotten altogether: the journal decides, by its
    fences. Every method that is awaited may raise `ClusterUnavailable`, and does so after a second at the latest; the
    others never block and never raise, and lose what they are given if need be.

    A node is named by its incarnation. It has one lease, however many broadcasts it owns.
    """

    # --- Leases ---

    async def register(self, incarnation: int, ttl_ms: int) -> bool:
        """Become a member, with a lease for `ttl_ms`. False if this incarnation was condemned."""
        ...

    async def renew(self, incarnation: int, ttl_ms: int) -> Standing:
        """Prolong a lease that is held. One that is not is never made anew."""
        ...

    async def drain(self, incarnation: int, *, not_last: bool = False) -> bool:
        """Mark a member as about to leave, which it sees itself as well; with `not_last` only if another one that has a
        lease stays, however many are marked at once. Whether it is marked now."""
        ...

    async def leave(self, incarnation: int) -> None:
        """Give up membership and lease."""
        ...

    async def members(self) -> list[Member]:
        """All members, in the order of their incarnations."""
        ...

    async def condemn(self, incarnation: int) -> bool:
        """Give a node up unless it has a lease: it is no member any more, and its incarnation can never again register
        or renew. Whether it is given up now."""
        ...

    # --- Directory ---

    def record(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership, ttl_ms: int) -> None:
        """Note soon who owns a broadcast, for `ttl_ms`. Only a higher epoch replaces what is noted."""
        ...

    def forget(self, tenant_id: TenantId, broadcast_id: BroadcastId, owner: Ownership) -> None:
        """Remove soon what is noted of a broadcast, unless that is of a higher epoch."""
        ...

    async def locate(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Ownership | None:
        """Who is noted as a broadcast's owner."""
        ...

    # --- Datagrams ---

    def post(self, to: int, datagram: bytes) -> None:
        """Send to one node. At most once; what arrives of one sender arrives in the order in which it was sent."""
        ...

    async def listen(self, incarnation: int, receive: Callable[[bytes], None], missed: Callable[[], None]) -> None:
        """Have datagrams to `incarnation` handed to `receive`, from now on and instead of what was listened to before.
        `missed` is called whenever some may have been lost on the way, since the store was out of reach."""
        ...

    async def close(self) -> None:
        """Write what waits, and let go of the store."""
        ...


class Kind(StrEnum):
    """What a message between nodes is."""

    ASK = "ask"
    ANSWER = "answer"
    ADOPT = "adopt"
    ADOPTED = "adopted"
    NEWS = "news"
    APPEARED = "appeared"
    FLEET = "fleet"
    TIP = "tip"
    HOW_ARE_YOU = "how_are_you"
    HOW_I_AM = "how_i_am"
    DRIVERS = "drivers"
    CONTROL = "control"
    CONTROLLED = "controlled"


class Bus(Protocol):
    """Messages to other nodes. What one node sends to another within one tick leaves as one datagram. At most once, in
    order per sender; the receiver is told when something was missed, and then looks at the journal."""

    @property
    def me(self) -> int:
        """This node's incarnation. It is another one once the node was given up and has joined anew."""
        ...

    @property
    def peers(self) -> frozenset[int]:
        """The live nodes but this one."""
        ...

    def send(self, to: int, kind: Kind, payload: bytes) -> None:
        """Send to one node."""
        ...

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """Send to every live node but this one."""
        ...
