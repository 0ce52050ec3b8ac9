"""What transport counts. The names that operators see are given in `haulcast.metrics`."""

from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from .meter import RequestMeter, Sum


@dataclass(frozen=True, slots=True)
class TransportMetrics:
    """Metrics of the edge, made by `haulcast.metrics`."""

    connections: Gauge
    """WebSocket connections that have said hello and are not closed."""
    requests: RequestMeter
    bad_frames: Counter
    """Frames refused before they were a request. Label `code`."""
    frames_sent: Sum
    bytes_sent: Sum
    closes: Counter
    """WebSocket connections that this side closed. Label `code`."""
    slow_consumers: Counter
    """Connections closed because their client did not keep up."""


@dataclass(frozen=True, slots=True)
class HubMetrics:
    """Metrics of the hub, made by `haulcast.metrics`."""

    deliveries: Counter
    """Frames handed to connected recipients. Label `kind`."""
    drift: Counter
    """What boards had to have put right, as news of it had been lost. Label `field`."""
    rejected: Counter
    """Writes to boards that were older than what stood. Label `cluster`."""
    routes_failed: Counter
    """Questions for routes that failed. Label `reason`."""
