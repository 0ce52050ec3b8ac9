"""Every metric that haulcast exports, by name. A label never holds anything that a client chooses freely."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from . import __version__
from .actors.metrics import ActorMetrics
from .domain.routes import RouteFault
from .domain.snapshot import CLUSTERS
from .domain.states import EndReason
from .transport.meter import RequestMeter, Sum
from .transport.metrics import HubMetrics, TransportMetrics
from .transport.outgoing import BroadcastView

_FAST_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


disable_created_metrics()  # type: ignore[no-untyped-call]  # a second sample for every series, of no use here


class Metrics:
    """One node's metrics, in a registry of their own so that one process may run several nodes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # on Linux only; about 1 us for every open file
        self._gauge("build_info", "Always 1; which version this is.", "version").labels(__version__).set(1)
        self.actors = ActorMetrics(
            decisions=self._counter("decisions", "Commands decided and answered.", "command", "outcome"),
            trucks_requested=self._counter("trucks_requested", "Trucks that new broadcasts asked for."),
            trucks_assigned=self._counter("trucks_assigned", "Trucks that were won."),
            broadcasts_ended=self._counter("broadcasts_ended", "Broadcasts that ended.", "reason"),
            gate_wait_s=self._histogram("gate_wait_seconds", "From a decision to its durability.", _FAST_S),
            commit_batch_size=self._histogram("commit_batch_writes", "Writes per commit.", _SIZES),
            commit_latency_s=self._histogram("commit_latency_seconds", "Time to commit a batch.", _FAST_S),
            commit_failures=self._counter("commit_failures", "Batches that the journal could not take at once."),
            wave_fan_out=self._histogram("wave_offers", "Transporters offered at once.", _SIZES),
            timer_lateness_s=self._histogram("timer_lateness_seconds", "How late deadlines rang.", _FAST_S),
            mailbox_depth=self._histogram("mailbox_depth", "Messages left when one is taken.", (0, *_SIZES)),
            busy=self._counter("mailbox_full", "Commands refused because a mailbox was full."),
            actor_restarts=self._counter("actor_restarts", "Actors that died and were started anew."),
            quarantined=self._counter("messages_quarantined", "Messages that killed three actors."),
            lookup_failures=self._counter("lookup_failures", "Lookups of candidates that failed."),
            forwarded=self._counter("commands_forwarded", "Commands sent to the node that owns the broadcast."),
            moved=self._counter("commands_moved", "Forwarded commands whose broadcast had another owner."),
            control_s=self._histogram("control_seconds", "Until all nodes had answered a control command.", _FAST_S),
            control_silent=self._counter("control_unanswered", "Nodes that did not answer a control command in time."),
            control_healed=self._counter("control_healed", "Control commands that were missed and made good."),
            nodes_lost=self._counter("nodes_lost", "Other nodes that were given up."),
            taken_over=self._counter("broadcasts_taken_over", "Broadcasts claimed from nodes that are gone."),
            handed_over=self._counter("broadcasts_handed_over", "Broadcasts given to other nodes at a planned stop."),
            bus_sent=self._counter("bus_datagrams_sent", "Datagrams sent to other nodes."),
            bus_missed=self._counter("bus_missed", "Times that messages of other nodes were missed."),
        )
        self.transport = TransportMetrics(
            connections=self._gauge("connections", "WebSocket connections that have said hello."),
            requests=RequestMeter("haulcast_request", _FAST_S, self.registry),
            bad_frames=self._counter("bad_frames", "Frames refused before they were a request.", "code"),
            frames_sent=Sum("haulcast_frames_sent", "WebSocket frames written.", self.registry),
            bytes_sent=Sum("haulcast_bytes_sent", "Bytes of WebSocket frames written.", self.registry),
            closes=self._counter("closes", "WebSocket connections closed by the server.", "code"),
            slow_consumers=self._counter("slow_consumers", "Connections closed because the client did not keep up."),
        )
        for reason in EndReason:  # from 0 on: Prometheus sees no increase in what comes into being at 1
            self.actors.broadcasts_ended.labels(reason)
        self.ready = self._gauge("ready", "1 if the node should be sent clients, 0 if not.")
        self.transporters_online = self._gauge("transporters_online", "Transporters that came online here.")
        self.vehicles = self._gauge("vehicles", "Vehicles whose position this node was told lately.")
        self.hub = HubMetrics(
            deliveries=self._counter("deliveries", "Frames handed to connected recipients.", "kind"),
            drift=self._counter("board_drift", "Fields of boards that had to be put right.", "field"),
            rejected=self._counter("board_rejected", "Writes to boards that came too late.", "cluster"),
            routes_failed=self._counter("routes_failed", "Questions for routes that failed.", "reason"),
        )
        for field in BroadcastView.__struct_fields__:
            self.hub.drift.labels(field)
        for cluster in CLUSTERS:
            self.hub.rejected.labels(cluster)
        for fault in RouteFault:
            self.hub.routes_failed.labels(fault)
        self.board_broadcasts = self._gauge("board_broadcasts", "Broadcasts that this node's boards show.")
        self.topics = self._gauge("topics", "Topics with a subscriber.")
        self.live_actors = self._gauge("actors", "Broadcast actors.")
        self.armed_timers = self._gauge("timers", "Armed deadlines.")
        self.tasks = self._gauge("tasks", "Tasks on the event loop.")
        self.peers = self._gauge("peers", "Other nodes that are alive.")
        self.lease_left_s = self._gauge("lease_left_seconds", "For how long this node's lease is held.")
        self.datagrams_dropped = self._counter("bus_datagrams_dropped", "Datagrams that were not sent.")
        self.redis_commands = self._counter("redis_commands", "Commands sent to Redis.")
        self.loop_lag_s = self._histogram("loop_lag_seconds", "How late the event loop comes back.", _FAST_S)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"haulcast_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"haulcast_{name}", help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"haulcast_{name}", help_text, buckets=buckets, registry=self.registry)
