"""What the parts of haulcast ask of each other, and what they may rely on.

    transport --Dispatcher, Availability, Controller--> actors --Journal, Presence, Cluster, Clock--> storage
    actors --Publisher, ControlListener--> transport --Bus--> actors
    transport --Journal, Presence--> storage, --RouteSource--> routing

Actors, transport, storage and routing know these protocols and the domain, and nothing of one another; `app` wires
them.
"""

from .clock import Clock
from .cluster import Bus, Cluster, Kind, Member, Standing
from .control import Controller, ControlListener, ControlState
from .dispatch import Availability, Change, Dispatcher, Publisher
from .journal import (
    Claim,
    Conflict,
    ControlRecord,
    Duplicate,
    Fence,
    Fenced,
    FleetConflict,
    Journal,
    Landed,
    LoggedReply,
    Origin,
    Outcome,
    Ownership,
    RequestKey,
    Role,
    Stale,
    Stored,
    Write,
)
from .nodes import Nodes, NodeStatus, Vitals
from .presence import LAPSED_KEPT_S, MAX_POSITIONS, Nearby, Presence
from .routes import MAX_ORIGINS, RouteSource

__all__ = [
    "LAPSED_KEPT_S",
    "MAX_ORIGINS",
    "MAX_POSITIONS",
    "Availability",
    "Bus",
    "Change",
    "Claim",
    "Clock",
    "Cluster",
    "Conflict",
    "ControlListener",
    "ControlRecord",
    "ControlState",
    "Controller",
    "Dispatcher",
    "Duplicate",
    "Fence",
    "Fenced",
    "FleetConflict",
    "Journal",
    "Kind",
    "Landed",
    "LoggedReply",
    "Member",
    "Nearby",
    "NodeStatus",
    "Nodes",
    "Origin",
    "Outcome",
    "Ownership",
    "Presence",
    "Publisher",
    "RequestKey",
    "Role",
    "RouteSource",
    "Stale",
    "Standing",
    "Stored",
    "Vitals",
    "Write",
]
