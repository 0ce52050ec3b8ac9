"""Why did t7 not get the offer? The timeline tells the operator, and nobody else."""

import pytest

import haulcast.storage.redis
import haulcast.stores
from haulcast.clock import SystemClock
from haulcast.storage.memory.presence import MemoryPresence
from haulcast.storage.redis import RedisPresence
from tests.acceptance.network import Network, accept_of, haul, offered
from tests.acceptance.phone import Json

RADIUS_KM = 10
TRANSPORTERS = ("silent", "near", "busy", "gone", "second", "far")


class LeapingClock(SystemClock):
    """The machine's clock, but it can be told to leap: nobody waits a minute for a position to be too old."""

    ahead_s = 0

    def now_ms(self) -> int:
        """See `Clock`."""
        return super().now_ms() + self.ahead_s * 1000

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return super().monotonic_s() + self.ahead_s


@pytest.fixture
def presence_clock(monkeypatch: pytest.MonkeyPatch) -> LeapingClock:
    """The clock of the presence of whatever node starts after this; all else keeps the machine's.

    Unrealistic in that the nodes' other deadlines do not leap along.
    """
    clock = LeapingClock()
    monkeypatch.setattr(haulcast.stores, "MemoryPresence", lambda _clock: MemoryPresence(clock))
    monkeypatch.setattr(
        haulcast.storage.redis,
        "RedisPresence",
        lambda url, _clock, commands: RedisPresence(url, clock, commands=commands, now_ms=clock.now_ms),
    )
    return clock


async def test_the_timeline_tells_operators_who_was_left_out_of_each_wave_and_why(
    presence_clock: LeapingClock, node_network: Network
) -> None:
    """Each wave takes one transporter. The customer is told how far it reached and how many it notified, and of no
    transporter at all; nor is anybody else, on any topic."""
    network = node_network
    await network.create_tenant(wave_radii_km=[RADIUS_KM, None], wave_interval_s=0.25, max_offers_per_wave=1)
    await network.transporter("silent", 1.0)
    presence_clock.ahead_s += 61
    busy = await network.transporter("busy", 2.0)
    other_customer = await network.phone("customer", "c0")
    other_haul = (await other_customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(other_haul, busy)
    await busy.do("offer.accept", accept_of("busy", other_haul))
    gone = await network.transporter("gone", 3.0)
    await gone.do("transporter.offline")
    near, second, far = [await network.transporter(*who) for who in (("near", 1.5), ("second", 4.0), ("far", 12.0))]
    operator, customer = await network.phone("operator", "op"), await network.phone("customer", "c1")

    board = f"board:{network.tenant}"
    await operator.do("subscribe", {"topic": board})

    broadcast_id = (await customer.do("broadcast.create", haul()))["broadcast_id"]
    await offered(broadcast_id, near)
    await near.do("offer.decline", {"broadcast_id": broadcast_id})
    await offered(broadcast_id, second, far)

    waves = await waves_shown(network, broadcast_id, "operator", "op")
    assert [(wave["radius_m"], wave["notified"]) for wave in waves] == [(10_000, 1), (None, 1), (None, 1)]
    cannot = [("silent", "no_signal", 1), ("busy", "on_trip", 2), ("gone", "offline", 3)]
    assert [reasons(wave) for wave in waves] == [
        [*cannot, ("second", "over_limit", 4), ("far", "out_of_range", 12)],
        [*cannot, ("far", "over_limit", 12)],
        cannot,
    ]
    assert [(each["vehicle_id"], each["vehicle_type"]) for each in waves[2]["left_out"]] == [
        ("silent-v", "truck_14ft"),
        ("busy-v", "truck_14ft"),
        ("gone-v", "truck_14ft"),
    ]

    shown = await waves_shown(network, broadcast_id, "customer", "c1")
    assert [wave.keys() - {"seq", "at", "event"} for wave in shown] == [{"wave", "notified", "radius_m"}] * 3
    views = [phone.state(topic) for phone in network.phones for topic in phone.views]
    assert any(broadcast_id in repr(view) for view in views)
    assert "left_out" not in repr(views)
    for told in (shown, customer.views, customer.events, far.feed):
        assert not [name for name in TRANSPORTERS if name != "far" and name in repr(told)]
    assert "far" not in repr(shown)
    on_board = operator.state(board)["broadcasts"][broadcast_id]
    assert not [name for name in TRANSPORTERS if name in repr(on_board)]


async def waves_shown(network: Network, broadcast_id: str, role: str, user: str) -> list[Json]:
    """The waves in the timeline of a broadcast, as somebody is shown it."""
    status, detail = await network.rest("GET", f"/v1/broadcasts/{broadcast_id}", role, user)
    assert status == 200, detail
    return [entry for entry in detail["timeline"] if entry["event"] == "wave_sent"]


def reasons(wave: Json) -> list[tuple[str, str, int]]:
    """Who was left out of a wave, why, and how many kilometres away."""
    return [(each["transporter_id"], each["reason"], round(each["distance_m"] / 1000)) for each in wave["left_out"]]
