"""What the theory of operation of the deadline heap promises."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.actors.timers import Deadlines
from tests.sim.virtual_time import START_MS, VirtualClock, on_virtual_time


@dataclass(eq=False)
class Bell:
    """An alarm that notes the time, in milliseconds since the start, at which it rang."""

    clock: VirtualClock
    rings: list[int]
    name: int = 0
    armed_at_ms: int | None = None
    then: Callable[[], None] = lambda: None

    def ring(self) -> None:
        """See `Alarm`."""
        self.rings.append(self.clock.now_ms() - START_MS)
        self.then()


class Belfry:
    """A heap, and the bells made for it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.lateness_ms: list[int] = []
        self.heap = Deadlines(self.clock, self.lateness_ms.append)

    def bell(self, at_ms: int | None = None) -> Bell:
        """A bell, armed for `at_ms` after the start of time."""
        bell = Bell(self.clock, [])
        if at_ms is not None:
            self.arm(bell, at_ms)
        return bell

    def arm(self, bell: Bell, at_ms: int | None) -> None:
        """Arm for `at_ms` after the start of time."""
        self.heap.arm(bell, None if at_ms is None else START_MS + at_ms)


@pytest.fixture
async def belfry() -> Belfry:
    return Belfry()


async def test_alarms_ring_in_the_order_of_their_deadlines_each_at_its_time_and_once(belfry: Belfry) -> None:
    bells = [belfry.bell(at_ms) for at_ms in (3_000, 500, 90_000, 500, 1_500)]
    assert len(belfry.heap) == 5
    await asyncio.sleep(100)
    assert [bell.rings for bell in bells] == [[3_000], [500], [90_000], [500], [1_500]]
    assert belfry.lateness_ms == [0] * 5
    assert len(belfry.heap) == 0
    assert [bell.armed_at_ms for bell in bells] == [None] * 5


async def test_what_is_due_at_the_same_time_rings_in_the_order_of_arming(belfry: Belfry) -> None:
    order: list[int] = []
    for name in range(5):
        bell = belfry.bell(1_000)
        bell.then = lambda name=name: order.append(name)  # type: ignore[misc]
    await asyncio.sleep(1.1)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("first", "second"), [(500, 2_000), (2_000, 500)])
async def test_arming_again_replaces_the_deadline(belfry: Belfry, first: int, second: int) -> None:
    bell = belfry.bell(first)
    belfry.arm(bell, second)
    assert len(belfry.heap) == 1
    await asyncio.sleep(5)
    assert bell.rings == [second]


async def test_arming_for_the_same_time_again_rings_once_even_by_a_detour(belfry: Belfry) -> None:
    bell = belfry.bell(500)
    belfry.arm(bell, 500)
    belfry.arm(bell, 700)
    belfry.arm(bell, 500)
    await asyncio.sleep(5)
    assert bell.rings == [500]


async def test_a_disarmed_alarm_does_not_ring(belfry: Belfry) -> None:
    bell, other = belfry.bell(500), belfry.bell(600)
    belfry.arm(bell, None)
    belfry.arm(bell, None)
    assert len(belfry.heap) == 1
    await asyncio.sleep(5)
    assert bell.rings == []
    assert other.rings == [600]


async def test_a_deadline_that_has_passed_rings_at_once_and_its_lateness_is_told(belfry: Belfry) -> None:
    await asyncio.sleep(10)
    bell = belfry.bell(7_500)
    assert bell.rings == []
    await asyncio.sleep(0.001)
    assert bell.rings == [10_000]
    assert belfry.lateness_ms == [2_500]


async def test_an_alarm_may_arm_itself_anew_when_it_rings(belfry: Belfry) -> None:
    bell = belfry.bell(1_000)
    bell.then = lambda: belfry.arm(bell, 1_000 * (len(bell.rings) + 1)) if len(bell.rings) < 4 else None
    await asyncio.sleep(10)
    assert bell.rings == [1_000, 2_000, 3_000, 4_000]


