"""What topics say now, read from the journal (who is online: from presence), and who may see them.

Operators and admins may see all of the tenant that their token names; others what is their own. Who owns a broadcast
only its content says.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from haulcast.domain.ids import BroadcastId, DriverId, TenantId, TransporterId, is_id
from haulcast.domain.replies import Json
from haulcast.domain.views import (
    CLOSED_OFFER_SHOWN_MS,
    broadcast_view,
    fleet_view,
    haul_view,
    offer_shown,
    offer_view,
)
from haulcast.ports import Clock, Journal, Role

from .auth import Principal
from .codec import dumps
from .news import may_change
from .topics import TopicKey, TopicVersion, board_topic, control_topic, is_board, is_control

Online: TypeAlias = Callable[[TenantId, Collection[DriverId]], Awaitable[Collection[DriverId]]]
"""Tells which of some drivers are online. May raise `ClusterUnavailable`."""


Fleet: TypeAlias = dict[str, dict[str, dict[str, Json]]]
"""Drivers and vehicles, by their ids."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A topic's content, encoded. `version` is None for a topic that counts by itself; a broadcast has its customer."""

    data: bytes
    version: TopicVersion | None = None
    customer_id: str | None = None
    may_change: bool = True


class Snapshots:
    """Reads topics. Every read may raise `StoreUnavailable`."""

    def __init__(self, journal: Journal, clock: Clock, online: Online) -> None:
        self._journal = journal
        self._clock = clock
        self._online = online

    async def read(self, key: TopicKey) -> Snapshot | None:
        """The content of a topic that may be asked for; None if it does not exist."""
        tenant_id, name = key
        kind, _, subject = name.partition(":")
        return await _READERS[kind](self, tenant_id, subject)

    async def feed_view(self, tenant_id: TenantId, transporter_id: TransporterId) -> dict[str, Json]:
        """The content of `feed:{transporter}`."""
        now_ms = self._clock.now_ms()
        offers = await self._journal.read_offers(tenant_id, transporter_id, now_ms - CLOSED_OFFER_SHOWN_MS)
        trips = await self._journal.read_trips(tenant_id, transporter_id=transporter_id)
        return {
            "offers": {
                state.broadcast_id: offer_view(state, offer)
                for state, offer in offers
                if offer_shown(state, offer, now_ms)
            },
            "trips": {trip.trip_id: haul_view(state, trip) for state, trip in trips},
        }

    async def fleet_view(self, tenant_id: TenantId, transporter_id: TransporterId, online: Online) -> Fleet:
        """The content of `fleet:{transporter}`, with those drivers online of whom `online` says so."""
        vehicles, drivers = await self._journal.read_fleet(tenant_id, transporter_id)
        trips = await self._journal.read_trips(tenant_id, transporter_id=transporter_id)
        there = await online(tenant_id, [driver.driver_id for driver in drivers])
        return fleet_view(vehicles, drivers, [trip for _, trip in trips], there)

    async def _broadcast(self, tenant_id: TenantId, subject: str) -> Snapshot | None:
        stored = await self._journal.read_broadcast(tenant_id, BroadcastId(subject))
        if stored is None:
            return None
        state = stored.state
        return Snapshot(dumps(broadcast_view(state)), (stored.epoch, state.seq), state.customer_id, may_change(state))

    async def _feed(self, tenant_id: TenantId, subject: str) -> Snapshot:
        return Snapshot(dumps(await self.feed_view(tenant_id, TransporterId(subject))))

    async def _driver(self, tenant_id: TenantId, subject: str) -> Snapshot:
        trips = await self._journal.read_trips(tenant_id, driver_id=DriverId(subject))
        return Snapshot(dumps({"trips": {trip.trip_id: haul_view(state, trip) for state, trip in trips}}))

    async def _fleet(self, tenant_id: TenantId, subject: str) -> Snapshot:
        return Snapshot(dumps(await self.fleet_view(tenant_id, TransporterId(subject), self._online)))


_READERS: Mapping[str, Callable[[Snapshots, TenantId, str], Awaitable[Snapshot | None]]] = {
    "broadcast": Snapshots._broadcast,
    "feed": Snapshots._feed,
    "driver": Snapshots._driver,
    "fleet": Snapshots._fleet,
}
_OWNERS: Mapping[str, Role] = {
    "broadcast": Role.CUSTOMER,
    "feed": Role.TRANSPORTER,
    "driver": Role.DRIVER,
    "fleet": Role.TRANSPORTER,
}
_OVERSEERS = frozenset({Role.OPERATOR, Role.ADMIN})
"""Who may see all of the tenant that the token names."""

KINDS = (*_READERS, "board", "control")
"""What topics there are: what their names begin with."""


def may_ask(principal: Principal, name: str) -> bool:
    """Whether there can be a topic of that name that the principal may see."""
    if is_board(name) or is_control(name):
        own = (board_topic(principal.tenant_id), control_topic(principal.tenant_id))
        return principal.role in _OVERSEERS and name in own
    kind, _, subject = name.partition(":")
    if kind not in _READERS or not is_id(subject):
        return False
    if principal.role in _OVERSEERS:
        return True
    return principal.role is _OWNERS[kind] and (kind == "broadcast" or principal.user_id == subject)


def may_see(principal: Principal, customer_id: str | None) -> bool:
    """Whether the principal, who may ask for a topic, may see it. `customer_id`: whose broadcast it is, if it is."""
    return principal.role in _OVERSEERS or customer_id in (None, principal.user_id)
