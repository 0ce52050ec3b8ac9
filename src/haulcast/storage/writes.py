"""What journals derive in the same way from what they are given."""

from haulcast.domain.broadcast import Broadcast
from haulcast.domain.events import TruckAssigned
from haulcast.ports import Write


def check(write: Write) -> None:
    """Raise `ValueError` for a write that no actor may make: none of the outcomes would be true of it."""
    if write.state is None:
        if write.events:
            raise ValueError(f"write {write.write_id}: events without the state that they lead to")
        return
    if write.fence is None:
        raise ValueError(f"write {write.write_id}: a state without a fence")
    if write.state.seq != write.fence.seq + len(write.events) or write.state.seq == 0:
        step = f"from seq {write.fence.seq} to {write.state.seq}"
        raise ValueError(f"write {write.write_id}: {len(write.events)} events do not lead {step}")
    if (write.state.tenant_id, write.state.broadcast_id) != (write.tenant_id, write.broadcast_id):
        raise ValueError(f"write {write.write_id}: the state is of another broadcast")
    if sum(isinstance(event, TruckAssigned) for event in write.events) > 1:
        raise ValueError(f"write {write.write_id}: more than one assignment")


def next_deadline_at_ms(state: Broadcast) -> int | None:
    """When something is due next; None once the broadcast has ended."""
    return min(state.deadlines(), default=None)
