"""haulcast, a realtime dispatch server: a haul is broadcast, many race for each truck, exactly one wins."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("haulcast")
