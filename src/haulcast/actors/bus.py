"""Messages between nodes, over the datagrams of the cluster.

1. What is sent to one node within one tick of the event loop leaves as one datagram, whatever it holds: a PUBLISH
   costs its sender 57 us of CPU (measured), a message within one next to nothing.
2. A datagram is `(format, sender, number, [(kind, payload), ...])`, and numbers count per sender and receiver from 1.
   A number that is skipped means that something was missed, and one that was seen means a repetition.
3. Nobody sends anything again: whoever waits for an answer asks again, and who has missed news reads the journal.
4. `tip` sends an empty message every now and then, so that the loss of the last one is noticed too.
5. Nothing that a node says counts any more once it has been `silence`d: a datagram that was held up on the way must not
   undo what was read since.
6. What is said before a node is met is not said to it. So whoever meets it leaves out a number and sends a tip, and
   the node finds that it has missed something. It met the others before it had clients, and leaves out none.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import msgspec
import structlog
from prometheus_client import Counter

from haulcast.ports import Cluster, Kind

FORMAT = 1
_MAX_DATAGRAM_BYTES = 1 << 20

_NEVER = 2**63
"""No datagram has so high a number."""

log = structlog.get_logger()

Handler = Callable[[int, bytes], None]
"""Takes a message: its sender and its payload. Must not block. Raises `msgspec.MsgspecError` if it cannot read that."""


class _Datagram(msgspec.Struct, array_like=True):
    format: int
    sender: int
    number: int
    messages: list[tuple[str, bytes]]


_decoder = msgspec.msgpack.Decoder(_Datagram)
_encoder = msgspec.msgpack.Encoder()


class NodeBus:
    """`Bus` of one node. `sent` counts datagrams; `missed` counts how often something was missed."""

    def __init__(self, cluster: Cluster, sent: Counter, missed: Counter) -> None:
        self._cluster = cluster
        self._sent = sent
        self._missed = missed
        self.me = 0
        """This node's incarnation."""
        self.peers: frozenset[int] = frozenset()
        """The live nodes but this one."""
        self._handlers: dict[Kind, Handler] = {}
        self._on_missed: Callable[[], None] = lambda: None
        self._on_peers: Callable[[], None] = lambda: None
        self._waiting: defaultdict[int, list[tuple[str, bytes]]] = defaultdict(list)
        self._flush_is_due = False
        self._last_sent: defaultdict[int, int] = defaultdict(int)  # the last number, by receiver
        self._last_seen: defaultdict[int, int] = defaultdict(int)  # by sender; incarnations never come again

    @property
    def strangers(self) -> frozenset[int]:
        """Those of `peers` that have not said anything yet, and may not have met this node."""
        return self.peers - self._last_seen.keys()

    def handle(self, kind: Kind, handler: Handler) -> None:
        """Have messages of one kind handed to `handler`."""
        self._handlers[kind] = handler

    def on_missed(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when messages were missed."""
        self._on_missed = callback

    def on_peers(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when somebody has come to `peers`, or gone from them."""
        self._on_peers = callback

    async def listen(self, incarnation: int) -> None:
        """Be `incarnation` from now on. Raises `ClusterUnavailable`."""
        self._last_sent.clear()
        self._last_seen.clear()
        await self._cluster.listen(incarnation, self._receive, self._interrupted)
        self.me = incarnation

    def meet(self, peers: frozenset[int]) -> None:
        """These are there now; some of them may have been for a while."""
        for peer in peers - self.peers:
            self._last_sent[peer] += 1  # stands for all that the others were told and this one was not
            self.send(peer, Kind.TIP, b"")
        if peers != self.peers:
            self.peers = peers
            self._on_peers()

    def silence(self, peer: int) -> None:
        """Take no notice of a node from now on, also of what it has said already and is still on its way. Incarnations
        never come again."""
        self._last_seen[peer] = _NEVER

    def send(self, to: int, kind: Kind, payload: bytes) -> None:
        """See `Bus`."""
        self._waiting[to].append((kind, payload))
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """See `Bus`."""
        for peer in self.peers:
            self.send(peer, kind, payload)

    def tip(self) -> None:
        """Let every peer see whether it has missed something."""
        self.broadcast(Kind.TIP, b"")

    def _flush(self) -> None:
        self._flush_is_due = False
        waiting, self._waiting = self._waiting, defaultdict(list)
        for to, messages in waiting.items():
            start = size = 0
            for end, (_, payload) in enumerate(messages):
                if size and size + len(payload) > _MAX_DATAGRAM_BYTES:
                    self._post(to, messages[start:end])
                    start, size = end, 0
                size += len(payload)
            self._post(to, messages[start:])

    def _post(self, to: int, messages: list[tuple[str, bytes]]) -> None:
        self._last_sent[to] += 1
        self._cluster.post(to, _encoder.encode(_Datagram(FORMAT, self.me, self._last_sent[to], messages)))
        self._sent.inc()

    def _receive(self, data: bytes) -> None:
        try:
            datagram = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            log.warning("bad_datagram", error=str(error))
            return
        expected = self._last_seen[datagram.sender] + 1
        if datagram.format != FORMAT or datagram.number < expected:
            return
        self._last_seen[datagram.sender] = datagram.number
        if datagram.number > expected:
            self._interrupted()
        for kind, payload in datagram.messages:
            handler = self._handlers.get(kind)  # type: ignore[call-overload]  # a kind of a later version is no Kind
            if handler is None:
                continue
            try:
                handler(datagram.sender, payload)
            except msgspec.MsgspecError as error:
                log.warning("bad_message", kind=kind, sender=datagram.sender, error=str(error))

    def _interrupted(self) -> None:
        self._missed.inc()
        self._on_missed()
