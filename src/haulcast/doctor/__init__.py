"""`haulcast doctor`: what is configured, what is reachable, what is missing. It changes nothing."""

from .examine import examine

__all__ = ["examine"]
