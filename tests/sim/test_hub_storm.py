"""Phones that all come back at once while their feeds go on moving."""

import asyncio

from prometheus_client import CollectorRegistry, Counter

from haulcast.domain import effects as fx
from haulcast.domain.broadcast import Broadcast, Offer, Place, TruckRequest
from haulcast.domain.ids import BroadcastId, CustomerId, RequestId, TransporterId, VehicleId
from haulcast.ports import Change, Role
from haulcast.storage.memory import MemoryJournal
from haulcast.transport.auth import Principal
from haulcast.transport.hub import Hub
from tests.sim.virtual_time import START_MS, VirtualClock
from tests.sim.world import ACME

PHONES = 300
READ_S = 0.003
CHANGE_EVERY_S = 0.05


class OneReader(MemoryJournal):
    """A journal whose reads take time and come one after the other, as those of one thread do."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def read_offers(
        self, tenant_id: str, transporter_id: TransporterId, ended_after_ms: int
    ) -> list[tuple[Broadcast, Offer]]:
        async with self._turn:
            await asyncio.sleep(READ_S)
        return []


class Phone:
    """A connection that counts what it is sent."""

    def __init__(self, number: int) -> None:
        self.principal = Principal(ACME, Role.TRANSPORTER, f"t{number}", START_MS * 2)
        self.snapshots = 0

    def send(self, frames: bytes, *, snapshot: bool = False) -> None:
        self.snapshots += snapshot


async def test_everybody_gets_a_snapshot_though_every_feed_moves_twenty_times_a_second() -> None:
    """A snapshot has to be exact, and reads queue up: a topic must not move while its own read runs, no longer."""
    deliveries = Counter("deliveries", "", ("kind",), registry=CollectorRegistry())
    hub = Hub(OneReader(), VirtualClock(), 1, deliveries)
    phones = [Phone(number) for number in range(PHONES)]
    everybody = tuple(TransporterId(phone.principal.user_id) for phone in phones)
    state = Broadcast(
        tenant_id=ACME,
        broadcast_id=BroadcastId("b1"),
        customer_id=CustomerId("c1"),
        pickup=Place(1, 1),
        drop=Place(2, 2),
        note="",
        requests=(TruckRequest(RequestId("b1-1"), "van"),),
        created_at_ms=START_MS,
        expires_at_ms=START_MS * 2,
        reminder_at_ms=None,
        next_wave_at_ms=None,
        offers={user: Offer(user, 1, VehicleId("v"), "van", 1, START_MS) for user in everybody},
    )

    async def go_on_moving() -> None:
        while True:
            await asyncio.sleep(CHANGE_EVERY_S)
            hub.publish(Change(1, state, state, (fx.AmendOffers(everybody),)))

    moving = asyncio.create_task(go_on_moving())
    try:
        for phone in phones:
            hub.attach(phone)
        await asyncio.gather(*(hub.greet(phone, {}) for phone in phones))
    finally:
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
    assert [phone.snapshots for phone in phones] == [1] * PHONES
