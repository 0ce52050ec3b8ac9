"""Frames to sockets: everything that one socket gets in one tick of the loop leaves in one write.

1. `Outbox.send` takes a finished frame (`codec.frame`) and only notes it. The node's `Flusher` writes at the end of the
   tick: `transport.write(b"".join(frames))`, once per socket.
2. A flush writes to at most `sockets_per_turn` sockets, then lets the loop do something else before it goes on.
3. What waits is bounded in bytes: the frames noted here and those that the transport has not got rid of. At the bound
   the socket is a slow consumer: its frames are dropped, nothing is taken any more, `on_overflow` is called once, from
   inside `send`; it must not change the collection that its caller is walking through.
4. While an outbox is held, frames are noted and bounded but not written; `release` lets them go, after a first one.
5. What yields (a board's deltas and snapshots, of which there may be many and large ones) is written only when the
   transport has got rid of everything, a chunk at a time. So on a slow connection what does not yield waits behind one
   chunk at most. Frames that yield keep their order. As long as nothing waits, all frames do.

The transport is the connection's own (see `upgrade`): nobody else writes to it.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from .metrics import TransportMetrics

log = structlog.get_logger(__name__)

SOCKETS_PER_TURN = 250
"""A write of 300 bytes or of 4 kB takes 7 to 9 us (measured, loopback): a turn is over in 2 to 3 ms."""


CHUNK_BYTES = 65_536
"""Of what yields, in one write; a larger frame is one by itself."""


class Flusher:
    """Writes what the node's outboxes have noted, once per tick of the loop. One for all sockets of a node."""

    def __init__(self, metrics: TransportMetrics, sockets_per_turn: int = SOCKETS_PER_TURN) -> None:
        self._metrics = metrics
        self._sockets_per_turn = sockets_per_turn
        self._waiting: deque[Outbox] = deque()  # each at most once: an outbox knows whether it is in here
        self._scheduled = False

    def schedule(self, outbox: "Outbox") -> None:
        """Have `outbox` flushed when the loop comes round."""
        self._waiting.append(outbox)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        for _ in range(min(self._sockets_per_turn, len(self._waiting))):
            self._waiting.popleft().flush()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._scheduled = False

    def count(self, frames: int, size_bytes: int) -> None:
        """So much has been written."""
        self._metrics.frames_sent.value += frames
        self._metrics.bytes_sent.value += size_bytes


def _nothing() -> None:
    pass


class Outbox:
    """What one socket is still to be sent."""

    __slots__ = (
        "_allowance_bytes",
        "_closed",
        "_flusher",
        "_frames",
        "_held",
        "_max_queued_bytes",
        "_on_overflow",
        "_queued_bytes",
        "_scheduled",
        "_transport",
        "_yielding",
        "_yielding_bytes",
    )

    def __init__(
        self, transport: asyncio.Transport, flusher: Flusher, max_queued_bytes: int, on_overflow: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._flusher = flusher
        self._max_queued_bytes = max_queued_bytes
        self._on_overflow = on_overflow
        self._allowance_bytes = 0  # the largest snapshot since nothing was waiting
        self._frames: list[bytes] = []
        self._queued_bytes = 0  # of _frames
        self._scheduled = False  # whether the flusher has it
        self._held = False
        self._closed = False
        self._yielding: deque[bytes] | None = None  # what waits until the transport has nothing left
        self._yielding_bytes = 0

    def send(self, frame: bytes, *, snapshot: bool = False, now: bool = False, yielding: bool = False) -> None:
        """Send a finished frame at the end of this tick; or `now`, with what waits before it, if nothing else is likely
        to follow; or, if it is `yielding`, when nothing else is left to be sent. Does nothing once it is closed.

        A snapshot is as large as what it shows, which says nothing of how fast the client reads: until everything has
        left, the bound is higher by the largest one.
        """
        if self._closed:
            return
        size_bytes = len(frame)
        unsent_bytes = self._transport.get_write_buffer_size()
        waiting_bytes = self._queued_bytes + self._yielding_bytes + unsent_bytes
        if not waiting_bytes:
            self._allowance_bytes = 0
        if snapshot and size_bytes > self._allowance_bytes:
            self._allowance_bytes = size_bytes
        if waiting_bytes + size_bytes > self._max_queued_bytes + self._allowance_bytes:
            on_overflow = self._on_overflow
            self.close()
            on_overflow()
            return
        if yielding and not self._held and (unsent_bytes or self._yielding):
            self._let_wait(frame)
            return
        self._frames.append(frame)
        self._queued_bytes += size_bytes
        if now:
            self.flush_now()
        elif not (self._scheduled or self._held):
            self._schedule()

    def hold(self) -> None:
        """Keep what is sent from now on until `release`."""
        self.flush_now()
        self._held = True

    def release(self, first: bytes, *, keep: bool = True) -> None:
        """Send `first`, and then what was held unless `keep` is false."""
        if not self._held:
            return
        self._held = False
        if self._closed:
            return
        self._frames = [first, *self._frames] if keep else [first]
        self._queued_bytes = sum(map(len, self._frames))
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._flusher.schedule(self)

    def flush(self) -> None:
        """Write what waits, when the flusher's turn has come."""
        self._scheduled = False
        self.flush_now()

    def flush_now(self) -> None:
        """Write what waits without waiting for the end of the tick."""
        frames, size_bytes = self._frames, self._queued_bytes
        if not frames or self._held:
            return
        self._frames, self._queued_bytes = [], 0
        if self._transport.is_closing():
            return
        try:
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        except Exception as error:  # one broken socket must not keep the others from being written to
            log.warning("socket_write_failed", error=type(error).__name__)
            self._transport.abort()
        else:
            self._flusher.count(len(frames), size_bytes)

    def drained(self) -> None:
        """The transport has got rid of everything: write of what yields as much as leaves at once, and a chunk more."""
        waiting = self._yielding
        while waiting and not self._transport.get_write_buffer_size():
            chunk = waiting.popleft()
            while waiting and len(chunk) + len(waiting[0]) <= CHUNK_BYTES:
                chunk += waiting.popleft()
            self._yielding_bytes -= len(chunk)
            self._frames.append(chunk)
            self._queued_bytes += len(chunk)
            self.flush_now()

    def _let_wait(self, frame: bytes) -> None:
        if self._yielding is None:
            self._yielding = deque()
        self._yielding.append(frame)
        self._yielding_bytes += len(frame)
        self._transport.set_write_buffer_limits(0)  # so that `drained` is called when there is nothing left

    def close(self) -> None:
        """Drop what waits and take nothing more."""
        self._closed = True
        self._on_overflow = _nothing  # nor hold whom it would be told
        self._frames, self._queued_bytes = [], 0
        self._yielding, self._yielding_bytes = None, 0
