"""Adapters of `RouteSource`. They know ports, domain and errors, and nothing else of the project."""

from .bounded import BoundedRoutes
from .great_circle import GreatCircleRoutes
from .osrm import OsrmRoutes

__all__ = ["BoundedRoutes", "GreatCircleRoutes", "OsrmRoutes"]
