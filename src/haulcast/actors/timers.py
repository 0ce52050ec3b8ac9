"""One heap of deadlines for all actors of a node.

1. An actor has at most one armed deadline: the earliest that its state has. Arming again replaces it.
2. Deadlines are absolute wall-clock times, because they come from durable state; the wall clock is looked at again at
   least every second, so a corrected clock is noticed.
3. Replaced entries stay in the heap until they surface or until they outnumber the live ones; then it is rebuilt.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

from haulcast.ports import Clock

_MAX_SLEEP_S = 1.0


class Alarm(Protocol):
    """What a deadline is armed for. `armed_at_ms` belongs to `Deadlines`; `ring` is called when the time has come."""

    armed_at_ms: int | None

    def ring(self) -> None:
        """The deadline has passed. Must not block or raise."""
        ...


class Deadlines:
    """Rings alarms at their times. `on_ring` is told how late each was, in milliseconds."""

    def __init__(self, clock: Clock, on_ring: Callable[[int], None]) -> None:
        self._clock = clock
        self._on_ring = on_ring
        self._heap: list[tuple[int, int, Alarm]] = []
        self._pushes = 0  # breaks ties, so that alarms are never compared
        self._armed = 0
        self._handle: asyncio.TimerHandle | None = None
        self._handle_at_ms = 0  # the deadline that `_handle` waits for
        self._stopped = False

    def __len__(self) -> int:
        """How many deadlines are armed."""
        return self._armed

    def arm(self, alarm: Alarm, at_ms: int | None) -> None:
        """Ring `alarm` at `at_ms` and no other time; None disarms it."""
        if alarm.armed_at_ms == at_ms:
            return
        self._armed += (at_ms is not None) - (alarm.armed_at_ms is not None)
        alarm.armed_at_ms = at_ms
        if at_ms is not None:
            self._pushes += 1
            heapq.heappush(self._heap, (at_ms, self._pushes, alarm))
        if len(self._heap) > 2 * self._armed + 64:
            live = {id(entry[2]): entry for entry in self._heap if entry[2].armed_at_ms == entry[0]}
            self._heap = list(live.values())  # one each, however often an alarm came back to the same time
            heapq.heapify(self._heap)
        if at_ms is not None and (self._handle is None or at_ms < self._handle_at_ms):
            self._schedule()

    def stop(self) -> None:
        """Ring nothing any more."""
        self._stopped = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._stopped or not self._heap:
            return
        self._handle_at_ms = self._heap[0][0]
        delay_s = (self._handle_at_ms - self._clock.now_ms()) / 1000
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(min(max(delay_s, 0), _MAX_SLEEP_S), self._fire)

    def _fire(self) -> None:
        self._handle = None
        now_ms = self._clock.now_ms()
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, _, alarm = heapq.heappop(self._heap)
            if alarm.armed_at_ms == at_ms:
                alarm.armed_at_ms = None
                self._armed -= 1
                self._on_ring(now_ms - at_ms)
                alarm.ring()
        self._schedule()
