"""How many requests each tenant's phones may make, as it is set just now."""

from haulcast.domain.ids import TenantId
from haulcast.domain.settings import TenantSettings
from haulcast.ports import Role

from .session import Limits, Rate

PHONES = frozenset({Role.CUSTOMER, Role.TRANSPORTER, Role.DRIVER})
"""Who is held to the tenant's rate. Operators, who may load a whole fleet, are held to the server's on a WebSocket."""


class Rates:
    """One `Rate` for each tenant, which all connections and calls of its phones share as their measure, so that a
    change reaches all of them at once. The server's own limits hold besides."""

    def __init__(self, limits: Limits) -> None:
        self._own = Rate(limits.requests_per_s, limits.burst_requests)
        self._rates: dict[TenantId, Rate] = {}

    def of(self, tenant_id: TenantId, role: Role, settings: TenantSettings) -> Rate:
        """What holds for users of that role; `settings` are those of the tenant, for whoever comes first."""
        if role not in PHONES:
            return self._own
        if tenant_id not in self._rates:
            self._rates[tenant_id] = Rate(*self._bounded(settings))
        return self._rates[tenant_id]

    def change(self, tenant_id: TenantId, settings: TenantSettings) -> None:
        """The settings have changed."""
        if (rate := self._rates.get(tenant_id)) is not None:
            rate.per_s, rate.burst = self._bounded(settings)

    def _bounded(self, settings: TenantSettings) -> tuple[float, int]:
        per_s, burst = self._own.per_s, self._own.burst
        return min(settings.requests_per_s or per_s, per_s), min(settings.request_burst or burst, burst)
