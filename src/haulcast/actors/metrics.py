"""What the actors count. The names that operators see are given in `haulcast.metrics`."""

from dataclasses import dataclass

from prometheus_client import Counter, Histogram


@dataclass(frozen=True, slots=True)
class ActorMetrics:
    """Metrics of the actor runtime, made by `haulcast.metrics`."""

    decisions: Counter
    """Labels `command`, `outcome` (a refusal's code, or ok)."""
    trucks_requested: Counter
    trucks_assigned: Counter
    broadcasts_ended: Counter
    """Label `reason`, an `EndReason`."""
    gate_wait_s: Histogram
    """From decision to durability."""
    commit_batch_size: Histogram
    commit_latency_s: Histogram
    commit_failures: Counter
    wave_fan_out: Histogram
    """Transporters offered per wave."""
    timer_lateness_s: Histogram
    mailbox_depth: Histogram
    """Messages waiting when one is taken."""
    busy: Counter
    """Messages refused by a full mailbox."""
    actor_restarts: Counter
    quarantined: Counter
    lookup_failures: Counter
    forwarded: Counter
    """Commands sent to another node."""
    moved: Counter
    """Answers that named another owner."""
    control_s: Histogram
    """From the record of an operator's command until every node has answered, or the time was up."""
    control_silent: Counter
    """Nodes that have not answered a command in time."""
    control_healed: Counter
    """Commands that this node had missed."""
    nodes_lost: Counter
    """Nodes that this one has seen given up."""
    taken_over: Counter
    """Broadcasts claimed from nodes that are gone, or overdue."""
    handed_over: Counter
    """Broadcasts given away at a planned stop."""
    bus_sent: Counter
    """Datagrams to other nodes."""
    bus_missed: Counter
    """How often messages of another node were missed."""
