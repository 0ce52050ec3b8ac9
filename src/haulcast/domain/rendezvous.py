"""Highest random weight hashing (Thaler and Ravishankar, 1996): who of a changing group something falls to."""

from collections.abc import Collection
from hashlib import blake2b

from .ids import BroadcastId


def heir(broadcast_id: BroadcastId, nodes: Collection[int]) -> int:
    """To which of the nodes a broadcast falls. When one of them goes, only what fell to it falls to others."""
    return max(nodes, key=lambda node: blake2b(f"{broadcast_id} {node}".encode(), digest_size=8).digest())
