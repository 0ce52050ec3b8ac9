"""What is in force for each tenant on this node, as far as it has been needed."""

from collections.abc import Mapping

from haulcast.domain.control import TenantControl
from haulcast.domain.ids import TenantId
from haulcast.domain.settings import TenantSettings
from haulcast.errors import ErrorCode, RequestError
from haulcast.ports import Journal


class Tenants:
    """Remembers every tenant that it was asked for: their number is bounded by the tokens that are valid.

    `create_on_sight`: in development a tenant comes into being when it is first named. What is remembered changes by
    `learn` alone, and never to an older version.
    """

    def __init__(self, journal: Journal, *, create_on_sight: bool) -> None:
        self._journal = journal
        self._create_on_sight = create_on_sight
        self._known: dict[TenantId, TenantControl] = {}

    @property
    def known(self) -> Mapping[TenantId, TenantControl]:
        """What is remembered."""
        return self._known

    async def control_of(self, tenant_id: TenantId) -> TenantControl:
        """What is in force here. Raises `RequestError(TENANT_NOT_FOUND)`, `JournalUnavailable`."""
        known = self._known.get(tenant_id)
        if known is None:
            read = await self.read(tenant_id)
            known = self._known.setdefault(tenant_id, read)
        return known

    async def read(self, tenant_id: TenantId) -> TenantControl:
        """What the journal says. Raises `RequestError(TENANT_NOT_FOUND)`, `JournalUnavailable`."""
        control = await self._journal.read_tenant(tenant_id)
        if control is None and self._create_on_sight:
            await self._journal.create_tenant(tenant_id, TenantSettings())
            control = await self._journal.read_tenant(tenant_id)
        if control is None:
            raise RequestError(ErrorCode.TENANT_NOT_FOUND)
        return control

    def learn(self, tenant_id: TenantId, control: TenantControl) -> bool:
        """Have `control` in force from now on, unless what is remembered is as new. Whether it was newer."""
        known = self._known.get(tenant_id)
        if known is not None and known.version >= control.version:
            return False
        self._known[tenant_id] = control
        return True
