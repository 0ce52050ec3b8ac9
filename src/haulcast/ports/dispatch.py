"""What transport and actors ask of each other."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.commands import Command, Create
from haulcast.domain.effects import Effect
from haulcast.domain.fleet import Vehicle
from haulcast.domain.geo import Point
from haulcast.domain.ids import BroadcastId, TenantId, TransporterId
from haulcast.domain.replies import Reply

from .journal import Origin


@dataclass(frozen=True, slots=True)
class Change:
    """What became durable of one broadcast, and what is to be said about it. `before` is None when it is new."""

    epoch: int
    before: Broadcast | None
    after: Broadcast
    effects: tuple[Effect, ...]


class Publisher(Protocol):
    """Tells clients. Called once for each durable change, in the order of the broadcast's versions."""

    def publish(self, change: Change) -> None:
        """Hand the change to whoever is connected and concerned. Never blocks, never raises for a client's sake."""
        ...


class Dispatcher(Protocol):
    """Carries commands to the actors. A future ends with the reply once it is durable, or with `RequestError`
    (BUSY, DRAINING, UNAVAILABLE, INTERNAL). Cancelling a future does not take the command back."""

    def create(self, command: Create, origin: Origin) -> "asyncio.Future[Reply]":
        """Start a broadcast under the id that the command carries."""
        ...

    def ask(
        self, tenant_id: TenantId, broadcast_id: BroadcastId, command: Command, origin: Origin
    ) -> "asyncio.Future[Reply]":
        """Have the broadcast's actor handle `command`."""
        ...


class Availability(Protocol):
    """Transporters coming, going and moving."""

    async def go_online(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Mark the transporter online and offer it the live broadcasts that match. Whether it was offline.
        Raises `RequestError(TOO_MANY_TOGGLES)`."""
        ...

    async def go_offline(self, tenant_id: TenantId, transporter_id: TransporterId) -> bool:
        """Mark the transporter offline. Whether it was online. Raises `RequestError(TOO_MANY_TOGGLES)`."""
        ...

    def report(self, tenant_id: TenantId, vehicle: Vehicle, position: Point) -> None:
        """Note where a vehicle is, and offer it the live broadcasts that match if it had no position before."""
        ...

    def heard_from(self, tenant_id: TenantId, transporter_id: TransporterId) -> None:
        """Anything at all came from the transporter's connection."""
        ...
