"""All that a schedule is judged by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from haulcast.ports import RequestKey, Write
from tests.sim.chronicle import Instruction, Landing, Request, WatchedJournal
from tests.sim.cluster_servers import Server
from tests.sim.world import World

Violations = Iterator[str]
"""What is wrong, in words."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that there is to judge by. Faults ended at `faults_end_s`; `bound_s` later all must be well."""

    world: World
    journal: WatchedJournal
    servers: Sequence[Server]
    requests: Mapping[RequestKey, Request]
    instructions: Mapping[RequestKey, Instruction]
    faults_end_s: float
    bound_s: float

    @property
    def landed(self) -> Iterator[Write]:
        """Every write that became durable, in order."""
        return (entry.write for entry in self.journal.book if isinstance(entry, Landing))
