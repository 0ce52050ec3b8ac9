"""What operators ask of a running deployment."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from haulcast.domain.control import ControlCommand, TenantControl
from haulcast.domain.ids import TenantId
from haulcast.domain.replies import Reply

from .journal import Origin


@dataclass(frozen=True, slots=True)
class ControlState:
    """What is in force for a tenant, and which version of it each live node is known to have in force."""

    control: TenantControl
    nodes: Mapping[int, int]


class Controller(Protocol):
    """Carries operators' commands to all nodes. Every command is recorded before anybody is told of it, and done once
    however often it comes under the same id."""

    async def carry_out(
        self, tenant_id: TenantId, command: ControlCommand, origin: Origin, expected_version: int | None
    ) -> Reply:
        """Put a command in force on every live node. The reply tells how each of them answered; whoever has not within
        5 s is told of as silent, and will follow. Raises `RequestError` TENANT_NOT_FOUND, VERSION_MISMATCH,
        BUSY; `InvalidSetting`; `JournalUnavailable`."""
        ...

    async def drain(self, node: int, origin: Origin) -> Reply:
        """Have a node hand over its broadcasts and stop. Raises `RequestError` NODE_NOT_FOUND, LAST_NODE;
        `JournalUnavailable`."""
        ...

    async def state_of(self, tenant_id: TenantId) -> ControlState:
        """What is known here; whoever has not been heard of yet is asked. Raises `RequestError` TENANT_NOT_FOUND,
        `JournalUnavailable`."""
        ...


class ControlListener(Protocol):
    """Is told what changes on this node. Nothing here blocks."""

    @property
    def watched(self) -> Collection[TenantId]:
        """The tenants of which somebody at this node looks on how nodes follow."""
        ...

    def control_changed(self, tenant_id: TenantId, before: TenantControl, after: TenantControl) -> None:
        """This is in force for new work from now on, and soon in every actor."""
        ...

    def state_changed(self, tenant_id: TenantId, state: ControlState) -> None:
        """This is in force now, and these nodes have come to it."""
        ...