async def test_what_was_replaced_or_disarmed_does_not_pile_up(belfry: Belfry) -> None:
    bells = [belfry.bell() for _ in range(100)]
    for bell in bells:
        for n in range(100):
            belfry.arm(bell, 10_000 + n)
    assert len(belfry.heap) == 100
    assert len(belfry.heap._heap) <= 2 * 100 + 64
    for bell in bells[1:]:
        belfry.arm(bell, None)
    assert len(belfry.heap._heap) <= 2 * 1 + 64
    await asyncio.sleep(20)
    assert bells[0].rings == [10_099]
    assert sum(len(bell.rings) for bell in bells) == 1


async def test_alarms_that_come_back_to_the_same_times_again_and_again_do_not_have_the_heap_rebuilt_each_time(
    belfry: Belfry,
) -> None:
    """As broadcasts do: the expiry while a lookup is under way, then the next wave, then the expiry again."""
    bells = [belfry.bell(3_600_000) for _ in range(100)]
    rebuilds = 0

    def heapify(heap: list[Any]) -> None:
        nonlocal rebuilds
        rebuilds += 1
        original(heap)

    original = heapq.heapify
    with patch.object(heapq, "heapify", heapify):
        for n in range(50):
            for number, bell in enumerate(bells):
                belfry.arm(bell, 1_000 * n + number + 1)
                await asyncio.sleep(0.001)
                belfry.arm(bell, 3_600_000)
            await asyncio.sleep(0.9)
    assert all(len(bell.rings) == 50 for bell in bells)
    assert len(belfry.heap._heap) <= 2 * 100 + 64
    assert rebuilds < 2 * 100 * 50 / 100


async def test_a_wall_clock_that_jumps_ahead_is_noticed_within_a_second(belfry: Belfry) -> None:
    bell = belfry.bell(3_600_000)
    await asyncio.sleep(10.5)
    belfry.clock.step_ms = 3_600_000
    await asyncio.sleep(1)
    assert len(bell.rings) == 1


async def test_a_wall_clock_that_is_set_back_has_nothing_rung_early(belfry: Belfry) -> None:
    bell = belfry.bell(5_000)
    await asyncio.sleep(4.9)
    belfry.clock.step_ms = -60_000
    await asyncio.sleep(59)
    assert bell.rings == []
    await asyncio.sleep(2)
    assert bell.rings == [5_000]
    assert belfry.lateness_ms == [0]


async def test_once_stopped_it_rings_nothing_and_holds_no_timer(belfry: Belfry) -> None:
    bells = [belfry.bell(500)]
    belfry.heap.stop()
    bells.append(belfry.bell(100))
    await asyncio.sleep(5)
    assert [bell.rings for bell in bells] == [[], []]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.one_of(st.none(), st.integers(0, 500).map(lambda n: 10 * n + 5)),
            st.sampled_from([0, 0, 0.3, 1.0, 2.5]),
        ),
        max_size=60,
    )
)
def test_every_alarm_rings_at_what_it_was_last_armed_for_and_at_nothing_else(
    steps: list[tuple[int, int | None, float]],
) -> None:
    """Against a model: a bell rings if its time comes while it is still armed for it, at once if that has passed.

    No deadline falls on the end of a pause: which of the two came first would not be said.
    """

    async def run() -> None:
        belfry = Belfry()
        bells = [belfry.bell() for _ in range(5)]
        expected: list[list[int]] = [[] for _ in bells]
        armed: list[int | None] = [None] * len(bells)

        async def sleep(seconds: float) -> None:
            until_ms = belfry.clock.now_ms() - START_MS + round(seconds * 1000)
            for name, at_ms in enumerate(armed):
                if at_ms is not None and at_ms <= until_ms:
                    expected[name].append(max(at_ms, belfry.clock.now_ms() - START_MS))
                    armed[name] = None
            await asyncio.sleep(seconds)

        for name, at_ms, pause_s in steps:
            belfry.arm(bells[name], at_ms)
            armed[name] = at_ms
            assert len(belfry.heap) == sum(at_ms is not None for at_ms in armed)
            if pause_s:
                await sleep(pause_s)
        await sleep(10)
        assert [bell.rings for bell in bells] == expected

    on_virtual_time(run)
