"""The stores without a disk and without a network: one process, and all is gone with it."""

from .cluster import MemoryCluster, MemoryStore
from .journal import MemoryJournal
from .presence import MemoryPresence

__all__ = ["MemoryCluster", "MemoryJournal", "MemoryPresence", "MemoryStore"]
