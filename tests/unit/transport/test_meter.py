"""What prometheus_client would have exported, without its locks."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from haulcast.transport.meter import RequestMeter, Sum

BUCKETS_S = (0.001, 0.01, 1)


def exported(registry: CollectorRegistry) -> set[str]:
    """The lines, but for those on when a series was created."""
    return {line for line in generate_latest(registry).decode().splitlines() if "_created" not in line}


def test_requests_are_exported_as_prometheus_client_exports_its_own() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    meter = RequestMeter("haulcast_request", BUCKETS_S, ours)
    requests = Counter(
        "haulcast_requests", "Requests answered, over WebSocket and REST.", ["type", "outcome"], registry=theirs
    )
    latency = Histogram(
        "haulcast_request_latency_seconds",
        "From a request to its answer.",
        ["type"],
        buckets=BUCKETS_S,
        registry=theirs,
    )
    for request_type, outcome, latency_s in [
        ("ping", "ok", 0.0005),
        ("ping", "ok", 0.001),
        ("ping", "BUSY", 0.5),
        ("hello", "ok", 7.0),
    ]:
        meter.observe(request_type, outcome, latency_s)
        requests.labels(request_type, outcome).inc()
        latency.labels(request_type).observe(latency_s)
    meter.count("http", "BAD_REQUEST")
    requests.labels("http", "BAD_REQUEST").inc()
    assert exported(ours) == exported(theirs)
    assert meter.value("ping", "ok") == 2


def test_a_sum_is_exported_as_a_counter() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    total = Sum("haulcast_frames_sent", "Frames.", ours)
    total.value += 3
    Counter("haulcast_frames_sent", "Frames.", registry=theirs).inc(3)
    assert exported(ours) == exported(theirs)
