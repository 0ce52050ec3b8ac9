"""What a run came to: the one JSON object, and the same in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .checker import Verdict
from .record import Recorder


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run. `leaks` is what the server has more of than before the city came; `failover` what was measured of
    nodes that died and stopped, if it was."""

    verdict: Verdict
    recorder: Recorder
    leaks: Mapping[str, int]
    failover: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def fine(self) -> bool:
        """Whether every invariant held and nothing leaked."""
        return not self.verdict.violations and not any(self.leaks.values())

    def plain(self) -> dict[str, Any]:
        """The JSON object."""
        verdict, recorder = self.verdict, self.recorder
        return {
            "broadcasts_created": sum(verdict.statuses.values()),
            "fully_filled": verdict.statuses.get("fully_filled", 0),
            "expired": verdict.statuses.get("expired", 0),
            "cancelled": verdict.statuses.get("cancelled", 0),
            "accepts_won": recorder.accepts_won,
            "accepts_lost": recorder.accepts_lost,
            "double_assignments": verdict.double_assignments,
            "offers_delivered": recorder.offers_delivered,
            "accept_latency_ms": {"p50": recorder.latency_ms(0.5), "p99": recorder.latency_ms(0.99)},
            "leaks": dict(self.leaks),
            **self.failover,
            **self._control(),
            "violations": [str(violation) for violation in verdict.violations],
        }

    def _control(self) -> dict[str, Any]:
        """How the operator's commands were followed, if there were any."""
        recorder = self.recorder
        if not recorder.commands:
            return {}
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        return {
            "control": {
                "rounds": sum(command.command == "resume" for command in recorder.commands),
                "commands": len(recorder.commands),
                "complete": sum(command.complete for command in recorder.commands),
                "creates_paused": recorder.creates_paused,
                "accepts_waited": recorder.accepts_waited,
            },
            "control_ms": {name: recorder.control_ms(share) for name, share in shares.items()},
            "followed_ms": {name: recorder.followed_ms(share) for name, share in shares.items()},
        }

    def lines(self) -> list[str]:
        """The same for people."""
        plain = self.plain()
        latency = plain["accept_latency_ms"]
        lines = [
            f"broadcasts  {plain['broadcasts_created']}: {plain['fully_filled']} filled, {plain['expired']} expired, "
            f"{plain['cancelled']} cancelled",
            f"offers      {plain['offers_delivered']} delivered",
            f"accepts     {plain['accepts_won']} won, {plain['accepts_lost']} lost, "
            f"p50 {_ms(latency['p50'])}, p99 {_ms(latency['p99'])}",
            *_control_line(plain),
            f"leaks       {', '.join(f'{count} {what}' for what, count in self.leaks.items())}",
        ]
        if self.verdict.violations:
            total = sum(self.verdict.counts.values())
            lines += [f"violations  {total}", *(f"  {violation}" for violation in self.verdict.violations)]
        else:
            lines.append("invariants  all held: no truck, vehicle or driver was assigned twice, nothing was lost")
        return lines


def _control_line(plain: Mapping[str, Any]) -> list[str]:
    if "control" not in plain:
        return []
    counts, took = plain["control"], plain["control_ms"]
    return [
        f"control     {counts['commands']} commands in {counts['rounds']} rounds, {counts['complete']} followed by all "
        f"nodes, p50 {_ms(took['p50'])}, p99 {_ms(took['p99'])}, max {_ms(took['max'])}",
        f"            {counts['creates_paused']} broadcasts refused while paused, {counts['accepts_waited']} accepts "
        "waited for a decision",
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
