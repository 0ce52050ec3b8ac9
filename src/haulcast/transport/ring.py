"""The last steps of a topic, for clients that come back and lack only a few of them.

Steps follow on one another. Where one does not (the topic was read again, or counts under a new epoch), those before it
are of no use and go.
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from .topics import TopicVersion, delta_frame, event_frame

MAX_STEPS = 32
"""Of one topic. One takes about 300 bytes: what is the same for many topics is one object."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """A delta from one version to the next, and the events that are told after it, by name and data. The delta comes in
    pieces, as those who get the same share the first."""

    since: TopicVersion
    version: TopicVersion
    now_ms: int
    delta: tuple[bytes, ...]
    events: Sequence[tuple[bytes, bytes]] = ()

    def frames(self, label: bytes) -> bytes:
        """As finished frames of the topic `label`."""
        delta = delta_frame(label, self.since, self.version, self.now_ms, b"".join(self.delta))
        if not self.events:
            return delta
        return delta + b"".join(event_frame(label, self.version, self.now_ms, *event) for event in self.events)


class Ring:
    """The last `MAX_STEPS` steps that follow on one another."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: deque[Step] | None = None  # most topics of most phones never have one

    def __len__(self) -> int:
        return len(self._steps or ())

    def add(self, step: Step) -> None:
        """The topic has taken a step."""
        if self._steps is None:
            self._steps = deque(maxlen=MAX_STEPS)
        elif self._steps and self._steps[-1].version != step.since:
            self._steps.clear()
        self._steps.append(step)

    def between(self, held: TopicVersion, version: TopicVersion) -> list[Step] | None:
        """The steps from `held` to `version`, which is the topic's own; None if they are not all here."""
        if held == version:
            return []
        steps = list(self._steps or ())
        if not steps or steps[-1].version != version:
            return None
        for number, step in enumerate(steps):
            if step.since == held:
                return steps[number:]
        return None
