"""The bus of a node that is alone."""

from haulcast.ports import Kind


class NoPeers:
    """A `Bus` that leads nowhere."""

    me = 0
    peers: frozenset[int] = frozenset()

    def send(self, to: int, kind: Kind, payload: bytes) -> None:
        """See `Bus`."""

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """See `Bus`."""
