"""What transport needs of the rest, in one place: `app` builds a `Services` and hands it to `http.Edge`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from haulcast.domain.control import TenantControl
from haulcast.domain.ids import BroadcastId, TenantId, TransporterId
from haulcast.domain.replies import Json
from haulcast.ports import Availability, Bus, Clock, Controller, Dispatcher, Journal, Nodes

from .auth import KeyRing, Principal
from .bus import NoPeers
from .fleet_cache import Changed
from .metrics import TransportMetrics
from .rates import Rates
from .session import Limits
from .tiles import Tiles


class Subscriber(Protocol):
    """A greeted connection, as the hub sees it. Compared and hashed by identity."""

    @property
    def principal(self) -> Principal:
        """Whom it speaks for."""
        ...

    def send(self, frames: bytes, *, snapshot: bool = False, yielding: bool = False) -> None:
        """Queue one or more finished frames. Never raises, and never calls the hub back."""
        ...


class Hub(Protocol):
    """Which connection follows which topic. Methods raise `RequestError` (TOPIC_NOT_FOUND, TOO_MANY_TOPICS,
    FORBIDDEN) and, where they read, `JournalUnavailable`."""

    def attach(self, connection: Subscriber) -> None:
        """Count the connection in."""
        ...

    def surplus(self, connection: Subscriber) -> Subscriber | None:
        """The one that has to go for a connection that was greeted, if its user has too many now: the caller detaches
        and closes that."""
        ...

    def detach(self, connection: Subscriber) -> None:
        """Forget the connection and all its subscriptions. Does nothing for one that is not attached."""
        ...

    def announce(self, connection: Subscriber, control: TenantControl) -> None:
        """Tell a connection that was just attached what has been announced to its role."""
        ...

    async def greet(self, connection: Subscriber, held: Mapping[str, tuple[int, int]]) -> list[str]:
        """Subscribe the connection to its user's own topics, and to those that can go on from the versions it holds:
        these are told."""
        ...

    async def resume(self, connection: Subscriber, held: Iterable[str]) -> list[str]:
        """Subscribe the connection to what it had before, as far as it may; the names of all that it has now."""
        ...

    async def read(self, principal: Principal, topic: str) -> bytes:
        """What a topic shows now, encoded. Raises `RequestError` TOPIC_NOT_FOUND."""
        ...

    async def subscribe(self, connection: Subscriber, topic: str) -> tuple[int, int]:
        """Subscribe, send a snapshot, and tell its version."""
        ...

    def unsubscribe(self, connection: Subscriber, topic: str) -> None:
        """End a subscription, if there is one."""
        ...

    def ack(self, connection: Subscriber, topic: str, version: tuple[int, int]) -> None:
        """The client has applied everything up to `version`."""
        ...

    async def feed_view(self, tenant_id: TenantId, transporter_id: TransporterId) -> dict[str, Json]:
        """The content of a transporter's feed."""
        ...

    def fleet_changed(self, changed: Changed) -> None:
        """Vehicles or drivers have been put."""
        ...


class Tenants(Protocol):
    """Which tenants there are."""

    async def control_of(self, tenant_id: TenantId) -> TenantControl:
        """What is in force for the tenant on this node; in development a tenant comes into being when it is first asked
        for. Asked for at every hello and REST call, so what exists is expected to be remembered (and what does not,
        never). Raises `RequestError(TENANT_NOT_FOUND)`, `JournalUnavailable`."""
        ...

    async def read(self, tenant_id: TenantId) -> TenantControl:
        """What the journal says. Raises the same."""
        ...


class Health(Protocol):
    """How the process is."""

    def live(self) -> bool:
        """Whether it should be left running."""
        ...

    async def ready(self) -> bool:
        """Whether it should be sent clients."""
        ...

    async def detailed(self) -> Mapping[str, Json]:
        """How each part is, for people."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that transport uses and does not make itself."""

    journal: Journal
    dispatcher: Dispatcher
    availability: Availability
    hub: Hub
    tenants: Tenants
    clock: Clock
    keys: KeyRing
    metrics: TransportMetrics
    health: Health
    new_broadcast_id: Callable[[], BroadcastId]
    nodes: Nodes
    controller: Controller
    rates: Rates
    """What the hub changes when a tenant's settings change."""
    registry: CollectorRegistry
    """What `/metrics` shows."""
    bus: Bus = field(default_factory=NoPeers)
    """Tells other nodes of changed fleets."""
    origins: frozenset[str] = field(default_factory=frozenset)
    """Web origins (`https://host[:port]`) whose pages may connect, besides the server's own; "*": all."""
    limits: Limits = field(default_factory=Limits)
    tiles: Tiles | None = None
    """The background of the console's map."""
    max_tasks: int = 10_000
    """Requests of one node that wait for a fleet lookup; beyond that they are BUSY."""
