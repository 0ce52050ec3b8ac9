"""Tenants and their settings, as far as this node has needed them."""

from haulcast.domain.ids import TenantId
from haulcast.domain.settings import TenantSettings
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Journal


class Tenants:
    """Remembers every tenant that it was asked for: their number is bounded by the tokens that are valid.

    `create_on_sight`: in development a tenant comes into being when it is first named.
    """

    def __init__(self, journal: Journal, *, create_on_sight: bool) -> None:
        self._journal = journal
        self._create_on_sight = create_on_sight
        self._settings: dict[TenantId, TenantSettings] = {}

    async def settings_of(self, tenant_id: TenantId) -> TenantSettings:
        """The tenant's settings. Raises `RequestError(TENANT_NOT_FOUND)`."""
        known = self._settings.get(tenant_id)
        if known is None:
            known = await self._journal.read_tenant(tenant_id)
            if known is None and self._create_on_sight:
                await self._journal.create_tenant(tenant_id, TenantSettings())
                known = await self._journal.read_tenant(tenant_id)
            if known is None:
                raise RequestError(ErrorCode.TENANT_NOT_FOUND)
            self._settings[tenant_id] = known
        return known
