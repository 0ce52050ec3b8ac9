"""How the nodes of a deployment are."""

from dataclasses import dataclass
from typing import Protocol

from haulcast.domain.ids import TenantId


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a node says of itself. `active_broadcasts` are live ones that it owns, of the tenant that was asked about;
    `lease_age_ms`: how long ago it renewed its lease, which lasts for `lease_ttl_ms`."""

    active_broadcasts: int
    lease_age_ms: int
    lease_ttl_ms: int
    loop_lag_ms: float
    draining: bool


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A live node, by its incarnation. `vitals` are None if it has not answered."""

    node: int
    vitals: Vitals | None = None


class Nodes(Protocol):
    """Asks all live nodes."""

    async def ask(self, tenant_id: TenantId | None) -> list[NodeStatus]:
        """All live nodes in the order of their incarnations, this one included; counts are of one tenant, or (None) of
        all. Takes as long as the slowest needs to answer, a second at most. Never raises."""
        ...
