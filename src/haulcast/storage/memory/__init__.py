"""The journal without a disk."""

from .journal import MemoryJournal

__all__ = ["MemoryJournal"]
