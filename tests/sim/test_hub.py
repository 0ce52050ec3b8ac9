"""What the hub shows to whom, while broadcasts change and phones come and go."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from haulcast.domain import effects as fx
from haulcast.domain.broadcast import Broadcast, Offer, Place, TruckRequest
from haulcast.domain.events import Cancelled
from haulcast.domain.evolve import evolve
from haulcast.domain.ids import BroadcastId, CustomerId, RequestId, TenantId, TransporterId, VehicleId
from haulcast.domain.states import EndReason
from haulcast.errors import JournalUnavailable
from haulcast.ports import Change, Role, Stored
from haulcast.storage.memory import MemoryJournal, MemoryPresence
from haulcast.transport import delivery
from haulcast.transport.auth import Principal
from haulcast.transport.bus import NoPeers
from haulcast.transport.hub import Hub
from haulcast.transport.rates import Rates
from haulcast.transport.session import Limits
from tests.sim.virtual_time import START_MS, VirtualClock
from tests.sim.world import ACME
from tests.unit.transport.fakes import hub_metrics, state_of

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
        self.sent: list[bytes] = []

    def send(self, frames: bytes, *, snapshot: bool = False, yielding: bool = False) -> None:
        self.snapshots += snapshot
        self.sent.append(frames)


class Holding(MemoryJournal):
    """A journal that has one broadcast, or is away."""

    def __init__(self, state: Broadcast) -> None:
        super().__init__()
        self.state = state
        self.away = False

    async def read_broadcast(self, tenant_id: TenantId, broadcast_id: BroadcastId) -> Stored | None:
        if self.away:
            raise JournalUnavailable("away")
        return Stored(1, self.state)


async def _watching() -> tuple[Hub, Phone, Broadcast, Change]:
    """An operator who was shown a cancelled broadcast, of whose end nobody was told yet."""
    live = _broadcast(())
    ended = evolve(live, Cancelled(START_MS, EndReason.CUSTOMER_CANCELLED))
    hub = _hub(Holding(ended))
    phone = Phone(0)
    phone.principal = Principal(ACME, Role.OPERATOR, "op", START_MS * 2)
    hub.attach(phone)
    await hub.subscribe(phone, "broadcast:b1")
    news = fx.TellWatchers(fx.CustomerNews.BROADCAST_CANCELLED, {})
    return hub, phone, ended, Change(1, live, ended, (news,))


def _hub(journal: MemoryJournal) -> Hub:
    clock = VirtualClock()
    presence, rates = MemoryPresence(clock), Rates(Limits())
    return Hub(
        journal, clock, NoPeers(), _incarnation, hub_metrics(), presence=presence, state_of=state_of, rates=rates
    )


async def _incarnation() -> int:
    return 1


def _broadcast(offered: tuple[TransporterId, ...]) -> Broadcast:
    return Broadcast(
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
        notified=len(offered),
        offers={user: Offer(user, 1, VehicleId("v"), "van", 1, START_MS) for user in offered},
    )


async def test_who_reads_the_end_before_it_is_published_hears_of_it_all_the_same() -> None:
    """A snapshot that was read between the commit and its news has the state already; the event is still owed."""
    hub, phone, _, change = await _watching()
    hub.publish(change)
    assert b"broadcast_cancelled" in phone.sent[-1]
    assert b'"delta"' not in phone.sent[-1]
    assert hub.topic_count == 0  # nothing can follow


async def test_a_refresh_that_fails_leaves_the_subscription_as_it_was() -> None:
    hub, phone, _, change = await _watching()
    hub._journal.away = True  # type: ignore[attr-defined]
    with pytest.raises(JournalUnavailable):
        await hub.subscribe(phone, "broadcast:b1")
    hub.publish(change)
    assert b"broadcast_cancelled" in phone.sent[-1]


async def test_everybody_gets_a_snapshot_though_every_feed_moves_twenty_times_a_second() -> None:
    """A snapshot has to be exact, and reads queue up: a topic must not move while its own read runs, no longer."""
    hub = _hub(OneReader())
    phones = [Phone(number) for number in range(PHONES)]
    everybody = tuple(TransporterId(phone.principal.user_id) for phone in phones)
    state = _broadcast(everybody)

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


async def test_news_for_very_many_leave_the_loop_free_in_between_and_newer_ones_wait_behind_them() -> None:
    hub, phones, state = await _feeds(2 * delivery.RECIPIENTS_PER_TURN)
    taken = replace(state, seq=state.seq + 1, requests=())
    hub.publish(Change(1, state, state, (fx.AmendOffers(tuple(state.offers)),)))
    hub.publish(Change(1, state, taken, (fx.AmendOffers(tuple(state.offers)),)))
    few = delivery.RECIPIENTS_PER_TURN
    assert [len(phone.sent) for phone in phones] == [1] * few + [0] * few
    hub.detach(phones[-1])
    for _ in range(5):
        await asyncio.sleep(0)
    assert phones.pop().sent == []
    for phone in phones:
        assert [b'remaining_requests":1' in frame for frame in phone.sent] == [True, False]


async def test_news_that_break_half_way_are_read_again_and_those_behind_them_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "RECIPIENTS_PER_TURN", 1)
    hub, phones, state = await _feeds(3)
    amended = Change(1, state, state, (fx.AmendOffers(tuple(state.offers)),))

    def refuse(frames: bytes, *, snapshot: bool = False, yielding: bool = False) -> None:
        del phones[1].__dict__["send"]
        raise RuntimeError

    phones[1].send = refuse  # type: ignore[method-assign]
    with capture_logs() as logs:
        hub.publish(amended)
        hub.publish(amended)
        await asyncio.sleep(1)
    assert all(b'"snapshot"' in phone.sent[-1] for phone in phones)
    hub.publish(amended)
    await asyncio.sleep(1)
    assert all(b'"delta"' in phone.sent[-1] for phone in phones)
    assert [line["event"] for line in logs] == ["delivery_failed"]
    await hub.close()


async def _feeds(count: int) -> tuple[Hub, list[Phone], Broadcast]:
    """So many transporters at their feeds, and a broadcast that all have been offered."""
    hub = _hub(OneReader())
    phones = [Phone(number) for number in range(count)]
    for phone in phones:
        hub.attach(phone)
        await hub.greet(phone, {})
        phone.sent.clear()
    return hub, phones, _broadcast(tuple(TransporterId(phone.principal.user_id) for phone in phones))
